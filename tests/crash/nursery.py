"""Gateways by fork: one process imports everything once, and each gateway begins as a copy of it.

A gateway is still a process of its own, which opens its own store, sockets and threads and dies alone; only the second or two of importing
are spared, so that many kills fit into a test. Run as a program this file is the mother; `Nursery` speaks with it, a JSON line each.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


class Child:
    """One forked gateway; looks like `asyncio.subprocess.Process`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    def send_signal(self, number: int) -> None:
        if self.returncode is None:  # the mother reaps before she tells, but nobody else gets the number within that instant
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def ended(self, code: int) -> None:
        self.returncode = code
        self._ended.set()


class Nursery:
    """The harness's end of the line to the mother."""

    def __init__(self, mother: asyncio.subprocess.Process) -> None:
        self._mother = mother
        self._children: dict[int, Child] = {}
        self._born: asyncio.Queue[Child] = asyncio.Queue()
        self._one_birth = asyncio.Lock()

    async def bear(self, arguments: list[str], log: Path, environment: Mapping[str, str]) -> Child:
        """A new gateway with these arguments, its output appended to `log`."""
        assert self._mother.stdin is not None
        async with self._one_birth, asyncio.timeout(20):
            order = {"arguments": arguments, "log": str(log), "environment": dict(environment)}
            self._mother.stdin.write(json.dumps(order).encode() + b"\n")
            return await self._born.get()

    async def listen(self) -> None:
        """Take the mother's news until she ends."""
        assert self._mother.stdout is not None
        async for line in self._mother.stdout:
            news = json.loads(line)
            if "born" in news:
                child = self._children[news["born"]] = Child(news["born"])
                self._born.put_nowait(child)
            else:
                self._children.pop(news["died"]).ended(news["code"])

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Nursery]:
        """A mother for the time of the body; her children end before."""
        mother = await asyncio.create_subprocess_exec(
            sys.executable, __file__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=TOP
        )
        nursery = cls(mother)
        listening = asyncio.create_task(nursery.listen(), name="nursery")
        try:
            yield nursery
        finally:
            assert mother.stdin is not None
            mother.stdin.close()
            await mother.wait()
            await listening


class Mother:
    """Imports, then forks on demand."""

    def __init__(self) -> None:
        self._news, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def live(self) -> None:
        signal.set_wakeup_fd(self._wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        ears = selectors.DefaultSelector()
        ears.register(0, selectors.EVENT_READ)
        ears.register(self._news, selectors.EVENT_READ)
        waiting = b""
        while True:
            for key, _ in ears.select():
                if key.fd == self._news:
                    os.read(self._news, 512)
                    self._bury()
                    continue
                data = os.read(0, 65_536)
                if not data:
                    return
                *orders, waiting = (waiting + data).split(b"\n")
                for order in orders:
                    self._bear(json.loads(order))

    def _bear(self, order: dict[str, object]) -> None:
        pid = os.fork()
        if pid == 0:
            self._grow_up(order)
        _tell({"born": pid})

    def _grow_up(self, order: dict[str, object]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._news)
        os.close(self._wake)
        log = os.open(str(order["log"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for here, number in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(here, number)
        os.environ.update(order["environment"])  # type: ignore[call-overload]
        sys.argv = ["gateway", *order["arguments"]]  # type: ignore[misc]
        import runner

        code = 1
        try:
            runner.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except Exception:  # noqa: BLE001 - the end of a process: told and turned into its code
            traceback.print_exc()
        finally:
            os._exit(code)

    def _bury(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            _tell({"died": pid, "code": os.waitstatus_to_exitcode(status)})


def _tell(news: dict[str, int]) -> None:
    os.write(1, json.dumps(news).encode() + b"\n")


def _import_everything() -> None:
    import gateway.app
    import gateway.backends.openai_chat
    import gateway.backends.openai_wire
    import gateway.channels.api
    import gateway.channels.dingtalk.channel
    import gateway.channels.official_account.channel
    import gateway.cli
    import gateway.reading
    import gateway.stores.sqlite
    import gateway.watch.logs  # noqa: F401


if __name__ == "__main__":
    sys.path.insert(0, str(TOP))  # after it: this folder, for `runner`
    _import_everything()
    Mother().live()
