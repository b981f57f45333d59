"""HTTP to Tencent's bot API: one request, and what it means when no answer came. The only file of this room that knows httpx2."""

from __future__ import annotations

import base64
import ipaddress
import json
import logging
import re
import secrets
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import httpx2

from gateway.channels.wechat.transport import Unreachable
from gateway.clock import Clock
from gateway.errors import StartupError

Raw: TypeAlias = Mapping[str, object]

_TENCENTS = re.compile(r"([a-z0-9-]+\.)+(weixin\.qq|wechat)\.com")
"""Where the API, its other regions and the CDN live (`@tencent-weixin/openclaw-weixin` 2.4.9, 2026-09-17, names only the first)."""
CHANNEL_VERSION = "2.4.9"
"""The version of the official client whose protocol this is; the server may refuse older ones."""
CLIENT_VERSION = str(2 << 16 | 4 << 8 | 9)
BOT_AGENT = "chat-gateway/0.1"
"""Our own name; at most 256 bytes of ASCII, for Tencent's statistics only."""
CONNECT_TIMEOUT_S = 5.0
ANSWER_BYTES = 4_000_000
"""A batch of messages is a few kilobytes; more than this is not read."""
_MAX_CONNECTIONS = 1_000  # one open poll for every bound person


class ForeignHost(Unreachable):
    """An address that the server named leads neither to Tencent nor to the configured hosts; nothing was sent there."""

    def __init__(self, message: str) -> None:
        super().__init__(message, maybe_sent=False)


class TimedOut(Unreachable):
    """The server holds the request longer than we wait; of a long poll this says that there is no news."""


@dataclass(frozen=True, slots=True)
class Place:
    """A server and the permission to speak to it."""

    base_url: str
    token: str = ""

    def __repr__(self) -> str:
        return f"Place({self.base_url!r}, token=…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """What the CDN said; `param` names an uploaded file."""

    status: int
    param: str
    body: bytes


class Wire:
    """Speaks to Tencent's hosts and to the configured ones, and to no other, whatever an answer says (SSRF)."""

    def __init__(self, *, bases: Iterable[str], clock: Clock) -> None:
        """`bases`: the configured base_url and cdn_base_url. Raises StartupError for a proxy that cannot be used."""
        self._own = {_origin(httpx2.URL(base)) for base in bases}
        self._clock = clock
        trust_env = not all(_is_loopback(host) for _, host, _ in self._own)
        self._http = _client(trust_env=trust_env)
        self._cdn = _client(trust_env=trust_env, context=_cdn_context())
        wire_logger = logging.getLogger("httpx2")  # its INFO line prints whole URLs, and the QR code's id is in a query
        wire_logger.setLevel(max(wire_logger.level, logging.WARNING))

    async def post(self, place: Place, path: str, body: Raw, *, timeout_s: float, query: Mapping[str, str] | None = None) -> Raw:
        """The answer to one call. Raises Unreachable: `maybe_sent` says whether the request may have had its effect."""
        content = json.dumps({**body, "base_info": {"channel_version": CHANNEL_VERSION, "bot_agent": BOT_AGENT}}, ensure_ascii=False)
        headers = {"Content-Type": "application/json", "AuthorizationType": "ilink_bot_token", "X-WECHAT-UIN": _random_uin(), **_common()}
        if place.token:
            headers["Authorization"] = f"Bearer {place.token}"
        return await self._ask("POST", place, path, timeout_s, headers=headers, content=content.encode(errors="replace"), query=query)

    async def get(self, place: Place, path: str, query: Mapping[str, str], *, timeout_s: float) -> Raw:
        """Like `post`, without a body and without the token."""
        return await self._ask("GET", place, path, timeout_s, headers=_common(), query=query)

    async def transfer(self, url: str, content: bytes | None, *, max_bytes: int, timeout_s: float) -> Transferred:
        """POST `content` to the CDN, or GET when it is None; whatever the status. Raises Unreachable, also for more than `max_bytes`."""
        known = self._known(url)
        method, headers = ("GET", {}) if content is None else ("POST", {"Content-Type": "application/octet-stream"})
        with _translated(timeout_s):
            async with (
                self._clock.timeout(timeout_s),
                self._cdn.stream(method, known, headers=headers, content=content or b"") as response,
            ):
                body = await _body(response, max_bytes)
                return Transferred(status=response.status_code, param=response.headers.get("x-encrypted-param", ""), body=body)

    def must_be_known(self, address: str) -> str:
        """`address` without a slash at its end. Raises ForeignHost unless it leads to Tencent over https, or to a configured host."""
        url = self._known(address)
        if url.query or url.fragment:
            raise ForeignHost("the server named something that is no plain address")
        return address.rstrip("/")

    def _known(self, address: str) -> httpx2.URL:
        try:
            url = httpx2.URL(address)
        except httpx2.InvalidURL as error:
            raise ForeignHost("the server named something that is no address") from error
        tencents = url.scheme == "https" and url.port is None and _TENCENTS.fullmatch(url.host) is not None
        if url.userinfo or not (tencents or _origin(url) in self._own):
            raise ForeignHost(f"the server named a foreign host, {url.host[:100]!r}; nothing was sent there")
        return url

    def beside(self, base_url: str, host: str) -> str:
        """The address of `host` (perhaps with a port) in the scheme of `base_url`. Raises ForeignHost."""
        try:
            address = httpx2.URL(f"{base_url.partition('://')[0]}://{host}")
        except httpx2.InvalidURL as error:
            raise ForeignHost("the server sent us on to something that is no host") from error
        if address.path not in ("", "/"):
            raise ForeignHost("the server sent us on to something that is no host")
        return self.must_be_known(str(address))

    async def aclose(self) -> None:
        await self._http.aclose()
        await self._cdn.aclose()

    async def _ask(
        self,
        method: str,
        place: Place,
        path: str,
        timeout_s: float,
        *,
        headers: Mapping[str, str],
        content: bytes = b"",
        query: Mapping[str, str] | None = None,
    ) -> Raw:
        url = f"{self.must_be_known(place.base_url)}/{path}"
        with _translated(timeout_s):
            async with (
                self._clock.timeout(timeout_s),
                self._http.stream(method, url, headers=dict(headers), content=content, params=query) as response,
            ):
                return _answer(response.status_code, await _body(response, ANSWER_BYTES))


