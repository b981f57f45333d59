"""DingTalk on loopback: Stream connections, bot messages and session webhooks, with everything that is known to go wrong.

Rules are those of DingTalk's documents and of what the unmodified SDK 0.24.3 and 0.24.4b1 was seen to need. OpenAPI sends are in
`dingtalk_openapi`, custom robots in `dingtalk_robot`, HTTP mode in `dingtalk_callback`. Not here yet: media, cards.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gateway.simulators.base import Simulator
from gateway.simulators.dingtalk_callback import caller, post_callback
from gateway.simulators.dingtalk_faults import CONNECT, OPEN, WEBHOOK, Cuttable, DingTalkFaults, Door, cut, faulty_route
from gateway.simulators.dingtalk_openapi import OpenApiSide
from gateway.simulators.dingtalk_people import REMEMBERED, People, judge, remember
from gateway.simulators.dingtalk_robot import CustomRobot

CLIENT_ID = "dingsimulated0001"
CLIENT_SECRET = "simulated-secret-of-dingtalk"  # noqa: S105  (opens nothing but this simulator)
BOT_MESSAGES = "/v1.0/im/bot/messages/get"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """What a client answered a frame with."""

    code: int
    data: str
    connection: str


@dataclass(frozen=True, slots=True)
class Post:
    """A request to a session webhook, as it came."""

    body: bytes
    headers: dict[str, str]


@dataclass(eq=False, slots=True, kw_only=True)
class _Connection:
    websocket: WebSocket
    transport: Cuttable
    topics: frozenset[str]
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    delivering: bool = True


class DingTalkSimulator(Simulator):
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
        self.faults = DingTalkFaults()
        self.client_id = client_id
        self.client_secret = client_secret
        self.acks: dict[str, Ack] = {}
        """First acknowledgement by messageId of the frame."""
        self.frames: dict[str, str] = {}
        """msgId of a bot message → messageId of its frame."""
        self.posts: deque[Post] = deque(maxlen=REMEMBERED)
        self.log: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        """What happened, in order: (open|refused|connect|close|push|ack|show|pong|callback, id)."""
        self.pushed_at: dict[str, float] = {}
        """msgId → monotonic time of its first push."""
        self.answered_at: dict[str, float] = {}
        """msgId → monotonic time at which the first post to its session webhook had arrived."""
        self.people = People(bot_name=bot_name, robot_code=client_id, now=now)
        self.openapi = OpenApiSide(
            client_id=client_id, client_secret=client_secret, faults=self.faults, people=self.people, show=self.show, now=now
        )
        self.robot = CustomRobot(faults=self.faults, show=self.show, now=now)
        self._now = now
        self._tickets: dict[str, tuple[frozenset[str], float]] = {}
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._http: httpx2.AsyncClient | None = None

    def routes(self) -> list[BaseRoute]:
        return [
            faulty_route(OPEN, self.faults, self._open),
            faulty_route(WEBHOOK, self.faults, self._send_by_session),
            *self.openapi.routes(),
            *self.robot.routes(),
            WebSocketRoute(CONNECT, Door(self._connect)),
            Route("/_sim/do", self._do_over_http, methods=["POST"]),
            Route("/_sim/log", self._log_over_http, methods=["GET"]),
        ]

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[DingTalkSimulator]:
        async with super().running(port):
            self._start(self._ping_now_and_then())
            try:
                yield self
            finally:
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
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

    @property
    def connections(self) -> int:
        """Open WebSockets, those told to disconnect included."""
        return len(self._connections)

    def opens(self) -> int:
        """Tries to open a connection so far, refused ones included."""
        return sum(1 for event, _ in self.log if event in {"open", "refused"})

    async def wait_for_log(self, event: str, count: int = 1, timeout_s: float = 10.0) -> None:
        """Wait until `event` happened `count` times in all."""
        await self.wait_until(lambda _: sum(1 for name, _ in self.log if name == event) >= count, timeout_s)

    async def ping(self) -> None:
        for connection in self._delivering():
            await self._send(connection, _frame("SYSTEM", "ping", json.dumps({"opaque": uuid.uuid4().hex}), f"ping-{uuid.uuid4().hex}"))

    async def disconnect(self, reason: str = "connection is expired") -> None:
        """As at the end of a connection's life: nothing more is delivered on it, and it is closed a little later."""
        for connection in self._delivering():
            connection.delivering = False
            await self._send(connection, _frame("SYSTEM", "disconnect", json.dumps({"reason": reason}), uuid.uuid4().hex))
            self._start(self._close_later(connection))

    def kill_sockets(self) -> None:
        """As a broken network does: no closing handshake."""
        for connection in list(self._connections):
            connection.transport.abort()

    async def send_frame(self, text: str) -> None:
        """Send any text as a frame on every connection: garbage, foreign topics."""
        for connection in self._delivering():
            await self._send(connection, text)

    def expire_sessions(self) -> None:
        """From now on every session webhook so far answers 300001, whatever its message said."""
        self.people.forget_sessions()

    # Stream

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
        ticket = str(uuid.uuid4())
        topics = frozenset(item["topic"] for item in asked["subscriptions"])
        remember(self._tickets, ticket, (topics, time.monotonic() + self.faults.ticket_ttl_s))
        await self._happened("open", "")
        return JSONResponse({"endpoint": self.base_url.replace("http://", "ws://") + CONNECT, "ticket": ticket})

    async def _connect(self, websocket: WebSocket, transport: Cuttable) -> None:
        topics, valid_until = self._tickets.pop(websocket.query_params.get("ticket", ""), (frozenset[str](), 0.0))
        if valid_until < time.monotonic():
            await websocket.send_denial_response(Response(status_code=401))
            return
        await websocket.accept()
        connection = _Connection(websocket=websocket, transport=transport, topics=topics)
        if self.faults.close_at_once:
            await websocket.close()
        else:
            self._connections.add(connection)
        await self._happened("connect", connection.id)
        try:
            while True:
                await self._take(connection, await websocket.receive())
        except WebSocketDisconnect:
            return
        finally:
            self._connections.discard(connection)
            await self._happened("close", connection.id)

    async def _take(self, connection: _Connection, event: Any) -> None:
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        answer = json.loads(event.get("text") or "{}")
        message_id = answer.get("headers", {}).get("messageId", "")
        if message_id not in self.acks:
            remember(self.acks, message_id, Ack(code=answer.get("code", 0), data=answer.get("data", ""), connection=connection.id))
        await self._happened("pong" if message_id.startswith("ping-") else "ack", message_id)

    async def _push_until_acked(self, frame_id: str, msg_id: str, data: str) -> None:
        for _ in range(self.faults.pushes):
            await self._push(_frame("CALLBACK", BOT_MESSAGES, data, frame_id), msg_id)
            try:
                await self.wait_until(lambda _: frame_id in self.acks and self.acks[frame_id].code == 200, self.faults.ack_timeout_s)
            except TimeoutError:
                continue
            return

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

    async def _push(self, frame: str, msg_id: str) -> None:
        able = [connection for connection in self._delivering() if BOT_MESSAGES in connection.topics]
        if not able:
            return
        chosen = random.choice(able)  # noqa: S311  (DingTalk too picks any one connection)
        if msg_id not in self.pushed_at:
            remember(self.pushed_at, msg_id, time.monotonic())
        for _ in range(2 if self.faults.duplicate_frames else 1):
            await self._happened("push", msg_id)
            await self._send(chosen, frame)

    async def _send(self, connection: _Connection, text: str) -> None:
        if connection.websocket.client_state is WebSocketState.CONNECTED and connection in self._connections:
            with suppress(WebSocketDisconnect, RuntimeError):  # Cut a moment ago: what was sent is lost, as on a dead channel.
                await connection.websocket.send_text(text)

    def _delivering(self) -> list[_Connection]:
        return [connection for connection in self._connections if connection.delivering]

    async def _close_later(self, connection: _Connection) -> None:
        await asyncio.sleep(self.faults.drain_s)
        if connection in self._connections:
            await connection.websocket.close()

    async def _ping_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self.faults.ping_every_s or 1.0)
            if self.faults.ping_every_s:
                await self.ping()

    # HTTP

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

    async def _happened(self, event: str, subject: str) -> None:
        async with self._something_shown:
            self.log.append((event, subject))
            self._something_shown.notify_all()

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work, name="dingtalk-simulator")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _frame(kind: str, topic: str, data: str, message_id: str) -> str:
    headers = {"appId": "simulated", "connectionId": "simulated", "contentType": "application/json"}
    headers |= {"messageId": message_id, "time": str(int(time.time() * 1000)), "topic": topic}
    return json.dumps({"specVersion": "1.0", "type": kind, "headers": headers, "data": data})
