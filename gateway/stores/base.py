"""The promises of durable memory: a ledger of turns, the sessions, and a shelf for small things with a best-before time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
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
    async def take_ended(self, key: str, now: datetime) -> Session | None:
        """Forget the session if it is over and, on a shared store, if its lane is idle; returns it to exactly one caller, else None."""

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
    async def add(self, name: str, value: str, keep_until: datetime | None, now: datetime) -> bool:
        """Keep it unless a value of that name is there and not past its time at `now`; True for the one caller whose value is kept."""

    @abstractmethod
    async def get(self, name: str, now: datetime) -> str | None:
        """The value, or None when there is none or `keep_until` is not after `now`."""

    @abstractmethod
    async def drop(self, name: str) -> None:
        """Forget it; nothing happens when it is not there."""

    @abstractmethod
    async def prune(self, now: datetime, limit: int = 500) -> int:
        """Forget at most `limit` values that are past their time at `now`; returns how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lined:
    """What became of a message that was handed to a store which several processes share."""

    known: TurnRecord | None = None
    """The record of a message that was accepted before; nothing changed."""
    mine: bool = False
    """The lane was free: this process holds its lease now and must work its mailbox, beginning with this message."""
    ahead: int = 0
    """How many messages stand before this one in its mailbox."""
    full: bool = False
    """The message is in the ledger and did not line up, because its mailbox or the whole is full."""


class Mailboxes(ABC):
    """The lanes of several processes on one store: a mailbox per conversation, worked by whoever holds its lease.

    A lease carries a fencing token. It lives `lease_s` seconds and is renewed by the store while this process lives, however long a
    model call takes. When it is lost, every further write of the ledger about a turn of that lane raises LeaseLost.
    """

    worker: str
    """Names this process among all."""

    @abstractmethod
    async def accept(self, inbound: Inbound, lane: str, now: datetime, *, per_lane: int, total: int) -> Lined:
        """Write the turn down and line it up, in one step. `per_lane` and `total` bound what may wait."""

    @abstractmethod
    async def head(self, lane: str) -> TurnRecord | None:
        """The first turn in the mailbox of a lane that this process holds; None when it is empty, and then the lease is given back."""

    @abstractmethod
    async def done(self, lane: str, key: TurnKey) -> TurnRecord | None:
        """The turn is closed (or set aside): take it out. Returns the next one; None: the mailbox is empty, the lease given back."""

    @abstractmethod
    async def hand_back(self, lane: str) -> None:
        """Give the lease back with what waits in the mailbox, for another process to adopt at once: this one is stopping."""

    @abstractmethod
    async def adopt(self, channels: Collection[str], limit: int = 50) -> list[str]:
        """Take over lanes with waiting turns whose holder died or handed them back, if their first turn belongs to one of `channels`.

        A turn whose lane was adopted more than `max_adoptions` times (it kills its workers) is closed as failed ("dead letter") here.
        """

    @abstractmethod
    async def adoptable_in(self) -> float | None:
        """Seconds until `adopt` may find something (the earliest end of a foreign lease); None when nothing is leased by others."""

    @abstractmethod
    async def lost(self) -> str:
        """Wait until a lease of this process is lost and return its lane."""

    @abstractmethod
    async def waiting(self) -> int:
        """How many turns wait in all mailboxes, those in work included."""


class Seats(ABC):
    """Roles that one process at a time may have: holding a personal WeChat account, pruning, ending sessions."""

    @abstractmethod
    async def take(self, seat: str) -> bool:
        """Sit down, or stay seated (renews). False when another process sits there and lives."""

    @abstractmethod
    async def leave(self, seat: str) -> None:
        """Stand up, so that another need not wait for the seat to run out."""

    @abstractmethod
    async def free_in(self, seat: str) -> float:
        """Seconds until the seat may be free; 0 when it is."""


class Bulletin(ABC):
    """Short news between processes, heard by those who listen now; nothing is kept."""

    @abstractmethod
    async def publish(self, topic: str, text: str) -> None:
        """Tell all processes, this one included."""

    @abstractmethod
    def listen(self, topic: str, heard: Callable[[str], None]) -> None:
        """Call `heard` with every text published under `topic` from now on."""


class Store(ABC):
    """One place that keeps all three. What several processes share has more; None where one process owns the store."""

    ledger: Ledger
    sessions: SessionStore
    shelf: Shelf
    mailboxes: Mailboxes | None = None
    seats: Seats | None = None
    bulletin: Bulletin | None = None

    @abstractmethod
    async def ping(self) -> None:
        """Prove that a write reaches the disk; raises StoreUnavailable. For /readyz."""

    @abstractmethod
    async def aclose(self) -> None:
        """Write what is pending, then let go."""
