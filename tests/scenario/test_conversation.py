from __future__ import annotations

import asyncio

import pytest

from gateway.channels.base import Admission, ChannelLimits, Markup
from gateway.errors import (
    BackendMisconfigured,
    BackendTimeout,
    BackendUnreachable,
    BrokenAnswer,
    ContentFiltered,
    ContextTooLong,
    RateLimited,
    SendLater,
    SendRefused,
    SendUncertain,
    TicketExpired,
    TruncatedAnswer,
)
from gateway.messages import Quote, Text, Unsupported
from gateway.prompts import StopReason, Usage
from gateway.wording import SENTENCES

from .conftest import PASSIVE, StartTalk


async def test_a_question_is_answered_and_remembered(start: StartTalk) -> None:
    talk = await start(answering={"system_prompt": "Be kind."})

    assert await talk.ask("I am Ann") == "ANS:I am Ann"
    await talk.ask("who am I")

    said = [(line.role, line.text) for line in talk.backend.prompts[1].lines]
    assert said == [("system", "Be kind."), ("user", "I am Ann"), ("assistant", "ANS:I am Ann"), ("user", "who am I")]


async def test_people_do_not_share_a_conversation_and_members_of_a_group_neither(start: StartTalk) -> None:
    talk = await start()
    await talk.ask("secret of ann", sender="ann")
    await talk.ask("hello", sender="bob")
    await talk.ask("hello", sender="ann", group="room")
    await talk.ask("hello", sender="bob", group="room")

    assert all(len(prompt.lines) == 1 for prompt in talk.backend.prompts)


async def test_a_group_can_share_one_conversation_in_which_the_model_knows_who_speaks(start: StartTalk) -> None:
    talk = await start(sessions={"scope": {"group": "group"}})
    await talk.ask("I am first", sender="ann", group="room")
    await talk.ask("and I second", sender="bob", group="room")

    assert [line.text for line in talk.backend.prompts[1].lines] == ["Ann: I am first", "ANS:Ann: I am first", "Bob: and I second"]


async def test_in_a_group_the_asker_is_called_and_chatter_is_not_written_down(start: StartTalk) -> None:
    talk = await start()

    admitted = await talk.channel.say("just chatting", sender="ann", group="room", to_bot=False, id="chatter")
    await talk.ask("hello", sender="ann", group="room")

    assert admitted.admission is Admission.IGNORED
    assert await talk.store.ledger.find("chatter") == []
    assert talk.channel.shown[0].mention is not None
    assert talk.channel.shown[0].mention.id == "ann"


async def test_a_redelivered_message_is_answered_once(start: StartTalk) -> None:
    talk = await start()
    await talk.ask("hello", id="m")
    again = await talk.channel.say("hello", id="m")
    await talk.clock.settle()

    assert again.admission is Admission.DUPLICATE
    assert again.answer is not None
    assert again.answer.pieces == ("ANS:hello",)
    assert len(talk.channel.shown) == 1
    assert len(talk.backend.prompts) == 1


async def test_messages_of_one_person_are_answered_in_order_and_others_do_not_wait(start: StartTalk) -> None:
    talk = await start(queue={"notice_after_s": None})
    talk.backend.will_say("slow", after_s=100, to="first")
    await talk.channel.say("first", sender="ann")
    await talk.channel.say("second", sender="ann")
    assert await talk.ask("hello", sender="bob") == "ANS:hello"

    await talk.clock.advance(101)
    assert talk.channel.texts == ["ANS:hello", "slow", "ANS:second"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (BackendUnreachable(), "backend_unreachable"),
        (BackendTimeout(), "backend_timeout"),
        (BackendMisconfigured(), "backend_misconfigured"),
        (RateLimited(retry_after_s=600), "rate_limited"),
        (BrokenAnswer(), "broken_answer"),
        (TruncatedAnswer(), "truncated_answer"),
        (ContentFiltered(), "content_filtered"),
        (ContextTooLong(), "context_too_long"),
    ],
)
async def test_a_backend_that_fails_ends_in_a_sentence_and_a_reason(start: StartTalk, error: Exception, sentence: str) -> None:
    talk = await start()
    talk.backend.will_fail(error)  # type: ignore[arg-type]
    talk.backend.will_fail(error)  # type: ignore[arg-type]

    assert await talk.ask("你好", id="m1") == SENTENCES[sentence].zh
    assert await talk.ask("hello", id="m2") == SENTENCES[sentence].en
    assert await talk.outcome("m1") == ("failed", type(error).__name__)
    await talk.ask("again")
    assert len(talk.backend.prompts[2].lines) == 1, "a failed exchange must not be remembered"


async def test_an_answer_that_breaks_off_is_shown_with_a_note(start: StartTalk) -> None:
    talk = await start()
    talk.backend.will_fail(TruncatedAnswer(), after=("这是回答的", "前一半"))

    shown = await talk.ask("你好", id="m")

    assert shown.startswith("这是回答的前一半")
    assert "中断" in shown
    assert await talk.outcome("m") == ("failed", "TruncatedAnswer")


