"""What every backend promises, fakes included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.backends.base import Backend
from gateway.backends.chain import ChainBackend
from gateway.backends.echo import EchoBackend
from gateway.backends.handbook import HandbookBackend
from gateway.backends.openai_chat import OpenAIBackend
from gateway.clock import SystemClock
from gateway.errors import BackendError, BackendUnreachable, BrokenAnswer
from gateway.prompts import Delta, Line, Prompt
from gateway.simulators.openai_api import OpenAISimulator
from gateway.testing.backend import ScriptedBackend


@dataclass(frozen=True, kw_only=True)
class Case:
    """One backend, how to make it fail (None: it cannot), and how to see that its work stopped."""

    backend: Backend
    break_it: Callable[[], object] | None = None
    stopped: Callable[[], Awaitable[object]] | None = None


async def echo(stack: AsyncExitStack, tmp_path: Path) -> Case:
    return Case(backend=EchoBackend())


async def handbook(stack: AsyncExitStack, tmp_path: Path) -> Case:
    (tmp_path / "README.md").write_text("# Numbers\n\n## How do questions end?\n\nA question ends.\n\nReally.\n", encoding="utf-8")
    return Case(backend=HandbookBackend(folder=tmp_path))


async def openai(stack: AsyncExitStack, tmp_path: Path) -> Case:
    simulator = OpenAISimulator()
    await stack.enter_async_context(simulator.running())
    backend = OpenAIBackend(
        name="gpt", model="sim-model", api_key="sk-simulated", base_url=simulator.api_base, clock=SystemClock(), retries=0
    )
    simulator.faults.chunk_delay_s = 0.01
    return Case(
        backend=backend,
        break_it=lambda: setattr(simulator.faults, "fault", "broken_json"),
        stopped=lambda: simulator.wait_for(lambda asked: asked[-1].disconnected, timeout_s=1),
    )


async def scripted(stack: AsyncExitStack, tmp_path: Path) -> Case:
    backend = ScriptedBackend()
    return Case(backend=backend, break_it=lambda: backend.will_fail(BrokenAnswer()), stopped=lambda: none_running(backend))


async def chain(stack: AsyncExitStack, tmp_path: Path) -> Case:
    down, up = ScriptedBackend(name="down"), ScriptedBackend(name="up")
    down.will_fail(BackendUnreachable())
    backend = ChainBackend("chain", [down, up], clock=SystemClock())

    def break_it() -> None:
        up.will_fail(BrokenAnswer())
        down.will_fail(BackendUnreachable())

    return Case(backend=backend, break_it=break_it, stopped=lambda: none_running(up))


async def none_running(backend: ScriptedBackend) -> None:
    assert backend.running == 0
    assert backend.abandoned == 1


@pytest.fixture(params=[echo, handbook, openai, scripted, chain], ids=lambda make: make.__name__)
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    async with AsyncExitStack() as stack:
        case = await request.param(stack, tmp_path)
        stack.push_async_callback(case.backend.aclose)
        yield case


def asking(question: str = "how does question 1 end") -> Prompt:
    return Prompt(lines=(Line("system", "Be kind."), Line("user", "earlier"), Line("assistant", "yes"), Line("user", question)))


async def answer_of(backend: Backend, question: str = "how does question 1 end") -> list[Delta]:
    async with aclosing(backend.stream(asking(question))) as deltas:
        return [delta async for delta in deltas]


async def test_a_complete_answer_has_words_and_ends_with_exactly_one_stop(case: Case) -> None:
    deltas = await answer_of(case.backend)

    assert "".join(delta.text for delta in deltas).strip()
    assert [delta.stop is not None for delta in deltas] == [False] * (len(deltas) - 1) + [True]


async def test_the_answer_comes_in_more_than_one_piece(case: Case) -> None:
    assert sum(bool(delta.text) for delta in await answer_of(case.backend)) > 1


async def test_many_prompts_at_once_each_get_their_own_answer(case: Case) -> None:
    questions = [f"how does question {number} end" for number in range(40)]

    answers = await asyncio.gather(*(answer_of(case.backend, question) for question in questions))

    for question, deltas in zip(questions, answers, strict=True):
        assert deltas[-1].stop is not None
        text = "".join(delta.text for delta in deltas)
        assert question in text or isinstance(case.backend, HandbookBackend)


async def test_closing_stops_the_work(case: Case) -> None:
    deltas = case.backend.stream(asking())
    await anext(deltas)

    await deltas.aclose()

    if case.stopped is not None:
        await case.stopped()
    with pytest.raises(StopAsyncIteration):
        await anext(deltas)


async def test_cancelling_the_reader_stops_the_work_and_others_go_on(case: Case) -> None:
    begun = asyncio.Event()

    async def read_slowly() -> None:
        async with aclosing(case.backend.stream(asking())) as deltas:
            async for _ in deltas:
                begun.set()
                await asyncio.Event().wait()

    reader = asyncio.create_task(read_slowly())
    await asyncio.wait_for(begun.wait(), 5)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    if case.stopped is not None:
        await case.stopped()
    assert (await answer_of(case.backend))[-1].stop is not None


async def test_a_failure_is_a_backend_error(case: Case) -> None:
    if case.break_it is None:
        return  # nothing outside can break this backend
    case.break_it()

    with pytest.raises(BackendError):
        await answer_of(case.backend)


async def test_a_checkup_finds_something_to_say_or_nothing(case: Case) -> None:
    for finding in await case.backend.checkup():
        assert finding.ok or finding.repair


async def test_closing_twice_is_harmless(case: Case) -> None:
    await answer_of(case.backend)

    await case.backend.aclose()
    await case.backend.aclose()
