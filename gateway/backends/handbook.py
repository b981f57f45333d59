"""Answers from the project's own documentation by full-text search: no model, no key, no network."""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.backends.base import Backend
from gateway.backends.handbook_pages import Section, question_tokens, sections_of, tokens_of, trimmed
from gateway.checkup import Finding
from gateway.errors import BackendMisconfigured
from gateway.messages import Lang
from gateway.prompts import Delta, Prompt, StopReason
from gateway.wording import language_of, say

logger = logging.getLogger(__name__)

PAGES = ("README*.md", "docs/**/*.md")
NOT_FOR_PEOPLE = frozenset({"docs/README.md", "docs/decisions"})
"""Lists of links, and reasons for developers."""
MAX_PAGES = 500
MAX_PAGE_BYTES = 300_000
MAX_ANSWER_BYTES = 1_500
"""Leaves room for source and note inside the 2048 bytes of an official account's answer."""
MAX_TOPICS = 10
CANDIDATES = 30
GUIDES = ("/start/", "/how-to/")
"""Pages whose titles are topics to ask about."""
TITLE, HEADING = 1.5, 2.0
"""What a word is worth in a page's title and in a heading; in the text it is worth 1."""
TABLE = 0.75
"""What a section with a table is worth: people in a chat read sentences more easily."""
STRANGE = 0.3
"""How much a word that no page knows counts against an answer, compared with the rarest known word."""
ENOUGH = 0.34
"""Share of what a question says that a section must speak of; below, no answer is better than a wrong one."""


