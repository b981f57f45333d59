"""Our WeCom channel against the simulator, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial

import pytest

from gateway.channels.base import Admission, Admitted
from gateway.channels.wecom_bot.channel import WeComBotChannel
from gateway.clock import Clock
from gateway.errors import ConfigError, SendLater, SendRefused, SendUncertain, StoreUnavailable
from gateway.messages import Address, Inbound, Outbound
from gateway.rendering import cut
from gateway.simulators.wecom_bot import BOT_ID, SECRET, WeComBotSimulator
from gateway.testing import ManualClock


class Book:
    """A ledger on paper: refuses while `broken`."""

    def __init__(self) -> None:
        self.broken = False
        self.heard: list[Inbound] = []
        self.known: set[str] = set()
        self.asked = 0
        self._changed = asyncio.Condition()

    async def deliver(self, inbound: Inbound) -> Admitted:
        async with self._changed:
            self.asked += 1
            self._changed.notify_all()
            if self.broken:
                raise StoreUnavailable
            if inbound.id in self.known:
                return Admitted(Admission.DUPLICATE)
            self.known.add(inbound.id)
            self.heard.append(inbound)
        return Admitted(Admission.ACCEPTED)

    async def wait_for(self, satisfied: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(satisfied)

    async def next(self, count: int = 1) -> Inbound:
        await self.wait_for(lambda: len(self.heard) >= count)
        return self.heard[count - 1]


def a_channel(sim: WeComBotSimulator, clock: Clock, **settings: object) -> WeComBotChannel:
    plain = {"name": "wecom", "bot_id": BOT_ID, "secret": SECRET, "base_url": sim.base_url, "cut": partial(cut, fences=True)}
    return WeComBotChannel(clock=clock, **{**plain, **settings})  # type: ignore[arg-type]


@asynccontextmanager
async def listening(channel: WeComBotChannel, book: Book) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(channel.run(book.deliver), name="channel")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await channel.aclose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def sim(clock: ManualClock) -> AsyncIterator[WeComBotSimulator]:
    async with WeComBotSimulator(now=lambda: clock.now().timestamp()).running() as sim:
        yield sim
    assert sim.violations == []


@pytest.fixture
def book() -> Book:
    return Book()


def answer(inbound: Inbound, text: str = "", *, part: str = "0") -> Outbound:
    return Outbound(key=f"wecom/{BOT_ID}/{inbound.id}/{part}", address=inbound.address, text=text, ticket=inbound.ticket)


async def turn(clock: ManualClock, seconds: float, satisfied: Callable[[], bool], *, step_s: float = 0.5) -> None:
    """Turn the clock in steps, giving real sockets time, until `satisfied`."""
    for _ in range(int(seconds / step_s) + 1):
        for _ in range(20):
            if satisfied():
                return
            await asyncio.sleep(0.002)
        await clock.advance(step_s)
    assert satisfied()


async def until(satisfied: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if satisfied():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


class Words:
    """A model that speaks when it is told to."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str | BaseException | None] = asyncio.Queue()

    def say(self, words: str) -> None:
        self._queue.put_nowait(words)

    def end(self) -> None:
        self._queue.put_nowait(None)

    def fail(self, error: BaseException) -> None:
        self._queue.put_nowait(error)

    async def texts(self) -> AsyncGenerator[str, None]:
        while (words := await self._queue.get()) is not None:
            if isinstance(words, BaseException):
                raise words
            yield words


async def grown(channel: WeComBotChannel, head: Outbound, words: Words) -> None:
    async with aclosing(words.texts()) as texts:
        await channel.send_growing(head, texts)


# Hearing and answering


