"""Tencent's official bot API (iLink) as a transport: private chats with the people who bound a bot, and nobody else.

A bot belongs to exactly one person, so the transport is as many bots as people have scanned a code; each has its own token and poll.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from gateway.channels.base import Deliver
from gateway.channels.wechat.ilink_api import OFFICIAL_BASE_URL, OFFICIAL_CDN_BASE_URL, POLL_S, ILinkApi
from gateway.channels.wechat.ilink_bonds import Bond, Bonds, FolderBonds
from gateway.channels.wechat.ilink_person import ILinkPerson, PersonState
from gateway.channels.wechat.ilink_sign_in import AlreadyBound, AskDigits, ILinkSignIn, somebody_there
from gateway.channels.wechat.ilink_wire import Wire
from gateway.channels.wechat.patience import Patience
from gateway.channels.wechat.sign_in import Show, to_stderr
from gateway.channels.wechat.transport import Transport
from gateway.checkup import Finding, Health
from gateway.clock import Clock
from gateway.errors import ChannelError, SendLater, SendRefused, StoreUnavailable
from gateway.messages import Address, Outbound, ReplyTicket

logger = logging.getLogger(__name__)

WATCH_S = 5.0
"""How soon somebody is heard who bound a bot with `gateway sign-in` while the gateway runs."""


class ILinkTransport(Transport):
    """The bots of everybody who is bound. Without anybody it shows a QR code at the start; later only `sign_in` does."""

    def __init__(
        self,
        *,
        channel: str,
        clock: Clock,
        folder: Path,
        bonds: Bonds | None = None,
        base_url: str | None = None,
        cdn_base_url: str | None = None,
        show: Show = to_stderr,
        ask: AskDigits | None = None,
        typing: bool = True,
        max_codes: int = 4,
        pause_s: float = 1,
        watch_s: float = WATCH_S,
        hold_s: float = POLL_S,
    ) -> None:
        """`folder` keeps the sign-ins, readable by nobody else, unless `bonds` does; the picture of a QR code is there in any case.

        `base_url` and `cdn_base_url` stand in for Tencent's addresses. `ask`: see ILinkSignIn; None asks at the terminal if there is one.
        `typing`: show that an answer is made. `pause_s`: the unit of all waits between tries.
        """
        base_url = (base_url or OFFICIAL_BASE_URL).rstrip("/")
        self._channel = channel
        self._clock = clock
        self._typing = typing
        self._pause_s = pause_s
        self._watch_s = watch_s
        self._hold_s = hold_s
        self._wire = Wire(bases=(base_url, cdn_base_url or OFFICIAL_CDN_BASE_URL), clock=clock)
        self._api = ILinkApi(self._wire)
        self._bonds = bonds or FolderBonds(folder, base_url=base_url)
        self._sign_in = ILinkSignIn(
            api=self._api,
            wire=self._wire,
            base_url=base_url,
            clock=clock,
            png_path=folder / "qr.png",
            show=show,
            ask=ask or somebody_there(),
            max_codes=max_codes,
            pause_s=pause_s,
        )
        self._people: dict[str, ILinkPerson] = {}
        self._trouble = "starting"

    async def run(self, deliver: Deliver) -> None:
        if not [bond for bond in await self._known_bonds() if not bond.stale]:
            await self._bind_somebody()
        async with asyncio.TaskGroup() as group:
            listening: dict[str, asyncio.Task[None]] = {}
            while True:
                await self._meet(group, listening, deliver)
                await self._clock.sleep(self._watch_s)

    async def send(self, outbound: Outbound) -> str:
        """Show one piece; returns the platform's message id. Raises a SendError."""
        person = self._people.get(outbound.address.sender)
        if person is None:
            if self._trouble:
                raise SendLater(f"iLink is not ready ({self._trouble})", retry_after_s=2)
            raise SendRefused("this person is bound to no bot of ours")
        return await person.send(outbound)

    async def send_text(self, address: Address, ticket: ReplyTicket, text: str) -> str:
        return await self.send(Outbound(key=uuid4().hex, address=address, ticket=ticket, text=text))

    async def sign_in(self) -> str:
        """Bind one more person, or one again; returns what to tell the operator. Raises ChannelError when nobody signed in."""
        try:
            bonds = await self._bonds.all()
            try:
                bond = await self._sign_in.by_code(bonds, self._note)
            except AlreadyBound:
                for stale in (bond for bond in bonds if bond.stale):  # nobody says whose code it was; the others go stale again
                    await self._bonds.bind(stale.model_copy(update={"stale": False}))
                return "this person is bound already; nothing changed"
            await self._bonds.bind(bond)
        except StoreUnavailable as error:
            raise ChannelError(f"the sign-in cannot be kept in {self._bonds.where}: {error}") from error
        return f"bound {bond.short}"

    @property
    def states(self) -> Mapping[str, PersonState]:
        """How each bound person's account is, by their id."""
        return {user_id: person.state for user_id, person in self._people.items()}

    @property
    def unreadable(self) -> int:
        """Messages that could not be read and were left out."""
        return sum(person.unreadable for person in self._people.values())

    def health(self) -> Health:
        if self._trouble:
            return Health(False, self._trouble)
        if not self._people:
            return Health(False, "needs_login: nobody is bound; run `gateway sign-in`")
        bad = [person for person in self._people.values() if person.state is not PersonState.OK]
        told = "; ".join(f"{person.bond.short} {person.state.value}: {person.reason}".rstrip(": ") for person in bad[:5])
        return Health(not bad, f"{len(bad)} of {len(self._people)} people: {told}" if bad else "")

    async def checkup(self) -> list[Finding]:
        try:
            bonds = await self._bonds.all()
        except StoreUnavailable as error:
            return [Finding("wechat (iLink): the sign-ins can be read", False, str(error))]
        live = [bond for bond in bonds if not bond.stale]
        repair = "" if live else "run `gateway sign-in` and scan the code with WeChat"
        again = "run `gateway sign-in`; they must scan a new code"
        return [
            Finding(f"wechat (iLink): people are bound ({len(live)})", bool(live), repair),
            *(Finding(f"wechat (iLink): {bond.short} is signed in", False, again) for bond in bonds if bond.stale),
        ]

    async def aclose(self) -> None:
        await asyncio.gather(*(person.aclose() for person in self._people.values()))
        await self._wire.aclose()

    async def _known_bonds(self) -> list[Bond]:
        """However long the store is away."""
        patience = Patience(self._pause_s)
        while True:
            try:
                return await self._bonds.all()
            except StoreUnavailable as error:
                self._note(f"the sign-ins cannot be read ({error})")
                await self._clock.sleep(patience.next_s())

    async def _bind_somebody(self) -> None:
        """At the start. When nobody scans, go on: `gateway sign-in` may bring somebody later."""
        try:
            logger.info("iLink: %s", await self.sign_in())
        except ChannelError as error:
            logger.error("Channel %s waits for somebody to sign in: %s", self._channel, error)

    async def _meet(self, group: asyncio.TaskGroup, listening: dict[str, asyncio.Task[None]], deliver: Deliver) -> None:
        """Listen to everybody who is bound and not listened to yet; who signed in anew is listened to with the new token."""
        for bond in await self._known_bonds():
            known = self._people.get(bond.user_id)
            if known is not None and bond.token == known.bond.token and (bond.stale or self._listens(listening, known)):
                continue
            task = listening.pop(bond.user_id, None)
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
            if known is not None:
                await known.aclose()
            self._people[bond.user_id] = person = self._person(bond)
            if not bond.stale:
                listening[bond.user_id] = group.create_task(person.listen(deliver), name=f"wechat ilink {bond.short}")
        self._note("")

    def _listens(self, listening: Mapping[str, asyncio.Task[None]], person: ILinkPerson) -> bool:
        return person.bond.user_id in listening and not person.bond.stale

    def _person(self, bond: Bond) -> ILinkPerson:
        return ILinkPerson(
            channel=self._channel,
            bond=bond,
            api=self._api,
            bonds=self._bonds,
            clock=self._clock,
            typing=self._typing,
            first_pause_s=2 * self._pause_s,
            hold_s=self._hold_s,
        )

    def _note(self, trouble: str) -> None:
        self._trouble = trouble
