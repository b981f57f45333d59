"""Several whole gateways in the test, each with channels, lanes and listener of its own, on one store and one model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.channels.base import Channel
from gateway.channels.http_face import HttpFace, listening
from gateway.clock import SystemClock
from gateway.reading import parse_config
from gateway.stores.memory import MemoryStore
from gateway.testing.backend import ScriptedBackend
from gateway.testing.bulletin import SharedBoard, SharedBulletin, SharedSeats
from gateway.wiring import House, join


@dataclass(kw_only=True)
class Shared:
    """What lies between the processes."""

    store: MemoryStore
    board: SharedBoard
    backend: ScriptedBackend
    clock: SystemClock


@dataclass(kw_only=True)
class Process:
    """One gateway. `bulletin.deaf` and the forwarder's `kill` make it look dead to the others."""

    house: House
    channel: Channel
    port: int
    bulletin: SharedBulletin
    seats: SharedSeats
    tasks: list[asyncio.Task[None]]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


Build = Callable[[Shared, HttpFace, SharedBulletin, SharedSeats], Channel]


def shared(*, lease_s: float = 1.0) -> Shared:
    clock = SystemClock()
    return Shared(store=MemoryStore(), board=SharedBoard(clock, lease_s=lease_s), backend=ScriptedBackend(clock=clock), clock=clock)


@asynccontextmanager
async def process(between: Shared, build: Build, sections: Mapping[str, Any] | None = None) -> AsyncIterator[Process]:
    """A gateway with one channel while the body runs."""
    face, bulletin, seats = HttpFace(), between.board.bulletin(), between.board.seats()
    channel = build(between, face, bulletin, seats)
    config = parse_config({"answering": {"chain": ["echo"]}, **(sections or {})}, {})
    house = join(config, store=between.store, backend=between.backend, channels={channel.name: channel}, face=face, clock=between.clock)
    tasks = [asyncio.create_task(channel.run(house.dispatch.hear)), asyncio.create_task(house.lineup.run(house.dispatch))]
    async with listening(face, drain_s=0.1) as port:
        made = Process(house=house, channel=channel, port=port, bulletin=bulletin, seats=seats, tasks=tasks)
        try:
            yield made
        finally:
            await made.stop()
            await house.lanes.settle(between.clock, 0)
            await channel.aclose()
