"""Reading a queue: jobs, states, counts, progress, and waiting for outcomes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Backoff, Job, JobOptions, JobState, Keep, NewJob, Queue, Worker
from eventq.errors import ConfigurationError, EventqError, InvalidJob, InvalidState, JobFailed, JobNotFound
from eventq.events import ActiveEvent, CompletedEvent, FailedEvent, ProgressEvent

from .recorder import Recorder, claim_silently

if TYPE_CHECKING:
    import redis

    from tests.conftest import Clock, WaitUntil


async def work(job: Job[Any, Any]) -> Any:
    """Return the job's data, or fail by name."""
    if job.name == "fails":
        raise ValueError(f"no {job.data}")
    return job.data


async def run_all(queue: Queue[Any, Any], concurrency: int = 1) -> None:
    """Run what is in line."""
    await Worker(queue, work, burst=True, concurrency=concurrency).run()


def ids_of(jobs: list[Job[Any, Any]]) -> list[str]:
    """Return the ids of jobs."""
    return [job.id for job in jobs]


async def test_a_job_reads_as_it_was_added(url: str, queue_name: str) -> None:
    """get_job gives back what add was told, and what Redis' clock said; None for an id that is not there."""
    began = datetime.now(UTC)
    async with Queue(queue_name, url=url) as queue:
        data = {"text": "Grüße 🎉 \u0000 \t\n", "list": [1, 2.5, None, True], "large": "x" * 5000}
        added = await queue.add(
            "an: odd/name 1.0",
            data,
            attempts=4,
            priority=3,
            backoff=Backoff.exponential(1, jitter=0.5),
            timeout=9,
            job_id="own.id-1",
        )
        job = await queue.get_job("own.id-1")
        assert job is not None
        for each in (added, job):
            assert (each.id, each.name, each.data, each.queue) == ("own.id-1", "an: odd/name 1.0", data, queue_name)
            assert (each.attempt, each.max_attempts, each.priority, each.fence, each.progress) == (1, 4, 3, 0, None)
            assert (each.started_at, each.finished_at) == (None, None)
        assert added.added_at == job.added_at
        assert abs(job.added_at - began) < timedelta(seconds=5)
        assert job.record.spec.backoff == Backoff.exponential(1, jitter=0.5)
        assert await queue.get_job("missing") is None
        with pytest.raises(InvalidJob, match="job_id"):
            await queue.get_job("spaces are no id")


async def test_ids_rise_with_time(url: str, queue_name: str) -> None:
    """Ids made by eventq are 20 characters of 0-9a-z that sort in the order the jobs were added."""
    async with Queue(queue_name, url=url) as queue:
        ids = [(await queue.add("n")).id for _ in range(20)] + ids_of(await queue.add_bulk([NewJob("n", 1)] * 500))
        assert ids == sorted(set(ids))
        assert all(len(job_id) == 20 and job_id.isalnum() and job_id == job_id.lower() for job_id in ids)


async def test_the_state_follows_the_job(url: str, queue_name: str, clock: Clock) -> None:
    """get_state of queue and job agree, in every state; a job that is gone is JobNotFound."""
    async with Queue(queue_name, url=url) as queue:

        async def state(job: Job[Any, Any]) -> JobState:
            told = await job.get_state()
            assert await queue.get_state(job.id) is told
            return told

        plain = await queue.add("n")
        assert await state(plain) is JobState.WAITING
        await queue.pause()
        assert await state(plain) is JobState.PAUSED
        await queue.resume()
        await claim_silently(queue)
        assert await state(plain) is JobState.ACTIVE
        assert await state(await queue.add("n", priority=9)) is JobState.PRIORITIZED
        delayed = await queue.add("fails", delay=60)
        assert await state(delayed) is JobState.DELAYED
        clock.advance(queue_name, 61)
        assert await state(delayed) is JobState.DELAYED
        await run_all(queue)
        assert await state(delayed) is JobState.FAILED
        done = await queue.add("n")
        await run_all(queue)
        assert await state(done) is JobState.COMPLETED
        await done.remove()
        for read in (done.get_state(), queue.get_state(done.id)):
            with pytest.raises(JobNotFound, match=done.id) as caught:
                await read
            assert (caught.value.queue, caught.value.job_id) == (queue_name, done.id)


