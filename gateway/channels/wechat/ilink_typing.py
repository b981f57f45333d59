"""The three dots that a person sees while an answer is made. Nothing depends on them, so no failure leaves this file."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from gateway.channels.wechat.ilink_api import ILinkApi
from gateway.channels.wechat.ilink_wire import Place
from gateway.channels.wechat.patience import Patience
from gateway.channels.wechat.transport import Unreachable
from gateway.clock import Clock

logger = logging.getLogger(__name__)

EVERY_S = 5.0
"""The phone forgets the dots soon after; the official client repeats them so often."""
MOST_S = 120.0
TICKET_LIFE_S = 20 * 3_600.0
"""Tickets are good for about a day."""
MAX_TICKETS = 100


@dataclass(frozen=True, slots=True)
class _Ticket:
    text: str
    fetched_at_s: float


class Typing:
    """Dots for the people of one bot: from `start` to `stop`, at most two minutes."""

    def __init__(self, *, api: ILinkApi, place: Place, clock: Clock) -> None:
        self._api = api
        self._place = place
        self._clock = clock
        self._tickets: dict[str, _Ticket] = {}
        self._shown: dict[str, asyncio.Task[None]] = {}
        self._patience = Patience(first_s=2, most_s=3_600)
        self._quiet_until_s = 0.0

    def start(self, user_id: str, context_token: str) -> None:
        if user_id in self._shown or self._clock.monotonic() < self._quiet_until_s:
            return
        task = asyncio.create_task(self._keep_up(user_id, context_token), name="wechat ilink typing")
        self._shown[user_id] = task
        task.add_done_callback(lambda done: self._shown.pop(user_id, None))

    def stop(self, user_id: str) -> None:
        """The message that follows makes the phone take the dots away."""
        task = self._shown.get(user_id)
        if task is not None:
            task.cancel()

    async def aclose(self) -> None:
        tasks = list(self._shown.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_up(self, user_id: str, context_token: str) -> None:
        try:
            ticket = await self._ticket(user_id, context_token)
            until_s = self._clock.monotonic() + MOST_S
            while ticket and self._clock.monotonic() < until_s:
                await self._api.show_typing(self._place, user_id, ticket, on=True)
                self._patience.tries = 0
                await self._clock.sleep(EVERY_S)
            if ticket:
                await self._api.show_typing(self._place, user_id, ticket, on=False)
        except Unreachable as error:
            self._tickets.pop(user_id, None)
            self._quiet_until_s = self._clock.monotonic() + self._patience.next_s()
            logger.info("WeChat shows no typing for now: %s", error)

    async def _ticket(self, user_id: str, context_token: str) -> str:
        known = self._tickets.get(user_id)
        if known is not None and self._clock.monotonic() - known.fetched_at_s < TICKET_LIFE_S:
            return known.text
        text = await self._api.typing_ticket(self._place, user_id, context_token)
        self._tickets[user_id] = _Ticket(text, self._clock.monotonic())
        if len(self._tickets) > MAX_TICKETS:
            del self._tickets[next(iter(self._tickets))]
        return text
