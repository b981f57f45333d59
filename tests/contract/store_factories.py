"""The stores that the contract suites run over. Another implementation joins them by one line in `STORES`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from redis_server import a_prefix, shared_url

from gateway.messages import Address, Inbound, Mention, Quote, ReplyTicket, Text, Unsupported
from gateway.stores.base import Store
from gateway.stores.memory import MemoryStore
from gateway.stores.redis import RedisStore
from gateway.stores.sqlite import SQLiteStore
from gateway.testing.ledger import FragileStore

NOON = datetime(2026, 1, 5, 12, 0, 0, 123456, tzinfo=UTC)


async def _memory(folder: Path) -> Store:
    return MemoryStore()


async def _sqlite(folder: Path) -> Store:
    return await SQLiteStore.open(folder / "data" / "gateway.db")


async def _sqlite_power(folder: Path) -> Store:
    return await SQLiteStore.open(folder / "data" / "gateway.db", durability="power")


async def _redis(folder: Path) -> Store:
    return await RedisStore.open(shared_url(), prefix=a_prefix())


async def _fragile(folder: Path) -> Store:
    return FragileStore(MemoryStore())


STORES: dict[str, Callable[[Path], Awaitable[Store]]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "sqlite-power": _sqlite_power,
    "redis": _redis,
    "fragile": _fragile,
}


def after(seconds: float) -> datetime:
    """So many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def a_message(id: str = "m1", *, channel: str = "dingtalk", account: str = "bot", sender: str = "wang", text: str = "你好") -> Inbound:
    """A message that fills every field."""
    return Inbound(
        id=id,
        address=Address(channel=channel, account=account, chat="cid/一=", sender=sender, in_group=True, thread="t1"),
        parts=(Quote("earlier", "Li"), Mention("bot", "小助手", me=True), Text(text), Unsupported("voice")),
        sent_at=after(-1),
        to_bot=False,
        ticket=ReplyTicket(token={"session_webhook": "https://example.invalid/x"}, expires_at=after(3600)),
        sender_name="王 😀",
    )
