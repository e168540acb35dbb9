"""The life of a worker: start, pause, change, stop. Whatever way it ends, no job is lost and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, JobState, NewJob, Queue, Worker
from eventq.errors import ConfigurationError, LayoutMismatch
from eventq.events import CompletedEvent, ReleasedEvent
from eventq.options import JobOptions

from .recorder import PATIENCE, Recorder, leased

if TYPE_CHECKING:
    import redis

    from ..conftest import MakeServer, WaitUntil

#: Seconds in which what need not wait for anything is over, on a machine that does other things too.
SOON = 1.0


class Gate:
    """An async processor that holds its jobs until they are let go, and knows what became of them."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.started: list[Any] = []
        self.cancelled: list[Any] = []
        self.now = 0
        self.most = 0

    async def process(self, job: Job[Any]) -> Any:
        """Hold a job."""
        self.started.append(job.data)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append((job.data, job.cancelled))
            raise
        finally:
            self.now -= 1
        return job.data


@pytest.fixture
def gate() -> Gate:
    """Hold the jobs of a worker."""
    return Gate()


async def line(queue: Queue[Any, Any], state: str = "waiting") -> list[Any]:
    """Return the data of the jobs in line, in the order in which they will run."""
    return [job.data for job in await queue.get_jobs(state, ascending=True)]


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_close_lets_running_jobs_finish(url: str, queue_name: str, gate: Gate, wait_until: WaitUntil) -> None:
    """Within the grace a job ends as it would have, is recorded, and no other is begun."""
    async with Queue(queue_name, url=url) as queue:
        worker = Worker(queue, gate.process, concurrency=2, grace=30)
        await worker.start()
        jobs = await queue.add_bulk([NewJob("j", number) for number in range(4)])
        await wait_until(lambda: gate.now == 2)
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0)
        assert not worker.is_running
        gate.open.set()
        await asyncio.wait_for(closing, PATIENCE)
        assert [JobState.COMPLETED] * 2 == [await queue.get_state(job.id) for job in jobs[:2]]
        assert [2, 3] == await line(queue)
    assert [0, 1] == gate.started


async def test_after_the_grace_jobs_go_back_in_order_and_uncounted(
    url: str, queue_name: str, gate: Gate, wait_until: WaitUntil, redis_client: redis.Redis
) -> None:
    """What runs is cancelled and released to the head of the line, in its old order; no attempt is used."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        worker = Worker(queue, gate.process, concurrency=5)
        await worker.start()
        jobs = await queue.add_bulk([NewJob("j", number, JobOptions(attempts=1)) for number in range(8)])
        await wait_until(lambda: gate.now == 5)
        await worker.close(grace=0.1)
        assert list(range(8)) == await line(queue)
        released = await recorder.wait(ReleasedEvent, 5)
        runs = [(await queue.context.require(job.id)).run for job in jobs]
        assert [] == leased(redis_client, queue)
        order: list[int] = []
        await Worker(queue, lambda job: order.append(job.data), burst=True).run()
    assert [(number, True) for number in range(5)] == gate.cancelled
    assert [job.id for job in jobs[:5]] == [event.job_id for event in released]
    assert {("j", 1, "waiting", worker.name)} == {(event.name, event.attempt, event.state, event.worker) for event in released}
    assert [(1, 1, 0, 0)] * 5 + [(0, 0, 0, 0)] * 3 == [(run.starts, run.releases, run.fails, run.stalls) for run in runs]
    assert list(range(8)) == order


async def test_a_released_job_keeps_its_place_among_its_priority(
    url: str, queue_name: str, gate: Gate, wait_until: WaitUntil
) -> None:
    """Prioritized jobs return to where they stood, not to the head of all."""
    async with Queue(queue_name, url=url) as queue:
        for number, priority in enumerate([5, 5, 5, 1]):
            await queue.add("j", number, priority=priority)
        worker = Worker(queue, gate.process, concurrency=2)
        await worker.start()
        await wait_until(lambda: gate.now == 2)
        await queue.add("j", 4, priority=5)
        await worker.close(grace=0)
        assert [3, 0] == gate.started
        assert [3, 0, 1, 2, 4] == await line(queue, "prioritized")


async def test_an_outcome_found_while_being_cancelled_is_recorded(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """A processor that ends its work when cancelled has ended it: the result counts, nothing is released."""
    started = asyncio.Event()

    async def process(_: Job[Any]) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "wound up"
        return "never"

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        worker = Worker(queue, process, grace=0)
        await worker.start()
        job = await queue.add("j")
        await started.wait()
        await worker.close()
        assert "wound up" == await job.result(PATIENCE)
        await recorder.wait(CompletedEvent)
    assert [] == recorder.of(ReleasedEvent)


async def test_a_processor_that_ignores_its_cancellation_does_not_hold_up_close(
    url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job is released over its head, and what it does later has no effect."""
    monkeypatch.setattr("eventq.worker._CANCEL_GRACE", 0.1)
    started, end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def process(_: Job[Any]) -> str:
        started.set()
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return "too late"

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        worker = Worker(queue, process, grace=0)
        await worker.start()
        job = await queue.add("j")
        await started.wait()
        await asyncio.wait_for(worker.close(), SOON)
        assert JobState.WAITING is await queue.get_state(job.id)
        end.set()
        await ended.wait()
        assert JobState.WAITING is await queue.get_state(job.id)
    assert [] == recorder.of(CompletedEvent)


