"""The permission to write to one person: how long it lasts and how many messages it is good for."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from gateway.channels.wechat.ilink_parse import ANSWERABLE, CONTEXT_TOKEN
from gateway.errors import TicketExpired
from gateway.messages import ReplyTicket

PER_INBOUND = 10
"""About so many messages may follow each of the person's (openclaw-weixin#81, #202); then Tencent refuses until the person writes."""
MAX_WINDOWS = 100
"""Only the person who scanned can write to a bot; more is somebody's mistake."""


class Window(BaseModel):
    """What a person's newest message allows."""

    model_config = ConfigDict(extra="ignore")

    token: str
    heard_at: datetime
    sent: int = 0

    def spend(self, now: datetime, *, allowed: int) -> str:
        """The token for one more message, which is counted. Raises TicketExpired."""
        if now >= self.heard_at + ANSWERABLE:
            raise TicketExpired("the person wrote last more than 23 hours ago; WeChat takes no answer after 24")
        if self.sent >= allowed:
            raise TicketExpired(f"{self.sent} messages were sent since the person wrote last; WeChat takes about {PER_INBOUND}")
        self.sent += 1
        return self.token


class Windows:
    """The newest window of each person. A late redelivery of an older message changes nothing."""

    def __init__(self, windows: dict[str, Window] | None = None) -> None:
        self._windows = dict(windows or {})

    def heard(self, user_id: str, token: str | None, at: datetime) -> None:
        known = self._windows.get(user_id)
        if not token or (known is not None and (known.heard_at > at or (known.heard_at == at and known.token == token))):
            return
        self._windows.pop(user_id, None)
        self._windows[user_id] = Window(token=token, heard_at=at)
        if len(self._windows) > MAX_WINDOWS:
            del self._windows[next(iter(self._windows))]

    def of(self, user_id: str, ticket: ReplyTicket) -> Window:
        """The newest permission, or that of the message itself when none is known (its state file was lost). Raises TicketExpired."""
        token = ticket.token.get(CONTEXT_TOKEN)
        if user_id not in self._windows and token and ticket.expires_at is not None:
            self.heard(user_id, token, ticket.expires_at - ANSWERABLE)
        window = self._windows.get(user_id)
        if window is None:
            raise TicketExpired("WeChat gave no permission to answer yet: the person must write again")
        return window

    def close(self, user_id: str) -> None:
        """The platform says that this permission is used up."""
        window = self._windows.get(user_id)
        if window is not None:
            window.sent = max(window.sent, PER_INBOUND)

    def as_dict(self) -> dict[str, Window]:
        return dict(self._windows)
