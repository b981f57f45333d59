"""Seats in Redis: a key per seat that runs out."""

from __future__ import annotations

from gateway.stores import redis_small_scripts as scripts
from gateway.stores.base import Seats
from gateway.stores.redis_line import Line
from gateway.stores.redis_rows import encoded
from gateway.stores.redis_space import Space


class RedisSeats(Seats):
    """Whoever sits must `take` again within `lease_s` seconds."""

    def __init__(self, line: Line, space: Space, *, identity: str, lease_s: float) -> None:
        """`identity` must differ from process to process, also after a restart: two that share it would both sit."""
        self._line = line
        self._space = space
        self._identity = identity.encode()
        self._lease_ms = round(lease_s * 1000)

    async def take(self, seat: str) -> bool:
        return bool(await self._line.run(scripts.SIT, self._place(seat), self._identity, self._lease_ms))

    async def leave(self, seat: str) -> None:
        await self._line.run(scripts.STAND, self._place(seat), self._identity)

    async def free_in(self, seat: str) -> float:
        left_ms: int = await self._line.ask(b"PTTL", self._place(seat))
        return max(left_ms, 0) / 1000

    def _place(self, seat: str) -> bytes:
        return self._space.key(b"seat:", encoded(seat))
