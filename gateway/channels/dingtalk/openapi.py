"""What we ask of DingTalk over HTTP: a Stream connection, and to show an answer. The only file of this channel that knows httpx2."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

import httpx2

from gateway.channels.dingtalk.compose import encoded
from gateway.channels.dingtalk.parse import Raw, as_object
from gateway.clock import Clock
from gateway.errors import ChannelError, SendError, SendLater, SendRefused, SendUncertain, StartupError, TicketExpired

CONNECT_TIMEOUT_S = 5.0
ANSWER_BYTES = 65_536
"""Answers of the paths we use are a few hundred bytes; more is not read."""
RATE_PAUSE_S = 10.0
CHECK_LIST = (
    "check for a typing error in client_id and client_secret; in the developer console: is a version of the app published, "
    "does the app have the robot ability, is Stream mode chosen for it, does an IP allow-list shut this machine out?"
)

_OPEN = "/v1.0/gateway/connections/open"
_TOKEN = "/v1.0/oauth2/accessToken"  # noqa: S105  (a path)
_RATE_CODE = "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
"""Comes as 403 and is a rate limit, not a missing permission (protocol page, 2026-11)."""

_ERRCODES: dict[int, type[SendError]] = {
    # Session webhooks answer 200 with these: table of the robot document as of 2024, 300001 as users saw it until 2026-03.
    300001: TicketExpired,  # the session is over
    460101: SendRefused,  # body larger than 20 000 bytes
    101002: SendRefused,  # the same, until 2020
    -1: SendLater,  # system busy
    130101: SendLater,  # too fast
    302033: SendLater,  # more than 20 a minute
    410100: SendLater,  # too fast
    90018: SendLater,  # too many calls of this app
    90030: SendLater,  # webhook over its limit
}


class OpenRefused(ChannelError):
    """DingTalk refuses the connection until somebody repairs the configuration."""


class OpenFailed(ChannelError):
    """No connection now; it may work later."""

    def __init__(self, message: str | None = None, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Where a Stream connection may be opened, once, within 90 seconds."""

    endpoint: str
    ticket: str

    def __repr__(self) -> str:
        return "Opening(…)"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after_s: float
    content: bytes

    @property
    def body(self) -> Raw:
        return as_object(self.content)

    @property
    def reason(self) -> str:
        """What DingTalk said, short enough for a log line."""
        told = " ".join(str(self.body[name])[:200] for name in ("code", "message") if self.body.get(name))
        return f"HTTP {self.status} {told}".rstrip()


