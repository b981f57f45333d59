"""The HTTP API behind a load balancer: a program may ask one gateway and the answer be made in another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx2
import pytest

from gateway.channels.api import PATH, ApiChannel
from gateway.channels.asking_elsewhere import MAX_TEXT_CHARS
from gateway.channels.base import Admission, Admitted
from gateway.channels.http_face import HttpFace
from gateway.errors import RateLimited
from gateway.messages import Inbound, Outbound
from gateway.testing.bulletin import SharedBulletin, SharedSeats
from gateway.wording import say
from tests.many.house import Process, Shared, process, shared

TOKEN = "a-long-secret-token"


def api(between: Shared, face: HttpFace, bulletin: SharedBulletin, seats: SharedSeats) -> ApiChannel:
    return ApiChannel("api", tokens=[TOKEN], face=face, clock=between.clock, timeout_s=5, bulletin=bulletin)


@dataclass(kw_only=True)
class Scene:
    between: Shared
    one: Process
    other: Process
    client: httpx2.AsyncClient

    def ask(self, where: Process, text: str = "多少", *, stream: bool = False) -> asyncio.Task[httpx2.Response]:
        body = {"text": text, "sender": "alice", "id": "q1", "stream": stream}
        url = f"http://127.0.0.1:{where.port}{PATH}"
        return asyncio.create_task(self.client.post(url, json=body, headers={"authorization": f"Bearer {TOKEN}"}))

    async def both_asked(self, *, stream: bool = False) -> list[httpx2.Response]:
        """The same id at both gateways while the model thinks."""
        self.between.backend.hold()
        first = self.ask(self.one)
        await self.between.backend.wait_until_asked(1)
        second = self.ask(self.other, stream=stream)
        await self.until_said("wanted")
        self.between.backend.release()
        return list(await asyncio.gather(first, second))

    async def until_said(self, word: str) -> None:
        heard = asyncio.Event()
        if any(word in text for _, text in self.between.board.published):
            return
        self.between.board.bulletin().listen("api/api", lambda text: heard.set() if word in text else None)
        async with asyncio.timeout(5):
            await heard.wait()


@asynccontextmanager
async def _scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        between = shared()
        client = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=10))
        one = await stack.enter_async_context(process(between, api))
        other = await stack.enter_async_context(process(between, api))
        yield Scene(between=between, one=one, other=other, client=client)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with _scene() as made:
        yield made


async def test_an_id_that_another_gateway_is_answering_gets_the_same_answer(scene: Scene) -> None:
    scene.between.backend.will_say("四十", "二")

    first, second = await scene.both_asked()

    assert first.json() == second.json() == {"id": "q1", "text": "四十二", "pieces": ["四十二"]}
    assert len(scene.between.backend.prompts) == 1


async def test_a_stream_at_the_other_gateway_shows_everything_in_one_piece(scene: Scene) -> None:
    scene.between.backend.will_say("四十", "二")

    _, second = await scene.both_asked(stream=True)

    blocks = [block for block in second.text.split("\n\n") if block and not block.startswith(":")]
    assert [block.split("\n")[0] for block in blocks] == ["event: delta", "event: done"]
    assert json.loads(blocks[0].split("data: ")[1]) == {"text": "四十二"}


async def test_a_long_answer_is_read_in_the_ledger_instead_of_told(scene: Scene) -> None:
    scene.between.backend.will_say("长" * (MAX_TEXT_CHARS + 1))

    _, second = await scene.both_asked()

    assert second.json()["text"] == "长" * (MAX_TEXT_CHARS + 1)
    assert max(len(text) for _, text in scene.between.board.published) < MAX_TEXT_CHARS


async def test_a_sentence_of_the_gateway_reaches_the_other_one_too(scene: Scene) -> None:
    scene.between.backend.will_fail(RateLimited(retry_after_s=3))

    first, second = await scene.both_asked()

    assert first.json()["text"] == second.json()["text"] == say("rate_limited", "zh")


async def test_an_answer_that_is_waited_for_where_it_is_made_is_no_news(scene: Scene) -> None:
    assert (await scene.ask(scene.one)).json()["text"] == "ANS:多少"

    assert scene.between.board.published == []
    assert (await scene.ask(scene.other)).json()["text"] == "ANS:多少"


async def test_a_message_that_another_process_works_is_answered_where_it_was_asked() -> None:
    between = shared()
    face, worker_face = HttpFace(), HttpFace()
    asked = api(between, face, between.board.bulletin(), between.board.seats())
    worker = api(between, worker_face, between.board.bulletin(), between.board.seats())
    work: asyncio.Queue[Inbound] = asyncio.Queue()

    async def deliver(inbound: Inbound) -> Admitted:
        work.put_nowait(inbound)
        return Admitted(Admission.ACCEPTED)

    async def texts() -> AsyncGenerator[str, None]:
        yield "四十"
        yield "二"

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app=face), base_url="http://gateway", trust_env=False)
        )
        running = [asyncio.create_task(each.run(deliver)) for each in (asked, worker)]
        await asyncio.sleep(0)
        question = {"text": "多少", "sender": "alice", "id": "q1"}
        asking = asyncio.create_task(client.post(PATH, json=question, headers={"authorization": f"Bearer {TOKEN}"}))
        inbound = await work.get()
        key = f"api/{inbound.key.account}/{inbound.key.message}/0"
        await worker.send_growing(Outbound(key=key, address=inbound.address, text="", ticket=inbound.ticket), texts())

        assert (await asking).json()["text"] == "四十二"

        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
