"""The bytes of a Chat Completions answer → deltas. Pure: no connection, no clock.

Lenient where servers differ (missing ids, null fields, usage in any chunk), strict about the end:
an answer without `finish_reason` is truncated.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, JsonValue, ValidationError

from gateway.backends.openai_errors import Complaint, error_in_answer
from gateway.backends.reasoning import ThoughtSplitter
from gateway.errors import BrokenAnswer, ContentFiltered, EmptyAnswer, TruncatedAnswer
from gateway.prompts import Delta, StopReason, Usage

MAX_LINE_BYTES = 4_000_000
"""One event, or one whole answer, may be this large."""
_STOPS = {"length": StopReason.LENGTH, "content_filter": StopReason.FILTERED}


class _Words(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    delta: _Words | None = None
    message: _Words | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(BaseModel):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: JsonValue = None


class EventLines:
    """Cuts a stream of bytes into the data of its server-sent events; comments and other fields are dropped."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Raises OverflowError when one line is larger than MAX_LINE_BYTES."""
        *lines, self._tail = (self._tail + piece).split(b"\n")
        if len(self._tail) > MAX_LINE_BYTES:
            raise OverflowError
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]


class AnswerReader:
    """Reads one answer: feed it bytes as they come, then ask it to `finish`. `who` names backend, model and host in errors."""

    def __init__(self, *, who: str, content_type: str) -> None:
        self._who = who
        self._whole = "json" in content_type
        self._html = "html" in content_type
        self._lines = EventLines()
        self._body = b""
        self._thoughts = ThoughtSplitter()
        self._events = 0
        self._finish_reason = ""
        self._usage: Usage | None = None
        self._said = False
        self._thought = False
        self.done = False
        """The server said that nothing more comes."""

    @property
    def complete(self) -> bool:
        """The answer has its end, whatever happens to the connection now."""
        return bool(self._finish_reason)

    def feed(self, piece: bytes) -> Iterator[Delta]:
        """The deltas in `piece`. Raises BrokenAnswer, ContentFiltered or ContextTooLong."""
        if self._html:
            raise BrokenAnswer(f"{self._who} sent a web page in place of an answer. Check base_url (it usually ends in /v1) and proxies.")
        if self._whole:
            return self._keep(piece)
        return self._read(piece)

    def finish(self) -> Iterator[Delta]:
        """What is left and the last delta. Raises BrokenAnswer, TruncatedAnswer, EmptyAnswer or ContentFiltered."""
        yield from self._read_whole() if self._whole else self._read(b"\n")
        if not self._finish_reason:
            raise self._unfinished()
        text, thought = self._thoughts.finish()
        self._said = self._said or bool(text.strip())
        if not self._said:
            raise self._wordless()
        yield Delta(text=text, reasoning=thought, stop=_STOPS.get(self._finish_reason, StopReason.END), usage=self._usage)

    def _keep(self, piece: bytes) -> Iterator[Delta]:
        self._body += piece
        if len(self._body) > MAX_LINE_BYTES:
            raise BrokenAnswer(f"{self._who} sent an answer of more than {MAX_LINE_BYTES} bytes.")
        return iter(())

    def _read_whole(self) -> Iterator[Delta]:
        body, self._body = self._body, b""
        yield from self._chunk(body)

    def _read(self, piece: bytes) -> Iterator[Delta]:
        try:
            events = self._lines.feed(piece)
        except OverflowError:
            raise BrokenAnswer(f"{self._who} sent one event of more than {MAX_LINE_BYTES} bytes.") from None
        for data in events:
            if data == b"[DONE]":
                self.done = True
                return
            yield from self._chunk(data)

    def _chunk(self, data: bytes) -> Iterator[Delta]:
        try:
            chunk = _Chunk.model_validate_json(data)
        except ValidationError:
            # Without `from`: pydantic's error quotes its input, which is what the model wrote.
            raise BrokenAnswer(f"{self._who} sent a chunk that is not an answer (broken or foreign JSON, {len(data)} bytes).") from None
        self._events += 1
        if chunk.error:
            raise error_in_answer(_complaint(chunk.error), self._who)
        if chunk.usage:
            self._usage = _cost(chunk.usage) or self._usage
        if chunk.choices:
            yield from self._choice(chunk.choices[0])

    def _choice(self, choice: _Choice) -> Iterator[Delta]:
        self._finish_reason = choice.finish_reason or self._finish_reason
        words = choice.delta or choice.message
        if words is None:
            return
        text, thought = self._thoughts.feed(words.content or words.refusal or "")
        thought = (words.reasoning_content or words.reasoning or "") + thought
        if text or thought:
            self._said = self._said or bool(text.strip())
            self._thought = self._thought or bool(thought)
            yield Delta(text=text, reasoning=thought)

    def _unfinished(self) -> BrokenAnswer | TruncatedAnswer:
        if self._events:
            return TruncatedAnswer(f"{self._who} ended the stream before the answer was complete (no finish_reason).")
        return BrokenAnswer(f"{self._who} sent no event at all. Check that base_url is a Chat Completions server (it usually ends in /v1).")

    def _wordless(self) -> ContentFiltered | EmptyAnswer:
        if self._finish_reason == "content_filter":
            return ContentFiltered(f"{self._who} filtered the whole answer.")
        thought = " It only thought: raise max_output_tokens or lower its effort." if self._thought else ""
        return EmptyAnswer(f"{self._who} sent an answer without words (finish_reason {self._finish_reason}).{thought}")


def _cost(usage: _Usage) -> Usage | None:
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)


def _complaint(error: JsonValue) -> Complaint:
    if not isinstance(error, dict):
        return Complaint(status=200, message=str(error))
    return Complaint(
        status=200, code=str(error.get("code") or ""), kind=str(error.get("type") or ""), message=str(error.get("message") or "")
    )
