"""What each role does in a day, through the public API and the command line, as a user with some permissions and no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import redis

from eventq import Backoff, Job, JobOptions, Keep, NewJob, Queue, QueueScheduler, SyncQueue, Unrecoverable, Worker
from eventq.errors import JobFailed, Unconfirmed
from eventq.permissions import Role
from eventq_prometheus import PrometheusExporter

from .acl_damage import MENDED, plants
from .command_line import CommandLine, Ended

if TYPE_CHECKING:
    from ..servers import TestServer

#: Seconds in which a step that only waits for others has come to its end.
PATIENCE = 10.0
Scenario = Callable[["Stage"], Coroutine[Any, Any, None]]


class Stage:
    """A server with a queue on it, an administrator, the user whose permissions are tested, and helpers who may do everything."""

    def __init__(self, server: TestServer, user: str, name: str) -> None:
        self.server = server
        self.name = name
        self.url = f"redis://{user}:secret@127.0.0.1:{server.port}/0"
        self.free_url = f"redis://127.0.0.1:{server.port}/0"
        self.cli = CommandLine(self.url)
        self.client: Any = redis.Redis(host="127.0.0.1", port=server.port, decode_responses=True)
        self.user = user
        #: What is tried all the same, and may be denied.
        self.unasked: tuple[str, ...] = ()

    def permit(self, *rules: str) -> None:
        """Give the user these rules and no others; forget what was denied."""
        self.client.execute_command("ACL", "SETUSER", self.user, "reset", "on", ">secret", "resetchannels", *rules)
        self.client.execute_command("ACL", "LOG", "RESET")

    def clear(self) -> None:
        """Forget all data and scripts."""
        self.client.flushall()
        self.client.script_flush()

    def denied(self) -> list[str]:
        """Return what the server has refused to the user since."""
        entries = self.client.execute_command("ACL", "LOG")
        return [
            f"{entry['reason']} {entry['object']} ({entry['context']})"
            for entry in entries
            if entry["object"] not in self.unasked
        ]

    def queue(self, name: str = "") -> Queue[Any, Any]:
        """Return the queue as the user has it."""
        return Queue(name or self.name, url=self.url)

    def helped(self) -> Queue[Any, Any]:
        """Return the queue as helpers have it."""
        return Queue(self.name, url=self.free_url)

    def advance(self, seconds: float) -> None:
        """Let time pass for the scripts of the queue."""
        self.client.hincrby(f"eventq:{{{self.name}}}:{self.name}:meta", "clock_offset", round(seconds * 1000))

    async def run(self, *arguments: str, code: int = 0) -> Ended:
        """Run a command as the user."""
        ended = await self.cli(*arguments)
        assert ended.code == code, f"eventq {' '.join(arguments)}: {ended.err}{ended.out}"
        return ended

    async def until(self, condition: Callable[[], Awaitable[object]]) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(PATIENCE):
            while not await condition():
                await asyncio.sleep(0.005)  # sleep-ok: polling


async def process(job: Job[Any, Any]) -> Any:
    """Do what the job's name says, and all that a processor may."""
    if job.name == "fails":
        raise ValueError("as asked")
    if job.name == "ends":
        raise Unrecoverable("as asked")
    if job.name == "busy":
        await job.update_progress(50)
        await job.log("half way")
        await job.update_data({"large": "x" * 2000})
        await job.update_data({"small": 1})
    return job.data


@asynccontextmanager
async def opened(thing: Any) -> AsyncGenerator[Any]:
    """Open it, and close it even if it could not be opened."""
    try:
        async with thing:
            yield thing
    finally:
        await thing.close()


@asynccontextmanager
async def somebody_works(stage: Stage) -> AsyncGenerator[Queue[Any, Any]]:
    """A worker that may do everything."""
    async with stage.helped() as queue, Worker(queue, process, concurrency=4):
        yield queue


async def another_database(stage: Stage) -> None:
    """A URL may name one."""
    other = Queue(stage.name, url=f"{stage.url.removesuffix('/0')}/1")
    try:
        await other.get_job_counts()
    finally:
        await other.close()


async def reads(queue: Queue[Any, Any], job_id: str) -> None:
    """Whatever there is to read of jobs and schedules."""
    await queue.get_job(job_id)
    await queue.get_state(job_id)
    for ascending in (True, False):
        await queue.get_jobs(
            ["waiting", "prioritized", "delayed", "active", "completed", "failed", "paused"], ascending=ascending
        )
    await queue.get_job_counts()
    await queue.get_counts_per_priority([0, 1, 2])
    await queue.get_job_logs(job_id)
    await queue.is_paused()
    await queue.get_schedules()
    await queue.get_schedule("none")


# --- the roles --------------------------------------------------------------------------------------------------------


