"""Counters for Prometheus. Never labelled by person or conversation."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.messages import Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300)


class Metrics:
    """The gateway's counters, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._heard = Counter("gateway_messages", "Messages heard", ["channel", "admission"], registry=self._registry)
        self._closed = Counter("gateway_turns", "Turns that ended, by outcome", ["channel", "outcome"], registry=self._registry)
        self._seconds = Histogram(
            "gateway_turn_seconds", "From sending to the end of the turn", ["channel"], buckets=_SECONDS, registry=self._registry
        )

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show `value()` under `name` at every scrape."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def notice(self, channel: str, event: str, outcome: Outcome | None, seconds: float) -> None:
        """What `Dispatch` reports."""
        if outcome is None:
            self._heard.labels(channel, event).inc()
            return
        self._closed.labels(channel, outcome.kind.value).inc()
        self._seconds.labels(channel).observe(max(seconds, 0))

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
