"""The ledger in Redis: a hash per turn, and sorted sets that find it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

from gateway.errors import LeaseLost
from gateway.messages import Answer, Inbound, Outcome, OutcomeKind, TurnKey
from gateway.stores import redis_rows as rows
from gateway.stores import redis_turn_scripts as scripts
from gateway.stores.base import Ledger, TurnRecord, TurnState
from gateway.stores.redis_leases import Leases
from gateway.stores.redis_line import Line, Word
from gateway.stores.redis_rows import encoded, moment, name_of
from gateway.stores.redis_scripts import Script
from gateway.stores.redis_space import Space
from gateway.stores.redis_wire import Reply

logger = logging.getLogger(__name__)

FIELDS = tuple(b"saiwnbdckrxq"[place : place + 1] for place in range(12))
_MILLISECOND = timedelta(milliseconds=1)
_DAY_MS = 86_400_000


class RedisLedger(Ledger):
    """Every write about a turn of a lane shows the lane's token, and raises LeaseLost when it is no longer the right one."""

    def __init__(self, line: Line, space: Space, leases: Leases, keep_for: timedelta | None) -> None:
        """`keep_for`: Redis itself forgets a turn so long after it was closed; None: only `prune` does."""
        self._line = line
        self._space = space
        self._leases = leases
        self.keep_ms = 0 if keep_for is None else max(keep_for // _MILLISECOND, 1)
        self._attempts = (f"{os.urandom(6).hex()}{number}".encode() for number in itertools.count())

    async def accept(self, inbound: Inbound, now: datetime) -> TurnRecord | None:
        known, *rest = await self.write_down(inbound, now)
        return await self.record(rest) if known == 0 else None

    def write_down(self, inbound: Inbound, now: datetime, *lane: Word) -> asyncio.Future[Reply]:
        """`accept`, and with the words of a lane (see `scripts.ACCEPT`) into its mailbox as well."""
        address = inbound.address
        home = rows.home_of(address.channel, address.account)
        name = home + encoded(inbound.id)
        person = home + encoded(address.sender)
        keep_person = self.keep_ms + _DAY_MS if self.keep_ms else 0
        turn = (name, home, rows.inbound_column(inbound), moment(now), person, next(self._attempts), keep_person)
        return self._line.run(scripts.ACCEPT, self._turn(name), *turn, *lane)

    async def answering(self, key: TurnKey) -> None:
        self._line.note(scripts.ANSWERING, self._turn(name_of(key)), self._leases.token_for(key))

    async def answered(self, key: TurnKey, answer: Answer, answered_by: str, now: datetime) -> None:
        await self._write(scripts.ANSWERED, key, rows.answer_column(answer), encoded(answered_by), moment(now))

    async def showing(self, key: TurnKey, piece: int) -> None:
        await self._write(scripts.SHOWN, key, b"showing", piece)

    async def shown(self, key: TurnKey, pieces: int) -> None:
        await self._write(scripts.SHOWN, key, b"answered", pieces)

    async def closed(self, key: TurnKey, outcome: Outcome, now: datetime) -> None:
        end = (outcome.kind.value.encode(), encoded(outcome.reason), encoded(outcome.detail), self.keep_ms)
        await self._write(scripts.CLOSED, key, name_of(key), moment(now), *end)

    async def unfinished(self) -> list[TurnRecord]:
        records = [await self.record(row) async for row in self._scan(b"open", b"asc", 500)]
        return [record for record in records if record.state is not TurnState.CLOSED]

    async def find(self, message_id: str) -> list[TurnRecord]:
        homes = await self._line.ask(b"SMEMBERS", self._space.key(b"homes"))
        found = await asyncio.gather(*(self._row(home + encoded(message_id)) for home in homes))
        there = [row for row in found if row[1] is not None]
        return [await self.record(row) for row in sorted(there, key=lambda row: int(row[rows.NUMBER] or 0))]

    async def latest(self, *, state: TurnState | None = None, outcome: str | None = None, limit: int = 100) -> list[TurnRecord]:
        records: list[TurnRecord] = []
        async for row in self._scan(_index(state, outcome), b"desc", limit, encoded(state or ""), encoded(outcome or "")):
            if len(records) == limit:
                break
            records.append(await self.record(row))
        return records

    async def latest_of(self, channel: str, account: str, sender: str, *, before: TurnKey | None = None) -> TurnRecord | None:
        person = rows.person_of(channel, account, sender)
        limit = b"" if before is None else name_of(before)
        row = await self._line.run(scripts.OF_PERSON, self._space.key(b"p:", person), person, limit)
        return None if row is None else await self.record(row)

    async def prune(self, before: datetime, limit: int = 500) -> int:
        count: int = await self._line.run(scripts.PRUNE, self._space.key(b"all"), moment(before), limit)
        return count

    async def record(self, row: Reply) -> TurnRecord:
        """A row of the scripts; one that cannot be read is set aside and closed: its key still guards against a second answer."""
        try:
            return rows.record_of(row)
        except rows.BROKEN as error:
            return await self._without_content(row, type(error).__name__)

    async def _without_content(self, row: Sequence[bytes | None], why: str) -> TurnRecord:
        record, name = rows.stand_in_of(row), row[0] or b""
        what = encoded(f"turn {record.key.message}: {why}: {row!r}")
        await self._line.run(scripts.STAND_IN, self._turn(name), name, what, *rows.stand_in_columns(record), self.keep_ms)
        logger.error("Turn %s cannot be read (%s); it was set aside and closed as failed.", record.key.message, why)
        return record

    async def _write(self, script: Script, key: TurnKey, *words: Word) -> None:
        turn, token = self._turn(name_of(key)), self._leases.token_for(key)
        holder = await self._line.run(script, turn, token, *words)
        if not isinstance(holder, bytes):
            return
        lane = rows.decoded(holder)
        if token or lane not in self._leases:
            self._leases.lose(lane)
            raise LeaseLost(f"Another process works on conversation {lane}.")
        if isinstance(await self._line.run(script, turn, self._leases.token(lane), *words), bytes):
            self._leases.lose(lane)
            raise LeaseLost(f"Another process works on conversation {lane}.")

    async def _scan(self, index: bytes, order: bytes, limit: int, state: bytes = b"", outcome: bytes = b"") -> AsyncIterator[Reply]:
        """Rows of an index, a page at a time: a long read must not keep the writers waiting."""
        bound = b"-inf" if order == b"asc" else b"+inf"
        while True:
            last, *page = await self._line.run(scripts.SCAN, self._space.key(index), index, order, bound, limit, state, outcome)
            if not last:
                return
            for row in page:
                yield row
            bound = b"(" + last

    def _row(self, name: bytes) -> asyncio.Future[Reply]:
        return asyncio.ensure_future(self._named_row(name))

    async def _named_row(self, name: bytes) -> Reply:
        return [name, *await self._line.ask(b"HMGET", self._turn(name), *FIELDS)]

    def _turn(self, name: bytes) -> bytes:
        return self._space.key(b"t:", name)


def _index(state: TurnState | None, outcome: str | None) -> bytes:
    """The smallest sorted set that has all turns of a kind."""
    if outcome is not None and outcome != OutcomeKind.ANSWERED:
        return b"o:" + encoded(outcome)
    if state is not None and state is not TurnState.CLOSED:
        return b"open"
    return b"all"
