"""HTTP to DingTalk: one POST, and what it means when none came through. The only file of this room that knows httpx2."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

from gateway.channels.dingtalk.compose import encoded
from gateway.channels.dingtalk.parse import Raw, as_object
from gateway.clock import Clock
from gateway.errors import SendLater, SendRefused, SendUncertain, StartupError

CONNECT_TIMEOUT_S = 5.0
ANSWER_BYTES = 65_536
"""Answers of the paths we use are a few hundred bytes; more is not read."""
LONGEST_RETRY_AFTER_S = 3_600.0

_HEADERS = {"content-type": "application/json", "accept": "application/json", "user-agent": "chat-gateway"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What DingTalk said to one request."""

    status: int
    content: bytes = b""
    retry_after_s: float = 0.0
    date: datetime | None = None
    """DingTalk's own clock when it answered."""

    @property
    def body(self) -> Raw:
        return as_object(self.content)

    @property
    def code(self) -> str:
        """The OpenAPI's name for what went wrong; empty when it gave none."""
        code = self.body.get("code")
        return code[:200] if isinstance(code, str) else ""

    @property
    def reason(self) -> str:
        """What DingTalk said, short enough for a log line."""
        told = " ".join(str(self.body[name])[:200] for name in ("code", "message") if self.body.get(name))
        return f"HTTP {self.status} {told}".rstrip()


class Wire:
    """Posts JSON to DingTalk's hosts and to no other: a forged message could otherwise harvest what we say."""

    def __init__(self, *, bases: Iterable[str], clock: Clock, timeout_s: float) -> None:
        self._own_hosts = _hosts(bases)
        self._clock = clock
        self._timeout_s = timeout_s
        self._http = _client(timeout_s, trust_env=not all(is_loopback(host) for host in self._own_hosts))
        # Its INFO line prints the whole URL, and the query of a webhook is a permission to speak.
        wire_logger = logging.getLogger("httpx2")
        wire_logger.setLevel(max(wire_logger.level, logging.WARNING))

    async def post(
        self, url: str, body: Raw, *, headers: Mapping[str, str] | None = None, query: Mapping[str, str] | None = None
    ) -> Answer:
        """What DingTalk answers, whatever it is. Raises SendLater (nothing arrived), SendRefused (no such address) or SendUncertain."""
        try:
            async with self._clock.timeout(self._timeout_s):
                return await self._post(url, body, {**_HEADERS, **(headers or {})}, query)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
            raise SendLater(f"no connection to DingTalk: {type(error).__name__}") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
            raise SendRefused(f"this address cannot be posted to: {type(error).__name__}") from error
        except (httpx2.HTTPError, TimeoutError) as error:
            raise SendUncertain(f"DingTalk was told, but did not confirm: {type(error).__name__}") from error

    def must_be_known(self, url: str) -> None:
        """Raises SendRefused unless `url` leads to DingTalk."""
        try:
            parts = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise SendRefused("the webhook is no address") from error
        secure = parts.scheme == "https"
        own = parts.scheme in self._own_hosts.get(parts.host, ())
        if parts.userinfo or not (own or (secure and parts.host.endswith(".dingtalk.com"))):
            raise SendRefused(f"the webhook leads to a foreign host, {parts.host[:100]!r}; nothing was sent")

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _post(self, url: str, body: Raw, headers: Mapping[str, str], query: Mapping[str, str] | None) -> Answer:
        async with self._http.stream("POST", url, content=encoded(body), headers=dict(headers), params=query) as response:
            content = b""
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > ANSWER_BYTES:
                    break
            return Answer(
                status=response.status_code,
                content=content[:ANSWER_BYTES],
                retry_after_s=_seconds(response.headers.get("retry-after", "")),
                date=_date(response.headers.get("date", "")),
            )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that no proxy may stand between."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _client(timeout_s: float, *, trust_env: bool) -> httpx2.AsyncClient:
    """Raises StartupError when the environment names a proxy that cannot be used."""
    try:
        return httpx2.AsyncClient(timeout=httpx2.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S), trust_env=trust_env)
    except (ImportError, ValueError) as error:
        raise StartupError(
            "DingTalk cannot be reached through the proxy in ALL_PROXY or HTTPS_PROXY: only http:// proxies are supported. "
            "Set it to one, or name the hosts of DingTalk in NO_PROXY."
        ) from error


def _hosts(bases: Iterable[str]) -> dict[str, set[str]]:
    """Host → schemes it may be spoken to with."""
    hosts: dict[str, set[str]] = {}
    for base in bases:
        url = httpx2.URL(base)
        hosts.setdefault(url.host, {"https"}).add(url.scheme)
    return hosts


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), LONGEST_RETRY_AFTER_S) if retry_after.isdecimal() else 0.0


def _date(header: str) -> datetime | None:
    try:
        told = parsedate_to_datetime(header)
    except ValueError:
        return None
    return told if told.tzinfo else told.replace(tzinfo=UTC)
