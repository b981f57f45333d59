"""The world behind the WeChat Web simulator: people, groups, logins, and one numbered log of everything that happens."""

from __future__ import annotations

import html
import itertools
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

OFFICIAL_FLAG = 24
_EMOJI_SPANS = range(0x1F300, 0x1F650)
"""Pictures that WeChat Web sends as spans; newer ones travel as they are."""


def wire_text(text: str) -> str:
    """As the real server writes text: HTML-escaped, `<br/>` for newlines, older emoji as spans."""
    escaped = html.escape(text, quote=False).replace("\n", "<br/>")
    return "".join(f'<span class="emoji emoji{ord(c):x}"></span>' if ord(c) in _EMOJI_SPANS else c for c in escaped)


@dataclass(slots=True)
class Account:
    """The account that the bot uses."""

    nick: str = "bot"
    uin: str = "1234567890"


@dataclass(slots=True)
class Group:
    """A group chat; the bot is always a member besides `members`."""

    members: list[str]
    bot_display: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened: a message, or a contact that changed (`raw` is None)."""

    number: int
    chat: str
    author: str
    """Name of who wrote; empty: the account itself."""
    raw: Mapping[str, Any] | None
    prefixed: bool = True


@dataclass(slots=True, kw_only=True)
class Login:
    """One sign-in: its secrets, and the ids that everybody has until the next one."""

    sid: str = field(default_factory=lambda: secrets.token_hex(8))
    skey: str = field(default_factory=lambda: f"@crypt_{secrets.token_hex(8)}")
    pass_ticket: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    me: str = field(default_factory=lambda: f"@{secrets.token_hex(16)}")
    began_s: float = field(default_factory=time.monotonic)
    retcode: str = "0"
    """Not 0 once the server has ended this login."""
    ids: dict[str, str] = field(default_factory=dict)

    def id_of(self, name: str, *, group: bool = False) -> str:
        """The UserName of a person or a group in this login."""
        key = f"group {name}" if group else name
        return self.ids.setdefault(key, f"{'@@' if group else '@'}{secrets.token_hex(16)}")

    def name_of(self, user_name: str) -> str | None:
        """The name behind a UserName of this login."""
        return next((key.removeprefix("group ") for key, value in self.ids.items() if value == user_name), None)


class World:
    """Who there is and what was said. Not a server: it answers with plain dictionaries."""

    def __init__(self, friends: Iterable[str], groups: Mapping[str, Iterable[str]], officials: Iterable[str], nick: str) -> None:
        self.account = Account(nick=nick)
        self.friends = list(friends)
        self.remarks: dict[str, str] = {}
        self.nicks: dict[str, str] = {}
        """What a person calls himself now, when it is not his name here."""
        self.officials = list(officials)
        self.groups = {name: Group(list(members)) for name, members in groups.items()}
        self.log: list[Entry] = []
        self.acknowledged = 0
        """Number of the newest entry that the client is known to have."""
        self._ids = itertools.count(4_000_000_000_000_000_001)

    @property
    def newest(self) -> int:
        return self.log[-1].number if self.log else 0

    def append(self, chat: str, author: str, raw: Mapping[str, Any] | None, *, prefixed: bool = True) -> None:
        self.log.append(Entry(number=self.newest + 1, chat=chat, author=author, raw=raw, prefixed=prefixed))

    def message(self, text: str, *, kind: int = 1, **fields: Any) -> Json:
        """The fields of a new message that do not depend on the login; `text` is as on the wire."""
        number = next(self._ids)
        created = int(time.time())
        ids = {"MsgId": str(number), "NewMsgId": number}
        rest = {"CreateTime": created, "Url": "", "FileName": "", "AppMsgType": 0, "Status": 3, "Ticket": "", "RecommendInfo": {}}
        return {**ids, "MsgType": kind, "Content": text, **rest, **fields}

    def wire(self, entry: Entry, login: Login) -> Json:
        """A message as `AddMsgList` carries it in this login."""
        assert entry.raw is not None
        in_group = entry.chat in self.groups
        chat = login.id_of(entry.chat, group=in_group)
        if not entry.author:
            return {**entry.raw, "FromUserName": login.me, "ToUserName": chat}
        content = entry.raw["Content"]
        if in_group and entry.prefixed:
            content = f"{login.id_of(entry.author)}:<br/>{content}"
        return {**entry.raw, "Content": content, "FromUserName": chat, "ToUserName": login.me}

    def user(self, login: Login) -> Json:
        """The account's own entry."""
        return {**self._contact(login.me, self.account.nick), "Uin": int(self.account.uin)}

    def contacts(self, login: Login) -> list[Json]:
        """The address book: friends and official accounts."""
        return [self.person(name, login) for name in [*self.friends, *self.officials]]

    def person(self, name: str, login: Login) -> Json:
        flag = OFFICIAL_FLAG if name in self.officials else 0
        entry = self._contact(login.id_of(name), self.nicks.get(name, name))
        return {**entry, "VerifyFlag": flag, "RemarkName": wire_text(self.remarks.get(name, ""))}

    def room(self, name: str, login: Login) -> Json:
        """A group with its members, the bot first."""
        group = self.groups[name]
        mine = {**self._contact(login.me, self.account.nick), "DisplayName": wire_text(group.bot_display)}
        members = [mine, *({**self.person(member, login), "DisplayName": "", "RemarkName": ""} for member in group.members)]
        known = self._contact(login.id_of(name, group=True), name)
        return {
            **known,
            "MemberCount": len(members),
            "MemberList": members,
            "EncryChatRoomId": secrets.token_hex(8),
            "ChatRoomOwner": login.me,
        }

    def wanted(self, user_name: str, login: Login) -> Json | None:
        """What webwxbatchgetcontact tells about one UserName."""
        name = login.name_of(user_name)
        if name is None:
            return None
        return self.room(name, login) if user_name.startswith("@@") else self.person(name, login)

    @staticmethod
    def _contact(user_name: str, nick: str) -> Json:
        return {
            "UserName": user_name,
            "NickName": wire_text(nick),
            "RemarkName": "",
            "DisplayName": "",
            "Sex": 0,
            "VerifyFlag": 0,
            "Uin": 0,
        }
