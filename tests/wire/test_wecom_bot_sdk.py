"""The simulator is right when Tencent's own Python SDK (wecom-aibot-python-sdk 1.0.2) works against it.

The SDK runs in a process of its own: its module `aibot.types` and its prints are nobody else's business. It always asks for TLS, so that is
switched off before it connects; nothing else of it is changed. `WECOM_SDK_PATH=folder` tries one made by `pip install --target`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.simulators.wecom_bot import BOT_ID, SECRET, WeComBotSimulator

SDK_PATH = os.environ.get("WECOM_SDK_PATH", "")  # Read now: every test starts with a clean environment.

pytestmark = pytest.mark.skipif(
    not SDK_PATH and importlib.util.find_spec("aibot") is None,
    reason="TENCENT'S SDK IS MISSING, the WeCom simulator is not checked: pip install wecom-aibot-python-sdk==1.0.2",
)

BOT = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
import aibot.ws
aibot.ws._SSL_CONTEXT = None
from aibot import WSClient, WSClientOptions

class Quiet:
    def debug(self, *_): pass
    info = warn = error = debug

async def main(url, bot_id, secret):
    options = dict(heartbeat_interval=200, reconnect_interval=100, logger=Quiet())
    client = WSClient(WSClientOptions(bot_id=bot_id, secret=secret, ws_url=url, **options))

    async def answer(frame):
        asked = frame["body"]["text"]["content"]
        words = ""
        for word in ("收到", "：", asked):
            words += word
            await client.reply_stream(frame, "s-" + frame["body"]["msgid"], words, finish=False)
        await client.reply_stream(frame, "s-" + frame["body"]["msgid"], words, finish=True)
        where = frame["body"].get("chatid") or frame["body"]["from"]["userid"]
        await client.send_message(where, {"msgtype": "markdown", "markdown": {"content": "**还有问题吗？**"}})

    async def welcome(frame):
        await client.reply_welcome(frame, {"msgtype": "text", "text": {"content": "您好"}})

    client.on("message.text", answer)
    client.on("event.enter_chat", welcome)
    client.on("error", lambda error: None)
    await client.connect()
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def official_sdk(sim: WeComBotSimulator, *, secret: str = SECRET) -> AsyncIterator[asyncio.subprocess.Process]:
    url = sim.base_url.replace("http://", "ws://")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        BOT,
        url,
        BOT_ID,
        secret,
        env={**os.environ, "PYTHONPATH": SDK_PATH, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def sim() -> AsyncIterator[WeComBotSimulator]:
    async with WeComBotSimulator().running() as sim:
        yield sim
    assert sim.violations == []


async def test_the_official_sdk_answers_in_a_stream_and_speaks_by_itself(sim: WeComBotSimulator) -> None:
    async with official_sdk(sim):
        await sim.wait_for_log("subscribe", timeout_s=30)
        asked = await sim.say(sender="zhangsan", text="在吗")
        await sim.wait_for_shown(2)

    assert [snapshot.content for snapshot in sim.snapshots] == ["收到", "收到：", "收到：在吗", "收到：在吗"]
    assert [(shown.chat, shown.text, shown.answers) for shown in sim.shown] == [
        ("zhangsan", "收到：在吗", asked),
        ("zhangsan", "**还有问题吗？**", ""),
    ]


async def test_the_official_sdk_answers_in_a_group(sim: WeComBotSimulator) -> None:
    async with official_sdk(sim):
        await sim.wait_for_log("subscribe", timeout_s=30)
        await sim.say(sender="lisi", group="wrGroup", text="几点了")
        await sim.wait_for_shown(2)

    assert [(shown.chat, shown.text) for shown in sim.shown] == [("wrGroup", "收到：@小助手 几点了"), ("wrGroup", "**还有问题吗？**")]


async def test_the_official_sdk_says_welcome(sim: WeComBotSimulator) -> None:
    async with official_sdk(sim):
        await sim.wait_for_log("subscribe", timeout_s=30)
        await sim.enter_chat("zhangsan")
        await sim.wait_for_shown(1)

    assert [(shown.chat, shown.text) for shown in sim.shown] == [("zhangsan", "您好")]


async def test_the_official_sdk_pings_and_gives_a_silent_connection_up(sim: WeComBotSimulator) -> None:
    """Seen here: after closing the socket itself it does not connect again (its loop takes a clean end for no end). Ours does."""
    async with official_sdk(sim):
        await sim.wait_for_log("ping", 2, timeout_s=30)
        assert sim.connections == 1
        sim.faults.silent_pings = True
        await sim.wait_for_log("close", timeout_s=30)


async def test_the_official_sdk_comes_back_after_a_cut(sim: WeComBotSimulator) -> None:
    async with official_sdk(sim):
        await sim.wait_for_log("subscribe", timeout_s=30)
        sim.kill_sockets()
        await sim.wait_for_log("subscribe", 2, timeout_s=30)
        await sim.say(text="还在吗")
        await sim.wait_for_shown(2)


async def test_the_official_sdk_stays_deaf_after_a_takeover(sim: WeComBotSimulator) -> None:
    """It keeps the socket and pings on, and hears nothing more: our channel must not."""
    async with official_sdk(sim):
        await sim.wait_for_log("subscribe", timeout_s=30)
        await sim.take_over()
        pings = sim.count("ping")
        await sim.wait_for_log("ping", pings + 3, timeout_s=30)
        await sim.say(text="还在吗")

    assert (sim.count("subscribe"), sim.count("tell"), sim.shown) == (1, 0, [])


async def test_a_wrong_secret_gets_the_official_sdk_in_nowhere(sim: WeComBotSimulator) -> None:
    async with official_sdk(sim, secret="mistyped"):
        await sim.wait_for_log("refused", timeout_s=30)

    assert ("refused", "853000") in sim.log
    assert sim.count("subscribe") == 0
