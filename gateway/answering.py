"""From a message to words: session → parked piece, command or model → text. Errors of a backend become a sentence here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from gateway.backends.base import Backend
from gateway.clock import Clock
from gateway.commands import Command, Commands
from gateway.errors import BackendError, ContentFiltered, EmptyAnswer, GatewayError, TruncatedAnswer
from gateway.intake import Intake
from gateway.messages import Inbound, Lang
from gateway.parked import Parked
from gateway.prompts import Delta, Line, Prompt, StopReason
from gateway.sessions.scope import Scope, session_key
from gateway.sessions.session import Lifetime, Session, new_session
from gateway.sessions.window import Calibration, estimate_prompt, fit
from gateway.stores.base import Ledger, SessionStore, TurnRecord, TurnState
from gateway.wording import language_of, say

NOT_REMEMBERED = frozenset({"command", "gateway", "parked", ""})
"""Whose answers are no part of a conversation."""
MAX_LANGUAGES = 5000
"""Of so many conversations the language is remembered, the latest ones."""


@dataclass(slots=True, kw_only=True)
class Reply:
    """One answer in the making. `texts` is read once, to its end; then the other fields are true."""

    texts: AsyncGenerator[str, None]
    lang: Lang
    answered_by: str
    """`command`, `gateway`, `parked`, or the name of the backend (known once its first words came)."""
    rendered: bool = False
    """The text is ready for its channel: a parked piece."""
    more: bool = False
    """Further parked pieces follow this one."""
    failure: GatewayError | None = None
    """Why the words are a sentence of the gateway instead of an answer (or break off)."""
    recorded: Callable[[], Awaitable[None]] | None = None
    """To be called when the ledger has the text: lets go of the parked piece."""
    session: Session | None = None
    """The session that the question continues; None when the exchange is not remembered."""
    question: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to answer."""

    system_prompt: str = ""
    temperature: float | None = None
    max_output_tokens: int | None = None
    history_tokens: int = 6000
    show_reasoning: bool = False
    language: Literal["auto", "zh", "en"] = "auto"
    fetch_words: frozenset[str] = field(default_factory=frozenset)
    """What a person sends to get a parked answer, case-folded."""


