"""The demo: simulated WeChat, DingTalk and official account around a real gateway process. No key and no account needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from gateway.channels.http_face import open_socket
from gateway.errors import GatewayError
from gateway.simulators.base import Simulator
from gateway.simulators.dingtalk import DingTalkSimulator
from gateway.simulators.ilink import ILinkSimulator
from gateway.simulators.official_account import OfficialAccountSimulator
from gateway.simulators.openai_api import OpenAISimulator
from gateway.simulators.wechat_web import WeChatWebFaults, WeChatWebSimulator
from gateway.simulators.wecom_bot import WeComBotSimulator

APP_ID, TOKEN, AES_KEY = "wx0demo0demo0demo", "demotoken", "D" * 43
READY_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 60.0
LONG_S = 7 * 24 * 3600.0
CLIENT_ID, CLIENT_SECRET = "ding-demo", "demo-secret"


@dataclass(frozen=True, kw_only=True)
class Persona:
    """Somebody to type as."""

    name: str
    place: str
    """Where he writes, as the menu says it."""
    platform: str
    group: str | None = None

    @property
    def chat(self) -> str:
        """The simulator's name of his conversation."""
        return self.group or self.name

    def words(self, text: str) -> dict[str, Any]:
        """What `Simulator.say` needs. In a WeChat group the bot is called by beginning with @."""
        if self.platform == "wechat" and self.group:
            called = text.startswith("@")
            return {"sender": self.name, "group": self.group, "at": "bot" if called else None, "text": _without_mention(text)}
        if self.platform == "dingtalk":
            return {"sender": self.name, "group": self.group, "text": text}
        return {"sender": self.name, "text": text}


def _without_mention(text: str) -> str:
    if not text.startswith("@"):
        return text
    _, _, words = text.partition(" ")
    return words.strip() or text[1:]


