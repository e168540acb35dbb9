"""Processors that block the event loop of their worker: for how long they keep their job, and what ends it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, Queue, Worker
from eventq.events import ActiveEvent, CompletedEvent, StalledEvent

from ..integration.recorder import Recorder
from .checker import Report, check
from .ledger import Ledger, Started
from .processes import Process, Processes

if TYPE_CHECKING:
    from pathlib import Path

    import redis


@dataclass
class Blocked:
    """What became of a job whose first worker blocks: both workers, the checker's report, the seconds between two starts."""

    result: str
    report: Report
    between: list[float]
    stalls: int


class Stage:
    """A worker process that blocks, and another worker that would take the job over at any time."""

    def __init__(self, url: str, queue: str, directory: Path, client: redis.Redis) -> None:
        self._url = url
        self._queue = queue
        self._client = client
        self._ledger = Ledger(directory / "ledger")

    async def block(self, how: str, *, seconds: float, lease: float, timeout: float | None = None) -> Blocked:
        """Add the job, wait for its outcome and for the end of the process that blocked."""

        async def take_over(job: Job[Any]) -> str:
            with self._ledger.run(job, "other"):
                return "by another"

        with Processes(self._ledger, self._queue, self._url) as processes:
            async with Queue(self._queue, url=self._url) as queue, Recorder(queue) as recorder:
                process = await processes.worker(lease=lease, name="blocked")
                job = await queue.add(how, seconds, timeout=timeout)
                self._ledger.acknowledged(job.id)
                await recorder.wait(ActiveEvent)
                async with Worker(queue, take_over, lease=lease):
                    result = await job.result(seconds + 10)
                    await self._stop(process, seconds + 5)
                await recorder.wait(CompletedEvent)
        report = check(self._ledger, self._client, self._queue)
        starts = [line.ns / 1e9 for line in self._ledger.of(Started)]
        return Blocked(result, report, [after - starts[0] for after in starts[1:]], len(recorder.of(StalledEvent)))

    async def _stop(self, process: Process, timeout: float) -> None:
        """Stop the process as soon as it can hear of it; it must then end well."""
        process.send(signal.SIGTERM)
        assert 0 == await process.wait(timeout)


@pytest.fixture
def stage(url: str, queue_name: str, tmp_path: Path, redis_client: redis.Redis) -> Stage:
    """A stage for one job."""
    return Stage(url, queue_name, tmp_path, redis_client)


@pytest.mark.full
async def test_a_job_that_blocks_for_five_leases_is_not_run_twice(stage: Stage) -> None:
    """Blocked for 10 s at a lease of 2 s: it keeps its job, which is renewed from a thread. (Three leases: test_recovery.)"""
    blocked = await stage.block("block", seconds=10.0, lease=2.0)
    blocked.report.assert_sound()
    assert ("by the one that blocked", [], 0) == (blocked.result, blocked.between, blocked.stalls)


@pytest.mark.parametrize(("timeout", "lease"), [(0.6, 0.5), pytest.param(3.0, 2.0, marks=pytest.mark.full, id="full")])
async def test_a_job_that_blocks_beyond_its_timeout_is_taken_back(stage: Stage, timeout: float, lease: float) -> None:
    """After the timeout it is not renewed: it starts elsewhere at timeout + lease + 1 s at most, and not before the timeout."""
    blocked = await stage.block("block", seconds=timeout + lease + 1.2, lease=lease, timeout=timeout)
    blocked.report.assert_sound(tolerating=["overlapping"])
    assert 1 == len(blocked.between), f"run again after {blocked.between} s"
    (between,) = blocked.between
    print(f"Blocked loop: timeout {timeout} s, lease {lease} s: taken over after {between:.2f} s")
    assert timeout <= between <= timeout + lease + 1.0
    assert ("by another", 1) == (blocked.result, blocked.stalls)


async def test_a_job_that_stops_the_whole_process_loses_its_lease_and_nothing_else(stage: Stage) -> None:
    """Nothing renews while C code holds the interpreter's lock: run again elsewhere, its own outcome refused, one recorded."""
    blocked = await stage.block("hold_gil", seconds=2.0, lease=0.5)
    blocked.report.assert_sound(tolerating=["overlapping"])
    assert 1 == len(blocked.between), f"run again after {blocked.between} s"
    (between,) = blocked.between
    print(f"Held interpreter lock: lease 0.5 s: taken over after {between:.2f} s")
    assert between <= 0.5 + 1.0
    assert ("by another", 1) == (blocked.result, blocked.stalls)
