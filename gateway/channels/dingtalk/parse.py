"""What DingTalk sends → the gateway's own words. Pure and tolerant: fields come, go and change type without a word in the documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from gateway.messages import Address, Inbound, Part, Quote, ReplyTicket, Text, Unsupported

BOT_MESSAGES = "/v1.0/im/bot/messages/get"
"""Topic of messages to the bot (open-dingtalk developerpedia, protocol page, 2026-11)."""
QUOTE_CHARS = 2_000
"""A quoted message is context, not the question; more of it only crowds the window."""

Raw: TypeAlias = Mapping[str, object]

_LEADING_CALL = re.compile(r"^\s*@\S+\s*")
_GROUP = "2"


class Unreadable(ValueError):
    """This cannot be read as what it should be. The text says why and never quotes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame of a Stream connection."""

    kind: str
    """SYSTEM, EVENT or CALLBACK."""
    topic: str
    message_id: str
    data: str
    """JSON text exactly as it came; a ping wants it back unchanged."""


def parse_frame(text: str | bytes) -> Frame:
    """Raises Unreadable unless `text` is a JSON object with headers."""
    frame = as_object(text)
    headers = as_object(frame.get("headers"))
    if not headers:
        raise Unreadable("not a JSON object with headers")
    data = frame.get("data")
    return Frame(
        kind=_word(frame, "type"),
        topic=_word(headers, "topic"),
        message_id=_word(headers, "messageId"),
        data=data if isinstance(data, str) else json.dumps(data),
    )


def parse_message(raw: Raw, *, channel: str, account: str, received_at: datetime, frame_id: str = "") -> Inbound:
    """A bot message. `frame_id` stands in when it has no id of its own. Raises Unreadable without id, sender or conversation."""
    staff_id, sender_id = _word(raw, "senderStaffId"), _word(raw, "senderId")
    message_id = _word(raw, "msgId") or frame_id
    sender = staff_id or sender_id
    chat = _word(raw, "conversationId") or sender
    if not message_id or not sender:
        raise Unreadable("a bot message without an id or a sender")
    in_group = _word(raw, "conversationType") == _GROUP
    return Inbound(
        id=message_id,
        address=Address(channel=channel, account=account, chat=chat, sender=sender, in_group=in_group),
        parts=tuple(_quotes(raw)) + _parts(raw, in_group=in_group),
        sent_at=_moment(raw.get("createAt")) or received_at,
        ticket=_ticket(raw),
        sender_name=_word(raw, "senderNick"),
    )


def as_object(value: object) -> Raw:
    """A JSON object, also when it comes as JSON text (some messages double-encode `content`); anything else is empty."""
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _ticket(raw: Raw) -> ReplyTicket:
    names = {
        "session_webhook": "sessionWebhook",
        "conversation_id": "conversationId",
        "conversation_type": "conversationType",
        "sender_staff_id": "senderStaffId",
        "sender_id": "senderId",
        "robot_code": "robotCode",
    }
    token = {ours: word for ours, theirs in names.items() if (word := _word(raw, theirs))}
    return ReplyTicket(token=token, expires_at=_moment(raw.get("sessionWebhookExpiredTime")))


def _parts(raw: Raw, *, in_group: bool) -> tuple[Part, ...]:
    kind = _word(raw, "msgtype")
    content = as_object(raw.get("content"))
    if kind == "text" or (not kind and "text" in raw):
        return _texts(_text_body(raw, content))
    if kind == "richText":
        return tuple(_rich_parts(content, repeats_call=in_group and _calls_only_the_bot(raw)))
    if kind == "audio":
        return _texts(_word(content, "recognition")) or (Unsupported(kind),)
    return (Unsupported(kind or "unknown"),)


def _texts(words: str) -> tuple[Part, ...]:
    return (Text(words.strip()),) if words.strip() else ()


def _text_body(raw: Raw, content: Raw) -> str:
    body = raw.get("text")
    as_sent = as_object(body) or content
    return _word(as_sent, "content") or (_clean(body) if isinstance(body, str) and not as_sent else "")


def _rich_parts(content: Raw, *, repeats_call: bool) -> Iterator[Part]:
    """Text runs belong together and are joined; whatever interrupts them keeps its place."""
    run = ""
    first = True
    for item in _items(content):
        if "text" in item:
            run += _word(item, "text")
            continue
        yield from _texts(_without_call(run, repeats_call and first))
        run, first = "", False
        yield Unsupported(_word(item, "type") or "unknown")
    yield from _texts(_without_call(run, repeats_call and first)) if run or not first else (Unsupported("richText"),)


def _without_call(words: str, repeated: bool) -> str:
    """HarmonyOS clients leave the `@bot` that others take out at the head of a rich text."""
    return _LEADING_CALL.sub("", words, count=1) if repeated else words


def _calls_only_the_bot(raw: Raw) -> bool:
    called = raw.get("atUsers")
    return not isinstance(called, list) or len(called) <= 1


def _items(content: Raw) -> Iterator[Raw]:
    items = content.get("richText")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            yield item


def _quotes(raw: Raw) -> Iterator[Quote]:
    """The message replied to (undocumented, seen since 2026): `text.repliedMsg`, for other kinds `content.repliedMsg`."""
    for holder in (as_object(raw.get("text")), as_object(raw.get("content"))):
        replied = as_object(holder.get("repliedMsg"))
        if replied:
            yield Quote(_quoted_text(replied)[:QUOTE_CHARS], _word(replied, "senderNick"))
            return


def _quoted_text(replied: Raw) -> str:
    kind = _word(replied, "msgType") or _word(replied, "msgtype") or "message"
    held = replied.get("content")
    content = as_object(held)
    if not content:
        return _clean(held).strip() if isinstance(held, str) and held.strip() else f"[{kind}]"
    rich = "".join(_word(item, "text") for item in _items(content)).strip()
    named = next((word for name in ("text", "content", "recognition", "title", "summary") if (word := _word(content, name).strip())), "")
    file_name = _word(content, "fileName")
    return rich or named or (f"[{kind}: {file_name}]" if file_name else f"[{kind}]")


def _word(raw: Raw, key: str) -> str:
    """A string, or a number as one; nothing else. Ids keep their case: DingTalk's are case-sensitive."""
    value = raw.get(key)
    if isinstance(value, str):
        return _clean(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _clean(text: str) -> str:
    """Half a surrogate pair is legal in JSON text but cannot be stored; it becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _moment(milliseconds: object) -> datetime | None:
    """Milliseconds since 1970, as a number or as digits; None when it is no time."""
    try:
        return datetime.fromtimestamp(int(milliseconds) / 1000, UTC) if isinstance(milliseconds, int | str) and milliseconds else None
    except (ValueError, OverflowError, OSError):
        return None
