"""The SQL of the ledger, put together from constants of this file only; values always travel as parameters."""
# ruff: noqa: S608

from __future__ import annotations

from gateway.messages import OutcomeKind
from gateway.stores.base import TurnState

TURN_COLUMNS = (
    "id, message, channel, account, sender, state, accepted_at, inbound,"
    " answer, shown, answered_by, answered_at, closed_at, outcome, reason, detail"
)
_THIS_TURN = "WHERE message = ? AND channel = ? AND account = ? AND closed_at IS NULL"
_SELECT = f"SELECT {TURN_COLUMNS} FROM turns"

ACCEPT = (
    "INSERT INTO turns (message, channel, account, sender, accepted_at, inbound, state, previous)"
    " VALUES (?, ?, ?, ?, ?, ?, 'accepted', (SELECT turn FROM people WHERE sender = ? AND channel = ? AND account = ?))"
    " ON CONFLICT DO NOTHING"
)
LAST_OF_PERSON = "INSERT OR REPLACE INTO people (sender, channel, account, turn) VALUES (?, ?, ?, ?)"
BY_KEY = f"{_SELECT} WHERE message = ? AND channel = ? AND account = ?"
ANSWERING = f"UPDATE turns SET state = 'answering' {_THIS_TURN}"
ANSWERED = f"UPDATE turns SET state = 'answered', answer = ?, answered_by = ?, answered_at = ? {_THIS_TURN}"
SHOWING = f"UPDATE turns SET state = 'showing', shown = ? {_THIS_TURN}"
SHOWN = f"UPDATE turns SET state = 'answered', shown = ? {_THIS_TURN}"
CLOSED = f"UPDATE turns SET state = 'closed', closed_at = ?, outcome = ?, reason = ?, detail = ? {_THIS_TURN}"
UNFINISHED = f"{_SELECT} INDEXED BY turns_unfinished WHERE closed_at IS NULL ORDER BY id"
BY_MESSAGE = f"{_SELECT} WHERE message = ? ORDER BY id"
OF_PERSON = (
    "WITH RECURSIVE chain (link) AS (SELECT turn FROM people WHERE sender = ? AND channel = ? AND account = ?"
    " UNION ALL SELECT previous FROM chain JOIN turns ON id = link WHERE previous IS NOT NULL)"
    f" SELECT {TURN_COLUMNS} FROM chain JOIN turns ON id = link WHERE sender = ? AND channel = ? AND account = ?"
    " AND id < ifnull((SELECT id FROM turns WHERE message = ? AND channel = ? AND account = ?), 9223372036854775807) LIMIT 1"
)
"""Follows the person's turns back from the newest. Checks the person again, as the id of a pruned turn may have been given anew."""
PRUNE = "DELETE FROM turns WHERE id IN (SELECT id FROM (SELECT id, closed_at FROM turns ORDER BY id LIMIT ?) WHERE closed_at < ?)"
PRUNE_PEOPLE = "DELETE FROM people WHERE turn < ifnull((SELECT min(id) FROM turns), 9223372036854775807)"

SET_ASIDE = "INSERT INTO set_aside (kind, name, why, content) VALUES (?, ?, ?, ?)"
STAND_IN = (
    "UPDATE turns SET state = 'closed', outcome = 'failed', answer = NULL, shown = 0, answered_by = '', answered_at = NULL,"
    " accepted_at = ?, inbound = ?, closed_at = ?, reason = ?, detail = ? WHERE id = ?"
)

ADD = (
    "INSERT INTO shelf (name, value, keep_until) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
    " SET value = excluded.value, keep_until = excluded.keep_until WHERE shelf.keep_until <= ?"
)
"""Nothing changes when a value of that name is there and not past its time."""


def latest(state: TurnState | None, outcome: str | None) -> str:
    """The newest turns; parameters: `state` and `outcome` where given, then the limit.

    Each wish names, besides itself, the condition of the partial index that serves it, so that rare turns are found without
    reading the whole ledger.
    """
    conditions = ["1"]
    if state is not None:
        conditions += ["state = ?", "closed_at IS NOT NULL" if state is TurnState.CLOSED else "closed_at IS NULL"]
    if outcome is not None:
        conditions += ["outcome = ?", *(["outcome <> 'answered'"] if outcome != OutcomeKind.ANSWERED else [])]
    return f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?"
