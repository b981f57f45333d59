"""A real redis-server on loopback that can be killed and comes back with its data."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

BINARY = shutil.which("redis-server")


class RedisServer:
    """Append-only, so that what was answered is in the file: a dead server has lost nothing that it promised."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        assert BINARY is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "redis.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", "",
                "--appendonly", "yes", "--appendfsync", "everysec", stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(20):
            while not await self._answers():  # noqa: ASYNC110 - another process comes up
                await asyncio.sleep(0.02)

    async def _answers(self) -> bool:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(b"PING\r\n")
            answer = await reader.readline()
            writer.close()
            return answer.startswith(b"+PONG")
        return False

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RedisServer]:
        await self.start()
        try:
            yield self
        finally:
            await self.kill()
