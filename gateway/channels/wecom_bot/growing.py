"""An answer while it is made: when to show it again, and when its stream must end before the answer does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from gateway.channels.wecom_bot.verdicts import ReplyClosed
from gateway.clock import Clock
from gateway.errors import SendError, SendRefused

Cut: TypeAlias = Callable[[str, int], Sequence[str]]
"""Text and the most bytes of a piece → pieces, none of them blank (`gateway.rendering.cut`)."""
Show: TypeAlias = Callable[[str, bool], Awaitable[bool]]
"""Shows all words so far, for the last time or not. False: not now. Raises a SendError."""

FIRST_S = 0.4
"""A short answer that is complete by then is one frame instead of two."""
QUICK_S, SLOW_S = 1.5, 4.0
QUICK_SHOWS = 8
"""So many snapshots come quickly. 30 messages a minute may be sent to a conversation: this leaves a third for others in a group."""


class Growing:
    """Words that come one by one, and what a person has seen of them."""

    def __init__(self, *, clock: Clock, cut: Cut, max_bytes: int, lasts_s: float) -> None:
        """`lasts_s`: so long the stream may still be changed."""
        self._clock = clock
        self._cut = cut
        self._max_bytes = max_bytes
        self._ends_at = clock.monotonic() + lasts_s
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._seen_chars = 0
        self.text = ""
        self.shown = False
        """Whether a stream with these words was taken."""
        self.closed: str | None = None
        """What the finished stream shows, when it had to end before the answer did."""

    def add(self, words: str) -> None:
        self.text += words
        self._news.set()

    def end(self) -> None:
        """No more words come."""
        self._over.set()
        self._news.set()

    def pieces(self) -> list[str]:
        """What is still to be shown: the whole answer, or what came after its finished stream."""
        pieces = list(self._cut(self.text, self._max_bytes))
        if self.closed is None:
            return pieces
        if pieces[:1] == [self.closed]:
            return pieces[1:]
        return list(self._cut(self.text[_common_chars(self.text, self.closed) :], self._max_bytes))

    async def show_now_and_then(self, show: Show) -> None:
        """Until `end`, or until the stream is over. A person who sees nothing now sees the whole answer at its end."""
        shows = 0
        await self._news.wait()
        await self._until(self._over, FIRST_S)
        try:
            while not self._over.is_set() and self.closed is None:
                if self._must_close():
                    await self._close(show)
                elif len(self.text) > self._seen_chars and self.text.strip():
                    await self._show(show)
                    shows += 1
                    await self._until(self._over, QUICK_S if shows < QUICK_SHOWS else SLOW_S)
                else:
                    self._news.clear()
                    await self._until(self._news, self._ends_at - self._clock.monotonic())
        except (ReplyClosed, SendRefused):
            return

    def _must_close(self) -> bool:
        return self._clock.monotonic() >= self._ends_at or len(self.text.encode("utf-8", "replace")) > self._max_bytes

    async def _show(self, show: Show) -> None:
        chars = len(self.text)
        try:
            if await show(self.text, False):
                self.shown, self._seen_chars = True, chars
        except (ReplyClosed, SendRefused):
            raise
        except SendError:  # the next snapshot says the same and more
            return

    async def _close(self, show: Show) -> None:
        """The stream ends with the whole lines so far, or not at all if it never began."""
        if not self.shown and self._clock.monotonic() >= self._ends_at:
            raise ReplyClosed("no words came in time for a stream")
        closed = (self._cut(self.text[: self.text.rfind("\n") + 1], self._max_bytes) or self._cut(self.text, self._max_bytes))[0]
        try:
            if await show(closed, True):
                self.closed = closed
                return
        except (ReplyClosed, SendRefused):
            raise
        except SendError:
            pass
        await self._until(self._over, SLOW_S)

    async def _until(self, event: asyncio.Event, seconds: float) -> None:
        try:
            async with self._clock.timeout(max(seconds, 0.01)):
                await event.wait()
        except TimeoutError:
            return


def _common_chars(text: str, shown: str) -> int:
    """How much of `text` is in `shown`, which may end with the mark that closes a code block."""
    return next((place for place, (one, other) in enumerate(zip(text, shown, strict=False)) if one != other), min(len(text), len(shown)))
