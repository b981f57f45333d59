"""What every shelf promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_factories import NOON, STORES, after

from gateway.stores.base import Shelf


@pytest.fixture(params=STORES)
async def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shelf]:
    store = await STORES[request.param](tmp_path)
    yield store.shelf
    await store.aclose()


@pytest.mark.parametrize("value", ["", "plain", "第二页 😀", '{"cursor": 1}', "torn \ud83d", "nul \0", "x" * 200_000])
async def test_a_value_comes_back_as_it_was_put(shelf: Shelf, value: str) -> None:
    await shelf.put("name", value, after(60))

    assert await shelf.get("name", NOON) == value


async def test_an_unknown_name_is_none(shelf: Shelf) -> None:
    assert await shelf.get("name", NOON) is None


async def test_a_value_is_gone_from_its_time_on(shelf: Shelf) -> None:
    await shelf.put("name", "value", after(60))

    assert await shelf.get("name", after(59.999999)) == "value"
    assert await shelf.get("name", after(60)) is None


async def test_a_value_without_a_time_stays(shelf: Shelf) -> None:
    await shelf.put("name", "value", None)

    assert await shelf.get("name", after(10**9)) == "value"


async def test_putting_again_replaces_value_and_time(shelf: Shelf) -> None:
    await shelf.put("name", "old", after(10))
    await shelf.put("name", "new", after(20))

    assert await shelf.get("name", after(15)) == "new"
    assert await shelf.get("name", after(20)) is None


async def test_of_many_who_add_a_name_one_wins(shelf: Shelf) -> None:
    won = await asyncio.gather(*(shelf.add("name", f"value {number}", after(60), NOON) for number in range(20)))

    assert won.count(True) == 1
    assert await shelf.get("name", NOON) == f"value {won.index(True)}"


async def test_a_value_past_its_time_stands_in_nobodys_way(shelf: Shelf) -> None:
    await shelf.add("name", "old", after(10), NOON)

    assert not await shelf.add("name", "new", None, after(9))
    assert await shelf.add("name", "new", None, after(10))
    assert not await shelf.add("name", "newer", None, after(10**9))
    assert await shelf.get("name", after(10**9)) == "new"


async def test_a_dropped_value_is_gone(shelf: Shelf) -> None:
    await shelf.put("name", "value", None)
    await shelf.put("other", "value", None)

    await shelf.drop("name")
    await shelf.drop("name")

    assert await shelf.get("name", NOON) is None
    assert await shelf.get("other", NOON) == "value"


async def test_prune_forgets_what_is_past_its_time_in_small_batches(shelf: Shelf) -> None:
    for number in range(5):
        await shelf.put(f"past {number}", "value", after(number))
    await shelf.put("later", "value", after(60))
    await shelf.put("for ever", "value", None)

    forgotten = []
    while count := await shelf.prune(after(4), limit=2):
        forgotten.append(count)

    assert forgotten == [2, 2, 1]
    assert await shelf.get("past 0", after(-1)) is None
    assert await shelf.get("later", NOON) == "value"
    assert await shelf.get("for ever", NOON) == "value"
