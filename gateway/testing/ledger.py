"""A store that fails or dies when it is told to, around any other store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from gateway.errors import StoreUnavailable
from gateway.messages import Answer, Inbound, Outcome, TurnKey
from gateway.sessions.session import Session
from gateway.stores.base import Ledger, Lined, Mailboxes, SessionStore, Shelf, Store, TurnRecord, TurnState

T = TypeVar("T")

When = Literal["before", "after"]


class Crash(BaseException):
    """The process "died" here. No `except Exception` may stop it, and nothing can be written any more."""


@dataclass(kw_only=True)
class _Fault:
    call: str
    when: When
    crash: bool
    times: int


class Faults:
    """What goes wrong, by the name of the call: `"ledger.accept"`, `"sessions.save"`, `"shelf.put"`, `"ping"`.

    `faults.fail("ledger.answered", times=2)` refuses the next two; `faults.crash("ledger.showing", when="after")` writes once more
    and then raises Crash, now and at every later call; `faults.down = True` refuses everything until it is False again.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        """Every call that was made, in order, also those that failed."""
        self.down = False
        self.crashed = False
        self._faults: list[_Fault] = []

    def fail(self, call: str, *, times: int = 1, when: When = "before") -> None:
        """Raise StoreUnavailable at the next `times` calls; `when="after"`: although it was written, as after a lost reply."""
        self._faults.append(_Fault(call=call, when=when, crash=False, times=times))

    def crash(self, call: str, *, when: When = "before", skip: int = 0) -> None:
        """Die at the next such call after `skip` others, before or after the write reaches the store."""
        self._faults.append(_Fault(call=call, when=when, crash=True, times=1 + skip))

    async def around(self, call: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` unless a fault says otherwise."""
        self.calls.append(call)
        if self.crashed:
            raise Crash(call)
        if self.down:
            raise StoreUnavailable(f"The store is down (told so by the test) at {call}.")
        fault = self._next_fault(call)
        if fault is not None and fault.when == "before":
            self._strike(fault)
        result = await work()
        if fault is not None:
            self._strike(fault)
        return result

    def _next_fault(self, call: str) -> _Fault | None:
        fault = next((fault for fault in self._faults if fault.call == call), None)
        if fault is None:
            return None
        fault.times -= 1
        if fault.times == 0:
            self._faults.remove(fault)
        return None if fault.crash and fault.times else fault

    def _strike(self, fault: _Fault) -> None:
        if not fault.crash:
            raise StoreUnavailable(f"The store fails (told so by the test) at {fault.call}.")
        self.crashed = True
        raise Crash(fault.call)


class FragileStore(Store):
    """`inner` behind `faults`. After a crash, build the next house around `inner`: it holds what was on disk."""

    def __init__(self, inner: Store, faults: Faults | None = None) -> None:
        self.inner = inner
        self.faults = faults or Faults()
        self.ledger = FragileLedger(inner.ledger, self.faults)
        self.sessions = FragileSessions(inner.sessions, self.faults)
        self.shelf = FragileShelf(inner.shelf, self.faults)
        self.mailboxes = FragileMailboxes(inner.mailboxes, self.faults) if inner.mailboxes else None
        self.seats = inner.seats
        self.bulletin = inner.bulletin

    async def ping(self) -> None:
        await self.faults.around("ping", self.inner.ping)

    async def aclose(self) -> None:
        """Closes `inner`, unless the process "died": the dead close nothing."""
        if not self.faults.crashed:
            await self.inner.aclose()


class FragileLedger(Ledger):
    """A ledger behind `faults`."""

    def __init__(self, inner: Ledger, faults: Faults) -> None:
        self._inner = inner
        self._around = faults.around

    async def accept(self, inbound: Inbound, now: datetime) -> TurnRecord | None:
        return await self._around("ledger.accept", lambda: self._inner.accept(inbound, now))

    async def answering(self, key: TurnKey) -> None:
        await self._around("ledger.answering", lambda: self._inner.answering(key))

    async def answered(self, key: TurnKey, answer: Answer, answered_by: str, now: datetime) -> None:
        await self._around("ledger.answered", lambda: self._inner.answered(key, answer, answered_by, now))

    async def showing(self, key: TurnKey, piece: int) -> None:
        await self._around("ledger.showing", lambda: self._inner.showing(key, piece))

    async def shown(self, key: TurnKey, pieces: int) -> None:
        await self._around("ledger.shown", lambda: self._inner.shown(key, pieces))

    async def closed(self, key: TurnKey, outcome: Outcome, now: datetime) -> None:
        await self._around("ledger.closed", lambda: self._inner.closed(key, outcome, now))

    async def unfinished(self) -> list[TurnRecord]:
        return await self._around("ledger.unfinished", self._inner.unfinished)

    async def find(self, message_id: str) -> list[TurnRecord]:
        return await self._around("ledger.find", lambda: self._inner.find(message_id))

    async def latest(self, *, state: TurnState | None = None, outcome: str | None = None, limit: int = 100) -> list[TurnRecord]:
        return await self._around("ledger.latest", lambda: self._inner.latest(state=state, outcome=outcome, limit=limit))

    async def latest_of(self, channel: str, account: str, sender: str, *, before: TurnKey | None = None) -> TurnRecord | None:
        return await self._around("ledger.latest_of", lambda: self._inner.latest_of(channel, account, sender, before=before))

    async def prune(self, before: datetime, limit: int = 500) -> int:
        return await self._around("ledger.prune", lambda: self._inner.prune(before, limit))


class FragileSessions(SessionStore):
    """A session store behind `faults`."""

    def __init__(self, inner: SessionStore, faults: Faults) -> None:
        self._inner = inner
        self._around = faults.around

    async def load(self, key: str) -> Session | None:
        return await self._around("sessions.load", lambda: self._inner.load(key))

    async def save(self, session: Session, ends_at: datetime | None) -> None:
        await self._around("sessions.save", lambda: self._inner.save(session, ends_at))

    async def drop(self, key: str) -> None:
        await self._around("sessions.drop", lambda: self._inner.drop(key))

    async def next_end(self) -> datetime | None:
        return await self._around("sessions.next_end", self._inner.next_end)

    async def ended(self, now: datetime, limit: int = 100) -> Sequence[Session]:
        return await self._around("sessions.ended", lambda: self._inner.ended(now, limit))

    async def take_ended(self, key: str, now: datetime) -> Session | None:
        return await self._around("sessions.take_ended", lambda: self._inner.take_ended(key, now))


class FragileShelf(Shelf):
    """A shelf behind `faults`."""

    def __init__(self, inner: Shelf, faults: Faults) -> None:
        self._inner = inner
        self._around = faults.around

    async def put(self, name: str, value: str, keep_until: datetime | None) -> None:
        await self._around("shelf.put", lambda: self._inner.put(name, value, keep_until))

    async def add(self, name: str, value: str, keep_until: datetime | None, now: datetime) -> bool:
        return await self._around("shelf.add", lambda: self._inner.add(name, value, keep_until, now))

    async def get(self, name: str, now: datetime) -> str | None:
        return await self._around("shelf.get", lambda: self._inner.get(name, now))

    async def drop(self, name: str) -> None:
        await self._around("shelf.drop", lambda: self._inner.drop(name))

    async def prune(self, now: datetime, limit: int = 500) -> int:
        return await self._around("shelf.prune", lambda: self._inner.prune(now, limit))


class FragileMailboxes(Mailboxes):
    """Mailboxes behind `faults`. Seats and news stay as they are: no promise hangs on a single one of them."""

    def __init__(self, inner: Mailboxes, faults: Faults) -> None:
        self._inner = inner
        self._around = faults.around
        self.worker = inner.worker

    async def accept(self, inbound: Inbound, lane: str, now: datetime, *, per_lane: int, total: int) -> Lined:
        accept = self._inner.accept
        return await self._around("mailboxes.accept", lambda: accept(inbound, lane, now, per_lane=per_lane, total=total))

    async def head(self, lane: str) -> TurnRecord | None:
        return await self._around("mailboxes.head", lambda: self._inner.head(lane))

    async def done(self, lane: str, key: TurnKey) -> TurnRecord | None:
        return await self._around("mailboxes.done", lambda: self._inner.done(lane, key))

    async def hand_back(self, lane: str) -> None:
        await self._around("mailboxes.hand_back", lambda: self._inner.hand_back(lane))

    async def adopt(self, channels: Collection[str], limit: int = 50) -> list[str]:
        return await self._around("mailboxes.adopt", lambda: self._inner.adopt(channels, limit))

    async def adoptable_in(self) -> float | None:
        return await self._around("mailboxes.adoptable_in", self._inner.adoptable_in)

    async def lost(self) -> str:
        return await self._inner.lost()

    async def waiting(self) -> int:
        return await self._around("mailboxes.waiting", self._inner.waiting)
