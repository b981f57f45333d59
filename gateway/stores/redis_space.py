"""The names of the keys. All lie under one hash tag, so that they would share a node of a cluster."""

from __future__ import annotations

import re

from gateway.errors import StoreError


class Space:
    """Everything of one gateway on a server that others may use as well."""

    def __init__(self, prefix: str) -> None:
        """Raises StoreError unless `prefix` is letters, digits, dots, dashes and underscores: it becomes part of the scripts."""
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,60}", prefix):
            raise StoreError("store.prefix may have letters, digits, dots, dashes and underscores, at most 60.")
        self.prefix = f"{{{prefix}}}:"
        self._prefix = self.prefix.encode()

    def key(self, kind: bytes, name: bytes = b"") -> bytes:
        """`kind` alone, or with the colon in it: `key(b"t:", turn)`."""
        return self._prefix + kind + name

    def name(self, kind: bytes, key: bytes) -> bytes:
        """The inverse of `key`."""
        return key.removeprefix(self._prefix + kind)
