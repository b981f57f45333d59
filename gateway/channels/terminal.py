"""The smallest complete channel, and the one to read first: a person at a terminal. Behind `gateway chat`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import TextIO
from uuid import uuid4

from gateway.channels.base import Admission, Channel, ChannelLimits, Deliver, Markup, Receipt
from gateway.channels.keyboard import Keyboard, Lines
from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.messages import Address, Inbound, Outbound, ReplyTicket, Text
from gateway.wording import language_of, say

QUIT_WORDS = frozenset({"/quit", "/exit"})
PATIENCE_S = 180.0
"""How long the end of the input waits for answers that are still being made."""


class TerminalChannel(Channel):
    """One person, one conversation. `run` ends by itself at the end of the input or after `/quit`, when the last answer was shown."""

    limits = ChannelLimits(markup=Markup.MARKDOWN, max_bytes=100_000, grows=True)

    def __init__(
        self, *, name: str, clock: Clock, reader: Lines | None = None, writer: TextIO | None = None, prompt: str | None = None
    ) -> None:
        """Without `reader` and `writer`: standard input and output. Without `prompt`: one when a person sits at both ends."""
        self.name = name
        self._clock = clock
        self._writer = writer or sys.stdout
        person_there = reader is None and sys.stdin.isatty() and self._writer.isatty()
        self._reader = reader or Keyboard(sys.stdin.fileno())
        self._prompt = prompt if prompt is not None else ("> " if person_there else "")
        self._address = Address(channel=name, account="terminal", chat="person", sender="person")
        self._unanswered: set[str] = set()
        self._all_answered = asyncio.Event()

    async def run(self, deliver: Deliver) -> None:
        self._write(self._prompt)
        while line := await self._reader.readline():
            text = line.decode(errors="replace").strip()
            if text in QUIT_WORDS:
                break
            if not text or not await self._hand_in(text, deliver):
                self._write(self._prompt)
        await self._wait_for_the_last_answer()

    async def _hand_in(self, text: str, deliver: Deliver) -> bool:
        """Whether there will be an answer."""
        message = uuid4().hex
        ticket = ReplyTicket(token={"message": message})
        inbound = Inbound(id=message, address=self._address, parts=(Text(text),), sent_at=self._clock.now(), ticket=ticket)
        self._unanswered.add(message)
        try:
            admitted = await deliver(inbound)
        except StoreUnavailable:
            self._write(say(StoreUnavailable.for_user, language_of(text)) + "\n")
        else:
            if admitted.admission is Admission.ACCEPTED:
                return True
        self._unanswered.discard(message)
        return False

    async def _wait_for_the_last_answer(self) -> None:
        if not self._unanswered:
            return
        self._all_answered.clear()
        try:
            async with self._clock.timeout(PATIENCE_S):
                await self._all_answered.wait()
        except TimeoutError:
            return

    async def send(self, outbound: Outbound) -> Receipt:
        self._write(outbound.text)
        return self._shown(outbound)

    async def send_growing(self, head: Outbound, texts: AsyncGenerator[str, None]) -> Receipt:
        async for text in texts:
            self._write(text)
        return self._shown(head)

    def _shown(self, outbound: Outbound) -> Receipt:
        self._write(f"\n{self._prompt}")
        self._unanswered.discard(outbound.ticket.token.get("message", ""))
        if not self._unanswered:
            self._all_answered.set()
        return Receipt()

    def _write(self, text: str) -> None:
        self._writer.write(text)
        self._writer.flush()
