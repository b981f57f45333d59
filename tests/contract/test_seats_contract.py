"""What seats and news promise to several processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from redis_server import a_prefix, shared_url

from gateway.clock import SystemClock
from gateway.stores.base import Bulletin, Seats
from gateway.stores.redis import RedisStore
from gateway.testing.bulletin import SharedBoard

LEASE_S = 0.75


@dataclass(frozen=True)
class Process:
    """One process's door to what all share."""

    seats: Seats
    bulletin: Bulletin
    aclose: Callable[[], Awaitable[None]]


async def _nothing() -> None:
    pass


def _redis_house() -> Callable[[], Awaitable[Process]]:
    prefix = a_prefix()

    async def another() -> Process:
        store = await RedisStore.open(shared_url(), prefix=prefix, lease_s=LEASE_S)
        return Process(store.seats, store.bulletin, store.aclose)

    return another


def _board_house() -> Callable[[], Awaitable[Process]]:
    board = SharedBoard(SystemClock(), lease_s=LEASE_S)

    async def another() -> Process:
        return Process(board.seats(), board.bulletin(), _nothing)

    return another


HOUSES = {"redis": _redis_house, "board": _board_house}


@pytest.fixture(params=HOUSES)
async def processes(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Process, Process]]:
    another = HOUSES[request.param]()
    both = await another(), await another()
    yield both
    for process in both:
        await process.aclose()


async def heard_by(process: Process, topic: str) -> asyncio.Queue[str]:
    """What this process hears from now on; returns when it surely listens."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    process.bulletin.listen(topic, heard.put_nowait)
    await process.bulletin.publish(topic, "listening?")
    async with asyncio.timeout(5):
        while await heard.get() != "listening?":
            pass
    return heard


async def soon(heard: asyncio.Queue[str]) -> str:
    async with asyncio.timeout(5):
        return await heard.get()


async def test_one_process_sits_and_stays(processes: tuple[Process, Process]) -> None:
    one, other = processes

    assert await one.seats.take("wechat/bot")
    assert not await other.seats.take("wechat/bot")
    assert await one.seats.take("wechat/bot")
    assert 0 < await other.seats.free_in("wechat/bot") <= LEASE_S


async def test_seats_are_many(processes: tuple[Process, Process]) -> None:
    one, other = processes

    assert await one.seats.take("a")
    assert await other.seats.take("群 😀")


async def test_of_many_who_want_a_seat_one_gets_it(processes: tuple[Process, Process]) -> None:
    took = await asyncio.gather(*(process.seats.take("a") for process in processes))

    assert sorted(took) == [False, True]


async def test_a_seat_that_nobody_holds_any_more_is_taken_over(processes: tuple[Process, Process]) -> None:
    one, other = processes
    await one.seats.take("a")

    await asyncio.sleep(await other.seats.free_in("a") + 0.05)

    assert await other.seats.free_in("a") == 0
    assert await other.seats.take("a")
    assert not await one.seats.take("a")


async def test_whoever_takes_its_seat_again_in_time_keeps_it(processes: tuple[Process, Process]) -> None:
    one, other = processes
    for _ in range(6):
        assert await one.seats.take("a")
        await asyncio.sleep(LEASE_S / 3)

        assert not await other.seats.take("a")


async def test_a_seat_that_is_left_is_free_at_once(processes: tuple[Process, Process]) -> None:
    one, other = processes
    await one.seats.take("a")

    await other.seats.leave("a")
    assert not await other.seats.take("a")

    await one.seats.leave("a")
    assert await other.seats.take("a")


async def test_news_are_heard_by_all_processes_in_order(processes: tuple[Process, Process]) -> None:
    one, other = processes
    ears = [await heard_by(process, "replies") for process in processes]
    while not ears[0].empty():  # the second's question
        ears[0].get_nowait()

    for number in range(20):
        await one.bulletin.publish("replies", f"第 {number} \ud83d")

    assert [await soon(ears[1]) for _ in range(20)] == [f"第 {number} \ud83d" for number in range(20)]
    assert [await soon(ears[0]) for _ in range(20)][-1] == "第 19 \ud83d"
    await other.bulletin.publish("replies", "back")
    assert await soon(ears[0]) == "back"


async def test_news_of_other_topics_are_not_heard(processes: tuple[Process, Process]) -> None:
    one, other = processes
    heard, others = await heard_by(other, "a"), await heard_by(other, "b")

    await one.bulletin.publish("b", "for b")
    await one.bulletin.publish("a", "for a")

    assert (await soon(heard), await soon(others)) == ("for a", "for b")
    assert heard.empty()


async def test_several_listeners_of_one_topic_all_hear(processes: tuple[Process, Process]) -> None:
    one, _ = processes
    first, second = await heard_by(one, "a"), await heard_by(one, "a")
    await soon(first)

    await one.bulletin.publish("a", "news")

    assert (await soon(first), await soon(second)) == ("news", "news")


async def test_news_that_nobody_hears_are_gone(processes: tuple[Process, Process]) -> None:
    one, other = processes
    await one.bulletin.publish("a", "too early")

    heard = await heard_by(other, "a")

    assert heard.empty()
