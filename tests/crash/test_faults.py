from __future__ import annotations

import asyncio
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .nursery import Nursery
from .storm import calm_down
from .town import Town, town_at


async def test_everything_twice_and_in_any_order_is_answered_once(tmp_path: Path) -> None:
    # Given a platform that delivers every message twice at once, to whichever connection, and repeats what is not acknowledged in time
    async with Nursery.open() as nursery, town_at(tmp_path, nursery=nursery, seed=11) as town:
        town.dingtalk.faults.duplicate_frames = True
        town.official.faults.duplicate = True
        town.dingtalk.faults.ack_timeout_s = 0.02
        town.settle(dingtalk=8, official=4, api=4)
        await town.storm(6)
        # and everything once more after the storm
        verdict = await calm_down(town)

    assert verdict.accepted > 50
    assert verdict.faults == [], "\n".join([verdict.table(), *verdict.faults])


@pytest.mark.parametrize("hours", [3.0, -3.0], ids=["forward", "back"])
async def test_a_clock_that_jumps_by_hours_loses_nothing(tmp_path: Path, hours: float) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    # Given sessions that do not end by time (or the jump would rightly end them)
    sessions = {"idle_timeout_s": None, "history_tokens": 20_000}
    async with (
        Nursery.open() as nursery,
        town_at(tmp_path, nursery=nursery, seed=12, channels=["dingtalk", "api"], sessions=sessions) as town,
    ):
        town.dingtalk.faults.webhook_ttl_s = 40_000
        town.settle(dingtalk=6, api=4)
        await town.start(CRASH_CLOCK=str(clock))
        await asyncio.sleep(0.7)

        # When the time of day jumps while messages are answered, and once more after a death and a restart
        clock.write_text(str(hours * 3600))
        await asyncio.sleep(0.7)
        await town.gateways[0].kill()
        await town.start(CRASH_CLOCK=str(clock))
        await asyncio.sleep(0.7)
        clock.write_text("0")
        await asyncio.sleep(0.7)
        verdict = await calm_down(town)

    assert verdict.accepted > 20
    assert verdict.faults == [], "\n".join([verdict.table(), *verdict.faults])


async def test_messages_from_before_a_jump_over_a_death_end_as_expired_and_say_so(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    async with Nursery.open() as nursery, town_at(tmp_path, nursery=nursery, seed=13, channels=["dingtalk"], model_s=20) as town:
        town.settle(dingtalk=3)
        await town.start(CRASH_CLOCK=str(clock))
        await town.book.until(lambda: len(town.model.asked) >= 3, 10)
        await town.gateways[0].kill()
        town.closing = True

        clock.write_text("7200")
        town.model.answers_s = 0.0
        await town.start(CRASH_CLOCK=str(clock))
        verdict = await calm_down(town)

    assert verdict.expired >= 3
    assert verdict.lost == []
    assert "too old when the gateway came back" in town.gateways[0].log()


async def test_a_full_disk_takes_no_message_that_it_cannot_keep(tmp_path: Path) -> None:
    async with Nursery.open() as nursery, town_at(tmp_path, nursery=nursery, seed=14, logging={"level": "error"}) as town:
        town.settle(dingtalk=8, official=3, api=5)
        await town.start()
        await asyncio.sleep(0.7)

        # When the disk is full: no file may grow any more
        _limit(town, _largest(tmp_path) + 20_000)
        await asyncio.sleep(2.5)
        answered_when_full = len(town.book.seen)
        refused = [asked for person in town.people for asked in person.asked if not asked.accepted]
        # and then somebody makes room
        _limit(town, resource.RLIM_INFINITY)
        await town.book.until(lambda: len(town.book.seen) > answered_when_full + 20, 20)
        recovered = len(town.book.seen) - answered_when_full
        await town.gateways[0].kill()
        verdict = await calm_down(town)

    assert refused, "nobody met the full disk"
    assert recovered > 20, "the gateway did not go on by itself when there was room again"
    assert verdict.faults == [], "\n".join([verdict.table(), *verdict.faults])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, check=False).returncode
    ):
        pytest.skip("only root may mount a file system of its own")
    yield place
    subprocess.run(["umount", "-l", place], check=False)


async def test_a_store_on_a_read_only_disk_ends_the_start_with_1_and_a_sentence(tmp_path: Path, small_disk: Path) -> None:
    async with town_at(tmp_path / "town", store_url=f"sqlite:///{small_disk}/gateway.db", channels=["dingtalk", "api"]) as town:
        gateway = town.gateways[0]
        # Given a ledger with turns in it, on a disk that was mounted read-only since
        town.settle(dingtalk=2, api=2)
        await town.start()
        await town.book.until(lambda: len(town.book.seen) >= 4, 20)
        await gateway.kill()
        _remount(small_disk, "ro")

        await gateway.start()
        assert gateway.handle is not None
        async with asyncio.timeout(30):
            assert await gateway.handle.wait() == 1
        assert "Traceback" not in gateway.log()
        assert "gateway.db" in gateway.log().splitlines()[-1]

        # When it may be written again, nothing is missing
        _remount(small_disk, "rw")
        verdict = await calm_down(town)
        assert verdict.faults == [], "\n".join([verdict.table(), *verdict.faults])


def _remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", place], check=True)


def _largest(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.iterdir())


def _limit(town: Town, size: int) -> None:
    for gateway in town.gateways:
        assert gateway.handle is not None
        resource.prlimit(gateway.handle.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