async def test_a_private_message_is_answered_in_one_stream_that_grows(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel, words = a_channel(sim, clock), Words()
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        asked = await sim.say(sender="zhangsan", text="今天天气？")
        inbound = await book.next()

        growing = asyncio.create_task(grown(channel, answer(inbound), words))
        words.say("晴")
        await turn(clock, 3, lambda: len(sim.snapshots) >= 1)
        words.say("，25 度")
        await turn(clock, 3, lambda: len(sim.snapshots) >= 2)
        words.end()
        await growing

    assert (inbound.id, inbound.text, inbound.address.chat, inbound.address.sender) == (asked, "今天天气？", "zhangsan", "zhangsan")
    assert not inbound.address.in_group
    assert [(snapshot.content, snapshot.finish) for snapshot in sim.snapshots] == [
        ("晴", False), ("晴，25 度", False), ("晴，25 度", True),
    ]  # fmt: skip
    assert len({snapshot.stream for snapshot in sim.snapshots}) == 1
    assert [(shown.chat, shown.text, shown.answers) for shown in sim.shown] == [("zhangsan", "晴，25 度", asked)]


async def test_a_group_message_loses_the_call_and_is_answered_in_the_group(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(group="wrGroup", sender="lisi", text="几点了？", at_bot=False)
        asked = await sim.say(group="wrGroup", sender="lisi", text="几点了？")
        inbound = await book.next()
        await channel.send(answer(inbound, "八点"))

    assert (inbound.id, inbound.text) == (asked, "几点了？")
    assert (inbound.address.chat, inbound.address.sender, inbound.address.in_group) == ("wrGroup", "lisi", True)
    assert [(shown.chat, shown.text) for shown in sim.shown] == [("wrGroup", "八点")]


async def test_quick_words_are_shown_no_faster_than_the_conversation_may_be_written_to(
    sim: WeComBotSimulator, clock: ManualClock, book: Book
) -> None:
    """A stream of 100 s with a word every half second stays below 30 frames in any minute, with room for others."""
    channel, words = a_channel(sim, clock), Words()
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="讲个长故事")
        growing = asyncio.create_task(grown(channel, answer(await book.next()), words))
        for number in range(200):
            words.say(f"{number} ")
            await asyncio.sleep(0.003)
            await clock.advance(0.5)
        words.end()
        await growing

    times = [snapshot.at for snapshot in sim.snapshots]
    busiest = max(sum(1 for at in times if start <= at < start + 60) for start in times)
    assert 10 <= busiest <= 22
    assert sim.snapshots[-1].finish
    assert sim.shown[0].text.endswith("199")
    assert sim.count("error") == 0


async def test_a_short_answer_is_a_single_frame(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel, words = a_channel(sim, clock), Words()
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        words.say("在")
        words.say("的")
        words.end()
        await grown(channel, answer(await book.next()), words)

    assert [(snapshot.content, snapshot.finish) for snapshot in sim.snapshots] == [("在的", True)]


async def test_somebody_who_opens_the_chat_is_welcomed(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    async with listening(a_channel(sim, clock, welcome="您好"), book):
        await sim.wait_for_log("subscribe")
        await sim.enter_chat("zhangsan")
        await sim.wait_for_shown(1)

    assert [(shown.chat, shown.text) for shown in sim.shown] == [("zhangsan", "您好")]
    assert book.heard == []


async def test_without_a_welcome_and_for_other_events_nothing_is_said(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("subscribe")
        await sim.enter_chat()
        await sim.send_frame(
            '{"cmd": "aibot_event_callback", "headers": {"req_id": "r"}, "body": {"event": {"eventtype": "feedback_event"}}}'
        )
        await sim.send_frame("not JSON at all")
        await sim.send_frame('{"cmd": "something_new", "headers": {}}')
        await sim.say(text="在吗")
        await book.next()

    assert (sim.shown, len(book.heard)) == ([], 1)


async def test_a_message_told_twice_is_one_message(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    sim.faults.duplicate_messages = True
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        await book.wait_for(lambda: book.asked == 2)

    assert len(book.heard) == 1


async def test_messages_wait_in_order_while_the_store_is_away(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    book.broken = True
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("subscribe")
        for number in range(5):
            await sim.say(text=f"{number}")
        await book.wait_for(lambda: book.asked == 1)
        book.broken = False
        await turn(clock, 10, lambda: len(book.heard) == 5, step_s=5)

    assert [inbound.text for inbound in book.heard] == ["0", "1", "2", "3", "4"]


async def test_what_was_heard_before_the_stop_is_still_written_down(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    book.broken = True
    channel = a_channel(sim, clock)
    async with listening(channel, book) as task:
        await sim.wait_for_log("subscribe")
        await sim.say(text="一")
        await sim.say(text="二")
        await book.wait_for(lambda: book.asked == 1)
        await until(lambda: channel._heard.qsize() == 1)
        book.broken = False
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        inbound = await book.next(2)
        await channel.send(answer(book.heard[0], "还能回答"))

    assert [one.text for one in book.heard] == ["一", "二"]
    assert inbound.text == "二"
    assert sim.shown[0].text == "还能回答"


# Answers that do not fit a stream


async def test_a_stream_ends_after_five_minutes_and_the_rest_comes_as_a_message(
    sim: WeComBotSimulator, clock: ManualClock, book: Book
) -> None:
    channel, words = a_channel(sim, clock), Words()
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="想想看")
        growing = asyncio.create_task(grown(channel, answer(await book.next()), words))
        words.say("第一段\n第二段的开")
        await turn(clock, 3, lambda: len(sim.snapshots) >= 1)
        await clock.advance(291)
        await sim.wait_for_log("finish")
        words.say("头，完了。")
        words.end()
        await clock.advance(100)
        await growing

    assert [shown.text for shown in sim.shown] == ["第一段", "第二段的开头，完了。"]
    assert sim.count("markdown") == 1


async def test_an_answer_without_a_word_for_five_minutes_comes_as_a_message(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel, words = a_channel(sim, clock), Words()
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="想想看", group="wrGroup")
        growing = asyncio.create_task(grown(channel, answer(await book.next()), words))
        await clock.advance(400)
        words.say("终于")
        words.end()
        await growing

    assert sim.snapshots == []
    assert [(shown.chat, shown.text, shown.answers) for shown in sim.shown] == [("wrGroup", "终于", "")]


async def test_a_very_long_answer_loses_no_word(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel, words = a_channel(sim, clock), Words()
    lines = [f"{number}：床前明月光，疑是地上霜。" for number in range(1_500)]
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="背诗")
        growing = asyncio.create_task(grown(channel, answer(await book.next()), words))
        for start in range(0, len(lines), 100):
            words.say("\n".join(lines[start : start + 100]) + "\n")
            await asyncio.sleep(0.01)
            await clock.advance(2)
        words.end()
        await growing

    assert "\n".join(shown.text for shown in sim.shown).splitlines() == lines
    assert all(len(shown.text.encode()) <= 20_480 for shown in sim.shown)
    assert sim.count("finish") == 1


async def test_a_long_recorded_answer_is_shown_whole_after_a_restart(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock)
    text = "\n".join(f"{number}：低头思故乡。" for number in range(1_500))
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="背诗")
        await channel.send(answer(await book.next(), text))

    assert "\n".join(shown.text for shown in sim.shown) == text


async def test_an_answer_from_before_the_restart_goes_out_as_soon_as_the_bot_is_connected(
    sim: WeComBotSimulator, clock: ManualClock, book: Book
) -> None:
    first = a_channel(sim, clock)
    async with listening(first, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        inbound = await book.next()
    second = a_channel(sim, clock)
    sending = asyncio.create_task(second.send(answer(inbound, "在")))
    await asyncio.sleep(0)
    async with listening(second, Book()):
        await sim.wait_for_shown(1)
        await sending

    assert clock.monotonic() == 0


async def test_a_farewell_and_a_word_in_between_are_messages_of_their_own(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        inbound = await book.next()
        await channel.send(answer(inbound, "请稍等", part="0/queue"))
        await channel.send(Outbound(key="farewell/x/y", address=inbound.address, text="再见", ticket=inbound.ticket))

    assert [shown.text for shown in sim.shown] == ["请稍等", "再见"]
    assert (sim.count("markdown"), sim.snapshots) == (2, [])


# After a crash


async def test_an_answer_that_is_sent_again_after_a_restart_is_seen_once(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    first = a_channel(sim, clock)
    async with listening(first, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        inbound = await book.next()
        await first.send(answer(inbound, "在"))

    second = a_channel(sim, clock)
    async with listening(second, Book()):
        await until(lambda: second.health().ok)
        await second.send(answer(inbound, "在"))

    assert [shown.text for shown in sim.shown] == ["在"]


async def test_a_stream_that_broke_off_in_a_crash_is_continued(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    words = Words()
    first = a_channel(sim, clock)
    async with listening(first, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        inbound = await book.next()
        growing = asyncio.create_task(grown(first, answer(inbound), words))
        words.say("在的，")
        await turn(clock, 3, lambda: len(sim.snapshots) >= 1)
        growing.cancel()
        await asyncio.gather(growing, return_exceptions=True)

    second, again = a_channel(sim, clock), Words()
    async with listening(second, Book()):
        await until(lambda: second.health().ok)
        again.say("在的，请讲。")
        again.end()
        await grown(second, answer(inbound), again)

    assert len({snapshot.stream for snapshot in sim.snapshots}) == 1
    assert [shown.text for shown in sim.shown] == ["在的，请讲。"]


async def test_nobody_pretends_to_know_whether_a_closed_stream_of_an_earlier_run_was_seen(
    sim: WeComBotSimulator, clock: ManualClock, book: Book
) -> None:
    sim.faults.finished_errcode = 846608
    first = a_channel(sim, clock)
    async with listening(first, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        inbound = await book.next()
        await first.send(answer(inbound, "在"))
    second = a_channel(sim, clock)
    async with listening(second, Book()):
        await until(lambda: second.health().ok)
        with pytest.raises(SendUncertain):
            await second.send(answer(inbound, "在"))

    assert [shown.text for shown in sim.shown] == ["在"]


async def test_hours_later_the_answer_comes_as_a_message(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        inbound = await book.next()
        clock.jump(7_200)
        await channel.send(answer(inbound, "才回来"))

    assert [(shown.text, shown.answers) for shown in sim.shown] == [("才回来", "")]


async def test_a_stopped_answer_ends_with_the_sentence_below_its_words(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel, words = a_channel(sim, clock), Words()
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="讲个故事")
        inbound = await book.next()
        growing = asyncio.create_task(grown(channel, answer(inbound), words))
        words.say("从前")
        await turn(clock, 3, lambda: len(sim.snapshots) >= 1)
        growing.cancel()
        await asyncio.gather(growing, return_exceptions=True)
        await channel.send(answer(inbound, "（已停止）"))

    assert [shown.text for shown in sim.shown] == ["从前\n\n（已停止）"]


async def test_an_answer_that_fails_lets_its_error_pass(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel, words = a_channel(sim, clock), Words()
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="讲个故事")
        inbound = await book.next()
        words.fail(StoreUnavailable("disk full"))
        with pytest.raises(StoreUnavailable):
            await grown(channel, answer(inbound), words)

    assert sim.snapshots == []


# Refusals


@pytest.mark.parametrize("errcode", [846605, 846608, 600039])
async def test_a_reply_that_is_closed_becomes_a_message_of_its_own(
    sim: WeComBotSimulator, clock: ManualClock, book: Book, errcode: int
) -> None:
    sim.faults.errcodes = {"aibot_respond_msg": [errcode, errcode, errcode]}
    channel, words = a_channel(sim, clock), Words()
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        words.say("在")
        words.end()
        await grown(channel, answer(await book.next()), words)

    assert [(shown.text, shown.answers) for shown in sim.shown] == [("在", "")]


@pytest.mark.parametrize("errcode", [6000, -1, 45009])
async def test_what_wecom_cannot_take_now_is_said_again(sim: WeComBotSimulator, clock: ManualClock, book: Book, errcode: int) -> None:
    sim.faults.errcodes = {"aibot_respond_msg": [errcode]}
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        sending = asyncio.create_task(channel.send(answer(await book.next(), "在")))
        await turn(clock, 40, sending.done, step_s=1)
        await sending

    assert [shown.text for shown in sim.shown] == ["在"]


@pytest.mark.parametrize(("errcode", "error"), [(40008, SendRefused), (846607, SendRefused), (40058, SendRefused), (45009, SendLater)])
async def test_each_refusal_of_a_message_says_what_may_be_done(
    sim: WeComBotSimulator, clock: ManualClock, book: Book, errcode: int, error: type[Exception]
) -> None:
    sim.faults.errcodes = {"aibot_send_msg": [errcode]}
    channel = a_channel(sim, clock)
    address = Address(channel="wecom", account=BOT_ID, chat="zhangsan", sender="zhangsan")
    async with listening(channel, book):
        await until(lambda: channel.health().ok)
        with pytest.raises(error, match=str(errcode)):
            await channel.send(Outbound(key="reminder/1", address=address, text="提醒"))


async def test_the_thirty_first_message_of_a_minute_waits(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        address = (await book.next()).address
        for number in range(30):
            await channel.send(Outbound(key=f"reminder/{number}", address=address, text="提醒"))
        with pytest.raises(SendLater) as caught:
            await channel.send(Outbound(key="reminder/30", address=address, text="提醒"))

    assert caught.value.retry_after_s == 60
    assert (len(sim.shown), sim.count("error")) == (30, 0)


async def test_an_unacknowledged_answer_is_repeated_and_seen_once(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    sim.faults.silent_acks = 1
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        sending = asyncio.create_task(channel.send(answer(await book.next(), "在")))
        await sim.wait_for_log("finish")
        await turn(clock, 10, sending.done, step_s=1)
        await sending

    assert [shown.text for shown in sim.shown] == ["在"]


async def test_an_unacknowledged_message_of_its_own_is_not_repeated(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        inbound = await book.next()
        sim.faults.silent_acks = 1
        sending = asyncio.create_task(channel.send(answer(inbound, "提醒", part="0/queue")))
        await sim.wait_for_log("markdown")
        await turn(clock, 10, sending.done, step_s=1)
        with pytest.raises(SendUncertain):
            await sending

    assert len(sim.shown) == 1


async def test_a_connection_cut_in_the_middle_of_an_answer_is_opened_again_and_the_answer_finished(
    sim: WeComBotSimulator, clock: ManualClock, book: Book
) -> None:
    channel, words = a_channel(sim, clock), Words()
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        growing = asyncio.create_task(grown(channel, answer(await book.next()), words))
        words.say("在")
        await turn(clock, 3, lambda: len(sim.snapshots) >= 1)
        sim.faults.cut_after = 1
        words.say("的")
        words.end()
        await turn(clock, 20, growing.done)
        await growing

    assert sim.count("subscribe") == 2
    assert [shown.text for shown in sim.shown] == ["在的"]


async def test_slow_acknowledgements_slow_the_snapshots_down_and_never_the_order(
    sim: WeComBotSimulator, clock: ManualClock, book: Book
) -> None:
    sim.faults.ack_delay_s = 0.03
    channel, words = a_channel(sim, clock), Words()
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="数到二十")
        growing = asyncio.create_task(grown(channel, answer(await book.next()), words))
        for number in range(1, 21):
            words.say(f"{number} ")
            await asyncio.sleep(0.01)
            await clock.advance(1)
        words.end()
        await growing

    contents = [snapshot.content for snapshot in sim.snapshots]
    assert contents == sorted(contents, key=len)
    assert sim.shown[0].text.split() == [str(number) for number in range(1, 21)]


async def test_waiting_for_a_connection_uses_up_no_messages(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        inbound = await book.next()
        await sim.take_over()
        await until(lambda: not channel.health().ok)
        for _ in range(40):
            with pytest.raises(SendLater, match="took it over"):
                await channel.send(answer(inbound, "提醒", part="0/queue"))
        await turn(clock, 200, lambda: channel.health().ok, step_s=5)
        await channel.send(answer(inbound, "提醒", part="0/queue"))

    assert len(sim.shown) == 1


# The connection


async def test_the_bot_is_pinged_every_thirty_seconds(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("subscribe")
        for number in range(1, 4):
            await clock.advance(30)
            await sim.wait_for_log("ping", number)

    assert sim.count("connect") == 1


async def test_two_unanswered_pings_and_the_connection_is_replaced(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    sim.faults.silent_pings = True
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("subscribe")
        await turn(clock, 90, lambda: sim.count("subscribe") == 2, step_s=5)

    assert sim.count("ping") == 2


async def test_a_lost_subscription_is_renewed_and_the_answer_follows(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    """846609 on a connection that lives and answers pings: other bots were silent for minutes (hermes-agent #47564)."""
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.say(text="在吗")
        inbound = await book.next()
        sim.faults.unsubscribed = True
        sending = asyncio.create_task(channel.send(answer(inbound, "在")))
        await turn(clock, 20, sending.done)
        await sending

    assert sim.count("subscribe") == 2
    assert [shown.text for shown in sim.shown] == ["在"]


async def test_a_bot_that_was_taken_over_says_so_and_waits_long(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("subscribe")
        await sim.take_over()
        await sim.wait_for_log("close")
        await until(lambda: "took it over" in channel.health().reason)

        assert not channel.health().ok
        await turn(clock, 59, lambda: clock.monotonic() >= 58, step_s=2)
        assert sim.count("connect") == 1
        await turn(clock, 60, lambda: sim.count("subscribe") == 2, step_s=5)


async def test_two_rivals_for_one_bot_do_not_fight(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    """Two gateways with one bot_id: without patience each would throw out the other many times a second."""
    one, other = a_channel(sim, clock), a_channel(sim, clock, name="other")
    async with listening(one, book):
        await sim.wait_for_log("subscribe")
        async with listening(other, Book()):
            await turn(clock, 7_290, lambda: clock.monotonic() >= 7_200, step_s=90)

    assert 2 <= sim.count("subscribe") <= 30


async def test_a_wrong_secret_is_named_with_its_repair_and_tried_slowly(
    sim: WeComBotSimulator, clock: ManualClock, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("gateway", "websockets"):
        caplog.set_level(logging.DEBUG, logger=name)
    channel = a_channel(sim, clock, secret="mistyped-secret")
    async with listening(channel, book):
        await sim.wait_for_log("refused")
        await until(lambda: "secret is wrong" in channel.health().reason)
        await turn(clock, 300, lambda: clock.monotonic() >= 300, step_s=10)

        assert not channel.health().ok
        assert "853000" in channel.health().reason
    assert sim.count("refused") <= 6
    assert "mistyped-secret" not in caplog.text
    assert "mistyped-secret" not in repr(channel)


async def test_a_server_that_hangs_up_at_once_is_not_stormed(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    sim.faults.close_at_once = True
    async with listening(a_channel(sim, clock), book):
        await turn(clock, 600, lambda: clock.monotonic() >= 600, step_s=10)

    assert 5 <= sim.count("connect") <= 25


async def test_a_server_that_says_nothing_is_given_up(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    sim.faults.never_answer = True
    channel = a_channel(sim, clock)
    async with listening(channel, book):
        await sim.wait_for_log("connect")
        await turn(clock, 20, lambda: "did not answer" in channel.health().reason)


async def test_without_a_connection_nothing_is_sent_and_that_is_said(sim: WeComBotSimulator, clock: ManualClock) -> None:
    channel = a_channel(sim, clock)
    address = Address(channel="wecom", account=BOT_ID, chat="zhangsan", sender="zhangsan")
    with pytest.raises(SendLater, match="not connected yet"):
        await channel.send(Outbound(key="reminder/1", address=address, text="提醒"))


class HandedSeat:
    """A seat that the test gives and takes."""

    def __init__(self) -> None:
        self.mine = asyncio.Event()
        self.gone = asyncio.Event()

    @property
    def held(self) -> bool:
        return self.mine.is_set()

    async def sit(self) -> None:
        await self.mine.wait()

    async def lost(self) -> None:
        await self.gone.wait()

    async def leave(self) -> None:
        self.mine.clear()


async def test_only_the_process_that_holds_the_seat_connects_and_may_speak(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    seat = HandedSeat()
    channel = a_channel(sim, clock, seat=seat)
    async with listening(channel, book):
        await turn(clock, 60, lambda: clock.monotonic() >= 60, step_s=10)
        assert (sim.count("connect"), channel.can_show(), channel.health().ok) == (0, False, True)

        seat.mine.set()
        await sim.wait_for_log("subscribe")
        assert channel.can_show()

        seat.mine.clear()
        seat.gone.set()
        await sim.wait_for_log("close")
        assert not channel.can_show()
        await turn(clock, 60, lambda: clock.monotonic() >= 120, step_s=10)

    assert sim.count("connect") == 1


async def test_the_checkup_does_not_take_the_bot_from_a_running_gateway(sim: WeComBotSimulator, clock: ManualClock, book: Book) -> None:
    async with listening(a_channel(sim, clock), book):
        await sim.wait_for_log("subscribe")
        doctor = a_channel(sim, clock)
        (finding,) = await doctor.checkup()
        await doctor.aclose()
        assert finding.ok
        assert (sim.count("subscribe"), sim.count("takeover")) == (1, 0)


async def test_the_checkup_tells_when_nothing_listens(clock: ManualClock) -> None:
    async with WeComBotSimulator().running() as gone:
        pass
    (finding,) = await a_channel(gone, clock).checkup()

    assert not finding.ok
    assert "base_url" in finding.repair


def test_the_secret_crosses_no_network_unencrypted(clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match="wss://"):
        WeComBotChannel(name="wecom", bot_id="b", secret="s", clock=clock, cut=partial(cut, fences=True), base_url="ws://example.com")
