"""The only source of time. Tests hand in `gateway.testing.ManualClock` and turn it."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime


class Clock(ABC):
    """Tells the time and waits."""

    @abstractmethod
    def now(self) -> datetime:
        """The time of day, aware, in UTC."""

    @abstractmethod
    def monotonic(self) -> float:
        """Seconds on a clock that never jumps; only differences mean something."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait. Zero or less lets others run once."""

    @abstractmethod
    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[None]:
        """`async with clock.timeout(5):` raises TimeoutError when the body takes longer; None: never."""


class SystemClock(Clock):
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0))

    @asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[None]:
        async with asyncio.timeout(seconds):
            yield
