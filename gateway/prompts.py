"""The words between the gateway and whatever answers: lines of a conversation in, pieces of an answer out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing said in a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Everything a backend needs to answer once. `lines` ends with the person's question."""

    lines: tuple[Line, ...]
    temperature: float | None = None
    """0 to 2; None: the server's own default."""
    max_output_tokens: int | None = None

    @property
    def question(self) -> str:
        """The last thing the person said."""
        return next((line.text for line in reversed(self.lines) if line.role == "user"), "")


class StopReason(StrEnum):
    """Why a backend stopped."""

    END = "end"
    """It was done."""
    LENGTH = "length"
    """It reached `max_output_tokens` or the end of its window."""
    FILTERED = "filtered"
    """The provider's content filter cut it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer cost, in tokens, as the server reports it."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One piece of an answer. The last one of a complete answer carries `stop`; only a complete answer has it."""

    text: str = ""
    reasoning: str = ""
    """What the model thought; shown to people only when `answering.show_reasoning` is on."""
    stop: StopReason | None = None
    usage: Usage | None = None
    backend: str = ""
    """Name of the backend that wrote this, so that the ledger can tell who answered; set by the chain."""
