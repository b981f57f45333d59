"""Turns and sessions as Redis keeps them; pure functions over those of `rows`, which SQLite uses too.

A turn is named by its channel, account and message, each as UTF-8 with its torn halves (`surrogatepass`): the lengths of the first
two, then all three, so that no two turns share a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from gateway.messages import Answer, Inbound, TurnKey, inbound_to_json
from gateway.sessions.session import Session
from gateway.stores import rows
from gateway.stores.base import TurnRecord
from gateway.stores.redis_wire import Reply
from gateway.stores.rows import BROKEN, Row, time_column

__all__ = ["BROKEN"]

NUMBER = 12
"""Where in a row of the scripts the number of the turn stands."""


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def decoded(text: bytes) -> str:
    """The inverse of `encoded`; raises ValueError for bytes that are no text."""
    return text.decode("utf-8", "surrogatepass")


def home_of(channel: str, account: str) -> bytes:
    """The beginning of the names of all turns of one account."""
    one, two = encoded(channel), encoded(account)
    return b"%d:%d:%b%b" % (len(one), len(two), one, two)


def name_of(key: TurnKey) -> bytes:
    """What the turn is called in Redis."""
    return home_of(key.channel, key.account) + encoded(key.message)


def person_of(channel: str, account: str, sender: str) -> bytes:
    return home_of(channel, account) + encoded(sender)


def split(name: bytes) -> tuple[bytes, bytes, bytes]:
    """Channel, account and message of a turn's name; raises ValueError when it is none."""
    one, two, rest = name.split(b":", 2)
    first, second = int(one), int(one) + int(two)
    return rest[:first], rest[first:second], rest[second:]


def channel_of(name: bytes) -> str | None:
    try:
        return decoded(split(name)[0])
    except ValueError:
        return None


def moment(time: datetime | None) -> bytes:
    """Microseconds since 1970; nothing for never."""
    return b"" if time is None else b"%d" % time_column(time)


def inbound_column(inbound: Inbound) -> bytes:
    return _bytes(rows.json_column(inbound_to_json(inbound)))


def session_column(session: Session) -> bytes:
    return _bytes(rows.session_column(session))


def answer_column(answer: Answer) -> bytes:
    return _bytes(rows.answer_column(answer))


def record_of(row: Reply) -> TurnRecord:
    """A row of the scripts as a record; raises one of `BROKEN` when it cannot be read."""
    return rows.row_to_record(_columns(row))


def stand_in_of(row: Sequence[bytes | None]) -> TurnRecord:
    """What can be said of a row that cannot be read. Never raises."""
    try:
        return rows.stand_in(_columns(row))
    except BROKEN:
        channel, account, message = _parts(row[0])
        return rows.stand_in((0, message, channel, account, b"", b"", None))


def stand_in_columns(record: TurnRecord) -> tuple[bytes, ...]:
    """Accepted at, inbound, reason, detail."""
    reason, detail = rows.UNREADABLE.reason, rows.UNREADABLE.detail
    return moment(record.accepted_at), inbound_column(record.inbound), encoded(reason), encoded(detail)


def _columns(row: Reply) -> Row:
    """In the order of `statements.TURN_COLUMNS`; the sender, which only a stand-in needs, is not there."""
    name, state, accepted_at, inbound, answer, shown, answered_by, answered_at, closed_at, kind, reason, detail, number = row
    times = [None if time is None else int(time) for time in (accepted_at, answered_at, closed_at)]
    channel, account, message = split(name)
    head = (int(number or 0), message, channel, account, b"", state, times[0], inbound)
    return (*head, answer, int(shown or 0), answered_by or b"", times[1], times[2], kind, reason or b"", detail or b"")


def _parts(name: bytes | None) -> tuple[bytes, bytes, bytes]:
    try:
        return split(name or b"")
    except ValueError:
        return b"", b"", name or b""


def _bytes(column: rows.Column) -> bytes:
    return column if isinstance(column, bytes) else encoded(str(column))
