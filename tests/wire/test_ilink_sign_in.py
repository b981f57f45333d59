"""Binding a person by QR code: every state that Tencent's API knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import ChannelError
from gateway.simulators import ilink_faults as at
from gateway.simulators.ilink import ILinkSimulator
from gateway.simulators.ilink_faults import ILinkFaults
from tests.wire.test_ilink import House, living


@pytest.fixture
async def simulator() -> AsyncIterator[ILinkSimulator]:
    simulator = ILinkSimulator(faults=ILinkFaults(hold_s=0.3))
    async with simulator.running():
        yield simulator


async def signing_in(simulator: ILinkSimulator, folder: Path, **settings: object) -> tuple[str, House]:
    """What one sign-in says, and where it happened."""
    house = House(simulator, folder, **settings)  # type: ignore[arg-type]
    try:
        return await house.channel.sign_in(), house
    finally:
        await house.channel.aclose()


async def test_the_code_says_the_servers_address_in_the_terminal_and_as_a_picture(simulator: ILinkSimulator, tmp_path: Path) -> None:
    pictures: list[bytes] = []
    house = House(simulator, tmp_path)
    house.transport._sign_in._show = lambda text: (house.screen.append(text), pictures.append((house.folder / "qr.png").read_bytes()))[0]  # type: ignore[func-returns-value]
    try:
        await house.channel.sign_in()
    finally:
        await house.channel.aclose()

    assert "https://liteapp.weixin.qq.com/q/sim?qrcode=qr1" in house.screen[0]
    assert pictures[0].startswith(b"\x89PNG")
    assert not (house.folder / "qr.png").exists()


async def test_digits_on_the_phone_are_asked_for_until_they_are_right(simulator: ILinkSimulator, tmp_path: Path) -> None:
    simulator.faults.qr_states = ["wait", "need_verifycode", "scaned"]
    typed = iter(["1111", "", "4321"])
    questions: list[str] = []

    async def ask(question: str) -> str:
        questions.append(question)
        return next(typed)

    told, _ = await signing_in(simulator, tmp_path, ask=ask)

    assert told.startswith("bound")
    assert ["wrong" in question for question in questions] == [False, True, True]


async def test_digits_without_anybody_at_the_terminal_say_what_to_do(simulator: ILinkSimulator, tmp_path: Path) -> None:
    simulator.faults.qr_states = ["need_verifycode"]
    with pytest.raises(ChannelError, match="gateway sign-in"):
        await signing_in(simulator, tmp_path)


@pytest.mark.parametrize("state", ["expired", "verify_code_blocked"])
async def test_a_code_that_is_over_is_replaced(simulator: ILinkSimulator, tmp_path: Path, state: str) -> None:
    simulator.faults.qr_states = ["wait", state, "scaned"]
    told, house = await signing_in(simulator, tmp_path)

    assert told.startswith("bound")
    assert len(house.screen) == 2


async def test_when_nobody_scans_the_codes_run_out(simulator: ILinkSimulator, tmp_path: Path) -> None:
    simulator.faults.qr_states = ["expired"] * 9
    with pytest.raises(ChannelError, match="nobody signed in"):
        await signing_in(simulator, tmp_path, max_codes=3)

    assert len(simulator.calls(at.QR)) == 3


async def test_a_channel_that_nobody_signed_in_to_waits_for_the_command(simulator: ILinkSimulator, tmp_path: Path) -> None:
    simulator.faults.qr_states = ["expired"] * 2
    async with living(simulator, tmp_path, max_codes=2) as house:
        await house.until(lambda: "nobody is bound" in house.channel.health().reason)
        simulator.faults.qr_states = []
        await signing_in(simulator, tmp_path)
        await house.healthy()


async def test_another_region_goes_on_at_its_own_host(simulator: ILinkSimulator, tmp_path: Path) -> None:
    port = simulator.base_url.rpartition(":")[2]
    simulator.faults.redirect_host = f"127.0.0.1:{port}"
    simulator.faults.qr_states = ["scaned_but_redirect", "scaned"]
    told, _ = await signing_in(simulator, tmp_path)

    assert told.startswith("bound")


@pytest.mark.parametrize(
    "host", ["localhost:{port}", "evil.example", "weixin.qq.com.evil.example", "127.0.0.1:1", "127.0.0.1:{port}/x", "a b"]
)
async def test_a_foreign_host_is_not_followed(simulator: ILinkSimulator, tmp_path: Path, host: str) -> None:
    simulator.faults.redirect_host = host.format(port=simulator.base_url.rpartition(":")[2])
    simulator.faults.qr_states = ["scaned_but_redirect"]
    with pytest.raises(ChannelError, match="stopped"):
        await signing_in(simulator, tmp_path)


@pytest.mark.parametrize(
    "address", ["https://evil.example", "http://169.254.169.254/latest", "http://ilinkai.weixin.qq.com", "file:///etc"]
)
async def test_a_foreign_home_is_refused_before_the_token_is_kept(simulator: ILinkSimulator, tmp_path: Path, address: str) -> None:
    simulator.faults.home_url = address
    with pytest.raises(ChannelError, match="foreign host"):
        await signing_in(simulator, tmp_path)

    assert not list((tmp_path / "ilink").glob("*.json"))


async def test_who_is_bound_already_keeps_the_old_sign_in(simulator: ILinkSimulator, tmp_path: Path) -> None:
    await signing_in(simulator, tmp_path)
    [before] = [path.read_text() for path in (tmp_path / "ilink").glob("*.json")]
    told, _ = await signing_in(simulator, tmp_path)

    assert "already" in told
    assert [path.read_text() for path in (tmp_path / "ilink").glob("*.json")] == [before]
    assert len(simulator.calls(at.QR)[1]["local_token_list"]) == 1


@pytest.mark.parametrize("status", [524, 502])
async def test_gateway_errors_while_waiting_for_the_scan_say_nothing(simulator: ILinkSimulator, tmp_path: Path, status: int) -> None:
    simulator.faults.status[at.STATUS] = [status, status]
    simulator.faults.reset[at.STATUS] = 1
    told, house = await signing_in(simulator, tmp_path)

    assert told.startswith("bound")
    assert len(house.screen) == 1


async def test_a_server_without_codes_is_asked_again_then_given_up(simulator: ILinkSimulator, tmp_path: Path) -> None:
    simulator.faults.status[at.QR] = [500]
    told, _ = await signing_in(simulator, tmp_path)
    assert told.startswith("bound")

    simulator.faults.html = [at.QR]
    with pytest.raises(ChannelError, match="base_url"):
        await signing_in(simulator, tmp_path)


async def test_unknown_states_are_waited_through(simulator: ILinkSimulator, tmp_path: Path) -> None:
    simulator.faults.qr_states = ["something_new", "wait", "scaned"]
    told, _ = await signing_in(simulator, tmp_path)
    assert told.startswith("bound")
