"""Raw messages of WeChat Web → `Inbound`. Pure; who is who comes in as `People`.

The client library's own `produce_msg` is not asked: it copies the whole room for every message (27 ms with 500 members), loses a
batch on one missing key and blames the bot for a group message with a raw newline. It reads the same fields as this file.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.channels.wechat.mention import Called, call_in, quote_block
from gateway.channels.wechat.people import People, readable
from gateway.messages import Address, Inbound, Mention, Part, Quote, ReplyTicket, Text, Unsupported

TEXT, FRIEND_REQUEST, APP, PHONE_STATUS = 1, 37, 49, 51
QUOTE_REPLY = 57
_LATEST_S = 4_102_444_800  # the year 2100; anything later is not a time

_KINDS: Mapping[int, str] = {3: "image", 34: "voice", 42: "contact card", 43: "video", 47: "sticker", 48: "location", 62: "video"}
_APP_KINDS: Mapping[int, str] = {3: "music", 4: "video", 5: "link", 6: "file", 8: "sticker", 19: "chat history", 33: "mini program"}
_APP_NOTES = frozenset({0, 17, 2000, 2001})
"""App messages that are notices: shared positions, transfers, red packets."""
_GROUP_PREFIX = re.compile(r"(@[0-9a-zA-Z]+):(?:<br/>|\n)(.*)\Z", re.DOTALL)


class UnreadableMessage(ValueError):
    """What came is no message; says which field is wrong, never what it contained."""


class _RecommendInfo(BaseModel):
    model_config = ConfigDict(extra="ignore")

    user_name: str = Field("", alias="UserName")


class WebMessage(BaseModel):
    """One entry of `AddMsgList`, as far as we read it."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    id: str = Field(alias="MsgId", min_length=1, max_length=64)
    sender: str = Field(alias="FromUserName", min_length=1)
    receiver: str = Field(alias="ToUserName")
    kind: int = Field(alias="MsgType")
    content: str = Field(alias="Content")
    created_s: int = Field(alias="CreateTime", ge=0, le=_LATEST_S)
    url: str | None = Field(None, alias="Url")
    app_kind: int = Field(0, alias="AppMsgType")
    file_name: str = Field("", alias="FileName")
    ticket: str = Field("", alias="Ticket")
    recommended: _RecommendInfo | None = Field(None, alias="RecommendInfo")
    changed_chats: str = Field("", alias="StatusNotifyUserName")

    @property
    def in_group(self) -> bool:
        return self.sender.startswith("@@")

    @property
    def author(self) -> str:
        """UserName of who wrote; in a group the server puts it before the words. Empty for a group notice."""
        prefix = _GROUP_PREFIX.match(self.content) if self.in_group else None
        return prefix[1] if prefix else "" if self.in_group else self.sender

    @property
    def body(self) -> str:
        """`content` without the author."""
        prefix = _GROUP_PREFIX.match(self.content) if self.in_group else None
        return prefix[2] if prefix else self.content


def read(raw: Mapping[str, object]) -> WebMessage:
    """The message in `raw`. Raises UnreadableMessage."""
    try:
        return WebMessage.model_validate(raw)
    except ValidationError as error:
        wrong = sorted({".".join(map(str, problem["loc"])) for problem in error.errors(include_input=False, include_url=False)})
        raise UnreadableMessage(f"fields missing or wrong: {', '.join(wrong)}") from None


def parse(message: WebMessage, people: People, *, channel: str, aliases: Sequence[str] = ()) -> Inbound | None:
    """The message in our words, or None when it is nothing to answer: our own, an official account's, a notice.

    `aliases`: further names that call the bot in groups.
    """
    if not _is_from_a_person(message, people):
        return None
    return _from_group(message, people, channel, aliases) if message.in_group else _from_friend(message, people, channel)


def room_in_doubt(message: WebMessage, people: People, aliases: Sequence[str] = ()) -> str | None:
    """The room whose member list should be fetched before `parse`: unknown, unknown author, or an `@` that does not call us."""
    if not message.in_group or not message.author or message.author == people.me.user_name:
        return None
    room = people.rooms.get(message.sender)
    if room is None or message.author not in room.members:
        return message.sender
    inbound = _from_group(message, people, "", aliases)
    return message.sender if inbound is not None and not inbound.to_bot and "@" in inbound.text else None


