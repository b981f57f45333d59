"""Debian's nginx with deploy/nginx.conf: the very file, with its addresses exchanged."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONF = Path(__file__).parents[2] / "deploy" / "nginx.conf"

needs_nginx = pytest.mark.skipif(NGINX is None, reason="NO NGINX HERE: deploy/nginx.conf is not tested. apt-get install nginx-light")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def nginx(folder: Path, gateways: list[int]) -> AsyncIterator[int]:
    """deploy/nginx.conf at work; yields its port."""
    port, text = free_port(), CONF.read_text(encoding="utf-8")
    changes = {
        "10.77.0.11:8080": f"127.0.0.1:{gateways[0]}",
        "10.77.0.12:8080": f"127.0.0.1:{gateways[1]}",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "/tmp/nginx": f"{folder}/nginx",
        "worker_processes auto": "worker_processes 1",
        "/dev/stdout": f"{folder}/access.log",
        "/dev/stderr": f"{folder}/error.log",
    }
    for old, new in changes.items():
        assert old in text, f"{old} is no longer in deploy/nginx.conf"
        text = text.replace(old, new)
    conf = folder / "nginx.conf"
    conf.write_text(text, encoding="utf-8")
    assert NGINX is not None
    command = [NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(conf), "-g", "daemon off;"]
    running = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await until_listening(port)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.terminate()
        await running.wait()


async def until_listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
