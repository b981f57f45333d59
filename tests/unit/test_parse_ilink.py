"""What Tencent's bot API sends, read on payloads as its documentation describes them; and what we send."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.channels.wechat.ilink_compose import MAX_CHARS, compose, hint_chars, message
from gateway.channels.wechat.ilink_parse import parse, read
from gateway.channels.wechat.parse import UnreadableMessage
from gateway.messages import Address, Inbound, Outbound, Quote, Text, Unsupported, inbound_from_json, inbound_to_json

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ilink"
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
PERSON = "o9cq80aaaabbbbccccdddd@im.wechat"


def fixture(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return data


def heard(raw: dict[str, Any], words: dict[str, str] | None = None) -> Inbound | None:
    return parse(read(raw), channel="wechat", account=PERSON, now=NOW, recall=lambda message_id: (words or {}).get(message_id, ""))


def test_a_text_message() -> None:
    inbound = heard(fixture("text"))

    sent_at = datetime(2025, 11, 22, 8, 26, 40, 123000, UTC)
    assert inbound is not None
    assert inbound.id == "7481236540987654321"
    assert inbound.address == Address(channel="wechat", account=PERSON, chat=PERSON, sender=PERSON)
    assert inbound.parts == (Text("你好 😀\n第二行"),)
    assert inbound.sent_at == sent_at
    assert inbound.ticket.token == {"context_token": "Y29udGV4dA=="}
    assert inbound.ticket.expires_at == sent_at + timedelta(hours=23)
    assert inbound_from_json(json.loads(json.dumps(inbound_to_json(inbound)))) == inbound


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("voice", Text("明天几点开会？")),
        ("voice_without_transcript", Unsupported("voice")),
        ("image", Unsupported("image")),
        ("file", Unsupported("file")),
        ("video", Unsupported("video")),
    ],
)
def test_other_kinds(name: str, part: object) -> None:
    inbound = heard(fixture(name))
    assert inbound is not None
    assert inbound.parts == (part,)


@pytest.mark.parametrize("name", ["own_echo", "group"])
def test_our_own_words_and_groups_are_not_for_us(name: str) -> None:
    assert heard(fixture(name)) is None


def test_a_quote_brings_its_words_along() -> None:
    inbound = heard(fixture("quote"))
    assert inbound is not None
    assert inbound.quote == Quote("一加一等于二")
    assert inbound.text == "为什么？"


@pytest.mark.parametrize(("words", "quote"), [({"7481236540987654111": "一加一等于二"}, Quote("一加一等于二")), ({}, None)])
def test_a_quote_by_id_has_the_words_that_are_remembered(words: dict[str, str], quote: Quote | None) -> None:
    inbound = heard(fixture("quote_by_id"), words)
    assert inbound is not None
    assert inbound.quote == quote


def test_a_text_and_a_picture_in_one_message_are_both_heard() -> None:
    raw = fixture("text")
    raw["item_list"] += fixture("image")["item_list"]
    inbound = heard(raw)
    assert inbound is not None
    assert [type(part) for part in inbound.parts] == [Text, Unsupported]


def test_a_kind_that_nobody_knows_yet_is_named_so() -> None:
    inbound = heard({**fixture("text"), "item_list": [{"type": 99, "new_item": {}}]})
    assert inbound is not None
    assert inbound.unsupported == "unknown"


@pytest.mark.parametrize("items", [[], None, [{"type": 1, "text_item": {"text": "  "}}], [{"type": 1}], [{"type": 1, "text_item": None}]])
def test_a_message_without_anything_is_nothing(items: object) -> None:
    assert heard({**fixture("text"), "item_list": items}) is None


def test_a_missing_id_is_replaced_by_the_clients() -> None:
    inbound = heard({**fixture("text"), "message_id": None})
    assert inbound is not None
    assert inbound.id == "wx-1763800000000-1"


def test_a_missing_time_is_now() -> None:
    inbound = heard({**fixture("text"), "create_time_ms": 0})
    assert inbound is not None
    assert inbound.sent_at == NOW


@pytest.mark.parametrize(
    "wrong",
    [
        {"message_id": None, "client_id": None},
        {"from_user_id": ""},
        {"from_user_id": None},
        {"item_list": "words"},
        {"create_time_ms": 10**18},
        {"create_time_ms": -1},
        {"message_id": "x" * 300},
    ],
)
def test_what_cannot_be_read_is_said_without_its_content(wrong: dict[str, object]) -> None:
    with pytest.raises(UnreadableMessage) as caught:
        heard({**fixture("text"), **wrong})
    assert "你好" not in str(caught.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("a1 你", max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(fixture("text"))), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(list(fixture("text"))), _JSON))
def test_nothing_but_unreadable_comes_out_of_any_payload(changes: dict[str, Any]) -> None:
    with contextlib.suppress(UnreadableMessage):
        heard({**fixture("text"), **changes})


# What we send


def outbound(text: str, *, more: bool = False) -> Outbound:
    address = Address(channel="wechat", account=PERSON, chat=PERSON, sender=PERSON)
    return Outbound(key="k", address=address, text=text, more=more)


def test_a_message_has_exactly_one_item_and_echoes_the_permission() -> None:
    body = message(to=PERSON, text="好", context_token="ctx", key="wechat/a/1/0")
    assert body == {
        "from_user_id": "",
        "to_user_id": PERSON,
        "client_id": body["client_id"],
        "message_type": 2,
        "message_state": 2,
        "item_list": [{"type": 1, "text_item": {"text": "好"}}],
        "context_token": "ctx",
    }


def test_the_hint_stands_below_a_piece_that_is_not_the_last_and_fits() -> None:
    piece = "x" * (MAX_CHARS - hint_chars())
    assert compose(outbound("好")) == "好"
    assert compose(outbound("好", more=True)) == "好\n（未完，回复“继续”）"
    assert len(compose(outbound(piece, more=True))) <= MAX_CHARS


def test_lone_surrogates_do_not_reach_the_wire() -> None:
    assert compose(outbound("a\ud800b")).encode()
