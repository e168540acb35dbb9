"""Wrong use of eventq: type checkers object to each line that ends in `# error`, and to no other. Never run."""

from dataclasses import dataclass
from typing import TypedDict

from eventq import Backoff, Job, JobOptions, JobQueue, Keep, NewJob, Queue, SyncQueue, Worker
from eventq.events import CompletedEvent, DrainedEvent


@dataclass
class Email:
    """What the queue `emails` carries."""

    to: str


@dataclass
class Letter:
    """What it does not carry."""

    street: str


class Invoice(TypedDict):
    """What the queue `invoices` carries."""

    number: int


emails = Queue("emails", Email, result_type=str)
Queue("emails", Email, signing_keys={"2026-11": "text"})  # error
invoices = Queue("invoices", Invoice)


async def add_jobs() -> None:
    """Data of another type, options that do not exist or of a wrong type."""
    await emails.add("welcome", Letter("High Street"))  # error
    await emails.add("welcome", "a@b.c")  # error
    await emails.add("welcome", {"to": "a@b.c"})  # error
    await emails.add(1, Email("a@b.c"))  # error
    await invoices.add("bill", {"number": "one"})  # error
    await invoices.add("bill", {"numbr": 1})  # error
    await emails.add("welcome", Email("a@b.c"), delay="soon")  # error
    await emails.add("welcome", Email("a@b.c"), attempts="3")  # error
    await emails.add("welcome", Email("a@b.c"), backoff="exponential")  # error
    await emails.add("welcome", Email("a@b.c"), remove_on_complete="all")  # error
    await emails.add("welcome", Email("a@b.c"), at=5)  # error
    await emails.add("welcome", Email("a@b.c"), prio=1)  # error
    await emails.add("welcome", Email("a@b.c"), 5)  # error
    emails.add("welcome", Email("a@b.c"))  # error
    Queue(5, Email)  # error
    JobOptions(delay="soon")  # error
    Keep(number=5)  # error
    Backoff.exponential("1s")  # error


async def add_in_bulk() -> None:
    """One job of the wrong type among many."""
    await emails.add_bulk([NewJob("welcome", Letter("High Street"))])  # error
    await emails.add_bulk([Email("a@b.c")])  # error


async def read() -> None:
    """The data and the result are of the queue's types."""
    job = await emails.add("welcome", Email("a@b.c"))
    street: str = job.data.street  # error
    number: int = await job.result()  # error
    found = await emails.get_job("mine")
    print(found.id, street, number)  # error
    await emails.get_jobs(5)  # error


async def send(job: Job[Email, str]) -> str:
    """A right processor."""
    await job.update_progress("half")  # error
    return job.data.to


async def post(job: Job[Letter, str]) -> str:
    """A processor of another type of data."""
    return job.data.street


async def count(job: Job[Email, str]) -> int:
    """A processor with another type of result."""
    return len(job.data.to)


def work() -> None:
    """A processor that does not fit its queue, a listener that does not fit its event."""
    Worker(emails, post)  # error
    Worker(emails, count)  # error
    Worker(emails, {"welcome": send, "letter": post})  # error
    Worker(emails, send, concurrency="many")  # error
    Worker(emails)  # error
    JobQueue("emails", Email, post)  # error
    worker = Worker(emails, send)

    def done(event: CompletedEvent) -> None:
        print(event.job_ids)  # error

    def drained(event: DrainedEvent) -> None:
        print(event.job_id)  # error

    worker.on("completed")(done)
    worker.on("completed")(drained)  # error
    worker.on("completd")  # error
    worker.concurrency = "many"  # error


async def all_in_one(jobs: JobQueue[Email]) -> None:
    """The same through JobQueue."""
    await jobs.add_job("welcome", Letter("High Street"))  # error
    await jobs.get_job_status(5)  # error


def without_a_loop(queue: SyncQueue[Email, str]) -> None:
    """The same without `await`, which there is nothing for."""
    queue.add("welcome", Letter("High Street"))  # error
    queue.add("welcome", Email("a@b.c"), prio=1)  # error
    number: int = queue.add("welcome", Email("a@b.c")).result()  # error
    queue.add_bulk([NewJob("welcome", Letter("High Street"))])  # error
    queue.on("completed")  # error
    print(number)


async def with_a_loop(queue: SyncQueue[Email, str]) -> None:
    """It is not awaited."""
    await queue.add("welcome", Email("a@b.c"))  # error
