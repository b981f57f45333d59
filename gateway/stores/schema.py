"""The tables of the data file, and the way from each older version of it to this one.

`PRAGMA user_version` counts the steps that were taken. A file is copied before it is changed, and changed in one transaction.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gateway.errors import StoreError, StoreTooNew

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x43477731
"""Marks the file as ours (`PRAGMA application_id`), so that another program's database is never migrated."""

#: The newest turn of a person is named in `people` and each turn names the one before it (`previous`): an index over all turns by
#: sender would dirty one more page at every accept, which halved its speed at a million turns (measured 2026-11-22).
#:
#: One script per version; step n leads from version n to n + 1. A published step is never edited, only followed by another.
STEPS: tuple[str, ...] = (
    """
    CREATE TABLE turns (
        id INTEGER PRIMARY KEY,
        message TEXT NOT NULL, channel TEXT NOT NULL, account TEXT NOT NULL, sender TEXT NOT NULL,
        state TEXT NOT NULL, accepted_at INTEGER NOT NULL, inbound TEXT NOT NULL,
        answer TEXT, shown INTEGER NOT NULL DEFAULT 0, answered_by TEXT NOT NULL DEFAULT '', answered_at INTEGER,
        closed_at INTEGER, outcome TEXT, reason TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '',
        previous INTEGER
    );
    CREATE UNIQUE INDEX turns_by_key ON turns (message, channel, account);
    CREATE TABLE people (
        sender TEXT NOT NULL, channel TEXT NOT NULL, account TEXT NOT NULL, turn INTEGER NOT NULL,
        PRIMARY KEY (sender, channel, account)
    ) WITHOUT ROWID;
    CREATE INDEX turns_unfinished ON turns (id) WHERE closed_at IS NULL;
    CREATE INDEX turns_by_outcome ON turns (outcome) WHERE outcome <> 'answered';
    CREATE TABLE sessions (key TEXT PRIMARY KEY, ends_at INTEGER, session TEXT NOT NULL);
    CREATE INDEX sessions_by_end ON sessions (ends_at) WHERE ends_at IS NOT NULL;
    CREATE TABLE shelf (name TEXT PRIMARY KEY, value TEXT NOT NULL, keep_until INTEGER);
    CREATE INDEX shelf_by_end ON shelf (keep_until) WHERE keep_until IS NOT NULL;
    CREATE TABLE set_aside (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, why TEXT NOT NULL, content TEXT NOT NULL);
    CREATE TABLE heartbeat (id INTEGER PRIMARY KEY CHECK (id = 1), beats INTEGER NOT NULL);
    INSERT INTO heartbeat VALUES (1, 0);
    """,
)


def create_file(path: Path) -> None:
    """Make the folder (0700) and an empty file (0600) unless they exist; SQLite gives its -wal and -shm the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def prepare(connection: sqlite3.Connection, path: Path, steps: Sequence[str] = STEPS) -> None:
    """Bring the file to the version of `steps`; raises StoreTooNew for a newer file and StoreError for another program's."""
    version = _pragma(connection, "user_version")
    if version > len(steps):
        raise StoreTooNew(
            f"{path} has data version {version}, this gateway knows up to {len(steps)}: start the newer gateway, or restore a backup."
        )
    _check_ours(connection, path, version)
    if version == len(steps):
        return
    if version:
        _back_up(connection, path, version)
    _migrate(connection, version, steps)


def _check_ours(connection: sqlite3.Connection, path: Path, version: int) -> None:
    mark = _pragma(connection, "application_id")
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if mark != APPLICATION_ID and not (empty and version == 0 and mark == 0):
        raise StoreError(f"{path} is the database of another program: name another file in store.url.")


def _migrate(connection: sqlite3.Connection, version: int, steps: Sequence[str]) -> None:
    script = "".join(steps[version:])
    marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {len(steps)};"
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {script}; {marks} COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _back_up(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy the file, with what is still in its -wal, beside itself; the name tells the version."""
    copy, partial = path.with_name(f"{path.name}.v{version}-backup"), path.with_name(f"{path.name}.v{version}-partial")
    partial.unlink(missing_ok=True)
    create_file(partial)
    with closing(sqlite3.connect(partial)) as target:
        connection.backup(target)
    partial.replace(copy)
    logger.warning("The data file has the older version %d; it was copied to %s and is migrated now.", version, copy.name)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
