"""A whole gateway and the simulated DingTalk: callbacks, answers and farewells by API, the doctor."""

from __future__ import annotations

import asyncio
import os
import sys

from .conftest import TOP, Town


def configure(town: Town, *, sessions: dict[str, object] | None = None, **settings: object) -> None:
    section = {
        "kind": "dingtalk", "client_id": town.dingtalk.client_id, "client_secret": town.dingtalk.client_secret,
        "openapi_base": town.dingtalk.base_url, "oapi_base": town.dingtalk.base_url, **settings,
    }  # fmt: skip
    town.configure(channels={"dingtalk": section}, answering={"chain": ["echo"]}, sessions=sessions or {})


async def test_a_gateway_in_http_mode_answers_what_is_posted_to_it(town: Town) -> None:
    configure(town, mode="http")
    await town.start()
    town.dingtalk.faults.callback_url = f"http://127.0.0.1:{town.port}/dingtalk/dingtalk"

    asked = await town.dingtalk.say(sender="张三", group="测试群", text="在吗")
    (shown,) = await town.dingtalk.wait_for_shown(1)

    assert (shown.chat, shown.answers, shown.notified) == ("测试群", asked, ("张三",))
    assert await town.end() == 0


async def test_an_answer_whose_session_is_over_and_a_farewell_go_by_api(town: Town) -> None:
    configure(town, sessions={"idle_timeout_s": 1, "farewell": True})
    await town.start()
    town.dingtalk.faults.webhook_errcodes = [300001, 300001]

    await town.dingtalk.say(sender="李四", text="你好")
    answer, farewell = await town.dingtalk.wait_for_shown(2)

    assert answer.chat == farewell.chat == "李四"
    assert "你好" in answer.text
    assert town.dingtalk.openapi.calls.total() == 2
    assert await town.end() == 0


async def test_the_doctor_names_what_is_wrong_with_the_app(town: Town) -> None:
    configure(town)
    town.dingtalk.faults.no_stream = True

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "doctor", "--config", str(town.folder / "config.json"),
        cwd=TOP, env={**os.environ}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output = (await process.communicate())[0].decode()

    assert process.returncode == 1
    assert "Stream 模式" in output
    assert town.dingtalk.client_secret not in output
