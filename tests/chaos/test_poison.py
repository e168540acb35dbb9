"""Poison: a job that takes its worker process along is given up after max_stalls + 1 starts, and only that job.

In processes of one slot no other job even notices, however much poison there is. In a process of many slots what runs beside a
poison job loses its worker too and is run again; it must not fail, though the same jobs come back together to the head of the
line. (Of several poison jobs one after the other may hit the same neighbour; then it fails when it has lost too many workers.)
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, JobState, Queue
from eventq.events import FailedEvent

from ..integration.recorder import Recorder
from .checker import check
from .ledger import Ledger, Started
from .processes import Processes, choose_seed
from .stored import is_drained

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from ..conftest import WaitUntil
    from .processes import Process

#: Job name, and how its process ends: os._exit(7), os.abort(), a segmentation fault.
POISON = {"leave": 7, "abort": -signal.SIGABRT, "crash": -signal.SIGSEGV}


@dataclass(frozen=True)
class Plan:
    """Poison jobs by name among jobs that do no harm, on worker processes that are restarted whenever they die."""

    poison: list[str]
    harmless: int
    workers: int
    lease: float
    max_stalls: int
    concurrency: int = 1


class Supervisor:
    """Starts a worker process again whenever it ends, as systemd or Kubernetes would, until it is told to stop."""

    def __init__(self, processes: Processes, **options: Any) -> None:
        self._processes = processes
        self._options = options
        self._process: Process | None = None
        self._is_stopping = False
        self.codes: list[int] = []

    async def run(self) -> None:
        """Keep one worker going."""
        while not self._is_stopping:
            process = self._processes.start("worker", **self._options)
            await process.read_line()  # from its first word on it handles signals
            self._process = process
            if self._is_stopping:
                process.send(signal.SIGTERM)
            self.codes.append(await process.wait(60))
            self._process = None

    def stop(self) -> None:
        """End the worker and do not start it again."""
        self._is_stopping = True
        if self._process is not None:
            self._process.send(signal.SIGTERM)


async def poisoning(url: str, queue_name: str, directory: Path, client: redis.Redis, plan: Plan, wait_until: WaitUntil) -> None:
    """Carry a plan out and check what became of each job and each process."""
    seed = choose_seed()
    ledger = Ledger(directory / "ledger")
    names = plan.poison + ["sleep"] * plan.harmless
    random.Random(seed).shuffle(names)
    with Processes(ledger, queue_name, url) as processes:
        async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
            jobs = [await queue.add(name, 0.005) for name in names]
            ledger.acknowledged(*(job.id for job in jobs))
            options = {"lease": plan.lease, "max_stalls": plan.max_stalls, "concurrency": plan.concurrency}
            supervisors = [Supervisor(processes, **options) for _ in range(plan.workers)]
            async with asyncio.TaskGroup() as group:
                for supervisor in supervisors:
                    group.create_task(supervisor.run())
                with contextlib.suppress(pytest.fail.Exception):  # then the checker says what is stuck
                    await wait_until(lambda: is_drained(client, queue_name), timeout=30 + 5 * plan.lease * len(plan.poison))
                for supervisor in supervisors:
                    supervisor.stop()
            report = check(ledger, client, queue_name)
            print(
                f"Poison: {len(plan.poison)} among {plan.harmless}, {plan.workers} workers of {plan.concurrency} slots, "
                f"lease {plan.lease} s, max_stalls {plan.max_stalls}, SEED={seed}: {report}"
            )
            report.assert_sound(seed)
            await recorder.catch_up()
            fates = {job.id: await fate(job, ledger, recorder) for job in jobs}
    starts = plan.max_stalls + 1
    given_up = ["added", *["active", "stalled"] * plan.max_stalls, "active", "failed"]
    for job in jobs:
        state, runs, kinds = fates[job.id]
        if job.name == "sleep":
            assert JobState.COMPLETED is state, f"SEED={seed}: {job.id} {kinds}"
        else:
            assert (JobState.FAILED, given_up) == (state, kinds), f"SEED={seed}: {job.id}"
        if plan.concurrency == 1:  # else one job's process may be dead before another one that it claimed is begun
            assert runs == (1 if job.name == "sleep" else starts), f"SEED={seed}: {job.id} {kinds}"
    assert {"stalled"} == {event.reason for event in recorder.of(FailedEvent)}, f"SEED={seed}"
    if plan.concurrency == 1:
        ends = Counter(code for each in supervisors for code in each.codes if code)
        assert Counter(POISON[name] for name in plan.poison * starts) == ends, f"SEED={seed}"


async def fate(job: Job[Any, Any], ledger: Ledger, recorder: Recorder) -> tuple[JobState, int, list[str]]:
    """Return what became of a job: its state, its starts by the ledger, its events."""
    return await job.get_state(), len(ledger.of(Started, job.id)), recorder.kinds(job.id)


async def test_poison_is_given_up_and_harms_no_other(
    url: str, queue_name: str, tmp_path: Path, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """os._exit, os.abort, a segfault: failed after max_stalls + 1 starts; the jobs around them complete in one run each."""
    plan = Plan(poison=[*POISON], harmless=20, workers=2, lease=0.5, max_stalls=1)
    await poisoning(url, queue_name, tmp_path, redis_client, plan, wait_until)


@pytest.mark.parametrize("poison", ["leave", *(pytest.param(name, marks=pytest.mark.full) for name in ("abort", "crash"))])
async def test_poison_in_a_process_of_many_slots_harms_no_other(
    url: str, queue_name: str, tmp_path: Path, redis_client: redis.Redis, wait_until: WaitUntil, poison: str
) -> None:
    """The jobs that die with it are run again and complete: only the poison is given up, after max_stalls + 1 starts."""
    plan = Plan(poison=[poison], harmless=60, workers=1, lease=0.5, max_stalls=1, concurrency=10)
    await poisoning(url, queue_name, tmp_path, redis_client, plan, wait_until)


@pytest.mark.full
@pytest.mark.timeout(400)
async def test_much_poison(url: str, queue_name: str, tmp_path: Path, redis_client: redis.Redis, wait_until: WaitUntil) -> None:
    """Ten of each kind at the default max_stalls of 2: 90 dead processes, three starts each, 300 other jobs unaffected."""
    plan = Plan(poison=[*POISON] * 10, harmless=300, workers=4, lease=1.0, max_stalls=2)
    await poisoning(url, queue_name, tmp_path, redis_client, plan, wait_until)
