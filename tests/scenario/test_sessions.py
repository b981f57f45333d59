from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import SendRefused
from gateway.wording import SENTENCES

from .conftest import StartTalk, Talk


@asynccontextmanager
async def timer(talk: Talk) -> AsyncIterator[None]:
    task = asyncio.create_task(talk.house.expiry.run())
    await talk.clock.settle()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_conversation_that_rests_ends_by_itself_with_a_farewell(start: StartTalk) -> None:
    talk = await start(sessions={"idle_timeout_s": 600, "farewell": True})
    async with timer(talk):
        await talk.ask("你好")
        await talk.clock.advance(599)
        assert len(talk.channel.shown) == 1

        await talk.clock.advance(2)
        assert talk.channel.texts[1:] == [SENTENCES["farewell"].zh]
        assert await talk.store.sessions.next_end() is None


async def test_every_word_starts_the_idle_time_again(start: StartTalk) -> None:
    talk = await start(sessions={"idle_timeout_s": 600})
    async with timer(talk):
        for _ in range(4):
            await talk.ask("hello")
            await talk.clock.advance(500)
        assert len(talk.backend.prompts[-1].lines) == 7
        await talk.clock.advance(200)
        await talk.ask("hello")
        assert len(talk.backend.prompts[-1].lines) == 1


async def test_a_conversation_ends_at_its_greatest_age_however_busy(start: StartTalk) -> None:
    talk = await start(sessions={"idle_timeout_s": 600, "max_age_s": 1000})
    async with timer(talk):
        for _ in range(3):
            await talk.ask("hello")
            await talk.clock.advance(400)
        await talk.ask("hello")
        assert len(talk.backend.prompts[-1].lines) == 1


async def test_a_session_is_over_on_time_even_if_the_timer_does_not_run(start: StartTalk) -> None:
    talk = await start(sessions={"idle_timeout_s": 600})
    await talk.ask("hello")
    await talk.clock.advance(601)
    await talk.ask("hello")

    assert len(talk.backend.prompts[-1].lines) == 1


async def test_sessions_survive_a_restart_and_so_does_their_end(start: StartTalk) -> None:
    first = await start(sessions={"idle_timeout_s": 600})
    await first.ask("hello")
    second = await start(sessions={"idle_timeout_s": 600, "farewell": True}, store=first.store, clock=first.clock)
    async with timer(second):
        await second.ask("hello again")
        assert len(second.backend.prompts[0].lines) == 3
        await second.clock.advance(601)
        assert second.channel.texts[-1] == SENTENCES["farewell"].en


async def test_many_sessions_that_end_together_all_end(start: StartTalk) -> None:
    talk = await start(sessions={"idle_timeout_s": 60})
    async with timer(talk):
        for number in range(500):
            await talk.channel.say("hello", sender=f"p{number}")
        await talk.channel.wait_for(500)
        await talk.clock.settle()
        await talk.clock.advance(70)
        assert talk.house.expiry.ended == 500


async def test_a_farewell_that_the_platform_refuses_is_no_disaster(start: StartTalk) -> None:
    talk = await start(sessions={"idle_timeout_s": 60, "farewell": True})
    async with timer(talk):
        await talk.ask("hello")
        talk.channel.errors.append(SendRefused("no proactive messages"))
        await talk.clock.advance(70)
        assert await talk.ask("hello") == "ANS:hello"


@pytest.mark.parametrize("words", ["/new", "/clear", "#清空", "#新会话", "清空会话", "下一个问题", "/NEW"])
async def test_a_person_can_forget_the_conversation(start: StartTalk, words: str) -> None:
    talk = await start()
    await talk.ask("你好")
    assert await talk.ask(words) == SENTENCES["cleared"].zh
    await talk.ask("你好")

    assert len(talk.backend.prompts[-1].lines) == 1


async def test_clear_words_inside_a_sentence_are_ordinary_words(start: StartTalk) -> None:
    talk = await start()

    assert (await talk.ask("下一个问题：天气")).startswith("ANS:")


async def test_context_tells_what_is_remembered(start: StartTalk) -> None:
    talk = await start()
    assert await talk.ask("#状态") == SENTENCES["context_empty"].zh
    await talk.ask("你好")
    text = await talk.ask("#状态")

    assert "1 轮" in text
    assert "60 分钟" in text


async def test_stop_ends_the_running_answer_frees_the_model_and_overtakes_the_queue(start: StartTalk) -> None:
    talk = await start()
    talk.backend.hold()
    await talk.channel.say("写一本书", id="book")
    await talk.channel.say("你好", id="next")
    await talk.backend.wait_until_asked(1)

    assert await talk.ask("/stop") == SENTENCES["stopped"].zh
    await talk.clock.settle()
    assert talk.backend.abandoned == 1
    assert await talk.outcome("book") == ("refused", "stopped by the person")

    talk.backend.release()
    await talk.channel.wait_for(2)
    assert talk.channel.texts[-1] == "ANS:你好"
    await talk.clock.settle()
    assert await talk.ask("/stop") == SENTENCES["nothing_to_stop"].zh


async def test_why_tells_how_the_last_message_ended(start: StartTalk) -> None:
    talk = await start()
    assert await talk.ask("#为什么") == SENTENCES["why_none"].zh
    await talk.ask("你好", id="m7")
    await talk.clock.settle()

    text = await talk.ask("/why")
    assert "已回答" in text or "已回答" in (await talk.ask("/why"))


async def test_help_names_every_command_in_the_language_of_the_person(start: StartTalk) -> None:
    talk = await start()
    await talk.ask("hello")
    english = await talk.ask("/help")
    await talk.ask("你好")
    chinese = await talk.ask("#帮助")

    assert all(f"/{name}" in english and f"/{name}" in chinese for name in ("new", "clear", "context", "stop", "why", "help"))
    assert "#清空" in chinese


async def test_a_mistyped_command_is_pointed_to_the_right_one(start: StartTalk) -> None:
    talk = await start()
    await talk.ask("hello")

    assert "/help" in await talk.ask("/hepl")
    assert (await talk.ask("/usr/bin is a folder")).startswith("ANS:")
    assert (await talk.ask("#话题")).startswith("ANS:")
    assert talk.backend.prompts[-1].question == "#话题"
