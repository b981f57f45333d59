"""Who is who in one login of a WeChat account, and names for them that outlive the login.

WeChat Web renames everybody at every login: the `UserName` of a friend, a member or a room (`@hex`, `@@hex`) is good for one login
only, and no other field is both filled and stable (protocol notes of 2026-11-22). Sessions, the ledger and an answer that is sent after
a restart must survive a new login, so conversations and people are known by the best name that the account's owner can see:

* `remark:…`  a friend by the remark that the owner gave; nobody but the owner can choose it, so rights may hang on it;
* `nick:…`    a friend by his own nickname; friends can rename themselves, so no rights should hang on it;
* `room:…`    a group by its name;
* `member:…`  somebody in a group who is no friend, by nickname; means something only together with the group;
* `@hex`      nothing of that is there or it is not unique. Such an id ends with the login: a later answer is refused, never misdelivered.

A name counts only while exactly one friend (group, member) bears it, at hearing and again at sending. The account itself is known by
its `uin`, which never changes.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field

OFFICIAL_ACCOUNT_FLAG = 8
"""Bit of `VerifyFlag` that official accounts carry."""

_EMOJI = re.compile(r'<span class="emoji emoji([0-9a-fA-F]{2,10})"></span>')
_SWAPPED_EMOJI = {
    "1f63c": "1f601", "1f639": "1f602", "1f63a": "1f603", "1f4ab": "1f616", "1f64d": "1f614",
    "1f63b": "1f60d", "1f63d": "1f618", "1f64e": "1f621", "1f63f": "1f622",
}  # fmt: skip
"""WeChat Web sends these faces under the code point of another picture."""


def readable(wire: str) -> str:
    """Text as a person sees it: emoji spans, `<br/>` and HTML entities decoded, in this order, each once."""
    return html.unescape(_EMOJI.sub(_emoji, wire).replace("<br/>", "\n"))


def _emoji(span: re.Match[str]) -> str:
    code = _SWAPPED_EMOJI.get(span[1].lower(), span[1])
    pair_at = {6: 2, 10: 5}.get(len(code))  # keycaps (23 20e3) and flags (1f1e8 1f1f3) are two code points
    codes = [code] if pair_at is None else [code[:pair_at], code[pair_at:]]
    numbers = [int(one, 16) for one in codes]
    return "".join(map(chr, numbers)) if max(numbers) <= 0x10FFFF and not any(0xD800 <= n <= 0xDFFF for n in numbers) else "\ufffd"


class Contact(BaseModel):
    """One entry of WeChat Web's contact lists, as far as we read it."""

    model_config = ConfigDict(extra="ignore")

    user_name: str = Field(alias="UserName", min_length=1)
    nick: str = Field("", alias="NickName")
    remark: str = Field("", alias="RemarkName")
    display: str = Field("", alias="DisplayName")
    verify_flag: int = Field(0, alias="VerifyFlag")
    members: list[Contact] = Field(default_factory=list, alias="MemberList")

    @property
    def is_room(self) -> bool:
        return self.user_name.startswith("@@")

    @property
    def is_official(self) -> bool:
        """Official accounts, and WeChat's own helpers (`weixin`, `filehelper`, …), whose ids carry no `@`."""
        return bool(self.verify_flag & OFFICIAL_ACCOUNT_FLAG) or not self.user_name.startswith("@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A friend, or the account itself."""

    user_name: str
    nick: str
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Somebody in a group."""

    user_name: str
    nick: str
    display: str = ""
    """The name that he chose for this group."""

    @property
    def shown(self) -> str:
        """What the others read above his messages and write after an `@`."""
        return self.display or self.nick


@dataclass(frozen=True, kw_only=True)
class Room:
    """A group chat."""

    user_name: str
    name: str
    members: Mapping[str, Member]
    """By UserName; empty until the member list was fetched."""

    @cached_property
    def nick_counts(self) -> Counter[str]:
        return Counter(member.nick for member in self.members.values() if member.nick)


@dataclass(frozen=True, kw_only=True)
class People:
    """Everybody that one login knows; a value, replaced when contacts change."""

    uin: str
    """The account's permanent number."""
    me: Person
    friends: Mapping[str, Person]
    rooms: Mapping[str, Room]
    officials: frozenset[str]

    def friend_id(self, user_name: str) -> str:
        """The lasting id of a friend or stranger; `user_name` itself when there is none."""
        return self._friend_ids.get(user_name, user_name)

    def room_id(self, user_name: str) -> str:
        return self._room_ids.get(user_name, user_name)

    def member_id(self, room: str, user_name: str) -> str:
        """A friend is the same person in a group as in private."""
        if user_name in self._friend_ids:
            return self._friend_ids[user_name]
        known = self.rooms.get(room)
        member = known.members.get(user_name) if known else None
        unique = known is not None and member is not None and known.nick_counts[member.nick] == 1
        return f"member:{member.nick}" if unique and member is not None else user_name

    def user_name_of(self, chat: str) -> str | None:
        """Where to send now what belongs to the conversation `chat`; None when nobody or more than one bears that name."""
        if chat in self.friends or chat in self.rooms:
            return chat
        return self._user_names.get(chat)

    def my_names(self, room: str) -> set[str]:
        """Names by which a message in `room` may call the bot."""
        known = self.rooms.get(room)
        mine = known.members.get(self.me.user_name) if known else None
        return {name for name in (self.me.nick, mine.display if mine else "", mine.nick if mine else "") if name}

    def with_contacts(self, contacts: Iterable[Contact]) -> People:
        """These contacts added or replaced."""
        friends, rooms, officials = dict(self.friends), dict(self.rooms), set(self.officials)
        for contact in contacts:
            if contact.is_room:
                rooms[contact.user_name] = _room(contact)
            elif contact.is_official:
                officials.add(contact.user_name)
            elif contact.user_name != self.me.user_name:
                friends[contact.user_name] = _person(contact)
        return replace(self, friends=friends, rooms=rooms, officials=frozenset(officials))

    @cached_property
    def _friend_ids(self) -> dict[str, str]:
        remarks = Counter(friend.remark for friend in self.friends.values() if friend.remark)
        nicks = Counter(friend.nick for friend in self.friends.values() if friend.nick)
        ids: dict[str, str] = {}
        for friend in self.friends.values():
            if remarks[friend.remark] == 1:
                ids[friend.user_name] = f"remark:{friend.remark}"
            elif nicks[friend.nick] == 1:
                ids[friend.user_name] = f"nick:{friend.nick}"
        return ids

    @cached_property
    def _room_ids(self) -> dict[str, str]:
        names = Counter(room.name for room in self.rooms.values() if room.name)
        return {room.user_name: f"room:{room.name}" for room in self.rooms.values() if names[room.name] == 1}

    @cached_property
    def _user_names(self) -> dict[str, str]:
        return {name: user_name for user_name, name in [*self._friend_ids.items(), *self._room_ids.items()]}


def people_of(*, uin: str, me: Contact, contacts: Iterable[Contact]) -> People:
    """Everybody in `contacts`, seen by the account `me`."""
    nobody = People(uin=uin, me=_person(me), friends={}, rooms={}, officials=frozenset())
    return nobody.with_contacts(contacts)


def _person(contact: Contact) -> Person:
    return Person(user_name=contact.user_name, nick=readable(contact.nick), remark=readable(contact.remark))


def _room(contact: Contact) -> Room:
    members = {
        member.user_name: Member(user_name=member.user_name, nick=readable(member.nick), display=readable(member.display))
        for member in contact.members
    }
    return Room(user_name=contact.user_name, name=readable(contact.nick), members=members)
