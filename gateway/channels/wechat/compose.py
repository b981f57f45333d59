"""What the gateway says → the plain text that WeChat shows. Pure."""

from __future__ import annotations

from gateway.channels.wechat.mention import MENTION_END
from gateway.channels.wechat.people import People
from gateway.errors import SendRefused
from gateway.messages import Address, Outbound, ReplyTicket


def compose(outbound: Outbound, *, reply_prefix: str = "") -> str:
    """The text to send: in a group the person called by name in front, in private `reply_prefix` on a line of its own.

    `@name` and U+2005 is what a phone writes; on this protocol it is plain text, so whether the person's phone rings is up to WeChat.
    """
    text = _well_formed(outbound.text)
    if not outbound.address.in_group:
        return f"{reply_prefix}\n{text}" if reply_prefix else text
    name = outbound.mention.name.replace(MENTION_END, " ").strip() if outbound.mention else ""
    return f"@{_well_formed(name)}{MENTION_END}{text}" if name else text


def receiver(address: Address, ticket: ReplyTicket, people: People) -> str:
    """The UserName to send to. Within the login of the question its ticket tells it exactly; later the name must be unique.

    Raises SendRefused rather than guess.
    """
    if ticket.token.get("login") == people.me.user_name:
        return ticket.token["user_name"]
    to = people.user_name_of(address.chat)
    if to is None:
        raise SendRefused(f"since the last sign-in nobody, or more than one, is known to WeChat as {address.chat!r}")
    return to


def _well_formed(text: str) -> str:
    """Without lone surrogates, which no platform can be sent."""
    return text.encode("utf-8", "replace").decode("utf-8")
