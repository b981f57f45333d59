"""DingTalk in HTTP mode: the same bot, heard by callback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from dingtalk_desk import Book, a_channel, answer, subjects, until
from dingtalk_desk import listening as channel_listening

from gateway.channels.base import Admission
from gateway.channels.dingtalk.channel import DingTalkChannel
from gateway.channels.http_face import HttpFace, listening
from gateway.clock import SystemClock
from gateway.errors import ConfigError
from gateway.simulators.dingtalk import CLIENT_SECRET, DingTalkSimulator
from gateway.simulators.dingtalk_callback import caller, post_callback, sign

PATH = "/dingtalk/dingtalk"


@pytest.fixture
async def sim() -> AsyncIterator[DingTalkSimulator]:
    async with DingTalkSimulator().running() as sim:
        sim.faults.ack_timeout_s = 0.05
        yield sim


@pytest.fixture
def book() -> Book:
    return Book(SystemClock())


@asynccontextmanager
async def called_back(sim: DingTalkSimulator, book: Book) -> AsyncIterator[DingTalkChannel]:
    """A channel in HTTP mode that the simulator posts to."""
    face = HttpFace()
    channel = a_channel(sim, SystemClock(), face=face)
    async with listening(face) as port, channel_listening(channel, book):
        sim.faults.callback_url = f"http://127.0.0.1:{port}{PATH}"
        await until(lambda: bool(face.paths))
        yield channel


async def test_a_message_comes_by_callback_and_is_answered_through_its_session(sim: DingTalkSimulator, book: Book) -> None:
    async with called_back(sim, book) as channel:
        asked = await sim.say(sender="张三", group="测试群", text="今天天气?")
        inbound = await book.next()
        await channel.send(answer(inbound, "晴"))
        await sim.wait_for_log("callback")
        assert channel.health().ok

    assert (inbound.id, inbound.text) == (asked, "今天天气?")
    assert (sim.shown[0].answers, sim.shown[0].notified) == (asked, ("张三",))
    assert subjects(sim, "callback") == ["200"]
    assert sim.opens() == 0


async def test_what_the_ledger_cannot_write_is_told_503_and_taken_when_it_comes_again(sim: DingTalkSimulator, book: Book) -> None:
    book.broken = True
    async with called_back(sim, book):
        await sim.say(text="别丢")
        await sim.wait_for_log("callback")
        book.broken = False
        await sim.wait_for_log("callback", 2)

    assert subjects(sim, "callback") == ["503", "200"]
    assert [inbound.text for inbound in book.heard] == ["别丢"]


async def test_a_callback_that_is_replayed_is_heard_once(sim: DingTalkSimulator, book: Book) -> None:
    async with called_back(sim, book):
        for _ in range(3):
            await sim.say(text="一次就好", msg_id="msgA")
        await sim.wait_for_log("callback", 3)

    assert len(book.heard) == 1
    assert book.admissions == [Admission.ACCEPTED, Admission.DUPLICATE, Admission.DUPLICATE]


@pytest.mark.parametrize(
    "fault",
    [{"callback_secret": "mistyped"}, {"callback_secret": ""}, {"callback_skew_s": 3_700.0}, {"callback_skew_s": -3_700.0}],
)
async def test_what_is_not_signed_now_and_with_our_secret_is_refused(
    sim: DingTalkSimulator, book: Book, fault: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    sim.faults.pushes = 1
    for name, value in fault.items():
        setattr(sim.faults, name, value)
    async with called_back(sim, book):
        await sim.say(text="放我进去")
        await sim.wait_for_log("callback")

    assert subjects(sim, "callback") == ["403"]
    assert book.asked == 0
    assert any("refused a callback" in line and "放我进去" not in line for line in caplog.messages)


@pytest.mark.parametrize("skew_s", [-3_500.0, 3_500.0])
async def test_a_clock_that_is_less_than_an_hour_off_does_no_harm(sim: DingTalkSimulator, book: Book, skew_s: float) -> None:
    sim.faults.callback_skew_s = skew_s
    async with called_back(sim, book):
        await sim.say(text="晚了点")
        await book.next()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"timestamp": "", "sign": ""},
        {"timestamp": "now", "sign": sign("now", CLIENT_SECRET)},
        {"timestamp": "٣", "sign": sign("٣", CLIENT_SECRET)},
        {"timestamp": "9" * 400, "sign": sign("9" * 400, CLIENT_SECRET)},
        {"timestamp": "-1", "sign": sign("-1", CLIENT_SECRET)},
    ],
)
async def test_strange_headers_are_refused(sim: DingTalkSimulator, book: Book, headers: dict[str, str]) -> None:
    raw = {name: value.encode() for name, value in headers.items()}
    async with called_back(sim, book), httpx2.AsyncClient(trust_env=False) as http:
        response = await http.post(sim.faults.callback_url, content=b"{}", headers=raw)

    assert response.status_code == 403


@pytest.mark.parametrize("data", ["", "no JSON", "[]", "null", "{}", '{"msgId": "m"}', "[" * 50_000])
async def test_what_cannot_be_read_is_taken_so_that_it_does_not_come_again(sim: DingTalkSimulator, book: Book, data: str) -> None:
    async with called_back(sim, book), caller() as http:
        status = await post_callback(http, sim.faults.callback_url, data, secret=CLIENT_SECRET, at=SystemClock().now().timestamp())

    assert status == 200
    assert book.asked == 0


async def test_a_body_that_is_too_long_is_refused(sim: DingTalkSimulator, book: Book) -> None:
    async with called_back(sim, book), caller() as http:
        now = SystemClock().now().timestamp()
        status = await post_callback(http, sim.faults.callback_url, "x" * 1_000_001, secret=CLIENT_SECRET, at=now)

    assert status == 413


async def test_the_console_may_look_whether_the_address_answers(sim: DingTalkSimulator, book: Book) -> None:
    async with called_back(sim, book), httpx2.AsyncClient(trust_env=False) as http:
        assert (await http.get(sim.faults.callback_url)).status_code == 200
        assert (await http.put(sim.faults.callback_url)).status_code == 405


async def test_a_channel_that_stopped_sends_messages_back(sim: DingTalkSimulator, book: Book) -> None:
    face = HttpFace()
    channel = a_channel(sim, SystemClock(), face=face)
    async with listening(face) as port, caller() as http:
        async with channel_listening(channel, book):
            await asyncio.sleep(0.01)
        now = SystemClock().now().timestamp()
        status = await post_callback(http, f"http://127.0.0.1:{port}{PATH}", "{}", secret=CLIENT_SECRET, at=now)

    assert status == 503
    assert not channel.health().ok


async def test_a_hundred_callbacks_at_once_are_all_heard(sim: DingTalkSimulator, book: Book) -> None:
    async with called_back(sim, book):
        await asyncio.gather(*(sim.say(sender=f"人{number}", text=str(number)) for number in range(100)))
        await sim.wait_for_log("callback", 100)

    assert sorted(int(inbound.text) for inbound in book.heard) == list(range(100))
    assert set(subjects(sim, "callback")) == {"200"}


def test_http_mode_without_a_secret_is_refused_at_the_start(sim: DingTalkSimulator) -> None:
    with pytest.raises(ConfigError, match="client_secret"):
        a_channel(sim, SystemClock(), face=HttpFace(), client_secret="")
