"""Acceptance cases 41 to 43: what is kept of finished jobs, and that nothing is left of the others."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, JobOptions, JobState, Keep, NewJob, Queue, QueueScheduler, Worker
from eventq.events import RemovedEvent
from eventq.options import Retention

from .recorder import Recorder, leftovers, settle_silently

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    import redis

    from tests.conftest import Clock, WaitUntil

#: Data above 1 KiB is kept in a column of its own.
LARGE = "x" * 2000


async def work(job: Job[Any, Any]) -> str:
    """Leave something in every column: progress, an error of the first attempt if there are two, a result."""
    await job.update_progress({"half": job.attempt})
    if job.name == "fails" or job.attempt < job.max_attempts:
        raise ValueError(LARGE)
    return LARGE


async def run_all(queue: Queue[Any, Any]) -> None:
    """Run what is in line, one at a time, so that one job finishes per call."""
    await Worker(queue, work, burst=True).run()


async def add(queue: Queue[Any, Any], amount: int, name: str = "works", **said: Any) -> list[str]:
    """Add jobs with data in a column of its own; returns their ids."""
    jobs = await queue.add_bulk([NewJob(name, LARGE, JobOptions(**said)) for _ in range(amount)])
    return [job.id for job in jobs]


async def kept(queue: Queue[Any, Any], state: JobState = JobState.COMPLETED) -> list[str]:
    """Return the ids of all finished jobs that are still there, oldest first."""
    found: list[str] = []
    while page := await queue.get_jobs(state, len(found), 500, ascending=True):
        found += [job.id for job in page]
    return found


def assert_gone(client: redis.Redis, queue: Queue[Any, Any], ids: Sequence[str]) -> None:
    """Check that no column knows any of these jobs."""
    assert {job_id: columns for job_id in ids if (columns := leftovers(client, queue, job_id))} == {}


@contextlib.asynccontextmanager
async def queue_with(
    rule: JobOptions, url: str, name: str, *, travels: bool
) -> AsyncGenerator[tuple[Queue[Any, Any], Queue[Any, Any]]]:
    """Give a queue with this rule, and one to add through: itself, so that the rule travels with the jobs, or a plain one.

    A rule that travels is carried out by any worker; the other is what a worker with this queue does with jobs that say nothing.
    """
    async with Queue(name, url=url, default_options=rule) as queue, Queue(name, url=url) as plain:
        yield queue, queue if travels else plain


@pytest.mark.parametrize("travels", [True, False])
@pytest.mark.parametrize("rule", [3, Keep(count=3), Keep(count=3, age=3600)])
async def test_the_newest_are_kept_and_nothing_of_the_others(
    url: str, queue_name: str, redis_client: redis.Redis, rule: Retention, travels: bool
) -> None:
    """Case 41: with keep 3 and 10 completions the newest 3 remain, and every column of the other 7 is clean."""
    said = JobOptions(remove_on_complete=rule)
    async with queue_with(said, url, queue_name, travels=travels) as (queue, adding), Recorder(queue) as recorder:
        ids = await add(adding, 10, attempts=2)
        await run_all(queue)
        assert await kept(queue) == ids[-3:]
        columns = leftovers(redis_client, queue, ids[-1]) - {"timers"}  # an age of its own is a timer
        assert columns == {"jobs", "data", "runs", "results", "progress", "completed"}
        assert_gone(redis_client, queue, ids[:-3])
        assert (await queue.get_job_counts())[JobState.COMPLETED] == 3
        removed = [job_id for event in await recorder.wait(RemovedEvent, 7) for job_id in event.job_ids]
        assert removed == ids[:-3]
        assert {(event.previous, event.reason) for event in recorder.of(RemovedEvent)} == {("completed", "retention")}


async def test_failed_jobs_have_a_rule_of_their_own(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 41: remove_on_fail keeps the newest failed jobs and leaves completed ones alone."""
    async with Queue(queue_name, url=url, default_options=JobOptions(remove_on_fail=2)) as queue:
        failing, working = await add(queue, 5, "fails"), await add(queue, 5)
        await run_all(queue)
        assert await kept(queue, JobState.FAILED) == failing[-2:]
        assert await kept(queue) == working
        assert_gone(redis_client, queue, failing[:-2])