async def produces(stage: Stage) -> None:
    """Adds jobs of every kind, reads them, waits for results, listens."""
    await another_database(stage)
    async with opened(stage.queue()) as queue:
        await adds(queue)
        async with somebody_works(stage):
            await listens(stage, queue)
        async with stage.helped() as helped:
            await helped.pause()
        await queue.add("waits")
        # A number that somebody damaged, which begins anew.
        stage.client.hset(queue.context.keys["totals"], "added plain", "many")
        await queue.add_bulk([NewJob("plain"), *(NewJob(f"name-{number}") for number in range(101))])
        await reads(queue, "own")
    await confirms(stage)


async def produces_on_disk(stage: Stage) -> None:
    """The same, and asks for what is on disk."""
    await produces(stage)
    stage.client.config_set("appendonly", "yes")
    try:
        async with opened(stage.queue()) as queue:
            await queue.add("plain", 1, durability="fsync")
    finally:
        stage.client.config_set("appendonly", "no")


async def confirms(stage: Stage) -> None:
    """Asks for a replica's copy: the server counts those there are, and there is none."""
    async with opened(Queue(stage.name, url=stage.url, confirm_timeout=0.01)) as queue:
        with contextlib.suppress(Unconfirmed):
            await queue.add("plain", 1, durability="replica")


async def adds(queue: Queue[Any, Any]) -> None:
    """Jobs of every kind, to a queue that is new."""
    await queue.add("plain", 1)
    for _ in range(2):
        await queue.add("own", 1, job_id="own")
    await queue.add("last", 1, lifo=True)
    await queue.add("large", "x" * 5000)
    await queue.add("preferred", 1, priority=1)
    await queue.add("tomorrow", 1, delay=86_400)
    await queue.add("tomorrow", 1, delay=86_400)
    await queue.add("kept", 1, remove_on_complete=Keep(age=3600))


async def listens(stage: Stage, queue: Queue[Any, Any]) -> None:
    """Hears of outcomes: by waiting for one, as a listener, as a reader, and in threads."""
    heard = asyncio.Event()
    queue.on("completed")(lambda event: heard.set())
    async with opened(queue.events()) as events:
        job = await queue.add("plain", 2)
        assert await job.result(PATIENCE) == 2
        await asyncio.wait_for(anext(events), PATIENCE)
        await events.lag()
    await asyncio.wait_for(heard.wait(), PATIENCE)
    await asyncio.to_thread(waits_in_a_thread, stage)


def waits_in_a_thread(stage: Stage) -> None:
    """Adds and waits without a loop."""
    with SyncQueue(stage.name, url=stage.url) as queue:
        assert queue.add("plain", 3).result(PATIENCE) == 3


async def works(stage: Stage) -> None:
    """Runs jobs of every kind, and does a queue's upkeep."""
    await another_database(stage)
    async with opened(stage.queue()) as queue:
        await adds(queue)
        await reads(queue, "own")
        await runs(stage, queue)
        await lists(queue)
        await queue.upsert_schedule("hourly", every=3600, name="plain")
        await queue.remove_schedule("hourly")
        await confirms(stage)
        await keeps_up(stage, queue)


async def runs(stage: Stage, queue: Queue[Any, Any]) -> None:
    """Every outcome, and what a run may say."""

    async def child(job: Job[Any, Any]) -> Any:
        if job.name == "parent":
            added = await queue.add("plain", "child")
            return await added.result(PATIENCE)
        return await process(job)

    async with Worker(queue, child, concurrency=4):
        await queue.add("brief", 1, remove_on_complete=True)
        jobs = [
            await queue.add("busy", 1),
            await queue.add("parent", 1),
            await queue.add("preferred", 1, priority=2),
            await queue.add("soon", 1, delay=0.05),
            await queue.add("fails", 1, attempts=2, backoff=Backoff.fixed(0.01)),
            await queue.add("ends", 1),
        ]
        for job in jobs:
            with contextlib.suppress(JobFailed):
                await job.result(PATIENCE)
        await listens(stage, queue)


async def lists(queue: Queue[Any, Any]) -> None:
    """More jobs than a page of finished ones, with an age of their own and without."""
    await queue.get_jobs(["completed"], ascending=True)
    await queue.get_jobs(["completed"])


async def keeps_up(stage: Stage, queue: Queue[Any, Any]) -> None:
    """Takes back what lost its worker, fires what is due, ends what is too old."""
    begun = asyncio.Event()
    holding = asyncio.Event()

    async def hold(job: Job[Any, Any]) -> None:
        begun.set()
        await holding.wait()

    worker = Worker(queue, hold, grace=0)
    async with worker:
        job = await queue.add("held")
        await asyncio.wait_for(begun.wait(), PATIENCE)
    holding.set()
    assert await job.get_state() == "waiting", "given back"
    await queue.upsert_schedule("often", every=60, name="plain")
    stage.advance(3 * 86_400)
    async with QueueScheduler(queue):

        async def is_upkept() -> bool:
            keys = queue.context.keys
            entries = stage.client.xlen(keys["events"])
            fired = stage.client.hexists(keys["totals"], "added plain")
            return fired and entries < 10 and not stage.client.hexists(keys["jobs"], "own")

        await stage.until(is_upkept)


