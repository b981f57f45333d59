"""What WeChat posts for an official account → the gateway's words. Pure; raw fields end here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.channels.official_account.envelope import BrokenXml
from gateway.messages import Address, Inbound, Part, ReplyTicket, Text, Unsupported

UNREADABLE = "【收到不支持的消息类型，暂无法显示】"
"""What WeChat itself writes in place of a kind of message that official accounts cannot receive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something a follower did. `name` is the platform's word, e.g. `"subscribe"`; `key` its EventKey."""

    name: str
    key: str
    sender: str
    bot: str
    created: str

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What a redelivered event has in common: events carry no id, and one follower can cause two within a second."""
        return (self.sender, self.created, self.name, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One post, read as far as all kinds agree. `created` is the platform's CreateTime, seconds since 1970."""

    fields: Mapping[str, str]
    sender: str
    bot: str
    created: str
    kind: str

    @property
    def id(self) -> str:
        """MsgId alone is not enough: WeChat was seen to use one for several people."""
        return f"{self.sender}:{self.fields.get('MsgId') or self.created}"

    @property
    def event(self) -> Event | None:
        """The event, when it is one and not a message."""
        if self.kind != "event":
            return None
        name, key = self.fields.get("Event", ""), self.fields.get("EventKey", "")
        return Event(name=name, key=key, sender=self.sender, bot=self.bot, created=self.created)


def read(fields: Mapping[str, str]) -> Received:
    """Raises BrokenXml, naming the field, when one that every post has is missing or CreateTime is not a number."""
    for name in ("ToUserName", "FromUserName", "CreateTime", "MsgType"):
        if not fields.get(name):
            raise BrokenXml(f"{name} is missing")
    created = fields["CreateTime"].strip()
    if not (created.isascii() and created.isdigit() and len(created) <= 10):
        raise BrokenXml("CreateTime is not a time")
    kind = fields["MsgType"].strip().lower()
    return Received(fields=fields, sender=fields["FromUserName"], bot=fields["ToUserName"], created=created, kind=kind)


def to_inbound(received: Received, *, channel: str, account: str, first_seen: datetime, answerable_s: float) -> Inbound:
    """`first_seen` is when the platform delivered it first; it takes an answer until `answerable_s` seconds later."""
    return Inbound(
        id=received.id,
        address=Address(channel=channel, account=account, chat=received.sender, sender=received.sender),
        parts=(_part(received.kind, received.fields),),
        sent_at=datetime.fromtimestamp(int(received.created), UTC),
        ticket=ReplyTicket(
            token={
                "turn": received.id,
                "to_user": received.sender,
                "from_user": received.bot,
                "created": received.created,
                "first_seen": first_seen.isoformat(),
            },
            expires_at=first_seen + timedelta(seconds=answerable_s),
        ),
    )


def _part(kind: str, fields: Mapping[str, str]) -> Part:
    if kind == "text":
        text = fields.get("Content", "")
        return Unsupported("unsupported") if text.strip() == UNREADABLE else Text(text)
    if kind == "voice" and fields.get("Recognition", "").strip():
        return Text(fields["Recognition"])
    if kind == "location":
        return Text(_location(fields))
    if kind == "link":
        return Text(_lines(fields, "Title", "Description", "Url"))
    return Unsupported(kind[:32])


def _location(fields: Mapping[str, str]) -> str:
    where = f"({fields.get('Location_X', '?')}, {fields.get('Location_Y', '?')})"
    return f"[位置] {fields.get('Label', '').strip()} {where}".replace("  ", " ")


def _lines(fields: Mapping[str, str], *names: str) -> str:
    return "\n".join(fields[name].strip() for name in names if fields.get(name, "").strip())
