"""One DingTalk bot: heard over Stream or by callback, answered through the session webhook of each message, or by API call."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from gateway.channels.base import Channel, ChannelLimits, Deliver, Markup, Receipt
from gateway.channels.dingtalk.callback import Callback
from gateway.channels.dingtalk.compose import PIECE_BYTES, compose_message, compose_sample, is_staff_id
from gateway.channels.dingtalk.diagnosis import Diagnosis, Troubles
from gateway.channels.dingtalk.hearing import Hearing
from gateway.channels.dingtalk.openapi import OpenApi
from gateway.channels.dingtalk.parse import Frame, as_object
from gateway.channels.dingtalk.quota import MONTHLY_CALLS, PER_SECOND, Budget, Quota
from gateway.channels.dingtalk.stream import SILENCE_S, Stream
from gateway.channels.dingtalk.verdicts import NotInGroup, QuotaSpent
from gateway.channels.dingtalk.wire import Wire
from gateway.channels.http_face import HttpFace
from gateway.checkup import Finding, Health
from gateway.clock import Clock
from gateway.errors import ConfigError, TicketExpired
from gateway.messages import Outbound
from gateway.stores.base import Shelf

logger = logging.getLogger(__name__)


class DingTalkChannel(Channel):
    """A bot. Sends are not idempotent: neither a session webhook nor the API knows a key."""

    limits = ChannelLimits(markup=Markup.DINGTALK, max_bytes=PIECE_BYTES)

    def __init__(
        self,
        *,
        name: str,
        client_id: str,
        client_secret: str,
        clock: Clock,
        face: HttpFace | None = None,
        shelf: Shelf | None = None,
        share_pace: bool = False,
        monthly_calls: int | None = MONTHLY_CALLS,
        calls_per_second: int = PER_SECOND,
        openapi_base: str = "https://api.dingtalk.com",
        oapi_base: str = "https://oapi.dingtalk.com",
        silence_s: float = SILENCE_S,
        send_timeout_s: float = 15.0,
    ) -> None:
        """With a `face` messages come by callback to `/dingtalk/{name}`, without one over Stream.

        `shelf` keeps the count of API calls over restarts; with `share_pace` also their pace, for several processes on one store.
        `monthly_calls`: None is no limit, 0 never calls the API.
        """
        if face is not None and not client_secret:
            raise ConfigError("client_secret is empty: anybody could write in DingTalk's name. Copy it from the developer console.")
        self.name = name
        self._client_id = client_id
        self._clock = clock
        self._face = face
        self._wire = Wire(bases=(openapi_base, oapi_base), clock=clock, timeout_s=send_timeout_s)
        self._quota = Quota(
            client_id=client_id,
            clock=clock,
            counts=shelf,
            pace=shelf if share_pace else None,
            monthly=monthly_calls,
            per_second=calls_per_second,
        )
        self._api = OpenApi(
            client_id=client_id, client_secret=client_secret, openapi_base=openapi_base, wire=self._wire, quota=self._quota, clock=clock
        )
        self._troubles = Troubles(client_id=client_id, shelf=shelf, clock=clock)
        self._hearing = Hearing(name=name, account=client_id, clock=clock)
        self._stream = Stream(name=name, api=self._api, clock=clock, silence_s=silence_s)
        self._callback = Callback(name=name, client_secret=client_secret, clock=clock)
        self._mounted = False

    def __repr__(self) -> str:
        return f"DingTalkChannel(name={self.name!r}, client_id={self._client_id!r})"

    @property
    def budget(self) -> Budget:
        """API calls of this month, as of the last one; for metrics."""
        return self._quota.latest

    async def run(self, deliver: Deliver) -> None:
        async with asyncio.TaskGroup() as tasks:
            hear = self._stream.run(partial(self._hear_frame, deliver)) if self._face is None else self._serve(self._face, deliver)
            tasks.create_task(hear, name=f"{self.name}-hear")
            tasks.create_task(self._hearing.hand_in_again(deliver), name=f"{self.name}-hand-in-again")

    async def send(self, outbound: Outbound) -> Receipt:
        try:
            return await self._send_by_webhook(outbound)
        except TicketExpired as expired:
            return await self._send_by_api(outbound, expired)

    def health(self) -> Health:
        if self._face is None:
            return self._stream.health()
        listens = self._callback.hear is not None
        return Health(listens, "waits for callbacks" if listens else "does not listen for callbacks")

    async def checkup(self) -> list[Finding]:
        """Opens no connection: DingTalk gives each message to any one connection, so a second one would steal some."""
        streams = self._face is None
        diagnosis = Diagnosis(api=self._api, quota=self._quota, troubles=self._troubles, clock=self._clock, streams=streams)
        return await diagnosis.findings()

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def _serve(self, face: HttpFace, deliver: Deliver) -> None:
        self._callback.hear = partial(self._hearing.hear, deliver)
        if not self._mounted:
            face.mount(f"/dingtalk/{self.name}", self._callback)
            self._mounted = True
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._callback.hear = None

    async def _hear_frame(self, deliver: Deliver, frame: Frame) -> None:
        await self._hearing.hear(deliver, as_object(frame.data), frame.message_id)

    async def _send_by_webhook(self, outbound: Outbound) -> Receipt:
        webhook, expires_at = outbound.ticket.token.get("session_webhook", ""), outbound.ticket.expires_at
        if not webhook:
            raise TicketExpired("there is no session webhook to answer through")
        if expires_at is not None and expires_at <= self._clock.now():
            raise TicketExpired(f"the session webhook ended at {expires_at:%H:%M:%S} UTC")
        await self._api.reply(webhook, compose_message(outbound))
        return Receipt()

    async def _send_by_api(self, outbound: Outbound, expired: TicketExpired) -> Receipt:
        """Where no session webhook helps; it surely showed nothing."""
        address = outbound.address
        if not address.in_group and not is_staff_id(address.sender):
            raise TicketExpired(f"{expired}, and the API reaches only members of the organisation") from expired
        logger.info("Channel %s sends %s by API: %s.", self.name, outbound.key, expired)
        try:
            if address.in_group:
                return Receipt(await self._api.send_to_group(address.chat, compose_sample(outbound)))
            return Receipt(await self._api.send_to_person(address.sender, compose_sample(outbound)))
        except NotInGroup as error:
            await self._troubles.note(f"{error} (group {address.chat})")
            raise
        except QuotaSpent as error:
            raise QuotaSpent(f"{expired}, and {error}") from error
