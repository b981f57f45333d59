"""The unmodified client library (itchat-uos 1.5.0.dev0) in a process of its own, against our WeChat Web simulator."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.simulators.wechat_web import WeChatWebFaults, WeChatWebSimulator

CLIENT = """
import json, sys, threading
import itchat
from itchat.content import TEXT

def tell(**event):
    print("EVENT " + json.dumps(event), flush=True)

itchat.set_logging(showOnCmd=False)
itchat.config.BASE_URL = sys.argv[1]
core = itchat.load_sync_itchat()
core.s.trust_env = False
gone = threading.Event()
logins = int(sys.argv[2])

@core.msg_register(TEXT, isFriendChat=True)
def private(msg):
    tell(kind="private", text=msg["Text"], user=msg["User"].get("NickName"), sender=msg["FromUserName"], msg_id=msg["MsgId"])
    if msg["FromUserName"] != core.storageClass.userName:
        result = core.send_msg("echo: " + msg["Text"], msg["FromUserName"])
        tell(kind="sent", ok=bool(result), msg_id=result["MsgID"])

@core.msg_register(TEXT, isGroupChat=True)
def group(msg):
    tell(kind="group", text=msg["Text"], at=msg["IsAt"], who=msg["ActualNickName"], room=msg["User"]["NickName"])
    if msg["IsAt"]:
        core.send_msg("@" + msg["ActualNickName"] + "\\u2005hello", msg["FromUserName"])

for number in range(logins):
    gone.clear()
    core.login(qrCallback=lambda uuid, status, qrcode: tell(kind="qr", status=status, picture=len(qrcode)),
               loginCallback=lambda: tell(kind="login", nick=core.storageClass.nickName, me=core.storageClass.userName,
                                          friends=sorted(f["NickName"] for f in core.get_friends()[1:]),
                                          rooms=[r["NickName"] for r in core.get_chatrooms()], mps=len(core.get_mps())),
               exitCallback=lambda: (tell(kind="exit"), gone.set()))
    threading.Thread(target=core.run, kwargs={"debug": False, "blockThread": True}, daemon=True).start()
    gone.wait(60)
"""


class Client:
    """The library's process and what it told so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, object]] = []

    async def until(self, kind: str, timeout_s: float = 15) -> dict[str, object]:
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            while line := (await self.process.stdout.readline()).decode():
                _, _, event = line.partition("EVENT ")
                if event:
                    self.events.append(json.loads(event))
                    if self.events[-1]["kind"] == kind:
                        return self.events[-1]
        raise AssertionError(f"the client ended after {self.events}")


@asynccontextmanager
async def client(simulator: WeChatWebSimulator, folder: Path, logins: int = 1) -> AsyncIterator[Client]:
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONIOENCODING": "utf-8"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, simulator.base_url, str(logins),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=folder, env=environment,
    )  # fmt: skip
    try:
        yield Client(process)
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stdout is not None
        await process.stdout.read()
        await process.wait()


async def test_the_library_signs_in_through_waiting_scanned_and_confirmed(tmp_path: Path) -> None:
    simulator = WeChatWebSimulator(faults=WeChatWebFaults(polls_until_scanned=2, polls_until_confirmed=2))

    async with simulator.running(), client(simulator, tmp_path) as library:
        login = await library.until("login")

    assert [event["status"] for event in library.events if event["kind"] == "qr"] == ["0", "408", "408", "201", "201", "200"]
    assert login["nick"] == "bot"
    assert login["friends"] == ["小明", "小红"]
    assert login["rooms"] == ["公司群"]
    assert login["mps"] == 1


async def test_the_library_hears_private_text_and_its_answer_is_shown(tmp_path: Path) -> None:
    simulator = WeChatWebSimulator()

    async with simulator.running(), client(simulator, tmp_path) as library:
        await library.until("login")
        message = await simulator.say(sender="小明", text="1 < 2 & 好\n😀")
        heard = await library.until("private")
        [shown] = await simulator.wait_for_shown(1)
        echo = await library.until("private")

    assert heard["text"] == "1 < 2 & 好\n😀"
    assert (heard["user"], heard["msg_id"]) == ("小明", message)
    assert (shown.chat, shown.text) == ("小明", "echo: 1 < 2 & 好\n😀")
    assert echo["text"] == "echo: 1 < 2 & 好\n😀"  # our own sends come back to the web login


async def test_the_library_sees_who_wrote_in_a_group_and_whether_it_was_called(tmp_path: Path) -> None:
    simulator = WeChatWebSimulator()

    async with simulator.running(), client(simulator, tmp_path) as library:
        await library.until("login")
        await simulator.say(sender="阿强", text="随便聊聊", group="公司群")
        chat = await library.until("group")
        await simulator.say(sender="小明", text="你好", group="公司群", at="bot")
        call = await library.until("group")
        [shown] = await simulator.wait_for_shown(1)

    assert (chat["who"], chat["room"], chat["at"], chat["text"]) == ("阿强", "公司群", False, "随便聊聊")
    assert (call["who"], call["at"], call["text"]) == ("小明", True, "@bot\u2005你好")
    assert (shown.chat, shown.notified) == ("公司群", ("小明",))


async def test_the_library_signs_in_again_after_being_signed_out_and_everybody_has_new_ids(tmp_path: Path) -> None:
    simulator = WeChatWebSimulator()

    async with simulator.running(), client(simulator, tmp_path, logins=2) as library:
        first = await library.until("login")
        await simulator.end_login("1101")
        await library.until("exit")
        second = await library.until("login")
        await simulator.say(sender="小红", text="还在吗")
        heard = await library.until("private")

    assert simulator.logins == 2
    assert first["me"] != second["me"]
    assert heard["text"] == "还在吗"


async def test_an_expired_code_makes_the_library_fetch_another(tmp_path: Path) -> None:
    simulator = WeChatWebSimulator(faults=WeChatWebFaults(expired_codes=1))

    async with simulator.running(), client(simulator, tmp_path) as library:
        await library.until("login")

    assert simulator.calls["jslogin"] == 2
