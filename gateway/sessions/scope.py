"""Who shares a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import quote

from gateway.messages import Address

PrivateScope: TypeAlias = Literal["person"]
GroupScope: TypeAlias = Literal["member", "group", "thread"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The rule by which an address becomes a session key."""

    private: PrivateScope = "person"
    """In a private chat the person has one session."""
    group: GroupScope = "member"
    """In a group: each member has one, the whole group shares one, or each thread has one (the group's where a platform has no threads)."""


def session_key(address: Address, scope: Scope) -> str:
    """The key of the session that a message from `address` belongs to; two accounts never share a key."""
    parts = [address.channel, address.account, *_who(address, scope)]
    return "/".join(quote(part, safe="@:=+$") for part in parts)


def _who(address: Address, scope: Scope) -> list[str]:
    if not address.in_group:
        return ["person", address.sender]
    if scope.group == "member":
        return ["member", address.chat, address.sender]
    if scope.group == "thread" and address.thread is not None:
        return ["thread", address.chat, address.thread]
    return ["group", address.chat]
