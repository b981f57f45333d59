"""Two gateways on a real Redis: conversations are worked where their lane is, requests are answered where they are held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx2
import pytest

from gateway.channels.api import PATH, ApiChannel
from gateway.channels.base import Channel
from gateway.channels.http_face import HttpFace, listening
from gateway.channels.official_account.channel import OfficialAccountChannel
from gateway.clock import SystemClock
from gateway.messages import OutcomeKind
from gateway.reading import parse_config
from gateway.simulators.official_account import OfficialAccountSimulator
from gateway.stores.redis import RedisStore
from gateway.testing.backend import ScriptedBackend
from gateway.wiring import House, join
from gateway.wording import say
from tests.many.forwarder import Forwarder
from tests.redis_server import a_prefix, shared_url

WINDOW_S = 0.8
"""Stands for WeChat's five seconds."""
LEASE_S = 0.5
TOKEN = "sesame-and-more"
SECTIONS = {"channels": {"official": {"kind": "official_account", "app_id": "wx1234567890abcdef", "token": "sesame"}}}

Build = Callable[[RedisStore, HttpFace], Channel]


@dataclass(kw_only=True)
class Gateway:
    """One process: its own connections to Redis, lanes and listener."""

    house: House
    store: RedisStore
    tasks: list[asyncio.Task[None]]
    port: int

    async def die(self) -> None:
        """It stops in the middle of everything: nothing is finished, handed back or renewed."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.store.aclose()
        await self.house.lanes.settle(SystemClock(), 0)


@dataclass(kw_only=True)
class Scene:
    backend: ScriptedBackend
    gateways: list[Gateway]
    balancer: Forwarder
    platform: OfficialAccountSimulator
    client: httpx2.AsyncClient

    async def say(self, text: str, *, to: int) -> str:
        self.balancer.next = to
        taken = len(self.balancer.taken)
        msg_id = await self.platform.say(sender="粉丝甲", text=text)
        await self.balancer.until_taken(taken + 1)
        return msg_id

    async def answer_to(self, msg_id: str) -> str:
        shown = await self.platform.wait_until(lambda seen: any(each.answers == msg_id for each in seen))
        return next(each.text for each in shown if each.answers == msg_id)

    def ask(self, text: str, *, at: int, id: str) -> asyncio.Task[httpx2.Response]:
        question = {"text": text, "sender": "alice", "id": id}
        url = f"http://127.0.0.1:{self.gateways[at].port}{PATH}"
        return asyncio.create_task(self.client.post(url, json=question, headers={"authorization": f"Bearer {TOKEN}"}))

    async def until(self, satisfied: Callable[[list[OutcomeKind | None]], bool], *, at: int = 0) -> None:
        """Wait until the outcomes of all turns, newest first and None where there is none yet, are as they should be."""
        async with asyncio.timeout(10):
            while True:
                records = await self.gateways[at].store.ledger.latest()
                if satisfied([record.outcome.kind if record.outcome else None for record in records]):
                    return
                await asyncio.sleep(0.02)


def account(store: RedisStore, face: HttpFace) -> Channel:
    return OfficialAccountChannel(
        name="official",
        app_id="wx1234567890abcdef",
        token="sesame",
        face=face,
        clock=SystemClock(),
        window_s=WINDOW_S,
        attempt_s=WINDOW_S * 0.7,
        shelf=store.shelf,
        bulletin=store.bulletin,
    )


def api(store: RedisStore, face: HttpFace) -> Channel:
    return ApiChannel("api", tokens=[TOKEN], face=face, clock=SystemClock(), timeout_s=10, bulletin=store.bulletin)


@asynccontextmanager
async def gateway(prefix: str, build: Build, backend: ScriptedBackend) -> AsyncIterator[Gateway]:
    clock, face = SystemClock(), HttpFace()
    store = await RedisStore.open(shared_url(), prefix=prefix, lease_s=LEASE_S)
    channel = build(store, face)
    config = parse_config({"answering": {"chain": ["echo"]}, **SECTIONS}, {})
    house = join(config, store=store, backend=backend, channels={channel.name: channel}, face=face, clock=clock)
    tasks = [asyncio.create_task(channel.run(house.dispatch.hear)), asyncio.create_task(house.lineup.run(house.dispatch))]
    async with listening(face, drain_s=0.1) as port:
        made = Gateway(house=house, store=store, tasks=tasks, port=port)
        try:
            yield made
        finally:
            await made.die()
            await channel.aclose()


@asynccontextmanager
async def _scene(build: Build) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        backend, prefix = ScriptedBackend(clock=SystemClock()), a_prefix()
        gateways = [await stack.enter_async_context(gateway(prefix, build, backend)) for _ in range(2)]
        balancer = await stack.enter_async_context(Forwarder([each.port for each in gateways]).running())
        url = f"http://127.0.0.1:{balancer.port}/official_account/official"
        simulator = OfficialAccountSimulator(token="sesame", callback_url=url, window_s=WINDOW_S, retry_pause_s=0.05)
        platform = await stack.enter_async_context(simulator.playing())
        client = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=15))
        yield Scene(backend=backend, gateways=gateways, balancer=balancer, platform=platform, client=client)


@pytest.fixture
async def callbacks() -> AsyncIterator[Scene]:
    async with _scene(account) as made:
        yield made


@pytest.fixture
async def programs() -> AsyncIterator[Scene]:
    async with _scene(api) as made:
        yield made


async def test_a_message_is_answered_where_its_request_is_held_though_its_conversation_is_worked_elsewhere(callbacks: Scene) -> None:
    callbacks.backend.will_say("一", after_s=0.4 * WINDOW_S, to="甲")
    callbacks.backend.will_say("二", to="乙")

    first = await callbacks.say("甲", to=0)
    await callbacks.backend.wait_until_asked(1)
    second = await callbacks.say("乙", to=1)  # waits in the mailbox that gateway 0 works

    assert await callbacks.answer_to(first) == "一"
    assert await callbacks.answer_to(second) == "二"
    assert len(callbacks.platform.deliveries) == 2
    assert [prompt.question for prompt in callbacks.backend.prompts] == ["甲", "乙"]


@pytest.mark.parametrize("latency", [0.0, 1.2, 2.4, 4.0])
async def test_a_ladder_over_both_gateways_has_one_model_call_and_one_answer(callbacks: Scene, latency: float) -> None:
    callbacks.backend.will_say("四十二", after_s=latency * WINDOW_S)

    seen = await callbacks.answer_to(await callbacks.say("多少", to=0))

    assert seen == ("四十二" if latency < 3 else say("placeholder", "zh"))
    await callbacks.platform.idle()
    assert len(callbacks.backend.prompts) == 1
    if latency > 3:
        await asyncio.sleep((latency - 3) * WINDOW_S + 0.2)
        assert await callbacks.answer_to(await callbacks.say("继续", to=1)) == "四十二"


async def test_the_gateway_that_makes_the_answer_dies_and_the_other_announces_makes_and_keeps_it(callbacks: Scene) -> None:
    """Its lease outlives WeChat's patience: the follower is told to ask for the answer, and then gets it."""
    callbacks.backend.will_say("nobody hears this", after_s=30)
    asked = await callbacks.say("多少", to=0)
    await callbacks.backend.wait_until_asked(1)
    await asyncio.sleep(0.2 * WINDOW_S)

    callbacks.balancer.kill(callbacks.gateways[0].port)
    await callbacks.gateways[0].die()

    assert await callbacks.answer_to(asked) == say("placeholder", "zh")
    await callbacks.until(lambda kinds: kinds == [OutcomeKind.ANSWERED], at=1)
    assert await callbacks.answer_to(await callbacks.say("继续", to=1)) == "ANS:多少"
    assert len(callbacks.backend.prompts) == 2