async def test_pages_of_waiting_jobs(url: str, queue_name: str) -> None:
    """get_jobs pages through the line: ascending is the order they will run in, descending the reverse; lifo jobs are first."""
    async with Queue(queue_name, url=url) as queue:
        line = ids_of(await queue.add_bulk([NewJob("n", number) for number in range(1200)]))
        line = [(await queue.add("n", lifo=True)).id, *line]
        found: list[str] = []
        while page := await queue.get_jobs("waiting", start=len(found), limit=500, ascending=True):
            found += ids_of(page)
        assert found == line
        assert ids_of(await queue.get_jobs(JobState.WAITING, limit=3)) == line[:-4:-1]
        assert ids_of(await queue.get_jobs("waiting", start=1190)) == line[10::-1]
        assert await queue.get_jobs("waiting", start=1201) == []
        assert [job.data for job in await queue.get_jobs("waiting", start=1, limit=2, ascending=True)] == [0, 1]


async def test_pages_pass_over_removed_jobs(url: str, queue_name: str) -> None:
    """A removed waiting job leaves no empty place in a page, in either direction."""
    async with Queue(queue_name, url=url) as queue:
        jobs = await queue.add_bulk([NewJob("n", number) for number in range(60)])
        for job in jobs[::3]:
            await job.remove()
        left = [job.id for index, job in enumerate(jobs) if index % 3]
        assert ids_of(await queue.get_jobs("waiting", ascending=True)) == left
        assert ids_of(await queue.get_jobs("waiting")) == left[::-1]
        assert ids_of(await queue.get_jobs("waiting", start=10, limit=5, ascending=True)) == left[10:15]
        assert ids_of(await queue.get_jobs("waiting", start=10, limit=5)) == left[::-1][10:15]
        assert (await queue.get_job_counts())[JobState.WAITING] == await queue.count() == 40


async def test_pages_of_finished_jobs(url: str, queue_name: str) -> None:
    """Finished jobs come newest first, or oldest first, by when they finished; a rule of their own changes nothing in that."""
    async with Queue(queue_name, url=url) as queue:
        options = [None, JobOptions(remove_on_complete=Keep(age=60)), JobOptions(remove_on_complete=False)]
        jobs = await queue.add_bulk([NewJob("n", number, options[number % 3]) for number in range(30)])
        seen: list[str] = []
        queue.on("completed", lambda event: seen.append(event.job_id))
        async with Recorder(queue) as recorder:
            await run_all(queue)
            finished = [event.job_id for event in await recorder.wait(CompletedEvent, 30)]
        by_time = {job_id: event.ms for job_id, event in zip(finished, recorder.of(CompletedEvent), strict=True)}
        ascending = ids_of(await queue.get_jobs("completed", ascending=True))
        assert sorted(ascending) == sorted(job.id for job in jobs)
        assert [by_time[job_id] for job_id in ascending] == sorted(by_time.values())
        descending = ids_of(await queue.get_jobs("completed"))
        assert [by_time[job_id] for job_id in descending] == sorted(by_time.values(), reverse=True)
        pages = [await queue.get_jobs("completed", start, 7) for start in range(0, 30, 7)]
        assert [job.id for page in pages for job in page] == descending


async def test_pages_by_state(url: str, queue_name: str) -> None:
    """Several states come in the order asked, a page of each; prioritized and delayed ones in their own order."""
    async with Queue(queue_name, url=url) as queue:
        failed = await queue.add("fails")
        await run_all(queue)
        prioritized = [await queue.add("n", priority=priority) for priority in (5, 1, 3)]
        delayed = [await queue.add("n", delay=delay) for delay in (50, 10, 30)]
        await queue.add_bulk([NewJob("n", 1)] * 2)
        active = await claim_silently(queue)
        by_priority, by_due = ids_of([prioritized[i] for i in (1, 2, 0)]), ids_of([delayed[i] for i in (1, 2, 0)])
        assert ids_of(await queue.get_jobs("prioritized", ascending=True)) == by_priority
        assert ids_of(await queue.get_jobs("delayed", ascending=True)) == by_due
        assert ids_of(await queue.get_jobs(["delayed", "active", "failed"], limit=2, ascending=True)) == [
            *by_due[:2],
            active[0].id,
            failed.id,
        ]
        assert await queue.get_jobs([]) == []
        assert await queue.get_jobs("waiting_children") == []
        counts = await queue.get_job_counts()
        assert {state.value: number for state, number in counts.items() if number} == {
            "waiting": 1, "prioritized": 3, "delayed": 3, "active": 1, "failed": 1,
        }  # fmt: skip
        assert set(counts) == set(JobState)
        assert await queue.count() == 7


