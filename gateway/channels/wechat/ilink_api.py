"""What we ask of Tencent's bot API, call by call, and how its answers read. Facts: `@tencent-weixin/openclaw-weixin` 2.4.9 (2026-09-17)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.channels.wechat.ilink_wire import Place, Raw, TimedOut, Wire
from gateway.channels.wechat.transport import Unreachable

OFFICIAL_BASE_URL = "https://ilinkai.weixin.qq.com"
OFFICIAL_CDN_BASE_URL = "https://novac2c.cdn.weixin.qq.com/c2c"
STALE = -14
"""`ret` or `errcode`: the token is no longer good; the person scanned elsewhere, or Tencent rotated it."""
POLL_S = 35.0
LONGEST_POLL_S = 120.0
POLL_GRACE_S = 5.0
"""What we wait longer than the server says it holds a poll."""
CALL_S = 15.0
SMALL_CALL_S = 10.0
MAX_LOCAL_TOKENS = 10

_Model = TypeVar("_Model", bound=BaseModel)


class TokenStale(Unreachable):
    """Tencent takes this token no longer: the person must scan a new code."""

    def __init__(self) -> None:
        super().__init__(f"the sign-in is no longer good (code {STALE})", maybe_sent=False)


class CodeState(StrEnum):
    """What a QR code's status can be; the platform's own words."""

    WAIT = "wait"
    SCANNED = "scaned"
    NEEDS_DIGITS = "need_verifycode"
    BLOCKED = "verify_code_blocked"
    EXPIRED = "expired"
    REDIRECTED = "scaned_but_redirect"
    KNOWN = "binded_redirect"
    CONFIRMED = "confirmed"


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    ret: int | None = None
    errcode: int | None = None
    errmsg: str | None = None

    @property
    def code(self) -> int:
        """The first of the two codes that is not zero; 0: all is well."""
        return self.ret or self.errcode or 0


class QrCode(_Answer):
    """A code to show."""

    id: str = Field(alias="qrcode", min_length=1)
    url: str = Field(alias="qrcode_img_content", min_length=1, max_length=2_000)
    """What the picture must say; not itself a picture."""


class CodeStatus(_Answer):
    """How far a code has come; the credentials when it was confirmed."""

    status: str = ""
    redirect_host: str = ""
    token: str = Field("", alias="bot_token")
    bot_id: str = Field("", alias="ilink_bot_id")
    user_id: str = Field("", alias="ilink_user_id")
    base_url: str = Field("", alias="baseurl")


class Updates(_Answer):
    """One batch of messages and the cursor behind it."""

    messages: list[dict[str, object]] | None = Field(None, alias="msgs")
    cursor: str | None = Field(None, alias="get_updates_buf")
    hold_ms: int | None = Field(None, alias="longpolling_timeout_ms")

    @property
    def next_poll_s(self) -> float | None:
        """How long the server will hold the next poll; None when it does not say."""
        return min(self.hold_ms / 1000, LONGEST_POLL_S) if self.hold_ms and self.hold_ms > 0 else None


@dataclass(frozen=True, slots=True)
class Sent:
    """What the platform said to a message. Only `code` 0 together with an id means that the person sees it."""

    code: int
    reason: str
    message_id: str


class _SentAnswer(_Answer):
    message_id: str | None = None


class _Typing(_Answer):
    typing_ticket: str = ""


class UploadPlace(_Answer):
    """Where a file may be uploaded: a whole address, or what the CDN's own must be given."""

    url: str = Field("", alias="upload_full_url")
    param: str = Field("", alias="upload_param")


class ILinkApi:
    """Tencent's bot API. Every method raises Unreachable, and with a token TokenStale, unless it says otherwise."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def new_code(self, base_url: str, known_tokens: Sequence[str]) -> QrCode:
        """`known_tokens`: ours, newest first; who holds one of them already is recognised (`binded_redirect`)."""
        body: Raw = {"local_token_list": list(known_tokens[:MAX_LOCAL_TOKENS])}
        answer = await self._wire.post(Place(base_url), "ilink/bot/get_bot_qrcode", body, timeout_s=CALL_S, query={"bot_type": "3"})
        return _checked(QrCode, answer)

    async def code_status(self, base_url: str, code: str, digits: str = "") -> CodeStatus:
        """Held by the server until something happens. No answer, and a gateway's error page, say the same as `wait`."""
        query = {"qrcode": code, **({"verify_code": digits} if digits else {})}
        try:
            answer = await self._wire.get(Place(base_url), "ilink/bot/get_qrcode_status", query, timeout_s=POLL_S)
        except TimedOut:
            return CodeStatus(status=CodeState.WAIT)
        return _checked(CodeStatus, answer)

    async def updates(self, place: Place, cursor: str, *, hold_s: float = POLL_S) -> Updates:
        """What came after `cursor`; an empty batch when nothing did while the server held the poll."""
        try:
            answer = await self._wire.post(place, "ilink/bot/getupdates", {"get_updates_buf": cursor}, timeout_s=hold_s + POLL_GRACE_S)
        except TimedOut:
            return Updates()
        return _checked(Updates, answer)

    async def send(self, place: Place, message: Raw) -> Sent:
        """The platform's verdict; a refusal is no exception here, only a stale token is."""
        raw = await self._wire.post(place, "ilink/bot/sendmessage", {"msg": message}, timeout_s=CALL_S)
        answer = _read(_SentAnswer, raw)
        if STALE in (answer.ret, answer.errcode):
            raise TokenStale
        message_id = answer.message_id if answer.message_id not in (None, "", "0") else ""
        return Sent(answer.code, (answer.errmsg or "")[:200], message_id or "")

    async def typing_ticket(self, place: Place, user_id: str, context_token: str) -> str:
        body = {"ilink_user_id": user_id, "context_token": context_token}
        answer = await self._wire.post(place, "ilink/bot/getconfig", body, timeout_s=SMALL_CALL_S)
        return _checked(_Typing, answer).typing_ticket

    async def show_typing(self, place: Place, user_id: str, ticket: str, *, on: bool) -> None:
        body = {"ilink_user_id": user_id, "typing_ticket": ticket, "status": 1 if on else 2}
        _checked(_Answer, await self._wire.post(place, "ilink/bot/sendtyping", body, timeout_s=SMALL_CALL_S))

    async def upload_place(self, place: Place, asked: Raw) -> UploadPlace:
        return _checked(UploadPlace, await self._wire.post(place, "ilink/bot/getuploadurl", asked, timeout_s=CALL_S))

    async def notify(self, place: Place, *, listening: bool) -> None:
        """Tell the platform that we begin or stop to listen."""
        path = f"ilink/bot/msg/notify{'start' if listening else 'stop'}"
        _checked(_Answer, await self._wire.post(place, path, {}, timeout_s=SMALL_CALL_S))


def _checked(model: type[_Model], raw: Raw) -> _Model:
    """The answer, when it says that all is well."""
    verdict = _read(_Answer, raw)
    if STALE in (verdict.ret, verdict.errcode):
        raise TokenStale
    if verdict.code:
        raise Unreachable(f"code {verdict.code} {(verdict.errmsg or '')[:200]}".rstrip(), maybe_sent=False)
    return _read(model, raw)


def _read(model: type[_Model], raw: Raw) -> _Model:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        wrong = sorted({".".join(map(str, problem["loc"])) for problem in error.errors(include_input=False, include_url=False)})
        raise Unreachable(f"the answer lacks or garbles {', '.join(wrong)[:200]}") from None
