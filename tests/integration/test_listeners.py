"""Listeners: each gets its events in order and one at a time, and nothing it does reaches a job or another listener."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from eventq import ConfigurationError, Job, JobQueue, NewJob, Queue, Worker
from eventq.events import AddedEvent, CompletedEvent, ErrorEvent, Event, FailedEvent, WorkerStartedEvent, WorkerStoppedEvent

from .recorder import PATIENCE

if TYPE_CHECKING:
    from ..conftest import WaitUntil

JOBS = 50


async def double(job: Job[int]) -> int:
    """Process a job."""
    return job.data * 2


async def run_jobs(queue: Queue[int, Any]) -> None:
    """Add jobs and wait for all results: at most so long, whatever listeners do."""
    jobs = await queue.add_bulk([NewJob("j", number) for number in range(JOBS)])
    async with asyncio.timeout(PATIENCE):
        assert [number * 2 for number in range(JOBS)] == [await job.result() for job in jobs]


class Odd(BaseException):
    """No Exception, yet raised by a listener."""


RAISED = (ValueError("no"), SystemExit(3), StopIteration(), asyncio.CancelledError(), Odd("odd"))


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_a_listener_that_raises_fails_nothing_else(url: str, queue_name: str, error: BaseException, is_async: bool) -> None:
    """All jobs complete, the listener beside it hears all, it hears the next one too, and error listeners are told."""
    told: list[ErrorEvent] = []
    heard: list[int] = []
    tries = 0
    done = asyncio.Event()
    queue = Queue(queue_name, int, url=url)
    worker = Worker(queue, double, concurrency=10)

    def fail() -> None:
        nonlocal tries
        tries += 1
        raise error

    async def fail_later(_: CompletedEvent) -> None:
        fail()

    def fail_plainly(_: CompletedEvent) -> None:
        fail()

    @worker.on("completed")
    async def _(event: CompletedEvent) -> None:
        heard.append(event.result)

    @worker.on("error")
    async def _(event: ErrorEvent) -> None:
        told.append(event)
        if len(told) == JOBS:
            done.set()

    worker.on("completed", fail_later if is_async else fail_plainly)
    async with queue, worker:
        await run_jobs(queue)
        await asyncio.wait_for(done.wait(), PATIENCE)
    assert (JOBS, JOBS) == (tries, len(heard))
    name = "fail_later" if is_async else "fail_plainly"
    assert name in told[0].message and "raised on completed: " in told[0].message
    assert queue_name == told[0].queue


async def test_listeners_that_hang_delay_nothing(url: str, queue_name: str) -> None:
    """Twenty that block their thread and one that never ends: jobs run, another plain listener hears all, close is quick."""
    gate = threading.Event()
    heard: list[Any] = []
    all_heard = threading.Event()
    queue = Queue(queue_name, int, url=url)
    worker = Worker(queue, double, concurrency=10)

    def hang(_: Event) -> None:
        gate.wait(30)

    async def never(_: Event) -> None:
        await asyncio.Event().wait()

    def listen(event: CompletedEvent) -> None:
        heard.append(event.result)
        if len(heard) == JOBS:
            all_heard.set()

    try:
        for number in range(20):
            worker.on("completed" if number % 2 else "active", lambda event, _=number: hang(event))
        worker.on("completed", never)
        queue.on("completed", never)
        queue.on("added", hang)
        worker.on("completed", listen)
        began = asyncio.get_running_loop().time()
        async with queue, worker:
            await run_jobs(queue)
            assert await asyncio.to_thread(all_heard.wait, PATIENCE)
        assert asyncio.get_running_loop().time() - began < PATIENCE
    finally:
        gate.set()
    assert [number * 2 for number in range(JOBS)] == sorted(heard)


async def test_an_async_listener_is_awaited_one_event_at_a_time_in_order(url: str, queue_name: str) -> None:
    """The next event waits until the listener has returned."""
    steps: list[tuple[str, int]] = []
    done = asyncio.Event()
    queue = Queue(queue_name, int, url=url)
    worker = Worker(queue, double)

    @worker.on("completed")
    async def _(event: CompletedEvent) -> None:
        steps.append(("begin", event.result))
        for _ in range(event.result % 7):
            await asyncio.sleep(0)
        steps.append(("end", event.result))
        if len(steps) == 2 * JOBS:
            done.set()

    async with queue, worker:
        await run_jobs(queue)
        await asyncio.wait_for(done.wait(), PATIENCE)
    assert [(step, 2 * number) for number in range(JOBS) for step in ("begin", "end")] == steps


async def test_a_plain_listener_is_called_off_the_loop_in_order(url: str, queue_name: str) -> None:
    """A plain function runs in a thread, one call at a time; what it returns is awaited when it can be."""
    heard: list[int] = []
    awaited: list[int] = []
    threads: set[int] = set()
    queue = Queue(queue_name, int, url=url)
    worker = Worker(queue, double)

    def listen(event: CompletedEvent) -> Any:
        threads.add(threading.get_ident())
        heard.append(event.result)

        async def later() -> None:
            awaited.append(event.result)

        return later()

    worker.on("completed", listen)
    async with queue, worker:
        await run_jobs(queue)
    assert [2 * number for number in range(JOBS)] == heard == awaited
    assert threading.get_ident() not in threads


async def test_a_listener_too_slow_loses_the_oldest_and_that_is_told(
    url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wait_until: WaitUntil
) -> None:
    """Ten events may wait for a listener; beyond that the oldest go, which is logged and told once."""
    monkeypatch.setattr("eventq.signals.BACKLOG", 10)
    gate = asyncio.Event()
    heard: list[int] = []
    told: list[str] = []
    queue = Queue(queue_name, int, url=url)
    worker = Worker(queue, double)

    @worker.on("completed")
    async def slow(event: CompletedEvent) -> None:
        await gate.wait()
        heard.append(event.result // 2)

    @worker.on("error")
    async def _(event: ErrorEvent) -> None:
        told.append(event.message)

    async with queue, worker:
        await run_jobs(queue)
        await wait_until(lambda: told, description="the loss is told")
        gate.set()
        await wait_until(lambda: len(heard) == 11, description="what was kept is delivered")
    assert [0, *range(JOBS - 10, JOBS)] == heard
    assert 1 == len(told)
    assert "slow" in told[0] and "10 events behind" in told[0]
    assert told[0] in caplog.text


class Counter:
    """A listener that is a method."""

    def __init__(self) -> None:
        self.heard = 0

    async def count(self, _: Event) -> None:
        """Count an event."""
        self.heard += 1


async def test_off_ends_listening(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """A function and a method can be disconnected; what was never connected is no error; the others stay."""
    function, method, stays = Counter(), Counter(), Counter()
    listen = function.count
    builtin: list[Event] = []
    queue = Queue(queue_name, int, url=url)
    async with queue, Worker(queue, double) as worker:
        worker.on("completed", listen)
        worker.on("completed", method.count)
        worker.on("completed", stays.count)
        worker.on("completed", builtin.append)
        await queue.add("j", 1)
        await wait_until(lambda: stays.heard and builtin)
        worker.off("completed", listen)
        worker.off("completed", method.count)
        worker.off("completed", builtin.append)
        worker.off("failed", listen)
        worker.off("completed", Counter().count)
        await run_jobs(queue)
    assert (1, 1, 1, JOBS + 1) == (function.heard, method.heard, len(builtin), stays.heard)


async def test_a_closure_is_held_until_close_and_let_go_then(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Nobody else has to keep a listener alive, and a closed queue or worker keeps nothing alive."""
    heard: list[Any] = []

    class Load:
        """Something a listener holds."""

    async def one_life() -> list[weakref.ref[Load]]:
        loads = [Load(), Load()]
        queue = Queue(queue_name, int, url=url)
        worker = Worker(queue, double)
        for source, load in zip((queue, worker), loads, strict=True):

            async def listen(event: CompletedEvent, load: Load = load, source: Any = source) -> None:
                heard.append((type(load).__name__, type(source).__name__))

            source.on("completed", listen)
            del listen
        gc.collect()
        async with queue, worker:
            await queue.add("j", 1)
            await wait_until(lambda: len(heard) == 2)
        return [weakref.ref(load) for load in loads]

    refs = await one_life()
    gc.collect()
    assert [("Load", "Queue"), ("Load", "Worker")] == sorted(heard)
    assert [None, None] == [ref() for ref in refs]


