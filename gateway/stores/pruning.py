"""Forgets what is past its time: ended turns after `store.keep_days`, shelf values past their date."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.stores.base import Ledger, Seats, Shelf

logger = logging.getLogger(__name__)

EVERY_S = 3600.0
BATCH = 200
"""Rows of one deletion: a few milliseconds of the disk, so that whoever accepts a message meanwhile hardly waits."""
BREATH_S = 0.1
"""Between two batches: a million old turns are gone after a quarter of an hour, beside the daily work."""
JUMP = timedelta(hours=1)
SEAT = "pruning"


class Pruning:
    """One round at the start and then every hour. With several processes the one that takes the seat does it."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        shelf: Shelf,
        clock: Clock,
        keep: timedelta | None,
        seats: Seats | None = None,
        every_s: float = EVERY_S,
        batch: int = BATCH,
    ) -> None:
        """`keep`: how long an ended turn is kept; None: for ever, and only the shelf is tidied."""
        self._ledger = ledger
        self._shelf = shelf
        self._clock = clock
        self._keep = keep
        self._seats = seats
        self._every_s = every_s
        self._batch = batch
        self._round_at = clock.monotonic()
        self._round_on = clock.now()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.round()
            except StoreError as error:
                logger.warning("Old turns were not forgotten this time, trying again in %.0f min: %s", self._every_s / 60, error)
            await self._clock.sleep(self._every_s)

    async def round(self) -> int:
        """Forget everything that is past its time; returns how many turns. Leaves all as it is when the clock is not to be trusted."""
        if self._clock_jumped() or (self._seats is not None and not await self._seats.take(SEAT)):
            return 0
        turns = 0
        if self._keep is not None:
            before = self._clock.now() - self._keep
            turns = await self._all(lambda: self._ledger.prune(before, self._batch))
        now = self._clock.now()
        values = await self._all(lambda: self._shelf.prune(now, self._batch))
        if turns or values:
            logger.info("Forgotten: %d ended turns and %d shelf values past their time.", turns, values)
        return turns

    async def _all(self, prune: Callable[[], Awaitable[int]]) -> int:
        total = 0
        while pruned := await prune():
            total += pruned
            await self._clock.sleep(BREATH_S)
        return total

    def _clock_jumped(self) -> bool:
        """A clock that leapt ahead makes everything look old. The operator is told about the leap and has until the next round."""
        elapsed = timedelta(seconds=self._clock.monotonic() - self._round_at)
        ahead = self._clock.now() - self._round_on - elapsed
        self._round_at, self._round_on = self._clock.monotonic(), self._clock.now()
        if ahead <= JUMP:
            return False
        logger.warning("The clock jumped ahead by %s since the last round: nothing is forgotten now, only at the next round.", ahead)
        return True
