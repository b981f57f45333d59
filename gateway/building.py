"""From one section of the configuration to one object: stores, backends, channels."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from gateway.backends.base import Backend
from gateway.channels.base import Channel
from gateway.channels.http_face import HttpFace
from gateway.clock import Clock
from gateway.config import (
    AnyBackend,
    AnyChannel,
    Api,
    Config,
    DingTalk,
    DingTalkWebhook,
    Echo,
    Handbook,
    OfficialAccount,
    OpenAI,
    Terminal,
    WeChat,
    WeComBot,
)
from gateway.errors import ConfigError
from gateway.stores.base import Store

if TYPE_CHECKING:
    from gateway.channels.seat import Seat

ROOT = Path(__file__).resolve().parent.parent
"""Where README and docs lie, in a checkout and in the image."""


MAX_ADOPTIONS = 10
"""A turn whose process died so often is given up: it seems to kill them. Five were too few for a thousand random kills in six minutes."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a channel may be given besides its own settings."""

    store: Store
    face: HttpFace
    clock: Clock
    show_qr: Callable[[str], None]


async def open_store(config: Config, *, alone: bool = False) -> Store:
    """The store that `store.url` names; `alone`: as the one gateway that works on it. Raises StoreError when it cannot be opened."""
    scheme = config.store.url.partition("://")[0]
    if scheme == "memory":
        from gateway.stores.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite":
        from gateway.stores.sqlite import SQLiteStore

        return await SQLiteStore.open(store_path(config), durability=config.store.durability, alone=alone)
    if scheme in ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix"):
        from gateway.stores.redis import RedisStore

        return await RedisStore.open(
            config.store.url,
            worker=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
            lease_s=config.store.lease_s,
            max_adoptions=MAX_ADOPTIONS,
            connect_timeout_s=config.store.connect_timeout_s,
            keep_for=keep_for(config),
        )
    raise ConfigError(f"store.url: {scheme!r} is not a kind of store; the configuration reference names them")


def keep_for(config: Config) -> timedelta | None:
    """How long ended turns are kept."""
    return None if config.store.keep_days is None else timedelta(days=config.store.keep_days)


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


def build_channels(config: Config, site: Site) -> dict[str, Channel]:
    """Every channel that is switched on, by name."""
    return {name: _channel(name, section, site) for name, section in config.channels.items() if section.enabled}


def _channel(name: str, section: AnyChannel, site: Site) -> Channel:
    if isinstance(section, Terminal):
        from gateway.channels.terminal import TerminalChannel

        return TerminalChannel(name=name, clock=site.clock)
    if isinstance(section, Api):
        from gateway.channels.api import ApiChannel

        tokens = [token.get_secret_value() for token in section.tokens]
        return ApiChannel(name, tokens=tokens, face=site.face, clock=site.clock, timeout_s=section.timeout_s, bulletin=site.store.bulletin)
    if isinstance(section, OfficialAccount):
        return _official_account(name, section, site)
    if isinstance(section, WeChat):
        return _ilink(name, section, site) if section.transport == "ilink" else _itchat(name, section, site)
    if isinstance(section, WeComBot):
        return _wecom_bot(name, section, site)
    if isinstance(section, DingTalkWebhook):
        return _dingtalk_webhook(name, section, site)
    return _dingtalk(name, section, site)


def _official_account(name: str, section: OfficialAccount, site: Site) -> Channel:
    from gateway.channels.official_account.channel import OfficialAccountChannel

    shared = site.store.bulletin is not None
    return OfficialAccountChannel(
        name=name,
        app_id=section.app_id,
        token=section.token.get_secret_value(),
        encoding_aes_key=_secret(section.encoding_aes_key),
        previous_encoding_aes_key=_secret(section.previous_encoding_aes_key),
        encryption=section.encryption,
        welcome=section.welcome,
        face=site.face,
        clock=site.clock,
        shelf=site.store.shelf if shared else None,
        bulletin=site.store.bulletin,
        about_to_show=partial(site.store.ledger.showing, piece=0),
    )


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() or None if value is not None else None


