"""From a configuration to objects: the only place that knows every class. Rooms are pushed on one exit stack in opening order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from gateway.answering import Answering, Manner
from gateway.backends.base import Backend
from gateway.channels.base import Channel
from gateway.channels.http_face import HttpFace
from gateway.clock import Clock
from gateway.commands import Commands
from gateway.config import AnyBackend, AnyChannel, Api, Config, Echo, Handbook, OfficialAccount, OpenAI, Terminal, WeChat
from gateway.delivery import Delivery
from gateway.dispatch import Dispatch
from gateway.errors import ConfigError
from gateway.expiry import Expiry
from gateway.intake import Intake
from gateway.lanes import Lanes
from gateway.lineup import Lineup, LocalLineup, SharedLineup
from gateway.merging import MergingLineup
from gateway.messages import Inbound
from gateway.parked import Parked
from gateway.queue_notices import QueueNotices
from gateway.sessions.scope import Scope
from gateway.sessions.session import Lifetime
from gateway.stores.base import Store
from gateway.stores.patient import PatientLedger
from gateway.watch.health import HealthPages
from gateway.watch.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent
"""Where README and docs lie, in a checkout and in the image."""


@dataclass(frozen=True, kw_only=True)
class House:
    """What the running gateway needs to hold on to."""

    channels: dict[str, Channel]
    open_channels: list[Channel]
    """Those that are not closed yet, in opening order."""
    backend: Backend
    store: Store
    dispatch: Dispatch
    lineup: Lineup
    lanes: Lanes
    expiry: Expiry
    face: HttpFace
    pages: HealthPages

    async def close_channels(self) -> None:
        """Close every channel that is still open."""
        while self.open_channels:
            await self.open_channels.pop().aclose()


async def build(config: Config, *, stack: AsyncExitStack, clock: Clock, show_qr: Callable[[str], None], alone: bool = True) -> House:
    """Open the store, the backends and the channels, in this order; whatever was opened is closed by `stack`."""
    store = await open_store(config, alone=alone)
    stack.push_async_callback(store.aclose)
    backend = build_backend(config, clock)
    stack.push_async_callback(backend.aclose)
    face = HttpFace()
    channels = build_channels(config, face=face, clock=clock, show_qr=show_qr)
    house = join(config, store=store, backend=backend, channels=channels, face=face, clock=clock)
    stack.push_async_callback(house.close_channels)
    return house


def join(config: Config, *, store: Store, backend: Backend, channels: dict[str, Channel], face: HttpFace, clock: Clock) -> House:
    """Put opened rooms together; a test hands in its own."""
    scope = Scope(private=config.sessions.scope.private, group=config.sessions.scope.group)
    lifetime = lifetime_of(config)
    metrics = Metrics()
    queue = config.queue
    lanes = Lanes(max_waiting_per_lane=queue.per_conversation, max_waiting=queue.total, max_running=queue.running)
    parked = Parked(store.shelf, clock)
    ledger = PatientLedger(store.ledger, clock)
    intake = Intake(max_chars=config.answering.max_message_chars)
    delivery = Delivery(channels=channels, ledger=ledger, parked=parked, clock=clock, on_unknown=config.answering.on_unknown)
    farewell = delivery.farewell if config.sessions.farewell else None
    expiry = Expiry(sessions=store.sessions, lanes=lanes, clock=clock, farewell=farewell)
    lineup = _lineup(config, store, lanes, channels, clock)
    commands = Commands(
        ledger=store.ledger,
        sessions=store.sessions,
        stop=lineup.stop,
        scope=scope,
        lifetime=lifetime,
        clock=clock,
        history_tokens=config.sessions.history_tokens,
        prefixes=config.commands.prefixes,
        clear_words=config.sessions.clear_words,
    )
    answering = Answering(
        backend=backend,
        sessions=store.sessions,
        ledger=ledger,
        commands=commands,
        parked=parked,
        intake=intake,
        clock=clock,
        scope=scope,
        lifetime=lifetime,
        manner=_manner(config),
        saved=expiry.expect,
    )
    dispatch = Dispatch(
        clock=clock,
        intake=intake,
        ledger=ledger,
        lanes=lanes,
        lineup=lineup,
        answering=answering,
        delivery=delivery,
        patience=QueueNotices(delivery=delivery, clock=clock, after_s=queue.notice_after_s, language=answering.language),
        notice=metrics.notice,
        max_replay_age=timedelta(seconds=config.answering.max_replay_age_s),
    )
    metrics.gauge("gateway_lanes", "Conversations with work", lambda: len(lanes))
    metrics.gauge("gateway_waiting", "Messages that wait", lambda: lanes.waiting)
    metrics.gauge("gateway_sessions_ended", "Sessions that ended by themselves since the start", lambda: expiry.ended)
    pages = HealthPages(channels=channels, store=store, metrics=metrics)
    for path, page in (("/healthz", pages.healthz), ("/readyz", pages.readyz), ("/metrics", pages.metrics)):
        face.mount(path, page)
    return House(
        lineup=lineup,
        channels=channels,
        open_channels=list(channels.values()),
        backend=backend,
        store=store,
        dispatch=dispatch,
        lanes=lanes,
        expiry=expiry,
        face=face,
        pages=pages,
    )


def _lineup(config: Config, store: Store, lanes: Lanes, channels: Mapping[str, Channel], clock: Clock) -> Lineup:
    if store.mailboxes is not None:
        return SharedLineup(
            mailboxes=store.mailboxes,
            bulletin=store.bulletin,
            lanes=lanes,
            clock=clock,
            per_lane=config.queue.per_conversation,
            total=config.queue.total,
            showable=lambda: [name for name, channel in channels.items() if channel.can_show()],
        )
    window_s = config.sessions.merge_window_ms / 1000
    if not window_s:
        return LocalLineup(ledger=store.ledger, lanes=lanes, clock=clock)
    alone = {word.casefold() for word in config.sessions.clear_words}

    def mergeable(inbound: Inbound) -> bool:
        """Plain words on a channel where nobody holds a request open for this very message."""
        text = inbound.text
        waits = channels[inbound.address.channel].limits.idempotent
        return bool(text) and not waits and not text.startswith(config.commands.prefixes) and text.casefold() not in alone

    return MergingLineup(ledger=store.ledger, lanes=lanes, clock=clock, window_s=window_s, mergeable=mergeable)


def lifetime_of(config: Config) -> Lifetime:
    """How long sessions live."""
    return Lifetime(idle_timeout=_seconds(config.sessions.idle_timeout_s), max_age=_seconds(config.sessions.max_age_s))


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _manner(config: Config) -> Manner:
    answering = config.answering
    fetch_words = {
        word.casefold() for section in config.channels.values() if isinstance(section, OfficialAccount) for word in section.fetch_words
    }
    return Manner(
        system_prompt=answering.system_prompt,
        temperature=answering.temperature,
        max_output_tokens=answering.max_output_tokens,
        history_tokens=config.sessions.history_tokens,
        show_reasoning=answering.show_reasoning,
        language=answering.language,
        fetch_words=frozenset(fetch_words),
    )


async def open_store(config: Config, *, alone: bool = False) -> Store:
    """The store that `store.url` names; `alone`: as the one gateway that works on it. Raises StoreError when it cannot be opened."""
    scheme = config.store.url.partition("://")[0]
    if scheme == "memory":
        from gateway.stores.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite":
        from gateway.stores.sqlite import SQLiteStore

        return await SQLiteStore.open(store_path(config), durability=config.store.durability, alone=alone)
    if scheme in ("redis", "rediss", "redis+sentinel"):
        from gateway.stores.redis import RedisStore

        return await RedisStore.open(config.store.url, connect_timeout_s=config.store.connect_timeout_s)
    raise ConfigError(f"store.url: {scheme!r} is not a kind of store. Known: sqlite:///PATH and memory://")


def store_path(config: Config) -> Path:
    """The file of a SQLite store."""
    return Path(config.store.url.removeprefix("sqlite:///"))


def build_backend(config: Config, clock: Clock) -> Backend:
    """What `answering.chain` names: one backend, or several tried in order."""
    links = [_link(name, config.backends.get(name), clock) for name in config.answering.chain]
    if len(links) == 1:
        return links[0]
    from gateway.backends.chain import ChainBackend

    return ChainBackend("chain", links, clock=clock)


def _link(name: str, section: AnyBackend | None, clock: Clock) -> Backend:
    if isinstance(section, OpenAI):
        from gateway.backends.openai_chat import OpenAIBackend

        return OpenAIBackend(
            name=name,
            model=section.model,
            api_key=section.api_key.get_secret_value(),
            base_url=section.base_url,
            timeout_s=section.timeout_s,
            stall_s=section.stall_s,
            retries=section.retries,
            clock=clock,
            options=section.extra_body,
        )
    if isinstance(section, Echo) or (section is None and name == "echo"):
        from gateway.backends.echo import EchoBackend

        return EchoBackend(name=name)
    if isinstance(section, Handbook) or section is None:
        from gateway.backends.handbook import HandbookBackend

        return HandbookBackend(name, folder=ROOT)
    raise ConfigError(f"backends.{name}: {type(section).__name__} is not wired")


def build_channels(config: Config, *, face: HttpFace, clock: Clock, show_qr: Callable[[str], None]) -> dict[str, Channel]:
    """Every channel that is switched on, by name."""
    return {
        name: _channel(name, section, face=face, clock=clock, show_qr=show_qr)
        for name, section in config.channels.items()
        if section.enabled
    }


def _channel(name: str, section: AnyChannel, *, face: HttpFace, clock: Clock, show_qr: Callable[[str], None]) -> Channel:
    if isinstance(section, Terminal):
        from gateway.channels.terminal import TerminalChannel

        return TerminalChannel(name=name, clock=clock)
    if isinstance(section, Api):
        from gateway.channels.api import ApiChannel

        tokens = [token.get_secret_value() for token in section.tokens]
        return ApiChannel(name, tokens=tokens, face=face, clock=clock, timeout_s=section.timeout_s)
    if isinstance(section, OfficialAccount):
        return _official_account(name, section, face, clock)
    if isinstance(section, WeChat):
        return _wechat(name, section, clock, show_qr)
    from gateway.channels.dingtalk.channel import DingTalkChannel

    return DingTalkChannel(
        name=name,
        client_id=section.client_id,
        client_secret=section.client_secret.get_secret_value(),
        openapi_base=section.openapi_base or "",
        oapi_base=section.oapi_base or "",
        clock=clock,
    )


def _official_account(name: str, section: OfficialAccount, face: HttpFace, clock: Clock) -> Channel:
    from gateway.channels.official_account.channel import OfficialAccountChannel

    return OfficialAccountChannel(
        name=name,
        app_id=section.app_id,
        token=section.token.get_secret_value(),
        encoding_aes_key=_secret(section.encoding_aes_key),
        previous_encoding_aes_key=_secret(section.previous_encoding_aes_key),
        encryption=section.encryption,
        welcome=section.welcome,
        face=face,
        clock=clock,
    )


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() or None if value is not None else None


def _wechat(name: str, section: WeChat, clock: Clock, show_qr: Callable[[str], None]) -> Channel:
    from gateway.channels.wechat.channel import WeChatChannel
    from gateway.channels.wechat.friend_requests import FriendRequests
    from gateway.channels.wechat.itchat_transport import ItchatTransport
    from gateway.channels.wechat.sign_in import SignIn

    state_file = Path(section.state_file or f"data/wechat-{name}.json")
    transport = ItchatTransport(
        channel=name,
        clock=clock,
        sign_in=SignIn(clock=clock, png_path=state_file.with_suffix(".png"), show=show_qr),
        state_file=state_file,
        base_url=section.base_url,
        aliases=section.group.aliases,
        friend_requests=FriendRequests(clock=clock) if section.auto_accept_friends else None,
    )
    return WeChatChannel(
        name=name,
        transport=transport,
        private_prefix=section.private_prefix,
        reply_prefix=section.reply_prefix,
        group_on_mention=section.group.on_mention,
        group_allow=section.group.allow,
    )
