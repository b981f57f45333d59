"""Markdown text in, our small tree out. This room's only doors to markdown-it are this file and its two dialects."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.ruler import RuleOptionsType
from markdown_it.token import Token

from gateway.rendering import block_dialect, dialect
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

logger = logging.getLogger(__name__)

MAX_CHARS = 100_000
"""A longer text is not parsed: no model writes it, and every character costs event loop time."""
MAX_MARKS = 12_000
"""Lines and marks; with more of them a text is an attack or a data dump (a thorough answer has some hundreds)."""
MAX_NESTING = 40
"""Containers in containers, a list counting twice; markdown-it drops what is deeper, so such a text is not taken as Markdown."""
_MARK_RUNS = re.compile(r"\*+|_+|~+|`+|[\[<|#&\\$\n]")
_TASK = re.compile(r"\[([ xX])\]\s+")
_LONG_HEADING_CHARS = 60


class Unreadable(Exception):
    """The text cannot be taken as Markdown without losing words or time; show it as it is."""


def parse(text: str) -> tuple[Block, ...]:
    """The blocks of `text`. Raises Unreadable for texts that are too long, too deep or beyond the parser."""
    if len(text) > MAX_CHARS or len(_MARK_RUNS.findall(text)) > MAX_MARKS:
        raise Unreadable
    try:
        tokens = _parser().parse(text)
    except (RuntimeError, LookupError, ValueError) as error:  # a fault in the foreign parser, RecursionError included
        logger.warning("Markdown of %d characters could not be parsed (%s); shown as it is.", len(text), type(error).__name__)
        raise Unreadable from error
    if any(token.level >= MAX_NESTING - 1 and token.type in ("blockquote_open", "list_item_open") for token in tokens):
        raise Unreadable
    return _blocks(iter(tokens))


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    """Built once: building costs a hundred times a short parse. It keeps no state between texts."""
    parser = _Parser("commonmark", {"html": False, "maxNesting": MAX_NESTING})
    inline = dialect.ChattyInline()
    parser.inline = inline
    parser.configure("commonmark", {"html": False, "maxNesting": MAX_NESTING}).enable(["table", "strikethrough"])
    parser.disable(["reference", "html_block", "html_inline"])  # an unused reference definition would vanish with its words
    inline.ruler.at("newline", dialect.line_end)
    inline.ruler.at("escape", dialect.careful_escape)
    inline.ruler.before("escape", "formula", dialect.formula)
    inline.ruler.before("escape", "windows_path", dialect.windows_path)
    inline.ruler.before("escape", "bare_url", dialect.bare_url)
    inline.ruler.before("emphasis", "dunder", dialect.dunder)
    interrupts: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote"]}
    parser.block.ruler.at("table", block_dialect.whole_table, {"alt": ["paragraph", "reference"]})
    parser.block.ruler.before("heading", "tight_heading", block_dialect.tight_heading, interrupts)
    parser.block.ruler.before("fence", "displayed_formula", block_dialect.displayed_formula, interrupts)
    return parser


class _Parser(MarkdownIt):
    """Leaves URLs as written: what may become a link is the renderer's decision."""

    def normalizeLink(self, url: str) -> str:
        return url

    def normalizeLinkText(self, link: str) -> str:
        return link

    def validateLink(self, url: str) -> bool:
        return True


def _blocks(tokens: Iterator[Token]) -> tuple[Block, ...]:
    """Blocks up to the end of the container that `tokens` stands in."""
    blocks: list[Block] = []
    for token in tokens:
        if token.nesting < 0:
            break
        blocks.extend(_block(token, tokens))
    return tuple(blocks)


def _block(token: Token, tokens: Iterator[Token]) -> tuple[Block, ...]:
    match token.type:
        case "paragraph_open":
            return (Paragraph(_leaf(tokens), token.hidden),)
        case "heading_open":
            return _heading(token, _leaf(tokens))
        case "fence":
            return (Code(token.content.removesuffix("\n"), token.info.strip()),)
        case "code_block":
            return (Code(token.content.rstrip("\n"), fenced=False),)
        case "formula":
            return (Formula(token.content),)
        case "hr":
            return (Rule(),)
        case "blockquote_open":
            return (Quoted(_blocks(tokens)),)
        case "bullet_list_open" | "ordered_list_open":
            return (_listing(tokens),)
        case "table_open":
            return (_table(tokens),)
    raise Unreadable


