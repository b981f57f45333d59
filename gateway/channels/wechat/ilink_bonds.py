"""Who has bound a bot of this channel, on disk: one private file a person, with the token, the cursor and the permissions to answer."""

from __future__ import annotations

import hashlib
import logging
import threading
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.channels.wechat.ilink_window import Window
from gateway.channels.wechat.ilink_wire import Place
from gateway.channels.wechat.login_state import LoginFile, SavedLogin
from gateway.channels.wechat.threads import in_thread

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


class Bonds:
    """The bonds of one channel, in a folder. Another process may add to it (`gateway sign-in`) while this one runs."""

    def __init__(self, folder: Path, *, base_url: str) -> None:
        """`base_url`: bonds made at another server are not looked at."""
        self.folder = folder
        self._base_url = base_url
        self._writing = threading.Lock()  # the thread of a cancelled save writes on while the next one begins

    async def all(self) -> list[Bond]:
        """The readable ones, the oldest first."""
        return await in_thread("wechat-ilink-bonds", self._load_all)

    async def bind(self, bond: Bond) -> None:
        """Keep a new sign-in, in place of an older one of the same person. Raises OSError."""

        def body() -> None:
            with self._writing:
                self._save(bond)

        await in_thread("wechat-ilink-bonds", body)

    async def update(self, bond: Bond) -> None:
        """Keep how far we are, unless the person has signed in anew meanwhile: that one is newer. Raises OSError."""

        def body() -> None:
            with self._writing:
                there = self._load(self._path(bond.user_id))
                if there is None or there.token == bond.token:
                    self._save(bond)

        await in_thread("wechat-ilink-bonds", body)

    def _load_all(self) -> list[Bond]:
        found = (self._load(path) for path in sorted(self.folder.glob("*.json")))
        return sorted((bond for bond in found if bond is not None), key=lambda bond: bond.bound_at)

    def _load(self, path: Path) -> Bond | None:
        saved = LoginFile(path).load()
        if saved is None or saved.base_url != self._base_url:
            return None
        try:
            return Bond.model_validate(saved.login)
        except ValidationError:
            logger.warning("The sign-in in %s is not complete; that person must scan a new code", path)
            return None

    def _save(self, bond: Bond) -> None:
        saved = SavedLogin(base_url=self._base_url, signed_in_at=bond.bound_at, login=bond.model_dump(mode="json"))
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        LoginFile(self._path(bond.user_id)).save(saved)

    def _path(self, user_id: str) -> Path:
        return self.folder / f"{hashlib.sha256(user_id.encode()).hexdigest()[:16]}.json"
