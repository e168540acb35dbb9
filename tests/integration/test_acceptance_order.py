"""Acceptance cases 1 to 9: in which order jobs run, and how soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, JobState, NewJob, Queue, Worker
from eventq.errors import InvalidJob
from eventq.events import ActiveEvent, AddedEvent, CompletedEvent
from eventq.limits import MAX_PRIORITY
from eventq.options import JobOptions

from .recorder import Recorder

if TYPE_CHECKING:
    import redis

    from tests.conftest import Clock

Processor = Callable[[Job[Any, Any]], Any]

#: A worker that polled would answer after its poll interval: seconds. One that is woken answers within a few ms.
AT_ONCE = 0.5


async def run_all(queue: Queue[Any, Any]) -> list[Any]:
    """Run what is in line, one at a time, and return the data of each job in the order they ran."""
    order: list[Any] = []

    async def note(job: Job[Any, Any]) -> None:
        order.append(job.data)

    await Worker(queue, note, burst=True).run()
    return order


async def test_jobs_run_in_the_order_they_were_added(url: str, queue_name: str) -> None:
    """Case 1: three jobs added before any worker run in insertion order."""
    async with Queue(queue_name, url=url) as queue:
        for number in (1, 2, 3):
            await queue.add("n", number)
        assert await run_all(queue) == [1, 2, 3]


async def test_lifo_jobs_run_before_others_the_last_added_first(url: str, queue_name: str) -> None:
    """Case 2: with lifo jobs behind normal ones, the last one added runs first."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add_bulk([NewJob("n", "first"), NewJob("n", "second")])
        await queue.add("n", "lifo 1", lifo=True)
        await queue.add_bulk([NewJob("n", "lifo 2", JobOptions(lifo=True)), NewJob("n", "lifo 3", JobOptions(lifo=True))])
        assert await run_all(queue) == ["lifo 3", "lifo 2", "lifo 1", "first", "second"]


async def test_no_priority_runs_before_priority_one(url: str, queue_name: str) -> None:
    """Case 3: priorities 3, 1, 2 and a job with none run as none, 1, 2, 3. As in BullMQ, no priority (0) is the best."""
    async with Queue(queue_name, url=url) as queue:
        for priority in (3, 1, 2, None):
            await queue.add("n", priority, priority=priority)
        assert await run_all(queue) == [None, 1, 2, 3]


@pytest.mark.parametrize("priority", [1, 7, MAX_PRIORITY])
async def test_equal_priorities_keep_their_order(url: str, queue_name: str, priority: int) -> None:
    """Case 4: many jobs of one priority, the largest included, run first in, first out."""
    async with Queue(queue_name, url=url) as queue:
        numbers = list(range(150))
        await queue.add_bulk([NewJob("n", number, JobOptions(priority=priority)) for number in numbers[:120]])
        for number in numbers[120:]:
            await queue.add("n", number, priority=priority)
        assert await run_all(queue) == numbers


@pytest.mark.parametrize("priority", [MAX_PRIORITY + 1, -1, 1.0, 2.5, True, "1"])
async def test_a_priority_that_cannot_be_ordered_is_refused_at_add(url: str, queue_name: str, priority: Any) -> None:
    """Case 4: a priority above the maximum or one that is no whole number is refused at add, and nothing is stored."""
    async with Queue(queue_name, url=url) as queue:
        with pytest.raises(InvalidJob, match="priority"):
            await queue.add("n", priority=priority)
        assert await queue.count() == 0


