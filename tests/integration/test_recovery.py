"""Recovery: what a killed, frozen or blocked worker ran is run again once, soon, and has one outcome."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Job, JobState, NewJob, Queue, Worker
from eventq.events import ActiveEvent, CompletedEvent, Event, FailedEvent, ReleasedEvent, StalledEvent

from .recorder import PATIENCE, Recorder, leased

if TYPE_CHECKING:
    from ..conftest import MakeServer, WaitUntil

#: What a run that is interrupted would show.
MOVES = {"active", "completed", "released", "stalled", "failed"}
RunWorker = Callable[..., subprocess.Popen[str]]

#: A worker process: PROCESSOR, concurrency, lease. It prints a line per job begun and per error it is told of.
WORKER = """
import asyncio, sys, time
from eventq import Queue, Worker

async def hold(job):
    print("running", flush=True)
    await asyncio.Event().wait()

async def block(job):
    print("running", flush=True)
    time.sleep(3)  # sleep-ok: blocks the loop on purpose: three leases
    return "by the one that blocked"

async def spin(job):
    print("running", flush=True)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        pass
    return "by the one that blocked"

async def late(job):
    print("running", flush=True)
    try:
        await asyncio.to_thread(sys.stdin.readline)
    except asyncio.CancelledError:
        print("cancelled", job.cancelled, flush=True)
        raise
    return "too late"

async def main():
    name, url, processor, concurrency, lease = sys.argv[1:]
    async with Queue(name, url=url) as queue:
        worker = Worker(queue, globals()[processor], concurrency=int(concurrency), lease=float(lease), name=processor)

        @worker.on("error")
        async def _(event):
            print("error", type(event.error).__name__, flush=True)

        await worker.run()

asyncio.run(main())
"""


@pytest.fixture
def run_worker(queue_name: str, url: str) -> Iterator[RunWorker]:
    """Run a worker process; killed after the test."""
    processes: list[subprocess.Popen[str]] = []

    def run(processor: str, *, concurrency: int = 1, lease: float = 1.0, to: str = url) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, queue_name, to, processor, str(concurrency), str(lease)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


async def read_lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """Return the next lines that a process prints."""
    stdout = process.stdout
    assert stdout is not None
    return await asyncio.to_thread(lambda: [stdout.readline().strip() for _ in range(count)])


def per_job(events: list[Event], cls: type[Event]) -> Counter[str]:
    """Count the events of a class by job."""
    return Counter(event.job_id for event in events if isinstance(event, cls))  # type: ignore[attr-defined]


async def test_jobs_of_a_killed_worker_run_again_within_lease_and_a_second(
    url: str, queue_name: str, run_worker: RunWorker, redis_client: redis.Redis
) -> None:
    """kill -9 with 50 jobs running, lease 2 s, another worker alive: all run again in time, none is lost, one outcome each."""
    lease, jobs_running = 2.0, 50
    started: dict[str, float] = {}

    async def process(job: Job[int]) -> int:
        started[job.id] = time.monotonic()
        return job.data

    async with Queue(queue_name, int, url=url) as queue, Recorder(queue) as recorder:
        doomed = run_worker("hold", concurrency=jobs_running, lease=lease)
        jobs = await queue.add_bulk([NewJob("j", number) for number in range(jobs_running)])
        assert ["running"] * jobs_running == await read_lines(doomed, jobs_running)
        async with Worker(queue, process, concurrency=20, lease=lease, name="heir"):
            more = await queue.add_bulk([NewJob("j", number) for number in range(30)])
            await recorder.wait(CompletedEvent, 30)
            assert 50 == len(leased(redis_client, queue))
            os.kill(doomed.pid, signal.SIGKILL)
            killed = time.monotonic()
            await recorder.wait(CompletedEvent, 80, timeout=lease + 3)
        counts = await queue.get_job_counts()
        runs = [(await queue.context.require(job.id)).run for job in jobs]
    ids = [job.id for job in [*jobs, *more]]
    assert Counter(ids) == per_job(recorder.events, CompletedEvent)
    assert max(started[job.id] for job in jobs) - killed <= lease + 1.0
    stalled = recorder.of(StalledEvent)
    assert {(job.id, "hold", 1) for job in jobs} == {(event.job_id, event.worker, event.stalls) for event in stalled}
    assert Counter({job.id: 2 for job in jobs} | {job.id: 1 for job in more}) == per_job(recorder.events, ActiveEvent)
    assert {(2, 1, 0, 0)} == {(run.starts, run.stalls, run.fails, run.releases) for run in runs}
    assert (80, 0, 0, 0) == tuple(counts[JobState(state)] for state in ("completed", "failed", "active", "waiting"))
    assert [] == leased(redis_client, queue)


async def test_a_worker_that_blocks_its_loop_keeps_its_job(url: str, queue_name: str, run_worker: RunWorker) -> None:
    """Blocked for three leases, by sleeping and by computing: renewed from a thread, the jobs are not run twice."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        processes = []
        for processor in ("block", "spin"):
            processes.append(run_worker(processor, lease=1.0))
            await queue.add(processor)
            assert ["running"] == await read_lines(processes[-1], 1)

        async def steal(_: Job[Any]) -> str:
            return "by another"

        async with Worker(queue, steal, lease=1.0, concurrency=5):
            completed = await recorder.wait(CompletedEvent, 2, timeout=10)
        assert [] == recorder.of(StalledEvent)
        assert ["by the one that blocked"] * 2 == [event.result for event in completed]
        assert 2 == len(recorder.of(ActiveEvent))


