"""The login on disk, so that a restart needs no new QR code. Whoever has the file has the account: 0600, plain JSON, replaced whole."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

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


class LoginFile:
    """Keeps at most one `SavedLogin`."""

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
