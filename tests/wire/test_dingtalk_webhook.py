"""A custom robot of a DingTalk group: signed, in keyword mode, never too often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from dingtalk_desk import SOMEWHERE, Book

from gateway.channels.dingtalk.webhook import DingTalkWebhookChannel
from gateway.clock import Clock, SystemClock
from gateway.errors import ConfigError, SendError, SendLater, SendRefused, SendUncertain
from gateway.messages import Mention, Outbound
from gateway.simulators.dingtalk import DingTalkSimulator
from gateway.simulators.dingtalk_faults import ROBOT
from gateway.simulators.dingtalk_robot import ACCESS_TOKEN, SECRET
from gateway.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def sim(clock: ManualClock) -> AsyncIterator[DingTalkSimulator]:
    async with DingTalkSimulator(now=lambda: clock.now().timestamp()).running() as sim:
        yield sim


def a_robot(sim: DingTalkSimulator, clock: Clock, **settings: str) -> DingTalkWebhookChannel:
    plain = {"access_token": ACCESS_TOKEN, "secret": SECRET, "oapi_base": sim.base_url}
    return DingTalkWebhookChannel(name="alarm", clock=clock, **{**plain, **settings})  # type: ignore[arg-type]


@pytest.fixture
async def robot(sim: DingTalkSimulator, clock: ManualClock) -> AsyncIterator[DingTalkWebhookChannel]:
    robot = a_robot(sim, clock)
    yield robot
    await robot.aclose()


def words(text: str = "磁盘满了", mention: Mention | None = None) -> Outbound:
    return Outbound(key="k", address=SOMEWHERE, text=text, mention=mention)


async def test_a_signed_message_is_shown(sim: DingTalkSimulator, robot: DingTalkWebhookChannel) -> None:
    await robot.send(words("# 告警\n\n磁盘 **95%**"))

    assert [(shown.chat, shown.text) for shown in sim.shown] == [("告警群", "# 告警\n\n磁盘 **95%**")]


async def test_the_whole_webhook_address_can_be_given(sim: DingTalkSimulator, clock: ManualClock) -> None:
    robot = a_robot(sim, clock, access_token="", url=f"https://oapi.dingtalk.com/robot/send?access_token={ACCESS_TOKEN}")
    await robot.send(words())
    await robot.aclose()

    assert len(sim.shown) == 1


async def test_a_missing_keyword_is_added_and_a_present_one_is_not(sim: DingTalkSimulator, clock: ManualClock) -> None:
    sim.robot.keywords, sim.robot.secret = ("监控",), ""
    robot = a_robot(sim, clock, secret="", keyword="监控")
    await robot.send(words("磁盘满了"))
    await robot.send(words("监控：磁盘满了"))
    await robot.aclose()

    assert [shown.text for shown in sim.shown] == ["磁盘满了\n\n监控", "监控：磁盘满了"]


@pytest.mark.parametrize(
    ("settings", "robot_is", "named"),
    [
        ({"secret": "SECmistyped"}, {}, "加签"),
        ({"secret": ""}, {}, "more than an hour off"),
        ({}, {"keywords": ("监控",)}, "自定义关键词"),
        ({}, {"ip_allowed": False}, "IP地址"),
        ({"access_token": "gone"}, {}, "no robot with this access_token"),
    ],
)
async def test_every_refusal_names_the_setting_at_fault(
    sim: DingTalkSimulator, clock: ManualClock, settings: dict[str, str], robot_is: dict[str, object], named: str
) -> None:
    for name, value in robot_is.items():
        setattr(sim.robot, name, value)
    robot = a_robot(sim, clock, **settings)
    with pytest.raises(SendRefused, match=named):
        await robot.send(words())
    await robot.aclose()

    assert named in robot.health().reason
    assert not sim.shown


async def test_a_clock_that_is_wrong_is_named(sim: DingTalkSimulator, robot: DingTalkWebhookChannel, clock: ManualClock) -> None:
    sim.robot._now = lambda: clock.now().timestamp() + 4_000
    with pytest.raises(SendRefused, match="more than an hour off"):
        await robot.send(words())


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": {ROBOT: 500}}, SendLater),
        ({"status": {ROBOT: 504}}, SendUncertain),
        ({"html": [ROBOT]}, SendUncertain),
        ({"reset": [ROBOT]}, SendUncertain),
    ],
)
async def test_a_failure_says_whether_it_may_be_tried_again(
    sim: DingTalkSimulator, robot: DingTalkWebhookChannel, fault: dict[str, object], expected: type[SendError]
) -> None:
    for name, value in fault.items():
        setattr(sim.faults, name, value)
    with pytest.raises(expected):
        await robot.send(words())


async def test_twenty_go_at_once_twenty_wait_a_minute_and_the_next_is_sent_away(
    sim: DingTalkSimulator, robot: DingTalkWebhookChannel, clock: ManualClock
) -> None:
    sim.robot.minute_s = 0
    sending = [asyncio.create_task(robot.send(words(str(number)))) for number in range(41)]
    await sim.wait_for_shown(20)
    await asyncio.wait([sending[40]])
    refused = sending[40].exception()
    assert len(sim.shown) == 20
    assert isinstance(refused, SendLater)
    assert refused.retry_after_s > 0

    await clock.advance(60)
    await sim.wait_for_shown(40)
    await asyncio.gather(*sending[:40])

    assert sorted(int(shown.text) for shown in sim.shown) == list(range(40))


async def test_the_simulated_robot_never_refuses_what_is_sent_in_turn(sim: DingTalkSimulator) -> None:
    """With real time and a minute that lasts a fifth of a second for both sides."""
    clock = Quick()
    sim.robot._now = lambda: clock.now().timestamp()
    sim.robot.minute_s = 0.18
    robot = a_robot(sim, clock)
    await asyncio.gather(*(robot.send(words(str(number))) for number in range(40)))
    await robot.aclose()

    assert len(sim.shown) == 40


class Quick(SystemClock):
    """A clock on which sixty seconds last a fifth of one."""

    def monotonic(self) -> float:
        return super().monotonic() * 300

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 300)


async def test_a_robot_that_was_silenced_is_left_in_peace_for_ten_minutes(
    sim: DingTalkSimulator, robot: DingTalkWebhookChannel, clock: ManualClock
) -> None:
    sim.robot._blocked_until = float("inf")
    with pytest.raises(SendLater) as silenced:
        await robot.send(words())
    assert silenced.value.retry_after_s == 600
    sim.robot._blocked_until = 0.0
    with pytest.raises(SendLater):
        await robot.send(words())
    assert not sim.shown

    await clock.advance(600)
    await robot.send(words())

    assert len(sim.shown) == 1


async def test_nothing_is_heard_and_stopping_is_quick(robot: DingTalkWebhookChannel, clock: ManualClock) -> None:
    task = asyncio.create_task(robot.run(Book(clock).deliver))
    await asyncio.sleep(0)
    assert robot.health().ok
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_neither_token_nor_signature_reaches_the_log(
    robot: DingTalkWebhookChannel, sim: DingTalkSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await robot.send(words())

    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert not [line for line in ours if ACCESS_TOKEN in line or "sign=" in line or "磁盘" in line]
    assert ACCESS_TOKEN not in repr(robot)


async def test_the_checkup_sends_nothing(sim: DingTalkSimulator, robot: DingTalkWebhookChannel, clock: ManualClock) -> None:
    assert [finding.ok for finding in await robot.checkup()] == [True, True, True]
    strange = a_robot(sim, clock, secret="not a secret")
    assert "SEC" in (await strange.checkup())[1].repair
    sim.faults.reset = [ROBOT]
    assert "firewall" in (await robot.checkup())[2].repair
    await strange.aclose()

    assert not sim.shown


@pytest.mark.parametrize("settings", [{}, {"url": "https://oapi.dingtalk.com/robot/send"}, {"url": "oapi.dingtalk.com?access_token=x"}])
def test_a_robot_without_a_token_is_refused_at_the_start(clock: ManualClock, settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="url"):
        DingTalkWebhookChannel(name="alarm", clock=clock, **settings)
