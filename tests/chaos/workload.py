"""Work to be done while connections break: producers that add in every way, workers of both sizes, and what must be true after.

What happened is told by the processors themselves and by the event stream, read past the faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random, randrange
from typing import TYPE_CHECKING, Any

from eventq import Job, JobState, NewJob, Queue, Worker
from eventq.events import (
    ActiveEvent,
    AddedEvent,
    CompletedEvent,
    DuplicatedEvent,
    ErrorEvent,
    Event,
    FailedEvent,
    JobEvent,
    RemovedEvent,
    RetryingEvent,
    StalledEvent,
)
from eventq.options import JobOptions

from ..integration.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import redis

#: Slots of the workers: one lane each, then two.
SLOTS = (4, 4, 40, 40)
#: Per job name, what becomes of a completed job. `fails` fails once and is tried again at once.
OPTIONS = {
    "kept": JobOptions(remove_on_complete=False),
    "removed": JobOptions(remove_on_complete=True),
    "fails": JobOptions(remove_on_complete=True, attempts=2),
}


def new_seed() -> int:
    """Return SEED of the environment, or a random one."""
    return int(os.environ.get("SEED") or randrange(2**32))


def tell(text: str) -> None:
    """Print a figure; seen with `-rP`, and when the test fails."""
    print(text)


class Failing(Exception):
    """What the first attempt of some jobs raises."""


@dataclass
class Ways:
    """How many jobs a round adds in each way."""

    single: int = 3
    concurrent: int = 12
    bulk: int = 25


@dataclass
class Workload:
    """A queue, its producers and workers at one URL, and what they did.

    seed: of the names of the jobs. slots: of each worker. lease: of the workers, in seconds.
    """

    name: str
    url: str
    seed: int
    producers: int = 4
    slots: Sequence[int] = SLOTS
    lease: float = 15.0
    ids: dict[str, str] = field(default_factory=dict[str, str])
    runs: Counter[str] = field(default_factory=Counter[str])
    errors: Counter[str] = field(default_factory=Counter[str])
    calls: Counter[str] = field(default_factory=Counter[str])

    async def __aenter__(self) -> Workload:
        self._random = Random(self.seed)
        self._started = 0
        self._news = asyncio.Event()
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            self._queues = [await enter(Queue(self.name, url=self.url)) for _ in range(self.producers)]
            for slots in self.slots:
                worker = Worker(self.name, self.process, url=self.url, concurrency=slots, lease=self.lease)
                worker.on("error")(self._error)
                await enter(worker)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def process(self, job: Job[Any]) -> str:
        """Note the run; take a moment or none."""
        self.runs[job.id] += 1
        self._started += 1
        self._news.set()
        if job.data["pause"]:
            await asyncio.sleep(job.data["pause"])  # sleep-ok: jobs that last differ from those that end at once
        if job.name == "fails" and job.attempt == 1:
            raise Failing
        return job.id

    async def add_while(self, goes_on: Callable[[], bool], ways: Ways) -> None:
        """Let all producers add in every way, round after round."""

        async def produce(queue: Queue[Any, Any]) -> None:
            while goes_on():
                await self._add_round(queue, ways)

        async with asyncio.TaskGroup() as group:
            for queue in self._queues:
                group.create_task(produce(queue))

    async def add_once(self, ways: Ways) -> None:
        """Let all producers add in every way, once."""
        await asyncio.gather(*(self._add_round(queue, ways) for queue in self._queues))

    async def _add_round(self, queue: Queue[Any, Any], ways: Ways) -> None:
        for _ in range(ways.single):
            self._note("single", [await self._add(queue)])
        self._note("concurrent", await asyncio.gather(*(self._add(queue) for _ in range(ways.concurrent))))
        self._note("bulk", await queue.add_bulk([self._new() for _ in range(ways.bulk)]))

    async def _add(self, queue: Queue[Any, Any]) -> Job[Any, Any]:
        new = self._new()
        options = OPTIONS[new.name]
        return await queue.add(new.name, new.data, remove_on_complete=options.remove_on_complete, attempts=options.attempts)

    def _new(self) -> NewJob[Any]:
        name = self._random.choices(list(OPTIONS), (3, 6, 1))[0]
        return NewJob(name, {"pause": self._random.choice((0, 0, 0.002))}, OPTIONS[name])

    async def run_all(self) -> None:
        """Return once there were as many runs as there must be."""
        expected = sum(map(starts, self.ids.values()))
        while self._started < expected:
            self._news.clear()
            await self._news.wait()

    def _note(self, way: str, jobs: Sequence[Job[Any, Any]]) -> None:
        self.ids.update((job.id, job.name) for job in jobs)
        self.calls[way] += len(jobs)

    def _error(self, event: ErrorEvent) -> None:
        self.errors[event.type] += 1


def starts(name: str) -> int:
    """Return how often a job of this name runs."""
    return 2 if name == "fails" else 1


async def finished(recorder: Recorder, workload: Workload, timeout: float) -> None:
    """Wait until as many jobs have completed as were added."""
    with contextlib.suppress(TimeoutError):  # then the recorder says what is missing
        async with asyncio.timeout(timeout):
            await workload.run_all()
    await recorder.wait(CompletedEvent, len(workload.ids))


def check_runs(workload: Workload) -> None:
    """Every job whose add was acknowledged ran as often as it must, and no other job ran."""
    expect(workload, "ids of adds", workload.calls.total(), len(workload.ids))
    expect(workload, "runs", Counter({job_id: starts(name) for job_id, name in workload.ids.items()}), workload.runs)
    expect(workload, "lost leases", 0, workload.errors["LeaseLost"])


def check_events(workload: Workload, events: Sequence[Event]) -> None:
    """The stream tells the same: each job added, completed and, where it says so, removed once; nobody lost a lease."""
    fails = [job_id for job_id, name in workload.ids.items() if name == "fails"]
    gone = [job_id for job_id, name in workload.ids.items() if name != "kept"]
    removed = [job_id for event in events if isinstance(event, RemovedEvent) for job_id in event.job_ids]
    expect(workload, "added", Counter(list(workload.ids)), per_job(events, AddedEvent))
    expect(workload, "completed", Counter(list(workload.ids)), per_job(events, CompletedEvent))
    expect(workload, "active", workload.runs, per_job(events, ActiveEvent))
    expect(workload, "retrying", Counter(fails), per_job(events, RetryingEvent))
    expect(workload, "removed", Counter(gone), Counter(removed))
    trouble = [event for event in events if isinstance(event, StalledEvent | FailedEvent | DuplicatedEvent)]
    expect(workload, "stalled, failed or duplicated", [], trouble[:3])
    seqs = [event.seq for event in events]
    expect(workload, "seq", seqs[0] + len(seqs) - 1, seqs[-1])


async def check_stored(workload: Workload, queue: Queue[Any, Any], client: redis.Redis) -> None:
    """What is stored at the end is exactly the kept jobs, all completed, and nothing of the others."""
    kept = {job_id.encode() for job_id, name in workload.ids.items() if name == "kept"}
    keys = queue.context.keys
    stored: Any = client.hkeys(keys["jobs"])
    completed: Any = client.zrange(keys["completed"], 0, -1)
    expect(workload, "stored", Counter(kept), Counter(stored))
    expect(workload, "stored as completed", Counter(kept), Counter(completed))
    counts = await queue.get_job_counts()
    expect(workload, "counts", {JobState.COMPLETED: len(kept)}, {state: number for state, number in counts.items() if number})
    for column in ("runs", "results", "data", "progress"):
        named: Any = client.hkeys(keys[column])
        expect(workload, f"{column} of jobs that are gone", set[bytes](), set(named) - kept)


def expect(workload: Workload, what: str, expected: object, actual: object) -> None:
    """Compare; where jobs are counted, say which are missing or too many."""
    difference = f"expected {expected!s:.200}, it is {actual!s:.200}"
    if isinstance(expected, Counter) and isinstance(actual, Counter):
        difference = f"missing {expected - actual!s:.200}, too many {actual - expected!s:.200}"
    assert expected == actual, f"SEED={workload.seed}: {what}: {difference}"


def per_job(events: Sequence[Event], cls: type[JobEvent]) -> Counter[str]:
    """Count events of one class by job."""
    return Counter([event.job_id for event in events if isinstance(event, cls)])


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been."""
        return time.monotonic() - self._began
