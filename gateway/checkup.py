"""What a part of the gateway says about its own health."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check-up. `repair` tells the operator what to do; empty when all is well."""

    what: str
    ok: bool
    repair: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a part works now; `reason` says why not (or in which state it is)."""

    ok: bool
    reason: str = ""
