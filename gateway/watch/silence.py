"""Channels that look well and hear nothing: a dead socket, a callback that the platform no longer calls.

The rule. Time is cut into windows of five minutes. For every hour of the day, workdays and weekends apart, a channel's rhythm knows
the share of windows in which it hears something. While it is silent, the shares of the windows that pass are added up: that is how
many windows *should* have had a message. At `MISSED` of them (half of that when another channel was heard meanwhile, so that it is
not simply a quiet day) and after at least `quiet_s`, the channel is reported. An hour counts once it was watched on two days.

A burst of messages counts as one window, nothing is kept about persons, and a rhythm is 48 pairs of numbers on the shelf. What the
rule cannot know: public holidays. One report on such a day is possible; it ends with the next message.

Where several processes share a store, what one of them hears counts for all: the one that heard leaves a mark on the shelf.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.channels.base import Channel
from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.stores.base import Shelf
from gateway.watch.hearing import health_of
from gateway.watch.trouble import Trouble, TroubleKind, Watch, channel_part

logger = logging.getLogger(__name__)

WINDOW_S = 300.0
QUIET_S = 1800.0
MISSED = 10.0
KNOWN_AFTER = 24
"""Windows of an hour that must have been seen before its share counts: two days."""
MEMORY = 60
"""A share is the mean of about so many windows of its hour: the last five days (workdays) of it."""
SAVE_S = 3600.0
KEEP_FOR = timedelta(days=60)
SLOTS = 48

_REPAIR = (
    "Write a message to the bot. If it is not answered: gateway doctor, and look at the callback address and the app's state in the "
    "platform's console; a restart opens a new connection."
)


@dataclass(slots=True)
class Rhythm:
    """When one channel usually hears something."""

    shares: list[float] = field(default_factory=lambda: [0.0] * SLOTS)
    seen: list[int] = field(default_factory=lambda: [0] * SLOTS)
    missed: float = 0.0
    """How many windows should have had a message since the last one that had."""

    def close_window(self, now: datetime, *, heard: bool) -> None:
        """The window that ends at `now` had a message, or had none."""
        slot = slot_of(now)
        known = self.seen[slot] >= KNOWN_AFTER
        self.missed = 0.0 if heard else self.missed + (self.shares[slot] if known else 0.0)
        self.seen[slot] = min(self.seen[slot] + 1, MEMORY)
        self.shares[slot] += (float(heard) - self.shares[slot]) / self.seen[slot]

    def to_json(self) -> str:
        return json.dumps({"shares": [round(share, 4) for share in self.shares], "seen": self.seen})

    @classmethod
    def from_json(cls, text: str) -> Rhythm:
        """Raises ValueError, KeyError or TypeError when `text` was not written by `to_json`."""
        data = json.loads(text)
        shares, seen = [float(share) for share in data["shares"]], [int(count) for count in data["seen"]]
        if len(shares) != SLOTS or len(seen) != SLOTS:
            raise ValueError("a rhythm has 48 hours")
        return cls(shares, seen)


def slot_of(now: datetime) -> int:
    """The hour of the day, UTC; weekends after workdays."""
    return now.hour + (24 if now.weekday() >= 5 else 0)


class _Ear:
    """What one channel hears."""

    __slots__ = ("heard", "heard_at", "heard_on", "rhythm")

    def __init__(self, started: float, now: datetime) -> None:
        self.heard = False
        self.heard_at = started
        self.heard_on = now
        self.rhythm = Rhythm()


class SilenceWatch(Watch):
    """Learns the rhythm of every channel and notices when one falls silent against it."""

    def __init__(
        self, *, channels: Mapping[str, Channel], shelf: Shelf, clock: Clock, shared: bool = False, quiet_s: float = QUIET_S
    ) -> None:
        """`shared`: other processes may hear for the same channels."""
        self._channels = channels
        self._shelf = shelf
        self._shared = shared
        self._clock = clock
        self._quiet_s = quiet_s
        started = clock.monotonic()
        self._ears = {name: _Ear(started, clock.now()) for name in channels}
        self._window_ends = started + WINDOW_S
        self._saved_at = started
        self._loaded = False

    def heard(self, channel: str) -> None:
        """Something came in over `channel`, whatever became of it."""
        ear = self._ears.get(channel)
        if ear is None:
            return
        ear.heard, ear.heard_at, ear.heard_on = True, self._clock.monotonic(), self._clock.now()
        ear.rhythm.missed = 0.0

    def ages(self) -> Mapping[str, float]:
        """Seconds since each channel heard something, or since the start."""
        now = self._clock.monotonic()
        return {name: now - ear.heard_at for name, ear in self._ears.items()}

    async def look(self) -> Sequence[Trouble]:
        await self._load()
        now = self._clock.monotonic()
        if now >= self._window_ends:
            self._window_ends = now + WINDOW_S
            await self._hear_of_others()
            self._close_windows()
        if now - self._saved_at >= SAVE_S:
            self._saved_at = now
            await self._save()
        return [self._trouble(name) for name in self._channels if self._is_silent(name, now)]

    async def _hear_of_others(self) -> None:
        """What another process heard in this window, this one heard too; and the other way round."""
        if not self._shared:
            return
        now = self._clock.now()
        try:
            for name, ear in self._ears.items():
                if ear.heard:
                    await self._shelf.put(_mark_name(name), "heard", now + timedelta(seconds=WINDOW_S))
                elif await self._shelf.get(_mark_name(name), now) is not None:
                    self.heard(name)
        except StoreError as error:
            logger.info("What other processes heard cannot be known now: %s", error)

    def _close_windows(self) -> None:
        """Times in which a channel is known to be down say nothing about its rhythm."""
        for name, ear in self._ears.items():
            if ear.heard or health_of(self._channels[name]).ok:
                ear.rhythm.close_window(self._clock.now(), heard=ear.heard)
            ear.heard = False

    def _is_silent(self, name: str, now: float) -> bool:
        ear = self._ears[name]
        if now - ear.heard_at < self._quiet_s or not health_of(self._channels[name]).ok:
            return False
        others_talk = any(other.heard_at > ear.heard_at for other in self._ears.values())
        return ear.rhythm.missed >= (MISSED / 2 if others_talk else MISSED)

    def _trouble(self, name: str) -> Trouble:
        ear = self._ears[name]
        minutes = (self._clock.monotonic() - ear.heard_at) / 60
        cause = f"Nothing was heard for {minutes:.0f} minutes at a time when it usually hears something, and it looks connected"
        return Trouble(kind=TroubleKind.SILENT, part=channel_part(name), since=ear.heard_on, cause=cause, repair=_REPAIR)

    async def _load(self) -> None:
        """Once: what was learned before the last restart. A rhythm that cannot be read is learned anew."""
        if self._loaded:
            return
        try:
            texts = {name: await self._shelf.get(_shelf_name(name), self._clock.now()) for name in self._ears}
        except StoreError:  # its own watch reports that; it is tried again at the next look
            return
        self._loaded = True
        for name, text in texts.items():
            try:
                self._ears[name].rhythm = Rhythm.from_json(text) if text else Rhythm()
            except (ValueError, KeyError, TypeError) as error:
                logger.warning("The rhythm of channel %s cannot be read and is learned anew: %s", name, error)

    async def _save(self) -> None:
        keep_until = self._clock.now() + KEEP_FOR
        try:
            for name, ear in self._ears.items():
                await self._shelf.put(_shelf_name(name), ear.rhythm.to_json(), keep_until)
        except StoreError as error:
            logger.info("What was learned about the channels' rhythm was not saved this hour: %s", error)


def _mark_name(channel: str) -> str:
    return f"watch/heard/{channel}"


def _shelf_name(channel: str) -> str:
    return f"watch/rhythm/{channel}"
