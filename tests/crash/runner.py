"""A gateway that dies where it is told, and whose wall clock can be turned: `python runner.py run --config FILE`.

    CRASH_AT=ledger.answered:after:3   kill -9 by its own hand right after the third such call of the store
    CRASH_CLOCK=/some/file             the file holds seconds that are added to the time of day, read at every look
    CRASH_FILE_BYTES=300000            no file of this process may grow beyond so many bytes, as on a full disk

Without these it is the gateway as it ships. Calls are named by the part of the store and the method: ledger.accept, sessions.save,
shelf.put, mailboxes.head. `before`: nothing of the call was done; `after`: the call has returned to its caller's await.
"""

from __future__ import annotations

import inspect
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
PARTS = ("ledger", "sessions", "shelf", "mailboxes", "seats", "bulletin")


@dataclass
class Point:
    """One named point of the store; `left` calls pass before it strikes."""

    part: str
    call: str
    when: str
    left: int

    @classmethod
    def read(cls, text: str) -> Point:
        name, when, number = text.split(":")
        part, _, call = name.partition(".")
        if part not in PARTS or when not in ("before", "after"):
            raise SystemExit(f"CRASH_AT: {text!r} names no point; parts are {', '.join(PARTS)}, then :before or :after, then a number")
        return cls(part, call, when, int(number))

    def strike(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def guarded(*arguments: Any, **named: Any) -> Any:
            if self.when == "before":
                self.strike()
            result = await work(*arguments, **named)
            if self.when == "after":
                self.strike()
            return result

        return guarded


def arm(point: Point) -> None:
    """Put the point around the store that the gateway opens."""
    import gateway.wiring

    opened = gateway.wiring.open_store

    async def open_armed(*arguments: Any, **named: Any) -> Any:
        store = await opened(*arguments, **named)
        part = getattr(store, point.part)
        work = getattr(part, point.call, None)
        if not inspect.iscoroutinefunction(work):
            raise SystemExit(f"CRASH_AT: {point.part} of {type(store).__name__} has no call {point.call!r}")
        setattr(part, point.call, point.around(work))
        return store

    gateway.wiring.open_store = open_armed


def turn_clock(file: Path) -> None:
    """Let the file say how wrong the time of day is."""
    from gateway.clock import SystemClock

    true_now = SystemClock.now

    def now(clock: SystemClock) -> datetime:
        return true_now(clock) + timedelta(seconds=float(file.read_text() or 0))

    SystemClock.now = now  # type: ignore[method-assign]


def main() -> None:
    sys.path.insert(0, str(TOP))
    if size := os.environ.get("CRASH_FILE_BYTES"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))
    if point := os.environ.get("CRASH_AT"):
        arm(Point.read(point))
    if file := os.environ.get("CRASH_CLOCK"):
        turn_clock(Path(file))
    from gateway.cli import main as gateway

    gateway(prog_name="gateway")


if __name__ == "__main__":
    main()
