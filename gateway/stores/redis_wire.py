"""The only file that knows redis-py: how to reach the server by its URL, one connection, and its errors in our words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.errors import StoreError, StoreUnavailable

Reply: TypeAlias = Any
"""What the server said: None, int, bytes or a list of these; nobody has vouched for it yet."""

SENTINEL_PORT = 26379
KEEPALIVE_S = 60.0

#: Answers of a server that lives and cannot write now: starting, a replica, full, its disk failing, a script running too long.
_AWAY = re.compile(r"\b(LOADING|READONLY|MASTERDOWN|NOREPLICAS|MISCONF|OOM|BUSY|CLUSTERDOWN|TRYAGAIN)\b")


class NoScript(StoreError):
    """The server does not know a script (any more): load it and call again."""


class NoEntry(StoreError):
    """The server refuses the user name, the password or what they are allowed to do: waiting does not help."""


class _Connection(Protocol):
    """What we use of redis-py's connections, whose methods carry no types."""

    @property
    def is_connected(self) -> bool: ...
    async def connect(self) -> None: ...
    async def can_read(self) -> bool: ...
    async def send_packed_command(self, command: list[bytes], check_health: bool = True) -> None: ...
    async def read_response(self, disable_decoding: bool = False, timeout: float | None = None) -> Reply: ...
    async def disconnect(self, nowait: bool = False) -> None: ...


class _Pool(Protocol):
    async def get_connection(self) -> _Connection: ...
    async def aclose(self) -> None: ...


class Server:
    """A Redis server, or the one that Sentinels name, by its URL.

    `redis://`, `rediss://` and `unix://` as redis-py takes them; `redis+sentinel://host:port,host:port/service/db` and
    `rediss+sentinel://` with the same options, and `sentinel_username` and `sentinel_password` for the Sentinels themselves.
    """

    def __init__(self, url: str, *, connect_timeout_s: float) -> None:
        """Raises StoreError when `url` cannot be understood; no text of ours ever repeats the user, the password or the options."""
        parts = urlsplit(url)
        self.where = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._connect_timeout_s = connect_timeout_s
        self._sentinel: Sentinel | None = None
        self.database = 0
        """Number of the database that the URL names."""
        try:
            self._pool = self._sentinel_pool(url) if parts.scheme.endswith("+sentinel") else self._plain_pool(url)
        except (ValueError, TypeError) as error:
            raise StoreError(f"store.url is no URL of a Redis server ({self.where}): {type(error).__name__}.") from error

    def wire(self) -> Wire:
        """A new connection, not yet connected."""
        return Wire(self._pool, self.where)

    async def aclose(self) -> None:
        await self._pool.aclose()
        for sentinel in self._sentinel.sentinels if self._sentinel is not None else ():
            await sentinel.aclose()

    def _plain_pool(self, url: str) -> _Pool:
        options = parse_url(url)
        self.database = int(options.get("db") or 0)
        pool: _Pool = ConnectionPool(**{**self._manners(), **options, **self._ours()})
        return pool

    def _sentinel_pool(self, url: str) -> _Pool:
        parts = urlsplit(url)
        service, _, db = unquote(parts.path).strip("/").partition("/")
        if not service:
            raise ValueError("the name of the service is missing")
        userinfo = parts.netloc.rpartition("@")[0]
        plain = f"{parts.scheme.partition('+')[0]}://{userinfo}{'@' if userinfo else ''}host/{db or 0}?{parts.query}"
        options: dict[str, Any] = {name: value for name, value in parse_url(plain).items() if name not in ("host", "port")}
        self.database = int(options.get("db") or 0)
        options["ssl"] = options.pop("connection_class", None) is SSLConnection
        own = {"username": options.pop("sentinel_username", None), "password": options.pop("sentinel_password", None)}
        timeouts = {"socket_timeout": self._connect_timeout_s, "socket_connect_timeout": self._connect_timeout_s}
        of_sentinels: dict[str, Any] = {**own, **timeouts, "retry": _never(), "protocol": 2}
        sentinel: Any = Sentinel  # its constructor carries no types
        self._sentinel = sentinel(_hosts(parts.netloc), sentinel_kwargs=of_sentinels)
        client: Redis = self._sentinel.master_for(service, **{**self._manners(), **options, **self._ours()})
        self._client = client  # its connections know it weakly
        pool: _Pool = client.connection_pool
        return pool

    def _manners(self) -> dict[str, Any]:
        """What the URL may change."""
        return {"socket_connect_timeout": self._connect_timeout_s, "socket_keepalive": True}

    def _ours(self) -> dict[str, Any]:
        """What it may not. Every wait of ours has its own deadline; redis-py 8 would silently try again ten times within each."""
        return {"socket_timeout": None, "retry": _never(), "protocol": 2, "max_connections": 10, "health_check_interval": 0}