async def observes(stage: Stage) -> None:
    """Looks at everything, follows events under a name, exports metrics."""
    await another_database(stage)
    async with stage.helped() as helped:
        await adds(helped)
        await helped.upsert_schedule("hourly", every=3600, name="plain")
        async with somebody_works(stage):
            await (await helped.add("busy", 1, job_id="busy")).result(PATIENCE)
            await (await helped.add("plain", 1)).result(PATIENCE)
        async with opened(stage.queue()) as queue:
            await reads(queue, "busy")
            async with opened(queue.events("billing")) as events:
                await asyncio.wait_for(anext(events), PATIENCE)
                await events.lag()
            await exports(stage)
            await looks(stage)
        await adds(helped)
        await plants(stage, helped)
        assert "not stored, but something is left of nobody" in (await stage.run("doctor", stage.name, "--all", code=1)).out
    # What is held of a queue that is not there goes some day.
    missing = stage.queue("missing")
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(missing.close)
        await closing.enter_async_context(opened(missing.events("billing")))


async def exports(stage: Stage) -> None:
    """What `eventq exporter` does, without HTTP."""
    async with opened(PrometheusExporter(url=stage.url, queues=[stage.name])) as exporter:
        await exporter.refresh()
        assert exporter.failure is None


async def looks(stage: Stage) -> None:
    """Every command that only looks."""
    name = stage.name
    await stage.run("queues", "--json")
    for state in ("waiting", "prioritized", "delayed", "active", "completed", "failed"):
        await stage.run("jobs", name, "--state", state, "--json")
    await stage.run("jobs", name, "--oldest-first")
    await stage.run("job", name, "busy", "--json")
    await stage.run("schedules", name)
    await stage.run("schedule", name, "hourly")
    await stage.run("doctor", name)


async def manages(stage: Stage) -> None:
    """Everything: what workers and observers do, and what is done to queues and jobs."""
    await works(stage)
    stage.client.flushall()
    await observes(stage)
    stage.client.flushall()
    await another_database(stage)
    async with opened(stage.queue()) as queue:
        await adds(queue)
        await changes(queue)
        await removes(stage, queue)
        await stage.run("doctor", stage.name)
        await repairs(stage)
        await stage.run("obliterate", stage.name, "--force", "--yes")


async def repairs(stage: Stage) -> None:
    """Mends all there is."""
    async with stage.helped() as helped, QueueScheduler(helped):
        await adds(helped)
        await plants(stage, helped)
        ended = await stage.run("doctor", stage.name, "--repair", "--yes", "--forget-readers", "30d")
        assert all(said in ended.out for said in MENDED), ended.out


async def changes(queue: Queue[Any, Any]) -> None:
    """Changes single jobs."""
    job = await queue.add("changed", 1, delay=3600)
    await job.change_delay(1800)
    await job.update_data("y" * 3000)
    await job.log("by hand")
    await job.clear_logs()
    await job.promote()
    await job.change_priority(3)
    await job.change_priority(0, lifo=True)
    await job.remove()
    await queue.upsert_schedule("hourly", every=3600, name="plain")
    await queue.pause_schedule("hourly")
    await queue.resume_schedule("hourly")
    await queue.remove_schedule("hourly")


async def removes(stage: Stage, queue: Queue[Any, Any]) -> None:
    """Stops, retries and removes, by the command line and by the library."""
    async with somebody_works(stage):
        for name in ("ends", "ends", "plain"):
            with contextlib.suppress(JobFailed):
                await (await queue.add(name)).result(PATIENCE)
    await stage.run("pause", stage.name)
    await stage.run("retry", stage.name, "--all", "--limit", "1")
    await stage.run("promote", stage.name, "--all", "--limit", "1")
    # A clean that needs several calls, with a job among them that stays.
    await queue.add_bulk([NewJob("old", None, JobOptions(priority=5))] * 260)
    stage.advance(60)
    await queue.add("new", priority=1)
    assert len(await queue.clean(30, state="prioritized")) >= 260
    for state in ("waiting", "delayed", "completed", "failed"):
        await stage.run("clean", stage.name, "--state", state, "--grace", "0", "--yes")
    await stage.run("drain", stage.name, "--yes")
    await stage.run("resume", stage.name)


SCENARIOS: dict[Role, Scenario] = {
    Role.PRODUCER: produces,
    Role.FSYNC_PRODUCER: produces_on_disk,
    Role.WORKER: works,
    Role.OBSERVER: observes,
    Role.ADMIN: manages,
}
