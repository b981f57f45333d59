"""The context of one conversation; growth and expiry as pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from gateway.messages import Address, ReplyTicket, address_from_json, address_to_json, ticket_from_json, ticket_to_json
from gateway.prompts import Line

_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What was said so far, by whom it was said last, and since when."""

    key: str
    address: Address
    """Where the last message came from; a farewell goes there."""
    ticket: ReplyTicket
    started_at: datetime
    seen_at: datetime
    """When the person last wrote."""
    lines: tuple[Line, ...] = ()
    settings: Mapping[str, str] = field(default_factory=lambda: _NO_SETTINGS)
    """Choices of the person that outlive single turns, e.g. a role."""

    def said(self, question: str, answer: str, now: datetime) -> Session:
        """The session after one more exchange."""
        return replace(self, lines=(*self.lines, Line("user", question), Line("assistant", answer)), seen_at=now)

    def touched(self, address: Address, ticket: ReplyTicket, now: datetime) -> Session:
        """The session after the person wrote from `address`."""
        return replace(self, address=address, ticket=ticket, seen_at=now)

    def trimmed_to(self, count: int) -> Session:
        """Keep at most the last `count` lines, beginning with a question of the person."""
        lines = self.lines[-count:] if count else ()
        while lines and lines[0].role != "user":
            lines = lines[1:]
        return replace(self, lines=lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """How long a session lives."""

    idle_timeout: timedelta | None
    """After this long without a word from the person it is over; None: never."""
    max_age: timedelta | None = None
    """After this long since its first message it is over, however busy; None: never."""

    def ends_at(self, session: Session) -> datetime | None:
        """When the session will be over if nothing more is said; None: never."""
        ends = []
        if self.idle_timeout is not None:
            ends.append(session.seen_at + self.idle_timeout)
        if self.max_age is not None:
            ends.append(session.started_at + self.max_age)
        return min(ends, default=None)

    def is_over(self, session: Session, now: datetime) -> bool:
        end = self.ends_at(session)
        return end is not None and now >= end


def new_session(key: str, address: Address, ticket: ReplyTicket, now: datetime) -> Session:
    """An empty session that starts now."""
    return Session(key=key, address=address, ticket=ticket, started_at=now, seen_at=now)


def session_to_json(session: Session) -> dict[str, Any]:
    """Plain data for a store; `session_from_json` is its inverse."""
    return {
        "key": session.key,
        "address": address_to_json(session.address),
        "ticket": ticket_to_json(session.ticket),
        "started_at": session.started_at.isoformat(),
        "seen_at": session.seen_at.isoformat(),
        "lines": [[line.role, line.text] for line in session.lines],
        "settings": dict(session.settings),
    }


def session_from_json(data: Mapping[str, Any]) -> Session:
    """Raises KeyError, TypeError or ValueError when `data` was not written by `session_to_json`."""
    return Session(
        key=data["key"],
        address=address_from_json(data["address"]),
        ticket=ticket_from_json(data["ticket"]),
        started_at=datetime.fromisoformat(data["started_at"]),
        seen_at=datetime.fromisoformat(data["seen_at"]),
        lines=tuple(Line(role, text) for role, text in data["lines"]),
        settings=dict(data["settings"]),
    )
