"""A Redis that is not there, or not there yet, when the gateway starts."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx2

from tests.redis_server import RedisServer, need_redis

from .conftest import Town


async def test_a_gateway_waits_for_its_redis_with_a_red_light_and_begins_when_it_comes(town: Town, tmp_path: Path) -> None:
    need_redis()
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    server.start()
    url = server.url
    server.kill()
    town.configure(store={"url": url, "connect_timeout_s": 20})
    await town.start(ready=False)
    async with httpx2.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{town.port}") as client:
        await town.until(lambda: True, "/healthz")
        red = await client.get("/readyz")
        assert red.status_code == 503
        assert not red.json()["parts"]["store"]["ok"]

        server.start()
        await town.until(lambda: town.process is not None and town.process.returncode is None, "/readyz")
    try:
        await town.dingtalk.say(sender="张三", text="终于来了")
        assert [shown.text for shown in await town.dingtalk.wait_for_shown(1)] == ["ANS:终于来了"]
    finally:
        await town.end(signal.SIGTERM)
        server.kill()


async def test_a_redis_that_never_comes_ends_the_gateway_with_1_and_says_where_it_looked(town: Town) -> None:
    town.configure(store={"url": "redis://:geheim@127.0.0.1:1/0", "connect_timeout_s": 1})
    await town.start(ready=False)
    assert town.process is not None
    async with asyncio.timeout(20):
        assert await town.process.wait() == 1

    assert "127.0.0.1:1" in town.log()
    assert "geheim" not in town.log()
    assert "Traceback" not in town.log()
