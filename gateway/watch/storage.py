"""A store that cannot be written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from gateway.checkup import Health
from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.stores.base import Store
from gateway.watch.trouble import STORE, Trouble, TroubleKind, Watch

PING_TIMEOUT_S = 5.0

_REPAIR = (
    "Look at the disk (full? read-only?) or at the store's server; no message is acknowledged meanwhile, so platforms send again where "
    "they can, and work goes on by itself when the store is back."
)


class StoreWatch(Watch):
    """Proves that a write reaches the store."""

    def __init__(self, *, store: Store, clock: Clock, timeout_s: float = PING_TIMEOUT_S) -> None:
        self._store = store
        self._clock = clock
        self._timeout_s = timeout_s
        self._since: datetime | None = None

    async def look(self) -> Sequence[Trouble]:
        health = await self.health()
        if health.ok:
            self._since = None
            return []
        self._since = self._since or self._clock.now()
        return [Trouble(kind=TroubleKind.STORE_DOWN, part=STORE, since=self._since, cause=health.reason, repair=_REPAIR)]

    async def health(self) -> Health:
        """Whether a write reaches the disk now."""
        try:
            async with self._clock.timeout(self._timeout_s):
                await self._store.ping()
        except StoreError as error:
            return Health(False, str(error))
        except TimeoutError:
            return Health(False, f"The store did not answer within {self._timeout_s:.0f} s.")
        return Health(True)
