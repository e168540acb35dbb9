"""Wake-ups: an idle worker starts work at once, and no wake-up that gets lost costs more than about a second."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis

from eventq import Job, JobState, NewJob, Queue, Worker

from .recorder import PATIENCE

if TYPE_CHECKING:
    from ..conftest import WaitUntil
    from ..servers import TestServer

#: Seconds within which a job starts whose wake-up went to somebody who passed it on, and whose was lost for good.
AT_ONCE, ABOUT_A_SECOND = 0.5, 1.5


class Clocked:
    """An async processor that notes when each job started, by its data, and holds those it is told to."""

    def __init__(self) -> None:
        self.started: dict[Any, float] = {}
        self.gate = asyncio.Event()

    async def process(self, job: Job[Any]) -> None:
        """Note a job."""
        self.started[job.data] = time.monotonic()
        if job.name == "hold":
            await self.gate.wait()


class Thief:
    """A client that blocks on the marker before everybody else, takes it, and does nothing with it."""

    def __init__(self, server: TestServer, queue: Queue[Any, Any]) -> None:
        self._client = redis.Redis(host="127.0.0.1", port=server.node_of(queue.name).port, decode_responses=True)
        self._key = queue.context.keys["marker"]
        self.taken: list[str] = []
        self._thread = threading.Thread(target=self._steal)
        self._thread.start()

    def _steal(self) -> None:
        popped = cast("Any", self._client.bzpopmin(self._key, timeout=20))
        self.taken += [popped[1]] if popped else []

    def is_blocked(self) -> bool:
        """Return whether it waits."""
        return any(client["cmd"] == "bzpopmin" and not client["name"] for client in self._client.client_list())

    def join(self) -> list[str]:
        """Return what it took."""
        self._thread.join(PATIENCE)
        self._client.close()
        return self.taken


def blocked(client: redis.Redis) -> int:
    """Return how many of our workers are blocked on a marker."""
    return sum(each["name"] == "eventq-blocking" and "b" in each["flags"] for each in client.client_list())


async def test_a_marker_that_is_swallowed_costs_a_second(
    server: TestServer, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """Two workers are blocked when a stranger pops the marker and is never heard of again: the job starts all the same."""
    clocked = Clocked()
    async with Queue(queue_name, url=server.url) as queue:
        thief = Thief(server, queue)
        await wait_until(thief.is_blocked)
        async with Worker(queue, clocked.process), Worker(queue, clocked.process):
            await wait_until(lambda: blocked(redis_client) == 2, description="both workers are blocked")
            added = time.monotonic()
            await queue.add("j", 1)
            await wait_until(lambda: clocked.started)
        assert 1 == len(thief.join())
    assert clocked.started[1] - added < ABOUT_A_SECOND


async def test_a_worker_without_a_free_slot_passes_the_wake_up_on(
    server: TestServer, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """A worker that became busy while it was blocked pops the next marker and puts it back: the other worker starts at once."""
    clocked = Clocked()
    async with Queue(queue_name, url=server.url) as queue:
        thief = Thief(server, queue)
        await wait_until(thief.is_blocked)
        async with Worker(queue, clocked.process) as busy:
            await wait_until(lambda: blocked(redis_client) == 1)
            async with Worker(queue, clocked.process):
                await wait_until(lambda: blocked(redis_client) == 2)
                await queue.add("hold", "first")
                busy._lanes.look()
                await wait_until(lambda: busy.running == 1)
                assert 2 == blocked(redis_client) and thief.join()
                added = time.monotonic()
                await queue.add("j", "second")
                await wait_until(lambda: "second" in clocked.started)
                clocked.gate.set()
    assert clocked.started["second"] - added < AT_ONCE


async def test_a_paused_worker_passes_the_wake_up_on(
    server: TestServer, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """A worker that was paused while it was blocked does not swallow the marker."""
    clocked = Clocked()
    async with Queue(queue_name, url=server.url) as queue, Worker(queue, clocked.process) as paused:
        await wait_until(lambda: blocked(redis_client) == 1)
        async with Worker(queue, clocked.process):
            await wait_until(lambda: blocked(redis_client) == 2)
            await paused.pause()
            added = time.monotonic()
            await queue.add("j", 1)
            await wait_until(lambda: clocked.started)
    assert clocked.started[1] - added < AT_ONCE


async def test_a_bulk_add_wakes_several_workers(
    url: str, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """Four idle workers with a slot each all take one of four jobs that must run at the same time."""
    together = asyncio.Barrier(4)

    async def process(_: Job[Any]) -> None:
        await together.wait()

    async with Queue(queue_name, url=url) as queue:
        workers = [Worker(queue, process) for _ in range(4)]
        for worker in workers:
            await worker.start()
        await wait_until(lambda: blocked(redis_client) == 4)
        jobs = await queue.add_bulk([NewJob("j", number) for number in range(4)])
        async with asyncio.timeout(ABOUT_A_SECOND):
            for job in jobs:
                await job.result()
        for worker in workers:
            await worker.close()


async def test_a_worker_that_sleeps_long_wakes_for_what_is_due_before(
    url: str, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """Blocked for five seconds with a job due in an hour, it learns of one due in a fifth of a second."""
    clocked = Clocked()
    async with Queue(queue_name, url=url) as queue:
        await queue.add("j", "in an hour", delay=3600)
        async with Worker(queue, clocked.process, lease=60):
            await wait_until(lambda: blocked(redis_client) == 1)
            added = time.monotonic()
            await queue.add("j", "soon", delay=0.2)
            await wait_until(lambda: "soon" in clocked.started)
        assert 1 == (await queue.get_job_counts())[JobState.DELAYED]
    assert 0.19 <= clocked.started["soon"] - added < 0.2 + AT_ONCE


@pytest.mark.parametrize("jobs", [300, pytest.param(1000, marks=pytest.mark.full)])
async def test_a_job_added_to_an_idle_queue_starts_within_50_ms(url: str, queue_name: str, jobs: int) -> None:
    """From before `add` to the first line of the processor: the slowest of a hundred takes 50 ms at most."""
    clocked = Clocked()
    took: list[float] = []
    async with Queue(queue_name, url=url) as queue, Worker(queue, clocked.process) as worker:
        for number in range(jobs):
            added = time.monotonic()
            job = await queue.add("j", number)
            await job.result(PATIENCE)
            took.append(clocked.started[number] - added)
        assert 0 == worker.running
    took.sort()
    assert took[int(jobs * 0.99) - 1] <= 0.050, (
        f"p50 {took[jobs // 2] * 1000:.1f} ms, p99 {took[int(jobs * 0.99) - 1] * 1000:.1f} ms"
    )
