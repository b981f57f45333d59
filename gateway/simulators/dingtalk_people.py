"""Who is in the simulated DingTalk organisation, what their messages look like, and what they see of an answer."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.simulators.base import Shown

BODY_BYTES = 20_000
REMEMBERED = 10_000
"""How many sessions, acknowledgements and log lines are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The permission to answer one message, for whoever knows its id."""

    message_id: str
    chat: str
    expires_at: float


class People:
    """People and their session webhooks. Times are seconds since 1970."""

    def __init__(self, *, bot_name: str, robot_code: str, now: Callable[[], float]) -> None:
        self._bot_name = bot_name
        self._robot_code = robot_code
        self._now = now
        self._staff: dict[str, str] = {}
        self._sessions: dict[str, Session] = {}
        self._groups: dict[str, str] = {}

    def staff(self, nick: str) -> str:
        """The staff id of somebody, who is taken on if need be."""
        return self._staff.setdefault(nick, f"manager{len(self._staff) + 1:02d}")

    def nick(self, staff_id: str) -> str | None:
        return next((nick for nick, one in self._staff.items() if one == staff_id), None)

    def conversation(self, group: str) -> str:
        """The id of a group that the bot is in."""
        known = _id_of(group)
        remember(self._groups, known, group)
        return known

    def group(self, conversation: str) -> str | None:
        return self._groups.get(conversation)

    def envelope(self, *, msg_id: str, sender: str, group: str | None, staff: bool, webhook: str, ttl_s: float) -> dict[str, object]:
        """A bot message without its body; opens a session."""
        staff_id = self.staff(sender)
        created_at, session_id, bot = self._now(), uuid.uuid4().hex, encrypted(self._bot_name)
        session = Session(message_id=msg_id, chat=group or sender, expires_at=created_at + ttl_s)
        remember(self._sessions, session_id, session)
        return {
            "msgId": msg_id,
            "createAt": int(created_at * 1000),
            "conversationId": self.conversation(group) if group else _id_of(f"{sender}和{self._bot_name}"),
            "conversationType": "2" if group else "1",
            **({"conversationTitle": group, "isInAtList": True, "atUsers": [{"dingtalkId": bot}]} if group else {}),
            "senderId": encrypted(sender),
            "senderStaffId": staff_id if staff else "",
            "senderNick": sender,
            "senderCorpId": "dingsimulatedcorp",
            "senderPlatform": "Mac",
            "isAdmin": False,
            "chatbotUserId": bot,
            "chatbotCorpId": "dingsimulatedcorp",
            "robotCode": self._robot_code,
            "sessionWebhook": f"{webhook}?session={session_id}",
            "sessionWebhookExpiredTime": int(session.expires_at * 1000),
        }

    def session(self, session_id: str) -> Session | None:
        """None when it never was, is forgotten or is over."""
        session = self._sessions.get(session_id)
        return session if session and session.expires_at >= self._now() else None

    def forget_sessions(self) -> None:
        self._sessions.clear()

    def seen(self, session: Session, said: dict[str, Any]) -> Shown:
        """What people see of a webhook body, and whose phone rings."""
        markdown = said["msgtype"] == "markdown"
        text: str = said["markdown"]["text"] if markdown else said["text"]["content"]
        called = said.get("at") or {}
        notified = []
        for one in [*called.get("atUserIds", []), *called.get("atDingtalkIds", [])]:
            nick = next((nick for nick, staff_id in self._staff.items() if one in {staff_id, encrypted(nick)}), None)
            if nick is None or (markdown and f"@{one}" not in text):
                continue  # In markdown the text itself must name the id, or no phone rings.
            text = text.replace(f"@{one}", f"@{nick}")
            notified.append(nick)
        return Shown(chat=session.chat, text=text, notified=tuple(notified), answers=session.message_id)


def judge(body: bytes) -> tuple[int, str]:
    """The errcode and errmsg that a webhook body earns."""
    if len(body) > BODY_BYTES:
        return 460101, "description: body 大小不合法;solution:请保持大小在 20000bytes 以内;"
    try:
        said = json.loads(body)
        words = [said["markdown"]["title"], said["markdown"]["text"]] if said["msgtype"] == "markdown" else [said["text"]["content"]]
        complete = all(word.strip() for word in words)
    except (ValueError, KeyError, TypeError, AttributeError):
        return 40035, "缺少参数 json"
    return (0, "ok") if complete else (40035, "缺少参数 title 或 text")


def _id_of(conversation: str) -> str:
    return "cid" + base64.b64encode(conversation.encode()).decode() + "=="


def encrypted(name: str) -> str:
    """What a senderId looks like."""
    return "$:LWCP_v1:$" + base64.b64encode(name.encode()).decode()


def remember(store: dict[str, Any], key: str, value: object) -> None:
    """Bounded: the oldest goes."""
    while len(store) >= REMEMBERED:
        store.pop(next(iter(store)))
    store[key] = value
