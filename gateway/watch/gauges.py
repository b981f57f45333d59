"""What is true now, as numbers for Prometheus: troubles, channels, waiting, turns by state. Never by person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from gateway.channels.base import Channel
from gateway.watch.hearing import health_of
from gateway.watch.metrics import Metrics
from gateway.watch.silence import SilenceWatch
from gateway.watch.trouble import TroubleKind, Troubles
from gateway.watch.work import WatchedLedger


def show_gauges(
    metrics: Metrics, *, channels: Mapping[str, Channel], troubles: Troubles, silence: SilenceWatch, ledger: WatchedLedger
) -> None:
    """Add the gauges to `metrics`; they are read at every scrape."""
    metrics.family("gateway_troubles", "Open troubles, by kind", "kind", lambda: _by_kind(troubles))
    metrics.family("gateway_channel_up", "1 when the channel can hear", "channel", lambda: _up(channels))
    metrics.family("gateway_channel_silent_seconds", "Since the channel heard anything, or the start", "channel", silence.ages)
    metrics.family("gateway_turns_open", "Turns this process has in hand, by state", "state", ledger.states)
    metrics.gauge("gateway_oldest_waiting_seconds", "How long the oldest waiting message has waited", ledger.oldest_waiting_s)


def _by_kind(troubles: Troubles) -> Mapping[str, float]:
    """Every kind is there, so that an alert on a kind that never happened is not an alert on nothing."""
    counts = Counter(trouble.kind for trouble in troubles.open)
    return {kind.value: counts[kind] for kind in TroubleKind}


def _up(channels: Mapping[str, Channel]) -> Mapping[str, float]:
    return {name: float(health_of(channel).ok) for name, channel in channels.items()}
