"""Kill gateways a thousand times and count what people lost: `python bench/crash.py --kills 1000`.

Real gateway processes stand among simulated platforms on which people write all the time; each process is killed with -9 at a random
moment (one in seven before it is ready) and started again. At the end everything is delivered once more and what platforms were told
and people saw is compared with the ledger. Exit code 1 when a promise was broken; every broken one is told.

Several towns (each with its platforms, its store and its gateways) are killed side by side, so that both cores have work.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from crash.audit import Verdict  # noqa: E402
from crash.nursery import Nursery  # noqa: E402
from crash.redis_server import RedisServer  # noqa: E402
from crash.storm import survive  # noqa: E402


async def main(options: argparse.Namespace) -> int:
    for noisy in ("uvicorn.error", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # peers that die in the middle of everything are meant
    began = time.monotonic()
    progress = Progress(options.kills)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crash-"))) if options.keep is None else options.keep
        nursery = await stack.enter_async_context(Nursery.open()) if options.fork else None
        servers = [RedisServer(folder / f"redis-{number}") for number in range(options.towns if options.store == "redis" else 0)]
        for server in servers:
            await stack.enter_async_context(server.running())
        shares = [options.kills // options.towns + (number < options.kills % options.towns) for number in range(options.towns)]
        verdict = Verdict.of(
            await asyncio.gather(
                *(
                    survive(
                        folder / f"town-{number}",
                        kills,
                        seed=options.seed + number,
                        nursery=nursery,
                        processes=options.processes,
                        store_url=servers[number].url() if servers else None,
                        until=began + options.minutes * 60,
                        tell=progress.killed,
                    )
                    for number, kills in enumerate(shares)
                )
            )
        )
    start = "forked" if options.fork else "a fresh interpreter"
    print(f"{options.store}, {options.processes} process(es) in each of {options.towns} towns; every start is {start}")
    print(verdict.table())
    print(f"  {'wall time (s)':<32} {time.monotonic() - began:.0f}")
    for sentence in verdict.faults:
        print(f"BROKEN: {sentence}")
    return 1 if verdict.faults else 0


class Progress:
    """One line now and then on stderr."""

    def __init__(self, kills: int) -> None:
        self._kills = kills
        self._done = 0
        self._told = 0
        self._began = time.monotonic()

    def killed(self, count: int) -> None:
        self._done += count
        if self._done - self._told >= max(50, self._kills // 20):
            self._told = self._done
            print(f"{self._done} of {self._kills} kills after {time.monotonic() - self._began:.0f} s", file=sys.stderr, flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill gateways and count what was lost.")
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--processes", type=int, default=None, help="gateways on one store; default 1 for sqlite, 2 for redis")
    parser.add_argument("--towns", type=int, default=3, help="independent worlds that are killed side by side")
    parser.add_argument("--minutes", type=float, default=25, help="no new kills after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fork", action="store_true", help="fork gateways instead of starting an interpreter for each: twice as fast")
    parser.add_argument("--keep", type=Path, default=None, help="folder for stores and logs; default: one that is removed at the end")
    chosen = parser.parse_args()
    chosen.processes = chosen.processes or (2 if chosen.store == "redis" else 1)
    if chosen.store == "sqlite" and chosen.processes != 1:
        parser.error("a SQLite file belongs to one process")
    return chosen


if __name__ == "__main__":
    sys.exit(asyncio.run(main(options())))
