"""WeChat's side of an official account: followers who write, three deliveries a message, and a judge of what comes back.

Unlike the other simulators it is mainly a *client*: it posts to the callback URL of whoever is tested. Checked against an unmodified
WeRoBot server in all three modes (`tests/wire/test_official_account_peers.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.channels.official_account.envelope import AesKey, cdata, signature
from gateway.simulators.base import Shown, Simulator
from gateway.simulators.official_account_judge import FAULT_LINE, Judge, Verdict

ATTEMPTS = 3
_BOMB = '<!DOCTYPE xml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
_FOREIGN_APP_ID = "wx0000000000000000"


@dataclass
class OfficialAccountFaults:
    """What goes wrong. All hold until changed."""

    drop_responses: int = 0
    """The answers to the first so many attempts of a message are lost on their way."""
    start_at_attempt: int = 1
    """2 or 3: the earlier attempts never reached the callback."""
    duplicate: bool = False
    """Every attempt is delivered twice at the same time."""
    bad_signature: bool = False
    bad_msg_signature: bool = False
    tamper: bool = False
    """One character of Encrypt is changed after signing."""
    foreign_app_id: bool = False
    """The encrypted message is for another account, under our key."""
    timestamp_shift_s: int = 0
    """Added to the timestamp of the query."""
    same_nonce: bool = False
    """A retry repeats timestamp and nonce of the first attempt; it is not known which WeChat does."""
    control_characters: bool = False
    """U+0008 and others inside the text, as people paste them."""
    broken_utf8: bool = False
    entity_bomb: bool = False
    padding_bytes: int = 0
    """Makes the body larger by an element of so many bytes."""
    slow_body_s: float = 0.0
    """Seconds that pass between the two halves of the body."""
    content_type: str = "text/xml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt, as it went. `reason` says what the judge minds."""

    msg_id: str
    attempt: int
    verdict: Verdict
    seconds: float
    """From the first attempt of the message to the end of this one."""
    status: int = 0
    text: str = ""
    reason: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Letter:
    """One message or event of a follower."""

    id: str
    person: str
    open_id: str
    xml: str


