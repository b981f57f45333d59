"""WeChat Web with the UOS login as a transport: sign in, listen, hand over, speak, and know when to stop.

Only the blocking steps of `ItchatDoor` leave the event loop, one at a time for listening; the next sync is not asked for before the
ledger has the last batch, so nothing piles up and nothing is lost. The SyncKey reaches the disk after the batch: what a crash leaves
open, WeChat delivers again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from gateway.channels.base import Deliver
from gateway.channels.wechat.compose import receiver
from gateway.channels.wechat.friend_requests import FriendRequests
from gateway.channels.wechat.introductions import Introductions
from gateway.channels.wechat.itchat_door import OFFICIAL_BASE_URL, Batch, ItchatDoor
from gateway.channels.wechat.login_state import FileLogins, Logins, SavedLogin
from gateway.channels.wechat.parse import FRIEND_REQUEST, UnreadableMessage, WebMessage, parse, read
from gateway.channels.wechat.patience import Patience
from gateway.channels.wechat.people import People
from gateway.channels.wechat.sign_in import SignIn
from gateway.channels.wechat.threads import in_thread
from gateway.channels.wechat.transport import SessionEnded, Transport, Unreachable
from gateway.checkup import Finding, Health
from gateway.clock import Clock
from gateway.errors import ChannelError, SendError, SendLater, SendRefused, StoreError, StoreUnavailable
from gateway.messages import Address, Inbound, ReplyTicket

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

BAN_RISK = (
    "WeChat forbids third-party clients on personal accounts. Accounts that sign in this way are often signed out within seconds, "
    "warned or banned (most since 2025-01). Use an account that you can lose, or the transport `ilink`."
)
BLOCKED = (
    "WeChat signed the account out right after the sign-in: this way in is blocked for the account. Signing in again makes a ban "
    "more likely, so the gateway does not. Use the transport `ilink` (private chats), an official account or DingTalk."
)
_SENDS_AT_ONCE = 4


@dataclass(slots=True)
class _State:
    """Where the login is."""

    people: People | None = None
    """None: not signed in."""
    signed_in_at: datetime | None = None
    trouble: str = "starting"
    """Empty when messages are heard."""


class ItchatTransport(Transport):
    """One account over itchat-uos. `unreadable` counts messages that could not be read and were left out."""

    def __init__(
        self,
        *,
        channel: str,
        clock: Clock,
        sign_in: SignIn,
        state_file: Path,
        logins: Logins | None = None,
        base_url: str | None = None,
        aliases: Sequence[str] = (),
        friend_requests: FriendRequests | None = None,
        door: ItchatDoor | None = None,
        blocked_within_s: float = 60,
        push_tries: int = 4,
        first_pause_s: float = 1,
    ) -> None:
        """`logins` says where the login is kept instead of in `state_file`.

        `base_url` stands in for https://login.weixin.qq.com and holds for all itchat accounts of this process.

        `aliases`: further names that call the bot in groups. `friend_requests`: None leaves them to the owner.
        `blocked_within_s`: a login that ends sooner was blocked and is never retried. `first_pause_s`: the first of the doubling waits.
        """
        self._channel = channel
        self._clock = clock
        self._sign_in = sign_in
        self._logins = logins or FileLogins(state_file)
        self._base_url = base_url or OFFICIAL_BASE_URL
        self._aliases = tuple(aliases)
        self._friend_requests = friend_requests
        self._door = door or ItchatDoor(base_url=base_url)
        self._blocked_within_s = blocked_within_s
        self._push_tries = push_tries
        self._first_pause_s = first_pause_s
        self._state = _State()
        self._sends = asyncio.Semaphore(_SENDS_AT_ONCE)
        self._introductions = Introductions(registry=self._door, clock=clock, aliases=aliases)
        self.unreadable = 0

    async def run(self, deliver: Deliver) -> None:
        logger.warning("%s", BAN_RISK)
        self._state.people = None  # of an earlier run: ids change with the login
        try:
            await self._call(self._door.open)
            await self._come_in()
            while True:
                try:
                    await self._listen(deliver)
                except SessionEnded as end:
                    await self._come_back(end)
        except ChannelError as error:
            self._note(str(error))
            raise

    async def send_text(self, address: Address, ticket: ReplyTicket, text: str) -> str:
        people = self._state.people
        if people is None:
            raise SendLater(f"not signed in to WeChat ({self._state.trouble})", retry_after_s=10)
        to = receiver(address, ticket, people)
        if not text.strip():
            raise SendRefused("WeChat takes no empty message")
        async with self._sends:
            try:
                return await in_thread("wechat-send", partial(self._door.send_text, to, text))
            except SendError as error:
                logger.warning("WeChat did not take a message: %s", error)
                raise

    def health(self) -> Health:
        return Health(not self._state.trouble, self._state.trouble)

    async def checkup(self) -> list[Finding]:
        try:
            saved = await self._logins.load()
        except StoreError as error:
            return [Finding("wechat: the saved login can be read", False, str(error))]
        signed_in = Finding("wechat: somebody is signed in", saved is not None, "run `gateway sign-in` and scan the code with the phone")
        return [signed_in, Finding(f"wechat: {BAN_RISK}", True)]

    async def aclose(self) -> None:
        self._state.people = None
        self._note("closed")
        self._door.close()

    # Signing in and coming back

    async def _come_in(self) -> None:
        """Go on with the saved login; without one, or when WeChat no longer honours it, sign in."""
        saved = await self._load()
        if saved is None or saved.base_url != self._base_url:
            await self._by_code()
            return
        try:
            await self._call(partial(self._door.restore, saved.login))
        except (KeyError, TypeError, ValueError):
            logger.warning("The saved WeChat login is not complete; a new sign-in is needed")
            await self._by_code()
            return
        self._state.signed_in_at = saved.signed_in_at
        await self._meet_people()

    async def _come_back(self, end: SessionEnded) -> None:
        """A login ended. Soon after it began: blocked, stop. Later: ask the phone once, then wait for somebody to scan."""
        self._state.people = None
        logger.error("%s", end)
        if self._age_s() < self._blocked_within_s:
            await self._forget()
            raise ChannelError(BLOCKED)
        self._note("signed out by WeChat")
        await self._call(self._door.open)
        if not await self._by_push():
            await self._by_code()

    async def _by_push(self) -> bool:
        patience = Patience(self._first_pause_s)
        while patience.tries < self._push_tries:
            try:
                if not await self._sign_in.by_push(self._door, self._note):
                    return False
                await self._entered()
                return True
            except Unreachable as error:
                self._note(f"WeChat cannot be reached ({error})")
                await self._clock.sleep(patience.next_s())
        return False

    async def _by_code(self) -> None:
        await self._sign_in.by_code(self._door, self._note)
        await self._entered()

    async def _entered(self) -> None:
        self._state.signed_in_at = self._clock.now()
        try:
            await self._persistently(self._door.enter)
        except SessionEnded as end:
            await self._forget()
            raise ChannelError(BLOCKED) from end
        await self._meet_people()
        await self._save()

    async def _meet_people(self) -> None:
        try:
            await self._persistently(self._door.fetch_contacts, tries=3)
        except Unreachable:
            logger.warning("Going on without the WeChat contact list; people are asked for when they write")
        self._state.people = people = await self._call(self._door.people)
        self._note("")
        logger.info("Signed in to WeChat; %d friends and %d groups known", len(people.friends), len(people.rooms))

    async def _persistently(self, step: Callable[[], Result], tries: int | None = None) -> Result:
        """The result of a step of the sign-in, however long WeChat is away (or after `tries`): a scan must not be wasted."""
        patience = Patience(self._first_pause_s)
        while True:
            try:
                return await self._call(step)
            except Unreachable as error:
                if tries is not None and patience.tries + 1 >= tries:
                    raise
                self._note(f"WeChat cannot be reached ({error})")
                await self._clock.sleep(patience.next_s())

    def _age_s(self) -> float:
        since = self._state.signed_in_at
        return (self._clock.now() - since).total_seconds() if since else 0.0

    # Listening

    async def _listen(self, deliver: Deliver) -> None:
        """Until the login ends."""
        patience, empty = Patience(self._first_pause_s), Patience(first_s=0.05, most_s=2)
        while True:
            try:
                if not await self._call(self._door.check):
                    empty = Patience(first_s=0.05, most_s=2)
                elif await self._take(await self._call(self._door.fetch), deliver):
                    empty.tries = 0
                else:  # "news" without anything: WeChat can repeat that for minutes
                    await self._clock.sleep(empty.next_s())
                patience.tries = 0
                self._note("")
            except Unreachable as error:
                self._note(f"WeChat cannot be reached ({error})")
                await self._clock.sleep(patience.next_s())

    async def _take(self, batch: Batch, deliver: Deliver) -> bool:
        """Hand a batch in, in order; the SyncKey is saved when all of it is in the ledger. False when there was nothing in it."""
        people = self._state.people
        if people is not None and batch.contacts:
            self._state.people = people.with_contacts(batch.contacts)
        for raw in batch.messages:
            await self._hear(raw, deliver)
        await self._save()
        return bool(batch.messages or batch.contacts)

    async def _hear(self, raw: dict[str, object], deliver: Deliver) -> None:
        people = self._state.people
        try:
            message = read(raw)
        except UnreadableMessage as error:
            self.unreadable += 1
            logger.warning("A WeChat message cannot be read and is left out: %s", error)
            return
        if people is None:
            return
        if message.kind == FRIEND_REQUEST:
            await self._accept_friend(message)
        self._state.people = people = await self._introductions.people_for(message, people)
        inbound = parse(message, people, channel=self._channel, aliases=self._aliases)
        if inbound is not None:
            await self._hand_over(inbound, deliver)

    async def _hand_over(self, inbound: Inbound, deliver: Deliver) -> None:
        """Until the ledger has it; WeChat would not deliver it again while this login lives."""
        patience = Patience(self._first_pause_s)
        while True:
            try:
                await deliver(inbound)
                return
            except StoreUnavailable as error:
                self._note(f"messages wait, the store cannot be written ({error})")
                await self._clock.sleep(patience.next_s())

    async def _accept_friend(self, message: WebMessage) -> None:
        request = message.recommended
        if self._friend_requests is None or request is None or not self._friend_requests.may_accept():
            logger.info("A friend request waits on the phone")
            return
        try:
            await self._call(partial(self._door.accept_friend, request.user_name, message.ticket))
        except Unreachable as error:
            logger.warning("A friend request could not be accepted: %s", error)

    async def _save(self) -> None:
        since = self._state.signed_in_at
        if since is None:
            return
        saved = SavedLogin(base_url=self._base_url, signed_in_at=since, login=self._door.snapshot())
        try:
            await self._logins.save(saved)
        except StoreError as error:
            logger.error("The WeChat login cannot be saved in %s (%s); a restart will need a new sign-in", self._logins.where, error)

    async def _load(self) -> SavedLogin | None:
        """The saved login, however long its place is away: a new sign-in would cost more than waiting."""
        patience = Patience(self._first_pause_s)
        while True:
            try:
                return await self._logins.load()
            except StoreError as error:
                self._note(f"the saved login cannot be read ({error})")
                await self._clock.sleep(patience.next_s())

    async def _forget(self) -> None:
        try:
            await self._logins.clear()
        except StoreError as error:
            logger.error("The WeChat login in %s cannot be forgotten (%s); remove it by hand", self._logins.where, error)

    # Inside

    async def _call(self, step: Callable[[], Result]) -> Result:
        return await in_thread("wechat", step)

    def _note(self, trouble: str) -> None:
        if trouble != self._state.trouble:
            logger.info("WeChat channel %s: %s", self._channel, trouble or "messages are heard")
        self._state.trouble = trouble
