"""Processors: plain functions in threads, async ones on the loop, and whatever they raise is their own job's outcome."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Backoff, Job, JobState, NewJob, Queue, Retry, Unrecoverable, Worker
from eventq.errors import ConfigurationError
from eventq.events import ActiveEvent, CompletedEvent, FailedEvent, RetryingEvent

from .recorder import PATIENCE, Recorder

if TYPE_CHECKING:
    from ..conftest import WaitUntil

#: Round trips after which a worker that wanted a job would have it.
MANY = 30


async def stays(queue: Queue[Any, Any], job: Job[Any, Any], state: JobState) -> bool:
    """Return whether a job is in a state and remains there for many round trips."""
    return all([await queue.get_state(job.id) is state for _ in range(MANY)])


# --- where they run ---------------------------------------------------------------------------------------------------


async def test_plain_functions_run_in_threads_side_by_side(url: str, queue_name: str) -> None:
    """Four plain functions that wait for one another all run at once, none on the loop's thread."""
    together = threading.Barrier(4)
    threads: set[int] = set()

    def process(job: Job[int]) -> int:
        threads.add(threading.get_ident())
        together.wait(PATIENCE)
        return job.data * 2

    async with Queue(queue_name, int, result_type=int, url=url) as queue, Worker(queue, process, concurrency=4):
        jobs = await queue.add_bulk([NewJob("double", number) for number in range(4)])
        assert [0, 2, 4, 6] == [await job.result(PATIENCE) for job in jobs]
    assert 4 == len(threads) and threading.get_ident() not in threads


async def test_plain_functions_keep_to_the_concurrency(url: str, queue_name: str) -> None:
    """Forty jobs on three slots: never more than three at once, and three are reached."""
    lock, running, most = threading.Lock(), 0, 0
    full = threading.Event()

    def process(_: Job[Any]) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
        full.wait(PATIENCE)
        with lock:
            running -= 1

    async with Queue(queue_name, url=url) as queue:
        await queue.add_bulk([NewJob("j", None)] * 40)
        await Worker(queue, process, concurrency=3, burst=True).run()
        assert 40 == (await queue.get_job_counts())[JobState.COMPLETED]
    assert 3 == most


async def test_a_slow_plain_function_does_not_hold_up_the_loop(url: str, queue_name: str) -> None:
    """While a plain function blocks, the same worker's async processor runs."""
    gate = threading.Event()

    async def quick(_: Job[Any]) -> None:
        gate.set()

    processors: dict[str, Callable[[Job[Any]], Any]] = {"slow": lambda _: gate.wait(PATIENCE), "quick": quick}
    async with Queue(queue_name, url=url) as queue, Worker(queue, processors, concurrency=2):
        slow = await queue.add("slow")
        await queue.add("quick")
        assert True is await slow.result(PATIENCE)


class Callable_:
    """An object whose call is async."""

    async def __call__(self, _: Job[Any]) -> int:
        return threading.get_ident()


async def process_with(_: str, job: Job[Any]) -> int:
    """An async function for partial."""
    return threading.get_ident()


@pytest.mark.parametrize("processor", [Callable_(), functools.partial(process_with, "x")], ids=["object", "partial"])
async def test_what_is_async_in_disguise_runs_on_the_loop(url: str, queue_name: str, processor: Any) -> None:
    """Objects with an async call and partials of async functions need no thread."""
    async with Queue(queue_name, url=url) as queue, Worker(queue, processor):
        assert threading.get_ident() == await (await queue.add("j")).result(PATIENCE)


async def test_a_function_that_returns_an_awaitable_keeps_its_slot_until_that_is_done(url: str, queue_name: str) -> None:
    """`lambda job: send(job)` takes one slot for the whole of it: concurrency 2 means two."""
    running = most = 0

    async def send(_: Job[Any]) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _step in range(20):
            await asyncio.sleep(0)
        running -= 1
        return running

    async with Queue(queue_name, url=url) as queue:
        await queue.add_bulk([NewJob("j", None)] * 20)
        await Worker(queue, lambda job: send(job), concurrency=2, burst=True).run()
        assert 20 == (await queue.get_job_counts())[JobState.COMPLETED]
    assert most <= 2


request_id: ContextVar[str] = ContextVar("request_id", default="none")


async def test_threads_see_the_context_of_their_run(url: str, queue_name: str) -> None:
    """Context variables reach a plain function, as they do with asyncio.to_thread; what it sets stays there."""
    request_id.set("outer")

    def process(_: Job[Any]) -> str:
        seen = request_id.get()
        request_id.set("changed")
        return seen

    async with Queue(queue_name, url=url) as queue, Worker(queue, process):
        assert ["outer", "outer"] == [await (await queue.add("j")).result(PATIENCE) for _ in range(2)]
    assert "outer" == request_id.get()


