"""Fencing: a worker that may have lost its lease is stopped, and whatever it still writes is refused."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, NewJob, Queue, Worker
from eventq.client import AsyncRunner, boot_time
from eventq.commands.work import Held, Outcome, ProgressUpdate, release_jobs, renew_leases, settle_and_claim
from eventq.errors import LeaseLost
from eventq.events import ActiveEvent, CompletedEvent, ErrorEvent, ProgressEvent, ReleasedEvent, StalledEvent
from eventq.operations import changing, reading
from eventq.outcome import identity

from ..chaos.processes import strain
from .recorder import Recorder

if TYPE_CHECKING:
    import redis

    from ..conftest import MakeServer, WaitUntil
    from ..servers import TestServer

LEASE = 1.0

#: A worker whose jobs run until they are cancelled. It prints `running ID TOKEN` and `cancelled NANOSECONDS`.
ZOMBIE = """
import asyncio, sys, time
from eventq import Queue, Worker

async def hold(job):
    print("running", job.id, job._token, flush=True)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("cancelled", time.clock_gettime_ns(time.CLOCK_BOOTTIME), flush=True)
        raise

async def main():
    name, url, concurrency, lease = sys.argv[1:]
    async with Queue(name, url=url) as queue:
        await Worker(queue, hold, concurrency=int(concurrency), lease=float(lease), name="zombie").run()

asyncio.run(main())
"""


#: Jobs that are running when the worker is stopped.
RUNS = 10


@pytest.fixture
def zombie(queue_name: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """A worker process with a slot for each of them; killed after the test."""
    command = [sys.executable, "-c", ZOMBIE, queue_name, url, str(RUNS), str(LEASE)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


async def read_lines(process: subprocess.Popen[str], count: int) -> list[list[str]]:
    """Return the words of the next lines that it prints."""
    stdout = process.stdout
    assert stdout is not None
    return await asyncio.to_thread(lambda: [stdout.readline().split() for _ in range(count)])


@pytest.mark.parametrize(
    "rounds", [pytest.param(2, id="small"), pytest.param(50, id="full", marks=[pytest.mark.full, pytest.mark.timeout(600)])]
)
async def test_a_worker_that_wakes_after_its_lease_is_cancelled_at_once(
    url: str, queue_name: str, zombie: subprocess.Popen[str], rounds: int
) -> None:
    """Stopped past its lease while another worker finishes its jobs: awake again its tasks are cancelled within 100 ms (p99),
    and its tokens, sent by hand to everything that takes one, are refused every time.
    """
    delays: list[float] = []
    offered: Counter[str] = Counter()
    accepted: Counter[str] = Counter()

    async def finish(_: Job[Any]) -> str:
        return "by another"

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        for _ in range(rounds):
            jobs = await queue.add_bulk([NewJob("j", None)] * RUNS)
            held = {job_id: token for _, job_id, token in await read_lines(zombie, RUNS)}
            assert {job.id for job in jobs} == held.keys()
            os.kill(zombie.pid, signal.SIGSTOP)
            try:
                async with Worker(queue, finish, lease=LEASE, concurrency=RUNS, name="heir"):
                    assert ["by another"] * RUNS == [await job.result(LEASE + 5) for job in jobs]
            finally:
                woken = boot_time()
                os.kill(zombie.pid, signal.SIGCONT)
            delays += [int(words[1]) / 1e9 - woken for words in await read_lines(zombie, RUNS)]
            await offer_stale_writes(queue, held, offered, accepted)
        completed = recorder.of(CompletedEvent)
    delays.sort()
    p99 = delays[math.ceil(len(delays) * 0.99) - 1]
    print(f"fencing: {len(delays)} zombies cancelled, p50 {delays[len(delays) // 2] * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, "
          f"max {delays[-1] * 1000:.0f} ms; stale writes offered {offered.total()} {dict(offered)}, accepted {accepted.total()}")  # fmt: skip
    assert 0 == accepted.total(), accepted
    assert RUNS * rounds == len(completed) == len({event.job_id for event in completed})
    assert p99 <= 0.1 * strain()


async def offer_stale_writes(queue: Queue[Any, Any], held: dict[str, str], offered: Counter[str], accepted: Counter[str]) -> None:
    """Send everything that carries a token with tokens that are no longer any job's; count what was offered and accepted."""
    context = queue.context
    keys, run = context.keys, context.runner.run
    fragment = identity("j", 1, "zombie")
    stale = [Held(job_id, token, fragment) for job_id, token in held.items()]
    for word, extra in (("completed", ""), ("retry", 0), ("failed", ""), ("exhausted", ""), ("postpone", 0)):
        reply = await run(
            settle_and_claim(
                keys, worker="zombie", lease_ms=60_000, wanted=0, retention=context.retention,
                progress=[ProgressUpdate(one.job_id, one.token, fragment, "42") for one in stale],
                outcomes=[Outcome(one.job_id, one.token, word, fragment, '"by the zombie"', extra) for one in stale],
            )
        )  # fmt: skip
        offered.update({"settle": len(stale), "progress": len(stale)})
        accepted["settle"] += len(stale) - len(reply.stale)
    lost: list[int] = await run(renew_leases(keys, 60_000, stale))
    accepted["renew"] += len(stale) - len(lost)
    accepted["release"] += await run(release_jobs(keys, stale))
    for one in stale:
        for what, steps in (
            ("log", changing.log(keys, one.job_id, one.token, "by the zombie")),
            ("update", changing.replace_data(keys, one.job_id, one.token, '"by the zombie"')),
        ):
            try:
                await context.runner.perform(steps)
            except LeaseLost:
                continue
            accepted[what] += 1
    for what in ("renew", "release", "log", "update"):
        offered[what] += len(stale)
    for job_id in held:
        stored = await context.require(job_id)
        accepted["settle"] += (stored.result, stored.run.state) != ('"by another"', "completed")
        accepted["progress"] += stored.progress is not None
        accepted["update"] += stored.record.data != "null"
        accepted["log"] += await context.runner.perform(reading.logs(keys, job_id, 0, 1)) != []


