"""DingTalk's subset of Markdown (documented: headings, quote, bold, italic, link, image, lists; protocol page of 2026-11, §2.2).

Phones show a blank message when it holds raw HTML, tables often not at all, and one newline is no line break. Fences are kept: computers
show them as code and phones as text.
"""

from __future__ import annotations

import re
import unicodedata

from gateway.rendering.plain import LINE_ACROSS, indented, linked, mark_of, row_lines
from gateway.rendering.tree import (
    Block,
    Break,
    Code,
    CodeSpan,
    Emphasis,
    Formula,
    Heading,
    Inline,
    Item,
    Link,
    Listing,
    Paragraph,
    Picture,
    Quoted,
    Rule,
    Strong,
    Struck,
    Table,
    Verbatim,
    Words,
)

BREAK = "  \n"
"""Two blanks and a newline: the only line break inside a paragraph that DingTalk obeys."""
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#?\w{1,32};)")
_STARS = re.compile(r"(?<=\S)\*+|\*+(?=\S)")
_SPARE_BACKTICKS = re.compile(r"`+")
_LINE_START = re.compile(r"\A(?:(#{1,6})(?=\s|$)|([-+])(?=\s)|(>)|(\d{1,9})([.)])(?=\s))")
_HASH = re.compile(r"^ {0,3}#", re.MULTILINE)
_SAFE_LINK = re.compile(r"(?:https?://|mailto:|tel:)", re.IGNORECASE)
"""Anything else stays text: `dtmd://…` makes the person who taps it say something."""


def dingtalk(blocks: tuple[Block, ...]) -> str:
    """The blocks in DingTalk's Markdown, an empty line between them."""
    return _joined(blocks, "\n\n")


def dingtalk_words(text: str) -> str:
    """Text that is shown as it is: only its line breaks need help, and HTML in it must not blank the message."""
    return _without_html("\n\n".join(BREAK.join(lines) for lines in map(_stripped_lines, text.strip("\n").split("\n\n")) if lines))


def _stripped_lines(text: str) -> list[str]:
    return [line.strip(" \t") for line in text.split("\n") if line.strip()]


def _joined(blocks: tuple[Block, ...], between: str) -> str:
    return between.join(filter(None, map(_block, blocks)))


def _block(block: Block) -> str:
    match block:
        case Paragraph(inside):
            return _lines(inside)
        case Heading(level, inside):
            words = " ".join(_inlines(inside).split())
            return f"{'#' * level} {words}" if words else ""
        case Code(text, info):
            return _code(text, info)
        case Formula(text):
            return _without_html(text).replace("\n", BREAK)
        case Quoted(inside):
            return indented(_joined(inside, "\n\n"), "> ", "> ")
        case Listing():
            return _listing(block)
        case Table():
            return _table(block)
        case Rule():
            return LINE_ACROSS


def _code(text: str, info: str) -> str:
    longest = max((len(run) for run in _SPARE_BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    # DingTalk makes a heading of a line in a fence that begins with `#`. Four blanks keep it text and, before a comment, harm no code.
    guarded = _HASH.sub("    #", _TAG.sub("&lt;", text.strip("\n")))
    return f"{fence}{_without_html(info.replace('`', ''))}\n{guarded}\n{fence}" if text.strip() or info else ""


def _listing(listing: Listing) -> str:
    between = "\n" if listing.tight else "\n\n"
    return between.join(_item(item, between) for item in listing.items)


def _item(item: Item, between: str) -> str:
    mark = mark_of(item).replace("•", "-")
    mark = f"- {mark}" if mark in "☐☑" else mark
    return indented(_joined(item.inside, between), f"{mark} ", "  " if mark.startswith("-") else "   ")


def _table(table: Table) -> str:
    head = [_cell(cell) for cell in table.head]
    if not table.rows:
        return " / ".join(filter(None, head))
    rows = (row_lines(head, [_cell(cell) for cell in row]) for row in table.rows)
    return "\n".join(indented(BREAK.join(lines), "- ", "  ") for lines in rows if lines)


def _cell(inside: tuple[Inline, ...]) -> str:
    return "；".join(filter(None, (line.strip() for line in _inlines(inside).splitlines())))


def _lines(inside: tuple[Inline, ...]) -> str:
    """A paragraph; a line of it that happens to look like a list, heading or quote is guarded."""
    shown = _inlines(inside)
    if shown.count("*") == 1 and not shown.startswith("\\*"):  # one star alone emphasizes nothing
        shown = shown.replace("\\*", "*")
    return BREAK.join(_LINE_START.sub(_guard, line, count=1) for line in shown.split(BREAK))


def _guard(found: re.Match[str]) -> str:
    number, stop = found[4], found[5]
    return f"{number}\\{stop}" if number else f"\\{found[0]}"


def _inlines(inside: tuple[Inline, ...]) -> str:
    """Emphasis gets a blank where DingTalk would otherwise not see that it opens or closes (`**重点。**后文`)."""
    shown = ""
    for inline in inside:
        part = _inline(inline)
        if shown and part and _needs_blank(shown, part, inline):
            shown += " "
        shown += part
    return shown


_EMPHATIC = (Strong, Emphasis)


def _needs_blank(shown: str, part: str, inline: Inline) -> bool:
    before, after = shown[-1], part[0]
    if before == after == "*":
        return True
    if isinstance(inline, _EMPHATIC):
        return _hard(part.lstrip("*")[:1]) and not _hard(before) and not before.isspace()
    return before == "*" and not shown.endswith("\\*") and _hard(shown[-8:].rstrip("*")[-1:]) and not _hard(after) and not after.isspace()


def _hard(character: str) -> bool:
    return bool(character) and unicodedata.category(character)[0] in "PS"


def _inline(inline: Inline) -> str:
    match inline:
        case Words(text):
            return _literal(text)
        case Verbatim(text):
            return _without_html(text)
        case CodeSpan(text):
            return _span(text)
        case Break():
            return BREAK
        case Strong(inside):
            return _wrapped(inside, "**")
        case Emphasis(inside):
            return _wrapped(inside, "*")
        case Struck(inside):
            return _inlines(inside)
        case Link(inside, url):
            return _link(_inlines(inside), url)
        case Picture(alt, url):
            return f"!{_link(_literal(alt), url)}" if _SAFE_LINK.match(url) else _literal(linked(alt, url))


def _wrapped(inside: tuple[Inline, ...], mark: str) -> str:
    words = _inlines(inside).strip()
    return f"{mark}{words}{mark}" if words else ""


def _link(words: str, url: str) -> str:
    if not _SAFE_LINK.match(url):
        return linked(words, _without_html(url))
    target = url.replace(" ", "%20").replace("(", "%28").replace(")", "%29").replace("<", "%3C")
    return target if words == url else f"[{words.replace(BREAK, ' ')}]({target})"


def _span(text: str) -> str:
    longest = max((len(run) for run in _SPARE_BACKTICKS.findall(text)), default=0)
    mark, pad = "`" * (longest + 1), " " if longest else ""
    return f"{mark}{pad}{_TAG.sub('&lt;', text)}{pad}{mark}"


def _literal(text: str) -> str:
    """Words that must not turn into Markdown again."""
    guarded = _STARS.sub(lambda found: "\\*" * len(found[0]), _without_html(text))
    return guarded.replace("](", "]\\(")


def _without_html(text: str) -> str:
    """Raw HTML blanks the whole message on phones (issues 209 and 213 of eryajf/chatgpt-dingtalk)."""
    return _TAG.sub("&lt;", _ENTITY.sub("&amp;", text))
