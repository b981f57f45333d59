"""News over Redis' publish and subscribe, heard on a connection of its own: a listening connection can do nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.clock import Clock
from gateway.errors import StoreError, StoreUnavailable
from gateway.stores.base import Bulletin
from gateway.stores.redis_line import Line, pack
from gateway.stores.redis_rows import decoded, encoded
from gateway.stores.redis_space import Space
from gateway.stores.redis_wire import Reply, Server

logger = logging.getLogger(__name__)

CONNECT_S = 3.0
SILENCE_S = 10.0
"""After so long without a word the server is asked whether it is still there; after twice that long it is not."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
OWN_EARS_S = 1.0
"""How long `publish` waits for this process's own topics to be listened to, so that it hears itself."""


class RedisBulletin(Bulletin):
    """Nothing is kept: what is said while the connection is down is not heard."""

    def __init__(self, line: Line, server: Server, space: Space, clock: Clock) -> None:
        self._line = line
        self._wire = server.wire()
        self._space = space
        self._kind = b"news:%d:" % server.database  # Redis' channels know no databases: another gateway's news would be heard as ours
        self._clock = clock
        self._heard: dict[bytes, list[Callable[[str], None]]] = {}
        self._listening: set[bytes] = set()
        self._settled = asyncio.Event()
        self._settled.set()
        self._asking: set[asyncio.Task[None]] = set()
        self._ear: asyncio.Task[None] | None = None
        self._connected = False

    async def publish(self, topic: str, text: str) -> None:
        try:
            async with self._clock.timeout(OWN_EARS_S):
                await self._settled.wait()
        except TimeoutError:
            logger.info("News are published before this process can hear them.")
        await self._line.ask(b"PUBLISH", self._space.key(self._kind, encoded(topic)), encoded(text))

    def listen(self, topic: str, heard: Callable[[str], None]) -> None:
        channel = self._space.key(self._kind, encoded(topic))
        self._heard.setdefault(channel, []).append(heard)
        if channel in self._listening:
            return
        self._settled.clear()
        if self._ear is None:
            self._ear = asyncio.create_task(self._listen(), name="redis bulletin")
        elif self._connected:
            task = asyncio.create_task(self._ask_for(channel), name="redis subscription")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def aclose(self) -> None:
        tasks = [*self._asking, *([self._ear] if self._ear else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._wire.drop()

    async def _listen(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._connect()
                pause_s = FIRST_PAUSE_S
                while True:
                    self._take(await self._next())
            except StoreError as error:
                logger.warning("News of other processes are not heard now: %s", error)
            self._connected = False
            self._listening.clear()
            self._settled.clear()
            await self._wire.drop()
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _connect(self) -> None:
        try:
            async with self._clock.timeout(CONNECT_S):
                await self._wire.connect()
                await self._wire.send(pack((b"SUBSCRIBE", *self._heard)))
        except TimeoutError:
            raise StoreUnavailable("Redis cannot be reached (timeout).") from None
        self._connected = True

    async def _ask_for(self, channel: bytes) -> None:
        if not self._connected:
            return  # the next connection listens to every topic
        try:
            await self._wire.send(pack((b"SUBSCRIBE", channel)))
        except StoreError as error:
            logger.info("The connection for news broke while a topic was added; the next one listens to it too: %s", error)

    async def _next(self) -> Reply:
        """The next word of the server. Asks for one when it is silent for long: a connection that is cut off looks just like that."""
        for question in (b"PING", b""):
            reply = await self._wire.receive(within_s=SILENCE_S)
            if reply is not None:
                return reply
            if question:
                await self._wire.send(pack((question,)))
        raise StoreUnavailable("Redis is silent.")

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, StoreError):
            raise reply
        match reply:
            case [b"message", channel, text]:
                self._tell(channel, text)
            case [b"subscribe", channel, _]:
                self._listening.add(channel)
                if self._listening >= self._heard.keys():
                    self._settled.set()

    def _tell(self, channel: bytes, text: bytes) -> None:
        for heard in tuple(self._heard.get(channel, ())):
            try:
                heard(decoded(text))
            except Exception:  # one listener must not make the process deaf
                logger.exception("A listener to news broke.")
