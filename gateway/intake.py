"""May this message come in? Decides only; pure."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import Refused, TooLong
from gateway.messages import Inbound, Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The rules for what comes in."""

    max_chars: int = 8000
    """Longer messages are refused with a sentence; well above what any of the platforms lets a person type in one message."""

    def ignores(self, inbound: Inbound) -> str:
        """Why the message is none of the bot's business, so that it is not even written down; empty when it is."""
        if not inbound.to_bot:
            return "not for the bot"
        if not inbound.text and inbound.unsupported is None and not inbound.address.in_group:
            return "no words"
        return ""

    def refusal(self, inbound: Inbound) -> Refused | None:
        """Why an accepted message gets a sentence instead of an answer."""
        length = sum(len(part.text) for part in inbound.parts if isinstance(part, Text))
        if length > self.max_chars:
            return TooLong(f"{length} characters, {self.max_chars} allowed")
        return None
