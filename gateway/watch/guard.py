"""Everything that watches, put together: one call for the wiring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from gateway.channels.base import Channel
from gateway.clock import Clock
from gateway.messages import Lang
from gateway.stores.base import Store
from gateway.watch.admins import Admin, Admins
from gateway.watch.alarm import Alarm
from gateway.watch.gauges import show_gauges
from gateway.watch.hearing import HearingWatch
from gateway.watch.metrics import Metrics
from gateway.watch.outcomes import OutcomeWatch
from gateway.watch.pulse import Pulse
from gateway.watch.silence import SilenceWatch
from gateway.watch.storage import StoreWatch
from gateway.watch.told import Told
from gateway.watch.trouble import Troubles
from gateway.watch.watchdog import Watchdog
from gateway.watch.work import STUCK_AFTER_S, WatchedLedger, WorkWatch


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What the house needs of it."""

    troubles: Troubles
    """For `HealthPages`."""
    ledger: WatchedLedger
    """Takes the place of the store's ledger on the path of a message."""
    watchdog: Watchdog
    """`run` is its one task; `notice` hears what `Dispatch` reports, `gave_up` of channels that ended with a ChannelError."""
    alarm: Alarm
    """`heard` learns how admins can be reached; call it for every accepted message."""


def stand_guard(
    *,
    channels: Mapping[str, Channel],
    store: Store,
    clock: Clock,
    metrics: Metrics,
    admins: Sequence[Admin] = (),
    again_after: timedelta = timedelta(hours=1),
    language: Lang | Literal["auto"] = "auto",
    stuck_after_s: float = STUCK_AFTER_S,
) -> Guard:
    """Nothing runs yet. `admins` are told in this order; `language` is that of the alarms."""
    ledger = WatchedLedger(store.ledger, clock=clock)
    troubles = Troubles()
    silence = SilenceWatch(channels=channels, shelf=store.shelf, clock=clock, shared=store.mailboxes is not None)
    alarm = Alarm(
        admins=Admins(admins=admins, shelf=store.shelf, clock=clock, language=language),
        told=Told(shelf=store.shelf, clock=clock, again_after=again_after),
        channels=channels,
        clock=clock,
    )
    watchdog = Watchdog(
        clock=clock,
        troubles=troubles,
        hearing=HearingWatch(channels=channels, clock=clock),
        silence=silence,
        outcomes=OutcomeWatch(clock=clock),
        pulse=Pulse(clock=clock),
        alarm=alarm,
        others=(StoreWatch(store=store, clock=clock), WorkWatch(ledger=ledger, stuck_after_s=stuck_after_s)),
    )
    show_gauges(metrics, channels=channels, troubles=troubles, silence=silence, ledger=ledger)
    return Guard(troubles=troubles, ledger=ledger, watchdog=watchdog, alarm=alarm)
