"""Fakes that behave, shipped with the package for our tests and for those of plugin and channel authors. May look at floors 0 to 3."""

from gateway.testing.clock import ManualClock

__all__ = ["ManualClock"]
