"""What runs in which order: one round is every workload once, its peers in turn."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from benchmarks import workloads
from benchmarks.harness import Harness
from benchmarks.peers import EVENTQ, NODE, RAW, Peer
from benchmarks.workloads import Figures

WORKLOADS = ("drain", "add", "concurrent", "bulk", "sleep", "memory", "idle")
TOP = 100
LEVELS = (1, 10, TOP)


class Run(Protocol):
    """One run of a workload whose arguments are already chosen."""

    def __call__(self, harness: Harness, peer: Peer) -> Figures:
        """Run it and return its figures."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One run of one peer. `concurrency` is 0 where there is none."""

    work: str
    peer: Peer
    concurrency: int
    run: Run


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many jobs each run gets.

    eventq's backlogs are long enough that its default retention (10,000 completed jobs) trims during the window,
    except at concurrency 1, where the window ends before.
    """

    most: int = 150_000
    least_drain: int = 20_000
    node_drain: int = 40_000
    sleep: int = 33_000
    add: int = 8_000
    concurrent: int = 40_000
    bulk: int = 100_000
    node_bulk: int = 40_000
    memory: int = 100_000
    idle_seconds: float = 20.0

    def drain(self, peer: Peer, concurrency: int) -> int:
        """The backlog of a drain."""
        wanted = self.node_drain if peer is NODE else 150_000
        return min(self.least_drain if concurrency == 1 else wanted, self.most)


QUICK = Sizes(
    most=30_000, least_drain=5_000, node_drain=15_000, sleep=10_000, add=2_000, concurrent=10_000, bulk=20_000,
    node_bulk=10_000, memory=20_000, idle_seconds=10.0,
)  # fmt: skip


def one_round(number: int, peers: Sequence[Peer], only: Collection[str], sizes: Sizes) -> Iterator[Step]:
    """The steps of round `number`; counts that do not drift (memory, idle) are taken in the first only."""
    for work in WORKLOADS:
        if work in only and (number == 1 or work not in ("memory", "idle")):
            yield from _steps(work, peers, sizes)


def _steps(work: str, peers: Sequence[Peer], sizes: Sizes) -> Iterator[Step]:
    queues = [peer for peer in peers if peer is not RAW]
    if work == "drain":
        for concurrency in LEVELS:
            for peer in peers if concurrency == TOP else queues:
                yield drain(peer, concurrency, sizes.drain(peer, concurrency))
    elif work == "sleep":
        for peer in queues:
            run = partial(workloads.drain, job="sleep", concurrency=TOP, jobs=min(sizes.sleep, sizes.most))
            yield Step(work, peer, TOP, run)
    elif work == "memory":
        for peer in queues:
            yield Step(work, peer, 0, partial(workloads.memory, jobs=min(sizes.memory, sizes.most)))
    elif work == "idle":
        for peer in queues:
            yield Step(work, peer, TOP, partial(workloads.idle, concurrency=TOP, seconds=sizes.idle_seconds))
    else:
        yield from _producers(work, queues, sizes)


def drain(peer: Peer, concurrency: int, jobs: int) -> Step:
    """A drain of no-op jobs."""
    return Step("drain", peer, concurrency, partial(workloads.drain, job="noop", concurrency=concurrency, jobs=jobs))


def _producers(work: str, queues: Sequence[Peer], sizes: Sizes) -> Iterator[Step]:
    for peer in queues:
        if work == "concurrent" and peer is not EVENTQ:
            continue
        bulk = sizes.node_bulk if peer is NODE else sizes.bulk
        jobs, command = {
            "add": (sizes.add, "add"),
            "concurrent": (sizes.concurrent, "add-concurrent"),
            "bulk": (bulk, "bulk"),
        }[work]
        jobs = min(jobs, sizes.most)
        yield Step(work, peer, 0, partial(workloads.produce, command=command, jobs=jobs, warm=max(100, jobs // 5)))
