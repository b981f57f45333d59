from __future__ import annotations

import asyncio

import pytest

from gateway.errors import Busy
from gateway.lanes import Lanes
from gateway.testing.clock import ManualClock


async def test_jobs_of_one_lane_run_in_the_order_they_entered() -> None:
    lanes, done = Lanes(), []

    async def job(number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)

    for number in range(20):
        lanes.enter("a", lambda number=number: job(number))
    await lanes.settle(ManualClock(), 1)

    assert done == list(range(20))


async def test_lanes_run_beside_each_other_and_vanish_when_empty() -> None:
    lanes, gate, done = Lanes(), asyncio.Event(), []

    async def slow() -> None:
        await gate.wait()

    async def quick() -> None:
        done.append("quick")

    lanes.enter("a", slow)
    lanes.enter("b", quick)
    await ManualClock().settle()
    assert done == ["quick"]
    assert len(lanes) == 1

    gate.set()
    await lanes.settle(ManualClock(), 1)
    assert len(lanes) == 0
    assert lanes.waiting == 0


async def test_a_full_lane_says_so_and_a_full_house_too() -> None:
    lanes, gate = Lanes(max_waiting_per_lane=2, max_waiting=3), asyncio.Event()

    async def slow() -> None:
        await gate.wait()

    lanes.enter("a", slow)
    await ManualClock().settle()
    lanes.enter("a", slow)
    lanes.enter("a", slow)
    with pytest.raises(Busy):
        lanes.enter("a", slow)
    lanes.enter("b", slow)
    with pytest.raises(Busy):
        lanes.enter("c", slow)
    lanes.enter("a", slow, force=True)
    gate.set()
    await lanes.settle(ManualClock(), 1)


async def test_no_more_than_max_running_jobs_run_at_once() -> None:
    lanes, running, most = Lanes(max_running=3), 0, 0

    async def job() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    for number in range(20):
        lanes.enter(f"lane {number}", job)
    await lanes.settle(ManualClock(), 1)

    assert most == 3


async def test_stop_cancels_only_the_running_job() -> None:
    lanes, done = Lanes(), []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert lanes.was_stopped("a")
            done.append("stopped")

    async def next_one() -> None:
        assert not lanes.was_stopped("a")
        done.append("next")

    lanes.enter("a", forever)
    lanes.enter("a", next_one)
    await ManualClock().settle()
    assert lanes.stop("a")
    assert not lanes.stop("a")
    await lanes.settle(ManualClock(), 1)

    assert done == ["stopped", "next"]
    assert not lanes.stop("a")


async def test_a_job_that_raises_does_not_end_its_lane(caplog: pytest.LogCaptureFixture) -> None:
    lanes, done = Lanes(), []

    async def broken() -> None:
        raise RuntimeError("broken")

    async def fine() -> None:
        done.append("fine")

    lanes.enter("a", broken)
    lanes.enter("a", fine)
    await lanes.settle(ManualClock(), 1)

    assert done == ["fine"]
    assert "the lane goes on" in caplog.text


async def test_settle_gives_up_after_its_time_and_says_how_many() -> None:
    lanes, clock = Lanes(), ManualClock()

    async def forever() -> None:
        await asyncio.Event().wait()

    lanes.enter("a", forever)
    lanes.enter("a", forever)
    lanes.enter("b", forever)
    settling = asyncio.create_task(lanes.settle(clock, 20))
    await clock.advance(21)

    assert await settling == 3
    assert len(lanes) == 0
