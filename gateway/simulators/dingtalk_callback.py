"""HTTP mode of the DingTalk simulator: a bot message posted to the gateway, signed as DingTalk signs."""

from __future__ import annotations

import base64
import hashlib
import hmac

import httpx2

TIMEOUT_S = 5.0


def caller() -> httpx2.AsyncClient:
    """What posts callbacks; making one takes longer than a hundred posts."""
    return httpx2.AsyncClient(trust_env=False, timeout=TIMEOUT_S)


async def post_callback(http: httpx2.AsyncClient, url: str, data: str, *, secret: str, at: float) -> int:
    """Post one message as of `at` (seconds since 1970); returns the HTTP status, 0 when nobody answered."""
    timestamp = str(int(at * 1000))
    headers = {"content-type": "application/json; charset=utf-8", "timestamp": timestamp, "sign": sign(timestamp, secret)}
    try:
        return (await http.post(url, content=data.encode(), headers=headers)).status_code
    except httpx2.TransportError:
        return 0


def sign(timestamp: str, secret: str) -> str:
    """base64(HMAC-SHA256(secret, timestamp + newline + secret)), as the documents of callbacks and custom robots say."""
    return base64.b64encode(hmac.digest(secret.encode(), f"{timestamp}\n{secret}".encode(), hashlib.sha256)).decode()
