"""The server restarts, drops everybody, forgets its scripts, stands still: workers and readers carry on by themselves, soon.

Under load: two worker processes, a durable reader in a third, a producer and a live listener here. Whoever was struck must be
heard of within 2 s of the server answering again: its first event, start or add that the server made after it answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import redis

from eventq import Queue
from eventq.events import KINDS, ActiveEvent

from .checker import Report, check, percentile
from .ledger import Acknowledged, Ledger, Line, Seen, Started, now_ns
from .processes import Processes, choose_seed
from .stored import NO_JOB, Stored, is_drained, key_of, read_stored

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from eventq.events import Event

    from ..conftest import MakeServer, WaitUntil
    from ..servers import TestServer

WORKERS = ("one", "two")
#: More than are ever in use: a worker without a free slot would start nothing, however well it is.
SLOTS = 60
#: So many jobs run when it strikes, at least.
RUNNING = 8
#: Within so many seconds of the server answering, everybody has carried on.
SOON = 2.0


@dataclass(frozen=True)
class Plan:
    """What strikes, how often, and with which lease.

    fault: strikes, and returns when the server answers again. gap: seconds between strikes, at most. waits: whether everybody
    must have carried on before it strikes again. longest: seconds of the longest jobs, of which several are always running.
    """

    fault: Callable[[Strikes], None]
    times: int
    lease: float = 5.0
    gap: float = 0.4
    waits: bool = True
    longest: float = 1.5

    def __str__(self) -> str:
        return f"{self.fault.__name__} x {self.times}, lease {self.lease} s"


@dataclass(frozen=True)
class Strike:
    """When it struck, when the server answered again, the number of the last event by then; how many jobs ran before."""

    began_ns: int
    answered_ns: int
    seq: int
    running: int


# --- faults -----------------------------------------------------------------------------------------------------------


class Strikes:
    """What faults are made of: the server, a seeded chance, the plan."""

    def __init__(self, server: TestServer, queue: str, plan: Plan, chance: random.Random) -> None:
        self.server = server
        self.queue = queue
        self.plan = plan
        self.chance = chance
        self.done: list[Strike] = []

    def strike(self) -> Strike:
        """Strike once; returns when the server answers again."""
        running, began = self.running(), now_ns()
        self.plan.fault(self)
        answered = now_ns()
        with self.client() as client:
            text: Any = client.hget(key_of(self.queue, "meta"), "seq")
        self.done.append(Strike(began, answered, int(text or 0), running))
        return self.done[-1]

    def running(self) -> int:
        """Return how many jobs run now."""
        with self.client() as client:
            members: Any = client.zrange(key_of(self.queue, "leases"), 0, -1)
        return sum(not member.startswith(NO_JOB.encode()) for member in members)

    def client(self) -> redis.Redis:
        """Return a plain client with a connection of its own."""
        return redis.Redis(host="127.0.0.1", port=self.server.port)

    def __str__(self) -> str:
        """How long the server was away at most, and how many jobs ran when it struck."""
        longest = max(strike.answered_ns - strike.began_ns for strike in self.done) / 1e9
        running = [strike.running for strike in self.done]
        return f"away {longest:.2f} s at most, {min(running)} to {max(running)} jobs running"


def restarts(strikes: Strikes) -> None:
    """Stop the server or kill it, let it be away for a moment or none, and start it with what it saved."""
    strikes.chance.choice([strikes.server.stop, strikes.server.kill])()
    time.sleep(strikes.chance.choice([0.0, strikes.chance.uniform(0.0, 1.0)]))  # sleep-ok: the outage itself
    strikes.server.start()


def client_kills(strikes: Strikes) -> None:
    """Close every connection, as an operator or a proxy that is replaced does."""
    with strikes.client() as client:
        until = time.monotonic() + 5
        while len(client.client_list(_type="normal")) <= 10 and time.monotonic() < until:
            time.sleep(0.01)  # sleep-ok: until those who were hit before are back
        killed: Any = client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert killed >= 10, f"only {killed} connections were there to be killed"


def script_flushes(strikes: Strikes) -> None:
    """Forget all scripts."""
    with strikes.client() as client:
        client.script_flush()


def freezes(strikes: Strikes) -> None:
    """Stand still for three leases: whose jobs are whose nobody can say any more."""
    strikes.server.freeze()
    time.sleep(3 * strikes.plan.lease)  # sleep-ok: the outage itself
    strikes.server.thaw()


def pauses(strikes: Strikes) -> None:
    """Hold back every command, or every write, by turns, for a second."""
    what = ("ALL", "WRITE")[len(strikes.done) % 2]
    with strikes.client() as client:
        client.execute_command("CLIENT", "PAUSE", 1000, what)
        client.delete("a-write")  # answered when the pause is over


# --- who is at work ---------------------------------------------------------------------------------------------------


class Scene:
    """Everybody at work, and what was heard of them."""

    def __init__(self, processes: Processes, ledger: Ledger, strikes: Strikes, queue: Queue[Any, Any]) -> None:
        self._processes = processes
        self._ledger = ledger
        self._strikes = strikes
        self._queue = queue
        self._active: dict[str, int] = dict.fromkeys(WORKERS, 0)
        self._acknowledged_ns = 0
        self._seen_file = ledger.directory
        self._is_adding = True

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """Start everybody; at the end stop the producer, not the others."""
        for kind in KINDS:
            self._queue.on(kind, self._heard)
        await self._queue.ready()
        reader = self._processes.start("reader", consumer="reader")
        self._seen_file = self._ledger.directory / str(reader.pid)
        await reader.expect("started")
        lease = self._strikes.plan.lease
        self._workers = [self._processes.start("worker", name=name, concurrency=SLOTS, lease=lease) for name in WORKERS]
        for worker in self._workers:
            await worker.expect("started")
        producer = asyncio.create_task(self._produce())
        try:
            yield
        finally:
            self._is_adding = False
            await producer

    async def stop(self) -> None:
        """Stop the workers, which are those that were started, in good order."""
        assert all(process.is_alive for process in self._processes.started), "a process has ended by itself"
        for worker in self._workers:
            worker.send(signal.SIGTERM)
        assert [0] * len(WORKERS) == [await worker.wait(10) for worker in self._workers]

    def has_carried_on(self, strike: Strike) -> bool:
        """Return whether everybody has been heard of since the server answered."""
        return not self.missing(strike)

    def missing(self, strike: Strike) -> list[str]:
        """Return who has not been heard of since the server answered."""
        missing = [f"worker {name}" for name, seq in self._active.items() if seq <= strike.seq]
        missing += ["the producer"] * (self._acknowledged_ns <= strike.answered_ns)
        return missing + ["the reader"] * (self._last_seen() <= strike.seq)

    async def _produce(self) -> None:
        """Add some long jobs, then about fifty a second, every fifth a long one, and wait for the server like anybody."""
        chance, longest = random.Random(self._strikes.chance.random()), self._strikes.plan.longest
        number = 0
        while self._is_adding:
            number += 1
            is_long = number <= 2 * RUNNING or number % 5 == 0
            job_id = f"job-{number}"
            self._ledger.offered(job_id)
            seconds = chance.uniform(0.5, 1) * longest if is_long else chance.uniform(0, 0.01)
            await self._queue.add("sleep", seconds, job_id=job_id)
            self._ledger.acknowledged(job_id)
            self._acknowledged_ns = now_ns()
            if number > 2 * RUNNING:
                await asyncio.sleep(0.015)  # sleep-ok: jobs come over time

    async def _heard(self, event: Event) -> None:
        self._ledger.seen("listener", event)
        if isinstance(event, ActiveEvent):
            self._active[event.worker] = event.seq

    def _last_seen(self) -> int:
        """Return the number of the last event that the reader wrote down."""
        with self._seen_file.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 500))
            lines = file.read().split(b"\n")
        return int(json.loads(lines[-2])[4]) if len(lines) > 2 else 0


class Outsider(Protocol):
    """Somebody else who reads the queue, and of whom is to be known when they have carried on."""

    name: str

    def struck(self, strikes: Strikes) -> None:
        """The server answers again: from now on something new must be heard."""

    def has_carried_on(self) -> bool:
        """Return whether it was."""
        ...


# --- what came of it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What the checker says, what is stored, and per party how long after each strike it was heard of, in seconds, sorted."""

    report: Report
    stored: Stored
    delays: dict[str, list[float]]

    @property
    def kinds(self) -> Counter[str]:
        """How many events of each kind there were."""
        return Counter(event.kind for event in self.stored.events)

    @property
    def slowest(self) -> float:
        """The longest that anybody took to carry on."""
        return max(max(delays) for delays in self.delays.values())

    def __str__(self) -> str:
        figures = [
            f"{party} p50 {percentile(delays, 0.5):.3f} s, p99 {percentile(delays, 0.99):.3f} s, max {delays[-1]:.3f} s"
            for party, delays in self.delays.items()
        ]
        return f"carried on after: {'; '.join(figures)}; {self.report}"


