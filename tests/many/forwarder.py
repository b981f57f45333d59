"""A load balancer of a few lines: every new connection goes to the next gateway that lives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Forwarder:
    """Round robin over `ports`; `taken` says to which port each connection went. `first` is the index that gets the next one."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.dead: set[int] = set()
        self.taken: list[int] = []
        self._took = asyncio.Condition()
        self.next = 0
        self.port = 0
        self._writers: dict[asyncio.StreamWriter, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Forwarder]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def until_taken(self, count: int, timeout_s: float = 5.0) -> None:
        """Wait until so many connections came in all. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s), self._took:
            await self._took.wait_for(lambda: len(self.taken) >= count)

    def kill(self, port: int) -> None:
        """What lies behind `port` is gone, with every connection to it."""
        self.dead.add(port)
        for writer, its_port in tuple(self._writers.items()):
            if its_port == port:
                writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._choose()
        if port is None:
            writer.transport.abort()
            return
        self.taken.append(port)
        async with self._took:
            self._took.notify_all()
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", port)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        ways = [asyncio.create_task(_copy(reader, to_there)), asyncio.create_task(_copy(there, writer))]
        self._writers[writer] = port
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._writers[writer]
            writer.close()
            to_there.close()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def _choose(self) -> int | None:
        for _ in self.ports:
            port = self.ports[self.next % len(self.ports)]
            self.next += 1
            if port not in self.dead:
                return port
        return None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
