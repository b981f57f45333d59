"""The store of several processes: one Redis server, 6.2 or newer (or Valkey), alone or behind Sentinels."""

from __future__ import annotations

import logging
import os
import re
import socket
from datetime import timedelta

from gateway.clock import Clock, SystemClock
from gateway.errors import StoreError, StoreTooNew, StoreUnavailable
from gateway.stores.base import Store
from gateway.stores.redis_bulletin import RedisBulletin
from gateway.stores.redis_leases import Leases
from gateway.stores.redis_ledger import RedisLedger
from gateway.stores.redis_line import Line
from gateway.stores.redis_mailboxes import RedisMailboxes
from gateway.stores.redis_rows import decoded
from gateway.stores.redis_seats import RedisSeats
from gateway.stores.redis_sessions import RedisSessions, RedisShelf
from gateway.stores.redis_space import Space
from gateway.stores.redis_wire import Server

logger = logging.getLogger(__name__)

VERSION = 1
"""Of the data, as `redis_scripts` describes them."""
OLDEST_SERVER = (6, 2)
CONNECT_S = 3.0
"""For one attempt."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


class RedisStore(Store):
    """Everything on one server, under one prefix.

    How safe a written turn is, is the server's setting: with `appendonly yes` it survives the death of Redis; with `appendfsync everysec`
    (Redis' default) the last second is lost when the machine dies, with `always` nothing is, at the price of one fsync per batch of calls.
    A replica that takes over may lack the last moments, as Redis copies to it afterwards.
    """

    ledger: RedisLedger
    sessions: RedisSessions
    shelf: RedisShelf
    mailboxes: RedisMailboxes
    seats: RedisSeats
    bulletin: RedisBulletin

    def __init__(
        self,
        server: Server,
        line: Line,
        space: Space,
        clock: Clock,
        *,
        worker: str,
        lease_s: float,
        max_adoptions: int,
        keep_for: timedelta | None,
    ) -> None:
        """Use `open`."""
        self._server = server
        self._line = line
        self._space = space
        leases = Leases()
        self.ledger = RedisLedger(line, space, leases, keep_for)
        self.sessions = RedisSessions(line, space, leases)
        self.shelf = RedisShelf(line, space)
        self.mailboxes = RedisMailboxes(
            line, space, leases, self.ledger, clock, worker=worker, lease_s=lease_s, max_adoptions=max_adoptions
        )
        self.seats = RedisSeats(line, space, identity=f"{worker} {os.urandom(6).hex()}", lease_s=lease_s)
        self.bulletin = RedisBulletin(line, server, space, clock)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        worker: str | None = None,
        prefix: str = "gw",
        lease_s: float = 15,
        max_adoptions: int = 5,
        connect_timeout_s: float = 30,
        keep_for: timedelta | None = None,
        clock: Clock | None = None,
    ) -> RedisStore:
        """Connect, trying again for `connect_timeout_s` seconds; raises StoreUnavailable after that, StoreTooNew or StoreError at once.

        `url`: see `Server`. `worker` names this process (default: host and process id). Gateways that share a `prefix` share everything.
        A dead process's conversations are adopted `lease_s` seconds after its last renewal, each message at most `max_adoptions` times.
        Redis forgets a turn `keep_for` after it was closed; None: only `prune` does.
        """
        time = clock or SystemClock()
        space = Space(prefix)
        server = Server(url, connect_timeout_s=CONNECT_S)
        line = Line(server, time, space.prefix, connect_s=CONNECT_S)
        try:
            await _wait_for(line, time, connect_timeout_s)
            await _check(line, space, server.where)
        except BaseException:
            await line.aclose()
            await server.aclose()
            raise
        name = worker or f"{socket.gethostname()}-{os.getpid()}"
        return cls(server, line, space, time, worker=name, lease_s=lease_s, max_adoptions=max_adoptions, keep_for=keep_for)

    async def ping(self) -> None:
        await self._line.ask(b"INCR", self._space.key(b"heartbeat"))

    async def set_aside(self, limit: int = 100) -> list[str]:
        """What could not be read and was set aside, newest first."""
        found = await self._line.ask(b"LRANGE", self._space.key(b"aside"), 0, limit - 1)
        return [line.decode("utf-8", "replace") for line in found]

    async def aclose(self) -> None:
        await self.mailboxes.aclose()
        await self.bulletin.aclose()
        await self._line.aclose()
        await self._server.aclose()


async def _wait_for(line: Line, clock: Clock, timeout_s: float) -> None:
    give_up_at = clock.monotonic() + timeout_s
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            await line.ask(b"PING")
        except StoreUnavailable as error:
            if clock.monotonic() + pause_s > give_up_at:
                raise StoreUnavailable(f"{error} Gave up after {timeout_s:g} s (store.connect_timeout_s).") from error
            logger.warning("%s Trying again.", error)
        else:
            return
        await clock.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def _check(line: Line, space: Space, where: str) -> None:
    """Raises StoreError for a server that is too old, StoreTooNew for data of a newer gateway; warns of a forgetful server."""
    facts = _facts(decoded(await line.ask(b"INFO")))
    version = facts.get("redis_version", "0.0")
    if _numbers(version) < OLDEST_SERVER:
        raise StoreError(f"Redis at {where} is version {version}: the gateway needs {'.'.join(map(str, OLDEST_SERVER))} or newer.")
    await line.ask(b"SET", space.key(b"version"), VERSION, b"NX")
    written_by = int(await line.ask(b"GET", space.key(b"version")))
    if written_by > VERSION:
        raise StoreTooNew(
            f"The data in Redis at {where} have version {written_by}, this gateway knows up to {VERSION}: start the newer gateway."
        )
    if facts.get("aof_enabled") == "0":
        logger.warning("Redis at %s keeps no append-only file: what was accepted is lost when it dies. Set appendonly yes.", where)
    if facts.get("maxmemory", "0") != "0" and facts.get("maxmemory_policy") != "noeviction":
        logger.warning("Redis at %s may throw keys away when memory is short. Set maxmemory-policy noeviction.", where)


def _facts(info: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in info.splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
