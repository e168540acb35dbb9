"""Right use of eventq: type checkers have nothing to say about it. Never run."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, assert_type

import msgspec
import pydantic

from eventq import (
    Backoff,
    Job,
    JobOptions,
    JobQueue,
    JobState,
    Keep,
    NewJob,
    Queue,
    QueueScheduler,
    Retry,
    SigningKeys,
    SyncQueue,
    Unrecoverable,
    Worker,
)
from eventq.events import CompletedEvent, Event, FailedEvent, ProgressEvent


@dataclass
class Email:
    """A dataclass is checked on the way in and out."""

    to: str
    subject: str = ""


class Invoice(TypedDict):
    """So is a TypedDict."""

    number: int
    total: float


class Picture(pydantic.BaseModel):
    """And a pydantic model."""

    path: str


class Report(msgspec.Struct):
    """And a msgspec struct."""

    year: int


emails = Queue("emails", Email)
invoices = Queue("invoices", Invoice, url="redis://localhost:6379")
pictures = Queue("pictures", Picture, default_options=JobOptions(attempts=3, backoff=2.0))
reports = Queue("reports", Report, result_type=str)
numbers = Queue("numbers", list[int], result_type=int)
signed = Queue("signed", Email, signing_keys={"2026-11": b"..."})
signed_too = SyncQueue("signed", Email, result_type=str, signing_keys=SigningKeys.from_file("keys"))
worker_with_keys = Worker("signed", print, signing_keys=SigningKeys({"2026-11": b"..."}))
anything = Queue("anything")


async def add_jobs() -> None:
    """Data of the queue's type, options in seconds or timedelta."""
    job = await emails.add("welcome", Email("a@b.c", "Hi"))
    assert_type(job.data, Email)
    assert_type(job.id, str)
    assert_type(await job.get_state(), JobState)
    await emails.add("welcome", Email("a@b.c"), delay=5, attempts=3, backoff=Backoff.exponential(1.0, jitter=0.5))
    await emails.add("welcome", Email("a@b.c"), delay=timedelta(minutes=1), priority=2, lifo=True, job_id="mine")
    await emails.add("welcome", Email("a@b.c"), at=datetime(2030, 1, 1, tzinfo=UTC), timeout=30.5)
    await emails.add("welcome", Email("a@b.c"), remove_on_complete=Keep(count=1000, age=3600), remove_on_fail=False)
    await invoices.add("bill", {"number": 1, "total": 9.5})
    await pictures.add("shrink", Picture(path="a.png"))
    await reports.add("yearly", Report(2026))
    await numbers.add("sum", [1, 2, 3])
    await anything.add("ping")
    await anything.add("ping", {"any": ["JSON", 1, None, True]})


async def add_in_bulk() -> None:
    """The same for many at once."""
    jobs = await emails.add_bulk([NewJob("welcome", Email("a@b.c"), JobOptions(delay=1.5)), NewJob("bye", Email("d@e.f"))])
    assert_type(jobs[0].data, Email)
    await invoices.add_bulk([NewJob("bill", Invoice(number=n, total=1.0)) for n in range(1000)])


async def read() -> None:
    """States are words or JobState; a job knows the type of its data and of its result."""
    found = await emails.get_job("mine")
    if found is not None:
        assert_type(found.data, Email)
    listed = await reports.get_jobs(["waiting", JobState.ACTIVE], start=0, limit=10, ascending=True)
    assert_type(listed[0].data, Report)
    assert_type(await listed[0].result(timeout=5), str)
    assert_type(await emails.count(), int)
    counts: Mapping[JobState, int] = await emails.get_job_counts()
    assert_type(counts[JobState.WAITING], int)
    assert_type(await emails.is_paused(), bool)
    data: Any = (await anything.add("ping")).data
    print(data["any"])


async def send(job: Job[Email]) -> str:
    """An async processor."""
    await job.update_progress(42)
    job.update_progress({"sent": 1})
    if job.attempt > job.max_attempts - 1:
        raise Unrecoverable("no such address")
    if not job.data.to:
        raise Retry("later", delay=5)
    return f"sent to {job.data.to}"


def add_up(job: Job[list[int], int]) -> int:
    """A plain function runs in a thread."""
    return sum(job.data)


async def report(job: Job[Report, str]) -> str:
    """A processor of a queue that knows its result type."""
    return str(job.data.year)


async def ping(job: Job) -> None:
    """A job of any JSON."""
    print(job.data, job.added_at, job.progress, job.fence)


async def work() -> None:
    """A queue or a name, one processor or several by job name."""
    worker = Worker(emails, send, concurrency=100, lease=15.0, max_stalls=2, grace=timedelta(seconds=25), name="w1")
    plain = Worker(numbers, add_up)
    several = Worker(reports, {"yearly": report, "monthly": report}, burst=True, max_jobs=10)
    by_name = Worker("anything", ping, url="unix:///run/redis.sock")

    @worker.on("completed")
    async def done(event: CompletedEvent) -> None:
        print(event.job_id, event.name, event.ran, event.waited, event.result)

    @worker.on("failed")
    def failed(event: FailedEvent) -> None:
        print(event.queue, event.seq, event.time, event.attempt, event.exhausted)

    def anything_else(event: Event) -> None:
        print(event.kind)

    worker.on("drained", anything_else)
    async with worker, plain, several:
        worker.concurrency = 10
        await worker.pause()
        worker.resume()
    await by_name.run()
    await worker.close(grace=1.5)
    async with QueueScheduler(emails):
        pass
    await QueueScheduler("emails", url="embedded://").run()


async def listen() -> None:
    """Everybody's events, by listeners or as they come."""

    @emails.on("progress")
    def moved(event: ProgressEvent) -> None:
        print(event.progress)

    async for event in emails.events(consumer="billing"):
        if isinstance(event, CompletedEvent):
            print(event.result)


async def all_in_one() -> None:
    """Queue, worker and scheduler in one object."""
    jobs = JobQueue("emails", Email, send)
    job = await jobs.add_job("welcome", Email("a@b.c"), delay=1)
    assert_type(job.data, Email)
    print(await jobs.get_job_status(job.id), await jobs.get_all_jobs())

    @jobs.on("completed")
    async def done(event: CompletedEvent) -> None:
        print(event.job_id)

    await jobs.close()
    async with JobQueue("emails", Email, send) as again:
        await again.add_job("welcome", Email("a@b.c"))


def without_a_loop() -> None:
    """The same calls without `await`."""
    with SyncQueue("emails", Email, result_type=str, url="redis://localhost:6379") as queue:
        job = queue.add("welcome", Email("a@b.c"), delay=5, priority=1)
        assert_type(job.data, Email)
        assert_type(job.result(timeout=timedelta(seconds=5).total_seconds()), str)
        job.change_priority(2, lifo=True)
        job.update_data(Email("d@e.f"))
        assert_type(queue.add_bulk([NewJob("bye", Email("d@e.f"))])[0].get_state(), JobState)
        assert_type(queue.get_jobs("waiting")[0].data, Email)
        assert_type(queue.clean(timedelta(days=1), 100, JobState.FAILED), list[str])
        assert_type(queue.upsert_schedule("daily", cron="0 8 * * *", data=Email("a@b.c")).data, Email)
    anything: SyncQueue = SyncQueue("anything")
    anything.add("ping", {"any": ["JSON", 1]}).log("added")
