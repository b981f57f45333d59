"""What the operator's people were told already, so that nothing is told twice: not after a restart, and not by several processes."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.stores.base import Shelf
from gateway.watch.trouble import TroubleKey

logger = logging.getLogger(__name__)

TELLING_FOR = timedelta(seconds=90)
"""How long a process that set out to tell keeps the others from it; longer than sending takes."""


class Told:
    """A mark per trouble, in memory and, as far as the store works, on the shelf, where it lives for `again_after` after its last use."""

    def __init__(self, *, shelf: Shelf, clock: Clock, again_after: timedelta = timedelta(hours=1)) -> None:
        self._shelf = shelf
        self._clock = clock
        self._again_after = again_after
        self._open: set[TroubleKey] = set()
        self._quiet_until: dict[TroubleKey, datetime] = {}

    async def may_tell(self, key: TroubleKey) -> bool:
        """Whether this process should tell the beginning of an open trouble now; then call `told` or `not_told`."""
        if key in self._open:
            await self._mark(key, "open")  # keeps the mark alive as long as the trouble
            return False
        quiet_until = self._quiet_until.get(key)
        if quiet_until is not None and self._clock.now() < quiet_until:
            return False
        return await self._claim(key)

    async def not_told(self, key: TroubleKey) -> None:
        """Nobody could be reached: this or another process may try again."""
        try:
            await self._shelf.drop(_shelf_name(key))
        except StoreError as error:
            logger.debug("The mark of an alarm was not taken back: %s", error)

    async def told(self, key: TroubleKey) -> None:
        """The beginning was told."""
        self._open.add(key)
        await self._mark(key, "open")

    async def may_tell_end(self, key: TroubleKey) -> bool:
        """Whether this process should tell the end now: its beginning was told, and no other process tells or told the end."""
        if key not in self._open:
            return False
        name, now = _shelf_name(key), self._clock.now()
        try:
            if await self._shelf.get(name, now) != "over":
                return await self._shelf.add(f"{name}/over", "telling", now + TELLING_FOR, now)
            self._open.discard(key)
        except StoreError:
            return True
        return False

    def is_told(self, key: TroubleKey) -> bool:
        """Whether the beginning was told and the end, as far as this process knows, was not."""
        return key in self._open

    async def over(self, key: TroubleKey) -> None:
        """The end was told: when it begins again soon, that is not told before its time."""
        self._open.discard(key)
        now = self._clock.now()
        self._quiet_until = {other: until for other, until in self._quiet_until.items() if until > now}
        self._quiet_until[key] = now + self._again_after
        await self._mark(key, "over")

    async def _claim(self, key: TroubleKey) -> bool:
        """Exactly one process gets True; without a store each must take the word of its own memory."""
        now = self._clock.now()
        try:
            if await self._shelf.add(_shelf_name(key), "telling", now + TELLING_FOR, now):
                return True
            if await self._shelf.get(_shelf_name(key), now) == "open":
                self._open.add(key)
        except StoreError:
            return True
        return False

    async def _mark(self, key: TroubleKey, mark: str) -> None:
        try:
            await self._shelf.put(_shelf_name(key), mark, self._clock.now() + self._again_after)
        except StoreError as error:
            logger.debug("The mark of an alarm was not saved: %s", error)


def _shelf_name(key: TroubleKey) -> str:
    return f"alarm/{key.kind.value}/{key.part}"
