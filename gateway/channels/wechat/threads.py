"""Blocking calls off the event loop, in threads that never keep the process alive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(name: str, work: Callable[[], Result]) -> Result:
    """The result of `work()`, run in a daemon thread of its own.

    `asyncio.to_thread` would do but for the end: the interpreter waits for its threads, and a call that hangs in a socket (WeChat's
    long poll holds 25 s) would keep a stopped gateway from exiting. When the caller is cancelled the thread runs on unheard.
    """
    future: Future[Result] = Future()

    def body() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # handed to the awaiting task unchanged
            future.set_exception(error)

    threading.Thread(target=body, name=name, daemon=True).start()
    return await asyncio.wrap_future(future)
