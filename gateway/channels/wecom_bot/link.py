"""The bot's place at WeCom: one subscribed connection, opened again when it is lost, given up when another client wants it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Protocol

from gateway.channels.wecom_bot.compose import PING, SUBSCRIBE, compose_subscription
from gateway.channels.wecom_bot.line import LOST_S, Line, NoConnection, OpenFailed, opened_line, socket_url
from gateway.channels.wecom_bot.pace import Pace
from gateway.channels.wecom_bot.parse import EVENT, Frame, Raw, Unreadable, parse_event, parse_frame
from gateway.channels.wecom_bot.verdicts import NotSubscribed, raise_for, repair
from gateway.checkup import Health
from gateway.clock import Clock
from gateway.errors import SendError

PING_S = 30.0
MISSED_PINGS = 2
"""So many unanswered pings, and the connection is dead (WeCom's SDK 1.0.2)."""

logger = logging.getLogger(__name__)


class Seat(Protocol):
    """The right of one process to hold the bot, where several share a store."""

    @property
    def held(self) -> bool:
        """Whether nobody else can sit there now."""

    async def sit(self) -> None:
        """Wait until the seat is ours."""

    async def lost(self) -> None:
        """Return when the seat is no longer ours."""

    async def leave(self) -> None:
        """Stand up."""


class OpenRefused(OpenFailed):
    """WeCom does not let this bot in until somebody repairs it."""


class Link:
    """The bot's connection. `hear` is called with every message and event, in order, and must not wait.

    WeCom serves one connection per bot: a newer one takes the bot over. With a `seat` only the process that sits on it connects;
    another client that takes the bot over is given way to, for a minute first and then for up to a quarter of an hour.
    """

    def __init__(
        self,
        *,
        name: str,
        bot_id: str,
        secret: str,
        base_url: str,
        clock: Clock,
        hear: Callable[[Frame], None],
        seat: Seat | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Raises ConfigError for an address that is none, or that would show the secret to everybody on the way."""
        self._name = name
        self._bot_id = bot_id
        self._secret = secret
        self._url = socket_url(base_url, name)
        self._clock = clock
        self._hear = hear
        self._seat = seat
        self._pace = Pace(jitter)
        self._numbers = itertools.count(1)
        self._live: Line | None = None
        self._up = asyncio.Event()
        self._trouble = "not connected yet"
        self._opened = 0

    @property
    def seated(self) -> bool:
        """Whether this process is the one that may connect."""
        return self._seat is None or self._seat.held

    def health(self) -> Health:
        """Whether messages can be heard now, or what hinders. A process that leaves the bot to another one is well."""
        if not self.seated:
            return Health(True, "another process of this gateway holds the bot")
        if self._live is None:
            return Health(False, self._trouble)
        age = self._clock.monotonic() - self._live.opened_at
        return Health(True, f"connected for {age:.0f} s ({self._opened} connections since the start)")

    async def run(self) -> None:
        """Keep a connection until cancelled."""
        try:
            while True:
                if self._seat is not None:
                    await self._seat.sit()
                await self._clock.sleep(self._pace.wait_s(self._clock.monotonic()))
                if self.seated:  # The seat may have been lost meanwhile.
                    await self._connect()
        finally:
            self._trouble = "stopped"
            if self._seat is not None:
                await self._seat.leave()

    async def ask(self, cmd: str, body: Raw, *, req_id: str = "") -> None:
        """Send a frame and wait until WeCom has taken it; without `req_id` it belongs to no message. Raises a SendError."""
        line = self._live
        if line is None:
            raise NoConnection(f"no connection: {self._trouble}", retry_after_s=LOST_S)
        ack = await line.ask(cmd, req_id or self._req_id(cmd), body)
        try:
            raise_for(ack.errcode, ack.errmsg)
        except NotSubscribed:
            line.over.set()
            raise

    async def wait_connected(self, at_most_s: float) -> None:
        """Return at once when there is a connection, else when there is one again or the time is over."""
        with suppress(TimeoutError):  # Who asks tries then, and is told.
            async with self._clock.timeout(at_most_s):
                await self._up.wait()

    async def knock(self) -> None:
        """Open a WebSocket and close it: a subscription would take the bot away from a running gateway. Raises OpenFailed."""
        await (await opened_line(self._url, self._clock)).close()

    async def _connect(self) -> None:
        """One connection from its opening to its end."""
        self._pace.opened(self._clock.monotonic())
        try:
            await self._live_on(await opened_line(self._url, self._clock))
        except OpenRefused as error:
            self._pace.refused(self._clock.monotonic())
            self._note_failure(str(error))
        except OpenFailed as error:
            self._pace.failed(self._clock.monotonic())
            self._note_failure(str(error))

    async def _live_on(self, line: Line) -> None:
        reading = asyncio.create_task(self._read(line), name=f"{self._name}-link-read")
        try:
            await self._subscribe(line)
            self._live = line
            self._up.set()
            self._opened += 1
            logger.info("Channel %s is connected to WeCom, connection %d.", self._name, self._opened)
            await self._first_of(line.over.wait(), self._ping(line), *(() if self._seat is None else (self._seat.lost(),)))
        finally:
            self._live = None
            self._up.clear()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await line.close()
        self._note_end(line)

    async def _first_of(self, *works: Coroutine[object, object, object]) -> None:
        tasks = [asyncio.create_task(work, name=f"{self._name}-link-{number}") for number, work in enumerate(works)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _subscribe(self, line: Line) -> None:
        try:
            ack = await line.ask(SUBSCRIBE, self._req_id(SUBSCRIBE), compose_subscription(self._bot_id, self._secret))
        except SendError as error:
            raise OpenFailed(f"WeCom did not answer the subscription: {error}") from error
        if ack.errcode:
            raise OpenRefused(repair(ack.errcode, ack.errmsg))

    async def _read(self, line: Line) -> None:
        try:
            while (text := await line.next()) is not None:
                self._take(line, text)
        finally:
            line.end()

    def _take(self, line: Line, text: str | bytes) -> None:
        try:
            frame = parse_frame(text)
        except Unreadable as error:
            logger.warning("Channel %s: a frame of %d characters was skipped: %s.", self._name, len(text), error)
            return
        if not frame.cmd:
            line.acknowledged(frame)
        elif frame.cmd == EVENT and parse_event(frame.body).kind == "disconnected_event":
            line.taken_over = True
            line.over.set()
        else:
            self._hear(frame)

    async def _ping(self, line: Line) -> None:
        """Returns when the connection is dead."""
        missed = 0
        while missed < MISSED_PINGS:
            await self._clock.sleep(PING_S)
            try:
                await line.ask(PING, self._req_id(PING))
                missed = 0
            except SendError:
                missed += 1
        logger.warning("Channel %s: WeCom answered no ping %d times.", self._name, MISSED_PINGS)

    def _req_id(self, cmd: str) -> str:
        return f"{cmd}_{int(self._clock.now().timestamp() * 1000)}_{next(self._numbers)}"

    def _note_failure(self, trouble: str) -> None:
        wait_s = self._pace.wait_s(self._clock.monotonic())
        self._trouble = f"{trouble} (next attempt within {wait_s:.0f} s)"
        logger.warning("Channel %s is not connected: %s; next attempt in %.1f s.", self._name, trouble, wait_s)

    def _note_end(self, line: Line) -> None:
        now = self._clock.monotonic()
        self._pace.ended(now, lived_s=now - line.opened_at, taken_over=line.taken_over)
        wait_s = self._pace.wait_s(now)
        if line.taken_over:
            trouble = "another client connected as this bot and took it over: stop one of the two, or give each a bot of its own"
            logger.error("Channel %s: %s; taking it back in %.0f s.", self._name, trouble, wait_s)
        else:
            trouble = "the connection was lost"
            logger.info("Channel %s: %s after %.0f s; the next opens in %.1f s.", self._name, trouble, now - line.opened_at, wait_s)
        self._trouble = f"{trouble} (next attempt within {wait_s:.0f} s)"
