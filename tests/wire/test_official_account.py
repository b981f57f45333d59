"""Our official-account channel on a real listener, before a platform that delivers three times and judges what comes back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest

from gateway.channels.base import Admission, Admitted
from gateway.channels.http_face import HttpFace, listening
from gateway.channels.official_account.channel import OfficialAccountChannel
from gateway.channels.official_account.compose import text_reply
from gateway.channels.official_account.envelope import AesKey, read_xml, signature
from gateway.clock import SystemClock
from gateway.errors import ConfigError, SendRefused, StoreUnavailable, TicketExpired
from gateway.messages import Address, Answer, Inbound, Outbound, Unsupported
from gateway.simulators.official_account import FAULT_LINE, Delivery, OfficialAccountSimulator
from gateway.simulators.official_account_judge import Verdict
from gateway.wording import say

TOKEN = "sesame"
APP_ID = "wx1234567890abcdef"
KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
OTHER_KEY = "GFEDCBA9876543210zyxwvutsrqponmlkjihgfedcba"
WINDOW_S = 0.4
"""Stands for WeChat's five seconds."""
MODES = ("plain", "compatible", "safe")
FIXTURES = Path(__file__).parent.parent / "fixtures" / "official_account"


@dataclass
class House:
    """What stands behind a channel: a ledger that outlives it, and answers that take as long as the test says."""

    known: dict[str, Answer | None] = field(default_factory=dict)
    heard: list[Inbound] = field(default_factory=list)
    somebody_spoke: asyncio.Event = field(default_factory=asyncio.Event)
    parked: list[str] = field(default_factory=list)
    pieces_of: Callable[[str], tuple[str, ...]] = lambda text: (f"答：{text}",)
    delay_s: float = 0.0
    store_fails: int = 0
    breaks: bool = False
    """Something unforeseen happens inside."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def deliver(self, inbound: Inbound, channel: OfficialAccountChannel) -> Admitted:
        if self.store_fails:
            self.store_fails -= 1
            raise StoreUnavailable
        if self.breaks:
            raise RuntimeError("unforeseen")
        if inbound.id in self.known:
            return Admitted(Admission.DUPLICATE, self.known[inbound.id])
        self.known[inbound.id] = None
        self.heard.append(inbound)
        self.somebody_spoke.set()
        self.answer(inbound, channel)
        return Admitted(Admission.ACCEPTED)

    def answer(self, inbound: Inbound, channel: OfficialAccountChannel) -> None:
        task = asyncio.create_task(self._answer(inbound, channel))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, inbound: Inbound, channel: OfficialAccountChannel) -> None:
        await asyncio.sleep(self.delay_s)
        pieces = self.pieces_of(inbound.text or f"[{inbound.unsupported}]")
        self.known[inbound.id] = Answer("".join(pieces), pieces)
        outbound = Outbound(key=inbound.id, address=inbound.address, text=pieces[0], ticket=inbound.ticket, more=len(pieces) > 1, lang="zh")
        try:
            await channel.send(outbound)
        except TicketExpired:
            self.parked.append(pieces[0])


@dataclass
class Scene:
    """A channel that listens and a platform that knows where."""

    platform: OfficialAccountSimulator
    channel: OfficialAccountChannel
    house: House
    hearing: asyncio.Task[None]
    url: str

    async def told(self, sender: str, text: str, **words: str) -> str:
        """What the follower sees after he wrote `text`."""
        msg_id = await self.platform.say(sender=sender, text=text, **words)
        shown = await self.platform.wait_until(lambda seen: any(each.answers == msg_id for each in seen))
        return next(each.text for each in shown if each.answers == msg_id)

    @property
    def delivery(self) -> Delivery:
        return self.platform.deliveries[-1]


def channel_for(face: HttpFace, mode: str = "safe", **settings: str | float | None) -> OfficialAccountChannel:
    keys = {} if mode == "plain" else {"encoding_aes_key": KEY}
    wanted = {"token": TOKEN, "app_id": APP_ID, "encryption": mode, "window_s": WINDOW_S, "attempt_s": WINDOW_S * 0.9, **keys, **settings}
    return OfficialAccountChannel(name="official", face=face, clock=SystemClock(), **wanted)  # type: ignore[arg-type]  # settings of tests


@asynccontextmanager
async def scene(
    mode: str = "safe",
    *,
    platform_mode: str | None = None,
    house: House | None = None,
    key: str = KEY,
    control: bool = False,
    **settings: str | float | None,
) -> AsyncIterator[Scene]:
    face = HttpFace()
    house = house or House()
    channel = channel_for(face, mode, **settings)
    hearing = asyncio.create_task(channel.run(lambda inbound: house.deliver(inbound, channel)))
    platform_mode = platform_mode or mode
    async with listening(face) as port:
        url = f"http://127.0.0.1:{port}/official_account/official"
        simulator = OfficialAccountSimulator(
            token=TOKEN,
            app_id=APP_ID,
            encoding_aes_key=None if platform_mode == "plain" else key,
            mode=platform_mode,
            callback_url=url,
            window_s=WINDOW_S,
            retry_pause_s=0.02,
        )
        async with simulator.running() if control else simulator.playing() as platform:
            try:
                yield Scene(platform, channel, house, hearing, url)
            finally:
                hearing.cancel()
                await asyncio.gather(hearing, return_exceptions=True)
                for task in tuple(house.tasks):
                    task.cancel()
                await asyncio.gather(*house.tasks, return_exceptions=True)
                await channel.aclose()


def signed_query(token: str = TOKEN, **more: str) -> str:
    timestamp = str(int(time.time()))
    return urlencode({"signature": signature(token, timestamp, "7"), "timestamp": timestamp, "nonce": "7", **more})


@pytest.fixture(params=MODES)
async def any_mode(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    async with scene(request.param) as made:
        yield made


@pytest.fixture
async def safe_mode() -> AsyncIterator[Scene]:
    async with scene() as made:
        yield made


async def test_a_follower_gets_his_answer(any_mode: Scene) -> None:
    assert await any_mode.platform.verify() == ""
    assert await any_mode.told("粉丝甲", "你好 <&> ]]>") == "答：你好 <&> ]]>"
    assert any_mode.delivery.seconds < WINDOW_S


@pytest.mark.parametrize(("platform_mode", "encrypted"), [("plain", False), ("compatible", True), ("safe", True)])
async def test_an_answer_is_encrypted_exactly_when_the_message_was(platform_mode: str, encrypted: bool) -> None:
    async with scene("compatible", platform_mode=platform_mode) as made:
        assert await made.told("粉丝甲", "你好") == "答：你好"

        assert (b"<Encrypt>" in made.delivery.body) == encrypted
        assert (b"<Content>" in made.delivery.body) != encrypted


async def test_a_slow_answer_goes_out_on_a_later_attempt(any_mode: Scene) -> None:
    any_mode.house.delay_s = WINDOW_S * 1.4

    assert await any_mode.told("粉丝甲", "慢") == "答：慢"

    assert [delivery.attempt for delivery in any_mode.platform.deliveries] == [1, 2]
    assert len(any_mode.house.heard) == 1


async def test_an_answer_that_takes_two_windows_goes_out_on_the_third_attempt() -> None:
    async with scene() as made:
        made.house.delay_s = WINDOW_S * 2.3

        assert await made.told("粉丝甲", "更慢") == "答：更慢"

        assert [delivery.attempt for delivery in made.platform.deliveries] == [1, 2, 3]


async def test_an_answer_that_takes_longer_is_announced_in_time_and_parked(any_mode: Scene) -> None:
    any_mode.house.delay_s = WINDOW_S * 3.2

    assert await any_mode.told("粉丝甲", "最慢") == say("placeholder", "zh")
    assert await any_mode.told("fan", "slowest") == say("placeholder", "en")

    assert any_mode.delivery.seconds < WINDOW_S * 2.98
    await asyncio.gather(*any_mode.house.tasks)
    assert any_mode.house.parked == ["答：最慢", "答：slowest"]


@pytest.mark.parametrize("same_nonce", [True, False])
async def test_a_lost_answer_is_given_again_identically_and_made_once(same_nonce: bool) -> None:
    async with scene("plain") as made:
        made.platform.faults.drop_responses = 2
        made.platform.faults.same_nonce = same_nonce

        assert await made.told("粉丝甲", "你好") == "答：你好"

        assert len({delivery.body for delivery in made.platform.deliveries}) == 1
        assert len(made.platform.deliveries) == 3
        assert len(made.house.heard) == 1


async def test_an_attempt_delivered_twice_at_once_is_answered_alike_and_made_once(safe_mode: Scene) -> None:
    safe_mode.platform.faults.duplicate = True
    safe_mode.house.delay_s = WINDOW_S * 1.2

    assert await safe_mode.told("粉丝甲", "你好") == "答：你好"

    assert [delivery.text for delivery in safe_mode.platform.deliveries if delivery.attempt == 2] == ["答：你好"] * 2
    assert len(safe_mode.house.heard) == 1


async def test_after_a_restart_a_retry_gets_the_recorded_answer_byte_for_byte() -> None:
    house = House(pieces_of=lambda text: ("第一段", "第二段"))
    async with scene("plain", house=house) as before:
        msg_id = await before.platform.say(sender="粉丝甲", text="长文")
        await before.platform.idle()
        first = before.delivery

    async with scene("plain", house=house) as after:
        again = await after.told("粉丝甲", "长文", msg_id=msg_id)

        assert again == first.text == f"第一段\n{say('more', 'zh')}"
        assert len(house.heard) == 1


async def test_after_a_restart_an_unfinished_answer_waits_for_the_retry() -> None:
    house = House(delay_s=60)
    async with scene(house=house) as before:
        msg_id = await before.platform.say(sender="粉丝甲", text="你好")
        await house.somebody_spoke.wait()

    house.delay_s = 0.05
    async with scene(house=house) as after:
        house.answer(house.heard[0], after.channel)

        assert await after.told("粉丝甲", "你好", msg_id=msg_id) == "答：你好"
        await asyncio.gather(*house.tasks)
        assert house.parked == []


async def test_a_store_that_fails_drops_the_connection_so_that_wechat_delivers_again(any_mode: Scene) -> None:
    any_mode.house.store_fails = 2

    assert await any_mode.told("粉丝甲", "你好") == "答：你好"

    assert [(delivery.verdict, delivery.status) for delivery in any_mode.platform.deliveries[:2]] == [(Verdict.NOTHING, 0)] * 2


async def test_something_unforeseen_drops_the_connection_and_never_becomes_a_5xx(safe_mode: Scene) -> None:
    safe_mode.house.breaks = True
    assert await safe_mode.told("粉丝甲", "你好") == FAULT_LINE
    assert {delivery.status for delivery in safe_mode.platform.deliveries} == {0}

    safe_mode.house.breaks = False
    assert await safe_mode.told("粉丝甲", "还在吗") == "答：还在吗"


@pytest.mark.parametrize(
    ("fault", "value", "status"),
    [
        ("bad_signature", True, 403),
        ("bad_msg_signature", True, 403),
        ("tamper", True, 403),
        ("foreign_app_id", True, 403),
        ("timestamp_shift_s", -3600, 403),
        ("timestamp_shift_s", 3600, 403),
        ("entity_bomb", True, 400),
    ],
)
async def test_what_is_not_from_wechat_gets_a_short_4xx_and_others_go_on(
    fault: str, value: bool | int, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene() as made:
        setattr(made.platform.faults, fault, value)
        assert await made.told("骗子", "你好") == FAULT_LINE
        assert made.delivery.status == status
        assert len(made.delivery.body) < 40

        setattr(made.platform.faults, fault, False if isinstance(value, bool) else 0)
        assert await made.told("粉丝甲", "你好") == "答：你好"

        assert len(made.house.heard) == 1
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_an_entity_bomb_in_plain_mode_gets_a_short_4xx() -> None:
    async with scene("plain") as made:
        made.platform.faults.entity_bomb = True

        await made.told("骗子", "你好")

        assert made.delivery.status == 400


async def test_a_skewed_clock_is_told_with_both_times(caplog: pytest.LogCaptureFixture) -> None:
    async with scene() as made:
        made.platform.faults.timestamp_shift_s = -3600
        with caplog.at_level(logging.WARNING, "gateway.channels.official_account"):
            await made.platform.verify()

    (record,) = caplog.records
    theirs, ours = int(str(record.args[1])), int(record.args[2])  # type: ignore[index, arg-type, call-overload]
    assert ours - theirs in (3600, 3601)


async def test_a_message_of_ten_megabytes_is_refused_and_others_go_on() -> None:
    async with scene("plain") as made:
        made.platform.faults.padding_bytes = 10_000_000
        assert await made.told("骗子", "大") == FAULT_LINE
        assert {delivery.status for delivery in made.platform.deliveries} <= {413, 0}

        made.platform.faults.padding_bytes = 0
        assert await made.told("粉丝甲", "你好") == "答：你好"


async def test_what_people_paste_does_not_silence_the_answer(any_mode: Scene) -> None:
    any_mode.platform.faults.control_characters = True
    any_mode.platform.faults.broken_utf8 = True

    assert await any_mode.told("粉丝甲", "你好") == "答：你好"


async def test_a_text_of_a_hundred_thousand_characters_reaches_the_house(safe_mode: Scene) -> None:
    safe_mode.house.pieces_of = lambda text: (str(len(text)),)

    assert await safe_mode.told("粉丝甲", "长" * 100_000) == "100000"


async def test_a_kind_of_message_that_nobody_knows_reaches_the_house_by_its_name(safe_mode: Scene) -> None:
    assert await safe_mode.told("粉丝甲", "", kind="hologram") == "答：[hologram]"
    assert safe_mode.house.heard[0].parts == (Unsupported("hologram"),)


async def test_a_rightly_signed_message_that_cannot_be_read_is_acknowledged_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with scene("plain") as made, httpx2.AsyncClient(trust_env=False) as client:
        for body in (b"<xml>", b"{}", b"", b"<xml><MsgType>text</MsgType></xml>"):
            response = await client.post(f"{made.url}?{signed_query()}", content=body)
            assert (response.status_code, response.content) == (200, b"success")

    assert sum("cannot read a message" in record.message for record in caplog.records) == 4


async def test_every_documented_kind_of_post_is_taken() -> None:
    async with scene("plain") as made, httpx2.AsyncClient(trust_env=False) as client:
        for path in sorted(FIXTURES.glob("*.xml")):
            response = await client.post(f"{made.url}?{signed_query()}", content=path.read_bytes())
            assert response.status_code == 200, path.name


async def test_in_safe_mode_a_message_that_is_not_encrypted_is_refused() -> None:
    async with scene("safe", platform_mode="plain") as made:
        assert await made.told("骗子", "你好") == FAULT_LINE
        assert made.delivery.status == 403
        assert made.house.heard == []


async def test_without_a_key_an_encrypted_message_is_refused_with_the_repair_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with scene("plain", platform_mode="safe") as made:
        assert await made.told("粉丝甲", "你好") == FAULT_LINE
        assert made.delivery.status == 403

    assert any("set encoding_aes_key" in record.message for record in caplog.records)


async def test_in_compatible_mode_only_what_is_signed_is_read() -> None:
    async with scene("compatible") as made, httpx2.AsyncClient(trust_env=False) as client:
        head = "<ToUserName>gh_0123456789ab</ToUserName><FromUserName>o1</FromUserName><CreateTime>1</CreateTime><MsgType>text</MsgType>"
        sealed = AesKey(KEY, APP_ID).seal(f"<xml>{head}<Content>真</Content><MsgId>1</MsgId></xml>".encode())
        query = signed_query()
        timestamp = query.split("timestamp=")[1].split("&")[0]
        body = f"<xml>{head}<Content>假</Content><MsgId>1</MsgId><Encrypt>{sealed}</Encrypt></xml>"

        await client.post(f"{made.url}?{query}&msg_signature={signature(TOKEN, timestamp, '7', sealed)}", content=body.encode())

        assert [inbound.text for inbound in made.house.heard] == ["真"]


async def test_while_the_key_is_changed_both_keys_work() -> None:
    async with scene(key=OTHER_KEY, previous_encoding_aes_key=OTHER_KEY) as made:
        assert await made.told("粉丝甲", "你好") == "答：你好"
        assert made.delivery.verdict is Verdict.REPLY


async def test_people_who_send_nothing_or_slowly_hold_up_nobody_else() -> None:
    async with scene() as made:
        port = int(made.url.split(":")[2].split("/")[0])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
        for number, (_, writer) in enumerate(idle):
            head = b"POST /official_account/official?" + signed_query().encode() + b" HTTP/1.1\r\nHost: x\r\n"
            writer.write((b"", b"POST /offi", head, head + b"Content-Length: 900\r\n\r\n<xml>")[number % 4])
            await writer.drain()

        answers = await asyncio.gather(*(made.told(f"粉丝{number}", f"第{number}个") for number in range(10)))

        assert answers == [f"答：第{number}个" for number in range(10)]
        reader, _ = idle[3]
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 408 ")
        for _, writer in idle:
            writer.close()


async def test_a_body_that_dribbles_within_the_window_is_taken(safe_mode: Scene) -> None:
    safe_mode.platform.faults.slow_body_s = WINDOW_S / 4

    assert await safe_mode.told("粉丝甲", "你好") == "答：你好"


async def test_a_hundred_people_at_once_each_get_their_own_answer(any_mode: Scene) -> None:
    answers = await asyncio.gather(*(any_mode.told(f"粉丝{number}", f"第{number}个") for number in range(100)))

    assert answers == [f"答：第{number}个" for number in range(100)]


async def test_events_are_acknowledged_at_once_and_reach_nobody(any_mode: Scene) -> None:
    for event in ("subscribe", "unsubscribe", "LOCATION", "CLICK", "VIEW", "TEMPLATESENDJOBFINISH"):
        await any_mode.platform.event(sender="粉丝甲", event=event, key="K")
    await any_mode.platform.idle()

    assert {delivery.verdict for delivery in any_mode.platform.deliveries} == {Verdict.ACK}
    assert any_mode.house.heard == []


async def test_a_new_follower_is_welcomed_also_when_the_first_welcome_was_lost() -> None:
    async with scene("plain", welcome="欢迎关注 ]]> 我们") as made:
        made.platform.faults.drop_responses = 1

        await made.platform.event(sender="粉丝甲", event="subscribe")
        (shown,) = await made.platform.wait_for_shown(1)

        assert shown.text == "欢迎关注 ]]> 我们"
        assert len({delivery.body for delivery in made.platform.deliveries}) == 1


async def test_the_longest_piece_with_its_hint_is_what_wechat_takes(safe_mode: Scene) -> None:
    size = safe_mode.channel.limits.max_bytes
    safe_mode.house.pieces_of = lambda text: ("汉" * (size // 3) + "a" * (size % 3), "rest")

    told = await safe_mode.told("粉丝甲", "写一篇长文")

    assert told.endswith(say("more", "zh"))
    assert len(told.encode()) <= 2048


async def test_at_the_end_known_messages_still_get_their_answer_and_new_ones_come_again_later() -> None:
    async with scene() as made:
        made.house.delay_s = WINDOW_S * 1.3
        known = await made.platform.say(sender="粉丝甲", text="你好")
        await made.house.somebody_spoke.wait()
        made.hearing.cancel()
        await asyncio.gather(made.hearing, return_exceptions=True)

        assert await made.told("粉丝乙", "还有我") == FAULT_LINE

        shown = await made.platform.wait_until(lambda seen: any(each.answers == known for each in seen))
        assert [each.text for each in shown if each.answers == known] == ["答：你好"]
        assert len(made.house.heard) == 1
        assert not made.channel.health().ok


async def test_at_the_end_held_connections_are_closed() -> None:
    async with scene() as made:
        made.house.delay_s = 60
        await made.platform.say(sender="粉丝甲", text="你好")
        await made.house.somebody_spoke.wait()

        await made.channel.aclose()
        await made.platform.idle()

        assert made.platform.deliveries[0].seconds < WINDOW_S
        assert made.platform.deliveries[0].status == 0


async def test_strangers_get_short_answers() -> None:
    async with scene() as made, httpx2.AsyncClient(trust_env=False) as client:
        assert (await client.get(made.url)).status_code == 403
        assert (await client.get(f"{made.url}?{signed_query('wrong')}&echostr=1")).status_code == 403
        assert (await client.get(f"{made.url}?{'a=b&' * 100}")).status_code == 403
        assert (await client.get(f"{made.url}?signature=%E7%AD%BE&timestamp=%FF&nonce=+")).status_code == 403
        assert (await client.put(f"{made.url}?{signed_query()}")).status_code == 405
        assert (await client.post(made.url.replace("official_account/official", "other"))).status_code == 404


async def test_the_echo_of_the_verification_is_bare() -> None:
    async with scene() as made, httpx2.AsyncClient(trust_env=False) as client:
        response = await client.get(f"{made.url}?{signed_query(echostr='4375120948345356249')}")

    assert response.content == b"4375120948345356249"
    assert response.headers["content-type"].startswith("text/plain")


async def test_no_secret_and_no_words_of_people_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "gateway"):
        async with scene() as made:
            await made.told("粉丝甲", "这是秘密")
            made.platform.faults.tamper = True
            await made.told("粉丝甲", "这是秘密")

    for forbidden in (TOKEN, KEY, "这是秘密"):
        assert forbidden not in caplog.text


async def test_a_ticket_of_another_channel_is_refused_for_good() -> None:
    address = Address(channel="official", account=APP_ID, chat="o1", sender="o1")

    with pytest.raises(SendRefused):
        await channel_for(HttpFace()).send(Outbound(key="k", address=address, text="x"))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"token": ""}, "token is empty"),
        ({"encoding_aes_key": "short"}, "encoding_aes_key"),
        ({"previous_encoding_aes_key": "short"}, "encoding_aes_key"),
        ({"encoding_aes_key": None}, "encryption is safe but encoding_aes_key is not set"),
        ({"encryption": "rot13"}, "plain, compatible, safe"),
        ({"welcome": "汉" * 683}, "welcome is 2049 bytes"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_by_name(settings: dict[str, str | None], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        channel_for(HttpFace(), **settings)


async def test_the_doctor_is_told_what_is_odd() -> None:
    good = await channel_for(HttpFace()).checkup()
    odd = await channel_for(HttpFace(), "plain", token="a b", app_id="gh_1").checkup()

    assert all(finding.ok for finding in good)
    assert [finding.ok for finding in odd] == [False, False, False]
    assert all(finding.repair for finding in odd)


async def test_people_can_be_played_over_http() -> None:
    async with scene(control=True) as made, httpx2.AsyncClient(base_url=made.platform.base_url, trust_env=False) as control:
        made.platform.callback_url = None
        assert (await control.post("/_sim/say", json={"sender": "粉丝甲", "text": "你好"})).status_code == 400

        assert (await control.post("/_sim/connect", json={"url": made.url})).json() == {"verified": True, "reason": ""}
        msg_id = (await control.post("/_sim/say", json={"sender": "粉丝甲", "text": "你好"})).json()["id"]
        await made.platform.wait_for_shown(1)

        (shown,) = (await control.get("/_sim/shown")).json()
        assert (shown["chat"], shown["text"], shown["answers"]) == ("粉丝甲", "答：你好", msg_id)
        (delivery,) = (await control.get("/_sim/deliveries")).json()
        assert (delivery["attempt"], delivery["verdict"]) == (1, "reply")


def test_the_answer_names_the_time_of_its_message_so_that_it_is_always_the_same() -> None:
    reply = text_reply(to_user="o1", from_user="gh", created="1767603600", text="x")

    assert read_xml(reply.encode())["CreateTime"] == "1767603600"
