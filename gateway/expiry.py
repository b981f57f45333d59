"""Ends sessions on time, without waiting for another message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

from gateway.clock import Clock
from gateway.errors import Busy, StoreError
from gateway.lanes import Lanes
from gateway.sessions.session import Session
from gateway.stores.base import SessionStore

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0
"""Between two looks at what has ended, so that a store which keeps naming the same sessions cannot keep the processor busy."""
STORE_PAUSE_S = 10.0
BATCH = 200


class Expiry:
    """The real timer: sleeps until the earliest end of any session, then ends what is over, each inside its own lane."""

    def __init__(
        self,
        *,
        sessions: SessionStore,
        lanes: Lanes,
        clock: Clock,
        farewell: Callable[[Session], Awaitable[None]] | None,
    ) -> None:
        self._sessions = sessions
        self._lanes = lanes
        self._clock = clock
        self._farewell = farewell
        self._earlier = asyncio.Event()
        self._next: datetime | None = None
        self.ended = 0

    def expect(self, end: datetime | None) -> None:
        """A session was saved that ends at `end`; wakes the timer only when that is earlier than what it waits for."""
        if end is not None and (self._next is None or end < self._next):
            self._next = end
            self._earlier.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._wait_for_next()
                await self._end_what_is_over()
                await self._clock.sleep(LOOK_AGAIN_S)
            except StoreError as error:
                logger.error("Sessions cannot be ended now, trying again in %d s: %s", STORE_PAUSE_S, error)
                await self._clock.sleep(STORE_PAUSE_S)

    async def _wait_for_next(self) -> None:
        self._next = await self._sessions.next_end()
        while self._next is None or self._next > self._clock.now():
            self._earlier.clear()
            seconds = (self._next - self._clock.now()).total_seconds() if self._next else None
            try:
                async with self._clock.timeout(seconds):
                    await self._earlier.wait()
            except TimeoutError:
                self._next = await self._sessions.next_end()

    async def _end_what_is_over(self) -> None:
        progress = True
        while progress:
            before = self.ended
            over = await self._sessions.ended(self._clock.now(), BATCH)
            await asyncio.gather(*(self._in_its_lane(session) for session in over))
            progress = len(over) == BATCH and self.ended > before

    async def _in_its_lane(self, session: Session) -> None:
        done = asyncio.Event()
        try:
            self._lanes.enter(session.key, partial(self._end, session.key, done))
        except Busy:
            return  # messages wait in this conversation: the next of them starts a new session by itself
        await done.wait()

    async def _end(self, key: str, done: asyncio.Event) -> None:
        try:
            session = await self._sessions.take_ended(key, self._clock.now())
            if session is None:
                return
            self.ended += 1
            logger.info("Session %s ended.", key, extra={"action": "session_ended"})
            if self._farewell is not None:
                await self._farewell(session)
        finally:
            done.set()
