"""How the HTTP API writes: JSON, server-sent events, and a watch on whether the peer is still there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable

from starlette.types import Receive, Send

RETRY_AFTER_S = 5
_STATUS_HEADERS = {
    401: ((b"www-authenticate", b"Bearer"),),
    405: ((b"allow", b"POST"),),
    503: ((b"retry-after", str(RETRY_AFTER_S).encode()),),
}


async def while_connected(receive: Receive, work: Awaitable[None]) -> None:
    """Do `work` until the peer hangs up. What it waited for goes on without it."""
    working = asyncio.ensure_future(work)
    gone = asyncio.create_task(_hung_up(receive), name="api peer")
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def respond(send: Send, status: int, body: object) -> None:
    """The whole answer, as JSON."""
    content = json.dumps(body, ensure_ascii=False).encode()
    head = [*headers(b"application/json"), (b"content-length", str(len(content)).encode()), *_STATUS_HEADERS.get(status, ())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": content})


def headers(content_type: bytes) -> list[tuple[bytes, bytes]]:
    """Nothing between us and the program may keep or hold back what is sent."""
    return [(b"content-type", content_type), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


def event(kind: str, data: object) -> bytes:
    """One server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
