"""What WeChat makes of the response of an official account's callback. Reads XML with another library than the gateway does."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from gateway.channels.official_account.envelope import AesKey, BadEnvelope, same, signature

FAULT_LINE = "该公众号提供的服务出现故障，请稍后再试"
"""The grey line that WeChat shows a follower when the callback gave nothing usable."""
MAX_TEXT_BYTES = 2048


class Verdict(Enum):
    """What the platform makes of one response."""

    REPLY = "reply"
    ACK = "ack"
    FAULT = "fault"
    """An answer that it cannot use."""
    NOTHING = "nothing"
    """No answer within the window, or the connection was closed without one."""


class Judge:
    """Reads the responses of one account's callback."""

    def __init__(self, *, token: str, key: AesKey | None, account: str, must_be_sealed: bool) -> None:
        self._token = token
        self._key = key
        self._account = account
        self._must_be_sealed = must_be_sealed

    def judge(self, open_id: str, status: int, body: bytes) -> tuple[Verdict, str, str]:
        """The verdict on one response, what the follower sees, and what is wrong with it."""
        if status != 200:
            return Verdict.FAULT, FAULT_LINE, f"status {status}"
        if body in (b"", b"success"):
            return Verdict.ACK, "", ""
        try:
            reply = _read(body)
            if self._must_be_sealed or "Encrypt" in reply:
                reply = self._opened(reply)
            return Verdict.REPLY, _checked(reply, open_id, self._account), ""
        except (_Unusable, BadEnvelope) as error:
            return Verdict.FAULT, FAULT_LINE, str(error)

    def _opened(self, outer: Mapping[str, str]) -> dict[str, str]:
        missing = [name for name in ("Encrypt", "MsgSignature", "TimeStamp", "Nonce") if not outer.get(name)]
        if missing or self._key is None:
            raise _Unusable(f"the encrypted reply lacks {', '.join(missing)}" if missing else "encrypted, but the mode is plain")
        if not same(signature(self._token, outer["TimeStamp"], outer["Nonce"], outer["Encrypt"]), outer["MsgSignature"]):
            raise _Unusable("MsgSignature is wrong")
        return _read(self._key.open(outer["Encrypt"]))


class _Unusable(Exception):
    """The platform cannot use a reply, and shows its fault line."""


def _checked(reply: Mapping[str, str], open_id: str, account: str) -> str:
    """What the follower sees of a reply. Raises _Unusable for whatever WeChat would not take."""
    if reply.get("ToUserName") != open_id or reply.get("FromUserName") != account:
        raise _Unusable("ToUserName and FromUserName are not those of the message, swapped")
    if not reply.get("CreateTime", "").isdigit():
        raise _Unusable("CreateTime is not an integer")
    kind = reply.get("MsgType", "")
    if kind != "text":
        return _shown_as(kind)
    text = reply.get("Content", "")
    if not text:
        raise _Unusable("Content is empty")
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise _Unusable(f"Content has {len(text.encode())} bytes; {MAX_TEXT_BYTES} are allowed")
    return text


def _shown_as(kind: str) -> str:
    if kind not in ("image", "voice", "video", "music", "news", "transfer_customer_service"):
        raise _Unusable(f"MsgType {kind!r} is not known")
    return f"[{kind}]"


def _read(body: bytes) -> dict[str, str]:
    try:
        root = fromstring(body.decode(), forbid_dtd=True)
    except (ParseError, UnicodeDecodeError, DefusedXmlException, ValueError) as error:
        raise _Unusable(f"not XML: {error}") from error
    return {element.tag: element.text or "" for element in root}
