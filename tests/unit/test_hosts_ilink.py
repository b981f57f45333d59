"""Which servers our client of Tencent's bot API speaks to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.channels.wechat.ilink_wire import ForeignHost, Place, Wire
from gateway.testing import ManualClock


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    wire = Wire(bases=["http://127.0.0.1:8099", "http://127.0.0.1:8099/c2c", "https://bot.company.example"], clock=ManualClock())
    yield wire
    await wire.aclose()


@pytest.mark.parametrize(
    "address",
    [
        "https://ilinkai.weixin.qq.com",
        "https://ILINKAI.weixin.qq.com/",
        "https://novac2c.cdn.weixin.qq.com/c2c",
        "https://szilink.wechat.com",
        "https://ilinkai.weixin.qq.com:443",
        "http://127.0.0.1:8099/x",
        "https://bot.company.example",
    ],
)
async def test_tencent_and_the_configured_hosts_are_known(wire: Wire, address: str) -> None:
    assert wire.must_be_known(address) == address.rstrip("/")


@pytest.mark.parametrize(
    "address",
    [
        "http://ilinkai.weixin.qq.com",
        "https://weixin.qq.com.evil.example",
        "https://evil-weixin.qq.com",
        "https://qq.com",
        "https://evil.example\\.weixin.qq.com",
        "https://evil.example#.weixin.qq.com",
        "https://evil.example?.weixin.qq.com",
        "https://user@ilinkai.weixin.qq.com",
        "https://ilinkai.weixin.qq.com:8443",
        "http://127.0.0.1:8100",
        "http://127.0.0.1",
        "http://localhost:8099",
        "http://169.254.169.254/latest/meta-data",
        "http://bot.company.example",
        "ftp://bot.company.example",
        "file:///etc/passwd",
        "//ilinkai.weixin.qq.com",
        "",
        "https://[::1",
        "https://ilinkai.weixin.qq.com\n.evil.example",
    ],
)
async def test_everything_else_is_foreign(wire: Wire, address: str) -> None:
    with pytest.raises(ForeignHost):
        wire.must_be_known(address)


async def test_a_foreign_home_in_a_state_file_is_not_spoken_to(wire: Wire) -> None:
    with pytest.raises(ForeignHost):
        await wire.post(Place("https://evil.example", "token"), "ilink/bot/getupdates", {}, timeout_s=1)


def test_a_place_does_not_print_its_token() -> None:
    assert "secret" not in repr(Place("https://ilinkai.weixin.qq.com", "secret"))
