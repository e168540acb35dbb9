"""JobQueue: queue, worker and scheduler in one object."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Backoff, Job, JobOptions, JobQueue, JobState, NewJob, Queue
from eventq.errors import ConfigurationError, InvalidJob, JobFailed, JobNotFound
from eventq.events import CompletedEvent, FailedEvent, WorkerStartedEvent, WorkerStoppedEvent

from .recorder import UNTYPED, Recorder

if TYPE_CHECKING:
    from tests.conftest import MakeServer, WaitUntil


@dataclass
class Order:
    """What these jobs are about."""

    number: int
    city: str = "Bonn"


async def deliver(job: Job[Order, str]) -> str:
    """Deliver one order."""
    await job.update_progress({"city": job.data.city})
    return f"{job.data.number} to {job.data.city}"


async def test_jobs_are_added_run_and_looked_up(url: str, queue_name: str) -> None:
    """The shortest way through: add a typed job, have its result, see its status."""
    began = datetime.now(UTC)
    async with JobQueue(queue_name, Order, deliver, url=url, result_type=str) as jobs:
        job = await jobs.add_job("order", Order(7), attempts=3)
        assert await job.result(timeout=5) == "7 to Bonn"
        status = await jobs.get_job_status(job.id)
    assert (status.id, status.name, status.state, status.result) == (job.id, "order", JobState.COMPLETED, "7 to Bonn")
    assert (status.progress, status.attempt, status.max_attempts, status.error) == ({"city": "Bonn"}, 1, 3, None)
    assert status.started_at and status.finished_at
    assert began.timestamp() - 1 < status.added_at.timestamp() <= status.started_at.timestamp()
    assert status.started_at <= status.finished_at


async def test_a_status_of_what_has_not_run(url: str, queue_name: str) -> None:
    """get_job_status tells where a job stands before anything happened to it, and that one is not there."""
    async with JobQueue(queue_name, Order, deliver, url=url) as jobs:
        await jobs.worker.pause()
        waiting = await jobs.add_job("order", Order(1))
        prioritized = await jobs.add_job("order", Order(2), priority=1)
        delayed = await jobs.add_job("order", Order(3), delay=60)

        async def states() -> list[JobState]:
            return [(await jobs.get_job_status(job.id)).state for job in (waiting, prioritized, delayed)]

        assert await states() == ["waiting", "prioritized", "delayed"]
        await jobs.queue.pause()
        assert await states() == ["paused", "prioritized", "delayed"]
        status = await jobs.get_job_status(delayed.id)
        assert (status.started_at, status.finished_at, status.progress, status.attempt) == (None, None, None, 1)
        await delayed.remove()
        with pytest.raises(JobNotFound, match=delayed.id):
            await jobs.get_job_status(delayed.id)
        with pytest.raises(InvalidJob, match="job_id"):
            await jobs.get_job_status("no such id")


async def test_a_status_of_what_runs_and_ran(url: str, queue_name: str) -> None:
    """get_job_status tells attempts, the last error with its traceback, and times, while a job runs and when it is over."""
    seen, go = asyncio.Event(), asyncio.Event()

    async def work(job: Job[Any, Any]) -> None:
        if job.name == "holds":
            seen.set()
            await go.wait()
        if job.name == "fails":
            raise ValueError(f"attempt {job.attempt}")

    async with JobQueue(queue_name, UNTYPED, work, url=url) as jobs, Recorder(jobs.queue) as recorder:
        retried = await jobs.add_job("fails", attempts=3, backoff=Backoff.fixed(60))
        failed = await jobs.add_job("fails", attempts=2)
        await recorder.wait(FailedEvent)
        active = await jobs.add_job("holds")
        await seen.wait()

        status = await jobs.get_job_status(retried.id)
        assert (status.state, status.attempt, status.max_attempts, status.result) == ("delayed", 2, 3, None)
        assert status.error and (status.error.type, status.error.message) == ("ValueError", "attempt 1")
        assert status.started_at and not status.finished_at
        status = await jobs.get_job_status(failed.id)
        assert (status.state, status.attempt, status.max_attempts) == ("failed", 2, 2)
        assert status.error and status.error.message == "attempt 2" and "in work" in status.error.traceback
        assert status.started_at and status.finished_at
        status = await jobs.get_job_status(active.id)
        assert status.state == "active" and status.started_at and not status.finished_at and not status.error
        go.set()
        await active.result(timeout=5)
        assert (await jobs.get_job_status(active.id)).state == "completed"


async def test_all_jobs_of_every_state(url: str, queue_name: str) -> None:
    """get_all_jobs lists jobs of every state, or of those named; a page of each, newest first."""

    async def work(job: Job[Order, Any]) -> None:
        if job.data.number % 2:
            raise ValueError

    jobs = JobQueue(queue_name, Order, work, url=url)
    done = await jobs.add_jobs([NewJob("order", Order(number)) for number in range(6)])
    async with Recorder(jobs.queue) as recorder, jobs:
        await recorder.wait(CompletedEvent, 3)
        await recorder.wait(FailedEvent, 3)
        await jobs.queue.pause()
        waiting = await jobs.add_job("order", Order(6))
        prioritized = await jobs.add_job("order", Order(7), priority=1)
        delayed = await jobs.add_job("order", Order(8), delay=60)
        everything = await jobs.get_all_jobs()
        assert sorted(job.id for job in everything) == sorted([job.id for job in done] + [waiting.id, prioritized.id, delayed.id])
        assert {job.data.number for job in everything} == set(range(9))
        assert [job.id for job in await jobs.get_all_jobs(["failed"])] == [done[5].id, done[3].id, done[1].id]
        assert [job.id for job in await jobs.get_all_jobs(["completed", "delayed"], limit=1)] == [done[4].id, delayed.id]
        assert [job.id for job in await jobs.get_all_jobs(["completed"], start=1)] == [done[2].id, done[0].id]
        assert [job.id for job in await jobs.get_all_jobs([JobState.PAUSED])] == [waiting.id]
        with pytest.raises(ConfigurationError, match="done"):
            await jobs.get_all_jobs(["done"])


async def test_on_hears_everybody_and_itself(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """`on` hears the events of the queue, whoever adds and runs the jobs, and of its own worker's life."""
    heard: list[str] = []
    life: list[Any] = []
    jobs = JobQueue(queue_name, Order, deliver, url=url)

    @jobs.on("completed")
    async def _(event: CompletedEvent) -> None:
        heard.append(event.job_id)

    for kind in ("worker_started", "worker_stopped"):
        jobs.on(kind, life.append)
    async with Queue(queue_name, url=url) as elsewhere, jobs:
        job = await elsewhere.add("order", {"number": 1})
        await wait_until(lambda: heard == [job.id], description="somebody else's job")
        assert [type(event) for event in life] == [WorkerStartedEvent]
    assert [type(event) for event in life] == [WorkerStartedEvent, WorkerStoppedEvent]
    assert {event.worker for event in life} == {jobs.worker.name}


