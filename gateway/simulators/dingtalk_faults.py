"""The fault knobs of the DingTalk simulator, and the two ways in that obey them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

OPEN, CONNECT, WEBHOOK, TOKEN = "/v1.0/gateway/connections/open", "/connect", "/robot/sendBySession", "/v1.0/oauth2/accessToken"
TO_PERSON, TO_GROUP, QUERY = "/v1.0/robot/oToMessages/batchSend", "/v1.0/robot/groupMessages/send", "/v1.0/robot/groupMessages/query"
ROBOT = "/robot/send"


@dataclass(slots=True, kw_only=True)
class DingTalkFaults:
    """The knobs. Paths are those of the constants above."""

    ack_timeout_s: float = 60.0
    """A bot message not acknowledged by then is pushed again, unchanged."""
    pushes: int = 3
    """How often one message is pushed at most."""
    ping_every_s: float = 60.0
    """0: never by itself."""
    ticket_ttl_s: float = 90.0
    webhook_ttl_s: float = 5_400.0
    drain_s: float = 10.0
    """How long after `disconnect` the socket is closed."""
    hang: dict[str, float] = field(default_factory=dict)
    """Path → seconds until it does anything."""
    status: dict[str, int] = field(default_factory=dict)
    """Path → HTTP status it answers instead of its work."""
    html: list[str] = field(default_factory=list)
    """Paths that answer 200 with a web page, as a captive portal does."""
    reset: list[str] = field(default_factory=list)
    """Paths whose connection is cut before they do anything."""
    open_failures: int = 0
    """So many of the next opens answer 503."""
    close_at_once: bool = False
    """Every WebSocket is closed right after it was opened."""
    duplicate_frames: bool = False
    """Every bot message is pushed twice at once."""
    webhook_errcodes: list[int] = field(default_factory=list)
    """What the next webhook posts answer, one each; 0 is success."""
    webhook_cuts: int = 0
    """So many of the next webhook posts are shown, then cut instead of answered."""
    send_cuts: int = 0
    """The same for the next OpenAPI sends."""
    unpublished: bool = False
    """No version of the app is published: no Stream connection, and its robot is unknown."""
    no_stream: bool = False
    """The robot is published in HTTP mode."""
    ip_refused: list[str] = field(default_factory=list)
    """OpenAPI paths that an IP allow-list shuts."""
    no_scope: bool = False
    """The app may not send messages."""
    calls_left: int | None = None
    """Billable calls left of the organisation's month; None: as many as you like."""
    calls_per_second: int = 20
    """Per OpenAPI path, in any second."""
    not_in_groups: list[str] = field(default_factory=list)
    """Groups that the bot was taken out of."""
    invalid_staff: list[str] = field(default_factory=list)
    """People (by name) whom the app may not see."""
    flow_controlled: list[str] = field(default_factory=list)
    """People (by name) who got too many messages."""
    clock_skew_s: float = 0.0
    """How far DingTalk's `Date` header is ahead of the simulator's clock."""
    callback_url: str = ""
    """HTTP mode: where messages are posted instead of being pushed over Stream."""
    callback_skew_s: float = 0.0
    """How far the timestamp of a callback is off."""
    callback_secret: str | None = None
    """Sign callbacks with this instead of the app's secret."""


class Cuttable(Protocol):
    """A transport that can break off without a closing handshake."""

    def abort(self) -> None: ...


class Door:
    """A WebSocket path as plain ASGI: only so is the transport at hand that a fault must cut."""

    def __init__(self, serve: Callable[[WebSocket, Cuttable], Awaitable[None]]) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(WebSocket(scope, receive, send), _transport(receive))


def faulty_route(path: str, faults: DingTalkFaults, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    """POST `path`, served by `endpoint` unless a knob says otherwise."""

    async def with_faults(request: Request) -> Response:
        await request.body()  # First of all: what was sent has arrived, however long the answer takes.
        await asyncio.sleep(faults.hang.get(path, 0))
        if path in faults.reset:
            return await cut(request)
        if path in faults.html:
            return Response("<html><body>请先登录</body></html>", media_type="text/html")
        status = faults.status.get(path)
        return JSONResponse({"code": "simulated", "message": "fault"}, status) if status else await endpoint(request)

    return Route(path, with_faults, methods=["POST"])


async def cut(request: Request) -> Response:
    """Break off instead of answering."""
    _transport(request.receive).abort()
    await asyncio.sleep(0.01)  # Until uvicorn has noticed; it then drops the response without a word.
    return Response()


def _transport(receive: Receive) -> Cuttable:
    """uvicorn hands in a bound method of the object that holds the transport."""
    return cast(Cuttable, receive.__self__.transport)  # type: ignore[attr-defined]  # no public way exists