async def test_everything_decided_is_recorded_before_close_returns(
    url: str, queue_name: str, gate: Gate, wait_until: WaitUntil
) -> None:
    """A thousand jobs that end at the moment of closing are all completed."""
    async with Queue(queue_name, url=url) as queue:
        worker = Worker(queue, gate.process, concurrency=1000)
        await worker.start()
        await queue.add_bulk([NewJob("j", number) for number in range(1000)])
        await wait_until(lambda: gate.now == 1000)
        gate.open.set()
        await worker.close()
        assert 1000 == (await queue.get_job_counts())[JobState.COMPLETED]


async def test_close_is_quick_while_blocked_on_the_marker(url: str, queue_name: str, gate: Gate) -> None:
    """An idle worker's blocking read does not hold it up: lease 60 s would block for 20."""
    async with Queue(queue_name, url=url) as queue:
        worker = Worker(queue, gate.process, lease=60)
        await worker.start()
        gate.open.set()
        await (await queue.add("j")).result(PATIENCE)
        began = time.monotonic()
        await worker.close()
        assert time.monotonic() - began < SOON


async def test_close_needs_no_thread_of_the_loops_pool(url: str, queue_name: str, gate: Gate) -> None:
    """Processors may have filled the loop's thread pool with calls that do not end: close ends all the same."""
    end = threading.Event()
    queue = Queue(queue_name, url=url)
    worker = Worker(queue, gate.process)
    worker.on("completed", lambda _: None)
    async with queue:
        await worker.start()
        stuck = [asyncio.create_task(asyncio.to_thread(end.wait)) for _ in range(64)]
        try:
            gate.open.set()
            await (await queue.add("j")).result(PATIENCE)
            await asyncio.wait_for(worker.close(), 2 * SOON)
        finally:
            end.set()
            await asyncio.gather(*stuck)


async def test_close_may_be_called_again_and_again(url: str, queue_name: str, gate: Gate, wait_until: WaitUntil) -> None:
    """Twice in a row, several at once, a later one shortening the grace: all return when it is closed."""
    async with Queue(queue_name, url=url) as queue:
        worker = Worker(queue, gate.process, grace=60)
        await worker.start()
        job = await queue.add("j")
        await wait_until(lambda: gate.now == 1)
        first = asyncio.create_task(worker.close())
        await asyncio.sleep(0)
        began = time.monotonic()
        await asyncio.gather(worker.close(grace=0), worker.close())
        await first
        assert time.monotonic() - began < SOON
        await worker.close()
        assert JobState.WAITING is await queue.get_state(job.id)


