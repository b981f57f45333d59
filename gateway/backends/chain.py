"""Several backends as one: the first that can answer does."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from gateway.backends.base import Backend
from gateway.checkup import Finding
from gateway.clock import Clock
from gateway.errors import BackendError, BackendMisconfigured, ContentFiltered, ContextTooLong, EmptyAnswer, RateLimited
from gateway.prompts import Delta, Prompt

logger = logging.getLogger(__name__)

LONG_REST_FACTOR = 10
"""A backend that only a person can repair (wrong key, no quota) rests this many times longer."""
MAX_REST_S = 3600.0
ABOUT_THE_QUESTION = (ContentFiltered, ContextTooLong, EmptyAnswer)
"""Errors that another question would not meet; the backend is not to blame."""


@dataclass(slots=True)
class _Link:
    """One backend and until when it rests (by the monotonic clock; 0: awake)."""

    backend: Backend
    rests_until: float = 0.0


class ChainBackend(Backend):
    """Tries `backends` in order, and goes on to the next only while no word of the answer was yielded.

    A backend that failed rests for `cool_down_s`, or as long as it asks (at most an hour); one that needs repair rests ten times longer.
    Resting ones are passed over, except that the one due first is tried as a last resort. When nobody answers, the error that tells
    the person most is raised: one about the question itself, else the last. Closing the chain closes its backends.
    """

    def __init__(self, name: str, backends: Sequence[Backend], *, clock: Clock, cool_down_s: float = 30.0) -> None:
        if not backends:
            raise ValueError("a chain needs at least one backend")
        self.name = name
        self._links = [_Link(backend) for backend in backends]
        self._clock = clock
        self._cool_down_s = cool_down_s

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        failures: list[BackendError] = []
        for link in self._order():
            spoke = False
            try:
                async with aclosing(link.backend.stream(prompt)) as deltas:
                    async for delta in deltas:
                        spoke = spoke or bool(delta.text)
                        yield _signed(delta, link.backend.name)
                link.rests_until = 0.0
                return
            except BackendError as error:
                self._note(link, error)
                if spoke:
                    raise
                failures.append(error)
        raise next((error for error in failures if isinstance(error, ABOUT_THE_QUESTION)), failures[-1])

    def count_tokens(self, text: str) -> int | None:
        """As the first backend that is awake counts."""
        return self._order()[0].backend.count_tokens(text)

    async def prepare(self) -> None:
        for link in self._links:
            await link.backend.prepare()

    async def checkup(self) -> list[Finding]:
        return [finding for link in self._links for finding in await link.backend.checkup()]

    async def aclose(self) -> None:
        for link in reversed(self._links):
            await link.backend.aclose()

    def _order(self) -> list[_Link]:
        now = self._clock.monotonic()
        awake = [link for link in self._links if link.rests_until <= now]
        resting = [link for link in self._links if link.rests_until > now]
        return [*awake, *sorted(resting, key=lambda link: link.rests_until)[:1]]

    def _note(self, link: _Link, error: BackendError) -> None:
        rest_s = self._rest_s(error)
        link.rests_until = max(link.rests_until, self._clock.monotonic() + rest_s) if rest_s else link.rests_until
        logger.warning("Backend %s failed (%s: %s); it rests for %.0f s.", link.backend.name, type(error).__name__, error, rest_s)

    def _rest_s(self, error: BackendError) -> float:
        if isinstance(error, ABOUT_THE_QUESTION):
            return 0.0
        if isinstance(error, BackendMisconfigured) or (isinstance(error, RateLimited) and not error.retryable):
            return min(MAX_REST_S, self._cool_down_s * LONG_REST_FACTOR)
        if isinstance(error, RateLimited) and error.retry_after_s is not None:
            return min(MAX_REST_S, error.retry_after_s)
        return self._cool_down_s


def _signed(delta: Delta, name: str) -> Delta:
    """The same piece, telling who wrote it; the innermost name counts when chains are nested."""
    return Delta(text=delta.text, reasoning=delta.reasoning, stop=delta.stop, usage=delta.usage, backend=delta.backend or name)
