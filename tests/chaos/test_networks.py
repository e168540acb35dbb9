"""A link is cut for longer than a lease, without a word to either side: of one worker, then of all."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import redis

from eventq import NewJob, Queue

from ..conftest import skip_for
from .checker import check
from .ledger import Ended, Ledger, Started
from .networks import Network, namespace_missing_reason
from .processes import Processes
from .stored import is_drained, read_stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..conftest import MakeServer, WaitUntil

LEASE = 1.5
JOBS = 5


@pytest.fixture
def network() -> Iterator[Network]:
    """A network whose link can be cut."""
    if reason := namespace_missing_reason():
        skip_for(reason)
    with Network() as made:
        yield made


@pytest.mark.full
@pytest.mark.parametrize("times", [5])
async def test_a_worker_that_is_cut_off_stops_before_another_begins(
    make_server: MakeServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil, network: Network, times: int
) -> None:
    """Its runs end before their leases do, others take them over, no two overlap; when the link is back so is the worker."""
    server = make_server("--bind", "127.0.0.1", network.address, "--protected-mode", "no")
    ledger, url = Ledger(tmp_path / "ledger"), f"redis://{network.address}:{server.port}/0"
    with Processes(ledger, queue_name, url) as processes, redis.Redis(host="127.0.0.1", port=server.port) as client:
        cut_off = processes.start("worker", through=network.command, concurrency=JOBS, lease=LEASE, name="cut-off")
        await cut_off.expect("started")
        async with Queue(queue_name, url=server.url) as queue:
            for number in range(1, times + 1):
                for job in await queue.add_bulk([NewJob("hold_once", None)] * JOBS):
                    ledger.acknowledged(job.id)
                mine = number * JOBS
                await wait_until(lambda: count(ledger, "cut-off") == mine, 10, description="the worker to be back")  # noqa: B023
                network.cut()
                heir = await processes.worker(concurrency=JOBS, lease=LEASE, name="heir", grace=0)
                await wait_until(lambda: is_drained(client, queue_name), 10, description="others to take over")
                heir.kill()
                network.heal()
            report, stored = check(ledger, client, queue_name), read_stored(client, queue_name)
    ended = Counter(line.how for line in ledger.of(Ended))
    print(f"Network: one worker cut off {times} times, lease {LEASE} s: {dict(ended)}; {report}")
    report.assert_sound()
    assert {"CancelledError": times * JOBS, "returned": times * JOBS} == ended
    assert times * JOBS == Counter(event.kind for event in stored.events)["stalled"]


@pytest.mark.full
async def test_everybody_is_cut_off(
    make_server: MakeServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil, network: Network
) -> None:
    """For two leases: runs are interrupted, given back when the link is there again, uncounted, and done once."""
    server = make_server("--bind", "127.0.0.1", network.address, "--protected-mode", "no")
    ledger, url = Ledger(tmp_path / "ledger"), f"redis://{network.address}:{server.port}/0"
    with Processes(ledger, queue_name, url) as processes, redis.Redis(host="127.0.0.1", port=server.port) as client:
        for _ in range(3):
            worker = processes.start("worker", through=network.command, concurrency=JOBS, lease=LEASE)
            await worker.expect("started")
        async with Queue(queue_name, url=server.url) as queue:
            for job in await queue.add_bulk([NewJob("sleep", 2 * LEASE)] * (3 * JOBS)):
                ledger.acknowledged(job.id)
            await wait_until(lambda: len(ledger.of(Started)) == 3 * JOBS, 10, description="every slot in use")
            network.cut()
            await wait_until(lambda: len(ledger.of(Ended)) == 3 * JOBS, 10, description="every run to be interrupted")
            network.heal()
            await wait_until(lambda: is_drained(client, queue_name), 30, description="all to be done")
            report, stored = check(ledger, client, queue_name), read_stored(client, queue_name)
    kinds = Counter(event.kind for event in stored.events)
    print(f"Network: everybody cut off, lease {LEASE} s: {kinds['released']} given back, {kinds['stalled']} stalled; {report}")
    report.assert_sound()
    assert (3 * JOBS, 0, 3 * JOBS) == (kinds["released"], kinds["stalled"], report.extra_runs)


def count(ledger: Ledger, worker: str) -> int:
    """Return how many runs a worker began."""
    return sum(line.worker == worker for line in ledger.of(Started))
