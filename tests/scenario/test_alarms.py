"""What the operator's people are told when something is wrong: a whole gateway with two channels, and a watchdog."""

from __future__ import annotations

import asyncio
import logging
import re
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.channels.base import Admission, Admitted
from gateway.channels.http_face import HttpFace
from gateway.checkup import Health
from gateway.errors import SendLater, SendRefused, SendUncertain, StoreUnavailable, TicketExpired
from gateway.messages import Inbound
from gateway.reading import parse_config
from gateway.stores.base import Store
from gateway.stores.memory import MemoryStore
from gateway.stores.patient_sessions import PatientSessions
from gateway.stores.sqlite import SQLiteStore
from gateway.testing.backend import ScriptedBackend
from gateway.testing.channel import LoopbackChannel
from gateway.testing.clock import ManualClock
from gateway.testing.ledger import FragileStore
from gateway.watch.admins import Admin
from gateway.watch.guard import Guard, stand_guard
from gateway.watch.health import HealthPages
from gateway.watch.metrics import Metrics
from gateway.watch.trouble import TroubleKind
from gateway.wiring import House, join

DOWN = Health(False, "connection refused")
BOSS, DEPUTY = Admin("staff", "boss"), Admin("shop", "deputy")


class MoodyChannel(LoopbackChannel):
    """Says of its health what the test wants."""

    mood = Health(True)

    def health(self) -> Health:
        return self.mood


@dataclass(kw_only=True)
class Scene:
    """What a test holds in its hands."""

    clock: ManualClock
    shop: MoodyChannel
    staff: MoodyChannel
    backend: ScriptedBackend
    store: Store
    house: House
    guard: Guard
    pages: HealthPages

    async def readyz(self) -> tuple[int, dict[str, Any]]:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=self.pages.readyz), base_url="http://here") as client:
            answer = await client.get("/readyz")
            return answer.status_code, answer.json()

    async def boss_writes(self, text: str = "hello") -> None:
        """The boss says something and gets its answer, which the test is not interested in."""
        await self.staff.say(text, sender="boss")
        await self.staff.wait_for(len(self.staff.shown) + 1)
        self.staff.shown.clear()


StartScene = Callable[..., Awaitable[Scene]]


@pytest.fixture
async def start() -> AsyncIterator[StartScene]:
    async with AsyncExitStack() as stack:

        async def _start(
            *, admins: Sequence[Admin] = (BOSS,), store: Store | None = None, clock: ManualClock | None = None, again_after_s: float = 3600
        ) -> Scene:
            clock = clock or ManualClock()
            shop, staff = MoodyChannel(clock, name="shop"), MoodyChannel(clock, name="staff")
            channels = {"shop": shop, "staff": staff}
            store = store or MemoryStore()
            backend = ScriptedBackend(clock=clock)
            house = join(
                parse_config({"answering": {"chain": ["echo"]}, "queue": {"notice_after_s": None}}, {}),
                store=store,
                backend=backend,
                channels=dict(channels),
                face=HttpFace(),
                clock=clock,
            )
            stack.push_async_callback(house.lanes.settle, clock, 0)
            metrics = Metrics()
            again_after = timedelta(seconds=again_after_s)
            guard = stand_guard(channels=channels, store=store, clock=clock, metrics=metrics, admins=admins, again_after=again_after)
            pages = HealthPages(channels=channels, store=store, metrics=metrics, troubles=guard.troubles)

            async def hear(inbound: Inbound) -> Admitted:
                admitted = await house.dispatch.hear(inbound)
                guard.watchdog.notice(inbound.address.channel, admitted.admission.value, None, 0.0)
                if admitted.admission is Admission.ACCEPTED:
                    guard.alarm.heard(inbound)
                return admitted

            shop.listen(hear)
            staff.listen(hear)
            task = asyncio.create_task(guard.watchdog.run(), name="watchdog")
            stack.push_async_callback(_end, task)
            scene = Scene(clock=clock, shop=shop, staff=staff, backend=backend, store=store, house=house, guard=guard, pages=pages)
            await clock.settle()
            return scene

        yield _start


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_admin_is_told_once_when_a_channel_goes_down_and_once_when_it_is_back(start: StartScene) -> None:
    scene = await start()
    await scene.boss_writes()

    scene.shop.mood = DOWN
    await scene.clock.advance(600)
    scene.shop.mood = Health(True)
    await scene.clock.advance(600)

    begun, over = scene.staff.texts
    assert begun.startswith("⚠️ Channel shop cannot hear messages (since 01-05 09:00 UTC). Check the network")
    assert begun.endswith("Details: connection refused")
    assert over == "✅ Resolved after about 10 min: Channel shop cannot hear messages."
    assert scene.shop.texts == []


