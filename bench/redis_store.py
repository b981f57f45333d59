"""What the Redis store costs: messages per second and CPU of accept → answered → closed → done, in one and in two processes.

    python -m bench.redis_store                 the tables below, about a minute; needs redis-server on PATH
    python -m bench.redis_store --url redis://… a server that is there already; its CPU is then not measured

A turn loads and saves its session and is fenced at every write, as in the gateway; ten thousand conversations, so that nearly every
message takes and gives back a lease. CPU is user and system time from /proc. The second table sends one small script by three ways
over the same server: a connection pool, one pipeline per turn of the event loop, and the line of the store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from statistics import median, quantiles

import uvloop
from redis.asyncio import Redis

from bench.harness import TICK, free_port
from gateway.clock import SystemClock
from gateway.messages import Address, Answer, Inbound, Outcome, OutcomeKind, ReplyTicket, Text
from gateway.sessions.session import new_session
from gateway.stores import redis_small_scripts as scripts
from gateway.stores.redis import RedisStore
from gateway.stores.redis_line import Line
from gateway.stores.redis_wire import Server

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
QUESTION, ANSWER = "你好，请问明天下午三点可以预约吗？", "您好！可以的，明天下午三点还有空位，需要我帮您登记吗？请告诉我您的姓名和电话。"
DONE = Outcome(OutcomeKind.ANSWERED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one process did."""

    messages: int
    cpu_s: float
    p50_ms: float
    p95_ms: float
    began: float
    ended: float


def message(number: int, conversations: int) -> Inbound:
    person = f"oPeRsOn{number * 7919 % conversations:06d}"
    return Inbound(
        id=blake2b(str(number).encode(), digest_size=12).hexdigest(),
        address=Address(channel="dingtalk", account="dingabcdef", chat=person, sender=person),
        parts=(Text(QUESTION),),
        sent_at=NOW,
        ticket=ReplyTicket(token={"session_webhook": "https://oapi.example.invalid/robot/sendBySession?session=" + 32 * "x"}),
    )


async def turn(store: RedisStore, inbound: Inbound) -> None:
    lane = f"dingtalk/dingabcdef/person/{inbound.address.sender}"
    lined = await store.mailboxes.accept(inbound, lane, NOW, per_lane=20, total=100_000)
    while lined.mine:
        session = await store.sessions.load(lane) or new_session(lane, inbound.address, inbound.ticket, NOW)
        await store.ledger.answering(inbound.key)
        await store.ledger.answered(inbound.key, Answer(ANSWER, (ANSWER,)), "echo", NOW)
        await store.sessions.save(session.said(QUESTION, ANSWER, NOW).trimmed_to(4), NOW)
        await store.ledger.closed(inbound.key, DONE, NOW)
        record = await store.mailboxes.done(lane, inbound.key)
        if record is None:
            return
        inbound = record.inbound


async def work(url: str, prefix: str, first: int, messages: int, step: int, conversations: int, flight: int) -> Share:
    store = await RedisStore.open(url, prefix=prefix)
    numbers, waits = iter(range(first, first + messages * step, step)), []

    async def hand() -> None:
        for number in numbers:
            began = time.perf_counter()
            await turn(store, message(number, conversations))
            waits.append(time.perf_counter() - began)

    cpu, began = cpu_here(), time.time()
    await asyncio.gather(*(hand() for _ in range(flight)))
    ended, spent = time.time(), cpu_here() - cpu
    await store.aclose()
    cuts = quantiles(waits, n=20)
    return Share(messages=messages, cpu_s=spent, p50_ms=1000 * cuts[9], p95_ms=1000 * cuts[18], began=began, ended=ended)


def cpu_here() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@contextmanager
def server(url: str, fsync: str) -> Iterator[tuple[str, int]]:
    """A URL and the process id, 0 for a server of others."""
    if url:
        yield url, 0
        return
    if shutil.which("redis-server") is None:
        raise SystemExit("no redis-server on PATH: install it, or name one with --url")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder, "--logfile", f"{folder}/log"]
        process = subprocess.Popen(["redis-server", *words, "--appendonly", "yes", "--appendfsync", fsync])
        try:
            yield f"redis://127.0.0.1:{port}/0", process.pid
        finally:
            process.terminate()
            process.wait(20)


