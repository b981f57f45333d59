"""What the mailboxes of a store promise to several processes; two stores on one server stand for two processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis_server import a_prefix, shared_url
from store_factories import NOON, a_message, after

from gateway.errors import LeaseLost, StoreError
from gateway.messages import Answer, Inbound, Outcome, OutcomeKind
from gateway.sessions.session import new_session
from gateway.stores.base import Lined, Mailboxes, Store, TurnState
from gateway.stores.redis import RedisStore

LANE = "dingtalk/bot/person/王 wang"
DONE = Outcome(OutcomeKind.ANSWERED)
ANSWER = Answer("hello", ("hello",))
LEASE_S = 0.75
CHANNELS = ("dingtalk",)

Open = Callable[..., Awaitable[Store]]


async def _redis(**settings: object) -> Store:
    return await RedisStore.open(shared_url(), **settings)  # type: ignore[arg-type]


SHARED_STORES: dict[str, Open] = {"redis": _redis}


@pytest.fixture(params=SHARED_STORES)
async def open_store(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Opens one more process on the store of this test."""
    prefix, stores = a_prefix(), []

    async def another(**settings: object) -> Store:
        store = await SHARED_STORES[request.param](**{"prefix": prefix, "lease_s": LEASE_S, **settings})
        stores.append(store)
        return store

    yield another
    await asyncio.gather(*(store.aclose() for store in stores))


def boxes(store: Store) -> Mailboxes:
    assert store.mailboxes is not None
    return store.mailboxes


async def line_up(store: Store, *ids: str, lane: str = LANE, per_lane: int = 20, total: int = 100, **message: str) -> list[Lined]:
    return [await boxes(store).accept(a_message(id, **message), lane, NOON, per_lane=per_lane, total=total) for id in ids]


async def finish(store: Store, id: str, lane: str = LANE) -> str | None:
    """Close the turn and take it out; returns the id of the next."""
    key = a_message(id).key
    await store.ledger.closed(key, DONE, NOON)
    record = await boxes(store).done(lane, key)
    return None if record is None else record.key.message


async def die(store: Store) -> None:
    """Stop renewing, as a dead process does, and close nothing properly."""
    assert isinstance(store, RedisStore)
    await store.mailboxes.aclose()


async def adopted(store: Store, channels: tuple[str, ...] = CHANNELS, within_s: float = 5.0) -> list[str]:
    """What `adopt` finds first, looking when the store says it may be worth it."""
    async with asyncio.timeout(within_s):
        while not (lanes := await boxes(store).adopt(channels)):  # noqa: ASYNC110 (the server decides when)
            await asyncio.sleep(min(await boxes(store).adoptable_in() or 0.05, 0.05))
        return lanes


async def test_the_first_message_of_a_free_lane_is_mine_and_later_ones_wait_behind_it(open_store: Open) -> None:
    store = await open_store()

    lined = await line_up(store, "m1", "m2", "m3")

    assert lined == [Lined(mine=True), Lined(ahead=1), Lined(ahead=2)]
    assert [await finish(store, id) for id in ("m1", "m2", "m3")] == ["m2", "m3", None]


async def test_what_another_process_accepts_waits_for_the_holder_in_order(open_store: Open) -> None:
    holder, other = await open_store(), await open_store()
    await line_up(holder, "m1")

    lined = await line_up(other, "m2") + await line_up(holder, "m3") + await line_up(other, "m4")

    assert lined == [Lined(ahead=1), Lined(ahead=2), Lined(ahead=3)]
    assert [await finish(holder, id) for id in ("m1", "m2", "m3", "m4")] == ["m2", "m3", "m4", None]


async def test_an_empty_mailbox_gives_its_lease_back(open_store: Open) -> None:
    one, other = await open_store(), await open_store()
    await line_up(one, "m1")
    await finish(one, "m1")

    assert await line_up(other, "m2") == [Lined(mine=True)]


async def test_of_many_messages_at_once_from_all_processes_one_gets_the_lane(open_store: Open) -> None:
    one, other = await open_store(), await open_store()

    lined = await asyncio.gather(*(line_up([one, other][number % 2], f"m{number}") for number in range(20)))

    assert sorted(each.ahead for [each] in lined) == list(range(20))
    assert [each.mine for [each] in lined].count(True) == 1


async def test_conversations_stand_beside_each_other(open_store: Open) -> None:
    one, other = await open_store(), await open_store()

    assert await line_up(one, "m1", lane="a") + await line_up(other, "m2", lane="b") == [Lined(mine=True), Lined(mine=True)]
    assert await boxes(one).waiting() == 2


