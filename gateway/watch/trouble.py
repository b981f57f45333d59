"""What can be wrong with a running gateway, since when, why, and what to do; and the book of what is wrong now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

GATEWAY = "gateway"
STORE = "store"
"""Names of parts, as /readyz shows them, beside `channel_part`."""


def channel_part(name: str) -> str:
    """How /readyz calls a channel."""
    return f"channel {name}"


class TroubleKind(StrEnum):
    """What is wrong. Each has a sentence `trouble_KIND` in `gateway.wording`."""

    CHANNEL_DOWN = "channel_down"
    """A channel has not been able to hear for a while."""
    CHANNEL_FLAPS = "channel_flaps"
    """A channel loses its connection again and again."""
    NEEDS_PERSON = "needs_person"
    """A channel waits for a sign-in, or gave up until somebody repairs it."""
    SILENT = "silent"
    """A channel looks well and hears nothing at a time when it usually does."""
    STORE_DOWN = "store_down"
    """The store cannot be written."""
    STUCK = "stuck"
    """Messages have been taken in and do not move."""
    FAILING = "failing"
    """Too many messages end as failed, expired or unknown."""
    BLOCKED = "blocked"
    """The event loop stood still: something blocks the whole process."""
    CLOCK_JUMPED = "clock_jumped"
    """The time of day jumped, or the machine slept."""


#: With one of these the gateway is not ready (503): it cannot do its work. The others are shown and told, and traffic goes on,
#: because taking a process out of service would mend none of them.
NOT_READY = frozenset({TroubleKind.CHANNEL_DOWN, TroubleKind.NEEDS_PERSON, TroubleKind.STORE_DOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that is wrong now. `cause` and `repair` are for the operator: no secret, no message, no person."""

    kind: TroubleKind
    part: str
    since: datetime
    cause: str
    repair: str

    @property
    def key(self) -> TroubleKey:
        """What makes two reports the same trouble."""
        return TroubleKey(self.kind, self.part)


@dataclass(frozen=True, slots=True)
class TroubleKey:
    """A kind of trouble of one part; there is at most one open trouble of each."""

    kind: TroubleKind
    part: str


class Watch(ABC):
    """Keeps an eye on one thing."""

    @abstractmethod
    async def look(self) -> Sequence[Trouble]:
        """What is wrong with it now; called every few seconds, so it must be cheap."""


class Troubles:
    """The troubles that are open, oldest first."""

    def __init__(self) -> None:
        self._open: Mapping[TroubleKey, Trouble] = {}

    @property
    def open(self) -> Sequence[Trouble]:
        return sorted(self._open.values(), key=lambda trouble: trouble.since)

    def of(self, part: str) -> Sequence[Trouble]:
        """Those of one part."""
        return [trouble for trouble in self.open if trouble.part == part]

    def replace(self, found: Iterable[Trouble]) -> tuple[list[Trouble], list[Trouble]]:
        """Exactly these are open now; returns those that were not open before, and those that are over. The first `since` stays."""
        before, now = self._open, {trouble.key: trouble for trouble in found}
        self._open = {key: replace(trouble, since=before[key].since) if key in before else trouble for key, trouble in now.items()}
        opened = [trouble for key, trouble in now.items() if key not in before]
        return opened, [trouble for key, trouble in before.items() if key not in now]
