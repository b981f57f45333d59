"""What every ledger promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_factories import NOON, STORES, a_message, after

from gateway.errors import StoreError
from gateway.messages import Answer, Outcome, OutcomeKind, TurnKey
from gateway.stores.base import Ledger, Store, TurnRecord, TurnState

ANSWER = Answer("**你好** 😀", ("你好", "再见"))
DONE = Outcome(OutcomeKind.ANSWERED)
TORN = "torn \ud83d emoji"
"""Half of a surrogate pair, as broken clients and broken model streams send it."""


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store = await STORES[request.param](tmp_path)
    yield store
    await store.aclose()


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return store.ledger


async def the_turn(ledger: Ledger, message: str = "m1") -> TurnRecord:
    [record] = await ledger.find(message)
    return record


async def test_a_new_message_is_accepted_with_all_it_carries(ledger: Ledger) -> None:
    message = a_message()

    assert await ledger.accept(message, NOON) is None

    record = await the_turn(ledger)
    assert record == TurnRecord(key=message.key, inbound=message, state=TurnState.ACCEPTED, accepted_at=NOON)


async def test_a_known_message_is_not_accepted_again_and_its_record_comes_back(ledger: Ledger) -> None:
    await ledger.accept(a_message(), NOON)

    known = await ledger.accept(a_message(text="the same id, other words"), after(5))

    assert known == await the_turn(ledger)
    assert known is not None
    assert known.inbound == a_message()
    assert known.accepted_at == NOON


async def test_the_same_id_on_another_channel_or_account_is_another_message(ledger: Ledger) -> None:
    for channel, account in (("dingtalk", "a"), ("dingtalk", "b"), ("wechat", "a")):
        assert await ledger.accept(a_message(channel=channel, account=account), NOON) is None

    assert [record.key for record in await ledger.find("m1")] == [
        TurnKey("dingtalk", "a", "m1"),
        TurnKey("dingtalk", "b", "m1"),
        TurnKey("wechat", "a", "m1"),
    ]


async def test_of_many_deliveries_at_once_one_is_accepted(ledger: Ledger) -> None:
    results = await asyncio.gather(*(ledger.accept(a_message(), NOON) for _ in range(50)))

    assert results.count(None) == 1
    assert len(await ledger.find("m1")) == 1


async def test_a_turn_goes_through_its_states(ledger: Ledger) -> None:
    key = a_message().key
    await ledger.accept(a_message(), NOON)

    await ledger.answering(key)
    assert (await the_turn(ledger)).state is TurnState.ANSWERING

    await ledger.answered(key, ANSWER, "gpt", after(2))
    record = await the_turn(ledger)
    assert (record.state, record.answer, record.answered_by, record.answered_at) == (TurnState.ANSWERED, ANSWER, "gpt", after(2))

    await ledger.showing(key, 0)
    assert ((await the_turn(ledger)).state, (await the_turn(ledger)).shown) == (TurnState.SHOWING, 0)

    await ledger.shown(key, 1)
    assert ((await the_turn(ledger)).state, (await the_turn(ledger)).shown) == (TurnState.ANSWERED, 1)

    await ledger.showing(key, 1)
    assert ((await the_turn(ledger)).state, (await the_turn(ledger)).shown) == (TurnState.SHOWING, 1)

    await ledger.shown(key, 2)
    await ledger.closed(key, DONE, after(3))
    record = await the_turn(ledger)
    assert (record.state, record.shown, record.outcome, record.closed_at) == (TurnState.CLOSED, 2, DONE, after(3))
    assert (record.inbound, record.answer) == (a_message(), ANSWER)


async def test_the_first_outcome_stays_and_nothing_changes_a_closed_turn(ledger: Ledger) -> None:
    key = a_message().key
    await ledger.accept(a_message(), NOON)
    refused = Outcome(OutcomeKind.REFUSED, "stopped", "by the person")
    await ledger.closed(key, refused, after(1))
    before = await the_turn(ledger)

    await ledger.closed(key, DONE, after(2))
    await ledger.answering(key)
    await ledger.answered(key, ANSWER, "gpt", after(2))
    await ledger.showing(key, 0)
    await ledger.shown(key, 1)

    assert await the_turn(ledger) == before
    assert before.outcome == refused


async def test_writes_about_an_unknown_turn_change_nothing(ledger: Ledger) -> None:
    key = TurnKey("dingtalk", "bot", "never seen")

    await ledger.answering(key)
    await ledger.answered(key, ANSWER, "gpt", NOON)
    await ledger.shown(key, 1)
    await ledger.closed(key, DONE, NOON)

    assert await ledger.latest() == []


async def test_unfinished_lists_what_is_not_closed_oldest_first(ledger: Ledger) -> None:
    for number in range(5):
        await ledger.accept(a_message(f"m{number}"), after(number))
    await ledger.answering(a_message("m1").key)
    await ledger.answered(a_message("m2").key, ANSWER, "gpt", NOON)
    await ledger.showing(a_message("m3").key, 0)
    await ledger.closed(a_message("m0").key, DONE, NOON)

    unfinished = await ledger.unfinished()

    assert [(record.key.message, record.state) for record in unfinished] == [
        ("m1", TurnState.ANSWERING),
        ("m2", TurnState.ANSWERED),
        ("m3", TurnState.SHOWING),
        ("m4", TurnState.ACCEPTED),
    ]


async def test_latest_lists_the_newest_first_by_state_and_by_outcome(ledger: Ledger) -> None:
    for number in range(6):
        await ledger.accept(a_message(f"m{number}"), after(number))
    await ledger.closed(a_message("m0").key, DONE, NOON)
    await ledger.closed(a_message("m1").key, Outcome(OutcomeKind.UNKNOWN), NOON)
    await ledger.closed(a_message("m2").key, DONE, NOON)
    await ledger.answering(a_message("m3").key)

    def ids(records: list[TurnRecord]) -> list[str]:
        return [record.key.message for record in records]

    assert ids(await ledger.latest()) == ["m5", "m4", "m3", "m2", "m1", "m0"]
    assert ids(await ledger.latest(limit=2)) == ["m5", "m4"]
    assert ids(await ledger.latest(state=TurnState.CLOSED)) == ["m2", "m1", "m0"]
    assert ids(await ledger.latest(state=TurnState.ACCEPTED)) == ["m5", "m4"]
    assert ids(await ledger.latest(state=TurnState.ANSWERING)) == ["m3"]
    assert ids(await ledger.latest(outcome="answered")) == ["m2", "m0"]
    assert ids(await ledger.latest(outcome="unknown")) == ["m1"]
    assert ids(await ledger.latest(state=TurnState.CLOSED, outcome="unknown")) == ["m1"]
    assert ids(await ledger.latest(state=TurnState.ACCEPTED, outcome="unknown")) == []
    assert ids(await ledger.latest(outcome="no such outcome")) == []


async def test_latest_of_finds_the_newest_turn_of_one_person(ledger: Ledger) -> None:
    await ledger.accept(a_message("m1", sender="wang"), NOON)
    await ledger.accept(a_message("m2", sender="li"), NOON)
    await ledger.accept(a_message("m3", sender="wang", channel="wechat"), NOON)
    await ledger.accept(a_message("m4", sender="wang"), NOON)
    await ledger.accept(a_message("m5", sender="wang"), NOON)

    newest = await ledger.latest_of("dingtalk", "bot", "wang")
    older = await ledger.latest_of("dingtalk", "bot", "wang", before=a_message("m4").key)

    assert newest is not None
    assert newest.key.message == "m5"
    assert older is not None
    assert older.key.message == "m1"
    assert await ledger.latest_of("dingtalk", "bot", "wang", before=a_message("m1").key) is None
    assert await ledger.latest_of("dingtalk", "bot", "nobody") is None
    assert await ledger.latest_of("dingtalk", "bot", "wang", before=a_message("unknown").key) == newest


@pytest.mark.parametrize("text", ["", TORN, "nul \0 inside", "x" * 100_000, "'; DROP TABLE turns; --", "\u202e反\u2066"])
async def test_any_text_is_kept_as_it_came(ledger: Ledger, text: str) -> None:
    message = a_message(id=f"id {text[:20]}", sender=text[:50], text=text)
    await ledger.accept(message, NOON)
    await ledger.answered(message.key, Answer(text, (text,)), text, NOON)
    await ledger.closed(message.key, Outcome(OutcomeKind.FAILED, text, text), NOON)

    [record] = await ledger.find(message.id)

    assert record.inbound == message
    assert record.answer == Answer(text, (text,))
    assert record.outcome == Outcome(OutcomeKind.FAILED, text, text)
    assert await ledger.accept(message, NOON) == record
    assert await ledger.latest_of("dingtalk", "bot", text[:50]) == record


async def test_prune_forgets_old_closed_turns_in_small_batches(ledger: Ledger) -> None:
    for number in range(10):
        await ledger.accept(a_message(f"m{number}"), after(number))
        if number != 1:
            await ledger.closed(a_message(f"m{number}").key, DONE, after(number))

    forgotten = []
    while count := await ledger.prune(after(6), limit=3):
        forgotten.append(count)

    assert forgotten == [2, 2, 1]
    assert [record.key.message for record in await ledger.latest()] == ["m9", "m8", "m7", "m6", "m1"]
    assert [record.key.message for record in await ledger.unfinished()] == ["m1"]


async def test_a_forgotten_message_is_accepted_again(ledger: Ledger) -> None:
    await ledger.accept(a_message(), NOON)
    await ledger.closed(a_message().key, DONE, NOON)
    await ledger.prune(after(1))

    assert await ledger.accept(a_message(), after(2)) is None


async def test_writes_of_many_turns_at_once_do_not_mix(ledger: Ledger) -> None:
    async def turn(number: int) -> None:
        message = a_message(f"m{number}", text=f"question {number}")
        await ledger.accept(message, NOON)
        await ledger.answering(message.key)
        await ledger.answered(message.key, Answer(f"answer {number}", (f"answer {number}",)), "echo", NOON)
        await ledger.closed(message.key, DONE, NOON)

    await asyncio.gather(*(turn(number) for number in range(200)))

    records = await ledger.latest(limit=1000)
    assert {record.key.message: record.answer and record.answer.text for record in records} == {f"m{n}": f"answer {n}" for n in range(200)}
    assert await ledger.unfinished() == []


async def test_a_caller_that_gives_up_harms_nobody(ledger: Ledger) -> None:
    leaving = asyncio.ensure_future(ledger.accept(a_message("m1"), NOON))
    staying = asyncio.ensure_future(ledger.accept(a_message("m2"), NOON))
    await asyncio.sleep(0)
    leaving.cancel()

    assert await staying is None
    assert len(await ledger.find("m2")) == 1


async def test_ping_proves_that_the_store_works(store: Store) -> None:
    await store.ping()
    await store.ping()


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.ledger.accept(a_message(), NOON)
    await store.aclose()

    for use in (
        lambda: store.ledger.accept(a_message("m2"), NOON),
        lambda: store.ledger.answering(a_message().key),
        lambda: store.ledger.closed(a_message().key, DONE, NOON),
        lambda: store.ledger.find("m1"),
        lambda: store.sessions.load("key"),
        lambda: store.shelf.get("name", NOON),
        store.ping,
    ):
        with pytest.raises(StoreError, match="closed"):
            await use()


async def test_closing_twice_is_harmless(store: Store) -> None:
    await asyncio.gather(store.aclose(), store.aclose())
    await store.aclose()
