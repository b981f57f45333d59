"""Added latency with the durable write, and twenty people at once before a slow model.

    .venv/bin/python bench/latency.py [--per-second 50] [--seconds 20]

Added latency: the echo backend answers at once, so what is measured from POST to answer is the gateway itself, its SQLite commit,
the loopback and the driver. A bare ASGI echo on the same load shows how much of it is not ours.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from harness import ROOT, Load, Server, callbacks, free_port, gateway_command, gateway_config, plain_callback, safe_callback, says, serving

MODEL_S = 2.0


async def steady(server: Server, make: Callable[[str, str], tuple[str, bytes]], per_second: int, seconds: int) -> Load:
    """`per_second` messages every second, whether or not the earlier ones were answered; every message from another person."""
    load = Load(per_second * seconds, seconds, 0)

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        query, body = make(f"steady{number % 500}", "how long does it take")
        started = time.perf_counter()
        async with session.post(f"{server.url}/official_account/official?{query}", data=body) as answer:
            load.wrong += answer.status != 200 or not await answer.read()
        load.latencies_s.append(time.perf_counter() - started)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        begun, tasks = time.perf_counter(), []
        for number in range(load.messages):
            await asyncio.sleep(max(0.0, begun + number / per_second - time.perf_counter()))
            tasks.append(asyncio.create_task(one(session, number)))
        await asyncio.gather(*tasks)
    return load


async def measure(per_second: int, seconds: int) -> None:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bare_port, echo_port = free_port(), free_port()
        bare = [sys.executable, str(ROOT / "bench" / "peers" / "asgi_echo.py"), str(bare_port)]
        floor = await stack.enter_async_context(serving("bare ASGI echo", bare, bare_port))
        config = gateway_config(folder, echo_port)
        echo = await stack.enter_async_context(serving("gateway, echo", gateway_command(config), echo_port, ready="/healthz"))
        for server, make in ((floor, plain_callback), (echo, safe_callback)):
            await steady(server, make, per_second, 2)
            show(f"{server.name}, {per_second}/s", await steady(server, make, per_second, seconds))
    await crowd()


async def crowd() -> None:
    """Twenty people at once; the model takes two seconds."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        llm, port = free_port(), free_port()
        command = [sys.executable, "-m", "gateway", "simulate", "openai", "--port", str(llm)]
        model = await stack.enter_async_context(serving("llm", command, llm, ready="/_sim/faults", core=1))
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{model.url}/_sim/faults", json={"first_chunk_delay_s": MODEL_S}) as answer,
        ):
            if answer.status != 200:
                raise SystemExit(await answer.text())
        backend = {"kind": "openai", "model": "sim-model", "api_key": "sk-simulated", "base_url": f"{model.url}/v1"}
        config = gateway_config(folder, port, backends={"gpt": backend}, answering={"chain": ["gpt"]})
        server = await stack.enter_async_context(serving("gateway", gateway_command(config), port, ready="/readyz"))
        load = await callbacks(server, people=20, each=1, make=safe_callback, right=says("message"))
        print(
            f"20 people at once, model {MODEL_S} s: last answer after {max(load.latencies_s):.2f} s, wrong {load.wrong}  (wanted: ≤ 2.3 s)"
        )


def show(name: str, load: Load) -> None:
    p50, p95, p99 = (load.percentile_ms(percent) for percent in (50, 95, 99))
    print(f"{name:28} p50 {p50:6.2f} ms  p95 {p95:6.2f} ms  p99 {p99:6.2f} ms  wrong {load.wrong}  (wanted: p50 < 5, p95 < 20)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-second", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=20)
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.per_second, chosen.seconds))
