"""HTTP mode: DingTalk posts each message to us, signed with the app's secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.channels.dingtalk.parse import Raw, as_object
from gateway.channels.http_face import read_body
from gateway.clock import Clock
from gateway.errors import StoreError

MAX_SKEW_S = 3_600.0
"""DingTalk's document: refuse a timestamp that is more than an hour off (“receive messages”, protocol page 2026-11)."""

logger = logging.getLogger(__name__)

HearRaw: TypeAlias = Callable[[Raw], Awaitable[None]]
"""Takes a bot message. Returns when it is on disk; raises StoreError when it is not: then DingTalk is told 503."""


def signature(timestamp: str, secret: str) -> str:
    """What DingTalk puts into the header `sign`, and a custom robot wants in its query."""
    return base64.b64encode(hmac.new(secret.encode(), f"{timestamp}\n{secret}".encode(), hashlib.sha256).digest()).decode()


class Callback:
    """One app's callback address. The signature does not cover the body: the ledger's memory of message ids stands against replay."""

    def __init__(self, *, name: str, client_secret: str, clock: Clock) -> None:
        self._name = name
        self._client_secret = client_secret
        self._clock = clock
        self.hear: HearRaw | None = None
        """None while nobody listens: before the start and after the stop."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises BodyRefused and ClientDisconnect, which the listener answers."""
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method in {"GET", "HEAD"}:  # The developer console looks whether the address answers.
            return PlainTextResponse("chat-gateway\n")
        if request.method != "POST":
            return _said(405, "only POST")
        if (why := self._doubt(request.headers.get("timestamp", ""), request.headers.get("sign", ""))) is not None:
            logger.warning("Channel %s refused a callback: %s.", self._name, why)
            return _said(403, "forbidden")
        return await self._take(await read_body(request))

    async def _take(self, body: bytes) -> Response:
        if self.hear is None:
            return _said(503, "not listening")
        try:
            await self.hear(as_object(body))
        except StoreError as error:
            logger.warning("Channel %s: a callback is not acknowledged: %s", self._name, error)
            return _said(503, "not stored, try again")
        return PlainTextResponse("")

    def _doubt(self, timestamp: str, sign: str) -> str | None:
        """Why this request may not be DingTalk's; None when it is."""
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):
            return "no timestamp in the header"
        if not hmac.compare_digest(signature(timestamp, self._client_secret).encode(), sign.encode("utf-8", "replace")):
            return "the signature is not made with client_secret"
        skew_s = int(timestamp) / 1000 - self._clock.now().timestamp()
        return f"its timestamp is {skew_s:+.0f} s off; is the clock right?" if abs(skew_s) > MAX_SKEW_S else None


def _said(status: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", status, headers={"connection": "close"} if status >= 400 else None)