def rooms_named(message: WebMessage) -> list[str]:
    """Rooms that the phone tells about in a status message."""
    return [name for name in message.changed_chats.split(",") if name.startswith("@@")] if message.kind == PHONE_STATUS else []


def _is_from_a_person(message: WebMessage, people: People) -> bool:
    if people.me.user_name in (message.sender, message.author):
        return False
    return message.sender.startswith("@") and message.sender not in people.officials


def _from_friend(message: WebMessage, people: People, channel: str) -> Inbound | None:
    parts = _parts(message)
    if not parts:
        return None
    friend = people.friends.get(message.sender)
    chat = people.friend_id(message.sender)
    address = Address(channel=channel, account=people.uin, chat=chat, sender=chat)
    return _inbound(message, people, address, parts, sender_name=friend.nick if friend else "")


def _from_group(message: WebMessage, people: People, channel: str, aliases: Sequence[str]) -> Inbound | None:
    parts = _parts(message)
    words = next((part.text for part in parts if isinstance(part, Text)), None)
    if words is None or not message.author:
        return None  # nothing without words can call the bot, and a notice has no author
    room = people.rooms.get(message.sender)
    member = room.members.get(message.author) if room else None
    address = Address(
        channel=channel,
        account=people.uin,
        chat=people.room_id(message.sender),
        sender=people.member_id(message.sender, message.author),
        in_group=True,
    )
    called = _call(words, message.sender, people, aliases)
    if called is not None:
        mention = Mention(id=people.uin, name=called.name, me=True)
        parts = [*(part for part in parts if isinstance(part, Quote)), mention, Text(called.text)]
    return _inbound(message, people, address, parts, sender_name=member.shown if member else "", to_bot=called is not None)


def _call(words: str, room: str, people: People, aliases: Sequence[str]) -> Called | None:
    known = people.rooms.get(room)
    others = (name for member in known.members.values() for name in (member.shown, member.nick)) if known else ()
    mine = {*people.my_names(room), *aliases}
    return call_in(words, mine, (name for name in others if name not in mine))


def _inbound(
    message: WebMessage, people: People, address: Address, parts: Sequence[Part], *, sender_name: str, to_bot: bool = True
) -> Inbound:
    return Inbound(
        id=message.id,
        address=address,
        parts=tuple(parts),
        sent_at=datetime.fromtimestamp(message.created_s, UTC),
        to_bot=to_bot,
        ticket=ReplyTicket(token={"login": people.me.user_name, "user_name": message.sender}),
        sender_name=sender_name,
    )


def _parts(message: WebMessage) -> list[Part]:
    if message.kind == TEXT:
        return [Unsupported("location")] if message.url else _words(readable(message.body))
    if message.kind == APP:
        return _app_parts(message)
    return [Unsupported(_KINDS[message.kind])] if message.kind in _KINDS else []


def _app_parts(message: WebMessage) -> list[Part]:
    if message.app_kind == QUOTE_REPLY:
        return _quote_reply(message)
    if message.app_kind in _APP_NOTES:
        return []
    return [Unsupported(_APP_KINDS.get(message.app_kind, "link"))]


def _words(text: str) -> list[Part]:
    block = quote_block(text)
    if block is None:
        return [Text(text.strip())]
    return [Quote(block.text, block.sender_name), Text(block.rest.strip())]


def _quote_reply(message: WebMessage) -> list[Part]:
    """A reply made with WeChat's quote function: XML whose title is the reply; the library offers only `FileName`, the same title."""
    try:
        document = fromstring(html.unescape(message.body.replace("<br/>", "\n")))
    except (ET.ParseError, DefusedXmlException, ValueError):
        return [Text(readable(message.file_name).strip())]
    title = document.findtext(".//appmsg/title") or readable(message.file_name)
    quoted = (document.findtext(".//refermsg/content") or "").strip()
    sender = (document.findtext(".//refermsg/displayname") or "").strip()
    reply = Text(title.strip())
    return [Quote(quoted, sender), reply] if quoted and not quoted.startswith("<") else [reply]
