"""Turns, answers and sessions as rows of SQLite; pure functions, each pair inverse to the other.

Text columns come back as bytes (`text_factory = bytes`), so that a byte that is no UTF-8 spoils one row and not a whole query.
Times are integers, microseconds since 1970 in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from gateway.messages import Address, Answer, Inbound, Outcome, OutcomeKind, TurnKey, inbound_from_json, inbound_to_json
from gateway.sessions.session import Session, session_from_json, session_to_json
from gateway.stores.base import TurnRecord, TurnState

Column: TypeAlias = str | bytes | int | None
Row: TypeAlias = tuple[Any, ...]
"""What the driver returns: nobody has vouched for its types yet."""

UNREADABLE = Outcome(OutcomeKind.FAILED, "unreadable row", "Its row in the data file could not be read; it was set aside.")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

#: What the functions below raise for a row that this gateway did not write.
BROKEN = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


def text_column(text: str) -> str | bytes:
    """`text` as it is bound: a string, or bytes when it holds half of a surrogate pair (a torn emoji), which is no UTF-8."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def column_text(column: bytes) -> str:
    """The inverse of `text_column`; raises ValueError for bytes that are no text."""
    return column.decode("utf-8", "surrogatepass")


def column_key(column: bytes) -> str | bytes:
    """A text column as it must be bound to find its row again."""
    try:
        return column.decode()
    except UnicodeDecodeError:
        return column


def time_column(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def column_time(column: int) -> datetime:
    return _EPOCH + timedelta(microseconds=column)


def key_columns(key: TurnKey) -> tuple[Column, Column, Column]:
    """In the order of the unique index: message, channel, account."""
    return text_column(key.message), text_column(key.channel), text_column(key.account)


def accepted_columns(inbound: Inbound, now: datetime) -> tuple[Column, ...]:
    """A new turn: message, channel, account, sender, accepted_at, inbound."""
    address = inbound.address
    return (
        text_column(inbound.id),
        text_column(address.channel),
        text_column(address.account),
        text_column(address.sender),
        time_column(now),
        json_column(inbound_to_json(inbound)),
    )


def answer_column(answer: Answer) -> Column:
    return json_column({"text": answer.text, "pieces": answer.pieces})


def session_column(session: Session) -> Column:
    return json_column(session_to_json(session))


def column_session(column: bytes) -> Session:
    return session_from_json(json.loads(column))


def row_to_record(row: Row) -> TurnRecord:
    """A row of `statements.TURN_COLUMNS` as a record; raises one of `BROKEN` when it cannot be read."""
    _, message, channel, account, _, state, accepted_at, inbound, answer, shown, answered_by, answered_at, closed_at, *outcome = row
    return TurnRecord(
        key=TurnKey(column_text(channel), column_text(account), column_text(message)),
        inbound=inbound_from_json(json.loads(inbound)),
        state=TurnState(column_text(state)),
        accepted_at=column_time(accepted_at),
        answer=None if answer is None else _answer(json.loads(answer)),
        shown=shown,
        answered_by=column_text(answered_by),
        answered_at=None if answered_at is None else column_time(answered_at),
        closed_at=None if closed_at is None else column_time(closed_at),
        outcome=_outcome(*outcome),
    )


def stand_in(row: Row) -> TurnRecord:
    """What can be said of a row that cannot be read: its key, and that it failed. Never raises."""
    _, message, channel, account, sender, _, accepted_at, *_ = row
    key = TurnKey(_whatever(channel), _whatever(account), _whatever(message))
    accepted = column_time(accepted_at) if isinstance(accepted_at, int) and 0 <= accepted_at < 2**56 else _EPOCH
    address = Address(channel=key.channel, account=key.account, chat=_whatever(sender), sender=_whatever(sender))
    inbound = Inbound(id=key.message, address=address, parts=(), sent_at=accepted)
    return TurnRecord(key=key, inbound=inbound, state=TurnState.CLOSED, accepted_at=accepted, closed_at=accepted, outcome=UNREADABLE)


def stand_in_columns(record: TurnRecord) -> tuple[Column, ...]:
    """`stand_in` for the columns accepted_at, inbound, closed_at, reason, detail."""
    accepted = time_column(record.accepted_at)
    return accepted, json_column(inbound_to_json(record.inbound)), accepted, UNREADABLE.reason, UNREADABLE.detail


def json_column(data: Mapping[str, Any]) -> Column:
    return text_column(_encode(data))


def _answer(data: Mapping[str, Any]) -> Answer:
    return Answer(data["text"], tuple(data["pieces"]))


def _outcome(kind: bytes | None, reason: bytes, detail: bytes) -> Outcome | None:
    return None if kind is None else Outcome(OutcomeKind(column_text(kind)), column_text(reason), column_text(detail))


def _whatever(column: object) -> str:
    return column.decode("utf-8", "replace") if isinstance(column, bytes) else str(column)