# --- which one runs ---------------------------------------------------------------------------------------------------


async def test_a_job_goes_to_the_processor_of_its_name(url: str, queue_name: str) -> None:
    """Several processors by job name, plain and async together."""

    async def mail(_: Job[Any]) -> str:
        return "mailed"

    async with Queue(queue_name, url=url) as queue, Worker(queue, {"mail": mail, "bill": lambda _: "billed"}):
        bill, sent = await queue.add("bill"), await queue.add("mail")
        assert ("billed", "mailed") == (await bill.result(PATIENCE), await sent.result(PATIENCE))


async def test_an_unknown_job_name_is_an_ordinary_failure(url: str, queue_name: str) -> None:
    """It is retried, as another worker may know it, and ends failed with the names this one has; events count attempts."""
    seen: list[tuple[str, int]] = []
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        worker = Worker(queue, {"known": print})
        done = asyncio.Event()

        @worker.on("retrying")
        async def _(event: RetryingEvent) -> None:
            seen.append(("retrying", event.attempt))

        @worker.on("failed")
        async def _(event: FailedEvent) -> None:
            seen.append(("failed", event.attempt))
            done.set()

        async with worker:
            await queue.add("unheard", attempts=3)
            (failed,) = await recorder.wait(FailedEvent)
            await asyncio.wait_for(done.wait(), PATIENCE)
        assert [1, 2, 3] == [event.attempt for event in [*recorder.of(RetryingEvent), failed]]
    assert "no processor for job name 'unheard' on this worker; it has: known" == failed.error.message
    assert (True, "error") == (failed.exhausted, failed.reason)
    assert [("retrying", 1), ("retrying", 2), ("failed", 3)] == seen


@pytest.mark.parametrize("processor", [None, 5, "module:function", {}, {"a": None}])
def test_what_cannot_be_called_is_no_processor(processor: Any) -> None:
    """A worker without anything to call is refused when it is named."""
    with pytest.raises(ConfigurationError, match=r"processor"):
        Worker("q", processor, url="redis://localhost")


# --- what they raise --------------------------------------------------------------------------------------------------


class Odd(BaseException):
    """No Exception, yet raised by a processor."""


def raising(error: BaseException) -> Callable[[Job[Any]], str]:
    """Return a plain function that raises when its job is bad."""

    def process(job: Job[Any]) -> str:
        if job.data == "bad":
            raise error
        return "fine"

    return process


def raising_async(error: BaseException) -> Callable[[Job[Any]], Awaitable[str]]:
    """Return an async function that raises when its job is bad."""

    async def process(job: Job[Any]) -> str:
        if job.data == "bad":
            raise error
        return "fine"

    return process


#: What may be raised, and the type that is recorded.
RAISED: dict[str, tuple[BaseException, str]] = {
    "an error": (ValueError("no"), "ValueError"),
    "sys.exit": (SystemExit(3), "SystemExit"),
    "StopIteration": (StopIteration(), "RuntimeError"),
    "no Exception": (Odd("odd"), "tests.integration.test_threads.Odd"),
    "a cancellation of its own": (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
    "a timeout of its own": (TimeoutError("mine"), "TimeoutError"),
    "a group": (ExceptionGroup("two", [ValueError(), KeyError()]), "ExceptionGroup"),
    "Unrecoverable": (Unrecoverable("never"), "eventq.errors.Unrecoverable"),
}


@pytest.mark.parametrize("make", [raising, raising_async], ids=["plain", "async"])
@pytest.mark.parametrize("raised", RAISED)
async def test_whatever_a_processor_raises_fails_its_job_only(url: str, queue_name: str, make: Any, raised: str) -> None:
    """The job ends failed with the error's type; the worker and the jobs beside it go on."""
    error, name = RAISED[raised]
    await fails_alone(Queue(queue_name, url=url), make(error), name)


async def test_an_interrupt_raised_in_a_thread_fails_its_job_only(url: str, queue_name: str) -> None:
    """No signal reaches a thread: a KeyboardInterrupt there is the processor's own, and does not end the program."""
    await fails_alone(Queue(queue_name, url=url), raising(KeyboardInterrupt()), "RuntimeError")
    await fails_alone(Queue(f"{queue_name}-2", url=url), raising(GeneratorExit()), "RuntimeError")


async def fails_alone(queue: Queue[Any, Any], processor: Any, name: str) -> None:
    """Run a bad job among good ones; only it fails, with an error of this type."""
    async with queue, Recorder(queue) as recorder, Worker(queue, processor, concurrency=2) as worker:
        jobs = await queue.add_bulk([NewJob("j", data) for data in ("good", "bad", "good")])
        (failed,) = await recorder.wait(FailedEvent)
        assert ["fine", "fine"] == [await job.result(PATIENCE) for job in (jobs[0], jobs[2])]
        assert "fine" == await (await queue.add("j", "good")).result(PATIENCE)
        assert 0 == worker.running
    assert (jobs[1].id, name, "error") == (failed.job_id, failed.error.type, failed.reason)


async def test_unrecoverable_ends_at_the_first_of_five(url: str, queue_name: str) -> None:
    """No retry follows, and attempts are not said to be used up."""
    async with (
        Queue(queue_name, url=url) as queue,
        Recorder(queue) as recorder,
        Worker(queue, raising_async(Unrecoverable("no"))),
    ):
        await queue.add("j", "bad", attempts=5, backoff=0.01)
        (failed,) = await recorder.wait(FailedEvent)
    assert (1, False) == (failed.attempt, failed.exhausted)
    assert [] == recorder.of(RetryingEvent)


async def test_retry_comes_back_after_its_own_delay(url: str, queue_name: str) -> None:
    """Retry(delay=) stands over a backoff of an hour; the attempt counts."""

    async def process(job: Job[Any]) -> int:
        if job.attempt == 1:
            raise Retry("not yet", delay=0.05)
        return job.attempt

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, process):
        job = await queue.add("j", attempts=2, backoff=3600)
        assert 2 == await job.result(PATIENCE)
        (retrying,) = recorder.of(RetryingEvent)
        (completed,) = await recorder.wait(CompletedEvent)
    assert 50 == retrying.due_ms - retrying.ms
    assert completed.ms - completed.ran_ms >= retrying.due_ms
    assert "not yet" == retrying.error.message


