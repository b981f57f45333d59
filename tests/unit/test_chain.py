from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from gateway.backends.chain import ChainBackend
from gateway.errors import (
    BackendError,
    BackendMisconfigured,
    BackendOverloaded,
    BackendUnreachable,
    ContentFiltered,
    ContextTooLong,
    RateLimited,
    TruncatedAnswer,
)
from gateway.prompts import Delta, Line, Prompt
from gateway.testing import ManualClock
from gateway.testing.backend import ScriptedBackend

PROMPT = Prompt(lines=(Line("user", "hello"),))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def first() -> ScriptedBackend:
    return ScriptedBackend(name="first")


@pytest.fixture
def second() -> ScriptedBackend:
    return ScriptedBackend(name="second")


@pytest.fixture
def chain(first: ScriptedBackend, second: ScriptedBackend, clock: ManualClock) -> ChainBackend:
    return ChainBackend("chain", [first, second], clock=clock, cool_down_s=30)


async def answer_of(chain: ChainBackend) -> list[Delta]:
    async with aclosing(chain.stream(PROMPT)) as deltas:
        return [delta async for delta in deltas]


async def who_answers(chain: ChainBackend) -> str:
    return (await answer_of(chain))[-1].backend


def asked(*backends: ScriptedBackend) -> Sequence[int]:
    return [len(backend.prompts) for backend in backends]


async def test_the_first_backend_answers_and_signs_every_piece(
    chain: ChainBackend, first: ScriptedBackend, second: ScriptedBackend
) -> None:
    deltas = await answer_of(chain)

    assert "".join(delta.text for delta in deltas) == "ANS:hello"
    assert {delta.backend for delta in deltas} == {"first"}
    assert asked(first, second) == [1, 0]


async def test_the_next_one_answers_when_the_first_fails_and_the_log_says_why(
    chain: ChainBackend, first: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    first.will_fail(BackendUnreachable("no route"))

    assert await who_answers(chain) == "second"
    assert "first" in caplog.text
    assert "BackendUnreachable: no route" in caplog.text
    assert "hello" not in caplog.text


async def test_after_the_first_word_there_is_no_way_back(chain: ChainBackend, first: ScriptedBackend, second: ScriptedBackend) -> None:
    first.will_fail(TruncatedAnswer(), after=("Hel",))
    deltas = chain.stream(PROMPT)

    assert (await anext(deltas)).text == "Hel"
    with pytest.raises(TruncatedAnswer):
        await anext(deltas)
    assert asked(second) == [0]


async def test_a_backend_that_only_thought_may_be_followed_by_another(chain: ChainBackend, first: ScriptedBackend) -> None:
    first.will_fail(BackendOverloaded(), reasoning="hm")

    assert await who_answers(chain) == "second"


async def test_a_failed_backend_rests_and_comes_back(
    chain: ChainBackend, first: ScriptedBackend, second: ScriptedBackend, clock: ManualClock
) -> None:
    first.will_fail(BackendOverloaded())
    await answer_of(chain)

    await clock.advance(29)
    assert await who_answers(chain) == "second"
    await clock.advance(2)
    assert await who_answers(chain) == "first"
    assert asked(first, second) == [2, 2]


@pytest.mark.parametrize(
    ("error", "rest_s"),
    [(RateLimited(retry_after_s=5), 5), (RateLimited(), 30), (RateLimited(retry_after_s=7200), 3600), (BackendMisconfigured(), 300)],
)
async def test_how_long_a_backend_rests_depends_on_the_error(
    chain: ChainBackend, first: ScriptedBackend, clock: ManualClock, error: BackendError, rest_s: float
) -> None:
    first.will_fail(error)
    await answer_of(chain)

    await clock.advance(rest_s - 1)
    assert await who_answers(chain) == "second"
    await clock.advance(1.5)
    assert await who_answers(chain) == "first"


@pytest.mark.parametrize("error", [ContentFiltered(), ContextTooLong()])
async def test_an_error_about_the_question_goes_on_to_the_next_without_a_rest(
    chain: ChainBackend, first: ScriptedBackend, error: BackendError
) -> None:
    first.will_fail(error)

    assert await who_answers(chain) == "second"
    assert await who_answers(chain) == "first"


async def test_when_all_rest_the_one_due_first_is_tried_anyway(
    chain: ChainBackend, first: ScriptedBackend, second: ScriptedBackend
) -> None:
    first.will_fail(RateLimited(retry_after_s=60))
    second.will_fail(RateLimited(retry_after_s=20))
    with pytest.raises(RateLimited):
        await answer_of(chain)

    assert await who_answers(chain) == "second"
    assert asked(first, second) == [1, 2]


async def test_a_resting_backend_is_the_last_resort_when_the_awake_ones_fail(
    chain: ChainBackend, first: ScriptedBackend, second: ScriptedBackend
) -> None:
    first.will_fail(BackendOverloaded())
    await answer_of(chain)
    second.will_fail(BackendOverloaded())

    assert await who_answers(chain) == "first"


async def test_when_nobody_answers_the_last_error_is_raised(chain: ChainBackend, first: ScriptedBackend, second: ScriptedBackend) -> None:
    first.will_fail(BackendUnreachable())
    second.will_fail(BackendOverloaded())

    with pytest.raises(BackendOverloaded):
        await answer_of(chain)


async def test_an_error_about_the_question_tells_more_than_the_last_one(
    chain: ChainBackend, first: ScriptedBackend, second: ScriptedBackend
) -> None:
    first.will_fail(ContentFiltered())
    second.will_fail(BackendOverloaded())

    with pytest.raises(ContentFiltered):
        await answer_of(chain)


async def test_closing_the_chain_closes_its_backends(chain: ChainBackend, first: ScriptedBackend, second: ScriptedBackend) -> None:
    await chain.aclose()

    assert first.closed
    assert second.closed


async def test_the_innermost_name_counts_when_chains_are_nested(chain: ChainBackend, clock: ManualClock) -> None:
    assert await who_answers(ChainBackend("outer", [chain], clock=clock)) == "first"


def test_a_chain_of_nothing_is_refused(clock: ManualClock) -> None:
    with pytest.raises(ValueError):
        ChainBackend("chain", [], clock=clock)
