"""Our iLink channel against the simulator of Tencent's bot API, over real sockets: the main path, several people, restarts."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.channels.base import Admission, Admitted
from gateway.channels.wechat.ilink_channel import ILinkChannel
from gateway.channels.wechat.ilink_person import PersonState
from gateway.channels.wechat.ilink_transport import ILinkTransport
from gateway.clock import Clock, SystemClock
from gateway.errors import SendRefused, StoreUnavailable, TicketExpired
from gateway.messages import Address, Inbound, Outbound, Quote
from gateway.simulators import ilink_faults as at
from gateway.simulators.ilink import ILinkSimulator
from gateway.simulators.ilink_faults import ILinkFaults


class Ear:
    """Takes what the channel hears, like a ledger: known keys are duplicates. `full` makes it refuse."""

    def __init__(self) -> None:
        self.heard: list[Inbound] = []
        self.deliveries = 0
        self.full = False
        self._changed = asyncio.Condition()

    async def deliver(self, inbound: Inbound) -> Admitted:
        async with self._changed:
            self.deliveries += 1
            self._changed.notify_all()
            if self.full:
                raise StoreUnavailable("disk full")
            if inbound.key in [known.key for known in self.heard]:
                return Admitted(Admission.DUPLICATE)
            self.heard.append(inbound)
            return Admitted(Admission.ACCEPTED)

    async def hears(self, count: int) -> list[Inbound]:
        await self.until(lambda: len(self.heard) >= count)
        return self.heard

    async def until(self, satisfied: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(satisfied)

    @property
    def texts(self) -> list[str]:
        return [inbound.text for inbound in self.heard]


class House:
    """A channel that runs, with everything around it."""

    def __init__(self, simulator: ILinkSimulator, folder: Path, *, clock: Clock | None = None, ear: Ear | None = None, **settings: object):
        self.folder = folder / "ilink"
        self.screen: list[str] = []
        self.transport = ILinkTransport(
            channel="wechat",
            clock=clock or SystemClock(),
            folder=self.folder,
            base_url=simulator.base_url,
            cdn_base_url=simulator.cdn_base_url,
            show=self.screen.append,
            pause_s=0.02,
            watch_s=0.05,
            **settings,  # type: ignore[arg-type]
        )
        self.channel = ILinkChannel(name="wechat", transport=self.transport)
        self.ear = ear or Ear()

    async def answer(self, inbound: Inbound, text: str, *, number: int = 0, more: bool = False) -> str:
        key = f"{inbound.key.message}/{number}"
        out = Outbound(key=key, address=inbound.address, text=text, ticket=inbound.ticket, more=more)
        return (await self.channel.send(out)).message_id

    async def healthy(self) -> None:
        await self.until(lambda: self.channel.health().ok)

    async def until(self, satisfied: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not satisfied():  # noqa: ASYNC110  # what it waits for happens in the channel, which tells nobody
                await asyncio.sleep(0.01)

    @property
    def saved(self) -> list[dict[str, object]]:
        return [json.loads(path.read_text())["login"] for path in sorted(self.folder.glob("*.json"))]


@asynccontextmanager
async def living(simulator: ILinkSimulator, folder: Path, **settings: object) -> AsyncIterator[House]:
    house = House(simulator, folder, **settings)  # type: ignore[arg-type]
    task = asyncio.create_task(house.channel.run(house.ear.deliver), name="channel")
    try:
        yield house
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await house.channel.aclose()


@pytest.fixture
async def simulator() -> AsyncIterator[ILinkSimulator]:
    simulator = ILinkSimulator(faults=ILinkFaults(hold_s=0.5))
    async with simulator.running():
        yield simulator


# The main path


async def test_a_message_is_heard_and_its_answer_is_shown(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        message = await simulator.say(sender="小明", text="你好 <b>\n第二行 😀")
        [inbound] = await house.ear.hears(1)
        receipt = await house.answer(inbound, "好的 😀\n1 < 2")
        [shown] = await simulator.wait_for_shown(1)

    person = simulator.bots.of("小明")
    assert person is not None
    assert inbound.id == message
    assert int(message) > 2**53
    assert inbound.text == "你好 <b>\n第二行 😀"
    assert inbound.address == Address(channel="wechat", account=person.user_id, chat=person.user_id, sender=person.user_id)
    assert (shown.chat, shown.text, shown.answers) == ("小明", "好的 😀\n1 < 2", message)
    assert int(receipt) > int(message)


async def test_a_voice_message_is_read_by_wechats_own_transcript(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", kind=3, item={"text": "明天几点开会", "playtime": 2100})
        await simulator.say(sender="小明", kind=3, item={"playtime": 2100})
        await simulator.say(sender="小明", kind=2, item={"media": {}})
        spoken, mute, picture = await house.ear.hears(3)

    assert (spoken.text, mute.text, picture.text) == ("明天几点开会", "", "")
    assert (spoken.unsupported, mute.unsupported, picture.unsupported) == (None, "voice", "image")


async def test_a_quote_by_id_gets_its_words_from_memory(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="问题")
        [question] = await house.ear.hears(1)
        receipt = await house.answer(question, "我们的回答")
        await simulator.say(sender="小明", text="为什么？", quote={"svr_id": int(receipt)})
        _, reply = await house.ear.hears(2)

    assert reply.quote == Quote("我们的回答")
    assert reply.text == "为什么？"


async def test_messages_of_one_person_stay_in_order(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        for number in range(30):
            await simulator.say(sender="小明", text=str(number))
        await house.ear.hears(30)

    assert house.ear.texts == [str(number) for number in range(30)]


async def test_every_request_is_what_the_protocol_asks_for(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="你好")
        [inbound] = await house.ear.hears(1)
        await house.answer(inbound, "好")

    [sent] = simulator.calls(at.SEND)
    message = sent["msg"]
    assert len(message["item_list"]) == 1
    assert (message["message_type"], message["message_state"], message["from_user_id"]) == (2, 2, "")
    assert message["context_token"] == inbound.ticket.token["context_token"]
    assert simulator.calls(at.NOTIFY_START)
    assert simulator.calls(at.NOTIFY_STOP)


async def test_the_person_sees_that_an_answer_is_made_until_it_comes(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="你好")
        [inbound] = await house.ear.hears(1)
        bot = simulator.bots.of("小明")
        assert bot is not None
        await house.until(lambda: bot.typing == [1])
        tasks = [task for task in asyncio.all_tasks() if task.get_name() == "wechat ilink typing"]
        await house.answer(inbound, "好")
        await house.until(lambda: all(task.done() for task in tasks))

    assert bot.typing == [1]


async def test_without_typing_nothing_is_asked_for(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path, typing=False) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="你好")
        await house.ear.hears(1)

    assert not simulator.calls(at.CONFIG)


async def test_a_failing_typing_indicator_hinders_nothing(simulator: ILinkSimulator, tmp_path: Path) -> None:
    simulator.faults.status[at.CONFIG] = [500]
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="你好")
        [inbound] = await house.ear.hears(1)
        await house.answer(inbound, "好")

    assert [shown.text for shown in simulator.shown] == ["好"]


# Windows


async def test_the_tenth_message_says_that_more_waits_and_the_rest_is_parked(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="讲个长故事")
        [inbound] = await house.ear.hears(1)
        for number in range(9):
            await house.answer(inbound, f"第{number}段", number=number)
        for number in (9, 10):
            with pytest.raises(TicketExpired):
                await house.answer(inbound, f"第{number}段", number=number)

        await simulator.say(sender="小明", text="继续")
        _, fetch = await house.ear.hears(2)
        await house.answer(fetch, "第9段", more=True)

    assert [shown.text for shown in simulator.shown] == [
        *(f"第{number}段" for number in range(9)),
        "（未完，回复“继续”）",
        "第9段\n（未完，回复“继续”）",
    ]


async def test_the_newest_permission_is_used_for_an_older_question(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="一")
        newest = await simulator.say(sender="小明", text="二")
        first, _ = await house.ear.hears(2)
        await house.answer(first, "答一")

    assert [(shown.text, shown.answers) for shown in simulator.shown] == [("答一", newest)]


async def test_after_a_day_nothing_is_sent_any_more(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="昨天的问题", older_s=23 * 3600 + 5)
        [inbound] = await house.ear.hears(1)
        with pytest.raises(TicketExpired, match="23 hours"):
            await house.answer(inbound, "太晚了")

    assert not simulator.calls(at.SEND)


async def test_without_a_permission_nothing_is_sent(simulator: ILinkSimulator, tmp_path: Path) -> None:
    simulator.faults.without_token = True
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="你好")
        [inbound] = await house.ear.hears(1)
        with pytest.raises(TicketExpired, match="no permission"):
            await house.answer(inbound, "好")

    assert not simulator.calls(at.SEND)


async def test_pieces_are_short_enough_for_the_phone(simulator: ILinkSimulator, tmp_path: Path) -> None:
    house = House(simulator, tmp_path)
    assert house.channel.limits.max_bytes <= 1_800 * 4
    assert house.channel.limits.parks
    await house.channel.aclose()


# Restarts


async def test_a_restart_needs_no_new_scan_and_hears_what_came_meanwhile(simulator: ILinkSimulator, tmp_path: Path) -> None:
    ear = Ear()
    async with living(simulator, tmp_path, ear=ear) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="一")
        await ear.hears(1)
    await simulator.say(sender="小明", text="二")
    async with living(simulator, tmp_path, ear=ear) as again:
        await ear.hears(2)
        await again.answer(ear.heard[0], "答一")

    assert ear.texts == ["一", "二"]
    assert not again.screen
    assert len(simulator.calls(at.QR)) == 1


async def test_the_cursor_moves_only_when_the_ledger_has_the_batch(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        house.ear.full = True
        await simulator.say(sender="小明", text="一")
        await house.ear.until(lambda: house.ear.deliveries >= 2)
        assert "store" in house.channel.health().reason
        [saved] = house.saved
        assert not saved["cursor"] or not house.ear.heard
        before = saved["cursor"]
    # the gateway is killed here, with nothing in its ledger
    async with living(simulator, tmp_path) as again:
        await again.ear.hears(1)
        await again.until(lambda: again.saved[0]["cursor"] != before)

    assert again.ear.texts == ["一"]


async def test_a_lost_window_is_found_again_in_the_message(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="一")
        [inbound] = await house.ear.hears(1)
        await house.until(lambda: bool(house.saved[0]["windows"]))
    [path] = house.folder.glob("*.json")
    saved = json.loads(path.read_text())
    saved["login"]["windows"] = {}
    path.write_text(json.dumps(saved))
    async with living(simulator, tmp_path) as again:
        await again.healthy()
        await again.answer(inbound, "答一")

    assert [shown.text for shown in simulator.shown] == ["答一"]


async def test_the_state_is_for_our_eyes_only(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        [path] = house.folder.glob("*.json")
        rights = stat.S_IMODE(path.stat().st_mode)

    assert rights == 0o600
    assert not (house.folder / "qr.png").exists()


@pytest.mark.parametrize("damage", ["", "{", '{"version": 1}', "[]"])
async def test_damaged_state_asks_for_a_new_scan(simulator: ILinkSimulator, tmp_path: Path, damage: str) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        [path] = house.folder.glob("*.json")
    path.write_text(damage)
    async with living(simulator, tmp_path) as again:
        await again.healthy()

    assert len(simulator.calls(at.QR)) == 2


async def test_who_stops_hearing_and_begins_again_hears_on(simulator: ILinkSimulator, tmp_path: Path) -> None:
    simulator.sign_in("小明")
    again = House(simulator, tmp_path)
    for number in range(2):
        hearing = asyncio.create_task(again.channel.run(again.ear.deliver), name="channel")
        await simulator.say(sender="小明", text=str(number))
        await again.ear.hears(number + 1)
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
    await again.channel.aclose()


# Several people


async def test_each_person_has_a_bot_of_their_own(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        simulator.faults.scanner = "小丽"
        told = await house.channel.sign_in()
        await house.until(lambda: len(house.transport.states) == 2 and house.channel.health().ok)
        await simulator.say(sender="小明", text="我是小明")
        await simulator.say(sender="小丽", text="我是小丽")
        for inbound in await house.ear.hears(2):
            await house.answer(inbound, f"你好，{inbound.text}")

    assert "bound" in told
    assert sorted((shown.chat, shown.text) for shown in simulator.shown) == [("小丽", "你好，我是小丽"), ("小明", "你好，我是小明")]
    accounts = {inbound.address.account for inbound in house.ear.heard}
    assert len(accounts) == 2


async def test_who_signs_in_from_another_process_is_heard_without_a_restart(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        simulator.faults.scanner = "小丽"
        command = House(simulator, tmp_path)
        await command.channel.sign_in()
        await command.channel.aclose()
        await house.until(lambda: len(house.transport.states) == 2 and house.channel.health().ok)
        await simulator.say(sender="小丽", text="在吗")
        await house.ear.hears(1)


async def test_one_persons_lost_sign_in_leaves_the_others_alone(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        simulator.faults.scanner = "小丽"
        await house.channel.sign_in()
        await house.until(lambda: len(house.transport.states) == 2 and house.channel.health().ok)
        simulator.expire("小丽")
        await house.until(lambda: PersonState.NEEDS_LOGIN in house.transport.states.values())
        await simulator.say(sender="小明", text="还在吗")
        [inbound] = await house.ear.hears(1)
        await house.answer(inbound, "在")
        health = house.channel.health()
        findings = await house.channel.checkup()

    assert not health.ok
    assert "1 of 2 people" in health.reason
    assert [finding.ok for finding in findings] == [True, False]


async def test_a_stranger_is_not_written_to(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        stranger = Address(channel="wechat", account="x", chat="x", sender="x")
        with pytest.raises(SendRefused):
            await house.channel.send(Outbound(key="k", address=stranger, text="hello"))
