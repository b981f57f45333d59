"""When the WeCom channel connects again, and how often it writes to one conversation."""

from __future__ import annotations

from gateway.channels.wecom_bot.budget import Budget
from gateway.channels.wecom_bot.pace import OPENS_PER_MINUTE, Pace


def a_pace(jitter: float = 1.0) -> Pace:
    return Pace(lambda: jitter)


def test_the_first_connection_does_not_wait() -> None:
    assert a_pace().wait_s(0) == 0


def test_failures_wait_longer_and_longer_up_to_a_minute() -> None:
    pace = a_pace()
    waits = []
    for _ in range(9):
        pace.failed(100)
        waits.append(pace.wait_s(100))

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_good_connection_begins_the_waiting_anew() -> None:
    pace = a_pace()
    for _ in range(5):
        pace.failed(0)
    pace.ended(1_000, lived_s=31, taken_over=False)

    assert pace.wait_s(1_000) == 1


def test_a_rival_is_given_way_to_for_a_minute_and_then_for_longer() -> None:
    pace = a_pace(jitter=0)
    waits = []
    for _ in range(7):
        pace.ended(0, lived_s=900, taken_over=True)
        waits.append(pace.wait_s(0))

    assert waits == [60, 120, 240, 480, 900, 900, 900]


def test_after_an_hour_of_peace_a_rival_is_a_new_one() -> None:
    pace = a_pace(jitter=0)
    for lived_s in (100, 100, 100, 3_600):
        pace.ended(0, lived_s=lived_s, taken_over=True)

    assert pace.wait_s(0) == 60


def test_two_rivals_do_not_wait_equally_long() -> None:
    one, other = a_pace(jitter=0.1), a_pace(jitter=0.9)
    one.ended(0, lived_s=1, taken_over=True)
    other.ended(0, lived_s=1, taken_over=True)

    assert other.wait_s(0) - one.wait_s(0) > 10


def test_never_more_than_six_connections_in_a_minute() -> None:
    pace = a_pace()
    for second in range(OPENS_PER_MINUTE):
        pace.opened(second)

    assert pace.wait_s(10) == 50
    assert pace.wait_s(61) == 0


def test_a_refused_bot_is_tried_once_a_minute() -> None:
    pace = a_pace()
    pace.refused(0)

    assert pace.wait_s(0) == 60


def test_thirty_messages_a_minute_per_conversation() -> None:
    budget = Budget()
    for second in range(30):
        assert budget.wait_s("one", second) == 0
        budget.spend("one", second)

    assert (budget.wait_s("one", 30), budget.left("one", 30)) == (30, 0)
    assert (budget.wait_s("other", 30), budget.left("other", 30)) == (0, 30)
    assert (budget.wait_s("one", 60), budget.left("one", 60)) == (0, 1)


def test_a_thousand_messages_an_hour_per_conversation() -> None:
    budget = Budget()
    for number in range(1_000):
        budget.spend("one", number * 3)

    assert budget.wait_s("one", 3_000) == 600
    assert budget.wait_s("one", 3_600) == 0


def test_what_wecom_counts_is_believed() -> None:
    budget = Budget()
    budget.refused("one", 0, 20)

    assert (budget.wait_s("one", 5), budget.left("one", 5), budget.wait_s("one", 21)) == (15, 0, 0)


def test_conversations_that_were_silent_longest_are_forgotten() -> None:
    budget = Budget(per_minute=1)
    for number in range(6_000):
        budget.spend(f"chat {number}", 0)

    assert budget.wait_s("chat 5999", 0) == 60
    assert budget.wait_s("chat 0", 0) == 0
