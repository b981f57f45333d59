"""The default store: one SQLite file, written by one thread with group commit."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from gateway.errors import StoreUnavailable
from gateway.messages import Answer, Inbound, Outcome, TurnKey
from gateway.sessions.session import Session
from gateway.stores import rows, statements
from gateway.stores.alone import AloneLock
from gateway.stores.base import Ledger, SessionStore, Shelf, Store, TurnRecord, TurnState
from gateway.stores.rows import Column, Row, key_columns, text_column, time_column
from gateway.stores.schema import STEPS, create_file, prepare
from gateway.stores.writer import MAX_WAITING, Writer

logger = logging.getLogger(__name__)

Durability: TypeAlias = Literal["process", "power"]


CHECKPOINT_PAGES = 4_000
"""Pages of 4 KiB that gather in the -wal before the writer moves them to the file: SQLite's own 1 000 means four times as many stalls,
and a third more CPU on a ledger of a million turns (measured 2026-11-22)."""


class SQLiteStore(Store):
    """One file for all three. Only one gateway may use it at a time; other processes may read.

    One connection does all the writing and all the checkpoints. A second thread for checkpoints would take the fsyncs off the
    callers' way, but SQLite from 3.7.0 to 3.51.2 can lose committed pages when two connections do either at the same instant
    (the WAL-reset bug, sqlite.org/wal.html, 2026-03); the systems we run on still ship these versions.
    """

    ledger: SQLiteLedger
    sessions: SQLiteSessions
    shelf: SQLiteShelf

    def __init__(self, path: Path, writer: Writer, lock: AloneLock | None) -> None:
        self._path = path
        self._lock = lock
        self._file = os.stat(path)
        self._writer = writer
        self.ledger = SQLiteLedger(writer)
        self.sessions = SQLiteSessions(writer)
        self.shelf = SQLiteShelf(writer)

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "process",
        alone: bool = False,
        lock_wait_s: float = 5.0,
        max_waiting: int = MAX_WAITING,
        steps: Sequence[str] = STEPS,
    ) -> SQLiteStore:
        """Open or create the file at `path` and migrate it if it is older; raises StoreTooNew, StoreUnavailable or StoreError.

        `durability`: with "process" what was written survives the death of this process, with "power" also that of the machine,
        at the price of one fsync per commit. `alone` refuses a file that another gateway opened so: for whoever resumes turns,
        not for whoever only looks. `lock_wait_s` is how long another process may hold the file's write lock.
        """
        place = _place(path)
        writer = Writer(lambda: _connect(place, durability, lock_wait_s, steps), max_waiting=max_waiting)
        await writer.open()
        try:
            lock = AloneLock(place) if alone else None
        except StoreUnavailable:
            await writer.aclose()
            raise
        return cls(place, writer, lock)

    async def ping(self) -> None:
        await self._writer.write(self._beat)

    async def set_aside(self, limit: int = 100) -> list[str]:
        """What could not be read and was set aside, newest first: kind, name and the kind of error."""
        found = await self._writer.read(_all("SELECT kind || ' ' || name || ': ' || why FROM set_aside ORDER BY id DESC LIMIT ?", (limit,)))
        return [line.decode("utf-8", "replace") for (line,) in found]

    async def aclose(self) -> None:
        await self._writer.aclose()
        if self._lock is not None:
            self._lock.release()

    def _beat(self, cursor: sqlite3.Cursor) -> None:
        try:
            file = os.stat(self._path)
        except OSError as error:
            raise StoreUnavailable(f"The data file {self._path} is gone: {error.strerror}.") from error
        if not os.path.samestat(file, self._file):
            raise StoreUnavailable(f"The data file {self._path} was replaced while the gateway ran: restart the gateway.")
        cursor.execute("UPDATE heartbeat SET beats = beats + 1")


class SQLiteLedger(Ledger):
    """The table `turns`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def accept(self, inbound: Inbound, now: datetime) -> TurnRecord | None:
        columns = rows.accepted_columns(inbound, now)
        person = _person(inbound.address.sender, inbound.address.channel, inbound.address.account)

        def insert(cursor: sqlite3.Cursor) -> Row | None:
            if cursor.execute(statements.ACCEPT, (*columns, *person)).rowcount:
                cursor.execute(statements.LAST_OF_PERSON, (*person, cursor.lastrowid))
                return None
            known: Row = cursor.execute(statements.BY_KEY, columns[:3]).fetchone()
            return known

        known = await self._writer.write_new(insert)
        return None if known is None else await self._record(known)

    async def answering(self, key: TurnKey) -> None:
        self._writer.note(_execute(statements.ANSWERING, key_columns(key)))

    async def answered(self, key: TurnKey, answer: Answer, answered_by: str, now: datetime) -> None:
        columns = (rows.answer_column(answer), text_column(answered_by), time_column(now), *key_columns(key))
        await self._writer.write(_execute(statements.ANSWERED, columns))

    async def showing(self, key: TurnKey, piece: int) -> None:
        await self._writer.write(_execute(statements.SHOWING, (piece, *key_columns(key))))

    async def shown(self, key: TurnKey, pieces: int) -> None:
        await self._writer.write(_execute(statements.SHOWN, (pieces, *key_columns(key))))

    async def closed(self, key: TurnKey, outcome: Outcome, now: datetime) -> None:
        columns = (time_column(now), outcome.kind.value, text_column(outcome.reason), text_column(outcome.detail), *key_columns(key))
        await self._writer.write(_execute(statements.CLOSED, columns))

    async def unfinished(self) -> list[TurnRecord]:
        records = await self._records(statements.UNFINISHED, ())
        return [record for record in records if record.state is not TurnState.CLOSED]

    async def find(self, message_id: str) -> list[TurnRecord]:
        return await self._records(statements.BY_MESSAGE, (text_column(message_id),))

    async def latest(self, *, state: TurnState | None = None, outcome: str | None = None, limit: int = 100) -> list[TurnRecord]:
        asked = [text_column(wanted) for wanted in (state, outcome) if wanted is not None]
        return await self._records(statements.latest(state, outcome), (*asked, limit))

    async def latest_of(self, channel: str, account: str, sender: str, *, before: TurnKey | None = None) -> TurnRecord | None:
        person = _person(sender, channel, account)
        limit = (None, None, None) if before is None else key_columns(before)
        found = await self._records(statements.OF_PERSON, (*person, *person, *limit))
        return found[0] if found else None

    async def prune(self, before: datetime, limit: int = 500) -> int:
        columns = (limit, time_column(before))

        def prune(cursor: sqlite3.Cursor) -> int:
            pruned = cursor.execute(statements.PRUNE, columns).rowcount
            if not pruned:
                cursor.execute(statements.PRUNE_PEOPLE)
            return pruned

        return await self._writer.write(prune)

    async def _records(self, sql: str, columns: tuple[Column, ...]) -> list[TurnRecord]:
        return [await self._record(row) for row in await self._writer.read(_all(sql, columns))]

    async def _record(self, row: Row) -> TurnRecord:
        try:
            return rows.row_to_record(row)
        except rows.BROKEN as error:
            return await self._without_content(row, type(error).__name__)

    async def _without_content(self, row: Row, why: str) -> TurnRecord:
        """Keep the unreadable content elsewhere and close the turn: its key still guards against a second answer."""
        record = rows.stand_in(row)
        columns = (*rows.stand_in_columns(record), row[0])

        def set_aside(cursor: sqlite3.Cursor) -> None:
            cursor.execute(statements.SET_ASIDE, ("turn", text_column(record.key.message), why, repr(row)))
            cursor.execute(statements.STAND_IN, columns)

        await self._writer.write(set_aside)
        logger.error("Turn %s (row %s) cannot be read (%s); it was set aside and closed as failed.", record.key.message, row[0], why)
        return record


