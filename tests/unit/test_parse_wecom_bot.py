"""WeCom's frames → our words, for every kind of frame in the fixtures."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.channels.wecom_bot.parse import MESSAGE, Frame, Unreadable, parse_event, parse_frame, parse_message
from gateway.messages import Inbound, Part, Quote, Text, Unsupported, inbound_from_json, inbound_to_json

FIXTURES = Path(__file__).parents[1] / "fixtures" / "wecom_bot"
NOW = datetime(2026, 1, 5, 9, 0, 30, tzinfo=UTC)


def frame(name: str) -> Frame:
    return parse_frame((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))


def heard(name: str, *, bot_name: str = "") -> Inbound:
    return parse_message(frame(name), channel="wecom", account="aib1", received_at=NOW, bot_name=bot_name)


def said(text: str, **fields: object) -> Inbound:
    body = {
        "msgid": "m1",
        "chattype": "group",
        "chatid": "wr1",
        "from": {"userid": "u1"},
        "msgtype": "text",
        "text": {"content": text},
        **fields,
    }
    raw = json.dumps({"cmd": MESSAGE, "headers": {"req_id": "r1"}, "body": body})
    return parse_message(parse_frame(raw), channel="wecom", account="aib1", received_at=NOW)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("text", (Text("今天天气怎么样？"),)),
        ("text_in_group", (Text("今天天气怎么样？"),)),
        ("text_with_quote", (Quote("床前明月光"), Text("这是什么意思？"))),
        ("text_with_quoted_mixed", (Quote("上周的报表\n[image]"), Text("说说看"))),
        ("mixed", (Text("这张图"), Unsupported("image"), Text("是什么？"))),
        ("mixed_as_string", (Text("你好"),)),
        ("voice", (Text("明天提醒我开会"),)),
        ("voice_empty", (Unsupported("voice"),)),
        ("image", (Unsupported("image"),)),
        ("file", (Unsupported("file"),)),
        ("video", (Unsupported("video"),)),
        ("unheard_of", (Unsupported("hologram"),)),
        ("only_a_call", ()),
    ],
)
def test_each_kind_of_message_becomes_its_parts(name: str, parts: tuple[Part, ...]) -> None:
    assert heard(name).parts == parts


def test_a_private_chat_is_named_after_its_person() -> None:
    address = heard("text").address

    assert (address.channel, address.account, address.chat, address.sender, address.in_group) == (
        "wecom",
        "aib1",
        "zhangsan",
        "zhangsan",
        False,
    )


def test_a_group_has_an_id_of_its_own() -> None:
    address = heard("text_in_group").address

    assert (address.chat, address.sender, address.in_group) == ("wrkSFfCgAA0001", "zhangsan", True)


def test_the_ticket_holds_what_an_answer_after_a_restart_needs_and_no_url() -> None:
    inbound = inbound_from_json(json.loads(json.dumps(inbound_to_json(heard("text")))))

    assert dict(inbound.ticket.token) == {"req_id": "REQUEST_ID_0001", "heard_at": NOW.isoformat()}
    assert inbound.ticket.expires_at == datetime(2026, 1, 6, 9, 0, 30, tzinfo=UTC)
    assert (inbound.id, inbound.sent_at) == ("CAIQ16HMjQYY0001", datetime(2026, 1, 5, 9, 0, tzinfo=UTC))


def test_a_bots_name_with_blanks_is_taken_out_wherever_it_stands() -> None:
    body = {"msgid": "m1", "chattype": "group", "chatid": "wr1", "from": {"userid": "u1"}, "msgtype": "text"}
    raw = parse_frame(
        json.dumps({"cmd": MESSAGE, "headers": {"req_id": "r"}, "body": {**body, "text": {"content": "你好 @My Bot 在吗 @My Bottle"}}})
    )

    assert parse_message(raw, channel="wecom", account="aib1", received_at=NOW, bot_name="My Bot").text == "你好 在吗 @My Bottle"


def test_in_a_private_chat_an_at_sign_is_part_of_the_question() -> None:
    assert said("@property 是什么？", chattype="single").text == "@property 是什么？"


def test_only_the_first_call_is_taken_out_when_the_bots_name_is_not_known() -> None:
    assert said("@小助手 问问 @张三").text == "问问 @张三"


@pytest.mark.parametrize("fields", [{"from": {}}, {"from": None}, {"chatid": ""}, {"chatid": []}])
def test_a_message_that_cannot_be_answered_is_unreadable(fields: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        said("在吗", **fields)


def test_a_message_without_an_id_goes_by_its_request() -> None:
    assert said("在吗", msgid=None).id == "r1"


@pytest.mark.parametrize("name", ["enter_chat", "disconnected_event", "feedback_event", "template_card_event"])
def test_events_are_named(name: str) -> None:
    assert parse_event(frame(name).body).kind == name


def test_an_acknowledgement_carries_its_code() -> None:
    assert (frame("ack").cmd, frame("ack").errcode, frame("ack_refused").errcode) == ("", 0, 853000)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "42", '{"headers": []}', '{"headers": {"req_id": null}}', "<html>", b"\xff\xfe"])
def test_what_is_no_frame_is_unreadable(text: str | bytes) -> None:
    with pytest.raises(Unreadable):
        parse_frame(text)


def test_half_a_surrogate_pair_can_be_stored() -> None:
    assert said("a\ud83d").text == "a?"


NAMES = ["msgtype", "text", "content", "mixed", "msg_item", "from", "userid", "quote", "event", "chattype", "create_time"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(body=JSON)
def test_whatever_wecom_sends_is_read_or_unreadable(body: object) -> None:
    try:
        read = parse_frame(json.dumps({"cmd": MESSAGE, "headers": {"req_id": "r"}, "body": body}))
        parse_event(read.body)
        parse_message(read, channel="wecom", account="aib1", received_at=NOW)
    except Unreadable:
        return
