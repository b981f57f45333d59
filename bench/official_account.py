"""CPU per official-account message, messages per second and latency: the gateway beside its peers, in one run, interleaved.

    .venv/bin/python bench/official_account.py [--rounds 5] [--people 50] [--each 20]

Gateway: safe (AES) mode, SQLite, everything durable. Peers get plain XML and keep nothing, which favours them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from harness import (
    ROOT,
    Load,
    callbacks,
    free_port,
    gateway_command,
    gateway_config,
    median,
    plain_callback,
    safe_callback,
    says,
    serving,
)

PEERS = ROOT / "bench" / "peers"


def nonebot_folder() -> Path | None:
    """Peers that are not in our own lock live in a folder of their own; installed on first use."""
    folder = Path(os.environ.get("BENCH_PEERS", ROOT / "bench" / "results" / "peers"))
    if not (folder / "nonebot").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "-r", str(ROOT / "bench" / "requirements.txt")]
        if subprocess.run(command, check=False).returncode:
            return None
    return folder


async def measure(rounds: int, people: int, each: int) -> dict[str, list[Load]]:
    loads: dict[str, list[Load]] = {}
    async with AsyncExitStack() as stack:
        servers = await start_all(stack)
        await warm_up(servers, people)
        for number in range(rounds):
            for server, make, right in servers:
                newcomers = partial(somebody_new, make, number)
                loads.setdefault(server.name, []).append(await callbacks(server, people=people, each=each, make=newcomers, right=right))
    return loads


def somebody_new(make, round_number: int, person: str, text: str):
    """Every round is another fifty people, so that what the gateway remembers of them does not grow from round to round."""
    return make(f"{person}-{round_number}", f"{text}: what is the weather like in Hangzhou today, and shall I take an umbrella?")


async def warm_up(servers: list, people: int) -> None:
    for server, make, right in servers:
        await callbacks(server, people=people, each=2, make=make, right=right)


async def start_all(stack: AsyncExitStack) -> list:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    llm = free_port()
    await stack.enter_async_context(
        serving("llm", [sys.executable, "-m", "gateway", "simulate", "openai", "--port", str(llm)], llm, ready="/_sim/faults", core=1)
    )
    llm_url = f"http://127.0.0.1:{llm}/v1"
    rows = []

    async def add(name: str, command: list[str], port: int, make, right, ready: str = "/") -> None:
        rows.append((await stack.enter_async_context(serving(name, command, port, ready=ready)), make, right))

    def gateway(name: str, **changes: object) -> tuple[list[str], int]:
        port, home = free_port(), folder / name
        home.mkdir()
        return gateway_command(gateway_config(home, port, **changes)), port

    sealed = says("message")
    model = {"kind": "openai", "model": "sim-model", "api_key": "sk-simulated", "base_url": llm_url}
    port = free_port()
    await add(
        "bare ASGI echo", [sys.executable, str(PEERS / "asgi_echo.py"), str(port)], port, plain_callback, lambda words: b"message" in words
    )
    command, port = gateway("echo")
    await add("gateway, echo", command, port, safe_callback, sealed, "/healthz")
    if (extra := nonebot_folder()) is not None:
        port = free_port()
        command = ["env", f"PYTHONPATH={extra}", sys.executable, str(PEERS / "nonebot_echo.py"), str(port)]
        await add("NoneBot2 echo", command, port, plain_callback, lambda words: b"message" in words)
    port = free_port()
    command = [sys.executable, str(PEERS / "fastapi_openai.py"), str(port), llm_url]
    await add("FastAPI + openai SDK, streaming", command, port, plain_callback, lambda words: b"message" in words, "/openapi.json")
    command, port = gateway("model", backends={"gpt": model}, answering={"chain": ["gpt"]})
    await add("gateway, streaming model", command, port, safe_callback, sealed, "/healthz")
    return rows


def report(loads: dict[str, list[Load]]) -> None:
    print(f"{'':34}{'CPU ms/msg':>11}{'msgs/s':>9}{'p50 ms':>8}{'p95 ms':>8}{'wrong':>7}")
    for name, rounds in loads.items():
        cpu, speed = median([load.cpu_ms for load in rounds]), median([load.per_second for load in rounds])
        p50, p95 = median([load.percentile_ms(50) for load in rounds]), median([load.percentile_ms(95) for load in rounds])
        print(f"{name:34}{cpu:11.2f}{speed:9.0f}{p50:8.1f}{p95:8.1f}{sum(load.wrong for load in rounds):7}")
    print()
    ratio(loads, "gateway, echo", "bare ASGI echo", "CPU ≤ 10×")
    ratio(loads, "gateway, echo", "NoneBot2 echo", "CPU ≤ 1×")
    ratio(loads, "gateway, streaming model", "FastAPI + openai SDK, streaming", "CPU ≤ 0.6×, messages/s ≥ 3×")


def ratio(loads: dict[str, list[Load]], ours: str, theirs: str, wanted: str) -> None:
    if ours not in loads or theirs not in loads:
        print(f"{ours} / {theirs}: not measured")
        return
    cpu = median([a.cpu_ms / b.cpu_ms for a, b in zip(loads[ours], loads[theirs], strict=True)])
    speed = median([a.per_second / b.per_second for a, b in zip(loads[ours], loads[theirs], strict=True)])
    print(f"{ours} / {theirs}: CPU {cpu:.2f}×, messages/s {speed:.2f}×   (wanted: {wanted})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--each", type=int, default=20)
    chosen = parser.parse_args()
    report(asyncio.run(measure(chosen.rounds, chosen.people, chosen.each)))
