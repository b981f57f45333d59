"""Signing in with the phone: a QR code in the terminal and as a picture, or a confirmation on the phone that signed in last."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

import segno

from gateway.channels.wechat.login_state import write_private
from gateway.channels.wechat.poll import Poll
from gateway.channels.wechat.threads import in_thread
from gateway.channels.wechat.transport import Unreachable
from gateway.clock import Clock
from gateway.errors import ChannelError

logger = logging.getLogger(__name__)

CODE_URL = "https://login.weixin.qq.com/l/"

Show: TypeAlias = Callable[[str], None]
"""Puts text in front of the operator, e.g. on stderr. It may hold a live QR code: whoever scans it lends this gateway an account."""
Note: TypeAlias = Callable[[str], None]
"""Takes the state of the sign-in in words, for the health page."""


class LoginSteps(Protocol):
    """The blocking steps of a sign-in; `ItchatDoor` has them."""

    def new_code(self) -> str: ...
    def push(self) -> str | None: ...
    def poll(self, uuid: str) -> Poll: ...


def to_stderr(text: str) -> None:
    """The default `Show`."""
    sys.stderr.write(text)
    sys.stderr.flush()


class SignIn:
    """Brings one account in. Bounded: so many codes, each for so long, then ChannelError."""

    def __init__(
        self,
        *,
        clock: Clock,
        png_path: Path,
        show: Show = to_stderr,
        max_codes: int = 5,
        code_lifetime_s: float = 240,
        poll_pause_s: float = 0.5,
        scanned_pause_s: float = 5,
    ) -> None:
        """`code_lifetime_s`: also a code that was scanned and never confirmed is given up after that.

        `scanned_pause_s`: after a scan WeChat answers polls at once, and a client that polls in a tight loop is dropped before the
        person can press "confirm" (ItChat issue 760), hence a pause.
        """
        self._clock = clock
        self._png_path = png_path
        self._show = show
        self._max_codes = max_codes
        self._code_lifetime_s = code_lifetime_s
        self._poll_pause_s = poll_pause_s
        self._scanned_pause_s = scanned_pause_s

    async def by_code(self, steps: LoginSteps, note: Note) -> None:
        """Show codes until one is scanned and confirmed. Raises ChannelError when all of them went by."""
        for number in range(1, self._max_codes + 1):
            uuid = await self._new_code(steps)
            note(f"needs sign-in: scan the QR code in {self._png_path} (code {number} of {self._max_codes})")
            await self._present(CODE_URL + uuid)
            try:
                if await self._confirmed(steps, uuid, note):
                    return
            finally:
                self._png_path.unlink(missing_ok=True)
            logger.info("WeChat QR code %d of %d expired", number, self._max_codes)
        raise ChannelError(
            f"nobody signed in with {self._max_codes} QR codes; have the phone ready and restart the gateway, or run `gateway sign-in`"
        )

    async def by_push(self, steps: LoginSteps, note: Note) -> bool:
        """Ask the phone that signed in last to confirm; False when WeChat refuses or nobody confirms."""
        uuid = await in_thread("wechat-sign-in", steps.push)
        if uuid is None:
            return False
        logger.warning("WeChat asks on the phone whether to sign in again; please confirm there")
        note("needs sign-in: confirm on the phone")
        return await self._confirmed(steps, uuid, note)

    async def _new_code(self, steps: LoginSteps) -> str:
        for pause_s in (1, 2, 4, 8, 15, 30):
            try:
                return await in_thread("wechat-sign-in", steps.new_code)
            except Unreachable as error:
                logger.warning("WeChat gives no QR code (%s); trying again in %d s", error, pause_s)
                await self._clock.sleep(pause_s)
        raise ChannelError("WeChat gives no QR code: check the network, proxy and base_url")

    async def _present(self, url: str) -> None:
        code = segno.make(url, error="l", micro=False)
        terminal, picture = io.StringIO(), io.BytesIO()
        code.terminal(terminal, compact=True)
        code.save(picture, kind="png", scale=8)
        await in_thread("wechat-sign-in", lambda: self._save_picture(picture.getvalue()))
        self._show(f"\n{terminal.getvalue()}\nScan this code with WeChat to sign in.\nPicture: {self._png_path}\nCode: {url}\n")
        logger.warning("WeChat needs a sign-in: scan the QR code in the terminal or in %s", self._png_path)

    def _save_picture(self, picture: bytes) -> None:
        with contextlib.suppress(OSError):  # the terminal shows it, too
            self._png_path.parent.mkdir(parents=True, exist_ok=True)
            write_private(self._png_path, picture)

    async def _confirmed(self, steps: LoginSteps, uuid: str, note: Note) -> bool:
        deadline_s = self._clock.monotonic() + self._code_lifetime_s
        while self._clock.monotonic() < deadline_s:
            try:
                state = await in_thread("wechat-sign-in", lambda: steps.poll(uuid))
            except Unreachable:
                await self._clock.sleep(max(self._poll_pause_s, 1))
                continue
            if state in (Poll.CONFIRMED, Poll.EXPIRED):
                return state is Poll.CONFIRMED
            if state is Poll.SCANNED:
                note("needs sign-in: scanned, press confirm on the phone")
            await self._clock.sleep(self._scanned_pause_s if state is Poll.SCANNED else self._poll_pause_s)
        return False
