"""Everything that Tencent's bot API is known to do wrong, and what our channel makes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.channels.wechat.ilink_api import POLL_GRACE_S, POLL_S, ILinkApi, Updates
from gateway.channels.wechat.ilink_person import PersonState
from gateway.channels.wechat.ilink_wire import Place, Wire
from gateway.errors import SendError, SendLater, SendRefused, SendUncertain, TicketExpired
from gateway.messages import Inbound
from gateway.simulators import ilink_faults as at
from gateway.simulators.ilink import ILinkSimulator
from gateway.simulators.ilink_faults import ILinkFaults
from gateway.testing import ManualClock
from tests.wire.test_ilink import House, living


@pytest.fixture
async def simulator() -> AsyncIterator[ILinkSimulator]:
    simulator = ILinkSimulator(faults=ILinkFaults(hold_s=0.3, qr_states=[]))
    async with simulator.running():
        yield simulator


async def asked(simulator: ILinkSimulator, house: House) -> Inbound:
    """A question that waits for its answer."""
    await house.healthy()
    await simulator.say(sender="小明", text="你好")
    return (await house.ear.hears(1))[0]


# The token


@pytest.mark.parametrize("field", ["ret", "errcode"])
async def test_a_stale_token_needs_a_new_scan_and_is_not_polled_any_more(simulator: ILinkSimulator, tmp_path: Path, field: str) -> None:
    simulator.faults.stale_field = field
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        simulator.expire("小明")
        await house.until(lambda: list(house.transport.states.values()) == [PersonState.NEEDS_LOGIN])
        polls = len(simulator.calls(at.UPDATES))
        with pytest.raises(TicketExpired, match="scan"):
            await house.answer(inbound, "好")
        await house.until(lambda: house.saved[0]["stale"] is True)

    assert not house.channel.health().ok
    assert "needs_login" in house.channel.health().reason
    assert "gateway sign-in" in house.channel.health().reason
    assert len(simulator.calls(at.UPDATES)) == polls
    assert len(simulator.calls(at.QR)) == 1, "no QR code pops up by itself"


async def test_a_new_scan_brings_a_stale_person_back_without_a_restart(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await asked(simulator, house)
        simulator.expire("小明")
        await house.until(lambda: not house.channel.health().ok)
        await house.channel.sign_in()
        await house.healthy()
        await simulator.say(sender="小明", text="我回来了")
        _, inbound = await house.ear.hears(2)
        await house.answer(inbound, "欢迎")

    assert [shown.text for shown in simulator.shown] == ["欢迎"]
    assert inbound.address == house.ear.heard[0].address, "the conversation goes on after a new scan"


async def test_a_bot_bound_elsewhere_goes_stale(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        simulator.sign_in("小明")
        await house.until(lambda: list(house.transport.states.values()) == [PersonState.NEEDS_LOGIN])


async def test_a_stale_token_found_while_sending_is_told(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        simulator.faults.send_answers = [[-14, "session timeout"]]
        with pytest.raises(TicketExpired):
            await house.answer(inbound, "好")
        assert list(house.transport.states.values()) == [PersonState.NEEDS_LOGIN]


async def test_a_start_with_only_a_stale_token_shows_a_code(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        simulator.expire("小明")
        await house.until(lambda: house.saved[0]["stale"] is True)
    async with living(simulator, tmp_path) as again:
        await again.healthy()

    assert len(again.screen) == 1


# Sending


@pytest.mark.parametrize("errmsg", ["", "unknown error", "prepare failed"])
async def test_a_used_up_permission_parks_the_answer_and_is_not_tried_again(simulator: ILinkSimulator, tmp_path: Path, errmsg: str) -> None:
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        simulator.faults.send_answers = [[-2, errmsg]]
        for number in range(2):
            with pytest.raises(TicketExpired):
                await house.answer(inbound, "好", number=number)

    assert len(simulator.calls(at.SEND)) == 1


async def test_a_rate_limit_is_waited_for(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        simulator.faults.send_answers = [[-2, "rate limited"]]
        with pytest.raises(SendLater) as caught:
            await house.answer(inbound, "好")
        for number in range(9):
            await house.answer(inbound, str(number))

    assert caught.value.retry_after_s >= 10
    assert [shown.text for shown in simulator.shown] == [str(number) for number in range(9)], "what was not shown is not counted"


async def test_an_unknown_refusal_is_final(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        simulator.faults.send_answers = [[-7, "whatever"]]
        with pytest.raises(SendRefused, match="-7"):
            await house.answer(inbound, "好")


async def test_taken_without_an_id_is_not_delivered_and_twice_is_suppression(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        simulator.faults.suppressed = 2
        for number in range(2):
            with pytest.raises(SendRefused, match="no id"):
                await house.answer(inbound, "好", number=number)
        suppressed = house.channel.health()
        await house.answer(inbound, "第三次", number=2)
        recovered = house.channel.health()

    assert not suppressed.ok
    assert "suppressed" in suppressed.reason
    assert recovered.ok
    assert [shown.text for shown in simulator.shown] == ["第三次"]


async def test_a_cut_connection_leaves_it_unknown_whether_it_was_shown(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        simulator.faults.send_cuts = 1
        with pytest.raises(SendUncertain):
            await house.answer(inbound, "好")

    ids = [call["msg"]["client_id"] for call in simulator.calls(at.SEND)]
    assert len(ids) == 1
    assert len(simulator.shown) == 1


async def test_a_repeated_piece_carries_the_same_client_id(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        for number in (0, 0, 1):
            await house.answer(inbound, "好", number=number)

    first, again, other = [call["msg"]["client_id"] for call in simulator.calls(at.SEND)]
    assert first == again != other


@pytest.mark.parametrize(
    ("status", "error"), [(429, SendLater), (500, SendUncertain), (502, SendUncertain), (524, SendUncertain), (403, SendRefused)]
)
async def test_http_errors_of_a_send_say_what_may_have_happened(
    simulator: ILinkSimulator, tmp_path: Path, status: int, error: type[SendError]
) -> None:
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        simulator.faults.status[at.SEND] = [status]
        with pytest.raises(error):
            await house.answer(inbound, "好")


async def test_a_web_page_instead_of_an_answer_is_uncertain(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        simulator.faults.html = [at.SEND]
        with pytest.raises(SendUncertain, match="JSON"):
            await house.answer(inbound, "好")


async def test_a_server_that_is_gone_is_tried_later(tmp_path: Path) -> None:
    simulator = ILinkSimulator(faults=ILinkFaults(hold_s=0.3, qr_states=[]))
    async with AsyncExitStack() as stack:
        async with simulator.running():
            house = await stack.enter_async_context(living(simulator, tmp_path))
            inbound = await asked(simulator, house)
        with pytest.raises(SendLater, match="cannot be reached"):
            await house.answer(inbound, "好")
        await house.until(lambda: "cannot be reached" in house.channel.health().reason)


async def test_an_empty_answer_is_refused_before_it_is_sent(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        with pytest.raises(SendRefused):
            await house.answer(inbound, " \n")

    assert not simulator.calls(at.SEND)


# Hearing


@pytest.mark.parametrize("status", [502, 503, 524, 504, 404])
async def test_an_outage_of_the_poll_passes(simulator: ILinkSimulator, tmp_path: Path, status: int) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        simulator.faults.status[at.UPDATES] = [status] * 3
        await house.until(lambda: not simulator.faults.status[at.UPDATES])
        await simulator.say(sender="小明", text="还在吗")
        await house.ear.hears(1)
        await house.healthy()


async def test_cut_polls_error_codes_and_web_pages_pass(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        simulator.faults.reset[at.UPDATES] = 2
        simulator.faults.update_rets = [-1, -3]
        await house.until(lambda: not simulator.faults.reset[at.UPDATES] and not simulator.faults.update_rets)
        simulator.faults.html = [at.UPDATES]
        await house.until(lambda: "JSON" in house.channel.health().reason)
        simulator.faults.html = []
        await simulator.say(sender="小明", text="还在吗")
        await house.ear.hears(1)
        await house.healthy()


async def test_a_batch_that_comes_twice_is_heard_once(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        simulator.faults.duplicates = 1
        await simulator.say(sender="小明", text="一次")
        await house.ear.until(lambda: house.ear.deliveries == 2)

    assert house.ear.texts == ["一次"]


async def test_a_late_duplicate_does_not_bring_its_old_permission_back(simulator: ILinkSimulator, tmp_path: Path) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        newest = await simulator.say(sender="小明", text="新")
        await house.ear.hears(1)
        await simulator.say(sender="小明", text="旧", older_s=3000)
        _, old = await house.ear.hears(2)
        await house.answer(old, "好")

    assert [shown.answers for shown in simulator.shown] == [newest]


async def test_an_unreadable_message_is_left_out_and_counted(
    simulator: ILinkSimulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        simulator.faults.poison = 1
        await simulator.say(sender="小明", text="秘密的话")
        await house.ear.hears(1)
        await house.until(lambda: house.transport.unreadable == 1)

    assert "item_list" in caplog.text
    assert "秘密的话" not in caplog.text


async def test_ids_may_be_texts(simulator: ILinkSimulator, tmp_path: Path) -> None:
    simulator.faults.text_ids = True
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        receipt = await house.answer(inbound, "好")

    assert inbound.id.isdigit()
    assert receipt.isdigit()


async def test_a_server_that_does_not_hold_polls_is_not_hammered(simulator: ILinkSimulator, tmp_path: Path) -> None:
    simulator.faults.hold_s = 0.0
    async with living(simulator, tmp_path) as house:
        await house.healthy()
        await asyncio.sleep(1)
        polls = len(simulator.calls(at.UPDATES))
        await simulator.say(sender="小明", text="你好")
        await house.ear.hears(1)

    assert polls < 12


@pytest.mark.parametrize("answer", [{"ret": -1}, {"errcode": -1}, {"ret": 0, "errcode": -1}])
def test_either_code_of_an_answer_counts(answer: dict[str, int]) -> None:
    assert Updates.model_validate(answer).code == -1


async def test_a_hanging_poll_is_given_up_as_an_empty_one(simulator: ILinkSimulator) -> None:
    simulator.faults.hang[at.UPDATES] = 1.0
    clock = ManualClock()
    wire = Wire(bases=[simulator.base_url], clock=clock)
    poll = asyncio.create_task(ILinkApi(wire).updates(Place(simulator.base_url, "token"), ""))
    try:
        await clock.advance(POLL_S)
        assert not poll.done()
        await clock.advance(POLL_GRACE_S)
        updates = await poll
    finally:
        await wire.aclose()

    assert (updates.messages, updates.cursor) == (None, None)


async def test_nothing_secret_reaches_the_log(simulator: ILinkSimulator, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="gateway")
    caplog.set_level(logging.DEBUG, logger="httpx2")
    simulator.faults.qr_states = ["scaned"]
    async with living(simulator, tmp_path) as house:
        inbound = await asked(simulator, house)
        simulator.faults.suppressed = 1
        with pytest.raises(SendRefused):
            await house.answer(inbound, "我的回答")
        bot = simulator.bots.of("小明")
        assert bot is not None

    for secret in (bot.token, inbound.ticket.token["context_token"], "我的回答", "你好", "qr1"):
        assert secret not in caplog.text
