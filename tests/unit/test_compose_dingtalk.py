"""What DingTalk gets: a title, Markdown, and a mention that rings."""

from __future__ import annotations

import json

import pytest

from gateway.channels.dingtalk.compose import BODY_BYTES, PIECE_BYTES, TITLE_CHARS, compose_ack, compose_message, encoded
from gateway.messages import Address, Mention, Outbound

GROUP = Address(channel="dingtalk", account="ding1", chat="cid1", sender="user1", in_group=True)
PRIVATE = Address(channel="dingtalk", account="ding1", chat="cid2", sender="user1")
ENCRYPTED = "$:LWCP_v1:$Ff09GI+abc/def="


def body(text: str, *, address: Address = GROUP, mention: Mention | None = None) -> dict[str, object]:
    return json.loads(encoded(compose_message(Outbound(key="k", address=address, text=text, mention=mention))))


def test_an_answer_is_markdown_with_a_title() -> None:
    assert body("**你好**，世界", address=PRIVATE) == {
        "msgtype": "markdown",
        "markdown": {"title": "你好 ，世界", "text": "**你好**，世界"},
    }


def test_a_mention_stands_in_the_text_and_in_the_list() -> None:
    said = body("好的", mention=Mention("user1", "张三"))

    assert said["markdown"]["text"] == "@user1 好的"
    assert said["at"] == {"atUserIds": ["user1"], "isAtAll": False}


@pytest.mark.parametrize("text", ["# 标题", "- 一", "* 一", "1. 一", "> 引用", "| a |", "```py\nx\n```", "![](x)", "**粗**"])
def test_a_mention_does_not_break_the_block_that_follows(text: str) -> None:
    assert body(text, mention=Mention("user1"))["markdown"]["text"] == f"@user1\n\n{text}"


def test_somebody_without_a_staff_id_is_called_by_the_encrypted_one() -> None:
    said = body("好的", mention=Mention(ENCRYPTED, "外人"))

    assert said["markdown"]["text"] == f"@{ENCRYPTED} 好的"
    assert said["at"] == {"atDingtalkIds": [ENCRYPTED], "isAtAll": False}


def test_somebody_without_any_id_is_called_by_name() -> None:
    said = body("好的", mention=Mention("", "外人"))

    assert said["markdown"]["text"] == "@外人 好的"
    assert "at" not in said


def test_nobody_is_called_in_a_private_chat() -> None:
    said = body("好的", address=PRIVATE, mention=Mention("user1"))

    assert said["markdown"]["text"] == "好的"
    assert "at" not in said


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# 今天的天气\n晴", "今天的天气"),
        ("\n\n---\n\n| 城市 | 温度 |", "城市 温度"),
        ("```python\nprint(1)\n```", "python"),
        ("[链接](https://example.com/a_b) 在此", "链接 在此"),
        ("长" * 100, "长" * (TITLE_CHARS - 1) + "…"),
        ("---", "…"),
        ("", "…"),
    ],
)
def test_the_title_is_the_first_words(text: str, title: str) -> None:
    assert body(text)["markdown"]["title"] == title


@pytest.mark.parametrize("filling", ["中", '"', "\n", "\\", "a", "😀", '{"键":"值"}\n', "\x01中", "\ud83d"])
def test_the_longest_piece_always_fits(filling: str) -> None:
    text = (filling * PIECE_BYTES).encode("utf-8", "replace")[:PIECE_BYTES].decode("utf-8", "ignore")
    outbound = Outbound(key="k", address=GROUP, text=text, mention=Mention("$:LWCP_v1:$" + "x" * 60, "张三"))

    assert len(encoded(compose_message(outbound))) < BODY_BYTES


def test_control_characters_are_dropped() -> None:
    assert body("a\x00b\r\nc\td\x7f", address=PRIVATE)["markdown"]["text"] == "ab\nc\td"


def test_an_ack_names_its_frame() -> None:
    assert json.loads(compose_ack("m1", '{"opaque":"x"}')) == {
        "code": 200,
        "headers": {"contentType": "application/json", "messageId": "m1"},
        "message": "OK",
        "data": '{"opaque":"x"}',
    }
