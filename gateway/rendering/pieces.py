"""Cutting a long answer into pieces a platform takes, where a reader would pause."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

SMALLEST_BYTES = 64
"""Below this no sensible cut is possible; every platform allows far more."""
_SENTENCE_END = re.compile(r"[。！？；…]+[”’」』）)]*|[.!?;]+[\"')]*(?=\s)")
_URL = re.compile(r"(?<![A-Za-z+.-])[A-Za-z][A-Za-z+.-]{1,15}://[^\s<>\u2018-\u201f\u3000-\u303f\u3400-\u9fff\uff00-\uffef]+")
_MARKDOWN_ATOM = re.compile(
    r"!?\[[^\[\]\n]{0,300}\]\([^()\s]{0,1000}\)|\*\*[^*\n]{1,300}\*\*|`[^`\n]{1,300}`"
    r"|(?<![A-Za-z+.-])[A-Za-z][A-Za-z+.-]{1,15}://[^\s<>\u2018-\u201f\u3000-\u303f\u3400-\u9fff\uff00-\uffef]+"
)
_FENCE = re.compile(r"^([ \t>]*)(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_CLOSERS = "，。、；：！？）》」』】”’…,.;:!?)]}"
_LONGEST_CLUSTER = 64
"""How far a cut moves back to spare an emoji sequence or a pile of accents (characters)."""


@dataclass(frozen=True, slots=True)
class _Fence:
    """An open fence: what closes it and what opens it again in the next piece."""

    opening: str
    closing: str

    @property
    def cost(self) -> int:
        """Bytes that re-opening and closing take of a piece."""
        return _bytes(self.opening) + _bytes(self.closing) + 2


def cut(text: str, max_bytes: int, *, fences: bool, max_chars: int | None = None) -> list[str]:
    """`text` in pieces of at most `max_bytes` UTF-8 bytes (at least 64) and, without `fences`, `max_chars` characters; none is blank.

    A cut falls between paragraphs, else between lines, sentences, words, characters, whichever leaves the piece reasonably full; never
    inside a code point, and inside an emoji sequence or a URL only when that alone does not fit. With `fences` (targets that show
    Markdown) a piece that ends inside a code block closes it, and the next one opens it again; links, bold words and code spans stay whole.
    """
    if max_bytes < SMALLEST_BYTES:
        raise ValueError(f"a piece needs at least {SMALLEST_BYTES} bytes, not {max_bytes}")
    if len(text) <= (max_chars or len(text)) and (len(text) * 4 <= max_bytes or _bytes(text) <= max_bytes):
        return [_trimmed(text)] if text.strip() else []
    return _with_fences(text, max_bytes) if fences else _without_fences(text, max_bytes, max_chars or max_bytes)


def _without_fences(text: str, max_bytes: int, max_chars: int) -> list[str]:
    pieces, start = [], 0
    while start < len(text):
        start = _next_words(text, start)
        end = _cut_after(text, start, max_bytes, _URL, max_chars)
        pieces.append(text[start:end].rstrip())
        start = end
    return [piece for piece in pieces if piece]


def _with_fences(text: str, max_bytes: int) -> list[str]:
    pieces: list[str] = []
    start, fence = 0, None
    while start < len(text):
        start = _next_words(text, start)
        if fence is not None and (closed := _closes_at_once(text, start, fence)):
            start, fence = closed, None
            continue
        end, after = _fenced_end(text, start, max_bytes, fence)
        body = text[start:end].rstrip()
        if body:
            pieces.append("\n".join(filter(None, (fence.opening if fence else "", body, after.closing if after else ""))))
        start, fence = end, after
    return pieces


def _fenced_end(text: str, start: int, max_bytes: int, fence: _Fence | None) -> tuple[int, _Fence | None]:
    """Where the piece from `start` ends, and the fence that is open there; room for closing it is kept free."""
    spent = _bytes(fence.opening) + 1 if fence else 0
    reserve = _bytes(fence.closing) + 1 if fence else 0
    while True:
        end = _cut_after(text, start, max_bytes - spent - reserve, _MARKDOWN_ATOM)
        end = _before_bare_opening(text, start, end, fence)
        after = _fence_at(text, start, end, fence, max_bytes)
        needed = _bytes(after.closing) + 1 if after else 0
        if needed <= reserve or (end >= len(text) and spent + _bytes(text[start:end].rstrip()) + needed <= max_bytes):
            return end, after
        reserve = needed


def _fence_at(text: str, start: int, end: int, fence: _Fence | None, max_bytes: int) -> _Fence | None:
    """The fence open at `end`, given the one open at `start`."""
    for found in _FENCE.finditer(text, start, end):
        indent, mark, info = found.groups()
        if fence is None and "`" not in info:
            fence = _affordable(found[0].rstrip(), indent, mark, max_bytes)
        elif fence is not None and _is_closing(mark, info, fence):
            fence = None
    return fence


def _affordable(opening: str, indent: str, mark: str, max_bytes: int) -> _Fence | None:
    """A fence that takes more than a quarter of a piece is opened again without its info string, or is no fence to us."""
    for candidate in (_Fence(opening, indent + mark), _Fence(indent + mark, indent + mark)):
        if candidate.cost <= max_bytes // 4:
            return candidate
    return None


def _is_closing(mark: str, info: str, fence: _Fence) -> bool:
    own = fence.closing.lstrip(" \t>")
    return mark[0] == own[0] and len(mark) >= len(own) and not info.strip()


def _closes_at_once(text: str, start: int, fence: _Fence) -> int:
    """The end of a closing fence that stands right at `start`: the piece before has closed it already. 0: there is none."""
    found = _FENCE.match(text, start)
    return found.end() if found and _is_closing(found[2], found[3], fence) else 0


def _before_bare_opening(text: str, start: int, end: int, fence: _Fence | None) -> int:
    """Do not leave an opening fence without code at the end of a piece."""
    body = text[start:end].rstrip()
    line = body.rfind("\n") + 1
    if end >= len(text) or fence is not None or line == 0 or not _FENCE.fullmatch(body, line):
        return end
    before = [found for found in _FENCE.finditer(body) if found.start() < line]
    return start + line if len(before) % 2 == 0 else end


def _cut_after(text: str, start: int, max_bytes: int, atoms: re.Pattern[str], max_chars: int | None = None) -> int:
    """The end of the piece that begins at `start`: at least one character further."""
    full = _full(text, start, max_bytes, max_chars or max_bytes)
    if full >= len(text):
        return len(text)
    size = full - start
    return (
        _after_last("\n\n", text, start + size // 3, full)
        or _after_last("\n", text, start + size // 3, full)
        or _sentence(text, start + size // 2, full, start, atoms)
        or _word(text, start, full, atoms)
    )


def _full(text: str, start: int, max_bytes: int, max_chars: int) -> int:
    """How far `max_bytes` and `max_chars` reach."""
    window = text[start : start + min(max_bytes, max_chars)]
    encoded = window.encode(errors="surrogatepass")
    end = min(max_bytes, len(encoded))
    while end < len(encoded) and encoded[end] & 0xC0 == 0x80:
        end -= 1
    return start + len(encoded[:end].decode(errors="surrogatepass"))


def _after_last(mark: str, text: str, least: int, full: int) -> int:
    """Behind the last `mark`; it may hang over the border, for white space at an end is not shown."""
    found = text.rfind(mark, least, full + len(mark))
    return min(found + len(mark), len(text)) if found > 0 and found <= full else 0


def _sentence(text: str, least: int, full: int, start: int, atoms: re.Pattern[str]) -> int:
    ends = [found.end() for found in _SENTENCE_END.finditer(text, least, full)]
    return next((end for end in reversed(ends[-8:]) if _outside(text, start, end, atoms) == end), 0)


def _word(text: str, start: int, full: int, atoms: re.Pattern[str]) -> int:
    """A blank, else a border of a word or a Chinese character, else wherever no emoji breaks."""
    least = start + (full - start) * 2 // 3
    whole = _outside(text, start, full, atoms)
    blank = max(text.rfind(" ", least, full + 1), text.rfind("\t", least, full + 1))
    if blank > 0 and whole == full and _outside(text, start, blank, atoms) == blank and _joins(text, full):
        return blank
    end = whole
    while end > least and end < len(text) and _joins(text, end):
        end -= 1
    return _cluster(text, start, end if end > least or whole < full else full)


def _joins(text: str, end: int) -> bool:
    """Whether a Latin word, a number or a closing mark would be torn off at `end`."""
    before, after = text[end - 1], text[end]
    return after in _CLOSERS or (before.isascii() and after.isascii() and before.isalnum() and after.isalnum())


def _outside(text: str, start: int, end: int, atoms: re.Pattern[str]) -> int:
    """`end`, or the beginning of the URL or Markdown span that it would tear apart, if a fair piece remains before that."""
    for found in atoms.finditer(text, start, min(end + 1500, len(text))):
        if found.start() >= end:
            break
        if found.end() > end:
            return found.start() if found.start() > start + (end - start) // 4 else end
    return end


def _cluster(text: str, start: int, end: int) -> int:
    """Step back out of a sequence that shows as one sign: joined emoji, skin tones, accents, flags."""
    least = max(start + 1, end - _LONGEST_CLUSTER)
    moved = end
    while moved > least and moved < len(text) and _continues(text, start, moved):
        moved -= 1
    return end if moved < len(text) and _continues(text, start, moved) else moved


def _continues(text: str, start: int, at: int) -> bool:
    sign, before = text[at], text[at - 1]
    if sign < "\u0300":
        return False
    if before == "\u200d" or sign in "\u200d\u20e3" or "\ufe00" <= sign <= "\ufe0f" or unicodedata.category(sign)[0] == "M":
        return True
    if "\U0001f3fb" <= sign <= "\U0001f3ff" or "\U000e0020" <= sign <= "\U000e007f":
        return True
    return _is_flag_letter(sign) and _flag_letters_before(text, start, at) % 2 == 1


def _is_flag_letter(sign: str) -> bool:
    return "\U0001f1e6" <= sign <= "\U0001f1ff"


def _flag_letters_before(text: str, start: int, at: int) -> int:
    """Two of these letters make a flag, so their number since the piece began tells where one ends."""
    first = at
    while first > start and _is_flag_letter(text[first - 1]):
        first -= 1
    return at - first


def _next_words(text: str, start: int) -> int:
    """Over blank lines to the next line with words; in a new line its indentation is kept, behind a cut blank it is not."""
    words = start
    while words < len(text) and text[words].isspace():
        words += 1
    line = text.rfind("\n", max(start - 1, 0), words) + 1
    return line if line > 0 and words < len(text) else (words if start > 0 or words == len(text) else start)


def _trimmed(text: str) -> str:
    return text[_next_words(text, 0) :].rstrip()


def _bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
