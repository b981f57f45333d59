"""What DingTalk's answers mean for us: its error codes → our errors. Pure."""

from __future__ import annotations

from typing import NoReturn

from gateway.channels.dingtalk.wire import Answer
from gateway.errors import SendError, SendLater, SendRefused, SendUncertain, TicketExpired

RATE_PAUSE_S = 10.0
BLOCKED_S = 600.0
"""A custom robot that spoke more than 20 times in a minute is silenced for ten (robot document, protocol page 2026-11)."""

CHECK_LIST = (
    "check for a typing error in client_id and client_secret; in the developer console: is a version of the app published, "
    "does the app have the robot ability, is Stream mode chosen for it, does an IP allow-list shut this machine out?"
)
RATE_CODE = "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
"""Comes as 403 and is a rate limit, not a missing permission (protocol page, 2026-11)."""
SPENT_CODE = "Forbidden.AccessDenied.ApiCountLimitForOrg"
"""The organisation's API calls of this month are spent; the older API says errcode 90020 (DingTalk's help, 1061621972)."""
IP_CODE = "Forbidden.AccessDenied.IpNotInWhiteList"
SCOPE_CODE = "Forbidden.AccessDenied.AccessTokenPermissionDenied"
SECRET_CODES = {"authFailed", "invalidClientIdOrSecret", "invalidAppKey", "invalidAppSecret"}
_NO_ROBOT = ("invalidParameter.robotCode", "invalidParameter.openConversationId", "invalid.openConversationId", "invalidParameter.invalid")
"""How sends name a robot that is not (or not in this group); DingTalk's error tables spell it in several ways (help.dingtalk.io, 2026)."""

REPAIRS = {
    IP_CODE: "an IP allow-list of the app shuts this machine out: developer console, 安全设置, 服务器出口IP — add its public address",
    SCOPE_CODE: "the app lacks a permission: developer console, 权限管理 — grant 企业内机器人发送消息权限 (qyapi_robot_sendmsg), publish",
    SPENT_CODE: "the organisation's API calls of this month are spent: developer console, 资源管理 — buy more, or wait for the next month",
}
NOT_IN_GROUP = "the bot is not in this group (or the group is gone): add it in 群设置 → 机器人"

_WEBHOOK_ERRCODES: dict[int, type[SendError]] = {
    # Session webhooks answer 200 with these: table of the robot document as of 2024, 300001 as users saw it until 2026-03.
    300001: TicketExpired,  # the session is over
    460101: SendRefused,  # body larger than 20 000 bytes
    101002: SendRefused,  # the same, until 2020
    -1: SendLater,  # system busy
    130101: SendLater,  # too fast
    302033: SendLater,  # more than 20 a minute
    410100: SendLater,  # too fast
    90018: SendLater,  # too many calls of this app
    90030: SendLater,  # webhook over its limit
}
_ROBOT_ERRCODES: dict[int, str] = {
    # A custom robot's (open.dingtalk.com, “custom robot”, as of 2024); all of them for good.
    310000: "its security settings refuse the message: keyword, signature or IP address",
    300001: "there is no robot with this access_token (deleted, or mistyped)",
    400101: "access_token does not exist",
    400102: "the robot was switched off",
    400105: "this kind of message is not supported",
    400106: "the message is empty or not as documented",
    430101: "the message holds a link that DingTalk calls unsafe",
    430102: "the message holds words that DingTalk does not allow",
    430103: "the message holds a picture that DingTalk does not allow",
    430104: "the message holds content that DingTalk does not allow",
    460101: "the message is too long",
}
_ROBOT_SETTINGS = (
    ("keyword", "the message has none of its keywords: set `keyword` to one of 安全设置 → 自定义关键词"),
    ("关键词", "the message has none of its keywords: set `keyword` to one of 安全设置 → 自定义关键词"),
    ("timestamp", "加签 is chosen and `secret` is not set, or the clock of this machine is more than an hour off"),
    ("sign", "the signature is wrong: copy `secret` (SEC…) again from 安全设置 → 加签"),
    ("签名", "the signature is wrong: copy `secret` (SEC…) again from 安全设置 → 加签"),
    ("ip", "an IP allow-list shuts this machine out: 安全设置 → IP地址"),
)
_BLOCKING = {302033, 130101}


