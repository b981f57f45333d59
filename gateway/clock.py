"""The only source of time. Tests hand in `gateway.testing.ManualClock` and turn it."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
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
    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """`async with clock.timeout(5):` raises TimeoutError when the body takes longer; None: never."""


class SystemClock(Clock):
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0))

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(seconds)