async def test_an_answer_of_reasoning_only_is_not_silence(start: StartTalk) -> None:
    talk = await start()
    talk.backend.will_say(reasoning="hmm hmm")

    assert await talk.ask("你好", id="m") == SENTENCES["empty_answer"].zh
    assert await talk.outcome("m") == ("failed", "EmptyAnswer")


async def test_reasoning_is_shown_only_when_switched_on(start: StartTalk) -> None:
    quiet, loud = await start(), await start(answering={"show_reasoning": True})
    for talk in (quiet, loud):
        talk.backend.will_say("42", reasoning="six times seven… ")

    assert await quiet.ask("?a") == "42"
    assert await loud.ask("?a") == "six times seven… 42"


async def test_an_answer_at_the_length_limit_says_so(start: StartTalk) -> None:
    talk = await start()
    talk.backend.will_say("半句话", stop=StopReason.LENGTH)

    assert "长度上限" in await talk.ask("你好")


async def test_a_filtered_stop_is_not_shown_as_an_answer(start: StartTalk) -> None:
    talk = await start()
    talk.backend.will_say("", stop=StopReason.FILTERED)

    assert await talk.ask("你好", id="m") == SENTENCES["content_filtered"].zh


async def test_history_is_trimmed_and_the_estimate_follows_the_server(start: StartTalk) -> None:
    talk = await start(sessions={"history_tokens": 100})
    for number in range(10):
        await talk.ask(f"{number}" + "字" * 30)
    assert len(talk.backend.prompts[-1].lines) <= 3

    talk.backend.will_say("ok", usage=Usage(input_tokens=10_000, output_tokens=1))
    await talk.ask("字" * 30)
    await talk.ask("字" * 30)
    assert len(talk.backend.prompts[-1].lines) == 1, "the server counts far more than we do: less history fits"


async def test_a_quote_becomes_context(start: StartTalk) -> None:
    talk = await start()
    await talk.channel.say(parts=(Quote("the earlier words", "Bob"), Text("what does this mean")))
    await talk.channel.wait_for(1)

    assert talk.backend.prompts[0].question == "> the earlier words\n\nwhat does this mean"


async def test_what_cannot_be_read_gets_a_polite_answer(start: StartTalk) -> None:
    talk = await start()
    await talk.channel.say(parts=(Unsupported("voice"),))
    await talk.channel.say("", group="room")
    await talk.channel.say("字" * 100_000, id="long")
    await talk.channel.wait_for(3)

    assert set(talk.channel.texts) == {SENTENCES[name].zh for name in ("unsupported", "empty_message", "too_long")}
    assert await talk.outcome("long") == ("refused", "TooLong")
    assert talk.backend.prompts == []


async def test_an_empty_private_message_is_ignored(start: StartTalk) -> None:
    talk = await start()

    assert (await talk.channel.say("  ")).admission is Admission.IGNORED


async def test_a_crowded_conversation_is_told_so_and_nothing_is_dropped_silently(start: StartTalk) -> None:
    talk = await start(queue={"per_conversation": 2})
    talk.backend.hold()
    for number in range(5):
        await talk.channel.say(f"m{number}", id=f"m{number}")
        await talk.clock.settle()
    assert talk.channel.texts == [SENTENCES["busy"].en] * 2

    talk.backend.release()
    await talk.channel.wait_for(5)
    outcomes = [(await talk.outcome(f"m{number}"))[0] for number in range(5)]
    assert outcomes == ["answered"] * 3 + ["refused"] * 2


async def test_long_answers_come_in_pieces_each_within_the_limit(start: StartTalk) -> None:
    talk = await start(limits=ChannelLimits(markup=Markup.PLAIN, max_bytes=300))
    talk.backend.will_say("一句话。" * 100)
    await talk.channel.say("你好")
    await talk.clock.settle()

    assert len(talk.channel.shown) > 3
    assert all(len(text.encode()) <= 300 for text in talk.channel.texts)
    assert "".join(talk.channel.texts) == "一句话。" * 100
    assert len({outbound.key for outbound in talk.channel.shown}) == len(talk.channel.shown)


async def test_markdown_is_rendered_for_the_platform(start: StartTalk) -> None:
    talk = await start()
    talk.backend.will_say("**重点。**后文")

    assert await talk.ask("你好") == "重点。后文"