async def test_paused_jobs_are_the_waiting_ones(url: str, queue_name: str) -> None:
    """In a paused queue waiting jobs are counted and listed as paused, and as waiting no more; the others stay what they are."""
    async with Queue(queue_name, url=url) as queue:
        waiting, delayed = await queue.add("n"), await queue.add("n", delay=60)
        assert await queue.get_jobs("paused") == []
        await queue.pause()
        assert await queue.get_jobs("waiting") == []
        assert ids_of(await queue.get_jobs(["paused", "delayed"])) == [waiting.id, delayed.id]
        counts = await queue.get_job_counts()
        assert (counts[JobState.PAUSED], counts[JobState.WAITING], counts[JobState.DELAYED]) == (1, 0, 1)
        assert await queue.count() == 2


@pytest.mark.parametrize(
    ("states", "start", "limit"),
    [("running", 0, 10), (["waiting", "wait"], 0, 10), ("waiting", -1, 10), ("waiting", 0, 0), ("waiting", 0, 501)],
)
async def test_an_impossible_page_is_refused(url: str, queue_name: str, states: Any, start: int, limit: int) -> None:
    """Unknown states and pages that cannot be are errors, not empty lists."""
    async with Queue(queue_name, url=url) as queue:
        with pytest.raises(ConfigurationError):
            await queue.get_jobs(states, start, limit)


