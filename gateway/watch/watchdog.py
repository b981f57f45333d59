"""Looks at every part every few seconds and keeps the list of what is wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from gateway.clock import Clock
from gateway.messages import Outcome
from gateway.watch.alarm import Alarm
from gateway.watch.hearing import HearingWatch
from gateway.watch.outcomes import OutcomeWatch
from gateway.watch.pulse import BEAT_S, Pulse
from gateway.watch.silence import SilenceWatch
from gateway.watch.trouble import Trouble, Troubles, Watch

logger = logging.getLogger(__name__)

LOOK_EVERY_BEATS = 5


class Watchdog:
    """One task: a beat every second to feel the pulse, a look at everything at every fifth beat."""

    def __init__(
        self,
        *,
        clock: Clock,
        troubles: Troubles,
        hearing: HearingWatch,
        silence: SilenceWatch,
        outcomes: OutcomeWatch,
        pulse: Pulse,
        alarm: Alarm,
        others: Sequence[Watch] = (),
    ) -> None:
        """`others`: watches that only need to look, e.g. over the store and the work in hand."""
        self._clock = clock
        self._troubles = troubles
        self._hearing = hearing
        self._silence = silence
        self._outcomes = outcomes
        self._pulse = pulse
        self._alarm = alarm
        self._watches: Sequence[Watch] = (hearing, silence, outcomes, pulse, *others)
        self._found: dict[Watch, Sequence[Trouble]] = {}

    def notice(self, channel: str, event: str, outcome: Outcome | None, seconds: float) -> None:
        """What `Dispatch` reports."""
        if outcome is None:
            self._silence.heard(channel)
        else:
            self._outcomes.closed(outcome)

    def gave_up(self, channel: str, why: str) -> None:
        """A channel ended with a ChannelError."""
        self._hearing.gave_up(channel, why)

    async def run(self) -> None:
        """Until cancelled; sends alarms beside looking."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._alarm.run(), name="alarm")
            tasks.create_task(self._watch(), name="watch")

    async def _watch(self) -> None:
        self._pulse.skip()
        while True:
            for _ in range(LOOK_EVERY_BEATS):
                await self._clock.sleep(BEAT_S)
                self._pulse.beat()
            await self.look()
            self._pulse.skip()

    async def look(self) -> None:
        """Look at everything once; what is new or over is logged and handed to the alarm."""
        for watch in self._watches:
            await self._ask(watch)
        opened, over = self._troubles.replace(trouble for found in self._found.values() for trouble in found)
        for trouble in opened:
            logger.warning("Trouble with %s (%s): %s %s", trouble.part, trouble.kind.value, trouble.cause, trouble.repair)
        for trouble in over:
            logger.info("Trouble with %s is over: %s.", trouble.part, trouble.kind.value)
        self._alarm.note(self._troubles.open, over)

    async def _ask(self, watch: Watch) -> None:
        """A watch that breaks keeps what it found last: the others must not go blind with it."""
        try:
            self._found[watch] = await watch.look()
        except Exception:
            logger.exception("%s could not look.", type(watch).__name__)
