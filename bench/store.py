"""What durable memory costs: accepts per second, waiting time, and CPU per turn; memory and SQLite side by side.

    python -m bench.store                    the table below, a minute
    python -m bench.store --turns 1000000    also an empty ledger against one of a million turns (about 1 GB of disk)

Every figure is the median of `--rounds` rounds (at least 3); the stores take turns within a round, so that a noisy machine is
noisy for all of them. CPU is that of the whole process, both threads. `--folder` chooses the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import count
from pathlib import Path
from statistics import median, quantiles

from gateway.messages import Address, Answer, Inbound, Outcome, OutcomeKind, ReplyTicket, Text
from gateway.sessions.session import new_session
from gateway.stores import rows
from gateway.stores.base import Store
from gateway.stores.memory import MemoryStore
from gateway.stores.sqlite import SQLiteStore

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
QUESTION, ANSWER = "你好，请问明天下午三点可以预约吗？", "您好！可以的，明天下午三点还有空位，需要我帮您登记吗？请告诉我您的姓名和电话。"
DONE = Outcome(OutcomeKind.ANSWERED)
PEOPLE = 500

Factory = Callable[[Path], Awaitable[Store]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One round of one measurement."""

    per_second: float
    cpu_us: float
    p50_ms: float
    p95_ms: float
    worst_ms: float


async def _memory(folder: Path) -> Store:
    return MemoryStore()


async def _process(folder: Path) -> Store:
    return await SQLiteStore.open(folder / "gateway.db")


async def _power(folder: Path) -> Store:
    return await SQLiteStore.open(folder / "gateway.db", durability="power")


STORES: dict[str, Factory] = {"memory": _memory, "sqlite process": _process, "sqlite power": _power}


def message(number: int) -> Inbound:
    """Ids look random, as DingTalk's do: the worst case for an index."""
    person = f"oPeRsOn{number % PEOPLE:06d}"
    return Inbound(
        id=blake2b(str(number).encode(), digest_size=12).hexdigest(),
        address=Address(channel="dingtalk", account="dingabcdef", chat=person, sender=person),
        parts=(Text(QUESTION),),
        sent_at=NOW,
        ticket=ReplyTicket(token={"session_webhook": "https://oapi.example.invalid/robot/sendBySession?session=" + 32 * "x"}),
    )


async def accept(store: Store, number: int) -> None:
    await store.ledger.accept(message(number), NOW)


async def turn(store: Store, number: int) -> None:
    """Everything that one echo turn asks of the store."""
    inbound = message(number)
    key, person = inbound.key, inbound.address.sender
    await store.ledger.accept(inbound, NOW)
    session = await store.sessions.load(person) or new_session(person, inbound.address, inbound.ticket, NOW)
    await store.ledger.answering(key)
    await store.ledger.answered(key, Answer(ANSWER, (ANSWER,)), "echo", NOW)
    await store.ledger.closed(key, DONE, NOW)
    await store.sessions.save(session.said(QUESTION, ANSWER, NOW).trimmed_to(10), NOW + timedelta(hours=1))


async def callers(store: Store, work: Callable[[Store, int], Awaitable[None]], numbers: Iterator[int], amount: int, at_once: int) -> Sample:
    """`at_once` callers that ask again as soon as they were answered."""
    waits: list[float] = []
    left = iter(range(amount))

    async def caller() -> None:
        for _ in left:
            started = time.perf_counter()
            await work(store, next(numbers))
            waits.append(time.perf_counter() - started)

    return await _measured(waits, amount, [caller() for _ in range(at_once)])


async def offered(store: Store, numbers: Iterator[int], per_second: int, seconds: float) -> Sample:
    """Accepts that come at their time, whether earlier ones are done or not; the wait counts from the due time."""
    waits: list[float] = []
    amount = int(per_second * seconds)

    async def one(due: float) -> None:
        await accept(store, next(numbers))
        waits.append(time.perf_counter() - due)

    async def offer() -> None:
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(amount):
                due = begun + number / per_second
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                group.create_task(one(due))

    return await _measured(waits, amount, [offer()])


async def _measured(waits: list[float], amount: int, work: list[Awaitable[None]]) -> Sample:
    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*work)
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    marks = quantiles(waits, n=20)
    return Sample(
        per_second=amount / wall, cpu_us=used / amount * 1e6, p50_ms=marks[9] * 1e3, p95_ms=marks[18] * 1e3, worst_ms=max(waits) * 1e3
    )


@asynccontextmanager
async def opened(factory: Factory, parent: Path) -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        store = await factory(Path(folder))
        try:
            yield store
        finally:
            await store.aclose()


