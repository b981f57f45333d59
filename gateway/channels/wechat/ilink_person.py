"""One bound person over Tencent's bot API: hears them by long poll and answers within what the platform allows.

The cursor is kept only after the ledger has the batch: what a crash leaves open, Tencent delivers again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from datetime import UTC, datetime
from enum import StrEnum

from gateway.channels.base import Admission, Deliver
from gateway.channels.wechat.ilink_api import POLL_S, ILinkApi, Sent, TokenStale, Updates
from gateway.channels.wechat.ilink_bonds import Bond, Bonds
from gateway.channels.wechat.ilink_compose import compose, message, more_waits
from gateway.channels.wechat.ilink_parse import ILinkMessage, parse, read
from gateway.channels.wechat.ilink_typing import Typing
from gateway.channels.wechat.ilink_window import PER_INBOUND, Window, Windows
from gateway.channels.wechat.parse import UnreadableMessage
from gateway.channels.wechat.patience import Patience
from gateway.channels.wechat.transport import Unreachable
from gateway.clock import Clock
from gateway.errors import SendError, SendLater, SendRefused, SendUncertain, StoreUnavailable, TicketExpired
from gateway.messages import Inbound, Outbound

logger = logging.getLogger(__name__)

PIECES = PER_INBOUND - 1
"""The last message of a window says that more waits."""
NOT_ALLOWED = -2
RATE_LIMITED_S = 20.0
"""Reports of locks begin at some four messages in eight minutes (openclaw-weixin#142, #270): try seldom."""
MISSES = 2
"""So many messages in a row that got no id: Tencent's risk control hides what this bot says."""
SCAN_AGAIN = "a new code must be scanned (the bot was bound elsewhere, or Tencent ended the sign-in): run `gateway sign-in`"
REMEMBERED = 500
"""Messages kept in memory for quotes that name only an id; a quote of an older one arrives without its words."""


class PersonState(StrEnum):
    """How a bound person's account is."""

    STARTING = "starting"
    OK = "ok"
    UNREACHABLE = "unreachable"
    SUPPRESSED = "suppressed"
    NEEDS_LOGIN = "needs_login"


class ILinkPerson:
    """One bound person. `unreadable` counts messages that could not be read and were left out."""

    def __init__(
        self,
        *,
        channel: str,
        bond: Bond,
        api: ILinkApi,
        bonds: Bonds,
        clock: Clock,
        typing: bool = True,
        first_pause_s: float = 2,
        hold_s: float = POLL_S,
    ) -> None:
        """`first_pause_s`: the first of the doubling waits, at most 30 s."""
        self.bond = bond
        self.unreadable = 0
        self._channel = channel
        self._api = api
        self._bonds = bonds
        self._clock = clock
        self._typing = Typing(api=api, place=bond.place, clock=clock) if typing else None
        self._first_pause_s = first_pause_s
        self._hold_s = hold_s
        self._windows = Windows(bond.windows)
        self._words: OrderedDict[str, str] = OrderedDict()
        self._speaking = asyncio.Lock()
        self._missed = 0
        self._state = PersonState.NEEDS_LOGIN if bond.stale else PersonState.STARTING
        self._reason = SCAN_AGAIN if bond.stale else ""

    @property
    def state(self) -> PersonState:
        """Silence of ours outweighs that we can hear."""
        return PersonState.SUPPRESSED if self._state is PersonState.OK and self._missed >= MISSES else self._state

    @property
    def reason(self) -> str:
        """Why the state is what it is, for the operator."""
        if self.state is PersonState.SUPPRESSED:
            return "WeChat takes our messages and does not show them (risk control); it passes by itself, in days"
        return self._reason

    # Hearing

    async def listen(self, deliver: Deliver) -> None:
        """Until the platform takes the token no longer."""
        await self._announce()
        patience, quick = Patience(self._first_pause_s, most_s=30), Patience(first_s=0.05, most_s=2)
        while True:
            began_s = self._clock.monotonic()
            try:
                updates = await self._api.updates(self.bond.place, self.bond.cursor, hold_s=self._hold_s)
            except TokenStale:
                await self._went_stale()
                return
            except Unreachable as error:
                self._note(PersonState.UNREACHABLE, f"WeChat cannot be reached ({error})")
                await self._clock.sleep(patience.next_s())
                continue
            patience.tries = 0
            self._note(PersonState.OK)
            self._hold_s = updates.next_poll_s or self._hold_s
            if await self._take(updates, deliver) or self._clock.monotonic() - began_s > 1:
                quick.tries = 0
            else:  # an empty answer at once: a server that does not hold polls must not make us spin
                await self._clock.sleep(quick.next_s())

    async def _announce(self) -> None:
        try:
            await self._api.notify(self.bond.place, listening=True)
            self._note(PersonState.OK)
        except Unreachable as error:
            logger.info("iLink was not told that we listen (%s); the first poll will show whether it matters", error)

    async def _take(self, updates: Updates, deliver: Deliver) -> bool:
        """Hand a batch in, in order, then keep the cursor. False when there was nothing in it."""
        for raw in updates.messages or ():
            await self._hear(raw, deliver)
        news = bool(updates.messages) or bool(updates.cursor and updates.cursor != self.bond.cursor)
        if news:
            await self._keep(self.bond.model_copy(update={"cursor": updates.cursor or self.bond.cursor}))
        return news

    async def _hear(self, raw: dict[str, object], deliver: Deliver) -> None:
        try:
            heard = read(raw)
        except UnreadableMessage as error:
            self.unreadable += 1
            logger.warning("A message of iLink cannot be read and is left out: %s", error)
            return
        inbound = parse(heard, channel=self._channel, account=self.bond.user_id, now=self._clock.now(), recall=self._recall)
        if inbound is None:
            return
        self._open_window(heard)
        self._remember(inbound.id, inbound.text)
        if await self._hand_over(inbound, deliver) and self._typing is not None and heard.context_token:
            self._typing.start(heard.sender, heard.context_token)

    def _open_window(self, heard: ILinkMessage) -> None:
        at = datetime.fromtimestamp(heard.created_ms / 1000, UTC) if heard.created_ms else self._clock.now()
        self._windows.heard(heard.sender, heard.context_token, at)

    async def _hand_over(self, inbound: Inbound, deliver: Deliver) -> bool:
        """Until the ledger has it. True when it will be answered."""
        patience = Patience(self._first_pause_s)
        while True:
            try:
                return (await deliver(inbound)).admission is Admission.ACCEPTED
            except StoreUnavailable as error:
                self._note(PersonState.UNREACHABLE, f"messages wait, the store cannot be written ({error})")
                await self._clock.sleep(patience.next_s())

    async def _went_stale(self) -> None:
        logger.error("WeChat person %s must scan a new code: iLink takes the sign-in no longer", self.bond.short)
        self._note(PersonState.NEEDS_LOGIN, SCAN_AGAIN)
        await self._keep(self.bond.model_copy(update={"stale": True}))

    async def _keep(self, bond: Bond) -> None:
        self.bond = bond.model_copy(update={"windows": self._windows.as_dict()})
        try:
            await self._bonds.update(self.bond)
        except StoreUnavailable as error:
            logger.error("The state of iLink cannot be saved in %s (%s); a restart hears some messages again", self._bonds.where, error)

    # Speaking

    async def send(self, outbound: Outbound) -> str:
        """Show one piece; returns the platform's id. Raises a SendError."""
        async with self._speaking:  # the window is counted, and pieces stay in order
            try:
                return await self._send(outbound)
            except SendError as error:
                logger.warning("iLink did not show %s: %s", outbound.key, error)
                raise

    async def aclose(self) -> None:
        """Say that we stop to listen, where that is quickly done."""
        if self._typing is not None:
            await self._typing.aclose()
        if self._state is PersonState.OK:
            try:
                async with self._clock.timeout(2):
                    await self._api.notify(self.bond.place, listening=False)
            except (Unreachable, TimeoutError) as error:
                logger.info("iLink was not told that we stop to listen: %s", type(error).__name__)

    async def _send(self, outbound: Outbound) -> str:
        text, to = compose(outbound), outbound.address.sender
        if not text.strip():
            raise SendRefused("WeChat takes no empty message")
        if self._state is PersonState.NEEDS_LOGIN:
            raise TicketExpired("this person must scan a new code first")
        window = self._windows.of(to, outbound.ticket)
        try:
            token = window.spend(self._clock.now(), allowed=PIECES)
        except TicketExpired:
            await self._say_that_more_waits(window, outbound)
            raise
        if self._typing is not None:
            self._typing.stop(to)
        sent = await self._tell(to, text, token, outbound.key, window)
        return self._judge(sent, to, text, window)

    async def _say_that_more_waits(self, window: Window, outbound: Outbound) -> None:
        """Spend the reserved message, once."""
        try:
            token = window.spend(self._clock.now(), allowed=PER_INBOUND)
            await self._tell(outbound.address.sender, more_waits(outbound.lang), token, f"{outbound.key}/more", window)
        except SendError as error:
            logger.info("The person was not told that more waits: %s", error)

    async def _tell(self, to: str, text: str, token: str, key: str, window: Window) -> Sent:
        try:
            return await self._api.send(self.bond.place, message(to=to, text=text, context_token=token, key=key))
        except TokenStale as error:
            self._note(PersonState.NEEDS_LOGIN, SCAN_AGAIN)
            raise TicketExpired("this person must scan a new code first") from error
        except Unreachable as error:
            if error.maybe_sent:
                raise SendUncertain(f"iLink was told and did not confirm: {error}") from error
            window.sent -= 1
            if error.status is not None and error.status != 429:
                raise SendRefused(f"iLink refuses: {error}") from error
            raise SendLater(f"iLink cannot be reached: {error}", retry_after_s=2 if error.status is None else RATE_LIMITED_S) from error

    def _judge(self, sent: Sent, to: str, text: str, window: Window) -> str:
        if sent.code == 0 and sent.message_id:
            self._missed = 0
            self._remember(sent.message_id, text)
            return sent.message_id
        if sent.code == 0:
            self._missed += 1
            raise SendRefused("iLink took the message and gave no id: it is not shown (risk control)")
        if sent.code != NOT_ALLOWED:
            raise SendRefused(f"iLink refuses: code {sent.code} {sent.reason}".rstrip())
        if "rate" in sent.reason.lower():
            window.sent -= 1
            raise SendLater("iLink wants us to slow down", retry_after_s=RATE_LIMITED_S)
        self._windows.close(to)
        raise TicketExpired(f"iLink takes nothing more until the person writes (code {NOT_ALLOWED} {sent.reason})".replace(" )", ")"))

    # Inside

    def _remember(self, message_id: str, text: str) -> None:
        self._words[message_id] = text[:1_000]
        if len(self._words) > REMEMBERED:
            self._words.popitem(last=False)

    def _recall(self, message_id: str) -> str:
        return self._words.get(message_id, "")

    def _note(self, state: PersonState, reason: str = "") -> None:
        if (state, reason) != (self._state, self._reason):
            logger.info("WeChat person %s of channel %s: %s %s", self.bond.short, self._channel, state.value, reason)
        if self._state is not PersonState.NEEDS_LOGIN or state is PersonState.NEEDS_LOGIN:
            self._state, self._reason = state, reason
