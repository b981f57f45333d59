"""Seats and news that several gateways in one test process share, as processes share those of a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.stores.base import Bulletin, Seats


class SharedBoard:
    """The common place. `board.bulletin()` and `board.seats()` give one process its own door to it.

    `down = True`: every call fails as it does when the server is away; news of that time are lost. `hangs = True`: news are never taken.
    """

    def __init__(self, clock: Clock, *, lease_s: float = 10.0) -> None:
        self.clock = clock
        self.lease_s = lease_s
        self.down = False
        self.hangs = False
        self.published: list[tuple[str, str]] = []
        """Everything that was said, by topic."""
        self.holders: dict[str, tuple[SharedSeats, float]] = {}
        """Who sits on each seat, and until when on the monotonic clock."""
        self.listeners: list[tuple[SharedBulletin, str, Callable[[str], None]]] = []

    def bulletin(self) -> SharedBulletin:
        return SharedBulletin(self)

    def seats(self) -> SharedSeats:
        return SharedSeats(self)

    def check(self) -> None:
        if self.down:
            raise StoreUnavailable("the shared store is away")


class SharedBulletin(Bulletin):
    """One process's way to hear and tell news. After `deaf = True` it hears nothing more, as a dead process."""

    def __init__(self, board: SharedBoard) -> None:
        self._board = board
        self.deaf = False

    async def publish(self, topic: str, text: str) -> None:
        self._board.check()
        if self._board.hangs:
            await asyncio.get_running_loop().create_future()
        self._board.published.append((topic, text))
        for owner, wanted, heard in tuple(self._board.listeners):
            if wanted == topic and not owner.deaf:
                heard(text)

    def listen(self, topic: str, heard: Callable[[str], None]) -> None:
        self._board.listeners.append((self, topic, heard))


class SharedSeats(Seats):
    """One process's claim to seats. `cut_off = True`: this process alone cannot reach the store."""

    def __init__(self, board: SharedBoard) -> None:
        self._board = board
        self.cut_off = False

    async def take(self, seat: str) -> bool:
        self._check()
        if self._held_by_another(seat):
            return False
        self._board.holders[seat] = (self, self._board.clock.monotonic() + self._board.lease_s)
        return True

    async def leave(self, seat: str) -> None:
        self._check()
        if seat in self._board.holders and self._board.holders[seat][0] is self:
            del self._board.holders[seat]

    async def free_in(self, seat: str) -> float:
        self._check()
        if seat not in self._board.holders:
            return 0.0
        return max(self._board.holders[seat][1] - self._board.clock.monotonic(), 0.0)

    def _held_by_another(self, seat: str) -> bool:
        holder, until = self._board.holders.get(seat, (self, 0.0))
        return holder is not self and until > self._board.clock.monotonic()

    def _check(self) -> None:
        self._board.check()
        if self.cut_off:
            raise StoreUnavailable("the shared store cannot be reached from here")
