"""One heavy user with a hundred queued messages beside twenty light ones: what the light ones wait, with and without him.

    .venv/bin/python bench/fair.py [--runs 3]

The model takes 0.3 s and the gateway works on eight messages at once, so that places are short. The heavy user queues his hundred
messages in one conversation, where he can only ever use one place, and then in twenty conversations (groups) at once.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from harness import Server, free_port, gateway_command, gateway_config, median, serving

MODEL_S = 0.3
RUNNING = 8
LIGHT, EACH = 20, 6
HEAVY = {"one conversation": (1, 100), "twenty conversations": (20, 5)}
"""Conversations of the heavy user, and messages in each."""


async def ask(session: aiohttp.ClientSession, server: Server, **body: object) -> float:
    started = time.perf_counter()
    async with session.post(f"{server.url}/api/v1/messages", json=body, headers={"authorization": "Bearer bench-token"}) as answer:
        text = (await answer.json()).get("text", "")
        if answer.status != 200 or not text.startswith("ANS:"):
            raise SystemExit(f"wrong answer: {answer.status} {text!r}")
    return time.perf_counter() - started


async def light(session: aiohttp.ClientSession, server: Server, number: int, run: str) -> list[float]:
    dice = random.Random(number)
    waits = []
    for count in range(EACH):
        await asyncio.sleep(dice.uniform(0.5, 2))
        waits.append(await ask(session, server, text=f"light {count}", sender=f"light{number}-{run}"))
    return waits


async def heavy(session: aiohttp.ClientSession, server: Server, run: str, groups: int, each: int) -> None:
    everything = [
        ask(session, server, text=f"heavy {count}", sender=f"heavy-{run}", conversation=f"group{group}-{run}", group=True)
        for group in range(groups)
        for count in range(each)
    ]
    await asyncio.gather(*everything)


async def p95_ms(server: Server, run: str, burden: tuple[int, int] | None = None) -> float:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        heavy_one = asyncio.create_task(heavy(session, server, run, *burden)) if burden else None
        waits = [
            wait for waits in await asyncio.gather(*(light(session, server, number, run) for number in range(LIGHT))) for wait in waits
        ]
        if heavy_one is not None:
            heavy_one.cancel()
            await asyncio.gather(heavy_one, return_exceptions=True)
    return 1000 * sorted(waits)[int(len(waits) * 0.95)]


async def measure(runs: int) -> None:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        llm, port = free_port(), free_port()
        command = [sys.executable, "-m", "gateway", "simulate", "openai", "--port", str(llm)]
        model = await stack.enter_async_context(serving("llm", command, llm, ready="/_sim/faults", core=1))
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{model.url}/_sim/faults", json={"first_chunk_delay_s": MODEL_S}) as answer,
        ):
            answer.raise_for_status()
        backend = {"kind": "openai", "model": "sim-model", "api_key": "sk-simulated", "base_url": f"{model.url}/v1"}
        config = gateway_config(
            folder,
            port,
            backends={"gpt": backend},
            answering={"chain": ["gpt"]},
            queue={"running": RUNNING, "per_conversation": 200, "notice_after_s": None},
        )
        server = await stack.enter_async_context(serving("gateway", gateway_command(config), port, ready="/readyz"))
        await p95_ms(server, "warm")
        for name, burden in HEAVY.items():
            ratios = []
            for run in range(runs):
                alone, beside = await p95_ms(server, f"a{run}-{name}"), await p95_ms(server, f"b{run}-{name}", burden)
                ratios.append(beside / alone)
                print(f"{name}: light users' p95 alone {alone:.0f} ms, beside the heavy one {beside:.0f} ms", flush=True)
            print(f"{name}: median {median(ratios):.2f}×  (wanted: ≤ 1.5×)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    asyncio.run(measure(parser.parse_args().runs))
