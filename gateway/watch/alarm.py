"""Tells the operator's people what is wrong and when it is over, through a channel that still works."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from gateway.channels.base import Channel
from gateway.clock import Clock
from gateway.errors import SendError, SendUncertain
from gateway.messages import Inbound, Lang, Outbound
from gateway.watch.admins import Admin, Admins, Reach
from gateway.watch.told import Told
from gateway.watch.trouble import Trouble, TroubleKey, channel_part
from gateway.wording import say

logger = logging.getLogger(__name__)

PAUSE_S = 60.0
"""Between two alarms; what happens meanwhile goes into one message."""
SEND_TIMEOUT_S = 30.0
MAX_LINES = 8
CAUSE_CHARS = 300
"""Of a cause, which may quote a platform's error."""
_KEPT_OVER = 50


class Alarm:
    """One message when a trouble begins, one when it is over. A trouble that comes back soon is not told again before its time.

    The admins are tried in order, first those on channels without trouble, until one message was taken. When nobody can be told,
    that is logged once as an error, and tried again every `retry_s` seconds and as soon as an admin writes.
    """

    def __init__(
        self, *, admins: Admins, told: Told, channels: Mapping[str, Channel], clock: Clock, pause_s: float = PAUSE_S, retry_s: float = 300.0
    ) -> None:
        self._admins = admins
        self._told = told
        self._channels = channels
        self._clock = clock
        self._pause_s = pause_s
        self._retry_s = retry_s
        self._open: Mapping[TroubleKey, Trouble] = {}
        self._over: dict[TroubleKey, tuple[Trouble, datetime]] = {}
        self._in_vain: set[TroubleKey] = set()
        self._something = asyncio.Event()
        self._serial = 0

    def heard(self, inbound: Inbound) -> None:
        """A message was accepted: when an admin wrote it, remember the way back. Waits for nothing, never raises."""
        if self._admins.heard(inbound):
            self._something.set()

    def note(self, open_now: Sequence[Trouble], over: Sequence[Trouble]) -> None:
        """What the watchdog found: all open troubles, and those that have just ended."""
        new = {trouble.key for trouble in open_now} - self._open.keys()
        self._open = {trouble.key: trouble for trouble in open_now}
        for trouble in over:
            if len(self._over) < _KEPT_OVER:
                self._over[trouble.key] = (trouble, self._clock.now())
        if new or over:
            self._something.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(self._pause_s if await self._safe_round() else 0)
            try:
                async with self._clock.timeout(self._next_look_s()):
                    await self._something.wait()
            except TimeoutError:
                pass
            self._something.clear()

    async def _safe_round(self) -> bool:
        try:
            return await self._round()
        except Exception:  # an alarm that ends for good would be the silence it is there to prevent
            logger.exception("Alarms could not be told; they are tried again.")
            return False

    def _next_look_s(self) -> float | None:
        """Only something open, or an end that nobody could be told yet, asks for a look without a new event."""
        return self._retry_s if self._open or self._over else None

    async def _round(self) -> bool:
        """Tell what must be told now, in one message; returns whether one was sent."""
        await self._admins.save()
        begun = [trouble for trouble in self._open.values() if await self._told.may_tell(trouble.key)]
        ended = [(trouble, at) for trouble, at in list(self._over.values()) if await self._may_tell_end(trouble)]
        if not begun and not ended:
            return False
        if self._admins.admins and not await self._tell(begun, ended):
            self._complain(begun)
            for trouble in begun:
                await self._told.not_told(trouble.key)
            return False
        for trouble, _ in ended:
            self._over.pop(trouble.key, None)
            await self._told.over(trouble.key)
        for trouble in begun:
            self._in_vain.discard(trouble.key)
            await self._told.told(trouble.key)
        return bool(self._admins.admins)

    async def _may_tell_end(self, trouble: Trouble) -> bool:
        """An end is forgotten when the trouble came back meanwhile, when its beginning was never told, or another process told the end."""
        may_tell = trouble.key not in self._open and await self._told.may_tell_end(trouble.key)
        if trouble.key in self._open or not self._told.is_told(trouble.key):
            self._over.pop(trouble.key, None)
        return may_tell

    async def _tell(self, begun: Sequence[Trouble], ended: Sequence[tuple[Trouble, datetime]]) -> bool:
        self._serial += 1
        for admin in self._in_order():
            reach = await self._admins.reach(admin)
            channel = self._channels.get(admin.channel)
            if reach is None or channel is None:
                continue
            text = _text(begun, ended, reach.lang)
            if await self._send(channel, reach, text):
                logger.info("Admin %s was told over channel %s: %d begun, %d over.", admin.sender, admin.channel, len(begun), len(ended))
                return True
        return False

    def _in_order(self) -> list[Admin]:
        """As configured, but those on a troubled channel last: some of those can still send."""
        troubled = {key.part for key in self._open}
        return sorted(self._admins.admins, key=lambda admin: channel_part(admin.channel) in troubled)

    async def _send(self, channel: Channel, reach: Reach, text: str) -> bool:
        key = f"alarm/{self._clock.now().isoformat()}/{self._serial}"
        fitting = _fit(text, channel.limits.max_bytes)
        outbound = Outbound(key=key, address=reach.address, text=fitting, ticket=reach.ticket, lang=reach.lang)
        try:
            async with self._clock.timeout(SEND_TIMEOUT_S):
                await channel.send(outbound)
        except SendUncertain as error:
            logger.warning("It is not known whether an alarm over channel %s was shown: %s", channel.name, error)
        except (SendError, TimeoutError) as error:
            logger.info("No alarm over channel %s: %s", channel.name, str(error) or "it took too long")
            return False
        except Exception:  # a bug in one channel must not keep the alarm from the next
            logger.exception("Channel %s broke over an alarm.", channel.name)
            return False
        return True

    def _complain(self, begun: Sequence[Trouble]) -> None:
        """Once for each trouble."""
        new = [trouble for trouble in begun if trouble.key not in self._in_vain]
        self._in_vain = {trouble.key for trouble in begun}
        for trouble in new:
            logger.error(
                "Nobody in alarms.to can be told about %s (%s): %s Each must have written to the bot in private; it is tried again.",
                trouble.part,
                trouble.kind.value,
                trouble.cause,
            )


