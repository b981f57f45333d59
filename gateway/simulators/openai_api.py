"""An OpenAI-compatible server on loopback: Chat Completions (whole and streamed) and the model list, with every fault we know of.

The shapes follow the public Chat Completions reference; the unmodified `openai` SDK is the peer that proves it (tests/wire/test_openai.py).
It is also the load server of bench/: the completions path is raw ASGI and writes each chunk as one piece.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from gateway.simulators.base import Simulator
from gateway.simulators.openai_exchange import CREATED, Asked, Call, Gone, answer_in_stream, answer_whole, refuse
from gateway.simulators.openai_faults import FAULTS, IN_THE_ANSWER, REFUSALS, OpenAIFaults, error_body, unknown_parameter

MAX_REQUESTS_KEPT = 2_000
MAX_BODY_BYTES = 4_000_000
HIDDEN_HEADERS = frozenset({"authorization", "cookie", "api-key"})


class OpenAISimulator(Simulator):
    """Answers `ANS:<question>` unless `say` queued an answer or `answer` makes one from the question."""

    faults: OpenAIFaults

    def __init__(
        self,
        *,
        api_key: str = "sk-simulated",
        models: tuple[str, ...] = ("gpt-4o-mini", "sim-model"),
        answer: Callable[[str], str] = "ANS:{}".format,
    ) -> None:
        super().__init__()
        self.faults = OpenAIFaults()
        self.asked: deque[Asked] = deque(maxlen=MAX_REQUESTS_KEPT)
        self.calls = 0
        """How many completions were asked for in all."""
        self._key = f"Bearer {api_key}".encode()
        self._models = models
        self._answer = answer
        self._queued: deque[str] = deque(maxlen=1_000)
        self._ids = itertools.count(1)
        self._changed = asyncio.Event()

    @property
    def api_base(self) -> str:
        """What a client's `base_url` must be."""
        return f"{self.base_url}/v1"

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/v1/chat/completions", _Completions(self), methods=["POST"]),
            Route("/v1/models", self._list_models, methods=["GET"]),
            Route("/v1/models/{model:path}", self._one_model, methods=["GET"]),
            Route("/_sim/asked", self._asked_over_http, methods=["GET"]),
        ]

    async def say(self, *, text: str) -> str:  # type: ignore[override]  # the knob of this platform is the model's next answer
        """The next request is answered with `text`."""
        self._queued.append(text)
        return str(len(self._queued))

    async def wait_for(self, satisfied: Callable[[deque[Asked]], bool], timeout_s: float = 5.0) -> None:
        """Wait until the record of requests satisfies; raises TimeoutError that tells what was asked."""
        try:
            async with asyncio.timeout(timeout_s):
                while not satisfied(self.asked):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"the server was asked only {list(self.asked)!r}") from None

    async def complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one POST /v1/chat/completions."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        asked = Asked(body=_parsed(await _body(receive)), headers=_shown_headers(headers))
        self.calls += 1
        self.asked.append(asked)
        call = Call(asked, receive, send, f"chatcmpl-sim{next(self._ids)}", self.faults, self._fault_now())
        self._changed.set()
        try:
            await self._serve(call, allowed=self._knows(headers.get(b"authorization")))
            asked.finished = True
        except Gone:
            asked.disconnected = True
        finally:
            self._changed.set()

    async def _serve(self, call: Call, *, allowed: bool) -> None:
        refusal = call.fault if call.fault in REFUSALS else self._refusal(call.asked, allowed=allowed)
        if refusal:
            return await refuse(call, refusal)
        refused = next((name for name in call.faults.refuses if name in call.asked.body), "")
        if refused:
            return await call.whole(400, json.dumps(unknown_parameter(refused)).encode())
        if call.fault and call.fault not in IN_THE_ANSWER:
            return await call.whole(500, json.dumps({"error": {"message": f"unknown fault; known: {FAULTS}"}}).encode())
        if call.fault == "silent":
            await call.pause(None)
        if call.fault == "html":
            return await call.whole(200, b"<!DOCTYPE html><html><body>Please sign in</body></html>", b"text/html; charset=utf-8")
        text = self._queued.popleft() if self._queued else self._answer(call.asked.question)
        if call.faults.think:
            text = f"<think>{call.faults.think}</think>{text}"
        if call.fault in ("empty", "reasoning_only"):
            text = ""
        if call.asked.body.get("stream"):
            return await answer_in_stream(call, text)
        return await answer_whole(call, text)

    def _fault_now(self) -> str:
        faults = self.faults
        fault = faults.fault
        if fault and faults.times:
            faults.times -= 1
            faults.fault = fault if faults.times else ""
        return fault

    def _refusal(self, asked: Asked, *, allowed: bool) -> str:
        if not allowed:
            return "unauthorized"
        if asked.body.get("model") not in self._models:
            return "unknown_model" if asked.body else "bad_request"
        return ""

    def _knows(self, authorization: bytes | None) -> bool:
        return hmac.compare_digest(authorization or b"", self._key)

    async def _list_models(self, request: Request) -> Response:
        fault = self._fault_now()
        if fault == "html":
            return Response("<html>Please sign in</html>", media_type="text/html")
        while fault == "silent" and (await request.receive())["type"] != "http.disconnect":
            pass
        if not self._knows(request.headers.get("authorization", "").encode()):
            fault = "unauthorized"
        if fault in REFUSALS:
            return JSONResponse(error_body(fault), status_code=REFUSALS[fault][0])
        return JSONResponse({"object": "list", "data": [_model(name) for name in self._models]})

    async def _one_model(self, request: Request) -> Response:
        if not self._knows(request.headers.get("authorization", "").encode()):
            return JSONResponse(error_body("unauthorized"), status_code=401)
        name = request.path_params["model"]
        if name not in self._models:
            return JSONResponse(error_body("unknown_model"), status_code=404)
        return JSONResponse(_model(name))

    async def _asked_over_http(self, request: Request) -> Response:
        return JSONResponse([{"messages": asked.messages, "disconnected": asked.disconnected} for asked in self.asked])


class _Completions:
    """The ASGI face of the completions path; an instance, so that Starlette hands over the bare connection."""

    def __init__(self, simulator: OpenAISimulator) -> None:
        self._simulator = simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._simulator.complete(scope, receive, send)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "simulator"}


def _shown_headers(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    return {
        name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items() if name.decode("latin-1") not in HIDDEN_HEADERS
    }


async def _body(receive: Receive) -> bytes:
    chunks = b""
    while True:
        message = await receive()
        chunks += bytes(message.get("body", b""))
        if not message.get("more_body") or len(chunks) > MAX_BODY_BYTES:
            return chunks


def _parsed(body: bytes) -> dict[str, Any]:
    """The request, or an empty one when it is not a JSON object."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
