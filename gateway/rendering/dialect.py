"""Words and marks within a paragraph, as rules for markdown-it: CommonMark, mended where it would leak marks or eat ordinary text.

Mended: emphasis next to Chinese, Japanese and Korean characters (the "CJK-friendly amendments" to CommonMark 0.31.2, §6.2); stars and
underscores of arithmetic, file names and globs stay; paths, bare URLs and LaTeX are left alone; backslashes fall only where somebody
plainly escaped a Markdown mark; a newline is a line break.
"""

from __future__ import annotations

import re

from markdown_it.common.utils import isMdAsciiPunct, isPunctChar, isWhiteSpace
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token
from markdown_it.utils import EnvType

_CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\ua4cf\ua960-\ua97f\uac00-\ud7fb\uf900-\ufaff\ufe10-\ufe1f\ufe30-\ufe6f"
    "\uff01-\uffee\U0001b000-\U0001b2ff\U00020000-\U0003fffd"
    # Curly quotes, dash and dots are of ambiguous width in Unicode; in chats they are Chinese far more often than not.
    "\u2014\u2018\u2019\u201c\u201d\u2026]"
)
_URL_REST = re.compile("://[^\\s<>\\[\\]()*`\"'|\\\\\u2018-\u201f\u2026\u3000-\u303f\u3400-\u9fff\uff00-\uffef]+")
_PATH_REST = re.compile(":\\\\[^\\s\"'<>|，。；：、（）()\u3000]*")
_SHARE = re.compile("\\\\\\\\[\\w.$-]+\\\\[^\\s\"'<>|，。；：、（）()\u3000]*")
_DUNDER = re.compile("__[a-z][a-z0-9]*(?:_[a-z0-9]+)*__(?![A-Za-z0-9_])")
_DOLLARS = re.compile(r"\$\$[^$]{1,2000}\$\$|\$(?=[^\s$])[^$\n]{1,300}(?<=\S)\$(?!\d)")
_LIKE_MATH = re.compile(r"[\\^_{=]")
_NUMBER_AT_LINE_START = re.compile(r"(?:^|\n)[ \t]*\d{1,9}$")
_EYES = frozenset("<>-=;.~@")


class ChattyInline(ParserInline):
    """The inline parser with our flanking rule."""

    def parse(self, src: str, md: object, env: EnvType, tokens: list[Token]) -> list[Token]:
        state = _State(src, md, env, tokens)  # type: ignore[arg-type]  # md is markdown_it.MarkdownIt, which itself imports the parser
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


class _State(StateInline):
    """Decides which runs of `*`, `_` and `~` may open or close emphasis."""

    _opened: dict[str, int] | None = None
    _unclosed: frozenset[str] = frozenset()

    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:
        marker, end = self.src[start], start
        while end < self.posMax and self.src[end] == marker:
            end += 1
        before = self.src[start - 1] if start > 0 else " "
        after = self.src[end] if end < self.posMax else " "
        length = end - start
        if _literal_mark(marker, before, after):
            return Scanned(False, False, length)
        if _inside_word(before, after) and marker != "_":
            return Scanned(False, length > 1 and self._take_opener(marker * length), length)
        opens, closes = _flanks(before, after)
        if not canSplitWord and not (length == 2 and (_CJK.match(before) or _CJK.match(after))):  # 和__粗体__一样: Chinese has no blanks
            opens, closes = opens and (not closes or _punctuation(before)), closes and (not opens or _punctuation(after))
        self._count(marker * length, opens, closes)
        return Scanned(opens, closes, length)

    def _count(self, run: str, opens: bool, closes: bool) -> None:
        if closes and self._take_opener(run):
            return
        if opens:
            self._opened = self._opened or {}
            self._opened[run] = self._opened.get(run, 0) + 1

    def _take_opener(self, run: str) -> bool:
        """Whether a run like this was opened at a border of a word, so that `**Python**3` closes and `x**2 + y**2` does not."""
        if not self._opened or not self._opened.get(run):
            return False
        self._opened[run] -= 1
        return True

    def find_closing(self, mark: str, start: int) -> int:
        """Like str.find up to the end of this text, but a mark that was once not found is not looked for again (linear time)."""
        if mark in self._unclosed:
            return -1
        found = self.src.find(mark, start, self.posMax)
        if found < 0:
            self._unclosed |= {mark}
        return found


def _literal_mark(marker: str, before: str, after: str) -> bool:
    if (before == "(" and after == ")") or "^" in (before, after):  # COUNT(*) and ^_^
        return True
    if marker == "_":
        return after == "{" or (before in _EYES and after in _EYES)  # a LaTeX index; >_<
    return after == "." or (before == "/" and (after in "/" or after.isspace()))  # *.txt and src/**/x


def _inside_word(before: str, after: str) -> bool:
    return before.isascii() and before.isalnum() and after.isascii() and after.isalnum()


