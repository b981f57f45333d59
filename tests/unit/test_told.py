"""What was told is not told again."""

from __future__ import annotations

from datetime import timedelta

from gateway.clock import SystemClock
from gateway.stores.memory import MemoryStore
from gateway.testing.clock import ManualClock
from gateway.testing.ledger import FragileStore
from gateway.watch.told import Told
from gateway.watch.trouble import TroubleKey, TroubleKind

DOWN = TroubleKey(TroubleKind.CHANNEL_DOWN, "channel shop")


async def test_a_new_trouble_may_be_told_by_the_real_clock_too() -> None:
    told = Told(shelf=MemoryStore().shelf, clock=SystemClock())

    assert await told.may_tell(DOWN)


async def test_a_trouble_that_nobody_could_be_told_may_be_tried_again() -> None:
    told = Told(shelf=MemoryStore().shelf, clock=ManualClock())

    assert await told.may_tell(DOWN)
    assert not await told.may_tell(DOWN)
    await told.not_told(DOWN)

    assert await told.may_tell(DOWN)


async def test_without_a_store_memory_alone_keeps_it_to_once() -> None:
    store, clock = FragileStore(MemoryStore()), ManualClock()
    told = Told(shelf=store.shelf, clock=clock, again_after=timedelta(hours=1))
    store.faults.down = True

    assert await told.may_tell(DOWN)
    await told.told(DOWN)
    assert not await told.may_tell(DOWN)
    assert await told.may_tell_end(DOWN)
    await told.over(DOWN)
    assert not await told.may_tell(DOWN)
    await clock.advance(3601)

    assert await told.may_tell(DOWN)
