"""What the watches call trouble, and what they do not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.checkup import Health
from gateway.clock import Clock
from gateway.errors import LeaseLost, StoreUnavailable
from gateway.messages import Address, Answer, Inbound, Outcome, OutcomeKind, Text
from gateway.stores.memory import MemoryStore
from gateway.testing.channel import LoopbackChannel
from gateway.testing.clock import ManualClock
from gateway.testing.ledger import FragileStore
from gateway.watch.guard import stand_guard
from gateway.watch.hearing import HearingWatch
from gateway.watch.metrics import Metrics
from gateway.watch.outcomes import OutcomeWatch
from gateway.watch.pulse import Pulse
from gateway.watch.silence import WINDOW_S, SilenceWatch
from gateway.watch.storage import StoreWatch
from gateway.watch.trouble import GATEWAY, Trouble, TroubleKind, Troubles, Watch
from gateway.watch.work import WatchedLedger, WorkWatch
from gateway.wording import SENTENCES, say

ANSWERED = Outcome(OutcomeKind.ANSWERED)
FAILED = Outcome(OutcomeKind.FAILED, "BackendTimeout")


class MoodyChannel(LoopbackChannel):
    """Says of its health what the test wants."""

    mood = Health(True)

    def health(self) -> Health:
        return self.mood


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def channel(clock: Clock) -> MoodyChannel:
    return MoodyChannel(clock, name="shop")


def a_message(id: str) -> Inbound:
    address = Address(channel="shop", account="bot", chat="wang", sender="wang")
    return Inbound(id=id, address=address, parts=(Text("hi"),), sent_at=datetime(2026, 1, 5, tzinfo=UTC))


async def kinds(watch: Watch) -> list[TroubleKind]:
    return [trouble.kind for trouble in await watch.look()]


def a_trouble(kind: TroubleKind = TroubleKind.STUCK, *, since: datetime, cause: str = "") -> Trouble:
    return Trouble(kind=kind, part=GATEWAY, since=since, cause=cause, repair="")


# The book


def test_a_trouble_that_goes_on_keeps_its_beginning_and_takes_the_new_cause(clock: ManualClock) -> None:
    troubles = Troubles()
    troubles.replace([a_trouble(since=clock.now(), cause="one message")])

    opened, over = troubles.replace([a_trouble(since=clock.now() + timedelta(hours=1), cause="two messages")])

    assert (opened, over) == ([], [])
    assert [(trouble.since, trouble.cause) for trouble in troubles.open] == [(clock.now(), "two messages")]


def test_troubles_begin_and_end(clock: ManualClock) -> None:
    troubles = Troubles()
    stuck, jumped = a_trouble(since=clock.now()), a_trouble(TroubleKind.CLOCK_JUMPED, since=clock.now())

    assert troubles.replace([stuck]) == ([stuck], [])
    assert troubles.replace([jumped]) == ([jumped], [stuck])
    assert troubles.replace([]) == ([], [jumped])
    assert troubles.open == []


@pytest.mark.parametrize("kind", TroubleKind)
def test_every_trouble_has_its_sentences(kind: TroubleKind) -> None:
    for lang in ("zh", "en"):
        assert "{" not in say(f"trouble_{kind.value}", lang, part="shop") + say(f"help_{kind.value}", lang)
    assert SENTENCES[f"trouble_{kind.value}"].zh != SENTENCES[f"trouble_{kind.value}"].en


# Channels that cannot hear


async def test_a_channel_is_down_only_after_a_while_and_since_it_went_down(clock: ManualClock, channel: MoodyChannel) -> None:
    watch = HearingWatch(channels={"shop": channel}, clock=clock)
    channel.mood = Health(False, "connection refused")
    began = clock.now()

    assert await kinds(watch) == []
    await clock.advance(61)
    [trouble] = await watch.look()

    assert (trouble.kind, trouble.part, trouble.since) == (TroubleKind.CHANNEL_DOWN, "channel shop", began)
    assert trouble.cause == "connection refused"
    channel.mood = Health(True)
    assert await kinds(watch) == []


async def test_a_short_reconnect_is_no_trouble(clock: ManualClock, channel: MoodyChannel) -> None:
    watch = HearingWatch(channels={"shop": channel}, clock=clock)
    found: list[TroubleKind] = []

    for _ in range(12):
        for mood in (Health(False, "the connection is being replaced"), Health(True)):
            channel.mood = mood
            found += await kinds(watch)
        await clock.advance(1800)

    assert found == []


async def test_a_channel_that_falls_again_and_again_flaps(clock: ManualClock, channel: MoodyChannel) -> None:
    watch = HearingWatch(channels={"shop": channel}, clock=clock)

    for _ in range(4):
        for mood in (Health(False, "lost"), Health(True)):
            channel.mood = mood
            found = await kinds(watch)
            await clock.advance(30)

    assert found == [TroubleKind.CHANNEL_FLAPS]
    await clock.advance(600)
    assert await kinds(watch) == []


async def test_a_channel_that_waits_for_a_sign_in_needs_a_person(clock: ManualClock, channel: MoodyChannel) -> None:
    watch = HearingWatch(channels={"shop": channel}, clock=clock)
    channel.mood = Health(False, "needs sign-in: confirm on the phone")
    await watch.look()
    await clock.advance(60)

    assert await kinds(watch) == [TroubleKind.NEEDS_PERSON]


async def test_a_channel_that_gave_up_needs_a_person_at_once(clock: ManualClock, channel: MoodyChannel) -> None:
    watch = HearingWatch(channels={"shop": channel}, clock=clock)

    watch.gave_up("shop", "the client secret is wrong")
    [trouble] = await watch.look()

    assert (trouble.kind, trouble.cause) == (TroubleKind.NEEDS_PERSON, "the client secret is wrong")


async def test_a_channel_that_cannot_tell_its_health_is_not_well(clock: ManualClock, channel: MoodyChannel) -> None:
    class Broken(LoopbackChannel):
        def health(self) -> Health:
            raise RuntimeError("a bug")

    watch = HearingWatch(channels={"broken": Broken(clock), "shop": channel}, clock=clock)
    await watch.look()
    await clock.advance(60)

    assert [(trouble.part, trouble.kind) for trouble in await watch.look()] == [("channel broken", TroubleKind.CHANNEL_DOWN)]


# Channels that hear nothing


class Office:
    """Two channels in their working days: windows of five minutes, heard or not."""

    def __init__(self, clock: ManualClock, store: MemoryStore | None = None) -> None:
        self.clock = clock
        self.channels = {name: MoodyChannel(clock, name=name) for name in ("shop", "staff")}
        self.store = store or MemoryStore()
        self.watch = SilenceWatch(channels=self.channels, shelf=self.store.shelf, clock=clock, shared=True)

    async def windows(self, count: int, heard: Sequence[str] = (), *, every: int = 1) -> list[Trouble]:
        """`count` windows; in every `every`th of them the channels `heard` hear something. Returns the troubles at their end."""
        troubles: Sequence[Trouble] = []
        for number in range(count):
            if number % every == 0:
                for name in heard:
                    self.watch.heard(name)
            await self.clock.advance(WINDOW_S)
            troubles = await self.watch.look()
        return list(troubles)

    async def workdays(self, days: int, *, every: int = 1) -> None:
        """From nine to five both channels hear something, at night nothing."""
        for _ in range(days):
            assert await self.windows(8 * 12, ("shop", "staff"), every=every) == []
            assert await self.windows(16 * 12) == []


async def test_a_channel_that_falls_silent_at_a_busy_time_is_reported(clock: ManualClock) -> None:
    office = Office(clock)
    await office.workdays(3)
    await office.windows(12, ("shop", "staff"))

    assert await office.windows(8) == []
    troubles = await office.windows(4)

    assert {(trouble.part, trouble.kind) for trouble in troubles} == {
        ("channel shop", TroubleKind.SILENT),
        ("channel staff", TroubleKind.SILENT),
    }


async def test_silence_counts_double_while_another_channel_hears(clock: ManualClock) -> None:
    office = Office(clock)
    await office.workdays(3)
    await office.windows(12, ("shop", "staff"))

    troubles = await office.windows(7, ("staff",))

    assert [trouble.part for trouble in troubles] == ["channel shop"]
    assert await office.windows(1, ("shop",)) == []


async def test_nights_are_quiet_and_no_trouble(clock: ManualClock) -> None:
    await Office(clock).workdays(5)


async def test_a_channel_with_few_messages_is_given_more_time(clock: ManualClock) -> None:
    office = Office(clock)
    await office.workdays(4, every=6)

    assert await office.windows(4 * 12) == []


async def test_a_new_gateway_knows_no_rhythm_and_complains_about_nothing(clock: ManualClock) -> None:
    office = Office(clock)
    await office.windows(12, ("shop", "staff"))

    assert await office.windows(12 * 8) == []


async def test_a_channel_that_is_known_to_be_down_is_not_called_silent_too(clock: ManualClock) -> None:
    office = Office(clock)
    await office.workdays(3)
    office.channels["shop"].mood = Health(False, "down")

    assert [trouble.part for trouble in await office.windows(20, ("staff",))] == []


async def test_what_another_process_hears_is_no_silence(clock: ManualClock) -> None:
    store = MemoryStore()
    busy, idle = Office(clock, store), Office(clock, store)
    await busy.workdays(3)
    found: list[Trouble] = []

    for _ in range(36):
        busy.watch.heard("shop")
        busy.watch.heard("staff")
        await clock.advance(WINDOW_S)
        found += [*await busy.watch.look(), *await idle.watch.look()]

    assert found == []


async def test_the_rhythm_survives_a_restart(clock: ManualClock) -> None:
    before = Office(clock)
    await before.workdays(3)

    after = Office(clock, before.store)
    await after.windows(12, ("shop", "staff"))

    assert {trouble.part for trouble in await after.windows(12)} == {"channel shop", "channel staff"}


async def test_a_spoilt_rhythm_is_learned_anew(clock: ManualClock) -> None:
    store = MemoryStore()
    await store.shelf.put("watch/rhythm/shop", '{"shares": [1], "seen": "no"}', None)

    assert await Office(clock, store).windows(3) == []


# Outcomes


async def test_many_bad_ends_are_trouble_and_it_passes(clock: ManualClock) -> None:
    watch = OutcomeWatch(clock=clock)
    for _ in range(6):
        watch.closed(ANSWERED)
        watch.closed(FAILED)
        await clock.advance(20)

    [trouble] = await watch.look()

    assert trouble.cause == "6 of 12 messages went wrong in the last 10 minutes, most often: failed (BackendTimeout)"
    await clock.advance(700)
    assert await watch.look() == []


async def test_a_few_bad_ends_among_many_good_ones_are_no_trouble(clock: ManualClock) -> None:
    watch = OutcomeWatch(clock=clock)
    for number in range(100):
        watch.closed(FAILED if number % 10 == 0 else ANSWERED)

    assert await watch.look() == []


async def test_four_failures_at_night_wake_nobody(clock: ManualClock) -> None:
    watch = OutcomeWatch(clock=clock)
    for _ in range(4):
        watch.closed(FAILED)

    assert await watch.look() == []


# Pulse


class LateClock(ManualClock):
    """A machine whose loop stood still: more time went by than was slept."""

    late = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.late

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.late)


async def test_a_late_beat_is_a_blocked_loop_for_ten_minutes() -> None:
    clock = LateClock()
    pulse = Pulse(clock=clock)
    for late in (0.0, 0.9, 0.0, 1.5):
        await clock.advance(1)
        clock.late += late
        pulse.beat()
        found = await pulse.look()

    assert [(trouble.kind, "1.5 s (1 times" in trouble.cause) for trouble in found] == [(TroubleKind.BLOCKED, True)]
    await clock.advance(601)
    pulse.skip()
    assert await pulse.look() == []


@pytest.mark.parametrize("jump", [3600, -3600])
async def test_a_clock_that_jumps_is_noticed(clock: ManualClock, jump: float) -> None:
    pulse = Pulse(clock=clock)
    await clock.advance(1)
    clock.jump(jump)
    pulse.beat()

    [trouble] = await pulse.look()

    assert (trouble.kind, f"{jump:+d} s" in trouble.cause) == (TroubleKind.CLOCK_JUMPED, True)


async def test_a_clock_that_is_set_a_little_is_no_trouble(clock: ManualClock) -> None:
    pulse = Pulse(clock=clock)
    await clock.advance(1)
    clock.jump(2)
    pulse.beat()

    assert await pulse.look() == []


# Work in hand


async def test_turns_are_counted_by_state_until_they_are_closed(clock: ManualClock) -> None:
    ledger = WatchedLedger(MemoryStore().ledger, clock=clock)
    for id in ("m1", "m2", "m3"):
        await ledger.accept(a_message(id), clock.now())
    await clock.advance(30)

    await ledger.answering(a_message("m2").key)
    await ledger.closed(a_message("m3").key, ANSWERED, clock.now())
    await ledger.accept(a_message("m3"), clock.now())

    assert ledger.states() == {"accepted": 1, "answering": 1, "answered": 0, "showing": 0}
    assert ledger.oldest_waiting_s() == 30
    await ledger.answering(a_message("m1").key)
    assert ledger.oldest_waiting_s() == 0


async def test_turns_that_do_not_move_are_stuck(clock: ManualClock) -> None:
    ledger = WatchedLedger(MemoryStore().ledger, clock=clock)
    watch = WorkWatch(ledger=ledger, stuck_after_s=60)
    await ledger.accept(a_message("m1"), clock.now())
    await ledger.answering(a_message("m1").key)
    began = clock.now()
    await clock.advance(40)
    await ledger.accept(a_message("m2"), clock.now())
    await clock.advance(20)

    [trouble] = await watch.look()

    assert trouble.since == began
    assert trouble.cause.startswith("1 messages have not moved for 1 minutes or more; the oldest is m1")
    await ledger.answered(a_message("m1").key, Answer("hello", ("hello",)), "echo", clock.now())
    assert await watch.look() == []


async def test_a_turn_whose_end_could_not_be_written_is_stuck(clock: ManualClock) -> None:
    store = FragileStore(MemoryStore())
    ledger = WatchedLedger(store.ledger, clock=clock)
    await ledger.accept(a_message("m1"), clock.now())
    store.faults.fail("ledger.closed")

    with pytest.raises(StoreUnavailable):
        await ledger.closed(a_message("m1").key, ANSWERED, clock.now())
    await clock.advance(100)

    assert await kinds(WorkWatch(ledger=ledger, stuck_after_s=60)) == [TroubleKind.STUCK]


async def test_unfinished_turns_of_an_earlier_run_are_in_hand(clock: ManualClock) -> None:
    store = MemoryStore()
    await store.ledger.accept(a_message("m1"), clock.now())
    ledger = WatchedLedger(store.ledger, clock=clock)

    await ledger.unfinished()

    assert ledger.states()["accepted"] == 1


async def test_a_turn_that_another_process_took_over_is_no_longer_in_hand(clock: ManualClock) -> None:
    class Lost(type(MemoryStore().ledger)):  # type: ignore[misc]
        async def answering(self, key: object) -> None:
            raise LeaseLost

    inner = MemoryStore().ledger
    inner.__class__ = Lost
    ledger = WatchedLedger(inner, clock=clock)
    await ledger.accept(a_message("m1"), clock.now())

    with pytest.raises(LeaseLost):
        await ledger.answering(a_message("m1").key)

    assert sum(ledger.states().values()) == 0


async def test_a_turn_that_another_process_closed_is_not_stuck(clock: ManualClock) -> None:
    store = MemoryStore()
    ledger = WatchedLedger(store.ledger, clock=clock)
    await ledger.accept(a_message("m1"), clock.now())
    await store.ledger.closed(a_message("m1").key, ANSWERED, clock.now())
    await clock.advance(100)

    assert await WorkWatch(ledger=ledger, stuck_after_s=60).look() == []
    assert ledger.states()["accepted"] == 0


# The store


async def test_a_store_that_cannot_be_written_is_trouble_since_the_first_look(clock: ManualClock) -> None:
    store = FragileStore(MemoryStore())
    watch = StoreWatch(store=store, clock=clock)
    assert await watch.look() == []
    store.faults.down = True
    began = clock.now()
    await watch.look()
    await clock.advance(60)

    [trouble] = await watch.look()

    assert (trouble.kind, trouble.part, trouble.since) == (TroubleKind.STORE_DOWN, "store", began)
    store.faults.down = False
    assert await watch.look() == []


# Numbers


async def test_the_numbers_name_no_person(clock: ManualClock, channel: MoodyChannel) -> None:
    metrics = Metrics()
    guard = stand_guard(channels={"shop": channel}, store=MemoryStore(), clock=clock, metrics=metrics)
    channel.mood = Health(False, "down")
    await guard.ledger.accept(a_message("m1"), clock.now())
    await guard.watchdog.look()
    await clock.advance(61)
    await guard.watchdog.look()

    page = metrics.page().decode()

    for line in (
        'gateway_troubles{kind="channel_down"} 1.0',
        'gateway_troubles{kind="stuck"} 0.0',
        'gateway_channel_up{channel="shop"} 0.0',
        'gateway_channel_silent_seconds{channel="shop"} 61.0',
        'gateway_turns_open{state="accepted"} 1.0',
        "gateway_oldest_waiting_seconds 61.0",
    ):
        assert line in page
    assert "wang" not in page


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_gauge_and_every_kind_of_trouble_is_documented(clock: ManualClock, channel: MoodyChannel, lang: str) -> None:
    metrics, docs = Metrics(), Path(__file__).parents[2] / "docs" / lang
    stand_guard(channels={"shop": channel}, store=MemoryStore(), clock=clock, metrics=metrics)
    http, alarms = ((docs / page).read_text(encoding="utf-8") for page in ("reference/http.md", "how-to/alarms.md"))

    gauges = re.findall(r"(?m)^# TYPE (gateway_\w+) gauge", metrics.page().decode())

    assert len(gauges) >= 5
    assert [name for name in gauges if f"`{name}" not in http and not name.endswith("_created")] == []
    assert [kind for kind in TroubleKind if f"| `{kind.value}` |" not in alarms] == []
