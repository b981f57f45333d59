"""A whole gateway inside the test: loopback channel, scripted model, a clock turned by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.channels.base import ChannelLimits, Markup
from gateway.channels.http_face import HttpFace
from gateway.reading import parse_config
from gateway.stores.base import Store
from gateway.stores.memory import MemoryStore
from gateway.testing.backend import ScriptedBackend
from gateway.testing.channel import LoopbackChannel
from gateway.testing.clock import ManualClock
from gateway.wiring import House, join

PASSIVE = ChannelLimits(markup=Markup.PLAIN, max_bytes=64, pieces_per_turn=1, parks=True, idempotent=True)


@dataclass(kw_only=True)
class Talk:
    """What a scenario test holds in its hands."""

    clock: ManualClock
    channel: LoopbackChannel
    backend: ScriptedBackend
    store: Store
    house: House

    async def ask(self, text: str, **words: Any) -> str:
        """Say something and return what is shown next."""
        before = len(self.channel.shown)
        await self.channel.say(text, **words)
        return (await self.channel.wait_for(before + 1))[before]

    async def outcome(self, message: str) -> tuple[str, str]:
        """How the turn of a message ended."""
        await self.clock.settle()
        (record,) = await self.store.ledger.find(message)
        assert record.outcome is not None, record
        return record.outcome.kind.value, record.outcome.reason


StartTalk = Callable[..., Awaitable[Talk]]


@pytest.fixture
async def start() -> AsyncIterator[StartTalk]:
    """`await start(sessions={...}, limits=…, store=…)`: a gateway with these settings. Several may share a store, one after the other."""
    async with AsyncExitStack() as stack:

        async def _start(
            *, store: Store | None = None, clock: ManualClock | None = None, limits: ChannelLimits | None = None, **sections: Any
        ) -> Talk:
            clock = clock or ManualClock()
            channel = LoopbackChannel(clock, limits=limits) if limits else LoopbackChannel(clock)
            backend = ScriptedBackend(clock=clock)
            store = store or MemoryStore()
            config = parse_config({"answering": {"chain": ["echo"], **sections.pop("answering", {})}, **sections}, {})
            house = join(config, store=store, backend=backend, channels={"loop": channel}, face=HttpFace(), clock=clock)
            stack.push_async_callback(house.lanes.settle, clock, 0)
            channel.listen(house.dispatch.hear)
            return Talk(clock=clock, channel=channel, backend=backend, store=store, house=house)

        yield _start
