"""Every kind of DingTalk message becomes our words; nothing that arrives breaks the parser."""

from __future__ import annotations

import contextlib
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.channels.dingtalk.parse import QUOTE_CHARS, Raw, Unreadable, parse_frame, parse_message
from gateway.messages import Inbound, Quote, Text, Unsupported, inbound_from_json, inbound_to_json

FIXTURES = sorted((Path(__file__).parent.parent / "fixtures" / "dingtalk").glob("*.json"))
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def payload(name: str = "text_group", **changes: object) -> dict[str, object]:
    path = next(path for path in FIXTURES if path.stem == name)
    return {**json.loads(path.read_text("utf-8"))["payload"], **changes}


def parsed(raw: Raw) -> Inbound:
    return parse_message(raw, channel="dingtalk", account="dingxxxxxx", received_at=NOW, frame_id="frame1")


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_every_kind_of_message_is_read(path: Path) -> None:
    fixture = json.loads(path.read_text("utf-8"))
    expected = fixture["expect"]

    inbound = parsed(fixture["payload"])

    assert inbound.text == expected["text"]
    assert inbound.address.in_group == expected["in_group"]
    assert inbound.address.sender == expected["sender"]
    assert inbound.unsupported == expected.get("unsupported")
    assert (inbound.quote.text if inbound.quote else None) == expected.get("quote")
    assert inbound.to_bot
    assert inbound_from_json(json.loads(json.dumps(inbound_to_json(inbound)))) == inbound


def test_the_envelope_is_read() -> None:
    inbound = parsed(payload())

    assert inbound.id == "msg0xxxxx"
    assert (inbound.address.channel, inbound.address.account) == ("dingtalk", "dingxxxxxx")
    assert inbound.address.chat == "cid6KeBBLoveMJOGXoYKF5x7EeiodoA=="
    assert inbound.sender_name == "杨xx"
    assert inbound.sent_at == datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert inbound.ticket.expires_at == datetime(2026, 1, 5, 11, 30, tzinfo=UTC)
    assert inbound.ticket.token == {
        "session_webhook": "https://oapi.dingtalk.com/robot/sendBySession?session=6d69b333f243db32d42c11sda9de620",
        "conversation_id": "cid6KeBBLoveMJOGXoYKF5x7EeiodoA==",
        "conversation_type": "2",
        "sender_staff_id": "user123",
        "sender_id": "$:LWCP_v1:$Ff09GIxxxxx",
        "robot_code": "dingxxxxxx",
    }


def test_parts_keep_their_order() -> None:
    parts = parsed(payload("rich_text")).parts

    assert parts == (Text("看看这张图\n再回答"), Unsupported("picture"), Text("谢谢"))


def test_a_bot_is_told_apart_by_account_and_not_by_message() -> None:
    """One message that calls two bots carries the same msgId to both."""
    here = parsed(payload())
    there = parse_message(payload(), channel="dingtalk", account="other-bot", received_at=NOW)

    assert here.id == there.id
    assert here.key != there.key


def test_the_frames_id_stands_in_for_a_missing_message_id() -> None:
    assert parsed(payload(msgId=None)).id == "frame1"


def test_a_missing_conversation_is_the_sender() -> None:
    assert parsed(payload("text_private", conversationId=None)).address.chat == "user123"


def test_a_missing_time_is_now() -> None:
    inbound = parsed(payload(createAt="soon", sessionWebhookExpiredTime=10**30))

    assert inbound.sent_at == NOW
    assert inbound.ticket.expires_at is None


def test_a_time_in_digits_is_a_time() -> None:
    assert parsed(payload(createAt="1767607200000")).sent_at == datetime(2026, 1, 5, 10, tzinfo=UTC)


@pytest.mark.parametrize("text", ["你好", '{"content": "你好"}', {"content": "  你好 "}])
def test_text_is_read_in_any_wrapping(text: object) -> None:
    assert parsed(payload(text=text)).text == "你好"


def test_half_a_surrogate_pair_can_be_stored() -> None:
    text = parsed(payload(text=json.loads('{"content": "a\\ud83d"}'))).text

    assert text.encode("utf-8") == b"a?"


def test_a_long_quote_is_cut() -> None:
    replied = {"msgType": "text", "content": {"text": "长" * 10_000}, "senderNick": "李四"}
    quote = parsed(payload(text={"content": "?", "repliedMsg": replied})).quote

    assert quote == Quote("长" * QUOTE_CHARS, "李四")


@pytest.mark.parametrize("changes", [{"senderId": None, "senderStaffId": None}, {"senderId": "", "senderStaffId": []}])
def test_a_message_without_sender_is_unreadable(changes: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        parsed(payload(**changes))


def test_a_message_without_any_id_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        parse_message(payload(msgId=""), channel="dingtalk", account="a", received_at=NOW)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_no_field_of_a_wrong_type_breaks_the_parser(path: Path) -> None:
    """Each value, at any depth, in turn replaced by every kind of JSON value."""
    strange: list[object] = [None, True, 0, -1, 10**40, 1.5, float("nan"), "", "{", "[]", '{"content": 1}', [], [None], [[]], {}, {"a": {}}]
    raw = json.loads(path.read_text("utf-8"))["payload"]

    for broken in _with_each_value_replaced(raw, strange):
        with contextlib.suppress(Unreadable):
            assert isinstance(parsed(broken), Inbound)


def _with_each_value_replaced(node: object, values: list[object]) -> list[Raw]:
    found: list[object] = []
    if isinstance(node, dict):
        for key, inner in node.items():
            found += [{**node, key: value} for value in [*values, *_with_each_value_replaced(inner, values)]]
            found.append({name: value for name, value in node.items() if name != key})
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            found += [[*node[:index], value, *node[index + 1 :]] for value in [*values, *_with_each_value_replaced(inner, values)]]
    return found  # type: ignore[return-value]


def test_a_frame_is_read() -> None:
    frame = parse_frame('{"specVersion":"1.0","type":"SYSTEM","headers":{"topic":"ping","messageId":"m1"},"data":"{\\"opaque\\":\\"x\\"}"}')

    assert (frame.kind, frame.topic, frame.message_id, frame.data) == ("SYSTEM", "ping", "m1", '{"opaque":"x"}')


def test_random_bytes_are_never_more_than_unreadable() -> None:
    dice = random.Random(7)

    for _ in range(500):
        with pytest.raises(Unreadable):
            parse_frame(dice.randbytes(dice.randrange(40)))
