"""Real gateway processes around simulated platforms."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
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

TOP = Path(__file__).parents[2]
AES_KEY = "K" * 43


@dataclass
class Town:
    """Four platforms, a folder with a configuration, and the gateway that lives among them."""

    folder: Path
    wechat: WeChatWebSimulator
    dingtalk: DingTalkSimulator
    official: OfficialAccountSimulator
    model: OpenAISimulator
    port: int
    process: asyncio.subprocess.Process | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def configure(self, **sections: Any) -> Path:
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
            "store": {"url": f"sqlite:///{self.folder}/gateway.db"},
            "http": {"port": self.port},
        }  # fmt: skip
        path = self.folder / "config.json"
        path.write_text(json.dumps({**config, **sections}), encoding="utf-8")
        return path

    async def start(self, *, ready: bool = True) -> None:
        """Start the gateway and wait until /readyz says yes."""
        log = (self.folder / "gateway.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "run", "--config", str(self.folder / "config.json"),
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=TOP, env={**os.environ, **self.environment},
        )  # fmt: skip
        log.close()
        if ready:
            await self.until(lambda: self.process is not None and self.process.returncode is None, "/readyz")

    async def until(self, alive: Callable[[], bool], path: str) -> None:
        async with asyncio.timeout(30), httpx2.AsyncClient(trust_env=False) as client:
            while True:
                assert alive(), self.log()
                try:
                    if (await client.get(f"http://127.0.0.1:{self.port}{path}")).status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """kill -9."""
        await self.end(signal.SIGKILL)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(30):
            return await self.process.wait()

    def log(self) -> str:
        return (self.folder / "gateway.log").read_text(encoding="utf-8", errors="replace")


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        faults = WeChatWebFaults(polls_until_scanned=0, polls_until_confirmed=0)
        wechat = WeChatWebSimulator(groups={"家庭群": ("阿华", "小丽")}, faults=faults)
        official = OfficialAccountSimulator(
            token="towntoken",
            encoding_aes_key=AES_KEY,
            mode="safe",
            callback_url=f"http://127.0.0.1:{port}/official_account/official",
            retry_pause_s=4,  # a restart must fit between two attempts, as it does at WeChat (about 5 s)
        )
        town = Town(tmp_path, wechat, DingTalkSimulator(), official, OpenAISimulator(), port)
        for simulator in (town.wechat, town.dingtalk, town.official, town.model):
            await stack.enter_async_context(simulator.running())
        town.configure()
        yield town
        if town.process is not None:
            await town.end(signal.SIGKILL)
