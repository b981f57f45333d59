from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.stores.redis import RedisStore

from .nursery import Nursery
from .redis_server import BINARY, RedisServer
from .storm import calm_down, survive
from .town import town_at

pytestmark = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed")


async def test_two_gateways_on_one_redis_lose_nothing_when_either_is_killed(tmp_path: Path) -> None:
    async with Nursery.open() as nursery, RedisServer(tmp_path / "redis").running() as redis:
        verdict = await survive(tmp_path / "town", 20, processes=2, store_url=redis.url(), nursery=nursery, seed=21, store={"lease_s": 2})
    print(verdict.table())

    assert verdict.kills == 20
    assert verdict.accepted > 60
    assert verdict.faults == [], "\n".join([verdict.table(), *verdict.faults])


async def test_a_redis_that_is_killed_and_started_again_loses_nothing(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis")
    place: dict[str, Any] = {"processes": 2, "store_url": redis.url(), "store": {"lease_s": 2}}
    async with Nursery.open() as nursery, redis.running(), town_at(tmp_path / "town", nursery=nursery, seed=22, **place) as town:
        town.settle(dingtalk=6, official=3, api=4)
        await town.start()
        for _ in range(3):
            await asyncio.sleep(1.0)
            await redis.kill()
            await asyncio.sleep(0.5)
            await redis.start()
        before = len(town.book.seen)
        assert await town.book.until(lambda: len(town.book.seen) > before + 20, 30), "the gateways did not go on with the new Redis"
        verdict = await calm_down(town)
    print(verdict.table())

    assert verdict.faults == [], "\n".join([verdict.table(), *verdict.faults])


async def test_news_stay_in_their_database(tmp_path: Path) -> None:
    # Given two gateways that have nothing in common but the server: Redis tells published news to all databases
    async with RedisServer(tmp_path / "redis").running() as redis:
        stores = [await RedisStore.open(redis.url(database)) for database in (0, 1)]
        heard: dict[int, list[str]] = {0: [], 1: []}
        for database, store in enumerate(stores):
            store.bulletin.listen("answers", heard[database].append)

        for database, store in enumerate(stores):
            await store.bulletin.publish("answers", f"of {database}")
        async with asyncio.timeout(5):
            while not (heard[0] and heard[1]):  # noqa: ASYNC110 - Redis tells when it likes
                await asyncio.sleep(0.01)
        for store in stores:
            await store.aclose()

    assert heard == {0: ["of 0"], 1: ["of 1"]}