async def test_a_worker_that_never_started_can_be_closed_and_not_started(url: str, queue_name: str, gate: Gate) -> None:
    """Closing costs nothing then; starting a closed worker is an error instead of a worker that does nothing."""
    never = Worker(queue_name, gate.process, url=url)
    await never.close()
    await never.close()
    async with Queue(queue_name, url=url) as queue:
        for worker in (never, Worker(queue, gate.process)):
            await worker.close()
            with pytest.raises(ConfigurationError, match="is closed; make a new one"):
                await worker.start()
        used = Worker(queue, gate.process)
        async with used:
            pass
        with pytest.raises(ConfigurationError, match="is closed; make a new one"):
            await used.run()


async def test_closing_goes_on_when_whoever_closes_is_cancelled(
    url: str, queue_name: str, gate: Gate, wait_until: WaitUntil
) -> None:
    """A cancelled close returns at once and still releases what ran."""
    async with Queue(queue_name, url=url) as queue:
        worker = Worker(queue, gate.process, grace=0.2)
        await worker.start()
        job = await queue.add("j")
        await wait_until(lambda: gate.now == 1)
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await worker.close()
        assert JobState.WAITING is await queue.get_state(job.id)


async def test_a_body_that_raises_still_closes(url: str, queue_name: str, gate: Gate) -> None:
    """`async with` closes whatever happens inside, and passes it on."""
    worker = Worker(queue_name, gate.process, url=url)
    with pytest.raises(ZeroDivisionError):
        async with worker:
            raise ZeroDivisionError
    assert not worker.is_running


async def test_nothing_is_left(url: str, queue_name: str, gate: Gate, redis_client: redis.Redis, wait_until: WaitUntil) -> None:
    """After close there is no task, no thread and no connection of ours."""
    gate.open.set()
    queue = Queue(queue_name, url=url)
    queue.on("completed", lambda _: None)
    worker = Worker(queue, {"async": gate.process, "plain": lambda job: job.data}, concurrency=20)
    worker.on("completed", lambda _: None)
    async with queue, worker:
        jobs = [await queue.add("async", 1), await queue.add("plain", 2)]
        assert [1, 2] == [await job.result(PATIENCE) for job in jobs]
    assert [asyncio.current_task()] == list(asyncio.all_tasks())
    await wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("eventq-")])
    await wait_until(lambda: not [c["name"] for c in redis_client.client_list() if c["name"].startswith("eventq")])


async def test_what_no_waiting_mends_ends_run_with_its_error(
    url: str, queue_name: str, gate: Gate, redis_client: redis.Redis
) -> None:
    """Another layout in Redis stops the worker with a clear error; nothing was changed."""
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("j", 1)
        redis_client.hset(queue.context.keys["meta"], "layout", "2")
        with pytest.raises(LayoutMismatch, match=r"says layout 2, this version of eventq knows layout 1"):
            await asyncio.wait_for(Worker(queue, gate.process).run(), PATIENCE)
        redis_client.hset(queue.context.keys["meta"], "layout", "1")
        assert JobState.WAITING is await queue.get_state(job.id)


# --- signals ----------------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from eventq import Queue, Worker

async def main():
    queue = Queue(sys.argv[1], url=sys.argv[2])
    finish = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, finish.set)

    async def process(job):
        print("running", flush=True)
        try:
            await finish.wait()
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
        print("finished", flush=True)

    async with queue:
        await Worker(queue, process, concurrency=2, grace=60).run()
    print("closed", flush=True)

asyncio.run(main())
"""

RunProgram = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def run_program(queue_name: str, url: str) -> Iterator[RunProgram]:
    """Run Python text as a process with the queue's name and url as arguments; killed after the test."""
    processes: list[subprocess.Popen[str]] = []

    def run(text: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, *options, "-c", text, queue_name, url]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


