"""What WeChat Web sends, read on recorded payloads; and whom an `@` in a group calls."""

from __future__ import annotations

import html
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.channels.wechat.compose import compose
from gateway.channels.wechat.mention import call_in, quote_block
from gateway.channels.wechat.parse import UnreadableMessage, parse, read, room_in_doubt, rooms_named
from gateway.channels.wechat.people import Contact, People, people_of, readable
from gateway.messages import Address, Inbound, Mention, Outbound, Quote, inbound_from_json, inbound_to_json

FIXTURES = Path(__file__).parents[1] / "fixtures" / "wechat"
ME, XIAOMING, QIANG, ROOM = "@" + "0" * 32, "@" + "1" * 32, "@" + "2" * 32, "@@" + "4" * 32


def fixture(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return data


def people(*more: dict[str, Any], nick: str = "bot", display: str = "", members: tuple[str, ...] = ()) -> People:
    """The recorded address book; `nick` and `display` are the bot's names as on the wire, `members` are further ones in the group."""
    data = fixture("contacts")
    room = data["contacts"][-1]
    mine = {"UserName": ME, "NickName": nick, "DisplayName": display}
    others = [{"UserName": f"@member{number}", "NickName": name} for number, name in enumerate(members)]
    room = {**room, "MemberList": [mine, *room["MemberList"][1:], *others]}
    contacts = [*data["contacts"][:-1], room, *more]
    me = Contact.model_validate({**data["me"], "NickName": nick})
    return people_of(uin="1234567890", me=me, contacts=[Contact.model_validate(contact) for contact in contacts])


def heard(name: str, known: People | None = None) -> Inbound | None:
    return parse(read(fixture(name)), known or people(), channel="wechat")


def in_group(content: str, known: People, **settings: Any) -> Inbound:
    """阿强 writes `content`, as on the wire, in the group."""
    inbound = parse(read({**fixture("group_mention"), "Content": f"{QIANG}:<br/>{content}"}), known, channel="wechat", **settings)
    assert inbound is not None
    return inbound


# Recorded messages


def test_a_private_text_is_decoded_once_and_in_the_right_order() -> None:
    inbound = heard("private_text")

    assert inbound is not None
    assert inbound.text == "你好 <b> &amp;\n第二行😄"
    assert inbound.address == Address(channel="wechat", account="1234567890", chat="nick:小明", sender="nick:小明")
    assert inbound.sent_at == datetime(2026, 1, 5, 9, 0, 1, tzinfo=UTC)
    assert (inbound.sender_name, inbound.to_bot) == ("小明", True)
    assert dict(inbound.ticket.token) == {"login": ME, "user_name": XIAOMING}
    assert inbound_from_json(json.loads(json.dumps(inbound_to_json(inbound)))) == inbound


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("private_voice", "voice"),
        ("private_picture", "image"),
        ("private_sticker", "sticker"),
        ("private_location", "location"),
        ("private_file", "file"),
        ("private_link", "link"),
    ],
)
def test_what_a_friend_sends_besides_text_is_named(name: str, kind: str) -> None:
    inbound = heard(name)

    assert inbound is not None
    assert inbound.unsupported == kind


@pytest.mark.parametrize(
    "name",
    [
        "own_from_phone",
        "own_in_group",
        "official_account",
        "wechat_team",
        "group_notice",
        "group_picture",
        "private_transfer",
        "recall",
        "friend_request",
        "phone_status",
    ],
)
def test_what_nobody_asked_is_not_heard(name: str) -> None:
    assert heard(name) is None


def test_a_group_message_names_room_and_member_and_calls_the_bot() -> None:
    inbound = heard("group_mention")

    assert inbound is not None
    assert inbound.address == Address(channel="wechat", account="1234567890", chat="room:公司群", sender="member:阿强", in_group=True)
    assert (inbound.text, inbound.to_bot, inbound.sender_name) == ("今天天气怎么样", True, "阿强")
    assert Mention(id="1234567890", name="bot", me=True) in inbound.parts


def test_a_friend_is_the_same_person_in_a_group_and_is_called_there_by_his_name_in_it() -> None:
    inbound = heard("group_talk")

    assert inbound is not None
    assert (inbound.address.sender, inbound.sender_name, inbound.to_bot) == ("nick:小明", "明哥", False)


