"""The HTTP API: a program asks with `POST /api/v1/messages` and gets the answer as JSON or as server-sent events."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway.channels.api_wire import event, headers, respond, while_connected
from gateway.channels.asking import Ask, BadRequest, Turn, TurnBook, TurnId, ended_turn, read_ask
from gateway.channels.asking_elsewhere import Elsewhere, News, Stand
from gateway.channels.base import Admission, Channel, ChannelLimits, Deliver, Markup, Receipt
from gateway.channels.http_face import BodyRefused, HttpFace, read_body
from gateway.checkup import Health
from gateway.clock import Clock
from gateway.errors import ConfigError, StoreError, StoreUnavailable
from gateway.messages import Address, Inbound, Outbound, ReplyTicket, Text
from gateway.stores.base import Bulletin
from gateway.wording import language_of, say

logger = logging.getLogger(__name__)

PATH = "/api/v1/messages"
KEEP_ALIVE_S = 15.0
"""An SSE comment this often keeps proxies from cutting a quiet stream (nginx cuts after 60 s)."""
MAX_OPEN_TURNS = 2_000
_LAST_WORD_S = 5.0
"""How long a reader that does not read is given for its last event."""


class _Problem(Exception):
    """The request ends with this status and error instead of an answer."""

    def __init__(self, status: int, code: str, message: str, *, field: str | None = None, id: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        error = {"code": code, "message": message} | ({"field": field} if field else {})
        self.body = {"error": error} | ({"id": id} if id else {})


class ApiChannel(Channel):
    """Programs with bearer tokens. A token has its own senders, ids and sessions: its account is a hash of it.

    A request names its message with `id`; asked again with the same id, also after a restart, it gets the same answer and nothing is
    answered twice. Whoever hangs up loses nothing: the turn goes on and the answer can be fetched with its id.
    """

    limits = ChannelLimits(markup=Markup.MARKDOWN, max_bytes=100_000, grows=True, idempotent=True)

    def __init__(
        self, name: str, *, tokens: Sequence[str], face: HttpFace, clock: Clock, timeout_s: float = 180.0, bulletin: Bulletin | None = None
    ) -> None:
        """`timeout_s`: how long one request is held open. `bulletin` of a store that several processes share: an answer may then be made
        in another one than where it is waited for. Raises ConfigError when there is no token or an empty one.
        """
        if not tokens or not all(token.strip() for token in tokens):
            raise ConfigError(f"channels.{name}.tokens needs at least one token, and none may be empty: anybody could ask.")
        self.name = name
        self._accounts = {token.encode(): hashlib.sha256(token.encode()).hexdigest()[:12] for token in tokens}
        self._face = face
        self._clock = clock
        self._timeout_s = timeout_s
        self._book = TurnBook()
        self._elsewhere = Elsewhere(channel=name, bulletin=bulletin) if bulletin else None
        self._hearing: set[asyncio.Task[None]] = set()
        self._deliver: Deliver | None = None
        self._mounted = False

    async def run(self, deliver: Deliver) -> None:
        self._deliver = deliver
        if not self._mounted:
            self._face.mount(PATH, self._serve)
            if self._elsewhere is not None:
                self._elsewhere.listen(self._on_news)
            self._mounted = True
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._deliver = None

    async def send(self, outbound: Outbound) -> Receipt:
        """A whole answer, or a sentence of the gateway: after words that broke off it stands in a paragraph of its own."""
        turn_id = self._waiting_for(outbound)
        if turn_id is not None:
            turn = self._book.turn(turn_id)
            turn.say(f"\n\n{outbound.text}" if turn.words else outbound.text)
            if not outbound.more:
                turn.end()
                await self._tell_others(turn_id, turn, outbound.text)
            self._book.let_go(turn_id)
        return Receipt()

    async def send_growing(self, head: Outbound, texts: AsyncGenerator[str, None]) -> Receipt:
        turn_id = self._waiting_for(head)
        turn = self._book.turn(turn_id) if turn_id else Turn()
        turn.growing = True
        try:
            async for text in texts:
                turn.say(text)
            turn.end()
            if turn_id:
                await self._tell_others(turn_id, turn, turn.text)
        finally:
            turn.growing = False
            if turn_id:
                self._book.let_go(turn_id)
        return Receipt()

    def health(self) -> Health:
        return Health(True) if self._deliver is not None else Health(False, "does not take requests")

    async def aclose(self) -> None:
        self._book.break_off()
        for task in self._hearing:
            task.cancel()
        await asyncio.gather(*self._hearing, return_exceptions=True)

    def _waiting_for(self, outbound: Outbound) -> TurnId | None:
        """The turn that these words belong to; None for words that answer no message (a farewell)."""
        message = outbound.ticket.token.get("message")
        return (outbound.address.account, message) if message and outbound.key.startswith(f"{self.name}/") else None

    async def _tell_others(self, turn_id: TurnId, turn: Turn, text: str) -> None:
        """Nobody waits here, or somebody waits elsewhere, too."""
        if self._elsewhere is not None and (turn.wanted or not turn.followers):
            await self._elsewhere.tell(turn_id, Stand.ENDED, text)

    def _on_news(self, news: News) -> None:
        turn = self._book.known(news.turn)
        if turn is None:
            return
        if news.stand is Stand.WANTED:
            turn.wanted = True
            if turn.ended and not turn.broken:
                self._do(self._tell_others(news.turn, turn, turn.text))
        elif turn.growing or turn.ended:
            return
        elif news.text:
            turn.say(news.text)
            turn.end()
        elif turn.message is not None:
            self._do(self._fetch(turn, turn.message))

    async def _fetch(self, turn: Turn, message: Inbound) -> None:
        """The recorded answer of a message that another process worked."""
        if self._deliver is None:
            return
        try:
            admitted = await self._deliver(message)
        except StoreError as error:
            logger.warning("Channel %s cannot read the answer to message %s: %s", self.name, message.id, error)
            return
        if admitted.answer is not None and not turn.ended:
            turn.pieces = admitted.answer.pieces
            turn.say(admitted.answer.text)
            turn.end()

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=f"news for {self.name}")
        self._hearing.add(task)
        task.add_done_callback(self._hearing.discard)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            account = self._account(request)
            ask = await self._read(request)
            wants_events = ask.stream or "text/event-stream" in request.headers.get("accept", "")
            async with self._followed(account, ask) as turn:
                work = self._stream(ask, turn, send) if wants_events else self._answer(ask, turn, send)
                await while_connected(receive, work)
        except _Problem as problem:
            await respond(send, problem.status, problem.body)

    def _account(self, request: Request) -> str:
        """Who asks, by the bearer token. Compares with every token, so that time tells nothing."""
        if request.method != "POST":
            raise _Problem(405, "method_not_allowed", "only POST is understood here")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip().encode("latin-1")
        found = [account for known, account in self._accounts.items() if hmac.compare_digest(known, given)]
        if scheme.lower() != "bearer" or not found:
            raise _Problem(401, "unauthorized", "send a known token: `Authorization: Bearer …`")
        return found[0]

    async def _read(self, request: Request) -> Ask:
        try:
            return read_ask(await read_body(request))
        except BodyRefused as refused:
            message = "the body is too large" if refused.status == 413 else "the body came too slowly"
            raise _Problem(refused.status, "body_refused", message) from refused
        except BadRequest as bad:
            raise _Problem(400, "invalid_request", str(bad), field=bad.field) from bad

    @asynccontextmanager
    async def _followed(self, account: str, ask: Ask) -> AsyncIterator[Turn]:
        """Hand the message in and follow its turn: a new one, the running one, or the one that was answered before."""
        if self._book.open_turns >= MAX_OPEN_TURNS:
            raise _Problem(503, "busy", "too many requests are open; ask again in a moment", id=ask.id)
        turn_id = (account, ask.id)
        turn = self._book.turn(turn_id)
        turn.followers += 1
        try:
            turn.message = self._inbound(account, ask)
            yield await self._hand_in(turn.message, ask) or turn
        finally:
            turn.followers -= 1
            self._book.let_go(turn_id)

    async def _hand_in(self, message: Inbound, ask: Ask) -> Turn | None:
        """The turn when it is over already; None when its words are still to come."""
        if self._deliver is None:
            raise _Problem(503, "unavailable", "the gateway is starting or stopping; ask again in a moment", id=ask.id)
        try:
            admitted = await self._deliver(message)
        except StoreUnavailable:
            logger.warning("Channel %s could not store message %s and refused it.", self.name, ask.id)
            raise _Problem(503, "unavailable", "the message could not be stored; ask again in a moment", id=ask.id) from None
        if admitted.answer is not None:
            return ended_turn(admitted.answer.text, admitted.answer.pieces)
        if admitted.outcome is not None:
            sentence = say("ended_without_words", language_of(ask.text), reason=admitted.outcome.reason or admitted.outcome.kind.value)
            return ended_turn(sentence, (sentence,))
        if admitted.admission is Admission.DUPLICATE and self._elsewhere is not None:
            await self._elsewhere.tell((message.address.account, message.id), Stand.WANTED)
        return ended_turn("", ()) if admitted.admission is Admission.IGNORED else None

    def _inbound(self, account: str, ask: Ask) -> Inbound:
        # A private session belongs to its sender alone; a person with several conversations is several senders to it.
        private = not ask.group and ask.conversation != ask.sender
        sender = f"{ask.sender}#{ask.conversation}" if private else ask.sender
        return Inbound(
            id=ask.id,
            address=Address(channel=self.name, account=account, chat=ask.conversation, sender=sender, in_group=ask.group),
            parts=(Text(ask.text),),
            sent_at=self._clock.now(),
            ticket=ReplyTicket(token={"message": ask.id}),
            sender_name=ask.sender,
        )

    async def _answer(self, ask: Ask, turn: Turn, send: Send) -> None:
        try:
            async with self._clock.timeout(self._timeout_s):
                while not turn.ended:
                    await turn.more(len(turn.words))
        except TimeoutError:
            raise _late(ask) from None
        if turn.broken:
            raise _stopping(ask)
        await respond(send, 200, {"id": ask.id, "text": turn.text, "pieces": list(turn.pieces or filter(None, (turn.text,)))})

    async def _stream(self, ask: Ask, turn: Turn, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers(b"text/event-stream")})
        try:
            async with self._clock.timeout(self._timeout_s):
                await self._deltas(turn, send)
        except TimeoutError:
            last = event("error", _late(ask).body)
        else:
            last = event("error", _stopping(ask).body) if turn.broken else event("done", {"id": ask.id, "text": turn.text})
        with suppress(TimeoutError):  # a reader that does not read misses it
            async with self._clock.timeout(_LAST_WORD_S):
                await send({"type": "http.response.body", "body": last})

    async def _deltas(self, turn: Turn, send: Send) -> None:
        seen = 0
        while not turn.ended or seen < len(turn.words):
            try:
                async with self._clock.timeout(KEEP_ALIVE_S):
                    await turn.more(seen)
            except TimeoutError:
                await send({"type": "http.response.body", "body": b": still thinking\n\n", "more_body": True})
                continue
            words, seen = "".join(turn.words[seen:]), len(turn.words)
            if words:
                await send({"type": "http.response.body", "body": event("delta", {"text": words}), "more_body": True})


def _late(ask: Ask) -> _Problem:
    return _Problem(504, "timeout", "the answer takes longer; ask again with the same id to fetch it", id=ask.id)


def _stopping(ask: Ask) -> _Problem:
    return _Problem(503, "unavailable", "the gateway is stopping; ask again with the same id to fetch the answer", id=ask.id)
