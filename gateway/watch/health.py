"""Alive, ready, and the numbers: /healthz, /readyz, /metrics."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.channels.base import Channel
from gateway.checkup import Health
from gateway.errors import StoreError
from gateway.stores.base import Store
from gateway.watch.metrics import CONTENT_TYPE, Metrics


class HealthPages:
    """Answers the three paths. Nothing here tells a secret or a message."""

    def __init__(self, *, channels: Mapping[str, Channel], store: Store, metrics: Metrics) -> None:
        self._channels = channels
        self._store = store
        self._metrics = metrics
        self.stopping = False

    async def healthz(self, scope: Scope, receive: Receive, send: Send) -> None:
        """200 as long as the process turns its loop."""
        await JSONResponse({"alive": True})(scope, receive, send)

    async def readyz(self, scope: Scope, receive: Receive, send: Send) -> None:
        """200 when every channel hears and the store can be written, else 503; the reason per part."""
        parts = await self._parts()
        ready = all(health.ok for health in parts.values())
        body = {"ready": ready, "parts": {name: {"ok": health.ok, "reason": health.reason} for name, health in parts.items()}}
        await JSONResponse(body, status_code=200 if ready else 503)(scope, receive, send)

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Prometheus' text format."""
        request = Request(scope, receive)
        body = b"" if request.method == "HEAD" else self._metrics.page()
        await Response(body, media_type=CONTENT_TYPE)(scope, receive, send)

    async def _parts(self) -> dict[str, Health]:
        parts = {f"channel {name}": channel.health() for name, channel in self._channels.items()}
        parts["store"] = await self._store_health()
        if self.stopping:
            parts["gateway"] = Health(False, "stopping")
        return parts

    async def _store_health(self) -> Health:
        try:
            await self._store.ping()
        except StoreError as error:
            return Health(False, str(error))
        return Health(True)
