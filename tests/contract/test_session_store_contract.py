"""What every session store promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from store_factories import NOON, STORES, a_message, after

from gateway.sessions.session import Session, new_session
from gateway.stores.base import SessionStore


@pytest.fixture(params=STORES)
async def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    store = await STORES[request.param](tmp_path)
    yield store.sessions
    await store.aclose()


def a_session(key: str = "dingtalk/bot/person/wang", started_at: datetime = NOON) -> Session:
    message = a_message()
    session = new_session(key, message.address, message.ticket, started_at)
    return replace(session.said("你好", "您好！\n😀", started_at), settings={"role": "老师", "model": "gpt"})


async def test_a_session_comes_back_as_it_was_saved(sessions: SessionStore) -> None:
    await sessions.save(a_session(), after(60))

    assert await sessions.load(a_session().key) == a_session()


async def test_a_session_is_loaded_also_when_it_is_over(sessions: SessionStore) -> None:
    await sessions.save(a_session(), after(-60))

    assert await sessions.load(a_session().key) == a_session()


async def test_an_unknown_session_is_none(sessions: SessionStore) -> None:
    assert await sessions.load("nobody") is None


async def test_saving_again_replaces_session_and_end(sessions: SessionStore) -> None:
    await sessions.save(a_session(), after(60))
    grown = a_session().said("more", "words", after(5))

    await sessions.save(grown, after(65))

    assert await sessions.load(grown.key) == grown
    assert await sessions.next_end() == after(65)
    assert await sessions.ended(after(60)) == []


async def test_a_dropped_session_is_gone_with_its_end(sessions: SessionStore) -> None:
    await sessions.save(a_session(), after(60))

    await sessions.drop(a_session().key)
    await sessions.drop(a_session().key)

    assert await sessions.load(a_session().key) is None
    assert await sessions.next_end() is None
    assert await sessions.ended(after(100)) == []


async def test_ended_lists_what_is_over_earliest_first_up_to_the_limit(sessions: SessionStore) -> None:
    for name, ends in (("c", 30.0), ("a", 10.0), ("later", 30.000001), ("b", 20.0)):
        await sessions.save(a_session(name), after(ends))
    await sessions.save(a_session("never"), None)

    assert [session.key for session in await sessions.ended(after(30))] == ["a", "b", "c"]
    assert [session.key for session in await sessions.ended(after(30), limit=2)] == ["a", "b"]
    assert list(await sessions.ended(after(9))) == []


async def test_ended_keeps_the_sessions(sessions: SessionStore) -> None:
    await sessions.save(a_session("a"), after(10))

    first = await sessions.ended(after(10))

    assert first == await sessions.ended(after(10)) == [a_session("a")]
    assert await sessions.load("a") == a_session("a")


async def test_a_session_that_is_over_is_taken_once(sessions: SessionStore) -> None:
    await sessions.save(a_session("a"), after(10))

    taken = await asyncio.gather(*(sessions.take_ended("a", after(10)) for _ in range(20)))

    assert [session for session in taken if session is not None] == [a_session("a")]
    assert await sessions.load("a") is None
    assert await sessions.next_end() is None


async def test_a_session_that_goes_on_is_not_taken(sessions: SessionStore) -> None:
    await sessions.save(a_session("a"), after(10))
    await sessions.save(a_session("never"), None)

    assert await sessions.take_ended("a", after(9)) is None
    assert await sessions.take_ended("never", after(9)) is None
    assert await sessions.take_ended("nobody", after(9)) is None
    assert await sessions.load("a") == a_session("a")


async def test_the_next_end_is_the_earliest(sessions: SessionStore) -> None:
    assert await sessions.next_end() is None
    await sessions.save(a_session("never"), None)
    assert await sessions.next_end() is None

    await sessions.save(a_session("a"), after(20))
    await sessions.save(a_session("b"), after(10))
    assert await sessions.next_end() == after(10)

    await sessions.save(a_session("b"), None)
    assert await sessions.next_end() == after(20)


async def test_the_end_is_a_moment_in_any_time_zone(sessions: SessionStore) -> None:
    shanghai = timezone(timedelta(hours=8))
    await sessions.save(a_session("a"), after(10).astimezone(shanghai))

    assert await sessions.next_end() == after(10)
    assert len(await sessions.ended(after(10))) == 1


async def test_an_end_that_is_pushed_back_often_costs_no_memory_and_stays_right(sessions: SessionStore) -> None:
    await sessions.save(a_session("other"), after(5_000))
    for seconds in range(500):
        await sessions.save(a_session("busy"), after(seconds))

    assert await sessions.next_end() == after(499)
    assert [session.key for session in await sessions.ended(after(10_000))] == ["busy", "other"]


async def test_sessions_of_many_people_at_once_do_not_mix(sessions: SessionStore) -> None:
    async def talk(name: str) -> Session | None:
        await sessions.save(a_session(name), after(60))
        return await sessions.load(name)

    loaded = await asyncio.gather(*(talk(f"person {number}") for number in range(200)))

    assert [session and session.key for session in loaded] == [f"person {number}" for number in range(200)]


@pytest.mark.parametrize("key", ["a/b%2Fc", "群/成员 😀", "torn \ud83d", "nul \0", "'; --", ""])
async def test_any_key_works(sessions: SessionStore, key: str) -> None:
    await sessions.save(a_session(key), after(60))
    assert await sessions.load(key) == a_session(key)

    await sessions.drop(key)
    assert await sessions.load(key) is None
