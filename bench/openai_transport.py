"""What one streamed call to an OpenAI-compatible server costs: the SDK as it comes, the SDK over aiohttp, our backend, bare aiohttp.

Run: `.venv/bin/python bench/openai_transport.py [--rounds 7] [--calls 200] [--at-once 50] [--chunks 20] [--chunk-delay-ms 5]`

All four ask the same simulator (its own process) in turns, so that noise of the machine hits all alike. Printed per way: CPU of this
process per call (median and p95 over rounds), time to the first piece and to the end (median and p95 over calls), and the CPU ratio to
the SDK as it comes. The chunks are written one by one, with a pause between them as a model makes them; 0 lets the network join them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["NO_PROXY"] = "127.0.0.1"

import aiohttp
import openai

from gateway.backends.openai_chat import OpenAIBackend
from gateway.clock import SystemClock
from gateway.prompts import Line, Prompt
from gateway.simulators.openai_api import OpenAISimulator

KEY = "sk-simulated"
MODEL = "sim-model"
HISTORY = tuple(
    Line("assistant" if number % 2 else "user", f"an earlier line of this conversation, number {number}") for number in range(9)
)
MESSAGES = [{"role": line.role, "content": line.text} for line in HISTORY]
REQUEST = {"model": MODEL, "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
SDK_AS_IT_COMES = "SDK as it comes"

Ask = Callable[[], AsyncIterator[str]]


@asynccontextmanager
async def sdk_as_it_comes(base_url: str) -> AsyncIterator[Ask]:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0) as client:
        yield lambda: _through_sdk(client)


@asynccontextmanager
async def sdk_over_aiohttp(base_url: str) -> AsyncIterator[Ask]:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0, http_client=openai.DefaultAioHttpClient()) as client:
        yield lambda: _through_sdk(client)


async def _through_sdk(client: openai.AsyncOpenAI) -> AsyncIterator[str]:
    async for chunk in await client.chat.completions.create(**REQUEST):
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


@asynccontextmanager
async def our_backend(base_url: str) -> AsyncIterator[Ask]:
    backend = OpenAIBackend(name="bench", model=MODEL, api_key=KEY, base_url=base_url, clock=SystemClock())

    async def ask() -> AsyncIterator[str]:
        async for delta in backend.stream(Prompt(lines=HISTORY)):
            if delta.text:
                yield delta.text

    yield ask
    await backend.aclose()


@asynccontextmanager
async def bare_aiohttp(base_url: str) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:

        async def ask() -> AsyncIterator[str]:
            async with session.post(f"{base_url}/chat/completions", json=REQUEST) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        choices = json.loads(line[6:])["choices"]
                        if choices and choices[0]["delta"].get("content"):
                            yield choices[0]["delta"]["content"]

        yield ask


WAYS = {SDK_AS_IT_COMES: sdk_as_it_comes, "SDK over aiohttp": sdk_over_aiohttp, "our backend": our_backend, "bare aiohttp": bare_aiohttp}


class Book:
    """What was measured of one way."""

    def __init__(self) -> None:
        self.cpu_ms: list[float] = []
        self.first_ms: list[float] = []
        self.whole_ms: list[float] = []


async def one_call(ask: Ask, book: Book) -> None:
    begun = time.perf_counter()
    first = 0.0
    text = ""
    async for piece in ask():
        first = first or time.perf_counter()
        text += piece
    assert text.startswith("ANS:"), text
    book.first_ms.append((first - begun) * 1000)
    book.whole_ms.append((time.perf_counter() - begun) * 1000)


async def one_round(ask: Ask, book: Book, calls: int, at_once: int) -> None:
    async def worker() -> None:
        for _ in range(calls // at_once):
            await one_call(ask, book)

    cpu = time.process_time()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    book.cpu_ms.append((time.process_time() - cpu) * 1000 / (calls // at_once * at_once))


async def measure(base_url: str, given: argparse.Namespace) -> dict[str, Book]:
    books = {name: Book() for name in WAYS}
    for number in range(given.rounds + 1):
        for name, way in WAYS.items():
            book = books[name] if number else Book()  # the first round warms up
            async with way(f"{base_url}/v1") as ask:
                await one_call(ask, Book())
                await one_round(ask, book, given.calls, given.at_once)
    return books


def report(books: dict[str, Book], given: argparse.Namespace) -> None:
    print(
        f"{given.chunks} chunks every {given.chunk_delay_ms:g} ms, {given.at_once} calls at once, {given.rounds} rounds of {given.calls}\n"
    )
    print(f"{'':<18}{'CPU ms/call':>12}{'p95':>7}{'ratio':>7}{'first ms':>10}{'p95':>7}{'whole ms':>10}{'p95':>7}")
    base = statistics.median(books[SDK_AS_IT_COMES].cpu_ms)
    for name, book in books.items():
        cpu = statistics.median(book.cpu_ms)
        figures = f"{cpu:>12.2f}{p95(book.cpu_ms):>7.2f}{cpu / base:>7.2f}"
        figures += f"{statistics.median(book.first_ms):>10.1f}{p95(book.first_ms):>7.1f}"
        print(f"{name:<18}{figures}{statistics.median(book.whole_ms):>10.1f}{p95(book.whole_ms):>7.1f}")


def p95(figures: list[float]) -> float:
    return sorted(figures)[min(len(figures) - 1, round(0.95 * (len(figures) - 1)))]


async def serve(given: argparse.Namespace) -> None:
    simulator = OpenAISimulator(answer=lambda question: f"ANS:{question} " + "and so on, " * 20)
    simulator.faults.chunks = given.chunks
    simulator.faults.chunk_delay_s = given.chunk_delay_ms / 1000
    async with simulator.running():
        print(simulator.base_url, flush=True)
        await asyncio.Event().wait()


async def drive(given: argparse.Namespace) -> None:
    arguments = [f"--chunks={given.chunks}", f"--chunk-delay-ms={given.chunk_delay_ms}"]
    server = await asyncio.create_subprocess_exec(sys.executable, __file__, "--serve", *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        base_url = (await server.stdout.readline()).decode().strip()
        report(await measure(base_url, given), given)
    finally:
        server.kill()
        await server.wait()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--chunk-delay-ms", type=float, default=5.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    await (serve(given) if given.serve else drive(given))


if __name__ == "__main__":
    if sys.platform == "win32":
        asyncio.run(main())
    else:
        import uvloop

        uvloop.run(main())
