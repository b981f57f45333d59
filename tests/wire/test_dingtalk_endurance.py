"""What DingTalk users call “the bot is dead after a night”, played against the simulator: nothing lost, nothing answered twice."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from dingtalk_desk import Book, a_channel, answer, listening, subjects, until

from gateway.channels.base import Admission, Admitted
from gateway.channels.dingtalk.channel import DingTalkChannel
from gateway.channels.dingtalk.openapi import OpenApi
from gateway.channels.dingtalk.quota import Quota
from gateway.channels.dingtalk.stream import OPENS_PER_MINUTE, Stream
from gateway.channels.dingtalk.wire import Wire
from gateway.clock import SystemClock
from gateway.messages import Inbound
from gateway.simulators.dingtalk import CLIENT_ID, CLIENT_SECRET, DingTalkSimulator
from gateway.simulators.dingtalk_faults import OPEN
from gateway.testing import ManualClock


@pytest.fixture
async def sim() -> AsyncIterator[DingTalkSimulator]:
    async with DingTalkSimulator().running() as sim:
        yield sim


class Desk(Book):
    """A ledger that several channels share, and a model that answers what it accepted, all at once, when it is told to."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.model = asyncio.Event()
        self.running: set[asyncio.Task[None]] = set()

    def at(self, channel: DingTalkChannel) -> DeskOf:
        return DeskOf(self, channel)


class DeskOf:
    def __init__(self, desk: Desk, channel: DingTalkChannel) -> None:
        self._desk, self._channel = desk, channel

    async def deliver(self, inbound: Inbound) -> Admitted:
        admitted = await self._desk.deliver(inbound)
        if admitted.admission is Admission.ACCEPTED:
            task = asyncio.create_task(self._answer(inbound))
            self._desk.running.add(task)
        return admitted

    async def _answer(self, inbound: Inbound) -> None:
        await self._desk.model.wait()
        await self._channel.send(answer(inbound, f"答：{inbound.text}"))


def answered(sim: DingTalkSimulator) -> list[str]:
    return sorted(shown.answers for shown in sim.shown)


async def test_a_disconnect_during_twenty_running_answers_loses_none_and_doubles_none(sim: DingTalkSimulator) -> None:
    sim.faults.ack_timeout_s = 0.2
    channel, desk = a_channel(sim, SystemClock()), Desk()
    async with listening(channel, desk.at(channel)):
        await sim.wait_for_log("connect")
        asked = [await sim.say(sender=f"人{number}", text=str(number)) for number in range(20)]
        await desk.wait_for(lambda: len(desk.heard) == 20)
        await sim.disconnect()
        sim.kill_sockets()
        await sim.wait_for_log("connect", 2)
        desk.model.set()
        await sim.wait_for_shown(20)
        await asyncio.gather(*desk.running)

    assert answered(sim) == sorted(asked)


async def test_an_acknowledgement_that_is_lost_costs_no_second_answer(sim: DingTalkSimulator) -> None:
    """DingTalk sends the message again after a minute (here a fifth of a second), maybe over another connection."""
    sim.faults.ack_timeout_s = 0.2
    sim.faults.pushes = 20
    channel, desk = a_channel(sim, SystemClock()), Desk()
    desk.model.set()
    desk.slow_s = 0.1
    async with listening(channel, desk.at(channel)):
        await sim.wait_for_log("connect")
        asked = await sim.say(text="别答两遍")
        await until(lambda: desk.asked == 1)
        sim.kill_sockets()
        await sim.wait_for_log("ack")
        await sim.wait_for_shown(1)

    assert answered(sim) == [asked]
    assert desk.admissions == [Admission.ACCEPTED, Admission.DUPLICATE]


async def test_the_acknowledgement_does_not_wait_for_the_model(sim: DingTalkSimulator) -> None:
    channel, desk = a_channel(sim, SystemClock()), Desk()
    async with listening(channel, desk.at(channel)):
        await sim.wait_for_log("connect")
        for number in range(50):
            await sim.say(sender=f"人{number}", text=str(number))
        await sim.wait_for_log("ack", 50)
        assert not sim.shown
        desk.model.set()
        await sim.wait_for_shown(50)

    assert len(set(subjects(sim, "push"))) == len(subjects(sim, "push")) == 50


async def test_two_channels_of_one_app_share_the_work_and_answer_each_message_once(sim: DingTalkSimulator) -> None:
    """As two processes on one store do: whichever connection gets a message, and gets it again."""
    sim.faults.duplicate_frames = True
    desk = Desk()
    desk.model.set()
    one, other = a_channel(sim, SystemClock()), a_channel(sim, SystemClock())
    async with listening(one, desk.at(one)), listening(other, desk.at(other)):
        await sim.wait_for_log("connect", 2)
        asked = [await sim.say(text=str(number)) for number in range(30)]
        await sim.wait_for_shown(30)
        await asyncio.gather(*desk.running)

    assert answered(sim) == sorted(asked)
    assert len({sim.acks[sim.frames[message]].connection for message in asked}) == 2


