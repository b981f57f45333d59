"""Headings, formulas and tables as models write them, as rules for markdown-it: `##标题` needs no blank, and no cell is dropped."""

from __future__ import annotations

import re

from markdown_it.rules_block import StateBlock
from markdown_it.rules_block import table as strict_table
from markdown_it.rules_block.table import escapedSplit, getLine

_TIGHT_HEADING = re.compile(r"(#{2,6})((?:[^\s#\x00-\x7f]|\*\*).*)")
_BREAK_TAG = re.compile(r"<br ?/?>", re.IGNORECASE)
_MATH_LINES = 30
"""A displayed formula longer than this is taken for text."""
_MISSING_CELLS = 2_000
"""A small text may describe a table of many thousand empty cells; beyond this it is an attack."""


class TooCostly(ValueError):
    """A small text that would make a huge document."""


def tight_heading(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """`##标题`, as some Chinese models write it. A single `#` stays: that is a topic (`#话题`)."""
    if state.is_code_block(start_line):
        return False
    found = _TIGHT_HEADING.fullmatch(getLine(state, start_line))
    if found is None:
        return False
    if silent:
        return True
    state.line = start_line + 1
    tag = f"h{len(found[1])}"
    state.push("heading_open", tag, 1).markup = found[1]
    inline = state.push("inline", "", 0)
    inline.content, inline.map, inline.children = found[2].strip().rstrip("#").rstrip(), [start_line, state.line], []
    state.push("heading_close", tag, -1).markup = found[1]
    return True


def displayed_formula(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    r"""`$$…$$` or `\[…\]` over whole lines: nothing in it is a list, a heading or emphasis."""
    opening = getLine(state, start_line).lstrip()[:2]
    closing = {"$$": "$$", "\\[": "\\]"}.get(opening)
    if closing is None or state.is_code_block(start_line):
        return False
    last = _formula_end(state, start_line, end_line, closing)
    if last < 0:
        return False
    if not silent:
        state.line = last + 1
        state.push("formula", "", 0).content = state.getLines(start_line, last + 1, state.blkIndent, False).rstrip()
    return True


def _formula_end(state: StateBlock, start_line: int, end_line: int, closing: str) -> int:
    for line in range(start_line, min(end_line, start_line + _MATH_LINES)):
        text = getLine(state, line).strip()
        if not text or state.sCount[line] < state.blkIndent:
            return -1
        if text.endswith(closing) and (line > start_line or (len(text) > 4 and text.find(closing, 2) == len(text) - 2)):
            return line
    return -1


def whole_table(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """GitHub's table, but cells beyond the last column are kept in it instead of dropped; `<br>` in a cell is a line break."""
    first = len(state.tokens)
    if not strict_table(state, start_line, end_line, True):
        return False
    if silent:
        return True
    _check_size(state, start_line, end_line)
    strict_table(state, start_line, end_line, False)
    cells = [token for token in state.tokens[first:] if token.type in ("tr_open", "inline")]
    line, column, columns = start_line, 0, 0
    for position, token in enumerate(cells):
        if token.type == "tr_open":
            line, column = token.map[0] if token.map else line, 0
            continue
        column += 1
        columns = max(columns, column)
        token.content = _BREAK_TAG.sub("\n", token.content)
        if line > start_line and (position + 1 == len(cells) or cells[position + 1].type == "tr_open"):
            token.content = " | ".join([token.content, *_surplus(getLine(state, line), columns)])
    return True


def _surplus(line: str, columns: int) -> list[str]:
    cells = [cell.strip() for cell in escapedSplit(line.strip().removeprefix("|"))]
    return [cell for cell in cells[columns:] if cell]


def _check_size(state: StateBlock, start_line: int, end_line: int) -> None:
    columns, missing = getLine(state, start_line + 1).count("|"), 0
    for line in range(start_line + 2, end_line):
        text = getLine(state, line)
        if not text.strip():
            return
        missing += max(columns - text.count("|"), 0)
        if missing > _MISSING_CELLS:
            raise TooCostly(f"a table of {columns} columns with more than {_MISSING_CELLS} cells left out")
