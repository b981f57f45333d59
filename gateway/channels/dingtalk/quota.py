"""How often DingTalk's OpenAPI may be called: a month's budget for the organisation's money, and a pace that DingTalk does not refuse."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Protocol

from gateway.channels.dingtalk.verdicts import QuotaSpent
from gateway.clock import Clock
from gateway.errors import SendLater, StoreError

MONTHLY_CALLS = 5_000
"""What an organisation without a paid plan has (DingTalk's price page, protocol page 2026-11)."""
PER_SECOND = 18
"""DingTalk allows 20 per app and API in the standard plan, 40 and 60 in larger ones (the same); two are left for delayed calls."""
WARN_AT = 0.8
BLOCK = 10
"""Calls are claimed so many at a time: one write to the store for ten calls, and a restart forgets at most nine."""
PATIENCE_S = 10.0
CLAIMS_EACH = 3
KEEP_COUNT = timedelta(days=62)
KEEP_SLOT = timedelta(seconds=30)
CHINA = timezone(timedelta(hours=8))
"""DingTalk counts calendar months, and China has one time without summer time."""
MOST_LOCAL_CLAIMS = 10_000

logger = logging.getLogger(__name__)


class Claims(Protocol):
    """What is needed of a shelf: a name can be claimed once."""

    async def add(self, name: str, value: str, keep_until: datetime | None, now: datetime) -> bool:
        """True for the one who claims the name."""

    async def get(self, name: str, now: datetime) -> str | None:
        """None while nobody has claimed it."""


class LocalClaims:
    """Claims that only this process knows; the oldest are forgotten."""

    def __init__(self) -> None:
        self._claims: dict[str, str] = {}

    async def add(self, name: str, value: str, keep_until: datetime | None, now: datetime) -> bool:
        if name in self._claims:
            return False
        self._claims[name] = value
        while len(self._claims) > MOST_LOCAL_CLAIMS:
            self._claims.pop(next(iter(self._claims)))
        return True

    async def get(self, name: str, now: datetime) -> str | None:
        return self._claims.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Where the month stands."""

    used: int
    monthly: int | None
    """None: no limit is set."""
    forecast: int
    """Calls by the end of the month if it goes on like this."""

    @property
    def low(self) -> bool:
        return self.monthly is not None and self.used >= WARN_AT * self.monthly

    @property
    def spent(self) -> bool:
        return self.monthly is not None and self.used >= self.monthly


class Quota:
    """Asked before every billable call of one app. Together, processes with one shelf never exceed the budget nor, if shared, the pace.

    `counts` keeps the month's blocks, `pace` the slots: with n calls a second allowed, time is cut into slots of 1/(n-1) s with one
    call each, because any second touches at most n of them.
    """

    def __init__(
        self,
        *,
        client_id: str,
        clock: Clock,
        counts: Claims | None = None,
        pace: Claims | None = None,
        monthly: int | None = MONTHLY_CALLS,
        per_second: int = PER_SECOND,
    ) -> None:
        self._client_id = client_id
        self._clock = clock
        self._counts = counts or LocalClaims()
        self._pace = pace or LocalClaims()
        self._monthly = monthly
        self._slots_per_s = max(0.5, per_second - 1)
        self._counting = asyncio.Lock()
        self._month = ""
        self._claimed = 0
        """Blocks of this month known to be claimed, by whomever."""
        self._left = 0
        """Calls left of the block in hand."""
        self._slots: dict[str, int] = {}
        self._warned = ""
        self.latest = Budget(used=0, monthly=monthly, forecast=0)
        """As of the last call or look; for metrics."""

    async def take(self, api: str) -> None:
        """Allow one call of `api`, maybe after a moment. Raises QuotaSpent, or SendLater when pace or store do not allow it now."""
        try:
            await self._count()
            await self._wait_for_turn(api)
        except StoreError as error:
            raise SendLater(f"API calls cannot be counted now: {error}") from error

    async def look(self) -> Budget:
        """Where the month stands. Raises StoreError."""
        async with self._counting:
            now = self._clock.now()
            await self._find_claimed(now)
            self._note(now)
        return self.latest

    async def _wait_for_turn(self, api: str) -> None:
        for _ in range(CLAIMS_EACH):
            slot = await self._claim_slot(api)
            await self._clock.sleep(slot / self._slots_per_s - self._clock.now().timestamp())
            if self._clock.now().timestamp() * self._slots_per_s < slot + 2:
                return  # Else this process was held up, and all that it overslept would go out at once.

    async def _claim_slot(self, api: str) -> int:
        """The first slot from now on that nobody has. Raises SendLater when it is more than ten seconds away."""
        now = self._clock.now()
        first = int(now.timestamp() * self._slots_per_s)
        slot = max(first, self._slots.get(api, 0) + 1)
        while slot - first <= PATIENCE_S * self._slots_per_s:
            self._slots[api] = slot  # Before the await: another task of this process goes on behind it.
            if await self._pace.add(f"dingtalk/pace/{self._client_id}/{api}/{self._slots_per_s}/{slot}", "", now + KEEP_SLOT, now):
                return slot
            slot = max(slot, self._slots[api]) + 1
        self._left += 1  # Counted, and not made.
        raise SendLater(f"too many calls of {api} wait already")

    async def _count(self) -> None:
        async with self._counting:
            now = self._clock.now()
            if self._month != _month(now):
                self._month, self._claimed, self._left = _month(now), 0, 0
            if not self._left:
                await self._claim_block(now)
            self._left -= 1
            self._note(now)

    async def _claim_block(self, now: datetime) -> None:
        await self._find_claimed(now)
        while (left := self._unclaimed()) > 0:
            self._claimed += 1
            if await self._counts.add(self._name(self._claimed - 1), "", now + KEEP_COUNT, now):
                self._left = min(BLOCK, left)
                return
        self._note(now)
        raise QuotaSpent(f"the {self._monthly} API calls of this month (monthly_calls) are spent")

    async def _find_claimed(self, now: datetime) -> None:
        """Blocks are claimed in order, so the first free one is found by doubling and halving."""
        if self._month != _month(now):
            self._month, self._claimed, self._left = _month(now), 0, 0
        low, step = self._claimed, 1
        while await self._counts.get(self._name(low + step - 1), now) is not None:
            low, step = low + step, step * 2
        while step > 1:
            step //= 2
            if await self._counts.get(self._name(low + step - 1), now) is not None:
                low += step
        self._claimed = low

    def _unclaimed(self) -> int:
        """Calls in blocks that nobody has claimed; the last block may be a short one."""
        return BLOCK if self._monthly is None else self._monthly - self._claimed * BLOCK

    def _name(self, block: int) -> str:
        return f"dingtalk/calls/{self._client_id}/{self._month}/{block}"

    def _note(self, now: datetime) -> None:
        claimed = self._claimed * BLOCK
        used = (claimed if self._monthly is None else min(claimed, self._monthly)) - self._left
        self.latest = Budget(used=used, monthly=self._monthly, forecast=forecast(used, now))
        if self._monthly and self.latest.low and self._warned != self._month:
            self._warned = self._month
            logger.warning(
                "DingTalk app %s has used %d of its %s API calls of this month; at the end only session webhooks are left.",
                self._client_id,
                used,
                self._monthly,
            )


def _month(now: datetime) -> str:
    return f"{now.astimezone(CHINA):%Y-%m}"


def forecast(used: int, now: datetime) -> int:
    """Calls by the end of the month at the pace so far; the first day counts as a whole one."""
    here = now.astimezone(CHINA)
    start = here.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = (start + timedelta(days=32)).replace(day=1)
    past_s = max((here - start).total_seconds(), 86_400.0)
    return round(used * (end - start).total_seconds() / past_s)
