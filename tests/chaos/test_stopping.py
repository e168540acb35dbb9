"""Workers are told to stop in the middle of everything: they end in time and in good order, and others go on with their jobs."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Job, NewJob, Queue, Worker

from .checker import check
from .ledger import Ledger, Started
from .processes import Processes, choose_seed, strain
from .stored import Happened, is_drained, key_of, read_stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..conftest import MakeServer, WaitUntil
    from .processes import Process

Load = tuple[str, float, int]

GRACE = 0.5
SLOTS = 20
#: Of every round: name, data, how many. Some end within the grace, some never, some ignore being cancelled for a while.
LONG = [("hold", 0, 4), ("thread", 30, 4), ("stubborn", 0.1, 2), ("sleep", 0.3, 5)]
#: Longer than a cancelled processor is waited for.
GO_ON = 0.6
QUICK = 160
#: Those that cannot be cancelled may still be at it when their job is begun elsewhere.
UNSTOPPABLE = {"thread", "stubborn"}
TERM, INT = signal.SIGTERM, signal.SIGINT


def soon() -> float:
    """Return what may be on top of the grace: a second, of a machine that does nothing else."""
    return 1.0 * strain()


class Rounds:
    """Round after round a worker process is stopped under load, while an heir in this process waits for its jobs."""

    def __init__(
        self, queue: Queue[Any, Any], processes: Processes, ledger: Ledger, client: redis.Redis, seed: int, long: Sequence[Load]
    ) -> None:
        self._queue = queue
        self._long = long
        self._processes = processes
        self._ledger = ledger
        self._client = client
        self._chance = random.Random(seed)
        self.heir = Worker(queue, self._inherit, name="heir")
        self.names: dict[str, str] = {}
        self.seconds: list[float] = []

    async def _inherit(self, job: Job[Any]) -> None:
        with self._ledger.run(job, "heir"):
            await asyncio.sleep(0.002)  # sleep-ok: the work itself

    async def run(self, signals: list[signal.Signals], wait_until: WaitUntil) -> None:
        """Stop one worker by these signals; a second one must take away a grace that is far too long."""
        await self.heir.pause()
        victim = await self._processes.worker(concurrency=SLOTS, grace=GRACE if len(signals) == 1 else 60)
        quick = [NewJob("sleep", 0.005)]
        first = [NewJob(name, data) for name, data, count in self._long for _ in range(count)] + quick * SLOTS
        self._chance.shuffle(first)
        jobs = await self._queue.add_bulk(first + quick * QUICK)
        self._ledger.acknowledged(*(job.id for job in jobs))
        self.names |= {job.id: job.name for job in jobs}
        enough = self._chance.randint(2 * SLOTS, 4 * SLOTS)
        wait = key_of(self._queue.name, "wait")
        await wait_until(lambda: len(jobs) - int(self._client.llen(wait)) >= enough)
        self.heir.resume()
        await self._stop(victim, signals)
        await wait_until(lambda: is_drained(self._client, self._queue.name), timeout=20)

    async def _stop(self, victim: Process, signals: list[signal.Signals]) -> None:
        *first, last = signals
        for number in first:
            victim.send(number)
            await asyncio.sleep(self._chance.uniform(0.02, 0.2))  # sleep-ok: a pending signal swallows another of its kind
        began = time.monotonic()
        victim.send(last)
        assert 0 == await victim.wait(30)
        self.seconds.append(time.monotonic() - began)


def line_up(events: list[Happened]) -> list[str]:
    """Return what was claimed out of turn: released jobs stand at the head of the line in the order they were added."""
    wrong: list[str] = []
    order = {event.job_ids[0]: event.seq for event in events if event.kind == "added"}
    line: list[str] = []
    entry = ""
    for event in events:
        if event.kind == "released":
            batch = line_of_entry(events, event.entry) if event.entry != entry else []
            entry = event.entry
            wrong += [] if batch == sorted(batch, key=order.__getitem__) else [f"released {batch}"]
            line = batch + line
        elif event.kind == "active" and line:
            expected = line.pop(0)
            wrong += [] if event.job_ids == (expected,) else [f"{event.job_ids} before {expected}"]
    return wrong


def line_of_entry(events: list[Happened], entry: str) -> list[str]:
    """Return the jobs of one entry of the stream."""
    return [event.job_ids[0] for event in events if event.entry == entry]


async def stop_under_load(
    url: str,
    queue_name: str,
    directory: Path,
    client: redis.Redis,
    wait_until: WaitUntil,
    *,
    rounds: list[list[signal.Signals]],
    go_on: float = 0.0,
) -> None:
    """Play the rounds and check what became of all."""
    seed = choose_seed()
    ledger = Ledger(directory / "ledger")
    long = [*LONG, ("stubborn", go_on, 1)] if go_on else LONG
    with Processes(ledger, queue_name, url) as processes:
        async with Queue(queue_name, url=url) as queue:
            scene = Rounds(queue, processes, ledger, client, seed, long)
            async with scene.heir:
                for signals in rounds:
                    await scene.run(signals, wait_until)
    report = check(ledger, client, queue_name)
    events = read_stored(client, queue_name).events
    released = [event for event in events if event.kind == "released"]
    longest = max(scene.seconds)
    print(
        f"SIGTERM under load, {len(rounds)} times, grace {GRACE} s, SEED={seed}: longest exit {longest:.2f} s (strain {strain():.1f}), "
        f"released {len(released)}, stalled {sum(event.kind == 'stalled' for event in events)}; {report}"
    )
    report.assert_sound(seed, tolerating=["overlapping"])
    assert {scene.names[job_id] for job_id in report.overlapping} <= UNSTOPPABLE, f"SEED={seed}"
    assert longest <= GRACE + soon() + go_on, f"SEED={seed}: {scene.seconds}"
    assert len(released) >= 8 * len(rounds), f"SEED={seed}: what never ends is released"
    assert [] == [event for event in events if event.kind in ("stalled", "failed", "retrying")], f"SEED={seed}"
    assert [] == line_up(events), f"SEED={seed}"


async def test_stopping_under_load(
    url: str, queue_name: str, tmp_path: Path, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """By one signal or two: exit within grace + 1 s with code 0, what is released runs elsewhere next, in order, uncounted."""
    rounds = [[TERM], [INT], [TERM, TERM], [INT, TERM]]
    await stop_under_load(url, queue_name, tmp_path, redis_client, wait_until, rounds=rounds)


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_stopping_under_load_fifty_times(
    url: str, queue_name: str, tmp_path: Path, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """SIGTERM under load, 50 times: exit <= grace + 1 s, released jobs run elsewhere in order, no stall counted, exit code 0."""
    await stop_under_load(url, queue_name, tmp_path, redis_client, wait_until, rounds=[[TERM]] * 50)


@pytest.mark.full
async def test_stopping_processors_that_go_on(
    url: str, queue_name: str, tmp_path: Path, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """Those that ignore being cancelled for longer than they are waited for are released over their heads; asyncio.run itself
    waits for them, so the exit may be later by what they take.
    """
    await stop_under_load(url, queue_name, tmp_path, redis_client, wait_until, rounds=[[TERM]] * 5, go_on=GO_ON)


async def stop(process: Process, number: signal.Signals, timeout: float = 30) -> tuple[int, float]:
    """Send a signal; return the exit code and the seconds until the end."""
    began = time.monotonic()
    process.send(number)
    return await process.wait(timeout), time.monotonic() - began


@pytest.mark.parametrize("number", [TERM, INT])
async def test_an_idle_worker_stops_at_once(url: str, queue_name: str, tmp_path: Path, number: signal.Signals) -> None:
    """Whatever its grace, and whatever it waits for: a lease of 60 s blocks for 20."""
    with Processes(Ledger(tmp_path / "ledger"), queue_name, url) as processes:
        code, seconds = await stop(await processes.worker(lease=60, grace=60), number)
    assert 0 == code and seconds <= soon(), f"exit {code} after {seconds:.2f} s"


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=pytest.mark.full, id="full")])
async def test_a_worker_may_be_stopped_while_it_starts(
    url: str, queue_name: str, tmp_path: Path, redis_client: redis.Redis, wait_until: WaitUntil, times: int
) -> None:
    """At any moment: before it handles signals it just dies, later it ends with code 0; it never takes a job along.

    (SIGTERM only: a SIGINT in the middle of imports becomes a KeyboardInterrupt, which Python itself may lose.)
    """
    seed = choose_seed()
    chance, ledger, took = random.Random(seed), Ledger(tmp_path / "ledger"), [0.0]
    ends: Counter[int] = Counter()
    with Processes(ledger, queue_name, url) as processes:
        async with Queue(queue_name, url=url) as queue:
            jobs = await queue.add_bulk([NewJob("sleep", 0.05)] * 20)
            ledger.acknowledged(*(job.id for job in jobs))
            for _ in range(times):
                process = processes.start("worker", concurrency=5)
                await asyncio.sleep(chance.uniform(0.1, 0.8))  # sleep-ok: any moment of a start
                code, seconds = await stop(process, TERM)
                ends[code] += 1
                took.append(seconds)
            await processes.worker(concurrency=5)
            await wait_until(lambda: is_drained(redis_client, queue_name), timeout=10)
    report = check(ledger, redis_client, queue_name)
    print(f"Stopped while starting, {times} times, SEED={seed}: exits {dict(ends)}, longest {max(took):.2f} s")
    report.assert_sound(seed)
    assert 0 == report.extra_runs, f"SEED={seed}: a job was begun and not ended"
    assert ends.keys() <= {0, -TERM} and max(took) <= soon(), f"SEED={seed}: {ends}, {took}"


async def test_a_worker_stops_though_redis_is_frozen(
    make_server: MakeServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Redis answers nothing: it ends with code 0 within grace + 7 s, in which Redis might have been back; its jobs go on later."""
    server, ledger = make_server(), Ledger(tmp_path / "ledger")

    async def finish(job: Job[Any]) -> None:
        with ledger.run(job, "heir"):
            await asyncio.sleep(0)

    with (
        redis.Redis(host="127.0.0.1", port=server.port) as client,
        Processes(ledger, queue_name, server.url) as processes,
    ):
        async with Queue(queue_name, url=server.url) as queue:
            jobs = await queue.add_bulk([NewJob("hold", 0)] * 5)
            ledger.acknowledged(*(job.id for job in jobs))
            process = await processes.worker(concurrency=5, grace=GRACE, lease=1)
            await wait_until(lambda: len(ledger.of(Started)) == 5)
            server.freeze()
            code, seconds = await stop(process, TERM)
            server.thaw()
            async with Worker(queue, finish, lease=1):
                await wait_until(lambda: is_drained(client, queue_name), timeout=10)
        report = check(ledger, client, queue_name)
    print(f"SIGTERM with Redis frozen, grace {GRACE} s: exit {code} after {seconds:.2f} s")
    report.assert_sound()
    assert 0 == code and seconds <= GRACE + 7, f"exit {code} after {seconds:.2f} s"