class QuotaSpent(TicketExpired):
    """No API call is left this month; only fresh messages can be answered, through their session webhooks."""


class NotInGroup(SendRefused):
    """The bot cannot speak in a group that it does not belong to."""


def check_shown(answer: Answer) -> None:
    """A session webhook's answer. DingTalk says 200 also when it shows nothing; only `errcode` tells. Raises a SendError."""
    errcode, said = _errcode(answer)
    if errcode == 0:
        return
    kind = _WEBHOOK_ERRCODES.get(errcode, SendRefused)
    raise SendLater(said, retry_after_s=RATE_PAUSE_S) if kind is SendLater else kind(said)


def check_robot(answer: Answer) -> None:
    """A custom robot's answer. Raises a SendError that names the setting at fault."""
    errcode, said = _errcode(answer)
    if errcode == 0:
        return
    if errcode in _BLOCKING:
        raise SendLater(f"{said}: more than 20 messages in a minute", retry_after_s=BLOCKED_S)
    if errcode == -1 or _WEBHOOK_ERRCODES.get(errcode) is SendLater:
        raise SendLater(said, retry_after_s=RATE_PAUSE_S)
    hint = _ROBOT_ERRCODES.get(errcode, "")
    if errcode == 310000:
        hint = next((repair for word, repair in _ROBOT_SETTINGS if word in said.lower()), hint)
    raise SendRefused(f"{said} ({hint})" if hint else said)


def check_sent(answer: Answer, *, in_group: bool = False) -> str:
    """An OpenAPI send's answer; returns DingTalk's key of the message. Raises a SendError."""
    if answer.status != 200:
        fail_send(answer, in_group=in_group)
    body = answer.body
    if body.get("flowControlledStaffIdList"):
        raise SendLater("DingTalk slows messages to this person down", retry_after_s=RATE_PAUSE_S)
    if body.get("invalidStaffIdList"):
        raise SendRefused("DingTalk knows no such person, or the app is not visible to them (开发者后台 → 版本管理与发布 → 可用范围)")
    if not isinstance(body.get("processQueryKey"), str):
        raise SendUncertain(f"DingTalk's answer has no processQueryKey ({len(answer.content)} bytes)")
    return str(body["processQueryKey"])


def fail_send(answer: Answer, *, in_group: bool = False) -> NoReturn:
    """What an answer other than 200 means for a message. Raises a SendError."""
    said = f"DingTalk did not take the message: {answer.reason}"
    if answer.status == 504:  # Their gateway gave up after 3 s; what stands behind it may have shown the message (protocol page, 2026-11).
        raise SendUncertain(said)
    if answer.code == SPENT_CODE:
        raise QuotaSpent(f"{said}: {REPAIRS[SPENT_CODE]}")
    if answer.status >= 500 or answer.status == 429 or answer.code == RATE_CODE:
        raise SendLater(said, retry_after_s=answer.retry_after_s or RATE_PAUSE_S)
    if in_group and names_no_robot(answer):
        raise NotInGroup(f"{said}: {NOT_IN_GROUP}")
    raise SendRefused(f"{said}: {repair_for(answer)}" if repair_for(answer) else said)


def names_no_robot(answer: Answer) -> bool:
    """Whether DingTalk says that it does not find the robot where it was looked for."""
    return answer.status == 400 and answer.code.startswith(_NO_ROBOT)


def repair_for(answer: Answer) -> str:
    """What the operator can do about a refusal whose code tells; empty when it does not."""
    if answer.code in SECRET_CODES or answer.status == 401:
        return (
            "client_id or client_secret is wrong: copy both again from the developer console, 凭证与基础信息. If they are right: "
            + CHECK_LIST
        )
    return REPAIRS.get(answer.code, "")


def _errcode(answer: Answer) -> tuple[int, str]:
    if answer.status != 200:
        fail_send(answer)
    told = str(answer.body.get("errcode"))
    if not told.removeprefix("-").isdecimal():
        raise SendUncertain(f"DingTalk's answer has no errcode ({len(answer.content)} bytes)")
    return int(told), f"DingTalk did not show the message: errcode {told} {str(answer.body.get('errmsg', ''))[:200]}"
