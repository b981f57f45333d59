"""What we ask of DingTalk: a Stream connection, a token, and to show an answer by session webhook or by API call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from gateway.channels.dingtalk.parse import Raw
from gateway.channels.dingtalk.quota import Quota
from gateway.channels.dingtalk.token import AccessToken
from gateway.channels.dingtalk.verdicts import CHECK_LIST, RATE_CODE, check_sent, check_shown, repair_for
from gateway.channels.dingtalk.wire import Answer, Wire
from gateway.clock import Clock
from gateway.errors import ChannelError, SendError, SendLater, SendRefused

_OPEN = "/v1.0/gateway/connections/open"
_TOKEN = "/v1.0/oauth2/accessToken"  # noqa: S105  (a path)
_TO_PERSON = "/v1.0/robot/oToMessages/batchSend"
_TO_GROUP = "/v1.0/robot/groupMessages/send"
_QUERY = "/v1.0/robot/groupMessages/query"
_TOKEN_LIFE_S = 7_200.0


class OpenRefused(ChannelError):
    """DingTalk refuses the connection until somebody repairs the configuration."""

    def __init__(self, message: str | None = None, *, answer: Answer | None = None) -> None:
        super().__init__(message)
        self.answer = answer


class OpenFailed(ChannelError):
    """No connection now; it may work later."""

    def __init__(self, message: str | None = None, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Where a Stream connection may be opened, once, within 90 seconds."""

    endpoint: str
    ticket: str

    def __repr__(self) -> str:
        return "Opening(…)"


class OpenApi:
    """One app's conversation with DingTalk. Its access token goes to `openapi_base` only, never to a session webhook."""

    def __init__(self, *, client_id: str, client_secret: str, openapi_base: str, wire: Wire, quota: Quota, clock: Clock) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._base = openapi_base.rstrip("/")
        self._wire = wire
        self._quota = quota
        self._token = AccessToken(self._fetch_token, clock)

    async def open_connection(self, topics: Iterable[str]) -> Opening:
        """Raises OpenRefused when the configuration is wrong, else OpenFailed."""
        subscriptions = [{"type": "CALLBACK", "topic": topic} for topic in topics]
        asked = {"clientId": self._client_id, "clientSecret": self._client_secret, "subscriptions": subscriptions, "ua": "chat-gateway"}
        answer = await self._ask(_OPEN, asked)
        endpoint, ticket = answer.body.get("endpoint"), answer.body.get("ticket")
        if not isinstance(endpoint, str) or not isinstance(ticket, str) or not endpoint.startswith(self._socket_schemes):
            raise OpenFailed("DingTalk's answer names no endpoint and ticket")
        return Opening(endpoint=endpoint, ticket=ticket)

    async def check_token(self) -> Answer:
        """What DingTalk answers to id and secret. Raises OpenRefused or OpenFailed unless they earn an access token."""
        answer = await self._ask(_TOKEN, {"appKey": self._client_id, "appSecret": self._client_secret})
        if not isinstance(answer.body.get("accessToken"), str):
            raise OpenFailed("DingTalk's answer has no access token")
        return answer

    async def ask_about_robot(self) -> Answer:
        """A call that shows nothing: about a message that never was. Its refusal tells what hinders API calls. Raises a SendError.

        It is not counted: only the doctor makes it, and a stranger to the gateway's count would take a whole block.
        """
        asked = {"robotCode": self._client_id, "processQueryKey": "chat-gateway-doctor"}
        return await self._post(_QUERY, asked, await self._token_to_send())

    async def reply(self, session_webhook: str, body: Raw) -> None:
        """Show `body` in the conversation that the webhook belongs to. Raises a SendError."""
        self._wire.must_be_known(session_webhook)
        check_shown(await self._wire.post(session_webhook, body))

    async def send_to_person(self, staff_id: str, sample: Raw) -> str:
        """Show `sample` (msgKey and msgParam) in the private chat with one person. Raises a SendError."""
        return check_sent(await self._call(_TO_PERSON, {"robotCode": self._client_id, "userIds": [staff_id], **sample}))

    async def send_to_group(self, conversation: str, sample: Raw) -> str:
        """Show `sample` in a group that the bot is in. Raises a SendError."""
        asked = {"robotCode": self._client_id, "openConversationId": conversation, **sample}
        return check_sent(await self._call(_TO_GROUP, asked), in_group=True)

    @property
    def _socket_schemes(self) -> tuple[str, ...]:
        """Unencrypted only where the base itself is."""
        return ("ws://", "wss://") if self._base.startswith("http://") else ("wss://",)

    async def _ask(self, path: str, body: Raw) -> Answer:
        """A call that needs no token and costs nothing."""
        try:
            answer = await self._wire.post(self._base + path, body)
        except SendError as error:
            raise OpenFailed(f"{self._base} cannot be reached: {error}") from error
        if answer.status != 200:
            self._fail_open(answer)
        return answer

    async def _call(self, path: str, body: Raw) -> Answer:
        """A call that counts. A token that DingTalk takes no longer is replaced once."""
        answer, token = await self._call_once(path, body)
        if answer.status != 401:
            return answer
        self._token.forget(token)
        answer, _ = await self._call_once(path, body)
        return answer

    async def _call_once(self, path: str, body: Raw) -> tuple[Answer, str]:
        token = await self._token_to_send()
        await self._quota.take(path)
        return await self._post(path, body, token), token

    async def _post(self, path: str, body: Raw, token: str) -> Answer:
        return await self._wire.post(self._base + path, body, headers={"x-acs-dingtalk-access-token": token})

    async def _token_to_send(self) -> str:
        try:
            return await self._token.get()
        except OpenFailed as error:
            raise SendLater(str(error), retry_after_s=max(error.retry_after_s, 1.0)) from error
        except OpenRefused as error:
            raise SendRefused(str(error)) from error

    async def _fetch_token(self) -> tuple[str, float]:
        body = (await self.check_token()).body
        lives_s = body.get("expireIn")
        return str(body["accessToken"]), float(lives_s) if isinstance(lives_s, int | float) and lives_s > 0 else _TOKEN_LIFE_S

    def _fail_open(self, answer: Answer) -> NoReturn:
        reason = answer.reason.replace(self._client_secret, "***") if self._client_secret else answer.reason
        if answer.status in {400, 401, 403, 404} and answer.code != RATE_CODE:
            raise OpenRefused(f"DingTalk refuses this app ({reason}): {repair_for(answer) or CHECK_LIST}", answer=answer)
        raise OpenFailed(f"DingTalk gives no connection now ({reason})", retry_after_s=answer.retry_after_s)
