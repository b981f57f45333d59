"""The process's own pulse: an event loop that stands still, and a clock that jumps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.clock import Clock
from gateway.watch.trouble import GATEWAY, Trouble, TroubleKind, Watch

BEAT_S = 1.0
"""A loop that stands still is noticed by a late beat: surely from `BLOCKED_S + BEAT_S` on, by chance from `BLOCKED_S` on."""
BLOCKED_S = 1.0
JUMP_S = 5.0
SHOWN_FOR_S = 600.0
"""How long after the last such event the trouble stays open."""


@dataclass(slots=True)
class _Event:
    """The latest of its kind."""

    at: float
    since: datetime
    size_s: float
    times: int = 1


class Pulse(Watch):
    """Call `beat` after every sleep of `BEAT_S` seconds, and `skip` after anything else that took time."""

    def __init__(self, *, clock: Clock, blocked_s: float = BLOCKED_S, jump_s: float = JUMP_S) -> None:
        self._clock = clock
        self._blocked_s = blocked_s
        self._jump_s = jump_s
        self._events: dict[TroubleKind, _Event] = {}
        self.skip()

    def skip(self) -> None:
        """Measure the next beat from now on."""
        self._beat_at = self._clock.monotonic()
        self._beat_on = self._clock.now()

    def beat(self) -> None:
        """A sleep of `BEAT_S` is over: compare both clocks with what they should show."""
        elapsed = self._clock.monotonic() - self._beat_at
        jumped = (self._clock.now() - self._beat_on).total_seconds() - elapsed
        if elapsed - BEAT_S > self._blocked_s:
            self._note(TroubleKind.BLOCKED, elapsed - BEAT_S)
        if abs(jumped) > self._jump_s:
            self._note(TroubleKind.CLOCK_JUMPED, jumped)
        self.skip()

    async def look(self) -> Sequence[Trouble]:
        now = self._clock.monotonic()
        self._events = {kind: event for kind, event in self._events.items() if now - event.at <= SHOWN_FOR_S}
        return [_trouble(kind, event) for kind, event in self._events.items()]

    def _note(self, kind: TroubleKind, size_s: float) -> None:
        known = self._events.get(kind)
        since, times = (known.since, known.times + 1) if known else (self._clock.now(), 1)
        self._events[kind] = _Event(self._clock.monotonic(), since, size_s, times)


def _trouble(kind: TroubleKind, event: _Event) -> Trouble:
    if kind is TroubleKind.BLOCKED:
        cause = f"The process stood still for {event.size_s:.1f} s ({event.times} times since then)"
        repair = "Look for an overloaded or swapping machine; a plugin that blocks; a slow disk under logs."
    else:
        cause = f"The clock jumped by {event.size_s:+.0f} s, or the machine slept ({event.times} times since then)"
        repair = "Let a time service (chrony, systemd-timesyncd) keep the clock; platforms refuse requests with a wrong time."
    return Trouble(kind=kind, part=GATEWAY, since=event.since, cause=cause, repair=repair)