# --- time limits ------------------------------------------------------------------------------------------------------


async def test_an_async_processor_is_cancelled_at_its_timeout(url: str, queue_name: str) -> None:
    """The attempt fails with reason timeout, and the next one runs."""
    cancelled: list[int] = []

    async def process(job: Job[Any]) -> str:
        if job.attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(job.attempt)
                raise
        return "second"

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, process):
        job = await queue.add("j", attempts=2, timeout=0.05)
        assert "second" == await job.result(PATIENCE)
        (retrying,) = recorder.of(RetryingEvent)
    assert [1] == cancelled
    assert ("TimedOut", "took longer than its timeout of 0.05 seconds") == (retrying.error.type, retrying.error.message)


async def test_the_last_timeout_says_so(url: str, queue_name: str) -> None:
    """`failed` tells timeouts from errors."""

    async def process(_: Job[Any]) -> None:
        await asyncio.Event().wait()

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, process):
        await queue.add("j", timeout=0.05)
        (failed,) = await recorder.wait(FailedEvent)
    assert ("timeout", True) == (failed.reason, failed.exhausted)


async def test_a_thread_that_times_out_fails_at_once_and_frees_its_slot_at_its_end(
    url: str, queue_name: str, wait_until: WaitUntil
) -> None:
    """The attempt is failed while the thread goes on; its slot is taken until then; job.cancelled tells the thread."""
    gate, ended = threading.Event(), threading.Event()
    seen: list[bool] = []

    def process(job: Job[Any]) -> str:
        if job.name == "slow":
            seen.append(job.cancelled)
            gate.wait(PATIENCE)
            seen.append(job.cancelled)
            ended.set()
        return "done"

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, process) as worker:
        await queue.add("slow", timeout=0.1)
        (failed,) = await recorder.wait(FailedEvent)
        assert ("timeout", False) == (failed.reason, ended.is_set())
        after = await queue.add("quick")
        assert await stays(queue, after, JobState.WAITING)
        assert 1 == worker.running
        gate.set()
        assert "done" == await after.result(1.0)
        await wait_until(lambda: worker.running == 0)
    assert [False, True] == seen
    assert 1 == len(recorder.of(FailedEvent)) == len(recorder.of(CompletedEvent))


async def test_a_slot_freed_late_is_used_while_others_are_busy(url: str, queue_name: str) -> None:
    """When a timed-out thread ends, its slot takes the next job although the other slot's job goes on."""
    first, second = threading.Event(), threading.Event()

    def process(job: Job[Any]) -> str:
        {"first": first, "second": second}.get(job.name, first).wait(PATIENCE)
        return job.name

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, process, concurrency=2):
        long = await queue.add("second")
        await queue.add("first", timeout=0.1)
        await recorder.wait(FailedEvent)
        third = await queue.add("third")
        assert await stays(queue, third, JobState.WAITING)
        first.set()
        try:
            assert "third" == await third.result(1.0)
            assert JobState.ACTIVE is await queue.get_state(long.id)
        finally:
            second.set()
        assert "second" == await long.result(PATIENCE)


