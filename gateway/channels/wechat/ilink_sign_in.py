"""Binding a person: a QR code that they scan with their own WeChat, through every state that Tencent's API knows."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import segno

from gateway.channels.wechat.ilink_api import CodeState, CodeStatus, ILinkApi, QrCode
from gateway.channels.wechat.ilink_bonds import Bond
from gateway.channels.wechat.ilink_wire import ForeignHost, Wire
from gateway.channels.wechat.login_state import write_private
from gateway.channels.wechat.sign_in import Note, Show, to_stderr
from gateway.channels.wechat.threads import in_thread
from gateway.channels.wechat.transport import Unreachable
from gateway.clock import Clock
from gateway.errors import ChannelError

logger = logging.getLogger(__name__)

AskDigits: TypeAlias = Callable[[str], Awaitable[str]]
"""Puts a question in front of the operator and returns the digits typed; empty when nobody is there."""

NEEDS = "WeChat on the phone must be new enough for the ClawBot plug-in (iOS 8.0.70, Android 8.0.69)"


async def ask_on_terminal(question: str) -> str:
    """The `AskDigits` of a gateway that somebody started by hand."""
    to_stderr(question)
    return await in_thread("wechat-digits", sys.stdin.readline)


def somebody_there() -> AskDigits | None:
    """Whom to ask for digits: the terminal, if there is one."""
    return ask_on_terminal if sys.stdin is not None and sys.stdin.isatty() else None


class AlreadyBound(Exception):
    """Who scanned has a bot of ours already; its sign-in stays good."""


class _CodeOver(Exception):
    """This code leads nowhere; show another."""


class ILinkSignIn:
    """Shows codes until one is scanned and confirmed. Bounded: so many codes, each for so long, then ChannelError."""

    def __init__(
        self,
        *,
        api: ILinkApi,
        wire: Wire,
        base_url: str,
        clock: Clock,
        png_path: Path,
        show: Show = to_stderr,
        ask: AskDigits | None = None,
        max_codes: int = 4,
        code_lifetime_s: float = 300,
        pause_s: float = 1,
    ) -> None:
        """`ask`: None when nobody sits at a terminal; a phone that shows digits then cannot sign in.

        A code lives about two minutes at the server; `code_lifetime_s` bounds it should the server forget to say so.
        """
        self._api = api
        self._wire = wire
        self._base_url = base_url
        self._clock = clock
        self._png_path = png_path
        self._show = show
        self._ask = ask
        self._max_codes = max_codes
        self._code_lifetime_s = code_lifetime_s
        self._pause_s = pause_s

    async def by_code(self, known: Sequence[Bond], note: Note) -> Bond:
        """The new bond. Raises AlreadyBound, or ChannelError when nobody signed in.

        `known`: the bonds there are; their tokens tell the platform who is bound here already.
        """
        tokens = [bond.token for bond in sorted(known, key=lambda bond: bond.bound_at, reverse=True)]
        for number in range(1, self._max_codes + 1):
            code = await self._new_code(tokens)
            note(f"needs_login: scan the QR code in {self._png_path} (code {number} of {self._max_codes})")
            await self._present(code.url)
            try:
                return await self._confirmed(code, note)
            except _CodeOver:
                logger.info("WeChat QR code %d of %d is over", number, self._max_codes)
            finally:
                self._png_path.unlink(missing_ok=True)
        raise ChannelError(f"nobody signed in with {self._max_codes} QR codes. {NEEDS}. Then run `gateway sign-in`")

    async def _new_code(self, tokens: Sequence[str]) -> QrCode:
        for pause in (1, 2, 4, 8, 15):
            try:
                return await self._api.new_code(self._base_url, tokens)
            except Unreachable as error:
                logger.warning("iLink gives no QR code (%s); trying again", error)
                await self._clock.sleep(pause * self._pause_s)
        raise ChannelError("iLink gives no QR code: check the network, proxy and base_url")

    async def _present(self, url: str) -> None:
        code = segno.make(url, error="l", micro=False)
        terminal, picture = io.StringIO(), io.BytesIO()
        code.terminal(terminal, compact=True)
        code.save(picture, kind="png", scale=8)
        await in_thread("wechat-sign-in", lambda: self._save_picture(picture.getvalue()))
        self._show(
            f"\n{terminal.getvalue()}\nScan this code with WeChat to get a bot of your own.\nPicture: {self._png_path}\nCode: {url}\n"
        )
        logger.warning("WeChat needs a sign-in: scan the QR code in the terminal or in %s", self._png_path)

    def _save_picture(self, picture: bytes) -> None:
        with contextlib.suppress(OSError):  # the terminal shows it, too
            self._png_path.parent.mkdir(parents=True, exist_ok=True)
            write_private(self._png_path, picture)

    async def _confirmed(self, code: QrCode, note: Note) -> Bond:
        """Raises _CodeOver, AlreadyBound, ChannelError."""
        deadline_s = self._clock.monotonic() + self._code_lifetime_s
        base_url, digits = self._base_url, ""
        while self._clock.monotonic() < deadline_s:
            try:
                status = await self._api.code_status(base_url, code.id, digits)
            except Unreachable as error:
                logger.info("Asking for the state of the QR code failed (%s); asking again", error)
                await self._clock.sleep(self._pause_s)
                continue
            if status.status == CodeState.CONFIRMED:
                return self._bond(status, base_url)
            base_url = self._next_place(status, base_url)
            digits = await self._next_digits(status, digits, note)
            await self._clock.sleep(self._pause_s)
        raise _CodeOver

    def _next_place(self, status: CodeStatus, base_url: str) -> str:
        """Where to go on asking. Raises when this code, or the whole sign-in, is over."""
        if status.status in (CodeState.EXPIRED, CodeState.BLOCKED):
            raise _CodeOver
        if status.status == CodeState.KNOWN:
            raise AlreadyBound
        if status.status != CodeState.REDIRECTED or not status.redirect_host:
            return base_url
        try:
            return self._wire.beside(self._base_url, status.redirect_host)
        except ForeignHost as error:
            raise ChannelError(f"the sign-in was stopped: {error}") from error

    async def _next_digits(self, status: CodeStatus, digits: str, note: Note) -> str:
        """What to send with the next question: the digits on the phone until they were found right."""
        if status.status == CodeState.SCANNED:
            note("needs_login: scanned, press confirm on the phone")
            return ""
        if status.status != CodeState.NEEDS_DIGITS:
            return digits
        if self._ask is None:
            raise ChannelError("the phone shows digits that must be typed here: run `gateway sign-in` in a terminal")
        note("needs_login: type the digits that the phone shows")
        typed = (await self._ask("Those digits were wrong. Digits on the phone: " if digits else "Digits on the phone: ")).strip()
        if not typed.isascii() or not typed.isdigit():
            return "0"  # wrong for sure: the phone asks again, and the platform counts
        return typed[:16]

    def _bond(self, status: CodeStatus, base_url: str) -> Bond:
        if not (status.token and status.user_id and status.bot_id):
            raise ChannelError("iLink confirmed the sign-in without saying who signed in; try again later")
        try:
            home = self._wire.must_be_known(status.base_url or base_url)
        except ForeignHost as error:
            raise ChannelError(f"the sign-in was stopped: {error}") from error
        return Bond(user_id=status.user_id, bot_id=status.bot_id, token=status.token, base_url=home, bound_at=self._clock.now())
