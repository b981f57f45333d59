"""A ledger for turns in the making: what cannot be written now is kept in memory and written when the store is back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.messages import Answer, Inbound, Outcome, TurnKey
from gateway.stores.base import Ledger, TurnRecord, TurnState

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class PatientLedger(Ledger):
    """Tries the writes of a running turn again, with growing pauses, for at most `patience_s` seconds.

    `accept` is never tried again: a message that cannot be written at once must not be acknowledged, so that its platform delivers it
    again. Reads pass through.
    """

    def __init__(self, inner: Ledger, clock: Clock, *, patience_s: float = 120.0) -> None:
        self._inner = inner
        self._clock = clock
        self._patience_s = patience_s

    async def accept(self, inbound: Inbound, now: datetime) -> TurnRecord | None:
        return await self._inner.accept(inbound, now)

    async def answering(self, key: TurnKey) -> None:
        await self._patiently(lambda: self._inner.answering(key))

    async def answered(self, key: TurnKey, answer: Answer, answered_by: str, now: datetime) -> None:
        await self._patiently(lambda: self._inner.answered(key, answer, answered_by, now))

    async def showing(self, key: TurnKey, piece: int) -> None:
        await self._patiently(lambda: self._inner.showing(key, piece))

    async def shown(self, key: TurnKey, pieces: int) -> None:
        await self._patiently(lambda: self._inner.shown(key, pieces))

    async def closed(self, key: TurnKey, outcome: Outcome, now: datetime) -> None:
        await self._patiently(lambda: self._inner.closed(key, outcome, now))

    async def unfinished(self) -> list[TurnRecord]:
        return await self._inner.unfinished()

    async def find(self, message_id: str) -> list[TurnRecord]:
        return await self._inner.find(message_id)

    async def latest(self, *, state: TurnState | None = None, outcome: str | None = None, limit: int = 100) -> list[TurnRecord]:
        return await self._inner.latest(state=state, outcome=outcome, limit=limit)

    async def latest_of(self, channel: str, account: str, sender: str, *, before: TurnKey | None = None) -> TurnRecord | None:
        return await self._inner.latest_of(channel, account, sender, before=before)

    async def prune(self, before: datetime, limit: int = 500) -> int:
        return await self._inner.prune(before, limit)

    async def _patiently(self, write: Callable[[], Awaitable[None]]) -> None:
        until = self._clock.monotonic() + self._patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await write()
            except StoreUnavailable as error:
                if self._clock.monotonic() + pause_s > until:
                    raise
                logger.warning("The store cannot write; trying again in %.1f s: %s", pause_s, error)
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