async def test_programs_get_their_answers_in_order_and_each_where_it_asked(programs: Scene) -> None:
    programs.backend.hold()
    asking = [programs.ask("一", at=0, id="q1")]
    await programs.backend.wait_until_asked(1)
    asking += [programs.ask(text, at=number % 2, id=f"q{number + 1}") for number, text in ((1, "二"), (2, "三"), (3, "四"))]
    await programs.until(lambda kinds: len(kinds) == 4)

    programs.backend.release()
    answers = [(await each).json()["text"] for each in asking]

    assert answers == ["ANS:一", "ANS:二", "ANS:三", "ANS:四"]
    assert len(programs.backend.prompts) == 4


async def test_a_program_whose_worker_died_gets_the_answer_that_another_gateway_makes(programs: Scene) -> None:
    programs.backend.will_say("nobody hears this", after_s=30, to="一")
    programs.ask("一", at=0, id="q1").cancel()
    first = programs.ask("一", at=0, id="q1")
    await programs.backend.wait_until_asked(1)
    waiting = programs.ask("一", at=1, id="q1")
    await asyncio.sleep(0.1)

    await programs.gateways[0].die()

    assert (await waiting).json()["text"] == "ANS:一"
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_crowd_with_a_slow_model_sees_answers_or_promises_that_are_kept(callbacks: Scene) -> None:
    """Every follower sees his own answer, or the request to fetch it and then his answer; nobody sees a fault or somebody else's."""
    people = range(40)
    for number in people:
        callbacks.backend.will_say(f"答{number}。", after_s=(number * 7 % 40) / 40 * 3.6 * WINDOW_S, to=f"问{number}。")

    asked = {await callbacks.platform.say(sender=f"粉丝{number}", text=f"问{number}。"): number for number in people}
    seen = await callbacks.platform.wait_for_shown(len(people), timeout_s=20)
    await callbacks.until(lambda kinds: kinds == [OutcomeKind.ANSWERED] * len(people))
    waiting = {asked[each.answers] for each in seen if each.text == say("placeholder", "zh")}
    assert {(asked[each.answers], each.text) for each in seen if asked[each.answers] not in waiting} == {
        (number, f"答{number}。") for number in people if number not in waiting
    }

    fetched = {await callbacks.platform.say(sender=f"粉丝{number}", text="继续"): number for number in waiting}
    seen = await callbacks.platform.wait_for_shown(len(people) + len(waiting), timeout_s=20)
    assert {fetched[each.answers]: each.text for each in seen if each.answers in fetched} == {number: f"答{number}。" for number in waiting}
    assert len(callbacks.backend.prompts) == len(people)
