from __future__ import annotations

import gc
from dataclasses import replace

import pytest

from gateway.channels.base import ChannelLimits
from gateway.errors import StoreUnavailable, TicketExpired
from gateway.messages import Answer
from gateway.stores.memory import MemoryStore
from gateway.testing.channel import PLAIN
from gateway.testing.ledger import Crash, FragileStore
from gateway.wording import SENTENCES

from .conftest import PASSIVE, StartTalk, Talk

IDEMPOTENT = replace(PLAIN, idempotent=True)


async def died(talk: Talk) -> None:
    """The process is gone: nothing of it runs any more."""
    await talk.house.lanes.settle(talk.clock, 0)
    # The task that died with the simulated process reports its exception when it is collected. Now is a good time: should that happen
    # inside the parser of CPython 3.11 (which formats tracebacks with the parser), it trips over itself.
    gc.collect()


async def test_a_message_that_was_not_answered_is_answered_after_the_restart(start: StartTalk) -> None:
    first = await start()
    first.backend.hold()
    await first.channel.say("hello", id="m")
    await first.clock.settle()
    await died(first)

    second = await start(store=first.store, clock=first.clock)
    assert await second.house.dispatch.resume() == 1
    assert await second.channel.wait_for(1) == ["ANS:hello"]
    assert await second.outcome("m") == ("answered", "")


async def test_an_answer_that_was_made_is_shown_and_not_made_again(start: StartTalk) -> None:
    first = await start()
    first.backend.hold()
    await first.channel.say("hello", id="m")
    await first.clock.settle()
    (record,) = await first.store.ledger.find("m")
    await first.store.ledger.answered(record.key, Answer("made before", ("made before",)), "gpt", first.clock.now())
    await died(first)

    second = await start(store=first.store, clock=first.clock)
    await second.house.dispatch.resume()
    assert await second.channel.wait_for(1) == ["made before"]
    assert second.backend.prompts == []


@pytest.mark.parametrize(
    ("limits", "answering", "shown", "outcome"),
    [
        (PLAIN, {}, [], "unknown"),
        (PLAIN, {"on_unknown": "resend"}, ["two", "three"], "answered"),
        (IDEMPOTENT, {}, ["two", "three"], "answered"),
    ],
)
async def test_a_piece_that_was_on_its_way_is_repeated_only_where_that_cannot_show_it_twice(
    start: StartTalk, limits: ChannelLimits, answering: dict, shown: list[str], outcome: str
) -> None:
    first = await start()
    first.backend.hold()
    await first.channel.say("hello", id="m")
    await first.clock.settle()
    (record,) = await first.store.ledger.find("m")
    await first.store.ledger.answered(record.key, Answer("one two three", ("one", "two", "three")), "gpt", first.clock.now())
    await first.store.ledger.showing(record.key, 0)
    await first.store.ledger.shown(record.key, 1)
    await first.store.ledger.showing(record.key, 1)
    await died(first)

    second = await start(store=first.store, clock=first.clock, limits=limits, answering=answering)
    await second.house.dispatch.resume()
    assert (await second.outcome("m"))[0] == outcome
    assert second.channel.texts == shown


async def test_a_message_that_is_too_old_is_not_answered_hours_later(start: StartTalk) -> None:
    first = await start()
    first.backend.hold()
    await first.channel.say("hello", id="m")
    await first.clock.settle()
    await died(first)
    await first.clock.advance(601)

    second = await start(store=first.store, clock=first.clock)
    await second.house.dispatch.resume()
    assert await second.outcome("m") == ("expired", "too old when the gateway came back")
    assert second.channel.shown == []


async def test_old_messages_keep_their_place_before_new_ones(start: StartTalk) -> None:
    first = await start()
    first.backend.hold()
    for text in ("one", "two"):
        await first.channel.say(text)
    await first.clock.settle()
    await died(first)

    second = await start(store=first.store, clock=first.clock)
    await second.house.dispatch.resume()
    await second.channel.say("three")
    assert await second.channel.wait_for(3) == ["ANS:one", "ANS:two", "ANS:three"]


