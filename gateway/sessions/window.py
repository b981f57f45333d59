"""Which lines of a conversation fit the model's window, and how many tokens text has before a server tells."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from gateway.prompts import Line

TOKENS_PER_LINE = 4
"""What the chat format itself costs for each line."""

#: Upper bounds in tokens per character, from measurements with the o200k and cl100k vocabularies (2026-11-22):
#: Chinese chat 0.65/0.92, English 0.21, Python code 0.23, dates and order numbers 0.57, emoji 1.0/2.3.
#: Characters beyond the first plane are emoji and rare ideographs.
CJK_RATE, DIGIT_RATE, ASCII_RATE, OTHER_RATE = 1.0, 0.6, 0.3, 2.5
_ASCII = re.compile(r"[\x00-\x7f]+")
_WORDS = re.compile(r"[A-Za-z\s]+", re.ASCII)
_BEYOND_PLANE = re.compile(r"[\U00010000-\U0010ffff]")


@lru_cache(maxsize=1024)
def estimate_tokens(text: str) -> int:
    """An upper bound of the tokens of `text` that needs no vocabulary; linear, and for long texts at the speed of `re`."""
    beyond_ascii = len(_ASCII.sub("", text))
    beyond_plane = len(_BEYOND_PLANE.findall(text)) if beyond_ascii else 0
    words = len(text) - len(_WORDS.sub("", text))
    others = len(text) - beyond_ascii - words
    tokens = words * ASCII_RATE + others * DIGIT_RATE + (beyond_ascii - beyond_plane) * CJK_RATE + beyond_plane * OTHER_RATE
    return math.ceil(tokens)


def estimate_prompt(lines: Sequence[Line]) -> int:
    """Estimated tokens of a whole prompt."""
    return sum(estimate_tokens(line.text) + TOKENS_PER_LINE for line in lines)


def fit(history: Sequence[Line], budget_tokens: float) -> tuple[Line, ...]:
    """The newest lines that fit into `budget_tokens`, whole exchanges only: the first line kept is the person's."""
    kept: list[Line] = []
    left = budget_tokens
    for line in reversed(history):
        left -= estimate_tokens(line.text) + TOKENS_PER_LINE
        if left < 0:
            break
        kept.append(line)
    kept.reverse()
    while kept and kept[0].role != "user":
        kept.pop(0)
    return tuple(kept)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The running ratio between what a server counted and what we estimated, for one model."""

    ratio: float = 1.0
    samples: int = 0

    def learned(self, estimated_tokens: int, counted_tokens: int) -> Calibration:
        """After one more report of usage. Early reports weigh more; the ratio stays within 0.2 to 5 whatever a server claims."""
        if estimated_tokens <= 0 or counted_tokens <= 0:
            return self
        weight = max(1 / (self.samples + 1), 0.1)
        ratio = self.ratio + weight * (counted_tokens / estimated_tokens - self.ratio)
        return Calibration(min(max(ratio, 0.2), 5.0), self.samples + 1)

    def budget(self, tokens: int) -> float:
        """`tokens` as the server counts them, in tokens as we estimate them."""
        return tokens / self.ratio
