"""One HTTP request of the platform, held open until it is answered or hung up. Knows HTTP and nothing of WeChat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.channels.http_face import MAX_BODY_BYTES, BodyRefused, hang_up

_MAX_QUERY_FIELDS = 20


class HeldRequest:
    """Answered at most once. Waiting costs no task: the coroutine that serves it waits for the connection itself."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.over = False
        """Answered, or the peer has gone."""
        self.seal: Callable[[str], str] = str
        """Applied to answers; the channel sets it when the request was encrypted."""

    @property
    def method(self) -> str:
        return str(self._scope["method"])

    def query(self) -> dict[str, str]:
        """The query's fields, the last of equal ones; none at all when they are too many."""
        query = self._scope["query_string"].decode("latin-1")
        if "%" not in query and "+" not in query and query.count("&") < _MAX_QUERY_FIELDS:
            # What WeChat sends needs no unquoting; this is a tenth of parse_qsl's time.
            return dict([pair.split("=", 1) for pair in query.split("&") if "=" in pair])
        try:
            return dict(parse_qsl(query, max_num_fields=_MAX_QUERY_FIELDS))
        except ValueError:
            return {}

    async def body(self, timeout_s: float) -> bytes:
        """The whole body. Raises BodyRefused and ClientDisconnect as `read_body` does, without the Request that one is built around."""
        body: bytes = b""
        try:
            async with asyncio.timeout(timeout_s):
                while (message := await self._receive())["type"] == "http.request":
                    body += message.get("body", b"")
                    if len(body) > MAX_BODY_BYTES:
                        raise BodyRefused(413)
                    if not message.get("more_body", False):
                        return body
        except TimeoutError:
            raise BodyRefused(408) from None
        raise ClientDisconnect

    async def answer(self, reply: str) -> bool:
        """Write `reply`, sealed when the request was; False when this request is over already."""
        return await self._write(200, b"text/xml; charset=utf-8", self.seal(reply).encode())

    async def say(self, status: int, text: str) -> bool:
        """Write a plain text, never sealed. A refusal also ends the connection."""
        return await self._write(status, b"text/plain; charset=utf-8", text.encode(), close=status >= 400)

    async def alive(self) -> bool:
        """Whether the peer is still there and nothing was answered. The body must have been read."""
        probe = asyncio.create_task(self.until_over(), name="is the peer there")
        await asyncio.sleep(0)
        probe.cancel()
        await asyncio.wait({probe})
        return not self.over

    async def until_over(self) -> None:
        """Return when the peer has gone or the answer was written (ASGI tells both as http.disconnect). The body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.over = True

    async def hang_up(self) -> None:
        """Close the connection without an answer."""
        if self.over:
            return
        self.over = True
        if not await hang_up(self._receive):
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            await self._send({"type": "http.response.start", "status": 408, "headers": headers})
            await self._send({"type": "http.response.body", "body": b""})

    async def _write(self, status: int, content_type: bytes, body: bytes, *, close: bool = False) -> bool:
        if self.over:
            return False
        self.over = True
        headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        if close:
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
        return True