async def test_a_worker_that_was_frozen_is_told_and_its_outcome_refused(
    url: str, queue_name: str, run_worker: RunWorker, wait_until: WaitUntil
) -> None:
    """Stopped for longer than its lease, it loses the job to another; awake again its task is cancelled, nothing is recorded."""

    async def process(_: Job[Any]) -> str:
        return "by another"

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        frozen = run_worker("late", lease=1.0)
        job = await queue.add("j")
        assert ["running"] == await read_lines(frozen, 1)
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            async with Worker(queue, process, lease=1.0):
                assert "by another" == await job.result(PATIENCE)
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        assert ["cancelled True", "error LeaseLost"] == sorted(await read_lines(frozen, 2))
        assert frozen.stdin is not None
        frozen.stdin.write("\n")
        frozen.stdin.flush()
        os.kill(frozen.pid, signal.SIGTERM)
        assert 0 == await asyncio.to_thread(frozen.wait, 10)
        assert "by another" == await job.result(PATIENCE)
        await recorder.wait(CompletedEvent)
    assert 1 == len(recorder.of(CompletedEvent)) == len(recorder.of(StalledEvent))


async def test_leases_are_renewed_over_broken_connections(make_server: MakeServer, queue_name: str) -> None:
    """All connections are killed five times a second for two leases: the running jobs stay where they are."""
    server = make_server()
    gate = asyncio.Event()

    async def process(_: Job[Any]) -> None:
        await gate.wait()

    async with (
        Queue(queue_name, url=server.url) as queue,
        Recorder(queue) as recorder,
        Worker(queue, process, concurrency=20, lease=1.0),
        Worker(queue, process, lease=1.0),
    ):
        await queue.add_bulk([NewJob("j", None)] * 20)
        await recorder.wait(ActiveEvent, 20)
        with redis.Redis(host="127.0.0.1", port=server.port) as client:
            for _ in range(10):
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await asyncio.sleep(0.2)  # sleep-ok: time has to pass for a lease to end
        gate.set()
        await recorder.wait(CompletedEvent, 20)
    assert (20, 0) == (len(recorder.of(ActiveEvent)), len(recorder.of(StalledEvent)))


async def test_a_pause_of_the_server_is_no_reason_to_reclaim_everything(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil
) -> None:
    """Standing still for more than a lease: nobody could say whose the jobs are, so their runs are cancelled and given back,
    uncounted. The server lets live workers speak first, so no job counts as stalled.
    """
    server = make_server()
    gate = asyncio.Event()
    cancelled: list[str] = []

    async def process(job: Job[Any]) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled.append(job.id)
            raise

    async with (
        Queue(queue_name, url=server.url) as queue,
        Recorder(queue) as recorder,
        Worker(queue, process, concurrency=30, lease=1.5) as worker,
        Worker(queue, process, lease=1.5),
    ):
        jobs = await queue.add_bulk([NewJob("j", None)] * 31)
        await recorder.wait(ActiveEvent, 31)
        meta = queue.context.keys["meta"]
        with redis.Redis(host="127.0.0.1", port=server.port) as client:
            # The worker's renewals wait until the first sweep after the pause has found every lease expired.
            with worker._heartbeat._runner._lock:
                before: Any = client.hget(meta, "swept_at")
                server.freeze()
                await wait_until(lambda: len(cancelled) == 31)
                await asyncio.sleep(0.5)  # sleep-ok: the leases end too
                server.thaw()

                def has_swept() -> bool:
                    swept: Any = client.hget(meta, "swept_at")
                    return int(swept) >= int(before) + 1500

                await wait_until(has_swept)
            await recorder.wait(ReleasedEvent, 31)
        gate.set()
        await recorder.wait(CompletedEvent, 31)
        runs = [(await queue.context.require(job.id)).run for job in jobs]
    assert (62, 31, 0) == (len(recorder.of(ActiveEvent)), len(recorder.of(ReleasedEvent)), len(recorder.of(StalledEvent)))
    assert {(2, 1, 0, 0)} == {(run.starts, run.releases, run.stalls, run.fails) for run in runs}


async def test_a_pause_of_the_server_shorter_than_a_lease_changes_nothing(make_server: MakeServer, queue_name: str) -> None:
    """Renewed every third of a lease, a run outlives a server that stands still for half of one."""
    server = make_server()
    gate = asyncio.Event()

    async def process(_: Job[Any]) -> None:
        await gate.wait()

    async with (
        Queue(queue_name, url=server.url) as queue,
        Recorder(queue) as recorder,
        Worker(queue, process, concurrency=10, lease=2.0),
    ):
        await queue.add_bulk([NewJob("j", None)] * 10)
        await recorder.wait(ActiveEvent, 10)
        for _ in range(3):
            server.freeze()
            await asyncio.sleep(1.0)  # sleep-ok: the pause itself
            server.thaw()
            await asyncio.sleep(0.7)  # sleep-ok: a third of a lease, in which the renewal comes through
        gate.set()
        await recorder.wait(CompletedEvent, 10)
    assert {"active": 10, "completed": 10} == {kind: n for kind, n in recorder.counts().items() if kind in MOVES}


async def test_a_job_that_kills_its_workers_is_given_up(url: str, queue_name: str, run_worker: RunWorker) -> None:
    """After max_stalls lost workers the job ends failed with reason stalled; a job beside it is run again and completes."""

    async def process(_: Job[Any]) -> None:
        return None

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        doomed = run_worker("hold", lease=0.5)
        poison = await queue.add("j")
        assert ["running"] == await read_lines(doomed, 1)
        os.kill(doomed.pid, signal.SIGKILL)
        async with Worker(queue, process, lease=0.5, max_stalls=0):
            (failed,) = await recorder.wait(FailedEvent)
    assert (poison.id, "stalled", False, 1) == (failed.job_id, failed.reason, failed.exhausted, failed.stalls)
    assert "Stalled" == failed.error.type
