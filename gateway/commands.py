"""What a person can tell the gateway itself: parse, look up, do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gateway.clock import Clock
from gateway.messages import Inbound, Lang
from gateway.sessions.scope import Scope, session_key
from gateway.sessions.session import Lifetime
from gateway.sessions.window import estimate_prompt
from gateway.stores.base import Ledger, SessionStore, TurnRecord
from gateway.wording import say

_WORD = re.compile(r"[^\s/#]{1,24}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: its names (English first) and whether it may overtake the messages that wait in its conversation."""

    names: tuple[str, ...]
    urgent: bool = False

    @property
    def name(self) -> str:
        return self.names[0]


COMMANDS: tuple[Command, ...] = (
    Command(names=("help", "帮助"), urgent=True),
    Command(names=("new", "新会话")),
    Command(names=("clear", "清空")),
    Command(names=("context", "状态", "上下文")),
    Command(names=("stop", "停止"), urgent=True),
    Command(names=("why", "为什么"), urgent=True),
)

_Do: TypeAlias = Callable[[Inbound, Lang], Awaitable[str]]


class Commands:
    """Recognizes commands and carries them out."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        sessions: SessionStore,
        stop: Callable[[str], Awaitable[bool]],
        scope: Scope,
        lifetime: Lifetime,
        clock: Clock,
        history_tokens: int,
        prefixes: Sequence[str] = ("/", "#"),
        clear_words: Sequence[str] = (),
    ) -> None:
        self._ledger = ledger
        self._sessions = sessions
        self._stop = stop
        self._scope = scope
        self._lifetime = lifetime
        self._clock = clock
        self._history_tokens = history_tokens
        self._prefixes = tuple(prefixes)
        self._clear_words = frozenset(word.strip().casefold() for word in clear_words if word.strip())
        self._by_name = {name: command for command in COMMANDS for name in command.names}
        self._do: Mapping[str, _Do] = {
            "help": self._help,
            "new": self._clear,
            "clear": self._clear,
            "context": self._context,
            "stop": self._stop_running,
            "why": self._why,
        }

    def find(self, text: str) -> Command | None:
        """The command that the whole message is, or None."""
        if text.casefold() in self._clear_words:
            return self._by_name["clear"]
        return self._by_name.get(self._word(text).casefold())

    def unknown(self, text: str) -> str:
        """The name of a command that does not exist, when the message can only have been meant as one (`/hepl`); otherwise empty."""
        word = self._word(text)
        return f"/{word}" if text.startswith("/") and word.isalpha() and word.isascii() and self.find(text) is None else ""

    async def run(self, command: Command, inbound: Inbound, lang: Lang) -> str:
        """Do it; returns what the person is told."""
        return await self._do[command.name](inbound, lang)

    def explain_unknown(self, name: str, lang: Lang) -> str:
        """What a person who mistyped a command is told."""
        near = difflib.get_close_matches(name[1:].casefold(), self._by_name, n=1)
        hint = say("did_you_mean", lang, command=f"/{near[0]}") if near else ""
        return say("unknown_command", lang, command=name, near=hint)

    def _word(self, text: str) -> str:
        for prefix in self._prefixes:
            word = text.removeprefix(prefix)
            if word != text and _WORD.fullmatch(word):
                return word
        return ""

    async def _help(self, inbound: Inbound, lang: Lang) -> str:
        rows = [f"{self._shown(command, lang)}  {say(f'help_{command.name}', lang)}" for command in COMMANDS]
        return "\n".join([say("help_head", lang), *rows])

    def _shown(self, command: Command, lang: Lang) -> str:
        first, last = self._prefixes[0], self._prefixes[-1]
        return f"{first}{command.name} {last}{command.names[1]}" if lang == "zh" else f"{first}{command.name}"

    async def _clear(self, inbound: Inbound, lang: Lang) -> str:
        await self._sessions.drop(session_key(inbound.address, self._scope))
        return say("cleared", lang)

    async def _stop_running(self, inbound: Inbound, lang: Lang) -> str:
        stopped = await self._stop(session_key(inbound.address, self._scope))
        return say("stopped" if stopped else "nothing_to_stop", lang)

    async def _context(self, inbound: Inbound, lang: Lang) -> str:
        now = self._clock.now()
        session = await self._sessions.load(session_key(inbound.address, self._scope))
        if session is None or not session.lines or self._lifetime.is_over(session, now):
            return say("context_empty", lang)
        end = self._lifetime.ends_at(session)
        ends = say("context_ends", lang, minutes=max(1, round((end - now).total_seconds() / 60))) if end else ""
        exchanges = sum(line.role == "user" for line in session.lines)
        return say("context", lang, exchanges=exchanges, tokens=estimate_prompt(session.lines), limit=self._history_tokens, ends=ends)

    async def _why(self, inbound: Inbound, lang: Lang) -> str:
        address = inbound.address
        record = await self._ledger.latest_of(address.channel, address.account, address.sender, before=inbound.key)
        return _story(record, lang) if record else say("why_none", lang)


def _story(record: TurnRecord, lang: Lang) -> str:
    if record.outcome is None:
        return say("why_running", lang, state=record.state.value, message=record.key.message)
    outcome = say(f"outcome_{record.outcome.kind.value}", lang)
    reason = record.outcome.reason or record.answered_by or "-"
    return say("why_closed", lang, outcome=outcome, reason=reason, message=record.key.message)
