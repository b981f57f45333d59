"""Whether a group message calls the bot, and what it says without the call.

The client library's own test works on undecoded text and fails for emoji nicknames and renamed bots, hence this one. WeChat knows no
mention as such on this protocol: a phone writes `@name` and U+2005 into the text, people also type it by hand.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

MENTION_END = "\u2005"
"""What a phone puts after a name that was picked from the member list."""

_QUOTE_BLOCK = re.compile(r"^「(.*?)」\n(?:- ?){3,}\n?", re.DOTALL)
_TIGHT = "-_.·'’&@"
"""Punctuation that also occurs inside names and addresses: ends a name only when no letter or digit follows."""
_AFTER_CALL = "，,：:、；; \t\n\u2005\u3000"


@dataclass(frozen=True, slots=True)
class Called:
    """The bot is called as `name`; `text` is the message without the call."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class QuoteBlock:
    """The head of a message that WeChat for desktop writes when somebody answers a message."""

    sender_name: str
    text: str
    rest: str


def call_in(text: str, my_names: Iterable[str], other_names: Iterable[str] = ()) -> Called | None:
    """How `text` (decoded, without quote block) calls one of `my_names`, or None.

    `other_names`: members whose name begins like mine; `@bot x` calls the member `bot x` and not `bot`.
    """
    mine = {name for name in my_names if name}
    names = sorted({*mine, *(name for name in other_names if name.startswith(tuple(mine)))}, key=len, reverse=True)
    called, rest, kept_from = "", "", 0
    for at in (index for index, character in enumerate(text) if character == "@"):
        name = next((name for name in names if _calls(text, at, name)), None) if at >= kept_from else None
        if name in mine:
            called = called or name
            rest += text[kept_from:at]
            kept_from = _end_of_call(text, at + 1 + len(name))
            rest += " " if _would_join(rest[-1:], text[kept_from : kept_from + 1]) else ""
    if not called:
        return None
    leading = not rest.strip()
    rest += text[kept_from:]
    return Called(called, rest.lstrip(_AFTER_CALL).rstrip() if leading else rest.strip())


def quote_block(text: str) -> QuoteBlock | None:
    """Split `「somebody：words」`, a dashed line and the reply; names inside the quotation call nobody."""
    block = _QUOTE_BLOCK.match(text)
    if block is None:
        return None
    sender, colon, words = block[1].partition("：")
    if not colon:
        sender, words = "", block[1]
    return QuoteBlock(sender_name=sender.strip(), text=words.strip(), rest=text[block.end() :])


def _calls(text: str, at: int, name: str) -> bool:
    end = at + 1 + len(name)
    if text[at + 1 : end] != name:
        return False
    picked = text[end : end + 1] == MENTION_END
    glued = at > 0 and text[at - 1].isascii() and text[at - 1].isalnum()  # someone@example, unless a phone wrote it
    return picked or (not glued and _ends_name(text, end))


def _ends_name(text: str, end: int) -> bool:
    following = text[end : end + 1]
    if not following or following.isspace():
        return True
    if following in _TIGHT:
        return not text[end + 1 : end + 2].isalnum()
    return unicodedata.category(following).startswith("P") or following in "~～"


def _would_join(left: str, right: str) -> bool:
    """Two Latin words that only the call kept apart."""
    return (left + right).isascii() and left.isalnum() and right.isalnum()


def _end_of_call(text: str, end: int) -> int:
    return end + 1 if text[end : end + 1].isspace() else end  # U+2005 is a space, too
