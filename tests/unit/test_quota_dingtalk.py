"""How many calls of DingTalk's API a month and a second allow, with one process and with several."""

from __future__ import annotations

import asyncio
import itertools
import logging
from datetime import UTC, datetime

import pytest

from gateway.channels.dingtalk.quota import Quota, forecast
from gateway.channels.dingtalk.verdicts import QuotaSpent
from gateway.clock import Clock
from gateway.errors import SendLater
from gateway.stores.memory import MemoryStore
from gateway.testing import ManualClock

API = "/v1.0/robot/oToMessages/batchSend"


class Hasty(ManualClock):
    """Never makes anybody wait; time passes instead."""

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self._move_to(self._elapsed + seconds)
        await asyncio.sleep(0)


def a_quota(clock: Clock, store: MemoryStore | None = None, **settings: int | None) -> Quota:
    shelf = store.shelf if store else None
    return Quota(client_id="ding1", clock=clock, counts=shelf, pace=shelf, **settings)


async def taken(quota: Quota, count: int) -> int:
    """How many of `count` calls are allowed."""
    allowed = 0
    for _ in range(count):
        try:
            await quota.take(API)
        except QuotaSpent:
            break
        allowed += 1
    return allowed


@pytest.mark.parametrize("monthly", [1, 7, 499, 500, 1_000])
async def test_a_month_has_as_many_calls_as_configured(monthly: int) -> None:
    quota = a_quota(Hasty(), MemoryStore(), monthly=monthly)

    assert await taken(quota, monthly + 5) == monthly
    assert (quota.latest.used, quota.latest.spent) == (monthly, True)


async def test_several_processes_never_call_more_than_one_would() -> None:
    store, clock = MemoryStore(), Hasty()
    quotas = [a_quota(clock, store, monthly=1_000) for _ in range(3)]

    allowed = await asyncio.gather(*(taken(quota, 1_000) for quota in quotas))

    assert sum(allowed) == 1_000


async def test_a_restart_forgets_at_most_a_block() -> None:
    store, clock = MemoryStore(), Hasty()
    assert await taken(a_quota(clock, store, monthly=5_000), 13) == 13

    budget = await a_quota(clock, store, monthly=5_000).look()

    assert 13 <= budget.used <= 20


@pytest.mark.parametrize("used", [0, 10, 20, 30, 70, 80, 990, 1_000])
async def test_what_was_used_is_found_again_also_when_the_limit_was_changed(used: int) -> None:
    store, clock = MemoryStore(), Hasty()
    await taken(a_quota(clock, store, monthly=2_000), used)

    assert (await a_quota(clock, store, monthly=50_000).look()).used == used


async def test_a_new_month_begins_at_midnight_in_china() -> None:
    clock = Hasty(datetime(2026, 1, 31, 15, 59, tzinfo=UTC))
    quota = a_quota(clock, MemoryStore(), monthly=1)
    assert await taken(quota, 2) == 1

    await clock.sleep(61)

    assert await taken(quota, 2) == 1


async def test_without_a_limit_calls_are_only_counted() -> None:
    quota = a_quota(Hasty(), monthly=None)

    assert await taken(quota, 120) == 120
    assert (quota.latest.used, quota.latest.spent, quota.latest.low) == (120, False, False)


async def test_the_operator_is_warned_once_when_four_fifths_are_gone(caplog: pytest.LogCaptureFixture) -> None:
    quota = a_quota(Hasty(), monthly=10)
    with caplog.at_level(logging.WARNING):
        await taken(quota, 7)
        assert not caplog.records
        await taken(quota, 5)

    assert len([record for record in caplog.records if "API calls" in record.getMessage()]) == 1


@pytest.mark.parametrize("per_second", [1, 2, 6, 20, 40])
async def test_no_second_has_more_calls_than_allowed_however_many_processes_call(per_second: int) -> None:
    store, clock = MemoryStore(), ManualClock()
    calls: list[float] = []

    async def calling(quota: Quota) -> None:
        while clock.monotonic() < 4:
            await quota.take(API)
            calls.append(clock.monotonic())

    processes = [asyncio.create_task(calling(a_quota(clock, store, monthly=None, per_second=per_second))) for _ in range(3)]
    while not all(process.done() for process in processes):
        await clock.advance(0.01)
    await asyncio.gather(*processes)

    later = itertools.islice(calls, per_second, None)
    assert all(then - first >= 0.98 for first, then in zip(calls, later, strict=False))  # hands move in hundredths
    assert len(calls) >= max(2, 4 * (per_second - 1))


async def test_one_api_does_not_slow_another_down() -> None:
    clock = Hasty()
    quota = a_quota(clock, per_second=2)
    await quota.take(API)
    await quota.take("/v1.0/robot/groupMessages/send")

    assert clock.monotonic() == 0


async def test_who_would_wait_for_more_than_ten_seconds_is_sent_away() -> None:
    clock = ManualClock()
    quota = a_quota(clock, per_second=2)
    waiting = [asyncio.create_task(quota.take(API)) for _ in range(20)]
    await clock.advance(0)
    done = [task for task in waiting if task.done() and task.exception()]

    assert done
    assert all(isinstance(task.exception(), SendLater) for task in done)
    await clock.advance(60)
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize(("used", "day", "expected"), [(0, 15, 0), (100, 1, 3_100), (500, 16, 1_000), (3_100, 31, 3_200)])
def test_the_forecast_goes_on_as_the_month_began(used: int, day: int, expected: int) -> None:
    assert forecast(used, datetime(2026, 1, day, 4, 0, tzinfo=UTC)) == pytest.approx(expected, rel=0.05)
