"""Quick successive messages of one person become one question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.clock import Clock
from gateway.lanes import Lanes
from gateway.lineup import LocalLineup, Work, owner_of
from gateway.messages import Inbound, Text
from gateway.stores.base import Ledger, TurnRecord

MAX_MERGED = 10
"""So many messages at most make one question; the next begins another."""


class MergingLineup(LocalLineup):
    """Holds an ordinary message back until its person has been silent for `window_s`, then lines all of them up as one turn.

    Each message is in the ledger before it is held back: after a death each is taken up on its own, and nothing is lost.
    """

    def __init__(self, *, ledger: Ledger, lanes: Lanes, clock: Clock, window_s: float, mergeable: Callable[[Inbound], bool]) -> None:
        """`mergeable`: False for what must be answered by itself, e.g. a command."""
        super().__init__(ledger=ledger, lanes=lanes, clock=clock)
        self._window_s = window_s
        self._mergeable = mergeable
        self._held: dict[tuple[str, str], list[Inbound]] = {}
        self._timers: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def accept(self, inbound: Inbound, lane: str, work: Work) -> TurnRecord | None:
        known = await self._ledger.accept(inbound, self._clock.now())
        if known is None:
            self._hold(inbound, lane, work)
        return known

    async def settle(self, clock: Clock, timeout_s: float) -> int:
        for timer in list(self._timers.values()):
            timer.cancel()
        held = sum(map(len, self._held.values()))
        return held + await super().settle(clock, timeout_s)

    def _hold(self, inbound: Inbound, lane: str, work: Work) -> None:
        who = (lane, owner_of(inbound.address))
        if not self._mergeable(inbound):
            self._let_go(who, work)  # what was said before comes before
            self.line_up([inbound], lane, work)
            return
        held = self._held.setdefault(who, [])
        held.append(inbound)
        self._stop_timer(who)
        if len(held) >= MAX_MERGED:
            self._let_go(who, work)
            return
        self._timers[who] = asyncio.create_task(self._wait(who, work), name=f"merging {lane}")

    async def _wait(self, who: tuple[str, str], work: Work) -> None:
        await self._clock.sleep(self._window_s)
        self._let_go(who, work)

    def _let_go(self, who: tuple[str, str], work: Work) -> None:
        self._stop_timer(who)
        if held := self._held.pop(who, None):
            self.line_up(held, who[0], work)

    def _stop_timer(self, who: tuple[str, str]) -> None:
        timer = self._timers.pop(who, None)
        if timer is not None and timer is not asyncio.current_task():
            timer.cancel()


def merged(inbounds: Sequence[Inbound]) -> Inbound:
    """One message that says it all: it is the last one, which has the freshest permission to answer, with the words of all."""
    last = inbounds[-1]
    if len(inbounds) == 1:
        return last
    words = "\n".join(inbound.text for inbound in inbounds)
    others = [part for inbound in inbounds for part in inbound.parts if not isinstance(part, Text)]
    return replace(last, parts=(*others, Text(words)))
