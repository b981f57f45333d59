"""What WeChat posts becomes the gateway's words; checked on every kind of post that the platform documents."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.channels.official_account.compose import hint_bytes, text_reply, with_hint
from gateway.channels.official_account.envelope import BrokenXml, read_xml
from gateway.channels.official_account.parse import Received, read, to_inbound
from gateway.messages import Inbound, Unsupported, inbound_from_json, inbound_to_json

FIXTURES = Path(__file__).parent.parent / "fixtures" / "official_account"
FIRST_SEEN = datetime(2026, 1, 5, 9, 0, 1, tzinfo=UTC)


def received(name: str) -> Received:
    return read(read_xml((FIXTURES / f"{name}.xml").read_bytes()))


def inbound(name: str) -> Inbound:
    return to_inbound(received(name), channel="official", account="wx1", first_seen=FIRST_SEEN, answerable_s=15)


def test_a_text_message_keeps_its_words_its_writer_and_its_time() -> None:
    message = inbound("text")

    assert message.text == "今天天气怎么样？"
    assert message.address.sender == message.address.chat == "oFollower-One_000000000000000"
    assert (message.address.channel, message.address.account, message.address.in_group) == ("official", "wx1", False)
    assert message.sent_at == datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def test_a_message_is_known_by_its_writer_and_its_id() -> None:
    assert inbound("text").id == "oFollower-One_000000000000000:23456789012345678"


def test_the_ticket_is_good_for_fifteen_seconds_and_survives_the_ledger() -> None:
    message = inbound("text")

    assert message.ticket.expires_at is not None
    assert (message.ticket.expires_at - FIRST_SEEN).total_seconds() == 15
    assert inbound_from_json(inbound_to_json(message)) == message
    assert datetime.fromisoformat(message.ticket.token["first_seen"]) == FIRST_SEEN


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("text_cdata_end", "a]]> b < c & d"),
        ("text_control_characters", "你好"),
        ("voice_recognized", "今天天气怎么样"),
        ("location", "[位置] 广州塔 (23.134521, 113.358803)"),
        ("link", "公众平台官网链接\n一段说明\nhttps://example.com/page?a=1&b=2"),
    ],
)
def test_what_can_be_read_becomes_words(name: str, text: str) -> None:
    assert inbound(name).text == text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("image", "image"),
        ("voice", "voice"),
        ("video", "video"),
        ("shortvideo", "shortvideo"),
        ("unknown_kind", "hologram"),
        ("text_unreadable", "unsupported"),
    ],
)
def test_what_cannot_be_read_yet_is_named(name: str, kind: str) -> None:
    assert inbound(name).parts == (Unsupported(kind),)


@pytest.mark.parametrize(
    ("name", "event", "key"),
    [
        ("event_subscribe", "subscribe", ""),
        ("event_subscribe_by_code", "subscribe", "qrscene_123123"),
        ("event_unsubscribe", "unsubscribe", ""),
        ("event_location", "LOCATION", ""),
        ("event_click", "CLICK", "FETCH"),
        ("event_scancode", "scancode_push", "6"),
    ],
)
def test_an_event_is_known_by_who_when_what_and_key(name: str, event: str, key: str) -> None:
    found = received(name).event

    assert found is not None
    assert found.identity == ("oFollower-One_000000000000000", "1767603600", event, key)


def test_a_message_is_not_an_event() -> None:
    assert received("text").event is None


@pytest.mark.parametrize("missing", ["ToUserName", "FromUserName", "CreateTime", "MsgType"])
def test_a_post_without_what_every_post_has_is_refused_by_name(missing: str) -> None:
    fields = read_xml((FIXTURES / "text.xml").read_bytes())
    del fields[missing]

    with pytest.raises(BrokenXml, match=missing):
        read(fields)


@pytest.mark.parametrize("created", ["yesterday", "-5", "1e9", "٣", "9" * 30])
def test_a_create_time_that_is_none_is_refused(created: str) -> None:
    fields = read_xml((FIXTURES / "text.xml").read_bytes()) | {"CreateTime": created}

    with pytest.raises(BrokenXml, match="CreateTime"):
        read(fields)


def test_a_message_without_an_id_is_known_by_its_time() -> None:
    fields = read_xml((FIXTURES / "text.xml").read_bytes())
    del fields["MsgId"]

    assert read(fields).id == "oFollower-One_000000000000000:1767603600"


@pytest.mark.parametrize("text", ["你好", "a]]>b", "]]>" * 3, "]]", "<b>&amp;</b>", "\x00\x08x\x1f", "\ud800y", "emoji 😀"])
def test_an_answer_comes_out_of_its_xml_as_it_went_in(text: str) -> None:
    fields = read_xml(text_reply(to_user="o1", from_user="gh", created="17", text=text).encode())

    assert fields["Content"] == "".join(character for character in text if character not in "\x00\x08\x1f\ud800")
    assert (fields["ToUserName"], fields["FromUserName"], fields["CreateTime"], fields["MsgType"]) == ("o1", "gh", "17", "text")


def test_an_answer_cannot_add_elements_to_its_reply() -> None:
    crafted = "]]></Content><MsgType><![CDATA[image]]></MsgType><Content><![CDATA["

    fields = read_xml(text_reply(to_user="o1", from_user="gh", created="17", text=crafted).encode())

    assert fields["MsgType"] == "text"
    assert fields["Content"] == crafted


def test_the_room_kept_for_the_hint_is_enough_in_both_languages() -> None:
    assert max(len(with_hint("", more=True, lang="zh").encode()), len(with_hint("", more=True, lang="en").encode())) == hint_bytes()
    assert with_hint("答", more=False, lang="zh") == "答"
