"""A real gateway tells a real (simulated) chat what is wrong with it."""

from __future__ import annotations

import httpx2

from .conftest import Town


async def test_failing_answers_are_told_to_the_admin_on_another_channel(town: Town) -> None:
    # Given an admin who once wrote to the bot on DingTalk
    town.configure(alarms={"to": [{"channel": "dingtalk", "sender": "manager01"}]})  # the first person of the simulated company
    await town.start()
    await town.dingtalk.say(sender="老板", text="你好")
    await town.dingtalk.wait_for_shown(1)

    # When the model refuses the key, and people on WeChat get no answers
    town.model.faults.fault = "unauthorized"
    for number in range(5):
        await town.wechat.say(sender="小明", text=f"问题{number}")
    await town.wechat.wait_for_shown(5, timeout_s=20)

    # Then the admin is told in his chat, once, and the pages say the same
    _, told = await town.dingtalk.wait_for_shown(2, timeout_s=30)
    assert told.chat == "老板"
    assert told.text.startswith("⚠️ 太多消息没有得到正常回答")
    assert "BackendMisconfigured" in told.text
    async with httpx2.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{town.port}") as client:
        ready, metrics = (await client.get("/readyz")), (await client.get("/metrics")).text
    assert ready.status_code == 200
    assert [trouble["kind"] for trouble in ready.json()["parts"]["gateway"]["troubles"]] == ["failing"]
    assert 'gateway_troubles{kind="failing"} 1.0' in metrics
    assert await town.end() == 0
