"""WeCom's long connection for intelligent bots on loopback, with everything that is known to go wrong.

Rules are those of WeCom's document 101463 (2026-04-01) and of what other bots met; where both are silent the stricter reading is taken.
Not here: template cards, media.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gateway.simulators.base import Simulator
from gateway.simulators.dingtalk_faults import Cuttable, Door
from gateway.simulators.wecom_bot_faults import WeComBotFaults
from gateway.simulators.wecom_bot_judge import Judge, Snapshot, remember

BOT_ID = "aibsimulated0001"
SECRET = "simulated-secret-of-wecom"  # noqa: S105  (opens nothing but this simulator)


@dataclass(eq=False, slots=True, kw_only=True)
class _Connection:
    websocket: WebSocket
    transport: Cuttable
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    subscribed: bool = False
    busy: set[str] = field(default_factory=set)


class WeComBotSimulator(Simulator):
    """One bot. `now` is the wall clock in seconds since 1970."""

    def __init__(
        self, *, bot_id: str = BOT_ID, secret: str = SECRET, bot_name: str = "小助手", now: Callable[[], float] = time.time
    ) -> None:
        super().__init__()
        self.faults = WeComBotFaults()
        self.bot_id = bot_id
        self.secret = secret
        self.log: deque[tuple[str, str]] = deque(maxlen=10_000)
        """What happened, in order: (connect|subscribe|refused|ping|tell|stream|finish|markdown|welcome|error|takeover|close, id)."""
        self.told: dict[str, str] = {}
        """msgid → the req_id under which it was told last."""
        self._bot_name = bot_name
        self._now = now
        self._judge = Judge(now)
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def routes(self) -> list[BaseRoute]:
        return [
            WebSocketRoute("/", Door(self._serve)),
            Route("/_sim/do", self._do_over_http, methods=["POST"]),
            Route("/_sim/log", self._log_over_http, methods=["GET"]),
            Route("/_sim/snapshots", self._snapshots_over_http, methods=["GET"]),
        ]

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[WeComBotSimulator]:
        async with super().running(port):
            try:
                yield self
            finally:
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    # What people do

    async def say(self, **words: Any) -> str:
        """See `write`; returns the msgid."""
        return await self.write(**words)

    async def write(
        self,
        *,
        sender: str = "zhangsan",
        text: str = "",
        group: str | None = None,
        at_bot: bool = True,
        kind: str = "text",
        content: object = None,
        msg_id: str | None = None,
        extra: dict[str, object] | None = None,
    ) -> str:
        """Somebody writes to the bot, in `group` or privately. A group message without the @ never leaves WeCom, and what is written while
        nobody is subscribed is told to nobody later.

        For another `kind` than text give the `content`; `extra`: top-level fields to set or replace.
        """
        msg_id = msg_id or f"CAIQ{uuid.uuid4().hex}"
        if group is not None and not at_bot:
            return msg_id
        said = {"content": f"@{self._bot_name} {text}" if group else text} if kind == "text" else content
        message = {**self._from(msg_id, sender, group), "msgtype": kind, kind: said, **(extra or {})}
        self._judge.knows(group or sender)
        for _ in range(2 if self.faults.duplicate_messages else 1):
            req_id = f"req-{uuid.uuid4().hex}"
            remember(self.told, msg_id, req_id)
            self._judge.told(req_id, msg_id, group or sender)
            await self._tell("aibot_msg_callback", req_id, message, msg_id)
        return msg_id

    async def enter_chat(self, sender: str = "zhangsan") -> str:
        """Somebody opens the chat with the bot; returns the req_id."""
        return await self._event("enter_chat", sender)

    # What the platform does

    @property
    def snapshots(self) -> list[Snapshot]:
        """Every stream frame that was taken, in order."""
        return list(self._judge.snapshots)

    @property
    def violations(self) -> list[str]:
        """Rules of the protocol that the client broke, in words."""
        return list(self._judge.violations)

    @property
    def connections(self) -> int:
        """Open WebSockets, those taken over included."""
        return len(self._connections)

    def count(self, event: str) -> int:
        return sum(1 for name, _ in self.log if name == event)

    async def wait_for_log(self, event: str, count: int = 1, timeout_s: float = 10.0) -> None:
        """Wait until `event` happened `count` times in all."""
        await self.wait_until(lambda _: self.count(event) >= count, timeout_s)

    async def wait_for_snapshots(self, count: int, timeout_s: float = 10.0) -> list[Snapshot]:
        await self.wait_until(lambda _: len(self._judge.snapshots) >= count, timeout_s)
        return self.snapshots

    async def take_over(self) -> None:
        """As if another client had subscribed as this bot: the one here is told so, hears nothing more, and stays connected."""
        for connection in [one for one in self._connections if one.subscribed]:
            connection.subscribed = False
            await self._happened("takeover", connection.id)
            await self._send(connection, self._event_frame("disconnected_event", "")[1])

    def kill_sockets(self) -> None:
        """As a broken network does: no closing handshake."""
        for connection in list(self._connections):
            connection.transport.abort()

    async def send_frame(self, text: str) -> None:
        """Send any text as a frame on every connection: garbage, foreign commands."""
        for connection in list(self._connections):
            await self._send(connection, text)

    # The connection

    async def _serve(self, websocket: WebSocket, transport: Cuttable) -> None:
        await websocket.accept()
        connection = _Connection(websocket=websocket, transport=transport)
        await self._happened("connect", connection.id)
        if self.faults.close_at_once:
            await websocket.close()
            return
        self._connections.add(connection)
        try:
            while True:
                event = await websocket.receive()
                if event["type"] == "websocket.disconnect":
                    return
                self._start(self._take(connection, event.get("text") or ""))
        except WebSocketDisconnect:
            return
        finally:
            self._connections.discard(connection)
            await self._happened("close", connection.id)

    async def _take(self, connection: _Connection, text: str) -> None:
        if self.faults.never_answer:
            return
        frame = json.loads(text)
        cmd, req_id = frame["cmd"], frame["headers"]["req_id"]
        if cmd == "ping":
            await self._pong(connection, req_id)
        elif cmd == "aibot_subscribe":
            await self._acknowledge(connection, req_id, await self._subscribe(connection, frame["body"]))
        elif req_id in connection.busy:
            self._judge.violations.append(f"{cmd}: a frame with this req_id is not acknowledged yet")
            await self._acknowledge(connection, req_id, 6000)
        else:
            connection.busy.add(req_id)
            await self._answered(connection, cmd, req_id, frame["body"])

    async def _pong(self, connection: _Connection, req_id: str) -> None:
        await self._happened("ping", connection.id)
        if not self.faults.silent_pings:
            await self._acknowledge(connection, req_id, 0)

    async def _subscribe(self, connection: _Connection, body: dict[str, Any]) -> int:
        wanted = self.faults.subscribe_errcodes.pop(0) if self.faults.subscribe_errcodes else 0
        wrong = 93019 if body.get("bot_id") != self.bot_id else 853000 if body.get("secret") != self.secret else 0
        if errcode := wanted or wrong:
            await self._happened("refused", str(errcode))
            return errcode
        await self.take_over()
        connection.subscribed, self.faults.unsubscribed = True, False
        await self._happened("subscribe", connection.id)
        return 0

    async def _answered(self, connection: _Connection, cmd: str, req_id: str, body: dict[str, Any]) -> None:
        errcode = await self._answer(connection, cmd, req_id, body)
        if errcode:
            await self._happened("error", f"{cmd} {errcode}")
        elif self.faults.cut_after > 0:
            self.faults.cut_after -= 1
            connection.transport.abort()
            return
        await asyncio.sleep(self.faults.ack_delay_s)
        connection.busy.discard(req_id)
        if not errcode and self.faults.silent_acks > 0:
            self.faults.silent_acks -= 1
            return
        await self._acknowledge(connection, req_id, errcode)

    async def _answer(self, connection: _Connection, cmd: str, req_id: str, body: dict[str, Any]) -> int:
        if not connection.subscribed or self.faults.unsubscribed:
            return 846609
        scripted: list[int] = self.faults.errcodes.get(cmd, [])
        if errcode := scripted.pop(0) if scripted else 0:
            return errcode
        actions: dict[str, Callable[[str, dict[str, Any]], Awaitable[int]]] = {
            "aibot_respond_msg": self._respond,
            "aibot_respond_welcome_msg": self._welcome,
            "aibot_send_msg": self._send_msg,
        }
        return await actions[cmd](req_id, body) if cmd in actions else 40058

    async def _respond(self, req_id: str, body: dict[str, Any]) -> int:
        message = self._judge.message(req_id, self.faults.req_ttl_s)
        if message is None:
            return 846605
        msg_id, chat = message
        errcode, seen = self._judge.stream(req_id, chat, body, self.faults)
        if errcode or seen is None:
            return errcode
        await self._happened("finish" if seen.finish else "stream", msg_id)
        if seen.finish:
            await self.show(self._judge.shown(chat, seen.content, answers=msg_id))
        return 0

    async def _welcome(self, req_id: str, body: dict[str, Any]) -> int:
        message = self._judge.message(req_id, 5.0)
        if message is None:
            return 846605
        await self._happened("welcome", req_id)
        await self.show(self._judge.shown(message[1], body["text"]["content"]))
        return 0

    async def _send_msg(self, req_id: str, body: dict[str, Any]) -> int:
        errcode = self._judge.markdown(body, self.faults)
        if errcode:
            return errcode
        await self._happened("markdown", body["chatid"])
        await self.show(self._judge.shown(body["chatid"], body["markdown"]["content"]))
        return 0

    # Frames

    async def _event(self, kind: str, sender: str) -> str:
        req_id, text = self._event_frame(kind, sender)
        self._judge.told(req_id, req_id, sender)
        for connection in [one for one in self._connections if one.subscribed]:
            await self._send(connection, text)
        return req_id

    def _event_frame(self, kind: str, sender: str) -> tuple[str, str]:
        req_id = f"req-{uuid.uuid4().hex}"
        body = {**self._from(uuid.uuid4().hex, sender, None), "msgtype": "event", "event": {"eventtype": kind}}
        return req_id, json.dumps({"cmd": "aibot_event_callback", "headers": {"req_id": req_id}, "body": body}, ensure_ascii=False)

    def _from(self, msg_id: str, sender: str, group: str | None) -> dict[str, object]:
        where = {"chatid": group, "chattype": "group"} if group else {"chattype": "single"}
        return {"msgid": msg_id, "create_time": int(self._now()), "aibotid": self.bot_id, **where, "from": {"userid": sender}}

    async def _tell(self, cmd: str, req_id: str, body: object, subject: str) -> None:
        for connection in [one for one in self._connections if one.subscribed]:
            await self._happened("tell", subject)
            await self._send(connection, json.dumps({"cmd": cmd, "headers": {"req_id": req_id}, "body": body}, ensure_ascii=False))

    async def _acknowledge(self, connection: _Connection, req_id: str, errcode: int) -> None:
        errmsg = "ok" if errcode == 0 else "as the simulator wants it, hint: [1774860435], from ip: 127.0.0.1"
        await self._send(connection, json.dumps({"headers": {"req_id": req_id}, "errcode": errcode, "errmsg": errmsg}))

    async def _send(self, connection: _Connection, text: str) -> None:
        if connection.websocket.client_state is WebSocketState.CONNECTED and connection in self._connections:
            with suppress(WebSocketDisconnect, RuntimeError):  # The client died this very moment; starlette says it in two ways.
                await connection.websocket.send_text(text)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work, name="wecom simulator")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _happened(self, event: str, subject: str) -> None:
        async with self._something_shown:
            self.log.append((event, subject))
            self._something_shown.notify_all()

    # HTTP

    async def _do_over_http(self, request: Request) -> Response:
        """`{"action": "take_over" | "kill_sockets" | "enter_chat", …}`."""
        asked = json.loads(await request.body())
        action = asked.get("action")
        if action == "take_over":
            await self.take_over()
        elif action == "kill_sockets":
            self.kill_sockets()
        elif action == "enter_chat":
            await self.enter_chat(asked.get("sender", "zhangsan"))
        else:
            return JSONResponse({"error": "known actions: take_over, kill_sockets, enter_chat"}, 400)
        return JSONResponse({})

    async def _log_over_http(self, request: Request) -> Response:
        return JSONResponse(list(self.log))

    async def _snapshots_over_http(self, request: Request) -> Response:
        return JSONResponse([asdict(snapshot) for snapshot in self._judge.snapshots])
