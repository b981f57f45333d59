"""Three deliveries of five seconds as one plan: which attempt is answered, which is held, and when the ladder is over.

WeChat waits 5 s for an answer, cuts the connection and delivers again, three times in all (公众号 被动回复 page, 2026-11). So a
request whose answer is not ready is held until WeChat cuts it, and only the last one gets a placeholder. Nobody here knows HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from gateway.clock import Clock
from gateway.errors import TicketExpired

ATTEMPTS = 3
KEEP_S = 600.0
"""A turn is forgotten this long after it began: twice the age up to which a replayed request is taken."""
MAX_TURNS = 5_000
"""Older turns give way; the ledger still knows them, so a late redelivery is answered from there."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The platform's patience. Only tests and simulators change the figures."""

    window_s: float = 5.0
    """How long the platform waits in one attempt."""
    attempt_s: float = 4.5
    """How long we dare to use of it; the exact cut is not documented."""

    @property
    def hold_s(self) -> float:
        """When we give up waiting for the platform to cut."""
        return self.window_s * 1.1

    @property
    def last_from_s(self) -> float:
        """An attempt that arrives this late is the last one, whatever was counted."""
        return (ATTEMPTS - 1) * self.window_s - (self.window_s - self.attempt_s)

    @property
    def placeholder_by_s(self) -> float:
        return (ATTEMPTS - 1) * self.window_s + self.attempt_s

    @property
    def over_s(self) -> float:
        """From then on the platform listens no more."""
        return ATTEMPTS * self.window_s


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

    def become(self, state: TurnState) -> None:
        self.state = state
        self.changed.set()


class TurnBook:
    """The turns of the last minutes; joins the requests of one message with its answer. Bounded in number and age."""

    def __init__(self, *, clock: Clock, ladder: Ladder, max_turns: int = MAX_TURNS) -> None:
        self._clock = clock
        self._ladder = ladder
        self._max_turns = max_turns
        self._turns: dict[str, Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def find(self, turn_id: str) -> Turn | None:
        return self._turns.get(turn_id)

    def begin(self, turn_id: str, *, late_s: float = 0.0) -> Turn:
        """A turn for a message not yet in the book, first delivered `late_s` seconds ago."""
        self._make_room()
        turn = Turn(id=turn_id, began=self._clock.monotonic() - late_s)
        self._turns[turn_id] = turn
        return turn

    async def abandon(self, turn: Turn) -> None:
        """The message was not taken in: forget it and close its connections, so that the platform delivers it again."""
        self._forget(turn)
        turn.become(TurnState.OVER)
        for request in tuple(turn.waiting):
            await request.hang_up()

    async def settle(self, turn: Turn, reply: str) -> None:
        """The answer is known without anybody showing it: every request of this turn gets it."""
        turn.reply = reply
        await self._write(turn, reply)

    async def hold(self, turn: Turn, request: Waiting, placeholder: Callable[[], str]) -> None:
        """Give `request` the answer, now or when it comes; or the placeholder if it is the last; or hang up when the platform does not."""
        self._count(turn)
        if turn.state is not TurnState.RUNNING or turn.reply is not None:
            await self._answer_at_once(turn, request, placeholder)
            return
        last = self._is_last(turn)
        turn.waiting.add(request)
        try:
            async with self._clock.timeout(self._patience(turn, last)):
                await request.until_over()
        except TimeoutError:
            if last and turn.admitted:
                await self._answer_at_once(turn, request, placeholder)
            else:
                await request.hang_up()
        finally:
            turn.waiting.discard(request)

    async def show(self, turn_id: str, reply: str, *, age_s: float) -> None:
        """Give the answer to the platform: return once it was written to an open connection.

        `age_s`: seconds since the message was first delivered, for a turn that began before a restart; it then waits for the platform's
        next attempt. Raises TicketExpired when the platform asks no more.
        """
        turn = self._turns.get(turn_id) or self._resume(turn_id, age_s)
        if turn.state is TurnState.RUNNING:
            turn.reply = reply
            # One round of the loop: a request whose peer has just gone must leave `waiting` before we write into nothing.
            await self._clock.sleep(0)
            await self._write(turn, reply)
            await self._until_changed(turn)
        if turn.state is not TurnState.ANSWERED:
            raise _expired(turn_id)

    async def hang_up(self) -> None:
        """Close every connection that still waits; for the end of the gateway."""
        for turn in tuple(self._turns.values()):
            for request in tuple(turn.waiting):
                await request.hang_up()

    async def _write(self, turn: Turn, reply: str) -> None:
        for request in tuple(turn.waiting):
            if await request.answer(reply):
                turn.become(TurnState.ANSWERED)

    async def _until_changed(self, turn: Turn) -> None:
        if turn.state is not TurnState.RUNNING:
            return
        try:
            async with self._clock.timeout(self._left(turn)):
                await turn.changed.wait()
        except TimeoutError:
            if turn.state is TurnState.RUNNING:
                turn.reply = None
                turn.become(TurnState.OVER)

    async def _answer_at_once(self, turn: Turn, request: Waiting, placeholder: Callable[[], str]) -> None:
        if not await request.alive():
            return
        reply, state = (turn.reply, TurnState.ANSWERED) if turn.reply is not None else (placeholder(), TurnState.PLACEHELD)
        if await request.answer(reply) and turn.state is TurnState.RUNNING:
            turn.become(state)

    def _resume(self, turn_id: str, age_s: float) -> Turn:
        """A turn from before a restart: the ledger has it, and the platform may ask again."""
        if age_s >= self._ladder.over_s:
            raise _expired(turn_id)
        turn = self.begin(turn_id, late_s=max(age_s, 0.0))
        turn.admitted = True
        return turn

    def _count(self, turn: Turn) -> None:
        """A copy of the same attempt, sent beside it, is not a further attempt."""
        now = self._clock.monotonic()
        if turn.waiting and now - turn.counted_at < self._ladder.window_s / 2:
            return
        turn.attempts += 1
        turn.counted_at = now

    def _is_last(self, turn: Turn) -> bool:
        return turn.attempts >= ATTEMPTS or turn.counted_at - turn.began > self._ladder.last_from_s

    def _patience(self, turn: Turn, last: bool) -> float:
        if not last:
            return self._ladder.hold_s
        age = self._clock.monotonic() - turn.began
        return max(min(self._ladder.attempt_s, self._ladder.placeholder_by_s - age), 0.0)

    def _left(self, turn: Turn) -> float:
        return max(turn.began + self._ladder.over_s - self._clock.monotonic(), 0.0)

    def _make_room(self) -> None:
        oldest = next(iter(self._turns.values()), None)
        too_old = self._clock.monotonic() - KEEP_S
        while oldest is not None and (oldest.began <= too_old or len(self._turns) >= self._max_turns):
            self._forget(oldest)
            oldest = next(iter(self._turns.values()), None)

    def _forget(self, turn: Turn) -> None:
        if self._turns.get(turn.id) is turn:
            del self._turns[turn.id]


def _expired(turn_id: str) -> TicketExpired:
    return TicketExpired(f"WeChat stopped asking for the answer to {turn_id}")
