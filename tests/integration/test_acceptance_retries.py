"""Acceptance cases 18 to 22 and 25: attempts, backoff, giving up, retrying by hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Backoff, Job, JobState, Queue, Unrecoverable, Worker
from eventq.errors import InvalidState, JobFailed, JobNotFound
from eventq.events import ActiveEvent, CompletedEvent, FailedEvent, RetryingEvent
from eventq.job import stored_error

from .recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis


class Broken(Exception):
    """What the processors here raise."""


async def fail(job: Job[Any, Any]) -> None:
    raise Broken(f"attempt {job.attempt}")


def totals(client: redis.Redis, queue: Queue[Any, Any], name: str) -> dict[str, int]:
    """Return the queue's own totals of one job name."""
    stored: dict[bytes, bytes] = client.hgetall(queue.context.keys["totals"])  # type: ignore[assignment]
    split = ((*key.decode().partition(" "), int(value)) for key, value in stored.items())
    return {kind: value for kind, _, of, value in split if of == name}


async def test_attempts_are_used_up_and_no_more(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 18: attempts 3 and always failing is exactly 3 runs, two `retrying` and one final `failed`.

    There is no event of its own for exhausted attempts: `failed` is final only, says `exhausted`, and its attempt is the count.
    """
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, fail):
        job = await queue.add("n", attempts=3)
        with pytest.raises(JobFailed, match="attempt 3"):
            await job.result(timeout=5)
        await recorder.catch_up()
        assert recorder.kinds(job.id) == ["added", "active", "retrying", "active", "retrying", "active", "failed"]
        assert [event.attempt for event in recorder.of(ActiveEvent)] == [1, 2, 3]
        assert [event.error.message for event in recorder.of(RetryingEvent)] == ["attempt 1", "attempt 2"]
        (failed,) = recorder.of(FailedEvent)
        assert (failed.attempt, failed.exhausted, failed.reason) == (3, True, "error")
        assert await job.get_state() is JobState.FAILED
        assert totals(redis_client, queue, "n") == {"added": 1, "starts": 3, "retrying": 2, "failed": 1, "exhausted": 1}


async def test_one_attempt_fails_at_once(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 19: attempts 1 and failing is one run whose `failed` says exhausted; what succeeds never says so."""

    async def work(job: Job[Any, Any]) -> str:
        if job.name == "bad" or job.attempt == 1:
            raise Broken
        return "well"

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, work):
        bad = await queue.add("bad", attempts=1)
        good = await queue.add("good", attempts=2)
        with pytest.raises(JobFailed):
            await bad.result(timeout=5)
        assert await good.result(timeout=5) == "well"
        await recorder.catch_up()
        assert recorder.kinds(bad.id) == ["added", "active", "failed"]
        assert [event.exhausted for event in recorder.of(FailedEvent)] == [True]
        assert recorder.kinds(good.id) == ["added", "active", "retrying", "active", "completed"]
        assert totals(redis_client, queue, "good") == {"added": 1, "starts": 2, "retrying": 1, "completed": 1}


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        pytest.param(0.06, [(60, 60)] * 3, id="a number is fixed"),
        pytest.param(Backoff.fixed(0.05), [(50, 50)] * 3, id="fixed"),
        pytest.param(Backoff.exponential(0.03), [(30, 30), (60, 60), (120, 120)], id="exponential"),
        pytest.param(Backoff.exponential(0.03, maximum=0.07), [(30, 30), (60, 60), (70, 70)], id="exponential to a maximum"),
        pytest.param(Backoff.fixed(0.08, jitter=0.5), [(40, 80)] * 3, id="fixed with jitter"),
        pytest.param(Backoff.exponential(0.04, jitter=1), [(0, 40), (0, 80), (0, 160)], id="exponential with full jitter"),
        pytest.param(None, [(0, 0)] * 3, id="none"),
    ],
)
async def test_backoff_waits_what_it_says(
    url: str, queue_name: str, backoff: Backoff | float | None, expected: list[tuple[int, int]]
) -> None:
    """Case 20: fixed waits d, exponential d, 2d, 4d, jitter j between d(1-j) and d; the due times of the events say so.

    No attempt starts before it is due. Waits are Redis' clock, whole ms.
    """
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, fail):
        await queue.add("n", attempts=4, backoff=backoff)
        await recorder.wait(FailedEvent)
        retrying = recorder.of(RetryingEvent)
        waits = [event.due_ms - event.ms for event in retrying]
        assert all(low <= wait <= high for wait, (low, high) in zip(waits, expected, strict=True)), waits
        states = {wait > 0: event.state for wait, event in zip(waits, retrying, strict=True)}
        assert states.get(True, "delayed") == "delayed"
        assert states.get(False, "waiting") == "waiting"
        starts = [event.ms for event in recorder.of(ActiveEvent)][1:]
        assert all(due.due_ms <= start for due, start in zip(retrying, starts, strict=True))


async def test_jitter_differs_from_job_to_job(url: str, queue_name: str) -> None:
    """Case 20: jitter is drawn anew for every wait, over its whole range."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        async with Worker(queue, fail, concurrency=50):
            for _ in range(50):
                await queue.add("n", attempts=2, backoff=Backoff.fixed(0.2, jitter=0.5))
            retrying = await recorder.wait(RetryingEvent, 50)
        waits = [event.due_ms - event.ms for event in retrying]
        assert all(100 <= wait <= 200 for wait in waits)
        assert min(waits) < 130 and max(waits) > 170


async def test_a_strategy_that_returns_zero_goes_to_the_end_of_the_line(url: str, queue_name: str) -> None:
    """Case 21: a strategy of the worker's own that returns 0 puts the job behind those that wait."""
    order: list[tuple[str, int]] = []

    async def work(job: Job[Any, Any]) -> None:
        order.append((job.data, job.attempt))
        if job.data == "a" and job.attempt < 3:
            raise Broken

    async with Queue(queue_name, url=url) as queue:
        await queue.add("n", "a", attempts=3, backoff=Backoff.custom("mine"))
        await queue.add("n", "b")
        await queue.add("n", "c")
        await Worker(queue, work, burst=True, backoffs={"mine": lambda job, error: 0}).run()
    assert order == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("a", 3)]


