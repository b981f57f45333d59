"""The only file that knows the `openai` SDK, httpx2 and aiohttp on the way to a model. Heavy (0.6 s): import it when it is used.

The SDK keeps its typed surface (client, authentication, request types, error classes), with two of its costs taken out; figures of
bench/openai_transport.py in ms CPU for one streamed call of 20 chunks: SDK as it comes 6.1, aiohttp below it 4.9, and without the SDK's
recursive body transformation and per-chunk model construction (`client.post` with a finished body; events read by openai_answer.py) 1.6.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Self

import aiohttp
import httpx2
import openai
from openai import AsyncStream
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel, ValidationError

from gateway.backends.openai_errors import Complaint, error_of
from gateway.errors import BackendError, BackendMisconfigured, BackendUnreachable, BrokenAnswer

if TYPE_CHECKING:
    from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

MAX_CONNECTIONS = 500
"""More questions at once wait for a connection, within their deadline."""
CONNECT_TIMEOUT_S = 10.0
MAX_ERROR_BYTES = 65_536
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_TELLTALE = "x-stainless-"
"""The SDK's headers about this machine; nobody's business, and not sent."""


class _Body(httpx2.AsyncByteStream):
    """A response body that gives bytes as they arrive; that of an error ends after MAX_ERROR_BYTES."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._left = MAX_ERROR_BYTES if response.status >= 400 else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.ReadError(str(error) or type(error).__name__) from error
        if not piece or self._left == 0:
            raise StopAsyncIteration
        if self._left is not None:
            piece = piece[: self._left]
            self._left -= len(piece)
        return piece

    async def aclose(self) -> None:
        # Closes the connection, unless the body was read to its end: then it is already back in the pool.
        self._response.close()


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Carries httpx2 requests over aiohttp, which costs a quarter of httpx2's own transport and does not slow down with open calls."""

    def __init__(self, *, tls: ssl.SSLContext | None, trust_env: bool) -> None:
        self._tls = tls
        self._trust_env = trust_env
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = {name: value for name, value in request.headers.items() if not name.startswith(_TELLTALE) and name != "host"}
        try:
            response = await self._opened().request(
                request.method, str(request.url), headers=headers, data=request.content or None, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise httpx2.ConnectError(str(error) or type(error).__name__, request=request) from error
        kept = [(name, value) for name, value in response.raw_headers if name.lower() != b"content-encoding"]
        return httpx2.Response(response.status, headers=kept, stream=_Body(response), request=request)

    def _opened(self) -> aiohttp.ClientSession:
        """The session; made inside the running loop, as aiohttp demands."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=self._tls or True)
            limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=limits, trust_env=self._trust_env, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


class _ModelName(BaseModel):
    id: str


class _ModelList(BaseModel):
    data: list[_ModelName]


class Reply:
    """An answer on its way."""

    def __init__(self, stream: AsyncStream[ChatCompletionChunk], who: str) -> None:
        self._stream = stream
        self._who = who
        self._pieces = stream.response.stream.__aiter__()  # type: ignore[union-attr]  # asynchronous, as our transport made it

    @property
    def content_type(self) -> str:
        return self._stream.response.headers.get("content-type", "").lower()

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises BackendUnreachable when the connection breaks."""
        try:
            return await anext(self._pieces, b"")
        except httpx2.HTTPError as error:
            raise BackendUnreachable(f"{self._who}: the connection broke in the middle of the answer ({error}).") from error

    async def aclose(self) -> None:
        """Give the connection back if the answer was read to its end, else close it."""
        if isinstance(self._pieces, AsyncGenerator):
            await self._pieces.aclose()
        await self._stream.response.aclose()


class OpenAIWire:
    """One server and one key. Raises nothing but BackendError; deadlines are the caller's."""

    def __init__(self, *, api_key: str, base_url: str, who: str) -> None:
        url = httpx2.URL(base_url)
        tls = httpx2.create_ssl_context() if url.scheme == "https" else None
        transport = AiohttpTransport(tls=tls, trust_env=url.host not in LOOPBACK)
        self._who = who
        self._client = openai.AsyncOpenAI(
            api_key=api_key or "none",
            base_url=base_url,
            max_retries=0,
            timeout=None,
            # trust_env: proxies of the environment are aiohttp's task here, else httpx2 would go around our transport.
            http_client=httpx2.AsyncClient(transport=transport, trust_env=False, timeout=None, headers={"accept-encoding": "identity"}),
        )

    async def ask(self, body: CompletionCreateParamsStreaming) -> Reply:
        """Send the question; returns when the server begins to answer."""
        try:
            stream = await self._client.post(
                "/chat/completions", cast_to=ChatCompletionChunk, body=body, stream=True, stream_cls=AsyncStream[ChatCompletionChunk]
            )
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            raise self._translated(error) from error
        return Reply(stream, self._who)

    async def models(self) -> list[str]:
        """Names of the models that the server offers."""
        try:
            # Not `client.models.list()`: it stumbles with AttributeError over a web page with status 200 (SDK 3.54).
            response = await self._client.get("/models", cast_to=httpx2.Response)
            return [model.id for model in _ModelList.model_validate_json(response.content).data]
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            raise self._translated(error) from error
        except ValidationError:
            raise BrokenAnswer(f"{self._who} sent no model list. Check base_url (it usually ends in /v1).") from None

    async def aclose(self) -> None:
        await self._client.close()

    def _translated(self, error: openai.OpenAIError | httpx2.HTTPError) -> BackendError:
        if isinstance(error, openai.APIStatusError):
            return error_of(_complaint(error), self._who)
        if isinstance(error, openai.APIConnectionError | httpx2.HTTPError):
            cause = error.__cause__ or error
            return BackendUnreachable(f"{self._who} cannot be reached ({cause}). Check base_url, network and proxy.")
        return BackendMisconfigured(f"{self._who}: the request cannot be made ({type(error).__name__}). Check api_key and base_url.")


def _complaint(error: openai.APIStatusError) -> Complaint:
    body = error.body if isinstance(error.body, dict) else {}
    return Complaint(
        status=error.status_code,
        code=error.code or "",
        kind=error.type or "",
        param=error.param or "",
        message=str(body.get("message") or ""),
        retry_after_s=_retry_after_s(error.response.headers),
    )


def _retry_after_s(headers: httpx2.Headers) -> float | None:
    """Seconds from `retry-after-ms` or `retry-after` (a number, or a date read against the server's own clock)."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "")
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(headers["date"])).total_seconds())
    except (ValueError, KeyError, TypeError):
        return None
