"""eventq through its public API, at its defaults.

work CONCURRENCY | add N WARM | add-concurrent N WARM | bulk N WARM JOB
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from benchmarks.drivers.common import CHUNK, PAYLOAD, QUEUE, URL, open_ticks, run, timed
from eventq import Job, NewJob, Queue, Worker

CALLERS = 100


async def work(concurrency: int) -> None:
    """Run jobs until SIGTERM."""
    ticks = open_ticks()

    async def process(job: Job[object]) -> bool:
        if job.name == "sleep":
            await asyncio.sleep(0.01)
        os.write(ticks, b".")
        return True

    await Worker(QUEUE, process, url=URL, concurrency=concurrency).run()


async def add_each(queue: Queue[object], n: int) -> None:
    """One add after the other."""
    for _ in range(n):
        await queue.add("noop", PAYLOAD)


async def add_concurrently(queue: Queue[object], n: int) -> None:
    """A hundred callers, each adding one job after the other."""
    await asyncio.gather(*(add_each(queue, n // CALLERS) for _ in range(CALLERS)))


async def add_bulk(queue: Queue[object], n: int, name: str) -> None:
    """Chunks of a thousand, as BullMQ's driver does."""
    for first in range(0, n, CHUNK):
        await queue.add_bulk([NewJob(name, PAYLOAD) for _ in range(min(CHUNK, n - first))])


async def produce(add: Callable[[Queue[object], int], Awaitable[None]], n: int, warm: int) -> None:
    """Add `warm` jobs to a queue of their own, then time `n`."""
    async with Queue[object]("warm", url=URL) as warming, Queue[object](QUEUE, url=URL) as queue:
        await queue.count()
        await add(warming, warm)
        await timed(lambda: add(queue, n), n)


def main() -> None:
    """Do what the command line says."""
    command, n, *rest = sys.argv[1:]
    if command == "work":
        return run(work(int(n)))
    adders: dict[str, Callable[[Queue[object], int], Awaitable[None]]] = {
        "add": add_each,
        "add-concurrent": add_concurrently,
        "bulk": lambda queue, count: add_bulk(queue, count, rest[1]),
    }
    run(produce(adders[command], int(n), int(rest[0])))


if __name__ == "__main__":
    main()
