"""One ladder over several processes, on a clock turned by hand: who made the answer need not be who is asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.channels.official_account.deadline import Ladder, TurnBook
from gateway.channels.official_account.elsewhere import Elsewhere, Word
from gateway.errors import TicketExpired
from gateway.stores.memory import MemoryStore
from gateway.testing import ManualClock
from gateway.testing.bulletin import SharedBoard
from tests.unit.test_deadline import LATER, Attempt


class Account:
    """Three processes with a book each, and WeChat, which asks whom it likes."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.board = SharedBoard(self.clock)
        self.store = MemoryStore()
        self.tasks: list[asyncio.Task[None]] = []
        self.books = [self._book() for _ in range(3)]

    def _book(self) -> TurnBook:
        elsewhere = Elsewhere(channel="official", shelf=self.store.shelf, bulletin=self.board.bulletin(), clock=self.clock)
        book = TurnBook(clock=self.clock, ladder=Ladder(), elsewhere=elsewhere)

        def heard(word: Word) -> None:
            self.tasks.append(asyncio.create_task(book.hear(word)))

        elsewhere.listen(heard)
        return book

    async def ask(self, process: int, *, late_s: float = 0.0) -> Attempt:
        """An attempt reaches this process."""
        book, attempt = self.books[process], Attempt()
        turn = book.find("m1")
        if turn is None:
            turn = book.begin("m1")
            turn.admitted = True
            book.join(turn, elapsed_s=late_s)
            await book.catch_up(turn)
        self.tasks.append(asyncio.create_task(book.hold(turn, attempt, lambda: LATER)))
        await self.clock.settle()
        return attempt

    async def cut_after_window(self, attempt: Attempt) -> None:
        await self.clock.advance(5)
        attempt.cut()
        await self.clock.settle()

    def show(self, process: int, reply: str, *, age_s: float) -> asyncio.Task[None]:
        task = asyncio.create_task(self.books[process].show("m1", reply, age_s=age_s))
        self.tasks.append(task)
        return task


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    made = Account()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_an_answer_made_in_a_third_process_goes_to_whoever_holds_the_request(account: Account) -> None:
    await account.cut_after_window(await account.ask(0))
    second = await account.ask(1, late_s=5)

    await account.show(2, "answer", age_s=6)

    assert second.heard == "answer"


async def test_an_answer_between_two_attempts_waits_for_the_next_wherever_it_arrives(account: Account) -> None:
    await account.cut_after_window(await account.ask(0))
    showing = account.show(2, "answer", age_s=5)
    await account.clock.settle()
    assert not showing.done()

    second = await account.ask(1, late_s=5)

    await showing
    assert second.heard == "answer"


async def test_a_lost_response_is_repeated_by_a_process_that_made_nothing(account: Account) -> None:
    first = await account.ask(0)
    await account.show(2, "answer", age_s=1)
    assert first.heard == "answer"

    second = await account.ask(1, late_s=5)

    assert second.heard == "answer"


async def test_the_third_attempt_is_known_as_the_last_though_each_met_another_process(account: Account) -> None:
    await account.cut_after_window(await account.ask(0))
    await account.cut_after_window(await account.ask(1, late_s=5))
    third = await account.ask(2, late_s=10)

    await account.clock.advance(4.5)
    assert third.heard == LATER

    with pytest.raises(TicketExpired):
        await account.show(0, "answer", age_s=14.6)


async def test_attempts_that_came_early_are_counted_over_all_processes(account: Account) -> None:
    """A process that died closed its connection, and WeChat came back before its five seconds were over."""
    (await account.ask(0)).cut()
    await account.clock.advance(3)
    second = await account.ask(1, late_s=5)
    await account.clock.advance(0.5)
    second.cut()
    third = await account.ask(0)

    await account.clock.advance(4.5)

    assert third.heard == LATER


async def test_an_offer_that_was_not_heard_is_found_before_a_placeholder_is_given(account: Account) -> None:
    await account.cut_after_window(await account.ask(0))
    await account.cut_after_window(await account.ask(1, late_s=5))
    third = await account.ask(2, late_s=10)
    account.board.down = True  # no news come through; the shelf still works
    showing = account.show(0, "answer", age_s=10)
    await account.clock.settle()
    account.board.down = False

    await account.clock.advance(4.5)

    assert third.heard == "answer"
    await showing


async def test_who_takes_a_conversation_over_knows_what_a_dead_process_had_shown(account: Account) -> None:
    await account.cut_after_window(await account.ask(0))
    await account.ask(1, late_s=5)
    await account.show(2, "answer", age_s=6)  # and process 2 dies before the ledger knows
    await account.clock.advance(60)

    await account.show(0, "answer", age_s=66)


async def test_an_answer_that_nobody_fetched_is_over_everywhere(account: Account) -> None:
    await account.cut_after_window(await account.ask(0))
    showing = account.show(2, "answer", age_s=5)
    await account.clock.advance(11)
    with pytest.raises(TicketExpired):
        await showing

    late = await account.ask(0)

    assert late.heard == LATER


async def test_clocks_that_differ_by_two_seconds_do_not_change_the_plan() -> None:
    assert [Ladder().late_s(seconds) for seconds in (3.1, 6.9, 8.0, 12.0)] == [5, 5, 10, 10]
    assert Ladder().late_s(-2) == 0


async def test_without_the_store_an_open_request_still_gets_its_answer(account: Account) -> None:
    first = await account.ask(0)
    account.board.down = True

    await account.show(0, "answer", age_s=1)

    assert first.heard == "answer"


async def test_a_store_that_hangs_holds_nobody_up_for_long(account: Account) -> None:
    first = await account.ask(0)
    account.board.hangs = True
    await account.cut_after_window(first)
    second = await account.ask(0)
    await account.clock.advance(1)

    showing = account.show(0, "answer", age_s=6)
    await account.clock.settle()

    assert second.heard == "answer"
    await showing
