"""Who has bound a bot of this channel: one record a person, with the token, the cursor and the permissions to answer."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.channels.wechat.ilink_window import Window
from gateway.channels.wechat.ilink_wire import Place
from gateway.channels.wechat.login_state import LoginFile, SavedLogin
from gateway.channels.wechat.threads import in_thread
from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.stores.base import Shelf

logger = logging.getLogger(__name__)


class Bond(BaseModel):
    """One person and the bot that belongs to them alone. Whoever has the token is that bot."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    user_id: str = Field(min_length=1)
    bot_id: str
    token: str = Field(min_length=1, repr=False)
    base_url: str
    """Where the platform wants this bot's calls."""
    bound_at: datetime
    cursor: str = ""
    """Everything before it is in the ledger."""
    windows: dict[str, Window] = Field(default_factory=dict, repr=False)
    stale: bool = False
    """The platform takes the token no longer; a new code must be scanned."""

    @property
    def place(self) -> Place:
        return Place(self.base_url, self.token)

    @property
    def short(self) -> str:
        """Enough of the person's id for an operator to tell people apart."""
        return f"{self.user_id[:8]}…"


class Bonds(ABC):
    """The bonds of one channel. Another process may add to them (`gateway sign-in`) while this one runs.

    All calls raise StoreUnavailable when the place cannot be reached.
    """

    where: str
    """For the operator."""

    @abstractmethod
    async def all(self) -> list[Bond]:
        """The readable ones, the oldest first."""

    @abstractmethod
    async def bind(self, bond: Bond) -> None:
        """Keep a new sign-in, in place of an older one of the same person."""

    @abstractmethod
    async def update(self, bond: Bond) -> None:
        """Keep how far we are, unless the person has signed in anew meanwhile: that one is newer."""


class FolderBonds(Bonds):
    """A private file for each person, in a folder of this machine."""

    def __init__(self, folder: Path, *, base_url: str) -> None:
        """`base_url`: bonds made at another server are not looked at."""
        self.where = str(folder)
        self._folder = folder
        self._base_url = base_url
        self._writing = threading.Lock()  # the thread of a cancelled save writes on while the next one begins

    async def all(self) -> list[Bond]:
        return await in_thread("wechat-ilink-bonds", self._load_all)

    async def bind(self, bond: Bond) -> None:
        await self._write(bond, anew=True)

    async def update(self, bond: Bond) -> None:
        await self._write(bond, anew=False)

    async def _write(self, bond: Bond, *, anew: bool) -> None:
        try:
            await in_thread("wechat-ilink-bonds", lambda: self._save(bond, anew=anew))
        except OSError as error:
            raise StoreUnavailable(error.strerror or type(error).__name__) from error

    def _load_all(self) -> list[Bond]:
        found = (_bond_of(LoginFile(path).load(), self._base_url) for path in sorted(self._folder.glob("*.json")))
        return _by_age([bond for bond in found if bond is not None])

    def _save(self, bond: Bond, *, anew: bool) -> None:
        file = LoginFile(self._folder / f"{_name_of(bond)}.json")
        with self._writing:
            there = None if anew else _bond_of(file.load(), self._base_url)
            if there is None or there.token == bond.token:
                file.save(_saved(bond, self._base_url))


class ShelfBonds(Bonds):
    """On the shelf of a store, where the process that takes the channel over finds them; as safe as that store."""

    def __init__(self, *, channel: str, shelf: Shelf, clock: Clock, base_url: str) -> None:
        self.where = "the shared store"
        self._prefix = f"wechat/{channel}/ilink"
        self._shelf = shelf
        self._clock = clock
        self._base_url = base_url

    async def all(self) -> list[Bond]:
        found = [await self._get(name) for name in await self._names()]
        return _by_age([bond for bond in found if bond is not None])

    async def bind(self, bond: Bond) -> None:
        name, names = _name_of(bond), await self._names()
        await self._put(bond)
        if name not in names:
            await self._shelf.put(self._prefix, json.dumps([*names, name]), None)

    async def update(self, bond: Bond) -> None:
        there = await self._get(_name_of(bond))
        if there is None or there.token == bond.token:
            await self._put(bond)

    async def _names(self) -> list[str]:
        return list(json.loads(await self._shelf.get(self._prefix, self._clock.now()) or "[]"))

    async def _get(self, name: str) -> Bond | None:
        text = await self._shelf.get(f"{self._prefix}/{name}", self._clock.now())
        try:
            return _bond_of(SavedLogin.model_validate_json(text) if text else None, self._base_url)
        except ValidationError:
            logger.warning("A sign-in in %s cannot be read; that person must scan a new code", self.where)
            return None

    async def _put(self, bond: Bond) -> None:
        text = json.dumps(_saved(bond, self._base_url).model_dump(mode="json"))
        await self._shelf.put(f"{self._prefix}/{_name_of(bond)}", text, None)


def _bond_of(saved: SavedLogin | None, base_url: str) -> Bond | None:
    if saved is None or saved.base_url != base_url:
        return None
    try:
        return Bond.model_validate(saved.login)
    except ValidationError:
        logger.warning("A saved sign-in is not complete; that person must scan a new code")
        return None


def _saved(bond: Bond, base_url: str) -> SavedLogin:
    return SavedLogin(base_url=base_url, signed_in_at=bond.bound_at, login=bond.model_dump(mode="json"))


def _by_age(bonds: list[Bond]) -> list[Bond]:
    return sorted(bonds, key=lambda bond: bond.bound_at)


def _name_of(bond: Bond) -> str:
    return hashlib.sha256(bond.user_id.encode()).hexdigest()[:16]
