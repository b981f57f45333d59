"""One connection to Redis for all callers: what they ask within one turn of the event loop goes out as one write."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from gateway.clock import Clock
from gateway.errors import StoreError, StoreUnavailable
from gateway.stores import redis_lane_scripts, redis_small_scripts, redis_turn_scripts
from gateway.stores.redis_scripts import Script
from gateway.stores.redis_wire import NoScript, Reply, Server

logger = logging.getLogger(__name__)

Word: TypeAlias = bytes | int

_ROOMS = (redis_turn_scripts, redis_lane_scripts, redis_small_scripts)
SCRIPTS = tuple(script for room in _ROOMS for script in vars(room).values() if isinstance(script, Script))

MAX_WAITING = 50_000
"""Calls that may wait for the server; more are refused at once."""
MAX_BATCH = 500
"""Calls in one write: a few hundred kilobytes at most as a rule, and a bound on what one broken connection takes with it."""
REPLY_S = 5.0
"""Redis answers in well under a millisecond; after so long it hangs, swaps or is cut off."""
PATIENCE_S = 1.0
"""How long calls wait for a connection that broke: a restart of the server is then hardly noticed."""
PAUSE_S = 0.05


class _Call:
    """A command on its way, and whoever waits for its reply."""

    __slots__ = ("again", "future", "packed", "sent")

    def __init__(self, packed: bytes, again: bool, future: asyncio.Future[Reply]) -> None:
        self.packed = packed
        self.again = again
        self.future = future
        self.sent = False

    def settle(self, reply: Reply) -> None:
        """`reply` may be a StoreError. Whoever gave up waiting misses nothing."""
        if self.future.done():
            return
        if isinstance(reply, StoreError):
            self.future.set_exception(reply)
        else:
            self.future.set_result(reply)


class Line:
    """Sends commands and scripts; the replies come in order.

    When the connection breaks, calls that were not sent or that may be repeated (`Script.again`) wait up to `PATIENCE_S` for a new one;
    the others, and all of them after that, fail with StoreUnavailable.
    """

    def __init__(self, server: Server, clock: Clock, prefix: str, *, reply_s: float = REPLY_S, connect_s: float = 3.0) -> None:
        """`prefix` begins the name of every key."""
        self._server = server
        self._wire = server.wire()
        self._clock = clock
        self._reply_s = reply_s
        self._connect_s = connect_s
        self._bodies = [script.body.replace("PREFIX", prefix).encode() for script in SCRIPTS]
        self._heads = {script: _head(body) for script, body in zip(SCRIPTS, self._bodies, strict=True)}
        self._calls: deque[_Call] = deque()
        self._batch: list[_Call] = []
        self._wanted = asyncio.Event()
        self._closed = False
        self._worker = asyncio.create_task(self._work(), name="redis line")
        self._worker.add_done_callback(self._end)

    def ask(self, *words: Word, again: bool = True) -> asyncio.Future[Reply]:
        """One plain command."""
        return self._put(pack(words), again)

    def run(self, script: Script, key: bytes, *arguments: Word) -> asyncio.Future[Reply]:
        """One script; `key` says on which node of a cluster."""
        count = b"*%d\r\n" % (len(arguments) + 4)
        return self._put(b"".join((count, self._heads[script], *map(_word, (key, *arguments)))), script.again)

    def note(self, script: Script, key: bytes, *arguments: Word) -> None:
        """One script whose end nobody waits for."""
        self.run(script, key, *arguments).add_done_callback(_regret)

    async def aclose(self) -> None:
        """Finish what was asked, then hang up; from now on every call fails."""
        self._closed = True
        self._wanted.set()
        await asyncio.gather(asyncio.shield(self._worker), return_exceptions=True)
        await self._wire.drop()

    def _put(self, packed: bytes, again: bool) -> asyncio.Future[Reply]:
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        if len(self._calls) >= MAX_WAITING:
            raise StoreUnavailable(f"{len(self._calls)} calls are waiting for Redis at {self._server.where}.")
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(packed, again, future))
        self._wanted.set()
        return future

    def _end(self, worker: asyncio.Task[None]) -> None:
        """Nobody may wait for a worker that is gone, whatever ended it."""
        self._closed = True
        if not worker.cancelled() and (error := worker.exception()) is not None:
            logger.critical("The line to Redis broke for good: restart the gateway.", exc_info=error)
        for call in [*self._batch, *self._calls]:
            call.settle(StoreUnavailable("The store is closed."))

    async def _work(self) -> None:
        while self._calls or not self._closed:
            await self._wanted.wait()
            if not self._closed:
                self._wanted.clear()
            while self._calls:
                count = min(len(self._calls), MAX_BATCH)
                self._batch = [self._calls.popleft() for _ in range(count)]
                await self._deliver(self._batch)
                self._batch = []

    async def _deliver(self, batch: Sequence[_Call]) -> None:
        """Ends with every call of `batch` settled."""
        patient_until = self._clock.monotonic() + PATIENCE_S
        while batch:
            try:
                await self._attempt(batch)
            except StoreError as error:
                batch = self._sort_out(batch, error, patient=self._clock.monotonic() < patient_until)
            else:
                return
            if batch:
                await self._clock.sleep(PAUSE_S)

    def _sort_out(self, batch: Sequence[_Call], error: StoreError, *, patient: bool) -> list[_Call]:
        """Tell those who wait in vain, each with an error of his own; returns the others."""
        waiting = [call for call in batch if not call.future.done()]
        hopeful = patient and type(error) is StoreUnavailable
        for call in waiting:
            if not hopeful or (call.sent and not call.again):
                call.settle(_copy(error))
        return [call for call in waiting if not call.future.done()]

    async def _attempt(self, batch: Sequence[_Call]) -> None:
        try:
            async with self._clock.timeout(self._connect_s):
                await self._connect()
        except TimeoutError:
            raise StoreUnavailable(f"Redis at {self._server.where} cannot be reached (timeout).") from None
        try:
            async with self._clock.timeout(self._reply_s):
                await self._exchange(batch)
        except TimeoutError:
            await self._wire.drop()
            raise _Hanging(f"Redis at {self._server.where} did not answer within {self._reply_s:g} s.") from None

    async def _connect(self) -> None:
        if await self._wire.connect():
            await self._load()

    async def _load(self) -> None:
        """Tell the server all scripts; it forgets them with its memory."""
        await self._wire.send(b"".join(pack((b"SCRIPT", b"LOAD", body)) for body in self._bodies))
        for reply in [await self._wire.receive() for _ in self._bodies]:
            if isinstance(reply, StoreError):
                await self._wire.drop()
                raise reply

    async def _exchange(self, batch: Sequence[_Call]) -> None:
        for call in batch:
            call.sent = True
        await self._wire.send(b"".join([call.packed for call in batch]))
        unknown = []
        for call in batch:
            reply = await self._wire.receive()
            if isinstance(reply, NoScript):
                unknown.append(call)
            else:
                call.settle(reply)
        if unknown:
            await self._load()
            await self._exchange(unknown)


class _Hanging(StoreUnavailable):
    """No reply in time: waiting longer would make it no better."""


def pack(words: Sequence[Word]) -> bytes:
    """A command as it travels (RESP, redis.io/docs/latest/develop/reference/protocol-spec)."""
    return b"".join((b"*%d\r\n" % len(words), *map(_word, words)))


def _word(word: Word) -> bytes:
    text = word if isinstance(word, bytes) else b"%d" % word
    return b"$%d\r\n%b\r\n" % (len(text), text)


def _head(body: bytes) -> bytes:
    sha = hashlib.sha1(body, usedforsecurity=False).hexdigest().encode()
    return b"".join((_word(b"EVALSHA"), _word(sha), _word(1)))


def _copy(error: StoreError) -> StoreError:
    copy = type(error)(str(error))
    copy.__cause__ = error.__cause__
    return copy


def _regret(future: asyncio.Future[Reply]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.info("A note to Redis was lost: %s", error)