async def test_a_worker_tells_its_own_jobs_and_a_queue_everybodys(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Two workers share the jobs; each hears its own, the queue hears all of them with their numbers."""
    by_worker: dict[str, list[str]] = {"one": [], "two": []}
    by_queue: list[CompletedEvent] = []
    both = asyncio.Barrier(2)

    async def meet(job: Job[int]) -> int:
        if job.data < 2:
            await both.wait()
        return job.data

    queue = Queue(queue_name, int, url=url)
    workers = [Worker(queue, meet, name=name) for name in by_worker]

    @queue.on("completed")
    async def _(event: CompletedEvent) -> None:
        by_queue.append(event)

    for worker in workers:

        @worker.on("completed")
        async def _(event: CompletedEvent, name: str = worker.name) -> None:
            assert (name, 0) == (event.worker, event.seq)
            by_worker[name].append(event.job_id)

    async with queue, workers[0], workers[1]:
        jobs = await queue.add_bulk([NewJob("j", number) for number in range(20)])
        await wait_until(lambda: len(by_queue) == 20)
        await wait_until(lambda: sum(map(len, by_worker.values())) == 20)
    assert all(by_worker.values())
    assert {job.id for job in jobs} == {event.job_id for event in by_queue} == {*by_worker["one"], *by_worker["two"]}
    assert by_worker == {name: [event.job_id for event in by_queue if event.worker == name] for name in by_worker}
    seqs = [event.seq for event in by_queue]
    assert sorted(set(seqs)) == seqs and seqs[0] > 0


async def test_a_local_outcome_is_told_after_it_is_recorded(url: str, queue_name: str) -> None:
    """When worker.on("completed") is called, Redis already says so; the result is as the stream tells it."""
    states: list[str] = []
    queue = Queue(queue_name, int, url=url)
    worker = Worker(queue, double)

    @worker.on("completed")
    async def _(event: CompletedEvent) -> None:
        states.append(f"{await queue.get_state(event.job_id)} {event.result} {event.attempt} {event.name} {event.ran >= 0}")

    async with queue, worker:
        await (await queue.add("j", 4)).result(PATIENCE)
    assert ["completed 8 1 j True"] == states


async def test_an_error_listener_that_raises_is_only_logged(
    url: str, queue_name: str, caplog: pytest.LogCaptureFixture, wait_until: WaitUntil
) -> None:
    """It is not told about itself: that would never end."""
    calls = 0
    queue = Queue(queue_name, int, url=url)
    worker = Worker(queue, double)

    @worker.on("error")
    async def _(_: ErrorEvent) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("error in error")

    @worker.on("completed")
    async def _(_: CompletedEvent) -> None:
        raise ValueError("first")

    async with queue, worker:
        await (await queue.add("j", 1)).result(PATIENCE)
        await wait_until(lambda: "error in error" in caplog.text)
    assert 1 == calls
    assert logging.WARNING == max(record.levelno for record in caplog.records)


async def test_a_queues_listener_that_raises_is_told_on_the_queue(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """The reader goes on, and queue.on("error") says which listener failed on what."""
    told: list[str] = []
    queue = Queue(queue_name, int, url=url)

    @queue.on("added")
    def fail(event: AddedEvent) -> None:
        raise ValueError(event.job_id)

    @queue.on("error")
    async def _(event: ErrorEvent) -> None:
        told.append(event.message)

    async with queue:
        jobs = [await queue.add("j", number) for number in range(3)]
        await wait_until(lambda: len(told) == 3)
    assert all("fail raised on added" in message and job.id in message for job, message in zip(jobs, told, strict=True))


async def test_a_listener_connected_later_hears_the_next_add(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """What is added through the queue after `on` is heard: the reader starts before the add is sent."""
    heard: list[str] = []
    async with Queue(queue_name, int, url=url) as queue:
        before = await queue.add("j", 1)

        @queue.on("added")
        async def _(event: AddedEvent) -> None:
            heard.append(event.job_id)

        after = await queue.add("j", 2)
        await wait_until(lambda: heard)
    assert [after.id] == heard and before.id not in heard


async def test_a_job_queue_is_one_place_to_listen(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Its outcomes come through the stream, its worker's life from the worker."""
    heard: list[Event] = []

    async def process(job: Job[int]) -> int:
        if job.data:
            raise ValueError("no")
        return 1

    jobs = JobQueue(queue_name, int, process, url=url)
    for kind in ("completed", "failed", "worker_started", "worker_stopped"):

        async def listen(event: Event) -> None:
            heard.append(event)

        jobs.on(kind, listen)

    async with jobs:
        await jobs.add_job("j", 0)
        await jobs.add_job("j", 1)
        await wait_until(lambda: len(heard) == 3)
    assert {WorkerStartedEvent, CompletedEvent, FailedEvent, WorkerStoppedEvent} == {type(event) for event in heard}
    assert WorkerStoppedEvent is type(heard[-1])


async def test_events_in_hand_at_close_are_still_delivered(url: str, queue_name: str) -> None:
    """Close gives listeners a moment for what they have."""
    heard: list[int] = []
    queue = Queue(queue_name, int, url=url)
    worker = Worker(queue, double, burst=True)

    @worker.on("completed")
    async def _(event: CompletedEvent) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        heard.append(event.result)

    async with queue:
        await queue.add_bulk([NewJob("j", number) for number in range(JOBS)])
        await worker.run()
    assert [2 * number for number in range(JOBS)] == heard


def test_what_a_worker_never_tells_cannot_be_listened_to_there(url: str) -> None:
    """An alarm that would stay silent is refused, with the place where it can be heard."""
    worker: Worker[Any, Any] = Worker("q", print, url=url)
    with pytest.raises(ConfigurationError, match="event kind 'stalled': a worker tells active, .*; use on\\(\\) of its queue"):
        worker.on("stalled", print)
    with pytest.raises(ConfigurationError, match="event kind 'nonsense': must be one of"):
        worker.on("nonsense", print)