async def test_a_worker_that_cannot_start_stops(
    make_server: MakeServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Redis answers nothing from the beginning: the signal ends the waiting for it, with code 0."""
    server = make_server()
    with Processes(Ledger(tmp_path / "ledger"), queue_name, server.url) as processes:
        server.freeze()
        process = processes.start("worker")
        await wait_until(lambda: handles(process.pid, TERM), description="the worker handles signals")
        code, seconds = await stop(process, TERM)
        server.thaw()
    print(f"SIGTERM while starting, Redis frozen: exit {code} after {seconds:.2f} s")
    assert 0 == code and seconds <= soon(), f"exit {code} after {seconds:.2f} s"


def handles(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for this signal, as the kernel sees it."""
    (mask,) = [line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (number - 1) & 1)


async def test_a_forked_worker_stops_like_any_other(
    url: str, queue_name: str, tmp_path: Path, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """Made from a queue that its parent used and goes on using: SIGTERM ends the child in time, its job is released."""
    ledger = Ledger(tmp_path / "ledger")
    with Processes(ledger, queue_name, url) as processes:
        parent = processes.start("forked", grace=GRACE)
        child = int(await parent.read_line())
        await wait_until(lambda: ledger.of(Started))
        began = time.monotonic()
        os.kill(child, TERM)
        await parent.expect("0")
        stopped = time.monotonic() - began
        await parent.expect("done")
        unharmed = time.monotonic() - began - stopped
        assert 0 == await parent.wait(10)
    report = check(ledger, redis_client, queue_name)
    assert stopped <= GRACE + soon()
    assert unharmed <= soon(), f"the parent's next add took {unharmed:.2f} s"
    assert (2, 2) == (report.acknowledged, len(report.stuck))
    kinds = [event.kind for event in read_stored(redis_client, queue_name).events if event.job_ids]
    assert ["added", "active", "released", "added"] == kinds
    report.assert_sound(tolerating=["stuck"])
