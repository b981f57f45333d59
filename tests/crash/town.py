"""A town: platforms that survive, people who write, and gateway processes that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from gateway.simulators.dingtalk_faults import WEBHOOK
from gateway.simulators.wechat_web import WeChatWebFaults

from .balancer import Balancer
from .book import Book
from .nursery import Child, Nursery
from .platforms import API_TOKEN, DingTalk, DingTalkPerson, Follower, Model, Official, Person, Program, WeChat, WeChatPerson

RUNNER = Path(__file__).with_name("runner.py")
TOP = RUNNER.parents[2]
AES_KEY = "K" * 43
APP_ID = "wx1234567890abcdef"
START_S = 40.0


@dataclass(kw_only=True)
class GatewayProcess:
    """One gateway, started again after each death; `deaths` counts kills."""

    folder: Path
    number: int
    port: int
    config: Path
    nursery: Nursery | None = None
    """Forks it; None: a fresh interpreter for every start."""
    handle: asyncio.subprocess.Process | Child | None = None
    deaths: int = 0
    ready_s: list[float] = field(default_factory=list)
    """Seconds from each start to /readyz."""

    @property
    def alive(self) -> bool:
        return self.handle is not None and self.handle.returncode is None

    @property
    def log_file(self) -> Path:
        return self.folder / f"gateway-{self.number}.log"

    async def start(self, client: httpx2.AsyncClient | None = None, **environment: str) -> None:
        """Start it; with a client, wait until it is ready."""
        began = time.monotonic()
        self.handle = await self._spawn(environment)
        if client is not None and await self.ready(client):
            self.ready_s.append(time.monotonic() - began)

    async def _spawn(self, environment: Mapping[str, str]) -> asyncio.subprocess.Process | Child:
        arguments = ["run", "--config", str(self.config)]
        if self.nursery is not None:
            return await self.nursery.bear(arguments, self.log_file, environment)
        with self.log_file.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, str(RUNNER), *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=TOP, env={**os.environ, **environment},
            )  # fmt: skip

    async def ready(self, client: httpx2.AsyncClient) -> bool:
        """Wait until it is ready; False when it died on the way."""
        async with asyncio.timeout(START_S):
            while self.alive:
                with suppress(httpx2.TransportError):
                    if (await client.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200:
                        return True
                await asyncio.sleep(0.03)
        return False

    async def kill(self) -> None:
        """kill -9; counts also the death that a named point brought."""
        if self.handle is None:
            return
        if self.handle.returncode is None:
            self.handle.send_signal(signal.SIGKILL)
        await self.died()

    async def died(self, timeout_s: float = 30.0) -> None:
        """Wait for a death by kill -9; raises TimeoutError when it lives on."""
        assert self.handle is not None
        async with asyncio.timeout(timeout_s):
            code = await self.handle.wait()
        assert code == -signal.SIGKILL, f"ended with {code}:\n{self.log()[-3000:]}"
        self.deaths += 1
        self.handle = None

    async def stop(self) -> int:
        """SIGTERM, to its end; returns the exit code."""
        assert self.handle is not None
        with suppress(ProcessLookupError):
            self.handle.send_signal(signal.SIGTERM)
        async with asyncio.timeout(40):
            return await self.handle.wait()

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")


@dataclass(kw_only=True)
class Town:
    """Platforms, people and gateways on one store."""

    folder: Path
    book: Book
    dice: random.Random
    dingtalk: DingTalk
    official: Official
    wechat: WeChat
    model: Model
    gateways: list[GatewayProcess]
    client: httpx2.AsyncClient
    balancer: Balancer
    people: list[Person] = field(default_factory=list)
    closing: bool = False
    _living: list[asyncio.Task[None]] = field(default_factory=list)

    # People

    def settle(self, *, dingtalk: int = 0, official: int = 0, api: int = 0, wechat: int = 0, pause_s: float = 0.2) -> None:
        """So many people move in; they begin to write at once."""
        common: dict[str, Any] = {"book": self.book, "dice": self.dice, "pause_s": pause_s, "stopped": lambda: self.closing}
        self.people += [DingTalkPerson(number, platform=self.dingtalk, **common) for number in range(dingtalk)]
        self.people += [Follower(number, platform=self.official, **common) for number in range(official)]
        self.people += [WeChatPerson(number, platform=self.wechat, **common) for number in range(wechat)]
        self.people += [Program(number, url=lambda: self.balancer.url, client=self.client, **common) for number in range(api)]
        self._living = [asyncio.create_task(person.live(), name=person.name) for person in self.people]

    async def quiet(self, timeout_s: float = 120.0) -> None:
        """People finish what they began and fall silent; raises what went wrong with them."""
        self.closing = True
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*self._living)

    # Gateways

    async def start(self, **environment: str) -> None:
        """Start every gateway that does not run and wait until it is ready."""
        await asyncio.gather(*(gateway.start(self.client, **environment) for gateway in self.gateways if not gateway.alive))

    async def storm(self, kills: int, *, life_s: float | None = None, early: float = 0.15) -> None:
        """Kill gateways at random until `kills` have died. Each lives `life_s` at most once it is ready; some never get ready.

        The default leaves time for some answers: a fresh interpreter imports for another second before its first one.
        """
        life_s = life_s or (1.0 if self.gateways[0].nursery else 3.0)
        shares = zip(self.gateways, self._shares(kills), strict=True)
        await asyncio.gather(*(self._storm(gateway, share, life_s, early) for gateway, share in shares))

    def _shares(self, kills: int) -> list[int]:
        count = len(self.gateways)
        return [kills // count + (number < kills % count) for number in range(count)]

    async def _storm(self, gateway: GatewayProcess, kills: int, life_s: float, early: float) -> None:
        for _ in range(kills):
            if self.dice.random() < early:
                await gateway.start()
                await asyncio.sleep(self.dice.uniform(0.1, 1.0))
            else:
                await gateway.start(self.client)
                await asyncio.sleep(self.dice.uniform(0, life_s))
            await gateway.kill()

    async def idle(self, timeout_s: float = 60.0) -> None:
        """Wait until no gateway has work any more."""
        calm = 0
        async with asyncio.timeout(timeout_s):
            while calm < 3:
                await asyncio.sleep(0.1)
                work = await asyncio.gather(*(self._work(gateway) for gateway in self.gateways))
                calm = calm + 1 if not any(work) else 0

    async def _work(self, gateway: GatewayProcess) -> float:
        text = (await self.client.get(f"http://127.0.0.1:{gateway.port}/metrics")).text
        found = dict(line.split(" ") for line in text.splitlines() if line.startswith(("gateway_lanes ", "gateway_waiting ")))
        return float(found["gateway_lanes"]) + float(found["gateway_waiting"])

    async def redeliver(self, limit: int = 2_000) -> dict[str, str]:
        """Every platform delivers everything (the latest `limit` messages) once more. Returns what programs got, by token."""
        everything = [(person, asked) for person in self.people for asked in person.asked if asked.message_id and asked.accepted][-limit:]
        gate = asyncio.Semaphore(50)

        async def one(person: Person, asked: Any) -> tuple[str, str]:
            async with gate:
                return asked.token, await person.again(asked)

        return dict(await asyncio.gather(*(one(person, asked) for person, asked in everything)))

    async def stop(self) -> list[int]:
        """SIGTERM to all; returns their exit codes."""
        return list(await asyncio.gather(*(gateway.stop() for gateway in self.gateways if gateway.alive)))

    async def clear(self) -> None:
        """End what is left, however it ended."""
        for task in self._living:
            task.cancel()
        await asyncio.gather(*self._living, return_exceptions=True)
        for gateway in self.gateways:
            if gateway.handle is not None and gateway.handle.returncode is None:
                gateway.handle.kill()
                await gateway.handle.wait()


@asynccontextmanager
async def town_at(
    folder: Path,
    *,
    store_url: str | None = None,
    processes: int = 1,
    seed: int = 1,
    nursery: Nursery | None = None,
    channels: Sequence[str] = ("dingtalk", "official", "api"),
    model_s: float = 0.15,
    send_s: float = 0.05,
    retry_pause_s: float = 2.0,
    **sections: Any,
) -> AsyncIterator[Town]:
    """Platforms and configured gateways in `folder`; nothing runs yet but the platforms.

    `store_url`: shared by all; default a SQLite file in the folder. `model_s`: how long an answer takes (mean);
    `send_s`: how long DingTalk takes to show one and to say so.
    """
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, before anything runs
    book, dice = Book(), random.Random(seed)
    ports = [_free_port() for _ in range(processes)]
    balancer = Balancer(ports, dice)
    dingtalk, wechat, model = DingTalk(), WeChat(faults=WeChatWebFaults(polls_until_scanned=0, polls_until_confirmed=0)), Model()
    official = Official(token="towntoken", app_id=APP_ID, encoding_aes_key=AES_KEY, mode="safe", retry_pause_s=retry_pause_s)
    dingtalk.faults.ack_timeout_s, dingtalk.faults.pushes = 0.5, 1_000
    dingtalk.faults.hang[WEBHOOK] = send_s
    model.answers_s = model_s
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(balancer.running())
        official.callback_url = f"{balancer.url}/official_account/official"
        for simulator in (dingtalk, official, wechat, model):
            simulator.book = book
            await stack.enter_async_context(simulator.running())
        client = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=30))
        every: Mapping[str, Callable[[], dict[str, Any]]] = {
            "dingtalk": lambda: {
                "kind": "dingtalk", "client_id": dingtalk.client_id, "client_secret": dingtalk.client_secret,
                "openapi_base": dingtalk.base_url, "oapi_base": dingtalk.base_url,
            },
            "official": lambda: {"kind": "official_account", "app_id": APP_ID, "token": "towntoken", "encoding_aes_key": AES_KEY},
            "api": lambda: {"kind": "api", "tokens": [API_TOKEN]},
            "wechat": lambda: {
                "kind": "wechat", "accept_ban_risk": True, "base_url": wechat.base_url, "state_file": str(folder / "wechat.json"),
            },
        }  # fmt: skip
        config: dict[str, Any] = {
            "channels": {name: every[name]() for name in channels},
            "backends": {"gpt": {"kind": "openai", "model": "sim-model", "api_key": "sk-simulated", "base_url": f"{model.base_url}/v1"}},
            "answering": {"chain": ["gpt"]},
            "queue": {"per_conversation": 200},
            "sessions": {"history_tokens": 20_000},
            "logging": {"level": "info"},
            **sections,
        }
        config["store"] = {"url": store_url or f"sqlite:///{folder}/gateway.db", **sections.get("store", {})}
        gateways = [_configured(folder, number, port, config, nursery) for number, port in enumerate(ports)]
        town = Town(
            folder=folder, book=book, dice=dice, dingtalk=dingtalk, official=official, wechat=wechat, model=model,
            gateways=gateways, client=client, balancer=balancer,
        )  # fmt: skip
        stack.push_async_callback(town.clear)
        yield town


def _configured(folder: Path, number: int, port: int, config: dict[str, Any], nursery: Nursery | None) -> GatewayProcess:
    path = folder / f"config-{number}.json"
    path.write_text(json.dumps({**config, "http": {"port": port}}), encoding="utf-8")
    return GatewayProcess(folder=folder, number=number, port=port, config=path, nursery=nursery)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
