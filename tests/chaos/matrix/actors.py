"""What the processes of a scene do: add, work, fire schedules, read, export, trace. Each writes into the ledger what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from eventq import Backoff, Durability, Job, JobOptions, NewJob, Queue, QueueScheduler, Worker
from eventq.errors import BulkAddError, QueueUnavailable, ServerRefused, Unconfirmed
from eventq_opentelemetry import StreamTracer, names
from eventq_opentelemetry.environment import span_exporter
from eventq_prometheus import PrometheusExporter
from eventq_prometheus.serving import bind, parse_listen, serve
from eventq_prometheus.web_config import WebConfig

from ..ledger import Ledger
from ..programs.worker import abort, block, crash, hold_gil, leave, thread
from .stale import Forger

Run = Job[Any, Any]
#: Seconds a name of a reader is held, so that a successor goes on at once.
HOLD: Final = 0.5


@dataclass(frozen=True)
class Post:
    """Where a process works and what it has to do. seed: no two have the same. directory: of the ledger."""

    program: str
    name: str
    queue: str
    url: str
    directory: str
    seed: int
    options: dict[str, Any]


def say(line: str) -> None:
    """Tell the scene something: one line, written at once."""
    os.write(1, f"{os.getpid()} {line}\n".encode())


# --- producers --------------------------------------------------------------------------------------------------------

#: What jobs are called, how often, and how they are added. What becomes of each the worker knows.
MIX: Final = {"quick": 70, "slow": 12, "again": 8, "doomed": 4, "later": 6}
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "again": {"attempts": 3, "backoff": Backoff.fixed(0.05)},
    "doomed": {"attempts": 2, "backoff": Backoff.fixed(0.05)},
}


class Producer:
    """Adds jobs of all kinds under ids of its own, in every way, and patiently: whatever refuses is asked again."""

    def __init__(self, post: Post, queue: Queue[Any, Any]) -> None:
        self._queue = queue
        self._ledger = Ledger(Path(post.directory))
        self._chance = random.Random(post.seed)
        self._post = post
        self.added = 0

    async def add(self, count: int) -> None:
        """Add one group, all together or each by itself."""
        jobs = [self._job() for _ in range(count)]
        self._ledger.offered(*(options.job_id or "" for _, options in jobs))
        if self._chance.random() < 0.5:
            await self._patiently(lambda: self._bulk(jobs))
        else:
            await asyncio.gather(*(self._patiently(partial(self._one, *job)) for job in jobs))
        self.added += count

    async def _bulk(self, jobs: Sequence[tuple[str, JobOptions]]) -> None:
        added = await self._queue.add_bulk([NewJob(name, self._data(name), options) for name, options in jobs])
        self._ledger.acknowledged(*(job.id for job in added))

    async def _one(self, name: str, options: JobOptions) -> None:
        adding = asyncio.ensure_future(self._queue.add(name, self._data(name), **told(options)))
        if self._chance.random() < self._post.options.get("cancels", 0):
            await asyncio.sleep(self._chance.uniform(0, 0.002))  # sleep-ok: a caller gives up at any moment
            adding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            self._ledger.acknowledged((await adding).id)

    async def _patiently(self, add: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await add()
            except (QueueUnavailable, ServerRefused, Unconfirmed, BulkAddError) as error:
                say(f"refused {type(error).__name__}")
                await asyncio.sleep(0.1)  # sleep-ok: it asks again a little later

    def _job(self) -> tuple[str, JobOptions]:
        mix: dict[str, int] = self._post.options.get("mix", MIX)
        (name,) = self._chance.choices(list(mix), list(mix.values()))
        delay = self._chance.uniform(0.1, 1.0) if name == "later" else 0
        job_id = f"job-{self._chance.randbytes(8).hex()}"
        priority = self._chance.choice([0, 0, 0, 1, 2])
        return name, JobOptions(job_id=job_id, delay=delay, priority=priority, **OPTIONS.get(name, {}))

    def _data(self, name: str) -> Any:
        least, most = self._post.options.get("seconds_of", {}).get(name, (0, 0.01) if name != "slow" else (0.05, 0.4))
        return self._chance.uniform(least, most)


def told(options: JobOptions) -> dict[str, Any]:
    """Return the options as `add` takes them."""
    names_of_options = ("job_id", "delay", "priority", "attempts", "backoff")
    return {name: value for name in names_of_options if (value := getattr(options, name)) is not None}


async def produce(post: Post) -> None:
    """Add `count` jobs spread over `seconds`; say `done`. Options: count, seconds, group (jobs at once, at most), mix."""
    count, seconds, group = post.options["count"], post.options["seconds"], post.options.get("group", 12)
    chance = random.Random(post.seed)
    async with Queue(post.queue, url=post.url, durability=Durability(post.options["durability"])) as queue:
        producer = Producer(post, queue)
        say("ready")
        while (left := count - producer.added) > 0:
            size = min(left, chance.randint(1, group))
            await producer.add(size)
            if producer.added == size:
                say("added")
            await asyncio.sleep(size * seconds / count)  # sleep-ok: jobs come over time
    say("done")


# --- workers ----------------------------------------------------------------------------------------------------------


class Wrong(Exception):
    """What jobs that are meant to fail raise."""


async def plain(job: Run) -> str:
    """Take as long as the data says."""
    await asyncio.sleep(job.data)  # sleep-ok: the work itself
    return job.id


async def again(job: Run) -> str:
    """Fail the first time."""
    await asyncio.sleep(job.data)  # sleep-ok: the work itself
    if job.attempt == 1:
        raise Wrong("as agreed")
    await job.update_progress(50)
    return job.id


async def doomed(_: Run) -> None:
    """Fail every time."""
    raise Wrong("as agreed")


async def die_first(job: Run) -> None:
    """Take the worker along when run for the first time."""
    if job.run.stalls == 0:
        os.kill(os.getpid(), signal.SIGKILL)


async def allocate(_: Run) -> int:
    """Want more memory than there is."""
    return len(bytearray(2**40))


#: By the name of the job.
PROCESSORS: Final[dict[str, Callable[[Run], Awaitable[Any]]]] = {
    **dict.fromkeys(("quick", "slow", "later", "tick", "die_after"), plain),
    "again": again,
    "doomed": doomed,
    "die_first": die_first,
    "allocate": allocate,
    "block": block,
    "hold_gil": hold_gil,
    "leave": leave,
    "abort": abort,
    "crash": crash,
}


async def work(post: Post) -> None:
    """Run jobs until stopped. Options are those of Worker, `forges` (whether spent tokens are offered again), `memory` (bytes)."""
    ledger, options = Ledger(Path(post.directory)), dict(post.options)
    forges, listener = options.pop("forges", True), options.pop("listener", "")
    if memory := options.pop("memory", 0):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    async with Queue(post.queue, url=post.url) as queue:
        forger = Forger(queue, ledger)

        def told_of(name: str, function: Callable[[Run], Awaitable[Any]]) -> Callable[[Run], Awaitable[Any]]:
            async def process(job: Run) -> Any:
                forger.remember(job)
                with ledger.run(job, post.name):
                    result = await function(job)
                if name == "die_after" and job.run.stalls == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return process

        def in_thread(job: Run) -> None:
            with ledger.run(job, post.name):
                thread(job)

        processors: dict[str, Callable[[Run], object]] = {name: told_of(name, each) for name, each in PROCESSORS.items()}
        worker = Worker(queue, {**processors, "thread": in_thread}, name=post.name, **options)
        worker.on("worker_started")(lambda _: say("ready"))
        worker.on("error")(lambda event: say(f"error {event.type}"))
        for kind in ("completed", "failed", "retrying"):
            worker.on(kind)(forger.is_spent)
            if listener:
                worker.on(kind)(LISTENERS[listener])
        forging = asyncio.ensure_future(forger.forge(random.Random(post.seed))) if forges else None
        try:
            await worker.run()
        finally:
            if forging is not None:
                forging.cancel()
                await asyncio.wait([forging])


async def raising(_: Any) -> None:
    """Be a listener that raises."""
    raise Wrong("a listener's own trouble")


async def hanging(_: Any) -> None:
    """Be a listener that never returns."""
    await asyncio.Event().wait()


LISTENERS: Final = {"raising": raising, "hanging": hanging}


async def schedule(post: Post) -> None:
    """Be a scheduler beside those that workers carry."""
    async with QueueScheduler(post.queue, url=post.url, **post.options) as _:
        say("ready")
        await asyncio.Event().wait()


# --- readers ----------------------------------------------------------------------------------------------------------


async def read(post: Post) -> None:
    """Read the queue's events under a name, for ever, and write them down."""
    ledger, consumer = Ledger(Path(post.directory)), post.options["consumer"]
    async with Queue(post.queue, url=post.url) as queue, queue.events(consumer=consumer) as events:
        say("ready")
        async for event in events:
            ledger.seen(consumer, event)


