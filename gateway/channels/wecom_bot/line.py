"""One WebSocket to WeCom and the frames on it that wait for their acknowledgement. The only file that knows websockets."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.protocol import State

from gateway.channels.wecom_bot.compose import compose_frame
from gateway.channels.wecom_bot.parse import Frame, Raw
from gateway.clock import Clock
from gateway.errors import ConfigError, GatewayError, SendLater, SendUncertain

ACK_S = 5.0
"""WeCom's own clients wait so long for the acknowledgement of a frame (SDK 1.0.2)."""
OPEN_S = 10.0
FRAME_BYTES = 4 * 2**20
LOST_S = 2.0
"""When to ask again after a connection was lost."""
_MISSED_ACKS = 2

_quiet = logging.getLogger(f"{__name__}.wire")
_quiet.setLevel(logging.WARNING)  # Below that websockets prints frames, and with them the secret.


class OpenFailed(GatewayError):
    """WeCom's address cannot be reached, or does not speak as it should."""


class NoConnection(SendLater):
    """There is no connection to send on; nothing was sent."""


class Line:
    """One WebSocket. Somebody must call `next` again and again, or no acknowledgement is seen."""

    def __init__(self, socket: ClientConnection, clock: Clock) -> None:
        self._socket = socket
        self._clock = clock
        self._waiting: dict[str, asyncio.Future[Frame]] = {}
        self._missed_acks = 0
        self.opened_at = clock.monotonic()
        self.taken_over = False
        self.over = asyncio.Event()
        """Set when it is of no more use."""

    async def next(self) -> str | bytes | None:
        """What WeCom says next; None at the end."""
        try:
            return await self._socket.recv()
        except ConnectionClosed:
            return None

    async def ask(self, cmd: str, req_id: str, body: Raw | None = None) -> Frame:
        """Send a frame and wait for its acknowledgement; frames with one `req_id` go one after the other.

        Raises NoConnection when it surely was not sent, SendUncertain when nobody can know.
        """
        while (ahead := self._waiting.get(req_id)) is not None:
            await asyncio.wait((ahead,))
        if self._socket.state is not State.OPEN or self.over.is_set():
            raise NoConnection("the connection was lost", retry_after_s=LOST_S)
        waiter: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[req_id] = waiter
        try:
            async with self._clock.timeout(ACK_S):
                await self._socket.send(compose_frame(cmd, req_id, body))
                ack = await waiter
        except ConnectionClosed as error:
            raise SendUncertain("the connection broke while sending") from error
        except TimeoutError as error:
            self._miss_ack()
            raise SendUncertain(f"WeCom did not acknowledge within {ACK_S:.0f} s") from error
        finally:
            if self._waiting.get(req_id) is waiter:
                del self._waiting[req_id]
            waiter.cancel()
        self._missed_acks = 0
        return ack

    def acknowledged(self, frame: Frame) -> None:
        """One that comes too late, or for nothing, is nobody's."""
        waiter = self._waiting.pop(frame.req_id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(frame)

    def end(self) -> None:
        """Nothing more is acknowledged."""
        self.over.set()
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(SendUncertain("the connection broke before WeCom acknowledged"))
        self._waiting.clear()

    async def close(self) -> None:
        self.end()
        await self._socket.close()

    def _miss_ack(self) -> None:
        self._missed_acks += 1
        if self._missed_acks >= _MISSED_ACKS:
            self.over.set()


async def opened_line(url: str, clock: Clock) -> Line:
    """Raises OpenFailed."""
    host = urlsplit(url).hostname or ""
    try:
        socket = await connect(
            url,
            logger=_quiet,
            proxy=None if _is_loopback(host) else True,
            user_agent_header="chat-gateway",
            open_timeout=OPEN_S,
            ping_interval=None,  # WeCom's own ping frames do that; its servers are not known to answer the protocol's.
            close_timeout=1,
            max_size=FRAME_BYTES,
        )
    except (InvalidURI, ValueError):
        raise OpenFailed("base_url is no WebSocket address") from None
    except ImportError as error:
        raise OpenFailed("the environment names a SOCKS proxy, which is not supported; set an http:// one or NO_PROXY") from error
    except (WebSocketException, OSError, TimeoutError) as error:
        raise OpenFailed(f"the WebSocket to {host} could not be opened: {type(error).__name__}") from error
    return Line(socket, clock)


def socket_url(base_url: str, channel: str) -> str:
    """`wss://…`, also for an address given as `https://…`. Raises ConfigError; unencrypted only on this machine."""
    parts = urlsplit(base_url)
    scheme = {"https": "wss", "http": "ws"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigError(f"channels.{channel}.base_url must be a wss:// address")
    if scheme == "ws" and not _is_loopback(parts.hostname):
        raise ConfigError(f"channels.{channel}.base_url must be wss://: the bot's secret would cross the network unencrypted")
    return parts._replace(scheme=scheme).geturl()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
