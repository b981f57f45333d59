"""Three deliveries of five seconds as one plan, on a clock turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.channels.official_account.deadline import KEEP_S, Ladder, TurnBook
from gateway.errors import TicketExpired
from gateway.testing import ManualClock

LATER = "later"
"""The placeholder of these tests."""


class Attempt:
    """One delivery by the platform: what it heard, and whether either side closed."""

    def __init__(self) -> None:
        self.heard: str | None = None
        self.hung_up = False
        self._over = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self._over.is_set()

    def cut(self) -> None:
        """The platform closes the connection."""
        self._over.set()

    async def alive(self) -> bool:
        await asyncio.sleep(0)
        return not self.ended

    async def answer(self, reply: str) -> bool:
        if self.ended:
            return False
        self.heard = reply
        self._over.set()
        return True

    async def until_over(self) -> None:
        await self._over.wait()

    async def hang_up(self) -> None:
        if not self.ended:
            self.hung_up = True
            self._over.set()


class Platform:
    """Delivers one message as WeChat does, and knows what it was told."""

    def __init__(self, *, max_turns: int = 100) -> None:
        self.clock = ManualClock()
        self.book = TurnBook(clock=self.clock, ladder=Ladder(), max_turns=max_turns)
        self.tasks: list[asyncio.Task[None]] = []

    async def deliver(self, turn_id: str = "m1", *, admitted: bool = True) -> Attempt:
        """One attempt arrives and is held."""
        turn = self.book.find(turn_id) or self.book.begin(turn_id)
        turn.admitted = turn.admitted or admitted
        attempt = Attempt()
        self.tasks.append(asyncio.create_task(self.book.hold(turn, attempt, lambda: LATER)))
        await self.clock.settle()
        return attempt

    async def cut_after_window(self, attempt: Attempt) -> None:
        await self.clock.advance(5)
        attempt.cut()
        await self.clock.settle()

    async def third_attempt(self) -> Attempt:
        """The first two were cut after five seconds each."""
        await self.cut_after_window(await self.deliver())
        await self.cut_after_window(await self.deliver())
        return await self.deliver()

    def show(self, reply: str, turn_id: str = "m1", *, age_s: float = 0.0) -> asyncio.Task[None]:
        """The answer is ready; the task ends when it was written."""
        task = asyncio.create_task(self.book.show(turn_id, reply, age_s=age_s))
        self.tasks.append(task)
        return task


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with _platform() as made:
        yield made


@asynccontextmanager
async def _platform(max_turns: int = 100) -> AsyncIterator[Platform]:
    platform = Platform(max_turns=max_turns)
    try:
        yield platform
    finally:
        for task in platform.tasks:
            task.cancel()
        await asyncio.gather(*platform.tasks, return_exceptions=True)


async def test_a_quick_answer_goes_out_on_the_first_attempt(platform: Platform) -> None:
    attempt = await platform.deliver()

    await platform.show("answer")

    assert attempt.heard == "answer"


async def test_an_answer_that_is_ready_before_the_request_waits_is_given_at_once(platform: Platform) -> None:
    turn = platform.book.begin("m1")
    shown = platform.show("answer")
    await platform.clock.settle()
    assert not shown.done()

    turn.admitted = True
    attempt = await platform.deliver()

    assert attempt.heard == "answer"
    await shown


async def test_the_first_two_attempts_are_held_until_the_platform_cuts_them(platform: Platform) -> None:
    for _ in range(2):
        attempt = await platform.deliver()
        await platform.clock.advance(4.99)
        assert not attempt.ended
        await platform.clock.advance(0.01)
        attempt.cut()
        await platform.clock.settle()
        assert (attempt.heard, attempt.hung_up) == (None, False)


async def test_an_attempt_that_the_platform_forgets_to_cut_is_closed_without_an_answer(platform: Platform) -> None:
    attempt = await platform.deliver()

    await platform.clock.advance(5.4)
    assert not attempt.ended
    await platform.clock.advance(0.1)

    assert attempt.hung_up


async def test_an_answer_after_seven_seconds_goes_out_on_the_second_attempt(platform: Platform) -> None:
    await platform.cut_after_window(await platform.deliver())
    second = await platform.deliver()
    await platform.clock.advance(2)

    await platform.show("answer")

    assert second.heard == "answer"


async def test_an_answer_between_two_attempts_waits_for_the_next(platform: Platform) -> None:
    await platform.cut_after_window(await platform.deliver())
    shown = platform.show("answer")
    await platform.clock.advance(0.5)
    assert not shown.done()

    second = await platform.deliver()

    assert second.heard == "answer"
    await shown


async def test_the_placeholder_comes_on_the_third_attempt_after_fourteen_and_a_half_seconds(platform: Platform) -> None:
    third = await platform.third_attempt()

    await platform.clock.advance(4.49)
    assert not third.ended
    await platform.clock.advance(0.01)

    assert third.heard == LATER
    with pytest.raises(TicketExpired):
        await platform.show("answer")


async def test_a_late_third_attempt_gets_the_placeholder_by_fourteen_and_a_half_seconds_in_all(platform: Platform) -> None:
    await platform.cut_after_window(await platform.deliver())
    await platform.cut_after_window(await platform.deliver())
    await platform.clock.advance(2)
    third = await platform.deliver()

    await platform.clock.advance(2.5)

    assert third.heard == LATER


async def test_an_attempt_after_nine_and_a_half_seconds_is_the_last_whatever_was_counted(platform: Platform) -> None:
    await platform.cut_after_window(await platform.deliver())
    await platform.clock.advance(5)
    second_seen = await platform.deliver()

    await platform.clock.advance(4.5)

    assert second_seen.heard == LATER


async def test_three_attempts_in_quick_succession_still_wait_for_the_answer(platform: Platform) -> None:
    for _ in range(2):
        attempt = await platform.deliver()
        attempt.cut()
        await platform.clock.settle()
    third = await platform.deliver()
    await platform.clock.advance(4)

    await platform.show("answer")

    assert third.heard == "answer"


async def test_copies_of_one_attempt_are_not_counted_as_further_ones(platform: Platform) -> None:
    copies = [await platform.deliver() for _ in range(3)]

    await platform.clock.advance(5)

    assert all(not copy.ended for copy in copies)
    await platform.show("answer")
    assert [copy.heard for copy in copies] == ["answer"] * 3


async def test_a_retry_before_we_notice_the_cut_does_not_make_the_old_attempt_the_last(platform: Platform) -> None:
    """A proxy in between may keep the old connection open."""
    await platform.cut_after_window(await platform.deliver())
    second = await platform.deliver()
    await platform.clock.advance(5)
    third = await platform.deliver()

    await platform.clock.advance(0.5)
    assert (second.heard, second.hung_up, third.ended) == (None, True, False)

    await platform.show("answer")
    assert third.heard == "answer"


async def test_a_retry_after_the_answer_gets_the_identical_answer(platform: Platform) -> None:
    await platform.deliver()
    await platform.show("answer")

    retries = [await platform.deliver() for _ in range(3)]

    assert [retry.heard for retry in retries] == ["answer"] * 3


async def test_a_retry_after_the_placeholder_gets_the_placeholder_again(platform: Platform) -> None:
    await platform.third_attempt()
    await platform.clock.advance(4.5)

    retry = await platform.deliver()

    assert retry.heard == LATER


async def test_an_answer_is_not_counted_as_shown_on_a_connection_that_was_just_cut(platform: Platform) -> None:
    first = await platform.deliver()
    shown = platform.show("answer")
    first.cut()
    await platform.clock.settle()
    assert not shown.done()

    second = await platform.deliver()

    assert (first.heard, second.heard) == (None, "answer")
    await shown


async def test_a_request_that_was_cut_while_the_store_wrote_is_not_counted_as_answered(platform: Platform) -> None:
    turn = platform.book.begin("m1")
    turn.admitted = True
    shown = platform.show("answer")
    await platform.clock.settle()
    gone = Attempt()
    gone.cut()

    await platform.book.hold(turn, gone, lambda: LATER)
    await platform.clock.settle()

    assert gone.heard is None
    assert not shown.done()


async def test_when_the_platform_asks_no_more_the_ticket_expires_after_fifteen_seconds(platform: Platform) -> None:
    await platform.cut_after_window(await platform.deliver())
    shown = platform.show("answer")

    await platform.clock.advance(9.9)
    assert not shown.done()
    await platform.clock.advance(0.1)

    with pytest.raises(TicketExpired):
        await shown


async def test_an_attempt_after_the_ladder_is_over_is_told_that_the_answer_comes_later(platform: Platform) -> None:
    await platform.cut_after_window(await platform.deliver())
    shown = platform.show("answer")
    await platform.clock.advance(11)
    with pytest.raises(TicketExpired):
        await shown

    late = await platform.deliver()

    assert late.heard == LATER


async def test_after_a_restart_the_answer_waits_for_the_next_attempt(platform: Platform) -> None:
    shown = platform.show("answer", age_s=4)
    await platform.clock.advance(1)

    attempt = await platform.deliver()

    assert attempt.heard == "answer"
    await shown


async def test_after_a_restart_an_old_ticket_has_expired_at_once(platform: Platform) -> None:
    with pytest.raises(TicketExpired):
        await platform.show("answer", age_s=15)

    assert len(platform.book) == 0


async def test_a_message_that_is_not_on_disk_gets_no_placeholder(platform: Platform) -> None:
    for _ in range(2):
        attempt = await platform.deliver(admitted=False)
        await platform.cut_after_window(attempt)
    third = await platform.deliver(admitted=False)

    await platform.clock.advance(4.5)

    assert third.hung_up


async def test_a_message_that_was_not_taken_in_is_forgotten_and_its_connections_closed(platform: Platform) -> None:
    turn = platform.book.begin("m1")
    beside = await platform.deliver(admitted=False)

    await platform.book.abandon(turn)

    assert beside.hung_up
    assert platform.book.find("m1") is None


async def test_an_answer_from_the_ledger_goes_to_every_request_of_its_message(platform: Platform) -> None:
    first = await platform.deliver()
    turn = platform.book.find("m1")
    assert turn is not None

    await platform.book.settle(turn, "recorded")
    second = await platform.deliver()

    assert (first.heard, second.heard) == ("recorded", "recorded")


async def test_turns_are_forgotten_after_ten_minutes(platform: Platform) -> None:
    platform.book.begin("old")
    await platform.clock.advance(KEEP_S)

    platform.book.begin("new")

    assert platform.book.find("old") is None
    assert len(platform.book) == 1


async def test_the_book_never_grows_beyond_its_bound_and_an_evicted_message_is_still_answered() -> None:
    async with _platform(max_turns=3) as platform:
        await platform.cut_after_window(await platform.deliver("m1"))
        for number in range(10):
            platform.book.begin(f"other {number}")
        assert len(platform.book) == 3

        shown = platform.show("answer", "m1", age_s=5)
        retry = await platform.deliver("m1")

        assert retry.heard == "answer"
        await shown


async def test_at_the_end_every_connection_that_waits_is_closed(platform: Platform) -> None:
    attempts = [await platform.deliver(name) for name in ("m1", "m2")]

    await platform.book.hang_up()

    assert all(attempt.hung_up for attempt in attempts)


async def test_a_wrongly_set_clock_does_not_move_the_ladder(platform: Platform) -> None:
    attempt = await platform.deliver()
    platform.clock.jump(3600)

    await platform.clock.advance(4)
    await platform.show("answer", age_s=3604)

    assert attempt.heard == "answer"
