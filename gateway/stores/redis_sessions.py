"""The sessions and the shelf in Redis: strings, and a sorted set of their ends each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from gateway.errors import LeaseLost
from gateway.sessions.session import Session
from gateway.stores import redis_small_scripts as scripts
from gateway.stores.base import SessionStore, Shelf
from gateway.stores.redis_leases import Leases
from gateway.stores.redis_line import Line, Word
from gateway.stores.redis_rows import BROKEN, decoded, encoded, moment, session_column
from gateway.stores.redis_scripts import Script
from gateway.stores.redis_space import Space
from gateway.stores.rows import column_session, column_time, time_column

logger = logging.getLogger(__name__)


class RedisSessions(SessionStore):
    """A session is saved only by the process that holds the lane of its name, or by any when nobody holds it."""

    def __init__(self, line: Line, space: Space, leases: Leases) -> None:
        self._line = line
        self._space = space
        self._leases = leases

    async def load(self, key: str) -> Session | None:
        return await self._session(encoded(key), await self._line.ask(b"GET", self._place(key)))

    async def save(self, session: Session, ends_at: datetime | None) -> None:
        await self._write(scripts.SAVE_SESSION, session.key, session_column(session), moment(ends_at))

    async def drop(self, key: str) -> None:
        await self._write(scripts.DROP_SESSION, key)

    async def next_end(self) -> datetime | None:
        first = await self._line.ask(b"ZRANGE", self._space.key(b"ends"), 0, 0, b"WITHSCORES")
        return column_time(int(float(first[1]))) if first else None

    async def ended(self, now: datetime, limit: int = 100) -> Sequence[Session]:
        found = await self._line.run(scripts.ENDED, self._space.key(b"ends"), moment(now), limit)
        sessions = [await self._session(key, content) for key, content in zip(found[::2], found[1::2], strict=True)]
        return [session for session in sessions if session is not None]

    async def take_ended(self, key: str, now: datetime) -> Session | None:
        return await self._session(encoded(key), await self._line.run(scripts.TAKE_ENDED, self._place(key), encoded(key), moment(now)))

    async def _write(self, script: Script, key: str, *words: Word) -> None:
        if await self._line.run(script, self._place(key), encoded(key), self._leases.token(key), *words) == 0:
            self._leases.lose(key)
            raise LeaseLost(f"Another process works on conversation {key}.")

    async def _session(self, key: bytes, content: bytes | None) -> Session | None:
        if content is None:
            return None
        try:
            return column_session(content)
        except BROKEN as error:
            await _set_aside(self._line, self._space.key(b"s:", key), b"ends", key, content, type(error).__name__)
            return None

    def _place(self, key: str) -> bytes:
        return self._space.key(b"s:", encoded(key))


class RedisShelf(Shelf):
    """A value is kept behind its time in microseconds and a bar, so that one `GET` reads both."""

    def __init__(self, line: Line, space: Space) -> None:
        self._line = line
        self._space = space

    async def put(self, name: str, value: str, keep_until: datetime | None) -> None:
        await self._line.run(scripts.PUT, self._place(name), encoded(name), moment(keep_until), encoded(value))

    async def add(self, name: str, value: str, keep_until: datetime | None, now: datetime) -> bool:
        words = (encoded(name), moment(keep_until), encoded(value), moment(now))
        return bool(await self._line.run(scripts.ADD, self._place(name), *words))

    async def get(self, name: str, now: datetime) -> str | None:
        content = await self._line.ask(b"GET", self._place(name))
        if content is None:
            return None
        try:
            till, _, value = content.partition(b"|")
            return decoded(value) if not till or int(till) > time_column(now) else None
        except ValueError as error:
            await _set_aside(self._line, self._place(name), b"shelf", encoded(name), content, type(error).__name__)
            return None

    async def drop(self, name: str) -> None:
        await self._line.run(scripts.TAKE_DOWN, self._place(name), encoded(name))

    async def prune(self, now: datetime, limit: int = 500) -> int:
        count: int = await self._line.run(scripts.CLEAR_SHELF, self._space.key(b"shelf"), moment(now), limit)
        return count

    def _place(self, name: str) -> bytes:
        return self._space.key(b"v:", encoded(name))


async def _set_aside(line: Line, place: bytes, index: bytes, name: bytes, content: bytes, why: str) -> None:
    """Keep what cannot be read where nobody stumbles over it."""
    await line.run(scripts.SET_ASIDE, place, b"%b %b: %b: %b" % (index, name, why.encode(), content), index, name)
    logger.error("%s of %r cannot be read (%s); it was set aside.", index.decode(), name, why)
