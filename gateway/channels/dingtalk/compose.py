"""The gateway's own words → what DingTalk takes. Pure."""

from __future__ import annotations

import json
import re

from gateway.channels.dingtalk.parse import Raw
from gateway.messages import Mention, Outbound

BODY_BYTES = 20_000
"""The session webhook refuses a longer JSON body with errcode 460101 (DingTalk's answer text, seen 2023-12)."""
PARAM_BYTES = 15_000
"""`msgParam` of an OpenAPI send may be no longer (help.dingtalk.io, “the robot sends a group message”, 2026)."""
PIECE_BYTES = 7_200
"""What one piece may hold so that it surely fits both: JSON escaping at worst doubles every byte, title and mention take the rest."""
NAME_CHARS = 40
TITLE_CHARS = 24
"""The title is only seen as the preview in the list of conversations and in the notification."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LINK_TARGET = re.compile(r"\]\([^)\s]*\)")
_MARKS = re.compile(r"[#>*_`~|\[\]!]+")
_BLOCK_START = re.compile(r"\s|[#>|`~+*-]|\d+[.)]|!\[|<")
_ENCRYPTED_ID = "$:LWCP"
"""Ids of people without a staff id begin so: outside the organisation, or a legacy robot."""


def compose_message(outbound: Outbound, *, keyword: str = "") -> Raw:
    """The body for a webhook: one markdown message, in a group with a mention that really rings. A missing `keyword` is added below."""
    text = _CONTROL.sub("", outbound.text)
    text = text if keyword in text else f"{text}\n\n{keyword}"
    mention = outbound.mention if outbound.address.in_group else None
    body: dict[str, object] = {"msgtype": "markdown", "markdown": {"title": _title(text), "text": _called(mention, text)}}
    if mention and mention.id:
        body["at"] = {"atDingtalkIds" if mention.id.startswith(_ENCRYPTED_ID) else "atUserIds": [mention.id], "isAtAll": False}
    return body


def compose_sample(outbound: Outbound) -> Raw:
    """`msgKey` and `msgParam` for an OpenAPI send. Such a send rings nobody's phone, so a mention is only the name."""
    text = _CONTROL.sub("", outbound.text)
    name = outbound.mention.name[:NAME_CHARS] if outbound.mention and outbound.address.in_group else ""
    param = {"title": _title(text), "text": _before(f"@{name}", text) if name else text}
    return {"msgKey": "sampleMarkdown", "msgParam": encoded(param).decode()}


def is_staff_id(person: str) -> bool:
    """Whether DingTalk lets us write to this person without being asked: only to members of the organisation."""
    return bool(person) and not person.startswith(_ENCRYPTED_ID)


def compose_ack(message_id: str, data: str = '{"response": null}', *, code: int = 200) -> str:
    """The frame that tells DingTalk a frame was taken. `code`: 200, or 404 for a topic nobody here reads."""
    headers = {"contentType": "application/json", "messageId": message_id}
    return json.dumps({"code": code, "headers": headers, "message": "OK" if code == 200 else "not subscribed", "data": data})


def encoded(body: Raw) -> bytes:
    """JSON in UTF-8 without needless escapes, because DingTalk counts bytes."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _called(mention: Mention | None, text: str) -> str:
    """For markdown nobody is notified unless the text itself says `@` and the same id that stands in `at`."""
    name = mention and (mention.id or mention.name)
    if not name:
        return text
    return _before(f"@{name}", text)


def _before(call: str, text: str) -> str:
    return f"{call}\n\n{text}" if _BLOCK_START.match(text) else f"{call} {text}"


def _title(text: str) -> str:
    """The first words, without marks; DingTalk refuses an empty title."""
    for line in text[:1_000].splitlines():
        words = " ".join(_MARKS.sub(" ", _LINK_TARGET.sub("]", line)).split())
        if any(char.isalnum() for char in words):
            return words if len(words) <= TITLE_CHARS else words[: TITLE_CHARS - 1] + "…"
    return "…"
