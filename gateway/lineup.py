"""Where an accepted message waits for its turn: in this process, or in mailboxes that several processes share."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from gateway.clock import Clock
from gateway.errors import Busy, LeaseLost, StoreError
from gateway.lanes import Lanes
from gateway.messages import Address, Inbound
from gateway.stores.base import Bulletin, Ledger, Mailboxes, TurnRecord

logger = logging.getLogger(__name__)

STOP, STOPPED = "stop", "stopped"
STOP_ANSWER_S = 0.5
"""How long another process is given to say that it stopped an answer."""
LOOK_AGAIN_S = 5.0
"""How long at most between two looks for conversations whose process died."""
STORE_PAUSE_S = 1.0


class Work(Protocol):
    """What is done with a message when it is its turn; neither raises."""

    async def handle(self, inbounds: Sequence[Inbound]) -> None:
        """New messages, several only when they were merged."""

    async def finish(self, record: TurnRecord) -> None:
        """A turn from the ledger, perhaps half done by another process or an earlier run."""

    async def refuse(self, inbound: Inbound, busy: Busy) -> None:
        """There was no room."""


class Lineup(ABC):
    """The order of turns. `lane` names the conversation."""

    @abstractmethod
    async def accept(self, inbound: Inbound, lane: str, work: Work) -> TurnRecord | None:
        """Write the message down and line it up; or return the record of a message that is known. Raises StoreUnavailable."""

    @abstractmethod
    async def resume(self, work: Work, lane_of: Callable[[Inbound], str]) -> int:
        """Take up what an earlier run left unfinished. Returns how many turns there were."""

    async def run(self, work: Work) -> None:
        """What goes on in the background, until cancelled."""

    @abstractmethod
    async def stop(self, lane: str) -> bool:
        """Stop the answer in the making of this conversation; False when there is none."""

    @abstractmethod
    async def settle(self, clock: Clock, timeout_s: float) -> int:
        """Finish what runs within `timeout_s`; returns how many turns were left for later."""


def owner_of(address: Address) -> str:
    """Whose share of the places a message uses."""
    return f"{address.channel}/{address.account}/{address.sender}"


class LocalLineup(Lineup):
    """One process owns the store: the lanes are in memory, and after a death the ledger fills them again."""

    def __init__(self, *, ledger: Ledger, lanes: Lanes, clock: Clock) -> None:
        self._ledger = ledger
        self._lanes = lanes
        self._clock = clock
        self._aside = _Aside()

    async def accept(self, inbound: Inbound, lane: str, work: Work) -> TurnRecord | None:
        known = await self._ledger.accept(inbound, self._clock.now())
        if known is None:
            self.line_up([inbound], lane, work)
        return known

    def line_up(self, inbounds: Sequence[Inbound], lane: str, work: Work) -> None:
        """Put accepted messages into their lane, as one turn."""
        try:
            self._lanes.enter(lane, lambda: work.handle(inbounds), owner=owner_of(inbounds[-1].address))
        except Busy as busy:
            for inbound in inbounds:
                self._aside.do(work.refuse(inbound, busy))

    async def resume(self, work: Work, lane_of: Callable[[Inbound], str]) -> int:
        records = await self._ledger.unfinished()
        for record in records:
            self._lanes.enter(lane_of(record.inbound), _finishing(work, record), owner=owner_of(record.inbound.address), force=True)
        return len(records)

    async def stop(self, lane: str) -> bool:
        return self._lanes.stop(lane)

    async def settle(self, clock: Clock, timeout_s: float) -> int:
        return await self._lanes.settle(clock, timeout_s)


class SharedLineup(Lineup):
    """Several processes share the store. Whoever holds a lane's lease works its mailbox; the others' lanes are adopted when they die."""

    def __init__(
        self,
        *,
        mailboxes: Mailboxes,
        bulletin: Bulletin | None,
        lanes: Lanes,
        clock: Clock,
        per_lane: int,
        total: int,
        showable: Callable[[], Collection[str]],
    ) -> None:
        """`showable`: the channels on which this process can show answers now."""
        self._mailboxes = mailboxes
        self._bulletin = bulletin
        self._lanes = lanes
        self._clock = clock
        self._per_lane = per_lane
        self._total = total
        self._showable = showable
        self._aside = _Aside()
        self._stopping = False
        self._working: dict[str, str] = {}
        """The lanes whose lease this process has, and the channel of each."""
        self._stops: dict[str, asyncio.Event] = {}
        if bulletin is not None:
            bulletin.listen(STOP, self._stop_for_another)
            bulletin.listen(STOPPED, self._another_stopped)

    async def accept(self, inbound: Inbound, lane: str, work: Work) -> TurnRecord | None:
        lined = await self._mailboxes.accept(inbound, lane, self._clock.now(), per_lane=self._per_lane, total=self._total)
        if lined.known is None and lined.full:
            self._aside.do(work.refuse(inbound, Busy(f"{lined.ahead} messages of this conversation are already waiting")))
        if lined.mine:
            self._work_in(lane, lambda: work.handle([inbound]), inbound, work)
        return lined.known

    async def resume(self, work: Work, lane_of: Callable[[Inbound], str]) -> int:
        return await self._adopt(work)

    async def run(self, work: Work) -> None:
        lost = asyncio.create_task(self._drop_lost_lanes(), name="lost leases")
        try:
            while True:
                await self._look_for_orphans(work)
        finally:
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)

    async def stop(self, lane: str) -> bool:
        if self._lanes.stop(lane):
            return True
        if self._bulletin is None:
            return False
        answered = self._stops.setdefault(lane, asyncio.Event())
        try:
            await self._bulletin.publish(STOP, lane)
            async with self._clock.timeout(STOP_ANSWER_S):
                await answered.wait()
        except TimeoutError:
            return False
        finally:
            self._stops.pop(lane, None)
        return True

    async def settle(self, clock: Clock, timeout_s: float) -> int:
        self._stopping = True
        left = await self._lanes.settle(clock, timeout_s)
        for lane in list(self._working):
            try:
                await self._mailboxes.hand_back(lane)
            except StoreError as error:
                logger.warning("Lane %s could not be handed back; others adopt it when its lease ends: %s", lane, error)
        self._working.clear()
        return left

    async def _look_for_orphans(self, work: Work) -> None:
        try:
            await self._hand_back_the_unshowable()
            await self._adopt(work)
            wait_s = await self._mailboxes.adoptable_in()
        except StoreError as error:
            logger.warning("Cannot look for conversations of dead processes: %s", error)
            wait_s = STORE_PAUSE_S
        await self._clock.sleep(min(max(wait_s if wait_s is not None else LOOK_AGAIN_S, 0.2), LOOK_AGAIN_S))

    async def _hand_back_the_unshowable(self) -> None:
        """Conversations of a channel on which only another process can show now (it holds the account) belong there."""
        showable = self._showable()
        for lane in [lane for lane, channel in self._working.items() if channel not in showable]:
            logger.info("Lane %s is handed to the process that holds its account.", lane)
            del self._working[lane]
            self._lanes.abandon(lane)
            await self._mailboxes.hand_back(lane)

    async def _adopt(self, work: Work) -> int:
        adopted = await self._mailboxes.adopt(self._showable())
        for lane in adopted:
            record = await self._mailboxes.head(lane)
            if record is not None:
                logger.info("Lane %s is taken over from another process.", lane)
                self._work_in(lane, _finishing(work, record), record.inbound, work)
        return len(adopted)

    def _work_in(self, lane: str, first: Callable[[], Awaitable[None]], inbound: Inbound, work: Work) -> None:
        self._working[lane] = inbound.address.channel
        self._lanes.enter(lane, lambda: self._drain(lane, first, inbound, work), owner=owner_of(inbound.address), force=True)

    async def _drain(self, lane: str, first: Callable[[], Awaitable[None]], inbound: Inbound, work: Work) -> None:
        """Work the mailbox until it is empty, or until this process stops or loses the lane."""
        key, job = inbound.key, first
        try:
            while True:
                await job()
                with self._lanes.unstoppable(lane):
                    record = await self._mailboxes.done(lane, key)
                if record is None:
                    break
                if self._stopping:
                    await self._mailboxes.hand_back(lane)
                    break
                key, job = record.key, _finishing(work, record)
        except LeaseLost:
            logger.warning("Lane %s was taken over by another process.", lane)
        except StoreError as error:
            logger.error("Lane %s stops here until its lease ends and somebody adopts it: %s", lane, error)
        self._working.pop(lane, None)

    async def _drop_lost_lanes(self) -> None:
        while True:
            lane = await self._mailboxes.lost()
            logger.warning("The lease of lane %s is lost; another process may work on it.", lane)
            self._working.pop(lane, None)
            self._lanes.abandon(lane)

    def _stop_for_another(self, lane: str) -> None:
        if self._bulletin is not None and self._lanes.stop(lane):
            self._aside.do(self._bulletin.publish(STOPPED, lane))

    def _another_stopped(self, lane: str) -> None:
        if (waiting := self._stops.get(lane)) is not None:
            waiting.set()


def _finishing(work: Work, record: TurnRecord) -> Callable[[], Awaitable[None]]:
    return lambda: work.finish(record)


class _Aside:
    """Owns the small tasks that no lane waits for."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, work: Awaitable[None]) -> None:
        async def quietly() -> None:
            try:
                await work
            except StoreError as error:
                logger.warning("Something aside was not done: %s", error)

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
