"""Channels that cannot hear: down, losing their line again and again, or waiting for a person."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

from gateway.channels.base import Channel
from gateway.checkup import Health
from gateway.clock import Clock
from gateway.watch.trouble import Trouble, TroubleKind, Watch, channel_part

logger = logging.getLogger(__name__)

DOWN_AFTER_S = 60.0
FLAPS = 4
FLAPS_WITHIN_S = 600.0
SIGN_IN = "needs sign-in"
"""How the reason of a channel's health begins when only a person can help."""

_REPAIRS = {
    TroubleKind.CHANNEL_DOWN: "Look at the network and at the channel's credentials: gateway doctor.",
    TroubleKind.CHANNEL_FLAPS: "Look at the network and its proxies, and for a second gateway on the same account.",
    TroubleKind.NEEDS_PERSON: "For a sign-in scan the code that the cause names; otherwise repair the cause and restart the gateway.",
}


class _Seen:
    """What was seen of one channel."""

    __slots__ = ("bad_since", "falls", "gave_up")

    def __init__(self) -> None:
        self.bad_since: datetime | None = None
        self.falls: deque[float] = deque(maxlen=FLAPS)
        self.gave_up = ""


class HearingWatch(Watch):
    """Asks every channel for its health. A channel is down when it was bad at every look for `down_after_s` seconds."""

    def __init__(self, *, channels: Mapping[str, Channel], clock: Clock, down_after_s: float = DOWN_AFTER_S) -> None:
        self._channels = channels
        self._clock = clock
        self._down_after_s = down_after_s
        self._seen = {name: _Seen() for name in channels}

    def gave_up(self, channel: str, why: str) -> None:
        """The channel ended with a ChannelError: it comes back only after a repair and a restart."""
        self._seen[channel].gave_up = why

    async def look(self) -> Sequence[Trouble]:
        return [trouble for name in self._channels for trouble in self._look_at(name)]

    def _look_at(self, name: str) -> Sequence[Trouble]:
        seen, health = self._seen[name], health_of(self._channels[name])
        self._note(seen, health)
        if seen.gave_up:
            return [self._trouble(name, TroubleKind.NEEDS_PERSON, seen, seen.gave_up)]
        if seen.bad_since is not None and (self._clock.now() - seen.bad_since).total_seconds() >= self._down_after_s:
            kind = TroubleKind.NEEDS_PERSON if health.reason.startswith(SIGN_IN) else TroubleKind.CHANNEL_DOWN
            return [self._trouble(name, kind, seen, health.reason)]
        if self._flaps(seen):
            minutes = FLAPS_WITHIN_S / 60
            cause = f"It stopped hearing {FLAPS} times or more within {minutes:.0f} minutes; last state: {health.reason or 'hears'}"
            return [self._trouble(name, TroubleKind.CHANNEL_FLAPS, seen, cause)]
        return []

    def _note(self, seen: _Seen, health: Health) -> None:
        if health.ok and not seen.gave_up:
            seen.bad_since = None
        elif seen.bad_since is None:
            seen.bad_since = self._clock.now()
            seen.falls.append(self._clock.monotonic())

    def _flaps(self, seen: _Seen) -> bool:
        return len(seen.falls) == FLAPS and self._clock.monotonic() - seen.falls[0] <= FLAPS_WITHIN_S

    def _trouble(self, name: str, kind: TroubleKind, seen: _Seen, cause: str) -> Trouble:
        since = seen.bad_since or self._clock.now()
        return Trouble(kind=kind, part=channel_part(name), since=since, cause=cause, repair=_REPAIRS[kind])


def health_of(channel: Channel) -> Health:
    """What the channel says of itself; one that cannot even say is not well."""
    try:
        return channel.health()
    except Exception as error:  # a bug in one channel must not blind the watch over the others
        logger.exception("Channel %s could not tell its health.", channel.name)
        return Health(False, f"it could not tell its health ({type(error).__name__})")