class Paused:
    """A processor that waits for a gate, and notes when and how it ended."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = 0
        self.cancelled_at: list[float] = []

    async def __call__(self, job: Job[Any]) -> str:
        self.running += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled_at.append(time.monotonic())
            raise
        finally:
            self.running -= 1
        return "done"


async def test_a_worker_out_of_reach_of_redis_stops_before_another_begins(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil
) -> None:
    """Its deadline is its own: no renewal comes through, so it cancels its runs before their leases end on the server."""
    server = make_server()
    alone, heir = Paused(), Paused()
    begun: list[float] = []

    async def begin(job: Job[Any]) -> str:
        begun.append(time.monotonic())
        return await heir(job)

    async with Queue(queue_name, url=server.url) as queue, Recorder(queue) as recorder:
        cut_off = Worker(queue, alone, lease=LEASE, concurrency=5, name="alone")
        async with cut_off:
            errors: list[ErrorEvent] = []
            cut_off.on("error", errors.append)
            jobs = await queue.add_bulk([NewJob("j", None)] * 5)
            await wait_until(lambda: alone.running == 5)
            with cut_off._heartbeat._runner._lock:  # no renewal gets through
                async with Worker(queue, begin, lease=LEASE, concurrency=5, name="heir"):
                    cut_off._lanes.claiming = False
                    await wait_until(lambda: heir.running == 5)
                    heir.gate.set()
                    await recorder.wait(CompletedEvent, 5)
            await wait_until(lambda: len(errors) >= 5)
    assert 5 == len(alone.cancelled_at) and max(alone.cancelled_at) < min(begun)
    assert {job.id for job in jobs} == {event.job_id for event in recorder.of(CompletedEvent)}
    assert 10 == len(recorder.of(ActiveEvent))
    assert 5 == len(recorder.of(ReleasedEvent)) + len(recorder.of(StalledEvent))
    assert {"LeaseLost"} == {event.type for event in errors}


async def test_a_job_that_is_given_back_runs_again_uncounted(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil
) -> None:
    """Redis away for two leases: the run is cancelled, given back when Redis returns, and costs no attempt and no stall."""
    server = make_server("--appendonly", "yes", "--appendfsync", "always")
    paused = Paused()
    async with (
        Queue(queue_name, url=server.url) as queue,
        Recorder(queue) as recorder,
        Worker(queue, paused, lease=LEASE, concurrency=3),
    ):
        jobs = await queue.add_bulk([NewJob("j", None)] * 3)
        await wait_until(lambda: paused.running == 3)
        server.kill()
        await wait_until(lambda: len(paused.cancelled_at) == 3)
        await asyncio.sleep(LEASE)  # sleep-ok: the leases end, too, while the server is down
        server.start()
        await recorder.wait(ReleasedEvent, 3, timeout=5)
        paused.gate.set()
        await recorder.wait(CompletedEvent, 3, timeout=5)
        runs = [(await queue.context.require(job.id)).run for job in jobs]
    assert {(2, 1, 0, 0)} == {(run.starts, run.releases, run.stalls, run.fails) for run in runs}


async def test_a_result_that_comes_in_spite_of_the_fence_is_recorded_if_the_job_is_still_ours(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil
) -> None:
    """A processor that finishes although it is cancelled loses nothing: the token decides, not the fence."""
    server = make_server()
    entered = asyncio.Event()

    async def stubborn(job: Job[Any]) -> str:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert job.cancelled
        return "all the same"

    async with Queue(queue_name, url=server.url) as queue, Worker(queue, stubborn, lease=LEASE):
        job = await queue.add("j")
        await entered.wait()
        server.freeze()
        await asyncio.sleep(LEASE * 1.2)  # sleep-ok: the pause itself
        server.thaw()
        assert "all the same" == await job.result(5)


async def test_no_run_is_fenced_while_its_renewals_come_through(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Five leases, on a loop that is blocked half the time: nothing is cancelled."""
    paused = Paused()
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, paused, lease=0.6, concurrency=3):
        await queue.add_bulk([NewJob("j", None)] * 3)
        await wait_until(lambda: paused.running == 3)
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            time.sleep(0.3)  # noqa: ASYNC251 # sleep-ok: blocks the loop on purpose
            await asyncio.sleep(0.3)  # sleep-ok: and lets it go on for as long
        assert [] == paused.cancelled_at
        paused.gate.set()
        await recorder.wait(CompletedEvent, 3)
    assert {"active": 3} == {kind: n for kind, n in recorder.counts().items() if kind in ("active", "stalled", "released")}


async def test_progress_of_a_lost_run_is_not_recorded(
    url: str, queue_name: str, redis_client: redis.Redis, server: TestServer
) -> None:
    """Progress carries the token as an outcome does."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        await queue.add("j")
        context = queue.context
        claim = settle_and_claim(
            context.keys, worker="w", lease_ms=60_000, wanted=1, retention=context.retention, progress=[], outcomes=[]
        )
        (job,) = (await context.runner.run(claim)).jobs
        runner = AsyncRunner(context.server)
        fragment = identity("j", 1, "w")
        assert 1 == await runner.run(release_jobs(context.keys, [Held(job.id, job.token, fragment)]))
        await runner.run(
            settle_and_claim(
                context.keys, worker="w", lease_ms=60_000, wanted=0, retention=context.retention,
                progress=[ProgressUpdate(job.id, job.token, fragment, "1")], outcomes=[],
            )
        )  # fmt: skip
        await runner.close()
        await recorder.catch_up()
        assert None is (await context.require(job.id)).progress
    assert [] == recorder.of(ProgressEvent)
