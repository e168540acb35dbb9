"""Workers are killed at random: nothing is lost or stuck, nothing has two outcomes, and their work goes on within lease + 1 s."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import redis

from .checker import Report, check
from .ledger import Ledger, Seen
from .processes import Processes, choose_seed
from .stored import is_drained, read_stored

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import MakeServer, WaitUntil
    from ..servers import TestServer
    from .processes import Process

WORKERS = 3


@dataclass(frozen=True)
class Plan:
    """How much of it: jobs are added over `seconds`, while every now and then (at most `gap` seconds apart) a worker is killed."""

    jobs: int
    kills: int
    lease: float
    seconds: float
    longest: float
    gap: float
    reader_kills: int = 0


SMALL = Plan(jobs=300, kills=5, lease=1.0, seconds=3.0, longest=0.5, gap=0.8)
FULL = Plan(jobs=5000, kills=100, lease=2.0, seconds=110.0, longest=1.5, gap=2.0, reader_kills=3)


class Massacre:
    """Three workers, a producer and a durable reader at work, and a killer."""

    def __init__(self, processes: Processes, ledger: Ledger, plan: Plan, seed: int) -> None:
        self._processes = processes
        self._ledger = ledger
        self._plan = plan
        self._seed = seed
        self._chance = random.Random(seed)
        self._reader: Process
        self._workers: list[Process] = []

    async def run(self) -> None:
        """Start everybody, kill one worker after the other, until all jobs are added."""
        self._reader = self._processes.start("reader", consumer="reader")
        await self._reader.expect("started")
        self._workers = [self._start_worker() for _ in range(WORKERS)]
        for worker in self._workers:
            await worker.expect("started")
        options: dict[str, Any] = {"count": self._plan.jobs, "seconds": self._plan.seconds, "longest": self._plan.longest}
        producer = self._processes.start("producer", seed=self._seed, **options)
        reader_dies = self._chance.sample(range(self._plan.kills), self._plan.reader_kills)
        for number in range(self._plan.kills):
            await asyncio.sleep(self._chance.uniform(0.1, self._plan.gap))  # sleep-ok: kills come at any moment
            await self._kill_a_worker()
            if number in reader_dies:
                self._reader.kill()
                self._reader = self._processes.start("reader", consumer="reader")
        assert 0 == await producer.wait(self._plan.seconds + 60)

    async def stop(self) -> None:
        """Stop the workers in good order."""
        for worker in self._workers:
            worker.send(signal.SIGTERM)
        assert [0] * WORKERS == [await worker.wait(10) for worker in self._workers]

    def _start_worker(self) -> Process:
        # However often a job is hit, it is run again.
        return self._processes.start("worker", concurrency=10, lease=self._plan.lease, max_stalls=1000, grace=1)

    async def _kill_a_worker(self) -> None:
        index = self._chance.randrange(WORKERS)
        self._workers[index].kill()
        self._workers[index] = self._start_worker()
        await self._workers[index].expect("started")


async def massacre(server: TestServer, queue: str, directory: Path, plan: Plan, wait_until: WaitUntil) -> Report:
    """Carry a plan out; returns what the checker says."""
    seed = choose_seed()
    ledger = Ledger(directory / "ledger")
    with redis.Redis(host="127.0.0.1", port=server.port) as client, Processes(ledger, queue, server.url) as processes:
        scene = Massacre(processes, ledger, plan, seed)
        await scene.run()
        with contextlib.suppress(pytest.fail.Exception):  # then the checker says what is stuck
            await wait_until(lambda: is_drained(client, queue), timeout=30)
        await scene.stop()
        last = read_stored(client, queue).seq
        with contextlib.suppress(pytest.fail.Exception):  # then the checker says what was not seen
            await wait_until(lambda: last in {line.seq for line in ledger.of(Seen)}, timeout=20)
        report = check(ledger, client, queue)
    print(f"Kills: {plan.jobs} jobs, {plan.kills} kills, lease {plan.lease} s, SEED={seed}, {server.kind}: {report}")
    report.assert_sound(seed)
    assert plan.jobs == report.acknowledged and 0 == report.unacknowledged + report.counted_lost, f"SEED={seed}"
    assert report.is_recounted
    assert report.recovery(0.99) <= plan.lease + 1.0, f"SEED={seed}: {report}"
    return report


async def test_killed_workers_lose_nothing(
    make_server: MakeServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """300 jobs, 5 kills: lost 0, stuck 0, double outcomes 0, no two runs at once, restart within lease + 1 s."""
    server = make_server("--appendonly", "yes", "--appendfsync", "always")
    await massacre(server, queue_name, tmp_path, SMALL, wait_until)


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_hundred_kills(make_server: MakeServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil) -> None:
    """5,000 jobs, 100 kills: lost 0, stuck 0, double outcomes 0, restart p99 <= lease + 1 s; readers are killed too."""
    server = make_server("--appendonly", "yes", "--appendfsync", "always")
    report = await massacre(server, queue_name, tmp_path, FULL, wait_until)
    assert len(report.recoveries) > FULL.kills, "the kills hit nothing"


async def test_no_process_outlives_a_test_that_is_killed(
    url: str, queue_name: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Whatever way the test process ends, its guard ends what it started."""
    with Processes(Ledger(tmp_path / "ledger"), queue_name, url) as processes:
        test = processes.start("abandon")
        worker = int(await test.read_line())
        test.kill()
        await wait_until(lambda: is_gone(worker), description="the guard kills the worker")


def is_gone(pid: int) -> bool:
    """Return whether there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
