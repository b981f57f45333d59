"""Foreign libraries judge our envelope and our platform simulator: wechatpy 2.0.0a26, WeRoBot 1.13.1, and WeChat's published vectors."""

from __future__ import annotations

import base64
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

with warnings.catch_warnings():
    # Both are from 2022 and before; what they do at import is no business of ours.
    warnings.simplefilter("ignore")
    from wechatpy import parse_message
    from wechatpy.crypto import WeChatCrypto
    from wechatpy.exceptions import InvalidAppIdException, InvalidSignatureException
    from wechatpy.utils import check_signature
    from werobot import WeRoBot

from gateway.channels.official_account.compose import text_reply
from gateway.channels.official_account.envelope import AesKey, BadEnvelope, Envelope, read_xml, signature
from gateway.simulators.official_account import FAULT_LINE, OfficialAccountSimulator
from gateway.simulators.official_account_judge import Verdict

TOKEN = "sesame"
APP_ID = "wx1234567890abcdef"
KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
MODES = ("plain", "compatible", "safe")

# WeChat's own numbers, from the documentation of 消息推送 and 消息加解密 (read 2026-11).
GOLDEN_TOKEN = "AAAAA"
GOLDEN_KEY = "A" * 43
GOLDEN_APP_ID = "wxba5fad812f8e6fb9"
GOLDEN_MESSAGE = (
    "+qdx1OKCy+5JPCBFWw70tm0fJGb2Jmeia4FCB7kao+/Q5c/ohsOzQHi8khUOb05JCpj0JB4RvQMkUyus8TPxLKJGQqcvZqzDpVzazhZv6JsXUnnR8XGT740XgXZUXQ7vJVn"
    "AG+tE8NUd4yFyjPy7GgiaviNrlCTj+l5kdfMuFUPpRSrfMZuMcp3Fn2Pede2IuQrKEYwKSqFIZoNqJ4M8EajAsjLY2km32IIjdf8YL/P50F7mStwntrA2cPDrM1kb6mOcf"
    "BgRtWygb3VIYnSeOBrebufAlr7F9mFUPAJGj04="
)
GOLDEN_REPLY = "ELGduP2YcVatjqIS+eZbp80MNLoAUWvzzyJxgGzxZO/5sAvd070Bs6qrLARC9nVHm48Y4hyRbtzve1L32tmxSQ=="


@pytest.mark.parametrize(
    ("timestamp", "nonce", "published"),
    [
        ("1714036504", "1514711492", "f464b24fc39322e44b38aa78f5edd27bd1441696"),
        ("1714037059", "486452656", "899cf89e464efb63f54ddac96b0a0a235f53aa78"),
        ("1714112445", "415670741", "6c5c811b55cc85e0e1b54100749188c20beb3f5d"),
    ],
)
def test_our_signature_is_the_published_one(timestamp: str, nonce: str, published: str) -> None:
    assert Envelope(token=GOLDEN_TOKEN, app_id=GOLDEN_APP_ID).signs(published, timestamp=timestamp, nonce=nonce)


def test_the_published_encrypted_message_opens_and_its_padding_is_longer_than_an_aes_block() -> None:
    envelope = Envelope(token=GOLDEN_TOKEN, app_id=GOLDEN_APP_ID, encoding_aes_keys=[GOLDEN_KEY])

    words, _ = envelope.open(
        GOLDEN_MESSAGE, msg_signature="046e02f8204d34f8ba5fa3b1db94908f3df2e9b3", timestamp="1714112445", nonce="415670741"
    )

    assert b'"Event":"debug_demo"' in words.replace(b" ", b"")
    assert len(base64.b64decode(GOLDEN_MESSAGE)) - 16 - 4 - len(words) - len(GOLDEN_APP_ID) == 19


def test_the_published_encrypted_reply_is_signed_and_opens_as_ours_would_be() -> None:
    signed = signature(GOLDEN_TOKEN, "1713424427", "415670741", GOLDEN_REPLY)

    assert signed == "1b9339964ed2e271e7c7b6ff2b0ef902fc94dea1"
    assert AesKey(GOLDEN_KEY, GOLDEN_APP_ID).open(GOLDEN_REPLY) == b'{"demo_resp":"good luck"}'


