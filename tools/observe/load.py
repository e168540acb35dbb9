"""A load to look at: four queues with delays, priorities, retries, a schedule, bursts, and failures that come and go.

`python -m tools.observe.load producer` adds the jobs, `python -m tools.observe.load worker` runs them; both until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from opentelemetry import trace

from eventq import Backoff, BulkAddError, JobOptions, NewJob, Queue, QueueUnavailable, Worker
from eventq.cli.runtime import exit_codes, run_async, until_stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from eventq import Job

__all__ = ["KINDS", "SLOTS", "Kind", "Task", "main"]

#: Jobs that each worker runs at once, by queue.
SLOTS: Final = {"emails": 4, "images": 2, "payments": 4, "reports": 2}
#: Jobs kept after their end.
KEPT: Final = JobOptions(remove_on_complete=200, remove_on_fail=200)
#: Seconds between two words on progress.
STEP: Final = 0.5
#: While there is trouble, every so-manieth payment fails. There is trouble for a third of the time.
TROUBLED: Final = 2
TROUBLE_SHARE: Final = 3


class CardDeclined(Exception):
    """What no second attempt mends."""


_ERRORS: Final = {error.__name__: error for error in (CardDeclined, ConnectionError, MemoryError, TimeoutError)}


@dataclass(frozen=True, slots=True)
class Task:
    """A job's data: how long it takes, how many of its attempts fail, and with which error."""

    seconds: float
    fails: int = 0
    error: str = ConnectionError.__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Jobs of one name: `burst` of them every so many seconds. each: every so-manieth fails as its task says, the first
    one too; 0 for none.
    """

    queue: str
    name: str
    every: float
    task: Task
    options: JobOptions = KEPT
    burst: int = 1
    each: int = 0

    def number(self, number: int, *, is_troubled: bool = False) -> Task:
        """Return the task of the job that is added as that one of its kind, counted from 1."""
        each = TROUBLED if is_troubled else self.each
        return self.task if each and number % each == 1 % each else replace(self.task, fails=0)


_RETRIED: Final = replace(KEPT, attempts=3, backoff=Backoff.exponential(0.2, jitter=0.5))
#: What comes and goes with the trouble.
_CHARGE: Final = Kind(queue="payments", name="charge", every=0.25, task=Task(0.05, 1, CardDeclined.__name__))
KINDS: Final = (
    Kind(queue="emails", name="welcome", every=0.2, task=Task(0.02)),
    Kind(queue="emails", name="digest", every=0.5, task=Task(0.1, 1), options=_RETRIED, each=5),
    Kind(queue="emails", name="newsletter", every=20, task=Task(0.2), options=replace(KEPT, priority=10), burst=40),
    Kind(queue="images", name="thumbnail", every=0.4, task=Task(0.2, 1, TimeoutError.__name__), options=_RETRIED, each=10),
    Kind(queue="images", name="transcode", every=2, task=Task(1.5, 3, MemoryError.__name__), options=_RETRIED, each=50),
    Kind(queue="reports", name="invoice", every=1, task=Task(0.1), options=replace(KEPT, delay=2.0)),
    _CHARGE,
)


async def produce(url: str | None, trouble: float) -> None:
    """Add jobs until cancelled. trouble: seconds of every three of it in which payments fail, beginning now; 0 for never."""
    async with contextlib.AsyncExitStack() as stack:
        queues = {name: await stack.enter_async_context(Queue(name, Task, url=url, default_options=KEPT)) for name in SLOTS}
        await queues["reports"].upsert_schedule("summary", every=3, data=Task(0.3))
        began = time.monotonic()

        def is_troubled() -> bool:
            return trouble > 0 and (time.monotonic() - began) % (TROUBLE_SHARE * trouble) < trouble

        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                group.create_task(_add(queues[kind.queue], kind, is_troubled if kind is _CHARGE else bool))
            group.create_task(_add_twice(queues["emails"]))


async def _add(queue: Queue[Task, None], kind: Kind, is_troubled: Callable[[], bool]) -> None:
    for number in itertools.count(1):
        await _insist(queue, [NewJob(kind.name, kind.number(number, is_troubled=is_troubled()), kind.options)] * kind.burst)
        await asyncio.sleep(kind.every)


async def _add_twice(queue: Queue[Task, None]) -> None:
    """Add jobs with ids of their own, each of them again before it is gone."""
    start = time.time_ns()
    for number in itertools.count():
        await _insist(queue, [NewJob("receipt", Task(0.05), replace(KEPT, job_id=f"receipt-{start + number // 2}"))])
        await asyncio.sleep(1)


async def _insist(queue: Queue[Task, None], jobs: list[NewJob[Task]]) -> None:
    """Go on where Redis is away for a while: that is something to look at too."""
    while True:
        try:
            with trace.get_tracer("shop").start_as_current_span(f"order {jobs[0].name}"):
                await queue.add_bulk(jobs)
        except (QueueUnavailable, BulkAddError) as error:
            print(f"load: {error}", flush=True)
        else:
            return


@contextlib.contextmanager
def traced() -> Generator[None]:
    """Send spans of what a program does itself, where OTEL_EXPORTER_OTLP_ENDPOINT says who takes them."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        yield
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=2), schedule_delay_millis=1000))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


async def work(url: str | None) -> None:
    """Run jobs until cancelled."""
    async with contextlib.AsyncExitStack() as stack:
        for name, slots in SLOTS.items():
            queue = await stack.enter_async_context(Queue(name, Task, url=url))
            await stack.enter_async_context(Worker(queue, process, concurrency=slots, grace=2))
        await asyncio.Event().wait()


async def process(job: Job[Task, None]) -> None:
    """Take the time the task says, telling progress where it is long, and fail where it says so."""
    steps = max(1, round(job.data.seconds / STEP))
    for step in range(steps):
        await asyncio.sleep(job.data.seconds / steps)
        if steps > 1:
            await job.update_progress(100 * (step + 1) // steps)
    if job.attempt <= job.data.fails:
        raise _ERRORS[job.data.error](f"attempt {job.attempt} of {job.name}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the part that the command line names until it is told to stop."""
    parser = argparse.ArgumentParser(prog="load", description="A load to look at.")
    parser.add_argument("part", choices=("producer", "worker"), help="add jobs, or run them")
    parser.add_argument("--url", help="the server; default: EVENTQ_URL")
    parser.add_argument(
        "--trouble",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help=f"payments fail for so long, and then not for {TROUBLE_SHARE - 1} times as long; 0 for never (60)",
    )
    options = parser.parse_args(arguments)
    part = produce(options.url, options.trouble) if options.part == "producer" else work(options.url)
    with exit_codes(), traced():
        run_async(lambda: until_stopped(part))


if __name__ == "__main__":
    main()