class Wire:
    """One connection. Bytes go out, replies come in, in the same order; what breaks is StoreUnavailable, and the connection is dropped."""

    def __init__(self, pool: _Pool, where: str) -> None:
        self._pool = pool
        self._where = where
        self._connection: _Connection | None = None

    async def connect(self) -> bool:
        """Connect and sign in unless that is done; True when it had to. Raises StoreUnavailable or NoEntry; has no deadline of its own.

        Call it only when no reply is due: a connection that has something to read then was closed by the server.
        """
        with self._translated("cannot be reached"):
            if self._connection is None:
                self._connection = await self._pool.get_connection()
                return True
            if self._connection.is_connected and not await self._connection.can_read():
                return False
            await self._connection.disconnect(nowait=True)
            await self._connection.connect()
        return True

    async def send(self, packed: bytes) -> None:
        with self._translated("does not take what is sent"):
            await self._connected().send_packed_command([packed], check_health=False)

    async def receive(self, *, within_s: float = inf) -> Reply:
        """The next reply; an error reply comes back as a StoreError, not raised. None as well when none came within `within_s`."""
        with self._translated("broke the connection"):
            try:
                return await self._connected().read_response(disable_decoding=True, timeout=within_s)
            except ResponseError as error:
                return translated(error, self._where)

    async def drop(self) -> None:
        """Hang up; the next `connect` begins anew."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    def _connected(self) -> _Connection:
        if self._connection is None:
            raise StoreUnavailable(f"Redis at {self._where} is not connected.")
        return self._connection

    @contextmanager
    def _translated(self, trouble: str) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise NoEntry(f"Redis at {self._where} refuses the user name or the password: check store.url.") from error
        except (RedisError, OSError, RuntimeError) as error:  # uvloop: RuntimeError when a closed connection is written to
            raise StoreUnavailable(f"Redis at {self._where} {trouble} ({_kind(error)}).") from error
        except TypeError as error:
            raise StoreError(f"An option in store.url is unknown to redis-py: {error}.") from error


def translated(error: ResponseError, where: str) -> StoreError:
    """An error that the server answered, in our words."""
    if isinstance(error, NoScriptError):
        return NoScript()
    text = f"{error.status_code or ''} {error}".strip()
    ours: StoreError
    if _AWAY.search(text):
        ours = StoreUnavailable(f"Redis at {where} cannot write now: {text[:200]}")
    elif re.match(r"NOAUTH|NOPERM|WRONGPASS", text):
        ours = NoEntry(f"Redis at {where} does not let us in: {text[:200]}")
    else:
        ours = StoreError(f"Redis at {where} answers: {text[:200]}")
    ours.__cause__ = error
    return ours


def _kind(error: Exception) -> str:
    return "timeout" if isinstance(error, RedisTimeoutError) else type(error).__name__


def _never() -> Retry:
    return Retry(NoBackoff(), 0)


def _hosts(netloc: str) -> list[tuple[str, int]]:
    hosts = [urlsplit(f"//{host}") for host in netloc.rpartition("@")[2].split(",")]
    return [(host.hostname or "localhost", host.port or SENTINEL_PORT) for host in hosts]
