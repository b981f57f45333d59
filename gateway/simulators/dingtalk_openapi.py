"""DingTalk's OpenAPI as far as a bot needs it: access tokens, sends to people and groups, limits per second and per month."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.simulators.base import Shown
from gateway.simulators.dingtalk_faults import QUERY, TO_GROUP, TO_PERSON, TOKEN, DingTalkFaults, cut, faulty_route
from gateway.simulators.dingtalk_people import People

PARAM_BYTES = 15_000
MOST_PEOPLE = 20
TOKEN_LIFE_S = 7_200
IP_CODE = "Forbidden.AccessDenied.IpNotInWhiteList"
QPS_CODE = "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
MONTH_CODE = "Forbidden.AccessDenied.ApiCountLimitForOrg"
SCOPE_CODE = "Forbidden.AccessDenied.AccessTokenPermissionDenied"


class OpenApiSide:
    """One app's side of the OpenAPI. `calls` counts by path what a bill would count, `tokens_given` the tokens fetched."""

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        faults: DingTalkFaults,
        people: People,
        show: Callable[[Shown], Awaitable[None]],
        now: Callable[[], float],
    ) -> None:
        self.calls: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Refusals by code."""
        self.tokens_given = 0
        self._client_id = client_id
        self._client_secret = client_secret
        self._faults = faults
        self._people = people
        self._show = show
        self._now = now
        self._tokens: deque[str] = deque(maxlen=10)
        self._latest: dict[str, deque[float]] = {}

    def routes(self) -> list[Route]:
        return [
            faulty_route(TOKEN, self._faults, self._token),
            faulty_route(TO_PERSON, self._faults, self._billed(TO_PERSON, self._to_person)),
            faulty_route(TO_GROUP, self._faults, self._billed(TO_GROUP, self._to_group)),
            faulty_route(QUERY, self._faults, self._billed(QUERY, self._query)),
        ]

    def revoke_tokens(self) -> None:
        """Every token given so far is 401 from now on."""
        self._tokens.clear()

    def ip_refusal(self, path: str) -> Response | None:
        return self._refuse(403, IP_CODE, "访问ip不在白名单之中") if path in self._faults.ip_refused else None

    async def _token(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        date = {"date": format_datetime(datetime.fromtimestamp(self._now() + self._faults.clock_skew_s, UTC), usegmt=True)}
        if refused := self.ip_refusal(TOKEN):
            return refused
        if (asked.get("appKey"), asked.get("appSecret")) != (self._client_id, self._client_secret):
            return JSONResponse({"code": "invalidClientIdOrSecret", "message": "无效的clientId或者clientSecret"}, 400, headers=date)
        self._tokens.append(uuid.uuid4().hex)
        self.tokens_given += 1
        return JSONResponse({"accessToken": self._tokens[-1], "expireIn": TOKEN_LIFE_S}, headers=date)

    def _billed(self, path: str, endpoint: Callable[[dict[str, Any]], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """What stands before every call that counts, in the order in which DingTalk looks."""

        async def serve(request: Request) -> Response:
            if request.headers.get("x-acs-dingtalk-access-token") not in self._tokens:
                return self._refuse(401, "InvalidAuthentication", "不合法的access_token")
            if refused := self.ip_refusal(path) or self._limited(path):
                return refused
            if self._faults.no_scope:
                return self._refuse(403, SCOPE_CODE, "应用尚未开通所需的权限：[qyapi_robot_sendmsg]")
            asked = json.loads(await request.body())
            if self._faults.unpublished or asked.get("robotCode") != self._client_id:
                return self._refuse(400, "invalidParameter.robotCode.notExsit", "机器人不存在")
            answer = await endpoint(asked)
            if answer.status_code == 200 and self._faults.send_cuts > 0:
                self._faults.send_cuts -= 1
                return await cut(request)
            return answer

        return serve

    def _limited(self, path: str) -> Response | None:
        """A sliding second per path, then the organisation's month."""
        latest, now = self._latest.setdefault(path, deque(maxlen=1_000)), time.monotonic()
        if sum(1 for at in latest if at > now - 1) >= self._faults.calls_per_second:
            return self._refuse(403, QPS_CODE, "应用调用该接口的频率超过限制")
        latest.append(now)
        if self._faults.calls_left is not None:
            if self._faults.calls_left <= 0:
                return self._refuse(403, MONTH_CODE, "您的企业本月api调用量已超过限制")
            self._faults.calls_left -= 1
        self.calls[path] += 1
        return None

    async def _to_person(self, asked: dict[str, Any]) -> Response:
        ids = asked.get("userIds") or []
        if not ids:
            return self._refuse(400, "invalidParameter.userIds.empty", "用户userId列表为空")
        if len(ids) > MOST_PEOPLE:
            return self._refuse(400, "invalidParameter.userIds.overMax", "用户userId列表超过最大限制")
        text = _words(asked)
        if text is None:
            return self._refuse(400, "invalidParameter.msgParam.invalid", "msgParam不合法")
        invalid, slowed = [], []
        for one in ids:
            nick = self._people.nick(one)
            if nick is None or nick in self._faults.invalid_staff:
                invalid.append(one)
            elif nick in self._faults.flow_controlled:
                slowed.append(one)
            else:
                await self._show(Shown(chat=nick, text=text))
        return JSONResponse({"processQueryKey": uuid.uuid4().hex, "invalidStaffIdList": invalid, "flowControlledStaffIdList": slowed})

    async def _to_group(self, asked: dict[str, Any]) -> Response:
        group = self._people.group(str(asked.get("openConversationId")))
        if group is None:
            return self._refuse(400, "invalidParameter.openConversationId.invalid", "无效的openConversationId")
        if group in self._faults.not_in_groups:
            return self._refuse(400, "invalidParameter.robotCode.notExsit", "机器人不存在，请检查机器人是否在群内")
        text = _words(asked)
        if text is None or len(asked["msgParam"].encode()) > PARAM_BYTES:
            return self._refuse(400, "invalidParameter.msgParam.invalid", "msgParam不合法")
        await self._show(Shown(chat=group, text=text))
        return JSONResponse({"processQueryKey": uuid.uuid4().hex})

    async def _query(self, asked: dict[str, Any]) -> Response:
        return self._refuse(400, "invalid.processQueryKey", "无效的processQueryKey")

    def _refuse(self, status: int, code: str, message: str) -> Response:
        self.refused[code] += 1
        return JSONResponse({"code": code, "message": message, "requestid": uuid.uuid4().hex}, status)


def _words(asked: dict[str, Any]) -> str | None:
    """What a person reads; None when msgKey and msgParam do not go together."""
    wanted = {"sampleText": "content", "sampleMarkdown": "text"}.get(asked.get("msgKey", ""))
    try:
        param = json.loads(asked["msgParam"])
        words = param[wanted] if wanted and all(isinstance(value, str) and value for value in param.values()) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return words if isinstance(words, str) else None
