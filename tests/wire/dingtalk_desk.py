"""What the DingTalk tests share: a ledger on paper, a channel at the simulator, and how an answer looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.channels.base import Admission, Admitted, Channel
from gateway.channels.dingtalk.channel import DingTalkChannel
from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.messages import Address, Inbound, Mention, Outbound, TurnKey
from gateway.simulators.dingtalk import CLIENT_ID, CLIENT_SECRET, DingTalkSimulator

SOMEWHERE = Address(channel="dingtalk", account=CLIENT_ID, chat="cid1", sender="manager01")


class Book:
    """A ledger on paper: refuses while `broken`, knows what it has seen."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.broken = False
        self.slow_s = 0.0
        self.asked = 0
        self.heard: list[Inbound] = []
        self.known: set[TurnKey] = set()
        self.admissions: list[Admission] = []
        self._changed = asyncio.Condition()

    async def deliver(self, inbound: Inbound) -> Admitted:
        self.asked += 1
        await self.clock.sleep(self.slow_s)
        async with self._changed:
            self._changed.notify_all()
            if self.broken:
                self.admissions.append(Admission.IGNORED)
                raise StoreUnavailable
            admission = Admission.DUPLICATE if inbound.key in self.known else Admission.ACCEPTED
            self.admissions.append(admission)
            self.known.add(inbound.key)
            if admission is Admission.ACCEPTED:
                self.heard.append(inbound)
        return Admitted(admission)

    async def wait_for(self, satisfied: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(satisfied)

    async def next(self, count: int = 1) -> Inbound:
        await self.wait_for(lambda: len(self.heard) >= count)
        return self.heard[count - 1]


def a_channel(sim: DingTalkSimulator, clock: Clock, **settings: object) -> DingTalkChannel:
    plain = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "openapi_base": sim.base_url, "oapi_base": sim.base_url}
    return DingTalkChannel(name="dingtalk", clock=clock, **{**plain, **settings})  # type: ignore[arg-type]


@asynccontextmanager
async def listening(channel: Channel, book: Book) -> AsyncIterator[None]:
    task = asyncio.create_task(channel.run(book.deliver), name="channel")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await channel.aclose()


def answer(inbound: Inbound, text: str) -> Outbound:
    mention = Mention(inbound.address.sender, inbound.sender_name) if inbound.address.in_group else None
    return Outbound(key=f"{inbound.id}/0", address=inbound.address, text=text, ticket=inbound.ticket, mention=mention)


def subjects(sim: DingTalkSimulator, event: str) -> list[str]:
    return [subject for name, subject in sim.log if name == event]


async def until(satisfied: Callable[[], bool]) -> None:
    """For what no event tells; gives up after about ten seconds."""
    for _ in range(2_000):
        if satisfied():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError
