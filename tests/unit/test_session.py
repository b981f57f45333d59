from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.messages import Address, ReplyTicket
from gateway.prompts import Line
from gateway.sessions.scope import Scope, session_key
from gateway.sessions.session import Lifetime, new_session, session_from_json, session_to_json
from gateway.sessions.window import Calibration, estimate_prompt, estimate_tokens, fit

NOW = datetime(2026, 1, 5, tzinfo=UTC)
PRIVATE = Address(channel="c", account="bot", chat="alice", sender="alice")
GROUP = Address(channel="c", account="bot", chat="room", sender="alice", in_group=True)


def test_a_session_ends_after_its_idle_time_or_its_age_whichever_comes_first() -> None:
    session = new_session("k", PRIVATE, ReplyTicket(), NOW).said("q", "a", NOW + timedelta(minutes=50))
    idle, aged = timedelta(minutes=30), timedelta(hours=1)

    assert Lifetime(idle_timeout=idle).ends_at(session) == NOW + timedelta(minutes=80)
    assert Lifetime(idle_timeout=idle, max_age=aged).ends_at(session) == NOW + aged
    assert Lifetime(idle_timeout=None).ends_at(session) is None
    assert not Lifetime(idle_timeout=idle).is_over(session, NOW + timedelta(minutes=79, seconds=59))
    assert Lifetime(idle_timeout=idle).is_over(session, NOW + timedelta(minutes=80))


def test_a_session_survives_the_way_through_json() -> None:
    session = new_session("k", GROUP, ReplyTicket(token={"a": "b"}, expires_at=NOW), NOW).said("问", "答", NOW)

    assert session_from_json(session_to_json(session)) == session


def test_scopes_decide_who_shares_a_session() -> None:
    other_member = Address(channel="c", account="bot", chat="room", sender="bob", in_group=True)
    in_thread = Address(channel="c", account="bot", chat="room", sender="bob", in_group=True, thread="t")

    assert session_key(PRIVATE, Scope()) != session_key(GROUP, Scope())
    assert session_key(GROUP, Scope()) != session_key(other_member, Scope())
    assert session_key(GROUP, Scope(group="group")) == session_key(other_member, Scope(group="group"))
    assert session_key(in_thread, Scope(group="thread")) != session_key(other_member, Scope(group="thread"))
    assert session_key(other_member, Scope(group="thread")) == session_key(GROUP, Scope(group="group"))


def test_keys_of_different_people_never_meet_whatever_their_ids_hold() -> None:
    tricky = Address(channel="c", account="bot", chat="x/member/y", sender="z", in_group=True)
    plain = Address(channel="c", account="bot", chat="x", sender="y/z", in_group=True)

    assert session_key(tricky, Scope()) != session_key(plain, Scope())


def test_estimates_are_upper_bounds_of_measured_samples() -> None:
    # Measured with the o200k vocabulary: tokens per character 0.65 for Chinese chat, 0.21 for English.
    chinese, english = "今天天气怎么样，适合出去玩吗" * 10, "what is the weather like today in the city " * 10

    assert estimate_tokens(chinese) >= 0.92 * len(chinese)
    assert estimate_tokens(english) >= 0.21 * len(english)
    assert estimate_tokens("😀") >= 2
    assert estimate_tokens("") == 0


def test_the_window_keeps_the_newest_whole_exchanges() -> None:
    history = [Line("user", "一" * 100), Line("assistant", "二" * 100), Line("user", "三" * 10), Line("assistant", "四" * 10)]

    assert fit(history, 1000) == tuple(history)
    assert fit(history, 150) == tuple(history[2:])  # the lone answer before them would fit, but not its question
    assert fit(history, 20) == ()


def test_calibration_follows_what_servers_report_and_ignores_nonsense() -> None:
    calibration = Calibration()
    for _ in range(50):
        calibration = calibration.learned(1000, 700)

    assert abs(calibration.ratio - 0.7) < 0.01
    assert calibration.budget(700) > 990
    assert calibration.learned(1000, 0) == calibration
    assert calibration.learned(1, 10**9).ratio <= 5


def test_a_prompt_costs_more_than_its_words() -> None:
    assert estimate_prompt([Line("user", "hi")]) > estimate_tokens("hi")
