"""The promises of durable memory: a ledger of turns, the sessions, and a shelf for small things with a best-before time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.messages import Answer, Inbound, Outcome, TurnKey
from gateway.sessions.session import Session


class TurnState(StrEnum):
    """Where a turn is, in this order; only `CLOSED` is final."""

    ACCEPTED = "accepted"
    """On disk, not yet worked on."""
    ANSWERING = "answering"
    """A backend was asked."""
    ANSWERED = "answered"
    """The answer is on disk and no piece is on its way; the first `shown` pieces were taken."""
    SHOWING = "showing"
    """A piece is on its way to the platform."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """One row of the ledger."""

    key: TurnKey
    inbound: Inbound
    state: TurnState
    accepted_at: datetime
    answer: Answer | None = None
    shown: int = 0
    """How many pieces are known to have been shown; at `SHOWING`, piece number `shown` is the one in doubt."""
    answered_by: str = ""
    """Name of the backend (or `command`, `parked`) that answered."""
    answered_at: datetime | None = None
    closed_at: datetime | None = None
    outcome: Outcome | None = None


class Ledger(ABC):
    """The durable book of turns. Every write is on disk when its call returns; raises StoreUnavailable when it is not.

    A write about an unknown or a closed turn changes nothing.
    """

    @abstractmethod
    async def accept(self, inbound: Inbound, now: datetime) -> TurnRecord | None:
        """Write a new turn down and return None; or, when `inbound.key` is known, change nothing and return its record."""

    @abstractmethod
    async def answering(self, key: TurnKey) -> None:
        """A backend is being asked. The only write that need not be awaited on disk: after a crash it equals `accepted`."""

    @abstractmethod
    async def answered(self, key: TurnKey, answer: Answer, answered_by: str, now: datetime) -> None:
        """The answer is complete; it will be shown next."""

    @abstractmethod
    async def showing(self, key: TurnKey, piece: int) -> None:
        """Piece number `piece` (from 0) is about to be sent over a platform without idempotent sends: `SHOWING`, `shown` is `piece`."""

    @abstractmethod
    async def shown(self, key: TurnKey, pieces: int) -> None:
        """The first `pieces` pieces were taken by the platform; none is in doubt: back to `ANSWERED`."""

    @abstractmethod
    async def closed(self, key: TurnKey, outcome: Outcome, now: datetime) -> None:
        """The turn ended. Closing a closed turn changes nothing: the first outcome stays."""

    @abstractmethod
    async def unfinished(self) -> list[TurnRecord]:
        """All turns that are not closed, oldest first. A row that cannot be read is set aside and reported, never raised."""

    @abstractmethod
    async def find(self, message_id: str) -> list[TurnRecord]:
        """All turns whose platform message id is `message_id`, over all channels."""

    @abstractmethod
    async def latest(self, *, state: TurnState | None = None, outcome: str | None = None, limit: int = 100) -> list[TurnRecord]:
        """The newest turns first."""

    @abstractmethod
    async def latest_of(self, channel: str, account: str, sender: str, *, before: TurnKey | None = None) -> TurnRecord | None:
        """The newest turn of one person that was accepted before the turn `before`: what `/why` explains."""

    @abstractmethod
    async def prune(self, before: datetime, limit: int = 500) -> int:
        """Forget turns closed before `before` among the `limit` oldest; returns how many. Call again until it returns 0.

        A forgotten message is answered again if its platform still redelivers it: keep days, not minutes.
        """


class SessionStore(ABC):
    """The sessions."""

    @abstractmethod
    async def load(self, key: str) -> Session | None:
        """The session as last saved, also when it is over: expiry is the caller's decision."""

    @abstractmethod
    async def save(self, session: Session, ends_at: datetime | None) -> None:
        """Keep `session`; `ends_at` is when it will be over (see `next_end`), None: never."""

    @abstractmethod
    async def drop(self, key: str) -> None:
        """Forget it; nothing happens when it is not there."""

    @abstractmethod
    async def next_end(self) -> datetime | None:
        """The earliest `ends_at` of all sessions: when the expiry timer must look again."""

    @abstractmethod
    async def ended(self, now: datetime, limit: int = 100) -> Sequence[Session]:
        """Sessions whose `ends_at` is not after `now`, earliest first."""


class Shelf(ABC):
    """Small strings under names, each with a best-before time: parked answers, login states, cursors."""

    @abstractmethod
    async def put(self, name: str, value: str, keep_until: datetime | None) -> None:
        """Keep or replace."""

    @abstractmethod
    async def get(self, name: str, now: datetime) -> str | None:
        """The value, or None when there is none or `keep_until` is not after `now`."""

    @abstractmethod
    async def drop(self, name: str) -> None:
        """Forget it; nothing happens when it is not there."""

    @abstractmethod
    async def prune(self, now: datetime, limit: int = 500) -> int:
        """Forget at most `limit` values that are past their time at `now`; returns how many."""


class Store(ABC):
    """One place that keeps all three."""

    ledger: Ledger
    sessions: SessionStore
    shelf: Shelf

    @abstractmethod
    async def ping(self) -> None:
        """Prove that a write reaches the disk; raises StoreUnavailable. For /readyz."""

    @abstractmethod
    async def aclose(self) -> None:
        """Write what is pending, then let go."""
