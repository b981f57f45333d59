"""When a lost DingTalk connection is opened again."""

from __future__ import annotations

from gateway.channels.dingtalk.stream import OPENS_PER_MINUTE, Pace


def a_pace(jitter: float = 1.0) -> Pace:
    return Pace(lambda: jitter)


def test_the_first_connection_does_not_wait() -> None:
    assert a_pace().wait_s(0) == 0


def test_a_good_connection_that_announces_its_end_is_replaced_at_once() -> None:
    pace = a_pace()
    pace.ended(lived_s=40_000, replaced=True)

    assert pace.wait_s(40_000) == 0


def test_failures_wait_longer_and_longer_up_to_a_minute() -> None:
    pace = a_pace()
    waits = []
    for _ in range(9):
        pace.failed()
        waits.append(pace.wait_s(0))

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_jitter_at_most_halves_the_wait() -> None:
    pace = a_pace(jitter=0)
    pace.failed()

    assert pace.wait_s(0) == 0.5


def test_what_the_platform_asks_to_wait_is_waited() -> None:
    pace = a_pace()
    pace.failed(at_least_s=300)

    assert pace.wait_s(0) == 300


def test_a_long_life_forgives_earlier_failures() -> None:
    pace = a_pace()
    for _ in range(5):
        pace.failed()
    pace.ended(lived_s=60, replaced=False)

    assert pace.wait_s(0) == 1


def test_no_minute_sees_more_than_ten_opens() -> None:
    pace = a_pace()
    opened = []
    now = 0.0
    for _ in range(50):
        now += pace.wait_s(now)
        pace.opened(now)
        opened.append(now)
        pace.ended(lived_s=100, replaced=True)

    assert all(later - earlier >= 60 for earlier, later in zip(opened, opened[OPENS_PER_MINUTE:], strict=False))
