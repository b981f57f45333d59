"""Tells a person who waits behind others that he was heard: "you are number n"."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.clock import Clock
from gateway.delivery import Delivery
from gateway.messages import Inbound, Lang, TurnKey
from gateway.wording import say

logger = logging.getLogger(__name__)

MAX_EXPECTED = 5000


class QueueNotices:
    """One notice per waiting message, `after_s` seconds after it came, unless its turn came before.

    Silent where the platform shows one text per message (there the platform's own placeholder says it), and for commands.
    """

    def __init__(self, *, delivery: Delivery, clock: Clock, after_s: float | None, language: Callable[[Inbound], Lang]) -> None:
        """`after_s`: None never tells."""
        self._delivery = delivery
        self._clock = clock
        self._after_s = after_s
        self._language = language
        self._expected: dict[TurnKey, asyncio.Task[None]] = {}

    def expect(self, inbound: Inbound, ahead: int) -> None:
        """A message lined up behind `ahead` others."""
        if self._after_s is None or ahead == 0 or len(self._expected) >= MAX_EXPECTED or self._delivery.expects_words(inbound):
            return
        self._expected[inbound.key] = asyncio.create_task(self._tell(inbound, ahead, self._after_s), name="queue notice")

    def reached(self, inbound: Inbound) -> None:
        """It is the turn of a message: nothing needs to be told any more."""
        task = self._expected.pop(inbound.key, None)
        if task is not None:
            task.cancel()

    def forget(self) -> None:
        """The gateway stops."""
        for task in self._expected.values():
            task.cancel()
        self._expected.clear()

    async def _tell(self, inbound: Inbound, ahead: int, after_s: float) -> None:
        await self._clock.sleep(after_s)
        self._expected.pop(inbound.key, None)
        lang = self._language(inbound)
        await self._delivery.tell(inbound, say("queued", lang, number=ahead + 1), lang, about="queue")
