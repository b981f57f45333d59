"""Answers that came too late or in more pieces than the platform shows at once: they wait until the person asks for them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import timedelta

from gateway.clock import Clock
from gateway.messages import Address
from gateway.stores.base import Shelf

logger = logging.getLogger(__name__)

KEEP_FOR = timedelta(hours=1)
MAX_PIECES = 50
"""Per person: five long answers. The oldest go first."""


class Parked:
    """A queue of rendered pieces per person, on the shelf, so it survives a restart. Used inside the person's lane only."""

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        self._shelf = shelf
        self._clock = clock

    async def add(self, address: Address, pieces: Sequence[str], *, first: bool = False) -> None:
        """Park pieces behind (or, a piece that was taken and not shown, before) what is there."""
        there = await self._pieces(address)
        queue = [*pieces, *there] if first else [*there, *pieces]
        if len(queue) > MAX_PIECES:
            logger.warning("More than %d pieces are parked for one person; %d old ones are dropped.", MAX_PIECES, len(queue) - MAX_PIECES)
        await self._write(address, queue[-MAX_PIECES:])

    async def next(self, address: Address) -> tuple[str, bool] | None:
        """The next piece and whether more follow it; it stays until `drop_next`."""
        pieces = await self._pieces(address)
        return (pieces[0], len(pieces) > 1) if pieces else None

    async def drop_next(self, address: Address) -> None:
        """The piece that `next` gave is safe elsewhere."""
        await self._write(address, (await self._pieces(address))[1:])

    async def _pieces(self, address: Address) -> list[str]:
        value = await self._shelf.get(_name(address), self._clock.now())
        return list(json.loads(value)) if value else []

    async def _write(self, address: Address, pieces: Sequence[str]) -> None:
        if pieces:
            await self._shelf.put(_name(address), json.dumps(pieces, ensure_ascii=False), self._clock.now() + KEEP_FOR)
        else:
            await self._shelf.drop(_name(address))


def _name(address: Address) -> str:
    return f"parked/{address.channel}/{address.account}/{address.chat}/{address.sender}"
