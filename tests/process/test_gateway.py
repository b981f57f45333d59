from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx2

from .conftest import TOP, Town


def gateway(*arguments: str, cwd: Path = TOP, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command of the gateway, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(TOP), **environment}, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


async def test_every_platform_gets_its_answer_with_its_own_context(town: Town) -> None:
    await town.start()

    await town.wechat.say(sender="小明", text="我叫小明")
    await town.wechat.wait_for_shown(1)
    await town.wechat.say(sender="小明", text="我是谁")
    await town.wechat.say(sender="阿华", group="家庭群", text="随便聊聊")
    await town.wechat.say(sender="阿华", group="家庭群", at="bot", text="你好")
    await town.dingtalk.say(sender="张三", text="钉钉私聊")
    await town.dingtalk.say(sender="张三", group="测试群", text="钉钉群聊")
    await town.official.say(sender="粉丝甲", text="公众号")
    seen = {shown.chat: shown for shown in await town.wechat.wait_for_shown(3)}
    ding = {shown.chat: shown for shown in await town.dingtalk.wait_for_shown(2)}
    (fan,) = await town.official.wait_for_shown(1)

    assert seen["小明"].text == "ANS:我是谁"
    assert seen["家庭群"].text.startswith("@阿华")
    assert seen["家庭群"].text.endswith("ANS:你好")
    assert ding["张三"].text == "ANS:钉钉私聊"
    assert "ANS:钉钉群聊" in ding["测试群"].text
    assert ding["测试群"].notified == ("张三",)
    assert fan.text == "ANS:公众号"
    remembered = next(asked for asked in town.model.asked if asked.messages[-1]["content"] == "我是谁")
    assert [message["content"] for message in remembered.messages] == ["我叫小明", "ANS:我叫小明", "我是谁"]
    assert await town.end() == 0


async def test_kill_9_loses_nothing_and_answers_nothing_twice(town: Town) -> None:
    # Given messages on every platform whose answers are still being made
    town.model.faults.first_chunk_delay_s = 1.0
    await town.start()
    await town.dingtalk.say(sender="张三", text="问题一")
    await town.wechat.say(sender="小明", text="问题二")
    await town.official.say(sender="粉丝甲", text="问题三")
    await town.model.wait_for(lambda asked: len(asked) >= 3)

    # When the process is killed and started again
    await town.kill()
    town.model.faults.first_chunk_delay_s = 0.0
    await town.start()

    # Then everybody is answered once, and nobody had to scan again
    for simulator, answer in ((town.dingtalk, "ANS:问题一"), (town.wechat, "ANS:问题二"), (town.official, "ANS:问题三")):
        assert [shown.text for shown in await simulator.wait_for_shown(1, timeout_s=20)] == [answer]
    await town.dingtalk.say(sender="张三", text="还在吗")
    assert [shown.text for shown in await town.dingtalk.wait_for_shown(2)] == ["ANS:问题一", "ANS:还在吗"]
    assert len(town.wechat.shown) == 1
    assert len(town.official.shown) == 1


async def test_sigterm_finishes_what_runs_and_ends_with_0(town: Town) -> None:
    town.model.faults.first_chunk_delay_s = 1.0
    await town.start()
    await town.dingtalk.say(sender="张三", text="快好了吗")
    await town.model.wait_for(lambda asked: len(asked) >= 1)

    assert await town.end() == 0
    assert [shown.text for shown in town.dingtalk.shown] == ["ANS:快好了吗"]
    assert "Traceback" not in town.log()


async def test_the_ledger_tells_the_story_of_a_message(town: Town) -> None:
    await town.start()
    message = await town.dingtalk.say(sender="张三", text="你好")
    await town.dingtalk.wait_for_shown(1)
    await town.end()
    config = str(town.folder / "config.json")

    told = json.loads(gateway("why", message, "--config", config, "--json").stdout)
    listed = gateway("turns", "--config", config, "--state", "answered")
    unknown = gateway("why", "no-such-message", "--config", config)

    assert told[0]["outcome"] == "answered"
    assert told[0]["answered_by"] == "gpt"
    assert message in listed.stdout
    assert unknown.returncode == 1
    assert "gateway turns" in unknown.stderr


async def test_health_pages_and_metrics_tell_the_truth(town: Town) -> None:
    await town.start()
    await town.dingtalk.say(sender="张三", text="你好")
    await town.dingtalk.wait_for_shown(1)
    async with httpx2.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{town.port}") as client:
        ready = (await client.get("/readyz")).json()
        metrics = (await client.get("/metrics")).text
        health = gateway("healthcheck", "--config", str(town.folder / "config.json"))

    assert set(ready["parts"]) == {"channel wechat", "channel dingtalk", "channel official", "store"}
    assert 'gateway_messages_total{admission="accepted",channel="dingtalk"} 1.0' in metrics
    assert 'gateway_turns_total{channel="dingtalk",outcome="answered"} 1.0' in metrics
    assert health.returncode == 0


async def test_no_secret_and_no_words_reach_the_log(town: Town) -> None:
    town.configure(logging={"level": "debug"})
    await town.start()
    await town.dingtalk.say(sender="张三", text="geheimes wort")
    await town.official.say(sender="粉丝甲", text="geheimes wort")
    await town.wechat.say(sender="小明", text="geheimes wort")
    for simulator in (town.dingtalk, town.official, town.wechat):
        await simulator.wait_for_shown(1)
    await town.end()
    log = town.log()

    assert "closed" in log or "answered" in log
    for secret in (town.dingtalk.client_secret, "towntoken", "K" * 43, "sk-simulated", "geheimes"):
        assert secret not in log


def test_a_wrong_configuration_ends_with_2_and_names_the_key(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"http": {"prot": 1}}', encoding="utf-8")

    for command in (("check-config", str(path)), ("run", "--config", str(path))):
        ended = gateway(*command)
        assert ended.returncode == 2
        assert "http.prot" in ended.stderr
        assert "'port'" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert gateway("run", "--config", str(tmp_path / "nothing.json")).returncode == 2


def test_a_taken_port_ends_with_1_and_says_which(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path.write_text(json.dumps({"http": {"port": taken.getsockname()[1]}, "store": {"url": "memory://"}}), encoding="utf-8")
        ended = gateway("run", "--config", str(path))

    assert ended.returncode == 1
    assert "http.port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_example_configuration_is_fine_and_the_doctor_too(tmp_path: Path) -> None:
    assert gateway("check-config", "config.example.json").returncode == 0
    examined = gateway("doctor", "--config", "config.example.json", "--json", GATEWAY_STORE__URL="memory://")

    assert examined.returncode == 0, examined.stdout + examined.stderr
    assert all(finding["ok"] for finding in json.loads(examined.stdout))


def test_chat_answers_from_the_handbook_without_any_configuration(tmp_path: Path) -> None:
    chatted = subprocess.run(
        [sys.executable, "-m", "gateway", "chat"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(TOP)},
        input="怎么接入钉钉？\n", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert chatted.returncode == 0, chatted.stderr
    assert "钉钉" in chatted.stdout


async def test_the_scripted_demo_answers_on_every_channel() -> None:
    played = await asyncio.to_thread(gateway, "demo", "--script")

    assert played.returncode == 0, played.stdout + played.stderr
    assert "10 of 10" in played.stdout
