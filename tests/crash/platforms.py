"""The shipped simulators, writing what people see into the book; and the people who write on them."""

from __future__ import annotations

import asyncio
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
from starlette.websockets import WebSocketDisconnect

from gateway.simulators.base import Shown, Simulator
from gateway.simulators.dingtalk import DingTalkSimulator
from gateway.simulators.official_account import OfficialAccountSimulator
from gateway.simulators.official_account_judge import FAULT_LINE
from gateway.simulators.openai_api import OpenAISimulator
from gateway.simulators.wechat_web import WeChatWebSimulator

from .book import Asked, Book

API_TOKEN = "crash-api-token"
PATIENCE_S = 90.0
"""How long a person waits for anything; far more than any outage of a test."""
FETCH = "继续"


class _Witness(Simulator):
    """Writes into the book instead of a list that grows for ever."""

    book: Book

    async def show(self, shown: Shown) -> None:
        await self.book.saw(shown.chat, shown.text, shown.answers)


class DingTalk(_Witness, DingTalkSimulator):
    async def _happened(self, event: str, subject: str) -> None:
        await super()._happened(event, subject)
        if event == "ack":
            await self.book.look_again()

    async def _send(self, connection: Any, text: str) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):  # whom we push to may die under the push; it is pushed again
            await super()._send(connection, text)


class Official(_Witness, OfficialAccountSimulator):
    pass


class WeChat(_Witness, WeChatWebSimulator):
    pass


class Model(OpenAISimulator):
    """Answers as the book wants it, so that every answer can be traced."""

    book: Book
    answers_s = 0.0
    """Mean of how long an answer takes."""

    async def _serve(self, call: Any, *, allowed: bool) -> None:
        self.faults.first_chunk_delay_s = random.uniform(0, 2 * self.answers_s)
        told = [str(message["content"]) for message in call.asked.messages]
        self._answer = lambda question: self.book.answer(question, told)  # asked for before `super()` awaits anything
        await super()._serve(call, allowed=allowed)


class Person(ABC):
    """Somebody who writes until told to stop. `pause_s` lies between two bursts."""

    platform = ""

    def __init__(self, number: int, *, book: Book, dice: random.Random, pause_s: float, stopped: Callable[[], bool]) -> None:
        self.number = number
        self.book = book
        self.dice = dice
        self.pause_s = pause_s
        self.stopped = stopped
        self.asked: list[Asked] = []

    @property
    def name(self) -> str:
        return f"person {self.platform}{self.number}"

    async def live(self) -> None:
        while not self.stopped():
            for _ in range(self.dice.choice((1, 1, 2, 3))):
                await self._ask()
            await self._read()
            await asyncio.sleep(self.dice.uniform(0, 2 * self.pause_s))

    def _next(self) -> Asked:
        asked = self.book.ask(self.platform, self.number, len(self.asked) + 1, long=self._long())
        self.asked.append(asked)
        return asked

    def _long(self) -> bool:
        return False

    @abstractmethod
    async def _ask(self) -> None:
        """Write one question, and wait until the platform knows that it arrived."""

    async def _read(self) -> None:
        """Mostly people wait for their answers; sometimes they write on."""
        if self.dice.random() < 0.7:
            await self.book.until(lambda: self.asked[-1].complete or bool(self.asked[-1].other), 3.0)

    async def catch_up(self) -> None:
        """Everything works again: look for what is still missing."""

    @abstractmethod
    async def again(self, asked: Asked) -> str:
        """The platform delivers the message once more, much later. Returns what it got for it, "" where it gets nothing."""


class DingTalkPerson(Person):
    """Writes privately, or to the bot in a group where all such persons are."""

    platform = "d"

    def __init__(self, number: int, *, platform: DingTalk, **rest: Any) -> None:
        super().__init__(number, **rest)
        self._dingtalk = platform

    async def _ask(self) -> None:
        asked = self._next()
        message = await self._dingtalk.say(sender=self.name, text=asked.text)
        self.book.sent(asked, message)
        asked.accepted = await self._acknowledged(message)

    async def again(self, asked: Asked) -> str:
        await self._dingtalk.say(sender=self.name, text=asked.text, msg_id=asked.message_id)
        await self._acknowledged(asked.message_id)
        return ""

    async def _acknowledged(self, message: str) -> bool:
        frame = self._dingtalk.frames[message]
        return await self.book.until(lambda: frame in self._dingtalk.acks, PATIENCE_S)