async def test_an_admin_who_writes_chinese_is_told_in_chinese(start: StartScene) -> None:
    scene = await start()
    await scene.boss_writes("你好")

    scene.shop.mood = DOWN
    await scene.clock.advance(120)

    assert scene.staff.texts[0].startswith("⚠️ 渠道 shop 收不到消息（从 01-05 09:00 UTC 起）。")


async def test_the_next_admin_is_told_when_the_first_cannot_be_reached(start: StartScene) -> None:
    scene = await start(admins=(BOSS, DEPUTY))
    await scene.boss_writes()
    await scene.shop.say("hi", sender="deputy")
    await scene.shop.wait_for(1)
    scene.staff.errors.append(TicketExpired())

    scene.guard.watchdog.gave_up("shop", "the secret is wrong")
    await scene.clock.advance(10)

    assert scene.staff.texts == []
    assert "Channel shop needs a person" in scene.shop.texts[-1]
    assert scene.shop.shown[-1].address.sender == "deputy"


async def test_an_alarm_avoids_the_troubled_channel(start: StartScene) -> None:
    scene = await start(admins=(DEPUTY, BOSS))
    await scene.boss_writes()
    await scene.shop.say("hi", sender="deputy")
    await scene.shop.wait_for(1)

    scene.shop.mood = DOWN
    await scene.clock.advance(120)

    assert len(scene.shop.texts) == 1
    assert "Channel shop cannot hear" in scene.staff.texts[0]


