"""Too many messages that end badly."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.clock import Clock
from gateway.messages import Outcome, OutcomeKind
from gateway.watch.trouble import GATEWAY, Trouble, TroubleKind, Watch

WITHIN_MINUTES = 10
AT_LEAST = 5
SHARE = 0.3
MAX_REASONS = 20
"""Distinct reasons that are counted in one minute."""

_BAD = frozenset({OutcomeKind.FAILED, OutcomeKind.EXPIRED, OutcomeKind.UNKNOWN})


@dataclass(slots=True)
class _Minute:
    started: float
    ended: int = 0
    bad: Counter[str] = field(default_factory=Counter)


class OutcomeWatch(Watch):
    """Counts outcomes minute by minute; trouble when a share of the last ten minutes, and not only a few, went wrong."""

    def __init__(self, *, clock: Clock, share: float = SHARE, at_least: int = AT_LEAST) -> None:
        """`share`: of all that ended, from 0 to 1. `at_least`: so many must have gone wrong."""
        self._clock = clock
        self._share = share
        self._at_least = at_least
        self._minutes: deque[_Minute] = deque(maxlen=WITHIN_MINUTES)
        self._since: datetime | None = None

    def closed(self, outcome: Outcome) -> None:
        """A turn ended."""
        now = self._clock.monotonic()
        if not self._minutes or now - self._minutes[-1].started >= 60:
            self._minutes.append(_Minute(now))
        minute = self._minutes[-1]
        minute.ended += 1
        if outcome.kind in _BAD:
            reason = f"{outcome.kind.value} ({outcome.reason})"
            minute.bad[reason if reason in minute.bad or len(minute.bad) < MAX_REASONS else outcome.kind.value] += 1

    async def look(self) -> Sequence[Trouble]:
        while self._minutes and self._clock.monotonic() - self._minutes[0].started > WITHIN_MINUTES * 60:
            self._minutes.popleft()
        ended = sum(minute.ended for minute in self._minutes)
        bad = sum((minute.bad for minute in self._minutes), Counter[str]())
        if bad.total() < self._at_least or bad.total() < self._share * ended:
            self._since = None
            return []
        self._since = self._since or self._clock.now()
        [(reason, _)] = bad.most_common(1)
        cause = f"{bad.total()} of {ended} messages went wrong in the last {WITHIN_MINUTES} minutes, most often: {reason}"
        repair = "gateway turns --state failed, then gateway why ID for one of them; the reasons are explained in outcomes-and-errors."
        return [Trouble(kind=TroubleKind.FAILING, part=GATEWAY, since=self._since, cause=cause, repair=repair)]
