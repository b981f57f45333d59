"""A store that forgets everything with the process: for tests, for trying out, and for `memory://`."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice

from gateway.errors import StoreUnavailable
from gateway.messages import Answer, Inbound, Outcome, TurnKey
from gateway.sessions.session import Session
from gateway.stores.base import Ledger, SessionStore, Shelf, Store, TurnRecord, TurnState

MAX_CLOSED = 100_000
"""How many closed turns are remembered by default, about 100 MB; the oldest are forgotten first."""


class MemoryStore(Store):
    """Keeps what it is given, as it is given, until it is closed."""

    ledger: MemoryLedger
    sessions: MemorySessions
    shelf: MemoryShelf

    def __init__(self, *, max_closed: int = MAX_CLOSED) -> None:
        self._closed = False
        self.ledger = MemoryLedger(self._check, max_closed)
        self.sessions = MemorySessions(self._check)
        self.shelf = MemoryShelf(self._check)

    async def ping(self) -> None:
        self._check()

    async def aclose(self) -> None:
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise StoreUnavailable("The store is closed.")


class MemoryLedger(Ledger):
    """Turns in a dictionary, in the order of their acceptance."""

    def __init__(self, check: Callable[[], None], max_closed: int) -> None:
        self._check = check
        self._max_closed = max_closed
        self._turns: dict[TurnKey, TurnRecord] = {}
        self._unfinished: dict[TurnKey, None] = {}
        self._finished: dict[TurnKey, None] = {}

    async def accept(self, inbound: Inbound, now: datetime) -> TurnRecord | None:
        self._check()
        key = inbound.key
        if known := self._turns.get(key):
            return known
        self._turns[key] = TurnRecord(key=key, inbound=inbound, state=TurnState.ACCEPTED, accepted_at=now)
        self._unfinished[key] = None
        return None

    async def answering(self, key: TurnKey) -> None:
        if record := self._open(key):
            self._turns[key] = replace(record, state=TurnState.ANSWERING)

    async def answered(self, key: TurnKey, answer: Answer, answered_by: str, now: datetime) -> None:
        if record := self._open(key):
            self._turns[key] = replace(record, state=TurnState.ANSWERED, answer=answer, answered_by=answered_by, answered_at=now)

    async def showing(self, key: TurnKey, piece: int) -> None:
        if record := self._open(key):
            self._turns[key] = replace(record, state=TurnState.SHOWING, shown=piece)

    async def shown(self, key: TurnKey, pieces: int) -> None:
        if record := self._open(key):
            self._turns[key] = replace(record, state=TurnState.ANSWERED, shown=pieces)

    async def closed(self, key: TurnKey, outcome: Outcome, now: datetime) -> None:
        if record := self._open(key):
            self._turns[key] = replace(record, state=TurnState.CLOSED, outcome=outcome, closed_at=now)
            del self._unfinished[key]
            self._finished[key] = None
            self._forget_oldest()

    async def unfinished(self) -> list[TurnRecord]:
        self._check()
        return [self._turns[key] for key in self._unfinished]

    async def find(self, message_id: str) -> list[TurnRecord]:
        self._check()
        return [record for key, record in self._turns.items() if key.message == message_id]

    async def latest(self, *, state: TurnState | None = None, outcome: str | None = None, limit: int = 100) -> list[TurnRecord]:
        self._check()
        wanted = (record for record in reversed(self._turns.values()) if _is(record, state, outcome))
        return list(islice(wanted, limit))

    async def latest_of(self, channel: str, account: str, sender: str, *, before: TurnKey | None = None) -> TurnRecord | None:
        self._check()
        person = (channel, account, sender)
        return next((record for record in self._older_than(before) if _person(record) == person), None)

    async def prune(self, before: datetime, limit: int = 500) -> int:
        self._check()
        oldest = islice(self._turns.values(), limit)
        past = [record.key for record in oldest if record.closed_at is not None and record.closed_at < before]
        for key in past:
            self._forget(key)
        return len(past)

    def _open(self, key: TurnKey) -> TurnRecord | None:
        self._check()
        return self._turns[key] if key in self._unfinished else None

    def _older_than(self, key: TurnKey | None) -> Iterator[TurnRecord]:
        """Newest first; all of them when `key` is None or unknown."""
        records = reversed(self._turns.values())
        if key in self._turns:
            next(record for record in records if record.key == key)
        return records

    def _forget_oldest(self) -> None:
        if len(self._finished) > self._max_closed:
            self._forget(next(iter(self._finished)))

    def _forget(self, key: TurnKey) -> None:
        del self._turns[key]
        del self._finished[key]


class MemorySessions(SessionStore):
    """Sessions, and a heap of their ends; an entry of the heap counts only while it is still its session's end."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._sessions: dict[str, tuple[Session, datetime | None]] = {}
        self._ends: list[tuple[datetime, str]] = []

    async def load(self, key: str) -> Session | None:
        self._check()
        session, _ = self._sessions.get(key, (None, None))
        return session

    async def save(self, session: Session, ends_at: datetime | None) -> None:
        self._check()
        self._sessions[session.key] = (session, ends_at)
        if ends_at is not None:
            heapq.heappush(self._ends, (ends_at, session.key))
        if len(self._ends) > 2 * len(self._sessions) + 100:
            self._rebuild()

    async def drop(self, key: str) -> None:
        self._check()
        self._sessions.pop(key, None)

    async def next_end(self) -> datetime | None:
        self._check()
        while self._ends and not self._counts(self._ends[0]):
            heapq.heappop(self._ends)
        return self._ends[0][0] if self._ends else None

    async def ended(self, now: datetime, limit: int = 100) -> Sequence[Session]:
        self._check()
        over: dict[tuple[datetime, str], None] = {}
        while self._ends and self._ends[0][0] <= now and len(over) < limit:
            end = heapq.heappop(self._ends)
            if self._counts(end):
                over[end] = None
        for end in over:
            heapq.heappush(self._ends, end)
        return [self._sessions[key][0] for _, key in over]

    async def take_ended(self, key: str, now: datetime) -> Session | None:
        self._check()
        session, ends_at = self._sessions.get(key, (None, None))
        if ends_at is None or ends_at > now:
            return None
        del self._sessions[key]
        return session

    def _counts(self, end: tuple[datetime, str]) -> bool:
        ends_at, key = end
        return key in self._sessions and self._sessions[key][1] == ends_at

    def _rebuild(self) -> None:
        self._ends = [(ends_at, key) for key, (_, ends_at) in self._sessions.items() if ends_at is not None]
        heapq.heapify(self._ends)


