"""What a Markdown text says, in our own small words: blocks made of inlines. Renderers read this and never a foreign token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Words:
    """Literal text: entities decoded, backslash escapes resolved, no newline."""

    text: str


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Text that nobody may interpret: a bare URL, a path, a formula."""

    text: str


@dataclass(frozen=True, slots=True)
class Break:
    """The end of a line inside a paragraph; `indent` is the white space that the next line began with."""

    indent: str = ""


@dataclass(frozen=True, slots=True)
class CodeSpan:
    text: str


@dataclass(frozen=True, slots=True)
class Strong:
    inside: tuple[Inline, ...]


@dataclass(frozen=True, slots=True)
class Emphasis:
    inside: tuple[Inline, ...]


@dataclass(frozen=True, slots=True)
class Struck:
    inside: tuple[Inline, ...]


@dataclass(frozen=True, slots=True)
class Link:
    inside: tuple[Inline, ...]
    url: str


@dataclass(frozen=True, slots=True)
class Picture:
    alt: str
    url: str


Inline: TypeAlias = Words | Verbatim | Break | CodeSpan | Strong | Emphasis | Struck | Link | Picture


@dataclass(frozen=True, slots=True)
class Heading:
    level: int
    """1 to 6."""
    inside: tuple[Inline, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    inside: tuple[Inline, ...]
    tight: bool = False
    """True in a list without empty lines between its items."""


@dataclass(frozen=True, slots=True)
class Code:
    text: str
    """Without its fence, indentation kept, no newline at the end."""
    info: str = ""
    """What stood behind the opening fence, usually the language."""
    fenced: bool = True


@dataclass(frozen=True, slots=True)
class Formula:
    """A displayed LaTeX formula with its delimiters, as written."""

    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A horizontal line."""


@dataclass(frozen=True, slots=True)
class Quoted:
    inside: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Item:
    mark: str
    """`"•"`, or the number with its stop as written: `"1."`, `"2)"`."""
    inside: tuple[Block, ...]
    done: bool | None = None
    """For a task: whether it is ticked. None: not a task."""


@dataclass(frozen=True, slots=True)
class Listing:
    items: tuple[Item, ...]
    tight: bool
    """True when no empty line stood between the items."""


@dataclass(frozen=True, slots=True)
class Table:
    head: tuple[tuple[Inline, ...], ...]
    rows: tuple[tuple[tuple[Inline, ...], ...], ...]


Block: TypeAlias = Heading | Paragraph | Code | Formula | Rule | Quoted | Listing | Table