def run_processes(url: str, pid: int, processes: int, options: argparse.Namespace) -> None:
    prefix = f"bench-{os.urandom(4).hex()}"
    each, common = options.messages // processes, [str(processes), str(options.conversations), str(options.flight)]
    before = cpu_of(pid) if pid else 0.0
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.redis_store", "--url", url, "--work", prefix, str(number), str(each), *common],
            stdout=subprocess.PIPE,
        )
        for number in range(processes)
    ]
    shares = [Share(**json.loads(worker.communicate()[0])) for worker in workers]
    total = sum(share.messages for share in shares)
    took = max(share.ended for share in shares) - min(share.began for share in shares)
    redis_us = 1e6 * (cpu_of(pid) - before) / total if pid else float("nan")
    process_us = 1e6 * sum(share.cpu_s for share in shares) / total
    p50, p95 = median(share.p50_ms for share in shares), max(share.p95_ms for share in shares)
    print(f"{processes:>9} {total / took:>12.0f} {process_us:>16.0f} {redis_us:>14.0f} {p50:>8.1f} {p95:>8.1f}", flush=True)


async def by_pool(url: str, calls: int, flight: int) -> None:
    client = Redis.from_url(url, max_connections=flight, protocol=2)
    script = client.register_script(scripts.SIT.body)
    await _flood(lambda key: script(keys=[key], args=["me", 15000]), calls, flight)
    await client.aclose()


async def by_pipeline(url: str, calls: int, flight: int) -> None:
    """redis-py's own pipeline, filled for one turn of the event loop."""
    client = Redis.from_url(url, protocol=2)
    sha = await client.script_load(scripts.SIT.body)
    waiting: list[tuple[bytes, asyncio.Future[object]]] = []
    wanted = asyncio.Event()

    async def pump() -> None:
        while True:
            await wanted.wait()
            wanted.clear()
            while waiting:
                batch = waiting[:]
                waiting.clear()
                async with client.pipeline(transaction=False) as pipe:
                    for key, _ in batch:
                        pipe.evalsha(sha, 1, key, "me", 15000)
                    for (_, future), reply in zip(batch, await pipe.execute(), strict=True):
                        future.set_result(reply)

    async def call(key: bytes) -> object:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        waiting.append((key, future))
        wanted.set()
        return await future

    task = asyncio.create_task(pump())
    await _flood(call, calls, flight)
    task.cancel()
    await client.aclose()


async def by_line(url: str, calls: int, flight: int) -> None:
    redis = Server(url, connect_timeout_s=3)
    line = Line(redis, SystemClock(), "{bench}:")

    async def call(key: bytes) -> object:
        return await line.run(scripts.SIT, key, b"me", 15000)

    await _flood(call, calls, flight)
    await line.aclose()
    await redis.aclose()


async def _flood(call: Callable[[bytes], Awaitable[object]], calls: int, flight: int) -> None:
    numbers = iter(range(calls))

    async def hand() -> None:
        for number in numbers:
            await call(b"{bench}:%d" % (number % 1000))

    await asyncio.gather(*(hand() for _ in range(flight)))


def run_ways(url: str, calls: int, flight: int) -> None:
    for name, way in (("pool", by_pool), ("pipeline per tick", by_pipeline), ("line", by_line)):
        rates, cpus = [], []
        for _ in range(3):
            cpu, began = cpu_here(), time.perf_counter()
            uvloop.run(way(url, calls, flight))
            rates.append(calls / (time.perf_counter() - began))
            cpus.append(1e6 * (cpu_here() - cpu) / calls)
        print(f"{name:<18} {flight:>6} {median(rates):>10.0f} {median(cpus):>12.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--flight", type=int, default=100, help="turns at once in each process")
    parser.add_argument("--fsync", default="everysec", choices=["everysec", "always", "no"])
    parser.add_argument("--work", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        prefix, *numbers = options.work
        first, messages, step, conversations, flight = map(int, numbers)
        share = uvloop.run(work(options.url, prefix, first, messages, step, conversations, flight))
        print(json.dumps({name: getattr(share, name) for name in Share.__slots__}))
        return
    with server(options.url, options.fsync) as (url, pid):
        print(f"appendfsync {options.fsync}, {options.conversations} conversations, {options.flight} turns at once in each process")
        print("processes   messages/s  process us/msg   redis us/msg   p50 ms   p95 ms")
        for processes in (1, 2):
            run_processes(url, pid, processes, options)
        print("\nway                flight    calls/s  process us/call")
        for flight in (1, 100):
            run_ways(url, 2_000 if flight == 1 else 20_000, flight)


if __name__ == "__main__":
    main()
