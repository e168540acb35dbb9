"""How long after the death of their worker jobs start again: twenty workers at a time, killed at random moments of their leases,
while one lives and has free slots.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Job, JobOptions, NewJob, Queue, Worker

from .checker import check
from .ledger import Ledger, now_ns
from .processes import Processes, choose_seed
from .stored import is_drained

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import MakeServer, WaitUntil
    from .processes import Process

#: Jobs per worker, as many as it has slots.
SLOTS = 2


@dataclass(frozen=True)
class Plan:
    """So many rounds, in each of which so many workers die."""

    rounds: int
    workers: int
    lease: float


class Victims:
    """Workers that are forked before they are needed, so that none of them loads the machine while others die."""

    def __init__(self, nursery: Process, ledger: Ledger, plan: Plan, chance: random.Random) -> None:
        self._nursery = nursery
        self._ledger = ledger
        self._plan = plan
        self._chance = chance
        self._pids: list[int] = []

    async def grow(self) -> None:
        """Return once there are as many as planned, at work."""
        self._nursery.tell(str(self._plan.workers))
        text = ""
        while "forked" not in text or text.count("started") < self._plan.workers:
            text += await self._nursery.read_line() + "\n"  # they write as they like: two words may share a line
        found = re.search(r"forked((?: \d+)+)", text)
        assert found
        self._pids = [int(pid) for pid in found[1].split()]

    async def kill(self) -> None:
        """Kill one after the other, each at a moment of its own within the time of a renewal."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        moments = sorted(self._chance.uniform(0, self._plan.lease / 3) for _ in self._pids)
        for pid, moment in zip(self._pids, moments, strict=True):
            await asyncio.sleep(began + moment - loop.time())  # sleep-ok: at any moment of a lease
            died = now_ns()
            os.kill(pid, signal.SIGKILL)
            self._ledger.died(pid, "kill -9", died)


async def measure(server_url: str, port: int, name: str, directory: Path, plan: Plan, wait_until: WaitUntil) -> None:
    """Kill them all, round after round; every job starts again within a lease and a second (p99)."""
    seed = choose_seed()
    ledger = Ledger(directory / "ledger")
    again: list[str] = []

    async def finish(job: Job[Any]) -> None:
        with ledger.run(job, "survivor"):
            assert job.run.stalls == 1, "the worker that lives was not to take a new job"
            again.append(job.id)

    with Processes(ledger, name, server_url) as processes, redis.Redis(host="127.0.0.1", port=port) as client:
        nursery = processes.start("nursery", concurrency=SLOTS, lease=plan.lease)
        victims = Victims(nursery, ledger, plan, random.Random(seed))
        jobs = plan.workers * SLOTS
        async with (
            Queue(name, url=server_url) as queue,
            Worker(queue, finish, concurrency=2 * jobs, lease=plan.lease) as survivor,
        ):
            await victims.grow()
            for number in range(plan.rounds):
                await survivor.pause()
                ids = [f"job-{number}-{index}" for index in range(jobs)]
                for added in await queue.add_bulk([NewJob("hold_once", None, JobOptions(job_id=job_id)) for job_id in ids]):
                    ledger.acknowledged(added.id)
                await wait_until(lambda: survivor_sees(client, queue) == jobs, 10, description="every victim at work")
                survivor.resume()
                await victims.kill()
                if number < plan.rounds - 1:
                    await victims.grow()
                await wait_until(lambda: is_drained(client, name), plan.lease + 10, description="all jobs to be done again")
            report = check(ledger, client, name)
    print(f"Recovery: {plan}, SEED={seed}, {len(again)} by the worker that lived: {report}")
    report.assert_sound(seed)
    assert plan.rounds * jobs == report.acknowledged == len(report.recoveries) == report.extra_runs, f"SEED={seed}"
    assert report.recovery(0.99) <= plan.lease + 1.0, f"SEED={seed}: {report}"


def survivor_sees(client: redis.Redis, queue: Queue[Any, Any]) -> int:
    """Return how many jobs are running."""
    members: Any = client.zrange(queue.context.keys["leases"], 0, -1)
    return sum(not member.startswith(b"no-job:") for member in members)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lease", [2.0, 15.0])
async def test_five_hundred_deaths(
    make_server: MakeServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil, lease: float
) -> None:
    """Twenty-five rounds of twenty workers, with a short lease and with the default one."""
    server = make_server()
    await measure(server.url, server.port, queue_name, tmp_path, Plan(25, 20, lease), wait_until)
