"""What `gateway doctor` finds out about one DingTalk app. Shows nobody anything and opens no connection."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from gateway.channels.dingtalk.openapi import OpenApi, OpenFailed, OpenRefused
from gateway.channels.dingtalk.parse import BOT_MESSAGES
from gateway.channels.dingtalk.quota import Budget, Quota
from gateway.channels.dingtalk.verdicts import IP_CODE, RATE_CODE, SPENT_CODE, names_no_robot, repair_for
from gateway.channels.dingtalk.wire import Answer
from gateway.checkup import Finding
from gateway.clock import Clock
from gateway.errors import SendError, StoreError
from gateway.stores.base import Shelf

MAX_SKEW_S = 300.0
"""DingTalk tolerates an hour; five minutes tell that nothing sets this clock."""
KEEP_TROUBLE = timedelta(days=3)

NOT_REACHED = "Can this machine reach the openapi_base of the channel (firewall, proxy, DNS, clock)?"
NO_VERSION = (
    "DingTalk knows no robot of this app: publish a version (版本管理与发布) of the app with the robot ability (添加应用能力 → 机器人)"
)
NO_STREAM = (
    "DingTalk knows the robot but gives no Stream connection: choose Stream 模式 as 消息接收模式 of the robot and publish again, "
    'or set mode to "http"'
)

logger = logging.getLogger(__name__)


class Troubles:
    """Notes of a running gateway for the doctor, who comes later and in a process of his own. A store that fails costs only the note."""

    def __init__(self, *, client_id: str, shelf: Shelf | None, clock: Clock) -> None:
        self._name = f"dingtalk/trouble/{client_id}"
        self._shelf = shelf
        self._clock = clock

    async def note(self, trouble: str) -> None:
        """Keep the latest one for three days."""
        now = self._clock.now()
        try:
            if self._shelf is not None:
                await self._shelf.put(self._name, f"{now:%Y-%m-%d %H:%M} UTC: {trouble}", now + KEEP_TROUBLE)
        except StoreError as error:
            logger.warning("A trouble with DingTalk could not be noted: %s", error)

    async def latest(self) -> str | None:
        """Raises StoreError."""
        return None if self._shelf is None else await self._shelf.get(self._name, self._clock.now())


class Diagnosis:
    """One check-up: credentials, clock, robot, connection, budget, and what went wrong lately."""

    def __init__(self, *, api: OpenApi, quota: Quota, troubles: Troubles, clock: Clock, streams: bool) -> None:
        self._api = api
        self._quota = quota
        self._troubles = troubles
        self._clock = clock
        self._streams = streams

    async def findings(self) -> list[Finding]:
        """In the order in which they should be repaired. Costs one API call when the credentials are right."""
        token, date = await self._credentials()
        found = [token, *([self._time(date)] if date else [])]
        robot: Answer | None = None
        if token.ok:
            finding, robot = await self._calls()
            found.append(finding)
        if self._streams:
            found.append(await self._connection(robot))
        return [*found, *await self._budget_and_troubles()]

    async def _credentials(self) -> tuple[Finding, datetime | None]:
        what = "DingTalk takes client_id and client_secret"
        try:
            return Finding(what, True), (await self._api.check_token()).date
        except OpenRefused as error:
            return Finding(what, False, str(error)), error.answer.date if error.answer else None
        except OpenFailed as error:
            return Finding(what, False, f"{error}. {NOT_REACHED}"), None

    def _time(self, theirs: datetime) -> Finding:
        off_s = (self._clock.now() - theirs).total_seconds()
        what = "the clock agrees with DingTalk's"
        if abs(off_s) <= MAX_SKEW_S:
            return Finding(what, True)
        how = "ahead" if off_s > 0 else "behind"
        return Finding(what, False, f"the clock of this machine is {abs(off_s):.0f} s {how}: switch time synchronisation (NTP) on")

    async def _calls(self) -> tuple[Finding, Answer | None]:
        what = "DingTalk takes API calls of this app"
        try:
            answer = await self._api.ask_about_robot()
        except SendError as error:
            return Finding(what, False, f"{error}. {NOT_REACHED}"), None
        if names_no_robot(answer):
            return Finding(what, False, f"{NO_VERSION} ({answer.reason})"), answer
        repair = repair_for(answer) if answer.code != RATE_CODE else ""
        return Finding(what, not repair, f"{repair} ({answer.reason})" if repair else ""), answer

    async def _connection(self, robot: Answer | None) -> Finding:
        what = "DingTalk offers a Stream connection"
        try:
            await self._api.open_connection([BOT_MESSAGES])
        except OpenRefused as error:
            return Finding(what, False, _why_no_stream(error, robot))
        except OpenFailed as error:
            return Finding(what, False, f"{error}. {NOT_REACHED}")
        return Finding(what, True)

    async def _budget_and_troubles(self) -> list[Finding]:
        try:
            budget, trouble = await self._quota.look(), await self._troubles.latest()
        except StoreError as error:
            return [Finding("the store tells the API calls of this month", False, str(error))]
        return [_spending(budget), *([Finding("no send by API failed lately", False, trouble)] if trouble else [])]


def _why_no_stream(error: OpenRefused, robot: Answer | None) -> str:
    """DingTalk refuses with one code for many reasons; what the robot's own API says tells them apart."""
    if robot is None or (error.answer is not None and repair_for(error.answer)):
        return str(error)
    if robot.code in {IP_CODE, SPENT_CODE}:
        return repair_for(robot)
    return NO_VERSION if names_no_robot(robot) else f"{NO_STREAM}. {error}"


def _spending(budget: Budget) -> Finding:
    if budget.monthly is None:
        return Finding(f"API calls this month: {budget.used}, about {budget.forecast} by its end, no limit set", True)
    if budget.monthly == 0:
        return Finding("API calls are switched off (monthly_calls is 0): only fresh messages are answered", True)
    what = f"API calls this month: {budget.used} of {budget.monthly}, about {budget.forecast} by its end"
    if budget.spent:
        return Finding(what, False, "they are spent: only fresh messages are answered; raise monthly_calls if the organisation has more")
    if budget.low or budget.forecast > budget.monthly:
        return Finding(what, False, "they will not last: send less by API (farewells, reminders), or raise monthly_calls if there are more")
    return Finding(what, True)