async def read_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints."""
    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("signals", [1, 2])
async def test_a_signal_closes_with_grace_and_a_second_one_without(
    url: str,
    queue_name: str,
    run_program: RunProgram,
    redis_client: redis.Redis,
    wait_until: WaitUntil,
    number: signal.Signals,
    signals: int,
) -> None:
    """After the first, the running job goes on and no other is begun; at the second it is released. The exit is clean."""
    process = run_program(PROGRAM)
    assert process.stdin is not None
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("j")
        assert "running" == await read_line(process)
        process.send_signal(number)
        await wait_until(
            lambda: "eventq-blocking" not in [client["name"] for client in redis_client.client_list()],
            description="the worker waits for no more work",
        )
        later = await queue.add("j")
        assert JobState.ACTIVE is await queue.get_state(job.id)
        if signals == 2:
            process.send_signal(number)
        else:
            process.stdin.write("\n")
            process.stdin.flush()
        assert ["finished" if signals == 1 else "cancelled", "closed"] == [await read_line(process), await read_line(process)]
        assert 0 == await asyncio.to_thread(process.wait, 10)
        assert [[later.id], [job.id, later.id]][signals - 1] == [
            each.id for each in await queue.get_jobs("waiting", ascending=True)
        ]


# --- garbage, loops, forks --------------------------------------------------------------------------------------------

TIDY = """
import asyncio, gc, sys
from eventq import JobQueue, Queue, QueueScheduler, Worker

async def process(job):
    return job.data

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # of this one thing a busy machine would complain
    queue = Queue(sys.argv[1], url=sys.argv[2])
    queue.on("completed", print)
    worker = Worker(queue, {"async": process, "plain": lambda job: job.data})
    scheduler = QueueScheduler(queue)
    async with queue, worker, scheduler:
        for name in ("async", "plain"):
            job = await queue.add(name, name)
            assert await job.result(5) == name
        reader = queue.events()
        await reader.open()
    del queue, worker, scheduler, reader
    gc.collect()
    Queue("never-opened", url=sys.argv[2]), Worker("never-opened", process, url=sys.argv[2])
    gc.collect()

asyncio.run(main())
gc.collect()
"""

UNTIDY = """
import asyncio, gc, sys
from eventq import Queue

async def main():
    queue = Queue(sys.argv[1], url=sys.argv[2])
    await queue.add("j")

asyncio.run(main())
gc.collect()
"""


async def test_what_was_closed_goes_without_a_word(run_program: RunProgram) -> None:
    """With every warning on, objects that were closed or never opened print nothing when they are collected."""
    process = run_program(TIDY, "-W", "error")
    out, err = await asyncio.to_thread(process.communicate)
    assert (0, "") == (process.returncode, err)
    assert 2 == out.count("CompletedEvent")


async def test_a_queue_that_was_forgotten_is_no_trouble(run_program: RunProgram) -> None:
    """A script that only adds and ends prints nothing with Python's usual settings."""
    process = run_program(UNTIDY)
    _, err = await asyncio.to_thread(process.communicate)
    assert (0, "") == (process.returncode, err)


DROPPED = """
import asyncio, sys, threading
from eventq import Queue, Worker

async def drop(entered):
    async def hold(job):
        entered.set()
        await asyncio.Event().wait()

    queue = Queue(sys.argv[1], url=sys.argv[2])
    await Worker(queue, hold, lease=0.6).start()
    await queue.add("j")
    await entered.wait()

async def take():
    async with Queue(sys.argv[1], url=sys.argv[2]) as queue:
        (job,) = await queue.get_jobs(["active"])
        async with Worker(queue, lambda job: "by another", lease=0.6):
            print(await job.result(5))

asyncio.run(drop(asyncio.Event()))
asyncio.run(take())
print([thread.name for thread in threading.enumerate() if "heartbeat" in thread.name])
"""


async def test_a_worker_that_was_dropped_lets_go_of_its_jobs(run_program: RunProgram) -> None:
    """Its loop is gone, so its heartbeat ends by itself, and another worker gets the job when the lease is over."""
    process = run_program(DROPPED)
    out, _ = await asyncio.to_thread(process.communicate)
    assert (0, ["by another", "[]"]) == (process.returncode, out.splitlines())


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the first loop ends with its connection open
def test_another_loop_is_refused_with_a_clear_error(url: str, queue_name: str) -> None:
    """A queue belongs to the loop of its first call: calls, `async with` and workers of another say so, and close works."""

    async def use(queue: Queue[Any, Any]) -> None:
        await queue.add("j")

    async def enter(queue: Queue[Any, Any]) -> None:
        async with queue:
            raise AssertionError("entered")

    async def work(queue: Queue[Any, Any]) -> None:
        async with Worker(queue, print):
            raise AssertionError("entered")

    queue = Queue(queue_name, url=url)
    asyncio.run(use(queue))
    for attempt in (use, enter, work):
        with pytest.raises(ConfigurationError, match="was first used in another event loop; make one per loop"):
            asyncio.run(attempt(queue))
    asyncio.run(queue.close())
    gc.collect()


