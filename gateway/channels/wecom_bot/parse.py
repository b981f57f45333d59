"""What WeCom sends → the gateway's own words. Pure and tolerant: fields come, go and change type without a word in the documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from gateway.messages import Address, Inbound, Part, Quote, ReplyTicket, Text, Unsupported

MESSAGE = "aibot_msg_callback"
EVENT = "aibot_event_callback"
"""Commands of what WeCom tells (WeCom's document 101463, 2026-04-01)."""
REPLY_TTL = timedelta(hours=24)
"""So long a message may be answered (the same)."""
QUOTE_CHARS = 2_000
"""A quoted message is context, not the question; more of it only crowds the window."""

Raw: TypeAlias = Mapping[str, object]

_LEADING_CALL = re.compile(r"^\s*@\S+\s*")


class Unreadable(ValueError):
    """This cannot be read as what it should be. The text says why and never quotes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame of the connection: something told (`cmd`), or the acknowledgement of a frame of ours (`errcode`)."""

    cmd: str
    req_id: str
    body: Raw
    errcode: int
    """0: taken. -1 also where a frame has none."""
    errmsg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened and is no message."""

    kind: str
    """`enter_chat`, `template_card_event`, `feedback_event`, `disconnected_event`, or one that is not known yet."""
    sender: str


def parse_frame(text: str | bytes) -> Frame:
    """Raises Unreadable unless `text` is a JSON object with a command, or with the id of the request that it answers."""
    raw = as_object(text)
    cmd, req_id, code = _word(raw, "cmd"), _word(as_object(raw.get("headers")), "req_id"), raw.get("errcode")
    if not cmd and not req_id:
        raise Unreadable("not a JSON object with a command or a req_id")
    errcode = code if isinstance(code, int) and not isinstance(code, bool) else -1
    return Frame(cmd=cmd, req_id=req_id, body=as_object(raw.get("body")), errcode=errcode, errmsg=_word(raw, "errmsg"))


def parse_event(body: Raw) -> Event:
    return Event(kind=_word(as_object(body.get("event")), "eventtype") or "unknown", sender=_word(as_object(body.get("from")), "userid"))


def parse_message(frame: Frame, *, channel: str, account: str, received_at: datetime, bot_name: str = "") -> Inbound:
    """A message to the bot. Without `bot_name` the first word of a group message is taken for the call if it begins with `@`.

    Raises Unreadable without an id or a sender.
    """
    raw = frame.body
    message_id, sender = _word(raw, "msgid") or frame.req_id, _word(as_object(raw.get("from")), "userid")
    if not message_id or not sender:
        raise Unreadable("a message without an id or a sender")
    in_group = _word(raw, "chattype") == "group"
    chat = _word(raw, "chatid") if in_group else sender
    if not chat:
        raise Unreadable("a group message without a chatid")
    return Inbound(
        id=message_id,
        address=Address(channel=channel, account=account, chat=chat, sender=sender, in_group=in_group),
        parts=tuple(_quotes(raw)) + _without_call(tuple(_parts(raw)), in_group, bot_name),
        sent_at=_moment(raw.get("create_time")) or received_at,
        ticket=ReplyTicket(token={"req_id": frame.req_id, "heard_at": received_at.isoformat()}, expires_at=received_at + REPLY_TTL),
    )


def as_object(value: object) -> Raw:
    """A JSON object, also when it comes as JSON text (seen for `mixed`); anything else is empty."""
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _parts(raw: Raw) -> Iterator[Part]:
    kind = _word(raw, "msgtype")
    if kind == "mixed":
        yield from (part for item in _items(raw) for part in _parts(item))
    elif kind in ("text", "voice"):  # WeCom has turned a voice message into text itself.
        words = _word(as_object(raw.get(kind)), "content").strip()
        yield from (Text(words),) if words else () if kind == "text" else (Unsupported(kind),)
    else:
        yield Unsupported(kind or "unknown")


def _items(raw: Raw) -> Iterator[Raw]:
    items = as_object(raw.get("mixed")).get("msg_item")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("msgtype") != "mixed":
            yield item


def _without_call(parts: tuple[Part, ...], in_group: bool, bot_name: str) -> tuple[Part, ...]:
    """WeCom leaves `@bot` in group messages, with the name as people see it."""
    if not in_group:
        return parts
    if bot_name:
        calls = re.compile(rf"\s*@{re.escape(bot_name)}(?!\w)\s*")
        bare = tuple(Text(calls.sub(" ", part.text).strip()) if isinstance(part, Text) else part for part in parts)
    else:
        first = next((place for place, part in enumerate(parts) if isinstance(part, Text)), None)
        bare = tuple(
            Text(_LEADING_CALL.sub("", part.text)) if place == first and isinstance(part, Text) else part
            for place, part in enumerate(parts)
        )
    return tuple(part for part in bare if not isinstance(part, Text) or part.text)


def _quotes(raw: Raw) -> Iterator[Quote]:
    """The message replied to; it carries no id and no name."""
    quoted = as_object(raw.get("quote"))
    if not quoted:
        return
    words = "\n".join(
        part.text if isinstance(part, Text) else f"[{part.kind}]" for part in _parts(quoted) if isinstance(part, Text | Unsupported)
    )
    if words:
        yield Quote(words[:QUOTE_CHARS])


def _word(raw: Raw, key: str) -> str:
    """A string, or a number as one; nothing else."""
    value = raw.get(key)
    if isinstance(value, str):
        return _clean(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _clean(text: str) -> str:
    """Half a surrogate pair is legal in JSON text but cannot be stored; it becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _moment(seconds: object) -> datetime | None:
    """Seconds since 1970, as a number or as digits; None when it is no time."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC) if isinstance(seconds, int | str) and seconds else None
    except (ValueError, OverflowError, OSError):
        return None
