"""The smallest backend: it says the question again, word by word."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

from gateway.backends.base import Backend
from gateway.errors import EmptyAnswer
from gateway.prompts import Delta, Prompt, StopReason, Usage

_WORD = re.compile(r"\s*\S+\s*")


class EchoBackend(Backend):
    """Answers the question itself. Needs nothing, keeps nothing; a token is a character."""

    def __init__(self, *, name: str = "echo") -> None:
        self.name = name

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        words = _WORD.findall(prompt.question)
        if not words:
            raise EmptyAnswer(f"backend {self.name}: there is no question to echo")
        for word in words:
            yield Delta(text=word)
            await asyncio.sleep(0)
        cost = Usage(input_tokens=sum(len(line.text) for line in prompt.lines), output_tokens=len(prompt.question))
        yield Delta(stop=StopReason.END, usage=cost)

    def count_tokens(self, text: str) -> int:
        return len(text)
