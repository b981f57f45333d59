from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from gateway.backends.handbook import HandbookBackend
from gateway.backends.handbook_pages import question_tokens, sections_of, tokens_of, trimmed
from gateway.errors import BackendMisconfigured
from gateway.prompts import Line, Prompt

ZH = """# 接入钉钉机器人

[![徽章](badge.svg)](x)

## 需要什么？

一个可以创建应用的钉钉组织。见[会话](sessions.md)。

## 会话什么时候结束？

没有人说话一小时后，会话自动结束。

```json
# 这不是标题
{"idle_timeout_s": 3600}
```
"""
EN = """# Connect a DingTalk bot

## What do I need?

An organisation in which you may create applications.

## How do I connect an official account?

Point the callback of the account at the gateway. 公众号也可以。
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"docs/zh/how-to/dingtalk.md": ZH, "docs/en/how-to/dingtalk.md": EN}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "README.md").write_text("# Gateway\n\nIt carries messages.\n\n## Licence\n\nMIT, for everybody.\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
async def handbook(folder: Path) -> AsyncIterator[HandbookBackend]:
    backend = HandbookBackend(folder=folder)
    yield backend
    await backend.aclose()


async def answer_to(backend: HandbookBackend, question: str) -> str:
    async with aclosing(backend.stream(Prompt(lines=(Line("user", question),)))) as deltas:
        return "".join([delta.text async for delta in deltas])


async def test_a_chinese_question_gets_the_section_its_source_and_a_word_about_models(handbook: HandbookBackend) -> None:
    answer = await answer_to(handbook, "请问会话什么时候自动结束？")

    assert answer.startswith("没有人说话一小时后，会话自动结束。")
    assert "出处：docs/zh/how-to/dingtalk.md「会话什么时候结束？」" in answer
    assert "没有接入模型" in answer
    assert "config.json" in answer


async def test_an_english_question_gets_an_english_answer(handbook: HandbookBackend) -> None:
    answer = await answer_to(handbook, "How can I connect official accounts?")

    assert answer.startswith("Point the callback")
    assert "Source: docs/en/how-to/dingtalk.md" in answer
    assert "no model is connected" in answer


async def test_two_characters_are_enough(handbook: HandbookBackend) -> None:
    assert "钉钉组织" in await answer_to(handbook, "钉钉")


async def test_another_language_is_better_than_nothing(handbook: HandbookBackend) -> None:
    assert "MIT" in await answer_to(handbook, "licence 是哪个")


@pytest.mark.parametrize("question", ["今晚吃什么", "你好", "？？？", '"; DROP TABLE section; --', "NEAR(", ""])
async def test_what_the_pages_do_not_know_is_said_with_the_topics(handbook: HandbookBackend, question: str) -> None:
    answer = await answer_to(handbook, question)

    assert "没有找到" in answer or "says nothing" in answer
    assert "接入钉钉机器人" in answer or "Connect a DingTalk bot" in answer


async def test_links_and_badges_are_left_out_and_code_is_kept_whole(handbook: HandbookBackend) -> None:
    assert "sessions.md" not in await answer_to(handbook, "钉钉需要什么")
    assert '# 这不是标题\n{"idle_timeout_s": 3600}\n```' in await answer_to(handbook, "会话自动结束")


async def test_a_folder_without_pages_is_told_to_the_operator(tmp_path: Path) -> None:
    backend = HandbookBackend(folder=tmp_path)

    with pytest.raises(BackendMisconfigured, match="no documentation"):
        await answer_to(backend, "hello")
    assert not (await backend.checkup())[0].ok


async def test_it_reads_nothing_before_the_first_question(folder: Path) -> None:
    backend = HandbookBackend(folder=folder / "not there")

    await backend.aclose()


async def test_our_own_pages_answer_the_questions_of_the_demo() -> None:
    backend = HandbookBackend(folder=Path(__file__).parents[2])

    assert "official-account" in await answer_to(backend, "How do I connect an official account?")
    assert "dingtalk.md" in await answer_to(backend, "怎么接入钉钉？")
    await backend.aclose()


def test_a_long_section_is_cut_between_paragraphs() -> None:
    text = "第一段。" * 20 + "\n\n" + "第二段。" * 20 + "\n\n" + "第三段。" * 20

    cut = trimmed(text, 500)

    assert cut == "第一段。" * 20 + "\n\n" + "第二段。" * 20 + "\n\n…"


def test_a_first_paragraph_that_is_too_long_is_cut_between_lines_and_its_fence_closed() -> None:
    assert trimmed("```\n" + "line\n" * 100 + "```", 50).endswith("line\n```\n…")
    assert len(trimmed("字" * 1000, 100).encode()) <= 103


def test_tokens_join_what_people_write_differently() -> None:
    assert tokens_of("Connecting connections, connected") == ["connect"] * 3
    assert tokens_of("钉钉v2 idle_timeout_s") == ["钉", "钉", "钉钉", "v2", "idle_timeout_s"]
    assert question_tokens("请问怎么接入钉钉？") == ["接入", "入钉", "钉钉"]
    assert question_tokens("How do I do this") == []
    assert question_tokens("钉") == ["钉"]


def test_sections_know_their_page_title_heading_and_language() -> None:
    found = list(sections_of("docs/zh/how-to/dingtalk.md", ZH))

    assert [(section.title, section.heading, section.lang) for section in found] == [
        ("接入钉钉机器人", "需要什么？", "zh"),
        ("接入钉钉机器人", "会话什么时候结束？", "zh"),
    ]
    assert [section.lang for section in sections_of("docs/en/x.md", EN)] == ["en", "en"]
