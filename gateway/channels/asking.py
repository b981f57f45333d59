"""What the HTTP API is asked (parsing) and the turns whose words people over HTTP wait for. Knows no HTTP."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import uuid4

from gateway.messages import Inbound

MAX_NAME_CHARS = 128
KEEP_ENDED = 500
"""Turns remembered after their end, for those who ask again for a sentence that is not in the ledger (busy, failed)."""
KEEP_ENDED_CHARS = 2_000_000


class BadRequest(Exception):
    """The request cannot be understood; says which field and what it must be, never what was sent."""

    def __init__(self, field: str | None, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request for an answer."""

    text: str
    sender: str
    conversation: str
    id: str
    group: bool = False
    stream: bool = False


_FIELDS = ("text", "sender", "conversation", "id", "group", "stream")


def read_ask(body: bytes) -> Ask:
    """The JSON body of a request. Raises BadRequest."""
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest(None, "the body must be a JSON object in UTF-8") from None
    if not isinstance(data, dict):
        _refuse(None, "the body must be a JSON object")
    if not data.keys() <= set(_FIELDS):
        _refuse(None, f"there is a field that is not known; known are {', '.join(_FIELDS)}")
    sender = _name(data, "sender", None)
    return Ask(
        text=_text(data),
        sender=sender,
        conversation=_name(data, "conversation", sender),
        id=_name(data, "id", uuid4().hex),
        group=_flag(data, "group"),
        stream=_flag(data, "stream"),
    )


def _text(data: dict[str, Any]) -> str:
    text = data.get("text")
    if not isinstance(text, str) or not text.strip():
        _refuse("text", "must be a string with words")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest("text", "must be valid Unicode, without lone surrogates") from None
    return text


def _name(data: dict[str, Any], field: str, default: str | None) -> str:
    name = data.get(field)
    if name is None and default is not None:
        return default
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
        _refuse(field, f"must be a string of 1 to {MAX_NAME_CHARS} printable characters")
    return name


def _flag(data: dict[str, Any], field: str) -> bool:
    flag = data.get(field, False)
    if not isinstance(flag, bool):
        _refuse(field, "must be true or false")
    return flag


def _refuse(field: str | None, message: str) -> NoReturn:
    raise BadRequest(field, message)


class Turn:
    """The words of one answer as they come; any number of people follow it."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.pieces: tuple[str, ...] = ()
        """As recorded; empty while the answer grows."""
        self.ended = False
        self.broken = False
        """The gateway stops before the answer is there; it will be made at the next start."""
        self.growing = False
        self.followers = 0
        self.wanted = False
        """Somebody follows it in another process."""
        self.message: Inbound | None = None
        """What was asked, when somebody asked here."""
        self._news = asyncio.Event()

    @property
    def text(self) -> str:
        return "".join(self.words)

    def say(self, words: str) -> None:
        if words and not self.ended:
            self.words.append(words)
            self._tell()

    def end(self, *, broken: bool = False) -> None:
        """The first end counts."""
        if not self.ended:
            self.ended, self.broken = True, broken
            self._tell()

    async def more(self, seen: int) -> None:
        """Wait until there are more than `seen` words or the end."""
        while not self.ended and len(self.words) <= seen:
            await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def ended_turn(text: str, pieces: tuple[str, ...]) -> Turn:
    """A turn that was answered before."""
    turn = Turn()
    turn.say(text)
    turn.pieces = pieces
    turn.end()
    return turn


TurnId = tuple[str, str]
"""Account and message id: programs never see each other's answers."""


class TurnBook:
    """The turns that are followed or growing now, and the latest ended ones."""

    def __init__(self) -> None:
        self._open: dict[TurnId, Turn] = {}
        self._ended: OrderedDict[TurnId, Turn] = OrderedDict()
        self._ended_chars = 0

    @property
    def open_turns(self) -> int:
        return len(self._open)

    def turn(self, turn_id: TurnId) -> Turn:
        """The turn as far as it is known, else a new one."""
        return self._open.get(turn_id) or self._ended.get(turn_id) or self._open.setdefault(turn_id, Turn())

    def known(self, turn_id: TurnId) -> Turn | None:
        """The turn if somebody follows it here, it grows here, or it ended here lately."""
        return self._open.get(turn_id) or self._ended.get(turn_id)

    def let_go(self, turn_id: TurnId) -> None:
        """Somebody stopped following or the turn ended: keep what somebody may still ask for."""
        turn = self._open.get(turn_id)
        if turn is None or turn.followers or turn.growing:
            return
        del self._open[turn_id]
        if turn.ended and not turn.broken:
            self._remember(turn_id, turn)

    def break_off(self) -> None:
        """Tell every follower that the answer will not come from this process."""
        for turn in list(self._open.values()):
            turn.end(broken=True)

    def _remember(self, turn_id: TurnId, turn: Turn) -> None:
        self._ended[turn_id] = turn
        self._ended_chars += len(turn.text)
        while len(self._ended) > KEEP_ENDED or self._ended_chars > KEEP_ENDED_CHARS:
            _, oldest = self._ended.popitem(last=False)
            self._ended_chars -= len(oldest.text)