def delays(lines: list[Line], strikes: list[Strike]) -> dict[str, list[float]]:
    """Return how long after each strike everybody was heard of: by what the server made since it answered."""
    found: dict[str, list[float]] = {}
    for strike in strikes:
        first: dict[str, float] = {}
        for line in lines:
            match line:
                case Started() if line.fence > strike.seq:
                    party = f"worker {line.worker}"
                case Seen() if line.seq > strike.seq:
                    party = line.reader
                case Acknowledged() if line.ns > strike.answered_ns:
                    party = "producer"
                case _:
                    continue
            first.setdefault(party, (line.ns - strike.answered_ns) / 1e9)
        for party, seconds in first.items():
            found.setdefault(party, []).append(seconds)
    return {party: sorted(found[party]) for party in sorted(found)}


async def play(
    server: TestServer, name: str, directory: Path, plan: Plan, wait_until: WaitUntil, outsiders: Sequence[Outsider] = ()
) -> Result:
    """Carry a plan out; returns what came of it once all is drained and everything that must always hold held."""
    seed = choose_seed()
    ledger = Ledger(directory / "ledger")
    strikes = Strikes(server, name, plan, random.Random(seed))
    async with Queue(name, url=server.url) as queue:
        with Processes(ledger, name, server.url) as processes, strikes.client() as client:
            scene = Scene(processes, ledger, strikes, queue)
            async with scene.at_work():
                heard = await strike_all(strikes, scene, wait_until, outsiders)
            with contextlib.suppress(pytest.fail.Exception):  # then the checker says what is stuck
                await wait_until(lambda: is_drained(client, name), timeout=20)
            await scene.stop()
            last = read_stored(client, name).seq
            with contextlib.suppress(pytest.fail.Exception):  # then the checker says what was not seen
                await wait_until(lambda: Counter(line.seq for line in ledger.of(Seen))[last] == 2, timeout=10)
            report, stored = check(ledger, client, name), read_stored(client, name)
    result = Result(report, stored, delays(ledger.lines(), strikes.done) | heard)
    print(f"Server: {plan}, {strikes}, SEED={seed}, {server.kind}: {result}")
    report.assert_sound(seed)
    assert (0, 0, True) == (report.unacknowledged, report.counted_lost, report.is_recounted), f"SEED={seed}: {report}"
    parties = {*(f"worker {name}" for name in WORKERS), "reader", "listener", "producer", *heard}
    assert parties == result.delays.keys(), f"SEED={seed}"
    assert {plan.times} == {len(delays) for delays in result.delays.values()}, f"SEED={seed}"
    assert result.slowest <= SOON, f"SEED={seed}: {result}"
    # Nobody's live jobs are taken away, and no worker begins anew.
    assert (0, len(WORKERS)) == (result.kinds["stalled"], result.kinds["worker_started"]), f"SEED={seed}"
    return result


