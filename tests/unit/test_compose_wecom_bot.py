"""Our words → WeCom's frames, and WeCom's error codes → our errors."""

from __future__ import annotations

import json
from functools import partial

import pytest

from gateway.channels.wecom_bot.compose import RESPOND, compose_frame, compose_markdown, compose_stream, compose_welcome, stream_id
from gateway.channels.wecom_bot.growing import Growing
from gateway.channels.wecom_bot.verdicts import NotSubscribed, OverLimit, ReplyClosed, StreamOver, raise_for, repair
from gateway.errors import SendLater, SendRefused, TicketExpired
from gateway.messages import Address
from gateway.rendering import cut
from gateway.testing import ManualClock


def test_the_frames_of_one_answer_change_one_message() -> None:
    first, last = compose_stream("k/1/0", "晴", finish=False), compose_stream("k/1/0", "晴天", finish=True)

    assert first == {"msgtype": "stream", "stream": {"id": stream_id("k/1/0"), "finish": False, "content": "晴"}}
    assert last["stream"] == {"id": stream_id("k/1/0"), "finish": True, "content": "晴天"}
    assert stream_id("k/1/0") != stream_id("k/2/0")


def test_a_frame_is_json_without_needless_escapes_and_without_control_characters() -> None:
    text = compose_frame(RESPOND, "r1", compose_stream("k", "好\x00\x1b\n\t\ud83d", finish=True))

    assert json.loads(text)["body"]["stream"]["content"] == "好\n\t?"
    assert "好" in text
    assert json.loads(text)["headers"] == {"req_id": "r1"}


def test_a_message_of_its_own_goes_to_the_group_or_to_the_person() -> None:
    private = Address(channel="c", account="a", chat="zhangsan", sender="zhangsan")
    group = Address(channel="c", account="a", chat="wr1", sender="zhangsan", in_group=True)

    assert compose_markdown(private, "嗨") == {"chatid": "zhangsan", "chat_type": 1, "msgtype": "markdown", "markdown": {"content": "嗨"}}
    assert (compose_markdown(group, "嗨")["chatid"], compose_markdown(group, "嗨")["chat_type"]) == ("wr1", 2)


def test_a_welcome_is_plain_text() -> None:
    assert compose_welcome("您好") == {"msgtype": "text", "text": {"content": "您好"}}


@pytest.mark.parametrize(
    ("errcode", "error"),
    [
        (846608, StreamOver),
        (846605, ReplyClosed),
        (600039, ReplyClosed),
        (846609, NotSubscribed),
        (45009, OverLimit),
        (6000, SendLater),
        (-1, SendLater),
        (846607, SendRefused),
        (40008, SendRefused),
        (40058, SendRefused),
        (99999, SendRefused),
    ],
)
def test_each_error_code_says_what_may_be_done(errcode: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=str(errcode)):
        raise_for(errcode, "errmsg of WeCom")


def test_a_closed_reply_is_an_expired_ticket_and_zero_is_no_error() -> None:
    assert issubclass(ReplyClosed, TicketExpired)
    raise_for(0, "ok")


def test_a_refused_subscription_names_what_to_compare() -> None:
    assert "the secret is wrong" in repair(853000, "signature is incorrect")
    assert "bot_id" in repair(93019, "invalid bot_id")
    assert "4711" in repair(4711, "x\n" * 500)
    assert len(repair(4711, "x " * 500)) < 400


def growing(max_bytes: int = 200) -> Growing:
    return Growing(clock=ManualClock(), cut=partial(cut, fences=True), max_bytes=max_bytes, lasts_s=290)


def test_what_a_closed_stream_shows_is_not_shown_again() -> None:
    words = growing()
    words.add("第一段。\n第二段的开头")
    words.closed = "第一段。"
    words.add("和结尾。")

    assert words.pieces() == ["第二段的开头和结尾。"]


def test_a_closed_stream_within_a_code_block_loses_no_line() -> None:
    words = growing()
    lines = [f"print({number})" for number in range(60)]
    words.add("```python\n" + "\n".join(lines[:30]))
    words.closed = cut(words.text, 200, fences=True)[0]
    words.add("\n" + "\n".join(lines[30:]) + "\n```")

    shown = "\n".join([words.closed, *words.pieces()]).splitlines()
    assert [line for line in shown if not line.startswith("```")] == lines


def test_an_answer_that_was_closed_at_its_very_end_has_no_rest() -> None:
    words = growing()
    words.add("完了。\n")
    words.closed = "完了。"

    assert words.pieces() == []