@pytest.mark.parametrize("words", ["你好", "x", "emoji 😀" * 30, "]]> <b>&amp;"])
def test_wechatpy_reads_what_we_seal(words: str) -> None:
    reply = text_reply(to_user="o1", from_user="gh_1", created="1767603600", text=words)
    envelope = Envelope(token=TOKEN, app_id=APP_ID, encoding_aes_keys=[KEY])

    shell = envelope.seal(reply, envelope.keys[0], timestamp="1767603601", nonce="77")

    fields = read_xml(shell.encode())
    opened = WeChatCrypto(TOKEN, KEY, APP_ID).decrypt_message(shell, fields["MsgSignature"], fields["TimeStamp"], fields["Nonce"])
    assert parse_message(opened).content == words


@pytest.mark.parametrize("words", ["你好", "x", "emoji 😀" * 30])
def test_we_read_what_wechatpy_seals(words: str) -> None:
    xml = f"<xml><Content><![CDATA[{words}]]></Content></xml>"

    shell = read_xml(WeChatCrypto(TOKEN, KEY, APP_ID).encrypt_message(xml, "77", "1767603601").encode())

    envelope = Envelope(token=TOKEN, app_id=APP_ID, encoding_aes_keys=[KEY])
    opened, _ = envelope.open(shell["Encrypt"], msg_signature=shell["MsgSignature"], timestamp=shell["TimeStamp"], nonce=shell["Nonce"])
    assert opened.decode() == xml


