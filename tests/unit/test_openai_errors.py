from __future__ import annotations

import httpx2
import pytest

from gateway.backends.openai_answer import MAX_LINE_BYTES, AnswerReader
from gateway.backends.openai_errors import Complaint, ParameterRefused, error_in_answer, error_of
from gateway.backends.openai_wire import _retry_after_s
from gateway.errors import (
    BackendError,
    BackendMisconfigured,
    BackendOverloaded,
    BrokenAnswer,
    ContentFiltered,
    ContextTooLong,
    RateLimited,
)

WHO = "backend gpt (model m at host)"


@pytest.mark.parametrize(
    ("status", "words", "kind", "retryable"),
    [
        (400, {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}, ContentFiltered, False),
        (400, {"message": "Content Exists Risk"}, ContentFiltered, False),
        (400, {"code": "content_filter"}, ContentFiltered, False),
        (400, {"kind": "exceed_context_size_error", "message": "the request exceeds the available context size"}, ContextTooLong, False),
        (400, {"message": "This model's maximum context length is 8192 tokens."}, ContextTooLong, False),
        (413, {}, ContextTooLong, False),
        (400, {"code": "Arrearage", "message": "Access denied"}, RateLimited, False),
        (402, {"message": "Insufficient Balance"}, RateLimited, False),
        (429, {"kind": "exceeded_current_quota_error"}, RateLimited, False),
        (429, {"message": "Rate limit reached"}, RateLimited, True),
        (400, {"message": "Unrecognized request argument supplied: stream_options"}, ParameterRefused, False),
        (422, {"message": "max_tokens: extra inputs are not permitted"}, ParameterRefused, False),
        (400, {"message": "temperature must be between 0 and 2", "param": "temperature"}, BackendMisconfigured, False),
        (405, {}, BackendMisconfigured, False),
        (418, {}, BackendMisconfigured, False),
        (408, {}, BackendOverloaded, True),
        (502, {}, BackendOverloaded, True),
    ],
)
def test_what_servers_of_many_makers_say_is_understood(
    status: int, words: dict[str, str], kind: type[BackendError], retryable: bool
) -> None:
    error = error_of(Complaint(status=status, **words), WHO)

    assert type(error) is kind or isinstance(error, kind)
    assert error.retryable is retryable
    assert str(error).startswith(f"{WHO} answered {status}")


def test_a_key_that_the_server_repeats_is_not_repeated_by_us() -> None:
    said = str(
        error_of(Complaint(status=401, message="Incorrect API key provided: sk-proj-abc***********xyz. Find it in your account."), WHO)
    )

    assert "abc" not in said
    assert "xyz" not in said
    assert "api_key" in said


def test_a_long_message_is_not_quoted_because_it_may_hold_what_people_wrote() -> None:
    error = error_of(Complaint(status=422, code="invalid", message="body.messages[0]: " + "private words " * 50), WHO)

    assert "private" not in str(error)
    assert "invalid" in str(error)


def test_an_error_inside_an_answer_is_a_broken_answer_unless_it_is_about_the_question() -> None:
    assert type(error_in_answer(Complaint(status=200, message="boom"), WHO)) is BrokenAnswer
    assert type(error_in_answer(Complaint(status=200, code="context_length_exceeded"), WHO)) is ContextTooLong


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Mon, 05 Jan 2026 09:01:00 GMT", "date": "Mon, 05 Jan 2026 09:00:00 GMT"}, 60.0),
        ({"retry-after": "Mon, 05 Jan 2026 08:00:00 GMT", "date": "Mon, 05 Jan 2026 09:00:00 GMT"}, 0.0),
        ({"retry-after": "Mon, 05 Jan 2026 09:01:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
def test_the_pause_a_server_asks_for_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert _retry_after_s(httpx2.Headers(headers)) == seconds


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
def test_an_answer_without_end_does_not_fill_the_memory(content_type: str) -> None:
    reader = AnswerReader(who=WHO, content_type=content_type)
    list(reader.feed(b"x" * MAX_LINE_BYTES))

    with pytest.raises(BrokenAnswer, match="more than"):
        list(reader.feed(b"x"))
