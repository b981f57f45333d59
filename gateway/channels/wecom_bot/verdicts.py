"""What WeCom's error codes mean for us: WeCom's document 101463 (2026-04-01), and where it is silent, what other bots met (2026)."""

from __future__ import annotations

from gateway.errors import SendError, SendLater, SendRefused, TicketExpired

BUSY_S = 2.0
OVER_LIMIT_S = 20.0
_MESSAGE_CHARS = 160


class ReplyClosed(TicketExpired):
    """WeCom takes no more words under this message; a message of its own may still be sent."""


class StreamOver(ReplyClosed):
    """The answer under this message is finished, or too old to be changed."""


class NotSubscribed(SendLater):
    """The connection lives, but WeCom no longer knows whose it is."""


class OverLimit(SendLater):
    """WeCom counts more messages to this conversation than it allows."""


_REPLY_CLOSED = {846605: "the message is not known or too old", 600039: "this request cannot be answered by a stream"}
"""600039 is not documented; seen for streams after a reconnect (hermes-agent #11142, 2026-04)."""
_LATER = {-1: BUSY_S, 6000: 1.0}
_REFUSED = {
    846607: "this person or group has not written to the bot yet",
    40008: "WeCom does not take this kind of message",
    40058: "WeCom does not understand the message",
}
_REPAIRS = {
    853000: "the secret is wrong",
    93019: "the bot_id is wrong or the bot was deleted",
    40058: "bot_id or secret is not what WeCom expects",
}


def raise_for(errcode: int, errmsg: str) -> None:
    """Nothing for 0, else the SendError that says what may be done."""
    if errcode:
        raise _error(errcode, said(errcode, errmsg))


def said(errcode: int, errmsg: str) -> str:
    """What WeCom said, for the operator: short and on one line."""
    return f"errcode {errcode}: {' '.join(errmsg.split())[:_MESSAGE_CHARS]}"


def repair(errcode: int, errmsg: str) -> str:
    """Why WeCom does not let this bot in, and what to do about it."""
    why = _REPAIRS.get(errcode, "WeCom refuses the connection")
    where = "compare bot_id and secret with 管理后台 → 智能机器人 → API 模式 (长连接), and see that the bot is set to 长连接"
    return f"{why} ({said(errcode, errmsg)}): {where}"


def _error(errcode: int, words: str) -> SendError:
    if errcode == 846608:
        return StreamOver(f"the stream can no longer be changed ({words})")
    if errcode == 846609:
        return NotSubscribed(f"the subscription was lost ({words})", retry_after_s=BUSY_S)
    if errcode == 45009:
        return OverLimit(f"this conversation was written to too often ({words})", retry_after_s=OVER_LIMIT_S)
    if errcode in _REPLY_CLOSED:
        return ReplyClosed(f"{_REPLY_CLOSED[errcode]} ({words})")
    if errcode in _LATER:
        return SendLater(f"WeCom cannot take it now ({words})", retry_after_s=_LATER[errcode])
    return SendRefused(f"{_REFUSED.get(errcode, 'WeCom refuses')} ({words})")
