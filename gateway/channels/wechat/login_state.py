"""The saved login, so that a restart or another process needs no new QR code. Whoever has it has the account.

On disk: 0600, plain JSON, replaced whole. On the shelf of a shared store: as safe as that store.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.channels.wechat.threads import in_thread
from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.stores.base import Shelf

logger = logging.getLogger(__name__)


class SavedLogin(BaseModel):
    """One login and what it belongs to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = 1
    base_url: str
    """A login is only good at the server that gave it."""
    signed_in_at: datetime
    login: dict[str, Any]
    """What the client library needs; read only by its door."""


class Logins(ABC):
    """Keeps at most one `SavedLogin`. All calls raise StoreUnavailable when the place cannot be reached."""

    where: str
    """For the operator."""

    @abstractmethod
    async def load(self) -> SavedLogin | None:
        """None when there is none or it cannot be read (then somebody has to scan again)."""

    @abstractmethod
    async def save(self, saved: SavedLogin) -> None:
        """Replace it."""

    @abstractmethod
    async def clear(self) -> None:
        """Forget it."""


class FileLogins(Logins):
    """In a file of this machine."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._file = LoginFile(path)

    async def load(self) -> SavedLogin | None:
        return await in_thread("wechat", self._file.load)

    async def save(self, saved: SavedLogin) -> None:
        try:
            await in_thread("wechat", lambda: self._file.save(saved))
        except OSError as error:
            raise StoreUnavailable(error.strerror or type(error).__name__) from error

    async def clear(self) -> None:
        await in_thread("wechat", self._file.clear)


class ShelfLogins(Logins):
    """On the shelf of a store, where the process that takes the account over finds it."""

    def __init__(self, *, channel: str, shelf: Shelf, clock: Clock) -> None:
        self._name = f"wechat/{channel}/login"
        self.where = "the shared store"
        self._shelf = shelf
        self._clock = clock

    async def load(self) -> SavedLogin | None:
        text = await self._shelf.get(self._name, self._clock.now())
        try:
            return SavedLogin.model_validate_json(text) if text is not None else None
        except ValidationError:
            logger.warning("The saved WeChat login in %s cannot be read; a new sign-in is needed", self.where)
            return None

    async def save(self, saved: SavedLogin) -> None:
        await self._shelf.put(self._name, json.dumps(saved.model_dump(mode="json")), None)

    async def clear(self) -> None:
        await self._shelf.drop(self._name)


class LoginFile:
    """The file itself; blocking."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> SavedLogin | None:
        """None when there is none or it cannot be read (then somebody has to scan again)."""
        try:
            return SavedLogin.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            logger.warning("The saved WeChat login in %s cannot be read (%s); a new sign-in is needed", self.path, type(error).__name__)
            return None

    def save(self, saved: SavedLogin) -> None:
        """Replace the file. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_private(self.path, json.dumps(saved.model_dump(mode="json")).encode())

    def clear(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def write_private(path: Path, data: bytes) -> None:
    """Write so that nobody else can read it and a crash leaves the old file or the new one, never half of it. Raises OSError."""
    fresh = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()  # one left by a crash could have other rights
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