class SQLiteSessions(SessionStore):
    """The table `sessions`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def load(self, key: str) -> Session | None:
        found = await self._writer.read(_all("SELECT key, session FROM sessions WHERE key = ?", (text_column(key),)))
        return await self._session(found[0]) if found else None

    async def save(self, session: Session, ends_at: datetime | None) -> None:
        columns = (text_column(session.key), None if ends_at is None else time_column(ends_at), rows.session_column(session))
        await self._writer.write(_execute("INSERT OR REPLACE INTO sessions (key, ends_at, session) VALUES (?, ?, ?)", columns))

    async def drop(self, key: str) -> None:
        await self._writer.write(_execute("DELETE FROM sessions WHERE key = ?", (text_column(key),)))

    async def next_end(self) -> datetime | None:
        found = await self._writer.read(_all("SELECT min(ends_at) FROM sessions WHERE ends_at IS NOT NULL", ()))
        return None if found[0][0] is None else rows.column_time(found[0][0])

    async def ended(self, now: datetime, limit: int = 100) -> Sequence[Session]:
        sql = "SELECT key, session FROM sessions WHERE ends_at <= ? ORDER BY ends_at LIMIT ?"
        found = [await self._session(row) for row in await self._writer.read(_all(sql, (time_column(now), limit)))]
        return [session for session in found if session is not None]

    async def take_ended(self, key: str, now: datetime) -> Session | None:
        sql = "DELETE FROM sessions WHERE key = ? AND ends_at <= ? RETURNING key, session"
        taken = await self._writer.write(_all(sql, (text_column(key), time_column(now))))
        return await self._session(taken[0]) if taken else None

    async def _session(self, row: Row) -> Session | None:
        try:
            return rows.column_session(row[1])
        except rows.BROKEN as error:
            await self._writer.write(_move_aside("session", "DELETE FROM sessions WHERE key = ?", row, type(error).__name__))
            return None


class SQLiteShelf(Shelf):
    """The table `shelf`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def put(self, name: str, value: str, keep_until: datetime | None) -> None:
        columns = (text_column(name), text_column(value), None if keep_until is None else time_column(keep_until))
        await self._writer.write(_execute("INSERT OR REPLACE INTO shelf (name, value, keep_until) VALUES (?, ?, ?)", columns))

    async def add(self, name: str, value: str, keep_until: datetime | None, now: datetime) -> bool:
        columns = (text_column(name), text_column(value), None if keep_until is None else time_column(keep_until), time_column(now))
        return bool(await self._writer.write(_execute(statements.ADD, columns)))

    async def get(self, name: str, now: datetime) -> str | None:
        sql = "SELECT name, value FROM shelf WHERE name = ? AND (keep_until IS NULL OR keep_until > ?)"
        found = await self._writer.read(_all(sql, (text_column(name), time_column(now))))
        return await self._value(found[0]) if found else None

    async def drop(self, name: str) -> None:
        await self._writer.write(_execute("DELETE FROM shelf WHERE name = ?", (text_column(name),)))

    async def prune(self, now: datetime, limit: int = 500) -> int:
        sql = "DELETE FROM shelf WHERE name IN (SELECT name FROM shelf WHERE keep_until <= ? ORDER BY keep_until LIMIT ?)"
        return await self._writer.write(_execute(sql, (time_column(now), limit)))

    async def _value(self, row: Row) -> str | None:
        try:
            return rows.column_text(row[1])
        except rows.BROKEN as error:
            await self._writer.write(_move_aside("shelf", "DELETE FROM shelf WHERE name = ?", row, type(error).__name__))
            return None


