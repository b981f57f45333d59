"""What the gateway says → the message that Tencent's bot API takes. Pure."""

from __future__ import annotations

import hashlib

from gateway.channels.wechat.ilink_wire import Raw
from gateway.messages import Lang, Outbound
from gateway.wording import say

MAX_CHARS = 1_800
"""The API takes 4,000 characters and says nothing; the phone shows 2,000 (hermes-agent#16411, LangBot). 200 are our margin."""
_FROM_BOT, _FINISHED, _TEXT = 2, 2, 1


def hint_chars() -> int:
    """What the longest hint adds to a piece."""
    return max(len(_hint(lang)) for lang in ("zh", "en")) + 1


def compose(outbound: Outbound) -> str:
    """The text to send, with a hint below it when more waits for the person's word."""
    text = outbound.text.encode("utf-8", "replace").decode()  # no lone surrogates
    return f"{text}\n{_hint(outbound.lang)}" if outbound.more and text.strip() else text


def more_waits(lang: Lang) -> str:
    """The last message of a used-up window."""
    return _hint(lang)


def message(*, to: str, text: str, context_token: str, key: str) -> Raw:
    """One text message. `key` makes its client_id, so a repeated send can be recognised."""
    return {
        "from_user_id": "",
        "to_user_id": to,
        "client_id": f"gw-{hashlib.sha256(key.encode(errors='replace')).hexdigest()[:32]}",
        "message_type": _FROM_BOT,
        "message_state": _FINISHED,
        "item_list": [{"type": _TEXT, "text_item": {"text": text}}],
        "context_token": context_token,
    }


def _hint(lang: Lang) -> str:
    return say("more", lang)