class HandbookBackend(Backend):
    """Gives the section of the documentation that fits the question best, in the question's language when it can.

    Reads README*.md and docs/**/*.md below `folder` at the first question (some 10 ms for a few dozen pages, in a thread) and keeps them in
    memory. Any number of prompts at once; a search takes about a millisecond.
    """

    def __init__(self, name: str = "handbook", *, folder: Path, pages: Sequence[str] = PAGES) -> None:
        self.name = name
        self._folder = folder
        self._pages = tuple(pages)
        self._index: _Index | None = None
        self._opening = asyncio.Lock()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        index = await self._opened()
        for paragraph in self._answer(index, prompt.question):
            yield Delta(text=paragraph)
        yield Delta(stop=StopReason.END)

    async def checkup(self) -> list[Finding]:
        try:
            index = await self._opened()
        except BackendMisconfigured as error:
            return [Finding(f"backend {self.name}: pages", False, str(error))]
        return [Finding(f"backend {self.name}: {len(index)} sections", True)]

    async def aclose(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None

    async def _opened(self) -> _Index:
        async with self._opening:
            if self._index is None:
                self._index = await asyncio.to_thread(self._read_all)
            return self._index

    def _answer(self, index: _Index, question: str) -> Iterator[str]:
        lang = language_of(question)
        found = index.search(question, lang)
        if found is None:
            yield say("handbook_nothing", lang)
            yield "\n" + "\n".join(f"- {topic}" for topic in index.topics(lang))
        else:
            yield trimmed(found.text, MAX_ANSWER_BYTES)
            yield "\n\n" + say("handbook_source", lang, page=found.page, heading=found.heading)
        yield "\n\n" + say("handbook_note", lang)

    def _read_all(self) -> _Index:
        sections = [section for page in self._files() for section in self._sections(page)]
        if not sections:
            raise BackendMisconfigured(f"backend {self.name}: there is no documentation ({', '.join(self._pages)}) below {self._folder}.")
        try:
            return _Index(sections)
        except sqlite3.OperationalError as error:
            raise BackendMisconfigured(f"backend {self.name}: the SQLite of this Python has no full-text search ({error}).") from error

    def _files(self) -> list[Path]:
        found = dict.fromkeys(path for pattern in self._pages for path in sorted(self._folder.glob(pattern)))
        return [path for path in found if not self._is_hidden(path)][:MAX_PAGES]

    def _is_hidden(self, path: Path) -> bool:
        below = path.relative_to(self._folder)
        return any(part.as_posix() in NOT_FOR_PEOPLE for part in (below, *below.parents))

    def _sections(self, path: Path) -> Iterable[Section]:
        try:
            with path.open("rb") as page:
                text = page.read(MAX_PAGE_BYTES).decode(errors="replace")
        except OSError as error:
            logger.warning("Handbook page %s cannot be read (%s); going on without it.", path.name, error.strerror)
            return ()
        return sections_of(path.relative_to(self._folder).as_posix(), text)


@dataclass(frozen=True, slots=True, order=True)
class _Rank:
    """How well a section fits; fields from the most to the least important."""

    speaks: bool
    """It is in the language of the question."""
    score: float
    place: int
    """The earlier section of two equal ones: pages begin with what most people need."""
    share: float
    """How much of the question it speaks of, rare words counting more."""


class _Index:
    """The sections, searchable. Built in one thread, then used by one at a time."""

    def __init__(self, sections: list[Section]) -> None:
        self._sections = sections
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute("CREATE VIRTUAL TABLE section USING fts5(title, heading, body, content='', tokenize='unicode61')")
        self._tokens: list[tuple[frozenset[str], frozenset[str], frozenset[str]]] = []
        """Of title, heading and text."""
        self._spread: Counter[str] = Counter()
        """In how many sections each token stands."""
        for number, section in enumerate(sections):
            self._add(number, section)

    def __len__(self) -> int:
        return len(self._sections)

    def close(self) -> None:
        self._database.close()

    def search(self, question: str, lang: Lang) -> Section | None:
        """The section that fits best, or None when none fits enough; one in another language only when none in `lang` does."""
        asked = [token for token in question_tokens(question) if token in self._spread]
        strange = len(question_tokens(question)) - len(asked)
        if not asked:
            return None
        weights = {token: math.log(1 + len(self) / self._spread[token]) for token in asked}
        whole = sum(weights.values()) + STRANGE * strange * math.log(1 + len(self))
        ranked = [self._rank(number, weights, whole, lang) for number in self._matching(asked)]
        best = max((rank for rank in ranked if rank.share >= ENOUGH), default=None)
        return self._sections[-best.place] if best else None

    def topics(self, lang: Lang) -> list[str]:
        """Titles of the pages in `lang`."""
        mine = [section for section in self._sections if section.lang == lang]
        guides = [section for section in mine if any(shelf in section.page for shelf in GUIDES)]
        return list(dict.fromkeys(section.title for section in guides or mine))[:MAX_TOPICS]

    def _add(self, number: int, section: Section) -> None:
        place = section.page.rsplit("/", 1)[-1].removesuffix(".md")
        columns = [tokens_of(words) for words in (f"{section.title} {place}", section.heading, section.text)]
        self._tokens.append((frozenset(columns[0]), frozenset(columns[1]), frozenset(columns[2])))
        self._spread.update(frozenset().union(*self._tokens[-1]))
        row = [" ".join(token.replace(".", "").replace("_", "") for token in column) for column in columns]
        self._database.execute("INSERT INTO section(rowid, title, heading, body) VALUES (?, ?, ?, ?)", (number, *row))

    def _matching(self, asked: list[str]) -> list[int]:
        """Sections by how well they fit; a word in the heading counts more than in the title, and that more than in the text."""
        terms = " OR ".join(f'"{token.replace(".", "").replace("_", "")}"' for token in asked)
        found = self._database.execute(
            "SELECT rowid FROM section WHERE section MATCH ? ORDER BY bm25(section, 4.0, 6.0, 1.0) LIMIT ?", (terms, CANDIDATES)
        )
        return [number for (number,) in found]

    def _rank(self, number: int, weights: Mapping[str, float], whole: float, lang: Lang) -> _Rank:
        title, heading, body = self._tokens[number]
        places = ((title, TITLE), (heading, HEADING), (body, 1.0))
        found = {token: sum(worth for words, worth in places if token in words) for token in weights}
        return _Rank(
            speaks=self._sections[number].lang == lang,
            score=round(sum(weights[token] * worth for token, worth in found.items()) / whole * _readability(self._sections[number]), 2),
            place=-number,
            share=sum(weights[token] for token, worth in found.items() if worth) / whole,
        )


def _readability(section: Section) -> float:
    return TABLE if "|---" in section.text else 1.0
