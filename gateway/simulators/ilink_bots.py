"""The bots of the iLink simulator: one for each person who scanned, with its messages, permissions and what it may say."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.simulators.ilink_faults import STALE, ILinkFaults

FIRST_ID = 2**53 + 1_000_001
"""Ids that a JavaScript number cannot hold, as the platform's are."""


@dataclass(slots=True, kw_only=True)
class Code:
    """A QR code on somebody's screen."""

    known_tokens: tuple[str, ...]
    expired: bool = False


@dataclass(slots=True, kw_only=True)
class Window:
    """What one message of the person allows."""

    message_id: str
    opened_at: float
    sent: int = 0


@dataclass(slots=True, kw_only=True)
class Bot:
    """One person's bot."""

    person: str
    token: str
    bot_id: str
    user_id: str
    log: list[dict[str, Any]] = field(default_factory=list)
    windows: dict[str, Window] = field(default_factory=dict)
    """By context_token."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    typing: list[int] = field(default_factory=list)
    listening: bool = False


class Bots:
    """All bots, by token. A person has at most one that lives."""

    def __init__(self, faults: ILinkFaults) -> None:
        self._faults = faults
        self._by_token: dict[str, Bot] = {}
        self._numbers = itertools.count(1)

    def bind(self, person: str) -> Bot:
        """A fresh token; older ones of this person end. Messages that were not fetched yet go to the new one."""
        old = self.of(person)
        number = next(self._numbers)
        user_id = f"o9cq8{hashlib.sha256(person.encode()).hexdigest()[:20]}@im.wechat"
        bot = Bot(person=person, token=f"bot:{number}:{time.time_ns():x}", bot_id=f"{number:012x}@im.bot", user_id=user_id)
        if old is not None:
            del self._by_token[old.token]
            bot.log, bot.windows = old.log, old.windows
            old.news.set()
        self._by_token[bot.token] = bot
        if person in self._faults.stale:
            self._faults.stale.remove(person)
        return bot

    def of(self, person: str) -> Bot | None:
        return next((bot for bot in self._by_token.values() if bot.person == person), None)

    def by_token(self, authorization: str) -> Bot | None:
        """The bot that a request speaks for; None when its token is no longer good."""
        bot = self._by_token.get(authorization.removeprefix("Bearer "))
        return None if bot is None or bot.person in self._faults.stale else bot

    def stale(self) -> dict[str, Any]:
        return {self._faults.stale_field: STALE, "errmsg": "session timeout"}

    def hear(self, bot: Bot, items: list[Mapping[str, Any]], *, older_s: float = 0.0) -> str:
        """The person writes; returns the message's id."""
        number = FIRST_ID + next(self._numbers)
        message_id = str(number)
        context_token = base64.b64encode(f"ctx {message_id}".encode()).decode()
        sent_at = time.time() - older_s
        bot.windows[context_token] = Window(message_id=message_id, opened_at=sent_at)
        bot.log.append(
            {
                "seq": len(bot.log) + 1,
                "message_id": message_id if self._faults.text_ids else number,
                "from_user_id": bot.user_id,
                "to_user_id": bot.bot_id,
                "client_id": f"c{message_id}",
                "create_time_ms": int(sent_at * 1000),
                "session_id": f"{bot.user_id}#{bot.bot_id}",
                "group_id": "",
                "message_type": 1,
                "message_state": 2,
                "item_list": [dict(item) for item in items],
                **({} if self._faults.without_token else {"context_token": context_token}),
            }
        )
        bot.news.set()
        return message_id

    def next_id(self) -> int | str:
        number = FIRST_ID + next(self._numbers)
        return str(number) if self._faults.text_ids else number

    def refusal(self, bot: Bot, message: Mapping[str, Any]) -> tuple[int, str]:
        """Why a message may not be shown; (0, "") when it may, and then it is counted."""
        window = bot.windows.get(str(message.get("context_token", "")))
        if len(message.get("item_list") or []) != 1 or message.get("message_type") != 2 or not message.get("client_id"):
            return -1, "param error"
        if window is None or message.get("to_user_id") != bot.user_id or time.time() - window.opened_at > self._faults.window_s:
            return -2, "prepare failed"
        if window.sent >= self._faults.per_inbound:
            return -2, ""
        window.sent += 1
        return 0, ""


def cursor_of(position: int) -> str:
    return base64.b64encode(f"at {position}".encode()).decode()


def position_of(cursor: str) -> int:
    """Raises ValueError for a cursor that is not ours."""
    return int(base64.b64decode(cursor, validate=True).decode().removeprefix("at ")) if cursor else 0
