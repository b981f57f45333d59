"""A person at a terminal."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from gateway.channels.base import Admission, Admitted
from gateway.channels.keyboard import MAX_LINE_BYTES, Keyboard
from gateway.channels.terminal import PATIENCE_S, TerminalChannel
from gateway.errors import BackendTimeout, StoreUnavailable
from gateway.messages import Inbound, Outbound
from gateway.testing import ManualClock


class House:
    """Takes messages in and answers those it is told to."""

    def __init__(self, typed: bytes, *, prompt: str = "") -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(typed)
        reader.feed_eof()
        self.clock = ManualClock()
        self.screen = io.StringIO()
        self.channel = TerminalChannel(name="terminal", clock=self.clock, reader=reader, writer=self.screen, prompt=prompt)
        self.heard: list[Inbound] = []
        self.admission = Admission.ACCEPTED
        self.broken = False

    async def deliver(self, inbound: Inbound) -> Admitted:
        if self.broken:
            raise StoreUnavailable
        self.heard.append(inbound)
        return Admitted(self.admission)

    async def answer(self, inbound: Inbound, text: str) -> None:
        await self.channel.send(Outbound(key="k", address=inbound.address, text=text, ticket=inbound.ticket))

    async def grow(self, inbound: Inbound, *words: str) -> None:
        async def texts() -> AsyncGenerator[str, None]:
            for word in words:
                yield word
                await asyncio.sleep(0)

        await self.channel.send_growing(Outbound(key="k", address=inbound.address, text="", ticket=inbound.ticket), texts())


async def test_each_line_is_one_message_of_one_person() -> None:
    house = House("你好\r\n\n  在吗  \n最后一行没有换行".encode())

    running = asyncio.create_task(house.channel.run(house.deliver))
    await house.clock.settle()

    assert [inbound.text for inbound in house.heard] == ["你好", "在吗", "最后一行没有换行"]
    assert len({inbound.id for inbound in house.heard}) == 3
    assert {inbound.address.sender for inbound in house.heard} == {"person"}
    running.cancel()
    await asyncio.wait([running])


async def test_an_answer_appears_as_it_grows() -> None:
    house = House("你好\n".encode(), prompt="> ")
    running = asyncio.create_task(house.channel.run(house.deliver))
    await house.clock.settle()

    await house.grow(house.heard[0], "你", "好！")
    await running

    assert house.screen.getvalue() == "> 你好！\n> "


async def test_the_end_of_the_input_waits_for_the_last_answer() -> None:
    house = House(b"one\ntwo\n")
    running = asyncio.create_task(house.channel.run(house.deliver))
    await house.clock.settle()

    await house.answer(house.heard[0], "1")
    await house.clock.settle()
    assert not running.done()
    await house.answer(house.heard[1], "2")

    await running
    assert house.screen.getvalue() == "1\n2\n"


async def test_the_end_of_the_input_does_not_wait_for_ever() -> None:
    house = House(b"one\n")
    running = asyncio.create_task(house.channel.run(house.deliver))
    await house.clock.settle()

    await house.clock.advance(PATIENCE_S)

    assert running.done()


@pytest.mark.parametrize("word", ["/quit", "/exit"])
async def test_quit_ends_it(word: str) -> None:
    house = House(f"{word}\nnever read\n".encode())

    await house.channel.run(house.deliver)

    assert house.heard == []


async def test_a_message_that_is_ignored_is_not_waited_for() -> None:
    house = House(b"hello\n", prompt="> ")
    house.admission = Admission.IGNORED

    await house.channel.run(house.deliver)

    assert house.screen.getvalue() == "> > "


async def test_a_store_that_cannot_write_is_told() -> None:
    house = House("你好\n".encode())
    house.broken = True

    await house.channel.run(house.deliver)

    assert "暂时无法保存" in house.screen.getvalue()


async def test_bytes_that_are_no_text_do_not_end_it() -> None:
    house = House(b"\xff\xfe\n")
    house.admission = Admission.IGNORED

    await house.channel.run(house.deliver)

    assert house.heard[0].text == "\ufffd\ufffd"


async def test_an_answer_that_breaks_is_left_to_delivery() -> None:
    house = House(b"hello\n")
    running = asyncio.create_task(house.channel.run(house.deliver))
    await house.clock.settle()

    async def broken() -> AsyncGenerator[str, None]:
        yield "half"
        raise BackendTimeout

    inbound = house.heard[0]
    with pytest.raises(BackendTimeout):
        await house.channel.send_growing(Outbound(key="k", address=inbound.address, text="", ticket=inbound.ticket), broken())
    assert not running.done()
    await house.answer(inbound, " sorry")

    await running
    assert house.screen.getvalue() == "half sorry\n"


async def test_the_keyboard_reads_a_pipe_without_blocking_others() -> None:
    reading, writing = os.pipe()
    keyboard = Keyboard(reading)
    line = asyncio.create_task(keyboard.readline())
    await asyncio.sleep(0)
    assert not line.done()

    os.write(writing, "你好\nzwei\nrest".encode())
    os.close(writing)

    assert [await line, await keyboard.readline(), await keyboard.readline(), await keyboard.readline()] == [
        "你好\n".encode(),
        b"zwei\n",
        b"rest",
        b"",
    ]
    os.close(reading)


async def test_the_keyboard_reads_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "typed").write_bytes(b"a" * (MAX_LINE_BYTES + 5) + b"\nb\n")

    descriptor = os.open(tmp_path / "typed", os.O_RDONLY)

    keyboard = Keyboard(descriptor)
    lengths = [len(await keyboard.readline()) for _ in range(4)]
    os.close(descriptor)

    assert lengths == [MAX_LINE_BYTES, 6, 2, 0]


async def test_a_cancelled_reading_can_be_taken_up_again() -> None:
    reading, writing = os.pipe()
    keyboard = Keyboard(reading)
    waiting = asyncio.create_task(keyboard.readline())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])

    os.write(writing, b"later\n")

    assert await keyboard.readline() == b"later\n"
    os.close(reading)
    os.close(writing)
