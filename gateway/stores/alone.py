"""Keeps a second gateway off the same data file: two would answer the same unfinished turns."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.errors import StoreUnavailable


class AloneLock:
    """A lock beside the data file, held from construction to `release`; the system frees it when the process dies.

    It has a file of its own: closing any other descriptor of the data file would drop SQLite's own locks on it (fcntl(2)).
    """

    def __init__(self, path: Path) -> None:
        """Raises StoreUnavailable when another gateway holds it."""
        place = path.with_name(f"{path.name}.lock")
        try:
            self._descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"{place} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise StoreUnavailable(f"Another gateway uses {path}: stop it first, or name another file in store.url.") from error

    def release(self) -> None:
        """Let the next one in; calling it again does nothing. The empty file stays: removing it would race with the next one."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
