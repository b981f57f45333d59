"""How the bot says things: under a message as a stream, or as a message of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from gateway.channels.wecom_bot.budget import Budget
from gateway.channels.wecom_bot.compose import RESPOND, SEND, compose_markdown, compose_stream
from gateway.channels.wecom_bot.line import NoConnection
from gateway.channels.wecom_bot.link import Link
from gateway.channels.wecom_bot.parse import Raw
from gateway.channels.wecom_bot.verdicts import OverLimit, ReplyClosed, StreamOver
from gateway.clock import Clock
from gateway.errors import SendLater, SendUncertain
from gateway.messages import Address, Outbound

STREAM = timedelta(seconds=300)
"""From the message on a stream may be changed this long: by the document 10 minutes, seen to end after 6 (2026-03)."""
PATIENCE_S = 90.0
"""Longest wait for a connection, or for a conversation that was written to too often."""
AGAIN_S = 2.0
SPARE = 8
"""So many of a minute's 30 messages are kept for whole answers; snapshots stand back."""


class Speech:
    """Sends frames within WeCom's limits. Streams are idempotent: the same key changes the same message."""

    def __init__(self, *, link: Link, clock: Clock, budget: Budget) -> None:
        self._link = link
        self._clock = clock
        self._budget = budget

    def stream_lasts_s(self, outbound: Outbound) -> float:
        """Seconds in which an answer under the message may still be changed; 0 when it is over, or there is no message."""
        token = outbound.ticket.token
        if not token.get("req_id"):
            return 0.0
        try:
            heard_at = datetime.fromisoformat(token.get("heard_at", ""))
            return max((heard_at + STREAM - self._clock.now()).total_seconds(), 0.0)
        except (ValueError, TypeError):
            return 0.0

    async def snapshot(self, outbound: Outbound, text: str) -> bool:
        """Show the words so far, unless the conversation was written to so often that the answer's end would have to wait."""
        if self._budget.left(outbound.address.chat, self._clock.monotonic()) <= SPARE:
            return False
        await self._stream(outbound, text, finish=False)
        return True

    async def finish(self, outbound: Outbound, text: str) -> None:
        """Show the whole text, for good. Raises ReplyClosed when it surely cannot be shown so."""
        doubt: SendUncertain | None = None

        async def attempt() -> None:
            nonlocal doubt
            try:
                await self._stream(outbound, text, finish=True)
            except StreamOver:
                if doubt is None:
                    raise
            except ReplyClosed:
                if doubt is not None:
                    raise doubt from None
                raise
            except SendUncertain as error:
                doubt = error
                raise SendLater(str(error), retry_after_s=AGAIN_S) from error

        try:
            await self._patiently(attempt)
        except SendLater:
            if doubt is not None:
                raise doubt from None
            raise

    async def markdown(self, address: Address, text: str, *, patiently: bool = False) -> None:
        """A message of its own; not idempotent."""

        async def attempt() -> None:
            await self._ask(address.chat, SEND, compose_markdown(address, text))

        await (self._patiently(attempt) if patiently else attempt())

    async def _stream(self, outbound: Outbound, text: str, *, finish: bool) -> None:
        if not self.stream_lasts_s(outbound):
            raise ReplyClosed("too late for a stream")
        body = compose_stream(outbound.key, text, finish=finish)
        await self._ask(outbound.address.chat, RESPOND, body, req_id=outbound.ticket.token["req_id"])

    async def _ask(self, chat: str, cmd: str, body: Raw, *, req_id: str = "") -> None:
        now = self._clock.monotonic()
        if wait_s := self._budget.wait_s(chat, now):
            raise SendLater("this conversation was written to as often as WeCom allows", retry_after_s=wait_s)
        self._budget.spend(chat, now)
        try:
            await self._link.ask(cmd, body, req_id=req_id)
        except NoConnection:
            self._budget.not_sent(chat)
            raise
        except OverLimit as error:
            self._budget.refused(chat, self._clock.monotonic(), error.retry_after_s)
            raise

    async def _patiently(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until it works, is refused, or would take too long."""
        give_up_at = self._clock.monotonic() + PATIENCE_S
        while True:
            try:
                return await attempt()
            except SendLater as error:
                if self._clock.monotonic() + error.retry_after_s > give_up_at:
                    raise
                if isinstance(error, NoConnection):
                    await self._link.wait_connected(error.retry_after_s)
                else:
                    await self._clock.sleep(error.retry_after_s)