class MemoryShelf(Shelf):
    """Values with their ends."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._values: dict[str, tuple[str, datetime | None]] = {}

    async def put(self, name: str, value: str, keep_until: datetime | None) -> None:
        self._check()
        self._values[name] = (value, keep_until)

    async def add(self, name: str, value: str, keep_until: datetime | None, now: datetime) -> bool:
        if await self.get(name, now) is not None:
            return False
        await self.put(name, value, keep_until)
        return True

    async def get(self, name: str, now: datetime) -> str | None:
        self._check()
        value, keep_until = self._values.get(name, (None, None))
        return value if keep_until is None or keep_until > now else None

    async def drop(self, name: str) -> None:
        self._check()
        self._values.pop(name, None)

    async def prune(self, now: datetime, limit: int = 500) -> int:
        self._check()
        past = [name for name, (_, keep_until) in self._values.items() if keep_until is not None and keep_until <= now][:limit]
        for name in past:
            del self._values[name]
        return len(past)


def _is(record: TurnRecord, state: TurnState | None, outcome: str | None) -> bool:
    if state is not None and record.state is not state:
        return False
    return outcome is None or (record.outcome is not None and record.outcome.kind == outcome)


def _person(record: TurnRecord) -> tuple[str, str, str]:
    return record.key.channel, record.key.account, record.inbound.address.sender
