"""A backend that says what a test told it to, when the test allows it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from gateway.backends.base import Backend
from gateway.clock import Clock
from gateway.errors import BackendError
from gateway.prompts import Delta, Prompt, StopReason, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scripted:
    """One answer to come."""

    pieces: tuple[str, ...] = ()
    reasoning: str = ""
    stop: StopReason = StopReason.END
    usage: Usage | None = None
    error: BackendError | None = None
    after_s: float = 0.0
    to: str = ""


class ScriptedBackend(Backend):
    """Answers from a queue, and `ANS:<question>` in two pieces when the queue is empty.

        backend.will_say("Hello, ", "Ann", to="who am I")     # only for a question with these words
        backend.will_fail(RateLimited(retry_after_s=3))
        backend.hold()                                        # from now on every answer waits before its first piece …
        await backend.wait_until_asked(2)
        backend.release()                                     # … until now

    `prompts` records what was asked, `running` how many answers are being made, `abandoned` how many were closed before their end.
    """

    def __init__(self, *, name: str = "scripted", clock: Clock | None = None, answer: Callable[[Prompt], str] | None = None) -> None:
        self.name = name
        self.prompts: list[Prompt] = []
        self.running = 0
        self.abandoned = 0
        self.closed = False
        self._clock = clock
        self._answer = answer or (lambda prompt: f"ANS:{prompt.question}")
        self._queue: deque[_Scripted] = deque()
        self._free = asyncio.Event()
        self._free.set()
        self._changed = asyncio.Condition()

    def will_say(
        self,
        *pieces: str,
        reasoning: str = "",
        stop: StopReason = StopReason.END,
        usage: Usage | None = None,
        after_s: float = 0.0,
        to: str = "",
    ) -> None:
        """The next prompt (whose question contains `to`) is answered so, `after_s` seconds of the injected clock later."""
        self._queue.append(_Scripted(pieces=pieces, reasoning=reasoning, stop=stop, usage=usage, after_s=after_s, to=to))

    def will_fail(
        self, error: BackendError, *, after: tuple[str, ...] = (), reasoning: str = "", after_s: float = 0.0, to: str = ""
    ) -> None:
        """The next prompt (whose question contains `to`) ends in `error`, after the pieces `after`."""
        self._queue.append(_Scripted(pieces=after, reasoning=reasoning, error=error, after_s=after_s, to=to))

    def hold(self) -> None:
        """Every answer that begins from now on waits for `release`."""
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    async def wait_until_asked(self, count: int, timeout_s: float = 5.0) -> None:
        """Wait until `count` prompts came in all. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: len(self.prompts) >= count)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        scripted = self._next(prompt)
        async with self._changed:
            self.prompts.append(prompt)
            self._changed.notify_all()
        self.running += 1
        complete = False
        try:
            await self._free.wait()
            if scripted.after_s and self._clock is not None:
                await self._clock.sleep(scripted.after_s)
            if scripted.reasoning:
                yield Delta(reasoning=scripted.reasoning)
            for piece in scripted.pieces:
                yield Delta(text=piece)
                await asyncio.sleep(0)
            complete = True
            if scripted.error is not None:
                raise scripted.error
            yield Delta(stop=scripted.stop, usage=scripted.usage)
        finally:
            self.running -= 1
            self.abandoned += not complete

    async def aclose(self) -> None:
        self.closed = True

    def _next(self, prompt: Prompt) -> _Scripted:
        found = next((scripted for scripted in self._queue if scripted.to in prompt.question), None)
        if found is not None:
            self._queue.remove(found)
            return found
        text = self._answer(prompt)
        half = (len(text) + 1) // 2
        cost = Usage(input_tokens=sum(len(line.text) for line in prompt.lines), output_tokens=len(text))
        return _Scripted(pieces=tuple(filter(None, (text[:half], text[half:]))), usage=cost)
