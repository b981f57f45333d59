"""Tencent's bot API for personal WeChat (iLink) on loopback: signing in by QR code, long poll, sending, typing, and the CDN.

The rules are those that `@tencent-weixin/openclaw-weixin` 2.4.9 and its issue threads tell; that package and `openilink-sdk-python`
are the peers that prove it (tests/wire/test_ilink_peers.py). It was never compared with the live platform.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.simulators import ilink_faults as at
from gateway.simulators.base import Shown, Simulator
from gateway.simulators.ilink_bots import Bot, Bots, Code, cursor_of, position_of
from gateway.simulators.ilink_faults import ILinkFaults, Page, cut, faulty_route

CDN = "cdn"
MAX_KEPT = 1_000

BotPage = Callable[[Request, Bot, dict[str, Any]], Awaitable[dict[str, Any] | Response]]
"""Serves a call of a bot whose token is good."""


class ILinkSimulator(Simulator):
    """`sign_in` binds somebody at once; otherwise `faults.scanner` scans whatever code is asked for."""

    faults: ILinkFaults

    def __init__(self, *, faults: ILinkFaults | None = None) -> None:
        super().__init__()
        self.faults = faults or ILinkFaults()
        self.bots = Bots(self.faults)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """Path and body of the latest calls; `base_info` and the token left out."""
        self._codes: OrderedDict[str, Code] = OrderedDict()
        self._numbers = itertools.count(1)
        self._blobs: OrderedDict[str, bytes] = OrderedDict()

    @property
    def cdn_base_url(self) -> str:
        return f"{self.base_url}/{CDN}"

    def routes(self) -> list[BaseRoute]:
        pages: dict[str, BotPage] = {
            at.UPDATES: self._updates,
            at.SEND: self._send,
            at.CONFIG: self._config,
            at.TYPING: self._typing,
            at.UPLOAD: self._upload_url,
            at.NOTIFY_START: self._notify,
            at.NOTIFY_STOP: self._notify,
        }
        return [
            faulty_route(at.QR, self.faults, self._new_code, methods=("GET", "POST")),
            faulty_route(at.STATUS, self.faults, self._code_status, methods=("GET",)),
            *(faulty_route(path, self.faults, self._as_bot(page)) for path, page in pages.items()),
            Route(f"/{CDN}/upload", self._upload, methods=["POST"]),
            Route(f"/{CDN}/download", self._download, methods=["GET"]),
        ]

    # What people do

    async def say(  # type: ignore[override]  # narrower than the base on purpose: these are the words a person has here
        self,
        *,
        sender: str,
        text: str = "",
        kind: int = 1,
        item: dict[str, Any] | None = None,
        quote: dict[str, Any] | None = None,
        older_s: float = 0.0,
    ) -> str:
        """`sender`, who has bound a bot, writes to it; returns the message's id.

        `kind` and `item` make other messages than text (3 and `{"text": …}` a voice message with its transcript); `quote` is a
        `ref_msg`. Raises KeyError for somebody without a bot.
        """
        bot = self.bots.of(sender)
        if bot is None:
            raise KeyError(f"{sender} has bound no bot")
        names = {1: "text_item", 2: "image_item", 3: "voice_item", 4: "file_item", 5: "video_item"}
        words: dict[str, Any] = {"type": kind, names.get(kind, f"item_{kind}"): item if item is not None else {"text": text}}
        return self.bots.hear(bot, [{**words, **({"ref_msg": quote} if quote else {})}], older_s=older_s)

    def sign_in(self, person: str) -> Bot:
        """Bind `person`, as if they had scanned a code somewhere; an older token of theirs is no longer good."""
        return self.bots.bind(person)

    def expire(self, person: str) -> None:
        """The token of `person` is no longer good; a poll that waits hears it at once."""
        bot = self.bots.of(person)
        self.faults.stale.append(person)
        if bot is not None:
            bot.news.set()

    def calls(self, path: str) -> list[dict[str, Any]]:
        """Bodies of the calls to `path` so far."""
        return [body for called, body in self.asked if called == path]

    # Signing in

    async def _new_code(self, request: Request) -> Response:
        body = json.loads(await request.body() or b"{}")
        code = f"qr{next(self._numbers)}"
        self._codes[code] = Code(known_tokens=tuple(body.get("local_token_list") or ()))
        _trim(self._codes)
        self._note(at.QR, body)
        return JSONResponse({"ret": 0, "qrcode": code, "qrcode_img_content": f"https://liteapp.weixin.qq.com/q/sim?qrcode={code}"})

    async def _code_status(self, request: Request) -> Response:
        code = self._codes.get(request.query_params.get("qrcode", ""))
        self._note(at.STATUS, {**request.query_params, "host": request.headers["host"]})
        if code is None or code.expired:
            return JSONResponse({"ret": 0, "status": "expired"})
        state = self._next_state(request.query_params.get("verify_code", ""))
        code.expired = state in ("expired", "verify_code_blocked", "confirmed")
        if state == "scaned_but_redirect":
            host = self.faults.redirect_host or f"localhost:{self.base_url.rpartition(':')[2]}"
            return JSONResponse({"ret": 0, "status": state, "redirect_host": host})
        if state != "confirmed":
            return JSONResponse({"ret": 0, "status": state})
        return JSONResponse(self._confirm(code))

    def _next_state(self, digits: str) -> str:
        states = self.faults.qr_states
        if not states:
            return "confirmed"
        if states[0] != "need_verifycode":
            return states.pop(0)
        if digits == self.faults.verify_code:
            states.pop(0)
            return "scaned"
        return "need_verifycode"

    def _confirm(self, code: Code) -> dict[str, Any]:
        known = self.bots.of(self.faults.scanner)
        if known is not None and known.token in code.known_tokens and self.bots.by_token(known.token) is not None:
            return {"ret": 0, "status": "binded_redirect"}
        bot = self.bots.bind(self.faults.scanner)
        ids = {"bot_token": bot.token, "ilink_bot_id": bot.bot_id, "ilink_user_id": bot.user_id}
        return {"ret": 0, "status": "confirmed", **ids, "baseurl": self.faults.home_url or self.base_url}

    # As a bot

    def _as_bot(self, page: BotPage) -> Page:
        async def checked(request: Request) -> Response:
            body = json.loads(await request.body())
            self._note(request.url.path.lstrip("/"), body)
            if request.headers.get("authorizationtype") != "ilink_bot_token" or not _is_uin(request.headers.get("x-wechat-uin", "")):
                return JSONResponse({"ret": -1, "errmsg": "bad headers"})
            bot = self.bots.by_token(request.headers.get("authorization", ""))
            if bot is None:
                return JSONResponse(self.bots.stale())
            answer = await page(request, bot, body)
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return checked

    async def _updates(self, request: Request, bot: Bot, body: dict[str, Any]) -> dict[str, Any]:
        if self.faults.update_rets:
            return {"ret": self.faults.update_rets.pop(0), "errmsg": "simulated"}
        try:
            position = position_of(str(body.get("get_updates_buf", "")))
        except ValueError:
            return {"ret": -1, "errmsg": "bad cursor"}
        await self._wait_for_news(bot, position)
        if self.bots.by_token(bot.token) is None:
            return self.bots.stale()
        messages = bot.log[position:]
        if messages and self.faults.duplicates > 0:
            self.faults.duplicates -= 1
            messages = messages * 2
        if messages and self.faults.poison > 0:
            self.faults.poison -= 1
            messages = [{"message_id": None, "item_list": "nothing"}, *messages]
        hold_ms = int(self.faults.hold_s * 1000)
        return {"ret": 0, "msgs": messages, "get_updates_buf": cursor_of(len(bot.log)), "longpolling_timeout_ms": hold_ms}

    async def _wait_for_news(self, bot: Bot, position: int) -> None:
        try:
            async with asyncio.timeout(self.faults.hold_s):
                while len(bot.log) <= position and self.bots.by_token(bot.token) is not None:
                    bot.news.clear()
                    await bot.news.wait()
        except TimeoutError:
            return

    async def _send(self, request: Request, bot: Bot, body: dict[str, Any]) -> dict[str, Any] | Response:
        message = body.get("msg") or {}
        if self.faults.send_answers:
            ret, errmsg = self.faults.send_answers.pop(0)
            return {"ret": ret, "errmsg": errmsg}
        ret, errmsg = self.bots.refusal(bot, message)
        if ret:
            return {"ret": ret, "errmsg": errmsg}
        if self.faults.suppressed > 0:
            self.faults.suppressed -= 1
            return {"ret": 0}
        await self.show(self._shown(bot, message))
        if self.faults.send_cuts > 0:
            self.faults.send_cuts -= 1
            return await cut(request)
        return {"ret": 0, "message_id": self.bots.next_id()}

    def _shown(self, bot: Bot, message: dict[str, Any]) -> Shown:
        item = message["item_list"][0]
        text = str((item.get("text_item") or {}).get("text", "")) if item.get("type") == 1 else f"[{item.get('type')}]"
        window = bot.windows[message["context_token"]]
        return Shown(chat=bot.person, text=text[: self.faults.shown_chars], answers=window.message_id)

    async def _config(self, request: Request, bot: Bot, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("context_token") not in bot.windows:
            return {"ret": -4, "errmsg": "no context"}
        return {"ret": 0, "typing_ticket": f"ticket {bot.bot_id}"}

    async def _typing(self, request: Request, bot: Bot, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("typing_ticket") != f"ticket {bot.bot_id}":
            return {"ret": -1, "errmsg": "bad ticket"}
        bot.typing.append(int(body["status"]))
        return {"ret": 0}

    async def _notify(self, request: Request, bot: Bot, body: dict[str, Any]) -> dict[str, Any]:
        bot.listening = request.url.path.endswith("start")
        return {"ret": 0}

    # The CDN

    async def _upload_url(self, request: Request, bot: Bot, body: dict[str, Any]) -> dict[str, Any]:
        if int(body["filesize"]) != (int(body["rawsize"]) // 16 + 1) * 16:
            return {"ret": -1, "errmsg": "bad size"}
        return {"ret": 0, "upload_param": f"{body['filekey']}.{body['filesize']}"}

    async def _upload(self, request: Request) -> Response:
        content = await request.body()
        if self._cdn_fails():
            return Response(status_code=500, headers={"x-error-message": "simulated"})
        filekey, _, size = request.query_params.get("encrypted_query_param", "").partition(".")
        if filekey != request.query_params.get("filekey") or str(len(content)) != size:
            return Response(status_code=400, headers={"x-error-message": "size"})
        self._blobs[filekey] = content
        _trim(self._blobs)
        return Response(headers={"x-encrypted-param": filekey})

    async def _download(self, request: Request) -> Response:
        if self._cdn_fails():
            return Response(status_code=500)
        blob = self._blobs.get(request.query_params.get("encrypted_query_param", ""))
        return Response(status_code=404) if blob is None else Response(blob, media_type="application/octet-stream")

    def _cdn_fails(self) -> bool:
        failing = self.faults.cdn_failures > 0
        self.faults.cdn_failures -= failing
        return failing

    def _note(self, path: str, body: dict[str, Any]) -> None:
        self.asked.append((path, {name: value for name, value in body.items() if name != "base_info"}))
        del self.asked[:-MAX_KEPT]


def _is_uin(header: str) -> bool:
    try:
        return int(base64.b64decode(header, validate=True).decode()) < 2**32
    except ValueError:
        return False


def _trim(kept: OrderedDict[str, Any]) -> None:
    while len(kept) > MAX_KEPT:
        kept.popitem(last=False)