def line(what: str, name: str, samples: list[Sample]) -> str:
    middle = [median(getattr(sample, field) for sample in samples) for field in ("per_second", "cpu_us", "p50_ms", "p95_ms", "worst_ms")]
    return f"{what:<34} {name:<16} {middle[0]:>9,.0f} {middle[1]:>9.0f} {middle[2]:>8.2f} {middle[3]:>8.2f} {middle[4]:>9.2f}"


HEAD = f"{'':<34} {'store':<16} {'per s':>9} {'CPU us':>9} {'p50 ms':>8} {'p95 ms':>8} {'worst ms':>9}"


async def stores_side_by_side(parent: Path, rounds: int, amount: int) -> None:
    measurements: dict[str, Callable[[Store], Awaitable[Sample]]] = {
        "accept, 1 caller": lambda store: callers(store, accept, count(), amount // 10, 1),
        "accept, 32 callers": lambda store: callers(store, accept, count(), amount, 32),
        "accept, 256 callers": lambda store: callers(store, accept, count(), amount, 256),
        "accept, 1 000/s offered": lambda store: offered(store, count(), 1_000, amount / 5_000),
        "whole turn, 1 caller": lambda store: callers(store, turn, count(), amount // 10, 1),
        "whole turn, 50 callers": lambda store: callers(store, turn, count(), amount // 2, 50),
    }
    print(HEAD)
    for what, measure in measurements.items():
        samples: dict[str, list[Sample]] = {name: [] for name in STORES}
        for _ in range(rounds):
            for name, factory in STORES.items():
                async with opened(factory, parent) as store:
                    samples[name].append(await measure(store))
        for name in STORES:
            print(line(what, name, samples[name]))


async def empty_against_full(parent: Path, rounds: int, amount: int, turns: int) -> None:
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        files = {"empty": Path(folder) / "empty.db", f"{turns:,} turns": Path(folder) / "full.db"}
        for path in files.values():
            await (await SQLiteStore.open(path)).aclose()
        fill(files[f"{turns:,} turns"], turns)
        starts: dict[str, list[float]] = {name: [] for name in files}
        accepts: dict[str, list[Sample]] = {name: [] for name in files}
        waits: dict[str, list[Sample]] = {name: [] for name in files}
        fresh = count(turns)
        for _ in range(rounds):
            for name, path in files.items():
                began = time.perf_counter()
                store = await SQLiteStore.open(path)
                await store.ledger.unfinished()
                starts[name].append(time.perf_counter() - began)
                accepts[name].append(await callers(store, accept, fresh, amount, 32))
                waits[name].append(await offered(store, fresh, 1_000, 2))
                await store.aclose()
                close_all(path)
        print("\n" + HEAD)
        for name in files:
            print(line("accept, 32 callers", name, accepts[name]))
        for name in files:
            print(line("accept, 1 000/s offered", name, waits[name]))
        for name, path in files.items():
            size = path.stat().st_size / 1e6
            print(f"{'start, unfinished() read':<34} {name:<16} {median(starts[name]) * 1e3:>9.1f} ms, file of {size:,.0f} MB")


def close_all(path: Path) -> None:
    """Leave no turn unfinished: the next start is to be compared, not the reading of what this bench left over."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE turns SET state = 'closed', closed_at = accepted_at, outcome = 'answered' WHERE closed_at IS NULL")


def fill(path: Path, turns: int) -> None:
    """Closed turns, written past the store: only their number matters."""
    answer = rows.answer_column(Answer(ANSWER, (ANSWER,)))
    sql = (
        "INSERT INTO turns (message, channel, account, sender, accepted_at, inbound,"
        " state, answer, answered_by, answered_at, closed_at, outcome)"
        f" VALUES (?, ?, ?, ?, ?, ?, 'closed', ?, 'echo', {rows.time_column(NOW)}, {rows.time_column(NOW)}, 'answered')"
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        connection.execute("BEGIN")
        connection.executemany(sql, ((*rows.accepted_columns(message(number), NOW), answer) for number in range(turns)))
        connection.execute("INSERT OR REPLACE INTO people SELECT sender, channel, account, max(id) FROM turns GROUP BY sender")
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def main(options: argparse.Namespace) -> None:
    print(f"medians of {options.rounds} rounds, {options.messages:,} messages each; SQLite {sqlite3.sqlite_version}")
    await stores_side_by_side(options.folder, options.rounds, options.messages)
    if options.turns:
        await empty_against_full(options.folder, options.rounds, options.messages, options.turns)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the stores.")
    parser.add_argument("--messages", type=int, default=10_000, help="messages of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=0, help="also compare an empty ledger with one of so many turns")
    parser.add_argument("--folder", type=Path, default=None, help="where to put the files; default: the system's folder for such")
    chosen = parser.parse_args()
    chosen.rounds = max(chosen.rounds, 3)
    return chosen


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(options()))
