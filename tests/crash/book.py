"""What people asked, what their platforms were told, and what they saw: the truth that the gateway is measured against.

Every question carries a token, `Qd3n12z`: platform d, person 3, question 12. Every answer of the model carries the number of the
generation and the token, `A77xQd3n12z`; each part of a long answer also its number, `A77xQd3n12zp0z`. So whatever a person sees,
and whatever the model is told, says by itself where it belongs.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field

TOKEN = re.compile(r"Q([a-z])(\d+)n(\d+)z")
ANSWER = re.compile(r"A(\d+)x(Q[a-z]\d+n\d+z)(?:p(\d+)z)?")
LONG = "long"
PARTS = 4
PART_FILL = "words " * 110
"""About 660 bytes: four parts need two messages of an official account."""


@dataclass(eq=False)
class Asked:
    """One question of one person."""

    token: str
    platform: str
    person: int
    number: int
    text: str
    message_id: str = ""
    ledger_id: str = ""
    """Where the ledger calls the message otherwise than the platform; else `message_id`."""
    accepted: bool = False
    """The platform was told that the message arrived."""
    answers: list[tuple[int, int]] = field(default_factory=list)
    """What was seen, in order: (generation, part)."""
    first_words: str = ""
    """The whole text in which the answer was seen first."""
    other: list[str] = field(default_factory=list)
    """Sentences of the gateway that were seen as an answer to it."""

    @property
    def chat(self) -> str:
        return f"person {self.platform}{self.person}"

    @property
    def long(self) -> bool:
        return LONG in self.text

    @property
    def parts(self) -> set[int]:
        """What a person must see of the answer."""
        return set(range(PARTS)) if self.long else {0}

    @property
    def complete(self) -> bool:
        return self.parts <= {part for _, part in self.answers}


class Book:
    """Everything that happened in one town, by token."""

    def __init__(self) -> None:
        self.asked: dict[str, Asked] = {}
        self.by_message: dict[str, Asked] = {}
        self.fetches: dict[str, list[str]] = {}
        """Chat → ledger ids of the messages by which somebody asked for parked pieces."""
        self.seen: list[tuple[str, str]] = []
        """(chat, token) of every answer in the order in which people saw them; a long one once."""
        self.contexts: dict[int, tuple[str, frozenset[int]]] = {}
        """Generation → (token, numbers of the same person's earlier questions that the model was told)."""
        self.leaks: list[str] = []
        self.strangers: list[str] = []
        """Answers that belong to no question of that chat."""
        self._generations = itertools.count(1)
        self._news = asyncio.Condition()

    def ask(self, platform: str, person: int, number: int, *, long: bool = False) -> Asked:
        token = f"Q{platform}{person}n{number}z"
        asked = Asked(token, platform, person, number, f"{LONG} {token}" if long else token)
        self.asked[token] = asked
        return asked

    def sent(self, asked: Asked, message_id: str) -> None:
        asked.message_id = message_id
        self.by_message[message_id] = asked

    async def saw(self, chat: str, text: str, answers: str = "") -> None:
        """Somebody saw a text in a chat; `answers`: the message that it belongs to, where the platform tells."""
        found = ANSWER.findall(text)
        for generation, token, part in found:
            self._saw_answer(chat, token, int(generation), int(part or 0), text)
        if not found and (asked := self.by_message.get(answers)) is not None:
            asked.other.append(text)
        async with self._news:
            self._news.notify_all()

    def _saw_answer(self, chat: str, token: str, generation: int, part: int, text: str) -> None:
        asked = self.asked.get(token)
        if asked is None or chat != asked.chat:
            self.strangers.append(f"{chat} saw {token}")
            return
        if not asked.answers:
            asked.first_words = text
            self.seen.append((chat, token))
        asked.answers.append((generation, part))

    async def until(self, satisfied: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something that people saw satisfies; False when it did not in time."""
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(satisfied)
        except TimeoutError:
            return False
        return True

    async def look_again(self) -> None:
        """Something other than a sight changed what people wait for."""
        async with self._news:
            self._news.notify_all()

    def answer(self, question: str, told: list[str]) -> str:
        """What the model says to `question`, having been told `told` (the question included)."""
        generation = next(self._generations)
        found = TOKEN.search(question)
        if found is None:
            return f"A{generation}: nothing of the kind"
        platform, person, number = found.groups()
        mine = {(other, one) for text in told for other, one, _ in TOKEN.findall(text)}
        if mine != {(platform, person)}:
            self.leaks.append(f"{found[0]} was answered with words of {sorted(mine - {(platform, person)})}")
        known = frozenset(int(other) for text in told for _, _, other in TOKEN.findall(text)) - {int(number)}
        self.contexts[generation] = (found[0], known)
        if LONG not in question:
            return f"A{generation}x{found[0]}"
        return "\n\n".join(f"A{generation}x{found[0]}p{part}z {PART_FILL}" for part in range(PARTS))
