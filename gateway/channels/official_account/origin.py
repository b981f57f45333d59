"""Whether a request is really from WeChat, for this account and of today; and what it says once that is known."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial

from gateway.channels.official_account.compose import ACK
from gateway.channels.official_account.envelope import AesKey, BadEnvelope, Envelope, read_shell, read_xml
from gateway.clock import Clock
from gateway.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_SKEW_S = 300.0
"""Requests whose timestamp is further from our clock are refused: somebody may have recorded them."""


class Encryption(StrEnum):
    """The platform's 消息加解密方式."""

    PLAIN = "plain"
    """明文模式: no key; what is posted is read as it is."""
    COMPATIBLE = "compatible"
    """兼容模式: the encrypted copy is read, never the plain one beside it. Posts without one are still taken."""
    SAFE = "safe"
    """安全模式: posts that are not encrypted are refused."""


class Origin:
    """Checks requests of one account."""

    def __init__(self, *, channel: str, envelope: Envelope, encryption: Encryption, clock: Clock, max_skew_s: float) -> None:
        self.encryption = encryption
        self._channel = channel
        self._envelope = envelope
        self._clock = clock
        self._max_skew_s = max_skew_s

    def vouches_for(self, query: Mapping[str, str]) -> bool:
        """Whether the query is signed with our token and fresh. Says nothing about a body yet."""
        timestamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
        if not self._envelope.signs(query.get("signature", ""), timestamp=timestamp, nonce=nonce):
            logger.info("Channel %s refused a request: its signature is wrong or missing.", self._channel)
            return False
        return self._is_fresh(timestamp)

    def open(self, query: Mapping[str, str], body: bytes) -> tuple[dict[str, str], Callable[[str], str]]:
        """The fields of the message, and what must be done to the answer before it goes back.

        What no signature covers is never read where encryption is expected. Raises BadEnvelope, ForbiddenXml, BrokenXml.
        """
        outer = read_shell(body)
        if self._takes_plain(outer):
            return outer, str
        if "Encrypt" not in outer:
            raise BadEnvelope("it is not encrypted; choose 安全模式 in the console, or set encryption to what is chosen there")
        inner, key = self._envelope.open(
            outer["Encrypt"], msg_signature=query.get("msg_signature", ""), timestamp=query["timestamp"], nonce=query.get("nonce", "")
        )
        return read_xml(inner), partial(self._seal, key)

    def _takes_plain(self, outer: Mapping[str, str]) -> bool:
        if self.encryption is Encryption.PLAIN and "Encrypt" in outer and "MsgType" not in outer:
            raise BadEnvelope("it is encrypted, but encryption is plain; set encoding_aes_key, or choose 明文模式 in the console")
        return self.encryption is Encryption.PLAIN or (self.encryption is Encryption.COMPATIBLE and "Encrypt" not in outer)

    def _seal(self, key: AesKey, reply: str) -> str:
        if reply == ACK:
            return reply
        timestamp = str(int(self._clock.now().timestamp()))
        return self._envelope.seal(reply, key, timestamp=timestamp, nonce=str(secrets.randbelow(10**10)))

    def _is_fresh(self, timestamp: str) -> bool:
        now = self._clock.now().timestamp()
        if timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 10 and abs(now - int(timestamp)) <= self._max_skew_s:
            return True
        logger.warning(
            "Channel %s refused a rightly signed request: it says %.20s and this machine's clock says %d (seconds since 1970). "
            "Set the clock if it is wrong; otherwise somebody sent an old request again.",
            self._channel,
            timestamp,
            now,
        )
        return False


def chosen_encryption(wanted: str | None, *, has_key: bool) -> Encryption:
    """What the configuration means: safe with a key and plain without one, unless told. Raises ConfigError."""
    if wanted is None:
        return Encryption.SAFE if has_key else Encryption.PLAIN
    try:
        encryption = Encryption(wanted)
    except ValueError as error:
        raise ConfigError(f"encryption is {wanted!r}; it can be {', '.join(Encryption)}") from error
    if encryption is not Encryption.PLAIN and not has_key:
        raise ConfigError(f"encryption is {encryption} but encoding_aes_key is not set")
    return encryption
