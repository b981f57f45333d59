"""Turns that this process has in hand, seen through the ledger: how many are in which state, and which do not move."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from gateway.clock import Clock
from gateway.errors import LeaseLost, StoreError
from gateway.messages import Answer, Inbound, Outcome, TurnKey
from gateway.stores.base import Ledger, TurnRecord, TurnState
from gateway.watch.trouble import GATEWAY, Trouble, TroubleKind, Watch

T = TypeVar("T")

STUCK_AFTER_S = 900.0
ASKED_ABOUT = 20
"""Turns that do not move whose state is looked up in the store, at one look."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a turn is, and since when."""

    state: TurnState
    since: float
    on: datetime


class WatchedLedger(Ledger):
    """`inner`, noting every step of every turn that is not closed: nothing of its content, and nothing once it is closed.

    A turn whose last write failed stays noted where it was: it is the one to be reported.
    """

    def __init__(self, inner: Ledger, *, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self._places: dict[TurnKey, _Place] = {}

    def states(self) -> Mapping[str, int]:
        """How many turns are in each state but closed."""
        counts = {state.value: 0 for state in TurnState if state is not TurnState.CLOSED}
        for place in self._places.values():
            counts[place.state.value] += 1
        return counts

    def oldest_waiting_s(self) -> float:
        """How long the oldest turn has been waiting that nobody works on yet; 0 when none waits."""
        waiting = (place.since for place in self._places.values() if place.state is TurnState.ACCEPTED)
        oldest = min(waiting, default=None)
        return 0.0 if oldest is None else self._clock.monotonic() - oldest

    def unmoved(self, seconds: float) -> list[tuple[TurnKey, TurnState, datetime]]:
        """Turns that have been in the same place for longer, the longest first; with the time they came there."""
        before = self._clock.monotonic() - seconds
        found = [(key, place) for key, place in self._places.items() if place.since <= before]
        return [(key, place.state, place.on) for key, place in sorted(found, key=lambda item: item[1].since)]

    async def forget_closed(self, keys: Iterable[TurnKey]) -> bool:
        """Ask the store about turns that do not move: one that another process closed is no longer noted. Returns whether any was."""
        closed = [key for key in keys if all(record.closed_at for record in await self._inner.find(key.message) if record.key == key)]
        for key in closed:
            self._places.pop(key, None)
        return bool(closed)

    async def accept(self, inbound: Inbound, now: datetime) -> TurnRecord | None:
        known = await self._inner.accept(inbound, now)
        if known is None:
            self._note(inbound.key, TurnState.ACCEPTED)
        return known

    async def answering(self, key: TurnKey) -> None:
        await self._step(key, self._inner.answering(key), TurnState.ANSWERING)

    async def answered(self, key: TurnKey, answer: Answer, answered_by: str, now: datetime) -> None:
        await self._step(key, self._inner.answered(key, answer, answered_by, now), TurnState.ANSWERED)

    async def showing(self, key: TurnKey, piece: int) -> None:
        await self._step(key, self._inner.showing(key, piece), TurnState.SHOWING)

    async def shown(self, key: TurnKey, pieces: int) -> None:
        await self._step(key, self._inner.shown(key, pieces), TurnState.ANSWERED)

    async def closed(self, key: TurnKey, outcome: Outcome, now: datetime) -> None:
        await self._step(key, self._inner.closed(key, outcome, now), TurnState.CLOSED)

    async def unfinished(self) -> list[TurnRecord]:
        records = await self._inner.unfinished()
        for record in records:
            if record.key not in self._places:
                self._note(record.key, record.state)
        return records

    async def find(self, message_id: str) -> list[TurnRecord]:
        return await self._inner.find(message_id)

    async def latest(self, *, state: TurnState | None = None, outcome: str | None = None, limit: int = 100) -> list[TurnRecord]:
        return await self._inner.latest(state=state, outcome=outcome, limit=limit)

    async def latest_of(self, channel: str, account: str, sender: str, *, before: TurnKey | None = None) -> TurnRecord | None:
        return await self._inner.latest_of(channel, account, sender, before=before)

    async def prune(self, before: datetime, limit: int = 500) -> int:
        return await self._inner.prune(before, limit)

    async def _step(self, key: TurnKey, write: Awaitable[None], state: TurnState) -> None:
        try:
            await write
        except LeaseLost:  # another process has the turn in hand
            self._places.pop(key, None)
            raise
        self._note(key, state)

    def _note(self, key: TurnKey, state: TurnState) -> None:
        if state is TurnState.CLOSED:
            self._places.pop(key, None)
        else:
            self._places[key] = _Place(state, self._clock.monotonic(), self._clock.now())


class WorkWatch(Watch):
    """Turns that were taken in and do not move: a hanging backend, a broken lane, an end that could not be written."""

    def __init__(self, *, ledger: WatchedLedger, stuck_after_s: float = STUCK_AFTER_S) -> None:
        """`stuck_after_s` must be longer than the slowest backend may take."""
        self._ledger = ledger
        self._stuck_after_s = stuck_after_s

    async def look(self) -> Sequence[Trouble]:
        stuck = self._ledger.unmoved(self._stuck_after_s)
        if await self._closed_elsewhere([key for key, _, _ in stuck[:ASKED_ABOUT]]):
            stuck = self._ledger.unmoved(self._stuck_after_s)
        if not stuck:
            return []
        key, state, since = stuck[0]
        cause = (
            f"{len(stuck)} messages have not moved for {self._stuck_after_s / 60:.0f} minutes or more; the oldest is {key.message} "
            f"of channel {key.channel} ({state.value})"
        )
        repair = f"gateway why {key.message}; /stop in that conversation frees it, a restart takes all of them up again."
        return [Trouble(kind=TroubleKind.STUCK, part=GATEWAY, since=since, cause=cause, repair=repair)]

    async def _closed_elsewhere(self, keys: Sequence[TurnKey]) -> bool:
        """A process that took a conversation over closes its turns without this one."""
        try:
            return await self._ledger.forget_closed(keys)
        except StoreError:  # its own watch reports that
            return False