@contextmanager
def _translated(timeout_s: float) -> Iterator[None]:
    """Raises Unreachable for what httpx2 raises in the body."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
        raise Unreachable(f"no connection: {type(error).__name__}", maybe_sent=False) from error
    except TimeoutError as error:
        raise TimedOut(f"no answer within {timeout_s:.0f} s") from error
    except httpx2.HTTPError as error:
        raise Unreachable(f"the connection broke: {type(error).__name__}") from error


def _answer(status: int, body: bytes) -> Raw:
    if status in (504, 524):
        raise TimedOut(f"HTTP {status}", status=status)
    if status != 200:
        raise Unreachable(f"HTTP {status}", maybe_sent=status >= 500, status=status)
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreachable("the answer is not JSON", status=status) from error
    if not isinstance(answer, dict):
        raise Unreachable("the answer is not a JSON object", status=status)
    return answer


async def _body(response: httpx2.Response, max_bytes: int) -> bytes:
    chunks, size = [], 0
    async for chunk in response.aiter_bytes():
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise Unreachable(f"the answer is longer than {max_bytes} bytes", status=response.status_code)
    return b"".join(chunks)


def _cdn_context() -> ssl.SSLContext:
    """The CDN offers only RSA suites of TLS 1.2, which OpenSSL's stricter defaults refuse (CowAgent); certificates are verified as ever."""
    context = ssl.create_default_context()
    context.set_ciphers("DEFAULT:@SECLEVEL=1")
    return context


def _client(*, trust_env: bool, context: ssl.SSLContext | None = None) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=50)
    try:
        timeout = httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S)
        return httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=trust_env, verify=context or True)
    except (ImportError, ValueError) as error:
        raise StartupError("iLink cannot be reached through the proxy in ALL_PROXY or HTTPS_PROXY: only http:// proxies work") from error


def _common() -> dict[str, str]:
    return {"iLink-App-Id": "bot", "iLink-App-ClientVersion": CLIENT_VERSION, "User-Agent": BOT_AGENT}


def _random_uin() -> str:
    """A fresh number in every request, as the official client sends it."""
    return base64.b64encode(str(secrets.randbits(32)).encode()).decode()


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
