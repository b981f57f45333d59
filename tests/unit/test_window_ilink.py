"""How long and how often a person may be answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.channels.wechat.ilink_window import MAX_WINDOWS, PER_INBOUND, Windows
from gateway.errors import TicketExpired
from gateway.messages import ReplyTicket

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
NOTHING = ReplyTicket()


def ticket(token: str, heard_at: datetime) -> ReplyTicket:
    return ReplyTicket(token={"context_token": token}, expires_at=heard_at + timedelta(hours=23))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=20))
def test_the_newest_message_always_decides(messages: list[tuple[int, int]]) -> None:
    windows = Windows()
    for minute, token in messages:
        windows.heard("p", str(token), NOW + timedelta(minutes=minute))

    assert windows.of("p", NOTHING).heard_at == NOW + timedelta(minutes=max(minute for minute, _ in messages))


def test_a_redelivery_does_not_give_the_count_back() -> None:
    windows = Windows()
    windows.heard("p", "t", NOW)
    windows.of("p", NOTHING).spend(NOW, allowed=1)
    windows.heard("p", "t", NOW)
    with pytest.raises(TicketExpired):
        windows.of("p", NOTHING).spend(NOW, allowed=1)


def test_a_new_message_with_the_same_token_opens_a_new_window() -> None:
    windows = Windows()
    windows.heard("p", "t", NOW)
    windows.of("p", NOTHING).spend(NOW, allowed=1)
    windows.heard("p", "t", NOW + timedelta(seconds=1))
    assert windows.of("p", NOTHING).spend(NOW, allowed=1) == "t"


def test_a_window_closes_after_23_hours() -> None:
    windows = Windows()
    windows.heard("p", "t", NOW)
    window = windows.of("p", NOTHING)
    assert window.spend(NOW + timedelta(hours=22, minutes=59), allowed=PER_INBOUND) == "t"
    with pytest.raises(TicketExpired):
        window.spend(NOW + timedelta(hours=23), allowed=PER_INBOUND)


def test_the_messages_own_permission_serves_when_no_newer_is_known() -> None:
    assert Windows().of("p", ticket("own", NOW)).token == "own"
    windows = Windows()
    windows.heard("p", "newer", NOW + timedelta(minutes=1))
    assert windows.of("p", ticket("own", NOW)).token == "newer"


def test_without_any_permission_nothing_may_be_said() -> None:
    with pytest.raises(TicketExpired):
        Windows().of("p", NOTHING)


def test_windows_do_not_grow_without_end() -> None:
    windows = Windows()
    for number in range(MAX_WINDOWS + 50):
        windows.heard(f"p{number}", "t", NOW)
    assert len(windows.as_dict()) == MAX_WINDOWS
