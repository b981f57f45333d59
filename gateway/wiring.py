"""From a configuration to objects: the only place that knows every class. Rooms are pushed on one exit stack in opening order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from gateway.answering import Answering, Manner
from gateway.backends.base import Backend
from gateway.building import Site, build_backend, build_channels, keep_for, open_store
from gateway.channels.base import Channel
from gateway.channels.http_face import HttpFace
from gateway.clock import Clock
from gateway.commands import Commands
from gateway.config import Config
from gateway.delivery import Delivery
from gateway.dispatch import Dispatch
from gateway.expiry import Expiry
from gateway.intake import Intake
from gateway.lanes import Lanes
from gateway.lineup import Lineup, LocalLineup, SharedLineup
from gateway.merging import MergingLineup
from gateway.messages import Inbound, Outcome
from gateway.parked import Parked
from gateway.queue_notices import QueueNotices
from gateway.sessions.scope import Scope
from gateway.sessions.session import Lifetime
from gateway.stores.base import Ledger, Store
from gateway.stores.patient import PatientLedger
from gateway.stores.patient_sessions import PatientSessions
from gateway.stores.pruning import Pruning
from gateway.watch.admins import Admin
from gateway.watch.guard import Guard, stand_guard
from gateway.watch.health import HealthPages
from gateway.watch.metrics import Metrics
from gateway.watch.watchdog import Watchdog

KEPT_SESSIONS = 300
"""In memory, of the last speakers: at most about 6 MB with the default `history_tokens`."""


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
    pruning: Pruning
    watchdog: Watchdog
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
    channels = build_channels(config, Site(store=store, face=face, clock=clock, show_qr=show_qr))
    house = join(config, store=store, backend=backend, channels=channels, face=face, clock=clock)
    stack.push_async_callback(house.close_channels)
    return house


def join(config: Config, *, store: Store, backend: Backend, channels: dict[str, Channel], face: HttpFace, clock: Clock) -> House:
    """Put opened rooms together; a test hands in its own."""
    metrics = Metrics()
    guard = _guard(config, store=store, channels=channels, clock=clock, metrics=metrics)
    queue = config.queue
    lanes = Lanes(max_waiting_per_lane=queue.per_conversation, max_waiting=queue.total, max_running=queue.running)
    lineup = _lineup(config, store, guard.ledger, lanes, channels, clock)
    ledger, parked = (
        PatientLedger(guard.ledger, clock, patience_s=config.answering.max_replay_age_s),
        Parked(store.shelf, clock, shared=store.mailboxes is not None),
    )
    delivery = Delivery(channels=channels, ledger=ledger, parked=parked, clock=clock, on_unknown=config.answering.on_unknown)
    farewell = delivery.farewell if config.sessions.farewell else None
    expiry = Expiry(sessions=store.sessions, lanes=lanes, clock=clock, farewell=farewell)
    intake = Intake(max_chars=config.answering.max_message_chars)
    answering = _answering(
        config, store=store, ledger=ledger, backend=backend, parked=parked, intake=intake, stop=lineup.stop, expiry=expiry, clock=clock
    )

    def notice(channel: str, event: str, outcome: Outcome | None, seconds: float) -> None:
        metrics.notice(channel, event, outcome, seconds)
        guard.watchdog.notice(channel, event, outcome, seconds)

    dispatch = Dispatch(
        clock=clock,
        intake=intake,
        ledger=ledger,
        lanes=lanes,
        lineup=lineup,
        answering=answering,
        delivery=delivery,
        patience=QueueNotices(delivery=delivery, clock=clock, after_s=queue.notice_after_s, language=answering.language),
        notice=notice,
        accepted=guard.alarm.heard,
        max_replay_age=timedelta(seconds=config.answering.max_replay_age_s),
    )
    metrics.gauge("gateway_lanes", "Conversations with work", lambda: len(lanes))
    metrics.gauge("gateway_waiting", "Messages that wait", lambda: lanes.waiting)
    metrics.gauge("gateway_sessions_ended", "Sessions that ended by themselves since the start", lambda: expiry.ended)
    pages = HealthPages(channels=channels, store=store, metrics=metrics, troubles=guard.troubles)
    for path, page in (("/healthz", pages.healthz), ("/readyz", pages.readyz), ("/metrics", pages.metrics)):
        face.mount(path, page)
    return House(
        channels=channels,
        open_channels=list(channels.values()),
        backend=backend,
        store=store,
        dispatch=dispatch,
        lineup=lineup,
        lanes=lanes,
        expiry=expiry,
        pruning=Pruning(ledger=store.ledger, shelf=store.shelf, clock=clock, keep=keep_for(config), seats=store.seats),
        watchdog=guard.watchdog,
        face=face,
        pages=pages,
    )


def _guard(config: Config, *, store: Store, channels: Mapping[str, Channel], clock: Clock, metrics: Metrics) -> Guard:
    return stand_guard(
        channels=channels,
        store=store,
        clock=clock,
        metrics=metrics,
        admins=[Admin(admin.channel, admin.sender) for admin in config.alarms.to],
        again_after=timedelta(seconds=config.alarms.again_after_s),
        language=config.answering.language,
    )


def _answering(
    config: Config,
    *,
    store: Store,
    ledger: Ledger,
    backend: Backend,
    parked: Parked,
    intake: Intake,
    stop: Callable[[str], Awaitable[bool]],
    expiry: Expiry,
    clock: Clock,
) -> Answering:
    scope = Scope(private=config.sessions.scope.private, group=config.sessions.scope.group)
    sessions = PatientSessions(
        store.sessions, clock, patience_s=config.answering.max_replay_age_s, keep=KEPT_SESSIONS if store.mailboxes is None else 0
    )
    lifetime = lifetime_of(config)
    commands = Commands(
        ledger=store.ledger,
        sessions=sessions,
        stop=stop,
        scope=scope,
        lifetime=lifetime,
        clock=clock,
        history_tokens=config.sessions.history_tokens,
        prefixes=config.commands.prefixes,
        clear_words=config.sessions.clear_words,
    )
    return Answering(
        backend=backend,
        sessions=sessions,
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


def _lineup(config: Config, store: Store, ledger: Ledger, lanes: Lanes, channels: Mapping[str, Channel], clock: Clock) -> Lineup:
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
        return LocalLineup(ledger=ledger, lanes=lanes, clock=clock)
    alone = {word.casefold() for word in config.sessions.clear_words}

    def mergeable(inbound: Inbound) -> bool:
        """Plain words on a channel where nobody holds a request open for this very message."""
        text = inbound.text
        waits = channels[inbound.address.channel].limits.idempotent
        return bool(text) and not waits and not text.startswith(config.commands.prefixes) and text.casefold() not in alone

    return MergingLineup(ledger=ledger, lanes=lanes, clock=clock, window_s=window_s, mergeable=mergeable)


def lifetime_of(config: Config) -> Lifetime:
    """How long sessions live."""
    return Lifetime(idle_timeout=_seconds(config.sessions.idle_timeout_s), max_age=_seconds(config.sessions.max_age_s))


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _manner(config: Config) -> Manner:
    answering = config.answering
    fetch_words = {word.casefold() for section in config.channels.values() for word in getattr(section, "fetch_words", ())}
    return Manner(
        system_prompt=answering.system_prompt,
        temperature=answering.temperature,
        max_output_tokens=answering.max_output_tokens,
        history_tokens=config.sessions.history_tokens,
        show_reasoning=answering.show_reasoning,
        language=answering.language,
        fetch_words=frozenset(fetch_words),
    )
