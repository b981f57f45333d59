"""What can go wrong at an OpenAI-compatible server: the knobs of the simulator and the error bodies behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REFUSALS: Mapping[str, tuple[int, str, str, str]] = {
    "unauthorized": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "forbidden": (403, "invalid_request_error", "unsupported_country_region_territory", "Country, region, or territory not supported"),
    "unknown_model": (404, "invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    "bad_request": (400, "invalid_request_error", "invalid_value", "Invalid 'temperature'."),
    "context_too_long": (400, "invalid_request_error", "context_length_exceeded", "This model's maximum context length is 8192 tokens."),
    "content_policy": (400, "invalid_request_error", "content_filter", "The response was filtered."),
    "rate_limited": (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "server_error": (500, "server_error", "internal_error", "The server had an error."),
    "overloaded": (503, "server_error", "overloaded", "The engine is currently overloaded."),
}
"""Fault → status, type, code and message of the error body."""

IN_THE_ANSWER = frozenset(
    {
        "truncated",
        "cut",
        "error_in_stream",
        "broken_json",
        "html",
        "stall",
        "silent",
        "empty",
        "reasoning_only",
        "length",
        "content_filter",
        "bare",
    }
)
FAULTS = sorted({*REFUSALS, *IN_THE_ANSWER})


@dataclass(slots=True, kw_only=True)
class OpenAIFaults:
    """What goes wrong, and how fast the model is."""

    fault: str = ""
    """One of FAULTS, or empty. `truncated`: clean end without finish_reason and [DONE]. `cut`: the connection breaks. `stall`: silent after
    `after_chunks` pieces. `silent`: never answers. `bare`: bodies without ids."""
    times: int = 0
    """How many requests the fault hits before it heals; 0: every one."""
    after_chunks: int = 2
    """Where a fault in mid-stream strikes."""
    retry_after_s: float | None = None
    """Sent as `retry-after` with a 429 or 503."""
    first_chunk_delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    chunks: int = 20
    """Into how many pieces an answer is cut (at most one per character)."""
    reasoning: str = ""
    """What the model thinks before it answers; sent in the field `reasoning_field`."""
    reasoning_field: str = "reasoning_content"
    think: str = ""
    """The same inside the text, as `<think>…</think>`."""
    refuses: tuple[str, ...] = ()
    """Parameters that this server does not know: a request with one of them gets a 400 that names it."""
    usage: bool = True
    """Whether the server honours stream_options.include_usage."""


def error_body(refusal: str) -> dict[str, Any]:
    _, kind, code, message = REFUSALS[refusal]
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def unknown_parameter(name: str) -> dict[str, Any]:
    message = f"Unsupported parameter: '{name}' is not supported with this model."
    return {"error": {"message": message, "type": "invalid_request_error", "param": name, "code": "unsupported_parameter"}}
