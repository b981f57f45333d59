"""DingTalk on loopback: Stream connections, bot messages and session webhooks, with everything that is known to go wrong.

Rules are those of DingTalk's documents and of what the unmodified SDK 0.24.3 and 0.24.4b1 was seen to need. The sockets are in
`dingtalk_stream`, OpenAPI sends in `dingtalk_openapi`, custom robots in `dingtalk_robot`, HTTP mode in `dingtalk_callback`.
Not here yet: media, cards.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.simulators.dingtalk_callback import caller, post_callback
from gateway.simulators.dingtalk_faults import CONNECT, OPEN, WEBHOOK, cut, faulty_route
from gateway.simulators.dingtalk_openapi import OpenApiSide
from gateway.simulators.dingtalk_people import REMEMBERED, People, judge, remember
from gateway.simulators.dingtalk_robot import CustomRobot
from gateway.simulators.dingtalk_stream import StreamSide

CLIENT_ID = "dingsimulated0001"
CLIENT_SECRET = "simulated-secret-of-dingtalk"  # noqa: S105  (opens nothing but this simulator)


@dataclass(frozen=True, slots=True)
class Post:
    """A request to a session webhook, as it came."""

    body: bytes
    headers: dict[str, str]


class DingTalkSimulator(StreamSide):
    """One organisation with one published app. `now` is its wall clock in seconds since 1970."""

    def __init__(
        self,
        *,
        client_id: str = CLIENT_ID,
        client_secret: str = CLIENT_SECRET,
        bot_name: str = "小助手",
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.client_id = client_id
        self.client_secret = client_secret
        self.frames: dict[str, str] = {}
        """msgId of a bot message → messageId of its frame."""
        self.posts: deque[Post] = deque(maxlen=REMEMBERED)
        self.answered_at: dict[str, float] = {}
        """msgId → monotonic time at which the first post to its session webhook had arrived."""
        self.people = People(bot_name=bot_name, robot_code=client_id, now=now)
        self.openapi = OpenApiSide(
            client_id=client_id, client_secret=client_secret, faults=self.faults, people=self.people, show=self.show, now=now
        )
        self.robot = CustomRobot(faults=self.faults, show=self.show, now=now)
        self._now = now
        self._http: httpx2.AsyncClient | None = None

    def routes(self) -> list[BaseRoute]:
        return [
            faulty_route(OPEN, self.faults, self._open),
            faulty_route(WEBHOOK, self.faults, self._send_by_session),
            *self.openapi.routes(),
            *self.robot.routes(),
            self._door(),
            Route("/_sim/do", self._do_over_http, methods=["POST"]),
            Route("/_sim/log", self._log_over_http, methods=["GET"]),
        ]

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[DingTalkSimulator]:
        try:
            async with super().running(port):
                yield self
        finally:
            if self._http is not None:
                await self._http.aclose()
                self._http = None

    # What people do

    async def say(self, **words: Any) -> str:
        """See `write`; returns the msgId."""
        return await self.write(**words)

    async def write(
        self,
        *,
        sender: str = "张三",
        text: str = "",
        group: str | None = None,
        at_bot: bool = True,
        kind: str = "text",
        content: object = None,
        msg_id: str | None = None,
        staff: bool = True,
        extra: dict[str, object] | None = None,
    ) -> str:
        """Somebody writes to the bot, in `group` or privately. A group message without the @ never leaves DingTalk.

        For another `kind` than text give the `content` (also null or a string); `staff=False`: a person outside the organisation;
        `extra`: top-level fields to set or replace.
        """
        msg_id = msg_id or "msg" + base64.b64encode(uuid.uuid4().bytes).decode()
        if group is not None and not at_bot:
            return msg_id
        body = {"text": {"content": f" {text}" if group else text}} if kind == "text" else {"content": content}
        webhook, ttl_s = self.base_url + WEBHOOK, self.faults.webhook_ttl_s
        envelope = self.people.envelope(msg_id=msg_id, sender=sender, group=group, staff=staff, webhook=webhook, ttl_s=ttl_s)
        message = {**envelope, "msgtype": kind, **body, **(extra or {})}
        frame_id = uuid.uuid4().hex
        remember(self.frames, msg_id, frame_id)
        data = json.dumps(message, ensure_ascii=False)
        posts = self.faults.callback_url
        self._start(self._post_until_taken(posts, msg_id, data) if posts else self._push_until_acked(frame_id, msg_id, data))
        return msg_id

    # What the platform does

    def expire_sessions(self) -> None:
        """From now on every session webhook so far answers 300001, whatever its message said."""
        self.people.forget_sessions()

    # HTTP

    async def _open(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        if self.faults.open_failures > 0:
            self.faults.open_failures -= 1
            await self._happened("refused", "503")
            return JSONResponse({"code": "ServiceUnavailable", "message": "busy", "requestid": uuid.uuid4().hex}, 503)
        if (asked.get("clientId"), asked.get("clientSecret")) != (self.client_id, self.client_secret):
            await self._happened("refused", "401")
            return JSONResponse({"code": "authFailed", "message": "鉴权失败", "requestid": uuid.uuid4().hex}, 401)
        if self.faults.unpublished or self.faults.no_stream:  # One code for many reasons, as users report it.
            await self._happened("refused", "400")
            return JSONResponse({"code": "systemError", "message": "系统错误", "requestid": uuid.uuid4().hex}, 400)
        if refused := self.openapi.ip_refusal(OPEN):
            await self._happened("refused", "403")
            return refused
        ticket = await self._ticket(frozenset(item["topic"] for item in asked["subscriptions"]))
        return JSONResponse({"endpoint": self.base_url.replace("http://", "ws://") + CONNECT, "ticket": ticket})

    async def _post_until_taken(self, url: str, msg_id: str, data: str) -> None:
        """HTTP mode. Whether DingTalk really tries again is not documented; a gateway must bear both."""
        for _ in range(self.faults.pushes):
            remember(self.pushed_at, msg_id, time.monotonic())
            await self._happened("push", msg_id)
            secret = self.client_secret if self.faults.callback_secret is None else self.faults.callback_secret
            self._http = self._http or caller()
            status = await post_callback(self._http, url, data, secret=secret, at=self._now() + self.faults.callback_skew_s)
            await self._happened("callback", str(status))
            if status == 200:
                return
            await asyncio.sleep(self.faults.ack_timeout_s)

    async def _send_by_session(self, request: Request) -> Response:
        body = await request.body()
        self.posts.append(Post(body, dict(request.headers)))
        session = self.people.session(request.query_params.get("session", ""))
        if session is not None and session.message_id not in self.answered_at:
            remember(self.answered_at, session.message_id, time.monotonic())
        scripted = self.faults.webhook_errcodes.pop(0) if self.faults.webhook_errcodes else 0
        if scripted:
            return JSONResponse({"errcode": scripted, "errmsg": "as the knob wants it"})
        if session is None:
            return JSONResponse({"errcode": 300001, "errmsg": "session 不存在"})
        errcode, errmsg = judge(body)
        if errcode:
            return JSONResponse({"errcode": errcode, "errmsg": errmsg})
        await self._happened("show", session.message_id)
        await self.show(self.people.seen(session, json.loads(body)))
        if self.faults.webhook_cuts > 0:
            self.faults.webhook_cuts -= 1
            return await cut(request)
        return JSONResponse({"errcode": 0, "errmsg": "ok"})

    async def _do_over_http(self, request: Request) -> Response:
        actions: dict[str, Callable[[], object]] = {
            "disconnect": self.disconnect,
            "expire_sessions": self.expire_sessions,
            "kill_sockets": self.kill_sockets,
            "ping": self.ping,
            "revoke_tokens": self.openapi.revoke_tokens,
        }
        action = actions.get(json.loads(await request.body()).get("action", ""))
        if action is None:
            return JSONResponse({"error": f"known actions: {sorted(actions)}"}, 400)
        if isinstance(done := action(), Awaitable):
            await done
        return JSONResponse({"connections": self.connections})

    async def _log_over_http(self, request: Request) -> Response:
        return JSONResponse({"connections": self.connections, "log": list(self.log)})
