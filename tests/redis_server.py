"""A real redis-server of our own on a free port, that can be killed, frozen and started again."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

READY_S = 10.0
GIVEN_URL = os.environ.get("GATEWAY_TEST_REDIS_URL", "")
"""A server to use instead of our own; read before the tests' environment is cleaned."""


class RedisServer:
    """One server process with an append-only file in `folder`; keeps its port over restarts."""

    def __init__(self, folder: Path, *options: str, fsync: str = "always") -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = ("--appendonly", "yes", "--appendfsync", fsync, *options)
        self._process: subprocess.Popen[bytes] | None = None
        self._config: Path | None = None

    @classmethod
    def sentinel(cls, config: Path) -> RedisServer:
        """A Sentinel that reads (and rewrites) this file."""
        server = cls(config.parent, "--sentinel")
        server._options = ("--sentinel",)
        server._config = config
        return server

    def start(self) -> None:
        """Start, and wait until the server answers."""
        program = shutil.which("redis-server") or "redis-server"
        manners = ("--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder), "--logfile", str(self._folder / "redis.log"))
        words = [program, *([str(self._config)] if self._config else []), "--port", str(self.port)]
        self._process = subprocess.Popen([*words, *([] if self._config else manners), *self._options])
        deadline = time.monotonic() + READY_S
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"redis-server did not start; see {self._folder / 'redis.log'}")
            time.sleep(0.02)

    def kill(self) -> None:
        """As a power cut would, without one."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """It accepts connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(READY_S)
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


@functools.cache
def shared_url() -> str:
    """One server for all tests of this process that neither kill nor fill it: each takes a prefix of its own (`a_prefix`)."""
    if GIVEN_URL:
        return GIVEN_URL
    need_redis()
    folder = tempfile.TemporaryDirectory(prefix="gateway-redis-")
    server = RedisServer(Path(folder.name), fsync="no")
    server.start()
    atexit.register(folder.cleanup)
    atexit.register(server.kill)
    return server.url


def a_prefix() -> str:
    return f"test-{os.urandom(6).hex()}"


def has_redis() -> bool:
    return shutil.which("redis-server") is not None


def need_redis() -> None:
    """Skip the test at home, fail it where it must run."""
    if has_redis():
        return
    if os.environ.get("CI"):
        pytest.fail("There is no redis-server here, and CI must run these tests: apt-get install redis-server.")
    pytest.skip("NO REDIS-SERVER HERE: the Redis store is not tested. apt-get install redis-server")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