FORK = """
import asyncio, json, os, sys, time
from eventq import Queue, Worker

async def add_in_child(queue):
    job = await queue.add("child")
    result = await job.result(10)
    await queue.close()
    return result

async def echo(job):
    return job.name

async def main():
    queue = Queue(sys.argv[1], url=sys.argv[2])
    queue.on("completed", lambda event: None)
    async with queue, Worker(queue, echo):
        # Everything is in use when the fork comes: adding, reading, waiting for results, and one add is on its way.
        assert await (await queue.add("before")).result(10) == "before"
        flying = asyncio.create_task(queue.add("flying"))
        await asyncio.sleep(0)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if asyncio.run(add_in_child(queue)) == "child" else 2
            finally:
                sys.stdout.flush()
                os._exit(code)
        status = await asyncio.to_thread(os.waitpid, pid, 0)
        began = time.monotonic()
        await flying
        for number in range(20):
            assert await (await queue.add("after")).result(10) == "after"
        print(os.waitstatus_to_exitcode(status[1]), time.monotonic() - began < 1.0, flush=True)

asyncio.run(main())
"""


async def test_a_forked_child_works_with_what_its_parent_made(url: str, queue_name: str, run_program: RunProgram) -> None:
    """In the child the queue opens connections of its own; the parent's go on as if nothing had happened."""
    process = run_program(FORK)
    try:
        out, err = await asyncio.to_thread(process.communicate, None, 20)
    except subprocess.TimeoutExpired:
        pytest.fail("the child or its parent hangs")
    assert ("0 True", "") == (out.strip(), err)
    async with Queue(queue_name, url=url) as queue:
        assert 23 == (await queue.get_job_counts())[JobState.COMPLETED]


async def test_a_closed_queue_says_so(url: str, queue_name: str) -> None:
    """Every call after close is a clear error at once, and starts nothing."""
    queue = Queue(queue_name, url=url)
    async with queue:
        job = await queue.add("j")
    await queue.close()
    queue.on("completed", print)
    calls: list[Callable[[], Any]] = [
        lambda: queue.add("j"),
        lambda: queue.add_bulk([NewJob("j", None)]),
        lambda: queue.get_job(job.id),
        lambda: queue.get_job_counts(),
        lambda: queue.pause(),
        lambda: queue.ready(),
        lambda: job.result(1),
        lambda: job.remove(),
        lambda: Worker(queue, print).start(),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="closed"):
            await call()
    assert [asyncio.current_task()] == list(asyncio.all_tasks())


# --- enough -----------------------------------------------------------------------------------------------------------


async def test_burst_ends_when_the_line_is_empty(url: str, queue_name: str) -> None:
    """Jobs that jobs add are run too; those that are not due are left."""
    async with Queue(queue_name, url=url) as queue:

        async def process(job: Job[int]) -> None:
            if job.data:
                await queue.add("child", job.data - 1)

        await queue.add_bulk([NewJob("j", 3)] * 10)
        await queue.add("later", delay=3600)
        await asyncio.wait_for(Worker(queue, process, concurrency=5, burst=True).run(), PATIENCE)
        counts = await queue.get_job_counts()
        assert (40, 0, 1) == (counts[JobState.COMPLETED], counts[JobState.WAITING], counts[JobState.DELAYED])


async def test_burst_on_an_empty_queue_ends_at_once(url: str, queue_name: str) -> None:
    """Nothing to do is done."""
    began = time.monotonic()
    await Worker(queue_name, print, url=url, burst=True, concurrency=20).run()
    assert time.monotonic() - began < SOON


