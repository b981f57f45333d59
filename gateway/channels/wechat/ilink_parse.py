"""Messages of Tencent's bot API → `Inbound`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.channels.wechat.parse import UnreadableMessage
from gateway.messages import Address, Inbound, Part, Quote, ReplyTicket, Text, Unsupported

ANSWERABLE = timedelta(hours=23)
"""The platform takes answers for 24 hours after the person's last message (maintainer in openclaw-weixin#204); one hour is our margin."""
CONTEXT_TOKEN = "context_token"  # noqa: S105  (the name of a field)
TEXT, VOICE = 1, 3
FROM_BOT = 2

_KINDS: Mapping[int, str] = {2: "image", 3: "voice", 4: "file", 5: "video"}
_LATEST_MS = 4_102_444_800_000  # the year 2100; anything later is not a time

Recall = Callable[[str], str]
"""The words of an earlier message by its id, empty when they are not known any more. New clients quote by id only."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


class _Words(_Part):
    text: str | None = None


class _Referred(_Part):
    type: int = 0
    text_item: _Words | None = None
    voice_item: _Words | None = None


class _Reference(_Part):
    title: str | None = None
    message_item: _Referred | None = None
    svr_id: str | None = None


class _Item(_Referred):
    ref_msg: _Reference | None = None


class ILinkMessage(_Part):
    """One entry of `msgs`, as far as we read it."""

    message_id: str | None = None
    client_id: str | None = None
    sender: str = Field(alias="from_user_id", min_length=1, max_length=256)
    created_ms: int = Field(0, alias="create_time_ms", ge=0, le=_LATEST_MS)
    group_id: str | None = None
    kind: int = Field(0, alias="message_type")
    items: list[_Item] | None = Field(None, alias="item_list")
    context_token: str | None = None

    @property
    def id(self) -> str:
        """The platform's id, which a redelivery carries again; empty when there is none."""
        own = self.message_id if self.message_id != "0" else ""
        return own or self.client_id or ""


def read(raw: Mapping[str, object]) -> ILinkMessage:
    """The message in `raw`. Raises UnreadableMessage, which names fields and never their content."""
    try:
        message = ILinkMessage.model_validate(raw)
    except ValidationError as error:
        wrong = sorted({".".join(map(str, problem["loc"])) for problem in error.errors(include_input=False, include_url=False)})
        raise UnreadableMessage(f"fields missing or wrong: {', '.join(wrong)}") from None
    if not message.id or len(message.id) > 256:
        raise UnreadableMessage("it has no message_id")
    return message


def parse(message: ILinkMessage, *, channel: str, account: str, now: datetime, recall: Recall = lambda message_id: "") -> Inbound | None:
    """The message in our words; None when it is nothing to answer: our own, from a group, or empty.

    `account`: whose bot was written to. `now` stands in for a missing time.
    """
    if message.kind == FROM_BOT or message.group_id:
        return None
    parts = tuple(part for item in message.items or () for part in _parts(item, recall))
    if not parts:
        return None
    sent_at = datetime.fromtimestamp(message.created_ms / 1000, UTC) if message.created_ms else now
    token = {CONTEXT_TOKEN: message.context_token} if message.context_token else {}
    return Inbound(
        id=message.id,
        address=Address(channel=channel, account=account, chat=message.sender, sender=message.sender),
        parts=parts,
        sent_at=sent_at,
        ticket=ReplyTicket(token=token, expires_at=sent_at + ANSWERABLE),
    )


def _parts(item: _Item, recall: Recall) -> list[Part]:
    quote = _quote(item.ref_msg, recall) if item.ref_msg else []
    return [*quote, *_body(item)]


def _body(item: _Item) -> list[Part]:
    words = _words(item)
    if words:
        return [Text(words)]
    return [Unsupported(_KINDS.get(item.type, "unknown"))] if item.type != TEXT else []


def _words(item: _Referred) -> str:
    """What was written, or WeChat's own transcript of what was spoken."""
    said = item.text_item if item.type == TEXT else item.voice_item if item.type == VOICE else None
    return (said.text or "").strip() if said else ""


def _quote(reference: _Reference, recall: Recall) -> list[Part]:
    inline = _words(reference.message_item) if reference.message_item else ""
    text = inline or (recall(reference.svr_id) if reference.svr_id else "") or (reference.title or "").strip()
    return [Quote(text)] if text else []
