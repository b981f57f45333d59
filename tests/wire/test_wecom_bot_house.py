"""Whole gateways behind the simulated WeCom: what a person sees, also after a crash, and how the turn ends in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from gateway.channels.http_face import HttpFace
from gateway.channels.wecom_bot.channel import WeComBotChannel
from gateway.clock import SystemClock
from gateway.errors import BackendOverloaded
from gateway.reading import parse_config
from gateway.rendering import cut
from gateway.simulators.wecom_bot import BOT_ID, SECRET, WeComBotSimulator
from gateway.stores.base import Store
from gateway.stores.memory import MemoryStore
from gateway.testing.backend import ScriptedBackend
from gateway.wiring import House, join


@asynccontextmanager
async def a_house(sim: WeComBotSimulator, store: Store, backend: ScriptedBackend) -> AsyncIterator[House]:
    clock = SystemClock()
    channel = WeComBotChannel(name="wecom", bot_id=BOT_ID, secret=SECRET, base_url=sim.base_url, clock=clock, cut=partial(cut, fences=True))
    config = parse_config({"answering": {"chain": ["echo"]}}, {})
    house = join(config, store=store, backend=backend, channels={"wecom": channel}, face=HttpFace(), clock=clock)
    connected = sim.count("subscribe")
    hearing = asyncio.create_task(channel.run(house.dispatch.hear), name="wecom")
    try:
        await sim.wait_for_log("subscribe", connected + 1)
        yield house
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        await house.lanes.settle(clock, 0)  # As a crash does: what runs is given up and stays in the ledger.
        await channel.aclose()


async def outcome(store: Store, message: str) -> tuple[str, str]:
    for _ in range(500):
        (record,) = await store.ledger.find(message)
        if record.outcome is not None:
            return record.outcome.kind.value, record.outcome.reason
        await asyncio.sleep(0.01)
    raise TimeoutError


@pytest.fixture
async def sim() -> AsyncIterator[WeComBotSimulator]:
    async with WeComBotSimulator().running() as sim:
        yield sim
    assert sim.violations == []


async def test_two_people_are_answered_and_remembered(sim: WeComBotSimulator) -> None:
    store, backend = MemoryStore(), ScriptedBackend()
    async with a_house(sim, store, backend):
        asked = await sim.say(sender="zhangsan", text="我叫张三")
        await sim.wait_for_shown(1)
        await sim.say(sender="lisi", group="wrGroup", text="你好")
        await sim.wait_for_shown(2)
        await sim.say(sender="zhangsan", text="我叫什么？")
        await sim.wait_for_shown(3)
        ended = await outcome(store, asked)

    assert [(shown.chat, shown.text) for shown in sim.shown] == [
        ("zhangsan", "ANS:我叫张三"),
        ("wrGroup", "ANS:你好"),
        ("zhangsan", "ANS:我叫什么？"),
    ]
    assert "ANS:我叫张三" in [line.text for line in backend.prompts[2].lines]
    assert ended == ("answered", "")


async def test_a_crash_in_the_middle_of_an_answer_leaves_one_message(sim: WeComBotSimulator) -> None:
    store, first, second = MemoryStore(), ScriptedBackend(clock=SystemClock()), ScriptedBackend()
    first.will_say("从前有", after_s=0)
    async with a_house(sim, store, first):
        first.hold()
        asked = await sim.say(text="讲个故事")
        await first.wait_until_asked(1)
    async with a_house(sim, store, second) as house:
        assert await house.dispatch.resume() == 1
        await sim.wait_for_shown(1)
        ended = await outcome(store, asked)

    assert [shown.text for shown in sim.shown] == ["ANS:讲个故事"]
    assert len({snapshot.stream for snapshot in sim.snapshots}) == 1
    assert ended == ("answered", "")


async def test_a_crash_before_the_end_was_acknowledged_shows_the_answer_once(sim: WeComBotSimulator) -> None:
    store, backend = MemoryStore(), ScriptedBackend()
    sim.faults.silent_acks = 100
    async with a_house(sim, store, backend):
        asked = await sim.say(text="讲个故事")
        await sim.wait_for_log("finish")
    sim.faults.silent_acks = 0
    async with a_house(sim, store, backend) as house:
        assert await house.dispatch.resume() == 1
        ended = await outcome(store, asked)

    assert [shown.text for shown in sim.shown] == ["ANS:讲个故事"]
    assert (len(backend.prompts), ended) == (1, ("answered", ""))


async def test_a_person_who_stops_an_answer_sees_that_it_was_stopped(sim: WeComBotSimulator) -> None:
    store, backend = MemoryStore(), ScriptedBackend()
    async with a_house(sim, store, backend):
        backend.hold()
        asked = await sim.say(text="讲个长故事")
        await backend.wait_until_asked(1)
        await sim.say(text="/stop")
        await sim.wait_for_shown(2)
        ended = await outcome(store, asked)

    assert {shown.text for shown in sim.shown} == {"（已停止）", "好的，已经停止。"}
    assert ended[0] == "refused"


async def test_a_model_that_breaks_off_ends_with_a_sentence(sim: WeComBotSimulator) -> None:
    store, backend = MemoryStore(), ScriptedBackend()
    backend.will_fail(BackendOverloaded(), after=("从前有座山，",))
    async with a_house(sim, store, backend):
        asked = await sim.say(text="讲个故事")
        await sim.wait_for_shown(1)
        ended = await outcome(store, asked)

    assert sim.shown[0].text.startswith("从前有座山，\n\n（回答在这里中断了")
    assert ended == ("failed", "BackendOverloaded")


async def test_a_picture_is_answered_with_an_apology(sim: WeComBotSimulator) -> None:
    store = MemoryStore()
    async with a_house(sim, store, ScriptedBackend()):
        await sim.say(kind="image", content={"url": "https://example.com/secret", "aeskey": "k"})
        (shown,) = await sim.wait_for_shown(1)

    assert "文字" in shown.text


async def test_fifty_people_at_once_are_each_answered_once(sim: WeComBotSimulator) -> None:
    store = MemoryStore()
    async with a_house(sim, store, ScriptedBackend()):
        await asyncio.gather(*(sim.say(sender=f"user{number}", text=f"问题{number}") for number in range(50)))
        await sim.wait_for_shown(50)

    assert sorted((shown.chat, shown.text) for shown in sim.shown) == sorted((f"user{n}", f"ANS:问题{n}") for n in range(50))
