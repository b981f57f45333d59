"""The gateway as one running thing: open in order, resume what was unfinished, close in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from gateway.channels.base import Channel
from gateway.channels.http_face import WaitingRoom, listening
from gateway.clock import Clock, SystemClock
from gateway.config import Config
from gateway.errors import BackendError, ChannelError
from gateway.wiring import House, build

logger = logging.getLogger(__name__)

RESTART_S = (1.0, 5.0, 30.0, 60.0)
"""Pauses before a channel that broke is started again; the last one repeats."""


class Gateway:
    """Everything that one configuration describes. Use `async with Gateway(config).running() as gateway`."""

    def __init__(self, config: Config, *, clock: Clock | None = None, show_qr: Callable[[str], None] = lambda text: None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._show_qr = show_qr
        self.port = 0
        """The port that was really bound."""
        self.finished = asyncio.Event()
        """Set when there is nothing more to hear, e.g. at the end of the terminal's input."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        """Open the store, take up unfinished turns, let the channels hear and the listener listen; on leaving, all of it backwards."""
        async with AsyncExitStack() as stack:
            http = self._config.http
            async with self._waiting_room():
                house = await build(self._config, stack=stack, clock=self._clock, show_qr=self._show_qr)
            resumed = await house.dispatch.resume()  # before anybody is heard, so that old messages keep their place
            if resumed:
                logger.info("%d messages of an earlier run are taken up again.", resumed)
            tasks = self._start(house)
            stack.push_async_callback(_cancel, tasks)
            self.port = await stack.enter_async_context(listening(house.face, host=http.host, port=http.port))
            stack.push_async_callback(self._stop, house, tasks)
            logger.info("Ready on http://%s:%d with channels: %s.", http.host, self.port, ", ".join(house.channels) or "none")
            yield self
            logger.info("Stopping: no new messages are heard.")
            house.pages.stopping = True

    @asynccontextmanager
    async def _waiting_room(self) -> AsyncIterator[None]:
        """A store that is another server's may take a while: meanwhile /readyz is there, and red."""
        if self._config.store.url.startswith(("sqlite:", "memory:")):
            yield
            return
        http = self._config.http
        async with listening(WaitingRoom("waiting for the store"), host=http.host, port=http.port, drain_s=1):
            yield

    def _start(self, house: House) -> Sequence[asyncio.Task[None] | asyncio.Task[bool]]:
        hearing = [asyncio.create_task(self._hear(channel, house), name=f"channel {channel.name}") for channel in house.channels.values()]
        return [
            *hearing,
            asyncio.create_task(house.expiry.run(), name="expiry"),
            asyncio.create_task(house.lineup.run(house.dispatch), name="lineup"),
            asyncio.create_task(house.watchdog.run(), name="watchdog"),
            asyncio.create_task(house.pruning.run(), name="pruning"),
            asyncio.create_task(_prepare(house), name="prepare"),
            asyncio.create_task(self._watch_for_the_end(hearing), name="the end"),
        ]

    async def _watch_for_the_end(self, hearing: list[asyncio.Task[bool]]) -> None:
        """A gateway whose channels all ended by themselves (the terminal's input is over) has nothing left to do."""
        if hearing and all(await asyncio.gather(*hearing)):
            self.finished.set()

    async def _hear(self, channel: Channel, house: House) -> bool:
        """One channel's life: True when there is nothing more to hear, False when somebody must repair it. Never ends another channel."""
        attempt = 0
        while True:
            started = self._clock.monotonic()
            try:
                await channel.run(house.dispatch.hear)
                logger.info("Channel %s has nothing more to hear.", channel.name)
                return True
            except ChannelError as error:
                logger.error("Channel %s is down until somebody repairs it: %s", channel.name, error)
                house.watchdog.gave_up(channel.name, str(error))
                return False
            except Exception:  # a bug in one channel must not silence the others
                logger.exception("Channel %s broke and is started again.", channel.name)
            attempt = 0 if self._clock.monotonic() - started > RESTART_S[-1] else attempt + 1
            await self._clock.sleep(RESTART_S[min(attempt, len(RESTART_S) - 1)])

    async def _stop(self, house: House, tasks: Sequence[asyncio.Task[None] | asyncio.Task[bool]]) -> None:
        """Hear nothing more, then finish what runs; what does not end in time stays in the ledger and is taken up at the next start.

        The listener is still open: people whose request is held get their answer, and then the channels tell the others to come back.
        """
        await _cancel(tasks)
        left = await house.lineup.settle(self._clock, self._config.stop_timeout_s)
        if left:
            logger.warning("%d messages did not finish in time; the next start takes them up.", left)
        await house.close_channels()


async def _prepare(house: House) -> None:
    """A backend that cannot be prepared will say so, with its repair, when it is asked."""
    house.pages.preparing = True
    try:
        with contextlib.suppress(BackendError):
            await house.backend.prepare()
    finally:
        house.pages.preparing = False


async def _cancel(tasks: Sequence[asyncio.Task[None] | asyncio.Task[bool]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
