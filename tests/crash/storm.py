"""One town through its kills, from the first message to the audit: what the tests and bench/crash.py share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .audit import Verdict, audit
from .town import Town, town_at


async def survive(
    folder: Path, kills: int, *, crowd: dict[str, int] | None = None, until: float | None = None, tell: Callable[[int], None] | None = None,
    **town: Any,
) -> Verdict:  # fmt: skip
    """People write all the time while gateways are killed; then everything is delivered once more and judged.

    `until`: on the monotonic clock; a storm that lasts longer is cut short. `tell` hears about every kill.
    """
    async with town_at(folder, **town) as survivor:
        survivor.settle(**(crowd or {"dingtalk": 8, "official": 4, "api": 5}))
        await _storm(survivor, kills, until, tell)
        return await calm_down(survivor)


async def calm_down(town: Town) -> Verdict:
    """The storm is over: gateways stay up, everybody gets their answers, platforms repeat themselves, and the books are compared."""
    await town.start()
    await town.quiet()
    await town.idle()
    await asyncio.gather(*(person.catch_up() for person in town.people))
    redelivered = await town.redeliver()
    await town.idle()
    codes = await town.stop()
    verdict = await audit(town, redelivered)
    verdict.lost += [f"gateway {number} ended with {code}" for number, code in enumerate(codes) if code]
    return verdict


async def _storm(town: Town, kills: int, until: float | None, tell: Callable[[int], None] | None) -> None:
    step = 10 * len(town.gateways)
    done = 0
    while done < kills and (until is None or time.monotonic() < until):
        wave = min(step, kills - done)
        await town.storm(wave)
        done += wave
        if tell is not None:
            tell(wave)
    await asyncio.sleep(0)
