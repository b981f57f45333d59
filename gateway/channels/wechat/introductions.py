"""Finding out who somebody is: groups and people that the address book does not list, and groups whose names changed unnoticed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from gateway.channels.wechat.parse import WebMessage, room_in_doubt, rooms_named
from gateway.channels.wechat.people import Contact, People
from gateway.channels.wechat.threads import in_thread
from gateway.channels.wechat.transport import Unreachable
from gateway.clock import Clock

logger = logging.getLogger(__name__)

UNKNOWN_EVERY_S = 60.0
"""Somebody unknown is asked for at most this often."""
UNCALLED_EVERY_S = 300.0
"""A group in which somebody was called, but nobody we know as us, is asked for at most this often: we may have been renamed."""
AT_ONCE = 50
"""WeChat answers for at most so many."""
_REMEMBERED = 4_000


class Registry(Protocol):
    """Asks WeChat, blocking; `ItchatDoor` does."""

    def rooms(self, user_names: list[str]) -> list[Contact]: ...
    def friends(self, user_names: list[str]) -> list[Contact]: ...


class Introductions:
    """Completes `People` before a message is read, without asking WeChat for every message."""

    def __init__(self, *, registry: Registry, clock: Clock, aliases: Sequence[str] = ()) -> None:
        self._registry = registry
        self._clock = clock
        self._aliases = tuple(aliases)
        self._asked_s: dict[str, float] = {}

    async def people_for(self, message: WebMessage, people: People) -> People:
        """`people` with whoever is needed to read `message`, as far as WeChat tells."""
        told = [room for room in rooms_named(message) if room not in people.rooms][:AT_ONCE]
        room = room_in_doubt(message, people, self._aliases)
        known_room = people.rooms.get(room) if room else None
        known = known_room is not None and message.author in known_room.members
        if room is not None and self._may_ask(room, UNCALLED_EVERY_S if known else UNKNOWN_EVERY_S):
            told.append(room)
        if told:
            return await self._ask(told, people, rooms=True)
        if self._is_unknown(message, people) and self._may_ask(message.sender, UNKNOWN_EVERY_S):
            return await self._ask([message.sender], people, rooms=False)
        return people

    @staticmethod
    def _is_unknown(message: WebMessage, people: People) -> bool:
        sender = message.sender
        known = sender in people.friends or sender in people.officials or sender == people.me.user_name
        return sender.startswith("@") and not message.in_group and not known

    async def _ask(self, user_names: list[str], people: People, *, rooms: bool) -> People:
        ask = self._registry.rooms if rooms else self._registry.friends
        try:
            return people.with_contacts(await in_thread("wechat-contacts", lambda: ask(user_names)))
        except Unreachable as error:
            logger.warning("WeChat could not be asked about %d contact(s): %s", len(user_names), error)
            return people

    def _may_ask(self, user_name: str, every_s: float) -> bool:
        now_s = self._clock.monotonic()
        if now_s - self._asked_s.get(user_name, -every_s) < every_s:
            return False
        self._asked_s.pop(user_name, None)
        self._asked_s[user_name] = now_s
        if len(self._asked_s) > _REMEMBERED:
            self._asked_s.pop(next(iter(self._asked_s)))
        return True
