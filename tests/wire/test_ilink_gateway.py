"""A whole gateway behind the iLink channel: long answers, parking, crashes between ledger and phone, and the shared shelf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.channels.http_face import HttpFace
from gateway.channels.wechat.ilink_bonds import ShelfBonds
from gateway.channels.wechat.ilink_channel import ILinkChannel
from gateway.channels.wechat.ilink_transport import ILinkTransport
from gateway.clock import SystemClock
from gateway.reading import parse_config
from gateway.simulators import ilink_faults as at
from gateway.simulators.ilink import ILinkSimulator
from gateway.simulators.ilink_faults import ILinkFaults
from gateway.stores.base import Store
from gateway.stores.memory import MemoryStore
from gateway.testing.backend import ScriptedBackend
from gateway.wiring import join


@pytest.fixture
async def simulator() -> AsyncIterator[ILinkSimulator]:
    simulator = ILinkSimulator(faults=ILinkFaults(hold_s=0.3, qr_states=[]))
    async with simulator.running():
        yield simulator


@asynccontextmanager
async def gateway(simulator: ILinkSimulator, folder: Path, store: Store, *, shelf: bool = False) -> AsyncIterator[ScriptedBackend]:
    clock = SystemClock()
    bonds = ShelfBonds(channel="wechat", shelf=store.shelf, clock=clock, base_url=simulator.base_url) if shelf else None
    transport = ILinkTransport(
        channel="wechat",
        clock=clock,
        folder=folder,
        bonds=bonds,
        base_url=simulator.base_url,
        show=lambda text: None,
        pause_s=0.02,
        watch_s=0.05,
    )
    channel = ILinkChannel(name="wechat", transport=transport)
    backend = ScriptedBackend(clock=clock)
    words = {"words": {"kind": "official_account", "app_id": "wx0123456789abcdef", "token": "token"}}  # its section brings the fetch words
    config = parse_config({"answering": {"chain": ["echo"]}, "channels": words}, {})
    async with AsyncExitStack() as stack:
        house = join(config, store=store, backend=backend, channels={"wechat": channel}, face=HttpFace(), clock=clock)
        stack.push_async_callback(channel.aclose)
        stack.push_async_callback(house.lanes.settle, clock, 0)
        task = asyncio.create_task(channel.run(house.dispatch.hear), name="channel")
        try:
            async with asyncio.timeout(10):
                while not channel.health().ok:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            yield backend
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_question_is_answered(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with gateway(simulator, tmp_path, MemoryStore()):
        await simulator.say(sender="小明", text="你好")
        [shown] = await simulator.wait_for_shown(1)
    assert shown.text == "ANS:你好"


async def test_a_very_long_answer_is_told_in_nine_messages_and_the_rest_for_a_word(simulator: ILinkSimulator, tmp_path: Path) -> None:
    words = "".join(f"第{number}句话在这里，后面还有很多很多别的话要说。" for number in range(1_200))
    async with gateway(simulator, tmp_path, MemoryStore()) as backend:
        backend.will_say(words)
        await simulator.say(sender="小明", text="讲个长故事")
        shown = await simulator.wait_for_shown(10, timeout_s=20)
        assert shown[-1].text == "（未完，回复“继续”）"
        pieces = [one.text for one in shown[:-1]]
        for _ in range(60):
            before = len(simulator.shown)
            await simulator.say(sender="小明", text="继续")
            piece = (await simulator.wait_for_shown(before + 1))[before].text
            pieces.append(piece.removesuffix("\n（未完，回复“继续”）"))
            if not piece.endswith("（未完，回复“继续”）"):
                break

    assert all(1_500 < len(piece) <= 1_800 for piece in pieces[:-1])
    assert "".join(pieces) == words, "every word is shown once, in order"


async def test_a_suppressed_answer_ends_as_failed_not_as_answered(simulator: ILinkSimulator, tmp_path: Path) -> None:
    store = MemoryStore()
    async with gateway(simulator, tmp_path, store):
        simulator.faults.suppressed = 1
        message = await simulator.say(sender="小明", text="你好")
        async with asyncio.timeout(10):
            while not (found := await store.ledger.find(message)) or found[0].outcome is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert found[0].outcome.kind.value == "failed"
    assert "no id" in found[0].outcome.detail


async def test_sign_ins_on_a_shared_shelf_serve_the_next_process(simulator: ILinkSimulator, tmp_path: Path) -> None:
    store = MemoryStore()
    async with gateway(simulator, tmp_path / "one", store, shelf=True):
        await simulator.say(sender="小明", text="一")
        await simulator.wait_for_shown(1)
    async with gateway(simulator, tmp_path / "two", store, shelf=True):
        await simulator.say(sender="小明", text="二")
        await simulator.wait_for_shown(2)

    assert [shown.text for shown in simulator.shown] == ["ANS:一", "ANS:二"]
    assert len(simulator.calls(at.QR)) == 1
    assert not (tmp_path / "one").exists() or not any((tmp_path / "one").glob("*.json"))
