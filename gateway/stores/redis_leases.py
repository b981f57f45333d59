"""Which lanes this process holds, with what token, and which turn it works on in each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from gateway.messages import TurnKey


class Leases:
    """The local side of the leases; Redis decides, this only remembers."""

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {}
        self._works: dict[str, TurnKey] = {}
        self._lanes: dict[TurnKey, str] = {}
        self._lost: asyncio.Queue[str] = asyncio.Queue()

    def __contains__(self, lane: str) -> bool:
        return lane in self._tokens

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(tuple(self._tokens.items()))

    def take(self, lane: str, token: int) -> None:
        """This process holds the lane from now on."""
        self.drop(lane)
        self._tokens[lane] = token

    def works_on(self, lane: str, key: TurnKey) -> None:
        """The turn at the head of the lane."""
        self._forget_work(lane)
        self._works[lane] = key
        self._lanes[key] = lane

    def token(self, lane: str) -> bytes:
        """What to show the server; empty for a lane of others."""
        return b"%d" % self._tokens[lane] if lane in self._tokens else b""

    def token_for(self, key: TurnKey) -> bytes:
        """The token of the lane that this turn is in, if this process works on it."""
        return self.token(self._lanes.get(key, ""))

    def drop(self, lane: str) -> None:
        """The lease was given back, or nobody renews it any more."""
        self._tokens.pop(lane, None)
        self._forget_work(lane)

    def lose(self, lane: str) -> None:
        """Another process has the lane; whoever waits in `lost` hears it, once."""
        if lane in self._tokens:
            self.drop(lane)
            self._lost.put_nowait(lane)

    async def lost(self) -> str:
        return await self._lost.get()

    def _forget_work(self, lane: str) -> None:
        if (key := self._works.pop(lane, None)) is not None:
            self._lanes.pop(key, None)