async def test_a_high_counter_changes_no_order(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 5: with a counter of billions behind it, a queue still runs new prioritized jobs in the right order.

    A place is priority * 2**32 + counter, exact in a double. The counter wraps after 2**32 prioritized jobs: priorities
    hold even then; only equals on either side of that one moment change places.
    """
    async with Queue(queue_name, url=url) as queue:
        redis_client.hset(queue.context.keys["meta"], "counter", 2**32 - 31)
        for number in range(10):
            for priority in (2, 1, MAX_PRIORITY):
                await queue.add("n", (priority, number), priority=priority)
        assert int(redis_client.hget(queue.context.keys["meta"], "counter") or 0) == 2**32 - 1
        expected = [[priority, number] for priority in (1, 2, MAX_PRIORITY) for number in range(10)]
        assert await run_all(queue) == expected

        redis_client.hset(queue.context.keys["meta"], "counter", 2**32 - 2)
        for priority in (3, 2, 1, 3, 2, 1):
            await queue.add("n", priority, priority=priority)
        assert await run_all(queue) == [1, 1, 2, 2, 3, 3]


async def test_an_idle_worker_with_a_far_delayed_job_runs_a_new_one_at_once(url: str, queue_name: str) -> None:
    """Case 6: a worker that sleeps until a job far away is due is woken by a job that is ready now."""
    ran: list[str] = []

    async def note(job: Job[Any, Any]) -> None:
        ran.append(job.data)

    async with Queue(queue_name, url=url) as queue:
        await queue.add("far", "far", delay=3600)
        async with Worker(queue, note, lease=30) as worker, Recorder(queue) as recorder:
            for _ in range(5):
                job = await queue.add("near", "near")
                await job.result(timeout=5)
                assert worker.running == 0
            await recorder.catch_up()
            waits = [event.waited for event in recorder.of(ActiveEvent)]
        assert ran == ["near"] * 5
        assert max(waits) < AT_ONCE


async def test_a_job_added_as_the_last_one_finishes_starts_at_once(url: str, queue_name: str) -> None:
    """Case 7: a prioritized job added at the instant the last active job finishes is not left to a poll."""
    adding: set[asyncio.Task[Any]] = set()

    async with Queue(queue_name, url=url) as queue:

        async def add_another(job: Job[Any, Any]) -> None:
            if job.data:
                # On its way as this job's outcome is: over another connection, in no particular order.
                adding.add(asyncio.create_task(queue.add("n", job.data - 1, priority=1)))
                for _ in range(job.data % 4):
                    await asyncio.sleep(0)

        async with Recorder(queue) as recorder, Worker(queue, add_another, lease=30):
            await queue.add("n", 60, priority=1)
            await recorder.wait(CompletedEvent, 61)
            waits = [event.waited for event in recorder.of(ActiveEvent)]
        await asyncio.wait(adding)
        assert max(waits) < AT_ONCE


async def test_jobs_due_in_the_same_ms_run_in_the_order_they_were_added(url: str, queue_name: str, clock: Clock) -> None:
    """Case 8: delayed jobs with one due time run first in, first out, whatever their ids."""
    async with Queue(queue_name, url=url) as queue:
        at = datetime.now(UTC) + timedelta(seconds=60)
        ids = [f"job-{999 - number}" for number in range(150)]
        await queue.add_bulk([NewJob("n", job_id, JobOptions(at=at, job_id=job_id)) for job_id in ids])
        assert (await queue.get_job_counts())[JobState.DELAYED] == 150
        clock.advance(queue_name, 61)
        assert await run_all(queue) == ids


async def test_thousands_of_jobs_due_in_the_same_ms_keep_their_order(url: str, queue_name: str, clock: Clock) -> None:
    """Case 8: so do more jobs than one ms has places for, when their ids are ours: those rise with time."""
    async with Queue(queue_name, url=url) as queue:
        at = datetime.now(UTC) + timedelta(seconds=60)
        await queue.add_bulk([NewJob("n", number, JobOptions(at=at)) for number in range(1500)])
        clock.advance(queue_name, 61)
        assert await run_all(queue) == list(range(1500))


@pytest.mark.parametrize("workers", [1, 3])
async def test_delayed_jobs_run_when_they_are_due(url: str, queue_name: str, workers: int) -> None:
    """Case 9: delays of 500, 100 and 300 ms complete in the order they are due, each soon after, with one or many workers."""

    async def nothing(job: Job[Any, Any]) -> None:
        assert job.data

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(Worker(queue, nothing, lease=30))
        for delay in (0.5, 0.1, 0.3):
            await queue.add(f"after {delay}", delay, delay=delay)
        completed = await recorder.wait(CompletedEvent, 3)
        assert [event.name for event in completed] == ["after 0.1", "after 0.3", "after 0.5"]
        due = {event.job_id: event.due_ms for event in recorder.of(AddedEvent)}
        late = [(event.ms - due[event.job_id]) / 1000 for event in recorder.of(ActiveEvent)]
        assert all(0 <= seconds < AT_ONCE for seconds in late), late
