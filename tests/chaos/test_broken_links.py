"""Broken links: requests lost, cut, split, delayed, half-open connections both ways. Work goes on by itself, and soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, Queue, Worker
from eventq.events import ActiveEvent, AddedEvent, CompletedEvent, StalledEvent
from eventq.queue_events import BLOCK

from ..integration.recorder import Recorder
from .faults import Ending, Fault, Request, Rule, calls
from .proxy import FaultProxy
from .workload import Stopwatch, Ways, Workload, check_events, check_runs, check_stored, finished, new_seed, tell

if TYPE_CHECKING:
    import redis

    from ..conftest import WaitUntil
    from ..servers import TestServer

LEASE = 2.0
#: Seconds within which a worker whose connection went dead starts new work.
SOON = 3.0
#: Seconds a reply may take before its connection counts as dead, as the runner has it.
REPLY_TIMEOUT = 5.0


def anything(_: Request) -> bool:
    """Filter: every request, the set-up of connections and the loading of scripts as well."""
    return True


BROKEN = {
    "requests lost": [Rule(Fault.LOSE_REQUEST, 0.2), Rule(Fault.LOSE_REQUEST, 0.2, then=Ending.RESET)],
    "requests cut": [Rule(Fault.CUT_REQUEST, 0.15, when=anything)],
    "replies cut": [Rule(Fault.CUT_REPLY, 0.08, when=anything), Rule(Fault.CUT_REPLY, 0.08, when=anything, then=Ending.RESET)],
    "clients vanish": [Rule(Fault.CLIENT_VANISHES, 0.2)],
    "delays": [Rule(Fault.DELAY_REQUEST, 0.3, seconds=0.03), Rule(Fault.DELAY_REPLY, 0.3, seconds=0.03)],
    "pieces": [Rule(Fault.SPLIT_REQUEST, 0.5, size=100), Rule(Fault.SPLIT_REPLY, 0.5, size=100)],
}


@pytest.fixture
def proxy(server: TestServer) -> Iterator[FaultProxy]:
    """A proxy for the shared server; the seed is printed."""
    seed = new_seed()
    tell(f"broken links: SEED={seed} on {server.kind}")
    with FaultProxy(server.port, seed=seed) as proxy:
        yield proxy


@pytest.mark.parametrize("least", [25, pytest.param(400, marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", list(BROKEN))
async def test_work_over_a_broken_link(
    server: TestServer, proxy: FaultProxy, queue_name: str, redis_client: redis.Redis, kind: str, least: int
) -> None:
    """Whatever happens to requests and replies on their way: stored once, run once, one outcome, no error at a caller."""
    watch = Stopwatch()
    async with Queue(queue_name, url=server.url) as direct, Recorder(direct) as recorder:
        async with Workload(queue_name, proxy.url, proxy.seed, producers=3, slots=(4, 40)) as workload:
            proxy.inject(*BROKEN[kind])
            await workload.add_while(lambda: proxy.counts.total() < least, Ways(1, 5, 5))
            proxy.clear()
            await finished(recorder, workload, timeout=30)
        await recorder.catch_up()
        check_runs(workload)
        check_events(workload, recorder.events)
        await check_stored(workload, direct, redis_client)
    tell(f"{kind}: {proxy.summary()}, {len(workload.ids)} jobs, errors {dict(workload.errors)}, {watch.seconds:.1f} s")


async def test_a_link_that_carries_single_bytes(
    server: TestServer, proxy: FaultProxy, queue_name: str, redis_client: redis.Redis
) -> None:
    """Every frame split at every byte, set-up and scripts too, in one direction or the other: slower, and otherwise the same."""
    watch = Stopwatch()
    proxy.inject(Rule(Fault.SPLIT_REQUEST, 0.5, when=anything), Rule(Fault.SPLIT_REPLY, when=anything))
    async with Queue(queue_name, url=server.url) as direct, Recorder(direct) as recorder:
        async with Workload(queue_name, proxy.url, proxy.seed, producers=1, slots=(4,)) as workload:
            await workload.add_once(Ways(3, 5, 10))
            await finished(recorder, workload, timeout=30)
        await recorder.catch_up()
        check_runs(workload)
        check_events(workload, recorder.events)
        await check_stored(workload, direct, redis_client)
    tell(f"single bytes: {proxy.summary()}, {len(workload.ids)} jobs, {watch.seconds:.1f} s")


class Timed:
    """A processor that tells when its job has started."""

    def __init__(self) -> None:
        self.has_started = asyncio.Event()

    async def process(self, _: Job[Any]) -> None:
        """Note it."""
        self.has_started.set()

    async def seconds(self, timeout: float) -> float:
        """Wait for the start; return how long it took."""
        watch = Stopwatch()
        async with asyncio.timeout(timeout):
            await self.has_started.wait()
        return watch.seconds


@asynccontextmanager
async def idle_worker(
    proxy: FaultProxy, queue: Queue[Any, Any], client: redis.Redis, wait_until: WaitUntil, *, slots: int = 1, lease: float = LEASE
) -> AsyncGenerator[Timed]:
    """Run a worker through the proxy, until it is blocked on the marker and beyond."""
    timed = Timed()

    def is_blocked() -> bool:
        clients: Any = client.client_list()
        return any(each["name"] == "eventq-blocking" and "b" in each["flags"] for each in clients)

    async with Worker(queue.name, timed.process, url=proxy.url, concurrency=slots, lease=lease):
        await wait_until(is_blocked, description="the worker is blocked on the marker")
        yield timed
        proxy.heal()


def hole(proxy: FaultProxy) -> None:
    """The connection that waits for work goes dead, and nobody is told."""
    proxy.blackhole("eventq-blocking", new=False)


def ghost(proxy: FaultProxy) -> None:
    """The worker loses the connection, the server does not: it still hands out a wake-up there."""
    proxy.vanish("eventq-blocking")


@pytest.mark.parametrize(("break_it", "slots"), [(hole, 1), (hole, 40), (ghost, 1)])
async def test_a_worker_whose_waking_connection_is_half_open(
    server: TestServer,
    proxy: FaultProxy,
    queue_name: str,
    redis_client: redis.Redis,
    wait_until: WaitUntil,
    break_it: Callable[[FaultProxy], None],
    slots: int,
) -> None:
    """Idle, its blocking connection goes dead on either side: what is added after that starts within three seconds."""
    async with (
        Queue(queue_name, url=server.url) as queue,
        # With a long lease a blocking read is not missed for seconds; something else must tell.
        idle_worker(proxy, queue, redis_client, wait_until, slots=slots, lease=15.0) as timed,
    ):
        break_it(proxy)
        await queue.add("j")
        took = await timed.seconds(15)
    tell(f"waking connection half-open ({break_it.__name__}, {slots} slots): started after {took:.2f} s")
    assert took < SOON


async def test_an_idle_worker_in_a_black_hole_that_ends(
    server: TestServer, proxy: FaultProxy, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """All its connections, and new ones, are dark for a second; what was added meanwhile starts soon after it is over."""
    async with Queue(queue_name, url=server.url) as queue, idle_worker(proxy, queue, redis_client, wait_until) as timed:
        proxy.blackhole()
        await queue.add("j")
        await asyncio.sleep(1.0)  # sleep-ok: the darkness itself
        assert not timed.has_started.is_set()
        proxy.heal()
        took = await timed.seconds(15)
    tell(f"everything dark for 1 s: started {took:.2f} s after it was over")
    assert took < SOON


@pytest.mark.full
async def test_an_idle_worker_whose_connections_are_forgotten(
    server: TestServer, proxy: FaultProxy, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """All its connections stay silent for ever and only new ones work: it replaces them once a reply is overdue."""
    async with Queue(queue_name, url=server.url) as queue, idle_worker(proxy, queue, redis_client, wait_until) as timed:
        proxy.blackhole(new=False)
        await queue.add("j")
        took = await timed.seconds(30)
    tell(f"all connections forgotten: started after {took:.2f} s")
    assert took < LEASE / 3 + 2 * REPLY_TIMEOUT + 1


async def test_a_heartbeat_in_a_black_hole(server: TestServer, proxy: FaultProxy, queue_name: str, wait_until: WaitUntil) -> None:
    """Its connection goes dead in the middle of a job that takes longer than the lease: renewed over another, the job runs once."""
    started, gate = asyncio.Event(), asyncio.Event()

    async def process(_: Job[Any]) -> str:
        started.set()
        await gate.wait()
        return "done"

    async with Queue(queue_name, url=server.url) as queue, Recorder(queue) as recorder:
        async with Worker(queue_name, process, url=proxy.url, lease=1.5), Worker(queue, process, lease=1.5) as other:
            await other.pause()
            job = await queue.add("j")
            await started.wait()
            await wait_until(lambda: "eventq-heartbeat" in proxy.connections())
            proxy.blackhole("eventq-heartbeat", new=False)
            await asyncio.sleep(2.0)  # sleep-ok: the lease would end in this time
            other.resume()
            gate.set()
            assert "done" == await job.result(5)
        await recorder.catch_up()
    assert (1, 0) == (len(recorder.of(ActiveEvent)), len(recorder.of(StalledEvent)))
    assert {Fault.BLACK_HOLE: 1} == proxy.counts


@pytest.mark.full
async def test_an_outcome_in_a_black_hole(
    server: TestServer, proxy: FaultProxy, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """The reply to an outcome is lost in silence for longer than the lease: asked for again, recorded once, the job run once."""
    runs: list[str] = []

    async def process(job: Job[Any]) -> None:
        runs.append(job.id)
        if len(runs) == 1:
            proxy.inject(Rule(Fault.LOSE_REPLY, times=1, when=calls("settle_and_claim"), then=Ending.SILENCE))

    async with Queue(queue_name, url=server.url) as queue, Recorder(queue) as recorder:
        async with (
            Worker(queue_name, process, url=proxy.url, lease=LEASE) as worker,
            Worker(queue, process, lease=LEASE) as other,
        ):
            await other.pause()
            watch = Stopwatch()
            first = await queue.add("j", remove_on_complete=True)
            await wait_until(lambda: runs == [first.id])
            other.resume()
            await wait_until(lambda: worker._runs.settled == 1 or len(runs) > 1, 15, description="the verdict")
        await recorder.catch_up()
        assert await queue.get_job(first.id) is None
    tell(f"outcome in a black hole: its verdict came after {watch.seconds:.2f} s")
    assert (1, 1, 0) == tuple(len(recorder.of(cls)) for cls in (ActiveEvent, CompletedEvent, StalledEvent))


async def hear_all(
    queue: Queue[Any, Any],
    direct: Queue[Any, Any],
    wait_until: WaitUntil,
    break_it: Callable[[], None],
    heal: Callable[[], None] = lambda: None,
) -> float:
    """Break the link of a queue's listener and a durable reader while jobs are added; return when both have heard of all."""
    heard: list[str] = []
    queue.on("added")(lambda event: heard.append(event.job_id))
    await queue.ready()
    read: list[str] = []
    async with queue.events(consumer="reader") as stream:

        async def follow() -> None:
            async for event in stream:
                if isinstance(event, AddedEvent):
                    read.append(event.job_id)

        reader = asyncio.create_task(follow())
        ids = [(await direct.add("j")).id]
        await wait_until(lambda: heard == read == ids, description="both have begun to read")
        break_it()
        ids += [(await direct.add("j")).id for _ in range(10)]
        heal()
        watch = Stopwatch()
        await wait_until(lambda: heard == read == ids, 30, description="both have heard of all")
        took = watch.seconds
        reader.cancel()
        await asyncio.wait([reader])
        assert 0 == stream.lost
    return took


async def test_listeners_in_a_black_hole_that_ends(
    server: TestServer, proxy: FaultProxy, queue_name: str, wait_until: WaitUntil
) -> None:
    """A queue's listener and a durable reader, dark for a moment, hear of every job soon after it is over."""
    async with Queue(queue_name, url=server.url) as direct, Queue(queue_name, url=proxy.url) as queue:
        took = await hear_all(queue, direct, wait_until, proxy.blackhole, proxy.heal)
    tell(f"listeners in the dark: heard everything {took:.2f} s after it was over")
    assert took < SOON


@pytest.mark.full
async def test_listeners_whose_connections_are_forgotten(
    server: TestServer, proxy: FaultProxy, queue_name: str, wait_until: WaitUntil
) -> None:
    """Their reading connections stay silent for ever: replaced once a blocking read is overdue, and no event is missed."""
    async with Queue(queue_name, url=server.url) as direct, Queue(queue_name, url=proxy.url) as queue:
        took = await hear_all(queue, direct, wait_until, lambda: proxy.blackhole("eventq-events", new=False))
    tell(f"listeners forgotten: heard everything after {took:.2f} s")
    assert took < BLOCK + REPLY_TIMEOUT + 1
