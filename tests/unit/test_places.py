from __future__ import annotations

import asyncio

from gateway.lanes import Places
from gateway.testing.clock import ManualClock


async def test_free_places_go_round_the_people_not_round_the_messages() -> None:
    places, order, gate = Places(1), [], asyncio.Event()

    async def work(owner: str, name: str) -> None:
        async with places.place(owner):
            order.append(name)
            await gate.wait()

    tasks = [asyncio.create_task(work("heavy", f"heavy {number}")) for number in range(4)]
    await ManualClock().settle()
    tasks += [asyncio.create_task(work(owner, owner)) for owner in ("ann", "bob")]
    await ManualClock().settle()
    assert places.crowded
    assert len(places) == 5

    gate.set()
    await asyncio.gather(*tasks)
    assert order == ["heavy 0", "heavy 1", "ann", "bob", "heavy 2", "heavy 3"]
    assert not places.crowded


async def test_whoever_gives_up_waiting_takes_no_place_with_him() -> None:
    places = Places(1)
    async with places.place("a"):
        waiting = asyncio.create_task(hold(places))
        await ManualClock().settle()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert len(places) == 0
    assert not places.crowded


async def test_a_place_that_comes_in_the_moment_of_giving_up_is_passed_on() -> None:
    places = Places(1)
    async with places.place("a"):
        leaving, staying = asyncio.create_task(hold(places)), asyncio.create_task(hold(places))
        await ManualClock().settle()
    leaving.cancel()
    await asyncio.wait_for(asyncio.gather(leaving, staying, return_exceptions=True), 1)
    assert staying.result() == "held"
    assert not places.crowded


async def hold(places: Places) -> str:
    async with places.place("b"):
        return "held"


async def test_nobody_holds_more_than_half_of_the_places() -> None:
    places, gate, running = Places(4), asyncio.Event(), []

    async def work(owner: str) -> None:
        async with places.place(owner):
            running.append(owner)
            await gate.wait()

    tasks = [asyncio.create_task(work("heavy")) for _ in range(10)]
    await ManualClock().settle()
    tasks += [asyncio.create_task(work("light"))]
    await ManualClock().settle()
    assert sorted(running) == ["heavy", "heavy", "light"]

    gate.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 1)
    assert len(running) == 11
    assert not places.crowded
    assert len(places) == 0
