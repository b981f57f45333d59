"""The data file: what happens to it over restarts, versions, full disks, corruption and kill -9."""
# ruff: noqa: ASYNC240 (these tests are about the file; nothing else waits for their loop)

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import StoreError, StoreTooNew, StoreUnavailable
from gateway.messages import Address, Answer, Inbound, Outcome, OutcomeKind, ReplyTicket, Text
from gateway.sessions.session import Session, new_session
from gateway.stores import statements
from gateway.stores.base import TurnState
from gateway.stores.schema import STEPS
from gateway.stores.sqlite import SQLiteStore
from gateway.stores.writer import Writer

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
DONE = Outcome(OutcomeKind.ANSWERED)

STEP_TO_2 = "ALTER TABLE turns ADD COLUMN note TEXT NOT NULL DEFAULT '';"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gateway.db"


def a_message(id: str = "m1", *, text: str = "hi") -> Inbound:
    address = Address(channel="dingtalk", account="bot", chat="wang", sender="wang")
    return Inbound(id=id, address=address, parts=(Text(text),), sent_at=NOON)


def a_session(key: str = "wang") -> Session:
    return new_session(key, a_message().address, ReplyTicket(), NOON).said("hi", "hello", NOON)


def in_file(path: Path, sql: str, *columns: object) -> list[tuple[object, ...]]:
    """What another program does with the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql, columns).fetchall()


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No file of this process may grow: the system refuses the write as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name(path.name + "-wal").stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- the file ---


async def test_folder_and_files_are_for_their_owner_only(path: Path) -> None:
    store = await SQLiteStore.open(path)
    await store.ledger.accept(a_message(), NOON)

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert {file.name for file in path.parent.iterdir()} >= {"gateway.db", "gateway.db-wal"}
    await store.aclose()


async def test_a_clean_close_leaves_one_file_and_no_thread(path: Path) -> None:
    store = await SQLiteStore.open(path)
    await store.ledger.accept(a_message(), NOON)
    await store.aclose()

    assert [file.name for file in path.parent.iterdir()] == ["gateway.db"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("store-")]


async def test_everything_is_there_after_reopening(path: Path) -> None:
    store = await SQLiteStore.open(path)
    await store.ledger.accept(a_message("open"), NOON)
    await store.ledger.accept(a_message("done"), NOON)
    await store.ledger.answered(a_message("done").key, Answer("hello", ("hello",)), "gpt", NOON)
    await store.ledger.closed(a_message("done").key, DONE, NOON)
    await store.sessions.save(a_session(), LATER)
    await store.shelf.put("cursor", "42", None)
    before = await store.ledger.latest()
    await store.aclose()

    store = await SQLiteStore.open(path)

    assert await store.ledger.latest() == before
    assert [record.key.message for record in await store.ledger.unfinished()] == ["open"]
    assert await store.sessions.load("wang") == a_session()
    assert await store.sessions.next_end() == LATER
    assert await store.shelf.get("cursor", NOON) == "42"
    await store.aclose()


async def test_a_redelivered_message_is_known_after_a_restart(path: Path) -> None:
    store = await SQLiteStore.open(path)
    await store.ledger.accept(a_message(), NOON)
    await store.ledger.closed(a_message().key, DONE, NOON)
    await store.aclose()

    store = await SQLiteStore.open(path)
    known = await store.ledger.accept(a_message(), LATER)

    assert known is not None
    assert known.outcome == DONE
    await store.aclose()


async def test_closing_writes_what_is_pending(path: Path) -> None:
    store = await SQLiteStore.open(path)
    pending = [asyncio.ensure_future(store.ledger.accept(a_message(f"m{number}"), NOON)) for number in range(100)]
    await asyncio.sleep(0)
    await store.ledger.answering(a_message("m0").key)

    await store.aclose()

    assert await asyncio.gather(*pending) == [None] * 100
    assert in_file(path, "SELECT count(*) FROM turns") == [(100,)]
    assert in_file(path, "SELECT message FROM turns WHERE state = 'answering'") == [("m0",)]


# --- versions ---


async def test_an_older_file_is_migrated_after_a_backup(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = await SQLiteStore.open(path)
    await store.ledger.accept(a_message(), NOON)
    await store.aclose()

    store = await SQLiteStore.open(path, steps=(*STEPS, STEP_TO_2))

    assert len(await store.ledger.find("m1")) == 1
    await store.aclose()
    assert in_file(path, "SELECT note FROM turns") == [("",)]
    assert in_file(path, "PRAGMA user_version") == [(len(STEPS) + 1,)]
    backup = path.with_name(f"gateway.db.v{len(STEPS)}-backup")
    assert in_file(backup, "SELECT message FROM turns") == [("m1",)]
    assert in_file(backup, "PRAGMA user_version") == [(len(STEPS),)]
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert backup.name in caplog.text


async def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    await (await SQLiteStore.open(path)).aclose()

    with pytest.raises(StoreUnavailable, match="no such table"):
        await SQLiteStore.open(path, steps=(*STEPS, f"{STEP_TO_2} INSERT INTO nowhere VALUES (1);"))

    assert in_file(path, "PRAGMA user_version") == [(len(STEPS),)]
    store = await SQLiteStore.open(path)
    await store.ledger.accept(a_message(), NOON)
    await store.aclose()


async def test_a_newer_file_is_refused_untouched_with_a_sentence(path: Path) -> None:
    await (await SQLiteStore.open(path, steps=(*STEPS, STEP_TO_2))).aclose()
    before = path.read_bytes()

    with pytest.raises(StoreTooNew, match="start the newer gateway, or restore a backup"):
        await SQLiteStore.open(path)

    assert path.read_bytes() == before


async def test_another_programs_database_is_refused_untouched(path: Path) -> None:
    path.parent.mkdir()
    in_file(path, "CREATE TABLE bookmarks (url TEXT)")

    with pytest.raises(StoreError, match="another program"):
        await SQLiteStore.open(path)

    assert in_file(path, "SELECT name FROM sqlite_master") == [("bookmarks",)]


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("this is not a database, " * 100)

    with pytest.raises(StoreUnavailable, match="not a database"):
        await SQLiteStore.open(path)


@pytest.mark.parametrize("place", ["file/gateway.db", "folder"])
async def test_an_impossible_place_is_store_unavailable(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    with pytest.raises(StoreUnavailable):
        await SQLiteStore.open(tmp_path / place)


# --- the disk ---


async def test_a_full_disk_is_store_unavailable_and_passes(path: Path) -> None:
    store = await SQLiteStore.open(path)
    await store.ledger.accept(a_message("before"), NOON)

    with full_disk(path):
        results = await asyncio.gather(*(store.ledger.accept(a_message(f"m{n}"), NOON) for n in range(5)), return_exceptions=True)
        assert {type(result) for result in results} == {StoreUnavailable}
        with pytest.raises(StoreUnavailable):
            await store.ping()
        assert len(await store.ledger.find("before")) == 1

    assert await store.ledger.accept(a_message("m1"), NOON) is None
    await store.ping()
    assert [record.key.message for record in await store.ledger.latest()] == ["m1", "before"]
    await store.aclose()


async def test_reads_beside_a_failed_write_see_only_what_is_on_disk(path: Path) -> None:
    store = await SQLiteStore.open(path)
    await store.ledger.accept(a_message("before"), NOON)

    with full_disk(path):
        write, read = await asyncio.gather(store.ledger.accept(a_message("lost"), NOON), store.ledger.latest(), return_exceptions=True)

    assert isinstance(write, StoreUnavailable)
    assert isinstance(read, list)
    assert [record.key.message for record in read] == ["before"]
    await store.aclose()


async def test_a_file_locked_by_another_process_is_store_unavailable_until_it_is_free(path: Path) -> None:
    store = await SQLiteStore.open(path, lock_wait_s=0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.ledger.accept(a_message(), NOON)
        assert await store.ledger.find("m1") == []
        other.execute("ROLLBACK")

    assert await store.ledger.accept(a_message(), NOON) is None
    await store.aclose()


async def test_ping_notices_that_the_file_was_taken_away(path: Path) -> None:
    store = await SQLiteStore.open(path)
    path.rename(path.with_name("elsewhere.db"))

    with pytest.raises(StoreUnavailable, match="gone"):
        await store.ping()
    path.touch()
    with pytest.raises(StoreUnavailable, match="replaced"):
        await store.ping()
    await store.aclose()


async def test_a_second_gateway_on_the_same_file_is_refused_until_the_first_is_gone(path: Path) -> None:
    first = await SQLiteStore.open(path, alone=True)
    with pytest.raises(StoreUnavailable, match="Another gateway uses"):
        await SQLiteStore.open(path, alone=True)
    looking = await SQLiteStore.open(path)
    await looking.aclose()
    await first.aclose()

    second = await SQLiteStore.open(path, alone=True)
    await first.aclose()
    assert await second.ledger.accept(a_message(), NOON) is None
    await second.aclose()


async def test_looking_at_the_file_of_a_running_gateway_changes_nothing(path: Path) -> None:
    running = await SQLiteStore.open(path)
    await running.ledger.accept(a_message(), NOON)
    files = {file: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}

    looking = await SQLiteStore.open(path)
    assert len(await looking.ledger.find("m1")) == 1
    assert len(await looking.ledger.unfinished()) == 1
    await looking.aclose()

    assert {file: file.read_bytes() for file in files} == files
    await running.aclose()


# --- corrupt rows ---


@pytest.mark.parametrize(
    "damage",
    [
        "inbound = '{not json'",
        "inbound = '[]'",
        "inbound = '{}'",
        "inbound = x'fffe80'",
        "inbound = 17",
        "state = 'dancing'",
        "accepted_at = 'yesterday'",
        "accepted_at = 9223372036854775807",
        "answer = '{\"text\": 1'",
        "answered_by = x'ff'",
    ],
)
async def test_a_corrupt_turn_is_set_aside_and_the_rest_goes_on(path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    store = await SQLiteStore.open(path)
    for message in ("m1", "m2", "m3"):
        await store.ledger.accept(a_message(message, text="private words"), NOON)
    in_file(path, f"UPDATE turns SET {damage} WHERE message = 'm2'")

    unfinished = await store.ledger.unfinished()

    assert [record.key.message for record in unfinished] == ["m1", "m3"]
    assert len(await store.set_aside()) == 1
    assert (await store.set_aside())[0].startswith("turn m2: ")
    assert "Turn m2" in caplog.text
    assert "private words" not in caplog.text
    known = await store.ledger.accept(a_message("m2"), NOON)
    assert known is not None
    assert known.state is TurnState.CLOSED
    assert known.outcome is not None
    assert (known.outcome.kind, known.outcome.reason) == (OutcomeKind.FAILED, "unreadable row")
    assert await store.ledger.find("m2") == [known]
    assert len(await store.set_aside()) == 1
    await store.aclose()


async def test_a_corrupt_session_is_set_aside_and_starts_anew(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = await SQLiteStore.open(path)
    await store.sessions.save(a_session("broken"), NOON)
    await store.sessions.save(a_session("torn"), NOON)
    await store.sessions.save(a_session("whole"), NOON)
    in_file(path, "UPDATE sessions SET session = '{' WHERE key = 'broken'")
    in_file(path, "UPDATE sessions SET session = '{', key = x'ff' WHERE key = 'torn'")

    assert await store.sessions.ended(LATER) == [a_session("whole")]

    assert await store.sessions.load("broken") is None
    assert [line.partition(": ")[0] for line in sorted(await store.set_aside())] == ["session broken", "session \ufffd"]
    assert in_file(path, "SELECT key FROM sessions") == [("whole",)]
    assert "broken" in caplog.text
    await store.sessions.save(a_session("broken"), LATER)
    assert await store.sessions.load("broken") == a_session("broken")
    await store.aclose()


async def test_a_corrupt_shelf_value_is_set_aside(path: Path) -> None:
    store = await SQLiteStore.open(path)
    await store.shelf.put("login", "state", None)
    in_file(path, "UPDATE shelf SET value = x'ff'")

    assert await store.shelf.get("login", NOON) is None
    assert (await store.set_aside())[0].startswith("shelf login: ")
    await store.aclose()


# --- the writer ---


async def test_an_operation_that_fails_by_itself_fails_only_its_caller(path: Path) -> None:
    store = await SQLiteStore.open(path)

    results = await asyncio.gather(
        store.ledger.accept(a_message("m1"), NOON),
        store.ledger.showing(a_message("m1").key, 2**70),
        store.ledger.accept(a_message("m2"), NOON),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [type(None), StoreError, type(None)]
    assert {record.key.message for record in await store.ledger.latest()} == {"m1", "m2"}
    await store.aclose()


async def test_a_broken_constraint_fails_only_its_caller(path: Path) -> None:
    await (await SQLiteStore.open(path)).aclose()
    writer = Writer(lambda: sqlite3.connect(path, isolation_level=None))
    await writer.open()

    first = writer.write(lambda cursor: cursor.execute("INSERT INTO shelf VALUES ('a', 'v', NULL)").rowcount)
    second = writer.write(lambda cursor: cursor.execute("INSERT INTO shelf VALUES ('a', 'v', NULL)").rowcount)
    third = writer.write(lambda cursor: cursor.execute("INSERT INTO shelf VALUES ('b', 'v', NULL)").rowcount)

    assert await first == 1
    with pytest.raises(StoreError, match="UNIQUE"):
        await second
    assert await third == 1
    await writer.aclose()


async def test_a_transaction_that_sqlite_gives_up_fails_all_its_callers(path: Path) -> None:
    await (await SQLiteStore.open(path)).aclose()
    writer = Writer(lambda: sqlite3.connect(path, isolation_level=None))
    await writer.open()

    def give_up(cursor: sqlite3.Cursor) -> None:
        cursor.execute("INSERT OR ROLLBACK INTO heartbeat VALUES (1, 0)")

    futures = [
        writer.write(lambda cursor: cursor.execute("INSERT INTO shelf VALUES ('a', 'v', NULL)").rowcount),
        writer.write(give_up),
        writer.write(lambda cursor: cursor.execute("INSERT INTO shelf VALUES ('b', 'v', NULL)").rowcount),
    ]
    results = await asyncio.gather(*futures, return_exceptions=True)

    assert all(isinstance(result, StoreError) for result in results)
    assert await writer.read(lambda cursor: cursor.execute("SELECT count(*) FROM shelf").fetchone()) == (0,)
    await writer.aclose()


async def test_a_full_queue_refuses_new_turns_first_and_then_everything(path: Path) -> None:
    store = await SQLiteStore.open(path, max_waiting=4)

    accepts = await asyncio.gather(*(store.ledger.accept(a_message(f"m{n}"), NOON) for n in range(3)), return_exceptions=True)
    assert [type(result) for result in accepts] == [type(None), type(None), StoreUnavailable]

    closes = await asyncio.gather(*(store.ledger.closed(a_message(f"m{n}").key, DONE, NOON) for n in range(5)), return_exceptions=True)
    assert [type(result) for result in closes] == [type(None)] * 4 + [StoreUnavailable]

    assert await store.ledger.accept(a_message("later"), NOON) is None
    await store.aclose()


async def test_a_bug_in_the_thread_leaves_nobody_waiting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await (await SQLiteStore.open(path)).aclose()
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    writer = Writer(lambda: sqlite3.connect(path, isolation_level=None))
    await writer.open()

    def bug(cursor: sqlite3.Cursor) -> None:
        raise RuntimeError("a bug")

    futures = [writer.write(bug), writer.read(lambda cursor: 1)]

    for future in futures:
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(future, 5)
    with pytest.raises(StoreUnavailable):
        writer.read(lambda cursor: 1)
    await writer.aclose()


async def test_an_operation_whose_caller_gave_up_in_time_is_not_run(path: Path) -> None:
    store = await SQLiteStore.open(path)
    leaving = asyncio.ensure_future(store.ledger.accept(a_message("m1"), NOON))
    staying = asyncio.ensure_future(store.ledger.accept(a_message("m2"), NOON))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying

    assert [record.key.message for record in await store.ledger.latest()] == ["m2"]
    await store.aclose()


async def test_a_note_that_is_lost_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = await SQLiteStore.open(path)
    await store.ledger.accept(a_message(), NOON)
    with full_disk(path), caplog.at_level(logging.WARNING):
        await store.ledger.answering(a_message().key)
        await store.ledger.find("m1")
    assert "was not kept" in caplog.text
    await store.aclose()


async def test_opening_that_is_given_up_leaves_no_thread(path: Path) -> None:
    opening = asyncio.ensure_future(SQLiteStore.open(path))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    for thread in threading.enumerate():
        if thread.name == "store-writer":
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive()


# --- what the ledger finds, it finds by an index ---


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (statements.BY_KEY, "turns_by_key"),
        (statements.CLOSED, "turns_by_key"),
        (statements.ANSWERING, "turns_by_key"),
        (statements.BY_MESSAGE, "turns_by_key"),
        (statements.UNFINISHED, "turns_unfinished"),
        (statements.latest(None, "unknown"), "turns_by_outcome"),
        ("SELECT min(ends_at) FROM sessions WHERE ends_at IS NOT NULL", "sessions_by_end"),
    ],
)
async def test_no_question_reads_the_whole_ledger(path: Path, sql: str, index: str) -> None:
    await (await SQLiteStore.open(path)).aclose()

    plan = [str(step[3]) for step in in_file(path, f"EXPLAIN QUERY PLAN {sql}", *[0] * sql.count("?"))]

    assert index in plan[0]
    assert "TEMP B-TREE" not in str(plan) or sql == statements.BY_MESSAGE


async def test_the_turns_of_a_person_are_found_without_reading_the_whole_ledger(path: Path) -> None:
    await (await SQLiteStore.open(path)).aclose()

    plan = [str(step[3]) for step in in_file(path, f"EXPLAIN QUERY PLAN {statements.OF_PERSON}", *[0] * 9)]

    assert "SEARCH people USING PRIMARY KEY" in str(plan)
    assert "SCAN turns" not in str(plan)


async def test_people_without_turns_are_pruned(path: Path) -> None:
    store = await SQLiteStore.open(path)
    await store.ledger.accept(a_message("m1"), NOON)
    await store.ledger.closed(a_message("m1").key, DONE, NOON)
    while await store.ledger.prune(LATER):
        pass
    await store.aclose()

    assert in_file(path, "SELECT count(*) FROM people") == [(0,)]


async def test_turns_in_a_rare_state_are_found_among_the_unfinished(path: Path) -> None:
    await (await SQLiteStore.open(path)).aclose()

    plan = [str(step[3]) for step in in_file(path, f"EXPLAIN QUERY PLAN {statements.latest(TurnState.SHOWING, None)}", 0, 0)]

    assert "turns_unfinished" in plan[0]


# --- kill -9 ---

ACCEPTING = """
import asyncio, sys
from datetime import UTC, datetime
from gateway.messages import Address, Inbound, Text
from gateway.stores.sqlite import SQLiteStore

