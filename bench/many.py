"""Ten thousand conversations over one or two gateways on one Redis: order, loss, and messages per second.

    .venv/bin/python bench/many.py [--conversations 10000] [--rounds 5] [--rounds-of-runs 3]

Each process is the whole path from `Dispatch.hear` to the channel's `send` with the echo backend and the Redis store
(appendonly, everysec). In every round each conversation gets one message, heard by one process in one round and by the other in the
next, so that conversations wander. What is sent is stamped with the machine's monotonic clock and audited afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

from harness import ROOT, free_port

sys.path.insert(0, str(ROOT))

IN_FLIGHT = 500


@dataclass
class Result:
    """What one run showed."""

    processes: int
    sent: int
    lost: int
    doubled: int
    disordered: int
    wall_s: float
    cpu_ms: float

    @property
    def per_second(self) -> float:
        return self.sent / self.wall_s


def worker(number: int, processes: int, url: str, conversations: int, rounds: int, barrier: Barrier, report: Path) -> None:
    """One gateway. Writes what it sent, with times, as JSON."""
    import uvloop

    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {number % (os.cpu_count() or 1)})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(one_gateway(number, processes, url, conversations, rounds, barrier, report))


async def one_gateway(number: int, processes: int, url: str, conversations: int, rounds: int, barrier: Barrier, report: Path) -> None:
    from gateway.backends.echo import EchoBackend
    from gateway.channels.base import Channel, ChannelLimits, Deliver, Markup, Receipt
    from gateway.channels.http_face import HttpFace
    from gateway.clock import SystemClock
    from gateway.messages import Address, Inbound, Outbound, Text
    from gateway.reading import parse_config
    from gateway.stores.redis import RedisStore
    from gateway.wiring import join

    sent: list[tuple[str, str, int]] = []

    class Bench(Channel):
        name = "bench"
        limits = ChannelLimits(markup=Markup.PLAIN, max_bytes=2000, idempotent=True)

        async def run(self, deliver: Deliver) -> None:
            await asyncio.Event().wait()

        async def send(self, outbound: Outbound) -> Receipt:
            sent.append((outbound.address.sender, outbound.text, time.monotonic_ns()))
            return Receipt()

    clock = SystemClock()
    store = await RedisStore.open(url, worker=f"w{number}", lease_s=10)
    config = parse_config({"answering": {"chain": ["echo"]}, "queue": {"total": 1_000_000}, "logging": {"level": "error"}}, {})
    house = join(config, store=store, backend=EchoBackend(), channels={"bench": Bench()}, face=HttpFace(), clock=clock)
    background = asyncio.create_task(house.lineup.run(house.dispatch))
    places = asyncio.Semaphore(IN_FLIGHT)

    async def one(person: int, turn: int) -> None:
        async with places:
            sender = f"p{person}"
            address = Address(channel="bench", account="bot", chat=sender, sender=sender)
            await house.dispatch.hear(Inbound(id=f"{sender}-{turn}", address=address, parts=(Text(str(turn)),), sent_at=datetime.now(UTC)))

    cpu, started = time.process_time(), time.monotonic()
    for turn in range(rounds):
        await asyncio.to_thread(barrier.wait)
        await asyncio.gather(*(one(person, turn) for person in range(conversations) if (person + turn) % processes == number))
    await asyncio.to_thread(barrier.wait)
    while await store.mailboxes.waiting():  # noqa: ASYNC110 - the end of a benchmark
        await asyncio.sleep(0.02)
    report.write_text(json.dumps({"sent": sent, "cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - started}))  # noqa: ASYNC240
    background.cancel()
    await asyncio.gather(background, return_exceptions=True)
    await store.aclose()


@contextmanager
def redis() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = ["redis-server", "--port", str(port), "--dir", folder, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


def run(processes: int, conversations: int, rounds: int) -> Result:
    with redis() as url, tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(processes)
        reports = [Path(folder) / f"{number}.json" for number in range(processes)]
        gateways = [
            context.Process(target=worker, args=(number, processes, url, conversations, rounds, barrier, reports[number]))
            for number in range(processes)
        ]
        for gateway in gateways:
            gateway.start()
        for gateway in gateways:
            gateway.join()
        return audit([json.loads(report.read_text()) for report in reports], processes, conversations, rounds)


def audit(reports: list[dict], processes: int, conversations: int, rounds: int) -> Result:
    by_person: dict[str, list[tuple[int, int]]] = {}
    for report in reports:
        for person, text, at in report["sent"]:
            by_person.setdefault(person, []).append((at, int(text)))
    sent = sum(map(len, by_person.values()))
    unique = sum(len({turn for _, turn in answers}) for answers in by_person.values())
    disordered = sum([turn for _, turn in sorted(answers)] != sorted(turn for _, turn in answers) for answers in by_person.values())
    cpu_ms = 1000 * sum(report["cpu_s"] for report in reports) / max(sent, 1)
    wall_s = max(report["wall_s"] for report in reports)
    return Result(processes, sent, conversations * rounds - unique, sent - unique, disordered, wall_s, cpu_ms)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    speeds: dict[int, list[float]] = {1: [], 2: []}
    print(f"{'processes':>9}{'messages':>10}{'lost':>6}{'doubled':>9}{'disordered':>12}{'messages/s':>12}{'CPU ms/msg':>12}")
    for _ in range(chosen.runs):
        for count in (1, 2):
            result = run(count, chosen.conversations, chosen.rounds)
            speeds[count].append(result.per_second)
            print(
                f"{count:9}{result.sent:10}{result.lost:6}{result.doubled:9}{result.disordered:12}"
                f"{result.per_second:12.0f}{result.cpu_ms:12.2f}",
                flush=True,
            )
    gain = statistics.median(two / one for one, two in zip(speeds[1], speeds[2], strict=True))
    print(f"two processes are {gain:.2f}× one (wanted ≥ 1.6× where cores allow, ≥ 1 000 messages/s, 0 lost, 0 disordered)")
