"""For platforms that show text as it is (WeChat): no mark of Markdown is left, and its meaning still is."""

from __future__ import annotations

import re

from gateway.rendering.tree import (
    Block,
    Break,
    Code,
    CodeSpan,
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
    Table,
    Verbatim,
    Words,
)

LINE_ACROSS = "————————"
_LANGUAGE = re.compile(r"[\w+#.-]*(?:\s*\{[^}]*\})?", re.ASCII)
"""What may stand behind a fence and not be missed; anything else is somebody's words."""


def plain(blocks: tuple[Block, ...]) -> str:
    """The blocks as plain text, an empty line between them."""
    return _joined(blocks, "\n\n")


def _joined(blocks: tuple[Block, ...], between: str) -> str:
    return between.join(filter(None, map(_block, blocks)))


def _block(block: Block) -> str:
    match block:
        case Paragraph(inside):
            return _inlines(inside).strip(" ")
        case Heading(_, inside):
            return _heading(_inlines(inside))
        case Code():
            return _code(block)
        case Formula(text):
            return text
        case Quoted(inside):
            return indented(_joined(inside, "\n\n"), "│ ", "│ ")
        case Listing():
            return _listing(block)
        case Table():
            return _table(block)
        case Rule():
            return LINE_ACROSS


def _heading(words: str) -> str:
    words = " ".join(words.split())
    if not words or (words.startswith("【") and words.endswith("】")):
        return words
    return f"【{words}】"


def _code(code: Code) -> str:
    if not code.fenced:
        return indented(code.text, "    ", "    ")
    text = code.text.strip("\n")
    return text if _LANGUAGE.fullmatch(code.info) else "\n".join(filter(None, (code.info, text)))


def _listing(listing: Listing) -> str:
    between = "\n" if listing.tight else "\n\n"
    return between.join(_item(item, between) for item in listing.items)


def _item(item: Item, between: str) -> str:
    mark = mark_of(item)
    return indented(_joined(item.inside, between), f"{mark} ", "  " if mark in "•☐☑" else "   ").rstrip(" ")


def mark_of(item: Item) -> str:
    """What stands before an item; a task shows its box."""
    if item.done is None:
        return item.mark
    box = "☑" if item.done else "☐"
    return box if item.mark == "•" else f"{item.mark} {box}"


def _table(table: Table) -> str:
    """A block of `column: value` lines per row: columns never line up on a phone."""
    head = [_cell(cell) for cell in table.head]
    if not table.rows:
        return " / ".join(filter(None, head))
    rows = (row_lines(head, [_cell(cell) for cell in row]) for row in table.rows)
    return "\n".join(indented("\n".join(lines), "• ", "  ") for lines in rows if lines)


def _cell(inside: tuple[Inline, ...]) -> str:
    return "\n".join(line.strip() for line in _inlines(inside).splitlines())


def row_lines(head: list[str], row: list[str]) -> list[str]:
    """One `column: value` per cell with words; the bare value where the column has no name."""
    return [f"{name}: {value}" if name else value for name, value in zip(head, row, strict=True) if value]


def indented(text: str, first: str, rest: str) -> str:
    """`text` with `first` before its first line and `rest` before the others; empty lines get no white space at their end."""
    head, *tail = text.split("\n")
    return "\n".join([first + head, *((rest + line).rstrip(" ") if not line else rest + line for line in tail)])


def _inlines(inside: tuple[Inline, ...]) -> str:
    return "".join(map(_inline, inside))


def _inline(inline: Inline) -> str:
    match inline:
        case Words(text) | Verbatim(text) | CodeSpan(text):
            return text
        case Break(indent):
            return "\n" + indent
        case Link(inside, url):
            return linked(_inlines(inside), url)
        case Picture(alt, url):
            return linked(alt, url)
    return _inlines(inline.inside)


def linked(words: str, url: str) -> str:
    """`words (url)`; once is enough where both say the same."""
    bare = url.removeprefix("mailto:").removeprefix("tel:")
    if not words or words in (url, bare) or url.rstrip("/") in (words, f"https://{words}", f"http://{words}"):
        return words if words == bare else url
    return f"{words} ({url})" if url and not url.startswith("#") else words