PERSONAS = (
    Persona(name="小明", place="微信好友 WeChat friend", platform="wechat"),
    Persona(name="阿华", place="微信群「家庭群」 WeChat group (begin with @ to call the bot)", platform="wechat", group="家庭群"),
    Persona(name="小丽", place="微信群「家庭群」 WeChat group (begin with @ to call the bot)", platform="wechat", group="家庭群"),
    Persona(name="粉丝甲", place="公众号 official account follower", platform="official"),
    Persona(name="张三", place="钉钉同事 DingTalk colleague", platform="dingtalk"),
)
FRIEND, AHUA, XIAOLI, FOLLOWER, COLLEAGUE = PERSONAS


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of the script: who says what, and whether an answer must come."""

    who: Persona
    text: str
    answered: bool = True
    holds: str = ""
    """Words that the answer must hold, whatever backend answers."""


SCRIPT = (
    Step(who=FRIEND, text="你好，会话什么时候会自动结束？"),
    Step(who=FRIEND, text="/context", holds="1"),
    Step(who=FRIEND, text="清空会话", holds="清空"),
    Step(who=AHUA, text="今晚吃什么", answered=False),
    Step(who=AHUA, text="@bot 怎么接入钉钉？", holds="阿华"),
    Step(who=XIAOLI, text="@bot 怎么接入公众号？", holds="小丽"),
    Step(who=FOLLOWER, text="如何配置一个兼容 OpenAI 的模型？"),
    Step(who=FOLLOWER, text="/why", holds="已回答"),
    Step(who=COLLEAGUE, text="How do I connect an official account?"),
    Step(who=COLLEAGUE, text="/help", holds="/new"),
)


Stage: TypeAlias = Mapping[str, Simulator]
"""The simulators by platform."""


async def _say(stage: Stage, who: Persona, text: str) -> None:
    await stage[who.platform].say(**who.words(text))


def simulator_for(platform: str, connect: str | None = None) -> Simulator:
    """A platform by its name on the command line."""
    simulators: Mapping[str, Callable[[], Simulator]] = {
        "wechat": lambda: WeChatWebSimulator(groups={"家庭群": ("阿华", "小丽")}, faults=_confirmed_at_once()),
        "dingtalk": lambda: DingTalkSimulator(client_id=CLIENT_ID, client_secret=CLIENT_SECRET),
        "official-account": lambda: OfficialAccountSimulator(
            token=TOKEN, app_id=APP_ID, encoding_aes_key=AES_KEY, mode="safe", callback_url=connect
        ),
        "ilink": ILinkSimulator,
        "wecom-bot": WeComBotSimulator,
        "openai": OpenAISimulator,
    }
    return simulators[platform]()


def _confirmed_at_once() -> WeChatWebFaults:
    return WeChatWebFaults(polls_until_scanned=0, polls_until_confirmed=0)


async def play(*, script: bool) -> int:
    """Run the demo; the exit code says whether every expected answer came."""
    _print("微信、公众号和钉钉都是本机上的模拟平台；网关是真的。 Platforms are simulated on loopback; the gateway is real.")
    async with AsyncExitStack() as stack:
        stage, answers_from = await _set_up(stack)
        _print(f"回答来自 Answers come from: {answers_from}\n")
        if script:
            return await _play_script(stage)
        await _play_live(stage)
    _print("\n下一步 Next: cp config.example.json config.json → 填好一个通道 fill in a channel → ./run check-config → ./run")
    return 0


async def _set_up(stack: AsyncExitStack) -> tuple[Stage, str]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-demo-")))
    wechat, dingtalk = simulator_for("wechat"), simulator_for("dingtalk")
    for simulator in (wechat, dingtalk):
        await stack.enter_async_context(simulator.running())
    port = _free_port()
    official = simulator_for("official-account", f"http://127.0.0.1:{port}/official_account/official")
    await stack.enter_async_context(official.running())
    chain = ["gpt", "handbook"] if os.environ.get("OPENAI_API_KEY") else ["handbook"]
    path = _write_config(folder, port, wechat.base_url, dingtalk.base_url, chain)
    await stack.enter_async_context(_gateway(path, port))
    return {"wechat": wechat, "official": official, "dingtalk": dingtalk}, " → ".join(chain)


def _write_config(folder: Path, port: int, wechat_url: str, dingtalk_url: str, chain: Sequence[str]) -> Path:
    config = {
        "channels": {
            "wechat": {
                "kind": "wechat",
                "accept_ban_risk": True,
                "base_url": wechat_url,
                "state_file": str(folder / "wechat.json"),
            },
            "official": {"kind": "official_account", "app_id": APP_ID, "token": TOKEN, "encoding_aes_key": AES_KEY},
            "dingtalk": {
                "kind": "dingtalk",
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "openapi_base": dingtalk_url,
                "oapi_base": dingtalk_url,
            },
        },
        "backends": {
            "gpt": {
                "kind": "openai",
                "model": os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
                "api_key": "${OPENAI_API_KEY}",
                "base_url": os.environ.get("OPENAI_BASE_URL") or None,
            }
        },
        "answering": {"chain": chain, "system_prompt": "你是一个乐于助人的助手，回答简洁准确。"},
        "store": {"url": f"sqlite:///{folder}/gateway.db"},
        "http": {"port": port},
        "logging": {"level": "warning"},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    path.chmod(0o600)
    return path


def _free_port() -> int:
    with open_socket("127.0.0.1", 0) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def _gateway(config: Path, port: int) -> AsyncIterator[None]:
    """The real gateway in a process of its own, ready to hear."""
    log = config.with_name("gateway.log")
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "run", "--config", str(config), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        await _until_ready(process, port, log)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _until_ready(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    parts = ""
    while time.monotonic() < deadline:
        if process.returncode is not None:
            raise GatewayError(f"the gateway ended with {process.returncode}:\n{_tail(log)}")
        ready, parts = await asyncio.to_thread(_ready, port)
        if ready:
            return
        await asyncio.sleep(0.1)
    raise GatewayError(f"the gateway was not ready after {READY_TIMEOUT_S:.0f} s: {parts}")


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


def _ready(port: int) -> tuple[bool, str]:
    try:
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200, ""
    except (URLError, OSError) as error:
        return False, str(error)


async def _play_script(stage: Stage) -> int:
    right = 0
    for step in SCRIPT:
        _print(f"{step.who.name}（{step.who.place.split(' (')[0]}）：{step.text}")
        right += await _play_step(stage, step)
    _print(f"\n{right} of {len(SCRIPT)} as expected.")
    return 0 if right == len(SCRIPT) else 1


async def _play_step(stage: Stage, step: Step) -> bool:
    simulator = stage[step.who.platform]
    before = len(simulator.shown)
    started = time.perf_counter()
    await _say(stage, step.who, step.text)
    try:
        shown = await simulator.wait_until(lambda all_shown: len(all_shown) > before, ANSWER_TIMEOUT_S if step.answered else 1.0)
    except TimeoutError:
        _print("    （没有回答 no answer）" + ("" if not step.answered else "   ✗ expected one"))
        return not step.answered
    answer = shown[before]
    _print(_indented(answer.text) + f"    [{1000 * (time.perf_counter() - started):.0f} ms]")
    right = step.answered and answer.chat == step.who.chat and bool(answer.text.strip()) and step.holds in answer.text
    if not right:
        _print(f"    ✗ expected {'an answer in ' + step.who.chat + ' with ' + repr(step.holds) if step.answered else 'silence'}")
    return right


async def _play_live(stage: Stage) -> None:
    _print("以谁的身份说话？输入“编号 内容”，例如：1 你好。 Type “number text”; the number stays until changed; Ctrl-D ends.")
    for number, persona in enumerate(PERSONAS, 1):
        _print(f"  {number}  {persona.name}  {persona.place}")
    printers = [asyncio.create_task(_print_news(platform, simulator)) for platform, simulator in stage.items()]
    lines = _typed_lines()
    who = FRIEND
    try:
        while line := await lines.get():
            who, text = _choice(line.strip(), who)
            if text:
                await _say(stage, who, text)
    finally:
        for printer in printers:
            printer.cancel()
        await asyncio.gather(*printers, return_exceptions=True)


def _typed_lines() -> asyncio.Queue[str]:
    """What is typed, line by line, then an empty one. Read in a daemon thread, so that Ctrl-C never waits for a key."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line if line.strip() else " ")
            loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, name="keyboard", daemon=True).start()
    return lines


def _choice(line: str, who: Persona) -> tuple[Persona, str]:
    number, _, text = line.partition(" ")
    if number.isdigit() and 1 <= int(number) <= len(PERSONAS):
        return PERSONAS[int(number) - 1], text.strip()
    return who, line


async def _print_news(platform: str, simulator: Simulator) -> None:
    seen = 0
    while True:
        shown = await simulator.wait_for_shown(seen + 1, timeout_s=LONG_S)
        for one in shown[seen:]:
            _print(f"[{platform} · {one.chat}]\n{_indented(one.text)}")
        seen = len(shown)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _print(text: str) -> None:
    print(text, flush=True)