@pytest.mark.parametrize("rule", [True, 0, Keep(count=0)])
async def test_nothing_is_kept_when_told_so(url: str, queue_name: str, redis_client: redis.Redis, rule: Retention) -> None:
    """Case 41: keep nothing leaves nothing, whether a job works or fails, retried or not."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        said: dict[str, Any] = {"remove_on_complete": rule, "remove_on_fail": rule, "attempts": 2}
        ids = await add(queue, 3, **said) + await add(queue, 3, "fails", **said)
        await run_all(queue)
        await recorder.wait(RemovedEvent, 6)
        assert_gone(redis_client, queue, ids)
        assert await queue.get_jobs(list(JobState)) == []


async def test_a_large_rule_is_kept_to_in_slices(url: str, queue_name: str) -> None:
    """Case 41: what is kept may exceed the count by 1 % (100 at most) before a slice goes: BullMQ removes one per completion.

    Removing in slices costs a tenth; the newest `count` are always there, and never more than 1 % beyond them.
    """
    async with Queue(queue_name, url=url, default_options=JobOptions(remove_on_complete=300)) as queue:
        seen: list[int] = []

        async def count(job: Job[Any, Any]) -> None:
            seen.append((await queue.get_job_counts())[JobState.COMPLETED])

        jobs = await queue.add_bulk([NewJob("n", number) for number in range(400)])
        await Worker(queue, count, burst=True).run()
        assert max(seen) == 303
        assert min(seen[301:]) >= 300
        assert 300 <= len(left := await kept(queue)) <= 303
        assert left == [job.id for job in jobs][-len(left) :]


async def test_old_jobs_go_when_another_finishes(url: str, queue_name: str, redis_client: redis.Redis, clock: Clock) -> None:
    """Case 42: what is older than the queue's age goes with the next finish; the younger stays; no column keeps a trace."""
    rule = JobOptions(remove_on_complete=Keep(age=60))
    async with queue_with(rule, url, queue_name, travels=False) as (queue, adding):
        old = await add(adding, 4, attempts=2)
        await run_all(queue)
        clock.advance(queue_name, 40)
        young = await add(adding, 2)
        await run_all(queue)
        assert await kept(queue) == old + young
        clock.advance(queue_name, 30)
        young += await add(adding, 1)
        await settle_silently(queue)
        assert await kept(queue) == young
        assert_gone(redis_client, queue, old)


@pytest.mark.parametrize("travels", [True, False])
async def test_age_and_count_hold_together(
    url: str, queue_name: str, redis_client: redis.Redis, clock: Clock, wait_until: WaitUntil, travels: bool
) -> None:
    """Case 42: with age and count both rules hold, whichever is stricter, with the next finish or within the second."""
    rule = JobOptions(remove_on_complete=Keep(age=60, count=3))
    async with queue_with(rule, url, queue_name, travels=travels) as (queue, adding):
        ids = await add(adding, 5)
        await run_all(queue)
        assert await kept(queue) == ids[-3:]
        clock.advance(queue_name, 61)
        last = await add(adding, 1)
        async with Worker(queue, work):

            async def is_last() -> bool:
                return await kept(queue) == last

            await wait_until(is_last, description="the old ones to go")
        assert_gone(redis_client, queue, ids)


async def test_one_finish_removes_a_bounded_slice(url: str, queue_name: str, clock: Clock) -> None:
    """Case 42: a finish removes at most 200 old jobs, so that no call ever pays for thousands; later ones go on.

    In BullMQ this limit is an option. Here it is fixed, and settling looks at ages once a second: what is left goes with a
    later finish or with the scheduler, neither of which runs in this test but by hand.
    """
    rule = JobOptions(remove_on_complete=Keep(age=60))
    async with queue_with(rule, url, queue_name, travels=False) as (queue, adding):
        await adding.add_bulk([NewJob("n", number) for number in range(450)])
        await Worker(queue, work, burst=True, concurrency=100).run()
        clock.advance(queue_name, 120)
        left: list[int] = []
        for _ in range(4):
            await adding.add("n")
            await settle_silently(queue)
            left.append((await queue.get_job_counts())[JobState.COMPLETED])
            clock.advance(queue_name, 1 if len(left) > 1 else 0)
        assert left == [251, 252, 53, 4]


