"""Pages of documentation → sections, and words → search tokens. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.messages import Lang

_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*$")
_FENCE = re.compile(r"\s*(```|~~~)")
_IMAGE = re.compile(r"\[?!\[[^\]]*\]\([^)]*\)(?:\]\([^)]*\))?")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_WORD = re.compile(r"[a-z0-9][a-z0-9_.]*[a-z0-9]|[a-z0-9]|[\u3400-\u9fff]+")
_CHINESE = re.compile(r"[\u3400-\u9fff]")

MOSTLY = 0.1
"""A text with more Chinese characters than this share is a Chinese one."""
_EMPTY_ZH = re.compile(
    "什么时候|什么是|是什么|为什么|怎么样|怎么办|怎样|怎么|如何|什么|请问|可不可以|能不能|可以|是否|是不是|有没有|哪些|哪个|哪里|哪儿|多少|一个|一下|一些"
    "|你好|您好|大家好|谢谢|告诉|今天|我想|我要|我们|你们|我|你|您|吗|呢|吧|啊|的|了"
)
"""Words that make a sentence a question but say nothing about its subject."""
_EMPTY_EN = frozenset(
    re.findall(
        r"\w+",
        "a an and any are as at be by can could do does for from have hello hi how i if in is it"
        " its me my of on or our please should so tell that the their them there this to use want was what when where"
        " which who why will with would you your",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What stands under one heading of one page."""

    page: str
    """Path below the documentation's folder, with slashes."""
    title: str
    """The first heading of the page."""
    heading: str
    text: str
    lang: Lang


def sections_of(page: str, markdown: str) -> Iterator[Section]:
    """The sections of a page that say something; images and link targets are dropped, code fences kept whole."""
    title = ""
    heading = ""
    lines: list[str] = []
    fenced = False
    for line in [*_COMMENT.sub("", markdown).splitlines(), "# "]:
        fenced ^= bool(_FENCE.match(line))
        found = None if fenced else _HEADING.match(line)
        if not found and line != "# ":
            lines.append(line)
            continue
        text = _readable("\n".join(lines))
        if text:
            yield Section(page=page, title=title or page, heading=heading or title or page, text=text, lang=_lang_of(page, text))
        heading = _readable(found[2]) if found else ""
        title = title or heading
        lines = []


def tokens_of(text: str) -> list[str]:
    """Search tokens of a text: Chinese as single characters and pairs, everything else as lower-case words without endings."""
    return list(_tokens(text, singles=True))


def question_tokens(question: str) -> list[str]:
    """Tokens that say what a question is about, each once. A lone Chinese character counts only where no pair does."""
    subject = _EMPTY_ZH.sub(" ", question)
    found = dict.fromkeys(token for token in _tokens(subject, singles=False) if token not in _EMPTY_EN)
    return list(found) or list(dict.fromkeys(character for character in subject if _CHINESE.match(character)))


def trimmed(text: str, max_bytes: int) -> str:
    """As many whole paragraphs of `text` as fit, at least the beginning of the first; an ellipsis when something is left out."""
    kept = ""
    for paragraph in _paragraphs(text):
        longer = f"{kept}\n\n{paragraph}" if kept else paragraph
        if len(longer.encode()) > max_bytes:
            return f"{kept}\n\n…" if kept else _cut_lines(paragraph, max_bytes)
        kept = longer
    return kept


def _tokens(text: str, *, singles: bool) -> Iterator[str]:
    for word in _WORD.findall(text.lower()):
        if not _CHINESE.match(word):
            yield _stem(word)
            continue
        if singles:
            yield from word
        yield from (word[at : at + 2] for at in range(len(word) - 1))


def _stem(word: str) -> str:
    """Enough to join connect, connects, connected, connecting and connection."""
    for ending in ("ions", "ion", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4 and word.isalpha():
            return word[: -len(ending)]
    return word


def _readable(markdown: str) -> str:
    return _LINK.sub(r"\1", _IMAGE.sub("", markdown)).strip()


def _lang_of(page: str, text: str) -> Lang:
    parts = page.lower().replace(".md", "").replace(".", "/").split("/")
    if "zh" in parts or "zh-cn" in parts:
        return "zh"
    if "en" in parts:
        return "en"
    return "zh" if len(_CHINESE.findall(text)) > MOSTLY * len(text) else "en"


def _paragraphs(text: str) -> Iterator[str]:
    """Cut at empty lines outside of code fences."""
    lines: list[str] = []
    fenced = False
    for line in [*text.splitlines(), ""]:
        fenced ^= bool(_FENCE.match(line))
        if line.strip() or fenced:
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _cut_lines(paragraph: str, max_bytes: int) -> str:
    kept: list[str] = []
    room = max_bytes
    for line in paragraph.splitlines():
        room -= len(line.encode()) + 1
        if room < 0:
            break
        kept.append(line)
    if not kept:
        return paragraph.encode()[:max_bytes].decode(errors="ignore") + "…"
    open_fence = sum(bool(_FENCE.match(line)) for line in kept) % 2
    return "\n".join([*kept, *(["```"] if open_fence else []), "…"])
