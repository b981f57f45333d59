"""One WeCom intelligent bot, heard and answered over its long connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence

from gateway.channels.base import Channel, ChannelLimits, Deliver, Markup, Receipt
from gateway.channels.wecom_bot.budget import Budget
from gateway.channels.wecom_bot.compose import PIECE_BYTES, WELCOME, compose_welcome
from gateway.channels.wecom_bot.growing import Cut, Growing
from gateway.channels.wecom_bot.line import OpenFailed
from gateway.channels.wecom_bot.link import Link, Seat
from gateway.channels.wecom_bot.parse import MESSAGE, Frame, Unreadable, parse_event, parse_message
from gateway.channels.wecom_bot.speech import Speech
from gateway.channels.wecom_bot.verdicts import ReplyClosed, StreamOver
from gateway.checkup import Finding, Health
from gateway.clock import Clock
from gateway.errors import SendError, SendUncertain, StoreError, StoreUnavailable
from gateway.messages import Inbound, Outbound

BASE_URL = "wss://openws.work.weixin.qq.com"
DELIVER_TIMEOUT_S = 20.0
"""A ledger that takes longer is treated as one that cannot write."""
HAND_IN_AGAIN_S = 5.0
KEPT_MESSAGES = 1_000
KEPT_BROKEN = 100
CLOSING_S = 10.0
"""A stream ends so long before WeCom would no longer let it be changed."""

logger = logging.getLogger(__name__)


class WeComBotChannel(Channel):
    """A bot in long-connection mode. Answers grow as streams, whose frames WeCom shows as one message; where a stream can no longer be
    changed (5 minutes after the question, more than 20 000 bytes) the rest comes as a message of its own.

    WeCom tells a message once and wants no acknowledgement: what cannot be stored yet waits here, in order.
    """

    limits = ChannelLimits(markup=Markup.MARKDOWN, max_bytes=PIECE_BYTES, grows=True, idempotent=True)

    def __init__(
        self,
        *,
        name: str,
        bot_id: str,
        secret: str,
        clock: Clock,
        cut: Cut,
        base_url: str = BASE_URL,
        bot_name: str = "",
        welcome: str | None = None,
        seat: Seat | None = None,
    ) -> None:
        """`cut`: cuts Markdown. `bot_name`: as people see it, taken out of group messages; empty: the first `@word` is.
        `welcome`: said when somebody opens the chat for the first time on a day. `seat`: where several processes share a store."""
        self.name = name
        self._bot_id = bot_id
        self._bot_name = bot_name
        self._welcome = welcome
        self._clock = clock
        self._cut = cut
        self._link = Link(name=name, bot_id=bot_id, secret=secret, base_url=base_url, clock=clock, hear=self._hear, seat=seat)
        self._speech = Speech(link=self._link, clock=clock, budget=Budget())
        self._linking: asyncio.Task[None] | None = None
        self._hearing = False
        self._heard: asyncio.Queue[Inbound] = asyncio.Queue(KEPT_MESSAGES)
        self._broken_off: dict[str, Growing] = {}
        self._welcomes: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"WeComBotChannel(name={self.name!r}, bot_id={self._bot_id!r})"

    async def run(self, deliver: Deliver) -> None:
        """The connection outlives this: answers still go over it until `aclose`."""
        if self._linking is None or self._linking.done():
            self._linking = asyncio.create_task(self._link.run(), name=f"{self.name}-link")
        handing_in = asyncio.create_task(self._hand_in_all(deliver), name=f"{self.name}-hand-in")
        self._hearing = True
        try:
            done, _ = await asyncio.wait((self._linking, handing_in), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._hearing = False
            handing_in.cancel()
            await asyncio.gather(handing_in, return_exceptions=True)
            await self._hand_in_rest(deliver)

    async def send(self, outbound: Outbound) -> Receipt:
        if not self._answers(outbound):
            await self._speech.markdown(outbound.address, outbound.text)
            return Receipt()
        growing = self._broken_off.pop(outbound.key, None) or self._growing(outbound)
        growing.add(f"\n\n{outbound.text}" if growing.text else outbound.text)
        try:
            await self._show_rest(outbound, growing)
        except StreamOver as error:
            raise SendUncertain(f"an earlier run may have shown this answer: {error}") from error
        return Receipt()

    async def send_growing(self, head: Outbound, texts: AsyncGenerator[str, None]) -> Receipt:
        growing = self._growing(head)
        showing = asyncio.create_task(growing.show_now_and_then(lambda text, last: self._show(head, text, last)), name=f"{self.name}-grow")
        complete = False
        try:
            async for words in texts:
                growing.add(words)
            complete = True
        finally:
            growing.end()
            await showing  # A frame on its way is waited for: its acknowledgement must not be taken for that of the next one.
            if not complete and growing.shown:
                self._keep_broken(head.key, growing)
        await self._show_rest(head, growing, anew=True)
        return Receipt()

    def can_show(self) -> bool:
        return self._link.seated

    def health(self) -> Health:
        return self._link.health()

    async def checkup(self) -> list[Finding]:
        """Does not subscribe: that would take the bot away from a gateway that runs."""
        what = "WeCom's long connection can be opened (bot_id and secret are tried by the running gateway only, see /readyz)"
        try:
            await self._link.knock()
        except OpenFailed as error:
            return [Finding(what, False, f"{error}. Can this machine reach the base_url of the channel (firewall, proxy, DNS, clock)?")]
        return [Finding(what, True)]

    async def aclose(self) -> None:
        tasks = [*self._welcomes, *([self._linking] if self._linking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Hearing

    def _hear(self, frame: Frame) -> None:
        if frame.cmd != MESSAGE:
            self._note_event(frame)
            return
        try:
            inbound = parse_message(frame, channel=self.name, account=self._bot_id, received_at=self._clock.now(), bot_name=self._bot_name)
        except Unreadable as error:
            logger.warning("Channel %s: a message was skipped: %s.", self.name, error)
            return
        if not self._hearing or self._heard.full():
            why = "too many wait for the store" if self._hearing else "the gateway is stopping"
            logger.error("Channel %s: message %s is lost, for %s and WeCom does not tell it again.", self.name, inbound.id, why)
            return
        self._heard.put_nowait(inbound)

    def _note_event(self, frame: Frame) -> None:
        event = parse_event(frame.body)
        logger.info("Channel %s heard of %s (%s).", self.name, event.kind, frame.cmd)
        if event.kind == "enter_chat" and self._welcome and self._hearing and len(self._welcomes) < KEPT_BROKEN:
            task = asyncio.create_task(self._greet(frame.req_id, self._welcome), name=f"{self.name}-welcome")
            self._welcomes.add(task)
            task.add_done_callback(self._welcomes.discard)

    async def _greet(self, req_id: str, welcome: str) -> None:
        """Within 5 seconds or never, so there is one attempt."""
        try:
            await self._link.ask(WELCOME, compose_welcome(welcome), req_id=req_id)
        except SendError as error:
            logger.info("Channel %s could not say welcome: %s", self.name, error)

    async def _hand_in_all(self, deliver: Deliver) -> None:
        while True:
            inbound = await self._heard.get()
            try:
                await self._hand_in(deliver, inbound)
            except asyncio.CancelledError:
                self._put_back(inbound)
                raise

    async def _hand_in(self, deliver: Deliver, inbound: Inbound) -> None:
        """Until it is on disk; those behind it wait, so that the order is kept."""
        while True:
            try:
                return await self._deliver(deliver, inbound)
            except StoreError as error:
                logger.warning(
                    "Channel %s: message %s and %d others wait for the store: %s", self.name, inbound.id, self._heard.qsize(), error
                )
                await self._clock.sleep(HAND_IN_AGAIN_S)

    async def _hand_in_rest(self, deliver: Deliver) -> None:
        """Hearing ends; what was heard is still written down, if the store takes it now."""
        while not self._heard.empty():
            inbound = self._heard.get_nowait()
            try:
                await self._deliver(deliver, inbound)
            except StoreError as error:
                logger.error("Channel %s: message %s and %d others are lost: %s", self.name, inbound.id, self._heard.qsize(), error)
                return

    async def _deliver(self, deliver: Deliver, inbound: Inbound) -> None:
        try:
            async with self._clock.timeout(DELIVER_TIMEOUT_S):
                admitted = await deliver(inbound)
        except TimeoutError as error:
            raise StoreUnavailable(f"the message was not on disk after {DELIVER_TIMEOUT_S:.0f} s") from error
        logger.info("Channel %s heard message %s: %s.", self.name, inbound.id, admitted.admission.value)

    def _put_back(self, inbound: Inbound) -> None:
        """To the front. Handed in twice it is a duplicate, handed in never it is lost."""
        behind = [inbound]
        while not self._heard.empty():
            behind.append(self._heard.get_nowait())
        for one in behind[:KEPT_MESSAGES]:
            self._heard.put_nowait(one)

    # Showing

    def _answers(self, outbound: Outbound) -> bool:
        """Whether these words are the answer to a message; others are a farewell, a word in between, or a reminder."""
        return outbound.key.startswith(f"{self.name}/") and outbound.key.endswith("/0") and bool(outbound.ticket.token.get("req_id"))

    def _growing(self, head: Outbound) -> Growing:
        lasts_s = self._speech.stream_lasts_s(head) - CLOSING_S
        return Growing(clock=self._clock, cut=self._cut, max_bytes=PIECE_BYTES, lasts_s=lasts_s)

    async def _show(self, head: Outbound, text: str, last: bool) -> bool:
        if not last:
            return await self._speech.snapshot(head, text)
        await self._speech.finish(head, text)
        return True

    async def _show_rest(self, head: Outbound, growing: Growing, *, anew: bool = False) -> None:
        """The end of an answer: into its stream if that is open, else as messages of their own.

        Raises StreamOver when the stream ended before this process said anything in it and the answer is not made `anew`: then it was
        finished before the gateway died, or it was never seen."""
        pieces = growing.pieces()
        if growing.closed is None and pieces:
            try:
                await self._speech.finish(head, pieces[0])
                pieces = pieces[1:]
            except StreamOver:
                if not (anew or growing.shown):
                    raise
            except ReplyClosed as error:
                logger.info("Channel %s answers %s with a message of its own: %s", self.name, head.key, error)
        await self._say(head, pieces)

    async def _say(self, head: Outbound, pieces: Sequence[str]) -> None:
        for piece in pieces:
            await self._speech.markdown(head.address, piece, patiently=True)

    def _keep_broken(self, key: str, growing: Growing) -> None:
        """The sentence that explains it belongs below the words that a person sees already."""
        self._broken_off[key] = growing
        while len(self._broken_off) > KEPT_BROKEN:
            self._broken_off.pop(next(iter(self._broken_off)))
