"""A Cluster: the queue is in one slot, wherever that is, and nothing is lost while it moves or its node dies."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, NewJob, Queue, Worker
from eventq.errors import ConfigurationError
from eventq.events import CompletedEvent, LostEvent

from ..integration.recorder import Recorder
from ..topologies import TestCluster
from .failovers import Producer, Reader, find_loss, nothing
from .processes import choose_seed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..conftest import WaitUntil
    from ..servers import ServerKind


@pytest.fixture
def cluster(server_kind: ServerKind) -> Iterator[TestCluster]:
    """Three primaries."""
    with TestCluster(server_kind) as cluster:
        yield cluster


class Load:
    """Adds one job after the other, and notes what was acknowledged and how long it took."""

    def __init__(self, queue: Queue[Any, Any]) -> None:
        self._queue = queue
        self._is_stopped = False
        self._task: asyncio.Task[None] | None = None
        self.acknowledged: list[str] = []
        self.slowest = 0.0

    async def __aenter__(self) -> Load:
        self._task = asyncio.create_task(self._add())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_stopped = True
        if self._task is not None:
            await self._task

    async def _add(self) -> None:
        while not self._is_stopped:
            began = time.monotonic()
            job = await self._queue.add("j", len(self.acknowledged))
            self.acknowledged.append(job.id)
            self.slowest = max(self.slowest, time.monotonic() - began)
            await asyncio.sleep(0)


@pytest.mark.parametrize("moves", [pytest.param(1, id="small"), pytest.param(20, id="full", marks=pytest.mark.full)])
async def test_nothing_is_lost_while_the_slot_moves(cluster: TestCluster, queue_name: str, moves: int) -> None:
    """The queue's slot moves back and forth under load: every job runs once, every event is seen once, by itself."""
    seed = choose_seed()
    rng = random.Random(seed)
    runs: Counter[str] = Counter()

    async def process(job: Job[int]) -> None:
        runs[job.id] += 1

    async with (
        Queue(queue_name, int, url=cluster.url) as queue,
        Recorder(queue) as recorder,
        Worker(queue, process, concurrency=20),
    ):
        async with Load(queue) as load:
            for _ in range(moves):
                source = cluster.node_of(queue_name)
                target = rng.choice([node for node in cluster.nodes if node is not source])
                await asyncio.to_thread(cluster.move_slot, queue_name, target)
                await asyncio.sleep(0.3)  # sleep-ok: load on the new node
        completed = await recorder.wait(CompletedEvent, len(load.acknowledged), timeout=10)
        counts = await queue.get_job_counts()
    print(f"Cluster: {moves} moves, {len(load.acknowledged)} jobs, lost 0, slowest add {load.slowest:.2f} s, SEED={seed}")
    assert Counter(load.acknowledged) == runs == Counter(event.job_id for event in completed), f"SEED={seed}"
    assert [] == recorder.of(LostEvent)
    assert {"completed": len(runs)} == {state.value: n for state, n in counts.items() if n}


async def test_a_node_that_dies_is_replaced_by_its_replica(
    server_kind: ServerKind, queue_name: str, wait_until: WaitUntil
) -> None:
    """The queue's node is killed; its replica takes over, and workers and readers find it by themselves."""
    done: list[int] = []

    async def process(job: Job[int]) -> None:
        done.append(job.data)

    with TestCluster(server_kind, replicas=1) as cluster:
        async with Queue(queue_name, int, url=cluster.url) as queue:
            seen: list[Any] = []
            queue.on("completed", seen.append)
            async with Worker(queue, process, concurrency=5, lease=2.0):
                await (await queue.add("j", 1)).result(5)
                owner = cluster.node_of(queue_name)
                key = queue.context.keys["events"]
                length = owner.ask("XLEN", key)
                await wait_until(lambda: all(n.ask("DBSIZE") for n in cluster.replicas_of(owner)), description="the copy")
                (replica,) = cluster.replicas_of(owner)
                await wait_until(
                    lambda: (
                        replica.info("replication")["slave_repl_offset"] >= owner.info("replication")["master_repl_offset"] - 100
                    )
                )
                assert length
                owner.kill()
                began = time.monotonic()
                job = await add_patiently(queue, 2)
                await job.result(20)
                await wait_until(lambda: len(seen) >= 2, 10)
    print(f"Cluster: node killed, the next job was done after {time.monotonic() - began:.1f} s")
    assert [1, 2] == sorted(set(done))


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_nothing_that_a_replica_had_is_lost_with_its_node(
    server_kind: ServerKind, queue_name: str, wait_until: WaitUntil
) -> None:
    """Under load the queue's node is killed, its replica takes over, and the killed one comes back as a replica, ten times over:
    nobody is restarted by hand, no confirmed add is lost, and what else is lost is told.
    """
    kills, timeout_ms = 10, 1_000
    options = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "1")
    with TestCluster(server_kind, *options, replicas=1, node_timeout_ms=timeout_ms) as cluster:
        async with Queue(queue_name, int, url=cluster.url) as queue:
            queue._producer._runner._patience = 60.0
            reader, producer = Reader(queue), Producer(queue, confirms=True)
            async with Worker(queue, nothing, concurrency=20, lease=3.0), reader:
                async with producer:
                    for _ in range(kills):
                        await producer.more(100)
                        owner = cluster.node_of(queue_name)
                        owner.kill()
                        await asyncio.to_thread(cluster.wait_until_whole)
                        await asyncio.to_thread(cluster.restart, owner)
                        # Redis 7.0 counts the votes of the last two node timeouts again.
                        await asyncio.sleep(2 * timeout_ms / 1000)  # sleep-ok: load on the new node
                    await producer.more(100)
                loss = await find_loss(queue, reader, producer, wait_until)
    print(f"Cluster: node killed {kills} times, min-replicas-to-write 1, {server_kind}: {loss}")
    loss.assert_told(kills)
    assert len(loss.confirmed) >= 100 * kills


async def add_patiently(queue: Queue[int, Any], data: int) -> Job[int]:
    """Add once the cluster has elected: that may take longer than a caller's patience."""
    queue._producer._runner._patience = 30.0
    return await queue.add("j", data)


async def test_a_node_taken_for_a_server_of_its_own_is_told_apart(cluster: TestCluster, queue_name: str) -> None:
    """redis:// with a node of a Cluster says what the URL should be, before anything is stored."""
    queue: Queue[Any, Any] = Queue(queue_name, url=cluster.nodes[0].url)
    with pytest.raises(ConfigurationError, match="is a node of a Redis Cluster: give its nodes as cluster://"):
        await queue.add("j")
    await queue.close()


async def test_any_node_of_the_url_will_do(cluster: TestCluster, queue_name: str) -> None:
    """Two of the nodes named do not exist, and the one that does need not hold the queue."""
    away = cluster.nodes[0].port + 1
    for node in cluster.nodes:
        url = f"cluster://127.0.0.1:{away},127.0.0.1:{node.port}"
        async with Queue(queue_name, int, url=url) as queue, Worker(queue, lambda job: job.data):
            jobs = await queue.add_bulk([NewJob("j", number) for number in range(3)])
            assert [0, 1, 2] == [await job.result(5) for job in jobs]
