"""Parting what a model thinks from what it says, when both come in one text: `<think>…</think>`."""

from __future__ import annotations

from collections.abc import Iterator

TAGS = (("<think>", "</think>"), ("<thinking>", "</thinking>"))
"""Opening and closing marks in use by open models (DeepSeek R1, Qwen, GLM and their relatives)."""
_MARKS = tuple(mark for pair in TAGS for mark in pair)
_CLOSER = dict(TAGS)


class ThoughtSplitter:
    """Feed it the text in pieces of any size; a mark may be split over pieces.

    A block may stand anywhere; a block that is never closed is thought to its end; a closing mark without its opening one is dropped.
    Inside code (back-ticked or fenced) the marks are words like any other.
    """

    def __init__(self) -> None:
        self._held = ""
        self._closer = ""
        """The mark that ends the block we are in; empty outside."""
        self._said = False
        """Words outside of blocks were seen: white space now belongs to them."""
        self._ticks = 0
        """Back-ticks said so far: odd inside of code, inline and fenced alike."""

    def feed(self, piece: str) -> tuple[str, str]:
        """What of `piece` (and of what was held back before) is text and what is thought."""
        if not self._held and not self._closer and self._said and "<" not in piece:
            return self._say(piece), ""
        return self._part(self._held + piece, last=False)

    def finish(self) -> tuple[str, str]:
        """What was held back because it might have become a mark."""
        return self._part(self._held, last=True)

    def _part(self, pending: str, *, last: bool) -> tuple[str, str]:
        text: list[str] = []
        thought: list[str] = []
        for said, inside in self._split(pending, last=last):
            (thought if inside else text).append(said if inside else self._say(said))
        return "".join(text), "".join(thought)

    def _split(self, pending: str, *, last: bool) -> Iterator[tuple[str, bool]]:
        """(words, whether they are thought), in order; sets what is held back."""
        while True:
            at, mark = self._next_mark(pending)
            if not mark:
                break
            inside = bool(self._closer)
            yield pending[:at], inside
            pending = pending[at + len(mark) :]
            if not inside and self._ticks % 2:
                yield mark, False
                continue
            self._closer = "" if inside else _CLOSER.get(mark, "")
        keep = 0 if last else _possible_mark(pending)
        self._held = pending[len(pending) - keep :]
        yield pending[: len(pending) - keep], bool(self._closer)

    def _next_mark(self, pending: str) -> tuple[int, str]:
        marks = (self._closer,) if self._closer else _MARKS
        found = [(at, mark) for mark in marks if (at := pending.find(mark)) >= 0]
        return min(found, default=(-1, ""))

    def _say(self, words: str) -> str:
        if not self._said:
            words = words.lstrip()
        if words:
            self._said = True
            self._ticks += words.count("`")
        return words


def _possible_mark(pending: str) -> int:
    """How many characters at the end could be the beginning of a mark."""
    at = pending.rfind("<", max(0, len(pending) - max(map(len, _MARKS)) + 1))
    if at < 0:
        return 0
    tail = pending[at:]
    return len(tail) if any(mark.startswith(tail) for mark in _MARKS) else 0