async def _give_up_later(job: Job[Any, Any], error: BaseException) -> float | None:
    await asyncio.sleep(0)
    return 0.05 if job.attempt == 1 else None


@pytest.mark.parametrize(
    ("strategy", "attempts_run"),
    [
        pytest.param(lambda job, error: None, 1, id="gives up at once"),
        pytest.param(lambda job, error: 0.05 if job.attempt == 1 else None, 2, id="gives up later"),
        pytest.param(_give_up_later, 2, id="is awaited"),
    ],
)
async def test_a_strategy_that_returns_none_gives_up(
    url: str, queue_name: str, strategy: Callable[..., Any], attempts_run: int
) -> None:
    """Case 21: a strategy that returns None ends the job although attempts are left; an async one is awaited.

    BullMQ's strategy says -1 for it; in eventq seconds are seconds, and no number has a second meaning.
    """
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        async with Worker(queue, fail, backoffs={"mine": strategy}):
            job = await queue.add("n", attempts=5, backoff=Backoff.custom("mine"))
            (failed,) = await recorder.wait(FailedEvent)
        assert recorder.kinds(job.id).count("active") == attempts_run
        assert (failed.attempt, failed.exhausted) == (attempts_run, False)
        assert [event.due_ms - event.ms for event in recorder.of(RetryingEvent)] == [50] * (attempts_run - 1)


@pytest.mark.parametrize(
    ("backoffs", "told"),
    [
        pytest.param({}, "no backoff strategy 'mine'", id="unknown"),
        pytest.param({"mine": lambda job, error: 1 / 0}, "ZeroDivisionError", id="raises"),
        pytest.param({"mine": lambda job, error: -1}, "-1: must be not negative", id="negative"),
        pytest.param({"mine": lambda job, error: "soon"}, "must be seconds", id="no number"),
    ],
)
async def test_a_strategy_that_fails_costs_no_attempt(
    url: str, queue_name: str, backoffs: dict[str, Callable[..., Any]], told: str
) -> None:
    """Case 21: an unknown, failing or nonsensical strategy retries at once, and the stored error tells of both failures."""

    stored: list[str] = []

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:

        async def work(job: Job[Any, Any]) -> str:
            if job.attempt == 1:
                raise Broken("the first of two")
            stored.append(stored_error((await queue.context.require(job.id)).result).traceback)
            return "well"

        async with Worker(queue, work, backoffs=backoffs):
            job = await queue.add("n", attempts=2, backoff=Backoff.custom("mine"))
            assert await job.result(timeout=5) == "well"
            (retrying,) = await recorder.wait(RetryingEvent)
    assert retrying.due_ms == retrying.ms
    assert retrying.error.type == "ExceptionGroup"
    assert "mine" in retrying.error.message
    assert "the first of two" in stored[0] and told in stored[0]


async def test_an_unrecoverable_error_ends_the_job(url: str, queue_name: str) -> None:
    """Case 22: Unrecoverable at attempt 1 of 5 is final; attempts were not exhausted. So is one raised in a thread."""

    class Hopeless(Unrecoverable):
        """A class of the user's own below it."""

    async def on_the_loop(job: Job[Any, Any]) -> None:
        raise Hopeless("no use")

    def in_a_thread(job: Job[Any, Any]) -> None:
        raise Unrecoverable("no use either")

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        async with Worker(queue, {"loop": on_the_loop, "thread": in_a_thread}):
            for name in ("loop", "thread"):
                job = await queue.add(name, attempts=5, backoff=10)
                with pytest.raises(JobFailed, match="no use"):
                    await job.result(timeout=5)
                await recorder.catch_up()
                assert recorder.kinds(job.id) == ["added", "active", "failed"]
        assert [(event.attempt, event.exhausted) for event in recorder.of(FailedEvent)] == [(1, False), (1, False)]


async def test_retrying_what_is_not_failed_is_refused(url: str, queue_name: str) -> None:
    """Case 25: retry of a job that waits, is delayed, runs, completed or was removed is an error that says so; nothing moves."""
    held, seen = asyncio.Event(), asyncio.Event()

    async def hold(job: Job[Any, Any]) -> None:
        seen.set()
        await held.wait()

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, hold) as worker:
        active = await queue.add("n")
        await seen.wait()
        waiting, delayed = await queue.add("n"), await queue.add("n", delay=60)
        removed = await queue.add("n")
        await removed.remove()
        before = await queue.get_job_counts()
        for job, state in ((active, "active"), (waiting, "waiting"), (delayed, "delayed")):
            with pytest.raises(InvalidState, match=f"{job.id}.*is {state}"):
                await job.retry()
        with pytest.raises(JobNotFound, match=removed.id):
            await removed.retry()
        assert await queue.get_job_counts() == before
        held.set()
        await recorder.wait(CompletedEvent, 2)
        with pytest.raises(InvalidState, match="is completed"):
            await active.retry()
        await recorder.catch_up()
        assert recorder.kinds(active.id) == ["added", "active", "completed"]
        assert recorder.counts()["waiting"] == 0
        assert worker.running == 0
