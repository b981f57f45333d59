"""The gateway's own words → what WeCom takes. Pure."""

from __future__ import annotations

import hashlib
import json
import re

from gateway.channels.wecom_bot.parse import Raw
from gateway.messages import Address

SUBSCRIBE, PING = "aibot_subscribe", "ping"
RESPOND, WELCOME, SEND = "aibot_respond_msg", "aibot_respond_welcome_msg", "aibot_send_msg"
PIECE_BYTES = 20_000
"""A stream's content may have 20 480 bytes (WeCom's document 101463, 2026-04-01); a little is kept back."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def compose_frame(cmd: str, req_id: str, body: Raw | None = None) -> str:
    frame = {"cmd": cmd, "headers": {"req_id": req_id}}
    return json.dumps(frame if body is None else {**frame, "body": body}, ensure_ascii=False).encode("utf-8", "replace").decode()


def compose_subscription(bot_id: str, secret: str) -> Raw:
    return {"bot_id": bot_id, "secret": secret}


def compose_stream(key: str, text: str, *, finish: bool) -> Raw:
    """All that is to be seen of an answer now. Frames with the same `key` change the same message."""
    return {"msgtype": "stream", "stream": {"id": stream_id(key), "finish": finish, "content": _shown(text)}}


def compose_markdown(address: Address, text: str) -> Raw:
    """A message of its own, answering none; WeCom refuses plain text here."""
    chat_type = 2 if address.in_group else 1
    return {"chatid": address.chat, "chat_type": chat_type, "msgtype": "markdown", "markdown": {"content": _shown(text)}}


def compose_welcome(text: str) -> Raw:
    return {"msgtype": "text", "text": {"content": _shown(text)}}


def stream_id(key: str) -> str:
    """The same before and after a restart."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:32]


def _shown(text: str) -> str:
    return _CONTROL.sub("", text)
