"""Files on the CDN: what goes up comes down again, and what its faults do."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.channels.wechat.ilink_api import ILinkApi
from gateway.channels.wechat.ilink_media import ILinkCdn, MediaKind, UnreadableMedia, decode_key, decrypt, encode_key, encrypt, media_of
from gateway.channels.wechat.ilink_wire import ForeignHost, Place, Wire
from gateway.channels.wechat.transport import Unreachable
from gateway.clock import SystemClock
from gateway.simulators.ilink import ILinkSimulator

KEY = bytes(range(16))


class Desk:
    """A simulator with somebody bound, and our way to its CDN."""

    def __init__(self, simulator: ILinkSimulator) -> None:
        clock = SystemClock()
        self.simulator = simulator
        self.wire = Wire(bases=[simulator.base_url, simulator.cdn_base_url], clock=clock)
        api = ILinkApi(self.wire)
        self.cdn = ILinkCdn(
            api=api, wire=self.wire, cdn_base_url=simulator.cdn_base_url, clock=clock, max_bytes=100_000, first_pause_s=0.01
        )
        self.bot = simulator.sign_in("小明")
        self.place = Place(simulator.base_url, self.bot.token)

    async def up(self, content: bytes, kind: MediaKind = MediaKind.IMAGE, name: str = "") -> dict[str, object]:
        return dict(await self.cdn.upload(self.place, self.bot.user_id, kind, content, name=name))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    simulator = ILinkSimulator()
    async with simulator.running():
        desk = Desk(simulator)
        yield desk
        await desk.wire.aclose()


@pytest.mark.parametrize("size", [1, 15, 16, 17, 4096, 100_000])
async def test_what_goes_up_comes_down_again(desk: Desk, size: int) -> None:
    content = secrets.token_bytes(size)
    item = await desk.up(content)
    image = item["image_item"]

    assert isinstance(image, dict)
    assert image["mid_size"] == (size // 16 + 1) * 16
    assert await desk.cdn.download(media_of(image)) == content


async def test_files_and_videos_say_their_sizes_as_the_platform_wants_them(desk: Desk) -> None:
    file = (await desk.up(b"x" * 100, MediaKind.FILE, "报表.txt"))["file_item"]
    video = (await desk.up(b"x" * 100, MediaKind.VIDEO))["video_item"]

    assert isinstance(file, dict)
    assert isinstance(video, dict)
    assert (file["len"], file["file_name"], video["video_size"]) == ("100", "报表.txt", 112)


async def test_the_cdns_failures_are_tried_again(desk: Desk) -> None:
    desk.simulator.faults.cdn_failures = 2
    image = (await desk.up(b"hello"))["image_item"]
    assert isinstance(image, dict)
    desk.simulator.faults.cdn_failures = 2
    assert await desk.cdn.download(media_of(image)) == b"hello"


async def test_after_three_failures_it_is_given_up(desk: Desk) -> None:
    desk.simulator.faults.cdn_failures = 3
    with pytest.raises(Unreachable, match="500"):
        await desk.up(b"hello")


async def test_a_refusal_is_not_tried_again(desk: Desk) -> None:
    desk.simulator.faults.cdn_failures = 0
    with pytest.raises(Unreachable, match="404"):
        await desk.cdn.download(media_of({"media": {"encrypt_query_param": "nothing", "aes_key": encode_key(KEY)}}))


async def test_a_foreign_address_in_a_message_is_not_fetched(desk: Desk) -> None:
    media = media_of({"media": {"full_url": "http://169.254.169.254/latest/meta-data?x=1", "aes_key": encode_key(KEY)}})
    with pytest.raises(ForeignHost):
        await desk.cdn.download(media)


async def test_a_file_that_is_too_large_is_not_read_to_its_end(desk: Desk) -> None:
    image = (await desk.up(b"x" * 50_000))["image_item"]
    assert isinstance(image, dict)
    desk.cdn._max_bytes = 1_000
    with pytest.raises(Unreachable, match="longer"):
        await desk.cdn.download(media_of(image))
    with pytest.raises(UnreadableMedia):
        await desk.up(b"x" * 1_001)


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(min_size=16, max_size=16))
def test_decrypting_undoes_encrypting(content: bytes, key: bytes) -> None:
    assert decrypt(encrypt(content, key), key) == content


@pytest.mark.parametrize("damage", [lambda blob: blob[:-1], lambda blob: blob[:-16], lambda blob: b"", lambda blob: blob[:-1] + b"\0"])
def test_bad_padding_and_missing_ends_are_noticed(damage: object) -> None:
    blob = encrypt(b"y" * 32, KEY)
    with pytest.raises(UnreadableMedia):
        decrypt(damage(blob), KEY)  # type: ignore[operator]


@pytest.mark.parametrize("text", [KEY.hex(), KEY.hex().upper(), base64.b64encode(KEY).decode(), encode_key(KEY)])
def test_keys_come_in_three_ways(text: str) -> None:
    assert decode_key(text) == KEY


@pytest.mark.parametrize("text", ["", "not a key", "00", base64.b64encode(b"x" * 17).decode(), "ü" * 32])
def test_other_keys_are_refused(text: str) -> None:
    with pytest.raises(UnreadableMedia):
        decode_key(text)


def test_an_item_without_a_file_is_unreadable() -> None:
    with pytest.raises(UnreadableMedia):
        media_of({"media": None})
