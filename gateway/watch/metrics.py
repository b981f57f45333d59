"""Counters for Prometheus. Never labelled by person or conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

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

    def family(self, name: str, text: str, label: str, values: Callable[[], Mapping[str, float]]) -> None:
        """Show `values()` under `name` at every scrape, one line for each value of `label`."""
        self._registry.register(_Family(name, text, label, values))

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


class _Family(Collector):
    """Numbers that are asked for at the scrape."""

    def __init__(self, name: str, text: str, label: str, values: Callable[[], Mapping[str, float]]) -> None:
        self._name = name
        self._text = text
        self._label = label
        self._values = values

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._text, labels=[self._label])
        for value, number in self._values().items():
            family.add_metric([value], number)
        yield family