async def export(post: Post) -> None:
    """Be a Prometheus exporter of this server on the port of its options."""
    with contextlib.closing(bind(parse_listen(f"127.0.0.1:{post.options['port']}"))) as sock:
        async with PrometheusExporter(url=post.url, hold=HOLD) as exporter:
            say("ready")
            await serve(exporter, sock, WebConfig())


class FileOfSpans(SpanExporter):
    """Writes of each span of a run whose it is: job, run, outcome. What a write returned for is durable enough for a kill."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append them, in one write."""
        lines: list[str] = []
        for span in spans:
            facts: dict[str, Any] = dict(span.attributes or {})
            if names.JOB_RUN in facts:
                told = [facts[names.MESSAGE_ID], facts[names.JOB_RUN], facts.get(names.JOB_OUTCOME), span.name.split()[0]]
                lines.append(json.dumps([*told, f"{span.context.span_id:x}" if span.context else ""]))
        with self._path.open("ab", buffering=0) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is open."""


async def trace(post: Post) -> None:
    """Be a tracer of this server: into a file, or by OTLP where the options say what OTEL_ variables do."""
    if environment := post.options.get("environment"):
        os.environ.update(environment)
        exporter: SpanExporter = span_exporter()
    else:
        exporter = FileOfSpans(Path(post.options["file"]))
    async with StreamTracer(exporter, url=post.url, hold=HOLD) as tracer:
        say("ready")
        while tracer.failure is None:
            await asyncio.sleep(0.2)  # sleep-ok: it gives no news but when it is asked
        raise tracer.failure


ACTORS: Final[dict[str, Callable[[Post], Coroutine[Any, Any, None]]]] = {
    "producer": produce,
    "worker": work,
    "scheduler": schedule,
    "reader": read,
    "exporter": export,
    "tracer": trace,
}
