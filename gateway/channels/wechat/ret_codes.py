"""What WeChat Web answers to a send → what the gateway may do (codes as collected on 2026-11-22)."""

from __future__ import annotations

from gateway.channels.wechat.transport import Unreachable
from gateway.errors import SendError, SendLater, SendRefused, SendUncertain

SESSION_OVER = frozenset({"1100", "1101", "1102"})
"""Not signed in, signed out, cookie invalid."""
TOO_FREQUENT_RETRY_S = 180.0
"""Ret 1205 means minutes, not seconds."""

_TOO_FREQUENT = 1205
_SYSTEM_ERROR = -1
_NO_ANSWER = frozenset({-1000, -1004})
"""Made by the client library: an answer without BaseResponse, an answer that is not JSON."""


def broken_send(error: Unreachable) -> SendError:
    if not error.maybe_sent:
        return SendLater("WeChat cannot be reached", retry_after_s=5)
    if error.status == 429:
        return SendLater("WeChat takes no more messages for now", retry_after_s=TOO_FREQUENT_RETRY_S)
    if error.status is not None and error.status < 500:
        return SendRefused(f"WeChat refused the message with HTTP {error.status}")
    return SendUncertain(f"the connection broke while sending ({error})")


def refused_send(ret: object) -> SendError:
    """BaseResponse.Ret of a send → what may be done (codes as collected on 2026-11-22)."""
    if ret == _TOO_FREQUENT:
        return SendLater("WeChat says: too frequent (Ret 1205)", retry_after_s=TOO_FREQUENT_RETRY_S)
    if str(ret) in SESSION_OVER:
        return SendLater(f"WeChat ended the login (Ret {ret})", retry_after_s=30)
    if ret == _SYSTEM_ERROR:
        return SendLater("WeChat had a system error (Ret -1)", retry_after_s=10)
    if ret is None or ret in _NO_ANSWER:
        return SendUncertain("WeChat's answer to a send says neither yes nor no")
    return SendRefused(f"WeChat refused the message (Ret {ret})")
