"""From a bot message to the ledger, the same for Stream frames and HTTP callbacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.channels.base import Deliver
from gateway.channels.dingtalk.parse import Raw, Unreadable, parse_message
from gateway.clock import Clock
from gateway.errors import StoreError, StoreUnavailable
from gateway.messages import Inbound

DELIVER_TIMEOUT_S = 20.0
"""A ledger that takes longer, earlier messages of the conversation included, is treated as one that cannot write."""
HAND_IN_AGAIN_S = 5.0
KEPT_MESSAGES = 1_000

logger = logging.getLogger(__name__)


class _Turn:
    """Whose turn it is in one conversation. The lock alone does not tell whether somebody waits for it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0


class Hearing:
    """Hands messages in, those of one conversation in order, and again what the store could not take: DingTalk may redeliver, or never."""

    def __init__(self, *, name: str, account: str, clock: Clock) -> None:
        self._name = name
        self._account = account
        self._clock = clock
        self._turns: dict[str, _Turn] = {}
        self._kept: dict[str, Inbound] = {}
        self._something_kept = asyncio.Event()

    async def hear(self, deliver: Deliver, raw: Raw, frame_id: str = "") -> None:
        """Returns when the message is on disk or will never be readable; raises StoreError when it is not on disk: do not acknowledge."""
        try:
            inbound = parse_message(raw, channel=self._name, account=self._account, received_at=self._clock.now(), frame_id=frame_id)
        except Unreadable as error:  # Acknowledged: it would not be more readable the second time.
            logger.warning("Channel %s: message of frame %s was skipped: %s.", self._name, frame_id or "(callback)", error)
            return
        try:
            await self._deliver(deliver, inbound)
        except StoreError:
            self._keep(inbound)
            raise

    async def hand_in_again(self, deliver: Deliver) -> None:
        """Until cancelled: what the store did not take is tried every five seconds."""
        while True:
            await self._something_kept.wait()
            await self._clock.sleep(HAND_IN_AGAIN_S)
            await self._hand_in_kept(deliver)

    @asynccontextmanager
    async def _turn(self, chat: str) -> AsyncIterator[None]:
        """One message of a conversation at a time, in the order of their calls."""
        turn = self._turns.setdefault(chat, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[chat]

    async def _deliver(self, deliver: Deliver, inbound: Inbound) -> None:
        try:
            async with self._clock.timeout(DELIVER_TIMEOUT_S), self._turn(inbound.address.chat):
                admitted = await deliver(inbound)
        except TimeoutError as error:
            raise StoreUnavailable(f"the message was not on disk after {DELIVER_TIMEOUT_S:.0f} s") from error
        logger.info("Channel %s heard message %s: %s.", self._name, inbound.id, admitted.admission.value)

    def _keep(self, inbound: Inbound) -> None:
        """DingTalk's document says bot messages are never sent again, users see that they are: rely on neither."""
        if len(self._kept) >= KEPT_MESSAGES:
            logger.error("Channel %s: too many messages wait for the store; %s is left to DingTalk's redelivery.", self._name, inbound.id)
            return
        self._kept[inbound.id] = inbound
        self._something_kept.set()

    async def _hand_in_kept(self, deliver: Deliver) -> None:
        for inbound in list(self._kept.values()):
            try:
                await self._deliver(deliver, inbound)
            except StoreError as error:
                logger.warning("Channel %s: %d messages still wait for the store: %s", self._name, len(self._kept), error)
                return
            self._kept.pop(inbound.id, None)
        if not self._kept:
            self._something_kept.clear()
