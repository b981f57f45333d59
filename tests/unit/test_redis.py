"""The Redis store when the server is late, dies, hangs, is too old, too new or wants a password; and what it does with broken data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis_server import RedisServer, a_prefix, free_port, need_redis, shared_url

from gateway.errors import LeaseLost, StoreError, StoreTooNew, StoreUnavailable
from gateway.messages import Address, Answer, Inbound, Outcome, OutcomeKind, Text
from gateway.sessions.session import new_session
from gateway.stores.base import TurnState
from gateway.stores.redis import RedisStore
from gateway.stores.redis_wire import Server
from gateway.testing import ManualClock

NOW = ManualClock().now()
DONE = Outcome(OutcomeKind.ANSWERED)
LANE = "dingtalk/bot/person/wang"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers for this test alone, which may do with them what it likes."""
    need_redis()
    servers: list[RedisServer] = []

    def start(*options: str, make: Callable[..., RedisServer] = RedisServer) -> RedisServer:
        folder = tmp_path / f"server {len(servers)}"
        folder.mkdir()
        servers.append(make(folder, *options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def server(start: Callable[..., RedisServer]) -> RedisServer:
    return start()


def sentinel_of(server: RedisServer) -> Callable[[Path], RedisServer]:
    def make(folder: Path) -> RedisServer:
        config = folder / "sentinel.conf"
        config.write_text(f"sentinel monitor house 127.0.0.1 {server.port} 1\nsentinel down-after-milliseconds house 300\n")
        return RedisServer.sentinel(config)

    return make


@pytest.fixture
async def store() -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(shared_url(), prefix=a_prefix(), keep_for=timedelta(days=1))
    yield store
    await store.aclose()


def a_message(id: str = "m1") -> Inbound:
    address = Address(channel="dingtalk", account="bot", chat="wang", sender="wang")
    return Inbound(id=id, address=address, parts=(Text("你好"),), sent_at=NOW)


async def line_up(store: RedisStore, id: str) -> bool:
    lined = await store.mailboxes.accept(a_message(id), LANE, NOW, per_lane=20, total=100)
    return lined.mine


async def raw(store: RedisStore, *words: str) -> object:
    """Do something behind the store's back; `@` stands for its prefix."""
    return await store._line.ask(*(word.replace("@", store._space.prefix).encode() for word in words))


TURN = "@t:8:3:dingtalkbotm1"


# --- the server goes away and comes back ----------------------------------------------------------------------------------------------


async def test_what_was_accepted_survives_the_death_of_redis_and_the_store_works_again_by_itself(server: RedisServer) -> None:
    store = await RedisStore.open(server.url)
    await line_up(store, "m1")

    server.kill()
    with pytest.raises(StoreUnavailable):
        await line_up(store, "m2")
    server.start()

    assert not await line_up(store, "m3")
    await store.ledger.answered(a_message("m1").key, Answer("hello", ("hello",)), "gpt", NOW)
    assert [record.key.message for record in await store.ledger.unfinished()] == ["m1", "m3"]
    await store.aclose()


async def test_a_quick_restart_of_redis_is_hardly_noticed(server: RedisServer) -> None:
    store = await RedisStore.open(server.url)
    await line_up(store, "m1")

    server.stop()
    writing = asyncio.ensure_future(store.ledger.closed(a_message("m1").key, DONE, NOW))
    await asyncio.sleep(0.05)
    server.start()
    await writing

    assert await store.ledger.unfinished() == []
    await store.aclose()


async def test_the_store_goes_on_when_redis_forgot_its_scripts(store: RedisStore) -> None:
    await line_up(store, "m1")
    await raw(store, "SCRIPT", "FLUSH")

    await asyncio.gather(*(line_up(store, f"n{number}") for number in range(10)))

    assert await store.mailboxes.waiting() == 11


async def test_a_server_that_hangs_is_unavailable_after_a_while(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await RedisStore.open(server.url)
    store._line._reply_s = 0.3

    server.freeze()
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.3 s"):
            await line_up(store, "m1")
    server.thaw()

    await store.ping()
    await store.aclose()


async def test_news_are_heard_again_after_a_restart(server: RedisServer) -> None:
    store = await RedisStore.open(server.url)
    heard: asyncio.Queue[str] = asyncio.Queue()
    store.bulletin.listen("topic", heard.put_nowait)
    await store.bulletin.publish("topic", "one")
    assert await heard.get() == "one"

    server.kill()
    server.start()

    async with asyncio.timeout(10):
        while heard.empty():
            await store.bulletin.publish("topic", "two")
            await asyncio.sleep(0.02)
    assert heard.get_nowait() == "two"
    await store.aclose()


async def test_leases_survive_a_restart_of_redis(server: RedisServer) -> None:
    holder = await RedisStore.open(server.url, lease_s=0.5)
    other = await RedisStore.open(server.url, lease_s=0.5)
    await line_up(holder, "m1")

    server.kill()
    server.start()
    await asyncio.sleep(0.8)

    assert await other.mailboxes.adopt(["dingtalk"]) == []
    await holder.ledger.closed(a_message("m1").key, DONE, NOW)
    assert await holder.mailboxes.done(LANE, a_message("m1").key) is None
    await holder.aclose()
    await other.aclose()


async def test_a_full_memory_refuses_and_what_is_there_stays(server: RedisServer) -> None:
    store = await RedisStore.open(server.url)
    await line_up(store, "m1")
    await raw(store, "CONFIG", "SET", "maxmemory", "1")

    with pytest.raises(StoreUnavailable, match="cannot write now"):
        await line_up(store, "m2")
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await raw(store, "CONFIG", "SET", "maxmemory", "0")

    assert not await line_up(store, "m2")
    await store.aclose()


async def test_closing_the_store_while_redis_is_away_does_not_hang(server: RedisServer) -> None:
    store = await RedisStore.open(server.url)
    store.bulletin.listen("topic", lambda text: None)
    server.kill()
    writing = asyncio.ensure_future(store.ledger.closed(a_message().key, DONE, NOW))
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await store.aclose()

    with pytest.raises(StoreUnavailable):
        await writing


# --- starting -------------------------------------------------------------------------------------------------------------------------


async def test_a_store_waits_for_a_server_that_comes_late(server: RedisServer) -> None:
    server.kill()
    opening = asyncio.ensure_future(RedisStore.open(server.url))
    await asyncio.sleep(0.2)

    server.start()

    await (await opening).aclose()


async def test_a_server_that_does_not_come_is_named_without_the_password(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    server.kill()
    url = f"redis://user:S3cret@127.0.0.1:{server.port}/0?client_name=hidden"

    with caplog.at_level(logging.DEBUG), pytest.raises(StoreUnavailable) as caught:
        await RedisStore.open(url, connect_timeout_s=0.5)

    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "connect_timeout_s" in str(caught.value)
    assert "S3cret" not in str(caught.value) + caplog.text
    assert "hidden" not in str(caught.value) + caplog.text


async def test_a_wrong_password_is_said_at_once(start: Callable[..., RedisServer]) -> None:
    server = start("--requirepass", "right")

    for url in (server.url, server.url.replace("//", "//:wr0ng@")):
        with pytest.raises(StoreError) as caught:
            await RedisStore.open(url)
        assert not isinstance(caught.value, StoreUnavailable)
        assert "wr0ng" not in str(caught.value)
    await (await RedisStore.open(server.url.replace("//", "//:right@"))).aclose()


@pytest.mark.parametrize(
    "url", ["http://localhost", "redis://localhost:port", "redis+sentinel://localhost:26379", "redis://127.0.0.1:1/0?no_such=1"]
)
async def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        await RedisStore.open(url, connect_timeout_s=0.2)

    assert "store.url" in str(caught.value)


async def test_data_of_a_newer_gateway_are_left_alone(store: RedisStore) -> None:
    await raw(store, "SET", "@version", "99")

    with pytest.raises(StoreTooNew, match="99"):
        await RedisStore.open(shared_url(), prefix=store._space.prefix.strip("{}:"))


async def test_a_server_that_is_too_old_is_refused(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.stores.redis.OLDEST_SERVER", (99, 0))

    with pytest.raises(StoreError, match=r"needs 99\.0 or newer"):
        await RedisStore.open(shared_url())


async def test_a_forgetful_server_is_warned_about(start: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture) -> None:
    server = start("--appendonly", "no", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")

    await (await RedisStore.open(server.url)).aclose()

    assert "appendonly yes" in caplog.text
    assert "noeviction" in caplog.text


@pytest.mark.parametrize("prefix", ["", "a b", "{x}", "'", "x" * 61])
async def test_a_prefix_that_could_break_the_scripts_is_refused(prefix: str) -> None:
    with pytest.raises(StoreError, match=r"store\.prefix"):
        await RedisStore.open("redis://127.0.0.1:1", prefix=prefix)


async def test_a_sentinel_names_the_server(server: RedisServer, start: Callable[..., RedisServer]) -> None:
    sentinel = start(make=sentinel_of(server))

    store = await RedisStore.open(f"redis+sentinel://127.0.0.1:{sentinel.port}/house/3")
    await line_up(store, "m1")

    assert [record.key.message for record in await store.ledger.unfinished()] == ["m1"]
    await store.aclose()
    direct = await RedisStore.open(server.url.replace("/0", "/3"))
    assert len(await direct.ledger.unfinished()) == 1
    await direct.aclose()


async def test_when_the_server_dies_the_sentinels_name_its_replica_and_the_store_goes_on(
    server: RedisServer, start: Callable[..., RedisServer]
) -> None:
    start("--replicaof", "127.0.0.1", str(server.port), "--repl-diskless-sync-delay", "0")
    sentinel = start(make=sentinel_of(server))
    store = await RedisStore.open(f"redis+sentinel://127.0.0.1:{sentinel.port}/house")
    await line_up(store, "m1")
    async with asyncio.timeout(10):
        while not await raw(store, "WAIT", "1", "1000"):
            pass

    server.kill()

    async with asyncio.timeout(30):
        while not await _works(store):  # noqa: ASYNC110 (the sentinels decide when)
            await asyncio.sleep(0.1)
    assert [record.key.message for record in await store.ledger.unfinished()] == ["m1"]
    await store.aclose()


async def _works(store: RedisStore) -> bool:
    try:
        await store.ping()
    except StoreUnavailable:
        return False
    return True


async def test_an_encrypted_connection_trusts_the_authority_that_the_url_names_and_no_other(
    start: Callable[..., RedisServer], tmp_path: Path
) -> None:
    port, certificate, key = free_port(), tmp_path / "server.crt", tmp_path / "server.key"
    _make_certificate(certificate, key)
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate))
    start("--tls-port", str(port), "--tls-auth-clients", "no", *files)

    store = await RedisStore.open(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")
    assert await line_up(store, "m1")
    await store.aclose()
    with pytest.raises(StoreUnavailable):
        await RedisStore.open(f"rediss://127.0.0.1:{port}/0", connect_timeout_s=0.2)


def _make_certificate(certificate: Path, key: Path) -> None:
    secret, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, secret.public_key(), x509.random_serial_number(), today, today + timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    authority = x509.BasicConstraints(ca=True, path_length=None)
    signed = builder.add_extension(address, critical=False).add_extension(authority, critical=True).sign(secret, hashes.SHA256())
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.write_bytes(secret.private_bytes(*plain))


def test_a_server_is_called_by_host_and_database_only() -> None:
    assert Server("rediss://u:p@redis.example:6380/2?ssl_cert_reqs=none", connect_timeout_s=1).where == "redis.example:6380/2"
    assert Server("redis+sentinel://u:p@a:1,b:2/house/3", connect_timeout_s=1).where == "a:1,b:2/house/3"


# --- broken data ----------------------------------------------------------------------------------------------------------------------


async def test_a_turn_that_cannot_be_read_is_set_aside_and_the_rest_goes_on(store: RedisStore, caplog: pytest.LogCaptureFixture) -> None:
    await store.ledger.accept(a_message("m1"), NOW)
    await store.ledger.accept(a_message("m2"), NOW)
    await raw(store, "HSET", TURN, "i", '{"id": "torn')

    unfinished = await store.ledger.unfinished()

    assert [record.key.message for record in unfinished] == ["m2"]
    assert "m1 cannot be read" in caplog.text
    assert '{"id": "torn' in (await store.set_aside())[0]
    known = await store.ledger.accept(a_message("m1"), NOW)
    assert known is not None
    assert (known.state, known.outcome and known.outcome.kind) == (TurnState.CLOSED, OutcomeKind.FAILED)
    assert [record.key.message for record in await store.ledger.latest(outcome="failed")] == ["m1"]


@pytest.mark.parametrize(
    ("field", "value"), [("a", "yesterday"), ("s", "dancing"), ("n", "many"), ("w", "[]"), ("k", "shrug"), ("q", "x"), ("c", "")]
)
async def test_any_broken_field_is_set_aside(store: RedisStore, field: str, value: str) -> None:
    await store.ledger.accept(a_message("m1"), NOW)
    await raw(store, "HSET", TURN, field, value)

    [record] = await store.ledger.latest()

    assert record.state is TurnState.CLOSED
    assert len(await store.set_aside()) == 1
    assert await store.ledger.unfinished() == []


async def test_a_broken_turn_at_the_head_of_a_mailbox_gives_way_to_the_next(store: RedisStore) -> None:
    for id in ("m0", "m1", "m2"):
        await line_up(store, id)
    await raw(store, "HSET", TURN, "i", "torn")
    await store.ledger.closed(a_message("m0").key, DONE, NOW)

    record = await store.mailboxes.done(LANE, a_message("m0").key)

    assert record is not None
    assert record.key.message == "m2"
    assert await store.mailboxes.waiting() == 1


async def test_a_broken_session_and_a_broken_value_are_set_aside(store: RedisStore) -> None:
    message = a_message()
    await store.sessions.save(new_session("key", message.address, message.ticket, NOW), NOW)
    await store.shelf.put("name", "value", None)
    await raw(store, "SET", "@s:key", "{")
    await raw(store, "SET", "@v:name", "soon|value")

    assert await store.sessions.load("key") is None
    assert await store.shelf.get("name", NOW) is None
    assert await store.sessions.next_end() is None
    assert len(await store.set_aside()) == 2


# --- keeping and forgetting -----------------------------------------------------------------------------------------------------------


async def test_redis_forgets_a_turn_by_itself_some_time_after_it_was_closed(store: RedisStore) -> None:
    await store.ledger.accept(a_message("m1"), NOW)
    assert await raw(store, "PTTL", TURN) == -1

    await store.ledger.closed(a_message("m1").key, DONE, NOW)

    assert 0 < int(str(await raw(store, "PTTL", TURN))) <= 86_400_000


async def test_what_redis_forgot_leaves_no_traces_after_pruning(store: RedisStore) -> None:
    await store.ledger.accept(a_message("m1"), NOW)
    await store.ledger.closed(a_message("m1").key, Outcome(OutcomeKind.UNKNOWN), NOW)
    await raw(store, "DEL", TURN)

    assert await store.ledger.latest() == []
    assert await store.ledger.latest(outcome="unknown") == []
    assert await store.ledger.latest_of("dingtalk", "bot", "wang") is None
    assert await store.ledger.prune(NOW) == 1
    assert await raw(store, "EXISTS", "@all", "@open", "@o:unknown") == 0
    assert await store.ledger.accept(a_message("m1"), NOW) is None


async def test_a_long_history_is_read_in_pages(store: RedisStore) -> None:
    await asyncio.gather(*(store.ledger.accept(a_message(f"n{number}"), NOW) for number in range(1_200)))
    await store.ledger.closed(a_message("n0").key, DONE, NOW)

    assert len(await store.ledger.unfinished()) == 1_199
    assert len(await store.ledger.latest(limit=1_100)) == 1_100
    assert [record.key.message for record in await store.ledger.latest(outcome="answered")] == ["n0"]


async def test_a_lane_whose_end_could_not_be_written_runs_out_and_is_adopted_also_by_its_own_process(server: RedisServer) -> None:
    store = await RedisStore.open(server.url, lease_s=0.5)
    await line_up(store, "m1")
    await store.ledger.closed(a_message("m1").key, DONE, NOW)
    await line_up(store, "m2")
    server.kill()
    with pytest.raises(StoreUnavailable):
        await store.mailboxes.done(LANE, a_message("m1").key)
    server.start()

    async with asyncio.timeout(5):
        while await store.mailboxes.adopt(["dingtalk"]) != [LANE]:  # noqa: ASYNC110 (the server decides when)
            await asyncio.sleep(0.05)

    record = await store.mailboxes.head(LANE)
    assert record is not None
    assert record.key.message == "m2"
    await store.aclose()


async def test_an_accept_whose_reply_was_lost_is_not_a_duplicate_of_itself(store: RedisStore) -> None:
    """The same call goes out twice, as after a connection that broke before the reply."""
    put = store._line._put

    def twice(packed: bytes, again: bool) -> asyncio.Future[object]:
        put(packed, again)
        return put(packed, again)

    store._line._put = twice  # type: ignore[method-assign]
    try:
        assert await line_up(store, "m1")
        assert await store.ledger.accept(a_message("m2"), NOW) is None
    finally:
        store._line._put = put  # type: ignore[method-assign]

    assert await store.mailboxes.waiting() == 1
    await store.ledger.closed(a_message("m1").key, DONE, NOW)
    assert await store.mailboxes.done(LANE, a_message("m1").key) is None


async def test_a_turn_that_waits_behind_another_is_closed_by_the_holder_too(store: RedisStore) -> None:
    await line_up(store, "m1")
    await line_up(store, "m2")

    await store.ledger.closed(a_message("m2").key, DONE, NOW)
    await store.ledger.closed(a_message("m1").key, DONE, NOW)

    assert await store.mailboxes.done(LANE, a_message("m1").key) is None
    with pytest.raises(LeaseLost):
        await store.mailboxes.done(LANE, a_message("m1").key)


async def test_whatever_ends_the_line_nobody_waits_for_ever(store: RedisStore, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(packed: bytes) -> None:
        raise ZeroDivisionError

    store._line._wire.send = broken  # type: ignore[method-assign]

    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="closed"):
            await line_up(store, "m1")

    assert "broke for good" in caplog.text
