"""The gateway's own words for what people say and what they are told. No raw platform payload travels past a channel's `parse.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a message came from and where its answer belongs; the only thing a session key is made of."""

    channel: str
    """Name of the channel in the configuration, e.g. `"dingtalk"`."""
    account: str
    """The bot's own identity on the platform: app id, client id, or the name of the WeChat account."""
    chat: str
    """The platform's id of the conversation; equal to `sender` where a platform has no id for private chats."""
    sender: str
    """The platform's id of the person who wrote."""
    in_group: bool = False
    thread: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """Words, with mentions of the bot already taken out."""

    text: str


@dataclass(frozen=True, slots=True)
class Quote:
    """An earlier message that this one replies to."""

    text: str
    sender_name: str = ""


@dataclass(frozen=True, slots=True)
class Mention:
    """Somebody is called by name (`@name`). `me` is true when it is the bot."""

    id: str
    name: str = ""
    me: bool = False


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A kind of message that this channel cannot read yet; `kind` is the platform's word for it, e.g. `"voice"`."""

    kind: str


Part: TypeAlias = Text | Quote | Mention | Unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyTicket:
    """The platform's permission to answer one message. Plain data, so an answer can be sent after a restart."""

    token: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """What the channel needs to answer, e.g. DingTalk's `session_webhook`. Only strings; never a long-lived secret."""
    expires_at: datetime | None = None
    """From then on the platform refuses an answer; None: no limit known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """One message from a person, in the gateway's words."""

    id: str
    """What identifies the message within (channel, account); a redelivery carries the same id."""
    address: Address
    parts: tuple[Part, ...]
    sent_at: datetime
    """When the person sent it, by the platform's clock; aware."""
    to_bot: bool = True
    """False for a group message that does not call the bot."""
    ticket: ReplyTicket = field(default_factory=ReplyTicket)
    sender_name: str = ""

    @property
    def key(self) -> TurnKey:
        """What the ledger knows this message by."""
        return TurnKey(channel=self.address.channel, account=self.address.account, message=self.id)

    @property
    def text(self) -> str:
        """The words of the message, parts joined by newlines and stripped."""
        return "\n".join(part.text for part in self.parts if isinstance(part, Text)).strip()

    @property
    def quote(self) -> Quote | None:
        return next((part for part in self.parts if isinstance(part, Quote)), None)

    @property
    def unsupported(self) -> str | None:
        """The platform's word for the first part that cannot be read, or None."""
        return next((part.kind for part in self.parts if isinstance(part, Unsupported)), None)

    def with_text(self, text: str) -> Inbound:
        """The same message saying only `text`."""
        return replace(self, parts=(Text(text),))


@dataclass(frozen=True, slots=True, order=True)
class TurnKey:
    """Identifies one turn (a message and its answer) over redelivery and restart."""

    channel: str
    account: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """One piece of an answer on its way to a person, already rendered for its channel and within its limits."""

    key: str
    """Stable over retries and restarts, so that a platform's idempotency can use it."""
    address: Address
    text: str
    ticket: ReplyTicket = field(default_factory=ReplyTicket)
    mention: Mention | None = None
    """In a group: the person to call by name."""
    more: bool = False
    """True when further pieces wait for the person to ask for them (a channel that parks answers adds its hint)."""
    lang: Lang = "zh"


Lang: TypeAlias = Literal["zh", "en"]
"""The language in which the gateway itself speaks to a person."""


class OutcomeKind(StrEnum):
    """How a turn can end. Every accepted message ends in exactly one."""

    ANSWERED = "answered"
    """The person was shown an answer (or it waits, parked, for the word that fetches it)."""
    IGNORED = "ignored"
    """Taken in and deliberately not answered, e.g. an event."""
    DUPLICATE = "duplicate"
    """The platform delivered a known message again; its first delivery counts."""
    REFUSED = "refused"
    """Not answered by rule: queue full, too long, stopped by the person. The person was told."""
    FAILED = "failed"
    """Something broke. The person was told unless the sending itself broke."""
    EXPIRED = "expired"
    """Too old to answer when the gateway came back."""
    UNKNOWN = "unknown"
    """The gateway died while a platform without idempotent sends was being told; it may or may not have been shown."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn ended and why; `reason` is a short constant phrase, `detail` the facts for the operator."""

    kind: OutcomeKind
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered: `text` as the backend wrote it, `pieces` as rendered and cut for the channel."""

    text: str
    pieces: tuple[str, ...]


def inbound_to_json(inbound: Inbound) -> dict[str, Any]:
    """Plain data for the ledger; `inbound_from_json` is its inverse."""
    address = inbound.address
    return {
        "id": inbound.id,
        "address": address_to_json(address),
        "parts": [{"part": type(part).__name__, **{name: getattr(part, name) for name in part.__slots__}} for part in inbound.parts],
        "sent_at": inbound.sent_at.isoformat(),
        "to_bot": inbound.to_bot,
        "ticket": ticket_to_json(inbound.ticket),
        "sender_name": inbound.sender_name,
    }


def inbound_from_json(data: Mapping[str, Any]) -> Inbound:
    """Raises KeyError, TypeError or ValueError when `data` was not written by `inbound_to_json`."""
    return Inbound(
        id=data["id"],
        address=address_from_json(data["address"]),
        parts=tuple(_part_from_json(part) for part in data["parts"]),
        sent_at=datetime.fromisoformat(data["sent_at"]),
        to_bot=data["to_bot"],
        ticket=ticket_from_json(data["ticket"]),
        sender_name=data["sender_name"],
    )


def address_to_json(address: Address) -> dict[str, Any]:
    return {name: getattr(address, name) for name in Address.__slots__}


def address_from_json(data: Mapping[str, Any]) -> Address:
    return Address(**data)


def ticket_to_json(ticket: ReplyTicket) -> dict[str, Any]:
    return {"token": dict(ticket.token), "expires_at": ticket.expires_at.isoformat() if ticket.expires_at else None}


def ticket_from_json(data: Mapping[str, Any]) -> ReplyTicket:
    expires_at = data["expires_at"]
    return ReplyTicket(token=data["token"], expires_at=datetime.fromisoformat(expires_at) if expires_at else None)


_PARTS: dict[str, type[Part]] = {"Text": Text, "Quote": Quote, "Mention": Mention, "Unsupported": Unsupported}


def _part_from_json(data: Mapping[str, Any]) -> Part:
    fields = dict(data)
    return _PARTS[fields.pop("part")](**fields)
