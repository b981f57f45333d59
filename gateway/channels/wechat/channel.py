"""A personal WeChat account as a channel: the operator's rules between a transport and the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from gateway.channels.base import Admission, Admitted, Channel, ChannelLimits, Deliver, Markup, Receipt
from gateway.channels.seat import Seat
from gateway.channels.wechat.compose import compose
from gateway.channels.wechat.transport import Transport
from gateway.checkup import Finding, Health
from gateway.errors import ChannelError, SendLater, StoreUnavailable
from gateway.messages import Inbound, Outbound, Quote, Text

MAX_BYTES = 3600
"""WeChat documents no limit for text. Reports of lost ends range from about 2,000 bytes to 4,000 characters (protocol notes, 2026-11-22);
3600 bytes are at most 1200 Chinese or 3600 Latin characters, well below where most people saw text cut."""
MENTION_RESERVE_BYTES = 128
"""For `@name` in front of a group answer; WeChat names have at most 32 characters."""

EVERYBODY = "*"
ELSEWHERE = "held by another process"


class WeChatChannel(Channel):
    """Private chats and groups of one account."""

    def __init__(
        self,
        *,
        name: str,
        transport: Transport,
        private_prefix: Sequence[str] = (),
        reply_prefix: str = "",
        group_on_mention: bool = True,
        group_allow: Sequence[str] = (EVERYBODY,),
        max_bytes: int = MAX_BYTES,
        seat: Seat | None = None,
    ) -> None:
        """`private_prefix`: when not empty, private messages are answered only if they begin with one of these, which is cut off.

        `reply_prefix` stands on a line of its own above private answers. `group_on_mention`: False answers everything that is said
        in an allowed group. `group_allow`: names of groups, `*` for all; a group whose name is not unique is only covered by `*`.
        `seat`: where several processes share a store, only the one that sits there hears and speaks; the others wait to take over.
        """
        self.name = name
        self._transport = transport
        self._private_prefix = tuple(prefix for prefix in private_prefix if prefix)
        self._reply_prefix = reply_prefix
        self._group_on_mention = group_on_mention
        self._group_allow = frozenset(group_allow)
        self._seat = seat
        reserve = max(MENTION_RESERVE_BYTES, len(reply_prefix.encode()) + 1)
        self.limits = ChannelLimits(markup=Markup.PLAIN, max_bytes=max_bytes - reserve)

    async def run(self, deliver: Deliver) -> None:
        async def by_the_rules(inbound: Inbound) -> Admitted:
            if not self.can_show():  # the transport keeps the message, and with it its place in the account's news
                raise StoreUnavailable(f"the account is {ELSEWHERE}")
            allowed = self._by_the_rules(inbound)
            return await deliver(allowed) if allowed is not None else Admitted(Admission.IGNORED)

        if self._seat is None:
            await self._transport.run(by_the_rules)
            return
        while True:
            await self._seat.sit()
            await self._hear_while_seated(self._seat, by_the_rules)

    async def send(self, outbound: Outbound) -> Receipt:
        if not self.can_show():
            raise SendLater(f"the WeChat account is {ELSEWHERE}", retry_after_s=5)
        text = compose(outbound, reply_prefix=self._reply_prefix)
        return Receipt(await self._transport.send_text(outbound.address, outbound.ticket, text))

    def can_show(self) -> bool:
        return self._seat is None or self._seat.held

    def health(self) -> Health:
        """Waiting for the seat is as it should be: another process hears."""
        return self._transport.health() if self.can_show() else Health(True, ELSEWHERE)

    async def checkup(self) -> list[Finding]:
        return await self._transport.checkup()

    async def aclose(self) -> None:
        await self._transport.aclose()
        if self._seat is not None:
            await self._seat.leave()

    async def _hear_while_seated(self, seat: Seat, deliver: Deliver) -> None:
        """Until the seat is lost. When hearing ends for good somebody must repair it: another process may have more luck."""
        hearing = asyncio.create_task(self._transport.run(deliver), name=f"hearing of {self.name}")
        losing = asyncio.create_task(seat.lost(), name=f"seat of {self.name}")
        try:
            await asyncio.wait((hearing, losing), return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                hearing.result()
        except ChannelError:
            await seat.leave()
            raise
        finally:
            for task in (hearing, losing):
                task.cancel()
            await asyncio.gather(hearing, losing, return_exceptions=True)

    def _by_the_rules(self, inbound: Inbound) -> Inbound | None:
        """The message as the operator wants it heard; None from a group that is not allowed."""
        if inbound.address.in_group:
            return self._in_group(inbound)
        if not self._private_prefix:
            return inbound
        prefix = next((prefix for prefix in self._private_prefix if inbound.text.startswith(prefix)), None)
        if prefix is None:
            return replace(inbound, to_bot=False)
        return _without_prefix(inbound, prefix)

    def _in_group(self, inbound: Inbound) -> Inbound | None:
        name = inbound.address.chat.removeprefix("room:")
        if not self._group_allow & {EVERYBODY, name}:
            return None
        return inbound if self._group_on_mention else replace(inbound, to_bot=True)


def _without_prefix(inbound: Inbound, prefix: str) -> Inbound:
    quotes = tuple(part for part in inbound.parts if isinstance(part, Quote))
    return replace(inbound, parts=(*quotes, Text(inbound.text.removeprefix(prefix).strip())))
