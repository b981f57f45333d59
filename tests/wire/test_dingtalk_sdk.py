"""The simulator is right when DingTalk's own, unmodified SDK works against it.

The SDK runs in a process of its own: it blocks its event loop, reads its address once at import and swallows cancellation.
Another SDK (the 0.24.4 pre-release) is tried with `DINGTALK_SDK_PATH=folder`, a folder made by `pip install --target`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.simulators.dingtalk import CLIENT_ID, CLIENT_SECRET, DingTalkSimulator

SDK_PATH = os.environ.get("DINGTALK_SDK_PATH", "")  # Read now: every test starts with a clean environment.

BOT = """
import asyncio, sys
import dingtalk_stream
from dingtalk_stream import AckMessage, ChatbotHandler, ChatbotMessage, Credential, DingTalkStreamClient

client_id, secret, pause_s = sys.argv[1], sys.argv[2], float(sys.argv[3])

class Bot(ChatbotHandler):
    async def process(self, callback):
        message = ChatbotMessage.from_dict(callback.data)
        await asyncio.sleep(pause_s)
        answer = f"收到 {message.sender_nick}: {message.get_text_list()[0].strip()}"
        if "@" in answer:
            self.reply_text(answer, message)
        else:
            self.reply_markdown("回复", answer, message)
        return AckMessage.STATUS_OK, "OK"

client = DingTalkStreamClient(Credential(client_id, secret))
client.register_callback_handler(ChatbotMessage.TOPIC, Bot())
asyncio.run(client.start())
"""


@asynccontextmanager
async def official_sdk(
    sim: DingTalkSimulator, *, secret: str = CLIENT_SECRET, pause_s: float = 0
) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        **os.environ,
        "DINGTALK_OPENAPI_ENDPOINT": sim.base_url,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    environment["PYTHONPATH"] = SDK_PATH
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        BOT,
        CLIENT_ID,
        secret,
        str(pause_s),
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def sim() -> AsyncIterator[DingTalkSimulator]:
    async with DingTalkSimulator().running() as sim:
        yield sim


async def test_the_official_sdk_answers_in_a_group_and_in_private(sim: DingTalkSimulator) -> None:
    async with official_sdk(sim):
        await sim.wait_for_log("connect", timeout_s=30)

        asked = await sim.say(sender="张三", group="测试群", text="今天天气?")
        await sim.wait_for_shown(1)
        await sim.say(sender="李四", text="在吗")
        in_group, private = await sim.wait_for_shown(2)
        await sim.wait_for_log("ack", 2)

    assert (in_group.chat, in_group.text, in_group.answers) == ("测试群", "收到 张三: 今天天气?", asked)
    assert (private.chat, private.text) == ("李四", "收到 李四: 在吗")
    assert sim.acks[sim.frames[asked]].code == 200
    assert json.loads(sim.acks[sim.frames[asked]].data) == {"response": "OK"}


async def test_the_official_sdks_markdown_mention_rings_no_phone(sim: DingTalkSimulator) -> None:
    """It sets `atUserIds` and forgets the `@id` in the text: DingTalk then notifies nobody, and neither does the simulator."""
    async with official_sdk(sim):
        await sim.wait_for_log("connect", timeout_s=30)
        await sim.say(sender="张三", group="测试群", text="你好")
        (shown,) = await sim.wait_for_shown(1)

    assert json.loads(sim.posts[0].body)["at"] == {"atUserIds": ["manager01"]}
    assert shown.notified == ()


async def test_the_official_sdk_echoes_the_ping(sim: DingTalkSimulator) -> None:
    async with official_sdk(sim):
        await sim.wait_for_log("connect", timeout_s=30)
        await sim.ping()
        await sim.wait_for_log("pong")

    (ack,) = sim.acks.values()
    assert json.loads(ack.data)["opaque"]


async def test_the_official_sdk_follows_a_disconnect_to_a_new_socket(sim: DingTalkSimulator) -> None:
    async with official_sdk(sim):
        await sim.wait_for_log("connect", timeout_s=30)
        await sim.disconnect()
        await sim.wait_for_log("connect", 2)
        await sim.say(text="还在吗")
        await sim.wait_for_shown(1)


async def test_a_slow_handler_of_the_official_sdk_gets_the_message_again(sim: DingTalkSimulator) -> None:
    """Acknowledged only after the work: the platform repeats itself. Version 0.24.3 then answers twice; our channel must not."""
    sim.faults.ack_timeout_s = 0.5
    async with official_sdk(sim, pause_s=0.8):
        await sim.wait_for_log("connect", timeout_s=30)
        asked = await sim.say(text="慢慢来")
        await sim.wait_for_log("ack")

    assert [subject for event, subject in sim.log if event == "push"] == [asked, asked]


async def test_a_wrong_secret_gets_the_official_sdk_no_ticket(sim: DingTalkSimulator) -> None:
    async with official_sdk(sim, secret="mistyped"):
        await sim.wait_for_log("refused", timeout_s=30)

    assert ("refused", "401") in sim.log
    assert sim.connections == 0


async def test_the_official_sdk_sees_a_refused_webhook_only_in_the_errcode(sim: DingTalkSimulator) -> None:
    sim.faults.webhook_errcodes = [460101]
    async with official_sdk(sim):
        await sim.wait_for_log("connect", timeout_s=30)
        await sim.say(text="太长了")
        await sim.wait_for_log("ack")

    assert len(sim.posts) == 1
    assert sim.shown == []
