"""DingTalk Stream: one live WebSocket, replaced before it ends. The only file that knows websockets."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TypeAlias
from urllib.parse import quote_plus, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException

from gateway.channels.dingtalk.compose import compose_ack
from gateway.channels.dingtalk.openapi import OpenApi, OpenFailed, Opening, OpenRefused
from gateway.channels.dingtalk.parse import BOT_MESSAGES, Frame, Unreadable, parse_frame
from gateway.channels.dingtalk.wire import is_loopback
from gateway.checkup import Health
from gateway.clock import Clock
from gateway.errors import StoreError

SILENCE_S = 600.0
"""Without any frame for this long a connection is replaced, the new one first: behind a living socket the channel may be dead.
How often DingTalk itself pings is not documented; a dead socket is found by our own WebSocket pings after 40 s at most."""
DRAIN_S = 10.0
"""After `disconnect` DingTalk closes the old socket itself after 10 s (developerpedia, protocol page 2026-11)."""
OPENS_PER_MINUTE = 10
REFUSED_PAUSE_S = 60.0
LONGEST_PAUSE_S = 60.0
STABLE_S = 30.0
"""A connection that lived this long was a good one: the next failure starts the backoff anew."""
WS_PING_S = 20.0
FRAME_BYTES = 4 * 2**20
MOST_IN_HAND = 100
"""Frames of one connection that are taken beside each other; with more waiting, no further one is read."""

logger = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.wire")
_quiet.setLevel(logging.WARNING)  # Below that websockets prints the request line, and with it the ticket.

Hear: TypeAlias = Callable[[Frame], Awaitable[None]]
"""Takes a bot message. Returns when it is on disk; raises StoreError when it is not: then it is not acknowledged."""


class Pace:
    """How long to wait before the next connection: growing after failures, and never more than ten opens in a minute."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._opens: deque[float] = deque(maxlen=OPENS_PER_MINUTE)
        self._failures = 0
        self._pause_s = 0.0

    def opened(self, now: float) -> None:
        self._opens.append(now)

    def failed(self, at_least_s: float = 0.0) -> None:
        """No connection came about, or one broke."""
        self._failures += 1
        self._pause_s = max(self._backoff(), at_least_s)

    def ended(self, *, lived_s: float, replaced: bool) -> None:
        """A connection is over. One that announces its end is replaced at once, unless that happens again and again."""
        if lived_s >= STABLE_S:
            self._failures = 0
        if not replaced:
            self.failed()
            return
        self._pause_s = self._backoff()
        self._failures += 1

    def wait_s(self, now: float) -> float:
        """Seconds to wait now."""
        full = len(self._opens) == OPENS_PER_MINUTE
        return max(self._pause_s, self._opens[0] + 60.0 - now if full else 0.0)

    def _backoff(self) -> float:
        if not self._failures:
            return 0.0
        return min(LONGEST_PAUSE_S, 2.0 ** min(self._failures - 1, 10)) * (0.5 + self._jitter() / 2)


class _Line:
    """One WebSocket of the Stream."""

    def __init__(self, socket: ClientConnection, opened_at: float) -> None:
        self.socket = socket
        self.opened_at = opened_at
        self.heard_at = opened_at
        self.drain_until: float | None = None
        self.over = asyncio.Event()
        """Set when a new line must take its place; it may still be draining."""

    def retire(self, now: float) -> None:
        self.drain_until = now + DRAIN_S
        self.over.set()