async def test_a_platform_that_asks_to_wait_is_asked_again(start: StartTalk) -> None:
    talk = await start()
    talk.channel.errors.extend([SendLater("slow down", retry_after_s=2), SendLater("slow down", retry_after_s=2)])
    await talk.channel.say("hello", id="m")
    await talk.clock.advance(10)

    assert talk.channel.texts == ["ANS:hello"]
    assert await talk.outcome("m") == ("answered", "")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (SendRefused("no"), ("failed", "the platform refused")),
        (SendUncertain("cut"), ("unknown", "sending was cut")),
        (TicketExpired("late"), ("expired", "too late for the platform")),
        (SendLater("wait an hour", retry_after_s=3600), ("failed", "the platform refused")),
    ],
)
async def test_what_the_platform_does_not_take_ends_in_its_own_outcome(start: StartTalk, error: Exception, outcome: tuple) -> None:
    talk = await start()
    talk.channel.errors.append(error)  # type: ignore[arg-type]
    await talk.channel.say("hello", id="m")

    assert await talk.outcome("m") == outcome


async def test_an_uncertain_piece_is_sent_again_only_when_the_operator_says_so(start: StartTalk) -> None:
    talk = await start(answering={"on_unknown": "resend"})
    talk.channel.errors.append(SendUncertain("cut"))
    await talk.channel.say("hello", id="m")

    assert await talk.outcome("m") == ("answered", "")
    assert talk.channel.texts == ["ANS:hello"]


async def test_a_bug_in_one_message_ends_only_that_message(start: StartTalk, caplog: pytest.LogCaptureFixture) -> None:
    talk = await start()
    talk.backend._answer = lambda prompt: 1 // 0  # type: ignore[assignment]
    assert await talk.ask("你好", id="m") == SENTENCES["failed"].zh
    assert await talk.outcome("m") == ("failed", "ZeroDivisionError")

    talk.backend._answer = lambda prompt: "fine again"
    assert await talk.ask("你好") == "fine again"


async def test_late_and_long_answers_wait_until_the_person_asks_for_them(start: StartTalk) -> None:
    # Given a platform that shows one short piece per message and stops waiting
    talk = await start(limits=PASSIVE, channels={"o": {"kind": "official_account", "app_id": "wx", "token": "abc"}})
    talk.backend.will_say("第一句话在这里。" * 6)
    talk.channel.errors.append(TicketExpired("the ladder is over"))
    await talk.channel.say("你好", id="late")
    assert await talk.outcome("late") == ("answered", "parked until the person asks for it")

    # When the person asks for the rest, word by word
    pieces = []
    for number in range(3):
        await talk.channel.say("继续", id=f"fetch{number}")
        await talk.clock.settle()
        pieces.append(talk.channel.shown[-1])

    # Then every piece comes once, in order, and the last says there is no more
    assert "".join(piece.text for piece in pieces) == "第一句话在这里。" * 6
    assert [piece.more for piece in pieces] == [True, True, False]
    assert len(talk.backend.prompts) == 1

    # And after that the word is an ordinary question
    await talk.channel.say("继续")
    await talk.clock.settle()
    assert talk.backend.prompts[-1].question == "继续"


async def test_a_fetched_piece_that_is_not_shown_goes_back_to_its_place(start: StartTalk) -> None:
    talk = await start(limits=PASSIVE, channels={"o": {"kind": "official_account", "app_id": "wx", "token": "abc"}})
    talk.backend.will_say("第一句话在这里。" * 4)
    await talk.channel.say("你好")
    await talk.clock.settle()
    talk.channel.errors.append(TicketExpired("nobody waits"))
    await talk.channel.say("继续")
    await talk.clock.settle()
    await talk.channel.say("继续")
    await talk.clock.settle()

    assert "".join(talk.channel.texts) == "第一句话在这里。" * 4


async def test_a_growing_channel_sees_the_answer_and_the_ledger_has_it(start: StartTalk) -> None:
    talk = await start(limits=ChannelLimits(markup=Markup.MARKDOWN, max_bytes=10_000, grows=True, idempotent=True))

    assert await talk.ask("**hello**", id="m") == "ANS:**hello**"
    (record,) = await talk.store.ledger.find("m")
    assert record.answer is not None
    assert record.answer.text == "ANS:**hello**"
    assert record.answered_by == "scripted"


async def test_many_people_at_once_each_get_their_own_answer(start: StartTalk) -> None:
    talk = await start()
    await asyncio.gather(*(talk.channel.say(f"q{number}", sender=f"p{number}") for number in range(200)))
    await talk.channel.wait_for(200)

    assert all(outbound.text == f"ANS:q{outbound.address.sender[1:]}" for outbound in talk.channel.shown)


async def test_what_is_parked_is_announced_by_the_next_reply(start: StartTalk) -> None:
    talk = await start(limits=PASSIVE, channels={"o": {"kind": "official_account", "app_id": "wx", "token": "abc"}})
    talk.channel.errors.append(TicketExpired("the ladder is over"))
    await talk.channel.say("one")
    await talk.clock.settle()
    await talk.ask("two")
    await talk.ask("继续")
    await talk.ask("three")

    assert [(outbound.text, outbound.more) for outbound in talk.channel.shown] == [
        ("ANS:two", True),
        ("ANS:one", False),
        ("ANS:three", False),
    ]
