"""A producer process: adds jobs in random groups, one by one, together or in bulk, and writes down what was acknowledged.

Arguments: queue, url, directory of the ledger, options as JSON: count, seed, seconds (over which adding is spread), longest
(seconds of the longest jobs, of which every fifth is one), delay (seconds at most by which every third is delayed; 0: none).
Prints `done` at the end.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from eventq import JobOptions, NewJob, Queue
from tests.chaos.ledger import Ledger


class Producer:
    """Adds to one queue under ids of its own, so that what was offered and never acknowledged is known too."""

    def __init__(self, queue: Queue[Any, Any], ledger: Ledger, chance: random.Random, longest: float, delay: float) -> None:
        self._queue = queue
        self._ledger = ledger
        self._chance = chance
        self._longest = longest
        self._delay = delay
        self.added = 0

    async def add(self, count: int) -> None:
        """Add one group, all together or each by itself."""
        jobs = [self._job() for _ in range(count)]
        if self._chance.random() < 0.5:
            added = await self._queue.add_bulk([NewJob("sleep", seconds, options) for seconds, options in jobs])
            self._ledger.acknowledged(*(job.id for job in added))
        else:
            await asyncio.gather(*(self._add_one(seconds, options) for seconds, options in jobs))
        self.added += count

    def _job(self) -> tuple[float, JobOptions]:
        is_long = self._chance.random() < 0.2
        seconds = self._chance.uniform(0.1, 1) * self._longest if is_long else self._chance.uniform(0, 0.01)
        job_id = f"job-{self._chance.randbytes(8).hex()}"
        self._ledger.offered(job_id)
        options = JobOptions(job_id=job_id, priority=self._chance.choice([0, 0, 0, 1, 2]))
        if self._delay and self._chance.random() < 1 / 3:
            options = replace(options, delay=self._chance.uniform(0, self._delay))
        return seconds, options

    async def _add_one(self, seconds: float, options: JobOptions) -> None:
        job = await self._queue.add("sleep", seconds, job_id=options.job_id, priority=options.priority, delay=options.delay)
        self._ledger.acknowledged(job.id)


async def main() -> None:
    queue_name, url, directory, text = sys.argv[1:]
    options = json.loads(text)
    chance = random.Random(options["seed"])
    async with Queue(queue_name, url=url) as queue:
        producer = Producer(queue, Ledger(Path(directory)), chance, options["longest"], options.get("delay", 0))
        while (left := options["count"] - producer.added) > 0:
            count = min(left, chance.randint(1, 40))
            await producer.add(count)
            await asyncio.sleep(count * options["seconds"] / options["count"])  # sleep-ok: jobs come over time
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
