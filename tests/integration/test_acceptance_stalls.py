"""Acceptance cases 27, 28, 29 and 31: workers that die, jobs longer than their lease, what a finished job leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, JobOptions, JobState, NewJob, Queue, QueueScheduler, Worker
from eventq.client import SyncRunner
from eventq.commands.upkeep import sweep_queue
from eventq.errors import InvalidState, JobFailed
from eventq.events import ActiveEvent, CompletedEvent, FailedEvent, ReleasedEvent, RetryingEvent, StalledEvent
from eventq.job_queue import JobQueue

from .recorder import UNTYPED, Recorder, claim_silently, expire_leases, leased, leftovers

if TYPE_CHECKING:
    import redis

    from tests.conftest import Clock

#: The shortest lease there is.
LEASE = 0.5

DOOMED_WORKER = """
import asyncio, sys
from eventq import Worker

async def hang(job):
    print(job.id, flush=True)
    await asyncio.Event().wait()

asyncio.run(Worker(sys.argv[1], hang, url=sys.argv[2], lease=0.6, name="doomed").run())
"""


@contextlib.contextmanager
def doomed_worker(queue: Queue[Any, Any], url: str) -> Generator[subprocess.Popen[str]]:
    """Run a worker in a process of its own that never finishes a job; it prints the ids of those it takes."""
    command = [sys.executable, "-c", DOOMED_WORKER, queue.name, url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_the_job_of_a_killed_worker_runs_again(url: str, queue_name: str) -> None:
    """Case 27: after kill -9 a job is back within lease + 1 s, runs elsewhere as the same attempt, and `stalled` names it."""
    ran: list[tuple[str, int]] = []

    async def note(job: Job[Any, Any]) -> str:
        ran.append((job.id, job.attempt))
        return "well"

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        job = await queue.add("n", attempts=2)
        with doomed_worker(queue, url) as process:
            assert process.stdout
            assert await asyncio.to_thread(process.stdout.readline) == f"{job.id}\n"
            process.kill()
            killed_ms = time.time() * 1000
            async with Worker(queue, note, lease=LEASE, name="survivor"):
                assert await job.result(timeout=5) == "well"
        assert ran == [(job.id, 1)]
        await recorder.catch_up()
        assert recorder.kinds(job.id) == ["added", "active", "stalled", "active", "completed"]
        (stalled,) = recorder.of(StalledEvent)
        assert (stalled.job_id, stalled.name, stalled.worker, stalled.stalls, stalled.attempt) == (job.id, "n", "doomed", 1, 1)
        again = recorder.of(ActiveEvent)[1]
        assert again.worker == "survivor"
        assert again.ms - killed_ms < (0.6 + 1) * 1000


async def test_stalled_jobs_return_to_the_head_of_the_line(url: str, queue_name: str, clock: Clock) -> None:
    """Case 27: what a dead worker held runs next, in the order it was claimed, before what waited behind it."""
    async with Queue(queue_name, url=url) as queue:
        first, second, third = await queue.add_bulk([NewJob("n", number) for number in range(3)])
        better, same, held, worse = await queue.add_bulk([NewJob("n", p, JobOptions(priority=p)) for p in (1, 2, 2, 3)])
        assert [job.id for job in await claim_silently(queue, 2)] == [first.id, second.id]
        assert await expire_leases(queue, clock) == 2
        waiting = await queue.get_jobs("waiting", ascending=True)
        assert [job.id for job in waiting] == [first.id, second.id, third.id]

        # A prioritized one returns to its own place: before its equals that came later, behind what is better.
        claimed = await claim_silently(queue, 5)
        assert [job.id for job in claimed][-1] == same.id
        assert await expire_leases(queue, clock) == 5
        line = await queue.get_jobs("prioritized", ascending=True)
        assert [job.id for job in line] == [better.id, same.id, held.id, worse.id]
        assert [job.id for job in await queue.get_jobs("waiting", ascending=True)] == [first.id, second.id, third.id]


async def test_a_job_that_stalls_too_often_fails(url: str, queue_name: str, clock: Clock) -> None:
    """Case 28: with max_stalls 1 the second stall ends the job as failed, reason stalled, attempts left or not.

    eventq has no flows yet, so there are no failure options of a parent to honour.
    """
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        job = await queue.add("n", attempts=5)
        for _ in range(2):
            assert len(await claim_silently(queue)) == 1
            assert await expire_leases(queue, clock, max_stalls=1) == 1
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)
        assert (caught.value.type, caught.value.job_id) == ("Stalled", job.id)
        await recorder.catch_up()
        assert recorder.kinds(job.id) == ["added", "active", "stalled", "active", "failed"]
        (failed,) = recorder.of(FailedEvent)
        assert (failed.reason, failed.stalls, failed.exhausted, failed.worker) == ("stalled", 2, False, "silent")
        assert failed.error.message == "the worker stopped renewing its lease"
        assert await job.get_state() is JobState.FAILED
        assert await claim_silently(queue) == []
        # It can be retried by hand, and its counters then start over if asked to.
        await job.retry(reset_attempts=True)
        assert await job.get_state() is JobState.WAITING


async def test_a_worker_with_max_stalls_0_fails_at_the_first_stall(url: str, queue_name: str) -> None:
    """Case 28: a worker's max_stalls is what its sweeps go by; 0 never runs a job twice because of a dead worker."""
    ran: list[str] = []

    async def note(job: Job[Any, Any]) -> None:
        ran.append(job.id)

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        job = await queue.add("n")
        await claim_silently(queue, lease=LEASE)
        async with Worker(queue, note, lease=LEASE, max_stalls=0):
            (failed,) = await recorder.wait(FailedEvent)
        assert (failed.job_id, failed.reason) == (job.id, "stalled")
        assert ran == []