async def strike_all(
    strikes: Strikes, scene: Scene, wait_until: WaitUntil, outsiders: Sequence[Outsider]
) -> dict[str, list[float]]:
    """Strike as often as planned; in between, and at the end, everybody carries on. Return how soon outsiders did, sorted."""
    heard: dict[str, list[float]] = {outsider.name: [] for outsider in outsiders}

    async def carry_on(who: str, is_back: Callable[[], bool], strike: Strike) -> None:
        try:
            await wait_until(is_back, timeout=10)
        except pytest.fail.Exception:
            who = who or ", ".join(scene.missing(strike))
            pytest.fail(f"strike {len(strikes.done)}: 10 s after the server answered, nothing of {who}")
        if who:
            heard[who].append((now_ns() - strike.answered_ns) / 1e9)

    for number in range(strikes.plan.times):
        if strikes.plan.waits or number == 0:
            await wait_until(lambda: strikes.running() >= RUNNING, timeout=10, description=f"{RUNNING} jobs to run")
        await asyncio.sleep(strikes.chance.uniform(0, strikes.plan.gap))  # sleep-ok: faults come at any moment
        strike = await asyncio.to_thread(strikes.strike)
        if strikes.plan.waits or number == strikes.plan.times - 1:
            for outsider in outsiders:
                outsider.struck(strikes)
            waiting = [carry_on(outsider.name, outsider.has_carried_on, strike) for outsider in outsiders]
            await asyncio.gather(carry_on("", partial(scene.has_carried_on, strike), strike), *waiting)
    return {name: sorted(found) for name, found in heard.items()}


