"""What simulated WeCom accepts of a bot's words, and what people see of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from gateway.simulators.base import Shown

CONTENT_BYTES = 20_480
CHAT_TYPES = (0, 1, 2)
REMEMBERED = 10_000

_Value = TypeVar("_Value")


class Rules(Protocol):
    """The knobs that matter here."""

    stream_ttl_s: float
    finished_errcode: int
    per_minute: int
    count_streams: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One stream frame that was taken."""

    stream: str
    chat: str
    content: str
    finish: bool
    at: float


@dataclass(slots=True, kw_only=True)
class _Stream:
    began_at: float
    finished: bool = False


class Judge:
    """Conversations, messages that may be answered, streams and how often was written. Times are seconds of `now`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._messages: dict[str, tuple[str, str, float]] = {}
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._chats: set[str] = set()
        self._written: dict[str, deque[float]] = {}
        self.snapshots: deque[Snapshot] = deque(maxlen=REMEMBERED)
        self.violations: list[str] = []

    def knows(self, chat: str) -> None:
        """Somebody wrote there."""
        self._chats.add(chat)

    def told(self, req_id: str, msg_id: str, chat: str) -> None:
        remember(self._messages, req_id, (msg_id, chat, self._now()))

    def message(self, req_id: str, ttl_s: float) -> tuple[str, str] | None:
        """The message and the conversation that a req_id stands for, while it may be answered."""
        msg_id, chat, at = self._messages.get(req_id, ("", "", float("-inf")))
        return (msg_id, chat) if self._now() - at <= ttl_s else None

    def stream(self, req_id: str, chat: str, body: dict[str, Any], rules: Rules) -> tuple[int, Snapshot | None]:
        """The errcode, and what was newly seen."""
        said = body.get("stream")
        if body.get("msgtype") != "stream" or not isinstance(said, dict) or not said.get("id"):
            return self._broken("a respond that is no stream", 40058), None
        content, finish = said.get("content", ""), said.get("finish")
        if not isinstance(finish, bool) or len(content.encode()) > CONTENT_BYTES:
            return self._broken("a stream that is too long, or without finish", 40058), None
        stream = self._streams.get((req_id, said["id"])) or _Stream(began_at=self._now())
        if stream.finished:
            return rules.finished_errcode, None
        if self._now() - stream.began_at > rules.stream_ttl_s:
            return 846608, None
        if rules.count_streams and not self._may_write(chat, rules):
            return 45009, None
        remember(self._streams, (req_id, said["id"]), stream)
        stream.finished = finish
        seen = Snapshot(stream=said["id"], chat=chat, content=content, finish=finish, at=self._now())
        self.snapshots.append(seen)
        return 0, seen

    def markdown(self, body: dict[str, Any], rules: Rules) -> int:
        """The errcode of a message of its own."""
        if body.get("msgtype") != "markdown":
            return self._broken(f"a message of kind {body.get('msgtype')}", 40008)
        if body.get("chat_type", 0) not in CHAT_TYPES or len(body["markdown"]["content"].encode()) > CONTENT_BYTES:
            return self._broken("a markdown that is too long, or of an unknown chat_type", 40058)
        if body.get("chatid") not in self._chats:
            return 846607
        return 0 if self._may_write(body["chatid"], rules) else 45009

    def shown(self, chat: str, text: str, *, answers: str = "") -> Shown:
        return Shown(chat=chat, text=text, answers=answers)

    def _may_write(self, chat: str, rules: Rules) -> bool:
        written = self._written.setdefault(chat, deque())
        while written and written[0] <= self._now() - 60:
            written.popleft()
        if len(written) >= rules.per_minute:
            return False
        written.append(self._now())
        return True

    def _broken(self, rule: str, errcode: int) -> int:
        self.violations.append(rule)
        return errcode


def remember(book: dict[Any, _Value], key: object, value: _Value) -> None:
    """Write down; the oldest is forgotten."""
    book[key] = value
    while len(book) > REMEMBERED:
        del book[next(iter(book))]
