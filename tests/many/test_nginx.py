"""deploy/nginx.conf in front of two gateways: the very file, with its addresses exchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from gateway.channels.api import PATH, ApiChannel
from gateway.channels.base import Channel
from gateway.channels.http_face import HttpFace
from gateway.channels.official_account.channel import OfficialAccountChannel
from gateway.prompts import Delta, Prompt, StopReason
from gateway.simulators.official_account import OfficialAccountSimulator
from gateway.testing.backend import ScriptedBackend
from gateway.testing.bulletin import SharedBulletin, SharedSeats
from tests.many.forwarder import Forwarder
from tests.many.house import Build, Shared, process, shared
from tests.many.nginx import needs_nginx, nginx

WINDOW_S = 1.0
"""Stands for WeChat's five seconds."""
TOKEN = "sesame-and-more"

pytestmark = needs_nginx


@dataclass(kw_only=True)
class Scene:
    between: Shared
    ways: list[Forwarder]
    """Between nginx and each gateway; `kill` cuts a gateway off."""
    platform: OfficialAccountSimulator
    client: httpx2.AsyncClient

    async def told(self, text: str) -> str:
        msg_id = await self.platform.say(sender="粉丝甲", text=text)
        shown = await self.platform.wait_until(lambda seen: any(each.answers == msg_id for each in seen))
        await self.platform.idle()
        return next(each.text for each in shown if each.answers == msg_id)

    def kill(self, number: int) -> None:
        for port in self.ways[number].ports:
            self.ways[number].kill(port)

    @property
    def holder(self) -> int:
        """The gateway that the last request reached."""
        (number,) = [number for number, way in enumerate(self.ways) if way.taken]
        return number


def account(between: Shared, face: HttpFace, bulletin: SharedBulletin, seats: SharedSeats) -> Channel:
    return OfficialAccountChannel(
        name="official",
        app_id="wx1234567890abcdef",
        token="sesame",
        face=face,
        clock=between.clock,
        window_s=WINDOW_S,
        attempt_s=WINDOW_S * 0.9,
        shelf=between.store.shelf,
        bulletin=bulletin,
    )


def api(between: Shared, face: HttpFace, bulletin: SharedBulletin, seats: SharedSeats) -> Channel:
    return ApiChannel("api", tokens=[TOKEN], face=face, clock=between.clock, bulletin=bulletin)


@asynccontextmanager
async def _scene(folder: Path, build: Build, backend: ScriptedBackend | None = None) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        between = shared()
        between.backend = backend or between.backend
        made = [await stack.enter_async_context(process(between, build)) for _ in range(2)]
        ways = [await stack.enter_async_context(Forwarder([each.port]).running()) for each in made]
        port = await stack.enter_async_context(nginx(folder, [way.port for way in ways]))
        url = f"http://127.0.0.1:{port}"
        simulator = OfficialAccountSimulator(
            token="sesame", callback_url=f"{url}/official_account/official", window_s=WINDOW_S, retry_pause_s=0.05
        )
        platform = await stack.enter_async_context(simulator.playing())
        client = await stack.enter_async_context(httpx2.AsyncClient(base_url=url, trust_env=False, timeout=10))
        yield Scene(between=between, ways=ways, platform=platform, client=client)


@pytest.fixture
async def callbacks(tmp_path: Path) -> AsyncIterator[Scene]:
    async with _scene(tmp_path, account) as made:
        yield made


@pytest.fixture
async def programs(tmp_path: Path) -> AsyncIterator[Scene]:
    async with _scene(tmp_path, api) as made:
        yield made


@pytest.mark.parametrize(("latency", "attempts"), [(0.0, 1), (1.4, 2)])
async def test_the_attempts_of_one_person_go_to_one_gateway_and_wechats_cut_is_seen_there(
    callbacks: Scene, latency: float, attempts: int
) -> None:
    callbacks.between.backend.will_say("四十二", after_s=latency * WINDOW_S)

    assert await callbacks.told("多少") == "四十二"

    assert len(callbacks.platform.deliveries) == attempts
    assert len([way for way in callbacks.ways if way.taken]) == 1
    assert callbacks.between.board.published == [] or latency


async def test_a_gateway_that_dies_with_a_callback_in_hand_is_replaced_within_the_same_attempt(callbacks: Scene) -> None:
    callbacks.between.backend.will_say("四十二", after_s=0.6 * WINDOW_S)

    telling = asyncio.create_task(callbacks.told("多少"))
    await callbacks.between.backend.wait_until_asked(1)
    callbacks.kill(callbacks.holder)

    assert await telling == "四十二"
    assert len(callbacks.platform.deliveries) == 1
    assert len(callbacks.between.backend.prompts) == 1


async def test_when_no_gateway_lives_a_callback_ends_without_a_fault_page(callbacks: Scene) -> None:
    for number in range(2):
        callbacks.kill(number)

    with pytest.raises(httpx2.RemoteProtocolError):
        await callbacks.client.post("/official_account/official?openid=o1", content=b"<xml/>")


class Hesitating(ScriptedBackend):
    """Says one word, then waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        yield Delta(text="四十")
        await self.go_on.wait()
        yield Delta(text="二")
        yield Delta(stop=StopReason.END)


async def test_a_stream_reaches_the_program_as_it_grows(tmp_path: Path) -> None:
    backend = Hesitating()
    question = {"text": "多少", "sender": "alice", "stream": True}
    async with (
        _scene(tmp_path, api, backend) as scene,
        scene.client.stream("POST", PATH, json=question, headers={"authorization": f"Bearer {TOKEN}"}) as response,
    ):
        lines = response.aiter_lines()
        async with asyncio.timeout(5):
            while "四十" not in await anext(lines):
                pass
        backend.go_on.set()
        assert "四十二" in "".join([line async for line in lines])


async def test_a_question_that_reached_a_gateway_is_never_sent_to_the_other(programs: Scene) -> None:
    programs.between.backend.hold()
    question = {"text": "多少", "sender": "alice"}
    asking = asyncio.create_task(programs.client.post(PATH, json=question, headers={"authorization": f"Bearer {TOKEN}"}))
    await programs.between.backend.wait_until_asked(1)

    programs.kill(programs.holder)
    response = await asking
    programs.between.backend.release()

    assert response.status_code == 502
    assert len(await programs.between.store.ledger.latest()) == 1


async def test_what_a_gateway_says_about_itself_is_not_public(programs: Scene) -> None:
    statuses = [(await programs.client.get(path)).status_code for path in ("/healthz", "/readyz", "/metrics", "/nginx-health")]

    assert statuses == [404, 404, 404, 204]
