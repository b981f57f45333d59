"""Order inside a conversation, many conversations beside each other, bounded, fair, and nothing left behind."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

from gateway.clock import Clock
from gateway.errors import Busy

logger = logging.getLogger(__name__)

Job: TypeAlias = Callable[[], Awaitable[None]]


class Places:
    """At most `count` holders at once, and at most half of them of one owner. When a place becomes free it goes to the owner who has
    waited longest since he was last served, so that somebody with a hundred conversations gets one place in his round, not a hundred.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._share = max(1, count // 2)
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Owners in the order in which they are served; a served owner who still waits goes to the end."""

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def crowded(self) -> bool:
        """Whether all places are taken."""
        return self._free <= 0

    @asynccontextmanager
    async def place(self, owner: str) -> AsyncIterator[None]:
        """Hold a place while the body runs."""
        await self._take(owner)
        try:
            yield
        finally:
            self._give_back(owner)

    async def _take(self, owner: str) -> None:
        if self._free > 0 and self._may(owner) and owner not in self._waiting:
            self._hold(owner)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place came in the same moment: pass it on
                self._give_back(owner)
            self._forget(owner, turn)
            raise

    def _may(self, owner: str) -> bool:
        """Whether his half is not used up; work of the house itself has no owner."""
        return not owner or self._held[owner] < self._share

    def _hold(self, owner: str) -> None:
        self._free -= 1
        self._held[owner] += 1

    def _give_back(self, owner: str) -> None:
        self._free += 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        while self._free > 0 and (chosen := self._next()) is not None:
            self._hold(chosen)

    def _next(self) -> str | None:
        """Tell the next who waits that he has a place, and return whose it is; None when nobody may take one."""
        for owner in self._waiting:
            if self._may(owner):
                turns = self._waiting.pop(owner)
                turn = turns.popleft()
                if turns:
                    self._waiting[owner] = turns
                if turn.done():  # he gave up
                    return self._next()
                turn.set_result(None)
                return owner
        return None

    def _forget(self, owner: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(owner)
        if turns is None or turn not in turns:
            return
        turns.remove(turn)
        if not turns:
            del self._waiting[owner]


class _Lane:
    """The jobs of one conversation; exists only while there are some."""

    __slots__ = ("closing", "jobs", "running", "since", "stopped", "task")

    def __init__(self) -> None:
        self.jobs: deque[tuple[Job, str]] = deque()
        self.task: asyncio.Task[None] | None = None
        self.running = False
        self.stopped = False
        self.closing = False
        self.since = 0.0


class Lanes:
    """One lane per key: its jobs run one after the other, in the order they entered.

    At most `max_running` jobs run at once over all lanes; free places go round the owners of the waiting jobs. A job must not raise
    (a lane survives if it does, and says so in the log).
    """

    def __init__(self, *, max_waiting_per_lane: int = 20, max_waiting: int = 2000, max_running: int = 500) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._max_waiting_per_lane = max_waiting_per_lane
        self._max_waiting = max_waiting
        self._places = Places(max_running)
        self._waiting = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """How many lanes have work."""
        return len(self._lanes)

    @property
    def waiting(self) -> int:
        """How many jobs wait, over all lanes."""
        return self._waiting

    def ahead(self, key: str) -> int:
        """How many jobs of this lane, the running one included, a job that enters now has before it; in a crowded house at least one."""
        lane = self._lanes.get(key)
        if lane is None:
            return len(self._places) + 1 if self._places.crowded else 0
        return len(lane.jobs) + lane.running

    def running_since(self) -> dict[str, float]:
        """For each lane whose job runs: when it began, on the event loop's clock. For the watchdog."""
        return {key: lane.since for key, lane in self._lanes.items() if lane.running}

    def enter(self, key: str, job: Job, *, owner: str = "", force: bool = False) -> None:
        """Line `job` up in its lane. Raises Busy when the lane or the whole is full; `force` (for turns of an earlier run) ignores that."""
        lane = self._lanes.get(key)
        ahead = len(lane.jobs) if lane else 0
        if not force and ahead >= self._max_waiting_per_lane:
            raise Busy(f"{ahead} messages of this conversation are already waiting")
        if not force and self._waiting >= self._max_waiting:
            raise Busy(f"{self._waiting} messages are already waiting")
        if lane is None:
            lane = self._lanes[key] = _Lane()
            self._empty.clear()
            lane.task = asyncio.create_task(self._work(key, lane), name=f"lane {key}")
        lane.jobs.append((job, owner))
        self._waiting += 1

    def stop(self, key: str) -> bool:
        """Cancel the job that runs in the lane, not those that wait. False when none runs."""
        lane = self._lanes.get(key)
        if lane is None or not lane.running or lane.stopped or lane.closing or lane.task is None:
            return False
        lane.stopped = True
        return lane.task.cancel()

    def was_stopped(self, key: str) -> bool:
        """Inside a job that was cancelled: whether `stop` did it (and not the end of the process). Takes the cancellation back."""
        lane = self._lanes.get(key)
        if lane is None or not lane.stopped or lane.task is None:
            return False
        lane.stopped = False
        lane.task.uncancel()
        return True

    @contextmanager
    def unstoppable(self, key: str) -> Iterator[None]:
        """Inside a job: while the body runs, `stop` comes too late; it must not tear the closing of a turn apart."""
        lane = self._lanes.get(key)
        if lane is None:
            yield
            return
        lane.closing = True
        try:
            yield
        finally:
            lane.closing = False

    def abandon(self, key: str) -> None:
        """Cancel a lane with all its jobs: another process works on this conversation now."""
        lane = self._lanes.get(key)
        if lane is not None and lane.task is not None:
            lane.task.cancel()

    async def settle(self, clock: Clock, timeout_s: float) -> int:
        """Wait until all lanes are empty, at most `timeout_s`; then cancel what still runs. Returns how many jobs were given up."""
        try:
            async with clock.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            pass
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        given_up = self._waiting + sum(lane.running for lane in self._lanes.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return given_up

    async def _work(self, key: str, lane: _Lane) -> None:
        try:
            while lane.jobs:
                async with self._places.place(lane.jobs[0][1]):
                    await self._run_next(key, lane)
        finally:
            self._waiting -= len(lane.jobs)
            del self._lanes[key]
            if not self._lanes:
                self._empty.set()

    async def _run_next(self, key: str, lane: _Lane) -> None:
        job, _ = lane.jobs.popleft()
        self._waiting -= 1
        lane.running = True
        lane.stopped = False
        lane.since = asyncio.get_running_loop().time()
        try:
            await job()
        except Exception:  # a lane must survive a broken job, or its conversation is dead for good
            logger.exception("A job in lane %s raised; the lane goes on.", key)
        finally:
            lane.running = False
