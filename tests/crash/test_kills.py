from __future__ import annotations

import asyncio
from pathlib import Path

from .audit import Verdict
from .nursery import Nursery
from .storm import survive

KILLS_PER_TOWN = 22
TOWNS = 3


async def test_sixty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    # Given three towns in which people write all the time, and gateways that are killed at random and started again
    async with Nursery.open() as nursery:
        verdict = Verdict.of(
            await asyncio.gather(*(survive(tmp_path / f"town-{seed}", KILLS_PER_TOWN, seed=seed, nursery=nursery) for seed in range(TOWNS)))
        )
    print(verdict.table())

    # Then everybody has every answer once, in order, and what cannot be known is in the books as unknown
    assert verdict.kills >= 60
    assert verdict.accepted > 3 * verdict.kills
    assert verdict.faults == [], "\n".join([verdict.table(), *verdict.faults])
    assert verdict.expired == 0


async def test_a_personal_wechat_account_comes_back_with_its_login_and_everybody_is_answered(tmp_path: Path) -> None:
    async with Nursery.open() as nursery:
        verdict = await survive(tmp_path, 6, crowd={"wechat": 5}, channels=["wechat"], seed=31, nursery=nursery)

    assert verdict.kills == 6
    assert verdict.accepted > 15
    assert verdict.faults == [], "\n".join([verdict.table(), *verdict.faults])
