"""Rules of the platform that neither client breaks in daily life, checked on the simulator itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.simulators.dingtalk import CLIENT_ID, CLIENT_SECRET, DingTalkSimulator
from gateway.simulators.dingtalk_faults import OPEN, QUERY, TO_GROUP, TO_PERSON, TOKEN, WEBHOOK
from gateway.simulators.dingtalk_stream import BOT_MESSAGES


@pytest.fixture
async def sim() -> AsyncIterator[DingTalkSimulator]:
    async with DingTalkSimulator().running() as sim:
        yield sim


@pytest.fixture
async def http(sim: DingTalkSimulator) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=sim.base_url, trust_env=False) as http:
        yield http


async def an_address(http: httpx2.AsyncClient, topic: str = BOT_MESSAGES) -> str:
    subscriptions = [{"type": "CALLBACK", "topic": topic}]
    opened = await http.post(OPEN, json={"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET, "subscriptions": subscriptions})
    return f"{opened.json()['endpoint']}?ticket={opened.json()['ticket']}"


async def test_a_ticket_opens_one_connection_only(http: httpx2.AsyncClient) -> None:
    address = await an_address(http)

    async with connect(address, proxy=None):
        with pytest.raises(InvalidStatus, match="401"):
            await connect(address, proxy=None)


async def test_a_ticket_ends(sim: DingTalkSimulator, http: httpx2.AsyncClient) -> None:
    sim.faults.ticket_ttl_s = -1
    with pytest.raises(InvalidStatus, match="401"):
        await connect(await an_address(http), proxy=None)


async def test_only_subscribed_topics_are_pushed(sim: DingTalkSimulator, http: httpx2.AsyncClient) -> None:
    async with connect(await an_address(http, "/v1.0/card/instances/callback"), proxy=None):
        await sim.wait_for_log("connect")
        await sim.say(text="有人吗")
        await sim.ping()

    assert not [event for event, _ in sim.log if event == "push"]


async def test_each_message_goes_to_any_one_of_several_connections(sim: DingTalkSimulator, http: httpx2.AsyncClient) -> None:
    sim.faults.pushes = 1
    async with connect(await an_address(http), proxy=None) as one, connect(await an_address(http), proxy=None) as other:
        await sim.wait_for_log("connect", 2)
        for _ in range(30):
            await sim.say(text="给谁?")
        await sim.wait_for_log("push", 30)
        sim.faults.drain_s = 0
        await sim.disconnect()
        counts = [await _frames(socket) for socket in (one, other)]

    assert sum(counts) == 30 + 2  # and the news of the disconnect
    assert min(counts) > 1


async def _frames(socket: object) -> int:
    count = 0
    try:
        while True:
            await socket.recv()  # type: ignore[attr-defined]
            count += 1
    except ConnectionClosed:
        return count


async def test_a_group_message_that_does_not_call_the_bot_never_leaves_the_platform(
    sim: DingTalkSimulator, http: httpx2.AsyncClient
) -> None:
    async with connect(await an_address(http), proxy=None):
        await sim.wait_for_log("connect")
        await sim.say(text="私事", group="测试群", at_bot=False)
        await sim.say(text="公事", group="测试群")
        await sim.wait_for_log("push")

    assert len(sim.frames) == 1


async def test_after_a_disconnect_nothing_is_delivered_and_the_socket_is_closed(sim: DingTalkSimulator, http: httpx2.AsyncClient) -> None:
    sim.faults.drain_s = 0.05
    async with connect(await an_address(http), proxy=None) as socket:
        await sim.wait_for_log("connect")
        await sim.disconnect()
        await sim.say(text="太晚了")
        await sim.wait_for_log("close")
        assert await _frames(socket) == 1

    assert not [event for event, _ in sim.log if event == "push"]


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        (b'{"msgtype":"markdown","markdown":{"title":"t","text":"' + b"x" * 20_000 + b'"}}', 460101),
        (b'{"msgtype":"markdown","markdown":{"title":"","text":"x"}}', 40035),
        (b"no JSON", 40035),
        (b'{"msgtype":"text","text":{"content":"x"}}', 0),
    ],
)
async def test_a_webhook_judges_what_is_posted(sim: DingTalkSimulator, http: httpx2.AsyncClient, body: bytes, errcode: int) -> None:
    async with connect(await an_address(http), proxy=None) as socket:
        await sim.wait_for_log("connect")
        await sim.say(text="?")
        webhook = _webhook(await socket.recv())
        answer = await http.post(webhook, content=body)

    assert (answer.status_code, answer.json()["errcode"]) == (200, errcode)


async def test_a_forgotten_session_is_300001(http: httpx2.AsyncClient) -> None:
    assert (await http.post(f"{WEBHOOK}?session=none", content=b"{}")).json()["errcode"] == 300001


async def test_a_token_is_given_for_the_right_secret_only(http: httpx2.AsyncClient) -> None:
    right = await http.post(TOKEN, json={"appKey": CLIENT_ID, "appSecret": CLIENT_SECRET})
    wrong = await http.post(TOKEN, json={"appKey": CLIENT_ID, "appSecret": "x"})

    assert (right.status_code, right.json()["expireIn"]) == (200, 7200)
    assert wrong.status_code == 400


async def called(http: httpx2.AsyncClient, path: str, **body: object) -> tuple[int, dict[str, object]]:
    token = (await http.post(TOKEN, json={"appKey": CLIENT_ID, "appSecret": CLIENT_SECRET})).json()["accessToken"]
    plain = {"robotCode": CLIENT_ID, "msgKey": "sampleText", "msgParam": '{"content": "你好"}'}
    answer = await http.post(path, json={**plain, **body}, headers={"x-acs-dingtalk-access-token": token})
    return answer.status_code, answer.json()


async def test_a_call_without_a_token_that_lives_is_401(sim: DingTalkSimulator, http: httpx2.AsyncClient) -> None:
    assert (await http.post(TO_PERSON, json={})).status_code == 401
    assert not sim.openapi.calls


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"userIds": []}, "invalidParameter.userIds.empty"),
        ({"userIds": ["manager01"] * 21}, "invalidParameter.userIds.overMax"),
        ({"userIds": ["manager01"], "msgParam": "no JSON"}, "invalidParameter.msgParam.invalid"),
        ({"userIds": ["manager01"], "msgKey": "sampleMarkdown"}, "invalidParameter.msgParam.invalid"),
        ({"userIds": ["manager01"], "robotCode": "other"}, "invalidParameter.robotCode.notExsit"),
    ],
)
async def test_a_send_to_people_that_breaks_the_rules_is_refused(http: httpx2.AsyncClient, body: dict[str, object], code: str) -> None:
    status, told = await called(http, TO_PERSON, **body)

    assert (status, told["code"]) == (400, code)


async def test_a_send_to_people_names_those_whom_it_did_not_reach(sim: DingTalkSimulator, http: httpx2.AsyncClient) -> None:
    ids = [sim.people.staff(name) for name in ("张三", "李四", "王五")]
    sim.faults.invalid_staff, sim.faults.flow_controlled = ["李四"], ["王五"]
    status, told = await called(http, TO_PERSON, userIds=[*ids, "nobody"])

    assert (status, told["invalidStaffIdList"], told["flowControlledStaffIdList"]) == (200, [ids[1], "nobody"], [ids[2]])
    assert [shown.chat for shown in sim.shown] == ["张三"]


async def test_a_group_takes_fifteen_thousand_bytes_and_only_where_the_bot_is(sim: DingTalkSimulator, http: httpx2.AsyncClient) -> None:
    group = sim.people.conversation("测试群")
    fits = {"msgParam": json.dumps({"content": "x" * (15_000 - 15)})}
    too_long = {"msgParam": json.dumps({"content": "x" * (15_001 - 15)})}

    assert len(fits["msgParam"]) == 15_000
    assert (await called(http, TO_GROUP, openConversationId=group, **fits))[0] == 200
    assert (await called(http, TO_GROUP, openConversationId=group, **too_long))[1]["code"] == "invalidParameter.msgParam.invalid"
    assert (await called(http, TO_GROUP, openConversationId="cidNo"))[1]["code"] == "invalidParameter.openConversationId.invalid"


async def test_a_call_too_many_in_a_second_is_refused(sim: DingTalkSimulator, http: httpx2.AsyncClient) -> None:
    sim.faults.calls_per_second = 3
    codes = [(await called(http, QUERY, processQueryKey="x"))[1]["code"] for _ in range(4)]

    assert codes == ["invalid.processQueryKey"] * 3 + ["Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"]
    assert sim.openapi.calls == {QUERY: 3}


async def test_a_person_can_write_and_knobs_can_be_turned_over_http(sim: DingTalkSimulator, http: httpx2.AsyncClient) -> None:
    async with connect(await an_address(http), proxy=None):
        await sim.wait_for_log("connect")
        said = await http.post("/_sim/say", json={"sender": "张三", "text": "你好"})
        knobs = await http.post("/_sim/faults", json={"ack_timeout_s": 1, "webhook_errcodes": [300001]})
        unknown = await http.post("/_sim/do", json={"action": "explode"})
        done = await http.post("/_sim/do", json={"action": "disconnect"})
        log = (await http.get("/_sim/log")).json()

    assert said.json()["id"] in sim.frames
    assert knobs.json()["webhook_errcodes"] == [300001]
    assert (unknown.status_code, done.status_code) == (400, 200)
    assert sorted(event for event, _ in log["log"]) >= ["connect", "open"]


def _webhook(frame: str | bytes) -> str:
    return str(json.loads(json.loads(frame)["data"])["sessionWebhook"])
