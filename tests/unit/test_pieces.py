"""Long answers in pieces."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rendering import cut

FENCE = re.compile(r"^[ \t>]*(?:`{3,}|~{3,}).*$", re.MULTILINE)


def words(text: str) -> str:
    return "".join(text.split())


def words_beside_fences(text: str) -> str:
    return words(FENCE.sub("", text))


def sizes(pieces: list[str]) -> list[int]:
    return [len(piece.encode(errors="surrogatepass")) for piece in pieces]


def test_a_short_text_stays_whole() -> None:
    assert cut("你好\n世界", 64, fences=False) == ["你好\n世界"]
    assert cut("  if a:\n    b\n", 64, fences=False) == ["  if a:\n    b"]


@pytest.mark.parametrize("text", ["", " ", "\n\n \t\n", "\u3000" * 200])
def test_nothing_makes_no_piece(text: str) -> None:
    assert cut(text, 64, fences=False) == []
    assert cut(text, 64, fences=True) == []


def test_a_piece_below_sixty_four_bytes_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least 64 bytes"):
        cut("x", 63, fences=False)


def test_paragraphs_are_preferred_to_lines_and_lines_to_sentences() -> None:
    first, second, third = "一" * 12, "二" * 8, "三" * 12

    assert cut(f"{first}\n\n{second}\n{third}", 90, fences=False) == [first, f"{second}\n{third}"]
    assert cut(f"{first}\n{second}。{third}", 90, fences=False) == [first, f"{second}。{third}"]
    assert cut(f"{first}{second}。{third}", 90, fences=False) == [f"{first}{second}。", third]


def test_a_sentence_is_not_torn_when_it_ends_in_the_later_half() -> None:
    text = "今天天气很好，我们去公园。" * 20

    assert all(piece.endswith("。") for piece in cut(text, 200, fences=False))


def test_a_latin_word_is_not_torn() -> None:
    text = "gateway " * 100

    assert all(set(piece.split()) == {"gateway"} for piece in cut(text, 100, fences=False))


def test_a_number_with_a_point_is_no_end_of_a_sentence() -> None:
    pieces = cut("版本 3.14.15 " * 30, 100, fences=False)

    assert all("3.14.15" in piece and not piece.endswith((".", "3", "14")) for piece in pieces)


def test_no_line_begins_with_a_closing_mark() -> None:
    pieces = cut("“中文中文中文中文中”，" * 60, 64, fences=False)

    assert not [piece for piece in pieces if piece[0] in "，。”"]


def test_a_url_is_not_torn() -> None:
    url = "https://example.com/a/very/long/path?with=a&query=1"

    pieces = cut(f"请看这里的说明文档 {url} 谢谢。" * 6, 120, fences=False)

    assert "".join(pieces).count(url) == sum(piece.count(url) for piece in pieces) == 6


def test_a_url_longer_than_a_piece_is_cut_all_the_same() -> None:
    pieces = cut("https://example.com/" + "a" * 500, 100, fences=False)

    assert max(sizes(pieces)) <= 100
    assert words("".join(pieces)) == "https://example.com/" + "a" * 500


@pytest.mark.parametrize("sign", ["👨‍👩‍👧‍👦", "👍🏽", "🇨🇳", "❤️", "é", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"])
def test_a_joined_sign_is_not_torn(sign: str) -> None:
    pieces = cut(sign * 60, 101, fences=False)

    assert max(sizes(pieces)) <= 101
    assert all(piece.replace(sign, "") == "" for piece in pieces)


def test_a_code_block_is_closed_and_opened_again() -> None:
    code = "\n".join(f"    print({number})" for number in range(30))

    pieces = cut(f"说明：\n\n```python\n{code}\n```\n\n完毕。", 200, fences=True)

    assert len(pieces) > 2
    assert all(len(FENCE.findall(piece)) % 2 == 0 for piece in pieces)
    assert all(piece.startswith("```python\n    print") for piece in pieces[1:-1] if "```" in piece)
    assert words_beside_fences("\n".join(pieces)) == words_beside_fences(f"说明：\n\n```python\n{code}\n```\n\n完毕。")


def test_a_code_block_in_a_list_keeps_its_indentation() -> None:
    text = "- 步骤\n  ```sh\n" + "  echo one two three\n" * 20 + "  ```\n- 完"

    pieces = cut(text, 150, fences=True)

    assert all(piece.startswith("  ```sh\n  echo") for piece in pieces[1:-1])
    assert all(len(FENCE.findall(piece)) % 2 == 0 for piece in pieces)


def test_no_piece_ends_with_an_opened_fence_or_holds_an_empty_one() -> None:
    text = ("字" * 20 + "\n\n```py\n" + "x = 1\n" * 8 + "```\n") * 20

    for limit in range(100, 200, 3):
        assert not [piece for piece in cut(text, limit, fences=True) if re.search(r"```py\n*```", piece)]


def test_without_fences_backticks_mean_nothing() -> None:
    pieces = cut("```\n" + "代码\n" * 60, 100, fences=False)

    assert sum(piece.count("```") for piece in pieces) == 1


def test_links_and_bold_words_stay_whole_for_markdown_targets() -> None:
    pieces = cut("参考文档见[官方 网站 说明](https://example.com/a) 以及**非常 重要 的 内容** " * 20, 128, fences=True)

    assert all(piece.count("**") % 2 == 0 and piece.count("[") == piece.count("](") == piece.count(")") for piece in pieces)


PARTS = st.sampled_from(
    [
        "字",
        "中文句子。",
        "a",
        "word ",
        "\n",
        "\n\n",
        " ",
        "```\n",
        "\n```py\n",
        "~~~~\n",
        "  ```\n",
        "> ```\n",
        "👨‍👩‍👧",
        "🇨🇳",
        "e\u0301",
        "http://a.cn/b?c=d ",
        "**粗体**",
        "[链接](http://a.cn)",
        "`code`",
        "\t",
        "\u3000",
        "x" * 70,
        "`" * 40,
        "```" + "i" * 90 + "\n",
        "\ud800",
        "。”",
        "! ",
        "\u200b",
    ]
)
TEXTS = st.lists(PARTS, max_size=120).map("".join)


@settings(max_examples=500, deadline=None)
@given(TEXTS, st.integers(64, 400))
def test_pieces_hold_all_words_in_order_and_fit(text: str, limit: int) -> None:
    pieces = cut(text, limit, fences=False)

    assert words("".join(pieces)) == words(text)
    assert all(piece.strip() for piece in pieces)
    assert all(size <= limit for size in sizes(pieces))


@settings(max_examples=500, deadline=None)
@given(TEXTS, st.integers(64, 400))
def test_pieces_with_fences_hold_all_words_in_order_and_fit(text: str, limit: int) -> None:
    pieces = cut(text, limit, fences=True)

    assert all(piece.strip() for piece in pieces)
    assert all(size <= limit for size in sizes(pieces))
    without_marks = re.compile(r"[`~>i\s]|py")
    assert without_marks.sub("", "".join(pieces)) == without_marks.sub("", text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400), st.integers(64, 128), st.booleans())
def test_any_text_can_be_cut(text: str, limit: int, fences: bool) -> None:
    pieces = cut(text, limit, fences=fences)

    assert all(piece.strip() and size <= limit for piece, size in zip(pieces, sizes(pieces), strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "中文没有标点" * 55_000,
        "a" * 1_000_000,
        "word " * 200_000,
        "句子。" * 110_000,
        "[" * 1_000_000,
        "```\nx\n" * 160_000,
        "👨‍👩‍👧" * 55_000,
        "\n" * 1_000_000 + "x",
        "\u0301" * 500_000,
        "a://" * 250_000,
    ],
    ids=["chinese", "one word", "words", "sentences", "brackets", "fences", "families", "newlines", "accents", "urls"],
)
@pytest.mark.parametrize("fences", [True, False])
def test_a_megabyte_is_cut_in_linear_time(text: str, fences: bool) -> None:
    started = time.process_time()

    pieces = cut(text, 2048, fences=fences)

    assert time.process_time() - started < 5
    assert max(sizes(pieces)) <= 2048


@given(st.text("aé你😀 \n。.", max_size=900), st.integers(40, 300))
def test_pieces_hold_so_many_characters_where_a_platform_counts_them(text: str, max_chars: int) -> None:
    pieces = cut(text, 4 * max_chars, fences=False, max_chars=max_chars)
    assert all(len(piece) <= max_chars for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
