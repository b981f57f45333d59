"""Read me first: what happens to one message.

hear → admit → line up → answer → show → close the book.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeAlias

from gateway.answering import Answering
from gateway.channels.base import Admission, Admitted
from gateway.clock import Clock
from gateway.delivery import Delivery, outcome_of
from gateway.errors import Busy, GatewayError, LeaseLost, StoreError, StoreUnavailable
from gateway.intake import Intake
from gateway.lanes import Lanes
from gateway.lineup import Lineup
from gateway.merging import merged
from gateway.messages import Answer, Inbound, Outcome, OutcomeKind
from gateway.queue_notices import QueueNotices
from gateway.stores.base import Ledger, TurnRecord, TurnState
from gateway.wording import say

logger = logging.getLogger(__name__)

_EXPECTED = frozenset({OutcomeKind.ANSWERED, OutcomeKind.IGNORED, OutcomeKind.DUPLICATE, OutcomeKind.REFUSED})
"""Outcomes that need nobody's attention."""

Notice: TypeAlias = Callable[[str, str, Outcome | None, float], None]
"""Told about every event: (channel, "ignored" | "accepted" | "duplicate" | "closed", outcome when closed, seconds since accepted)."""


class Dispatch:
    """Takes each message from the channel that heard it to its outcome in the ledger."""

    def __init__(
        self,
        *,
        clock: Clock,
        intake: Intake,
        ledger: Ledger,
        lanes: Lanes,
        lineup: Lineup,
        answering: Answering,
        delivery: Delivery,
        patience: QueueNotices,
        notice: Notice = lambda *_: None,
        accepted: Callable[[Inbound], None] = lambda inbound: None,
        max_replay_age: timedelta = timedelta(seconds=600),
    ) -> None:
        self._clock = clock
        self._intake = intake
        self._ledger = ledger
        self._lanes = lanes
        self._lineup = lineup
        self._answering = answering
        self._delivery = delivery
        self._patience = patience
        self._notice = notice
        self._accepted = accepted
        self._max_replay_age = max_replay_age

    async def hear(self, inbound: Inbound) -> Admitted:
        """A channel heard a message. Returns as soon as it is on disk: then the channel may acknowledge it."""
        if self._intake.ignores(inbound):
            return self._admit(inbound, Admission.IGNORED)
        lane = self._answering.lane(inbound)
        ahead = self._lanes.ahead(lane)
        known = await self._lineup.accept(inbound, lane, self)
        if known is not None:
            return self._admit(inbound, Admission.DUPLICATE, known)
        self._patience.expect(inbound, ahead)
        self._accepted(inbound)
        return self._admit(inbound, Admission.ACCEPTED)

    async def resume(self) -> int:
        """Take up the turns that an earlier run left unfinished, oldest first. Returns how many there were."""
        return await self._lineup.resume(self, self._answering.lane)

    async def handle(self, inbounds: Sequence[Inbound]) -> None:
        """It is the turn of a message, or of several that were merged into one question."""
        inbound = merged(inbounds)
        self._patience.reached(inbound)
        outcome = await self._to_its_end(inbound, lambda: self._answer_and_show(inbound))
        for earlier in inbounds[:-1]:
            self._patience.reached(earlier)
            if outcome is not None:
                await self._written(earlier, Outcome(outcome.kind, f"together with {inbound.id}", outcome.detail))

    async def finish(self, record: TurnRecord) -> None:
        """It is the turn of a message that an earlier run, or another process, may have begun to answer."""
        self._patience.reached(record.inbound)
        await self._to_its_end(record.inbound, lambda: self._finish(record))

    async def refuse(self, inbound: Inbound, busy: Busy) -> None:
        """There was no room for an accepted message."""

        async def refused() -> Outcome:
            lang = self._answering.language(inbound)
            await self._delivery.tell(inbound, say(busy.for_user, lang), lang)
            return Outcome(OutcomeKind.REFUSED, type(busy).__name__, str(busy))

        self._patience.reached(inbound)
        await self._to_its_end(inbound, refused)

    def _admit(self, inbound: Inbound, admission: Admission, known: TurnRecord | None = None) -> Admitted:
        self._notice(inbound.address.channel, admission.value, None, 0.0)
        return Admitted(admission, known.answer, known.outcome, known.accepted_at) if known else Admitted(admission)

    async def _answer_and_show(self, inbound: Inbound) -> Outcome:
        reply = await self._answering.open(inbound, parks=self._delivery.parks(inbound))
        text, shown = await self._delivery.show(inbound, reply)
        await self._remembered(inbound, self._answering.remember(reply, text))
        return outcome_of(reply.failure, shown)

    async def _remembered(self, inbound: Inbound, work: Awaitable[None]) -> None:
        try:
            await work
        except StoreUnavailable as error:  # the person has the answer; a gap in the memory is no reason to complain to him
            logger.error("Message %s is answered but not remembered in its conversation: %s", inbound.id, error)

    async def _close_the_book(self, inbound: Inbound, outcome: Outcome) -> None:
        now = self._clock.now()
        await self._ledger.closed(inbound.key, outcome, now)
        self._notice(inbound.address.channel, "closed", outcome, (now - inbound.sent_at).total_seconds())
        level = logging.INFO if outcome.kind in _EXPECTED else logging.WARNING
        facts = {"action": "closed", "channel": inbound.address.channel, "turn": inbound.id}
        logger.log(level, "Message %s: %s %s %s", inbound.id, outcome.kind.value, outcome.reason, outcome.detail, extra=facts)

    async def _to_its_end(self, inbound: Inbound, work: Callable[[], Awaitable[Outcome]]) -> Outcome | None:
        """Whatever happens inside, the turn ends in one recorded outcome; only the end of the process, a dead store or another process
        that took over leave it to somebody else (None)."""
        try:
            outcome = await work()
        except asyncio.CancelledError:
            if not self._lanes.was_stopped(self._answering.lane(inbound)):
                raise
            outcome = await self._stopped(inbound)
        except LeaseLost:
            logger.warning("Message %s is left to the process that took its conversation over.", inbound.id)
            return None
        except StoreError as error:
            logger.error("The store failed in the middle of message %s; the next start takes it up: %s", inbound.id, error)
            await self._failed(inbound, error.for_user, error)
            return None
        except GatewayError as error:
            outcome = await self._failed(inbound, error.for_user, error)
        except Exception as error:  # one broken message must not end its conversation
            logger.exception("Message %s broke something.", inbound.id)
            outcome = await self._failed(inbound, "failed", error)
        return await self._written(inbound, outcome)

    async def _written(self, inbound: Inbound, outcome: Outcome) -> Outcome | None:
        try:
            with self._lanes.unstoppable(self._answering.lane(inbound)):
                await self._close_the_book(inbound, outcome)
        except StoreError as error:
            logger.error("Could not write how message %s ended (%s): %s", inbound.id, outcome.kind.value, error)
            return None
        return outcome

    async def _failed(self, inbound: Inbound, sentence: str, error: Exception) -> Outcome:
        lang = self._answering.language(inbound)
        await self._delivery.tell(inbound, say(sentence, lang), lang)
        return Outcome(OutcomeKind.FAILED, type(error).__name__, str(error))

    async def _stopped(self, inbound: Inbound) -> Outcome:
        if self._delivery.expects_words(inbound):
            lang = self._answering.language(inbound)
            await self._delivery.tell(inbound, say("was_stopped", lang), lang)
        return Outcome(OutcomeKind.REFUSED, "stopped by the person")

    async def _finish(self, record: TurnRecord) -> Outcome:
        inbound = record.inbound
        if not self._delivery.knows(inbound):
            return Outcome(OutcomeKind.EXPIRED, "its channel is no longer configured")
        if self._clock.now() - record.accepted_at > self._max_replay_age:
            return Outcome(OutcomeKind.EXPIRED, "too old when the gateway came back")
        if record.answer is None:
            return await self._answer_and_show(inbound)
        outcome = await self._show_again(record, record.answer)
        await self._remembered(inbound, self._answering.remember_recorded(record))
        return outcome

    async def _show_again(self, record: TurnRecord, answer: Answer) -> Outcome:
        inbound = record.inbound
        if record.state is TurnState.SHOWING and not self._delivery.may_repeat(inbound):
            return Outcome(OutcomeKind.UNKNOWN, "the gateway stopped while it was being sent", f"piece {record.shown + 1}")
        fetched = record.answered_by == "parked"
        return await self._delivery.show_recorded(
            inbound,
            answer,
            lang=self._answering.language(inbound),
            shown=record.shown,
            more=fetched and await self._answering.let_go(record),  # before it is shown, as the run that died would have done
            refetched=fetched,
            in_doubt=record.state is TurnState.SHOWING,
        )
