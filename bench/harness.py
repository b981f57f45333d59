"""What the benchmarks share: a server process whose CPU and memory are read from /proc, and a driver of official-account callbacks."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TICK = os.sysconf("SC_CLK_TCK")
APP_ID, TOKEN, AES_KEY = "wx0123456789abcdef", "benchtoken", "A" * 43


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One process under measurement."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    started_s: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """User and system seconds so far, children included."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(fields[position]) for position in (11, 12, 13, 14)) / TICK

    def rss_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0


@asynccontextmanager
async def serving(
    name: str, command: Sequence[str], port: int, *, ready: str = "/", core: int | None = 0, cwd: Path = ROOT
) -> AsyncIterator[Server]:
    """Start `command`, wait until `ready` answers (any status below 500), stop it at the end. `core` pins it where taskset exists."""
    pinned = ["taskset", "-c", str(core), *command] if core is not None and (os.cpu_count() or 1) > 1 else list(command)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1,localhost"}
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: ASYNC220 - measured from outside, never awaited
        pinned, cwd=cwd, env=environment, stdout=subprocess.DEVNULL
    )
    server = Server(name, port, process)
    try:
        async with aiohttp.ClientSession() as session:
            while not await _answers(session, server.url + ready):
                if process.poll() is not None:
                    raise SystemExit(f"{name} ended with {process.returncode}")
                await asyncio.sleep(0.01)
        server.started_s = time.perf_counter() - started
        yield server
    finally:
        process.terminate()
        process.wait(20)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status < 500
    except aiohttp.ClientError:
        return False


def gateway_config(folder: Path, port: int, **changes: object) -> Path:
    """A configuration with one official account in safe mode, the HTTP API, SQLite and the echo backend."""
    config: dict[str, object] = {
        "channels": {
            "official": {"kind": "official_account", "app_id": APP_ID, "token": TOKEN, "encoding_aes_key": AES_KEY},
            "api": {"kind": "api", "tokens": ["bench-token"]},
        },
        "answering": {"chain": ["echo"]},
        "store": {"url": f"sqlite:///{folder}/gateway.db"},
        "http": {"port": port},
        "logging": {"level": "warning"},
    }
    config.update(changes)
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def gateway_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "gateway", "run", "--config", str(config)]


def safe_callback(user: str, text: str) -> tuple[str, bytes]:
    """Query and body of one encrypted text message."""
    from gateway.channels.official_account.envelope import AesKey, signature

    message = (
        f"<xml><ToUserName><![CDATA[gh_bench]]></ToUserName><FromUserName><![CDATA[{user}]]></FromUserName><CreateTime>{int(time.time())}</CreateTime>"
        f"<MsgType><![CDATA[text]]></MsgType><Content><![CDATA[{text}]]></Content><MsgId>{secrets.randbits(60)}</MsgId></xml>"
    )
    sealed = AesKey(AES_KEY, APP_ID).seal(message.encode())
    timestamp, nonce = str(int(time.time())), str(secrets.randbits(32))
    query = f"signature={signature(TOKEN, timestamp, nonce)}&timestamp={timestamp}&nonce={nonce}&openid={user}&encrypt_type=aes"
    query += f"&msg_signature={signature(TOKEN, timestamp, nonce, sealed)}"
    return query, f"<xml><ToUserName><![CDATA[gh_bench]]></ToUserName><Encrypt><![CDATA[{sealed}]]></Encrypt></xml>".encode()


def says(words: str) -> Callable[[bytes], bool]:
    """Whether an encrypted reply holds `words`."""
    from gateway.channels.official_account.envelope import AesKey

    key = AesKey(AES_KEY, APP_ID)

    def check(body: bytes) -> bool:
        sealed = body.partition(b"<Encrypt><![CDATA[")[2].partition(b"]]>")[0]
        return bool(sealed) and words in key.open(sealed.decode()).decode()

    return check


def plain_callback(user: str, text: str) -> tuple[str, bytes]:
    """Query and body of one plain text message, for peers that know no encryption."""
    body = (
        f"<xml><ToUserName><![CDATA[gh_bench]]></ToUserName><FromUserName><![CDATA[{user}]]></FromUserName><CreateTime>{int(time.time())}</CreateTime>"
        f"<MsgType><![CDATA[text]]></MsgType><Content><![CDATA[{text}]]></Content><MsgId>{secrets.randbits(60)}</MsgId></xml>"
    )
    return "", body.encode()


@dataclass
class Load:
    """What one round of load showed."""

    messages: int
    wall_s: float
    cpu_ms: float
    latencies_s: list[float] = field(default_factory=list)
    wrong: int = 0

    @property
    def per_second(self) -> float:
        return self.messages / self.wall_s

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


async def callbacks(
    server: Server, *, people: int, each: int, make: Callable[[str, str], tuple[str, bytes]], right: Callable[[bytes], bool]
) -> Load:
    """`people` write at once, each `each` messages one after the other, each over a connection of its own, as WeChat posts."""
    load = Load(people * each, 0, 0)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def person(number: int) -> None:
            for count in range(each):
                query, body = make(f"user{number}", f"message {count}")
                started = time.perf_counter()
                async with session.post(f"{server.url}/official_account/official?{query}", data=body) as answer:
                    words = await answer.read()
                load.latencies_s.append(time.perf_counter() - started)
                load.wrong += answer.status != 200 or not right(words)

        cpu, started = server.cpu_s(), time.perf_counter()
        await asyncio.gather(*(person(number) for number in range(people)))
        load.wall_s = time.perf_counter() - started
        load.cpu_ms = 1000 * (server.cpu_s() - cpu) / load.messages
    return load


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
