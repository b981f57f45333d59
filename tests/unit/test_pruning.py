"""Old turns are forgotten in small batches, never too early."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.messages import Address, Inbound, Outcome, OutcomeKind, Text
from gateway.stores.base import Seats, Store
from gateway.stores.memory import MemoryStore
from gateway.stores.pruning import Pruning
from gateway.stores.sqlite import SQLiteStore
from gateway.testing.clock import ManualClock
from gateway.testing.ledger import FragileStore

MONTH = timedelta(days=30)
DAY_S = 86_400.0


def a_message(id: str) -> Inbound:
    address = Address(channel="shop", account="bot", chat="wang", sender="wang")
    return Inbound(id=id, address=address, parts=(Text("hi"),), sent_at=datetime(2026, 1, 5, tzinfo=UTC))


async def ended_turns(store: Store, clock: ManualClock, name: str, count: int) -> None:
    for number in range(count):
        message = a_message(f"{name}{number}")
        await store.ledger.accept(message, clock.now())
        await store.ledger.closed(message.key, Outcome(OutcomeKind.ANSWERED), clock.now())


def pruning(store: Store, clock: ManualClock, *, keep: timedelta | None = MONTH, seats: Seats | None = None) -> Pruning:
    return Pruning(ledger=store.ledger, shelf=store.shelf, clock=clock, keep=keep, seats=seats, batch=10)


async def test_turns_are_forgotten_after_their_days_and_not_before(tmp_path: Path) -> None:
    clock, store = ManualClock(), await SQLiteStore.open(tmp_path / "gateway.db")
    await ended_turns(store, clock, "old", 25)
    await clock.advance(20 * DAY_S)
    await ended_turns(store, clock, "new", 5)
    await clock.advance(9 * DAY_S)
    task = asyncio.create_task(pruning(store, clock).run())
    await clock.settle()
    assert len(await store.ledger.latest()) == 30

    for _ in range(100):
        await clock.advance(DAY_S / 48)
        if len(await store.ledger.latest()) == 5:
            break

    assert {record.key.message[:3] for record in await store.ledger.latest()} == {"new"}
    assert clock.monotonic() / DAY_S == pytest.approx(30, abs=0.2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.aclose()


async def test_an_unfinished_turn_is_never_forgotten() -> None:
    clock, store = ManualClock(), MemoryStore()
    work = pruning(store, clock)
    await store.ledger.accept(a_message("open"), clock.now())
    await clock.advance(100 * DAY_S)

    assert await work.round() == 0
    assert len(await store.ledger.find("open")) == 1


async def test_null_keeps_turns_for_ever_and_still_tidies_the_shelf() -> None:
    clock, store = ManualClock(), MemoryStore()
    work = pruning(store, clock, keep=None)
    await ended_turns(store, clock, "old", 3)
    await store.shelf.put("parked/x", "…", clock.now() + timedelta(hours=1))
    await clock.advance(1000 * DAY_S)

    task = asyncio.create_task(work.round())
    await clock.advance(10)
    await task

    assert len(await store.ledger.latest()) == 3
    assert await store.shelf.prune(clock.now()) == 0


async def test_a_clock_that_leaps_ahead_costs_no_turn_until_the_next_round(caplog: pytest.LogCaptureFixture) -> None:
    clock, store = ManualClock(), MemoryStore()
    work = pruning(store, clock)
    await ended_turns(store, clock, "today", 3)

    clock.jump(400 * DAY_S)
    assert await work.round() == 0
    clock.jump(-400 * DAY_S)
    assert await work.round() == 0

    assert len(await store.ledger.latest()) == 3
    assert "The clock jumped ahead by 400 days" in caplog.text


async def test_a_store_that_fails_is_tried_again_an_hour_later(caplog: pytest.LogCaptureFixture) -> None:
    clock, store = ManualClock(), FragileStore(MemoryStore())
    await ended_turns(store, clock, "old", 3)
    await clock.advance(31 * DAY_S)
    store.faults.fail("ledger.prune")
    with caplog.at_level(logging.WARNING):
        task = asyncio.create_task(pruning(store, clock).run())
        await clock.advance(60)
    assert "not forgotten this time" in caplog.text
    assert len(await store.ledger.latest()) == 3

    await clock.advance(3600)

    assert await store.ledger.latest() == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_only_the_process_that_has_the_seat_forgets() -> None:
    class Taken(Seats):
        async def take(self, seat: str) -> bool:
            return False

        async def leave(self, seat: str) -> None:
            pass

        async def free_in(self, seat: str) -> float:
            return 10.0

    clock, store = ManualClock(), MemoryStore()
    await ended_turns(store, clock, "old", 3)
    await clock.advance(31 * DAY_S)

    assert await pruning(store, clock, seats=Taken()).round() == 0
    assert len(await store.ledger.latest()) == 3