@pytest.mark.parametrize("concurrency", [1, 4, 20])
async def test_max_jobs_is_exact(url: str, queue_name: str, concurrency: int) -> None:
    """After so many it stops, having begun no other; failures count too."""
    started: list[int] = []

    async def process(job: Job[int]) -> None:
        started.append(job.data)
        if job.data % 2:
            raise ValueError

    async with Queue(queue_name, url=url) as queue:
        await queue.add_bulk([NewJob("j", number) for number in range(30)])
        await asyncio.wait_for(Worker(queue, process, concurrency=concurrency, max_jobs=7).run(), PATIENCE)
        assert list(range(7, 30)) == await line(queue)
    assert list(range(7)) == sorted(started)


# --- pausing and changing ---------------------------------------------------------------------------------------------


async def test_a_paused_worker_leaves_jobs_to_others(
    url: str, queue_name: str, gate: Gate, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """Pausing waits for what runs; while it lasts nothing is claimed here, and another worker does it all; then it goes on."""
    others: list[int] = []
    async with Queue(queue_name, url=url) as queue, Worker(queue, gate.process, concurrency=2) as worker:
        await queue.add("j", 0)
        await wait_until(lambda: gate.now == 1)
        pausing = asyncio.create_task(worker.pause())
        await asyncio.sleep(0)
        assert worker.is_paused and not pausing.done()
        await queue.add_bulk([NewJob("j", number) for number in range(1, 6)])
        gate.open.set()
        await asyncio.wait_for(pausing, PATIENCE)
        assert 0 == worker.running
        assert b"1" == redis_client.hget(queue.context.keys["totals"], "starts j"), "nothing was claimed to be given back"
        await asyncio.wait_for(Worker(queue, lambda job: others.append(job.data), burst=True).run(), PATIENCE)
        assert ([0], [1, 2, 3, 4, 5]) == (gate.started, others)
        await queue.add("j", 6)
        assert [6] == await line(queue)
        worker.resume()
        await wait_until(lambda: gate.started == [0, 6], timeout=SOON)


async def test_a_worker_may_be_paused_before_it_starts(url: str, queue_name: str, gate: Gate, wait_until: WaitUntil) -> None:
    """It starts without claiming; resume lets it."""
    gate.open.set()
    async with Queue(queue_name, url=url) as queue:
        worker = Worker(queue, gate.process)
        await worker.pause()
        async with worker:
            job = await queue.add("j")
            for _ in range(20):
                assert JobState.WAITING is await queue.get_state(job.id)
            worker.resume()
            await job.result(SOON)


async def test_a_paused_queue_stops_every_worker_and_nothing_else(
    url: str, queue_name: str, gate: Gate, wait_until: WaitUntil
) -> None:
    """Adding goes on, what runs finishes, waiting jobs are told as paused; resume wakes the workers at once."""
    async with Queue(queue_name, url=url) as queue, Worker(queue, gate.process, concurrency=2), Worker(queue, gate.process):
        running = await queue.add("j", 0)
        await wait_until(lambda: gate.now == 1)
        await queue.pause()
        await queue.pause()
        assert await queue.is_paused()
        jobs = [await queue.add("j", 1), await queue.add("j", 2, priority=1), await queue.add("j", 3, delay=0.01)]
        gate.open.set()
        assert 0 == await running.result(PATIENCE)
        await wait_until(lambda: has_left_delayed(queue), description="the delayed job is due")
        counts = await queue.get_job_counts()
        assert (0, 2, 1) == (counts[JobState.WAITING], counts[JobState.PAUSED], counts[JobState.PRIORITIZED])
        assert (JobState.PAUSED, 3) == (await queue.get_state(jobs[0].id), await queue.count())
        assert [0] == gate.started
        await queue.resume()
        assert [1, 2, 3] == sorted([await job.result(SOON) for job in jobs])


async def has_left_delayed(queue: Queue[Any, Any]) -> bool:
    """Return whether no job is delayed."""
    return not (await queue.get_job_counts())[JobState.DELAYED]


async def test_jobs_that_arrive_after_a_pause_go_back_in_order(
    make_server: MakeServer, queue_name: str, gate: Gate, wait_until: WaitUntil
) -> None:
    """A claim that is on its way when the worker is paused brings jobs: they are released, uncounted, under their names."""
    server = make_server()
    async with Queue(queue_name, url=server.url) as queue, Recorder(queue) as recorder:
        await queue.pause()
        await queue.add_bulk([NewJob("j", number) for number in range(10)])
        async with Worker(queue, gate.process, concurrency=4) as worker:
            resuming = asyncio.create_task(queue.resume())
            await asyncio.sleep(0)
            server.freeze()
            worker._lanes.look()
            for _ in range(5):
                await asyncio.sleep(0)
            await worker.pause(wait=False)
            server.thaw()
            await resuming
            released = await recorder.wait(ReleasedEvent, 4)
            await wait_until(lambda: is_in_line(queue, 10), description="all are in line again")
            assert list(range(10)) == await line(queue)
            assert {("j", 1)} == {(event.name, event.attempt) for event in released}
    assert [] == gate.started


async def is_in_line(queue: Queue[Any, Any], number: int) -> bool:
    """Return whether so many jobs wait."""
    return number == (await queue.get_job_counts())[JobState.WAITING]


async def test_concurrency_can_be_changed_while_running(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Raised, free slots are filled at once; lowered, running jobs finish and then fewer run."""
    running: set[int] = set()
    go_on = asyncio.Event()
    most = 0

    async def process(job: Job[int]) -> None:
        nonlocal most
        running.add(job.data)
        most = max(most, len(running))
        await go_on.wait()
        running.remove(job.data)

    async with Queue(queue_name, url=url) as queue, Worker(queue, process) as worker:
        await queue.add_bulk([NewJob("j", number) for number in range(40)])
        await wait_until(lambda: len(running) == 1)
        worker.concurrency = 10
        await wait_until(lambda: len(running) == 10, timeout=SOON)
        worker.concurrency = 2
        go_on.set()
        await wait_until(lambda: worker.running <= 2)
        most = 0
        await wait_until(lambda: is_done(queue, 40))
    assert 2 == worker.concurrency and most <= 2


async def is_done(queue: Queue[Any, Any], number: int) -> bool:
    """Return whether so many jobs are completed."""
    return number == (await queue.get_job_counts())[JobState.COMPLETED]


async def test_a_bad_change_changes_nothing(url: str, queue_name: str, gate: Gate) -> None:
    """Case 14: concurrency 0, NaN or True is refused, at the start and later."""
    bad: list[Any] = [0, -1, float("nan"), 1.0, True, "5", None]
    for value in bad:
        with pytest.raises(ConfigurationError, match=rf"concurrency {re.escape(repr(value))}: must be a whole number from 1"):
            Worker(queue_name, gate.process, url=url, concurrency=value)
    worker = Worker(queue_name, gate.process, url=url, concurrency=3)
    for value in bad:
        with pytest.raises(ConfigurationError, match="concurrency"):
            worker.concurrency = value
    assert 3 == worker.concurrency


TWO_WORKERS = """
import asyncio, sys
from eventq import Queue, Worker

async def hang(job):
    print("running", flush=True)
    await asyncio.Event().wait()

async def main():
    queue = Queue(sys.argv[1], url=sys.argv[2])
    workers = [Worker(queue, hang, grace=0) for _ in range(2)]
    await asyncio.gather(*[worker.run() for worker in workers])
    await queue.close()
    print("closed", flush=True)

asyncio.run(main())
"""


async def test_a_signal_closes_every_worker_of_the_process(url: str, queue_name: str, run_program: RunProgram) -> None:
    """Two that run in one loop are both asked to stop, and a signal after that is the process' own again."""
    process = run_program(TWO_WORKERS)
    async with Queue(queue_name, url=url) as queue:
        await queue.add_bulk([NewJob("j") for _ in range(2)])
        assert ["running"] * 2 == [await read_line(process), await read_line(process)]
        process.send_signal(signal.SIGTERM)
        assert "closed" == await read_line(process)
        assert 0 == await asyncio.to_thread(process.wait, 10)
        assert (await queue.get_job_counts())[JobState.WAITING] == 2
