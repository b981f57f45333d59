"""Latency that the gateway adds to a DingTalk message: from the frame on the socket to the webhook call, echo backend, SQLite.

    .venv/bin/python bench/dingtalk.py [--messages 500] [--at-once 1 20]

The gateway is a process of its own; the simulated DingTalk runs in this one. `ack` is from the frame to its acknowledgement. The
simulator's own share (JSON, one HTTP request parsed) is inside the figures. Wanted: p95 below 20 ms, one message at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from harness import free_port, gateway_command, gateway_config, serving

from gateway.simulators.dingtalk import DingTalkSimulator


class Stopwatch(DingTalkSimulator):
    """A simulator that also notes when a frame was acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.acked_at: dict[str, float] = {}

    async def _happened(self, event: str, subject: str) -> None:
        if event == "ack":
            self.acked_at.setdefault(subject, time.monotonic())
        await super()._happened(event, subject)


async def measure(messages: int, at_once: list[int], mode: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Stopwatch().running() as sim:
            port = free_port()
            section = {
                "kind": "dingtalk", "mode": mode, "client_id": sim.client_id, "client_secret": sim.client_secret,
                "openapi_base": sim.base_url, "oapi_base": sim.base_url,
            }  # fmt: skip
            config = gateway_config(Path(folder), port, channels={"dingtalk": section})
            async with serving("gateway", gateway_command(config), port, ready="/readyz") as server:
                if mode == "http":
                    sim.faults.callback_url = f"{server.url}/dingtalk/dingtalk"
                else:
                    await sim.wait_for_log("connect")
                await talk(sim, 50, 10)
                print(f"{mode}: {'at once':>8}{'messages/s':>12}{'answer p50':>12}{'p95':>8}{'p99':>8}{'ack p95':>10}  (ms)")
                for people in at_once:
                    cpu, started = server.cpu_s(), time.perf_counter()
                    asked = await talk(sim, messages, people)
                    wall_s = time.perf_counter() - started
                    report(sim, asked, people, wall_s, 1_000 * (server.cpu_s() - cpu) / messages)


async def talk(sim: Stopwatch, messages: int, people: int) -> list[str]:
    """`people` write at once, each its next message when the last was answered."""
    asked: list[str] = []

    async def person(number: int) -> None:
        for count in range(messages // people):
            message = await sim.write(sender=f"人{number}", text=f"第{count}句")
            asked.append(message)
            async with asyncio.timeout(30), sim._something_shown:
                await sim._something_shown.wait_for(lambda message=message: message in sim.answered_at)

    await asyncio.gather(*(person(number) for number in range(people)))
    return asked


def report(sim: Stopwatch, asked: list[str], people: int, wall_s: float, cpu_ms: float) -> None:
    answers = sorted(1_000 * (sim.answered_at[message] - sim.pushed_at[message]) for message in asked)
    acks = sorted(1_000 * (sim.acked_at[sim.frames[one]] - sim.pushed_at[one]) for one in asked if sim.frames[one] in sim.acked_at)
    doubled = len(sim.shown) - len({shown.answers for shown in sim.shown})
    figures = [percentile(answers, 50), percentile(answers, 95), percentile(answers, 99), percentile(acks, 95) if acks else 0.0]
    print(
        f"{people:14}{len(asked) / wall_s:12.0f}{figures[0]:12.1f}{figures[1]:8.1f}{figures[2]:8.1f}{figures[3]:10.1f}"
        f"   gateway CPU {cpu_ms:.2f} ms a message, {doubled} answered twice"
    )


def percentile(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=500)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--mode", choices=["stream", "http"], default="stream")
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.messages, chosen.at_once, chosen.mode))