def test_wechatpy_and_we_refuse_the_same_forgeries() -> None:
    theirs = WeChatCrypto(TOKEN, KEY, APP_ID)
    ours = Envelope(token=TOKEN, app_id=APP_ID, encoding_aes_keys=[KEY])
    foreign = AesKey(KEY, "wx0000000000000000").seal(b"<xml/>")
    signed = signature(TOKEN, "1", "2", foreign)

    with pytest.raises(InvalidAppIdException):
        theirs.decrypt_message({"Encrypt": foreign}, signed, "1", "2")
    with pytest.raises(BadEnvelope):
        ours.open(foreign, msg_signature=signed, timestamp="1", nonce="2")
    with pytest.raises(InvalidSignatureException):
        theirs.decrypt_message({"Encrypt": foreign}, "0" * 40, "1", "2")
    with pytest.raises(BadEnvelope):
        ours.open(foreign, msg_signature="0" * 40, timestamp="1", nonce="2")
    with pytest.raises(InvalidSignatureException):
        check_signature(TOKEN, "0" * 40, "1", "2")


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing on the terminal."""


@contextmanager
def werobot_server(mode: str) -> Iterator[str]:
    """An unmodified WeRoBot that answers each text with `收到：` and the text; yields its callback URL."""
    keys = {} if mode == "plain" else {"app_id": APP_ID, "encoding_aes_key": KEY}
    robot = WeRoBot(token=TOKEN, SESSION_STORAGE=False, **keys)
    robot.text(lambda message: f"收到：{message.content}")
    robot.image(lambda message: "一张图片")
    robot.subscribe(lambda message: "欢迎")
    with make_server("127.0.0.1", 0, robot.wsgi, server_class=_Threads, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="werobot")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/callback"
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def platform_for_werobot(mode: str) -> AsyncIterator[OfficialAccountSimulator]:
    with werobot_server(mode) as url:
        key = None if mode == "plain" else KEY
        simulator = OfficialAccountSimulator(token=TOKEN, app_id=APP_ID, encoding_aes_key=key, mode=mode, callback_url=url)
        async with simulator.running() as running:
            yield running


@pytest.fixture(params=MODES)
async def platform(request: pytest.FixtureRequest) -> AsyncIterator[OfficialAccountSimulator]:
    """Our platform simulator before an unmodified WeRoBot, in each mode."""
    async with platform_for_werobot(request.param) as running:
        yield running


async def test_werobot_passes_our_verification(platform: OfficialAccountSimulator) -> None:
    assert await platform.verify() == ""


async def test_werobot_answers_our_followers(platform: OfficialAccountSimulator) -> None:
    msg_id = await platform.say(sender="粉丝甲", text="今天天气怎么样？")

    (shown,) = await platform.wait_for_shown(1)

    assert (shown.chat, shown.text, shown.answers) == ("粉丝甲", "收到：今天天气怎么样？", msg_id)


async def test_werobot_understands_our_other_messages_and_events(platform: OfficialAccountSimulator) -> None:
    await platform.say(sender="粉丝甲", kind="image", fields={"PicUrl": "http://example.com/0", "MediaId": "m"})
    await platform.event(sender="粉丝乙", event="subscribe")

    shown = await platform.wait_for_shown(2)

    assert {(each.chat, each.text) for each in shown} == {("粉丝甲", "一张图片"), ("粉丝乙", "欢迎")}


async def test_an_event_that_werobot_does_not_handle_shows_the_follower_nothing(platform: OfficialAccountSimulator) -> None:
    await platform.event(sender="粉丝甲", event="unsubscribe")
    await platform.idle()

    assert platform.shown == []
    assert [delivery.verdict for delivery in platform.deliveries] == [Verdict.ACK]


async def test_werobot_refuses_our_bad_signature_with_403(platform: OfficialAccountSimulator) -> None:
    platform.faults.bad_signature = True

    await platform.say(sender="粉丝甲", text="你好")
    (shown,) = await platform.wait_for_shown(1)

    assert shown.text == FAULT_LINE
    assert platform.deliveries[0].status == 403
    assert await platform.verify() == "status 403 instead of 200"


@pytest.mark.parametrize("fault", ["tamper", "foreign_app_id", "bad_msg_signature"])
async def test_werobot_does_not_take_our_forged_envelopes(fault: str) -> None:
    async with platform_for_werobot("safe") as platform:
        setattr(platform.faults, fault, True)

        await platform.say(sender="粉丝甲", text="你好")
        (shown,) = await platform.wait_for_shown(1)

        assert shown.text == FAULT_LINE


async def test_our_judge_minds_a_plain_answer_in_safe_mode() -> None:
    with werobot_server("plain") as url:
        simulator = OfficialAccountSimulator(token=TOKEN, app_id=APP_ID, encoding_aes_key=KEY, mode="safe", callback_url=url)
        body = text_reply(to_user=simulator.open_id("粉丝甲"), from_user=simulator.account, created="1767603600", text="你好")

        verdict, shown, reason = simulator.judge.judge(simulator.open_id("粉丝甲"), 200, body.encode())

    assert (verdict, shown) == (Verdict.FAULT, FAULT_LINE)
    assert "lacks Encrypt" in reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (text_reply(to_user="gh_0123456789ab", from_user="o1", created="1", text="x"), "swapped"),
        (text_reply(to_user="o1", from_user="gh_0123456789ab", created="1", text="汉" * 683), "2049 bytes"),
        (text_reply(to_user="o1", from_user="gh_0123456789ab", created="1", text=""), "empty"),
        (text_reply(to_user="o1", from_user="gh_0123456789ab", created="1", text="x").replace(">1<", ">now<"), "CreateTime"),
        (text_reply(to_user="o1", from_user="gh_0123456789ab", created="1", text="x").replace("[text]", "[gif]"), "MsgType"),
        ('{"errcode": 0}', "not XML"),
        ("<html><body>502 Bad Gateway</html>", "not XML"),
    ],
)
def test_our_judge_minds_what_wechat_minds(body: str, reason: str) -> None:
    judge = OfficialAccountSimulator(token=TOKEN).judge

    verdict, shown, why = judge.judge("o1", 200, body.encode())

    assert (verdict, shown) == (Verdict.FAULT, FAULT_LINE)
    assert reason in why


@pytest.mark.parametrize("body", [b"", b"success"])
def test_our_judge_takes_an_acknowledgement_for_silence(body: bytes) -> None:
    assert OfficialAccountSimulator(token=TOKEN).judge.judge("o1", 200, body) == (Verdict.ACK, "", "")
