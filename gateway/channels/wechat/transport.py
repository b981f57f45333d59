"""What any way into a personal WeChat account promises to `WeChatChannel`, and how such a way can fail."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gateway.channels.base import Deliver
from gateway.checkup import Finding, Health
from gateway.errors import ChannelError, GatewayError
from gateway.messages import Address, ReplyTicket


class Transport(ABC):
    """Hears messages of one account and sends text. Knows nothing of prefixes, groups that are allowed, or limits."""

    @abstractmethod
    async def run(self, deliver: Deliver) -> None:
        """Sign in (again) and hand every message in, in order, until cancelled; parsed, with `to_bot` as the platform's rules say.

        Survives outages by itself. A message counts as heard only when `deliver` returned: what was not taken is handed in again,
        also after a restart. Raises ChannelError when a person must do something.
        """

    @abstractmethod
    async def send_text(self, address: Address, ticket: ReplyTicket, text: str) -> str:
        """Show `text` exactly as it is; returns the platform's message id, perhaps empty. Raises a SendError, never anything else."""

    @abstractmethod
    def health(self) -> Health:
        """Whether messages can be heard now, and if not what somebody has to do."""

    async def checkup(self) -> list[Finding]:
        """What `gateway doctor` should know."""
        return []

    async def aclose(self) -> None:
        """Let go of sockets and threads. The account stays signed in."""


class Unreachable(GatewayError):
    """WeChat cannot be reached or does not answer sensibly; trying again may help."""

    def __init__(self, message: str, *, maybe_sent: bool = True, status: int | None = None) -> None:
        super().__init__(message)
        self.maybe_sent = maybe_sent
        """False when the request surely never left this machine."""
        self.status = status
        """The HTTP status when there was one."""


class SessionEnded(GatewayError):
    """WeChat ended this login."""

    def __init__(self, code: str) -> None:
        super().__init__(f"WeChat ended the login (code {code})")
        self.code = code
        """1100 not signed in, 1101 signed out, 1102 cookie invalid; the server does not use them consistently."""


class AccountLimited(ChannelError):
    """This account may not use WeChat Web: it is restricted, not real-name verified, or has no payment method."""
