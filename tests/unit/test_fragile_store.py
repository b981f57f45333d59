"""The store that fails or dies on demand does exactly that."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.errors import StoreUnavailable
from gateway.messages import Address, Inbound, Text
from gateway.stores.memory import MemoryStore
from gateway.testing.ledger import Crash, FragileStore

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def a_message(id: str) -> Inbound:
    return Inbound(id=id, address=Address(channel="c", account="a", chat="x", sender="x"), parts=(Text("hi"),), sent_at=NOON)


async def test_a_call_fails_as_often_as_told_and_then_works() -> None:
    store = FragileStore(MemoryStore())
    store.faults.fail("ledger.accept", times=2)

    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.ledger.accept(a_message("m1"), NOON)
    assert await store.ledger.accept(a_message("m1"), NOON) is None

    assert store.faults.calls == ["ledger.accept"] * 3


async def test_a_failure_after_the_write_has_written() -> None:
    store = FragileStore(MemoryStore())
    store.faults.fail("ledger.accept", when="after")

    with pytest.raises(StoreUnavailable):
        await store.ledger.accept(a_message("m1"), NOON)

    assert len(await store.ledger.find("m1")) == 1


@pytest.mark.parametrize(("when", "written"), [("before", 0), ("after", 1)])
async def test_after_a_crash_nothing_is_written_and_the_inner_store_lives_on(when: str, written: int) -> None:
    inner = MemoryStore()
    store = FragileStore(inner)
    store.faults.crash("ledger.accept", when=when, skip=1)  # type: ignore[arg-type]
    await store.ledger.accept(a_message("m0"), NOON)

    for _ in range(2):
        with pytest.raises(Crash):
            await store.ledger.accept(a_message("m1"), NOON)
    with pytest.raises(Crash):
        await store.shelf.put("name", "value", None)
    await store.aclose()

    assert len(await inner.ledger.find("m1")) == written
    assert len(await inner.ledger.find("m0")) == 1
    await inner.ping()


async def test_a_store_that_is_down_refuses_everything_until_it_is_up() -> None:
    store = FragileStore(MemoryStore())
    store.faults.down = True
    with pytest.raises(StoreUnavailable):
        await store.ping()
    with pytest.raises(StoreUnavailable):
        await store.sessions.load("key")

    store.faults.down = False

    assert await store.sessions.load("key") is None
