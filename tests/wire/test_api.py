"""Programs talk to the HTTP API over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.app import Gateway
from gateway.channels.api import KEEP_ALIVE_S, MAX_OPEN_TURNS, PATH, ApiChannel
from gateway.channels.base import Admission, Admitted
from gateway.channels.http_face import HttpFace, listening
from gateway.clock import Clock, SystemClock
from gateway.config import Config
from gateway.errors import BackendTimeout, ConfigError, StoreUnavailable
from gateway.messages import Answer, Inbound, Outbound, TurnKey
from gateway.testing import ManualClock

TOKEN = "a-long-secret-token"
OTHER = "another-secret-token"


class House:
    """Takes messages in once, and answers when it is told to."""

    def __init__(self, port: int, channel: ApiChannel) -> None:
        self.channel = channel
        self.client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
        self.heard: list[Inbound] = []
        self.recorded: dict[TurnKey, Answer | None] = {}
        self.broken = False
        self.ignoring = False
        self._news = asyncio.Condition()

    async def deliver(self, inbound: Inbound) -> Admitted:
        if self.broken:
            raise StoreUnavailable
        if self.ignoring:
            return Admitted(Admission.IGNORED)
        async with self._news:
            self.heard.append(inbound)
            self._news.notify_all()
        if inbound.key in self.recorded:
            return Admitted(Admission.DUPLICATE, self.recorded[inbound.key])
        self.recorded[inbound.key] = None
        return Admitted(Admission.ACCEPTED)

    async def hears(self, count: int = 1) -> Inbound:
        async with asyncio.timeout(5), self._news:
            await self._news.wait_for(lambda: len(self.heard) >= count)
        return self.heard[-1]

    def ask(self, text: str = "你好", *, token: str = TOKEN, sender: str = "alice", **fields: Any) -> asyncio.Task[httpx2.Response]:
        body = {"text": text, "sender": sender, **fields}
        return asyncio.create_task(self.client.post(PATH, json=body, headers={"authorization": f"Bearer {token}"}))

    async def post(self, content: bytes | str, **headers: str) -> httpx2.Response:
        return await self.client.post(PATH, content=content, headers={"authorization": f"Bearer {TOKEN}", **headers})

    async def answer(self, inbound: Inbound, *words: str, gate: asyncio.Event | None = None) -> None:
        async def texts() -> AsyncGenerator[str, None]:
            for word in words:
                yield word
            if gate is not None:
                await gate.wait()
            self.recorded[inbound.key] = Answer("".join(words), ("".join(words),))

        await self.channel.send_growing(_outbound(inbound, ""), texts())

    async def tell(self, inbound: Inbound, text: str) -> None:
        await self.channel.send(_outbound(inbound, text))


def _outbound(inbound: Inbound, text: str, *, more: bool = False) -> Outbound:
    key = f"{inbound.key.channel}/{inbound.key.account}/{inbound.key.message}/0"
    return Outbound(key=key, address=inbound.address, text=text, ticket=inbound.ticket, more=more)


@asynccontextmanager
async def open_house(*, clock: Clock | None = None, timeout_s: float = 30.0) -> AsyncIterator[House]:
    face = HttpFace()
    channel = ApiChannel("api", tokens=[TOKEN, OTHER], face=face, clock=clock or SystemClock(), timeout_s=timeout_s)
    async with listening(face, drain_s=1) as port:
        house = House(port, channel)
        running = asyncio.create_task(channel.run(house.deliver))
        await asyncio.sleep(0)
        async with house.client:
            yield house
        running.cancel()
        await asyncio.wait([running])
        await channel.aclose()


def events(content: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in content.split("\n\n") if block and not block.startswith(":")]
    return [(lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))) for lines in blocks]


async def test_a_question_gets_its_answer_as_json() -> None:
    async with open_house() as house:
        asking = house.ask("你好", id="q1")
        inbound = await house.hears()

        await house.answer(inbound, "你", "好！")
        response = await asking

    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {"id": "q1", "text": "你好！", "pieces": ["你好！"]}
    assert (inbound.text, inbound.address.sender, inbound.address.chat) == ("你好", "alice", "alice")


async def test_an_answer_streams_as_it_is_made() -> None:
    async with open_house() as house:
        headers = {"authorization": f"bearer {TOKEN}", "accept": "text/event-stream"}
        async with house.client.stream("POST", PATH, json={"text": "hi", "sender": "a", "id": "q1"}, headers=headers) as response:
            gate = asyncio.Event()
            answering = asyncio.create_task(house.answer(await house.hears(), "one ", "two\n\nthree", gate=gate))
            lines = response.aiter_text()
            first = await anext(lines)
            gate.set()
            content = first + "".join([text async for text in lines])
            await answering

    assert first.startswith("event: delta\n")
    assert response.headers["content-type"] == "text/event-stream"
    assert events(content)[-1] == ("done", {"id": "q1", "text": "one two\n\nthree"})
    assert "".join(data["text"] for kind, data in events(content) if kind == "delta") == "one two\n\nthree"


async def test_the_stream_flag_asks_for_events_too() -> None:
    async with open_house() as house:
        asking = house.ask(stream=True, id="q1")
        await house.answer(await house.hears(), "好")

        assert events((await asking).text) == [("delta", {"text": "好"}), ("done", {"id": "q1", "text": "好"})]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"authorization": "Bearer"},
        {"authorization": b"Bearer \xff\xfe"},
    ],
)
async def test_nobody_asks_without_a_known_token(headers: dict[str, Any]) -> None:
    async with open_house() as house:
        response = await house.client.post(PATH, json={"text": "hi", "sender": "a"}, headers=headers)

        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert house.heard == []


async def test_two_tokens_never_share_people_or_answers() -> None:
    async with open_house() as house:
        mine = house.ask(id="same")
        inbound = await house.hears(1)
        theirs = house.ask(id="same", token=OTHER)
        foreign = await house.hears(2)

        assert inbound.address.account != foreign.address.account
        assert TOKEN not in repr(inbound)
        await house.answer(inbound, "mine")
        await house.answer(foreign, "theirs")

        assert ((await mine).json()["text"], (await theirs).json()["text"]) == ("mine", "theirs")


async def test_conversations_of_one_person_are_told_apart_and_groups_are_groups() -> None:
    async with open_house() as house:
        asking = [house.ask(conversation="shop")]
        private = (await house.hears(1)).address
        asking.append(house.ask(conversation="team", group=True))
        group = (await house.hears(2)).address
        for inbound in house.heard:
            await house.answer(inbound, "ok")
        await asyncio.gather(*asking)

    assert (private.chat, private.sender, private.in_group) == ("shop", "alice#shop", False)
    assert (group.chat, group.sender, group.in_group) == ("team", "alice", True)


BAD = [
    (b"", None),
    (b"not json SECRET", None),
    (b"[]", None),
    (b'"SECRET"', None),
    (b"\xff\xfe", None),
    (b"[" * 100_000, None),
    (b"{}", "sender"),
    (b'{"text": "SECRET"}', "sender"),
    (b'{"sender": "SECRET"}', "text"),
    (b'{"text": "  ", "sender": "a"}', "text"),
    (b'{"text": 5, "sender": "a"}', "text"),
    (b'{"text": "\\ud800SECRET", "sender": "a"}', "text"),
    (b'{"text": "x", "sender": ""}', "sender"),
    (b'{"text": "x", "sender": "a\\nSECRET"}', "sender"),
    (b'{"text": "x", "sender": "a", "id": ""}', "id"),
    (b'{"text": "x", "sender": "a", "id": 7}', "id"),
    (b'{"text": "x", "sender": "a", "id": "' + b"S" * 129 + b'"}', "id"),
    (b'{"text": "x", "sender": "a", "conversation": ["SECRET"]}', "conversation"),
    (b'{"text": "x", "sender": "a", "group": "yes"}', "group"),
    (b'{"text": "x", "sender": "a", "stream": 1}', "stream"),
    (b'{"text": "x", "sender": "a", "SECRET": 1}', None),
    (b'{"text": ' + b"9" * 5000 + b', "sender": "a"}', None),
]


@pytest.mark.parametrize(("body", "field"), BAD, ids=map(str, range(len(BAD))))
async def test_a_request_that_cannot_be_understood_names_the_field_and_echoes_nothing(body: bytes, field: str | None) -> None:
    async with open_house() as house:
        response = await house.post(body)

        assert response.status_code == 400
        assert response.json()["error"]["code"] == "invalid_request"
        assert response.json()["error"].get("field") == field
        assert "SECRET" not in response.text
        assert house.heard == []


async def test_a_body_that_is_too_large_is_refused_in_json() -> None:
    async with open_house() as house:
        response = await house.post(b'{"text": "' + b"x" * 1_000_001 + b'"}')

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_refused"


async def test_only_post_is_served() -> None:
    async with open_house() as house:
        response = await house.client.get(PATH, headers={"authorization": f"Bearer {TOKEN}"})

    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_the_same_id_gets_the_recorded_answer_and_is_answered_once() -> None:
    async with open_house() as house:
        first = house.ask(id="q1")
        await house.answer(await house.hears(), "只说一次")
        again, streamed = house.ask("别的话", id="q1"), house.ask(id="q1", stream=True)

        assert (await first).json() == (await again).json()
        assert events((await streamed).text) == [("delta", {"text": "只说一次"}), ("done", {"id": "q1", "text": "只说一次"})]


async def test_the_same_id_joins_the_running_turn() -> None:
    async with open_house() as house:
        first = house.ask(id="q1")
        inbound = await house.hears(1)
        gate = asyncio.Event()
        answering = asyncio.create_task(house.answer(inbound, "先说", "的话", gate=gate))
        second, third = house.ask(id="q1"), house.ask(id="q1", stream=True)
        await house.hears(3)

        gate.set()
        await answering

        assert (await first).json() == (await second).json() == {"id": "q1", "text": "先说的话", "pieces": ["先说的话"]}
        assert events((await third).text)[-1] == ("done", {"id": "q1", "text": "先说的话"})


async def test_whoever_hangs_up_can_fetch_the_answer_later() -> None:
    async with open_house() as house:
        hasty = house.ask(id="q1")
        inbound = await house.hears()
        hasty.cancel()
        await asyncio.wait([hasty])

        await house.answer(inbound, "慢慢想出来的")

        assert (await house.ask(id="q1")).json()["text"] == "慢慢想出来的"


async def test_whoever_comes_back_while_the_answer_grows_gets_all_of_it() -> None:
    async with open_house() as house:
        hasty = house.ask(id="q1")
        inbound = await house.hears()
        hasty.cancel()
        await asyncio.wait([hasty])
        gate = asyncio.Event()
        answering = asyncio.create_task(house.answer(inbound, "前半", "后半", gate=gate))
        await asyncio.sleep(0.05)

        back = house.ask(id="q1")
        await house.hears(2)
        gate.set()
        await answering

        assert (await back).json()["text"] == "前半后半"


async def test_an_answer_that_takes_too_long_says_how_to_fetch_it() -> None:
    clock = ManualClock()
    async with open_house(clock=clock, timeout_s=60) as house:
        asking, streaming = house.ask(id="q1"), house.ask(id="q2", stream=True)
        await house.hears(2)
        await asyncio.sleep(0.05)

        await clock.advance(61)

        late = await asking
        assert late.status_code == 504
        assert late.json()["id"] == "q1"
        assert "same id" in late.json()["error"]["message"]
        kind, data = events((await streaming).text)[-1]
        assert (kind, data["error"]["code"], data["id"]) == ("error", "timeout", "q2")


async def test_a_quiet_stream_is_kept_alive() -> None:
    clock = ManualClock()
    async with open_house(clock=clock, timeout_s=600) as house:
        asking = house.ask(id="q1", stream=True)
        inbound = await house.hears()
        await asyncio.sleep(0.05)

        for _ in range(3):
            await clock.advance(KEEP_ALIVE_S)
        await house.answer(inbound, "好")

        content = (await asking).text
        assert content.count(": still thinking\n\n") == 3
        assert events(content)[-1] == ("done", {"id": "q1", "text": "好"})


async def test_a_store_that_cannot_write_is_a_503_and_nothing_is_waited_for() -> None:
    async with open_house() as house:
        house.broken = True
        response = await house.ask(id="q1")
        house.broken = False
        again = house.ask(id="q1")
        await house.answer(await house.hears(), "现在好了")

        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert response.json()["error"]["code"] == "unavailable"
        assert (await again).json()["text"] == "现在好了"


async def test_a_sentence_of_the_gateway_is_an_ordinary_answer_and_can_be_asked_for_again() -> None:
    async with open_house() as house:
        asking = house.ask(id="q1")
        await house.tell(await house.hears(), "现在排队的消息太多了")

        assert (await asking).json() == {"id": "q1", "text": "现在排队的消息太多了", "pieces": ["现在排队的消息太多了"]}
        assert (await house.ask(id="q1")).json()["text"] == "现在排队的消息太多了"


async def test_an_answer_that_breaks_off_is_followed_by_the_sentence_that_says_so() -> None:
    async def broken() -> AsyncGenerator[str, None]:
        yield "一半"
        raise BackendTimeout

    async with open_house() as house:
        asking, streaming = house.ask(id="q1"), house.ask(id="q1", stream=True)
        inbound = await house.hears(2)

        with pytest.raises(BackendTimeout):
            await house.channel.send_growing(_outbound(inbound, ""), broken())
        await house.tell(inbound, "抱歉")

        assert (await asking).json()["text"] == "一半\n\n抱歉"
        assert events((await streaming).text)[-1] == ("done", {"id": "q1", "text": "一半\n\n抱歉"})


async def test_pieces_that_are_announced_are_waited_for() -> None:
    async with open_house() as house:
        asking = house.ask()
        inbound = await house.hears()
        await house.channel.send(_outbound(inbound, "一", more=True))
        await house.channel.send(_outbound(inbound, "二"))

        assert (await asking).json()["text"] == "一\n\n二"


async def test_a_message_that_is_ignored_is_answered_with_nothing() -> None:
    async with open_house() as house:
        house.ignoring = True

        assert (await house.ask(id="q1")).json() == {"id": "q1", "text": "", "pieces": []}


async def test_a_farewell_answers_nobody() -> None:
    async with open_house() as house:
        asking = house.ask(id="q1")
        inbound = await house.hears()
        await house.channel.send(Outbound(key="farewell/x", address=inbound.address, text="再见", ticket=inbound.ticket))
        await house.answer(inbound, "好")

        assert (await asking).json()["text"] == "好"


async def test_a_gateway_that_stops_tells_those_who_wait() -> None:
    async with open_house() as house:
        asking, streaming = house.ask(id="q1"), house.ask(id="q2", stream=True)
        await house.hears(2)
        await asyncio.sleep(0.05)

        await house.channel.aclose()

        assert (await asking).status_code == 503
        assert events((await streaming).text)[-1][1]["error"]["code"] == "unavailable"


async def test_a_channel_that_does_not_hear_refuses() -> None:
    face = HttpFace()
    channel = ApiChannel("api", tokens=[TOKEN], face=face, clock=SystemClock())
    running = asyncio.create_task(channel.run(lambda inbound: asyncio.sleep(0, Admitted(Admission.ACCEPTED))))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])

    async with listening(face, drain_s=1) as port, httpx2.AsyncClient(trust_env=False) as client:
        headers = {"authorization": f"Bearer {TOKEN}"}
        response = await client.post(f"http://127.0.0.1:{port}{PATH}", json={"text": "x", "sender": "a"}, headers=headers)

    assert response.status_code == 503
    assert not channel.health().ok


async def test_nothing_is_left_open_after_many_requests() -> None:
    async with open_house() as house:
        for round_ in range(20):
            asking = [house.ask(id=f"{round_}-{number}", stream=number % 2 == 0) for number in range(10)]
            await house.hears((round_ + 1) * 10)
            for inbound in house.heard[-10:]:
                await house.answer(inbound, "ok")
            await asyncio.gather(*asking)

        await asyncio.sleep(0.05)
        assert house.channel._book.open_turns == 0
        assert MAX_OPEN_TURNS > 0


@pytest.mark.parametrize("tokens", [[], [""], ["good", "  "]])
def test_tokens_are_required(tokens: list[str]) -> None:
    with pytest.raises(ConfigError, match="tokens"):
        ApiChannel("api", tokens=tokens, face=HttpFace(), clock=SystemClock())


async def test_after_a_restart_the_same_id_still_gets_the_same_answer(tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "channels": {"api": {"kind": "api", "tokens": [TOKEN]}},
            "backends": {"parrot": {"kind": "echo"}},
            "answering": {"chain": ["parrot"]},
            "store": {"url": f"sqlite:///{tmp_path}/gateway.db"},
            "http": {"port": 0},
        }
    )
    answers = []
    for words in ("说一遍", "换一句"):
        async with Gateway(config).running() as gateway, httpx2.AsyncClient(trust_env=False) as client:
            response = await client.post(
                f"http://127.0.0.1:{gateway.port}{PATH}",
                json={"text": words, "sender": "alice", "id": "q1"},
                headers={"authorization": f"Bearer {TOKEN}"},
            )
            answers.append((response.status_code, response.json()))

    assert answers[0] == answers[1]
    assert answers[0][0] == 200
    assert "说一遍" in answers[0][1]["text"]
