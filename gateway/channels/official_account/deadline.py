"""Three deliveries of five seconds as one plan: which attempt is answered, which is held, and when the ladder is over.

WeChat waits 5 s for an answer, cuts the connection and delivers again, three times in all (公众号 被动回复 page, 2026-11). So a
request whose answer is not ready is held until WeChat cuts it, and only the last one gets a placeholder. Nobody here knows HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.channels.official_account.elsewhere import Elsewhere, Stand, Word
from gateway.channels.official_account.turn import Turn, TurnState, Waiting
from gateway.clock import Clock
from gateway.errors import StoreError, TicketExpired

logger = logging.getLogger(__name__)

ATTEMPTS = 3
KEEP_S = 600.0
"""A turn is forgotten this long after it began: twice the age up to which a replayed request is taken."""
MAX_TURNS = 5_000
"""Older turns give way; the ledger still knows them, so a late redelivery is answered from there."""


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
    def beside_s(self) -> float:
        """What reaches another process sooner than this is a copy of the same attempt, later it is the next one (after a broken one)."""
        return self.window_s / 10

    def late_s(self, elapsed_s: float) -> float:
        """How late a further attempt is by the clock of another process: a whole number of windows, should the clocks differ a little."""
        windows = min(max(round(elapsed_s / self.window_s), 0), ATTEMPTS)
        return windows * self.window_s

    @property
    def placeholder_by_s(self) -> float:
        return (ATTEMPTS - 1) * self.window_s + self.attempt_s

    @property
    def over_s(self) -> float:
        """From then on the platform listens no more."""
        return ATTEMPTS * self.window_s


class TurnBook:
    """The turns of the last minutes; joins the requests of one message with its answer. Bounded in number and age.

    With `elsewhere` the answer may be made in one process and asked for in another; without, both are here.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        ladder: Ladder,
        max_turns: int = MAX_TURNS,
        elsewhere: Elsewhere | None = None,
        about_to_write: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`about_to_write` is told the id of a turn that was worked here, before its answer first goes to an open connection."""
        self._clock = clock
        self._ladder = ladder
        self._max_turns = max_turns
        self._elsewhere = elsewhere
        self._about_to_write = about_to_write
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
        if turn.attempts > 1 and self._elsewhere is not None:
            await self._elsewhere.tell(Word(turn=turn.id, stand=Stand.ASKED, attempts=turn.attempts))
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
                await self.catch_up(turn)
                await self._answer_at_once(turn, request, placeholder)
            else:
                await request.hang_up()
        finally:
            turn.waiting.discard(request)

    async def show(self, turn_id: str, reply: str, *, age_s: float, keep: bool = False) -> None:
        """Give the answer to the platform: return once it was written to an open connection, in whichever process that is.

        `age_s`: seconds since the message was first delivered, for a turn that began before a restart; it then waits for the platform's
        next attempt. `keep`: other processes cannot make this reply again from the ledger. Raises TicketExpired when the platform asks
        no more.
        """
        turn = self._turns.get(turn_id) or self._resume(turn_id, age_s)
        if turn.state is TurnState.RUNNING:
            turn.reply, turn.worked_here = reply, True
            # One round of the loop: a request whose peer has just gone must leave `waiting` before we write into nothing.
            await self._clock.sleep(0)
            await self._write(turn, reply)
            await self._offer(turn, keep=keep)
            await self._until_changed(turn)
        elif turn.state is TurnState.OVER:  # perhaps shown by a process that died before it could say so in the ledger
            await self.catch_up(turn)
        if turn.state is not TurnState.ANSWERED:
            raise _expired(turn_id)

    def join(self, turn: Turn, *, elapsed_s: float) -> None:
        """Take up a turn whose first attempt another process took in, so long ago by its clock, or this one before it was restarted."""
        turn.began = min(turn.began, self._clock.monotonic() - self._ladder.late_s(elapsed_s))
        if self._elsewhere is not None and elapsed_s >= self._ladder.beside_s:
            turn.attempts = max(turn.attempts, 1)

    async def catch_up(self, turn: Turn) -> None:
        """Learn what other processes did with the turn while nobody here knew it, or while their news did not come through."""
        word = await self._elsewhere.ask(turn.id) if self._elsewhere is not None else None
        if word is not None:
            self._believe(turn, word)

    async def hear(self, word: Word) -> None:
        """Another process has a reply for a turn of ours, or knows how it ended."""
        turn = self._turns.get(word.turn)
        if turn is None:
            return
        turn.attempts = max(turn.attempts, word.attempts)
        if turn.state is not TurnState.RUNNING:
            await self._contradict(turn, word)
            return
        self._believe(turn, word)
        if turn.reply is not None:
            await self._write(turn, turn.reply)

    async def hang_up(self) -> None:
        """Close every connection that still waits; for the end of the gateway."""
        for turn in tuple(self._turns.values()):
            for request in tuple(turn.waiting):
                await request.hang_up()

    async def _write(self, turn: Turn, reply: str) -> None:
        for request in tuple(turn.waiting):
            await self._note(turn)
            if await request.answer(reply):
                await self._end(turn, TurnState.ANSWERED)

    async def _note(self, turn: Turn) -> None:
        """After a crash nobody could say whether the platform has the answer, unless it asks again: so write down that it may have it."""
        if self._about_to_write is not None and turn.worked_here and not turn.noted:
            turn.noted = True
            await self._about_to_write(turn.id)

    async def _end(self, turn: Turn, state: TurnState) -> None:
        """The platform was given something here; who made the answer elsewhere waits to hear that."""
        if turn.state is not TurnState.RUNNING:
            return
        turn.become(state)
        if self._elsewhere is not None and not turn.worked_here:
            await self._elsewhere.tell(Word(turn=turn.id, stand=Stand(state.value), reply=turn.reply))

    async def _offer(self, turn: Turn, *, keep: bool) -> None:
        """When no request is open here, another process may hold one, or get the next."""
        if self._elsewhere is None:
            return
        if turn.state is TurnState.RUNNING:
            await self.catch_up(turn)
            keep = turn.state is TurnState.RUNNING
        if keep:
            stand = Stand.OFFERED if turn.state is TurnState.RUNNING else Stand(turn.state.value)
            await self._elsewhere.tell(Word(turn=turn.id, stand=stand, reply=turn.reply))

    async def _contradict(self, turn: Turn, word: Word) -> None:
        """An offer that crossed our placeholder must not stay the last word, or the answer would be shown and parked."""
        if word.stand is Stand.OFFERED and turn.state is TurnState.PLACEHELD and self._elsewhere is not None:
            await self._elsewhere.tell(Word(turn=turn.id, stand=Stand.PLACEHELD))

    def _believe(self, turn: Turn, word: Word) -> None:
        if word.stand in (Stand.OFFERED, Stand.ANSWERED):
            turn.reply = word.reply if turn.reply is None else turn.reply
        elif word.stand is not Stand.ASKED:
            turn.reply = None
        if word.stand not in (Stand.ASKED, Stand.OFFERED):
            turn.become(TurnState(word.stand.value))

    async def _until_changed(self, turn: Turn) -> None:
        if turn.state is not TurnState.RUNNING:
            return
        try:
            async with self._clock.timeout(self._left(turn)):
                await turn.changed.wait()
        except TimeoutError:
            await self.catch_up(turn)
            if turn.state is TurnState.RUNNING:
                turn.reply = None
                turn.become(TurnState.OVER)
                if self._elsewhere is not None:
                    await self._elsewhere.tell(Word(turn=turn.id, stand=Stand.OVER))

    async def _answer_at_once(self, turn: Turn, request: Waiting, placeholder: Callable[[], str]) -> None:
        if not await request.alive():
            return
        reply, state = (turn.reply, TurnState.ANSWERED) if turn.reply is not None else (placeholder(), TurnState.PLACEHELD)
        if state is TurnState.ANSWERED:
            try:
                await self._note(turn)
            except StoreError as error:
                logger.warning("The answer to %s is not given before it can be noted: %s", turn.id, error)
                return
        if await request.answer(reply):
            await self._end(turn, state)

    def _resume(self, turn_id: str, age_s: float) -> Turn:
        """A turn from before a restart or from another process: the ledger has it, and the platform may ask again, unless it is over."""
        if age_s >= self._ladder.over_s:
            return Turn(id=turn_id, began=self._clock.monotonic() - age_s, state=TurnState.OVER)
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
