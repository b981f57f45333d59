"""One message of a follower and the requests that wait for its answer. Knows no HTTP and no clock."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class Waiting(Protocol):
    """One request that waits for its answer."""

    async def alive(self) -> bool:
        """Whether the peer is still there and nothing was answered."""

    async def answer(self, reply: str) -> bool:
        """Write the answer; False when this request is over already."""

    async def until_over(self) -> None:
        """Return when the peer has gone or the answer was written."""

    async def hang_up(self) -> None:
        """Close the connection without an answer."""


class TurnState(Enum):
    """Where one message stands with the platform."""

    RUNNING = "running"
    """No answer was given yet."""
    ANSWERED = "answered"
    """The answer was written to an open connection; whoever asks again gets the same one."""
    PLACEHELD = "placeheld"
    """The platform was told that the answer comes later."""
    OVER = "over"
    """The platform stopped asking before there was an answer."""


@dataclass(eq=False, kw_only=True)
class Turn:
    """One message and its requests."""

    id: str
    began: float
    """On the monotonic clock: when the platform delivered it first."""
    admitted: bool = False
    """Whether it is on disk; nothing is answered before."""
    state: TurnState = TurnState.RUNNING
    reply: str | None = None
    """The answer: given when `ANSWERED`, waiting for the next attempt while `RUNNING`."""
    attempts: int = 0
    counted_at: float = float("-inf")
    waiting: set[Waiting] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when `state` is no longer RUNNING."""
    noted: bool = False
    """It is written down that the platform may have the answer."""
    worked_here: bool = False
    """The answer was made in this process; it need not be told that it was shown."""

    def become(self, state: TurnState) -> None:
        self.state = state
        self.changed.set()