class OfficialAccountSimulator(Simulator):
    """The platform for one account. `mode`: plain, compatible or safe; the last two need the key."""

    faults: OfficialAccountFaults

    def __init__(
        self,
        *,
        token: str,
        app_id: str = "wx1234567890abcdef",
        encoding_aes_key: str | None = None,
        mode: str = "plain",
        callback_url: str | None = None,
        window_s: float = 5.0,
        retry_pause_s: float | None = None,
        account: str = "gh_0123456789ab",
    ) -> None:
        """`window_s`: how long an attempt waits, 5 s at WeChat; tests scale it down. `retry_pause_s`: before the next attempt when a
        connection was closed early; a fifth of the window unless given."""
        super().__init__()
        if mode not in ("plain", "compatible", "safe"):
            raise ValueError(f"mode is {mode!r}; it can be plain, compatible or safe")
        if mode != "plain" and not encoding_aes_key:
            raise ValueError(f"mode {mode} needs encoding_aes_key")
        self.faults = OfficialAccountFaults()
        self.callback_url = callback_url
        self.deliveries: list[Delivery] = []
        self.account = account
        self._token = token
        self._mode = mode
        self._key = AesKey(encoding_aes_key, app_id) if encoding_aes_key else None
        self._foreign_key = AesKey(encoding_aes_key, _FOREIGN_APP_ID) if encoding_aes_key else None
        self.judge = Judge(token=token, key=self._key, account=account, must_be_sealed=mode == "safe")
        self._window_s = window_s
        self._retry_pause_s = window_s / 5 if retry_pause_s is None else retry_pause_s
        self._ids = itertools.count(int(time.time() * 1_000_000) * 1_000)
        self._plays: set[asyncio.Task[None]] = set()
        self._client: httpx2.AsyncClient | None = None

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/_sim/connect", self._connect_over_http, methods=["POST"]),
            Route("/_sim/deliveries", self._deliveries_over_http, methods=["GET"]),
        ]

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[OfficialAccountSimulator]:
        """Serve the control paths on loopback, and let followers write, while the body runs."""
        async with self.playing(), super().running(port):
            yield self

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[OfficialAccountSimulator]:
        """Let followers write while the body runs, without the control paths."""
        # A fresh connection for every attempt, as if each came from another of WeChat's machines; the window is the only time limit.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx2.AsyncClient(limits=limits, timeout=None, trust_env=False) as self._client:
            try:
                yield self
            finally:
                await self._stop()

    async def say(  # type: ignore[override]  # the words of this platform have names
        self, *, sender: str, text: str = "", kind: str = "text", fields: Mapping[str, str] | None = None, msg_id: str | None = None
    ) -> str:
        """A follower writes. Returns the MsgId; what he sees is recorded as `Shown(chat=sender)`.

        `kind` is a MsgType and `fields` its further elements, e.g. `kind="image", fields={"PicUrl": …}`. A given `msg_id` repeats
        a message.
        """
        msg_id = msg_id or str(next(self._ids))
        content = {"Content": self._spoiled(text)} if kind == "text" else {}
        self._play(self._letter(msg_id, sender, kind, {**content, **(fields or {}), "MsgId": msg_id}))
        return msg_id

    async def event(self, *, sender: str, event: str, key: str = "", created: int | None = None) -> None:
        """A follower does something, e.g. `event="subscribe"`. A given `created` repeats an event."""
        self._play(self._letter("", sender, "event", {"Event": event, "EventKey": key}, created))

    async def verify(self) -> str:
        """What the console's 提交 button does: GET with an echostr. Returns "" when the callback is right, else what is wrong."""
        echostr = str(secrets.randbelow(10**19))
        async with asyncio.timeout(self._window_s):
            response = await self._http().get(self._url(), params={**self._query(*self._moment()), "echostr": echostr})
        if response.status_code != 200:
            return f"status {response.status_code} instead of 200"
        return "" if response.content == echostr.encode() else "the body is not the echostr"

    async def idle(self, timeout_s: float = 10.0) -> None:
        """Wait until every ladder has been played to its end; raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while self._plays:
                await asyncio.wait(set(self._plays))

    def open_id(self, person: str) -> str:
        """The OpenID of a follower, made from the name by which the simulator calls him."""
        return "o" + hashlib.sha256(f"{self.account}/{person}".encode()).hexdigest()[:27]

    def _play(self, letter: _Letter) -> None:
        self._url(), self._http()
        task = asyncio.create_task(self._ladder(letter), name=f"ladder of {letter.id or letter.person}")
        self._plays.add(task)
        task.add_done_callback(self._plays.discard)

    async def _ladder(self, letter: _Letter) -> None:
        began = time.monotonic()
        first = self._moment()
        for attempt in range(self.faults.start_at_attempt, ATTEMPTS + 1):
            timestamp, nonce = first if self.faults.same_nonce else self._moment()
            delivery = await self._deliver(letter, attempt, began, timestamp, nonce)
            if delivery.verdict is Verdict.ACK:
                return
            if delivery.verdict is not Verdict.NOTHING:
                await self.show(Shown(chat=letter.person, text=delivery.text, answers=letter.id))
                return
        await self.show(Shown(chat=letter.person, text=FAULT_LINE, answers=letter.id))

    async def _deliver(self, letter: _Letter, attempt: int, began: float, timestamp: str, nonce: str) -> Delivery:
        copies = 2 if self.faults.duplicate else 1
        delivered = await asyncio.gather(*(self._attempt(letter, attempt, began, timestamp, nonce) for _ in range(copies)))
        self.deliveries.extend(delivered)
        chosen = next((delivery for delivery in delivered if delivery.verdict is not Verdict.NOTHING), delivered[0])
        lost = attempt - self.faults.start_at_attempt < self.faults.drop_responses
        if lost or chosen.verdict is Verdict.NOTHING:
            if time.monotonic() - began < attempt * self._window_s:
                await asyncio.sleep(self._retry_pause_s)
            return Delivery(msg_id=letter.id, attempt=attempt, verdict=Verdict.NOTHING, seconds=chosen.seconds)
        return chosen

    async def _attempt(self, letter: _Letter, attempt: int, began: float, timestamp: str, nonce: str) -> Delivery:
        query, body = self._post(letter, timestamp, nonce)
        try:
            async with asyncio.timeout(self._window_s):
                response = await self._http().post(
                    self._url(), params=query, content=self._content(body), headers=_headers(body, self.faults.content_type)
                )
        except (TimeoutError, httpx2.TransportError) as error:
            seconds = time.monotonic() - began
            return Delivery(msg_id=letter.id, attempt=attempt, verdict=Verdict.NOTHING, seconds=seconds, reason=type(error).__name__)
        verdict, text, reason = self.judge.judge(letter.open_id, response.status_code, response.content)
        return Delivery(
            msg_id=letter.id,
            attempt=attempt,
            verdict=verdict,
            seconds=time.monotonic() - began,
            status=response.status_code,
            text=text,
            reason=reason,
            body=response.content,
        )

    def _post(self, letter: _Letter, timestamp: str, nonce: str) -> tuple[dict[str, str], bytes]:
        query = {**self._query(timestamp, nonce), "openid": letter.open_id}
        key = self._foreign_key if self.faults.foreign_app_id else self._key
        if self._mode == "plain" or key is None:
            return query, self._spoiled_body(f"<xml>{letter.xml}</xml>")
        sealed = key.seal(self._spoiled_body(f"<xml>{letter.xml}</xml>"))
        signed = signature(self._token, timestamp, nonce, sealed)
        query |= {"encrypt_type": "aes", "msg_signature": _flipped(signed) if self.faults.bad_msg_signature else signed}
        sealed = _flipped(sealed) if self.faults.tamper else sealed
        beside = letter.xml if self._mode == "compatible" else f"<ToUserName>{cdata(self.account)}</ToUserName>"
        return query, f"<xml>{beside}<Encrypt>{cdata(sealed)}</Encrypt></xml>".encode()

    def _query(self, timestamp: str, nonce: str) -> dict[str, str]:
        signed = signature(self._token, timestamp, nonce)
        return {"signature": _flipped(signed) if self.faults.bad_signature else signed, "timestamp": timestamp, "nonce": nonce}

    def _moment(self) -> tuple[str, str]:
        """Timestamp and nonce of one request."""
        return str(int(time.time()) + self.faults.timestamp_shift_s), str(secrets.randbelow(10**10))

    def _letter(self, msg_id: str, person: str, kind: str, fields: Mapping[str, str], created: int | None = None) -> _Letter:
        head = {"ToUserName": self.account, "FromUserName": self.open_id(person), "CreateTime": str(created or int(time.time()))}
        elements = {**head, "MsgType": kind, **fields}
        # Not `cdata` for the text: it would take out the control characters that the platform lets through.
        xml = "".join(f"<{name}><![CDATA[{value.replace(']]>', ']]]]><![CDATA[>')}]]></{name}>" for name, value in elements.items())
        return _Letter(id=msg_id, person=person, open_id=head["FromUserName"], xml=xml)

    def _spoiled(self, text: str) -> str:
        return f"\x08{text}\x0b\ufffe" if self.faults.control_characters else text

    def _spoiled_body(self, xml: str) -> bytes:
        if self.faults.entity_bomb:
            xml = _BOMB + xml.replace("<xml>", "<xml><Bomb>&b;</Bomb>", 1)
        if self.faults.padding_bytes:
            xml = xml.replace("</xml>", f"<Padding>{'x' * self.faults.padding_bytes}</Padding></xml>")
        body = xml.encode()
        return body.replace(b"</xml>", b"<Broken><![CDATA[\xff\xfe\xe4\xbd]]></Broken></xml>") if self.faults.broken_utf8 else body

    def _content(self, body: bytes) -> bytes | AsyncIterator[bytes]:
        return _in_two_halves(body, self.faults.slow_body_s) if self.faults.slow_body_s else body

    def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            raise ValueError("the simulator is not running")
        return self._client

    def _url(self) -> str:
        if self.callback_url is None:
            raise ValueError('no callback yet: POST /_sim/connect {"url": …}')
        return self.callback_url

    async def _stop(self) -> None:
        plays = tuple(self._plays)
        for task in plays:
            task.cancel()
        await asyncio.gather(*plays, return_exceptions=True)

    async def _connect_over_http(self, request: Request) -> Response:
        self.callback_url = str(json.loads(await request.body())["url"])
        try:
            wrong = await self.verify()
        except (TimeoutError, httpx2.HTTPError) as error:
            wrong = type(error).__name__
        return JSONResponse({"verified": not wrong, "reason": wrong})

    async def _deliveries_over_http(self, request: Request) -> Response:
        return JSONResponse([_plain(delivery) for delivery in self.deliveries])


def _flipped(text: str) -> str:
    """`text` with its tenth character changed to another one of the same alphabet."""
    return text[:9] + ("b" if text[9] == "a" else "a") + text[10:]


def _headers(body: bytes, content_type: str) -> dict[str, str]:
    return {"content-type": content_type, "content-length": str(len(body)), "user-agent": "Mozilla/4.0"}


async def _in_two_halves(body: bytes, pause_s: float) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    await asyncio.sleep(pause_s)
    yield body[len(body) // 2 :]


def _plain(delivery: Delivery) -> dict[str, Any]:
    return {**asdict(delivery), "verdict": delivery.verdict.value, "body": len(delivery.body)}
