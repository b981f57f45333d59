"""The states of a QR code."""

from __future__ import annotations

from enum import Enum


class Poll(Enum):
    """What a login poll says about a QR code."""

    WAITING = "408"
    SCANNED = "201"
    CONFIRMED = "200"
    EXPIRED = "400"
