"""The fault knobs of the iLink simulator, and the way in that obeys them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

QR, STATUS, UPDATES, SEND = ("ilink/bot/" + name for name in ("get_bot_qrcode", "get_qrcode_status", "getupdates", "sendmessage"))
CONFIG, TYPING, UPLOAD = ("ilink/bot/" + name for name in ("getconfig", "sendtyping", "getuploadurl"))
NOTIFY_START, NOTIFY_STOP = "ilink/bot/msg/notifystart", "ilink/bot/msg/notifystop"
STALE = -14


@dataclass(slots=True, kw_only=True)
class ILinkFaults:
    """The knobs. Paths are those of the constants above."""

    hold_s: float = 25.0
    """How long a poll for messages is held when there are none."""
    scanner: str = "小明"
    """Who scans the next QR code."""
    qr_states: list[str] = field(default_factory=lambda: ["wait", "scaned"])
    """What the next questions for the state of a code are answered, one each; then it is confirmed. `need_verifycode` stays until the
    digits are right."""
    verify_code: str = "4321"
    redirect_host: str = ""
    """Where `scaned_but_redirect` sends on; empty: here, by the name localhost."""
    home_url: str = ""
    """The `baseurl` that a sign-in names; empty: here."""
    status: dict[str, list[int]] = field(default_factory=dict)
    """Path → HTTP statuses that the next requests are answered with, one each."""
    hang: dict[str, float] = field(default_factory=dict)
    """Path → seconds until it does anything."""
    reset: dict[str, int] = field(default_factory=dict)
    """Path → how many of the next requests are cut before anything happens."""
    html: list[str] = field(default_factory=list)
    """Paths that answer 200 with a web page, as a captive portal does."""
    stale: list[str] = field(default_factory=list)
    """People whose token is no longer good."""
    stale_field: str = "errcode"
    """Where -14 stands: `ret` or `errcode`."""
    update_rets: list[int] = field(default_factory=list)
    """What the next polls say in `ret`, one each."""
    send_answers: list[list[Any]] = field(default_factory=list)
    """[ret, errmsg] of the next messages, one each; such a message is not shown."""
    suppressed: int = 0
    """So many of the next messages are answered `ret` 0 without an id, and nobody sees them."""
    send_cuts: int = 0
    """So many of the next messages are shown, then cut instead of answered."""
    duplicates: int = 0
    """So many of the next batches come twice."""
    poison: int = 0
    """So many of the next batches begin with something that is no message."""
    text_ids: bool = False
    """Ids are JSON strings instead of numbers above 2^53."""
    without_token: bool = False
    """Messages come without a context_token."""
    per_inbound: int = 10
    window_s: float = 86_400.0
    shown_chars: int = 2_000
    """The phone shows so many characters of a text and drops the rest."""
    cdn_failures: int = 0
    """So many of the next CDN requests answer 500."""


Page = Callable[[Request], Awaitable[Response]]


def faulty_route(path: str, faults: ILinkFaults, page: Page, *, methods: tuple[str, ...] = ("POST",)) -> Route:
    """`page`, unless a knob says otherwise."""

    async def with_faults(request: Request) -> Response:
        try:
            await request.body()
        except ClientDisconnect:
            return Response()
        await asyncio.sleep(faults.hang.get(path, 0))
        if faults.reset.get(path, 0) > 0:
            faults.reset[path] -= 1
            return await cut(request)
        if path in faults.html:
            return Response("<html><body>请先登录</body></html>", media_type="text/html")
        if faults.status.get(path):
            return JSONResponse({"message": "simulated"}, faults.status[path].pop(0))
        return await page(request)

    return Route(f"/{path}", with_faults, methods=list(methods))


async def cut(request: Request) -> Response:
    """Break off instead of answering."""
    receive = cast(Any, request.receive)  # uvicorn hands in a bound method of the object that holds the transport; no public way exists
    receive.__self__.transport.abort()
    await asyncio.sleep(0.01)  # until uvicorn has noticed; it then drops the response without a word
    return Response()