async def test_an_empty_queue_reads_as_empty(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Reading a queue nobody has used gives zeros, and writes nothing."""
    async with Queue(queue_name, url=url) as queue:
        assert set((await queue.get_job_counts()).values()) == {0}
        assert await queue.count() == 0
        assert await queue.get_jobs(list(JobState)) == []
        assert not await queue.is_paused()
        assert list(redis_client.scan_iter(match=f"*{{{queue_name}}}*")) == []


@pytest.mark.parametrize("progress", [0, 42, 99.5, {"step": 3, "of": {"many": [1, "two"]}}, {}])
async def test_progress_is_a_number_or_an_object(url: str, queue_name: str, progress: Any) -> None:
    """Progress reads back as reported, by everybody: the job itself, who looks it up, and listeners."""
    own: list[Any] = []

    async def report(job: Job[Any, Any]) -> None:
        await job.update_progress(progress)
        own.append(job.progress)

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, report):
        job = await queue.add("n")
        assert job.progress is None
        await job.result(timeout=5)
        stored = await queue.get_job(job.id)
        assert stored is not None
        (event,) = await recorder.wait(ProgressEvent)
        assert [own, stored.progress, event.progress] == [[progress], progress, progress]
        assert (event.job_id, event.name, event.attempt) == (job.id, "n", 1)


async def test_the_latest_progress_wins(url: str, queue_name: str) -> None:
    """A thousand reports in a moment are a few writes: the last one is stored, before the outcome, and told in order."""

    async def report(job: Job[Any, Any]) -> None:
        for number in range(1000):
            await job.update_progress(number)
            if number % 100 == 0:
                await asyncio.sleep(0)

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, report):
        job = await queue.add("n")
        await job.result(timeout=5)
        await recorder.catch_up()
        told = [event.progress for event in recorder.of(ProgressEvent)]
        assert told[-1] == 999 and told == sorted(told) and len(told) <= 10
        assert recorder.kinds(job.id)[-2:] == ["progress", "completed"]
        assert (await queue.context.require(job.id)).progress == "999"


async def test_progress_that_is_refused(url: str, queue_name: str) -> None:
    """What is neither number nor object, or too large, is refused in the processor; outside of one there is nothing to report."""
    refused: list[Any] = []

    async def report(job: Job[Any, Any]) -> None:
        bad: list[Any] = ["half", True, None, [1], {"x": object()}, {"x": "y" * 20_000}]
        for progress in bad:
            with pytest.raises(InvalidJob, match="progress"):
                await job.update_progress(progress)
            refused.append(progress)

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, report):
        job = await queue.add("n")
        await job.result(timeout=5)
        await recorder.catch_up()
        assert len(refused) == 6 and recorder.counts()["progress"] == 0
        with pytest.raises(InvalidState, match="processor"):
            await job.update_progress(1)


@pytest.mark.parametrize("result", [None, 0, False, "", "text", [], {"a": [1, 2.5, None]}, "x" * 1022, "x" * 1023, "x" * 60_000])
async def test_results_arrive_whatever_their_size(url: str, queue_name: str, result: Any) -> None:
    """result() returns what the processor returned: small ones come with the event, large ones are fetched."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, work):
        job = await queue.add("n", result)
        assert await job.result(timeout=5) == result
        (event,) = await recorder.wait(CompletedEvent)
        small = result is None or len(str(result)) <= 1022
        assert (event.result, event.result_omitted) == ((result, False) if small else (None, True))
        # Afterwards too, and through another job object.
        assert await job.result(timeout=5) == result
        again = await queue.get_job(job.id)
        assert again is not None and await again.result() == result


async def test_many_wait_for_one_result(url: str, queue_name: str) -> None:
    """Any number of callers wait for one job, and for many; each gets its own."""
    async with Queue(queue_name, url=url) as queue:
        jobs = await queue.add_bulk([NewJob("n", number) for number in range(200)])
        waiting = [asyncio.create_task(job.result(timeout=10)) for job in [*jobs, *jobs]]
        async with Worker(queue, work, concurrency=50):
            assert await asyncio.gather(*waiting) == [*range(200), *range(200)]


async def test_a_failed_job_raises_its_error(url: str, queue_name: str) -> None:
    """result() of a failed job raises JobFailed with the error's type, message and traceback, waited for or looked up."""
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("fails", "luck", attempts=2)
        waiting = asyncio.create_task(job.result(timeout=5))
        await asyncio.sleep(0)
        async with Worker(queue, work):
            with pytest.raises(JobFailed) as waited:
                await waiting
        with pytest.raises(JobFailed) as looked_up:
            await job.result(timeout=5)
        for error in (waited.value, looked_up.value):
            assert (error.queue, error.job_id, error.type, error.reason) == (queue_name, job.id, "ValueError", "no luck")
            assert str(error) == f"job {job.id!r} failed: ValueError: no luck"
            assert "raise ValueError(" in error.traceback


async def test_a_failed_job_that_is_gone_still_raises_its_error(url: str, queue_name: str) -> None:
    """With remove_on_fail the job is gone with its outcome; whoever waited has the error's type and message all the same."""
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("fails", "luck", remove_on_fail=True)
        async with Recorder(queue) as recorder:
            waiting = asyncio.create_task(job.result(timeout=5))
            await queue.ready()
            await run_all(queue)
            await recorder.wait(FailedEvent)
            with pytest.raises(JobFailed, match="no luck"):
                await waiting
        with pytest.raises(JobNotFound):
            await job.result(timeout=5)


async def test_waiting_ends_with_its_timeout(url: str, queue_name: str) -> None:
    """result(timeout) raises TimeoutError naming the job, whose fate does not change; others go on waiting."""
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("n", "in time")
        patient = asyncio.create_task(job.result(timeout=5))
        with pytest.raises(TimeoutError, match=f"{job.id}.*0.05 seconds"):
            await job.result(timeout=0.05)
        assert await job.get_state() is JobState.WAITING
        async with Worker(queue, work):
            assert await patient == "in time"


async def test_waiting_for_a_removed_job_ends(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """result() of a job that is removed before it ran raises JobNotFound, at once or when it happens."""
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("n")
        waiting = asyncio.create_task(job.result(timeout=5))
        await wait_until(lambda: queue._listener._waiters, description="the wait")
        await job.remove()
        with pytest.raises(JobNotFound, match=job.id):
            await waiting
        with pytest.raises(JobNotFound, match=job.id):
            await job.result(timeout=5)
        with pytest.raises(JobNotFound, match=job.id):
            await job.remove()


async def test_a_result_that_is_not_kept_still_arrives(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """With remove_on_complete whoever waits has the result from the event; one too large for it is lost, which is an error."""
    queue: Queue[Any, Any] = Queue(queue_name, url=url, default_options=JobOptions(remove_on_complete=True))
    async with queue, Worker(queue, work) as worker:
        await worker.pause()
        small, large = await queue.add("n", "small"), await queue.add("n", "x" * 2000)
        waiting = [asyncio.create_task(job.result(timeout=5)) for job in (small, large)]
        await wait_until(lambda: len(queue._listener._waiters) == 2, description="two waits")
        worker.resume()
        assert await waiting[0] == "small"
        with pytest.raises(JobNotFound, match=large.id):
            await waiting[1]


async def test_a_retried_job_has_another_outcome(url: str, queue_name: str) -> None:
    """After retry() result waits for the new outcome, and does not answer with the old one."""
    fail = [True, False]

    async def flip(job: Job[Any, Any]) -> str:
        if fail.pop(0):
            raise ValueError
        return "well"

    async with Queue(queue_name, url=url) as queue, Worker(queue, flip):
        job = await queue.add("n")
        with pytest.raises(JobFailed):
            await job.result(timeout=5)
        await job.retry()
        assert await job.result(timeout=5) == "well"


async def test_an_id_used_again_is_another_job(url: str, queue_name: str) -> None:
    """result() waits for the job that has the id now: what is told late of one that had it before is not its outcome."""
    async with Queue(queue_name, url=url) as queue, Worker(queue, work):
        for number in range(60):
            job = await queue.add("n", number, job_id="again")
            assert await job.result(timeout=5) == number
            await job.remove()


async def test_a_processor_cannot_wait_for_itself(url: str, queue_name: str) -> None:
    """A processor's own job object has no result to wait for: an error at once instead of a dead lock."""

    async def wait(job: Job[Any, Any]) -> None:
        with pytest.raises(InvalidState, match="its own result"):
            await job.result()

    async with Queue(queue_name, url=url) as queue, Worker(queue, wait):
        await (await queue.add("n")).result(timeout=5)


async def test_closing_tells_who_waits(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Closing the queue ends every wait for a result with an error that says so."""
    queue: Queue[Any, Any] = Queue(queue_name, url=url)
    job = await queue.add("n")
    waiting = asyncio.create_task(job.result())
    await wait_until(lambda: queue._listener._waiters, description="the wait")
    await queue.close()
    with pytest.raises(EventqError, match="closed"):
        await waiting


async def test_jobs_know_their_runs(url: str, queue_name: str) -> None:
    """A processor's job says attempt, fence and times of its run; fences rise with every run of any job of the queue."""
    seen: list[tuple[int, int]] = []

    async def note(job: Job[Any, Any]) -> None:
        assert job.started_at is not None and job.added_at <= job.started_at
        seen.append((job.attempt, job.fence))
        if job.attempt == 1:
            raise ValueError

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, note):
        # In one call: the first one would else be done with both attempts before the second one is there.
        first, second = await queue.add_bulk([NewJob("n", None, JobOptions(attempts=2)) for _ in range(2)])
        await recorder.wait(CompletedEvent, 2)
        assert [attempt for attempt, _ in seen] == [1, 1, 2, 2]
        fences = [fence for _, fence in seen]
        assert fences == sorted(set(fences)) == [event.seq for event in recorder.of(ActiveEvent)]
        for job in (first, second):
            stored = await queue.get_job(job.id)
            assert stored is not None and stored.started_at and stored.finished_at
            assert (stored.attempt, stored.run.starts, stored.run.fails) == (2, 2, 1)


async def test_a_job_that_is_looked_up_says_why_it_failed(url: str, queue_name: str) -> None:
    """Its error as stored, until it completes or is retried by hand."""

    async def work(job: Job[Any, Any]) -> str:
        if job.attempt == 1:
            raise ValueError("no use")
        return "well"

    async with Queue(queue_name, url=url) as queue:
        once = await queue.add("once")
        twice = await queue.add("twice", attempts=2)
        assert once.error is None
        await Worker(queue, work, burst=True).run()
        (failed,), (done,) = await queue.get_jobs("failed"), await queue.get_jobs("completed")
        assert (failed.id, done.id) == (once.id, twice.id)
        assert failed.error and (failed.error.type, failed.error.message) == ("ValueError", "no use")
        assert "ValueError: no use" in failed.error.traceback
        assert done.error is None
        await failed.retry()
        (waiting,) = await queue.get_jobs("waiting")
        assert waiting.error is None


async def test_a_finished_job_has_its_outcome_however_short_the_wait(url: str, queue_name: str) -> None:
    """A timeout of nothing is a look; what is not finished is told at once."""
    async with Queue(queue_name, url=url) as queue:
        done, late = await queue.add("n", 7), await queue.add("n", delay=60)
        await Worker(queue, lambda job: job.data, burst=True).run()
        for timeout in (0, 0.001):
            assert await done.result(timeout) == 7
            with pytest.raises(TimeoutError):
                await late.result(timeout)
