"""How many friend requests may be accepted without the owner: adding friends is one of the strongest triggers of a ban."""

from __future__ import annotations

from collections import deque

from gateway.clock import Clock

_DAY_S = 86_400.0


class FriendRequests:
    """At most one in `every_s` seconds and `per_day` in 24 hours; the others are left to the owner."""

    def __init__(self, *, clock: Clock, every_s: float = 30, per_day: int = 20) -> None:
        self._clock = clock
        self._every_s = every_s
        self._accepted_s: deque[float] = deque(maxlen=per_day)

    def may_accept(self) -> bool:
        """Whether this one may be accepted now; counts it when it may."""
        now_s = self._clock.monotonic()
        too_soon = bool(self._accepted_s) and now_s - self._accepted_s[-1] < self._every_s
        too_many = len(self._accepted_s) == self._accepted_s.maxlen and now_s - self._accepted_s[0] < _DAY_S
        if too_soon or too_many:
            return False
        self._accepted_s.append(now_s)
        return True
