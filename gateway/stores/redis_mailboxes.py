"""The mailboxes of conversations in Redis, and the leases of those who work them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from datetime import datetime

from gateway.clock import Clock
from gateway.errors import LeaseLost, StoreError, StoreUnavailable
from gateway.messages import Inbound, TurnKey
from gateway.stores import redis_lane_scripts as scripts
from gateway.stores import redis_rows as rows
from gateway.stores.base import Lined, Mailboxes, TurnRecord, TurnState
from gateway.stores.redis_leases import Leases
from gateway.stores.redis_ledger import RedisLedger
from gateway.stores.redis_line import Line
from gateway.stores.redis_rows import decoded, encoded, moment, name_of
from gateway.stores.redis_scripts import Script
from gateway.stores.redis_space import Space
from gateway.stores.redis_wire import Reply

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3
RENEW_AGAIN_S = 0.5
RENEWED_AT_ONCE = 500
DEAD_LETTER = "dead letter"


class RedisMailboxes(Mailboxes):
    """A list per conversation; leases end by the server's clock, so those of the machines may differ."""

    def __init__(
        self,
        line: Line,
        space: Space,
        leases: Leases,
        ledger: RedisLedger,
        clock: Clock,
        *,
        worker: str,
        lease_s: float,
        max_adoptions: int,
    ) -> None:
        self.worker = worker
        self._line = line
        self._leases = leases
        self._ledger = ledger
        self._clock = clock
        self._lease_s = lease_s
        self._lease_ms = round(lease_s * 1000)
        self._max_adoptions = max_adoptions
        self._key = space.key(b"leases")
        self._channels: frozenset[str] = frozenset()
        self._offset = 0
        self._renewing = asyncio.create_task(self._keep_renewing(), name="redis leases")

    async def accept(self, inbound: Inbound, lane: str, now: datetime, *, per_lane: int, total: int) -> Lined:
        known, *rest = await self._ledger.write_down(inbound, now, encoded(lane), per_lane, total, self._lease_ms)
        if known == 0:
            return Lined(known=await self._ledger.record(rest))
        token, ahead, full = rest
        if token:
            self._leases.take(lane, token)
            self._leases.works_on(lane, inbound.key)
        return Lined(mine=token > 0, ahead=ahead, full=full == 1)

    async def head(self, lane: str) -> TurnRecord | None:
        return await self._next(lane, await self._ask(scripts.HEAD, lane))

    async def done(self, lane: str, key: TurnKey) -> TurnRecord | None:
        return await self._next(lane, await self._ask(scripts.DONE, lane, name_of(key), self._lease_ms))

    async def hand_back(self, lane: str) -> None:
        token = self._leases.token(lane)
        self._leases.drop(lane)
        if token:
            await self._line.run(scripts.HAND_BACK, self._key, encoded(lane), token)

    async def adopt(self, channels: Collection[str], limit: int = 50) -> list[str]:
        self._channels = frozenset(channels)
        await self._renew()  # what is past its end from now on is not ours, even if this process was held up
        keep_ms, why = (
            self._ledger.keep_ms,
            f"Adopted more than {self._max_adoptions} times: it seems to end the processes that work on it.",
        )
        words = (
            self._lease_ms,
            self._max_adoptions,
            limit,
            self._offset,
            moment(self._clock.now()),
            keep_ms,
            DEAD_LETTER.encode(),
            why.encode(),
        )
        seen, taken, dead = await self._line.run(scripts.ADOPT, self._key, *words, *map(encoded, channels))
        self._offset = self._offset + seen if seen == scripts.LOOKED_AT and not taken else 0
        for name in dead:
            logger.error("Turn %s is given up: %s", decoded(name), why)
        return [self._take(lane, token) for lane, token in zip(taken[::2], taken[1::2], strict=True)]

    async def adoptable_in(self) -> float | None:
        now, *ends = await self._line.run(scripts.NEXT_ENDS, self._key)
        waits = [max(float(end) - now, 0) / 1000 for lane, end, head in zip(*[iter(ends)] * 3, strict=True) if self._concerns(lane, head)]
        return min(waits, default=None)

    async def lost(self) -> str:
        return await self._leases.lost()

    async def waiting(self) -> int:
        return int(await self._line.ask(b"GET", self._key.replace(b":leases", b":waiting")) or 0)

    async def aclose(self) -> None:
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)

    async def _ask(self, script: Script, lane: str, *words: bytes | int) -> Reply:
        """Ask about a lane that this process holds. When that cannot be done the lease runs out: somebody must work on it."""
        try:
            return await self._line.run(script, self._key, encoded(lane), self._leases.token(lane), *words)
        except StoreUnavailable:
            self._leases.drop(lane)
            raise

    async def _next(self, lane: str, said: Reply) -> TurnRecord | None:
        """What `HEAD` and `DONE` say. A turn that cannot be read is closed by that, and the next one takes its place."""
        while isinstance(said, list):
            record = await self._ledger.record(said)
            if record.state is not TurnState.CLOSED:
                self._leases.works_on(lane, record.key)
                return record
            said = await self._ask(scripts.HEAD, lane)
        if said == 0:
            self._leases.lose(lane)
            raise LeaseLost(f"Another process works on conversation {lane}.")
        self._leases.drop(lane)
        if said == 2:
            raise StoreError(f"A turn of conversation {lane} is not closed: it stays, and is taken up in {self._lease_s:g} s.")
        return None

    def _take(self, lane: bytes, token: int) -> str:
        name = decoded(lane)
        self._leases.take(name, token)
        return name

    def _concerns(self, lane: bytes, head: bytes) -> bool:
        """Whether the end of this lease is worth a look: not ours, and not of a channel that we could not show on at the last look."""
        if decoded(lane) in self._leases:
            return False
        return not head or not self._channels or rows.channel_of(head) in self._channels

    async def _keep_renewing(self) -> None:
        while True:
            await self._clock.sleep(self._lease_s / RENEWALS_PER_LEASE)
            await self._renew_patiently()

    async def _renew_patiently(self) -> None:
        while True:
            try:
                await self._renew()
            except StoreError as error:
                logger.warning("The leases of this process could not be renewed: %s", error)
                await self._clock.sleep(min(RENEW_AGAIN_S, self._lease_s / RENEWALS_PER_LEASE))
            else:
                return

    async def _renew(self) -> None:
        words = [(encoded(lane), b"%d" % token) for lane, token in self._leases]
        parts = [words[start : start + RENEWED_AT_ONCE] for start in range(0, len(words), RENEWED_AT_ONCE)]
        asked = [self._line.run(scripts.RENEW, self._key, self._lease_ms, *(word for pair in part for word in pair)) for part in parts]
        for part, lost in zip(parts, await asyncio.gather(*asked), strict=True):
            tokens = dict(part)
            for lane in lost:
                if self._leases.token(decoded(lane)) == tokens[lane]:  # otherwise it was given back meanwhile, or taken anew
                    self._leases.lose(decoded(lane))