# --- the claims -------------------------------------------------------------------------------------------------------

#: Append-only, every write on disk before it is acknowledged: what is killed comes back with all that was acknowledged.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")

RIDDEN_OUT_PLANS = [
    Plan(restarts, 3),
    Plan(client_kills, 5),
    Plan(script_flushes, 15, gap=0.2, waits=False),
    Plan(pauses, 2),
    pytest.param(Plan(restarts, 30, gap=2.0), marks=[pytest.mark.full, pytest.mark.timeout(400)]),
    pytest.param(Plan(client_kills, 30, gap=1.0), marks=[pytest.mark.full, pytest.mark.timeout(400)]),
    pytest.param(Plan(script_flushes, 300, gap=0.2, waits=False), marks=[pytest.mark.full, pytest.mark.timeout(400)]),
    pytest.param(Plan(pauses, 12, gap=1.0), marks=[pytest.mark.full, pytest.mark.timeout(400)]),
]


@pytest.mark.parametrize("plan", RIDDEN_OUT_PLANS, ids=str)
async def test_a_fault_shorter_than_a_lease_interrupts_nothing(
    make_server: MakeServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil, plan: Plan
) -> None:
    """Restarts, dropped connections, flushed scripts, pauses: everybody carries on within 2 s, each job is run just once."""
    server = make_server(*DURABLE)
    result = await play(server, queue_name, tmp_path, plan, wait_until)
    assert {(1, 0)} == {*result.stored.counters.values()}, f"{plan}: (starts, releases) of the jobs"


FROZEN_PLANS = [
    Plan(freezes, 1, lease=0.6),
    pytest.param(Plan(freezes, 10, lease=1.5, longest=2.0), marks=[pytest.mark.full, pytest.mark.timeout(400)]),
    pytest.param(Plan(freezes, 5, lease=2.5, longest=3.0), marks=[pytest.mark.full, pytest.mark.timeout(400)]),
]


@pytest.mark.parametrize("plan", FROZEN_PLANS, ids=str)
async def test_a_server_that_stands_still_for_three_leases(
    make_server: MakeServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil, plan: Plan
) -> None:
    """SIGSTOP: runs are interrupted and given back, uncounted, and none is stalled; no two runs of a job overlap."""
    server = make_server(*DURABLE)
    result = await play(server, queue_name, tmp_path, plan, wait_until)
    assert result.kinds["released"] >= plan.times, "no run was interrupted: the test tests nothing"
    assert {0} == {starts - releases - 1 for starts, releases in result.stored.counters.values()}
