"""Where the operator's people can be reached: known by id, remembered from the last private message each of them wrote."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.messages import Address, Inbound, Lang, ReplyTicket, address_from_json, address_to_json, ticket_from_json, ticket_to_json
from gateway.stores.base import Shelf
from gateway.wording import language_of

logger = logging.getLogger(__name__)

KEEP_FOR = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Admin:
    """One person on one channel, by the platform's id and never by a name."""

    channel: str
    sender: str


@dataclass(frozen=True, slots=True)
class Reach:
    """How to write to an admin: platforms that only allow answers need the ticket of something the admin wrote."""

    address: Address
    ticket: ReplyTicket
    lang: Lang


class Admins:
    """The address book, in the order in which the operator wants them to be told. Survives a restart on the shelf."""

    def __init__(self, *, admins: Sequence[Admin], shelf: Shelf, clock: Clock, language: Lang | Literal["auto"] = "auto") -> None:
        """`language`: of the alarms; "auto" is that of the admin's last message."""
        self.admins = tuple(admins)
        self._known = frozenset(admins)
        self._shelf = shelf
        self._clock = clock
        self._language: Lang | Literal["auto"] = language
        self._reaches: dict[Admin, Reach] = {}
        self._unsaved: set[Admin] = set()

    def heard(self, inbound: Inbound) -> bool:
        """Remember where an admin wrote from, unless it was in a group; returns whether it was one. Waits for nothing."""
        admin = Admin(inbound.address.channel, inbound.address.sender)
        if admin not in self._known or inbound.address.in_group:
            return False
        lang = self._language if self._language != "auto" else language_of(inbound.text)
        self._reaches[admin] = Reach(inbound.address, inbound.ticket, lang)
        self._unsaved.add(admin)
        return True

    async def reach(self, admin: Admin) -> Reach | None:
        """How to write to `admin`; None when the admin has not written for 90 days, or the store cannot be read."""
        if admin not in self._reaches:
            found = await self._load(admin)
            if found is not None:
                self._reaches.setdefault(admin, found)
        return self._reaches.get(admin)

    async def save(self) -> None:
        """Write what `heard` learned to the shelf; tried again at the next call when the store fails."""
        for admin in list(self._unsaved):
            reach = self._reaches[admin]
            data = {"address": address_to_json(reach.address), "ticket": ticket_to_json(reach.ticket), "lang": reach.lang}
            try:
                await self._shelf.put(_shelf_name(admin), json.dumps(data), self._clock.now() + KEEP_FOR)
            except StoreError as error:
                logger.info("Where admin %s of channel %s can be reached was not saved: %s", admin.sender, admin.channel, error)
                return
            if self._reaches[admin] is reach:
                self._unsaved.discard(admin)

    async def _load(self, admin: Admin) -> Reach | None:
        try:
            text = await self._shelf.get(_shelf_name(admin), self._clock.now())
            if text is None:
                return None
            data = json.loads(text)
            lang: Lang = "en" if data["lang"] == "en" else "zh"
            return Reach(address_from_json(data["address"]), ticket_from_json(data["ticket"]), lang)
        except (StoreError, ValueError, KeyError, TypeError) as error:
            logger.warning("Where admin %s of channel %s can be reached cannot be read: %s", admin.sender, admin.channel, error)
            return None


def _shelf_name(admin: Admin) -> str:
    return f"admin/{admin.channel}/{admin.sender}"
