"""Clocks that are wrong by up to an hour and jump, the server's and everybody else's: only the server's decides, and that one
takes no job from a worker that lives, starts none early, fires no slot twice, and leaves nothing behind.

What a jump of the server's clock means: set forward, all that is due in the time it leapt over is due at once; set back, delayed jobs
and schedules wait until it is there again. Leases go on as if it had not jumped.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Queue

from ..conftest import skip_for
from .checker import check
from .clocks import WrongClock, WrongServer, faketime_missing_reason
from .ledger import Ledger, Seen, Started
from .processes import Processes, choose_seed
from .stored import Stored, is_drained, read_stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..conftest import WaitUntil
    from ..servers import ServerKind
    from .processes import Process

HOUR = 3600.0
#: Every write on disk: what a server on a wrong clock keeps is as good as what another keeps.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@dataclass(frozen=True)
class Plan:
    """How often clocks jump, half of the jumps being the server's; how far apart at most (leases); how many take part."""

    jumps: int
    lease: float
    gap: float
    jobs: int
    workers: int
    schedulers: int

    @property
    def seconds(self) -> float:
        """How long the jumps take on average."""
        return self.jumps * self.lease * (self.gap + 0.5) / 2


SMALL = Plan(jumps=4, lease=2.0, gap=1.0, jobs=200, workers=2, schedulers=1)
FULL = Plan(jumps=100, lease=5.0, gap=1.0, jobs=5000, workers=4, schedulers=3)


@pytest.fixture
def wrong_server(server_kind: ServerKind) -> Iterator[WrongServer]:
    """A server of the test's own on a clock that can be set."""
    if reason := faketime_missing_reason():
        skip_for(reason)
    if server_kind == "redis":
        pytest.skip("Debian's redis-server does not start under libfaketime: its allocator waits for itself")
    with WrongServer(server_kind, *DURABLE) as server:
        yield server


class Scene:
    """Workers, schedulers, a reader and a producer, each on a wrong clock of its own, and the server on another."""

    def __init__(self, processes: Processes, server: WrongServer, directory: Path, plan: Plan, seed: int) -> None:
        self._processes = processes
        self._server = server
        self._directory = directory
        self._plan = plan
        self._seed = seed
        self._chance = random.Random(seed)
        self._clocks: list[WrongClock] = []
        self.workers: list[Process] = []
        self.jumps: list[float] = []

    async def start(self) -> None:
        """Start everybody; each is up to an hour off from the beginning."""
        self._server.clock.set(self._chance.uniform(-HOUR, HOUR))
        plan = self._plan
        self.workers = [self._start("worker", concurrency=20, lease=plan.lease, grace=1) for _ in range(plan.workers)]
        others = [self._start("scheduler", lease=plan.lease) for _ in range(plan.schedulers)]
        others.append(self._start("reader", consumer="reader"))
        for process in (*self.workers, *others):
            await process.expect("started")

    async def jump(self) -> None:
        """Let jobs be added, and one clock after the other jump at any moment."""
        plan = self._plan
        self.producer = self._start(
            "producer", count=plan.jobs, seconds=plan.seconds, longest=1.5 * plan.lease, delay=2 * plan.lease, seed=self._seed
        )
        for number in range(plan.jumps):
            # A live lease is renewed between two jumps of the server.
            await asyncio.sleep(plan.lease * self._chance.uniform(0.5, plan.gap))  # sleep-ok: clocks jump at any moment
            if number % 2:
                self._chance.choice(self._clocks).set(self._chance.uniform(-HOUR, HOUR))
            else:
                self._set_server(self._chance.uniform(-HOUR, HOUR))
        assert 0 == await self.producer.wait(60)
        # Delayed jobs wait for the time that the clock has shown.
        self._set_server(HOUR + 3 * plan.lease)

    def _set_server(self, offset: float) -> None:
        self.jumps.append(offset - self._server.clock.offset)
        self._server.clock.set(offset)
        with redis.Redis(host="127.0.0.1", port=self._server.port) as client:
            client.ping()
            seconds, _ = client.time()
        assert abs(seconds - time.time() - offset) < 10, "the server's clock does not follow"

    def _start(self, program: str, **options: Any) -> Process:
        clock = WrongClock(self._directory / f"clock-{len(self._clocks)}", self._chance.uniform(-HOUR, HOUR))
        self._clocks.append(clock)
        return self._processes.start(program, environment=clock.environment, **options)