def _leaf(tokens: Iterator[Token]) -> tuple[Inline, ...]:
    inline = next(tokens)
    next(tokens)
    return _inlines(iter(inline.children or ()))


def _heading(token: Token, inside: tuple[Inline, ...]) -> tuple[Block, ...]:
    """Underlined headings only take their last line; a line of dashes under a long paragraph was meant as a line across."""
    if token.markup.startswith("#"):
        return (Heading(int(token.tag[1]), inside),)
    breaks = [index for index, inline in enumerate(inside) if isinstance(inline, Break)]
    if token.markup == "-" and (breaks or sum(map(len, map(_raw, inside))) > _LONG_HEADING_CHARS):
        return Paragraph(inside), Rule()
    last = breaks[-1] if breaks else -1
    heading = Heading(int(token.tag[1]), inside[last + 1 :])
    return (Paragraph(inside[:last]), heading) if breaks else (heading,)


def _raw(inline: Inline) -> str:
    return inline.text if isinstance(inline, Words) else ""


def _listing(tokens: Iterator[Token]) -> Listing:
    items: list[tuple[Token, tuple[Block, ...]]] = []
    for token in tokens:
        if token.nesting < 0:
            break
        items.append((token, _blocks(tokens)))
    marks = _marks([token for token, _ in items])
    tight = all(block.tight for _, inside in items for block in inside if isinstance(block, Paragraph))
    return Listing(tuple(_item(mark, inside) for mark, (_, inside) in zip(marks, items, strict=True)), tight)


def _marks(items: list[Token]) -> list[str]:
    """Numbers as written; but `1. 1. 1.`, which counts by itself in Markdown, is counted."""
    numbers = [item.info for item in items]
    if len(items) > 1 and numbers[0] and len(set(numbers)) == 1:
        numbers = [str(int(numbers[0]) + index) for index in range(len(items))]
    return [f"{number}{item.markup}" if number else "•" for number, item in zip(numbers, items, strict=True)]


def _item(mark: str, inside: tuple[Block, ...]) -> Item:
    first = inside[0] if inside else None
    words = first.inside[0] if isinstance(first, Paragraph) and first.inside else None
    found = _TASK.match(words.text) if isinstance(words, Words) else None
    if not isinstance(first, Paragraph) or not isinstance(words, Words) or found is None:
        return Item(mark, inside)
    rest = Paragraph((Words(words.text[found.end() :]), *first.inside[1:]), first.tight)
    return Item(mark, (rest, *inside[1:]), done=found[1] != " ")


def _table(tokens: Iterator[Token]) -> Table:
    rows: list[list[tuple[Inline, ...]]] = []
    for token in tokens:
        if token.type == "table_close":
            break
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(_inlines(iter(token.children or ())))
    return Table(tuple(rows[0]), tuple(map(tuple, rows[1:])))


def _inlines(tokens: Iterator[Token]) -> tuple[Inline, ...]:
    inlines: list[Inline] = []
    for token in tokens:
        if token.nesting < 0:
            break
        inline = _inline(token, tokens)
        if inline is not None:
            inlines.append(inline)
    return tuple(inlines)


def _inline(token: Token, tokens: Iterator[Token]) -> Inline | None:
    match token.type:
        case "text":
            return Words(token.content) if token.content else None
        case "verbatim":
            return Verbatim(token.content)
        case "softbreak":
            return Break(token.content)
        case "code_inline":
            return CodeSpan(token.content)
        case "strong_open":
            return Strong(_inlines(tokens))
        case "em_open":
            return Emphasis(_inlines(tokens))
        case "s_open":
            return Struck(_inlines(tokens))
        case "link_open":
            return Link(_inlines(tokens), str(token.attrs["href"]))
        case "image":
            return Picture(token.content, str(token.attrs["src"]))
    raise Unreadable