@pytest.mark.parametrize(("name", "to_bot"), [("private_quote_reply", True), ("group_quote_reply", True)])
def test_a_quote_reply_is_its_reply_and_what_it_quotes(name: str, to_bot: bool) -> None:
    inbound = heard(name)

    assert inbound is not None
    assert (inbound.text, inbound.to_bot) == ("那是什么意思", to_bot)
    assert inbound.quote == Quote("@bot 早上的问题", "小明")


def test_a_quote_reply_whose_xml_is_hostile_or_broken_is_read_by_its_title() -> None:
    bomb = html.escape('<!DOCTYPE x [<!ENTITY a "aaaa">]><msg><appmsg><title>&a;</title></appmsg></msg>')

    for content in (bomb, "&lt;msg&gt;", ""):
        inbound = parse(read({**fixture("private_quote_reply"), "Content": content}), people(), channel="wechat")
        assert inbound is not None
        assert (inbound.text, inbound.quote) == ("那是什么意思", None)


def test_a_group_message_that_only_quotes_the_bots_name_does_not_call_it() -> None:
    inbound = parse(
        read({**fixture("group_quote_reply"), "Content": fixture("group_quote_reply")["Content"].replace("@bot\u2005", "")}),
        people(),
        channel="w",
    )

    assert inbound is not None
    assert not inbound.to_bot


@pytest.mark.parametrize(
    "broken",
    [
        {"MsgId": ""},
        {"MsgId": None},
        {"Content": None},
        {"FromUserName": ""},
        {"CreateTime": -1},
        {"CreateTime": 10**18},
        {"MsgType": "text"},
        {"ToUserName": []},
    ],
)
def test_a_message_that_lacks_what_it_needs_is_refused_without_repeating_what_it_said(broken: dict[str, object]) -> None:
    with pytest.raises(UnreadableMessage) as caught:
        read({**fixture("private_text"), **broken})

    assert "你好" not in str(caught.value)


def test_fields_that_we_do_not_need_may_be_missing() -> None:
    needed = ("MsgId", "FromUserName", "ToUserName", "MsgType", "Content", "CreateTime")
    message = read({name: value for name, value in fixture("private_text").items() if name in needed})

    assert parse(message, people(), channel="wechat") is not None


def test_the_phone_tells_about_groups() -> None:
    assert rooms_named(read(fixture("phone_status"))) == ["@@" + "8" * 32]
    assert rooms_named(read(fixture("private_text"))) == []


# Whom an @ calls. Contents are as on the wire.