async def test_close_leaves_nothing(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """After close there is no task, no thread and no connection, whether jobs ran, listeners listened or a result was awaited."""
    server = make_server()
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())

    def plain(job: Job[Any, Any]) -> str:
        return threading.current_thread().name

    async def on_loop(job: Job[Any, Any]) -> None:
        """Do nothing."""

    jobs = JobQueue("leaves", UNTYPED, {"plain": plain, "loop": on_loop}, url=server.url, concurrency=20)
    jobs.on("completed", lambda event: None)
    async with jobs:
        names = [await (await jobs.add_job("plain")).result(timeout=5) for _ in range(3)]
        assert all(str(name).startswith("eventq-") for name in names)
        await (await jobs.add_job("loop")).result(timeout=5)
        waiting = asyncio.create_task((await jobs.add_job("loop", delay=60)).result())
        await wait_until(lambda: jobs.worker.running == 0, description="the jobs to end")
    assert asyncio.all_tasks() - tasks <= {waiting}
    with pytest.raises(Exception, match="was closed while a result was awaited"):
        await waiting
    await jobs.close()
    with redis.Redis(host="127.0.0.1", port=server.port) as client:

        def names_left() -> list[str]:
            rows: list[dict[str, str]] = client.client_list()
            return [row["name"] for row in rows if row["name"]]

        await wait_until(lambda: not names_left(), description="connections to be closed")
    ours = [thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("eventq-")]
    await wait_until(lambda: not any(thread.is_alive() for thread in ours), description="threads to end")


