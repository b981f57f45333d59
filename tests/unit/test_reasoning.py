from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.reasoning import ThoughtSplitter


def parted(*pieces: str) -> tuple[str, str]:
    splitter = ThoughtSplitter()
    results = [splitter.feed(piece) for piece in pieces]
    results.append(splitter.finish())
    return "".join(text for text, _ in results), "".join(thought for _, thought in results)


@pytest.mark.parametrize(
    ("whole", "text", "thought"),
    [
        ("Hello.", "Hello.", ""),
        ("<think>hm</think>Hello.", "Hello.", "hm"),
        ("\n<think>\nhm\n</think>\n\nHello.", "Hello.", "\nhm\n"),
        ("One. <think>hm</think> Two.", "One.  Two.", "hm"),
        ("<think>a</think>One.<think>b</think>Two.", "One.Two.", "ab"),
        ("<think>never closed", "", "never closed"),
        ("One.<think>never closed", "One.", "never closed"),
        ("<think></think>Hello.", "Hello.", ""),
        ("<thinking>hm</thinking>Hello.", "Hello.", "hm"),
        ("<think>a <b> c</think>Hello.", "Hello.", "a <b> c"),
        ("no opening mark</think>Hello.", "no opening markHello.", ""),
        ("a < b and <thin", "a < b and <thin", ""),
        ("Write `<think>` before it.", "Write `<think>` before it.", ""),
        ("```\n<think>x</think>\n```", "```\n<think>x</think>\n```", ""),
        ("`code`<think>hm</think>", "`code`", "hm"),
        ("```\nx\n```\n<think>hm</think>", "```\nx\n```\n", "hm"),
        ("<think>想一想</think>你好", "你好", "想一想"),
        ("", "", ""),
    ],
)
def test_thought_and_text_are_parted_wherever_the_pieces_are_cut(whole: str, text: str, thought: str) -> None:
    assert parted(whole) == (text, thought)
    assert parted(*whole) == (text, thought)
    for cut in range(len(whole)):
        assert parted(whole[:cut], whole[cut:]) == (text, thought)


def test_words_are_not_held_back_longer_than_a_mark_is() -> None:
    splitter = ThoughtSplitter()

    assert splitter.feed("Hello <th") == ("Hello ", "")
    assert splitter.feed("ree>") == ("<three>", "")


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "think>", "</", "`", "```", "a", " ", "\n", "你"]), max_size=12),
    st.integers(1, 4),
)
def test_how_the_text_is_cut_never_matters(parts: list[str], step: int) -> None:
    whole = "".join(parts)

    assert parted(*(whole[at : at + step] for at in range(0, len(whole), step))) == parted(whole)


@given(st.text(alphabet=st.characters(exclude_characters="<"), max_size=60))
def test_text_without_marks_is_only_stripped_in_front(text: str) -> None:
    assert parted(*text) == (text.lstrip(), "")
