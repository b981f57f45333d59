"""The handbook backend answers from these pages: everyday questions find the page that answers them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.backends.handbook import HandbookBackend
from gateway.prompts import Line, Prompt

TOP = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("question", "page"),
    [
        ("怎么接入公众号？", "zh/how-to/official-account.md"),
        ("钉钉连不上", "zh/how-to/dingtalk.md"),
        ("微信会封号吗", "zh/how-to/wechat.md"),
        ("会话什么时候会自动结束？", "zh/how-to/sessions.md"),
        ("deepseek怎么配", "zh/how-to/models.md"),
        ("怎么备份数据", "zh/how-to/operate.md"),
        ("会丢消息吗", "zh/discussion/promises.md"),
        ("端口怎么改", "zh/reference/http.md"),
        ("支持 Redis 吗", "zh/not-seen-live.md"),
        ("Docker 怎么部署", "zh/how-to/run-with-docker.md"),
        ("How do I connect an official account?", "en/how-to/official-account.md"),
        ("how do I use Ollama", "en/how-to/models.md"),
        ("what exit codes are there", "en/reference/command-line.md"),
        ("is my data private?", "en/discussion/promises.md"),
        ("what commands are there?", "en/reference/chat-commands.md"),
        ("llama.cpp", "en/not-seen-live.md"),
    ],
)
async def test_everyday_questions_find_their_page(question: str, page: str) -> None:
    handbook = HandbookBackend("handbook", folder=TOP)

    answer = "".join([delta.text async for delta in handbook.stream(Prompt(lines=(Line("user", question),)))])
    await handbook.aclose()

    assert f"docs/{page}" in answer
