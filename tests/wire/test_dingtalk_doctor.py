"""What `gateway doctor` says about a DingTalk app: each cause provoked, and named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from dingtalk_desk import a_channel

from gateway.channels.http_face import HttpFace
from gateway.checkup import Finding
from gateway.clock import SystemClock
from gateway.errors import SendRefused
from gateway.messages import Address, Outbound
from gateway.simulators.dingtalk import CLIENT_ID, DingTalkSimulator
from gateway.simulators.dingtalk_faults import OPEN, QUERY, TO_PERSON, TOKEN
from gateway.stores.memory import MemoryStore
from gateway.testing import ManualClock


@pytest.fixture
async def sim() -> AsyncIterator[DingTalkSimulator]:
    async with DingTalkSimulator().running() as sim:
        yield sim


async def checked(sim: DingTalkSimulator, **settings: object) -> list[Finding]:
    channel = a_channel(sim, SystemClock(), **settings)
    try:
        return await channel.checkup()
    finally:
        await channel.aclose()


def repairs(findings: list[Finding]) -> str:
    assert all(finding.ok == (not finding.repair) for finding in findings)
    return "\n".join(finding.repair for finding in findings if not finding.ok)


async def test_a_healthy_app_has_nothing_to_repair_and_no_connection_is_opened(sim: DingTalkSimulator) -> None:
    findings = await checked(sim)

    assert [finding.ok for finding in findings] == [True] * 5
    assert sim.connections == 0
    assert sim.openapi.calls == {QUERY: 1}
    assert not sim.shown


async def test_in_http_mode_no_stream_connection_is_asked_for(sim: DingTalkSimulator) -> None:
    sim.faults.no_stream = True

    assert repairs(await checked(sim, face=HttpFace())) == ""


@pytest.mark.parametrize(
    ("fault", "named", "not_named"),
    [
        ({"unpublished": True}, ["版本管理与发布"], ["Stream 模式", "client_secret"]),
        ({"no_stream": True}, ["Stream 模式", 'mode to "http"'], ["版本管理与发布"]),
        ({"ip_refused": [TOKEN, OPEN, QUERY]}, ["服务器出口IP"], ["Stream 模式"]),
        ({"ip_refused": [OPEN, QUERY]}, ["服务器出口IP"], ["Stream 模式"]),
        ({"ip_refused": [QUERY]}, ["服务器出口IP"], []),
        ({"no_scope": True}, ["qyapi_robot_sendmsg"], ["Stream 模式"]),
        ({"calls_left": 0}, ["资源管理"], ["Stream 模式"]),
        ({"clock_skew_s": 3_700.0}, ["behind", "NTP"], ["Stream 模式"]),
        ({"clock_skew_s": -3_700.0}, ["ahead", "NTP"], []),
        ({"status": {TOKEN: 500, OPEN: 500}}, ["firewall"], ["Stream 模式"]),
        ({"reset": [QUERY]}, ["firewall"], []),
    ],
)
async def test_each_cause_is_named(sim: DingTalkSimulator, fault: dict[str, object], named: list[str], not_named: list[str]) -> None:
    for name, value in fault.items():
        setattr(sim.faults, name, value)

    told = repairs(await checked(sim))

    assert [word for word in named if word not in told] == []
    assert [word for word in not_named if word in told] == []


async def test_a_wrong_secret_is_named_and_never_shown(sim: DingTalkSimulator) -> None:
    told = repairs(await checked(sim, client_secret="mistyped-secret"))

    assert "client_secret is wrong" in told
    assert "凭证与基础信息" in told
    assert "mistyped-secret" not in told
    assert not sim.openapi.calls


async def test_a_clock_that_is_wrong_does_not_hide_a_wrong_secret(sim: DingTalkSimulator) -> None:
    sim.faults.clock_skew_s = 4_000
    told = repairs(await checked(sim, client_secret="mistyped-secret"))

    assert "client_secret is wrong" in told
    assert "NTP" in told


async def test_a_group_without_the_bot_is_remembered_for_the_doctor(sim: DingTalkSimulator) -> None:
    store = MemoryStore()
    group = Address(channel="dingtalk", account=CLIENT_ID, chat=sim.people.conversation("告警群"), sender="manager01", in_group=True)
    running = a_channel(sim, SystemClock(), shelf=store.shelf)
    sim.faults.not_in_groups = ["告警群"]
    with pytest.raises(SendRefused):
        await running.send(Outbound(key="k", address=group, text="磁盘满了"))
    await running.aclose()

    told = repairs(await checked(sim, shelf=store.shelf))

    assert "not in this group" in told
    assert group.chat in told
    assert "磁盘满了" not in told


async def test_the_budget_is_told_with_a_forecast(sim: DingTalkSimulator) -> None:
    store, clock = MemoryStore(), ManualClock()
    await clock.advance(timedelta(days=10).total_seconds())
    sim.openapi._now = lambda: clock.now().timestamp()
    staff_id = sim.people.staff("张三")
    person = Address(channel="dingtalk", account=CLIENT_ID, chat=staff_id, sender=staff_id)
    channel = a_channel(sim, clock, shelf=store.shelf, monthly_calls=10)

    async def spend(calls: int) -> Finding:
        for _ in range(calls):
            await clock.advance(1)
            await channel.send(Outbound(key="k", address=person, text="1"))
        return (await channel.checkup())[-1]

    little, much, all_of_it = await spend(2), await spend(6), await spend(2)
    await channel.aclose()

    assert (little.ok, little.what) == (True, "API calls this month: 2 of 10, about 4 by its end")
    assert "will not last" in much.repair
    assert "spent" in all_of_it.repair
    assert sim.openapi.calls[TO_PERSON] == 10


async def test_a_store_that_cannot_be_read_is_a_finding(sim: DingTalkSimulator) -> None:
    store = MemoryStore()
    await store.aclose()

    assert "closed" in repairs(await checked(sim, shelf=store.shelf))
