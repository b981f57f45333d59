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
    "INSERT INTO turns (message, channel, account, sender, accepted_at, inbound, state)"
    " VALUES (?, ?, ?, ?, ?, ?, 'accepted') ON CONFLICT DO NOTHING"
)
BY_KEY = f"{_SELECT} WHERE message = ? AND channel = ? AND account = ?"
ANSWERING = f"UPDATE turns SET state = 'answering' {_THIS_TURN}"
ANSWERED = f"UPDATE turns SET state = 'answered', answer = ?, answered_by = ?, answered_at = ? {_THIS_TURN}"
SHOWING = f"UPDATE turns SET state = 'showing', shown = ? {_THIS_TURN}"
SHOWN = f"UPDATE turns SET state = 'answered', shown = ? {_THIS_TURN}"
CLOSED = f"UPDATE turns SET state = 'closed', closed_at = ?, outcome = ?, reason = ?, detail = ? {_THIS_TURN}"
UNFINISHED = f"{_SELECT} INDEXED BY turns_unfinished WHERE closed_at IS NULL ORDER BY id"
BY_MESSAGE = f"{_SELECT} WHERE message = ? ORDER BY id"
OF_PERSON = f"{_SELECT} WHERE sender = ? AND channel = ? AND account = ? ORDER BY id DESC LIMIT 1"
OF_PERSON_BEFORE = (
    f"{_SELECT} WHERE sender = ? AND channel = ? AND account = ? AND id < ifnull("
    "(SELECT id FROM turns WHERE message = ? AND channel = ? AND account = ?), 9223372036854775807) ORDER BY id DESC LIMIT 1"
)
PRUNE = "DELETE FROM turns WHERE id IN (SELECT id FROM (SELECT id, closed_at FROM turns ORDER BY id LIMIT ?) WHERE closed_at < ?)"

SET_ASIDE = "INSERT INTO set_aside (kind, name, why, content) VALUES (?, ?, ?, ?)"
STAND_IN = (
    "UPDATE turns SET state = 'closed', outcome = 'failed', answer = NULL, shown = 0, answered_by = '', answered_at = NULL,"
    " accepted_at = ?, inbound = ?, closed_at = ?, reason = ?, detail = ? WHERE id = ?"
)


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
