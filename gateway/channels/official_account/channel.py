"""A WeChat official account in passive mode: the answer is the response to one of the platform's three requests."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from starlette.types import Receive, Scope, Send

from gateway.channels.base import Admission, Admitted, Channel, ChannelLimits, Deliver, Markup, Receipt
from gateway.channels.http_face import BodyRefused, HttpFace
from gateway.channels.official_account.compose import ACK, MAX_REPLY_BYTES, hint_bytes, text_reply, with_hint
from gateway.channels.official_account.deadline import KEEP_S, MAX_TURNS, Ladder, TurnBook
from gateway.channels.official_account.elsewhere import PATIENCE_S, Elsewhere, Word
from gateway.channels.official_account.envelope import BadEnvelope, BrokenXml, Envelope, ForbiddenXml
from gateway.channels.official_account.origin import MAX_SKEW_S, Encryption, Origin, chosen_encryption
from gateway.channels.official_account.parse import Event, Received, read, to_inbound
from gateway.channels.official_account.request import HeldRequest
from gateway.channels.official_account.turn import Turn, TurnState
from gateway.checkup import Finding, Health
from gateway.clock import Clock
from gateway.errors import ConfigError, SendRefused, StoreError
from gateway.messages import Inbound, Outbound, TurnKey
from gateway.stores.base import Bulletin, Shelf
from gateway.wording import language_of, say

logger = logging.getLogger(__name__)


class OfficialAccountChannel(Channel):
    """One account. `run` serves `/official_account/{name}` on the shared listener."""

    def __init__(
        self,
        *,
        name: str,
        app_id: str,
        token: str,
        face: HttpFace,
        clock: Clock,
        encoding_aes_key: str | None = None,
        previous_encoding_aes_key: str | None = None,
        encryption: str | None = None,
        welcome: str | None = None,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        attempt_s: float = 4.5,
        window_s: float = 5.0,
        max_skew_s: float = MAX_SKEW_S,
        shelf: Shelf | None = None,
        bulletin: Bulletin | None = None,
        about_to_show: Callable[[TurnKey], Awaitable[None]] | None = None,
    ) -> None:
        """`encryption` is safe when there is a key and plain when not. Raises ConfigError, naming the key of the configuration.

        `shelf` and `bulletin` of a store that several processes share: WeChat's attempts may then reach any of them. Both or none.
        """
        if not token:
            raise ConfigError("token is empty: anybody could write in WeChat's name. Set the Token of the platform's server configuration.")
        keys = [key for key in (encoding_aes_key, previous_encoding_aes_key) if key]
        self.name = name
        self.limits = ChannelLimits(
            markup=Markup.PLAIN, max_bytes=max_reply_bytes - hint_bytes(), pieces_per_turn=1, parks=True, idempotent=True
        )
        self._app_id = app_id
        self._token_looks_right = re.fullmatch("[A-Za-z0-9]{3,32}", token) is not None
        self._origin = Origin(
            channel=name,
            envelope=Envelope(token=token, app_id=app_id, encoding_aes_keys=keys),
            encryption=chosen_encryption(encryption, has_key=bool(keys)),
            clock=clock,
            max_skew_s=max_skew_s,
        )
        self._welcome = _checked_welcome(welcome, max_reply_bytes)
        self._face = face
        self._clock = clock
        self._ladder = Ladder(window_s=window_s, attempt_s=attempt_s)
        self._elsewhere = Elsewhere(channel=name, shelf=shelf, bulletin=bulletin, clock=clock) if shelf and bulletin else None
        self._about_to_show = about_to_show
        self._book = TurnBook(clock=clock, ladder=self._ladder, elsewhere=self._elsewhere, about_to_write=self._may_be_shown)
        self._events: OrderedDict[tuple[str, str, str, str], float] = OrderedDict()
        self._deliver: Deliver | None = None
        self._mounted = False
        self._hearing: set[asyncio.Task[None]] = set()

    async def run(self, deliver: Deliver) -> None:
        self._deliver = deliver
        if not self._mounted:
            self._mount()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._deliver = None

    async def send(self, outbound: Outbound) -> Receipt:
        token = outbound.ticket.token
        try:
            turn_id = token["turn"]
            first_seen = datetime.fromisoformat(token["first_seen"])
            text = with_hint(outbound.text, more=outbound.more, lang=outbound.lang)
            reply = text_reply(to_user=token["to_user"], from_user=token["from_user"], created=token["created"], text=text)
        except (KeyError, ValueError) as error:
            raise SendRefused(f"the ticket of {outbound.key} is not one of this channel: {error}") from error
        await self._book.show(turn_id, reply, age_s=(self._clock.now() - first_seen).total_seconds(), keep=outbound.more)
        return Receipt(turn_id)

    async def _may_be_shown(self, turn_id: str) -> None:
        if self._about_to_show is not None:
            await self._about_to_show(TurnKey(channel=self.name, account=self._app_id, message=turn_id))

    def health(self) -> Health:
        return Health(True) if self._deliver is not None else Health(False, "does not listen for callbacks")

    async def checkup(self) -> list[Finding]:
        return [
            Finding(
                "token has 3 to 32 letters and digits", self._token_looks_right, "" if self._token_looks_right else "choose another token"
            ),
            _finding("app_id looks like one", re.fullmatch("wx[0-9a-f]{16}", self._app_id) is not None, "copy AppID from the console"),
            _finding(
                "messages are encrypted",
                self._origin.encryption is Encryption.SAFE,
                "choose 安全模式 in the console and set encoding_aes_key",
            ),
        ]

    async def aclose(self) -> None:
        await self._book.hang_up()
        for task in self._hearing:
            task.cancel()
        await asyncio.gather(*self._hearing, return_exceptions=True)

    def _mount(self) -> None:
        self._face.mount(f"/official_account/{self.name}", self._serve)
        if self._elsewhere is not None:
            self._elsewhere.listen(self._on_word)
        self._mounted = True

    def _on_word(self, word: Word) -> None:
        if self._book.find(word.turn) is None:
            return
        task = asyncio.create_task(self._book.hear(word), name=f"news of {word.turn}")
        self._hearing.add(task)
        task.add_done_callback(self._hearing.discard)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever happens inside, WeChat gets an answer of ours or a closed connection; a 5xx would be shown to the follower."""
        request = HeldRequest(scope, receive, send)
        try:
            await self._handle(request)
        except BodyRefused as refused:
            await request.say(refused.status, "refused")
        finally:
            await request.hang_up()

    async def _handle(self, request: HeldRequest) -> None:
        query = request.query()
        if not self._origin.vouches_for(query):
            await request.say(403, "forbidden")
        elif request.method == "GET":
            await request.say(200, query.get("echostr", ""))
        elif request.method == "POST":
            await self._hear(request, query, await request.body(self._ladder.window_s))
        else:
            await request.say(405, "only GET and POST")

    async def _hear(self, request: HeldRequest, query: dict[str, str], body: bytes) -> None:
        try:
            fields, request.seal = self._origin.open(query, body)
        except (BadEnvelope, ForbiddenXml) as error:
            logger.warning("Channel %s refused a message: %s.", self.name, error)
            await request.say(403 if isinstance(error, BadEnvelope) else 400, "refused")
            return
        except BrokenXml as error:
            await self._shrug(request, error)
            return
        await self._sort(request, query, fields)

    async def _sort(self, request: HeldRequest, query: dict[str, str], fields: dict[str, str]) -> None:
        try:
            received = read(fields)
        except BrokenXml as error:
            await self._shrug(request, error)
            return
        if (event := received.event) is not None:
            await request.answer(self._reply_to(event))
            return
        turn = self._book.find(received.id)
        if turn is None:
            await self._take_in(request, received, late_s=self._late_by(int(query["timestamp"]), received))
        else:
            await self._ask_again(turn, received)
            await self._hold(turn, request, received)

    async def _shrug(self, request: HeldRequest, error: BrokenXml) -> None:
        logger.warning("Channel %s cannot read a message and leaves it unanswered: %s.", self.name, error)
        await request.say(200, ACK)

    async def _take_in(self, request: HeldRequest, received: Received, *, late_s: float) -> None:
        if self._deliver is None:
            return
        turn = self._book.begin(received.id, late_s=late_s)
        inbound = self._inbound(received, late_s=late_s)
        try:
            admitted = await self._deliver(inbound)
            turn.admitted = True
        except StoreError as error:
            logger.warning("Channel %s leaves message %s to WeChat's next attempt: %s", self.name, received.id, error)
            return
        finally:
            if not turn.admitted:
                await self._book.abandon(turn)
        if admitted.admission is Admission.DUPLICATE:
            self._join(turn, received, admitted.accepted_at)
        await self._note(turn, inbound, received, admitted)
        await self._hold(turn, request, received)

    async def _ask_again(self, turn: Turn, received: Received) -> None:
        """A further attempt at a turn without an answer here: it may have been given in another process, to a connection that broke."""
        if self._elsewhere is None or self._deliver is None or turn.state is not TurnState.RUNNING or turn.reply is not None:
            return
        inbound = self._inbound(received, late_s=0.0)
        try:
            async with self._clock.timeout(PATIENCE_S):
                admitted = await self._deliver(inbound)
        except (StoreError, TimeoutError) as error:
            reason = str(error) or "the store hangs"
            logger.warning("Channel %s cannot see whether message %s was answered: %s", self.name, received.id, reason)
            return
        await self._note(turn, inbound, received, admitted)

    async def _note(self, turn: Turn, inbound: Inbound, received: Received, admitted: Admitted) -> None:
        if admitted.admission is Admission.IGNORED:
            await self._book.settle(turn, ACK)
        if admitted.admission is not Admission.DUPLICATE:
            return
        await self._book.catch_up(turn)
        if turn.state is TurnState.RUNNING and turn.reply is None and (text := self._known_answer(inbound, admitted)):
            await self._book.settle(turn, _reply(received, text))

    def _known_answer(self, inbound: Inbound, admitted: Admitted) -> str:
        """What was or will be said, as the ledger knows it; empty when it does not."""
        lang = language_of(inbound.text)
        if admitted.answer is not None and admitted.answer.pieces:
            return with_hint(admitted.answer.pieces[0], more=len(admitted.answer.pieces) > 1, lang=lang)
        if admitted.outcome is not None and self._elsewhere is not None:
            return say("ended_without_words", lang, reason=admitted.outcome.reason or admitted.outcome.kind.value)
        return ""

    def _inbound(self, received: Received, *, late_s: float) -> Inbound:
        first_seen = self._clock.now() - timedelta(seconds=late_s)
        return to_inbound(received, channel=self.name, account=self._app_id, first_seen=first_seen, answerable_s=self._ladder.over_s)

    async def _hold(self, turn: Turn, request: HeldRequest, received: Received) -> None:
        await self._book.hold(turn, request, lambda: _reply(received, say("placeholder", language_of(received.fields.get("Content", "")))))

    def _join(self, turn: Turn, received: Received, accepted_at: datetime | None) -> None:
        """The message was taken in before, by this process' forerunner or by another one."""
        if accepted_at is None:
            turn.began = min(turn.began, self._clock.monotonic() - self._late_by(int(self._clock.now().timestamp()), received))
        else:
            self._book.join(turn, elapsed_s=(self._clock.now() - accepted_at).total_seconds())

    def _late_by(self, at: int, received: Received) -> float:
        """Seconds since the platform's first attempt, for a message that we meet at a later one (we were away).

        Below two seconds it is rounding, and more than the whole ladder is somebody's fixed CreateTime: both count as now.
        """
        late = at - int(received.created)
        if not 2 <= late <= self._ladder.over_s:
            return 0.0
        return min(float(late), 2 * self._ladder.window_s)

    def _reply_to(self, event: Event) -> str:
        """Answered at once and identically each time; only a new follower gets words."""
        self._log_once(event)
        if event.name != "subscribe" or not self._welcome:
            return ACK
        return text_reply(to_user=event.sender, from_user=event.bot, created=event.created, text=self._welcome)

    def _log_once(self, event: Event) -> None:
        now = self._clock.monotonic()
        if self._events.setdefault(event.identity, now) == now:
            logger.info("Channel %s: event %s of %s.", self.name, event.name[:40], event.sender)
        while len(self._events) > MAX_TURNS or next(iter(self._events.values())) < now - KEEP_S:
            self._events.popitem(last=False)


def _reply(received: Received, text: str) -> str:
    return text_reply(to_user=received.sender, from_user=received.bot, created=received.created, text=text)


def _finding(what: str, ok: bool, repair: str) -> Finding:
    return Finding(what, ok, "" if ok else repair)


def _checked_welcome(welcome: str | None, max_bytes: int) -> str | None:
    if welcome and len(welcome.encode()) > max_bytes:
        raise ConfigError(f"welcome is {len(welcome.encode())} bytes long; WeChat takes {max_bytes}")
    return welcome