class OpenApi:
    """One app's HTTP conversation with DingTalk.

    An access token never goes to a session webhook, and only known hosts are posted to: a forged message could otherwise harvest it.
    """

    def __init__(
        self, *, client_id: str, client_secret: str, openapi_base: str, oapi_base: str, clock: Clock, timeout_s: float = 15.0
    ) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._base = openapi_base.rstrip("/")
        self._clock = clock
        self._timeout_s = timeout_s
        self._own_hosts = _hosts((openapi_base, oapi_base))
        self._http = _client(timeout_s, trust_env=not all(is_loopback(host) for host in self._own_hosts))
        # Its INFO line prints the whole URL, and a session webhook's query is a permission to speak.
        wire_logger = logging.getLogger("httpx2")
        wire_logger.setLevel(max(wire_logger.level, logging.WARNING))

    async def open_connection(self, topics: Iterable[str]) -> Opening:
        """Raises OpenRefused when the configuration is wrong, else OpenFailed."""
        subscriptions = [{"type": "CALLBACK", "topic": topic} for topic in topics]
        asked = {"clientId": self._client_id, "clientSecret": self._client_secret, "subscriptions": subscriptions, "ua": "chat-gateway"}
        answer = await self._ask(_OPEN, asked)
        if answer.status != 200:
            self._fail_open(answer)
        endpoint, ticket = answer.body.get("endpoint"), answer.body.get("ticket")
        if not isinstance(endpoint, str) or not isinstance(ticket, str) or not endpoint.startswith(self._socket_schemes):
            raise OpenFailed("DingTalk's answer names no endpoint and ticket")
        return Opening(endpoint=endpoint, ticket=ticket)

    async def check_token(self) -> None:
        """Raises OpenRefused or OpenFailed unless id and secret earn an access token."""
        answer = await self._ask(_TOKEN, {"appKey": self._client_id, "appSecret": self._client_secret})
        if answer.status != 200:
            self._fail_open(answer)
        if not answer.body.get("accessToken"):
            raise OpenFailed("DingTalk's answer has no access token")

    async def reply(self, session_webhook: str, body: Raw) -> None:
        """Show `body` in the conversation that the webhook belongs to. Raises a SendError."""
        self._must_be_known(session_webhook)
        try:
            async with self._clock.timeout(self._timeout_s):
                answer = await self._post(session_webhook, body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
            raise SendLater(f"no connection to DingTalk: {type(error).__name__}") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
            raise SendRefused(f"this session webhook cannot be posted to: {type(error).__name__}") from error
        except (httpx2.HTTPError, TimeoutError) as error:
            raise SendUncertain(f"DingTalk was told, but did not confirm: {type(error).__name__}") from error
        _check_shown(answer)

    async def aclose(self) -> None:
        await self._http.aclose()

    @property
    def _socket_schemes(self) -> tuple[str, ...]:
        """Unencrypted only where the base itself is."""
        return ("ws://", "wss://") if self._base.startswith("http://") else ("wss://",)

    async def _ask(self, path: str, body: Raw) -> _Answer:
        try:
            async with self._clock.timeout(self._timeout_s):
                return await self._post(self._base + path, body)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            raise OpenFailed(f"{self._base} cannot be reached: {type(error).__name__}") from error

    async def _post(self, url: str, body: Raw) -> _Answer:
        headers = {"content-type": "application/json", "accept": "application/json", "user-agent": "chat-gateway"}
        async with self._http.stream("POST", url, content=encoded(body), headers=headers) as response:
            content = b""
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > ANSWER_BYTES:
                    break
            return _Answer(response.status_code, _seconds(response.headers.get("retry-after", "")), content[:ANSWER_BYTES])

    def _fail_open(self, answer: _Answer) -> NoReturn:
        reason = answer.reason.replace(self._client_secret, "***") if self._client_secret else answer.reason
        if answer.status in {400, 401, 403, 404} and answer.body.get("code") != _RATE_CODE:
            raise OpenRefused(f"DingTalk refuses this app ({reason}): {CHECK_LIST}")
        raise OpenFailed(f"DingTalk gives no connection now ({reason})", retry_after_s=answer.retry_after_s)

    def _must_be_known(self, url: str) -> None:
        try:
            parts = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise SendRefused("the session webhook is no address") from error
        secure = parts.scheme == "https"
        own = parts.scheme in self._own_hosts.get(parts.host, ())
        if parts.userinfo or not (own or (secure and parts.host.endswith(".dingtalk.com"))):
            raise SendRefused(f"the session webhook leads to a foreign host, {parts.host[:100]!r}; nothing was sent")


def _client(timeout_s: float, *, trust_env: bool) -> httpx2.AsyncClient:
    """Raises StartupError when the environment names a proxy that cannot be used."""
    try:
        return httpx2.AsyncClient(timeout=httpx2.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S), trust_env=trust_env)
    except (ImportError, ValueError) as error:
        raise StartupError(
            "DingTalk cannot be reached through the proxy in ALL_PROXY or HTTPS_PROXY: only http:// proxies are supported. "
            "Set it to one, or name the hosts of DingTalk in NO_PROXY."
        ) from error


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that no proxy may stand between."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hosts(bases: Iterable[str]) -> dict[str, set[str]]:
    """Host → schemes it may be spoken to with."""
    hosts: dict[str, set[str]] = {}
    for base in bases:
        url = httpx2.URL(base)
        hosts.setdefault(url.host, {"https"}).add(url.scheme)
    return hosts


def _check_shown(answer: _Answer) -> None:
    """DingTalk says 200 also when it shows nothing; only `errcode` tells."""
    if answer.status != 200:
        _fail_send(answer)
    told = str(answer.body.get("errcode"))
    if not told.removeprefix("-").isdecimal():
        raise SendUncertain(f"DingTalk's answer has no errcode ({len(answer.content)} bytes)")
    errcode = int(told)
    if errcode == 0:
        return
    said = f"DingTalk did not show the message: errcode {errcode} {str(answer.body.get('errmsg', ''))[:200]}"
    kind = _ERRCODES.get(errcode, SendRefused)
    raise SendLater(said, retry_after_s=RATE_PAUSE_S) if kind is SendLater else kind(said)


def _fail_send(answer: _Answer) -> NoReturn:
    said = f"DingTalk did not take the message: {answer.reason}"
    if answer.status == 504:  # Their gateway gave up after 3 s; what stands behind it may have shown the message (protocol page, 2026-11).
        raise SendUncertain(said)
    if answer.status >= 500 or answer.status == 429 or answer.body.get("code") == _RATE_CODE:
        raise SendLater(said, retry_after_s=answer.retry_after_s or RATE_PAUSE_S)
    raise SendRefused(said)


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), 3_600.0) if retry_after.isdecimal() else 0.0