@pytest.mark.parametrize(
    "call", ["ledger.accept", "ledger.answering", "ledger.answered", "ledger.showing", "ledger.shown", "ledger.closed", "sessions.save"]
)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("limits", [PLAIN, IDEMPOTENT], ids=["plain", "idempotent"])
async def test_dying_at_any_step_loses_nothing_and_doubles_only_what_is_said(
    start: StartTalk, call: str, when: str, limits: ChannelLimits
) -> None:
    """Every named point of a turn: what was accepted ends in an outcome; without idempotent sends nothing is shown twice."""
    inner = MemoryStore()
    fragile = FragileStore(inner)
    first = await start(store=fragile, limits=limits)
    fragile.faults.crash(call, when=when)  # type: ignore[arg-type]
    accepted = True
    try:
        await first.channel.say("hello", id="m")
    except Crash:  # the simulated death also reaches the channel when it strikes inside accept
        accepted = when == "after"
    await first.clock.settle()
    shown_before = len(first.channel.shown)
    await died(first)

    second = await start(store=inner, clock=first.clock, limits=limits)
    await second.house.dispatch.resume()
    await second.clock.settle()
    if not accepted:
        await second.channel.say("hello", id="m")
        await second.clock.settle()

    kind, _ = await second.outcome("m")
    shown = shown_before + len(second.channel.shown)
    assert kind in ("answered", "unknown")
    if limits.idempotent:
        assert kind == "answered"
        assert shown >= 1
        assert {outbound.key for outbound in first.channel.shown} | {outbound.key for outbound in second.channel.shown} == {
            (first.channel.shown + second.channel.shown)[0].key
        }
    else:
        assert shown <= 1
        assert shown == 1 or kind == "unknown"


async def test_what_cannot_be_written_is_not_acknowledged(start: StartTalk) -> None:
    fragile = FragileStore(MemoryStore())
    talk = await start(store=fragile)
    fragile.faults.down = True
    with pytest.raises(StoreUnavailable):
        await talk.channel.say("hello", id="m")

    fragile.faults.down = False
    assert await talk.ask("hello", id="m") == "ANS:hello"


async def test_a_store_that_fails_in_the_middle_is_not_silence(start: StartTalk) -> None:
    inner = MemoryStore()
    fragile = FragileStore(inner)
    talk = await start(store=fragile)
    fragile.faults.fail("ledger.answered", times=1000)
    await talk.channel.say("你好", id="m")
    await talk.clock.advance(650)

    assert talk.channel.texts == [SENTENCES["store_failed"].zh]
    second = await start(store=inner, clock=talk.clock, answering={"max_replay_age_s": 5000})
    await second.house.dispatch.resume()
    assert await second.channel.wait_for(1) == ["ANS:你好"]


@pytest.mark.parametrize(("on_its_way", "outcome"), [(True, "unknown"), (False, "answered")])
async def test_a_reply_that_may_have_been_seen_is_not_parked_to_be_seen_again(start: StartTalk, on_its_way: bool, outcome: str) -> None:
    """An official account: the process died when the reply was on its way, or before; the platform never asked again."""
    channels = {"o": {"kind": "official_account", "app_id": "wx", "token": "abc"}}
    first = await start(limits=PASSIVE, channels=channels)
    first.backend.hold()
    await first.channel.say("hello", id="m")
    await first.clock.settle()
    (record,) = await first.store.ledger.find("m")
    await first.store.ledger.answered(record.key, Answer("made", ("made",)), "gpt", first.clock.now())
    if on_its_way:
        await first.store.ledger.showing(record.key, 0)
    await died(first)

    second = await start(store=first.store, clock=first.clock, limits=PASSIVE, channels=channels)
    second.channel.errors.append(TicketExpired("nobody waits"))
    await second.house.dispatch.resume()
    assert (await second.outcome("m"))[0] == outcome
    await second.channel.say("继续")
    await second.clock.settle()
    assert second.channel.texts == (["ANS:继续"] if on_its_way else ["made"])
