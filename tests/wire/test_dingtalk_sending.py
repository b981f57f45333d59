"""How a DingTalk answer gets out when its session webhook does not help, and words that answer nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from dingtalk_desk import SOMEWHERE, Book, a_channel, answer, listening

from gateway.channels.dingtalk.channel import DingTalkChannel
from gateway.clock import SystemClock
from gateway.errors import SendError, SendLater, SendRefused, SendUncertain, TicketExpired
from gateway.messages import Address, Inbound, Mention, Outbound, ReplyTicket
from gateway.simulators.dingtalk import CLIENT_ID, DingTalkSimulator
from gateway.simulators.dingtalk_faults import TO_GROUP, TO_PERSON, TOKEN, WEBHOOK
from gateway.stores.memory import MemoryStore
from gateway.testing import ManualClock


@pytest.fixture
async def sim() -> AsyncIterator[DingTalkSimulator]:
    async with DingTalkSimulator().running() as sim:
        yield sim


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def channel(sim: DingTalkSimulator) -> AsyncIterator[DingTalkChannel]:
    channel = a_channel(sim, SystemClock())
    yield channel
    await channel.aclose()


def to_person(sim: DingTalkSimulator, name: str = "张三", text: str = "提醒：喝水") -> Outbound:
    staff_id = sim.people.staff(name)
    return Outbound(key="k", address=Address(channel="dingtalk", account=CLIENT_ID, chat=staff_id, sender=staff_id), text=text)


def to_group(sim: DingTalkSimulator, group: str = "测试群", *, mention: Mention | None = None, text: str = "大家好") -> Outbound:
    address = Address(channel="dingtalk", account=CLIENT_ID, chat=sim.people.conversation(group), sender="manager01", in_group=True)
    return Outbound(key="k", address=address, text=text, mention=mention)


async def a_question(sim: DingTalkSimulator, book: Book, **words: object) -> Inbound:
    await sim.wait_for_log("connect")
    await sim.say(text="?", **words)
    return await book.next()


# Falling back


async def test_an_answer_whose_session_ended_goes_to_the_person_by_api(sim: DingTalkSimulator, clock: ManualClock) -> None:
    channel, book = a_channel(sim, clock), Book(clock)
    async with listening(channel, book):
        question = await a_question(sim, book, sender="李四")
        assert question.ticket.expires_at is not None
        clock.jump((question.ticket.expires_at - clock.now()).total_seconds())
        receipt = await channel.send(answer(question, "**42**"))

    assert [(shown.chat, shown.text) for shown in sim.shown] == [("李四", "**42**")]
    assert receipt.message_id
    assert not sim.posts
    assert sim.openapi.calls == {TO_PERSON: 1}


async def test_an_answer_whose_session_is_forgotten_goes_to_the_group_by_api_and_names_the_person(
    sim: DingTalkSimulator, clock: ManualClock
) -> None:
    channel, book = a_channel(sim, clock), Book(clock)
    async with listening(channel, book):
        question = await a_question(sim, book, sender="张三", group="测试群")
        sim.expire_sessions()
        await channel.send(answer(question, "# 结果\n42"))

    (shown,) = sim.shown
    assert (shown.chat, shown.text, shown.notified) == ("测试群", "@张三\n\n# 结果\n42", ())
    assert len(sim.posts) == 1
    assert sim.openapi.calls == {TO_GROUP: 1}


async def test_somebody_outside_the_organisation_cannot_be_answered_by_api(sim: DingTalkSimulator, clock: ManualClock) -> None:
    channel, book = a_channel(sim, clock), Book(clock)
    async with listening(channel, book):
        question = await a_question(sim, book, sender="外人", staff=False)
        sim.expire_sessions()
        with pytest.raises(TicketExpired, match="members of the organisation"):
            await channel.send(answer(question, "42"))

    assert not sim.openapi.calls


@pytest.mark.parametrize("fault", [{"reset": [WEBHOOK]}, {"webhook_cuts": 1}, {"status": {WEBHOOK: 504}}, {"webhook_errcodes": [460101]}])
async def test_what_may_have_been_shown_or_was_refused_is_never_sent_again_by_api(
    sim: DingTalkSimulator, clock: ManualClock, fault: dict[str, object]
) -> None:
    channel, book = a_channel(sim, clock), Book(clock)
    async with listening(channel, book):
        question = await a_question(sim, book)
        for name, value in fault.items():
            setattr(sim.faults, name, value)
        with pytest.raises(SendError):
            await channel.send(answer(question, "42"))

    assert not sim.openapi.calls


# Speaking without being asked


async def test_words_without_a_ticket_reach_people_and_groups(sim: DingTalkSimulator, channel: DingTalkChannel) -> None:
    await channel.send(to_person(sim))
    await channel.send(to_group(sim))

    assert [(shown.chat, shown.text) for shown in sim.shown] == [("张三", "提醒：喝水"), ("测试群", "大家好")]
    assert sim.openapi.tokens_given == 1


async def test_the_longest_piece_fits_a_send_by_api_even_when_all_of_it_is_escaped(
    sim: DingTalkSimulator, channel: DingTalkChannel
) -> None:
    await channel.send(to_group(sim, text='"' * channel.limits.max_bytes, mention=Mention("manager01", "名" * 64)))

    assert len(sim.shown) == 1


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        ({"invalid_staff": ["张三"]}, SendRefused, "可用范围"),
        ({"flow_controlled": ["张三"]}, SendLater, "slows"),
        ({"no_scope": True}, SendRefused, "qyapi_robot_sendmsg"),
        ({"ip_refused": [TO_PERSON]}, SendRefused, "IP allow-list"),
        ({"ip_refused": [TOKEN]}, SendRefused, "IP allow-list"),
        ({"unpublished": True}, SendRefused, "robotCode"),
        ({"calls_left": 0}, TicketExpired, "this month are spent"),
        ({"calls_per_second": 0}, SendLater, "QpsLimit"),
        ({"status": {TO_PERSON: 500}}, SendLater, "500"),
        ({"status": {TO_PERSON: 504}}, SendUncertain, "504"),
        ({"status": {TOKEN: 503}}, SendLater, "503"),
        ({"reset": [TO_PERSON]}, SendUncertain, "not confirm"),
        ({"html": [TO_PERSON]}, SendUncertain, "processQueryKey"),
        ({"send_cuts": 1}, SendUncertain, "not confirm"),
    ],
)
async def test_every_way_a_send_by_api_fails_says_whether_it_may_be_tried_again(
    sim: DingTalkSimulator, channel: DingTalkChannel, fault: dict[str, object], expected: type[SendError], words: str
) -> None:
    for name, value in fault.items():
        setattr(sim.faults, name, value)
    with pytest.raises(expected, match=words):
        await channel.send(to_person(sim))

    assert len(sim.shown) == (1 if "send_cuts" in fault else 0)


async def test_a_bot_that_is_not_in_the_group_is_told_so(sim: DingTalkSimulator, channel: DingTalkChannel) -> None:
    sim.faults.not_in_groups = ["测试群"]
    with pytest.raises(SendRefused, match="not in this group"):
        await channel.send(to_group(sim))


async def test_without_a_ticket_strangers_cannot_be_written_to(channel: DingTalkChannel, sim: DingTalkSimulator) -> None:
    stranger = Address(channel="dingtalk", account=CLIENT_ID, chat="cid1", sender="$:LWCP_v1:$abc")
    with pytest.raises(TicketExpired):
        await channel.send(Outbound(key="k", address=stranger, text="你好"))
    assert sim.openapi.tokens_given == 0


# The access token


async def test_a_token_that_dingtalk_takes_no_longer_is_replaced_once(sim: DingTalkSimulator, channel: DingTalkChannel) -> None:
    await channel.send(to_person(sim))
    sim.openapi.revoke_tokens()
    await channel.send(to_person(sim, text="又来"))

    assert [shown.text for shown in sim.shown] == ["提醒：喝水", "又来"]
    assert sim.openapi.tokens_given == 2


async def test_a_token_that_is_never_taken_does_not_go_round_in_circles(sim: DingTalkSimulator, channel: DingTalkChannel) -> None:
    sim.faults.status = {TO_PERSON: 401}
    with pytest.raises(SendRefused, match="401"):
        await channel.send(to_person(sim))

    assert sim.openapi.tokens_given == 2


async def test_many_who_need_a_token_at_once_share_one(sim: DingTalkSimulator, channel: DingTalkChannel) -> None:
    sim.faults.hang = {TOKEN: 0.1}
    await asyncio.gather(*(channel.send(to_person(sim)) for _ in range(5)))

    assert sim.openapi.tokens_given == 1


async def test_a_token_is_renewed_before_its_end(sim: DingTalkSimulator, clock: ManualClock) -> None:
    channel = a_channel(sim, clock)
    await channel.send(to_person(sim))
    await clock.advance(7_200 - 301)
    await channel.send(to_person(sim))
    assert sim.openapi.tokens_given == 1
    await clock.advance(2)
    await channel.send(to_person(sim))
    await channel.aclose()

    assert sim.openapi.tokens_given == 2


async def test_the_token_goes_to_the_api_only_and_never_into_the_log(
    sim: DingTalkSimulator, channel: DingTalkChannel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    book = Book(SystemClock())
    task = asyncio.create_task(channel.run(book.deliver))
    question = await a_question(sim, book)
    await channel.send(to_person(sim, text="机密"))
    await channel.send(answer(question, "42"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    token = sim.openapi._tokens[0]
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert not [line for line in ours if token in line or "机密" in line]
    assert "x-acs-dingtalk-access-token" not in sim.posts[0].headers


# The quota


async def test_sixty_sends_at_once_by_two_processes_stay_below_twenty_a_second(sim: DingTalkSimulator) -> None:
    shelf = MemoryStore().shelf
    channels = [a_channel(sim, SystemClock(), shelf=shelf, share_pace=True, calls_per_second=15) for _ in range(2)]
    await asyncio.gather(*(channels[number % 2].send(to_person(sim, text=str(number))) for number in range(60)))
    for channel in channels:
        await channel.aclose()

    assert sorted(int(shown.text) for shown in sim.shown) == list(range(60))
    assert not sim.openapi.refused


async def test_when_the_budget_is_spent_only_fresh_messages_are_answered(sim: DingTalkSimulator, clock: ManualClock) -> None:
    store = MemoryStore()
    channel, book = a_channel(sim, clock, shelf=store.shelf, monthly_calls=2), Book(clock)
    async with listening(channel, book):
        await channel.send(to_person(sim))
        sending = asyncio.create_task(channel.send(to_person(sim)))
        await clock.advance(1)
        await sending
        assert channel.budget.spent
        with pytest.raises(TicketExpired, match=r"monthly_calls"):
            await channel.send(to_person(sim))
        await channel.send(answer(await a_question(sim, book), "42"))
    again = a_channel(sim, clock, shelf=store.shelf, monthly_calls=2)
    with pytest.raises(TicketExpired):
        await again.send(to_person(sim))
    await again.aclose()

    assert sim.openapi.calls == {TO_PERSON: 2}
    assert len(sim.shown) == 3


async def test_a_store_that_cannot_count_stops_calls_and_not_answers(sim: DingTalkSimulator, clock: ManualClock) -> None:
    store = MemoryStore()
    channel, book = a_channel(sim, clock, shelf=store.shelf), Book(clock)
    async with listening(channel, book):
        question = await a_question(sim, book)
        await store.aclose()
        with pytest.raises(SendLater, match="cannot be counted"):
            await channel.send(to_person(sim))
        await channel.send(answer(question, "42"))

    assert not sim.openapi.calls
    assert len(sim.shown) == 1


async def test_no_budget_at_all_means_session_webhooks_only(sim: DingTalkSimulator, clock: ManualClock) -> None:
    channel = a_channel(sim, clock, monthly_calls=0)
    question = Inbound(id="1", address=SOMEWHERE, parts=(), sent_at=datetime.now(UTC), ticket=ReplyTicket())
    with pytest.raises(TicketExpired, match="no session webhook"):
        await channel.send(answer(question, "42"))
    await channel.aclose()

    assert not sim.openapi.calls