@pytest.mark.parametrize("error", [TicketExpired(), SendRefused(), SendLater()])
async def test_when_nobody_can_be_told_it_is_said_once_in_the_log_and_told_when_an_admin_writes(
    start: StartScene, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    scene = await start()
    await scene.boss_writes()
    scene.staff.errors.extend([error] * 20)  # type: ignore[list-item]
    scene.shop.mood = DOWN
    with caplog.at_level(logging.ERROR):
        await scene.clock.advance(3000)
    assert [record.message for record in caplog.records if "Nobody in alarms.to" in record.message] == [
        "Nobody in alarms.to can be told about channel shop (channel_down): connection refused "
        "Each must have written to the bot in private; it is tried again."
    ]

    scene.staff.errors.clear()
    await scene.staff.say("are you there?", sender="boss")
    await scene.clock.advance(1)

    assert sorted(text[:20] for text in scene.staff.texts)[-1] == "⚠️ Channel shop cann"
    assert len(scene.staff.texts) == 2


async def test_an_alarm_survives_a_channel_that_breaks_over_it(start: StartScene, caplog: pytest.LogCaptureFixture) -> None:
    scene = await start(admins=(BOSS, DEPUTY))
    await scene.boss_writes()
    await scene.shop.say("hi", sender="deputy")
    await scene.shop.wait_for(1)
    scene.staff.errors.append(RuntimeError("a bug"))  # type: ignore[arg-type]

    scene.guard.watchdog.gave_up("shop", "the secret is wrong")
    await scene.clock.advance(10)

    assert "broke over an alarm" in caplog.text
    assert "Channel shop needs a person" in scene.shop.texts[-1]


async def test_an_alarm_that_may_have_been_shown_is_not_repeated(start: StartScene) -> None:
    scene = await start()
    await scene.boss_writes()
    scene.staff.errors.append(SendUncertain())

    scene.shop.mood = DOWN
    await scene.clock.advance(1800)

    assert scene.staff.texts == []


async def test_what_a_stranger_or_a_group_says_makes_nobody_an_admin(start: StartScene) -> None:
    scene = await start()
    await scene.staff.say("hi", sender="stranger")
    await scene.staff.say("hi", sender="boss", group="everybody")
    await scene.staff.wait_for(2)

    scene.shop.mood = DOWN
    await scene.clock.advance(600)

    assert len(scene.staff.texts) == 2


async def test_a_trouble_that_comes_back_soon_is_not_told_again_before_its_time(start: StartScene) -> None:
    scene = await start(again_after_s=3600)
    await scene.boss_writes()
    for _ in range(3):
        scene.shop.mood = DOWN
        await scene.clock.advance(300)
        scene.shop.mood = Health(True)
        await scene.clock.advance(300)
    assert len(scene.staff.texts) == 2

    scene.shop.mood = DOWN
    await scene.clock.advance(3600)

    assert len(scene.staff.texts) == 3


async def test_several_troubles_make_one_message(start: StartScene) -> None:
    scene = await start(admins=(Admin("staff", "boss"),))
    await scene.boss_writes()

    scene.shop.mood = DOWN
    await scene.clock.advance(57)
    scene.clock.jump(3600)
    await scene.clock.advance(10)

    first, *_ = scene.staff.texts
    assert "Channel shop" in first or "The clock jumped" in first
    await scene.clock.advance(120)
    assert sum("Channel shop cannot hear" in text for text in scene.staff.texts) == 1
    assert sum("The clock jumped" in text for text in scene.staff.texts) == 1
    assert len(scene.staff.texts) <= 2


async def test_a_restart_neither_forgets_the_admins_nor_tells_them_again(start: StartScene) -> None:
    store, clock = MemoryStore(), ManualClock()
    before = await start(store=store, clock=clock)
    await before.boss_writes()
    before.shop.mood = DOWN
    await clock.advance(120)
    assert len(before.staff.texts) == 1
    before.shop.mood = Health(True)

    after = await start(store=store, clock=clock)
    after.shop.mood = DOWN
    await clock.advance(120)
    assert after.staff.texts == []
    after.staff.mood = Health(False, "needs sign-in: scan the code")
    await clock.advance(120)

    assert ["staff needs a person" in text for text in after.staff.texts] == [True]


async def test_of_two_processes_on_one_store_one_tells(start: StartScene) -> None:
    store, clock = MemoryStore(), ManualClock()
    one, other = await start(store=store, clock=clock), await start(store=store, clock=clock)
    for scene in (one, other):
        await scene.boss_writes()
        scene.shop.mood = DOWN

    await clock.advance(300)

    assert len(one.staff.texts + other.staff.texts) == 1
    for scene in (one, other):
        scene.shop.mood = Health(True)
    await clock.advance(900)
    assert len(one.staff.texts + other.staff.texts) == 2


async def test_a_long_alarm_fits_its_channel(start: StartScene) -> None:
    scene = await start()
    await scene.boss_writes("你好")
    scene.shop.mood = Health(False, "错" * 5000)

    await scene.clock.advance(120)

    assert len(scene.staff.texts[0].encode()) <= scene.staff.limits.max_bytes


# The store


async def test_a_store_that_is_lost_and_comes_back_loses_nothing(start: StartScene) -> None:
    store, clock = FragileStore(MemoryStore()), ManualClock()
    store.sessions = PatientSessions(store.sessions, clock)
    scene = await start(store=store, clock=clock)
    await scene.boss_writes()
    before = await scene.shop.say("before", id="m1")
    assert before.admission is Admission.ACCEPTED

    store.faults.down = True
    with pytest.raises(StoreUnavailable):
        await scene.shop.say("during", id="m2")
    await scene.clock.advance(30)
    status, body = await scene.readyz()
    assert (status, body["parts"]["store"]["ok"]) == (503, False)
    assert [trouble["kind"] for trouble in body["parts"]["store"]["troubles"]] == ["store_down"]
    assert "The store cannot be written" in scene.staff.texts[0]

    store.faults.down = False
    assert (await scene.shop.say("during", id="m2")).admission is Admission.ACCEPTED
    await scene.clock.advance(30)

    outcomes = {record.key.message: record.outcome.kind.value for record in await store.ledger.latest() if record.outcome}
    assert (outcomes["m1"], outcomes["m2"]) == ("answered", "answered")
    assert (await scene.readyz())[0] == 200
    await scene.clock.advance(60)
    assert "✅ Resolved after about 1 min: The store cannot be written." in scene.staff.texts


# What the pages say


async def test_readyz_names_each_trouble_of_a_part_with_its_beginning(start: StartScene) -> None:
    scene = await start()
    scene.shop.mood = DOWN
    await scene.clock.advance(120)

    status, body = await scene.readyz()

    assert (status, body["ready"]) == (503, False)
    shop = body["parts"]["channel shop"]
    assert (shop["ok"], shop["reason"]) == (False, "connection refused")
    [trouble] = shop["troubles"]
    assert re.fullmatch(r"2026-01-05T09:00:0\d\+00:00", trouble["since"])
    assert (trouble["kind"], trouble["cause"]) == ("channel_down", "connection refused")
    assert trouble["repair"]
    assert body["parts"]["channel staff"] == {"ok": True, "reason": ""}


async def test_a_trouble_that_no_restart_mends_leaves_the_gateway_ready(start: StartScene) -> None:
    scene = await start()
    scene.clock.jump(3600)
    await scene.clock.advance(10)

    status, body = await scene.readyz()

    assert status == 200
    assert [trouble["kind"] for trouble in body["parts"]["gateway"]["troubles"]] == ["clock_jumped"]


async def test_troubles_stand_in_the_log_when_they_begin_and_end(start: StartScene, caplog: pytest.LogCaptureFixture) -> None:
    scene = await start(admins=())
    scene.shop.mood = DOWN
    with caplog.at_level(logging.INFO, logger="gateway.watch"):
        await scene.clock.advance(120)
        scene.shop.mood = Health(True)
        await scene.clock.advance(120)

    messages = [record.message for record in caplog.records if record.name == "gateway.watch.watchdog"]
    assert messages == [
        "Trouble with channel shop (channel_down): connection refused "
        "Look at the network and at the channel's credentials: gateway doctor.",
        "Trouble with channel shop is over: channel_down.",
    ]


# A real disk


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No file of this process may grow: the system refuses the write as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name(path.name + "-wal").stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_refuses_new_messages_and_holds_up_the_others_until_there_is_space(start: StartScene, tmp_path: Path) -> None:
    path, clock = tmp_path / "gateway.db", ManualClock()
    store = await SQLiteStore.open(path)
    store.sessions = PatientSessions(store.sessions, clock)  # type: ignore[assignment]
    scene = await start(store=store, clock=clock)
    scene.backend.hold()
    assert (await scene.shop.say("before", id="m1")).admission is Admission.ACCEPTED
    await scene.backend.wait_until_asked(1)

    with full_disk(path):
        with pytest.raises(StoreUnavailable):
            await scene.shop.say("during", id="m2")
        scene.backend.release()
        for _ in range(20):
            await scene.guard.watchdog.look()
            await clock.advance(1)
        assert [trouble.kind for trouble in scene.guard.troubles.of("store")] == [TroubleKind.STORE_DOWN]
        assert scene.shop.texts == []

    assert (await scene.shop.say("during", id="m2")).admission is Admission.ACCEPTED
    for _ in range(500):
        await clock.advance(1)
        if len(scene.shop.texts) == 2:
            break
        await asyncio.sleep(0.01)
    assert scene.shop.texts == ["ANS:before", "ANS:during"]
    await scene.guard.watchdog.look()
    assert scene.guard.troubles.of("store") == []
    await scene.house.lanes.settle(clock, 0)
    await store.aclose()
