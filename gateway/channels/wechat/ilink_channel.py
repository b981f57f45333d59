"""Personal WeChat over Tencent's official bot API as a channel: what the platform allows, and that late answers are parked."""

from __future__ import annotations

from gateway.channels.base import ChannelLimits, Markup, Receipt
from gateway.channels.seat import Seat
from gateway.channels.wechat.channel import WeChatChannel
from gateway.channels.wechat.ilink_compose import MAX_CHARS, hint_chars
from gateway.channels.wechat.ilink_transport import ILinkTransport
from gateway.errors import SendLater
from gateway.messages import Outbound


class ILinkChannel(WeChatChannel):
    """Private chats with everybody who bound a bot. With a `seat`, one of several processes hears and speaks."""

    def __init__(self, *, name: str, transport: ILinkTransport, seat: Seat | None = None) -> None:
        super().__init__(name=name, transport=transport, seat=seat)
        self.limits = ChannelLimits(markup=Markup.PLAIN, max_bytes=4 * MAX_CHARS, max_chars=MAX_CHARS - hint_chars(), parks=True)
        self._ilink = transport

    async def send(self, outbound: Outbound) -> Receipt:
        if not self.can_show():
            raise SendLater("another process holds this account", retry_after_s=5)
        return Receipt(await self._ilink.send(outbound))

    async def sign_in(self) -> str:
        """Bind one more person; see ILinkTransport."""
        return await self._ilink.sign_in()
