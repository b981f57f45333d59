"""A remote model behind any OpenAI-compatible server, over Chat Completions with streaming."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from pydantic import JsonValue

from gateway.backends.base import Backend
from gateway.backends.openai_answer import AnswerReader
from gateway.backends.openai_errors import ParameterRefused
from gateway.checkup import Finding
from gateway.clock import Clock
from gateway.errors import BackendError, BackendMisconfigured, BackendTimeout, BackendUnreachable, RateLimited
from gateway.prompts import Delta, Prompt

if TYPE_CHECKING:
    from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

    from gateway.backends.openai_wire import OpenAIWire, Reply

logger = logging.getLogger(__name__)

OFFICIAL_BASE_URL = "https://api.openai.com/v1"
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 8.0
DRAIN_S = 0.25
"""How long the end of the connection is awaited after the end of the answer, so that the connection can be used again."""
CHECKUP_TIMEOUT_S = 10.0


class OpenAIBackend(Backend):
    """Asks `model` at `base_url`.

    Any number of prompts at once, up to 500 connections; the rest wait within their deadline. `timeout_s` bounds a whole answer,
    retries included; `stall_s` bounds the silence between two chunks. A failure is tried again `retries` times, only while no
    word was yielded, with growing pauses or the one the server asks for if it fits the deadline. `options` joins every request
    body as it is. Parameters that a server refuses (stream_options, max_tokens, temperature) are left out from then on.
    """

    def __init__(
        self,
        *,
        name: str,
        model: str,
        api_key: str,
        clock: Clock,
        base_url: str | None = None,
        timeout_s: float = 120.0,
        stall_s: float = 60.0,
        retries: int = 2,
        options: Mapping[str, JsonValue] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._model = model
        self._api_key = api_key
        self._base_url = base_url or OFFICIAL_BASE_URL
        self._clock = clock
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._retries = retries
        self._options = dict(options or {})
        self._jitter = jitter
        self._who = f"backend {name} (model {model} at {urlsplit(self._base_url).hostname or self._base_url})"
        self._refused = {"max_tokens"} if base_url is None else set()
        """Parameters this server does not take; the official one has replaced max_tokens by max_completion_tokens."""
        self._wire: OpenAIWire | None = None
        self._opening = asyncio.Lock()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        deadline = self._clock.monotonic() + self._timeout_s
        for attempt in itertools.count(1):
            spoke = False
            try:
                async with aclosing(self._try_once(prompt, deadline)) as deltas:
                    async for delta in deltas:
                        spoke = spoke or bool(delta.text)
                        yield delta
                return
            except BackendError as error:
                pause_s = self._pause_before_retry(error, attempt, deadline)
                if spoke or pause_s is None:
                    raise
                logger.warning("%s Trying again in %.1f s (%d of %d).", error, pause_s, attempt, self._retries)
            await self._clock.sleep(pause_s)

    async def prepare(self) -> None:
        if self._has_key:
            await self._opened()

    async def checkup(self) -> list[Finding]:
        key = Finding(f"backend {self.name}: api_key", self._has_key, "" if self._has_key else self._no_key())
        if not key.ok:
            return [key]
        try:
            async with self._clock.timeout(CHECKUP_TIMEOUT_S):
                models = await (await self._opened()).models()
        except TimeoutError:
            return [key, Finding(f"backend {self.name}: reachable", False, f"{self._who} did not answer within {CHECKUP_TIMEOUT_S:g} s.")]
        except BackendError as error:
            return [key, Finding(f"backend {self.name}: reachable", False, str(error))]
        return [key, Finding(f"backend {self.name}: reachable", True), self._model_finding(models)]

    async def aclose(self) -> None:
        if self._wire is not None:
            await self._wire.aclose()

    async def _try_once(self, prompt: Prompt, deadline: float) -> AsyncGenerator[Delta, None]:
        reply = await self._ask(prompt, deadline)
        try:
            reader = AnswerReader(who=self._who, content_type=reply.content_type)
            stall_s = self._timeout_s
            while piece := await self._read(reply, reader, stall_s, deadline):
                stall_s = self._stall_s
                for delta in reader.feed(piece):
                    yield delta
                if reader.done:
                    await self._drain(reply)
                    break
            for delta in reader.finish():
                yield delta
        finally:
            await reply.aclose()

    async def _ask(self, prompt: Prompt, deadline: float) -> Reply:
        wire = await self._opened()
        while True:
            body = self._body(prompt)
            try:
                async with self._clock.timeout(deadline - self._clock.monotonic()):
                    return await wire.ask(body)
            except TimeoutError:
                raise self._too_late() from None
            except ParameterRefused as refused:
                if refused.param not in body:
                    raise
                logger.warning("%s It is left out from now on.", refused)
                self._refused.add(refused.param)

    async def _read(self, reply: Reply, reader: AnswerReader, stall_s: float, deadline: float) -> bytes:
        """The next bytes; empty at the end, and when nothing more comes after a complete answer."""
        left_s = deadline - self._clock.monotonic()
        try:
            async with self._clock.timeout(min(stall_s, left_s)):
                return await reply.read()
        except TimeoutError:
            if reader.complete:
                return b""
            if left_s <= stall_s:
                raise self._too_late() from None
            raise BackendTimeout(
                f"{self._who} fell silent for {stall_s:g} s in the middle of its answer. Is the server overloaded?"
            ) from None
        except BackendUnreachable:
            if reader.complete:
                return b""
            raise

    async def _drain(self, reply: Reply) -> None:
        try:
            async with self._clock.timeout(DRAIN_S):
                while await reply.read():
                    pass
        except (TimeoutError, BackendUnreachable):
            logger.debug("%s leaves its connection open after the answer; it is closed.", self._who)

    def _body(self, prompt: Prompt) -> CompletionCreateParamsStreaming:
        wanted: dict[str, object] = {
            **self._options,
            "model": self._model,
            "messages": [{"role": line.role, "content": line.text} for line in prompt.lines],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": prompt.temperature,
            "max_completion_tokens" if "max_tokens" in self._refused else "max_tokens": prompt.max_output_tokens,
        }
        kept = {key: value for key, value in wanted.items() if value is not None and key not in self._refused}
        return cast("CompletionCreateParamsStreaming", kept)

    def _pause_before_retry(self, error: BackendError, attempt: int, deadline: float) -> float | None:
        """Seconds to wait, or None when another try is useless or does not fit the deadline."""
        if not error.retryable or attempt > self._retries:
            return None
        backoff_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (attempt - 1)) * (1 - 0.25 * self._jitter())
        asked_s = error.retry_after_s if isinstance(error, RateLimited) else None
        pause_s = backoff_s if asked_s is None else asked_s
        return pause_s if self._clock.monotonic() + pause_s < deadline else None

    async def _opened(self) -> OpenAIWire:
        """The connection to the server; the SDK is imported in a thread, or its half second would stop everybody."""
        if self._wire is not None:
            return self._wire
        if not self._has_key:
            raise BackendMisconfigured(self._no_key())
        async with self._opening:
            if self._wire is None:
                self._wire = await asyncio.to_thread(self._make_wire)
            return self._wire

    def _make_wire(self) -> OpenAIWire:
        from gateway.backends.openai_wire import OpenAIWire

        return OpenAIWire(api_key=self._api_key, base_url=self._base_url, who=self._who)

    @property
    def _has_key(self) -> bool:
        """Servers of one's own often need none."""
        return bool(self._api_key) or self._base_url != OFFICIAL_BASE_URL

    def _no_key(self) -> str:
        return f"{self._who} has no api_key. Set the variable that api_key names in the configuration, e.g. OPENAI_API_KEY."

    def _too_late(self) -> BackendTimeout:
        return BackendTimeout(f"{self._who} did not finish within timeout_s ({self._timeout_s:g} s).")

    def _model_finding(self, models: list[str]) -> Finding:
        known = self._model in models
        repair = f"{self._who} does not offer this model; it offers {', '.join(sorted(models)[:10]) or 'none'}. Set model to one of them."
        return Finding(f"backend {self.name}: model {self._model}", known, "" if known else repair)
