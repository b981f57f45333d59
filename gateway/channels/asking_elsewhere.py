"""What the gateway processes behind one HTTP API tell each other: whose answer is wanted where, and that it is there."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from gateway.channels.asking import TurnId
from gateway.errors import StoreError
from gateway.stores.base import Bulletin

logger = logging.getLogger(__name__)

MAX_TEXT_CHARS = 4_000
"""A longer answer does not travel as news: whoever waits for it reads it in the ledger."""


class Stand(StrEnum):
    """What is said of a turn."""

    WANTED = "wanted"
    """Somebody waits for its answer in a process that did not take the message in."""
    ENDED = "ended"
    """Its words are complete: here, or in the ledger when they are too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """One sentence about one turn."""

    turn: TurnId
    stand: Stand
    text: str = ""


class Elsewhere:
    """The other processes of one API. News that do not come through cost the waiting request its time, never the answer."""

    def __init__(self, *, channel: str, bulletin: Bulletin) -> None:
        self._channel = channel
        self._topic = f"api/{channel}"
        self._bulletin = bulletin

    def listen(self, heard: Callable[[News], None]) -> None:
        """Hear all news from now on, one's own included."""

        def read(text: str) -> None:
            news = _read(text)
            if news is not None:
                heard(news)

        self._bulletin.listen(self._topic, read)

    async def tell(self, turn: TurnId, stand: Stand, text: str = "") -> None:
        account, message = turn
        words = text if len(text) <= MAX_TEXT_CHARS else ""
        try:
            await self._bulletin.publish(
                self._topic, json.dumps({"account": account, "message": message, "stand": stand, "text": words}, ensure_ascii=False)
            )
        except StoreError as error:
            logger.warning("Channel %s could not tell the other processes that %s is %s: %s", self._channel, message, stand, error)


def _read(text: str) -> News | None:
    try:
        data = json.loads(text)
        return News(turn=(data["account"], data["message"]), stand=Stand(data["stand"]), text=data["text"])
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("Another process said something about a message that this version cannot read (%s).", type(error).__name__)
        return None