async def test_closing_what_never_started_is_nothing(url: str, queue_name: str) -> None:
    """Adding does not start the worker, and closing then closes only what was opened."""
    jobs = JobQueue(queue_name, Order, deliver, url=url)
    await jobs.close()
    jobs = JobQueue(queue_name, Order, deliver, url=url)
    job = await jobs.add_job("order", Order(1))
    assert (await jobs.get_job_status(job.id)).state is JobState.WAITING
    assert not jobs.worker.is_running
    await jobs.close()
    await jobs.close()
    with pytest.raises(ConfigurationError, match="closed"):
        await jobs.add_job("order", Order(2))


async def test_processors_are_chosen_by_job_name(url: str, queue_name: str) -> None:
    """Several processors by name; a name none of them has fails that job like any other failure, with what there is."""

    async def double(job: Job[int, int]) -> int:
        return job.data * 2

    def negate(job: Job[int, int]) -> int:
        return -job.data

    async with JobQueue(queue_name, int, {"double": double, "negate": negate}, url=url, concurrency=3) as jobs:
        doubled, negated = await jobs.add_job("double", 21), await jobs.add_job("negate", 21)
        unknown = await jobs.add_job("halve", 21, attempts=2)
        assert (await doubled.result(timeout=5), await negated.result(timeout=5)) == (42, -21)
        with pytest.raises(JobFailed, match="no processor for job name 'halve'.*double, negate"):
            await unknown.result(timeout=5)
        assert (await jobs.get_job_status(unknown.id)).attempt == 2


async def test_plain_functions_run_in_threads(url: str, queue_name: str) -> None:
    """A plain function runs in a thread, several at once, and reports progress from there; the loop goes on meanwhile."""
    meeting = threading.Barrier(3)

    def work(job: Job[int, str]) -> str:
        _ = job.update_progress(job.data)  # there is nothing to wait for in a thread
        meeting.wait(timeout=5)
        return threading.current_thread().name

    async with JobQueue(queue_name, int, work, url=url, concurrency=3) as jobs:
        added = await jobs.add_jobs([NewJob("n", number) for number in range(3)])
        threads = {await job.result(timeout=5) for job in added}
        assert len(threads) == 3 and threading.current_thread().name not in threads
        assert [(await jobs.get_job_status(job.id)).progress for job in added] == [0, 1, 2]


async def test_options_reach_queue_and_worker(url: str, queue_name: str) -> None:
    """Default options, concurrency and a custom backoff strategy are passed on to where they belong."""

    async def work(job: Job[Any, Any]) -> None:
        if job.attempt == 1:
            raise ValueError

    defaults = JobOptions(attempts=2, backoff=Backoff.custom("mine"), remove_on_complete=True)
    calls: list[str] = []

    def mine(job: Job[Any, Any], error: BaseException) -> float:
        calls.append(job.id)
        return 0

    jobs = JobQueue(
        queue_name,
        UNTYPED,
        work,
        url=url,
        default_options=defaults,
        concurrency=7,
        backoffs={"mine": mine},
        prefix="shop",
        tag="all",
    )
    assert (jobs.name, jobs.worker.concurrency) == (queue_name, 7)
    assert jobs.queue.context.keys["jobs"] == f"shop:{{all}}:{queue_name}:jobs"
    await jobs.close()
    jobs = JobQueue(queue_name, UNTYPED, work, url=url, default_options=defaults, concurrency=7, backoffs={"mine": mine})
    async with jobs, Recorder(jobs.queue) as recorder:
        job = await jobs.add_job("n")
        await recorder.wait(CompletedEvent)
        assert job.max_attempts == 2 and calls == [job.id]
        with pytest.raises(JobNotFound):
            await jobs.get_job_status(job.id)


async def test_it_is_read_and_managed_as_a_queue(url: str, queue_name: str) -> None:
    """Whatever a Queue can be asked, a JobQueue can be asked too; its jobs wait for outcomes by the same listener."""
    async with JobQueue(queue_name, int, lambda job: job.data, url=url) as jobs:
        late = [await jobs.add_job("late", number, delay=3600) for number in range(3)]
        assert await jobs.count() == 3
        assert await jobs.promote_jobs(limit=1) == 1
        found = await jobs.get_job(late[0].id)
        assert found and await found.result(timeout=5) == 0
        assert await jobs.drain(delayed=True) == 2
        assert await jobs.clean(0) == [late[0].id]
        await jobs.upsert_schedule("hourly", cron="0 * * * *", data=7)
        assert [schedule.id for schedule in await jobs.get_schedules()] == ["hourly"]
        await jobs.pause()
        assert await jobs.is_paused()
    async with Queue(queue_name, url=url) as queue:
        assert await queue.obliterate() == 0
