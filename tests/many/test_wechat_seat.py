"""A personal WeChat account and two gateways: exactly one holds it, and the other takes it over without a new QR code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.channels.base import Admission, Admitted
from gateway.channels.seat import Seat
from gateway.channels.wechat.channel import ELSEWHERE, WeChatChannel
from gateway.channels.wechat.itchat_door import ItchatDoor
from gateway.channels.wechat.itchat_transport import ItchatTransport
from gateway.channels.wechat.login_state import ShelfLogins
from gateway.channels.wechat.sign_in import SignIn
from gateway.clock import SystemClock
from gateway.errors import SendLater
from gateway.messages import Inbound, Outbound
from gateway.simulators.wechat_web import WeChatWebFaults, WeChatWebSimulator
from gateway.stores.memory import MemoryStore
from gateway.testing import ManualClock
from gateway.testing.bulletin import SharedBoard, SharedSeats

LEASE_S = 0.6


class Process:
    """One gateway with the account's channel."""

    def __init__(self, town: Town, name: str) -> None:
        self.seats: SharedSeats = town.board.seats()
        self.heard: list[str] = []
        self.inbounds: list[Inbound] = []
        self.screen: list[str] = []
        clock = SystemClock()
        png = town.folder / f"{name}.png"
        transport = ItchatTransport(
            channel="wechat",
            clock=clock,
            sign_in=SignIn(clock=clock, png_path=png, show=self.screen.append, poll_pause_s=0.02, scanned_pause_s=0.02),
            state_file=town.folder / "unused.json",
            logins=ShelfLogins(channel="wechat", shelf=town.store.shelf, clock=clock),
            base_url=town.platform.base_url,
            door=ItchatDoor(base_url=town.platform.base_url),
            first_pause_s=0.02,
        )
        seat = Seat(name="wechat/wechat", seats=self.seats, clock=clock, look_s=0.05)
        self.channel = WeChatChannel(name="wechat", transport=transport, seat=seat)
        self.task = asyncio.create_task(self.channel.run(self._deliver))
        self._town = town

    async def _deliver(self, inbound: Inbound) -> Admitted:
        self.inbounds.append(inbound)
        self.heard.append(inbound.text)
        new = inbound.id not in self._town.ledger
        self._town.ledger[inbound.id] = inbound.text
        return Admitted(Admission.ACCEPTED if new else Admission.DUPLICATE)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.channel.aclose()

    async def answer(self, inbound: Inbound, text: str) -> None:
        await self.channel.send(Outbound(key=inbound.id, address=inbound.address, text=text, ticket=inbound.ticket))

    @property
    def hears(self) -> bool:
        health = self.channel.health()
        return health.ok and not health.reason


class Town:
    """What lies between the processes, and the platform."""

    def __init__(self, platform: WeChatWebSimulator, folder: Path, lease_s: float = LEASE_S) -> None:
        self.platform = platform
        self.folder = folder
        self.store = MemoryStore()
        self.board = SharedBoard(SystemClock(), lease_s=lease_s)
        self.ledger: dict[str, str] = {}
        self.processes: list[Process] = []

    async def start(self) -> Process:
        process = Process(self, f"p{len(self.processes)}")
        self.processes.append(process)
        return process

    async def until_hears(self, process: Process) -> None:
        async with asyncio.timeout(10):
            while not process.hears:  # noqa: ASYNC110  # what it waits for happens in the channel, which tells nobody
                await asyncio.sleep(0.01)

    async def until_known(self, text: str) -> None:
        async with asyncio.timeout(10):
            while text not in self.ledger.values():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    faults = WeChatWebFaults(hold_s=0.2, polls_until_scanned=1, polls_until_confirmed=1)
    platform = WeChatWebSimulator(groups={}, faults=faults)
    async with platform.running():
        town = Town(platform, tmp_path)
        yield town
        for process in town.processes:
            process.seats.cut_off = False
            await process.stop()


async def test_exactly_one_process_signs_in_and_hears(town: Town) -> None:
    one = await town.start()
    await town.until_hears(one)
    other = await town.start()
    await asyncio.sleep(LEASE_S * 1.5)  # longer than a lease that nobody renews

    await town.platform.say(sender="小明", text="你好")
    await town.until_known("你好")

    assert (one.heard, other.heard) == (["你好"], [])
    assert other.screen == []
    assert (other.channel.health().ok, other.channel.health().reason) == (True, ELSEWHERE)
    assert (one.channel.can_show(), other.channel.can_show()) == (True, False)


async def test_the_account_of_a_dead_process_is_taken_over_with_its_login_and_what_was_said_meanwhile(town: Town) -> None:
    one = await town.start()
    await town.until_hears(one)
    other = await town.start()
    await town.platform.say(sender="小明", text="之前")
    await town.until_known("之前")

    one.seats.cut_off = True
    one.task.cancel()  # dead: it neither renews nor leaves
    await town.platform.say(sender="小明", text="其间")
    await town.until_hears(other)
    await town.until_known("其间")

    assert other.screen == []  # no new QR code
    assert other.heard == ["其间"]
    await other.answer(other.inbounds[0], "接手了")
    [shown] = await town.platform.wait_for_shown(1)
    assert shown.text == "接手了"


async def test_a_process_that_stops_in_order_makes_room_at_once(tmp_path: Path, town: Town) -> None:
    town.board.lease_s = 60
    one = await town.start()
    await town.until_hears(one)
    other = await town.start()

    await one.stop()

    await town.until_hears(other)
    assert other.screen == []


async def test_a_process_that_loses_the_store_neither_hears_nor_speaks_until_it_sits_again(town: Town) -> None:
    one = await town.start()
    await town.until_hears(one)
    await town.platform.say(sender="小明", text="之前")
    await town.until_known("之前")

    one.seats.cut_off = True
    async with asyncio.timeout(5):
        while one.channel.can_show():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    with pytest.raises(SendLater):
        await one.answer(one.inbounds[0], "太晚")
    await town.platform.say(sender="小明", text="断线时")
    await asyncio.sleep(0.5)
    assert one.heard == ["之前"]

    one.seats.cut_off = False
    await town.until_known("断线时")
    await one.answer(one.inbounds[0], "回来了")


async def test_a_process_that_slept_through_its_lease_knows_so_before_its_first_word() -> None:
    clock = ManualClock()
    board = SharedBoard(clock, lease_s=10)
    seat = Seat(name="wechat/w", seats=board.seats(), clock=clock)
    await seat.sit()
    assert seat.held

    clock._elapsed += 9  # the machine was suspended: nobody was woken

    assert not seat.held
    await seat.leave()


async def test_a_seat_is_kept_through_a_short_outage_of_the_store() -> None:
    clock = ManualClock()
    board = SharedBoard(clock, lease_s=10)
    seat, rival = (Seat(name="wechat/w", seats=board.seats(), clock=clock) for _ in range(2))
    await seat.sit()
    waiting = asyncio.create_task(rival.sit())
    board.down = True
    await clock.advance(5)
    board.down = False
    await clock.advance(60)

    assert seat.held
    assert not waiting.done()

    await seat.leave()
    await clock.advance(1)
    assert rival.held
    await waiting
    await rival.leave()
