"""Acceptance case 59: closing and pausing while things happen, and Redis going away and coming back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Job, JobState, NewJob, Queue, QueueScheduler, Worker
from eventq.events import ActiveEvent, CompletedEvent, ErrorEvent, PausedEvent, ReleasedEvent, ResumedEvent

from .recorder import Recorder, leased

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.conftest import MakeServer, WaitUntil
    from tests.servers import TestServer

#: What was told as stored is on disk: a power cut loses nothing of it.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
#: Seconds that closing may take when nothing has to be waited for.
SOON = 1.0


class Held:
    """A processor whose jobs stay until they are let go."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, job: Job[Any, Any]) -> str:
        """Wait for `go`."""
        self.entered.append(job.id)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(job.id)
            raise
        return "done"


@contextlib.asynccontextmanager
async def at_most(seconds: float) -> AsyncGenerator[None]:
    """Fail what takes longer."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds, f"took {took:.2f} s, at most {seconds} s were allowed"


async def test_closing_lets_running_jobs_finish_and_takes_no_more(
    url: str, queue_name: str, wait_until: WaitUntil, redis_client: redis.Redis
) -> None:
    """Case 59: close during processing waits for the jobs that run, records them, and claims nothing new."""
    held = Held()
    async with Queue(queue_name, url=url) as queue:
        jobs = await queue.add_bulk([NewJob("n", number) for number in range(5)])
        worker = Worker(queue, held, concurrency=2)
        await worker.start()
        await wait_until(lambda: len(held.entered) == 2, description="two jobs inside")
        closing = asyncio.create_task(worker.close())
        await wait_until(lambda: not worker.is_running, description="the worker to be closing")
        assert not closing.done()
        held.go.set()
        async with at_most(SOON):
            await closing
        assert held.entered == [job.id for job in jobs[:2]] and held.cancelled == []
        assert [await queue.get_state(job.id) for job in jobs] == ["completed"] * 2 + ["waiting"] * 3
        assert leased(redis_client, queue) == []


async def test_closing_without_grace_releases_in_order(
    url: str, queue_name: str, wait_until: WaitUntil, redis_client: redis.Redis
) -> None:
    """Case 59: when grace ends, what still runs is cancelled and goes back to the head of the line, in order and uncounted."""
    held = Held()
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        jobs = await queue.add_bulk([NewJob("n", number) for number in range(6)])
        worker = Worker(queue, held, concurrency=3)
        await worker.start()
        await wait_until(lambda: len(held.entered) == 3, description="three jobs inside")
        async with at_most(SOON):
            await worker.close(grace=0)
        ids = [job.id for job in jobs]
        assert sorted(held.cancelled) == sorted(ids[:3])
        assert [job.id for job in await queue.get_jobs("waiting", ascending=True)] == ids
        released = await recorder.wait(ReleasedEvent, 3)
        assert {(event.state, event.previous, event.attempt) for event in released} == {("waiting", "active", 1)}
        assert [(await queue.context.require(job_id)).run.fails for job_id in ids[:3]] == [0, 0, 0]
        assert leased(redis_client, queue) == []


async def test_closing_an_idle_worker_does_not_wait_for_its_blocked_read(
    url: str, queue_name: str, wait_until: WaitUntil, redis_client: redis.Redis
) -> None:
    """Case 59: a worker that is blocked waiting for work closes at once, and its blocked connection is gone."""

    def blocked() -> int:
        clients: list[dict[str, str]] = redis_client.client_list()
        return sum(client["name"] == "eventq-blocking" for client in clients)

    before = blocked()
    async with Queue(queue_name, url=url) as queue:
        worker = Worker(queue, Held(), lease=60)
        await worker.start()
        await wait_until(lambda: blocked() == before + 1, description="the blocked read")
        async with at_most(SOON):
            await worker.close()
        await wait_until(lambda: blocked() == before, description="the connection to be closed")
        # Closing again is nothing.
        await worker.close()


async def test_jobs_that_arrive_while_closing_are_given_back(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 59: a claim that is under way when the worker closes brings jobs nobody will run: they are released at once."""
    held = Held()
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        worker = Worker(queue, held, concurrency=3)
        await worker.start()
        await worker.pause()
        jobs = await queue.add_bulk([NewJob("n", number) for number in range(3)])
        redis_client.client_pause(10_000, all=False)
        worker.resume()  # its claim is sent, and stays unanswered
        await asyncio.sleep(0)
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0.05)  # sleep-ok: the claim is on its way, there is nothing to see of it
        redis_client.client_unpause()
        async with at_most(SOON):
            await closing
        released = await recorder.wait(ReleasedEvent, 3)
        assert [event.attempt for event in released] == [1, 1, 1]
        assert held.entered == []
        assert [job.id for job in await queue.get_jobs("waiting", ascending=True)] == [job.id for job in jobs]
        assert leased(redis_client, queue) == []