async def test_a_message_known_to_another_process_changes_nothing(open_store: Open) -> None:
    one, other = await open_store(), await open_store()
    await line_up(one, "m1")
    await one.ledger.answered(a_message("m1").key, ANSWER, "gpt", after(1))

    [again] = await line_up(other, "m1")

    assert again.known is not None
    assert (again.known.inbound, again.known.answer, again.mine) == (a_message("m1"), ANSWER, False)
    assert await boxes(one).waiting() == 1


async def test_of_one_message_delivered_to_all_processes_at_once_one_is_accepted(open_store: Open) -> None:
    stores = [await open_store() for _ in range(3)]

    lined = await asyncio.gather(*(line_up(stores[number % 3], "m1") for number in range(30)))

    assert [each for [each] in lined if each.known is None] == [Lined(mine=True)]


async def test_a_full_lane_takes_no_more_but_the_ledger_has_the_message(open_store: Open) -> None:
    store = await open_store()

    lined = await line_up(store, "m0", "m1", "m2", "m3", per_lane=2)

    assert [each.full for each in lined] == [False, False, False, True]
    assert len(await store.ledger.find("m3")) == 1
    assert await boxes(store).waiting() == 3
    assert await line_up(store, "other", lane="other", per_lane=2) == [Lined(mine=True)]


async def test_a_full_store_takes_no_more_and_the_room_comes_back(open_store: Open) -> None:
    store, other = await open_store(), await open_store()
    await line_up(store, "m0", lane="a", total=2)
    await line_up(other, "m1", lane="b", total=2)

    assert (await line_up(store, "m2", lane="c", total=2))[0].full
    assert (await line_up(store, "m3", lane="a", total=2))[0].full

    await finish(other, "m1", lane="b")
    assert await line_up(store, "m4", lane="c", total=2) == [Lined(mine=True)]


async def test_a_refused_message_whose_process_dies_is_lined_up_after_all(open_store: Open) -> None:
    dying, other = await open_store(), await open_store()
    await line_up(dying, "m1", "m2", "m3", per_lane=1)
    await finish(dying, "m1")
    await finish(dying, "m2")
    await die(dying)

    assert await adopted(other) == [LANE]
    record = await boxes(other).head(LANE)
    assert record is not None
    assert record.key.message == "m3"


async def test_a_refused_message_that_was_closed_stays_closed(open_store: Open) -> None:
    store, other = await open_store(), await open_store()
    await line_up(store, "m1", "m2", per_lane=0)
    await store.ledger.closed(a_message("m2").key, Outcome(OutcomeKind.REFUSED), NOON)
    await finish(store, "m1")

    await asyncio.sleep(1.5 * LEASE_S)

    assert await boxes(other).adopt(CHANNELS) == []


async def test_a_dead_holders_lane_is_adopted_when_its_lease_ends_and_not_before(open_store: Open) -> None:
    dying, other = await open_store(), await open_store()
    await line_up(dying, "m1", "m2")
    await dying.ledger.answered(a_message("m1").key, ANSWER, "gpt", NOON)
    await die(dying)

    assert await boxes(other).adopt(CHANNELS) == []
    wait_s = await boxes(other).adoptable_in()
    assert wait_s is not None
    assert 0 < wait_s <= LEASE_S

    assert await adopted(other) == [LANE]
    record = await boxes(other).head(LANE)
    assert record is not None
    assert (record.key.message, record.state, record.answer) == ("m1", TurnState.ANSWERED, ANSWER)
    assert [await finish(other, id) for id in ("m1", "m2")] == ["m2", None]


async def test_an_orphan_is_adopted_by_one_process(open_store: Open) -> None:
    dying, *others = [await open_store() for _ in range(4)]
    for number in range(10):
        await line_up(dying, f"m{number}", lane=f"lane {number}")
    await die(dying)
    await asyncio.sleep(1.2 * LEASE_S)

    found = await asyncio.gather(*(boxes(store).adopt(CHANNELS) for store in others))

    assert sorted(lane for lanes in found for lane in lanes) == [f"lane {number}" for number in range(10)]


async def test_adopt_takes_at_most_so_many(open_store: Open) -> None:
    dying, other = await open_store(), await open_store()
    for number in range(5):
        await line_up(dying, f"m{number}", lane=f"lane {number}")
    await die(dying)
    await asyncio.sleep(1.2 * LEASE_S)

    assert [len(await boxes(other).adopt(CHANNELS, limit=2)) for _ in range(4)] == [2, 2, 1, 0]