class Answering:
    """Finds the words for one message. Knows no platform; called inside the lane of the conversation."""

    def __init__(
        self,
        *,
        backend: Backend,
        sessions: SessionStore,
        ledger: Ledger,
        commands: Commands,
        parked: Parked,
        intake: Intake,
        clock: Clock,
        scope: Scope,
        lifetime: Lifetime,
        manner: Manner,
        saved: Callable[[datetime | None], None] = lambda end: None,
    ) -> None:
        self._backend = backend
        self._sessions = sessions
        self._ledger = ledger
        self._commands = commands
        self._parked = parked
        self._intake = intake
        self._clock = clock
        self._scope = scope
        self._lifetime = lifetime
        self._manner = manner
        self._saved = saved
        self._calibrations: dict[str, Calibration] = {}
        self._languages: dict[str, Lang] = {}

    def lane(self, inbound: Inbound) -> str:
        """The lane that the message lines up in: its session's, or beside it for a command that must not wait."""
        key = session_key(inbound.address, self._scope)
        command = self._commands.find(inbound.text)
        return f"{key}?urgent" if command is not None and command.urgent else key

    async def open(self, inbound: Inbound, *, parks: bool) -> Reply:
        """The answer to `inbound`; `parks` says whether its channel keeps late answers for a fetch word."""
        text = inbound.text
        lang = self.language(inbound)
        if (refusal := self._intake.refusal(inbound)) is not None:
            return self._sentence(say(refusal.for_user, lang), lang, failure=refusal)
        if parks and text.casefold() in self._manner.fetch_words and (piece := await self._parked.next(inbound.address)):
            return self._fetched(piece, inbound, lang)
        if (command := self._commands.find(text)) is not None:
            return self._command(command, inbound, lang)
        if unknown := self._commands.unknown(text):
            return self._sentence(self._commands.explain_unknown(unknown, lang), lang)
        if not text:
            return self._sentence(say("unsupported" if inbound.unsupported else "empty_message", lang), lang)
        return await self._model(inbound, lang)

    async def remember(self, reply: Reply, text: str) -> None:
        """Keep the exchange in the session; a failed answer is not remembered."""
        if reply.session is None or reply.failure is not None:
            return
        await self._keep(reply.session.said(reply.question, text, self._clock.now()))

    async def remember_recorded(self, record: TurnRecord) -> None:
        """Keep an exchange whose answer an earlier run (or another process) made and perhaps had no time to remember."""
        if record.answer is None or record.answered_by in NOT_REMEMBERED:
            return
        session, question = await self._session(record.inbound), self._question(record.inbound)
        exchange = (Line("user", question), Line("assistant", record.answer.text))
        if session.lines[-2:] == exchange:
            return
        await self._keep(session.said(question, record.answer.text, self._clock.now()))

    async def let_go(self, record: TurnRecord) -> bool:
        """Drop the fetched piece that a turn shows, if its process died before it could. Returns whether more pieces are parked."""
        pieces = record.answer.pieces if record.answer is not None and record.state is TurnState.ANSWERED else ()
        return await self._parked.drop(record.inbound.address, pieces)

    async def _keep(self, session: Session) -> None:
        end = self._lifetime.ends_at(session)
        await self._sessions.save(session, end)
        self._saved(end)

    def language(self, inbound: Inbound) -> Lang:
        """The language in which the gateway speaks to this person; `/help` tells none, so it is that of the words before."""
        if self._manner.language != "auto":
            return self._manner.language
        key = session_key(inbound.address, self._scope)
        known = self._languages.pop(key, "zh")
        lang = known if self._commands.find(inbound.text) else language_of(inbound.text, known)
        self._languages[key] = lang
        if len(self._languages) > MAX_LANGUAGES:
            del self._languages[next(iter(self._languages))]
        return lang

    def _sentence(self, text: str, lang: Lang, *, failure: GatewayError | None = None) -> Reply:
        return Reply(texts=_once(text), lang=lang, answered_by="gateway", failure=failure)

    def _fetched(self, piece: tuple[str, bool], inbound: Inbound, lang: Lang) -> Reply:
        text, more = piece

        async def let_go() -> None:
            await self._parked.drop_next(inbound.address)

        return Reply(texts=_once(text), lang=lang, answered_by="parked", rendered=True, more=more, recorded=let_go)

    def _command(self, command: Command, inbound: Inbound, lang: Lang) -> Reply:
        async def texts() -> AsyncGenerator[str, None]:
            yield await self._commands.run(command, inbound, lang)

        return Reply(texts=texts(), lang=lang, answered_by="command")

    async def _model(self, inbound: Inbound, lang: Lang) -> Reply:
        # Loaded here, inside the lane: before it, the exchange that is just being answered would be missing.
        session = await self._session(inbound)
        question = self._question(inbound)
        history = fit(session.lines, self._history_budget(question))
        await self._ledger.answering(inbound.key)
        reply = Reply(texts=_once(""), lang=lang, answered_by="", session=replace(session, lines=history), question=question)
        reply.texts = self._speak(reply, self._prompt(history, question))
        return reply

    async def _session(self, inbound: Inbound) -> Session:
        now = self._clock.now()
        key = session_key(inbound.address, self._scope)
        session = await self._sessions.load(key)
        if session is None or self._lifetime.is_over(session, now):
            return new_session(key, inbound.address, inbound.ticket, now)
        return session.touched(inbound.address, inbound.ticket, now)

    def _question(self, inbound: Inbound) -> str:
        """The person's words as the model sees them: with what they quote, and in a shared session with their name."""
        words = inbound.text
        if inbound.quote is not None and inbound.quote.text:
            quoted = "\n".join(f"> {line}" for line in inbound.quote.text.splitlines())
            words = f"{quoted}\n\n{words}"
        shared = inbound.address.in_group and self._scope.group != "member"
        return f"{inbound.sender_name}: {words}" if shared and inbound.sender_name else words

    def _history_budget(self, question: str) -> float:
        spoken = (Line("system", self._manner.system_prompt), Line("user", question))
        return self._calibration().budget(self._manner.history_tokens) - estimate_prompt(spoken)

    def _calibration(self) -> Calibration:
        """Of the backend that answered last; one that has not reported usage yet counts as estimated."""
        return next(reversed(self._calibrations.values()), Calibration())

    def _prompt(self, history: Sequence[Line], question: str) -> Prompt:
        system = (Line("system", self._manner.system_prompt),) if self._manner.system_prompt else ()
        return Prompt(
            lines=(*system, *history, Line("user", question)),
            temperature=self._manner.temperature,
            max_output_tokens=self._manner.max_output_tokens,
        )

    async def _speak(self, reply: Reply, prompt: Prompt) -> AsyncGenerator[str, None]:
        said = False
        try:
            async with aclosing(self._backend.stream(prompt)) as deltas:
                async for delta in deltas:
                    reply.answered_by = reply.answered_by or delta.backend or self._backend.name
                    if words := self._words(delta):
                        said = said or not words.isspace()
                        yield words
                    if delta.stop is not None:
                        self._learn(reply.answered_by, prompt, delta)
                        _check_stop(delta.stop, said)
                        if delta.stop is StopReason.LENGTH:
                            yield "\n\n" + say("cut_short", reply.lang)
                        return
            raise TruncatedAnswer("the backend stopped without saying why")
        except BackendError as error:
            reply.failure = error
            reply.answered_by = reply.answered_by or self._backend.name
            sentence = say(error.for_user, reply.lang)
            yield f"\n\n{say('broke_off', reply.lang, reason=sentence)}" if said else sentence

    def _words(self, delta: Delta) -> str:
        return delta.reasoning + delta.text if self._manner.show_reasoning else delta.text

    def _learn(self, backend: str, prompt: Prompt, delta: Delta) -> None:
        if delta.usage is None:
            return
        known = self._calibrations.pop(backend, Calibration())
        self._calibrations[backend] = known.learned(estimate_prompt(prompt.lines), delta.usage.input_tokens)

    @property
    def calibrations(self) -> Mapping[str, Calibration]:
        """What was learned about each backend's way of counting tokens."""
        return self._calibrations


def _check_stop(stop: StopReason, said: bool) -> None:
    if stop is StopReason.FILTERED:
        raise ContentFiltered
    if not said:
        raise EmptyAnswer


async def _once(text: str) -> AsyncGenerator[str, None]:
    yield text