async def test_pausing_a_worker_finishes_what_runs_and_takes_no_more(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Case 59: pause of a worker waits for its jobs, then claims nothing, new jobs included, until it is resumed."""
    held = Held()
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, held) as worker:
        first, second = await queue.add_bulk([NewJob("n", 1), NewJob("n", 2)])
        await wait_until(lambda: held.entered == [first.id], description="the first job inside")
        pausing = asyncio.create_task(worker.pause())
        await wait_until(lambda: worker.is_paused, description="the pause")
        assert not pausing.done()
        held.go.set()
        async with at_most(SOON):
            await pausing
        # Recorded, not merely finished.
        assert await first.get_state() is JobState.COMPLETED
        third = await queue.add("n", 3)
        # Somebody else's worker is not concerned.
        async with Worker(queue, held, max_jobs=1):
            assert await second.result(timeout=5) == "done"
        assert held.entered == [first.id, second.id]
        assert await third.get_state() is JobState.WAITING
        worker.resume()
        assert await third.result(timeout=5) == "done"
        await recorder.catch_up()
        assert recorder.counts()["paused"] == 0


async def test_pausing_a_queue_stops_every_worker(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Case 59: pause of a queue lets running jobs finish and be recorded; nobody claims, blocked or not, until it is resumed.

    There is no list of paused jobs: `paused` is what a waiting job of a paused queue is called.
    """
    held = Held()
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        async with Worker(queue, held), Worker(queue, held):
            first = await queue.add("n")
            await wait_until(lambda: held.entered == [first.id], description="the first job inside")
            await queue.pause()
            await queue.pause()
            second, third = await queue.add("n"), await queue.add("n", priority=1)
            held.go.set()
            assert await first.result(timeout=5) == "done"
            assert await queue.is_paused()
            assert await second.get_state() is JobState.PAUSED
            counts = await queue.get_job_counts()
            assert (counts[JobState.PAUSED], counts[JobState.WAITING], counts[JobState.PRIORITIZED]) == (1, 0, 1)
            assert held.entered == [first.id]
            await queue.resume()
            assert await second.result(timeout=5) == "done"
            assert await third.result(timeout=5) == "done"
        assert not await queue.is_paused()
        await recorder.catch_up()
        assert (len(recorder.of(PausedEvent)), len(recorder.of(ResumedEvent))) == (1, 1)
        resumed = recorder.events.index(recorder.of(ResumedEvent)[0])
        assert [isinstance(event, ActiveEvent) for event in recorder.events[:resumed]].count(True) == 1


async def test_closing_one_worker_leaves_what_it_shares(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 59: workers and a scheduler on one Queue share it; closing one leaves the queue, the others and strangers alone."""

    async def echo(job: Job[Any, Any]) -> Any:
        return job.data

    def connections() -> set[str]:
        clients: list[dict[str, str]] = redis_client.client_list()
        return {client["id"] for client in clients}

    others = connections()  # of other tests, which may be about to close
    async with Queue(queue_name, url=url) as queue:
        heard: list[str] = []
        queue.on("completed", lambda event: heard.append(event.job_id))
        async with Worker(queue, echo, name="stays") as stays:
            first = await queue.add("n", 1)
            assert await first.result(timeout=5) == 1
            before = connections() - others
            goes, scheduler = Worker(queue, echo, name="goes"), QueueScheduler(queue)
            await goes.start()
            await scheduler.start()
            await goes.close()
            await scheduler.close()
            assert before <= connections()
            second = await queue.add("n", 2)
            assert await second.result(timeout=5) == 2
            assert stays.is_running and not goes.is_running
    assert heard == [first.id, second.id]
    assert redis_client.ping()


async def test_jobs_added_before_and_during_an_outage_run_after_it(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """Case 59: Redis dies and returns: the job that was running is recorded, and those added before and meanwhile run."""
    server, held = make_server(*DURABLE), Held()
    async with Queue("outage", url=server.url) as queue, Recorder(queue) as recorder:
        errors: list[ErrorEvent] = []
        worker = Worker(queue, held, lease=30)
        worker.on("error", errors.append)
        async with worker:
            running = await queue.add("n", "running")
            before = await queue.add("n", "before")
            await wait_until(lambda: held.entered == [running.id], description="a job inside")
            server.kill()
            adding = [asyncio.create_task(queue.add("n", number)) for number in range(3)]
            held.go.set()
            await wait_until(lambda: errors, description="the worker to notice")
            assert not any(task.done() for task in adding)
            server.start()
            during = [await task for task in adding]
            for job in (running, before, *during):
                assert await job.result(timeout=10) == "done"
        ids = [job.id for job in (running, before, *during)]
        assert held.entered == ids
        completed = await recorder.wait(CompletedEvent, 5)
        assert sorted(event.job_id for event in completed) == sorted(ids)
        assert recorder.counts()["stalled"] == 0
        assert all(event.worker == worker.name and isinstance(event.error, Exception) for event in errors)


async def test_an_idle_worker_survives_an_outage(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """Case 59: a worker that was blocked when Redis went away takes new jobs when it is back, without being told."""
    server, held = make_server(*DURABLE), Held()
    held.go.set()
    async with Queue("idle", url=server.url) as queue:
        errors: list[ErrorEvent] = []
        worker = Worker(queue, held, lease=30)
        worker.on("error", errors.append)
        async with worker:
            server.kill()
            await wait_until(lambda: errors, description="the worker to notice")
            server.start()
            job = await queue.add("n")
            assert await job.result(timeout=5) == "done"


async def test_closing_while_redis_is_down_ends(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """Case 59: close resolves although Redis is away and a job cannot be given back; no task or thread stays."""
    server, held = make_server(), Held()
    queue = Queue("down", url=server.url)
    worker = Worker(queue, held, lease=1.5, concurrency=2)
    await worker.start()
    await queue.add("n")
    await wait_until(lambda: held.entered, description="a job inside")
    server.kill()
    async with at_most(10):
        await worker.close(grace=0)
        await queue.close()
    assert held.cancelled == held.entered
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("eventq-heartbeat")] == []


async def test_a_blocking_read_that_never_settles_is_replaced(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """Case 59: when the server stops answering for good on a connection, the read is given up and a new one takes its place."""
    server, held = make_server(), Held()
    held.go.set()
    async with Queue("frozen", url=server.url) as queue:
        errors: list[ErrorEvent] = []
        worker = Worker(queue, held, lease=0.6)
        worker.on("error", errors.append)
        async with worker:
            blocking = worker._waker._runner
            assert blocking._timeout <= 5  # seconds beyond the block itself
            blocking._timeout = 0.3
            first = await queue.add("n")
            assert await first.result(timeout=5) == "done"
            connects = blocking.connects
            server.freeze()
            try:
                await wait_until(
                    lambda: any(isinstance(event.error, TimeoutError) for event in errors), description="the time-out"
                )
            finally:
                server.thaw()
            job = await queue.add("n")
            assert await job.result(timeout=5) == "done"
            await wait_until(lambda: blocking.connects > connects, description="another connection")


async def test_closing_while_redis_is_frozen_ends(make_server: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 59: so it is with a server that keeps its connections and says nothing. (With less patience than it really has.)"""
    monkeypatch.setattr("eventq.worker._FLUSH_GRACE", 0.5)
    monkeypatch.setattr("eventq.reporter._PATIENCE", 0.5)
    server = make_server()
    queue = Queue("frozen", url=server.url)
    worker = Worker(queue, Held(), lease=1.5)
    await worker.start()
    server.freeze()
    async with at_most(4):
        await worker.close(grace=0)
        await queue.close()
    server.thaw()


def names_of(server: TestServer) -> list[str]:
    """Return the names of the connections a server has."""
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        return [row["name"] for row in client.client_list()]


async def test_everything_closed_leaves_no_connection(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """Case 59: after a queue and its worker are closed the server has no connection of ours."""
    server, held = make_server(), Held()
    held.go.set()
    async with Queue("gone", url=server.url) as queue:
        queue.on("completed", lambda event: None)
        async with Worker(queue, held, concurrency=20):
            job = await queue.add("n")
            await job.result(timeout=5)
            assert {"eventq", "eventq-add", "eventq-worker", "eventq-blocking", "eventq-events"} <= set(names_of(server))
    await wait_until(lambda: not any(names_of(server)), description="every connection to be closed")
