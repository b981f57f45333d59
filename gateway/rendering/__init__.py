"""Rendering: what a backend wrote, as a platform can show it, cut into pieces. Pure functions; no word is ever lost."""

from __future__ import annotations

import re

from gateway.channels.base import Markup
from gateway.rendering.dingtalk import dingtalk, dingtalk_words
from gateway.rendering.pieces import cut
from gateway.rendering.plain import plain
from gateway.rendering.tree import Block

__all__ = ["cut", "render"]

_MARKS = re.compile(r"[*_`~\[<&\\$]|^(?:[ \t]*(?:[#>|+=:-]|\d{1,9}[.)][ \t])| {4}|\t)", re.MULTILINE)
"""A text without any of these says the same in Markdown and without."""


def render(text: str, markup: Markup) -> str:
    """`text` (Markdown, perhaps broken or unfinished) for a platform. Never raises; words in always give words out."""
    if markup is Markup.MARKDOWN:
        return text
    if not _MARKS.search(text):
        return text if markup is Markup.PLAIN else dingtalk_words(text)
    blocks = _blocks(text)
    if markup is Markup.PLAIN:
        return _plain(blocks, text)
    return dingtalk(blocks) or dingtalk_words(text)


def _blocks(text: str) -> tuple[Block, ...]:
    """None at all where the text cannot be taken as Markdown."""
    from gateway.rendering.markdown import Unreadable, parse  # markdown-it takes 60 ms to import: not before the first text that needs it

    try:
        return parse(text)
    except Unreadable:
        return ()


def _plain(blocks: tuple[Block, ...], text: str) -> str:
    """What rendering changed only in its white space, or swallowed, is best left as written."""
    rendered = plain(blocks)
    return rendered if rendered.strip() and "".join(rendered.split()) != "".join(text.split()) else text
