"""Typed lines without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

MAX_LINE_BYTES = 1_000_000
"""A longer line is handed on in parts."""
_CHUNK_BYTES = 65_536


class Lines(Protocol):
    """Where typed lines come from; an `asyncio.StreamReader` is one."""

    async def readline(self) -> bytes:
        """The next line with its newline; empty at the end."""


class Keyboard:
    """Reads a file descriptor: a terminal, a pipe or a plain file.

    No thread, for one that waits for a key holds up the exit of the process. The descriptor is not made non-blocking, for a terminal shares
    that setting with the output. One task may read at a time.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._typed = bytearray()

    async def readline(self) -> bytes:
        while b"\n" not in self._typed and len(self._typed) < MAX_LINE_BYTES:
            chunk = await self._read()
            if not chunk:
                break
            self._typed += chunk
        end = self._typed.find(b"\n", 0, MAX_LINE_BYTES) + 1 or min(len(self._typed), MAX_LINE_BYTES)
        line = bytes(self._typed[:end])
        del self._typed[:end]
        return line

    async def _read(self) -> bytes:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, readable.set)
        except PermissionError:  # epoll cannot watch a plain file, and need not: reading one never waits for anybody
            return os.read(self._descriptor, _CHUNK_BYTES)
        try:
            await readable.wait()
            return os.read(self._descriptor, _CHUNK_BYTES)
        finally:
            loop.remove_reader(self._descriptor)