def _dingtalk(name: str, section: DingTalk, site: Site) -> Channel:
    from gateway.channels.dingtalk.channel import DingTalkChannel

    return DingTalkChannel(
        name=name,
        client_id=section.client_id,
        client_secret=section.client_secret.get_secret_value(),
        openapi_base=section.openapi_base or "",
        oapi_base=section.oapi_base or "",
        face=site.face if section.mode == "http" else None,
        shelf=site.store.shelf,
        share_pace=site.store.mailboxes is not None,
        monthly_calls=section.monthly_calls,
        calls_per_second=section.calls_per_second,
        clock=site.clock,
    )


def _itchat(name: str, section: WeChat, site: Site) -> Channel:
    from gateway.channels.wechat.channel import WeChatChannel
    from gateway.channels.wechat.friend_requests import FriendRequests
    from gateway.channels.wechat.itchat_transport import ItchatTransport
    from gateway.channels.wechat.login_state import ShelfLogins
    from gateway.channels.wechat.sign_in import SignIn

    state_file = Path(section.state_file or f"data/wechat-{name}.json")
    store, clock = site.store, site.clock
    transport = ItchatTransport(
        channel=name,
        clock=clock,
        sign_in=SignIn(clock=clock, png_path=state_file.with_suffix(".png"), show=site.show_qr),
        state_file=state_file,
        logins=ShelfLogins(channel=name, shelf=store.shelf, clock=clock) if store.seats is not None else None,
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
        seat=_seat(name, site),
    )


def _dingtalk_webhook(name: str, section: DingTalkWebhook, site: Site) -> Channel:
    from gateway.channels.dingtalk.webhook import DingTalkWebhookChannel

    return DingTalkWebhookChannel(
        name=name,
        clock=site.clock,
        url=section.url.get_secret_value(),
        secret=_secret(section.secret) or "",
        keyword=section.keyword,
        oapi_base=section.oapi_base or "",
    )


def _ilink(name: str, section: WeChat, site: Site) -> Channel:
    from gateway.channels.wechat.ilink_api import OFFICIAL_BASE_URL
    from gateway.channels.wechat.ilink_bonds import ShelfBonds
    from gateway.channels.wechat.ilink_channel import ILinkChannel
    from gateway.channels.wechat.ilink_transport import ILinkTransport

    store, clock = site.store, site.clock
    base_url = (section.base_url or OFFICIAL_BASE_URL).rstrip("/")
    transport = ILinkTransport(
        channel=name,
        clock=clock,
        folder=Path(section.state_file or f"data/wechat-{name}"),
        bonds=ShelfBonds(channel=name, shelf=store.shelf, clock=clock, base_url=base_url) if store.seats is not None else None,
        base_url=section.base_url,
        cdn_base_url=section.cdn_base_url,
        show=site.show_qr,
    )
    return ILinkChannel(name=name, transport=transport, seat=_seat(name, site))


def _wecom_bot(name: str, section: WeComBot, site: Site) -> Channel:
    from gateway.channels.wecom_bot.channel import WeComBotChannel
    from gateway.rendering import cut

    return WeComBotChannel(
        name=name,
        bot_id=section.bot_id,
        secret=section.secret.get_secret_value(),
        clock=site.clock,
        cut=lambda text, max_bytes: cut(text, max_bytes, fences=True),
        base_url=section.base_url,
        bot_name=section.bot_name,
        welcome=section.welcome,
        seat=_seat(name, site),
    )


def _seat(name: str, site: Site) -> Seat | None:
    """The right to hold an account that only one process at a time may hold; None where one process owns the store."""
    if site.store.seats is None:
        return None
    from gateway.channels.seat import Seat

    return Seat(name=f"account/{name}", seats=site.store.seats, clock=site.clock)
