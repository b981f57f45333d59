"""The one thread that touches the data file, with group commit.

Callers hand in operations on the event loop. All that gather while the thread is busy run in ONE transaction; after its commit their
callers wake together, by one call into the loop. Reads take the same road: they see every write handed in before them, and one
thread hop for many costs less than a connection and a hop for each.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, TypeVar

from gateway.errors import StoreError, StoreUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_WAITING = 20_000
"""Operations that may wait for the disk, by default; the last half is kept for turns that have already begun."""
MAX_BATCH = 1_000
"""Operations of one transaction; more start another, so that the first callers need not wait for the last."""


class _Operation:
    """Work for the thread and what came of it. Only the thread writes `result` and `error`, only the loop touches `future`."""

    __slots__ = ("error", "future", "result", "work", "writes")

    def __init__(self, work: Callable[[sqlite3.Cursor], Any], future: asyncio.Future[Any] | None, writes: bool) -> None:
        self.work = work
        self.future = future
        self.writes = writes
        self.result: Any = None
        self.error: StoreError | None = None

    def run(self, cursor: sqlite3.Cursor, in_transaction: bool) -> None:
        """Do the work. What goes wrong stays with this operation, unless SQLite gave up the whole transaction."""
        if self.future is not None and self.future.cancelled():
            return
        try:
            self.result = self.work(cursor)
        except sqlite3.Error as error:
            if in_transaction and not cursor.connection.in_transaction:
                raise
            self.error = translated(error)
        except StoreError as error:
            self.error = error
        except (ValueError, OverflowError) as error:
            self.error = _caused(StoreError(f"A value cannot be stored: {type(error).__name__}."), error)

    def settle(self) -> None:
        """Wake the caller, if it still waits."""
        if self.future is None:
            if self.error is not None:
                logger.warning("A note in the ledger was not kept: %s", self.error)
        elif self.future.done():
            return
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Runs operations in order, in batches. Create, use and close it on one running loop.

    A full queue refuses at once with StoreUnavailable: whoever accepts a message then does not acknowledge it and the platform
    sends it again. An operation whose caller gave up before its turn came is not run.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], *, max_waiting: int = MAX_WAITING) -> None:
        self._connect = connect
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._queue: queue.SimpleQueue[list[_Operation]] = queue.SimpleQueue()
        self._gathered: list[_Operation] = []
        self._running: list[_Operation] = []
        self._waiting = 0
        self._closed = True
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    async def open(self) -> None:
        """Start the thread and open the file in it; raises what `connect` raises, as StoreError."""
        self._thread.start()
        try:
            await self._opened
        except asyncio.CancelledError:
            self._queue.put([])
            raise
        except StoreError:
            self._thread.join()
            raise
        self._closed = False

    def read(self, work: Callable[[sqlite3.Cursor], T]) -> asyncio.Future[T]:
        """Run `work`, which changes nothing."""
        return self._ask(work, writes=False)

    def write(self, work: Callable[[sqlite3.Cursor], T]) -> asyncio.Future[T]:
        """Run `work`; its future is done when the commit is. It must be one writing statement, or harmless when half done."""
        return self._ask(work, writes=True)

    def write_new(self, work: Callable[[sqlite3.Cursor], T]) -> asyncio.Future[T]:
        """Like `write`, for work that brings more work: refused when half of the queue is full."""
        self._check(self._max_waiting // 2)
        return self._ask(work, writes=True)

    def note(self, work: Callable[[sqlite3.Cursor], object]) -> None:
        """Like `write`, without waiting: it reaches the disk with the next commit, or is logged as lost."""
        self._put(_Operation(work, None, True))

    async def aclose(self) -> None:
        """Refuse what is new, write what is pending, close the file; calling it again waits for the same end."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._queue.put([])
        if self._thread.is_alive():
            await asyncio.shield(self._ended)
            self._thread.join()

    def _ask(self, work: Callable[[sqlite3.Cursor], T], *, writes: bool) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(_Operation(work, future, writes))
        return future

    def _put(self, operation: _Operation) -> None:
        self._check(self._max_waiting)
        self._waiting += 1
        if not self._gathered:
            # Everything that this round of the loop still brings comes along: one wake-up of the thread, one commit.
            self._loop.call_soon(self._hand_over)
        self._gathered.append(operation)

    def _check(self, limit: int) -> None:
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        if self._waiting >= limit:
            raise StoreUnavailable(f"The disk is too slow: {self._waiting} operations wait for it.")

    def _hand_over(self) -> None:
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    def _settle(self, batch: list[_Operation]) -> None:
        self._waiting -= len(batch)
        for operation in batch:
            operation.settle()

    # --- in the thread ---

    def _run(self) -> None:
        try:
            connection = self._connect()
        except (sqlite3.Error, OSError, StoreError) as error:
            self._call(self._fail_open, error if isinstance(error, StoreError) else translated(error))
            return
        self._call(_done, self._opened)
        try:
            with closing(connection):
                self._serve(connection.cursor())
        finally:
            self._call(self._end)

    def _serve(self, cursor: sqlite3.Cursor) -> None:
        while batch := self._next_batch():
            self._running = batch
            _commit(cursor, batch)
            self._running = []
            self._call(self._settle, batch)

    def _next_batch(self) -> list[_Operation]:
        """Whatever waits; empty when the end was asked for."""
        batch = self._queue.get()
        while batch and len(batch) < MAX_BATCH and not self._queue.empty():
            more = self._queue.get()
            if not more:
                self._queue.put(more)
                break
            batch += more
        return batch

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    # --- back on the loop ---

    def _fail_open(self, error: StoreError) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)

    def _end(self) -> None:
        """The thread ended, as asked or by a bug: nobody may wait for it for ever."""
        self._closed = True
        self._hand_over()
        left = [*self._running]
        while not self._queue.empty():
            left += self._queue.get()
        for operation in left:
            operation.error = StoreUnavailable("The store's thread ended; see the log.")
            operation.settle()
        _done(self._ended)


def translated(error: sqlite3.Error | OSError) -> StoreError:
    """SQLite's errors in our words: whatever keeps it from reading or writing is StoreUnavailable, a broken rule is StoreError."""
    kind = StoreError if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError) else StoreUnavailable
    return _caused(kind(f"The data file cannot be used: {error}"), error)


def _commit(cursor: sqlite3.Cursor, batch: list[_Operation]) -> None:
    """Run `batch` in one transaction, or without one when it only reads."""
    writes = any(operation.writes for operation in batch)
    try:
        if writes:
            cursor.execute("BEGIN IMMEDIATE")
        for operation in batch:
            operation.run(cursor, writes)
        if writes:
            cursor.execute("COMMIT")
    except sqlite3.Error as error:
        _undo(cursor, batch, error)


def _undo(cursor: sqlite3.Cursor, batch: list[_Operation], error: sqlite3.Error) -> None:
    """Nothing of `batch` was written. Its reads are done again: they may have seen what never came to be."""
    logger.error("%d operations were not written: %s", len(batch), error)
    if cursor.connection.in_transaction:
        with suppress(sqlite3.Error):  # SQLite may have rolled back by itself meanwhile
            cursor.execute("ROLLBACK")
    for operation in batch:
        if operation.writes:
            operation.error = translated(error)
        else:
            operation.run(cursor, False)


def _caused(error: StoreError, cause: BaseException) -> StoreError:
    error.__cause__ = cause
    return error


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
