"""The gateway's words → the XML of a passive reply. Pure."""

from __future__ import annotations

from typing import get_args

from gateway.channels.official_account.envelope import cdata
from gateway.messages import Lang
from gateway.wording import say

ACK = "success"
"""Ends an exchange without words; never encrypted."""
MAX_REPLY_BYTES = 2048
"""WeChat cuts or refuses longer texts (older 被动回复 page; the current one is silent), counted in UTF-8."""


def text_reply(*, to_user: str, from_user: str, created: str, text: str) -> str:
    """A text reply. `created` is the CreateTime of the message it answers: so the same answer is always the same bytes."""
    return (
        f"<xml><ToUserName>{cdata(to_user)}</ToUserName><FromUserName>{cdata(from_user)}</FromUserName>"
        f"<CreateTime>{int(created)}</CreateTime><MsgType><![CDATA[text]]></MsgType><Content>{cdata(text)}</Content></xml>"
    )


def with_hint(text: str, *, more: bool, lang: Lang) -> str:
    """`text`, and when more waits to be asked for, the line that says so."""
    return f"{text}\n{say('more', lang)}" if more else text


def hint_bytes() -> int:
    """How many UTF-8 bytes `with_hint` adds at most."""
    return max(len(with_hint("", more=True, lang=lang).encode()) for lang in get_args(Lang))
