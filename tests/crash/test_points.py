from __future__ import annotations

import asyncio
from pathlib import Path

from .nursery import Nursery
from .storm import calm_down
from .town import town_at

CALLS = (
    "ledger.accept",
    "ledger.answering",
    "ledger.answered",
    "ledger.showing",
    "ledger.shown",
    "ledger.closed",
    "sessions.load",
    "sessions.save",
    "shelf.put",
    "shelf.get",
)
"""Every write that a turn makes, and the reads between which something is at stake."""


async def test_dying_at_every_named_point_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    # Given people on every platform, some of whom get answers that their platform cannot show at once
    async with Nursery.open() as nursery, town_at(tmp_path, nursery=nursery, seed=5) as town:
        town.settle(dingtalk=4, official=6, api=3)
        # When each life of the gateway ends by its own hand at another call, before or after it reached the disk
        for call in CALLS:
            for when in ("before", "after"):
                await town.gateways[0].start(CRASH_AT=f"{call}:{when}:{town.dice.choice((1, 2, 3))}")
                async with asyncio.timeout(25):
                    await town.gateways[0].died(25)
        verdict = await calm_down(town)
    print(verdict.table())

    # Then nobody can tell, except where a platform offers no way to know
    assert verdict.kills == 2 * len(CALLS)
    assert verdict.faults == [], "\n".join([verdict.table(), *verdict.faults])
    assert verdict.unknown >= 2, "ledger.showing:after and ledger.shown:before leave a piece in doubt"
