"""What all simulators share: a loopback port, a record of what people saw, and the `/_sim/` control paths."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.channels.http_face import listening


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One thing that a person would have seen."""

    chat: str
    """The simulator's name of the conversation."""
    text: str
    notified: tuple[str, ...] = ()
    """Whose phone rang: people really mentioned."""
    answers: str = ""
    """The platform id of the message that this answers, when the protocol tells."""


class Simulator:
    """One platform. Subclasses set `routes()`, a `faults` dataclass whose fields are the knobs, and `say(...)` for a person who writes.

    Over HTTP: `POST /_sim/say` with say's arguments as JSON → its result; `GET /_sim/shown` → list of Shown;
    `GET`/`POST /_sim/faults` → the knobs, set by name (unknown names → 400 naming the known ones).
    """

    faults: Any
    """A mutable dataclass; its fields are the fault knobs."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self.base_url = ""
        self._something_shown = asyncio.Condition()

    def routes(self) -> list[BaseRoute]:
        """The platform's own paths."""
        raise NotImplementedError

    async def say(self, **words: Any) -> Any:
        """A person writes; returns the platform's id of the message."""
        raise NotImplementedError

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[Simulator]:
        """Serve on loopback while the body runs."""
        control = [
            Route("/_sim/say", self._say_over_http, methods=["POST"]),
            Route("/_sim/shown", self._shown_over_http, methods=["GET"]),
            Route("/_sim/faults", self._faults_over_http, methods=["GET", "POST"]),
        ]
        async with listening(Starlette(routes=[*control, *self.routes()]), port=port, drain_s=1) as bound:
            self.base_url = f"http://127.0.0.1:{bound}"
            yield self

    async def show(self, shown: Shown) -> None:
        """Record that a person saw something."""
        async with self._something_shown:
            self.shown.append(shown)
            self._something_shown.notify_all()

    async def wait_for_shown(self, count: int, timeout_s: float = 10.0) -> list[Shown]:
        """Wait until at least `count` things were shown in all; raises TimeoutError that tells what was seen."""
        return await self.wait_until(lambda shown: len(shown) >= count, timeout_s)

    async def wait_until(self, satisfied: Callable[[list[Shown]], bool], timeout_s: float = 10.0) -> list[Shown]:
        """Wait until `satisfied(self.shown)`; raises TimeoutError that tells what was seen."""
        try:
            async with asyncio.timeout(timeout_s), self._something_shown:
                await self._something_shown.wait_for(lambda: satisfied(self.shown))
        except TimeoutError:
            raise TimeoutError(f"people saw only {self.shown!r}") from None
        return list(self.shown)

    async def _say_over_http(self, request: Request) -> Response:
        try:
            result = await self.say(**json.loads(await request.body()))
        except (TypeError, ValueError, KeyError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse({"id": result})

    async def _shown_over_http(self, request: Request) -> Response:
        return JSONResponse([asdict(shown) for shown in self.shown])

    async def _faults_over_http(self, request: Request) -> Response:
        if request.method == "POST":
            known = {field.name for field in fields(self.faults)}
            wanted = json.loads(await request.body())
            unknown = sorted(set(wanted) - known)
            if unknown:
                return JSONResponse({"error": f"unknown faults {unknown}; known: {sorted(known)}"}, status_code=400)
            for name, value in wanted.items():
                setattr(self.faults, name, value)
        return JSONResponse(asdict(self.faults))
