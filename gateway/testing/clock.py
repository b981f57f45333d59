"""A clock turned by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from gateway.clock import Clock

SETTLE_ROUNDS = 50
"""How often `advance` lets other tasks run after each wake-up; enough for chains of awaits inside one process."""


class ManualClock(Clock):
    """Stands still until `await clock.advance(seconds)`, which wakes every sleeper in the order of its due time."""

    def __init__(self, start: datetime = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), waiter))
        await waiter

    @asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[None]:
        async with asyncio.timeout(None) as limit:
            if seconds is None:
                yield
                return
            alarm = asyncio.create_task(self.sleep(seconds))
            alarm.add_done_callback(lambda task: None if task.cancelled() else limit.reschedule(asyncio.get_running_loop().time()))
            try:
                yield
            finally:
                alarm.cancel()

    async def advance(self, seconds: float) -> None:
        """Turn the hands forward and let everything that became due run."""
        await self.settle()
        target = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, waiter = heapq.heappop(self._sleepers)
            self._move_to(due)
            if not waiter.done():
                waiter.set_result(None)
            await self.settle()
        self._move_to(target)
        await self.settle()

    async def settle(self) -> None:
        """Let other tasks run until they wait for time or for the outside."""
        for _ in range(SETTLE_ROUNDS):
            await asyncio.sleep(0)

    def jump(self, seconds: float) -> None:
        """Move only the time of day, as a wrongly set machine clock does; sleepers are not woken."""
        self._now += timedelta(seconds=seconds)

    def _move_to(self, elapsed: float) -> None:
        self._now += timedelta(seconds=elapsed - self._elapsed)
        self._elapsed = elapsed
