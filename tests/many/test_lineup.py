"""Two gateways on one real Redis: order, one answer per message, stop across processes, take-over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.channels.base import Admission
from gateway.channels.http_face import HttpFace
from gateway.clock import SystemClock
from gateway.reading import parse_config
from gateway.stores.redis import RedisStore
from gateway.testing.backend import ScriptedBackend
from gateway.testing.channel import LoopbackChannel
from gateway.wiring import House, join
from gateway.wording import SENTENCES
from tests.redis_server import a_prefix, shared_url


@dataclass(kw_only=True)
class Member:
    """One gateway process, as far as the others can tell."""

    store: RedisStore
    house: House
    channel: LoopbackChannel
    background: asyncio.Task[None]

    async def die(self) -> None:
        """Nothing is handed back and no lease is renewed any more."""
        self.background.cancel()
        await self.store.aclose()
        await asyncio.gather(self.background, return_exceptions=True)
        await self.house.lanes.settle(SystemClock(), 0)

    async def stop(self) -> None:
        self.background.cancel()
        await asyncio.gather(self.background, return_exceptions=True)
        await self.house.lineup.settle(SystemClock(), 5)
        await self.store.aclose()


Join = Callable[..., Awaitable[Member]]


@pytest.fixture
async def backend() -> ScriptedBackend:
    return ScriptedBackend(clock=SystemClock())


@pytest.fixture
async def member(backend: ScriptedBackend) -> AsyncIterator[Join]:
    prefix, clock = a_prefix(), SystemClock()
    members: list[Member] = []
    async with AsyncExitStack() as stack:

        async def _join(**sections: Any) -> Member:
            store = await RedisStore.open(shared_url(), worker=f"w{len(members)}", prefix=prefix, lease_s=1)
            stack.push_async_callback(store.aclose)
            channel = LoopbackChannel(clock)
            config = parse_config({"answering": {"chain": ["echo"]}, **sections}, {})
            house = join(config, store=store, backend=backend, channels={"loop": channel}, face=HttpFace(), clock=clock)
            await house.dispatch.resume()
            channel.listen(house.dispatch.hear)
            background = asyncio.create_task(house.lineup.run(house.dispatch))
            members.append(Member(store=store, house=house, channel=channel, background=background))
            return members[-1]

        yield _join
        for made in members:
            made.background.cancel()
            await asyncio.gather(made.background, return_exceptions=True)
            await made.house.lanes.settle(clock, 0)


async def shown(*members: Member) -> list[str]:
    return [text for made in members for text in made.channel.texts]


async def until(count: int, *members: Member, timeout_s: float = 10) -> list[str]:
    async with asyncio.timeout(timeout_s):
        while len(texts := await shown(*members)) < count:  # noqa: ASYNC110 - several channels, each with a condition of its own
            await asyncio.sleep(0.01)
    return texts


async def test_a_conversation_keeps_its_order_whichever_process_hears_its_messages(member: Join, backend: ScriptedBackend) -> None:
    one, two = await member(), await member()
    backend.hold()
    for number in range(10):
        await (one, two)[number % 2].channel.say(f"m{number}")
    backend.release()
    await until(10, one, two)

    assert [prompt.question for prompt in backend.prompts] == [f"m{number}" for number in range(10)]
    assert one.channel.texts == [f"ANS:m{number}" for number in range(10)], "the holder of the conversation shows all of it"


async def test_the_context_is_shared_and_a_redelivery_to_the_other_process_is_known(member: Join, backend: ScriptedBackend) -> None:
    one, two = await member(), await member()
    await one.channel.say("I am Ann", id="m")
    await until(1, one)
    again = await two.channel.say("I am Ann", id="m")
    await asyncio.sleep(0)
    await two.channel.say("who am I")
    await until(2, one, two)

    assert again.admission is Admission.DUPLICATE
    assert again.accepted_at is not None
    assert [line.text for line in backend.prompts[1].lines] == ["I am Ann", "ANS:I am Ann", "who am I"]
    assert len(backend.prompts) == 2


async def test_stop_reaches_the_process_that_answers(member: Join, backend: ScriptedBackend) -> None:
    one, two = await member(), await member()
    backend.hold()
    await one.channel.say("写一本书", id="book")
    await backend.wait_until_asked(1)
    await two.channel.say("/stop")

    assert await two.channel.wait_for(1) == [SENTENCES["stopped"].zh]
    (record,) = await two.store.ledger.find("book")
    async with asyncio.timeout(5):
        while record.outcome is None:
            await asyncio.sleep(0.01)
            (record,) = await two.store.ledger.find("book")
    assert record.outcome.reason == "stopped by the person"
    assert backend.abandoned == 1


async def test_what_a_dead_process_left_is_taken_over_in_order(member: Join, backend: ScriptedBackend) -> None:
    one, two = await member(), await member()
    backend.hold()
    for number in range(3):
        await one.channel.say(f"m{number}", id=f"m{number}")
    await backend.wait_until_asked(1)
    await one.die()
    backend.release()

    assert await until(3, two) == ["ANS:m0", "ANS:m1", "ANS:m2"]
    for number in range(3):
        (record,) = await two.store.ledger.find(f"m{number}")
        assert record.outcome is not None
        assert record.outcome.kind.value == "answered"


async def test_a_process_that_stops_hands_its_queue_over_at_once(member: Join, backend: ScriptedBackend) -> None:
    one, two = await member(), await member()
    backend.hold()
    await one.channel.say("first")
    await one.channel.say("second")
    await backend.wait_until_asked(1)
    stopping = asyncio.create_task(one.stop())
    await asyncio.sleep(0.05)
    backend.release()
    await stopping

    assert await until(2, one, two) == ["ANS:first", "ANS:second"]
    assert one.channel.texts == ["ANS:first"]


async def test_many_conversations_over_two_processes_are_each_answered_once_and_in_order(member: Join, backend: ScriptedBackend) -> None:
    one, two = await member(), await member()
    for round_number in range(5):
        await asyncio.gather(
            *((one, two)[(person + round_number) % 2].channel.say(f"{round_number}", sender=f"p{person}") for person in range(60))
        )
    texts = await until(300, one, two, timeout_s=20)

    assert len(texts) == 300
    for person in range(60):
        said = [outbound.text for made in (one, two) for outbound in made.channel.shown if outbound.address.sender == f"p{person}"]
        assert sorted(said) == [f"ANS:{number}" for number in range(5)]
    order: dict[str, list[str]] = {}
    for prompt in backend.prompts:
        person_lines = tuple(line.text for line in prompt.lines)
        order.setdefault(prompt.question, []).append(str(len(person_lines)))
    assert {question: set(lengths) for question, lengths in order.items()} == {str(number): {str(2 * number + 1)} for number in range(5)}


async def test_a_full_conversation_is_refused_with_a_sentence_whoever_hears_it(member: Join, backend: ScriptedBackend) -> None:
    one, two = await member(queue={"per_conversation": 2}), await member(queue={"per_conversation": 2})
    backend.hold()
    for number in range(5):
        await (one, two)[number % 2].channel.say(f"m{number}", id=f"m{number}")
    await until(2, one, two)
    assert set(await shown(one, two)) == {SENTENCES["busy"].en}

    backend.release()
    await until(5, one, two)
    outcomes = [(await one.store.ledger.find(f"m{number}"))[0].outcome for number in range(5)]
    assert sorted(outcome.kind.value for outcome in outcomes if outcome) == ["answered"] * 3 + ["refused"] * 2


async def test_sessions_end_once_whoever_notices(member: Join, backend: ScriptedBackend) -> None:
    sections = {"sessions": {"idle_timeout_s": 0.3, "farewell": True}}
    one, two = await member(**sections), await member(**sections)
    timers = [asyncio.create_task(made.house.expiry.run()) for made in (one, two)]
    try:
        await one.channel.say("你好")
        assert sorted(await until(2, one, two)) == sorted(["ANS:你好", SENTENCES["farewell"].zh])
        await asyncio.sleep(1.5)
        assert len(await shown(one, two)) == 2
    finally:
        for timer in timers:
            timer.cancel()
        await asyncio.gather(*timers, return_exceptions=True)
