"""Answers that came too late or in more pieces than the platform shows at once: they wait until the person asks for them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from gateway.clock import Clock
from gateway.messages import Address
from gateway.stores.base import Shelf

logger = logging.getLogger(__name__)

KEEP_FOR = timedelta(hours=1)
MAX_KNOWN_EMPTY = 5000
MAX_PIECES = 50
"""Per person: five long answers. The oldest go first."""


class _Piece(NamedTuple):
    turn: str
    """Id of the message that it answers; empty: parked by a version that did not note it."""
    text: str


class Parked:
    """A queue of rendered pieces per person, on the shelf, so it survives a restart. Used inside the person's lane only."""

    def __init__(self, shelf: Shelf, clock: Clock, *, shared: bool = False) -> None:
        """`shared`: other processes park here, too; otherwise who has nothing is known without asking the store."""
        self._shelf = shelf
        self._clock = clock
        self._empty: dict[str, None] | None = None if shared else {}

    async def add(self, address: Address, pieces: Sequence[str], *, turn: str, first: bool = False) -> None:
        """Park pieces of a turn behind (or, a piece that was taken and not shown, before) what is there.

        What is there of the same turn stays as it is: the process died after it had been parked.
        """
        there = await self._pieces(address)
        new = [_Piece(turn, text) for text in pieces if _Piece(turn, text) not in there]
        queue = [*new, *there] if first else [*there, *new]
        if len(queue) > MAX_PIECES:
            logger.warning("More than %d pieces are parked for one person; %d old ones are dropped.", MAX_PIECES, len(queue) - MAX_PIECES)
        await self._write(address, queue[-MAX_PIECES:])

    async def next(self, address: Address) -> tuple[str, bool] | None:
        """The next piece and whether more follow it; it stays until `drop_next`."""
        pieces = await self._pieces(address)
        return (pieces[0].text, len(pieces) > 1) if pieces else None

    async def drop_next(self, address: Address) -> None:
        """The piece that `next` gave is safe elsewhere."""
        await self._write(address, (await self._pieces(address))[1:])

    async def drop(self, address: Address, pieces: Sequence[str]) -> bool:
        """Drop those of `pieces` that are next. Returns whether more is parked."""
        parked = await self._pieces(address)
        if parked and parked[0].text in pieces:
            await self._write(address, parked := parked[1:])
        return bool(parked)

    async def _pieces(self, address: Address) -> list[_Piece]:
        name = _name(address)
        if self._empty is not None and name in self._empty:
            return []
        value = await self._shelf.get(name, self._clock.now())
        if not value:
            self._know_empty(name)
        return [_Piece(*(("", one) if isinstance(one, str) else one)) for one in json.loads(value)] if value else []

    async def _write(self, address: Address, pieces: Sequence[_Piece]) -> None:
        if pieces:
            if self._empty is not None:
                self._empty.pop(_name(address), None)
            await self._shelf.put(_name(address), json.dumps(pieces, ensure_ascii=False), self._clock.now() + KEEP_FOR)
        else:
            await self._shelf.drop(_name(address))

    def _know_empty(self, name: str) -> None:
        if self._empty is None:
            return
        self._empty[name] = None
        if len(self._empty) > MAX_KNOWN_EMPTY:
            del self._empty[next(iter(self._empty))]


def _name(address: Address) -> str:
    return f"parked/{address.channel}/{address.account}/{address.chat}/{address.sender}"