async def test_a_timeout_covers_the_awaitable_of_a_plain_function(url: str, queue_name: str) -> None:
    """`lambda job: never()` is cut off as an async function would be."""

    async def never() -> None:
        await asyncio.Event().wait()

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, lambda _: never()) as worker:
        await queue.add("j", timeout=0.1)
        (failed,) = await recorder.wait(FailedEvent)
        assert 0 == worker.running
    assert "timeout" == failed.reason


async def test_what_a_thread_raises_after_its_run_is_nobodys_outcome(
    url: str, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that ends with an error after close is neither recorded nor complained about."""
    gate, ended = threading.Event(), threading.Event()

    def process(job: Job[Any]) -> None:
        gate.wait(PATIENCE)
        ended.set()
        raise ValueError(f"cancelled: {job.cancelled}")

    async with Queue(queue_name, url=url) as queue:
        worker = Worker(queue, process, grace=0)
        await worker.start()
        async with Recorder(queue) as recorder:
            job = await queue.add("j")
            await recorder.wait(ActiveEvent)
            await worker.close()
        gate.set()
        assert await asyncio.to_thread(ended.wait, PATIENCE)
        assert JobState.WAITING is await queue.get_state(job.id)
    gc.collect()
    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# --- backoff strategies -----------------------------------------------------------------------------------------------


async def attempts_of(queue: Queue[Any, Any], strategies: dict[str, Any]) -> tuple[list[RetryingEvent], FailedEvent]:
    """Fail one job of three attempts until its end; return its retries and its end."""
    async with Recorder(queue) as recorder, Worker(queue, raising_async(ValueError("no")), backoffs=strategies):
        await queue.add("j", "bad", attempts=3, backoff=Backoff.custom("mine", 0.02))
        (failed,) = await recorder.wait(FailedEvent)
    return recorder.of(RetryingEvent), failed


async def test_a_strategy_decides_from_job_and_error(url: str, queue_name: str) -> None:
    """A plain strategy is called with the job and what it raised, once per retry."""
    calls: list[tuple[int, str]] = []

    def mine(job: Job[Any], error: BaseException) -> float:
        calls.append((job.attempt, str(error)))
        return job.attempt * 0.01

    async with Queue(queue_name, url=url) as queue:
        retries, failed = await attempts_of(queue, {"mine": mine})
    assert [10, 20] == [event.due_ms - event.ms for event in retries]
    assert [(1, "no"), (2, "no")] == calls
    assert (3, True) == (failed.attempt, failed.exhausted)


async def test_an_async_strategy_is_awaited(url: str, queue_name: str) -> None:
    """What it returns after waiting is used."""

    async def mine(_: Job[Any], __: BaseException) -> float:
        await asyncio.sleep(0)
        return 0.03

    async with Queue(queue_name, url=url) as queue:
        retries, _ = await attempts_of(queue, {"mine": mine})
    assert [30, 30] == [event.due_ms - event.ms for event in retries]


async def test_a_strategy_that_returns_none_gives_up(url: str, queue_name: str) -> None:
    """The job ends failed at once, with attempts left. BullMQ's -1 is None here."""
    async with Queue(queue_name, url=url) as queue:
        retries, failed = await attempts_of(queue, {"mine": lambda *_: None})
    assert ([], 1, False) == (retries, failed.attempt, failed.exhausted)


@pytest.mark.parametrize(
    ("strategies", "words"),
    [
        ({}, "no backoff strategy 'mine' on this worker; it has: none"),
        ({"other": lambda *_: 1}, "no backoff strategy 'mine' on this worker; it has: other"),
        ({"mine": lambda *_: 1 / 0}, "division by zero"),
        ({"mine": lambda *_: -1}, "backoff strategy 'mine' -1: must be not negative"),
        ({"mine": lambda *_: "soon"}, "backoff strategy 'mine' 'soon': must be seconds"),
        ({"mine": lambda: 1}, "positional arguments"),
    ],
    ids=["none", "another", "raises", "negative", "text", "signature"],
)
async def test_a_strategy_that_fails_is_told_with_the_jobs_own_error(
    url: str, queue_name: str, strategies: dict[str, Any], words: str
) -> None:
    """Both errors are stored, and the job is retried after its plain delay: a bug in a strategy loses no job."""
    async with (
        Queue(queue_name, url=url) as queue,
        Recorder(queue) as recorder,
        Worker(queue, raising_async(ValueError("the job's own")), backoffs=strategies),
    ):
        job = await queue.add("j", "bad", attempts=2, backoff=Backoff.custom("mine", 3600))
        (retrying,) = await recorder.wait(RetryingEvent)
        stored = await queue.context.require(job.id)
    assert (3_600_000, JobState.DELAYED) == (retrying.due_ms - retrying.ms, stored.state)
    assert "backoff strategy 'mine' failed" in retrying.error.message
    assert words in (stored.result or "") and "the job's own" in (stored.result or "")
