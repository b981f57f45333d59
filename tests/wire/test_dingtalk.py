"""Our DingTalk channel against the simulator, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest
from dingtalk_desk import SOMEWHERE, Book, a_channel, answer, listening, subjects, until

from gateway.channels.base import Admission, Admitted
from gateway.channels.dingtalk.channel import DingTalkChannel
from gateway.clock import SystemClock
from gateway.errors import SendError, SendLater, SendRefused, SendUncertain, StartupError, TicketExpired
from gateway.messages import Inbound, Outbound, ReplyTicket
from gateway.simulators.dingtalk import CLIENT_ID, CLIENT_SECRET, DingTalkSimulator
from gateway.simulators.dingtalk_faults import OPEN, WEBHOOK
from gateway.testing import ManualClock


@pytest.fixture
async def sim() -> AsyncIterator[DingTalkSimulator]:
    async with DingTalkSimulator().running() as sim:
        yield sim


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def book(clock: ManualClock) -> Book:
    return Book(clock)


# Hearing and answering


async def test_a_group_message_is_acknowledged_then_answered_with_a_mention_that_rings(
    sim: DingTalkSimulator, clock: ManualClock, book: Book
) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("connect")

        asked = await sim.say(sender="张三", group="测试群", text="今天天气?")
        inbound = await book.next()
        await sim.wait_for_log("ack")
        await channel.send(answer(inbound, "**晴**，25 度"))
        (shown,) = await sim.wait_for_shown(1)

    assert (inbound.id, inbound.text, inbound.sender_name, inbound.to_bot) == (asked, "今天天气?", "张三", True)
    assert inbound.address.in_group
    assert inbound.address.account == CLIENT_ID
    assert (shown.chat, shown.notified, shown.answers) == ("测试群", ("张三",), asked)
    assert shown.text == "@张三\n\n**晴**，25 度"
    events = [event for event, _ in sim.log]
    assert events.index("ack") < events.index("show")
    assert sim.acks[sim.frames[asked]].code == 200


async def test_a_private_message_is_answered_without_a_mention(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("connect")
        await sim.say(sender="李四", text="在吗")
        inbound = await book.next()
        await channel.send(answer(inbound, "在"))
        (shown,) = await sim.wait_for_shown(1)

    assert not inbound.address.in_group
    assert (shown.chat, shown.text, shown.notified) == ("李四", "在", ())
    assert "x-acs-dingtalk-access-token" not in sim.posts[0].headers


async def test_people_outside_the_organisation_are_answered_and_mentioned_too(
    sim: DingTalkSimulator, clock: ManualClock, book: Book
) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("connect")
        await sim.say(sender="外人", group="测试群", text="你好", staff=False)
        await channel.send(answer(await book.next(), "你好"))
        (shown,) = await sim.wait_for_shown(1)

    assert shown.notified == ("外人",)


async def test_the_longest_piece_fits_the_webhook_even_when_all_of_it_is_escaped(
    sim: DingTalkSimulator, clock: ManualClock, book: Book
) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("connect")
        await sim.say(sender="外人", group="测试群", text="JSON!", staff=False)
        await channel.send(answer(await book.next(), '"' * channel.limits.max_bytes))
        await sim.wait_for_shown(1)


async def test_a_message_that_comes_again_is_acknowledged_and_delivered_once(
    sim: DingTalkSimulator, clock: ManualClock, book: Book
) -> None:
    sim.faults.duplicate_frames = True
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        await sim.say(text="一次就好")
        await sim.wait_for_log("ack", 2)

    assert [inbound.text for inbound in book.heard] == ["一次就好"]
    assert book.admissions == [Admission.ACCEPTED, Admission.DUPLICATE]


async def test_a_message_pushed_again_before_the_acknowledgement_is_delivered_once(sim: DingTalkSimulator) -> None:
    sim.faults.ack_timeout_s = 0.1
    clock = SystemClock()
    book = Book(clock)
    book.slow_s = 0.25
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        await sim.say(text="一次就好")
        await book.wait_for(lambda: len(book.admissions) >= 2)

    assert [inbound.text for inbound in book.heard] == ["一次就好"]
    assert book.admissions[1] is Admission.DUPLICATE


async def test_what_the_ledger_cannot_write_is_not_acknowledged_and_comes_again(
    sim: DingTalkSimulator, clock: ManualClock, book: Book
) -> None:
    sim.faults.ack_timeout_s = 0.2
    book.broken = True
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        await sim.say(text="别丢")
        await book.wait_for(lambda: len(book.admissions) == 1)
        assert sim.acks == {}
        book.broken = False
        await sim.wait_for_log("ack")

    assert [inbound.text for inbound in book.heard] == ["别丢"]
    assert len(subjects(sim, "push")) == 2


async def test_what_the_ledger_cannot_write_is_handed_in_again_where_dingtalk_never_does(
    sim: DingTalkSimulator, clock: ManualClock, book: Book
) -> None:
    sim.faults.pushes = 1
    book.broken = True
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        await sim.say(text="别丢")
        await book.wait_for(lambda: len(book.admissions) == 1)
        await clock.advance(5)
        assert book.heard == []
        book.broken = False
        await clock.advance(5)

    assert [inbound.text for inbound in book.heard] == ["别丢"]


async def test_a_ledger_that_hangs_gets_no_acknowledgement_and_no_end_of_hearing(
    sim: DingTalkSimulator, clock: ManualClock, book: Book
) -> None:
    sim.faults.pushes = 1
    book.slow_s = 3_600
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        await sim.say(text="第一句")
        await until(lambda: book.asked == 1)
        await clock.advance(21)
        book.slow_s = 0
        second = await sim.say(text="第二句")
        await book.next()
        await sim.wait_for_log("ack")

    assert list(sim.acks) == [sim.frames[second]]


async def test_a_ledger_that_hangs_holds_up_the_stop_no_longer_than_one_message_would(
    sim: DingTalkSimulator, clock: ManualClock, book: Book
) -> None:
    sim.faults.pushes = 1
    book.slow_s = 3_600
    channel = a_channel(sim, clock)
    task = asyncio.create_task(channel.run(book.deliver))
    await sim.wait_for_log("connect")
    for number in range(10):
        await sim.say(text=str(number))
    await sim.wait_for_log("push", 10)
    await until(lambda: book.asked == 1)
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    await clock.advance(21)
    await asyncio.gather(task, return_exceptions=True)
    await channel.aclose()

    assert sim.acks == {}


async def test_messages_of_one_connection_are_heard_in_order(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        for number in range(20):
            await sim.say(text=str(number))
            await asyncio.sleep(0)
        await book.next(20)

    assert [inbound.text for inbound in book.heard] == [str(number) for number in range(20)]


class MoodyBook(Book):
    """A ledger whose writes take as long as the message says, in hundredths of a second."""

    async def deliver(self, inbound: Inbound) -> Admitted:
        await asyncio.sleep(int(inbound.text.split()[-1]) / 100)
        return await super().deliver(inbound)


async def test_a_slow_write_keeps_its_conversation_in_order_and_delays_no_other(sim: DingTalkSimulator) -> None:
    clock = SystemClock()
    book = MoodyBook(clock)
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        for number in range(10):
            await sim.say(sender="张三", text=f"{number} {20 if number == 0 else number % 3}")
        await sim.say(sender="李四", text="急 0")
        await book.next(11)

    by = {name: [inbound.text for inbound in book.heard if inbound.sender_name == name] for name in ("张三", "李四")}
    assert [int(text.split()[0]) for text in by["张三"]] == list(range(10))
    assert book.heard[0].sender_name == "李四"


async def test_a_message_in_hand_is_written_down_and_acknowledged_before_the_channel_stops(sim: DingTalkSimulator) -> None:
    clock = SystemClock()
    book = Book(clock)
    book.slow_s = 0.2
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        asked = await sim.say(text="最后一句")
        await until(lambda: book.asked == 1)

    assert [inbound.id for inbound in book.heard] == [asked]
    assert sim.frames[asked] in sim.acks


# Frames that nobody expects


@pytest.mark.parametrize(
    "garbage", ["", "no JSON", "[1, 2]", "null", "{}", '{"headers": []}', "[" * 50_000, '{"headers": {"topic": 3}, "data": 7}']
)
async def test_a_broken_frame_is_skipped(sim: DingTalkSimulator, clock: ManualClock, book: Book, garbage: str) -> None:
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        await sim.send_frame(garbage)
        await sim.say(text="继续")
        assert (await book.next()).text == "继续"

    assert sim.opens() == 1


@pytest.mark.parametrize("content", [None, "null", '{"downloadCode": "x"}', [], 7])
async def test_a_message_with_strange_content_is_delivered_as_unsupported(
    sim: DingTalkSimulator, clock: ManualClock, book: Book, content: object
) -> None:
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        await sim.say(kind="picture", content=content)
        await sim.wait_for_log("ack")

    assert book.heard[0].unsupported == "picture"


async def test_a_message_without_sender_is_acknowledged_and_skipped(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        await sim.say(text="匿名", extra={"senderId": None, "senderStaffId": None})
        await sim.wait_for_log("ack")

    assert book.heard == []


async def test_a_foreign_topic_is_answered_with_404(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        await sim.send_frame(json.dumps({"type": "CALLBACK", "headers": {"topic": "/v1.0/other", "messageId": "m1"}, "data": "{}"}))
        await sim.wait_for_log("ack")

    assert sim.acks["m1"].code == 404


async def test_a_ping_is_echoed(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("connect")
        await sim.ping()
        await sim.wait_for_log("pong")

    (ack,) = sim.acks.values()
    assert json.loads(ack.data)["opaque"]


# The life of the connection


async def test_a_disconnect_opens_the_new_socket_before_the_old_one_is_closed(
    sim: DingTalkSimulator, clock: ManualClock, book: Book
) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("connect")
        await sim.disconnect()
        await sim.wait_for_log("connect", 2)
        assert subjects(sim, "close") == []
        assert sim.connections == 2
        await sim.say(text="走新连接")
        await book.next()

        await clock.advance(10.1)
        await sim.wait_for_log("close")
        assert channel.health().ok

    assert sim.opens() == 2


async def test_a_killed_socket_is_replaced_after_a_moment(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("connect")
        sim.kill_sockets()
        await sim.wait_for_log("close")
        await until(lambda: not channel.health().ok)
        assert sim.opens() == 1

        await clock.advance(1.0)
        await sim.wait_for_log("connect", 2)
        await sim.say(text="回来了")
        await book.next()


async def test_a_silent_connection_is_replaced(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock, silence_s=60)
    async with listening(channel, book):
        await sim.wait_for_log("connect")
        await until(lambda: channel.health().ok)
        await clock.advance(59)
        assert sim.opens() == 1
        await clock.advance(2)
        await sim.wait_for_log("connect", 2)


async def test_a_platform_that_closes_every_connection_is_not_stormed(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    sim.faults.close_at_once = True
    async with listening(a_channel(sim, clock), book):
        for _ in range(60):
            await clock.advance(1)
            await asyncio.sleep(0.01)

    assert 2 <= sim.opens() <= 10


async def test_a_platform_that_answers_503_is_not_stormed_and_found_again(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    sim.faults.open_failures = 5
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("refused")
        await until(lambda: "503" in channel.health().reason)
        for _ in range(60):
            await clock.advance(1)
            await asyncio.sleep(0.01)
        await sim.wait_for_log("connect")

    assert sim.opens() == 6


async def test_a_platform_that_disconnects_again_and_again_is_not_stormed(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    async with listening(a_channel(sim, clock), book):
        for _ in range(60):
            await sim.disconnect()
            await clock.advance(1)
            await asyncio.sleep(0.01)

    assert 2 <= sim.opens() <= 10


async def test_a_wrong_secret_is_tried_slowly_and_health_says_what_to_check(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock, client_secret="mistyped-secret")
    async with listening(channel, book):
        await sim.wait_for_log("refused")
        await until(lambda: "client_secret" in channel.health().reason)
        for _ in range(59):
            await clock.advance(1)
            await asyncio.sleep(0.005)
        assert sim.opens() == 1
        health = channel.health()
        await clock.advance(2)
        await sim.wait_for_log("refused", 2)

    assert not health.ok
    for word in ("401", "client_id", "published", "Stream mode", "robot ability", "IP"):
        assert word in health.reason
    assert "mistyped-secret" not in health.reason


@pytest.mark.parametrize("fault", [{"status": {OPEN: 500}}, {"html": [OPEN]}, {"reset": [OPEN]}])
async def test_an_open_that_fails_is_tried_again(sim: DingTalkSimulator, clock: ManualClock, book: Book, fault: dict[str, object]) -> None:
    for name, value in fault.items():
        setattr(sim.faults, name, value)
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await until(lambda: "next attempt" in channel.health().reason)
        sim.faults.status, sim.faults.html, sim.faults.reset = {}, [], []
        await clock.advance(1)
        await sim.wait_for_log("connect")


async def test_an_open_that_hangs_is_given_up(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    sim.faults.hang = {OPEN: 0.5}
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await asyncio.sleep(0.1)
        await clock.advance(16)
        await until(lambda: "cannot be reached" in channel.health().reason)
        sim.faults.hang = {}
        await clock.advance(1)
        await sim.wait_for_log("connect")


async def test_neither_secret_nor_ticket_nor_webhook_reaches_the_log(
    sim: DingTalkSimulator, clock: ManualClock, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("connect")
        await sim.say(text="机密问题")
        inbound = await book.next()
        await channel.send(answer(inbound, "机密回答"))
        sim.kill_sockets()
        await sim.wait_for_log("close")

    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert any("connected" in line for line in ours)
    for secret in (CLIENT_SECRET, "ticket=", "session=", "机密", inbound.ticket.token["session_webhook"].rpartition("=")[2]):
        assert not [line for line in ours if secret in line]
    assert CLIENT_SECRET not in repr(channel)


async def test_a_proxy_in_the_environment_is_not_asked_about_this_machine(
    sim: DingTalkSimulator, clock: ManualClock, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("connect")
        await sim.say(text="在吗")
        await channel.send(answer(await book.next(), "在"))


def test_a_proxy_that_cannot_be_used_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:9")
    with pytest.raises(StartupError, match="ALL_PROXY"):
        DingTalkChannel(name="dingtalk", client_id="a", client_secret="b", clock=clock)


# Sending


async def a_question(sim: DingTalkSimulator, book: Book) -> Inbound:
    await sim.wait_for_log("connect")
    await sim.say(text="?")
    return await book.next()


@pytest.mark.parametrize(
    ("fault", "expected", "shown"),
    [
        ({"webhook_errcodes": [300001]}, TicketExpired, 0),
        ({"webhook_errcodes": [460101]}, SendRefused, 0),
        ({"webhook_errcodes": [410100]}, SendLater, 0),
        ({"webhook_errcodes": [-1]}, SendLater, 0),
        ({"webhook_errcodes": [999999]}, SendRefused, 0),
        ({"status": {WEBHOOK: 500}}, SendLater, 0),
        ({"status": {WEBHOOK: 429}}, SendLater, 0),
        ({"status": {WEBHOOK: 504}}, SendUncertain, 0),
        ({"status": {WEBHOOK: 302}}, SendRefused, 0),
        ({"html": [WEBHOOK]}, SendUncertain, 0),
        ({"reset": [WEBHOOK]}, SendUncertain, 0),
        ({"webhook_cuts": 1}, SendUncertain, 1),
    ],
)
async def test_every_way_a_webhook_fails_says_whether_it_may_be_tried_again(
    sim: DingTalkSimulator, clock: ManualClock, book: Book, fault: dict[str, object], expected: type[SendError], shown: int
) -> None:
    channel = a_channel(sim, clock, monthly_calls=0)
    async with listening(channel, book):
        question = await a_question(sim, book)
        for name, value in fault.items():
            setattr(sim.faults, name, value)
        with pytest.raises(SendError) as failure:
            await channel.send(answer(question, "42"))

    assert isinstance(failure.value, expected)
    assert "session=" not in str(failure.value)
    assert len(sim.shown) == shown


async def test_a_slow_webhook_is_given_up_as_uncertain(sim: DingTalkSimulator, clock: ManualClock, book: Book) -> None:
    sim.faults.hang = {WEBHOOK: 0.5}
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        sending = asyncio.create_task(channel.send(answer(await a_question(sim, book), "42")))
        await asyncio.sleep(0.1)
        await clock.advance(16)
        with pytest.raises(SendUncertain):
            await sending
        await sim.wait_for_shown(1)


@pytest.mark.parametrize(
    "webhook",
    [
        "https://evil.example/robot/sendBySession?session=x",
        "http://oapi.dingtalk.com/robot/sendBySession?session=x",
        "https://oapi.dingtalk.com.evil.example/",
        "https://oapi.dingtalk.com@evil.example/",
        "https://evildingtalk.com/",
        "ftp://127.0.0.1/",
        "http://[::1/",
        "no address",
    ],
)
async def test_a_forged_webhook_is_never_posted_to(sim: DingTalkSimulator, clock: ManualClock, book: Book, webhook: str) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        question = await a_question(sim, book)
        ticket = ReplyTicket(token={"session_webhook": webhook})
        with pytest.raises(SendRefused):
            await channel.send(Outbound(key="k", address=question.address, text="42", ticket=ticket))


async def test_an_unreachable_platform_surely_showed_nothing(clock: ManualClock) -> None:
    async with DingTalkSimulator().running() as sim:
        gone = sim.base_url
    channel = DingTalkChannel(name="dingtalk", client_id="a", client_secret="b", clock=clock, openapi_base=gone, oapi_base=gone)
    with pytest.raises(SendLater):
        await channel.send(
            Outbound(key="k", address=SOMEWHERE, text="42", ticket=ReplyTicket(token={"session_webhook": f"{gone}{WEBHOOK}?session=x"}))
        )
    await channel.aclose()