async def play(server: WrongServer, queue_name: str, directory: Path, plan: Plan, wait_until: WaitUntil) -> None:
    """Carry a plan out, and look at everything that must hold."""
    seed = choose_seed()
    ledger = Ledger(directory / "ledger")
    with Processes(ledger, queue_name, server.url) as processes:
        scene = Scene(processes, server, directory, plan, seed)
        await scene.start()
        async with Queue(queue_name, url=server.url) as queue:
            await queue.upsert_schedule("every", every=1, name="sleep", data=0)
            await queue.upsert_schedule("cron", cron="*/2 * * * * *", name="sleep", data=0, missed=5)
            await scene.jump()
            await queue.remove_schedule("every")
            await queue.remove_schedule("cron")
        with redis.Redis(host="127.0.0.1", port=server.port) as client:
            with contextlib.suppress(pytest.fail.Exception):  # then the checker says what is stuck
                await wait_until(lambda: is_drained(client, queue_name), timeout=4 * plan.lease + 10)
            stored = read_stored(client, queue_name)
            last = stored.seq
            with contextlib.suppress(pytest.fail.Exception):  # then the checker says what was not seen
                await wait_until(lambda: last in {line.seq for line in ledger.of(Seen)}, timeout=10)
            report = check(ledger, client, queue_name)
        alive = [process.is_alive for process in processes.started if process is not scene.producer]
    kinds = Counter(event.kind for event in stored.events)
    errors = Counter(f"{e.facts.get('type')}: {e.facts.get('message')}" for e in stored.events if e.kind == "error")
    promoted, early = promotions(stored)
    fired = Counter(
        (e.facts["schedule"], e.facts["slot_ms"]) for e in stored.events if e.kind == "added" and "schedule" in e.facts
    )
    print(
        f"Clocks: {plan}, SEED={seed}, server jumped {len(scene.jumps)} times by {min(scene.jumps):+.0f} to "
        f"{max(scene.jumps):+.0f} s; {promoted} delayed jobs, {len(early)} early; {len(fired)} slots fired, "
        f"{fired.total() - len(fired)} again; {kinds['stalled']} stalled, {kinds['released']} released, errors {dict(errors.most_common(5))}; {report}"
    )
    report.assert_sound(seed)
    assert plan.jobs == report.acknowledged and 0 == report.counted_lost, f"SEED={seed}"
    assert {True} == set(alive), f"SEED={seed}: a process has ended by itself"
    assert (0, 0, 0, 0) == (kinds["stalled"], kinds["released"], kinds["error"], report.extra_runs), f"SEED={seed}: {kinds}"
    assert plan.workers == kinds["worker_started"]
    assert [] == early and promoted > plan.jobs / 10, f"SEED={seed}: {early[:5]}"
    assert {1} == set(fired.values()), f"SEED={seed}: {[slot for slot, times in fired.items() if times > 1]}"
    durations = [e.facts[what] for e in stored.events for what in ("waited_ms", "ran_ms", "total_ms") if what in e.facts]
    assert min(durations) >= 0, f"SEED={seed}"


def promotions(stored: Stored) -> tuple[int, list[str]]:
    """Return how many delayed jobs came into line, and which of them before they were due by the server's clock."""
    found = [event for event in stored.events if event.kind == "waiting" and event.facts.get("previous") == "delayed"]
    return len(found), [event.job_ids[0] for event in found if event.ms < event.facts["due_ms"]]


async def test_clocks_that_jump_harm_nothing(
    wrong_server: WrongServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Four jumps by up to two hours: nothing stalled, early, twice, lost or stuck."""
    await play(wrong_server, queue_name, tmp_path, SMALL, wait_until)


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_a_hundred_jumps_of_clocks_harm_nothing(
    wrong_server: WrongServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """The same for minutes, with more of everybody."""
    await play(wrong_server, queue_name, tmp_path, FULL, wait_until)


@pytest.mark.full
@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_dead_workers_jobs_run_again_wherever_the_clock_went(
    wrong_server: WrongServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil, jump: float
) -> None:
    """A worker is killed and the server's clock jumps: its jobs start again within two leases and a second."""
    lease, jobs = 1.5, 10
    ledger = Ledger(tmp_path / "ledger")
    with Processes(ledger, queue_name, wrong_server.url) as processes:
        async with Queue(queue_name, url=wrong_server.url) as queue:
            victim = await processes.worker(concurrency=jobs, lease=lease)
            for number in range(jobs):
                await queue.add("hold", job_id=f"job-{number}")
            await wait_until(lambda: len(ledger.of(Started)) == jobs)
            await processes.worker(concurrency=jobs, lease=lease)
            victim.kill()
            wrong_server.clock.set(jump)
            await wait_until(lambda: len(ledger.of(Started)) == 2 * jobs, timeout=4 * lease)
            died = next(line.ns for line in ledger.lines() if type(line).__name__ == "Died")
    took = (max(line.ns for line in ledger.of(Started)) - died) / 1e9
    print(f"Clocks: a worker killed, the server's clock set by {jump:+.0f} s: its jobs started again after {took:.2f} s at most")
    assert took <= 2 * lease + 1