async def test_age_rules_hold_on_an_idle_queue(
    url: str, queue_name: str, redis_client: redis.Redis, clock: Clock, wait_until: WaitUntil
) -> None:
    """Case 42: where nothing finishes any more the scheduler keeps to the age rules of queue and jobs, slice after slice.

    BullMQ removes by age only when another job finishes.
    """
    rule = JobOptions(remove_on_complete=Keep(age=60), remove_on_fail=Keep(age=60))
    async with queue_with(rule, url, queue_name, travels=False) as (queue, adding):
        by_queue = await add(adding, 260) + await add(adding, 3, "fails")
        by_queue += await add(queue, 10) + await add(queue, 3, "fails")
        own = await add(queue, 3, remove_on_complete=Keep(age=30)) + await add(queue, 3, "fails", remove_on_fail=Keep(age=30))
        longer = await add(queue, 3, remove_on_complete=Keep(age=300))
        await Worker(queue, work, burst=True, concurrency=100).run()
        assert len(await kept(queue)) == 276
        clock.advance(queue_name, 61)
        async with QueueScheduler(queue):

            async def is_clean() -> bool:
                return len(await kept(queue)) + len(await kept(queue, JobState.FAILED)) == 3

            await wait_until(is_clean, description="everything old to go")
        assert_gone(redis_client, queue, by_queue[::20] + by_queue[-17:] + own)
        assert sorted(await kept(queue)) == sorted(longer)


async def test_a_jobs_own_rule_wins(url: str, queue_name: str, redis_client: redis.Redis, clock: Clock) -> None:
    """Case 43: a job that says what is to become of it is not removed, or kept, by its queue's rule."""
    rule = JobOptions(remove_on_complete=Keep(count=2, age=60))
    async with queue_with(rule, url, queue_name, travels=False) as (queue, adding):
        forever = await add(queue, 1, remove_on_complete=False)
        for_an_hour = await add(queue, 1, remove_on_complete=Keep(age=3600))
        at_once = await add(queue, 1, remove_on_complete=True)
        by_queue = await add(adding, 5)
        await run_all(queue)
        assert await kept(queue) == forever + for_an_hour + by_queue[-2:]
        assert_gone(redis_client, queue, at_once + by_queue[:-2])

        clock.advance(queue_name, 3590)
        later = await add(adding, 1)
        await settle_silently(queue)
        clock.advance(queue_name, 2)
        later += await add(adding, 1)
        await settle_silently(queue)
        assert await kept(queue) == forever + for_an_hour + later
        clock.advance(queue_name, 20)
        async with Recorder(queue) as recorder, QueueScheduler(queue):
            await recorder.wait(RemovedEvent)
        assert await kept(queue) == forever + later
        assert_gone(redis_client, queue, for_an_hour)


async def test_a_jobs_own_count_wins(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 43: a job's own count replaces the queue's when it finishes, smaller or larger, as in BullMQ."""
    async with queue_with(JobOptions(remove_on_complete=5), url, queue_name, travels=False) as (queue, adding):
        ids = await add(adding, 4) + await add(queue, 1, remove_on_complete=2)
        await run_all(queue)
        assert await kept(queue) == ids[-2:]
        assert_gone(redis_client, queue, ids[:-2])

        ids = ids[-2:] + await add(queue, 10, remove_on_complete=50)
        await run_all(queue)
        assert await kept(queue) == ids
        # A job without a rule of its own brings the queue's back.
        ids += await add(adding, 1)
        await run_all(queue)
        assert await kept(queue) == ids[-5:]
