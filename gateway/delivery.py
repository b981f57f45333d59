"""From words to what a person sees: rendered, cut, shown piece by piece, each step in the ledger."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Literal

from gateway.answering import Reply
from gateway.channels.base import Channel, Markup, Receipt
from gateway.clock import Clock
from gateway.errors import GatewayError, Refused, SendError, SendLater, SendRefused, SendUncertain, TicketExpired
from gateway.messages import Answer, Inbound, Lang, Mention, Outbound, Outcome, OutcomeKind
from gateway.parked import Parked
from gateway.rendering import cut, render
from gateway.sessions.session import Session
from gateway.stores.base import Ledger
from gateway.wording import language_of, say

logger = logging.getLogger(__name__)

SEND_TRIES = 5
SEND_PATIENCE_S = 60.0
"""A platform that asks to wait longer than this is given up for this answer."""

OnUnknown = Literal["leave", "resend"]


class Delivery:
    """Shows answers. The answer is in the ledger before its first piece is shown, and so is every step after that."""

    def __init__(
        self, *, channels: Mapping[str, Channel], ledger: Ledger, parked: Parked, clock: Clock, on_unknown: OnUnknown = "leave"
    ) -> None:
        self._channels = channels
        self._ledger = ledger
        self._parked = parked
        self._clock = clock
        self._on_unknown = on_unknown

    def parks(self, inbound: Inbound) -> bool:
        """Whether this message's channel keeps answers until the person asks for them."""
        return self._channels[inbound.address.channel].limits.parks

    def knows(self, inbound: Inbound) -> bool:
        """Whether the message's channel is (still) configured."""
        return inbound.address.channel in self._channels

    def may_repeat(self, inbound: Inbound) -> bool:
        """Whether a piece that was on its way at a crash may be sent again: the platform shows it once, or the operator said so."""
        return self._channels[inbound.address.channel].limits.idempotent or self._on_unknown == "resend"

    def expects_words(self, inbound: Inbound) -> bool:
        """Whether somebody holds a request open until this very message gets words (an official account, the HTTP API)."""
        return self._channels[inbound.address.channel].limits.idempotent

    async def show(self, inbound: Inbound, reply: Reply) -> tuple[str, Outcome]:
        """Pull the whole reply, record it, show it. Returns the words and how showing them ended."""
        channel = self._channels[inbound.address.channel]
        if channel.limits.grows:
            return await self._show_growing(channel, inbound, reply)
        async with aclosing(reply.texts) as texts:
            text = "".join([words async for words in texts])
        answer = Answer(text, (text,) if reply.rendered else _pieces(text, channel))
        await self._record(inbound, reply, answer)
        return text, await self.show_recorded(inbound, answer, lang=reply.lang, more=reply.more, refetched=reply.rendered)

    async def show_recorded(
        self,
        inbound: Inbound,
        answer: Answer,
        *,
        lang: Lang,
        shown: int = 0,
        more: bool = False,
        refetched: bool = False,
        in_doubt: bool = False,
    ) -> Outcome:
        """Show an answer that is in the ledger, from piece number `shown` on. `in_doubt`: that piece may have been shown already."""
        channel = self._channels[inbound.address.channel]
        limit = channel.limits.pieces_per_turn or len(answer.pieces)
        now_pieces, later = answer.pieces[:limit], answer.pieces[limit:]
        # An answer that was parked after a crash could not announce itself; the next reply does.
        more = more or (channel.limits.parks and not refetched and await self._parked.next(inbound.address) is not None)
        for number in range(shown, len(now_pieces)):
            outbound = _outbound(inbound, number, answer.pieces[number], lang, more or bool(later))
            try:
                await self._show_piece(channel, inbound, outbound, number)
            except TicketExpired as error:
                if in_doubt and number == shown and self._on_unknown == "leave":
                    return await self._in_doubt(inbound, answer, number)
                return await self._too_late(channel, inbound, answer.pieces[number:], error, first=refetched)
            except SendUncertain as error:
                return Outcome(OutcomeKind.UNKNOWN, "sending was cut", str(error))
            except SendError as error:
                return Outcome(OutcomeKind.FAILED, "the platform refused", str(error))
        if later:
            await self._parked.add(inbound.address, later, turn=inbound.id)
        return Outcome(OutcomeKind.ANSWERED, "the rest is parked" if later else "")

    async def farewell(self, session: Session) -> None:
        """Say goodbye to whoever spoke last in a session that ended; silent where the platform allows no words without a message."""
        channel = self._channels.get(session.address.channel)
        if channel is None:
            return
        lang = language_of("".join(line.text for line in session.lines if line.role == "user"))
        key = f"farewell/{session.key}/{session.seen_at.isoformat()}"
        outbound = Outbound(key=key, address=session.address, text=say("farewell", lang), ticket=session.ticket, lang=lang)
        try:
            await channel.send(outbound)
        except SendError as error:
            logger.info("No farewell for session %s: %s", session.key, error)

    async def tell(self, inbound: Inbound, text: str, lang: Lang, *, about: str = "") -> None:
        """Try once to show a sentence of the gateway, outside the ledger; a platform that refuses is only logged.

        Without `about` it stands in for the answer; with it, it is a word in between, and the answer comes as well.
        """
        channel = self._channels[inbound.address.channel]
        outbound = _outbound(inbound, 0, text, lang, False)
        try:
            await channel.send(replace(outbound, key=f"{outbound.key}/{about}") if about else outbound)
        except SendError as error:
            logger.warning("Could not tell the person why message %s got no answer: %s", inbound.id, error)

    async def _record(self, inbound: Inbound, reply: Reply, answer: Answer) -> None:
        answered_by = "gateway" if reply.failure is not None else reply.answered_by
        await self._ledger.answered(inbound.key, answer, answered_by, self._clock.now())
        if reply.recorded is not None:
            await reply.recorded()

    async def _show_growing(self, channel: Channel, inbound: Inbound, reply: Reply) -> tuple[str, Outcome]:
        words: list[str] = []

        async def recording() -> AsyncGenerator[str, None]:
            async with aclosing(reply.texts) as texts:
                async for text in texts:
                    words.append(text)
                    yield text
            await self._record(inbound, reply, Answer("".join(words), ("".join(words),)))

        try:
            async with aclosing(recording()) as texts:
                await channel.send_growing(_outbound(inbound, 0, "", reply.lang, False), texts)
        except SendUncertain as error:
            return "".join(words), Outcome(OutcomeKind.UNKNOWN, "sending was cut", str(error))
        except SendError as error:
            return "".join(words), Outcome(OutcomeKind.FAILED, "the platform refused", str(error))
        return "".join(words), Outcome(OutcomeKind.ANSWERED)

    async def _show_piece(self, channel: Channel, inbound: Inbound, outbound: Outbound, number: int) -> Receipt:
        limits = channel.limits
        if not limits.idempotent:
            await self._ledger.showing(inbound.key, number)
        receipt = await self._send(channel, outbound)
        if not limits.idempotent:
            await self._ledger.shown(inbound.key, number + 1)
        return receipt

    async def _in_doubt(self, inbound: Inbound, answer: Answer, number: int) -> Outcome:
        if later := answer.pieces[number + 1 :]:
            await self._parked.add(inbound.address, later, turn=inbound.id)
        return Outcome(OutcomeKind.UNKNOWN, "the gateway stopped while it was being sent", f"piece {number + 1}")

    async def _send(self, channel: Channel, outbound: Outbound) -> Receipt:
        for attempt in range(SEND_TRIES):
            try:
                return await channel.send(outbound)
            except SendLater as error:
                wait_s = error.retry_after_s * 2**attempt
                if attempt == SEND_TRIES - 1 or wait_s > SEND_PATIENCE_S:
                    raise SendRefused(f"given up after {attempt + 1} tries: {error}") from error
                logger.info("Sending %s again in %.1f s: %s", outbound.key, wait_s, error)
                await self._clock.sleep(wait_s)
            except SendUncertain:
                if self._on_unknown == "leave" or attempt > 0:
                    raise
        raise SendRefused("given up")

    async def _too_late(self, channel: Channel, inbound: Inbound, pieces: tuple[str, ...], error: TicketExpired, *, first: bool) -> Outcome:
        if not channel.limits.parks:
            return Outcome(OutcomeKind.EXPIRED, "too late for the platform", str(error))
        await self._parked.add(inbound.address, pieces, turn=inbound.id, first=first)
        return Outcome(OutcomeKind.ANSWERED, "parked until the person asks for it")


def outcome_of(failure: GatewayError | None, shown: Outcome) -> Outcome:
    """How the turn ended: as showing ended, unless what was shown is the sentence that explains a failure."""
    if failure is None or shown.kind is not OutcomeKind.ANSWERED:
        return shown
    kind = OutcomeKind.REFUSED if isinstance(failure, Refused) else OutcomeKind.FAILED
    return Outcome(kind, type(failure).__name__, str(failure))


def _pieces(text: str, channel: Channel) -> tuple[str, ...]:
    limits = channel.limits
    rendered = render(text, limits.markup)
    return tuple(cut(rendered, limits.max_bytes, max_chars=limits.max_chars, fences=limits.markup is not Markup.PLAIN))


def _outbound(inbound: Inbound, number: int, text: str, lang: Lang, more: bool) -> Outbound:
    address = inbound.address
    return Outbound(
        key=f"{inbound.key.channel}/{inbound.key.account}/{inbound.key.message}/{number}",
        address=address,
        text=text,
        ticket=inbound.ticket,
        mention=Mention(address.sender, inbound.sender_name) if address.in_group and number == 0 else None,
        more=more,
        lang=lang,
    )