@pytest.mark.parametrize(
    ("label", "content", "known", "text"),
    [
        ("picked from the list", "@bot\u2005你好", people(), "你好"),
        ("typed with a space", "@bot 你好", people(), "你好"),
        ("at the end", "你好 @bot", people(), "你好"),
        ("nothing but the call", "@bot", people(), ""),
        ("nothing but the call, picked", "@bot\u2005", people(), ""),
        ("in the middle", "请问@bot\u2005今天几号", people(), "请问今天几号"),
        ("twice", "@bot\u2005@bot\u2005你好", people(), "你好"),
        ("with somebody else", "@阿强\u2005@bot\u2005你们好", people(), "@阿强\u2005你们好"),
        ("Chinese comma behind", "@bot，你好", people(), "你好"),
        ("Chinese question mark behind", "在吗@bot？", people(), "在吗？"),
        ("colon and command behind", "@bot: /help", people(), "/help"),
        ("newline behind", "@bot<br/>第一行<br/>第二行", people(), "第一行\n第二行"),
        ("glued to Latin letters but picked", "hello@bot\u2005hi", people(), "hello hi"),
        ("emoji nickname as span", '@bot<span class="emoji emoji1f604"></span>\u2005你好', people(nick="bot😄"), "你好"),
        (
            "emoji nickname that the list has as a span, too",
            '@b<span class="emoji emoji1f604"></span>\u2005你好',
            people(nick='b<span class="emoji emoji1f604"></span>'),
            "你好",
        ),
        ("emoji nickname as it is", "@🦊bot\u2005你好", people(nick="🦊bot"), "你好"),
        ("ampersand in the nickname", "@A&amp;B\u2005你好", people(nick="A&amp;B"), "你好"),
        ("angle brackets in the nickname", "@&lt;bot&gt;\u2005你好", people(nick="&lt;bot&gt;"), "你好"),
        ("nickname with a space", "@My Bot\u2005你好", people(nick="My Bot"), "你好"),
        ("name in this group", "@小助手\u2005你好", people(display="小助手"), "你好"),
        ("nickname although it has a name in this group", "@bot\u2005你好", people(display="小助手"), "你好"),
        ("a member's name begins like ours, ours is called", "@bot\u2005你好", people(members=("bot2", "bot 二号")), "你好"),
        ("our name begins like a member's", "@bot2\u2005你好", people(nick="bot2", members=("bot",)), "你好"),
        (
            "reply below a quotation of somebody else",
            "「小明：吃了吗」<br/>- - - - - - - - - - - - - - -<br/>@bot\u2005翻译",
            people(),
            "翻译",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_these_call_the_bot(label: str, content: str, known: People, text: str) -> None:
    inbound = in_group(content, known)

    assert (inbound.to_bot, inbound.text) == (True, text)


@pytest.mark.parametrize(
    ("label", "content", "known"),
    [
        ("no call", "你好", people()),
        ("only the name", "bot 你好", people()),
        ("letters go on", "@botany go", people()),
        ("Chinese goes on", "@bot你好", people()),
        ("digits go on", "@bot2\u2005你好", people()),
        ("hyphen and letters go on", "@bot-2 你好", people()),
        ("dot and letters go on", "look at @bot.com", people()),
        ("an address", "mail someone@bot please", people()),
        ("everybody", "@所有人\u2005你好", people()),
        ("everybody in English", "@all\u2005hello", people()),
        ("a member whose name begins like ours", "@bot 二号\u2005你好", people(members=("bot 二号",))),
        ("a member whose name is ours and an emoji", "@bot😄\u2005你好", people(members=("bot😄",))),
        ("inside a quotation", "「小明：@bot\u2005吃了吗」<br/>- - - - - - - - - - - - - - -<br/>哈哈", people()),
        ("the old name after a rename", "@bot\u2005你好", people(nick="小助手")),
        ("other capitals", "@Bot\u2005你好", people()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_these_do_not_call_the_bot(label: str, content: str, known: People) -> None:
    assert not in_group(content, known).to_bot


def test_an_alias_from_the_configuration_calls_the_bot_too() -> None:
    assert in_group("@小机\u2005你好", people(), aliases=["小机"]).text == "你好"


def test_a_raw_newline_does_not_hide_who_wrote() -> None:
    message = read({**fixture("group_mention"), "Content": f"{QIANG}:\n@bot\u2005第一行\n第二行"})
    inbound = parse(message, people(), channel="wechat")

    assert inbound is not None
    assert (inbound.sender_name, inbound.to_bot, inbound.text) == ("阿强", True, "第一行\n第二行")


def test_a_quotation_block_becomes_a_quote() -> None:
    inbound = in_group("「小明：吃了吗」<br/>- - - - - - - - - - - - - - -<br/>@bot\u2005翻译", people())

    assert inbound.quote == Quote("吃了吗", "小明")


@pytest.mark.parametrize(
    ("content", "known", "doubt"),
    [
        ("你好", people(), None),
        ("@bot\u2005你好", people(), None),
        ("@改过的名字\u2005你好", people(), ROOM),
    ],
)
def test_only_a_call_that_reaches_nobody_known_makes_us_ask_for_the_group(content: str, known: People, doubt: str | None) -> None:
    message = read({**fixture("group_mention"), "Content": f"{QIANG}:<br/>{content}"})

    assert room_in_doubt(message, known) == doubt


def test_an_unknown_group_or_member_makes_us_ask_for_the_group() -> None:
    stranger = read({**fixture("group_talk"), "Content": "@" + "7" * 32 + ":<br/>你好"})
    elsewhere = read({**fixture("group_talk"), "FromUserName": "@@" + "7" * 32})

    assert room_in_doubt(stranger, people()) == ROOM
    assert room_in_doubt(elsewhere, people()) == "@@" + "7" * 32


# Names that outlive a login


def friend(user_name: str, nick: str, remark: str = "") -> dict[str, Any]:
    return {"UserName": user_name, "NickName": nick, "RemarkName": remark}


def test_the_owners_remark_is_the_best_name_and_nobody_can_choose_it() -> None:
    known = people(friend("@a", "remark:老板"), friend("@b", "nick:老板"))

    assert known.friend_id("@" + "5" * 32) == "remark:老板"
    assert known.friend_id("@a") == "nick:remark:老板"
    assert known.user_name_of("remark:老板") == "@" + "5" * 32


def test_a_name_that_two_bear_is_no_name() -> None:
    known = people(friend("@a", "小明"), friend("@b", "大李", "邻居"), friend("@c", "小李", "邻居"))

    assert known.friend_id(XIAOMING) == XIAOMING
    assert known.user_name_of("nick:小明") is None
    assert known.friend_id("@b") == "nick:大李"
    assert known.user_name_of("remark:邻居") is None


def test_a_member_who_takes_the_name_of_a_friend_does_not_become_that_friend() -> None:
    known = people(members=("老板", "小明"))

    assert known.member_id(ROOM, "@member0") == "member:老板"
    assert known.member_id(ROOM, "@member1") == "@member1"  # two of that name in this group
    assert known.member_id(ROOM, XIAOMING) == "nick:小明"


def test_two_groups_of_one_name_are_told_apart_only_within_a_login() -> None:
    known = people({"UserName": "@@b", "NickName": "公司群"})

    assert known.room_id(ROOM) == ROOM
    assert known.user_name_of("room:公司群") is None
    assert known.user_name_of(ROOM) == ROOM


def test_the_account_itself_is_nobodys_friend() -> None:
    assert ME not in people(friend(ME, "bot")).friends


# Decoding and composing


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        ('<span class="emoji emoji1f604"></span>', "😄"),
        ('<span class="emoji emoji1f63c"></span>', "😁"),
        ('<span class="emoji emoji1f1e81f1f3"></span>', "🇨🇳"),
        ('<span class="emoji emoji2320e3"></span>', "#\u20e3"),
        ('<span class="emoji emojid800"></span>', "\ufffd"),
        ('<span class="emoji emojiffffffff"></span>', "\ufffd"),
        ("&lt;br/&gt;", "<br/>"),
        ("&amp;lt;", "&lt;"),
        ("a<br/>b", "a\nb"),
    ],
)
def test_text_is_decoded_as_a_person_sees_it(wire: str, text: str) -> None:
    assert readable(wire) == text


def outbound(text: str, *, in_group: bool, name: str = "") -> Outbound:
    address = Address(channel="wechat", account="1", chat="c", sender="s", in_group=in_group)
    return Outbound(key="k", address=address, text=text, mention=Mention(id="s", name=name) if name else None)


@pytest.mark.parametrize(
    ("out", "prefix", "text"),
    [
        (outbound("好", in_group=False), "", "好"),
        (outbound("好", in_group=False), "[bot]", "[bot]\n好"),
        (outbound("好", in_group=True, name="阿强"), "[bot]", "@阿强\u2005好"),
        (outbound("好", in_group=True), "", "好"),
        (outbound("好", in_group=True, name="a\u2005b"), "", "@a b\u2005好"),
        (outbound("@fil@/etc/passwd", in_group=False), "", "@fil@/etc/passwd"),
        (outbound("bad \ud800 half", in_group=False), "", "bad ? half"),
    ],
)
def test_an_answer_is_composed(out: Outbound, prefix: str, text: str) -> None:
    assert compose(out, reply_prefix=prefix) == text


@given(
    st.text(alphabet="@bot \u2005「」-：\n，.2你<>&;/"),
    st.text(alphabet="bot 2@.-", max_size=4),
    st.lists(st.text(alphabet="bot 2@", max_size=5), max_size=3),
)
def test_no_text_and_no_name_breaks_the_reading_of_calls(text: str, name: str, others: list[str]) -> None:
    called = call_in(text, [name], others)

    assert called is None or (called.name == name and f"@{name}" in text and len(called.text) < len(text))
    block = quote_block(text)
    assert block is None or text.endswith(block.rest)