class WeChatPerson(Person):
    """Writes privately. Nobody is told whether the gateway took the message."""

    platform = "w"

    def __init__(self, number: int, *, platform: WeChat, **rest: Any) -> None:
        super().__init__(number, **rest)
        self._wechat = platform

    async def _ask(self) -> None:
        asked = self._next()
        self.book.sent(asked, await self._wechat.say(sender=self.name, text=asked.text))

    async def again(self, asked: Asked) -> str:
        return ""


class Follower(Person):
    """Reads an official account: waits for each answer, and asks for the rest with the fetch word."""

    platform = "o"

    def __init__(self, number: int, *, platform: Official, **rest: Any) -> None:
        super().__init__(number, **rest)
        self._official = platform

    def _long(self) -> bool:
        return self.dice.random() < 0.15

    async def _ask(self) -> None:
        asked = self._next()
        message = await self._official.say(sender=self.name, text=asked.text)
        self.book.sent(asked, message)
        asked.ledger_id = f"{self._official.open_id(self.name)}:{message}"
        await self.book.until(lambda: bool(asked.answers or asked.other), PATIENCE_S)
        asked.accepted = bool(asked.answers) or any(text != FAULT_LINE for text in asked.other)
        for _ in range(5):
            if asked.complete:
                return
            await asyncio.sleep(0.3)
            await self._fetch()

    async def catch_up(self) -> None:
        """Until everything is there, or asking brings nothing more."""
        fruitless = 0
        while fruitless < 2 and not all(asked.complete for asked in self.asked):
            fruitless = 0 if await self._fetch() else fruitless + 1

    async def _fetch(self) -> bool:
        """Whether the fetch word brought something."""
        asked = Asked("", self.platform, self.number, 0, FETCH)
        before = self._seen()
        message = await self._official.say(sender=self.name, text=FETCH)
        self.book.by_message[message] = asked
        self.book.fetches.setdefault(self.name, []).append(f"{self._official.open_id(self.name)}:{message}")
        await self.book.until(lambda: bool(asked.other) or self._seen() > before, PATIENCE_S)
        return self._seen() > before

    def _seen(self) -> int:
        return sum(len(asked.answers) for asked in self.asked)

    async def again(self, asked: Asked) -> str:
        return ""


class Program(Person):
    """Asks over the HTTP API and repeats its id until it has the answer."""

    platform = "a"

    def __init__(self, number: int, *, url: Callable[[], str], client: httpx2.AsyncClient, **rest: Any) -> None:
        super().__init__(number, **rest)
        self._url = url
        self._client = client

    async def _ask(self) -> None:
        asked = self._next()
        self.book.sent(asked, f"api-{asked.token}")
        while not asked.answers and not self.stopped():  # a sentence of the gateway is no answer: ask again
            text = await self._answer(asked)
            asked.accepted = True
            await self.book.saw(self.name, text, asked.message_id)

    async def again(self, asked: Asked) -> str:
        return await self._answer(asked)

    async def _answer(self, asked: Asked) -> str:
        body = {"text": asked.text, "sender": self.name, "id": asked.message_id, "stream": self.dice.random() < 0.5}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    answer = await self._client.post(
                        f"{self._url()}/api/v1/messages", json=body, headers={"authorization": f"Bearer {API_TOKEN}"}
                    )
                    if (text := _text_of(answer)) is not None:
                        return text
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.1)


def _text_of(answer: httpx2.Response) -> str | None:
    """The whole answer, or None when the program must ask again."""
    if answer.status_code != 200:
        assert answer.status_code in (502, 503, 504), f"{answer.status_code} {answer.text}"
        return None
    if answer.headers["content-type"].startswith("application/json"):
        return str(answer.json()["text"])
    events = [block.split("\n", 1) for block in answer.text.split("\n\n") if block.startswith("event: done")]
    return str(json.loads(events[-1][1].removeprefix("data: "))["text"]) if events else None
