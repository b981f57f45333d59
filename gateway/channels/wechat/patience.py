"""Waits between tries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Patience:
    """Waits that double from `first_s` to `most_s`; set `tries` to 0 when something worked."""

    first_s: float = 1.0
    most_s: float = 60.0
    tries: int = 0

    def next_s(self) -> float:
        self.tries += 1
        return float(min(self.first_s * 2 ** min(self.tries - 1, 16), self.most_s))