def _place(path: str | os.PathLike[str]) -> Path:
    """Where the file is, also after a change of the working directory."""
    return Path(path).absolute()


def _connect(path: Path, durability: Durability, lock_wait_s: float, steps: Sequence[str]) -> sqlite3.Connection:
    create_file(path)
    connection = sqlite3.connect(path, timeout=lock_wait_s, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        connection.execute("PRAGMA cache_size = -8000")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        prepare(connection, path, steps)
    except BaseException:
        connection.close()
        raise
    connection.text_factory = bytes
    return connection


def _person(sender: str, channel: str, account: str) -> tuple[Column, Column, Column]:
    return text_column(sender), text_column(channel), text_column(account)


def _execute(sql: str, columns: tuple[Column, ...]) -> Callable[[sqlite3.Cursor], int]:
    return lambda cursor: cursor.execute(sql, columns).rowcount


def _all(sql: str, columns: tuple[Column, ...]) -> Callable[[sqlite3.Cursor], list[Row]]:
    return lambda cursor: cursor.execute(sql, columns).fetchall()


def _move_aside(kind: str, delete: str, row: Row, why: str) -> Callable[[sqlite3.Cursor], None]:
    """Keep an unreadable row (its name comes first) where nobody stumbles over it."""
    name = rows.column_key(row[0])

    def move(cursor: sqlite3.Cursor) -> None:
        cursor.execute(statements.SET_ASIDE, (kind, name, why, repr(row)))
        cursor.execute(delete, (name,))

    logger.error("The %s row %r cannot be read (%s); it was set aside.", kind, name, why)
    return move
