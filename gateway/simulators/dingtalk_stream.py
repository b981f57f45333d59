"""The Stream side of the DingTalk simulator: tickets, WebSockets, frames and their acknowledgements, and how connections end."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gateway.simulators.base import Simulator
from gateway.simulators.dingtalk_faults import CONNECT, Cuttable, DingTalkFaults, Door
from gateway.simulators.dingtalk_people import REMEMBERED, remember

BOT_MESSAGES = "/v1.0/im/bot/messages/get"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """What a client answered a frame with."""

    code: int
    data: str
    connection: str


@dataclass(eq=False, slots=True, kw_only=True)
class _Connection:
    websocket: WebSocket
    transport: Cuttable
    topics: frozenset[str]
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    delivering: bool = True


class StreamSide(Simulator):
    """What happens on the sockets of one app. `log` and the two clocks also hold what the other sides of the simulator note."""

    faults: DingTalkFaults

    def __init__(self) -> None:
        super().__init__()
        self.faults = DingTalkFaults()
        self.acks: dict[str, Ack] = {}
        """First acknowledgement by messageId of the frame."""
        self.log: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        """What happened, in order: (open|refused|connect|close|push|ack|show|pong|callback, id)."""
        self.pushed_at: dict[str, float] = {}
        """msgId → monotonic time of its first push."""
        self._tickets: dict[str, tuple[frozenset[str], float]] = {}
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[StreamSide]:
        async with super().running(port):
            self._start(self._ping_now_and_then())
            try:
                yield self
            finally:
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

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

    def _door(self) -> WebSocketRoute:
        return WebSocketRoute(CONNECT, Door(self._connect))

    async def _ticket(self, topics: frozenset[str]) -> str:
        """Opens one connection, once, while it is young."""
        ticket = str(uuid.uuid4())
        remember(self._tickets, ticket, (topics, time.monotonic() + self.faults.ticket_ttl_s))
        await self._happened("open", "")
        return ticket

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
