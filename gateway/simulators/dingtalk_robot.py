"""A custom robot of one simulated DingTalk group: `/robot/send` with its security settings and its twenty messages a minute."""

from __future__ import annotations

import hmac
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.simulators.base import Shown
from gateway.simulators.dingtalk_callback import sign
from gateway.simulators.dingtalk_faults import ROBOT, DingTalkFaults, faulty_route
from gateway.simulators.dingtalk_people import judge

ACCESS_TOKEN = "simulated-robot-token"  # noqa: S105  (opens nothing but this simulator)
SECRET = "SECsimulated"  # noqa: S105  (the same)
PER_MINUTE = 20
BLOCKED_S = 600.0


class CustomRobot:
    """Its settings are plain attributes: an empty secret or no keywords switch that setting off. `now`: seconds since 1970."""

    def __init__(self, *, faults: DingTalkFaults, show: Callable[[Shown], Awaitable[None]], now: Callable[[], float]) -> None:
        self.group = "告警群"
        self.secret = SECRET
        self.keywords: tuple[str, ...] = ()
        self.ip_allowed = True
        self.minute_s = 60.0
        """Length of a minute, for tests without patience."""
        self._faults = faults
        self._show = show
        self._now = now
        self._latest: deque[float] = deque(maxlen=PER_MINUTE)
        self._blocked_until = 0.0

    def routes(self) -> list[Route]:
        return [faulty_route(ROBOT, self._faults, self._send)]

    async def _send(self, request: Request) -> Response:
        body = await request.body()
        errcode, errmsg = self._verdict(request, body)
        if errcode == 0:
            said = json.loads(body)
            text = said["markdown"]["text"] if said["msgtype"] == "markdown" else said["text"]["content"]
            await self._show(Shown(chat=self.group, text=text))
        return JSONResponse({"errcode": errcode, "errmsg": errmsg})

    def _verdict(self, request: Request, body: bytes) -> tuple[int, str]:
        if request.query_params.get("access_token") != ACCESS_TOKEN:
            return 300001, "token is not exist"
        if not self.ip_allowed:
            return 310000, "description:机器人发送IP不在白名单;solution:ip 127.0.0.1 not in whitelist"
        if self.secret and (doubt := self._doubt(request)):
            return 310000, doubt
        if self.keywords and not any(word in body.decode("utf-8", "replace") for word in self.keywords):
            return 310000, "keywords not in content"
        if self._too_often():
            return 302033, "send too fast, exceed 20 times per minute"
        return judge(body)

    def _doubt(self, request: Request) -> str:
        timestamp = request.query_params.get("timestamp", "")
        if not timestamp.isdigit() or abs(int(timestamp) / 1000 - self._now()) > 3_600:
            return "invalid timestamp"
        right = hmac.compare_digest(sign(timestamp, self.secret), request.query_params.get("sign", ""))
        return "" if right else "sign not match"

    def _too_often(self) -> bool:
        now = time.monotonic()
        if now < self._blocked_until:
            return True
        if len(self._latest) == PER_MINUTE and self._latest[0] > now - self.minute_s:
            self._blocked_until = now + BLOCKED_S
            return True
        self._latest.append(now)
        return False
