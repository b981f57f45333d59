"""What the gateway says → the plain text that WeChat shows. Pure."""

from __future__ import annotations

from gateway.channels.wechat.mention import MENTION_END
from gateway.messages import Outbound


def compose(outbound: Outbound, *, reply_prefix: str = "") -> str:
    """The text to send: in a group the person called by name in front, in private `reply_prefix` on a line of its own.

    `@name` and U+2005 is what a phone writes; on this protocol it is plain text, so whether the person's phone rings is up to WeChat.
    """
    text = _well_formed(outbound.text)
    if not outbound.address.in_group:
        return f"{reply_prefix}\n{text}" if reply_prefix else text
    name = outbound.mention.name.replace(MENTION_END, " ").strip() if outbound.mention else ""
    return f"@{_well_formed(name)}{MENTION_END}{text}" if name else text


def _well_formed(text: str) -> str:
    """Without lone surrogates, which no platform can be sent."""
    return text.encode("utf-8", "replace").decode("utf-8")
