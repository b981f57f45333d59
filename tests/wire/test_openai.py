"""The unmodified `openai` SDK proves the simulator; then our backend meets every fault of it (dependencies.md §4 and more)."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.backends.openai_chat import OpenAIBackend
from gateway.clock import Clock, SystemClock
from gateway.errors import (
    BackendError,
    BackendMisconfigured,
    BackendOverloaded,
    BackendTimeout,
    BackendUnreachable,
    BrokenAnswer,
    ContentFiltered,
    ContextTooLong,
    EmptyAnswer,
    RateLimited,
    TruncatedAnswer,
)
from gateway.prompts import Delta, Line, Prompt, StopReason, Usage
from gateway.simulators.openai_api import OpenAISimulator
from gateway.simulators.openai_faults import FAULTS
from gateway.testing import ManualClock

KEY = "sk-simulated"
ANSWER = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
QUESTION = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def simulator() -> AsyncIterator[OpenAISimulator]:
    simulator = OpenAISimulator()
    async with simulator.running():
        yield simulator


@pytest.fixture
async def backends(simulator: OpenAISimulator) -> AsyncIterator[Any]:
    made: list[OpenAIBackend] = []

    def make(*, clock: Clock | None = None, **settings: Any) -> OpenAIBackend:
        given = {"name": "gpt", "model": "sim-model", "api_key": KEY, "base_url": simulator.api_base, "retries": 0, **settings}
        made.append(OpenAIBackend(clock=clock or SystemClock(), jitter=lambda: 0.0, **given))
        return made[-1]

    yield make
    for backend in made:
        await backend.aclose()


@pytest.fixture
async def sdk(simulator: OpenAISimulator) -> AsyncIterator[openai.AsyncOpenAI]:
    client = openai.AsyncOpenAI(
        api_key=KEY, base_url=simulator.api_base, max_retries=0, http_client=openai.DefaultAsyncHttpxClient(trust_env=False), timeout=5
    )
    yield client
    await client.close()


def asking(question: str = "hello", **settings: Any) -> Prompt:
    return Prompt(lines=(Line("system", "Be kind."), Line("user", question)), **settings)


async def answer_of(backend: OpenAIBackend, prompt: Prompt | None = None) -> list[Delta]:
    async with aclosing(backend.stream(prompt or asking())) as deltas:
        return [delta async for delta in deltas]


async def failure_of(backend: OpenAIBackend) -> tuple[str, BackendError]:
    """The words that came before the error, and the error."""
    text = ""
    try:
        async with aclosing(backend.stream(asking())) as deltas:
            async for delta in deltas:
                text += delta.text
    except BackendError as error:
        return text, error
    raise AssertionError(f"no error but {text!r}")


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def thought_of(deltas: list[Delta]) -> str:
    return "".join(delta.reasoning for delta in deltas)


class TestTheSimulatorWithTheUnmodifiedSdk:
    async def test_a_whole_answer(self, simulator: OpenAISimulator, sdk: openai.AsyncOpenAI) -> None:
        answer = await sdk.chat.completions.create(model="sim-model", messages=QUESTION)

        assert answer.choices[0].message.content == "ANS:hello"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens == len("hello") + len("ANS:hello")
        assert simulator.asked[0].messages == QUESTION
        assert "authorization" not in simulator.asked[0].headers

    async def test_a_streamed_answer_with_usage(self, simulator: OpenAISimulator, sdk: openai.AsyncOpenAI) -> None:
        simulator.faults.chunks = 4

        stream = await sdk.chat.completions.create(
            model="sim-model", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]

        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "ANS:hello"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert len(chunks) == 3 + 2

    async def test_reasoning_comes_as_an_extra_attribute(self, simulator: OpenAISimulator, sdk: openai.AsyncOpenAI) -> None:
        simulator.faults.reasoning = "hm"

        stream = await sdk.chat.completions.create(model="sim-model", messages=QUESTION, stream=True)
        first = await anext(aiter(stream))
        await stream.close()

        assert getattr(first.choices[0].delta, "reasoning_content", None) == "hm"

    async def test_the_model_list(self, sdk: openai.AsyncOpenAI) -> None:
        assert [model.id async for model in sdk.models.list()] == ["gpt-4o-mini", "sim-model"]
        assert (await sdk.models.retrieve("sim-model")).id == "sim-model"
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("nothing")

    async def test_an_answer_that_was_queued_comes_first(self, simulator: OpenAISimulator, sdk: openai.AsyncOpenAI) -> None:
        async with httpx2.AsyncClient(trust_env=False) as control:
            said = await control.post(f"{simulator.base_url}/_sim/say", json={"text": "42"})
        answer = await sdk.chat.completions.create(model="sim-model", messages=QUESTION)

        assert said.status_code == 200
        assert answer.choices[0].message.content == "42"

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            ("unauthorized", openai.AuthenticationError),
            ("forbidden", openai.PermissionDeniedError),
            ("unknown_model", openai.NotFoundError),
            ("bad_request", openai.BadRequestError),
            ("context_too_long", openai.BadRequestError),
            ("content_policy", openai.BadRequestError),
            ("rate_limited", openai.RateLimitError),
            ("quota", openai.RateLimitError),
            ("server_error", openai.InternalServerError),
            ("overloaded", openai.InternalServerError),
            ("cut", openai.APIConnectionError),
            ("error_in_stream", openai.APIError),
            ("broken_json", json.JSONDecodeError),
        ],
    )
    async def test_the_sdk_sees_each_fault(
        self, simulator: OpenAISimulator, sdk: openai.AsyncOpenAI, fault: str, error: type[Exception]
    ) -> None:
        simulator.faults.fault = fault

        with pytest.raises(error):
            async for _ in await sdk.chat.completions.create(model="sim-model", messages=QUESTION, stream=True):
                pass

    async def test_the_sdk_takes_a_truncated_stream_for_a_whole_one(self, simulator: OpenAISimulator, sdk: openai.AsyncOpenAI) -> None:
        simulator.faults.fault = "truncated"

        stream = await sdk.chat.completions.create(model="sim-model", messages=QUESTION, stream=True)
        chunks = [chunk async for chunk in stream]

        assert chunks
        assert not any(chunk.choices[0].finish_reason for chunk in chunks)

    async def test_the_sdk_gives_a_web_page_back_as_a_string(self, simulator: OpenAISimulator, sdk: openai.AsyncOpenAI) -> None:
        simulator.faults.fault = "html"

        assert isinstance(await sdk.chat.completions.create(model="sim-model", messages=QUESTION), str)

    async def test_a_body_without_ids_is_accepted(self, simulator: OpenAISimulator, sdk: openai.AsyncOpenAI) -> None:
        simulator.faults.fault = "bare"

        answer = await sdk.chat.completions.create(model="sim-model", messages=QUESTION)

        assert answer.choices[0].message.content == "ANS:hello"
        assert answer.id is None

    async def test_the_sdk_times_out_when_the_stream_stalls(self, simulator: OpenAISimulator, sdk: openai.AsyncOpenAI) -> None:
        simulator.faults.fault = "stall"

        with pytest.raises(openai.APITimeoutError):
            async for _ in await sdk.with_options(timeout=0.2).chat.completions.create(model="sim-model", messages=QUESTION, stream=True):
                pass
        await simulator.wait_for(lambda asked: asked[0].disconnected)

    async def test_a_wrong_key_and_an_unknown_fault_are_told(self, simulator: OpenAISimulator, sdk: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.AuthenticationError):
            await sdk.with_options(api_key="wrong").chat.completions.create(model="sim-model", messages=QUESTION)
        simulator.faults.fault = "no such fault"
        with pytest.raises(openai.InternalServerError, match="known"):
            await sdk.chat.completions.create(model="sim-model", messages=QUESTION)


class TestAnswers:
    async def test_the_answer_comes_in_pieces_and_ends_with_its_cost(self, simulator: OpenAISimulator, backends: Any) -> None:
        deltas = await answer_of(backends(), asking("hello", temperature=0.5, max_output_tokens=99))

        assert text_of(deltas) == "ANS:hello"
        assert len(deltas) > 3
        assert deltas[-1].stop is StopReason.END
        assert deltas[-1].usage == Usage(input_tokens=len("Be kind.hello"), output_tokens=len("ANS:hello"))
        assert [delta.stop for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
        asked = simulator.asked[0].body
        assert asked["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]
        assert (asked["temperature"], asked["max_tokens"], asked["stream_options"]) == (0.5, 99, {"include_usage": True})

    async def test_options_join_the_request_but_never_replace_the_question(self, simulator: OpenAISimulator, backends: Any) -> None:
        await answer_of(backends(options={"top_p": 0.9, "messages": [], "stream": False}))

        assert simulator.asked[0].body["top_p"] == 0.9
        assert simulator.asked[0].question == "hello"
        assert simulator.asked[0].body["stream"] is True

    async def test_nothing_about_this_machine_is_sent(self, simulator: OpenAISimulator, backends: Any) -> None:
        await answer_of(backends())

        assert not [name for name in simulator.asked[0].headers if name.startswith("x-stainless")]

    async def test_one_connection_serves_one_call_after_the_other(self, backends: Any) -> None:
        backend = backends()

        for _ in range(5):
            await answer_of(backend)

        session = backend._wire._client._client._transport._session
        assert session.connector._acquired == set()
        assert sum(len(kept) for kept in session.connector._conns.values()) == 1

    async def test_chinese_and_emoji_survive_any_cut(self, simulator: OpenAISimulator, backends: Any) -> None:
        await simulator.say(text="你好，世界🌏！<不是标签> a<b")
        simulator.faults.chunks = 100

        assert text_of(await answer_of(backends())) == "你好，世界🌏！<不是标签> a<b"

    async def test_usage_may_be_missing(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.usage = False

        assert (await answer_of(backends()))[-1] == Delta(stop=StopReason.END)

    async def test_a_body_without_ids_is_an_answer(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.fault = "bare"

        assert text_of(await answer_of(backends())) == "ANS:hello"

    @pytest.mark.parametrize(("fault", "stop"), [("length", StopReason.LENGTH), ("content_filter", StopReason.FILTERED)])
    async def test_why_it_stopped_is_told(self, simulator: OpenAISimulator, backends: Any, fault: str, stop: StopReason) -> None:
        simulator.faults.fault = fault

        deltas = await answer_of(backends())

        assert (text_of(deltas), deltas[-1].stop) == ("ANS:hello", stop)

    async def test_a_server_of_ones_own_needs_no_key(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator._key = b"Bearer none"

        assert text_of(await answer_of(backends(api_key=""))) == "ANS:hello"


class TestReasoning:
    @pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
    async def test_a_reasoning_field_is_thought_not_text(self, simulator: OpenAISimulator, backends: Any, field: str) -> None:
        simulator.faults.reasoning = "let me see"
        simulator.faults.reasoning_field = field

        deltas = await answer_of(backends())

        assert (text_of(deltas), thought_of(deltas)) == ("ANS:hello", "let me see")

    async def test_a_think_block_in_the_text_is_thought_not_text(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.think = "let me see"
        simulator.faults.chunks = 1000

        deltas = await answer_of(backends())

        assert (text_of(deltas), thought_of(deltas)) == ("ANS:hello", "let me see")

    async def test_an_answer_that_is_only_reasoning_is_an_error_that_tells_the_repair(
        self, simulator: OpenAISimulator, backends: Any
    ) -> None:
        simulator.faults.fault = "reasoning_only"

        _, error = await failure_of(backends())

        assert isinstance(error, EmptyAnswer)
        assert "max_output_tokens" in str(error)


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "kind", "hint"),
        [
            ("truncated", TruncatedAnswer, "finish_reason"),
            ("cut", BackendUnreachable, "connection broke"),
            ("error_in_stream", BrokenAnswer, "error in place of an answer"),
            ("broken_json", BrokenAnswer, "chunk"),
            ("html", BrokenAnswer, "/v1"),
            ("unauthorized", BackendMisconfigured, "api_key"),
            ("forbidden", BackendMisconfigured, "rights"),
            ("unknown_model", BackendMisconfigured, "model"),
            ("bad_request", BackendMisconfigured, "Invalid 'temperature'"),
            ("context_too_long", ContextTooLong, "history_tokens"),
            ("content_policy", ContentFiltered, "filter"),
            ("rate_limited", RateLimited, "too many requests"),
            ("quota", RateLimited, "Top up"),
            ("server_error", BackendOverloaded, "500"),
            ("overloaded", BackendOverloaded, "503"),
            ("empty", EmptyAnswer, "without words"),
        ],
    )
    async def test_each_fault_is_one_error_that_names_backend_model_host_and_repair(
        self, simulator: OpenAISimulator, backends: Any, fault: str, kind: type[BackendError], hint: str
    ) -> None:
        simulator.faults.fault = fault

        _, error = await failure_of(backends())

        assert isinstance(error, kind)
        assert str(error).startswith("backend gpt (model sim-model at 127.0.0.1)")
        assert hint in str(error)
        assert KEY not in repr(error) + str(error.__cause__)

    def test_every_fault_of_the_simulator_is_met_in_this_file(self) -> None:
        with open(__file__, encoding="utf-8") as source:
            text = source.read()

        assert [fault for fault in FAULTS if f'"{fault}"' not in text] == []

    async def test_what_was_said_before_the_fault_is_kept(self, simulator: OpenAISimulator, backends: Any) -> None:
        for fault in ("truncated", "cut", "error_in_stream", "broken_json"):
            simulator.faults.fault = fault

            text, _ = await failure_of(backends())

            assert text == "AN"

    async def test_a_server_that_is_not_there_is_unreachable(self, backends: Any) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]

        _, error = await failure_of(backends(base_url=f"http://127.0.0.1:{port}/v1"))

        assert isinstance(error, BackendUnreachable)
        assert "base_url" in str(error)

    async def test_a_wrong_path_says_that_base_url_ends_in_v1(self, simulator: OpenAISimulator, backends: Any) -> None:
        _, error = await failure_of(backends(base_url=simulator.base_url))

        assert isinstance(error, BackendMisconfigured)
        assert "/v1" in str(error)

    async def test_a_missing_key_is_told_before_anything_is_sent(self, simulator: OpenAISimulator, backends: Any) -> None:
        _, error = await failure_of(backends(api_key="", base_url=None))

        assert isinstance(error, BackendMisconfigured)
        assert "OPENAI_API_KEY" in str(error)
        assert simulator.calls == 0

    async def test_a_quota_error_carries_no_hope_and_a_limit_error_its_pause(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.retry_after_s = 7
        simulator.faults.fault = "rate_limited"
        _, limited = await failure_of(backends())
        simulator.faults.fault = "quota"
        _, exhausted = await failure_of(backends(retries=2))

        assert isinstance(limited, RateLimited)
        assert (limited.retry_after_s, limited.retryable) == (7, True)
        assert not exhausted.retryable
        assert simulator.calls == 2


class TestDeadlines:
    async def test_silence_between_chunks_ends_in_a_timeout_and_frees_the_connection(
        self, simulator: OpenAISimulator, backends: Any
    ) -> None:
        simulator.faults.fault = "stall"
        clock = ManualClock()
        backend = backends(clock=clock, stall_s=60)
        heard = asyncio.Event()

        async def listen() -> None:
            async with aclosing(backend.stream(asking())) as deltas:
                async for _ in deltas:
                    heard.set()

        task = asyncio.create_task(listen())
        await asyncio.wait_for(heard.wait(), 5)
        await clock.advance(59)
        assert not task.done()
        await clock.advance(2)

        with pytest.raises(BackendTimeout, match="silent for 60 s"):
            await asyncio.wait_for(task, 5)
        await simulator.wait_for(lambda asked: asked[0].disconnected)

    async def test_a_server_that_never_answers_meets_the_total_deadline(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.fault = "silent"
        clock = ManualClock()
        task = asyncio.create_task(answer_of(backends(clock=clock, timeout_s=120, retries=2)))
        await simulator.wait_for(lambda asked: len(asked) == 1)
        await clock.advance(119)
        assert not task.done()
        await clock.advance(2)

        with pytest.raises(BackendTimeout, match="timeout_s \\(120 s\\)"):
            await asyncio.wait_for(task, 5)
        await simulator.wait_for(lambda asked: asked[0].disconnected)
        assert simulator.calls == 1

    async def test_a_slow_trickle_meets_the_total_deadline_too(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.chunk_delay_s = 0.05
        await simulator.say(text="x" * 1000)
        simulator.faults.chunks = 1000

        text, error = await failure_of(backends(timeout_s=0.3, stall_s=0.2))

        assert isinstance(error, BackendTimeout)
        assert 1 < len(text) < 20

    async def test_a_server_that_keeps_the_connection_open_after_the_end_delays_nobody_for_long(self, backends: Any) -> None:
        async with one_answer_server(b"text/event-stream", ANSWER, hang=True) as base_url:
            deltas = await asyncio.wait_for(answer_of(backends(base_url=base_url)), 3)

        assert text_of(deltas) == "hi"


class TestLeaving:
    async def test_closing_the_generator_closes_the_connection_within_a_second(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.fault = "stall"
        deltas = backends().stream(asking())
        await anext(deltas)

        await deltas.aclose()

        await simulator.wait_for(lambda asked: asked[0].disconnected, timeout_s=1)

    async def test_cancelling_the_reader_closes_the_connection_within_a_second(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.fault = "silent"
        task = asyncio.create_task(answer_of(backends()))
        await simulator.wait_for(lambda asked: len(asked) == 1)

        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

        await simulator.wait_for(lambda asked: asked[0].disconnected, timeout_s=1)

    async def test_closing_the_backend_leaves_nothing_open(self, simulator: OpenAISimulator, backends: Any) -> None:
        backend = backends()
        await answer_of(backend)

        await backend.aclose()

        assert backend._wire._client._client._transport._session.closed


class TestTryingAgain:
    @pytest.mark.parametrize("fault", ["server_error", "overloaded", "rate_limited", "cut", "html"])
    async def test_a_passing_fault_before_the_first_word_is_not_noticed(
        self, simulator: OpenAISimulator, backends: Any, fault: str
    ) -> None:
        simulator.faults.fault = fault
        simulator.faults.times = 2
        simulator.faults.after_chunks = 0
        clock = ManualClock()

        deltas = await through_pauses(answer_of(backends(clock=clock, retries=2)), clock)

        assert text_of(deltas) == "ANS:hello"
        assert simulator.calls == 3

    async def test_it_gives_up_after_its_retries(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.fault = "server_error"
        clock = ManualClock()

        with pytest.raises(BackendOverloaded):
            await through_pauses(answer_of(backends(clock=clock, retries=2)), clock)

        assert simulator.calls == 3
        assert 1.5 <= clock.monotonic() < 4

    async def test_after_the_first_word_nothing_is_tried_again(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.fault = "cut"

        text, _ = await failure_of(backends(retries=2))

        assert text == "AN"
        assert simulator.calls == 1

    @pytest.mark.parametrize(
        "fault", ["unauthorized", "unknown_model", "bad_request", "context_too_long", "content_policy", "quota", "empty"]
    )
    async def test_what_cannot_heal_is_not_tried_again(self, simulator: OpenAISimulator, backends: Any, fault: str) -> None:
        simulator.faults.fault = fault

        await failure_of(backends(retries=2))

        assert simulator.calls == 1

    async def test_the_pause_that_the_server_asks_for_is_kept(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.fault = "rate_limited"
        simulator.faults.times = 1
        simulator.faults.retry_after_s = 20
        clock = ManualClock()

        await through_pauses(answer_of(backends(clock=clock, retries=2)), clock)

        assert 20 <= clock.monotonic() <= 21

    async def test_a_pause_beyond_the_deadline_is_not_waited_for(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.fault = "rate_limited"
        simulator.faults.retry_after_s = 600

        _, error = await failure_of(backends(retries=2))

        assert isinstance(error, RateLimited)
        assert error.retry_after_s == 600
        assert simulator.calls == 1

    async def test_the_log_tells_the_reason_and_no_secret(
        self, simulator: OpenAISimulator, backends: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="gateway")
        simulator.faults.fault = "server_error"
        simulator.faults.times = 1
        clock = ManualClock()

        await through_pauses(answer_of(backends(clock=clock, retries=1)), clock)

        assert "500" in caplog.text
        assert "Trying again in 0.5 s (1 of 1)" in caplog.text
        assert KEY not in caplog.text
        assert "hello" not in caplog.text


class TestServersThatKnowLess:
    async def test_stream_options_are_left_out_once_refused(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.refuses = ("stream_options",)
        backend = backends()

        first = await answer_of(backend)
        second = await answer_of(backend)

        assert text_of(first) == text_of(second) == "ANS:hello"
        assert simulator.calls == 3

    async def test_many_at_once_all_learn_it(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.refuses = ("stream_options", "temperature")
        backend = backends()

        answers = await asyncio.gather(*(answer_of(backend, asking("hello", temperature=0.5)) for _ in range(10)))

        assert {text_of(deltas) for deltas in answers} == {"ANS:hello"}

    async def test_max_tokens_gets_its_new_name(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.refuses = ("max_tokens",)

        await answer_of(backends(), asking("hello", max_output_tokens=50))

        assert simulator.asked[-1].body["max_completion_tokens"] == 50

    async def test_a_server_that_does_not_stream_is_an_answer_in_one_piece(self, backends: Any) -> None:
        body = json.dumps({"choices": [{"message": {"content": "<think>hm</think>hi"}, "finish_reason": "stop"}]}).encode()
        async with one_answer_server(b"application/json", body) as base_url:
            deltas = await answer_of(backends(base_url=base_url))

        assert (text_of(deltas), thought_of(deltas), deltas[-1].stop) == ("hi", "hm", StopReason.END)

    @pytest.mark.parametrize(
        ("content_type", "body", "kind"),
        [
            (b"application/json", b'{"choices": [{"mess', BrokenAnswer),
            (b"application/json", b'{"error": {"message": "boom"}}', BrokenAnswer),
            (b"application/json", b"[]", BrokenAnswer),
            (b"text/event-stream", b"", BrokenAnswer),
            (b"text/event-stream", b": only\n\n: comments\n\n", BrokenAnswer),
            (b"text/event-stream", b'data: {"choices":[{"delta":{"content":7}}]}\n\n', BrokenAnswer),
            (b"text/event-stream", b"data: \xff\xfe\n\n", BrokenAnswer),
            (b"text/event-stream", b'data: {"error":{"code":"content_filter","message":"no"}}\n\n', ContentFiltered),
            (b"text/plain", b"It works!", BrokenAnswer),
        ],
    )
    async def test_what_is_not_an_answer_is_a_broken_one(
        self, backends: Any, content_type: bytes, body: bytes, kind: type[BackendError]
    ) -> None:
        async with one_answer_server(content_type, body) as base_url:
            _, error = await failure_of(backends(base_url=base_url))

        assert type(error) is kind

    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
    async def test_lenient_where_servers_differ(self, backends: Any, line_end: bytes) -> None:
        lines = [
            b": keep-alive",
            b"",
            b"event: message",
            b'data:{"choices":[{"delta":null}],"usage":null}',
            b"",
            b'data: {"choices":null}',
            b"",
            b'data: {"choices":[{"delta":{"role":"assistant","content":null,"tool_calls":null}}],"error":null}',
            b"",
            b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":""}],"usage":{"prompt_tokens":3,"completion_tokens":1}}',
            b"",
            b'data: {"choices":[{"delta":{},"finish_reason":"eos"}]}',
        ]
        async with one_answer_server(b"text/event-stream", line_end.join(lines)) as base_url:
            deltas = await answer_of(backends(base_url=base_url))

        assert text_of(deltas) == "hi"
        assert deltas[-1] == Delta(stop=StopReason.END, usage=Usage(input_tokens=3, output_tokens=1))

    async def test_a_redirect_is_told_and_not_followed_with_the_key(self, backends: Any) -> None:
        async with one_answer_server(b"text/plain", b"", status=b"307 Temporary Redirect") as base_url:
            _, error = await failure_of(backends(base_url=base_url))

        assert isinstance(error, BackendMisconfigured)
        assert "base_url" in str(error)


class TestTheWayThere:
    async def test_https_with_a_certificate_of_ones_own_authority(
        self, backends: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate, context = self_signed(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        async with one_answer_server(b"text/event-stream", ANSWER, tls=context) as base_url:
            assert text_of(await answer_of(backends(base_url=base_url))) == "hi"

    async def test_a_certificate_that_nobody_vouches_for_is_unreachable_with_the_reason(self, backends: Any, tmp_path: Path) -> None:
        _, context = self_signed(tmp_path)

        async with one_answer_server(b"text/event-stream", ANSWER, tls=context) as base_url:
            _, error = await failure_of(backends(base_url=base_url))

        assert isinstance(error, BackendUnreachable)
        assert "certificate" in str(error).lower()

    async def test_a_proxy_of_the_environment_is_used(self, backends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        async with one_answer_server(b"text/event-stream", ANSWER) as proxy:
            monkeypatch.delenv("NO_PROXY")
            monkeypatch.setenv("HTTP_PROXY", proxy.removesuffix("/v1"))

            assert text_of(await answer_of(backends(base_url="http://model.invalid/v1"))) == "hi"

    async def test_but_not_on_the_way_to_this_machine(
        self, simulator: OpenAISimulator, backends: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

        assert text_of(await answer_of(backends())) == "ANS:hello"


class TestCheckup:
    async def test_all_is_well(self, backends: Any) -> None:
        findings = await backends().checkup()

        assert [finding.ok for finding in findings] == [True, True, True]

    async def test_an_unknown_model_is_told_with_the_known_ones(self, backends: Any) -> None:
        findings = await backends(model="gpt-9").checkup()

        assert [finding.ok for finding in findings] == [True, True, False]
        assert "gpt-4o-mini, sim-model" in findings[-1].repair

    async def test_a_missing_key_names_the_variable(self, backends: Any) -> None:
        (finding,) = await backends(api_key="", base_url=None).checkup()

        assert not finding.ok
        assert "OPENAI_API_KEY" in finding.repair

    @pytest.mark.parametrize(
        ("fault", "repair"), [("unauthorized", "api_key"), ("html", "/v1"), ("server_error", "500"), ("unknown_model", "/v1")]
    )
    async def test_a_server_in_trouble_is_told(self, simulator: OpenAISimulator, backends: Any, fault: str, repair: str) -> None:
        simulator.faults.fault = fault

        findings = await backends().checkup()

        assert not findings[-1].ok
        assert repair in findings[-1].repair
        assert KEY not in repr(findings)

    async def test_a_silent_server_is_told_in_ten_seconds(self, simulator: OpenAISimulator, backends: Any) -> None:
        simulator.faults.fault = "silent"
        clock = ManualClock()
        task = asyncio.create_task(backends(clock=clock).checkup())
        while not task.done():
            await asyncio.sleep(0.02)
            await clock.advance(1)

        assert "did not answer" in task.result()[-1].repair


async def test_the_gateway_starts_without_the_sdk() -> None:
    script = "import sys, gateway.backends.openai_chat; print('openai' in sys.modules, 'aiohttp' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()

    assert out.split() == [b"False", b"False"]


async def through_pauses(work: Any, clock: ManualClock) -> Any:
    """Run `work`, turning the clock a little whenever it waits for time (real sockets need real moments)."""
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait([task], timeout=0.02)
        await clock.advance(0.5 if clock._sleepers else 0)
    return await task


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that vouches for itself, and the server side of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context


class one_answer_server:
    """Answers every request with the same bytes and closes (or hangs)."""

    def __init__(
        self, content_type: bytes, body: bytes, *, status: bytes = b"200 OK", hang: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        self._tls = tls
        length = b"" if hang else b"content-length: %d\r\n" % len(body)
        self._bytes = b"HTTP/1.1 %s\r\nlocation: http://127.0.0.1:9/\r\ncontent-type: %s\r\n%s\r\n%s" % (status, content_type, length, body)
        self._hang = hang
        self._leave = asyncio.Event()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aexit__(self, *_: object) -> None:
        self._leave.set()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._bytes)
        await writer.drain()
        if self._hang:
            await self._leave.wait()
        writer.close()
