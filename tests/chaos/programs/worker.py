"""A worker process: runs jobs by their names and writes every run into the ledger. Data is a number of seconds.

Arguments: queue, url, directory of the ledger, options of Worker as JSON. Prints `started` once it works.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

from eventq import Job, Worker
from tests.chaos.ledger import Ledger

Run = Job[Any, Any]


async def sleep(job: Run) -> None:
    """Take so long."""
    await asyncio.sleep(job.data)  # sleep-ok: the work itself


async def hold(_: Run) -> None:
    """Never end, unless cancelled."""
    await asyncio.Event().wait()


async def hold_once(job: Run) -> None:
    """Never end, unless it is a run after one that was lost with its worker."""
    if job.run.stalls == 0:
        await asyncio.Event().wait()


async def stubborn(job: Run) -> None:
    """Never end, and once cancelled go on for so long."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    until = time.monotonic() + job.data
    while (left := until - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(left)  # sleep-ok: the work itself


async def block(job: Run) -> str:
    """Block the event loop for so long."""
    time.sleep(job.data)  # sleep-ok: the work itself  # noqa: ASYNC251
    return "by the one that blocked"


async def hold_gil(job: Run) -> str:
    """Keep every thread of the process from running for so long: PyDLL does not give the interpreter's lock up."""
    ctypes.PyDLL(None).usleep(round(job.data * 1e6))
    return "by the one that blocked"


async def leave(_: Run) -> NoReturn:
    """End the process without a word."""
    os._exit(7)


async def abort(_: Run) -> NoReturn:
    """End the process by a signal of its own."""
    os.abort()


async def crash(_: Run) -> None:
    """Read what is not there."""
    ctypes.string_at(0)


def thread(job: Run) -> None:
    """Take so long in a thread, whatever happens."""
    time.sleep(job.data)  # sleep-ok: the work itself


async def main() -> None:
    queue_name, url, directory, options_text = sys.argv[1:]
    ledger = Ledger(Path(directory))

    def told(function: Callable[[Run], Awaitable[Any]]) -> Callable[[Run], Awaitable[Any]]:
        async def process(job: Run) -> Any:
            with ledger.run(job, worker.name):
                return await function(job)

        return process

    def in_thread(job: Run) -> None:
        with ledger.run(job, worker.name):
            thread(job)

    functions = (sleep, hold, hold_once, stubborn, block, hold_gil, leave, abort, crash)
    processors: dict[str, Callable[[Run], object]] = {function.__name__: told(function) for function in functions}
    worker = Worker(queue_name, {**processors, "thread": in_thread}, url=url, **json.loads(options_text))

    @worker.on("worker_started")
    async def _(_: Any) -> None:
        print("started", flush=True)

    await worker.run()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash on purpose leaves no file
    asyncio.run(main())