def _text(begun: Sequence[Trouble], ended: Sequence[tuple[Trouble, datetime]], lang: Lang) -> str:
    lines = [_begun_line(trouble, lang) for trouble in begun] + [_ended_line(trouble, at, lang) for trouble, at in ended]
    more = [say("alarm_more", lang, count=len(lines) - MAX_LINES)] if len(lines) > MAX_LINES else []
    return "\n\n".join([*lines[:MAX_LINES], *more])


def _begun_line(trouble: Trouble, lang: Lang) -> str:
    cause = trouble.cause if len(trouble.cause) <= CAUSE_CHARS else trouble.cause[:CAUSE_CHARS] + "…"
    since = f"{trouble.since.astimezone(UTC):%m-%d %H:%M} UTC"
    return say("alarm_begun", lang, what=_name(trouble, lang), since=since, help=say(f"help_{trouble.kind.value}", lang), cause=cause)


def _ended_line(trouble: Trouble, at: datetime, lang: Lang) -> str:
    minutes = max(1, round((at - trouble.since) / timedelta(minutes=1)))
    return say("alarm_over", lang, what=_name(trouble, lang), minutes=minutes)


def _name(trouble: Trouble, lang: Lang) -> str:
    return say(f"trouble_{trouble.kind.value}", lang, part=trouble.part.removeprefix("channel "))


def _fit(text: str, max_bytes: int) -> str:
    """`text` within the limit, never half a character."""
    return text.encode()[:max_bytes].decode("utf-8", "ignore")