async def test_a_process_adopts_only_what_it_can_show(open_store: Open) -> None:
    dying, other = await open_store(), await open_store()
    await line_up(dying, "m1", lane="wechat lane", channel="wechat")
    await line_up(dying, "m2", lane="dingtalk lane")
    await die(dying)

    assert await adopted(other) == ["dingtalk lane"]
    assert await boxes(other).adopt(CHANNELS) == []
    assert await boxes(other).adoptable_in() is None
    assert await boxes(other).adopt(["wechat", "dingtalk"]) == ["wechat lane"]


async def test_every_write_of_a_holder_who_lost_its_lease_is_refused(open_store: Open) -> None:
    stale, other = await open_store(), await open_store()
    key = a_message("m1").key
    await line_up(stale, "m1")
    await die(stale)
    await adopted(other)
    await boxes(other).head(LANE)

    for write in (
        lambda: stale.ledger.answered(key, ANSWER, "gpt", NOON),
        lambda: stale.ledger.showing(key, 0),
        lambda: stale.ledger.shown(key, 1),
        lambda: stale.ledger.closed(key, DONE, NOON),
        lambda: boxes(stale).done(LANE, key),
        lambda: boxes(stale).head(LANE),
    ):
        with pytest.raises(LeaseLost):
            await write()

    [record] = await other.ledger.find("m1")
    assert record.state is TurnState.ACCEPTED
    assert await finish(other, "m1") is None
    with pytest.raises(LeaseLost):
        await stale.ledger.answered(key, ANSWER, "gpt", NOON)


async def test_a_lost_lease_is_reported_once(open_store: Open) -> None:
    stale, other = await open_store(), await open_store()
    await line_up(stale, "m1")
    await die(stale)
    await adopted(other)

    for _ in range(2):
        with pytest.raises(LeaseLost):
            await stale.ledger.answered(a_message("m1").key, ANSWER, "gpt", NOON)

    async with asyncio.timeout(1):
        assert await boxes(stale).lost() == LANE
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await boxes(stale).lost()


async def test_a_process_that_was_held_up_hears_that_its_lease_is_lost(open_store: Open) -> None:
    held_up, other = await open_store(), await open_store()
    await line_up(held_up, "m1")
    await die(held_up)
    await adopted(other)

    assert await boxes(held_up).adopt(CHANNELS) == []  # renews what it believes to hold

    async with asyncio.timeout(1):
        assert await boxes(held_up).lost() == LANE


async def test_a_lease_is_renewed_while_its_holder_works_for_long(open_store: Open) -> None:
    holder, other = await open_store(), await open_store()
    await line_up(holder, "m1")

    for _ in range(10):
        await asyncio.sleep(0.3 * LEASE_S)
        assert await boxes(other).adopt(CHANNELS) == []

    assert await finish(holder, "m1") is None


async def test_a_lane_that_is_handed_back_is_adopted_at_once_with_what_waits(open_store: Open) -> None:
    stopping, other = await open_store(lease_s=60), await open_store(lease_s=60)
    await line_up(stopping, "m1", "m2", "m3")
    await finish(stopping, "m1")

    await boxes(stopping).hand_back(LANE)

    assert await boxes(other).adoptable_in() == 0
    assert await boxes(other).adopt(CHANNELS) == [LANE]
    assert [await finish(other, id) for id in ("m2", "m3")] == ["m3", None]
    with pytest.raises(LeaseLost):
        await stopping.ledger.answered(a_message("m1").key, ANSWER, "gpt", NOON)


async def test_a_message_for_a_lane_that_was_handed_back_waits_its_turn(open_store: Open) -> None:
    stopping, other = await open_store(), await open_store()
    await line_up(stopping, "m1")
    await boxes(stopping).hand_back(LANE)

    assert await line_up(other, "m2") == [Lined(ahead=1)]
    assert await boxes(other).adopt(CHANNELS) == [LANE]
    assert [await finish(other, id) for id in ("m1", "m2")] == ["m2", None]


async def test_nothing_is_adoptable_when_others_hold_nothing(open_store: Open) -> None:
    store = await open_store()
    assert await boxes(store).adoptable_in() is None
    await line_up(store, "m1")
    assert await boxes(store).adoptable_in() is None


async def test_a_turn_that_ends_its_workers_is_given_up_and_the_next_one_goes_on(open_store: Open) -> None:
    first = await open_store()
    await line_up(first, "poison", "m2")
    await die(first)
    for _ in range(2):
        store = await open_store(max_adoptions=2)
        assert await adopted(store) == [LANE]
        await die(store)
    last = await open_store(max_adoptions=2)

    assert await adopted(last) == [LANE]

    record = await boxes(last).head(LANE)
    assert record is not None
    assert record.key.message == "m2"
    [dead] = await last.ledger.find("poison")
    assert (dead.state, dead.outcome and dead.outcome.kind, dead.outcome and dead.outcome.reason) == (
        TurnState.CLOSED,
        OutcomeKind.FAILED,
        "dead letter",
    )
    assert [found.key for found in await last.ledger.latest(outcome="failed")] == [dead.key]
    assert await boxes(last).waiting() == 1


