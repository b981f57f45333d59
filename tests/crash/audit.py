"""Compares what platforms were told and people saw with what the ledger says."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.messages import OutcomeKind
from gateway.reading import read_config
from gateway.stores.base import Ledger, TurnRecord, TurnState
from gateway.wiring import open_store

from .book import Asked
from .town import Town

PLATFORMS = {"d": "DingTalk", "w": "WeChat", "o": "official account"}
"""Where an answer may end as unknown."""
IDEMPOTENT = frozenset({"o", "a"})
"""Official account and HTTP API: there the platform shows an answer once, however often it is given.

The official account's platform does so only while it asks; what was being written when the gateway died may end as unknown there, too.
"""


@dataclass(kw_only=True)
class Verdict:
    """What became of all messages of a town. The lists hold one sentence per case."""

    kills: int = 0
    written: int = 0
    accepted: int = 0
    answered: int = 0
    unknown_seen: Counter[str] = field(default_factory=Counter)
    """By platform: what ended as unknown although its person saw it."""
    unknown_unseen: Counter[str] = field(default_factory=Counter)
    expired: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled_idempotent: list[str] = field(default_factory=list)
    doubled_other: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Who asked again with the same id and got another answer."""
    disordered: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    """Questions that the model answered without the exchange before."""
    ready_s: list[float] = field(default_factory=list)

    @property
    def unknown(self) -> int:
        return self.unknown_seen.total() + self.unknown_unseen.total()

    @property
    def faults(self) -> list[str]:
        """Every broken promise."""
        lists = (self.lost, self.doubled_idempotent, self.doubled_other, self.changed, self.disordered, self.leaked, self.forgotten)
        return [sentence for one in lists for sentence in one]

    @classmethod
    def of(cls, towns: Iterable[Verdict]) -> Verdict:
        """Several towns as one."""
        whole = cls()
        for town in towns:
            for name, value in vars(town).items():
                setattr(whole, name, getattr(whole, name) + value)
        return whole

    def rows(self) -> list[tuple[str, str]]:
        """The table for people."""
        ready = sorted(self.ready_s)
        slowest = f"{ready[int(len(ready) * 0.95)]:.2f}" if ready else "-"
        return [
            ("kill -9", f"{self.kills:,}"),
            ("messages written", f"{self.written:,}"),
            ("accepted", f"{self.accepted:,}"),
            ("answered and seen", f"{self.answered:,}"),
            ("lost", f"{len(self.lost)}"),
            ("doubled, idempotent platforms", f"{len(self.doubled_idempotent)}"),
            ("doubled, other platforms", f"{len(self.doubled_other)}"),
            *(
                (f"unknown, {name}: seen / not", f"{self.unknown_seen[key]} / {self.unknown_unseen[key]}")
                for key, name in PLATFORMS.items()
            ),
            ("expired", f"{self.expired}"),
            ("other outcomes", ", ".join(f"{kind} {count}" for kind, count in sorted(self.outcomes.items())) or "none"),
            ("another answer for the same id", f"{len(self.changed)}"),
            ("order violations", f"{len(self.disordered)}"),
            ("context leaks", f"{len(self.leaked)}"),
            ("exchanges forgotten", f"{len(self.forgotten)}"),
            ("start to ready, p50 / p95 (s)", f"{statistics.median(ready):.2f} / {slowest}" if ready else "-"),
        ]

    def table(self) -> str:
        return "\n".join(f"  {name:<32} {value}" for name, value in self.rows())


async def audit(town: Town, redelivered: Mapping[str, str]) -> Verdict:
    """Judge a town whose gateways have ended. `redelivered`: what programs got when they asked once more."""
    verdict = Verdict(kills=sum(gateway.deaths for gateway in town.gateways), written=len(town.book.asked))
    verdict.ready_s = [seconds for gateway in town.gateways for seconds in gateway.ready_s]
    verdict.leaked = [*town.book.leaks, *town.book.strangers]
    store = await open_store(read_config(town.gateways[0].config))
    try:
        verdict.lost += [f"never finished: {_told(record)}" for record in await store.ledger.unfinished()]
        doubtful = {chat for chat, ids in town.book.fetches.items() if await _any_unknown(store.ledger, ids)}
        records = {asked.token: await _record(store.ledger, asked) for asked in town.book.asked.values()}
    finally:
        await store.aclose()
    for asked in town.book.asked.values():
        _judge(verdict, asked, records[asked.token], fetch_in_doubt=asked.chat in doubtful)
        if (text := redelivered.get(asked.token)) and text != asked.first_words:
            verdict.changed.append(f"{asked.token}: {asked.first_words[:40]!r}, later {text[:40]!r}")
    verdict.disordered = _disordered(town)
    verdict.forgotten = _forgotten(town, records)
    return verdict