def _flanks(before: str, after: str) -> tuple[bool, bool]:
    """Whether a run between these two characters is left-flanking and right-flanking."""
    blank_before, blank_after = isWhiteSpace(ord(before)), isWhiteSpace(ord(after))
    cjk_before, cjk_after = bool(_CJK.match(before)), bool(_CJK.match(after))
    hard_before = _punctuation(before) and not cjk_before
    hard_after = _punctuation(after) and not cjk_after
    left = not blank_after and (not hard_after or blank_before or hard_before or cjk_before)
    right = not blank_before and (not hard_before or blank_after or hard_after or cjk_after)
    return left, right


def _punctuation(character: str) -> bool:
    return isMdAsciiPunct(ord(character)) or isPunctChar(character)


def _push_verbatim(state: StateInline, end: int, silent: bool) -> bool:
    if not silent:
        state.push("verbatim", "", 0).content = state.src[state.pos : end]
    state.pos = end
    return True


def bare_url(state: StateInline, silent: bool) -> bool:
    """`https://…` as it stands: underscores and tildes in it mean nothing."""
    if state.src[state.pos] != ":" or not state.src[max(state.pos - 5, 0) : state.pos].lower().endswith(("http", "https")):
        return False
    found = _URL_REST.match(state.src, state.pos, state.posMax)
    return _push_verbatim(state, state.pos + len(found[0].rstrip("_~.,:;!?")), silent) if found else False


def windows_path(state: StateInline, silent: bool) -> bool:
    r"""`C:\_new\*.txt` and `\\server\share`: their backslashes escape nothing."""
    before = state.src[max(state.pos - 2, 0) : state.pos]
    mark = state.src[state.pos]
    if mark == ":" and before[-1:].isascii() and before[-1:].isalpha() and not before[:-1].isalnum():
        found = _PATH_REST.match(state.src, state.pos, state.posMax)
    elif mark == "\\" and not before.endswith("\\"):
        found = _SHARE.match(state.src, state.pos, state.posMax)
    else:
        return False
    return _push_verbatim(state, found.end(), silent) if found else False


def dunder(state: StateInline, silent: bool) -> bool:
    """`__init__` is a name of Python, not the word init in bold."""
    if state.src[state.pos] != "_" or state.src[max(state.pos - 1, 0) : state.pos] == "_":
        return False
    found = _DUNDER.match(state.src, state.pos, state.posMax)
    return _push_verbatim(state, found.end(), silent) if found else False


def formula(state: StateInline, silent: bool) -> bool:
    r"""`$…$`, `$$…$$`, `\(…\)` and `\[…\]` that look like LaTeX."""
    mark = state.src[state.pos]
    end = _dollars_end(state) if mark == "$" else _bracketed_end(state) if mark == "\\" else -1
    if end < 0 or not _LIKE_MATH.search(state.src, state.pos + 2, end - 2):
        return False
    return _push_verbatim(state, end, silent)


def _dollars_end(state: StateInline) -> int:
    found = _DOLLARS.match(state.src, state.pos, state.posMax)
    return found.end() if found else -1


def _bracketed_end(state: StateInline) -> int:
    closing = {"(": "\\)", "[": "\\]"}.get(state.src[state.pos + 1 : state.pos + 2])
    if closing is None or not isinstance(state, _State):
        return -1
    found = state.find_closing(closing, state.pos + 2)
    return found + 2 if 0 <= found <= state.pos + 2000 else -1


def careful_escape(state: StateInline, silent: bool) -> bool:
    """Drop a backslash only where it plainly guards a Markdown mark; anywhere else it is a path, a regular expression or LaTeX."""
    if state.src[state.pos] != "\\" or state.pos + 1 >= state.posMax:
        return False
    if state.src[state.pos + 1] == "\n":
        return _backslash_break(state, silent)
    if not silent:
        token = state.push("text_special", "", 0)
        token.content = state.src[state.pos + (1 if _guards(state) else 0) : state.pos + 2]
        token.markup, token.info = state.src[state.pos : state.pos + 2], "escape"
    state.pos += 2
    return True


def _backslash_break(state: StateInline, silent: bool) -> bool:
    if state.src[max(state.pos - 1, 0)] == " " and not silent:
        state.append_pending("\\")  # a shell command that goes on in the next line
    state.pos += 1
    return True


def _guards(state: StateInline) -> bool:
    mark = state.src[state.pos + 1]
    if mark in "*_`#~[]|<":
        return True
    if mark == "$":
        return state.src[state.pos + 2 : state.pos + 3].isdigit()
    if mark in "-+>":
        return state.pos == 0 or state.src[state.pos - 1] == "\n"
    return mark in ".)" and bool(_NUMBER_AT_LINE_START.search(state.src, max(state.pos - 12, 0), state.pos))


def line_end(state: StateInline, silent: bool) -> bool:
    """Every newline is a line break, as people in chats expect; the next line keeps its indentation in `content`."""
    if state.src[state.pos] != "\n":
        return False
    end = state.pos + 1
    while end < state.posMax and state.src[end] in " \t":
        end += 1
    if not silent:
        state.pending = state.pending.rstrip(" \t")
        state.push("softbreak", "br", 0).content = state.src[state.pos + 1 : end]
    state.pos = end
    return True
