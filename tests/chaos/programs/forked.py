"""A process that forks while its queue is in use, as servers do that load the application first; the child is a worker.

Arguments: queue, url, directory of the ledger, options of Worker as JSON. Prints the child's pid, its exit code when it has
ended, and `done` once the parent has added one more job.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from eventq import Job, Queue, Worker
from tests.chaos.ledger import Ledger


async def add(queue: Queue[Any, Any], ledger: Ledger) -> None:
    """Add a job and write it down."""
    ledger.acknowledged((await queue.add("hold", 0)).id)


async def work(queue: Queue[Any, Any], ledger: Ledger, options: dict[str, Any]) -> None:
    """Run jobs that do not end, until told to stop."""

    async def hold(job: Job[Any]) -> None:
        with ledger.run(job, "child"):
            await asyncio.Event().wait()

    async with queue:
        await Worker(queue, hold, **options).run()


def be_a_child(queue: Queue[Any, Any], ledger: Ledger, options: dict[str, Any]) -> NoReturn:
    """Work and end, without what the parent has set up for its own end."""
    code = 1
    try:
        asyncio.run(work(queue, ledger, options))
        code = 0
    finally:
        os._exit(code)


async def main() -> None:
    queue_name, url, directory, text = sys.argv[1:]
    ledger = Ledger(Path(directory))
    async with Queue(queue_name, url=url) as queue:
        queue.on("completed", lambda _: None)  # a reader of the parent's own is up, too
        await add(queue, ledger)
        child = os.fork()
        if child == 0:
            be_a_child(queue, ledger, json.loads(text))
        print(child, flush=True)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        await add(queue, ledger)
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
