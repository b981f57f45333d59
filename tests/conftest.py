"""What every test gets without asking: a clean environment and no way out of this machine."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from typing import Any

import pytest

#: What may stay in the environment of a test; everything else could change what it finds.
KEPT = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "TZ",
    "CI",
    "SYSTEMROOT",
    "VIRTUAL_ENV",
    "HYPOTHESIS_",
    "PYTEST_",
    "COVERAGE_",
    "PYTHON",
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no key, no GATEWAY_… override of the person who runs the tests."""
    for name in list(os.environ):
        if not name.startswith(KEPT):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that wants to leave this machine fails loudly instead of hanging or telling the world."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def checked_connect(self: socket.socket, address: Any) -> None:
        _refuse_outside(self, address)
        connect(self, address)

    def checked_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse_outside(self, address)
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", checked_connect_ex)


def _refuse_outside(sock: socket.socket, address: Any) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = address[0]
    if host != "localhost" and not _is_loopback(host):
        raise RuntimeError(f"this test wanted to reach {host!r}; tests stay on loopback")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
