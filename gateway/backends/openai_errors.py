"""What an OpenAI-compatible server complains about → our errors. Pure: knows words and numbers, no library.

Codes: the public error references of OpenAI, Azure OpenAI, DeepSeek, Moonshot, DashScope and llama.cpp's server, as of 2026-11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.errors import (
    BackendError,
    BackendMisconfigured,
    BackendOverloaded,
    BrokenAnswer,
    ContentFiltered,
    ContextTooLong,
    RateLimited,
)

MAX_QUOTED_CHARS = 200
"""A longer message of a server is not quoted: servers that validate echo what was sent, and that is what people wrote."""

_CONTEXT = re.compile(r"context[_ ]?(length|size|window)|maximum context|exceed_context|prompt is too long|too many tokens", re.I)
_FILTER = re.compile(r"content[_ -]?(filter|policy)|contentFilter|data_inspection|content exists risk|content management", re.I)
_QUOTA = re.compile(r"insufficient[_ ](quota|balance)|exceeded[_ ]?(your[_ ])?current[_ ]quota|billing|arrearage", re.I)
_NOT_KNOWN = re.compile(r"unsupported|not supported|does not support|unknown|unrecognized|unexpected|not permitted|not allowed", re.I)
_KEY_LIKE = re.compile(r"\b(sk|key|Bearer)[-_ ][\w*.\-]{4,}|\b[\w\-]*\*{3,}[\w\-]*", re.I)
OPTIONAL_PARAMETERS = ("stream_options", "max_tokens", "max_completion_tokens", "temperature")
"""What the backend can leave out (or name otherwise) when a server refuses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """A refusal in the server's words."""

    status: int
    code: str = ""
    kind: str = ""
    param: str = ""
    message: str = ""
    retry_after_s: float | None = None

    @property
    def words(self) -> str:
        return f"{self.code} {self.kind} {self.message}"


class QuotaExhausted(RateLimited):
    """The account has no quota or balance left; waiting does not help."""

    retryable = False


class ParameterRefused(BackendMisconfigured):
    """The server does not know an optional parameter."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


def error_of(complaint: Complaint, who: str) -> BackendError:
    """The one error of our tree for this complaint; `who` names backend, model and host."""
    said = f"{who} answered {complaint.status}{_quoted(complaint)}"
    if complaint.status in (400, 413, 422):
        return _bad_request(complaint, said)
    if complaint.status in (402, 429):
        return _too_much(complaint, said)
    if complaint.status in (408, 409, 425) or complaint.status >= 500:
        return BackendOverloaded(f"{said}. The server cannot answer now; it is tried again.")
    return BackendMisconfigured(f"{said}. {_REPAIRS.get(complaint.status, _REPAIR)}")


def error_in_answer(complaint: Complaint, who: str) -> BackendError:
    """An error object where an answer should be, with a good status."""
    said = f"{who} sent an error in place of an answer{_quoted(complaint)}"
    if _FILTER.search(complaint.words):
        return ContentFiltered(f"{said}: the provider's filter refuses the content.")
    if _CONTEXT.search(complaint.words):
        return ContextTooLong(f"{said}: lower sessions.history_tokens.")
    return BrokenAnswer(f"{said}.")


def _bad_request(complaint: Complaint, said: str) -> BackendError:
    if _FILTER.search(complaint.words):
        return ContentFiltered(f"{said}: the provider's filter refuses the content.")
    if complaint.status == 413 or _CONTEXT.search(complaint.words):
        return ContextTooLong(f"{said}: question and history do not fit the model. Lower sessions.history_tokens.")
    if _QUOTA.search(complaint.words):
        return QuotaExhausted(f"{said}: no quota left. Top up the account.")
    param = _refused_parameter(complaint)
    if param:
        return ParameterRefused(f"{said}: it does not know {param}.", param=param)
    return BackendMisconfigured(f"{said}. Check model, temperature and options of this backend.")


def _too_much(complaint: Complaint, said: str) -> BackendError:
    if complaint.status == 402 or _QUOTA.search(complaint.words):
        return QuotaExhausted(
            f"{said}: no quota or balance left. Top up the account or use another key.", retry_after_s=complaint.retry_after_s
        )
    wait = "" if complaint.retry_after_s is None else f" It asks to wait {complaint.retry_after_s:g} s."
    return RateLimited(f"{said}: too many requests.{wait}", retry_after_s=complaint.retry_after_s)


_REPAIR = "Check base_url of this backend."
_REPAIRS = {
    401: "The key is not accepted: check api_key (and that it belongs to this base_url).",
    403: "The key may not do this: check the account's rights, region and model access.",
    404: "Check model, and that base_url is right (it usually ends in /v1).",
    405: "Check that base_url is right (it usually ends in /v1).",
}


def _refused_parameter(complaint: Complaint) -> str:
    if complaint.param in OPTIONAL_PARAMETERS:
        named = complaint.param
    else:
        places = [(at, name) for name in OPTIONAL_PARAMETERS if (at := complaint.message.find(name)) >= 0]
        named = min(places, default=(0, ""))[1]
    if named == "stream_options" or (named and _NOT_KNOWN.search(complaint.words)):
        return named
    return ""


def _quoted(complaint: Complaint) -> str:
    """Code and message, without anything that looks like a key, in brackets."""
    message = complaint.message if len(complaint.message) <= MAX_QUOTED_CHARS else ""
    facts = [fact for fact in (complaint.code or complaint.kind, message) if fact]
    return f" ({_KEY_LIKE.sub('[key]', ': '.join(facts))})" if facts else ""
