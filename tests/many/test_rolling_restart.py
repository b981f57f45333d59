"""The deployment as it is: two gateway processes on one Redis behind nginx, restarted one after the other while people write."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.simulators.dingtalk import DingTalkSimulator
from gateway.simulators.official_account import OfficialAccountSimulator
from gateway.simulators.openai_api import OpenAISimulator
from gateway.simulators.wechat_web import WeChatWebFaults, WeChatWebSimulator
from tests.many.nginx import free_port, needs_nginx, nginx
from tests.redis_server import RedisServer, need_redis

TOP = Path(__file__).parents[2]
AES_KEY = "K" * 43
LEASE_S = 2.0

pytestmark = needs_nginx


@dataclass
class Town:
    """Platforms, a model, and two gateways."""

    folder: Path
    ports: tuple[int, int]
    redis: RedisServer
    wechat: WeChatWebSimulator
    dingtalk: DingTalkSimulator
    official: OfficialAccountSimulator
    model: OpenAISimulator
    processes: list[asyncio.subprocess.Process | None] = field(default_factory=lambda: [None, None])

    def configure(self) -> None:
        config: dict[str, Any] = {
            "channels": {
                "wechat": {
                    "kind": "wechat", "accept_ban_risk": True, "base_url": self.wechat.base_url, "state_file": str(self.folder / "w.json"),
                },
                "dingtalk": {
                    "kind": "dingtalk", "client_id": self.dingtalk.client_id, "client_secret": self.dingtalk.client_secret,
                    "openapi_base": self.dingtalk.base_url, "oapi_base": self.dingtalk.base_url,
                },
                "official": {"kind": "official_account", "app_id": "wx1234567890abcdef", "token": "towntoken", "encoding_aes_key": AES_KEY},
            },
            "backends": {
                "gpt": {"kind": "openai", "model": "sim-model", "api_key": "sk-simulated", "base_url": f"{self.model.base_url}/v1"},
            },
            "answering": {"chain": ["gpt"]},
            "store": {"url": self.redis.url, "lease_s": LEASE_S},
            "queue": {"notice_after_s": None},
        }  # fmt: skip
        (self.folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    async def start(self, number: int) -> None:
        with (self.folder / f"gateway-{number}.log").open("ab") as log:
            self.processes[number] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", "run", "--config", str(self.folder / "config.json"),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=TOP,
                env={**os.environ, "GATEWAY_HTTP__PORT": str(self.ports[number])},
            )  # fmt: skip
        await self.until_ready(number)

    async def until_ready(self, number: int) -> dict[str, Any]:
        async with asyncio.timeout(40), httpx2.AsyncClient(trust_env=False) as client:
            while True:
                process = self.processes[number]
                assert process is not None
                assert process.returncode is None, (self.folder / f"gateway-{number}.log").read_text()
                try:
                    response = await client.get(f"http://127.0.0.1:{self.ports[number]}/readyz")
                    if response.status_code == 200:
                        return dict(response.json()["parts"])
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.05)

    async def end(self, number: int, how: signal.Signals = signal.SIGTERM) -> int:
        process = self.processes[number]
        assert process is not None
        if process.returncode is None:
            process.send_signal(how)
        async with asyncio.timeout(40):
            return await process.wait()

    async def holder(self) -> int:
        """Which gateway holds the personal account."""
        parts = [await self.until_ready(number) for number in range(2)]
        (number,) = [number for number, part in enumerate(parts) if not part["channel wechat"]["reason"]]
        return number


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    need_redis()
    async with AsyncExitStack() as stack:
        redis = RedisServer(tmp_path)
        redis.start()
        stack.callback(redis.kill)
        ports = (free_port(), free_port())
        port = await stack.enter_async_context(nginx(tmp_path, list(ports)))
        official = OfficialAccountSimulator(
            token="towntoken",
            encoding_aes_key=AES_KEY,
            mode="safe",
            callback_url=f"http://127.0.0.1:{port}/official_account/official",
        )
        wechat = WeChatWebSimulator(groups={}, faults=WeChatWebFaults(polls_until_scanned=0, polls_until_confirmed=0, hold_s=0.5))
        town = Town(tmp_path, ports, redis, wechat, DingTalkSimulator(), official, OpenAISimulator())
        for simulator in (town.wechat, town.dingtalk, town.official, town.model):
            await stack.enter_async_context(simulator.running())
        town.configure()
        yield town
        for number, process in enumerate(town.processes):
            if process is not None:
                await town.end(number, signal.SIGKILL)


async def write(town: Town, count: Counter[str], until: asyncio.Event) -> None:
    """Ten people a second, each with one question; one of them over the personal account, always the same."""
    number = 0
    while not until.is_set():
        number += 1
        await town.official.say(sender=f"粉丝{number}", text=f"公众号{number}")
        await town.dingtalk.say(sender=f"人{number}", text=f"钉钉{number}")
        count["official"] += 1
        count["dingtalk"] += 1
        if number % 5 == 0:
            await town.wechat.say(sender="小明", text=f"微信{number}")
            count["wechat"] += 1
        await asyncio.sleep(0.2)


async def test_a_rolling_restart_loses_and_doubles_nothing(town: Town) -> None:
    town.model.faults.first_chunk_delay_s = 0.3
    town.dingtalk.faults.ack_timeout_s = 2.0
    await town.start(0)
    await town.start(1)
    count, enough = Counter[str](), asyncio.Event()
    writing = asyncio.create_task(write(town, count, enough))

    for number in range(2):
        assert await town.end(number) == 0
        await asyncio.sleep(0.3)
        await town.start(number)
    enough.set()
    await writing

    fans = await town.official.wait_for_shown(count["official"], timeout_s=20)
    colleagues = await town.dingtalk.wait_for_shown(count["dingtalk"], timeout_s=20)
    friends = await town.wechat.wait_for_shown(count["wechat"], timeout_s=20)
    await asyncio.sleep(0.5)
    assert Counter(each.text for each in fans) == Counter(f"ANS:公众号{number}" for number in range(1, count["official"] + 1))
    assert Counter(each.text for each in colleagues) == Counter(f"ANS:钉钉{number}" for number in range(1, count["dingtalk"] + 1))
    assert [each.text for each in friends] == [f"ANS:微信{number}" for number in range(5, 5 * count["wechat"] + 1, 5)]
    assert len(town.model.asked) == sum(count.values())


async def test_the_personal_account_of_a_killed_process_goes_to_the_other_with_its_login(town: Town) -> None:
    await town.start(0)
    await town.start(1)
    holder = await town.holder()
    await town.wechat.say(sender="小明", text="之前")
    await town.wechat.wait_for_shown(1)

    await town.end(holder, signal.SIGKILL)
    await town.wechat.say(sender="小明", text="其间")

    shown = await town.wechat.wait_for_shown(2, timeout_s=20)
    assert [each.text for each in shown] == ["ANS:之前", "ANS:其间"]
    assert "Scan this code" not in (town.folder / f"gateway-{1 - holder}.log").read_text()