async def _record(ledger: Ledger, asked: Asked) -> TurnRecord | None:
    found = await ledger.find(asked.ledger_id or asked.message_id) if asked.message_id else []
    return found[0] if found else None


async def _any_unknown(ledger: Ledger, ids: list[str]) -> bool:
    records = [record for one in ids for record in await ledger.find(one)]
    return any(record.outcome is not None and record.outcome.kind is OutcomeKind.UNKNOWN for record in records)


def _judge(verdict: Verdict, asked: Asked, record: TurnRecord | None, *, fetch_in_doubt: bool) -> None:
    doubled = [part for part, count in Counter(part for _, part in asked.answers).items() if count > 1]
    if doubled:
        told = verdict.doubled_idempotent if asked.platform in IDEMPOTENT else verdict.doubled_other
        told.append(f"{asked.token} was seen more than once (parts {doubled}): {asked.answers}; {_told(record)}")
    if record is None:
        if asked.accepted or asked.answers:
            verdict.lost.append(f"{asked.token} was acknowledged and is not in the ledger")
        return
    verdict.accepted += 1
    if record.state is not TurnState.CLOSED or record.outcome is None:
        return  # told as never finished
    kind = record.outcome.kind
    if kind is OutcomeKind.ANSWERED:
        verdict.answered += asked.complete
        if not asked.complete and fetch_in_doubt:
            verdict.unknown_unseen[asked.platform] += 1  # the piece that was fetched when the gateway died: its fetch says so in the ledger
        elif not asked.complete:
            verdict.lost.append(f"{asked.token} is answered, and its person saw {asked.answers} {asked.other}: {_told(record)}")
    elif kind is OutcomeKind.UNKNOWN and asked.platform in PLATFORMS:
        verdict.unknown_seen[asked.platform] += asked.complete
        verdict.unknown_unseen[asked.platform] += not asked.complete
    elif kind is OutcomeKind.EXPIRED:
        verdict.expired += 1
    else:
        verdict.outcomes[f"{asked.platform} {kind.value}"] += 1
        verdict.lost.append(f"{asked.token} ended without its answer: {_told(record)}")


def _told(record: TurnRecord | None) -> str:
    if record is None:
        return "not in the ledger"
    end = f"{record.outcome.kind.value} ({record.outcome.reason} {record.outcome.detail})" if record.outcome else record.state.value
    pieces = len(record.answer.pieces) if record.answer else 0
    return f"{record.key.channel} {record.key.message} {end}, shown {record.shown} of {pieces}, by {record.answered_by!r}"


def _disordered(town: Town) -> list[str]:
    """Each person wrote a message only when the one before had arrived: so answers must come in that order.

    Followers of an official account are left out: what came too late they read when they ask for it.
    """
    latest: dict[str, int] = {}
    found = []
    for chat, token in town.book.seen:
        if town.book.asked[token].platform == "o":
            continue
        number = town.book.asked[token].number
        if number < latest.get(chat, 0):
            found.append(f"{token} was answered after number {latest[chat]}")
        latest[chat] = max(number, latest.get(chat, 0))
    return found


def _forgotten(town: Town, records: Mapping[str, TurnRecord | None]) -> list[str]:
    """An exchange that ended as answered must be known to the next question of its person."""
    found = []
    for asked in town.book.asked.values():
        generation = asked.answers[0][0] if asked.answers else 0
        before = f"Q{asked.platform}{asked.person}n{asked.number - 1}z"
        record = records.get(before)
        if not generation or record is None or record.outcome is None or record.outcome.kind is not OutcomeKind.ANSWERED:
            continue
        _, known = town.book.contexts[generation]
        if (known and asked.number - 1 not in known) or not known:
            found.append(f"{asked.token} was answered without knowing {before}: {_told(record)}")
    return found
