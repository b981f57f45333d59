"""Pictures, voice and files on Tencent's CDN: AES-128-ECB with PKCS#7, as the platform wants it (ECB hides little; it is their choice).

The channel itself shows and reads words only so far; this is what media in either direction will be made of.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import urlencode

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from gateway.channels.wechat.ilink_api import ILinkApi
from gateway.channels.wechat.ilink_wire import Place, Raw, Transferred, Wire
from gateway.channels.wechat.patience import Patience
from gateway.channels.wechat.transport import Unreachable
from gateway.clock import Clock

MAX_BYTES = 25_000_000
TRIES = 3
TRANSFER_S = 60.0
_BLOCK = 16
_HEX_KEY = re.compile(r"[0-9a-fA-F]{32}")


class UnreadableMedia(ValueError):
    """What the CDN gave is not what the message said: a wrong key, a wrong size, or nothing at all."""


class MediaKind(IntEnum):
    """What is uploaded. There is no voice: the platform takes it and shows nothing (openclaw-weixin#91)."""

    IMAGE = 1
    VIDEO = 2
    FILE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """Where a file is and what opens it."""

    key: bytes
    param: str = ""
    url: str = ""
    """The whole address, when the message gives one."""

    def __repr__(self) -> str:
        return "Media(…)"


def media_of(item: Raw) -> Media:
    """The file of an item (`image_item` …). Raises UnreadableMedia."""
    media = item.get("media")
    fields = media if isinstance(media, dict) else {}
    param, url = str(fields.get("encrypt_query_param") or ""), str(fields.get("full_url") or "")
    if not (param or url):
        raise UnreadableMedia("the message names no file")
    return Media(key=decode_key(str(item.get("aeskey") or fields.get("aes_key") or "")), param=param, url=url)


def decode_key(text: str) -> bytes:
    """16 bytes from any of the ways in which keys come: hex, base64 of the bytes, base64 of the hex. Raises UnreadableMedia."""
    if _HEX_KEY.fullmatch(text):
        return bytes.fromhex(text)
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableMedia("the key is neither hex nor base64") from error
    if len(decoded) == _BLOCK:
        return decoded
    if _HEX_KEY.fullmatch(decoded.decode("ascii", "replace")):
        return bytes.fromhex(decoded.decode("ascii"))
    raise UnreadableMedia(f"the key has {len(decoded)} bytes")


def encode_key(key: bytes) -> str:
    """As `media.aes_key` of what we send: base64 of the hex, not of the bytes; otherwise the phone shows a grey picture."""
    return base64.b64encode(key.hex().encode()).decode()


def encrypt(content: bytes, key: bytes) -> bytes:
    padder = PKCS7(_BLOCK * 8).padder()
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305  (the platform's choice)
    return encryptor.update(padder.update(content) + padder.finalize()) + encryptor.finalize()


def decrypt(content: bytes, key: bytes) -> bytes:
    """Raises UnreadableMedia when the key does not fit or something is missing."""
    decryptor = Cipher(algorithms.AES(key), modes.ECB()).decryptor()  # noqa: S305  (the platform's choice)
    unpadder = PKCS7(_BLOCK * 8).unpadder()
    try:
        padded = decryptor.update(content) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError as error:
        raise UnreadableMedia("the file cannot be decrypted: wrong key or cut off") from error


class ILinkCdn:
    """Brings files to the CDN and fetches them, whole and in memory, at most `max_bytes`."""

    def __init__(
        self, *, api: ILinkApi, wire: Wire, cdn_base_url: str, clock: Clock, max_bytes: int = MAX_BYTES, first_pause_s: float = 1
    ) -> None:
        self._api = api
        self._wire = wire
        self._base = cdn_base_url.rstrip("/")
        self._clock = clock
        self._max_bytes = max_bytes
        self._first_pause_s = first_pause_s

    async def download(self, media: Media) -> bytes:
        """Raises Unreachable or UnreadableMedia."""
        url = media.url or f"{self._base}/download?{urlencode({'encrypted_query_param': media.param})}"
        found = await self._persistently(url, None)
        return decrypt(found.body, media.key)

    async def upload(self, place: Place, to: str, kind: MediaKind, content: bytes, *, name: str = "") -> Raw:
        """The item of a message that shows `content` to `to`; `name` is what a file is called. Raises Unreachable or UnreadableMedia."""
        if not content or len(content) > self._max_bytes:
            raise UnreadableMedia(f"a file has 1 to {self._max_bytes} bytes, not {len(content)}")
        key, filekey = secrets.token_bytes(_BLOCK), secrets.token_hex(16)
        encrypted = encrypt(content, key)
        asked = {
            "filekey": filekey,
            "media_type": int(kind),
            "to_user_id": to,
            "rawsize": len(content),
            "rawfilemd5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            "filesize": len(encrypted),
            "aeskey": key.hex(),
            "no_need_thumb": True,
        }
        where = await self._api.upload_place(place, asked)
        query = urlencode({"encrypted_query_param": where.param, "filekey": filekey})
        done = await self._persistently(where.url or f"{self._base}/upload?{query}", encrypted)
        if not done.param:
            raise Unreachable("the CDN took the file and did not say where it is")
        return _item(kind, done.param, key, content, encrypted, name)

    async def _persistently(self, url: str, content: bytes | None) -> Transferred:
        """A transfer that worked. The CDN's own failures are tried again, its refusals are not."""
        patience = Patience(self._first_pause_s)
        while True:
            try:
                answer = await self._wire.transfer(url, content, max_bytes=self._max_bytes + _BLOCK, timeout_s=TRANSFER_S)
                if answer.status == 200:
                    return answer
                raise Unreachable(f"the CDN says HTTP {answer.status}", status=answer.status)
            except Unreachable as error:
                refused = error.status is not None and error.status < 500
                if refused or patience.tries + 1 >= TRIES:
                    raise
            await self._clock.sleep(patience.next_s())


def _item(kind: MediaKind, param: str, key: bytes, content: bytes, encrypted: bytes, name: str) -> Raw:
    media = {"encrypt_query_param": param, "aes_key": encode_key(key), "encrypt_type": 1}
    if kind is MediaKind.IMAGE:
        return {"type": 2, "image_item": {"media": media, "mid_size": len(encrypted)}}
    if kind is MediaKind.VIDEO:
        return {"type": 5, "video_item": {"media": media, "video_size": len(encrypted)}}
    return {"type": 4, "file_item": {"media": media, "file_name": name or "file", "len": str(len(content))}}
