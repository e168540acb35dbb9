"""The demo from start to end: list, add, work, watch, check, sum up."""

from __future__ import annotations

import asyncio
import logging
import os
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from eventq.backoff import Backoff
from eventq.cli.demo.check import Answer, check_folder
from eventq.cli.demo.files import LEFT_OUT, FileFacts, FileJob, counting, list_files, shown_name
from eventq.cli.demo.summary import sum_up
from eventq.cli.demo.tally import Failure, Tally
from eventq.cli.demo.view import View, choose_view
from eventq.cli.runtime import INTERRUPTED, UsageError, run_async, until_stopped
from eventq.cli.text import number
from eventq.ids import random_text
from eventq.options import JobOptions
from eventq.queue import NewJob, Queue
from eventq.states import JobState
from eventq.worker import Worker

if TYPE_CHECKING:
    from eventq.events import ErrorEvent
    from eventq.queue_events import EventStream

#: Threads that read files: a few more than disks and processors can keep busy.
CONCURRENCY: Final = 8
#: What every job of the demo is called.
JOB_NAME: Final = "count"
ATTEMPTS: Final = 3
BACKOFF: Final = Backoff.exponential(0.25, jitter=0.5)
#: Jobs per bulk add, so that work begins while the rest is added.
ADD_AT_ONCE: Final = 1000
DRAW_EVERY: Final = 0.1
#: Seconds that jobs get when the demo is interrupted.
GRACE: Final = 1.0


@dataclass(slots=True)
class Demo:
    """One run: where, what, and what is known so far."""

    folder: str
    left_out: frozenset[str]
    files: list[str]
    url: str
    queue_name: str
    began_ns: int
    tally: Tally
    #: By job id.
    file_of: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def title(self) -> str:
        """What is done where."""
        return f"{number(len(self.files))} files of {self.folder}, queue {self.queue_name}"

    def name_of(self, job_id: str) -> str:
        """Return the file of a job as text."""
        return shown_name(self.file_of.get(job_id, job_id))

    def answers(self) -> dict[str, Answer]:
        """Return by file what its job came to, as the events told it; None for a job without an outcome."""
        found: dict[str, Answer] = dict.fromkeys(self.files)
        for job_id, outcome in self.tally.outcomes.items():
            if job_id in self.file_of:
                found[self.file_of[job_id]] = _answer(outcome)
        return found


def run_demo(folder: Path | None, url: str | None, *, uvloop: bool | None = None) -> int:
    """Run the demo and return the exit code: 0 when everything is as the folder says, 1 when not. Raises UsageError."""
    demo = _prepare(folder, url)
    _silence_logging()
    if run_async(lambda: until_stopped(_run(demo)), uvloop=uvloop) is None:
        print("interrupted", flush=True)
        return INTERRUPTED
    print("checking against the folder ...", flush=True)
    check = check_folder(demo.folder, demo.answers(), began_ns=demo.began_ns, left_out=demo.left_out)
    return sum_up(demo.tally, check, kept_queue=demo.queue_name if url else "")


def _prepare(folder: Path | None, url: str | None) -> Demo:
    left_out = LEFT_OUT if folder is None else frozenset[str]()
    where = os.path.abspath(folder or sysconfig.get_path("stdlib"))
    if not os.path.isdir(where):
        what = "is not a folder" if os.path.exists(where) else "does not exist"
        raise UsageError(f"FOLDER {where!r} {what}; name one with files in it, or none for Python's standard library")
    began_ns = time.time_ns()
    files = list_files(where, left_out)
    if not files:
        raise UsageError(f"FOLDER {where!r} has no files that can be listed; name one with files in it")
    return Demo(where, left_out, files, url or "embedded://", f"demo-{random_text(8)}", began_ns, Tally(len(files)))


def _silence_logging() -> None:
    """Keep the library's warnings off the picture; the worker's errors are shown in it."""
    logger = logging.getLogger("eventq")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False


async def _run(demo: Demo) -> bool:
    options = JobOptions(attempts=ATTEMPTS, backoff=BACKOFF)
    queue = Queue(demo.queue_name, FileJob, result_type=FileFacts, url=demo.url, default_options=options)
    worker = Worker(queue, counting(demo.folder), concurrency=CONCURRENCY, grace=GRACE)

    @worker.on("error")
    async def note(event: ErrorEvent) -> None:  # pyright: ignore[reportUnusedFunction]
        demo.tally.trouble = event.message

    with choose_view(demo.title, demo.name_of) as view:
        async with queue, queue.events() as events, worker:
            await _watch(demo, queue, events, view)
        view.draw(demo.tally)
    return True


async def _watch(demo: Demo, queue: Queue[FileJob, FileFacts], events: EventStream, view: View) -> None:
    """Add the jobs and count events until every job has its outcome."""
    adding = asyncio.create_task(_add(demo, queue))
    reading = asyncio.create_task(_read(demo.tally, events))
    drawing = asyncio.create_task(_draw(demo.tally, view))
    giving_up = asyncio.create_task(_end_after_loss(demo.tally, queue, adding))
    tasks = (adding, reading, drawing, giving_up)
    try:
        await _first_of(reading, giving_up, unless=(adding, drawing))
        await adding
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _first_of(*ends: asyncio.Task[None], unless: tuple[asyncio.Task[None], ...]) -> None:
    """Return when one of the ends is reached; raise what one of these or the others raises."""
    waiting = {*ends, *unless}
    while not any(task.done() for task in ends):
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def _add(demo: Demo, queue: Queue[FileJob, FileFacts]) -> None:
    for start in range(0, len(demo.files), ADD_AT_ONCE):
        some = demo.files[start : start + ADD_AT_ONCE]
        jobs = await queue.add_bulk(NewJob(JOB_NAME, FileJob(file)) for file in some)
        demo.file_of.update((job.id, job.data.file) for job in jobs)


async def _read(tally: Tally, events: EventStream) -> None:
    async for event in events:
        tally.take(event)
        if tally.is_done:
            return


async def _draw(tally: Tally, view: View) -> None:
    while True:
        view.draw(tally)
        await asyncio.sleep(DRAW_EVERY)


async def _end_after_loss(tally: Tally, queue: Queue[Any, Any], adding: asyncio.Task[None]) -> None:
    """Return when events were lost and no job is left: their outcomes will never be seen. The check then names them."""
    while True:
        await asyncio.sleep(1.0)
        if tally.gaps and adding.done():
            counts = await queue.get_job_counts()
            if not counts[JobState.ACTIVE] + await queue.count():
                return


def _answer(outcome: Any) -> Answer:
    if isinstance(outcome, Failure):
        return outcome
    try:
        return msgspec.convert(outcome, FileFacts)
    except msgspec.ValidationError as error:
        return Failure("unreadable result", str(error), 0)