@contextlib.contextmanager
def sweeping_thread(queue: Queue[Any, Any]) -> Generator[None]:
    """Sweep every 50 ms from a thread, as other workers would, whatever this process' event loop is doing."""
    context, stop = queue.context, threading.Event()

    def run() -> None:
        runner = SyncRunner(context.server)
        while not stop.wait(0.05):
            runner.run(sweep_queue(context.keys, round(LEASE * 1000), round(LEASE * 400), 2, context.retention))
        runner.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def on_the_loop(job: Job[Any, Any]) -> None:
    await asyncio.sleep(LEASE * 2.2)  # sleep-ok: the length of the job is what the test is about


async def blocking_the_loop(job: Job[Any, Any]) -> None:
    time.sleep(LEASE * 2.2)  # noqa: ASYNC251  # sleep-ok: a processor that does what it should not


def in_a_thread(job: Job[Any, Any]) -> None:
    time.sleep(LEASE * 2.2)  # sleep-ok: the length of the job is what the test is about


@pytest.mark.parametrize("processor", [on_the_loop, blocking_the_loop, in_a_thread])
async def test_a_job_longer_than_its_lease_never_stalls(url: str, queue_name: str, processor: Callable[..., Any]) -> None:
    """Case 29: leases are renewed while a job runs, on the loop, in a thread, and even while it blocks the loop."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with sweeping_thread(queue):
            async with Worker(queue, processor, lease=LEASE):
                job = await queue.add("n")
                await job.result(timeout=5)
        await recorder.catch_up()
        assert recorder.kinds(job.id) == ["added", "active", "completed"]
        (completed,) = recorder.of(CompletedEvent)
        assert completed.ran > LEASE * 2


async def test_a_job_without_renewals_does_stall(url: str, queue_name: str) -> None:
    """Case 29, the other way round: the sweeps of that test do take a job whose holder is silent."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        await queue.add("n")
        with sweeping_thread(queue):
            await claim_silently(queue, lease=LEASE)
            await recorder.wait(StalledEvent)


async def test_a_completed_job_holds_no_lease(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 31: after completion the id is not among the leases and its run has no token: nothing is left to suspect."""

    async def nothing(job: Job[Any, Any]) -> None:
        await job.update_progress(1)

    async with Queue(queue_name, url=url) as queue:
        async with Worker(queue, nothing, concurrency=20):
            jobs = await queue.add_bulk([NewJob("n", number) for number in range(30)])
            for job in jobs:
                await job.result(timeout=5)
        assert leased(redis_client, queue) == []
        for job in jobs:
            run = (await queue.context.require(job.id)).run
            assert (run.state, run.token) == ("completed", "-")
        assert leftovers(redis_client, queue, jobs[0].id) == {"jobs", "runs", "progress", "completed"}


async def test_no_lease_is_left_when_a_job_goes_back_in_line(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 31: so it is when a job is delayed, put back in line, released or failed; a job in line has no token either."""
    entered = asyncio.Event()

    async def work(job: Job[Any, Any]) -> None:
        if job.name == "hangs":
            entered.set()
            await asyncio.Event().wait()
        raise ValueError

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        async with Worker(queue, work, concurrency=4, grace=0):
            delayed = await queue.add("delays", attempts=2, backoff=60)
            failed = await queue.add("fails")
            hangs = await queue.add("hangs", priority=5)
            await recorder.wait(RetryingEvent)
            await recorder.wait(FailedEvent)
            await entered.wait()
            assert leased(redis_client, queue) == [hangs.id]
        await recorder.wait(ReleasedEvent)
        assert leased(redis_client, queue) == []
        runs = {job.id: (await queue.context.require(job.id)).run for job in (delayed, failed, hangs)}
        assert [run.state for run in runs.values()] == ["delayed", "failed", "prioritized"]
        assert [run.token for run in runs.values()] == ["-", "-", "-"]
        assert leftovers(redis_client, queue, hangs.id) == {"jobs", "runs", "prioritized"}


async def test_a_scheduler_alone_gives_jobs_back(url: str, queue_name: str) -> None:
    """Case 27: a QueueScheduler takes a dead worker's jobs back where no worker is up; nobody has to be idle for it."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        job = await queue.add("n")
        await claim_silently(queue, lease=LEASE)
        with pytest.raises(InvalidState):
            await job.remove()
        async with QueueScheduler(queue, lease=LEASE):
            await recorder.wait(StalledEvent)
        assert await job.get_state() is JobState.WAITING


async def test_job_queue_passes_lease_and_stalls_on(url: str, queue_name: str) -> None:
    """Case 28: lease and max_stalls of a JobQueue are its worker's."""

    async def nothing(job: Job[Any, Any]) -> None:
        """Do nothing."""

    jobs: JobQueue[Any, Any] = JobQueue(queue_name, UNTYPED, nothing, url=url, lease=LEASE, max_stalls=0)
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        await queue.add("n")
        await claim_silently(queue, lease=LEASE)
        async with jobs:
            (failed,) = await recorder.wait(FailedEvent)
        assert failed.reason == "stalled"
