"""The one HTTP listener: platform callbacks, the API, health and metrics share it. Also what the simulators listen with."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import StartupError

MAX_BODY_BYTES = 1_000_000
"""No platform we serve posts more; WeChat's largest callback is a few kilobytes."""
BODY_TIMEOUT_S = 10.0
HEADER_TIMEOUT_S = 10.0
"""A peer that takes longer for its request line and headers (slowloris) is disconnected."""


class BodyRefused(Exception):
    """The body is too large or too slow; `status` says which (413 or 408)."""

    def __init__(self, status: int) -> None:
        super().__init__(f"request body refused with {status}")
        self.status = status


async def read_body(request: Request, *, max_bytes: int = MAX_BODY_BYTES, timeout_s: float = BODY_TIMEOUT_S) -> bytes:
    """The whole body. Raises BodyRefused, or starlette's ClientDisconnect when the peer went away."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise BodyRefused(413)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    raise BodyRefused(413)
                chunks.append(chunk)
    except TimeoutError:
        raise BodyRefused(408) from None
    return b"".join(chunks)


class HttpFace:
    """Paths and who serves them. Channels mount before the listener opens; exact paths only, so a lookup is one dictionary access."""

    def __init__(self) -> None:
        self._endpoints: dict[str, ASGIApp] = {}

    def mount(self, path: str, endpoint: ASGIApp) -> None:
        """Serve `path` (exact, beginning with a slash) with an ASGI endpoint. Raises ValueError when it is taken."""
        if path in self._endpoints:
            raise ValueError(f"two parts want to serve {path}")
        self._endpoints[path] = endpoint

    @property
    def paths(self) -> list[str]:
        return sorted(self._endpoints)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            await _plain(send, 404, b"not found\n")
            return
        try:
            await endpoint(scope, receive, send)
        except BodyRefused as refused:
            await _plain(send, refused.status, b"refused\n")
        except ClientDisconnect:
            return


class WaitingRoom:
    """Stands at the door while the store is not there yet: alive, not ready, and nobody is answered, so that platforms come again."""

    def __init__(self, reason: str) -> None:
        self._not_ready = json.dumps({"ready": False, "parts": {"store": {"ok": False, "reason": reason}}}).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path")
        if path == "/healthz":
            await _answer(send, 200, b"application/json", b'{"alive":true}')
        elif path == "/readyz":
            await _answer(send, 503, b"application/json", self._not_ready)
        elif not await hang_up(receive):
            await _plain(send, 503, b"starting\n")


async def hang_up(receive: Receive) -> bool:
    """Close the connection of a request without an answer; False when that cannot be done.

    ASGI has no word for this. uvicorn's receive is a method of its request, which knows the connection; returning without an answer
    instead would make uvicorn send a 500, which WeChat shows to people as a fault.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        return False
    transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass
    return True


async def _plain(send: Send, status: int, body: bytes) -> None:
    await _answer(send, status, b"text/plain", body)


async def _answer(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _PatientlessProtocol(HttpToolsProtocol):
    """uvicorn has no time limit for the first headers of a connection; this adds one."""

    _header_alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header_alarm = self.loop.call_later(HEADER_TIMEOUT_S, self._give_up)

    def on_headers_complete(self) -> None:
        self._disarm()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def _disarm(self) -> None:
        if self._header_alarm is not None:
            self._header_alarm.cancel()
            self._header_alarm = None


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would re-raise SIGTERM when it returns and skip our clean-up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    async def main_loop(self) -> None:
        """uvicorn looks ten times a second whether to end; this one waits to be told."""
        await self.on_tick(0)
        await self.stop.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def open_socket(host: str, port: int) -> socket.socket:
    """A bound, listening socket; port 0 picks a free one. Raises StartupError that names host and port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY on what it accepts; without it, replies wait 40 ms for a delayed ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise StartupError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Is another gateway running? Set http.port to a free port."
        ) from error
    return listener


@asynccontextmanager
async def listening(app: ASGIApp, *, host: str = "127.0.0.1", port: int = 0, drain_s: float = 5.0) -> AsyncIterator[int]:
    """Serve `app` while the body runs; yields the port. On leaving, requests in flight get `drain_s` seconds to end."""
    listener = open_socket(host, port)
    config = uvicorn.Config(
        app,
        http=_PatientlessProtocol,
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(drain_s) or None,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        while not server.started:
            if task.done():
                task.result()
                raise StartupError(f"the HTTP listener on {host}:{port} ended at once")
            await asyncio.sleep(0.005)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        server.stop.set()
        await task
        listener.close()
