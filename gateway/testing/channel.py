"""A channel inside the process: a test says something and looks at what was shown."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import replace

from gateway.channels.base import Admitted, Channel, ChannelLimits, Deliver, Markup, Receipt
from gateway.clock import Clock
from gateway.errors import SendError
from gateway.messages import Address, Inbound, Outbound, Part, ReplyTicket, Text

PLAIN = ChannelLimits(markup=Markup.PLAIN, max_bytes=2000)


class LoopbackChannel(Channel):
    """Shows what it is sent in `shown`; `errors` are raised by the next sends, one each."""

    def __init__(self, clock: Clock, *, name: str = "loop", limits: ChannelLimits = PLAIN) -> None:
        self.name = name
        self.limits = limits
        self.shown: list[Outbound] = []
        self.errors: deque[SendError] = deque()
        self._clock = clock
        self._ids = (f"{secrets.token_hex(3)}-{number}" for number in itertools.count(1))
        self._deliver: Deliver | None = None
        self._heard = asyncio.Event()
        self._something_shown = asyncio.Condition()

    @property
    def texts(self) -> list[str]:
        """The words of everything shown so far."""
        return [outbound.text for outbound in self.shown]

    async def run(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._heard.set()
        await asyncio.Event().wait()

    def listen(self, deliver: Deliver) -> None:
        """Hear without a task, for tests that run no `Gateway`."""
        self._deliver = deliver
        self._heard.set()

    async def say(
        self,
        text: str = "",
        *,
        sender: str = "alice",
        group: str | None = None,
        to_bot: bool = True,
        id: str | None = None,
        parts: tuple[Part, ...] | None = None,
        ticket: ReplyTicket | None = None,
    ) -> Admitted:
        """A person writes; the message keeps `id` when it is given, so a second call with it is a redelivery."""
        await self._heard.wait()
        assert self._deliver is not None
        address = Address(channel=self.name, account="bot", chat=group or sender, sender=sender, in_group=group is not None)
        return await self._deliver(
            Inbound(
                id=id or next(self._ids),
                address=address,
                parts=parts if parts is not None else (Text(text),),
                sent_at=self._clock.now(),
                to_bot=to_bot,
                ticket=ticket or ReplyTicket(),
                sender_name=sender.title(),
            )
        )

    async def send(self, outbound: Outbound) -> Receipt:
        if self.errors:
            raise self.errors.popleft()
        async with self._something_shown:
            self.shown.append(outbound)
            self._something_shown.notify_all()
        return Receipt(f"shown-{len(self.shown)}")

    async def send_growing(self, head: Outbound, texts: AsyncGenerator[str, None]) -> Receipt:
        words = [text async for text in texts]
        return await self.send(replace(head, text="".join(words)))

    async def wait_for(self, count: int, timeout_s: float = 5.0) -> list[str]:
        """Wait until `count` things were shown; raises TimeoutError that tells what was."""
        try:
            async with asyncio.timeout(timeout_s), self._something_shown:
                await self._something_shown.wait_for(lambda: len(self.shown) >= count)
        except TimeoutError:
            raise TimeoutError(f"only {self.texts!r} was shown") from None
        return self.texts
