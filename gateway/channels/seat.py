"""Where only one process may hold an account: this one sits down, keeps the seat, and knows by its own clock when it no longer may."""

from __future__ import annotations

import asyncio
import logging

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.stores.base import Seats

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often to look whether another process stood up."""
_SURE = 0.8
"""The part of a lease that is trusted; the rest is for clocks that run differently and for what is already on its way."""
_SHORTEST_PAUSE_S = 0.05


class Seat:
    """The right to hold one account. Once taken it is renewed in the background until it is lost or left."""

    def __init__(self, *, name: str, seats: Seats, clock: Clock, look_s: float = LOOK_S) -> None:
        self._name = name
        self._seats = seats
        self._clock = clock
        self._look_s = look_s
        self._sure_until = float("-inf")
        self._keeping: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()

    @property
    def held(self) -> bool:
        """Whether nobody else can sit here now. Also true of time that this process slept through."""
        return self._clock.monotonic() < self._sure_until

    async def sit(self) -> None:
        """Wait until the seat is ours."""
        while not self.held:
            await self._stop_keeping()
            if await self._take():
                self._gone = asyncio.Event()
                self._keeping = asyncio.create_task(self._keep(self._gone), name=f"seat {self._name}")
                logger.info("This process holds %s.", self._name)
                return
            await self._clock.sleep(self._look_s)

    async def lost(self) -> None:
        """Return when the seat is no longer ours."""
        await self._gone.wait()

    async def leave(self) -> None:
        """Stand up, so that another process can sit down at once."""
        if self._keeping is None:
            return
        await self._stop_keeping()
        self._give_up()
        try:
            await self._seats.leave(self._name)
        except StoreError as error:
            logger.warning("%s could not be given back and runs out by itself: %s", self._name, error)

    async def _keep(self, gone: asyncio.Event) -> None:
        try:
            while self.held:
                await self._clock.sleep(max(self._left_s() / 3, _SHORTEST_PAUSE_S))
                if not await self._renewed():
                    logger.error("This process no longer holds %s.", self._name)
                    return
        finally:
            self._give_up()
            gone.set()

    async def _renewed(self) -> bool:
        """Whether we still sit. A store that does not answer is asked again while there is time."""
        try:
            async with self._clock.timeout(self._left_s()):
                await self._take()
        except TimeoutError:
            logger.warning("The store did not answer in time about %s.", self._name)
        return self.held

    async def _take(self) -> bool:
        began = self._clock.monotonic()
        try:
            if not await self._seats.take(self._name):
                self._give_up()
                return False
            lease_s = await self._seats.free_in(self._name)
        except StoreError as error:
            logger.warning("The store cannot say who holds %s: %s", self._name, error)
            return False
        self._sure_until = began + lease_s * _SURE
        return True

    def _give_up(self) -> None:
        self._sure_until = float("-inf")

    def _left_s(self) -> float:
        return max(self._sure_until - self._clock.monotonic(), 0.0)

    async def _stop_keeping(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None
