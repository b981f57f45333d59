"""The store that fails or dies on demand does exactly that."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from redis_server import a_prefix, shared_url

from gateway.errors import StoreUnavailable
from gateway.messages import Address, Inbound, Outcome, OutcomeKind, Text
from gateway.stores.memory import MemoryStore
from gateway.stores.redis import RedisStore
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


async def test_mailboxes_fail_and_die_as_told_too() -> None:
    inner = await RedisStore.open(shared_url(), prefix=a_prefix())
    store = FragileStore(inner)
    assert store.mailboxes is not None
    store.faults.fail("mailboxes.accept")

    with pytest.raises(StoreUnavailable):
        await store.mailboxes.accept(a_message("m1"), "lane", NOON, per_lane=5, total=5)
    assert (await store.mailboxes.accept(a_message("m1"), "lane", NOON, per_lane=5, total=5)).mine
    assert (await store.mailboxes.accept(a_message("m2"), "lane", NOON, per_lane=5, total=5)).ahead == 1
    assert await store.mailboxes.waiting() == 2
    head = await store.mailboxes.head("lane")
    assert head is not None
    await store.mailboxes.hand_back("lane")
    assert await store.mailboxes.adopt(["c"]) == ["lane"]
    assert await store.mailboxes.adoptable_in() is None
    store.faults.crash("mailboxes.done", when="after")
    await store.ledger.closed(head.key, Outcome(OutcomeKind.ANSWERED), NOON)
    with pytest.raises(Crash):
        await store.mailboxes.done("lane", head.key)
    with pytest.raises(Crash):
        await store.mailboxes.waiting()

    assert await inner.mailboxes.waiting() == 1
    await inner.aclose()
