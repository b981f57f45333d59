"""One DingTalk bot: heard over Stream, answered through the session webhook of each message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from gateway.channels.base import Channel, ChannelLimits, Deliver, Markup, Receipt
from gateway.channels.dingtalk.compose import PIECE_BYTES, compose_message
from gateway.channels.dingtalk.openapi import OpenApi, OpenFailed, OpenRefused
from gateway.channels.dingtalk.parse import BOT_MESSAGES, Frame, Unreadable, as_object, parse_message
from gateway.channels.dingtalk.stream import SILENCE_S, Stream
from gateway.checkup import Finding, Health
from gateway.clock import Clock
from gateway.errors import StoreError, StoreUnavailable, TicketExpired
from gateway.messages import Inbound, Outbound

DELIVER_TIMEOUT_S = 20.0
"""A ledger that takes longer is treated as one that cannot write."""
HAND_IN_AGAIN_S = 5.0
KEPT_MESSAGES = 1_000

logger = logging.getLogger(__name__)


class DingTalkChannel(Channel):
    """A bot in Stream mode. Sends are not idempotent: a session webhook knows no key."""

    limits = ChannelLimits(markup=Markup.DINGTALK, max_bytes=PIECE_BYTES)

    def __init__(
        self,
        *,
        name: str,
        client_id: str,
        client_secret: str,
        clock: Clock,
        openapi_base: str = "https://api.dingtalk.com",
        oapi_base: str = "https://oapi.dingtalk.com",
        silence_s: float = SILENCE_S,
        send_timeout_s: float = 15.0,
    ) -> None:
        self.name = name
        self._client_id = client_id
        self._clock = clock
        self._api = OpenApi(
            client_id=client_id,
            client_secret=client_secret,
            openapi_base=openapi_base,
            oapi_base=oapi_base,
            clock=clock,
            timeout_s=send_timeout_s,
        )
        self._stream = Stream(name=name, api=self._api, clock=clock, silence_s=silence_s)
        self._kept: dict[str, Inbound] = {}
        self._something_kept = asyncio.Event()

    def __repr__(self) -> str:
        return f"DingTalkChannel(name={self.name!r}, client_id={self._client_id!r})"

    async def run(self, deliver: Deliver) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stream.run(partial(self._hear, deliver)), name=f"{self.name}-stream")
            tasks.create_task(self._hand_in_again(deliver), name=f"{self.name}-hand-in-again")

    async def send(self, outbound: Outbound) -> Receipt:
        webhook = outbound.ticket.token.get("session_webhook", "")
        expires_at = outbound.ticket.expires_at
        if not webhook:
            raise TicketExpired("this message came without a session webhook")
        if expires_at is not None and expires_at <= self._clock.now():
            raise TicketExpired(f"the session webhook ended at {expires_at:%H:%M:%S} UTC")
        await self._api.reply(webhook, compose_message(outbound))
        return Receipt()

    def health(self) -> Health:
        return self._stream.health()

    async def checkup(self) -> list[Finding]:
        """Opens no connection: DingTalk gives each message to any one connection, so a second one would steal some."""
        token = await _finding("DingTalk takes client_id and client_secret", self._api.check_token)
        stream = await _finding("DingTalk offers a Stream connection", partial(self._api.open_connection, [BOT_MESSAGES]))
        return [token, stream]

    async def aclose(self) -> None:
        await self._api.aclose()

    async def _hear(self, deliver: Deliver, frame: Frame) -> None:
        try:
            raw = as_object(frame.data)
            inbound = parse_message(
                raw, channel=self.name, account=self._client_id, received_at=self._clock.now(), frame_id=frame.message_id
            )
        except Unreadable as error:  # Acknowledged: it would not be more readable the second time.
            logger.warning("Channel %s: message of frame %s was skipped: %s.", self.name, frame.message_id, error)
            return
        try:
            await self._deliver(deliver, inbound)
        except StoreError:
            self._keep(inbound)
            raise

    async def _deliver(self, deliver: Deliver, inbound: Inbound) -> None:
        try:
            async with self._clock.timeout(DELIVER_TIMEOUT_S):
                admitted = await deliver(inbound)
        except TimeoutError as error:
            raise StoreUnavailable(f"the message was not on disk after {DELIVER_TIMEOUT_S:.0f} s") from error
        logger.info("Channel %s heard message %s: %s.", self.name, inbound.id, admitted.admission.value)

    def _keep(self, inbound: Inbound) -> None:
        """DingTalk's document says bot messages are never sent again, users see that they are: rely on neither."""
        if len(self._kept) >= KEPT_MESSAGES:
            logger.error("Channel %s: too many messages wait for the store; %s is left to DingTalk's redelivery.", self.name, inbound.id)
            return
        self._kept[inbound.id] = inbound
        self._something_kept.set()

    async def _hand_in_again(self, deliver: Deliver) -> None:
        while True:
            await self._something_kept.wait()
            await self._clock.sleep(HAND_IN_AGAIN_S)
            await self._hand_in_kept(deliver)

    async def _hand_in_kept(self, deliver: Deliver) -> None:
        for inbound in list(self._kept.values()):
            try:
                await self._deliver(deliver, inbound)
            except StoreError as error:
                logger.warning("Channel %s: %d messages still wait for the store: %s", self.name, len(self._kept), error)
                return
            self._kept.pop(inbound.id, None)
        if not self._kept:
            self._something_kept.clear()


async def _finding(what: str, attempt: Callable[[], Awaitable[object]]) -> Finding:
    try:
        await attempt()
    except OpenRefused as error:
        return Finding(what, False, str(error))
    except OpenFailed as error:
        return Finding(what, False, f"{error}. Can this machine reach the openapi_base of the channel (firewall, proxy, DNS, clock)?")
    return Finding(what, True)
