"""When to connect again. Pure; times are monotonic seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

OPENS_PER_MINUTE = 6
LONGEST_PAUSE_S = 60.0
STABLE_S = 30.0
"""A connection that lived this long was a good one: the next failure starts the backoff anew."""
REFUSED_PAUSE_S = 60.0
TAKEN_OVER_PAUSE_S = 60.0
LONGEST_TAKEN_OVER_PAUSE_S = 900.0
TRUCE_S = 3_600.0
"""Another client that takes the bot over will be taken over in turn: only a connection this old has no rival."""


class Pace:
    """Growing pauses after failures, much longer ones while another client wants the same bot, and never a storm of connections."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._opens: deque[float] = deque(maxlen=OPENS_PER_MINUTE)
        self._failures = 0
        self._takeovers = 0
        self._not_before = 0.0

    def opened(self, now: float) -> None:
        self._opens.append(now)

    def failed(self, now: float) -> None:
        """No connection came about, or one broke."""
        self._failures += 1
        self._not_before = now + self._spread(min(LONGEST_PAUSE_S, 2.0 ** min(self._failures - 1, 10)))

    def refused(self, now: float) -> None:
        """WeCom knows neither bot nor secret: only a person can change that."""
        self._not_before = now + REFUSED_PAUSE_S

    def ended(self, now: float, *, lived_s: float, taken_over: bool) -> None:
        if lived_s >= STABLE_S:
            self._failures = 0
        if lived_s >= TRUCE_S:
            self._takeovers = 0
        if not taken_over:
            self.failed(now)
            return
        self._takeovers += 1
        longest = min(LONGEST_TAKEN_OVER_PAUSE_S, TAKEN_OVER_PAUSE_S * 2.0 ** min(self._takeovers - 1, 10))
        self._not_before = now + longest * (1 + self._jitter() / 2)

    def wait_s(self, now: float) -> float:
        """Seconds to wait now."""
        full = len(self._opens) == OPENS_PER_MINUTE
        return max(self._not_before - now, self._opens[0] + 60.0 - now if full else 0.0, 0.0)

    def _spread(self, pause_s: float) -> float:
        return pause_s * (0.5 + self._jitter() / 2)
