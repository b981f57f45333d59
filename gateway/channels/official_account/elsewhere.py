"""What the gateway processes behind one official account tell each other about a turn: WeChat may ask each of them for its answer.

A word is put on the shelf before it is published. So a process that opens a turn in its book first and reads the shelf then has
missed nothing, and one that was not listening finds there what was said.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.stores.base import Bulletin, Shelf

logger = logging.getLogger(__name__)

KEEP_FOR = timedelta(seconds=600)
"""As long as a turn stays in the book of a process."""


PATIENCE_S = 1.0
"""How long a store that hangs may hold up a request that WeChat cuts after five seconds."""


class Stand(StrEnum):
    """What is known of a turn."""

    ASKED = "asked"
    """The platform asked again. Only said, never kept."""
    OFFERED = "offered"
    """There is a reply; whoever holds a request of the turn gives it."""
    ANSWERED = "answered"
    """The reply was written to an open connection."""
    PLACEHELD = "placeheld"
    """The platform was told that the answer comes later."""
    OVER = "over"
    """The platform stopped asking; the answer is parked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One piece of news about one turn; `reply` where there is one, `attempts` where the platform asked again."""

    turn: str
    stand: Stand
    reply: str | None = None
    attempts: int = 0


class Elsewhere:
    """The other processes of one account. A store that fails is logged and costs at most this answer its way, never the request."""

    def __init__(self, *, channel: str, shelf: Shelf, bulletin: Bulletin, clock: Clock) -> None:
        self._channel = channel
        self._topic = f"official/{channel}"
        self._shelf = shelf
        self._bulletin = bulletin
        self._clock = clock

    def listen(self, heard: Callable[[Word], None]) -> None:
        """Hear every word from now on, one's own included."""

        def read(text: str) -> None:
            word = _read(text)
            if word is not None:
                heard(word)

        self._bulletin.listen(self._topic, read)

    async def tell(self, word: Word) -> None:
        """Keep the word and say it."""
        text = json.dumps(asdict(word), ensure_ascii=False)
        try:
            async with self._clock.timeout(PATIENCE_S):
                if word.stand is not Stand.ASKED:
                    await self._shelf.put(self._name(word.turn), text, self._clock.now() + KEEP_FOR)
                await self._bulletin.publish(self._topic, text)
        except (StoreError, TimeoutError) as error:
            logger.warning(
                "Channel %s could not tell the other processes that %s is %s: %s",
                self._channel,
                word.turn,
                word.stand,
                str(error) or "it hangs",
            )

    async def ask(self, turn_id: str) -> Word | None:
        """The last word about a turn, if there is one and the store can be read."""
        try:
            async with self._clock.timeout(PATIENCE_S):
                text = await self._shelf.get(self._name(turn_id), self._clock.now())
        except (StoreError, TimeoutError) as error:
            logger.warning("Channel %s cannot see what other processes did with %s: %s", self._channel, turn_id, str(error) or "it hangs")
            return None
        return _read(text) if text is not None else None

    def _name(self, turn_id: str) -> str:
        return f"official/{self._channel}/{turn_id}"


def _read(text: str) -> Word | None:
    try:
        data = json.loads(text)
        return Word(turn=data["turn"], stand=Stand(data["stand"]), reply=data["reply"], attempts=data["attempts"])
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("Another process said something about a turn that this version cannot read (%s).", type(error).__name__)
        return None