class Stream:
    """Hears the frames of one app. Frames are taken in order and beside each other: one that the ledger keeps waiting delays no other."""

    def __init__(
        self,
        *,
        name: str,
        api: OpenApi,
        clock: Clock,
        silence_s: float = SILENCE_S,
        ping_s: float = WS_PING_S,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._api = api
        self._clock = clock
        self._silence_s = silence_s
        self._ping_s = ping_s
        self._pace = Pace(jitter)
        self._live: _Line | None = None
        self._trouble = "not connected yet"
        self._opened = 0

    async def run(self, hear: Hear) -> None:
        """Keep a connection until cancelled; a frame in hand is still finished then."""
        try:
            async with asyncio.TaskGroup() as readers:
                while True:
                    await self._clock.sleep(self._pace.wait_s(self._clock.monotonic()))
                    line = await self._open()
                    if line is not None:
                        readers.create_task(self._read(line, hear), name=f"{self._name}-stream-{self._opened}")
                        await line.over.wait()
                        self._note_end(line)
        finally:
            self._live, self._trouble = None, "stopped"

    def health(self) -> Health:
        """Whether messages can be heard now, or what hinders."""
        if self._live is None:
            return Health(False, self._trouble)
        age = self._clock.monotonic() - self._live.heard_at
        return Health(True, f"connected ({self._opened} since the start), last frame {age:.0f} s ago")

    async def _open(self) -> _Line | None:
        self._pace.opened(self._clock.monotonic())
        try:
            opening = await self._api.open_connection([BOT_MESSAGES])
            line = _Line(await _connected(opening, ping_s=self._ping_s), self._clock.monotonic())
        except OpenRefused as error:
            self._pace.failed(REFUSED_PAUSE_S)
            self._note_failure(str(error))
            return None
        except OpenFailed as error:
            self._pace.failed(error.retry_after_s)
            self._note_failure(str(error))
            return None
        self._live = line
        self._opened += 1
        logger.info("Channel %s is connected to DingTalk, connection %d.", self._name, self._opened)
        return line

    def _note_failure(self, trouble: str) -> None:
        wait_s = self._pace.wait_s(self._clock.monotonic())
        self._trouble = f"{trouble} (next attempt within {wait_s:.0f} s)"
        logger.warning("Channel %s is not connected: %s; next attempt in %.1f s.", self._name, trouble, wait_s)

    def _note_end(self, line: _Line) -> None:
        now = self._clock.monotonic()
        replaced = line.drain_until is not None
        self._pace.ended(lived_s=now - line.opened_at, replaced=replaced)
        self._live, self._trouble = None, "the connection is being replaced" if replaced else "the connection was lost"
        wait_s = self._pace.wait_s(now)
        logger.info("Channel %s: %s after %.0f s; the next opens in %.1f s.", self._name, self._trouble, now - line.opened_at, wait_s)

    async def _read(self, line: _Line, hear: Hear) -> None:
        room = asyncio.Semaphore(MOST_IN_HAND)
        try:
            async with asyncio.TaskGroup() as hands:
                try:
                    while (text := await self._next(line)) is not None:
                        frame = self._readable(text)
                        if frame is None or not _is_message(frame):
                            await self._answer(line, frame)
                            continue
                        await room.acquire()
                        work = _finished(self._take(line, frame, hear), name=f"{self._name}-frame")
                        hands.create_task(work, name=f"{self._name}-hand").add_done_callback(lambda _: room.release())
                except ConnectionClosed:
                    pass
                finally:
                    line.over.set()
        finally:
            await line.socket.close()

    async def _next(self, line: _Line) -> str | bytes | None:
        """The next frame; None when a retired line has drained. A line silent for too long retires itself."""
        while True:
            now = self._clock.monotonic()
            patience_s = self._silence_s if line.drain_until is None else line.drain_until - now
            try:
                async with self._clock.timeout(patience_s):
                    text = await line.socket.recv()
            except TimeoutError:
                if line.drain_until is not None:
                    return None
                logger.info("Channel %s: no frame for %.0f s, opening a new connection.", self._name, self._silence_s)
                line.retire(self._clock.monotonic())
                continue
            line.heard_at = self._clock.monotonic()
            return text

    def _readable(self, text: str | bytes) -> Frame | None:
        try:
            return parse_frame(text)
        except Unreadable as error:
            logger.warning("Channel %s: a frame of %d characters was skipped: %s.", self._name, len(text), error)
            return None

    async def _answer(self, line: _Line, frame: Frame | None) -> None:
        """Whatever is no message is answered at once. Raises ConnectionClosed."""
        if frame is None:
            return
        if frame.kind != "SYSTEM":
            logger.warning("Channel %s: frame %s of a topic we did not ask for was skipped.", self._name, frame.message_id)
            await line.socket.send(compose_ack(frame.message_id, code=404))
        elif frame.topic == "disconnect":
            line.retire(self._clock.monotonic())
        else:
            await line.socket.send(compose_ack(frame.message_id, frame.data))

    async def _take(self, line: _Line, frame: Frame, hear: Hear) -> None:
        """A message is acknowledged when it is on disk; when it is not it comes again."""
        try:
            await hear(frame)
        except StoreError as error:
            logger.warning("Channel %s: frame %s is not acknowledged: %s", self._name, frame.message_id, error)
            return
        with suppress(ConnectionClosed):  # It comes again, and the ledger knows it.
            await line.socket.send(compose_ack(frame.message_id))


def _is_message(frame: Frame) -> bool:
    return frame.kind == "CALLBACK" and frame.topic == BOT_MESSAGES


async def _connected(opening: Opening, *, ping_s: float) -> ClientConnection:
    """Use up a ticket. The errors of websockets may quote the address with the ticket: only their names go on."""
    try:
        parts = urlsplit(opening.endpoint)
        return await connect(
            f"{opening.endpoint}{'&' if parts.query else '?'}ticket={quote_plus(opening.ticket)}",
            logger=_quiet,
            proxy=None if is_loopback(parts.hostname or "") else True,
            user_agent_header="chat-gateway",
            open_timeout=10,
            ping_interval=ping_s,
            ping_timeout=ping_s,
            close_timeout=1,
            max_size=FRAME_BYTES,
        )
    except (InvalidURI, ValueError):
        raise OpenFailed("DingTalk named an endpoint that is no address") from None
    except ImportError as error:
        raise OpenFailed("the environment names a SOCKS proxy, which is not supported; set an http:// one or NO_PROXY") from error
    except (WebSocketException, OSError, TimeoutError) as error:
        raise OpenFailed(f"the WebSocket to {parts.hostname} could not be opened: {type(error).__name__}") from error


async def _finished(work: Coroutine[object, object, None], *, name: str) -> None:
    """Like `await work`, but a cancellation waits until it is done: a message in hand may never be delivered again."""
    task = asyncio.create_task(work, name=name)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
