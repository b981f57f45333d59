"""Our WeChat channel against the WeChat Web simulator, over real sockets and the real client library."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.channels.base import Admission, Admitted
from gateway.channels.wechat.channel import WeChatChannel
from gateway.channels.wechat.friend_requests import FriendRequests
from gateway.channels.wechat.itchat_door import ItchatDoor
from gateway.channels.wechat.itchat_transport import ItchatTransport
from gateway.channels.wechat.sign_in import SignIn
from gateway.clock import SystemClock
from gateway.errors import ChannelError, SendError, SendLater, SendRefused, SendUncertain, StoreUnavailable
from gateway.messages import Address, Inbound, Mention, Outbound
from gateway.simulators.wechat_web import WeChatWebFaults, WeChatWebSimulator


class Ear:
    """Takes what the channel hears, like a ledger: known ids are duplicates. `full` makes it refuse."""

    def __init__(self) -> None:
        self.heard: list[Inbound] = []
        self.deliveries = 0
        self.full = False
        self._changed = asyncio.Condition()

    async def deliver(self, inbound: Inbound) -> Admitted:
        async with self._changed:
            self.deliveries += 1
            self._changed.notify_all()
            if self.full:
                raise StoreUnavailable("disk full")
            if inbound.key in [known.key for known in self.heard]:
                return Admitted(Admission.DUPLICATE)
            self.heard.append(inbound)
            return Admitted(Admission.ACCEPTED)

    async def hears(self, count: int) -> list[Inbound]:
        await self.until(lambda: len(self.heard) >= count)
        return self.heard

    async def until(self, satisfied: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(satisfied)

    @property
    def texts(self) -> list[str]:
        return [inbound.text for inbound in self.heard]


class House:
    """A channel that runs, with everything around it."""

    def __init__(self, simulator: WeChatWebSimulator, folder: Path, **settings: object) -> None:
        clock = SystemClock()
        self.state_file = folder / "wechat.json"
        self.png_path = folder / "wechat-qr.png"
        self.screen: list[str] = []
        rules = {
            name: settings.pop(name) for name in ("private_prefix", "reply_prefix", "group_on_mention", "group_allow") if name in settings
        }
        timeouts = {name: settings.pop(name) for name in ("read_timeout_s", "send_timeout_s") if name in settings}
        patience = {"max_codes": 2, "code_lifetime_s": settings.pop("code_lifetime_s", 10), "poll_pause_s": 0.02, "scanned_pause_s": 0.02}
        sign_in = SignIn(clock=clock, png_path=self.png_path, show=self.screen.append, **patience)  # type: ignore[arg-type]
        self.transport = ItchatTransport(
            channel="wechat",
            clock=clock,
            sign_in=sign_in,
            state_file=self.state_file,
            base_url=simulator.base_url,
            door=ItchatDoor(base_url=simulator.base_url, **timeouts),  # type: ignore[arg-type]
            first_pause_s=0.02,
            **settings,  # type: ignore[arg-type]
        )
        self.channel = WeChatChannel(name="wechat", transport=self.transport, **rules)  # type: ignore[arg-type]
        self.ear = Ear()

    async def answer(self, inbound: Inbound, text: str, *, mention: bool = True) -> str:
        call = Mention(id=inbound.address.sender, name=inbound.sender_name) if mention and inbound.address.in_group else None
        out = Outbound(key=inbound.id, address=inbound.address, text=text, ticket=inbound.ticket, mention=call)
        return (await self.channel.send(out)).message_id

    async def healthy(self) -> None:
        await self.until(lambda: self.channel.health().ok)

    async def until(self, satisfied: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not satisfied():  # noqa: ASYNC110  # what it waits for happens in the channel, which tells nobody
                await asyncio.sleep(0.01)


@asynccontextmanager
async def living(simulator: WeChatWebSimulator, folder: Path, *, alone: bool = True, **settings: object) -> AsyncIterator[House]:
    house = House(simulator, folder, **settings)
    task = asyncio.create_task(house.channel.run(house.ear.deliver), name="channel")
    try:
        yield house
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await house.channel.aclose()
        await house.until(lambda: not alone or not [thread for thread in threading.enumerate() if thread.name.startswith("wechat")])


async def ending(simulator: WeChatWebSimulator, folder: Path, **settings: object) -> tuple[ChannelError, House]:
    """The error that ends a channel which cannot live."""
    house = House(simulator, folder, **settings)
    try:
        async with asyncio.timeout(15):
            with pytest.raises(ChannelError) as caught:
                await house.channel.run(house.ear.deliver)
        assert house.channel.health().reason == str(caught.value)
    finally:
        await house.channel.aclose()
    return caught.value, house


@pytest.fixture
async def simulator() -> AsyncIterator[WeChatWebSimulator]:
    faults = WeChatWebFaults(hold_s=0.2, polls_until_scanned=1, polls_until_confirmed=1)
    simulator = WeChatWebSimulator(groups={"公司群": ("小明", "阿强"), "家人": ("妈妈",)}, faults=faults)
    async with simulator.running():
        yield simulator


# The main path


async def test_a_private_message_is_heard_and_its_answer_is_shown(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        message = await simulator.say(sender="小明", text="你好 <b>&amp;</b>\n第二行 😀")
        [inbound] = await house.ear.hears(1)
        await house.answer(inbound, "1 < 2 & 3\n好的 😀")
        [shown] = await simulator.wait_for_shown(1)

    assert inbound.id == message
    assert inbound.text == "你好 <b>&amp;</b>\n第二行 😀"
    assert inbound.address == Address(channel="wechat", account="1234567890", chat="nick:小明", sender="nick:小明")
    assert inbound.sender_name == "小明"
    assert inbound.to_bot
    assert (shown.chat, shown.text) == ("小明", "1 < 2 & 3\n好的 😀")


async def test_a_group_message_that_calls_the_bot_is_answered_with_the_asker_called(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="阿强", text="今天天气", group="公司群", at="bot")
        [inbound] = await house.ear.hears(1)
        await house.answer(inbound, "晴")
        [shown] = await simulator.wait_for_shown(1)

    assert (inbound.text, inbound.to_bot, inbound.sender_name) == ("今天天气", True, "阿强")
    assert (inbound.address.chat, inbound.address.sender, inbound.address.in_group) == ("room:公司群", "member:阿强", True)
    assert (shown.chat, shown.text, shown.notified) == ("公司群", "@阿强\u2005晴", ("阿强",))


async def test_group_talk_that_does_not_call_the_bot_is_heard_as_such(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="阿强", text="吃了吗", group="公司群")
        await simulator.say(sender="阿强", text="大家好", group="公司群", at="所有人")
        heard = await house.ear.hears(2)

    assert [inbound.to_bot for inbound in heard] == [False, False]


async def test_our_own_words_official_accounts_and_notices_are_not_heard(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.type_on_phone(to="小明", text="我自己来回答")
        await simulator.type_on_phone(to="公司群", text="@小明\u2005收到")
        await simulator.say(sender="某某公众号", text="今日推送")
        await simulator.notice(group="公司群", text="“小红”加入了群聊")
        await simulator.say(sender="小明", text="完")
        heard = await house.ear.hears(1)

    assert [inbound.text for inbound in heard] == ["完"]


async def test_messages_arrive_in_order_and_a_duplicate_keeps_its_id(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.duplicates = 1
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        for number in range(20):
            await simulator.say(sender="小明", text=str(number))
        await house.ear.until(lambda: house.ear.deliveries == 21)

    assert house.ear.texts == [str(number) for number in range(20)]


async def test_a_voice_message_is_heard_as_unsupported_and_a_quote_reply_as_text(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    quoted = "<refermsg><displayname>bot</displayname><content>熵</content></refermsg>"
    xml = f"<msg><appmsg><title>那是什么意思</title><type>57</type>{quoted}</appmsg></msg>"
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", kind=34)
        await simulator.say(sender="小明", kind=49, text=xml, fields={"AppMsgType": 57, "FileName": "那是什么意思"})
        voice, reply = await house.ear.hears(2)

    assert voice.unsupported == "voice"
    assert (reply.text, reply.quote and reply.quote.text) == ("那是什么意思", "熵")


@pytest.mark.parametrize("text", ["@fil@/etc/passwd", "@img@/etc/passwd", "@vid@/etc/passwd", "@msg@hello"])
async def test_what_a_model_says_is_never_read_as_a_command_to_send_a_file(
    simulator: WeChatWebSimulator, tmp_path: Path, text: str
) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="读一下文件")
        [inbound] = await house.ear.hears(1)
        await house.answer(inbound, text)
        [shown] = await simulator.wait_for_shown(1)

    assert shown.text == text
    assert simulator.calls["webwxuploadmedia"] == 0


# The operator's rules


async def test_prefixes_choose_which_private_messages_are_for_the_bot(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path, private_prefix=["bot "], reply_prefix="[机器人]") as house:
        await house.healthy()
        await simulator.say(sender="小明", text="bot 你好")
        await simulator.say(sender="小明", text="明天见")
        asked, chat = await house.ear.hears(2)
        await house.answer(asked, "嗯")
        [shown] = await simulator.wait_for_shown(1)

    assert (asked.text, asked.to_bot) == ("你好", True)
    assert not chat.to_bot
    assert shown.text == "[机器人]\n嗯"


async def test_only_allowed_groups_are_heard_and_mentions_can_be_made_needless(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path, group_allow=["家人"], group_on_mention=False) as house:
        await house.healthy()
        await simulator.say(sender="阿强", text="你好", group="公司群", at="bot")
        await simulator.say(sender="妈妈", text="吃饭了", group="家人")
        heard = await house.ear.hears(1)

    assert [(inbound.text, inbound.to_bot) for inbound in heard] == [("吃饭了", True)]


async def test_friend_requests_are_accepted_only_when_the_operator_wants_and_not_many(
    simulator: WeChatWebSimulator, tmp_path: Path
) -> None:
    async with living(simulator, tmp_path, friend_requests=FriendRequests(clock=SystemClock(), every_s=3600)) as house:
        await house.healthy()
        await simulator.ask_for_friendship(name="新朋友")
        await simulator.ask_for_friendship(name="太多了")
        await house.until(lambda: "新朋友" in simulator.world.friends)
        await simulator.say(sender="新朋友", text="你好")
        [inbound] = await house.ear.hears(1)

    assert inbound.address.sender == "nick:新朋友"
    assert "太多了" not in simulator.world.friends


# Who is who


async def test_a_bot_that_was_renamed_unnoticed_is_still_called(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.rename_bot("公司群", "小助手😀", tell=False)
        await simulator.say(sender="阿强", text="在吗", group="公司群", at="bot")
        [inbound] = await house.ear.hears(1)

    assert (inbound.text, inbound.to_bot) == ("在吗", True)


async def test_a_group_and_a_friend_that_no_list_contains_are_asked_for_by_id(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.rooms_unlisted = True
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="阿强", text="在吗", group="公司群", at="bot")
        await simulator.say(sender="陌生人", text="你好")
        group, private = await house.ear.hears(2)

    assert (group.address.chat, group.sender_name, group.to_bot) == ("room:公司群", "阿强", True)
    assert private.address.chat == "nick:陌生人"


async def test_without_any_contact_list_people_are_heard_and_answered_by_this_logins_ids(
    simulator: WeChatWebSimulator, tmp_path: Path
) -> None:
    simulator.faults.no_contact_list = True
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="你好")
        [inbound] = await house.ear.hears(1)
        await house.answer(inbound, "你好")
        [shown] = await simulator.wait_for_shown(1)

    assert inbound.address.chat.startswith("@")
    assert shown.chat == "小明"


async def test_an_answer_survives_a_new_login_although_everybody_has_a_new_id(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path, blocked_within_s=0) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="慢慢想", group="公司群", at="bot")
        await simulator.say(sender="小红", text="慢慢想")
        in_group, private = await house.ear.hears(2)
        await simulator.end_login("1101")
        await house.until(lambda: simulator.logins == 2)
        await house.healthy()
        await house.answer(in_group, "想好了")
        await house.answer(private, "想好了")
        shown = await simulator.wait_for_shown(2)
        await simulator.say(sender="小红", text="谢谢")
        again = (await house.ear.hears(3))[2]

    assert [(one.chat, one.text) for one in shown] == [("公司群", "@小明\u2005想好了"), ("小红", "想好了")]
    assert again.address == private.address
    assert again.ticket != private.ticket


async def test_a_name_that_is_no_longer_unique_is_refused_and_not_guessed(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path, blocked_within_s=0) as house:
        await house.healthy()
        await simulator.say(sender="小红", text="你好")
        [inbound] = await house.ear.hears(1)
        simulator.world.friends.append("骗子")
        simulator.world.nicks["骗子"] = "小红"
        await simulator.end_login("1101")
        await house.until(lambda: simulator.logins == 2)
        await house.healthy()
        with pytest.raises(SendRefused, match="more than one"):
            await house.answer(inbound, "秘密")

    assert simulator.shown == []


# Restarts


async def test_a_restart_goes_on_with_the_saved_login_and_hears_what_was_said_meanwhile(
    simulator: WeChatWebSimulator, tmp_path: Path
) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="第一句")
        await house.ear.hears(1)
        await house.until(lambda: '"Val": 1' in house.state_file.read_text())
    await simulator.say(sender="小明", text="第二句")

    async with living(simulator, tmp_path) as second:
        heard = await second.ear.hears(1)

    assert [inbound.text for inbound in heard] == ["第二句"]
    assert simulator.logins == 1
    assert stat.S_IMODE(second.state_file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["wechat.json"]
    assert json.loads(second.state_file.read_text())["version"] == 1


async def test_a_crash_before_the_batch_was_saved_loses_nothing(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        house.ear.full = True  # the ledger never takes it, then the process dies
        await simulator.say(sender="小明", text="别丢")
        await house.ear.until(lambda: house.ear.deliveries >= 1)

    async with living(simulator, tmp_path) as second:
        heard = await second.ear.hears(1)

    assert [inbound.text for inbound in heard] == ["别丢"]


async def test_while_the_store_cannot_write_messages_wait_in_order(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        house.ear.full = True
        await simulator.say(sender="小明", text="一")
        await simulator.say(sender="小明", text="二")
        await house.ear.until(lambda: house.ear.deliveries >= 2)
        await house.until(lambda: "store" in house.channel.health().reason)
        house.ear.full = False
        heard = await house.ear.hears(2)
        await house.healthy()

    assert [inbound.text for inbound in heard] == ["一", "二"]


async def test_a_damaged_login_file_means_a_new_sign_in_and_nothing_worse(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    (tmp_path / "wechat.json").write_text('{"version": 1, "login": ')
    async with living(simulator, tmp_path) as house:
        await house.healthy()

    assert simulator.logins == 1


# Signing in


async def test_the_code_is_shown_in_the_terminal_and_as_a_private_picture(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.never_confirmed = True
    async with living(simulator, tmp_path) as house:
        await house.until(lambda: "confirm" in house.channel.health().reason)
        picture, mode = house.png_path.read_bytes(), stat.S_IMODE(house.png_path.stat().st_mode)
        simulator.faults.never_confirmed = False
        await house.healthy()

    assert "▀" in house.screen[0]
    assert "https://login.weixin.qq.com/l/" in house.screen[0]
    assert picture.startswith(b"\x89PNG")
    assert mode == 0o600
    assert not house.png_path.exists()


async def test_after_so_many_expired_codes_it_waits_for_a_person(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.expired_codes = 9
    error, house = await ending(simulator, tmp_path)

    assert simulator.calls["jslogin"] == 2
    assert "sign-in" in str(error)
    assert not house.channel.health().ok


async def test_a_scan_that_is_never_confirmed_ends(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.never_confirmed = True
    await ending(simulator, tmp_path, code_lifetime_s=0.3)

    assert simulator.calls["jslogin"] == 2


async def test_a_limited_account_is_told_in_the_servers_words(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.limited = True
    error, _ = await ending(simulator, tmp_path)

    assert "real-name" in str(error)
    assert "暂时不能登录" in str(error)
    assert simulator.calls["jslogin"] == 1


@pytest.mark.parametrize("code", ["1100", "1101", "1102"])
async def test_signed_out_right_after_signing_in_is_blocked_and_never_retried(
    simulator: WeChatWebSimulator, tmp_path: Path, code: str
) -> None:
    simulator.faults.retcode = code
    error, house = await ending(simulator, tmp_path)

    assert "blocked" in str(error)
    assert simulator.calls["webwxpushloginurl"] == 0
    assert simulator.logins == 1
    assert not house.state_file.exists()


async def test_refused_at_the_first_call_is_blocked_too(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.init_ret = 1102
    error, _ = await ending(simulator, tmp_path)

    assert "blocked" in str(error)


async def test_signed_out_later_asks_the_phone_and_goes_on_without_a_code(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path, blocked_within_s=0) as house:
        await house.healthy()
        await simulator.end_login("1100")
        await house.until(lambda: simulator.logins == 2)
        await house.healthy()
        await simulator.say(sender="小明", text="还在吗")
        heard = await house.ear.hears(1)

    assert heard[0].text == "还在吗"
    assert len(house.screen) == 1
    assert simulator.calls["webwxpushloginurl"] == 1


async def test_when_the_phone_is_not_asked_a_code_is_shown_again(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.refuse_push_login = True
    async with living(simulator, tmp_path, blocked_within_s=0) as house:
        await house.healthy()
        await simulator.end_login("1101")
        await house.until(lambda: simulator.logins == 2)
        await house.healthy()

    assert len(house.screen) == 2


async def test_a_sync_that_is_refused_while_news_is_promised_ends_the_login(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.sync_ret = 1101
    error, _ = await ending(simulator, tmp_path)

    assert "blocked" in str(error)
    assert simulator.calls["webwxsync"] == 1


# Trouble on the way


async def test_one_bad_message_never_loses_its_batch(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        simulator.faults.poison = 1
        await simulator.say(sender="小明", text="在坏消息后面")
        heard = await house.ear.hears(1)

    assert [inbound.text for inbound in heard] == ["在坏消息后面"]
    assert house.transport.unreadable == 1


async def test_a_raw_newline_in_a_group_is_read_as_its_author_wrote_it(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.raw_newline = True
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="阿强", text="第一行\n第二行", group="公司群", at="bot")
        [inbound] = await house.ear.hears(1)

    assert (inbound.text, inbound.sender_name) == ("第一行\n第二行", "阿强")


async def test_unexpected_spacing_in_the_sync_answer_is_read_all_the_same(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.wrong_spacing = True
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="你好")
        await house.ear.hears(1)

    assert simulator.logins == 1


@pytest.mark.parametrize("fault", ["drop_calls", "bad_gateway"])
async def test_a_network_that_fails_for_a_while_costs_nothing(simulator: WeChatWebSimulator, tmp_path: Path, fault: str) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        setattr(simulator.faults, fault, 4)
        await house.until(lambda: "cannot be reached" in house.channel.health().reason)
        await simulator.say(sender="小明", text="还在")
        heard = await house.ear.hears(1)
        await house.healthy()

    assert [inbound.text for inbound in heard] == ["还在"]
    assert simulator.logins == 1


async def test_a_server_that_is_gone_for_a_while_is_found_again(tmp_path: Path) -> None:
    simulator = WeChatWebSimulator(faults=WeChatWebFaults(hold_s=0.1))
    async with simulator.running():
        port = int(simulator.base_url.rpartition(":")[2])
        life = living(simulator, tmp_path)
        house = await life.__aenter__()
        await house.healthy()
    try:
        await house.until(lambda: "cannot be reached" in house.channel.health().reason)
        async with simulator.running(port):
            await simulator.say(sender="小明", text="回来了")
            heard = await house.ear.hears(1)
    finally:
        await life.__aexit__(None, None, None)

    assert heard[0].text == "回来了"
    assert simulator.logins == 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"send_ret": 1205}, SendLater),
        ({"send_ret": 1101}, SendLater),
        ({"send_ret": -1}, SendLater),
        ({"send_ret": -2}, SendRefused),
        ({"drop_sends": 1}, SendUncertain),
        ({"bad_gateway": 1}, SendUncertain),
        ({"send_delay_s": 0.8}, SendUncertain),
    ],
)
async def test_a_send_that_fails_says_whether_it_may_be_tried_again(
    simulator: WeChatWebSimulator, tmp_path: Path, fault: dict[str, float], expected: type[SendError]
) -> None:
    simulator.faults.hold_s = 5  # keeps the listening call out of the way of `bad_gateway`
    async with living(simulator, tmp_path, send_timeout_s=0.5) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="你好")
        [inbound] = await house.ear.hears(1)
        await house.until(lambda: simulator.calls["synccheck"] == 2)
        for knob, value in fault.items():
            setattr(simulator.faults, knob, value)
        with pytest.raises(expected) as caught:
            await house.answer(inbound, "答案")
        simulator.faults.hold_s = 0.1
        await simulator.say(sender="小明", text="ends the wait of the listening call")

    if fault.get("send_ret") == 1205:
        assert isinstance(caught.value, SendLater)
        assert caught.value.retry_after_s >= 60


async def test_a_send_while_the_server_is_gone_was_surely_not_shown(tmp_path: Path) -> None:
    simulator = WeChatWebSimulator(faults=WeChatWebFaults(hold_s=0.1))
    async with simulator.running():
        life = living(simulator, tmp_path)
        house = await life.__aenter__()
        await house.healthy()
        await simulator.say(sender="小明", text="你好")
        [inbound] = await house.ear.hears(1)
    try:
        await house.until(lambda: "cannot be reached" in house.channel.health().reason)
        with pytest.raises(SendLater):
            await house.answer(inbound, "答案")
    finally:
        await life.__aexit__(None, None, None)


async def test_sending_before_anybody_signed_in_can_be_tried_later(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    simulator.faults.never_confirmed = True
    async with living(simulator, tmp_path) as house:
        address = Address(channel="wechat", account="1234567890", chat="nick:小明", sender="nick:小明")
        with pytest.raises(SendLater, match="not signed in"):
            await house.channel.send(Outbound(key="1", address=address, text="你好"))
        simulator.faults.never_confirmed = False
        await house.healthy()


async def test_a_slow_send_does_not_stop_the_hearing(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await simulator.say(sender="小明", text="一")
        [first] = await house.ear.hears(1)
        simulator.faults.send_delay_s = 0.4
        sending = asyncio.create_task(house.answer(first, "慢"))
        await simulator.say(sender="小明", text="二")
        await house.ear.hears(2)
        assert not sending.done()
        await sending


async def test_the_library_says_nothing_on_stdout_and_nothing_secret_in_the_log(
    simulator: WeChatWebSimulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name == "itchat" or name.startswith("itchat.")]:
        del sys.modules[name]
    with caplog.at_level("DEBUG"):
        async with living(simulator, tmp_path) as house:
            await house.healthy()
            await simulator.say(sender="小明", text="秘密的话")
            [inbound] = await house.ear.hears(1)
            await house.answer(inbound, "秘密的回答")

    assert simulator.login is not None
    output = capsys.readouterr()
    assert output.out == ""
    log = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith(("uvicorn", "asyncio")))
    for secret in (simulator.login.skey, simulator.login.sid, simulator.login.pass_ticket, "秘密", "login.weixin.qq.com/l/"):
        assert secret not in log
    assert "ban" in log


async def test_a_sign_in_is_not_wasted_when_the_network_fails_right_after_it(simulator: WeChatWebSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.until(lambda: simulator.calls["webwxnewloginpage"] == 1)
        simulator.faults.drop_calls = 4
        await house.healthy()
        await simulator.say(sender="小明", text="你好")
        await house.ear.hears(1)

    assert simulator.logins == 1


async def test_two_accounts_live_in_one_process(tmp_path: Path) -> None:
    simulator = WeChatWebSimulator(faults=WeChatWebFaults(hold_s=0.1))
    (tmp_path / "one").mkdir()
    async with simulator.running(), living(simulator, tmp_path / "one") as one:
        await one.healthy()
        other = WeChatWebSimulator(faults=WeChatWebFaults(hold_s=0.1))
        async with other.running(), living(other, tmp_path / "two", alone=False) as two:
            await two.healthy()
            await simulator.say(sender="小明", text="给一号")
            await other.say(sender="小红", text="给二号")
            await asyncio.gather(one.ear.hears(1), two.ear.hears(1))

    assert (one.ear.texts, two.ear.texts) == (["给一号"], ["给二号"])
