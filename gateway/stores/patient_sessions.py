"""Sessions for turns in the making: a store that is lost for a while holds the turn up instead of breaking it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar

from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.sessions.session import Session
from gateway.stores.base import SessionStore
from gateway.stores.patient import FIRST_PAUSE_S, LONGEST_PAUSE_S

logger = logging.getLogger(__name__)

T = TypeVar("T")


class PatientSessions(SessionStore):
    """Tries what a running turn needs (load, save, drop) again while the store is unavailable. The rest passes through.

    Where no other process writes sessions, those of the last speakers are also kept in memory: reading one back costs a tenth of a
    whole message. A session that ended meanwhile may still be found here; whoever loads one looks at its end anyway.
    """

    def __init__(self, inner: SessionStore, clock: Clock, *, patience_s: float = 120.0, keep: int = 0) -> None:
        """`keep`: so many sessions are kept in memory; 0 where several processes share the store."""
        self._inner = inner
        self._clock = clock
        self._patience_s = patience_s
        self._keep = keep
        self._kept: dict[str, Session] = {}

    async def load(self, key: str) -> Session | None:
        return self._kept.get(key) or await self._patiently(lambda: self._inner.load(key))

    async def save(self, session: Session, ends_at: datetime | None) -> None:
        self._kept.pop(session.key, None)
        await self._patiently(lambda: self._inner.save(session, ends_at))
        if self._keep:
            self._kept[session.key] = session
            if len(self._kept) > self._keep:
                del self._kept[next(iter(self._kept))]

    async def drop(self, key: str) -> None:
        self._kept.pop(key, None)
        await self._patiently(lambda: self._inner.drop(key))

    async def take_ended(self, key: str, now: datetime) -> Session | None:
        return await self._inner.take_ended(key, now)

    async def next_end(self) -> datetime | None:
        return await self._inner.next_end()

    async def ended(self, now: datetime, limit: int = 100) -> Sequence[Session]:
        return await self._inner.ended(now, limit)

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        until = self._clock.monotonic() + self._patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await work()
            except StoreUnavailable as error:
                if self._clock.monotonic() + pause_s > until:
                    raise
                logger.warning("The store cannot be used; trying again in %.1f s: %s", pause_s, error)
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
