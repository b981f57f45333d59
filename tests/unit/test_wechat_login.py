"""The small parts around a WeChat login: the file it is kept in, friend requests, waits, threads, and what a failed send means."""

from __future__ import annotations

import asyncio
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.channels.wechat.friend_requests import FriendRequests
from gateway.channels.wechat.login_state import LoginFile, SavedLogin, write_private
from gateway.channels.wechat.patience import Patience
from gateway.channels.wechat.ret_codes import broken_send, refused_send
from gateway.channels.wechat.threads import in_thread
from gateway.channels.wechat.transport import Unreachable
from gateway.errors import SendError, SendLater, SendRefused, SendUncertain
from gateway.testing import ManualClock

SAVED = SavedLogin(base_url="http://x", signed_in_at=datetime(2026, 1, 5, tzinfo=UTC), login={"info": {"skey": "s"}})


def test_a_saved_login_comes_back_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = LoginFile(tmp_path / "new" / "wechat.json")
    file.save(SAVED)
    file.save(SAVED)

    assert file.load() == SAVED
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in file.path.parent.iterdir()] == ["wechat.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b"\xff\xfe", b"\x80\x04pickle"])
def test_a_file_that_is_no_login_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wechat.json").write_bytes(content)

    assert LoginFile(tmp_path / "wechat.json").load() is None


def test_clearing_a_login_that_is_not_there_is_fine(tmp_path: Path) -> None:
    LoginFile(tmp_path / "wechat.json").clear()


def test_a_file_left_open_to_all_by_a_crash_is_not_written_into(tmp_path: Path) -> None:
    leftover = tmp_path / "secret.new"
    leftover.write_bytes(b"half")
    leftover.chmod(0o644)
    write_private(tmp_path / "secret", b"all")

    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


async def test_friend_requests_are_accepted_one_in_thirty_seconds_and_so_many_a_day() -> None:
    clock = ManualClock()
    requests = FriendRequests(clock=clock, every_s=30, per_day=3)

    accepted = []
    for _ in range(12):
        accepted.append(requests.may_accept())
        await clock.advance(15)
    await clock.advance(86_400)

    assert accepted == [True, False, True, False, True] + [False] * 7
    assert requests.may_accept()


def test_waits_double_up_to_the_most_and_start_again() -> None:
    patience = Patience(first_s=1, most_s=10)

    assert [patience.next_s() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    patience.tries = 0
    assert patience.next_s() == 1


async def test_what_a_thread_raises_is_raised_where_it_is_awaited() -> None:
    def fail() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        await in_thread("t", fail)


async def test_a_thread_that_hangs_keeps_nobody_waiting() -> None:
    release = threading.Event()
    hanging = asyncio.create_task(in_thread("t", lambda: release.wait(10)))
    await asyncio.sleep(0)
    hanging.cancel()

    with pytest.raises(asyncio.CancelledError):
        await hanging
    release.set()


@pytest.mark.parametrize(
    ("ret", "expected"),
    [
        (1205, SendLater),
        (1100, SendLater),
        (1101, SendLater),
        (1102, SendLater),
        (-1, SendLater),
        (-1000, SendUncertain),
        (-1004, SendUncertain),
        (None, SendUncertain),
        (-2, SendRefused),
        (1, SendRefused),
        (1203, SendRefused),
        (-1005, SendRefused),
    ],
)
def test_what_wechat_answers_to_a_send_says_what_may_be_done(ret: object, expected: type[SendError]) -> None:
    assert type(refused_send(ret)) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unreachable("refused", maybe_sent=False), SendLater),
        (Unreachable("cut"), SendUncertain),
        (Unreachable("gateway", status=502), SendUncertain),
        (Unreachable("flood", status=429), SendLater),
        (Unreachable("gone", status=404), SendRefused),
    ],
)
def test_a_send_that_broke_is_told_apart_by_how_it_broke(error: Unreachable, expected: type[SendError]) -> None:
    assert type(broken_send(error)) is expected