async def test_handing_back_is_nobodys_death(open_store: Open) -> None:
    store = await open_store(max_adoptions=1, lease_s=60)
    await line_up(store, "m1")

    for _ in range(5):
        await boxes(store).hand_back(LANE)
        assert await boxes(store).adopt(CHANNELS) == [LANE]

    assert (await boxes(store).head(LANE)) is not None


async def test_a_turn_that_was_closed_before_its_holder_died_is_not_given_to_anybody(open_store: Open) -> None:
    dying, other = await open_store(), await open_store()
    await line_up(dying, "m1")
    await dying.ledger.closed(a_message("m1").key, DONE, NOON)
    await die(dying)

    await asyncio.sleep(1.2 * LEASE_S)

    assert await boxes(other).adopt(CHANNELS) == []
    assert await boxes(other).waiting() == 0
    assert await line_up(other, "m2") == [Lined(mine=True)]


async def test_a_turn_that_is_not_closed_does_not_leave_its_mailbox(open_store: Open) -> None:
    store, other = await open_store(), await open_store()
    await line_up(store, "m1")

    with pytest.raises(StoreError, match="not closed"):
        await boxes(store).done(LANE, a_message("m1").key)

    assert await adopted(other) == [LANE]
    assert await finish(other, "m1") is None


async def test_a_session_is_not_saved_by_a_process_that_lost_its_lane(open_store: Open) -> None:
    stale, other = await open_store(), await open_store()
    session = new_session(LANE, a_message().address, a_message().ticket, NOON)
    await line_up(stale, "m1")
    await stale.sessions.save(session, after(60))
    await die(stale)
    await adopted(other)
    grown = session.said("question", "answer", NOON)
    await other.sessions.save(grown, after(60))

    for _ in range(2):
        with pytest.raises(LeaseLost):
            await stale.sessions.save(session, after(60))

    assert await other.sessions.load(LANE) == grown


async def test_a_session_whose_lane_is_busy_does_not_end(open_store: Open) -> None:
    store, other = await open_store(), await open_store()
    session = new_session(LANE, a_message().address, a_message().ticket, NOON)
    await line_up(store, "m1")
    await store.sessions.save(session, after(10))

    assert await other.sessions.take_ended(LANE, after(20)) is None
    await finish(store, "m1")
    taken = await asyncio.gather(*(each.sessions.take_ended(LANE, after(20)) for each in (store, other) * 5))
    assert [each for each in taken if each is not None] == [session]


async def test_many_conversations_worked_by_two_processes_stay_in_order(open_store: Open) -> None:
    stores = [await open_store(lease_s=10), await open_store(lease_s=10)]
    worked: dict[str, list[str]] = {}

    async def hear(number: int) -> None:
        lane, store = f"lane {number % 30}", stores[number // 7 % 2]
        [lined] = await line_up(store, f"m{number:04d}", lane=lane, total=10_000)
        id: str | None = f"m{number:04d}"
        while lined.mine and id is not None:
            worked.setdefault(lane, []).append(id)
            await store.ledger.answered(a_message(id).key, ANSWER, "echo", NOON)
            id = await finish(store, id, lane)

    for start in range(0, 600, 60):
        await asyncio.gather(*(hear(number) for number in range(start, start + 60)))

    assert sum(map(len, worked.values())) == 600
    accepted = [record.key.message for record in reversed(await stores[0].ledger.latest(limit=1000))]
    assert all(ids == sorted(ids, key=accepted.index) for ids in worked.values())
    assert await boxes(stores[0]).waiting() == 0
    assert await stores[0].ledger.unfinished() == []


@pytest.mark.parametrize("lane", ["", "a/b%2F😀", "torn \ud83d", "nul \0"])
async def test_any_name_of_a_lane_works(open_store: Open, lane: str) -> None:
    one, other = await open_store(lease_s=60), await open_store()
    message: Inbound = a_message("m1")
    await line_up(one, "m1", "m2", lane=lane)
    await one.ledger.closed(message.key, DONE, NOON)
    record = await boxes(one).done(lane, message.key)
    assert record is not None

    await boxes(one).hand_back(lane)

    assert await boxes(other).adopt(CHANNELS) == [lane]
