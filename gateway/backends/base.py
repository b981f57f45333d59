"""The promise of everything that answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator

from gateway.checkup import Finding
from gateway.prompts import Delta, Prompt


class Backend(ABC):
    """Answers prompts.

    Serves many prompts at once. `stream` is a plain function that returns an async *generator*: closing it
    (`aclose()`, or cancelling the task that reads it) must stop the work and free the connection at once.
    """

    name: str
    """As in the configuration."""

    @abstractmethod
    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield the answer in pieces as it is made.

        A complete answer ends with exactly one delta that carries `stop` (and `usage` when known). Everything else ends in a
        `BackendError`: a stream that ends without one is a bug in the backend. A foreign exception never leaves this method.
        """

    async def prepare(self) -> None:
        """Load what is slow to load. Called once in the background at the start, so that the first person does not wait for it."""

    def count_tokens(self, text: str) -> int | None:
        """Exact number of tokens of `text` for this backend's model, or None when it cannot tell offline."""
        return None

    async def checkup(self) -> list[Finding]:
        """What `gateway doctor` should know: credentials, reachability, model. Never prints a secret."""
        return []

    async def aclose(self) -> None:
        """Give back connections."""
