from __future__ import annotations

import pytest

from gateway.errors import StoreUnavailable
from gateway.messages import Text, Unsupported
from gateway.stores.memory import MemoryStore
from gateway.testing.ledger import FragileStore
from gateway.wording import SENTENCES, say

from .conftest import PASSIVE, StartTalk


async def test_whoever_waits_behind_others_is_told_his_number_once(start: StartTalk) -> None:
    talk = await start(queue={"notice_after_s": 5})
    talk.backend.hold()
    for text in ("一", "二", "三"):
        await talk.channel.say(text)
    await talk.clock.advance(4)
    assert talk.channel.shown == []

    await talk.clock.advance(2)
    assert talk.channel.texts == [say("queued", "zh", number=2), say("queued", "zh", number=3)]
    await talk.clock.advance(60)
    assert len(talk.channel.shown) == 2

    talk.backend.release()
    await talk.channel.wait_for(5)
    assert talk.channel.texts[2:] == ["ANS:一", "ANS:二", "ANS:三"]
    assert len({outbound.key for outbound in talk.channel.shown}) == 5


async def test_nobody_is_told_a_number_who_is_answered_in_time_or_can_see_only_one_text(start: StartTalk) -> None:
    quick, passive, off = await start(), await start(limits=PASSIVE), await start(queue={"notice_after_s": None})
    await quick.channel.say("一")
    await quick.channel.say("二")
    await quick.channel.wait_for(2)
    for talk in (passive, off):
        talk.backend.hold()
        await talk.channel.say("一")
        await talk.channel.say("二")
    for talk in (quick, passive, off):
        await talk.clock.advance(60)

    assert quick.channel.texts == ["ANS:一", "ANS:二"]
    assert passive.channel.shown == off.channel.shown == []


async def test_a_full_house_serves_people_in_turn(start: StartTalk) -> None:
    talk = await start(queue={"running": 1, "notice_after_s": None})
    talk.backend.hold()
    for group in range(5):
        await talk.channel.say(f"heavy{group}", sender="heavy", group=f"g{group}")
        await talk.clock.settle()
    await talk.channel.say("light", sender="light")
    await talk.clock.settle()
    talk.backend.release()
    await talk.channel.wait_for(6)

    assert talk.channel.texts.index("ANS:light") <= 2


async def test_quick_successive_messages_become_one_question(start: StartTalk) -> None:
    talk = await start(sessions={"merge_window_ms": 1000})
    for number, text in enumerate(("我想问", "关于天气", "明天会下雨吗")):
        await talk.channel.say(text, id=f"m{number}")
        await talk.clock.advance(0.5)
    assert talk.backend.prompts == []
    await talk.clock.advance(1)

    assert [prompt.question for prompt in talk.backend.prompts] == ["我想问\n关于天气\n明天会下雨吗"]
    assert len(talk.channel.shown) == 1
    assert [await talk.outcome(f"m{number}") for number in range(3)] == [
        ("answered", "together with m2"),
        ("answered", "together with m2"),
        ("answered", ""),
    ]


async def test_only_plain_words_of_the_same_person_are_merged(start: StartTalk) -> None:
    talk = await start(sessions={"merge_window_ms": 1000})
    await talk.channel.say("hello", sender="ann")
    await talk.channel.say("hello too", sender="bob")
    await talk.channel.say("and then", sender="ann")
    await talk.channel.say("/context", sender="ann")
    await talk.channel.say(parts=(Unsupported("voice"),), sender="ann")
    await talk.channel.say(parts=(Text("last"),), sender="ann")
    await talk.clock.advance(2)

    assert sorted(prompt.question for prompt in talk.backend.prompts) == ["hello\nand then", "hello too", "last"]
    assert SENTENCES["unsupported"].en in talk.channel.texts


async def test_messages_that_were_held_back_at_a_death_are_all_answered(start: StartTalk) -> None:
    first = await start(sessions={"merge_window_ms": 1000})
    await first.channel.say("one")
    await first.channel.say("two")
    await first.house.lineup.settle(first.clock, 0)

    second = await start(store=first.store, clock=first.clock)
    assert await second.house.dispatch.resume() == 2
    assert await second.channel.wait_for(2) == ["ANS:one", "ANS:two"]


@pytest.mark.parametrize(
    "call", ["ledger.answering", "ledger.answered", "ledger.showing", "ledger.shown", "ledger.closed", "sessions.load", "sessions.save"]
)
async def test_a_store_that_is_away_for_a_while_costs_nobody_his_answer(start: StartTalk, call: str) -> None:
    fragile = FragileStore(MemoryStore())
    talk = await start(store=fragile)
    fragile.faults.fail(call, times=4)
    await talk.channel.say("hello", id="m")
    await talk.clock.advance(10)

    assert talk.channel.texts == ["ANS:hello"]
    assert await talk.outcome("m") == ("answered", "")
    assert len(talk.backend.prompts) == 1


async def test_an_answer_that_cannot_be_remembered_is_still_an_answer(start: StartTalk) -> None:
    fragile = FragileStore(MemoryStore())
    talk = await start(store=fragile)
    fragile.faults.fail("sessions.save", times=1000)

    assert await talk.ask("hello", id="m") == "ANS:hello"
    await talk.clock.advance(650)
    assert await talk.outcome("m") == ("answered", "")
    assert len(talk.channel.shown) == 1


async def test_what_cannot_be_accepted_now_can_be_accepted_later(start: StartTalk) -> None:
    fragile = FragileStore(MemoryStore())
    talk = await start(store=fragile)
    fragile.faults.fail("ledger.accept")
    with pytest.raises(StoreUnavailable):
        await talk.channel.say("hello", id="m")

    assert await talk.ask("hello", id="m") == "ANS:hello"


async def test_stop_never_tears_the_book_apart(start: StartTalk) -> None:
    """A stop that arrives while the turn is being closed must neither lose the outcome nor kill the lane."""
    talk = await start()
    talk.backend.hold()
    await talk.channel.say("one", id="one")
    await talk.channel.say("two", id="two")
    await talk.backend.wait_until_asked(1)
    for _ in range(30):
        talk.house.lanes.stop("loop/bot/person/alice")
        await talk.clock.settle()
    talk.backend.release()
    await talk.clock.settle()

    assert await talk.ask("three", id="three") == "ANS:three"
    for message in ("one", "two", "three"):
        assert (await talk.outcome(message))[0] in ("refused", "answered")