async def test_two_bots_that_are_called_by_one_message_both_answer(sim: DingTalkSimulator) -> None:
    desk = Desk()
    desk.model.set()
    async with DingTalkSimulator(client_id="dingsimulated0002").running() as other_sim:
        one, other = a_channel(sim, SystemClock()), a_channel(other_sim, SystemClock(), client_id="dingsimulated0002")
        async with listening(one, desk.at(one)), listening(other, desk.at(other)):
            for platform in (sim, other_sim):
                await platform.wait_for_log("connect")
                await platform.say(text="你俩好", group="测试群", msg_id="msgSame")
                await platform.wait_for_shown(1)

        assert answered(sim) == answered(other_sim) == ["msgSame"]


async def test_half_an_hour_of_503_is_no_storm(sim: DingTalkSimulator) -> None:
    clock, book = ManualClock(), Book(ManualClock())
    sim.faults.open_failures = 10_000
    opens: list[float] = []
    async with listening(a_channel(sim, clock), book):
        while clock.monotonic() < 1_800:
            await clock.advance(5)
            await asyncio.sleep(0.001)
            opens += [clock.monotonic()] * (sim.opens() - len(opens))

    assert len(opens) <= 80
    assert all(later - first >= 60 for first, later in zip(opens, opens[OPENS_PER_MINUTE:], strict=False))


async def test_a_gateway_that_hangs_while_everybody_talks_delays_and_loses_nothing(sim: DingTalkSimulator) -> None:
    sim.faults.ack_timeout_s = 0.2
    sim.faults.pushes = 20
    channel, desk = a_channel(sim, SystemClock()), Desk()
    desk.model.set()
    async with listening(channel, desk.at(channel)):
        await sim.wait_for_log("connect")
        sim.faults.hang = {OPEN: 0.5}
        sim.kill_sockets()
        asked = [await sim.say(sender=f"人{number}", text=str(number)) for number in range(20)]
        await sim.wait_for_shown(20)
        await asyncio.gather(*desk.running)

    assert answered(sim) == sorted(asked)


@asynccontextmanager
async def frozen_wire(sim: DingTalkSimulator) -> AsyncIterator[asyncio.Event]:
    """Stands between the socket and the simulator; from `set()` on not a byte passes, and nobody is told: a pulled plug."""
    host, port = urlsplit(sim.base_url).hostname, urlsplit(sim.base_url).port
    frozen = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if frozen.is_set():
                return
            writer.write(data)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, port)
        writers.extend((writer, there_writer))
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    direct, sim.base_url = sim.base_url, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield frozen
    finally:
        sim.base_url = direct
        for writer in writers:
            writer.close()
        server.close()
        await asyncio.sleep(0.01)


async def test_a_plug_that_was_pulled_is_noticed_by_pings(sim: DingTalkSimulator) -> None:
    clock, direct = SystemClock(), sim.base_url
    wire = Wire(bases=(direct,), clock=clock, timeout_s=5)
    quota = Quota(client_id=CLIENT_ID, clock=clock)
    api = OpenApi(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, openapi_base=direct, wire=wire, quota=quota, clock=clock)
    stream = Stream(name="dingtalk", api=api, clock=clock, ping_s=0.1, jitter=lambda: 0.0)

    async with frozen_wire(sim) as frozen:
        task = asyncio.create_task(stream.run(lambda frame: asyncio.sleep(0)))
        await until(lambda: stream.health().ok)
        frozen.set()
        sim.base_url = direct
        await sim.wait_for_log("connect", 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await wire.aclose()


ECHO = """
import asyncio, sys
from gateway.channels.base import Admission, Admitted
from gateway.channels.dingtalk.channel import DingTalkChannel
from gateway.clock import SystemClock
from gateway.messages import Outbound

base = sys.argv[1]
channel = DingTalkChannel(
    name="dingtalk", client_id=sys.argv[2], client_secret=sys.argv[3], clock=SystemClock(), openapi_base=base, oapi_base=base
)
seen, running = set(), set()

async def answer(inbound):
    await asyncio.sleep(0.05)
    await channel.send(Outbound(key="k", address=inbound.address, text=inbound.text, ticket=inbound.ticket))

async def deliver(inbound):
    if inbound.id not in seen:
        seen.add(inbound.id)
        running.add(asyncio.create_task(answer(inbound)))
    return Admitted(Admission.ACCEPTED)

asyncio.run(channel.run(deliver))
"""


@asynccontextmanager
async def processes(sim: DingTalkSimulator, count: int) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", ECHO, sim.base_url, CLIENT_ID, CLIENT_SECRET, env={**os.environ, "PYTHONPATH": os.getcwd()}
        )
        for _ in range(count)
    ]
    try:
        yield started
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def test_three_processes_of_one_app_answer_everything_once_and_the_death_of_one_loses_nothing_new(sim: DingTalkSimulator) -> None:
    async with processes(sim, 3) as started:
        await sim.wait_for_log("connect", 3, timeout_s=30)
        asked = [await sim.say(sender=f"人{number}", text=str(number)) for number in range(60)]
        await sim.wait_for_shown(60, timeout_s=30)
        assert len({sim.acks[sim.frames[message]].connection for message in asked}) == 3

        started[0].kill()
        await sim.wait_for_log("close")
        asked += [await sim.say(sender=f"人{number}", text=str(number)) for number in range(60)]
        await sim.wait_for_shown(120, timeout_s=30)

    assert answered(sim) == sorted(asked)
