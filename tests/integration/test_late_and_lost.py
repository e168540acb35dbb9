"""Runs that end in unusual places: claims that come too late, cancellation in a backoff strategy, threads, the last of max_jobs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Backoff, Job, NewJob, Queue, Worker
from eventq.client import AsyncRunner, Server
from eventq.commands.read import register_queue
from eventq.errors import EventqError, ServerRefused
from eventq.events import CompletedEvent, ErrorEvent, ReleasedEvent

from .recorder import Recorder

if TYPE_CHECKING:
    from ..conftest import MakeServer, WaitUntil

LEASE = 1.0

#: A worker that stops itself while a claim is in flight. It prints each job it begins.
STOPPED = """
import asyncio, os, signal, sys
from eventq import Worker

async def process(job):
    print(job.id, flush=True)
    await asyncio.sleep(0.005)  # sleep-ok: so that its claims are spread over time

async def main():
    worker = Worker(sys.argv[1], process, url=sys.argv[2], lease=float(sys.argv[3]), concurrency=10)
    async with worker:
        while not (worker._lanes._asked and worker._runs.started > 100):
            await asyncio.sleep(0)
        print("stopped", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def late(queue_name: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """The worker that stops itself, on its way; killed after the test."""
    command = [sys.executable, "-c", STOPPED, queue_name, url, str(LEASE)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


async def test_what_is_claimed_too_late_is_not_begun(url: str, queue_name: str, late: subprocess.Popen[str]) -> None:
    """Stopped for three leases with a claim in flight, a worker begins none of the jobs that others have completed since."""

    async def process(_: Job[Any]) -> None:
        return None

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        jobs = await queue.add_bulk([NewJob("j", None)] * 1000)
        assert late.stdout is not None
        line = ""
        while "stopped" not in line:
            line = await asyncio.to_thread(late.stdout.readline)
        async with Worker(queue, process, lease=LEASE, concurrency=50):
            await recorder.wait(CompletedEvent, len(jobs), timeout=15)
        os.kill(late.pid, signal.SIGCONT)
        await recorder.wait(ErrorEvent, 1)  # the runs that it had begun are lost
        late.kill()
        assert "" == late.stdout.read()
    assert {job.id for job in jobs} == {event.job_id for event in recorder.of(CompletedEvent)}


async def test_a_run_that_is_fenced_in_its_backoff_strategy_is_given_back(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil
) -> None:
    """The processor has failed and a strategy is being asked when the lease is in doubt: the run ends, and the job runs again."""
    server = make_server()
    asked, runs = asyncio.Event(), 0

    async def fail(_: Job[Any]) -> str:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError
        return "again"

    async def ponder(_: Job[Any], __: BaseException) -> float:
        asked.set()
        await asyncio.Event().wait()
        return 0

    async with (
        Queue(queue_name, url=server.url) as queue,
        Worker(queue, fail, lease=LEASE, backoffs={"ponder": ponder}) as worker,
    ):
        job = await queue.add("j", attempts=3, backoff=Backoff.custom("ponder"))
        await asked.wait()
        server.freeze()
        await asyncio.sleep(LEASE * 1.1)  # sleep-ok: the pause itself
        server.thaw()
        assert "again" == await job.result(5)
        await wait_until(lambda: not worker._runs.held)
        run = (await queue.context.require(job.id)).run
    assert (2, 1, 0, 0) == (run.starts, run.releases, run.stalls, run.fails)


async def test_the_last_of_max_jobs_may_be_fenced(make_server: MakeServer, queue_name: str) -> None:
    """A worker that is to run one job and is cut off in it ends, and gives the job back."""
    server = make_server()
    entered = asyncio.Event()

    async def hold(_: Job[Any]) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with Queue(queue_name, url=server.url) as queue:
        job = await queue.add("j")
        working = asyncio.create_task(Worker(queue, hold, lease=LEASE, max_jobs=1).run())
        await entered.wait()
        server.freeze()
        await asyncio.sleep(LEASE * 1.2)  # sleep-ok: the pause itself
        server.thaw()
        await asyncio.wait_for(working, 8)
        assert "waiting" == await job.get_state()


async def test_a_thread_is_not_given_up_on_a_suspicion(make_server: MakeServer, queue_name: str, wait_until: WaitUntil) -> None:
    """Nothing ends a plain function, so its job is not given back while it runs: once, and its result counts."""
    server = make_server()
    began: list[float] = []

    def plain(_: Job[Any]) -> str:
        began.append(time.monotonic())
        time.sleep(LEASE * 1.6)  # sleep-ok: longer than the server stands still
        return "by the first"

    async with Queue(queue_name, url=server.url) as queue, Recorder(queue) as recorder, Worker(queue, plain, lease=LEASE):
        job = await queue.add("j")
        # Not the event: the worker may hear of its claim later than a reader does.
        await wait_until(lambda: began)
        server.freeze()
        await asyncio.sleep(LEASE * 1.1)  # sleep-ok: the pause itself
        server.thaw()
        assert "by the first" == await job.result(5)
    assert 1 == len(began) and [] == recorder.of(ReleasedEvent)


async def test_async_with_raises_what_a_worker_ended_with(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil
) -> None:
    """A permission that scripts miss, gone for a moment, ends the worker; it says so at once, and `async with` raises it."""
    server = make_server()

    async def process(_: Job[Any]) -> None:
        return None

    client: Any
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        worker = Worker(queue_name, process, url=server.url, lease=LEASE)
        with pytest.raises(ServerRefused, match="permission"):
            async with worker:
                client.execute_command("ACL", "SETUSER", server.user, "-hmget")
                await wait_until(lambda: not worker.is_running)
                client.execute_command("ACL", "SETUSER", server.user, "+hmget")
                assert worker.failure is not None


async def test_a_call_does_not_outlive_its_runner(make_server: MakeServer, queue_name: str, wait_until: WaitUntil) -> None:
    """Closed between two tries, a runner connects no more: the call ends with an error though the server is back."""
    server = make_server()
    keys = Queue(queue_name, url=server.url).context.keys
    faults: list[Exception] = []
    runner = AsyncRunner(Server(server.url), client_name="closed", on_fault=faults.append)
    await runner.run_verb(register_queue(keys))
    server.kill()
    call = asyncio.create_task(runner.run_verb(register_queue(keys)))
    await wait_until(lambda: len(faults) >= 2)
    await runner.close()
    server.start()
    with pytest.raises(EventqError):
        await call
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        clients: Any = client.client_list()
        assert "closed" not in [each["name"] for each in clients]
