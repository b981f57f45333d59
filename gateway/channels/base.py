"""The promise of every channel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from gateway.checkup import Finding, Health
from gateway.errors import ChannelError
from gateway.messages import Answer, Inbound, Outbound, Outcome


class Markup(StrEnum):
    """What a platform can show."""

    PLAIN = "plain"
    """No formatting at all (WeChat)."""
    DINGTALK = "dingtalk"
    """DingTalk's subset of Markdown."""
    MARKDOWN = "markdown"
    """Markdown as the model wrote it (terminal, HTTP API)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    """What one piece of an answer may be. Delivery obeys; a channel never cuts text itself."""

    markup: Markup
    max_bytes: int
    """UTF-8 bytes of one rendered piece, hints and mentions that the channel adds already subtracted."""
    max_chars: int | None = None
    """Characters of one rendered piece, where a platform counts them as well (iLink; plain text only). None: only bytes count."""
    pieces_per_turn: int | None = None
    """How many pieces one message may be answered with; the rest is parked until the person asks for more. None: no limit."""
    parks: bool = False
    """Whether an answer that comes too late is kept until the person sends a fetch word (继续)."""
    grows: bool = False
    """Whether `send_growing` shows the answer while it is made."""
    idempotent: bool = False
    """Whether sending the same `Outbound.key` twice shows it once. Such a piece is simply sent again after a crash."""


class Admission(StrEnum):
    """What became of a message that a channel handed in."""

    ACCEPTED = "accepted"
    """It is on disk and will be answered (or refused with a reason)."""
    DUPLICATE = "duplicate"
    """It is known; nothing more happens because of this delivery."""
    IGNORED = "ignored"
    """It is not for the bot and was not written down."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """The result of `deliver`. A duplicate whose answer is already recorded carries it, so that a platform which asks
    again (an official account) can be given the identical answer, also after a restart."""

    admission: Admission
    answer: Answer | None = None
    outcome: Outcome | None = None
    """How the turn of a duplicate ended, when it has ended."""
    accepted_at: datetime | None = None
    """When the first delivery of a duplicate was written down, perhaps by another process."""


Deliver: TypeAlias = Callable[[Inbound], Awaitable[Admitted]]
"""Hand a message in. Returns once the ledger has it on disk: that is when the channel may acknowledge it to its platform.

Returns quickly (no model is waited for). Raises StoreUnavailable when nothing was written: do not acknowledge, so that the
platform delivers again; where a platform never does, keep the message and hand it in again.
"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The platform took a piece; `message_id` is its id there when the platform tells."""

    message_id: str = ""


class Channel(ABC):
    """One account on one platform."""

    name: str
    """As in the configuration."""
    limits: ChannelLimits

    @abstractmethod
    async def run(self, deliver: Deliver) -> None:
        """Hear until cancelled. Reconnects by itself; raises ChannelError only when a person must repair something.

        On cancellation: stop hearing at once and return; `send` must still work until `aclose`.
        """

    @abstractmethod
    async def send(self, outbound: Outbound) -> Receipt:
        """Show one piece. Raises a SendError that says whether it may be tried again; never anything else."""

    async def send_growing(self, head: Outbound, texts: AsyncGenerator[str, None]) -> Receipt:
        """Show an answer while it is made: `texts` yields further words, unrendered; `head.text` is empty.

        Only called when `limits.grows`. Must read `texts` to its end. An exception from `texts` means the answer failed: let it pass.
        """
        raise NotImplementedError(f"{type(self).__name__} declares limits.grows but does not show growing answers")

    async def sign_in(self) -> str:
        """Let a person sign in now (`gateway sign-in`), also while another process runs the channel; returns what to tell the operator.

        Raises ChannelError when nobody signed in, or where signing in is part of running.
        """
        raise ChannelError(f"channel {self.name} needs no sign-in of its own: start the gateway, and it says what it needs")

    def can_show(self) -> bool:
        """Whether this process may speak here now. False where another process holds the account: its lanes are then not adopted here."""
        return True

    def health(self) -> Health:
        """Whether messages can be heard now; shown in /readyz."""
        return Health(True)

    async def checkup(self) -> list[Finding]:
        """What `gateway doctor` should know: credentials, reachability. Never prints a secret."""
        return []

    async def aclose(self) -> None:
        """Give back sockets. Called once, after `run` has ended and the last answer was sent."""
