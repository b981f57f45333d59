"""Two gateways with the same DingTalk app: DingTalk gives each message to any one of their connections, and again when it doubts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.channels.dingtalk.channel import DingTalkChannel
from gateway.channels.http_face import HttpFace
from gateway.simulators.dingtalk import CLIENT_ID, CLIENT_SECRET, DingTalkSimulator
from gateway.testing.bulletin import SharedBulletin, SharedSeats
from tests.many.house import Process, Shared, process, shared


@dataclass(kw_only=True)
class Scene:
    between: Shared
    one: Process
    other: Process
    platform: DingTalkSimulator

    @property
    def hearers(self) -> set[str]:
        """The connections that acknowledged a message."""
        return {ack.connection for ack in self.platform.acks.values()}


@asynccontextmanager
async def _scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(DingTalkSimulator().running())

        def dingtalk(between: Shared, face: HttpFace, bulletin: SharedBulletin, seats: SharedSeats) -> DingTalkChannel:
            base = platform.base_url
            return DingTalkChannel(
                name="dingtalk", client_id=CLIENT_ID, client_secret=CLIENT_SECRET, openapi_base=base, oapi_base=base, clock=between.clock
            )

        between = shared()
        one = await stack.enter_async_context(process(between, dingtalk))
        other = await stack.enter_async_context(process(between, dingtalk))
        await platform.wait_for_log("connect", 2)
        yield Scene(between=between, one=one, other=other, platform=platform)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with _scene() as made:
        yield made


async def test_messages_that_reach_either_gateway_are_answered_once_each(scene: Scene) -> None:
    ids = [await scene.platform.say(sender=f"人{number}", text=f"问{number}") for number in range(24)]

    shown = await scene.platform.wait_for_shown(24)

    assert Counter(each.answers for each in shown) == Counter(ids)
    assert len(scene.hearers) == 2
    assert len(scene.between.backend.prompts) == 24


async def test_a_message_that_is_delivered_again_to_the_other_gateway_is_acknowledged_and_not_answered_again(scene: Scene) -> None:
    """DingTalk picks any connection each time: of so many deliveries both gateways get some."""
    for _ in range(16):
        await scene.platform.say(sender="张三", text="你好", msg_id="msg-1")
    await scene.platform.wait_for_log("ack", 16)

    assert [each.text for each in await scene.platform.wait_for_shown(1)] == ["ANS:你好"]
    assert len(scene.hearers) == 2
    assert len(scene.between.backend.prompts) == 1
    assert len(await scene.between.store.ledger.latest()) == 1


async def test_what_one_gateway_no_longer_takes_goes_to_the_other(scene: Scene) -> None:
    scene.platform.faults.ack_timeout_s = 0.2
    scene.platform.faults.pushes = 10
    await scene.one.stop()
    await scene.platform.wait_for_log("close", 1)

    asked = await scene.platform.say(sender="张三", text="还在吗")
    [shown] = await scene.platform.wait_for_shown(1)

    assert shown.answers == asked


async def test_a_slow_answer_is_given_by_the_gateway_that_took_the_message_though_dingtalk_asks_the_other(scene: Scene) -> None:
    scene.between.backend.hold()
    await scene.platform.say(sender="张三", text="慢", msg_id="msg-2")
    await scene.between.backend.wait_until_asked(1)
    for _ in range(8):
        await scene.platform.say(sender="张三", text="慢", msg_id="msg-2")
    await scene.platform.wait_for_log("ack", 9)
    scene.between.backend.release()

    await scene.platform.wait_for_shown(1)
    await asyncio.sleep(0.1)

    assert len(await scene.platform.wait_for_shown(1)) == 1
    assert len(scene.between.backend.prompts) == 1
