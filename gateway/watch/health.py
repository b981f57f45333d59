"""Alive, ready, and the numbers: /healthz, /readyz, /metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.channels.base import Channel
from gateway.checkup import Health
from gateway.errors import StoreError
from gateway.stores.base import Store
from gateway.watch.hearing import health_of
from gateway.watch.metrics import CONTENT_TYPE, Metrics
from gateway.watch.trouble import GATEWAY, NOT_READY, STORE, Trouble, Troubles, channel_part


class HealthPages:
    """Answers the three paths. Nothing here tells a secret or a message."""

    def __init__(self, *, channels: Mapping[str, Channel], store: Store, metrics: Metrics, troubles: Troubles | None = None) -> None:
        """`troubles`: what the watchdog keeps; None: nobody watches."""
        self._channels = channels
        self._store = store
        self._metrics = metrics
        self._troubles = troubles or Troubles()
        self.stopping = False
        self.preparing = False
        """The backend is still loading; who asked now would wait for it."""

    async def healthz(self, scope: Scope, receive: Receive, send: Send) -> None:
        """200 as long as the process turns its loop."""
        await JSONResponse({"alive": True})(scope, receive, send)

    async def readyz(self, scope: Scope, receive: Receive, send: Send) -> None:
        """200 when every channel hears and the store can be written, else 503; per part the reason, and its troubles since when."""
        parts = await self._parts()
        ready = all(health.ok for health in parts.values()) and not any(trouble.kind in NOT_READY for trouble in self._troubles.open)
        names = [*parts, *(part for part in dict.fromkeys(trouble.part for trouble in self._troubles.open) if part not in parts)]
        body = {"ready": ready, "parts": {name: _shown(parts.get(name, Health(True)), self._troubles.of(name)) for name in names}}
        await JSONResponse(body, status_code=200 if ready else 503)(scope, receive, send)

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Prometheus' text format."""
        request = Request(scope, receive)
        body = b"" if request.method == "HEAD" else self._metrics.page()
        await Response(body, media_type=CONTENT_TYPE)(scope, receive, send)

    async def _parts(self) -> dict[str, Health]:
        parts = {channel_part(name): health_of(channel) for name, channel in self._channels.items()}
        parts[STORE] = await self._store_health()
        if self.preparing:
            parts[GATEWAY] = Health(False, "loading what answers")
        if self.stopping:
            parts[GATEWAY] = Health(False, "stopping")
        return parts

    async def _store_health(self) -> Health:
        """A store that is known to be down is not asked again: it may hang, and this page must answer."""
        for trouble in self._troubles.of(STORE):
            return Health(False, trouble.cause)
        try:
            await self._store.ping()
        except StoreError as error:
            return Health(False, str(error))
        return Health(True)


def _shown(health: Health, troubles: Sequence[Trouble]) -> dict[str, Any]:
    ok = health.ok and not any(trouble.kind in NOT_READY for trouble in troubles)
    shown = [
        {
            "kind": trouble.kind.value,
            "since": trouble.since.isoformat(timespec="seconds"),
            "cause": trouble.cause,
            "repair": trouble.repair,
        }
        for trouble in troubles
    ]
    return {"ok": ok, "reason": health.reason} | ({"troubles": shown} if shown else {})
