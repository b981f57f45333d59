"""A custom robot of one DingTalk group: speaks and never hears."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from urllib.parse import parse_qs, urlsplit

from gateway.channels.base import Channel, ChannelLimits, Deliver, Markup, Receipt
from gateway.channels.dingtalk.callback import signature
from gateway.channels.dingtalk.compose import PIECE_BYTES, compose_message
from gateway.channels.dingtalk.verdicts import BLOCKED_S, check_robot
from gateway.channels.dingtalk.wire import Wire
from gateway.checkup import Finding, Health
from gateway.clock import Clock
from gateway.errors import ConfigError, SendError, SendLater, SendRefused
from gateway.messages import Outbound

PER_MINUTE = 20
"""More earn a silence of ten minutes (robot document, protocol page 2026-11)."""
LONGEST_QUEUE_S = 60.0

logger = logging.getLogger(__name__)


class Turns:
    """When each message may be sent: never more than twenty in any minute. Whoever would wait for more than a minute is sent away."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest: deque[float] = deque(maxlen=PER_MINUTE)
        self._blocked_until = 0.0

    async def wait(self) -> None:
        """Raises SendLater with the time until it is worth asking again."""
        now = self._clock.monotonic()
        earliest = self._latest[0] + 60.0 if len(self._latest) == PER_MINUTE else now
        turn = max(now, earliest, self._blocked_until)
        if turn - now > LONGEST_QUEUE_S:
            raise SendLater("too many messages wait for this robot", retry_after_s=turn - now - LONGEST_QUEUE_S + 1.0)
        self._latest.append(turn)
        await self._clock.sleep(turn - now)

    def block(self, seconds: float) -> None:
        """DingTalk has silenced the robot."""
        self._blocked_until = self._clock.monotonic() + seconds


class DingTalkWebhookChannel(Channel):
    """Everything sent goes to the one group of the robot, whatever the address says. Sends are not idempotent."""

    limits = ChannelLimits(markup=Markup.DINGTALK, max_bytes=PIECE_BYTES)

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        url: str = "",
        access_token: str = "",
        secret: str = "",
        keyword: str = "",
        oapi_base: str = "https://oapi.dingtalk.com",
        send_timeout_s: float = 15.0,
    ) -> None:
        """Either the whole `url` as DingTalk shows it, or only its `access_token`. `secret`: SEC…, when 加签 is chosen; `keyword`: one of
        自定义关键词, added to messages that lack it. Raises ConfigError, naming the key."""
        self.name = name
        self._access_token = access_token or _token_of(url)
        self._secret = secret
        self._keyword = keyword
        self._address = f"{oapi_base.rstrip('/')}/robot/send"
        self._clock = clock
        self._wire = Wire(bases=(oapi_base,), clock=clock, timeout_s=send_timeout_s)
        self._turns = Turns(clock)
        self._refusal = ""
        if not self._access_token:
            raise ConfigError("set url (the robot's Webhook address with its access_token) or access_token")

    def __repr__(self) -> str:
        return f"DingTalkWebhookChannel(name={self.name!r})"

    async def run(self, deliver: Deliver) -> None:
        """Hears nothing; waits to be cancelled."""
        await asyncio.get_running_loop().create_future()

    async def send(self, outbound: Outbound) -> Receipt:
        await self._turns.wait()
        body = compose_message(outbound, keyword=self._keyword)
        try:
            check_robot(await self._wire.post(self._address, body, query=self._query()))
        except SendLater as error:
            if error.retry_after_s >= BLOCKED_S:
                self._turns.block(error.retry_after_s)
            raise
        except SendRefused as error:
            self._refusal = str(error)
            raise
        self._refusal = ""
        return Receipt()

    def health(self) -> Health:
        return Health(True, f"the last message was refused: {self._refusal}" if self._refusal else "speaks only")

    async def checkup(self) -> list[Finding]:
        """Sends nothing, so whether the robot still exists is only seen with the next message."""
        what = f"the robot of {self.name} has an access_token"
        looks_right = not self._secret or self._secret.startswith("SEC")
        repair = "" if looks_right else "copy `secret` from 安全设置 → 加签; it begins with SEC"
        return [Finding(what, True), Finding("its secret looks like one", looks_right, repair), await self._reachable()]

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def _reachable(self) -> Finding:
        what = "DingTalk's webhooks can be reached"
        try:
            await self._wire.post(self._address, {})  # Without a token: shows nothing, and any answer will do.
        except SendError as error:
            return Finding(what, False, f"{error}. Can this machine reach oapi_base (firewall, proxy, DNS)?")
        return Finding(what, True)

    def _query(self) -> dict[str, str]:
        """Encoded once, by the HTTP client."""
        if not self._secret:
            return {"access_token": self._access_token}
        timestamp = str(int(self._clock.now().timestamp() * 1000))
        return {"access_token": self._access_token, "timestamp": timestamp, "sign": signature(timestamp, self._secret)}


def _token_of(url: str) -> str:
    if url and not url.startswith(("https://", "http://")):
        raise ConfigError("url must begin with https://; copy the whole Webhook address of the robot")
    return "".join(parse_qs(urlsplit(url).query).get("access_token", [])[:1])