async def main():
    store = await SQLiteStore.open(sys.argv[1], durability=sys.argv[2])
    address = Address(channel="c", account="a", chat="x", sender="x")
    async def accept(person):
        for number in range(1_000_000):
            message = Inbound(id=f"{sys.argv[3]}-{person}-{number}", address=address, parts=(Text("hi"),), sent_at=datetime.now(UTC))
            assert await store.ledger.accept(message, datetime.now(UTC)) is None
            print(message.id, flush=True)
    await asyncio.gather(*(accept(person) for person in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_what_was_reported_accepted_survives_kill_9(path: Path, durability: str) -> None:
    reported: set[str] = set()
    for life in range(3):
        reported |= await _accept_until_killed(path, durability, life, at_least=100 + 77 * life)

    store = await SQLiteStore.open(path)
    kept = {record.key.message for record in await store.ledger.unfinished()}
    await store.aclose()

    assert len(reported) > 500
    assert reported <= kept
    assert in_file(path, "PRAGMA integrity_check") == [("ok",)]


async def _accept_until_killed(path: Path, durability: str, life: int, at_least: int) -> set[str]:
    root = Path(__file__).parents[2]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ACCEPTING, str(path), durability, str(life)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert child.stdout is not None
    lines = [await asyncio.wait_for(child.stdout.readline(), 20) for _ in range(at_least)]
    child.send_signal(signal.SIGKILL)
    lines += (await child.stdout.read()).splitlines(keepends=True)
    assert await child.wait() == -signal.SIGKILL
    return {line.decode().strip() for line in lines if line.endswith(b"\n")}


async def test_the_loop_is_free_while_the_disk_works(path: Path) -> None:
    await (await SQLiteStore.open(path)).aclose()
    writer = Writer(lambda: sqlite3.connect(path, isolation_level=None))
    await writer.open()
    release = threading.Event()

    slow = writer.write(lambda cursor: release.wait(5))
    started = time.monotonic()
    await asyncio.sleep(0.01)
    release.set()

    assert await slow is True
    assert time.monotonic() - started < 4
    await writer.aclose()
