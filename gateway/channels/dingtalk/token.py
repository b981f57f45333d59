"""The access token of one app: fetched when needed, by one task for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.clock import Clock

MARGIN_S = 300.0
"""Renewed this long before its end, so that none ends on its way (DingTalk gives 7 200 s and the same token while it lives)."""


class AccessToken:
    """`fetch` asks DingTalk and returns the token and how many seconds it lives; its errors pass through."""

    def __init__(self, fetch: Callable[[], Awaitable[tuple[str, float]]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._token = ""
        self._ends_at = 0.0
        self._fetching = asyncio.Lock()

    def __repr__(self) -> str:
        return "AccessToken(…)"

    async def get(self) -> str:
        """A token that lives. Whoever comes while one is being fetched gets that one."""
        async with self._fetching:
            if not self._token or self._ends_at <= self._clock.monotonic():
                token, lives_s = await self._fetch()
                self._token, self._ends_at = token, self._clock.monotonic() + max(lives_s - MARGIN_S, lives_s / 2)
            return self._token

    def forget(self, token: str) -> None:
        """DingTalk refused `token`; one that was fetched meanwhile stays."""
        if token == self._token:
            self._token = ""
