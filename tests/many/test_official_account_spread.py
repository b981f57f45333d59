"""An official account behind a load balancer: each of WeChat's attempts may reach another gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from gateway.channels.http_face import HttpFace
from gateway.channels.official_account.channel import OfficialAccountChannel
from gateway.channels.official_account.elsewhere import KEEP_FOR
from gateway.errors import RateLimited
from gateway.messages import OutcomeKind
from gateway.simulators.official_account import OfficialAccountSimulator
from gateway.testing.bulletin import SharedBulletin, SharedSeats
from gateway.wording import say
from tests.many.forwarder import Forwarder
from tests.many.house import Process, Shared, process, shared

WINDOW_S = 0.4
"""Stands for WeChat's five seconds."""
TOKEN = "sesame"
SECTIONS = {"channels": {"official": {"kind": "official_account", "app_id": "wx1234567890abcdef", "token": TOKEN}}}


@dataclass(kw_only=True)
class Scene:
    between: Shared
    one: Process
    other: Process
    balancer: Forwarder
    platform: OfficialAccountSimulator

    async def told(self, text: str) -> str:
        """What the follower sees after he wrote `text`."""
        msg_id = await self.platform.say(sender="粉丝甲", text=text)
        shown = await self.platform.wait_until(lambda seen: any(each.answers == msg_id for each in seen))
        await self.platform.idle()
        return next(each.text for each in shown if each.answers == msg_id)

    async def outcome(self, text: str) -> tuple[OutcomeKind, str]:
        """How the turn of the message that said `text` ended, once it did."""
        async with asyncio.timeout(5):
            while True:
                record = next(each for each in await self.between.store.ledger.latest() if each.inbound.text == text)
                if record.outcome is not None:
                    return record.outcome.kind, record.outcome.reason
                await asyncio.sleep(0.01)

    @property
    def attempts(self) -> list[int]:
        """The gateway that each attempt reached."""
        return [0 if port == self.one.port else 1 for port in self.balancer.taken]


def account(between: Shared, face: HttpFace, bulletin: SharedBulletin, seats: SharedSeats) -> OfficialAccountChannel:
    return OfficialAccountChannel(
        name="official",
        app_id="wx1234567890abcdef",
        token=TOKEN,
        face=face,
        clock=between.clock,
        window_s=WINDOW_S,
        attempt_s=WINDOW_S * 0.7,
        shelf=between.store.shelf,
        bulletin=bulletin,
    )


@asynccontextmanager
async def _scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        between = shared()
        one = await stack.enter_async_context(process(between, account, SECTIONS))
        other = await stack.enter_async_context(process(between, account, SECTIONS))
        balancer = await stack.enter_async_context(Forwarder([one.port, other.port]).running())
        url = f"http://127.0.0.1:{balancer.port}/official_account/official"
        simulator = OfficialAccountSimulator(token=TOKEN, callback_url=url, window_s=WINDOW_S, retry_pause_s=0.02)
        platform = await stack.enter_async_context(simulator.playing())
        yield Scene(between=between, one=one, other=other, balancer=balancer, platform=platform)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with _scene() as made:
        yield made


@pytest.mark.parametrize(("latency", "reached"), [(0.0, [0]), (1.2, [0, 1]), (2.4, [0, 1, 0])])
async def test_an_answer_reaches_the_attempt_of_its_time_wherever_that_arrives(scene: Scene, latency: float, reached: list[int]) -> None:
    """0, 6 and 12 seconds of a model, in windows of five."""
    scene.between.backend.will_say("四十二", after_s=latency * WINDOW_S)

    assert await scene.told("多少") == "四十二"

    assert scene.attempts == reached
    assert len(scene.between.backend.prompts) == 1
    assert await scene.outcome("多少") == (OutcomeKind.ANSWERED, "")


@pytest.mark.parametrize("first", [0, 1])
async def test_an_answer_after_all_attempts_is_announced_once_and_fetched_from_any_gateway(scene: Scene, first: int) -> None:
    """20 seconds of a model."""
    scene.balancer.next = first
    scene.between.backend.will_say("四十二", after_s=4 * WINDOW_S)

    assert await scene.told("多少") == say("placeholder", "zh")
    assert await scene.outcome("多少") == (OutcomeKind.ANSWERED, "parked until the person asks for it")

    assert await scene.told("继续") == "四十二"
    assert scene.attempts == [first, 1 - first, first, 1 - first]
    assert len(scene.between.backend.prompts) == 1


async def test_an_answer_that_was_lost_on_its_way_is_given_again_byte_for_byte_by_the_other_gateway(scene: Scene) -> None:
    scene.platform.faults.drop_responses = 2

    assert await scene.told("多少") == "ANS:多少"

    assert scene.attempts == [0, 1, 0]
    assert len({delivery.body for delivery in scene.platform.deliveries}) == 1
    assert len(scene.between.backend.prompts) == 1


async def test_a_long_answer_that_was_fetched_and_lost_is_the_same_at_the_other_gateway(scene: Scene) -> None:
    scene.between.backend.will_say("长" * 2000)
    await scene.told("长文")
    scene.platform.deliveries.clear()
    scene.platform.faults.drop_responses = 1

    assert (await scene.told("继续")).endswith(say("more", "zh"))

    assert len(scene.platform.deliveries) == 2
    assert len({delivery.body for delivery in scene.platform.deliveries}) == 1


@pytest.mark.parametrize(("latency", "seen"), [(2.0, "四十二"), (4.0, say("placeholder", "zh"))])
async def test_a_gateway_that_dies_with_the_request_in_hand_costs_an_attempt_and_no_answer(scene: Scene, latency: float, seen: str) -> None:
    scene.between.backend.will_say("四十二", after_s=latency * WINDOW_S)

    telling = asyncio.create_task(scene.told("多少"))
    await scene.balancer.until_taken(2)
    await asyncio.sleep(WINDOW_S / 3)
    scene.other.bulletin.deaf = True
    scene.balancer.kill(scene.other.port)

    assert await telling == seen
    assert scene.attempts == [0, 1, 0]
    assert len(scene.between.backend.prompts) == 1


async def test_an_answer_at_once_costs_the_shared_store_nothing(scene: Scene) -> None:
    assert await scene.told("多少") == "ANS:多少"

    assert scene.between.board.published == []
    later = scene.between.clock.now() + KEEP_FOR + timedelta(seconds=1)
    assert await scene.between.store.shelf.prune(later) == 0


async def test_news_that_do_not_come_through_cost_no_answer(scene: Scene) -> None:
    """The reply is on the shelf: the next attempt finds it."""
    scene.one.bulletin.deaf = scene.other.bulletin.deaf = True
    scene.between.backend.will_say("四十二", after_s=1.2 * WINDOW_S)

    assert await scene.told("多少") == "四十二"

    assert await scene.outcome("多少") == (OutcomeKind.ANSWERED, "")
    assert len(scene.between.backend.prompts) == 1


async def test_a_sentence_that_is_in_no_ledger_reaches_the_other_gateway_too(scene: Scene) -> None:
    scene.between.backend.will_fail(RateLimited(retry_after_s=3), after_s=1.2 * WINDOW_S)

    assert await scene.told("多少") == say("rate_limited", "zh")

    assert scene.attempts == [0, 1]
