"""Cold start, idle memory, and memory while many sessions come and end.

.venv/bin/python bench/footprint.py [--starts 5] [--sessions 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import aiohttp
from harness import Server, callbacks, free_port, gateway_command, gateway_config, median, safe_callback, says, serving

PEOPLE = 100


async def cold_starts(count: int) -> None:
    times, idle = [], []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            port = free_port()
            async with serving("gateway", gateway_command(gateway_config(Path(folder), port)), port, ready="/readyz", core=None) as server:
                times.append(server.started_s)
                await asyncio.sleep(1)
                idle.append(server.rss_mb())
    print(f"cold start to ready: median {median(times):.2f} s, worst {max(times):.2f} s  (wanted: ≤ 1.5 s)")
    print(f"idle resident memory: median {median(idle):.0f} MB, worst {max(idle):.0f} MB  (wanted: ≤ 90 MB)")


async def many_sessions(count: int) -> None:
    """Every message is a new person's; a session ends one second after its last word."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = gateway_config(Path(folder), port, sessions={"idle_timeout_s": 1})
        async with serving("gateway", gateway_command(config), port, ready="/healthz") as server:
            step = count // 10
            for part in range(10):
                await new_people(server, part * step, step)
                print(f"{(part + 1) * step:7} sessions: {server.rss_mb():.1f} MB", flush=True)
            await all_ended(server, count)
            print(f"all ended: {server.rss_mb():.1f} MB  (wanted: flat)")


async def new_people(server: Server, first: int, count: int) -> None:
    each = count // PEOPLE

    def make(person: str, text: str) -> tuple[str, bytes]:
        return safe_callback(f"{person}-{first}-{text}", "hello")

    load = await callbacks(server, people=PEOPLE, each=each, make=make, right=says("hello"))
    if load.wrong:
        raise SystemExit(f"{load.wrong} wrong answers")


async def all_ended(server: Server, count: int) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(120):
            async with session.get(f"{server.url}/metrics") as answer:
                page = await answer.text()
            ended = next(float(line.split()[1]) for line in page.splitlines() if line.startswith("gateway_sessions_ended "))
            if ended >= count:
                return
            await asyncio.sleep(1)
    raise SystemExit(f"only {ended:.0f} of {count} sessions ended")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=100_000)
    chosen = parser.parse_args()
    asyncio.run(cold_starts(chosen.starts))
    asyncio.run(many_sessions(chosen.sessions))
