"""Redis is full: adds are refused at once and clearly, workers empty the queue, and then adds work again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Job, JobState, NewJob, Queue, SyncQueue, Unrecoverable, Worker
from eventq.errors import BulkAddError, QueueUnavailable, ServerRefused
from eventq.options import JobOptions

from .checker import check, percentile
from .faults import Fault, Request, Rule, calls
from .ledger import Ledger
from .processes import choose_seed
from .proxy import FaultProxy
from .stored import is_drained, key_of, read_stored

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from ..conftest import MakeServer, WaitUntil

#: Large enough that a job that ends frees more than its events take.
DATA = "x" * 1000
#: So many bytes per job of the backlog have to be freed before there is room again: more than half of what a job frees.
OVERFULL = 500
#: A refused add is told within so many seconds.
AT_ONCE = 0.5
GONE = JobOptions(remove_on_complete=True)
READER = "auditor"


def fill(client: redis.Redis, spare: int) -> None:
    """Leave the server so many bytes, fewer than none if negative, and let it refuse what goes beyond."""
    used: int = client.info("memory")["used_memory"]
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", used + spare)


async def refused(call: Callable[[], Awaitable[Any]], error: type[Exception] = ServerRefused) -> float:
    """Call, and check that it is refused for want of memory, and clearly; return how many ms that took."""
    began = time.perf_counter()
    with pytest.raises(error, match="Redis is out of memory .maxmemory reached. and takes no more jobs") as caught:
        await call()
    seconds = time.perf_counter() - began
    refusal = caught.value.__cause__ if isinstance(caught.value, BulkAddError) else caught.value
    assert isinstance(refusal, ServerRefused) and "OOM" == refusal.code
    assert seconds < AT_ONCE
    return seconds * 1000


async def refuse_everything(queue: Queue[Any, Any], failed: Job[Any, Any]) -> list[float]:
    """Add in every way, and retry a failed job; all of it is refused and nothing is stored. Returns the ms that each add took."""
    before = await queue.get_job_counts()
    took = [await refused(lambda: queue.add("work", DATA)) for _ in range(50)]
    await asyncio.gather(*(refused(lambda: queue.add("work", DATA)) for _ in range(200)))
    await refused(lambda: queue.add_bulk([NewJob("work", DATA)] * 1200), BulkAddError)
    await refused(failed.retry)
    assert before == await queue.get_job_counts(), "an add that was refused has left something"
    return took


async def read_everything(queue: Queue[Any, Any], backlog: int, failed: Job[Any, Any]) -> None:
    """Read in every way, pause and resume: a full server answers as any other."""
    assert backlog == await queue.count() == (await queue.get_job_counts())[JobState.WAITING]
    (first,) = await queue.get_jobs("waiting", limit=1, ascending=True)
    assert [DATA, JobState.WAITING] == [first.data, await first.get_state()]
    assert JobState.FAILED is await failed.get_state()
    await queue.pause()
    assert await queue.is_paused() and backlog == (await queue.get_job_counts())[JobState.PAUSED]


class Reading:
    """Reads under the reader's name while it is entered; what was handled is saved at the end."""

    def __init__(self, queue: Queue[Any, Any], ledger: Ledger) -> None:
        self._events = queue.events(consumer=READER)
        self._ledger = ledger
        #: The number of the last event that was read.
        self.seq = 0

    async def __aenter__(self) -> Reading:
        await self._events.open()
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._events.close()

    async def _read(self) -> None:
        async for event in self._events:
            self._ledger.seen(READER, event)
            self.seq = event.seq


async def add_until_accepted(queue: Queue[Any, Any], ledger: Ledger) -> int:
    """Try to add until it is accepted; return how many jobs had not been run by then."""
    while True:
        try:
            job = await queue.add("work", DATA, remove_on_complete=True)
        except ServerRefused as error:
            if error.code != "OOM":
                raise
            await asyncio.sleep(0.01)  # sleep-ok: a producer that tries again every now and then
        else:
            ledger.acknowledged(job.id)
            return await queue.count()


def saved_seq(client: redis.Redis, queue_name: str) -> int:
    """Return the number of the last event that the reader has saved as handled."""
    text: Any = client.hget(key_of(queue_name, "consumers"), READER)
    return int(text.split(b" ", 6)[5]) if text else 0


async def drain(url: str, queue_name: str, ledger: Ledger, wait_until: WaitUntil, client: redis.Redis, backlog: int) -> str:
    """Resume, with a worker and a reader that come while the server is full, until nothing is left; returns the figures."""
    work = processor(ledger)
    async with Queue(queue_name, url=url) as queue, Reading(queue, ledger) as reader, Worker(queue, work, concurrency=100):
        assert backlog == await queue.count(), "a paused queue was worked on"
        began = time.monotonic()
        await queue.resume()
        left = await asyncio.wait_for(add_until_accepted(queue, ledger), 240)
        assert left < 0.8 * backlog, "the server was not full while it was emptied"
        await wait_until(lambda: is_drained(client, queue_name), timeout=240)
        seconds = time.monotonic() - began
        # Everything works again, in every way.
        jobs = await asyncio.gather(*(queue.add("work") for _ in range(100)))
        jobs += await queue.add_bulk([NewJob("work")] * 600)
        ledger.acknowledged(*(job.id for job in jobs))
        await wait_until(lambda: is_drained(client, queue_name), timeout=20)
        last = read_stored(client, queue_name).seq
        await wait_until(lambda: reader.seq == last, timeout=60, description="the reader to come to the last event")
    return f"the first add was accepted with {left} left, drained in {seconds:.1f} s"


def processor(ledger: Ledger) -> Callable[[Job[Any, Any]], Awaitable[None]]:
    """Return what writes its runs into the ledger, and fails the jobs that are called so."""

    async def process(job: Job[Any, Any]) -> None:
        with ledger.run(job, "worker"):
            if job.name == "fail":
                raise Unrecoverable("on purpose")

    return process


@pytest.mark.parametrize("backlog", [3000, pytest.param(50_000, marks=[pytest.mark.full, pytest.mark.timeout(400)])])
async def test_a_full_server_is_emptied_by_its_workers(
    make_server: MakeServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil, backlog: int
) -> None:
    """With a backlog: adds refused with OOM at once, reads and pause work, a new worker drains to zero, adds work again."""
    seed, server, ledger = choose_seed(), make_server(), Ledger(tmp_path / "ledger")
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        async with Queue(queue_name, url=server.url) as queue:
            failed = await queue.add("fail")
            added = await queue.add_bulk([NewJob("work", DATA, GONE)] * backlog)
            ledger.acknowledged(failed.id, *(job.id for job in added))
            await Worker(queue, processor(ledger), max_jobs=1).run()
            fill(client, -OVERFULL * backlog)
            # Whoever comes now finds no script, nothing registered, and no room.
            client.script_flush()
            took = sorted(await refuse_everything(queue, failed))
            await read_everything(queue, backlog, failed)
            async with Reading(queue, ledger) as reader:
                await wait_until(lambda: reader.seq > 100)
            assert saved_seq(client, queue_name) > 100, "nothing was saved"
        drained = await drain(server.url, queue_name, ledger, wait_until, client, backlog)
        report = check(ledger, client, queue_name)
    refusals = f"refused in {percentile(took, 0.5):.2f} ms, p99 {percentile(took, 0.99):.2f} ms"
    print(f"Out of memory: backlog {backlog}, {server.kind}, SEED={seed}: {refusals}; {drained}; {report}")
    report.assert_sound(seed)
    assert (backlog + 702, 0, 0) == (report.acknowledged, report.unacknowledged, report.counted_lost)
    assert (0, True) == (report.extra_runs, report.is_recounted)


async def test_a_bulk_add_that_fills_the_server_says_what_is_in(make_server: MakeServer, queue_name: str) -> None:
    """Memory ends in the middle: `added` names exactly the jobs that are stored, whole calls of 500, and they can be run."""
    server = make_server()
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        async with Queue(queue_name, url=server.url) as queue:
            await (await queue.add("first")).get_state()
            fill(client, 3_000_000)
            with pytest.raises(BulkAddError, match=r"\d+ of 5000 jobs were added, then: .*out of memory") as caught:
                await queue.add_bulk([NewJob("work", DATA)] * 5000)
            ids = {job.id.encode() for job in caught.value.added}
            stored: Any = client.hkeys(key_of(queue_name, "jobs"))
            assert 1 + len(ids) == len(stored) and ids < set(stored)
            assert 500 <= len(ids) <= 4500 and 0 == len(ids) % 500
            assert 1 + len(ids) == (await queue.get_job_counts())[JobState.WAITING]
            await asyncio.wait_for(Worker(queue, lambda job: None, concurrency=20, burst=True).run(), 20)
            assert 1 + len(ids) == (await queue.get_job_counts())[JobState.COMPLETED]


@pytest.mark.parametrize("is_sync", [False, True], ids=["Queue", "SyncQueue"])
async def test_a_repetition_that_is_refused_says_that_the_first_try_may_be_stored(
    make_server: MakeServer, queue_name: str, is_sync: bool
) -> None:
    """The reply is lost, and then the server is full: the job is in, so nobody may be told that nothing was written."""
    server = make_server()
    with redis.Redis(port=server.port) as client, FaultProxy(server.port) as proxy:
        adds = calls("add_jobs")

        def is_repeated(request: Request) -> bool:
            if adds(request) and proxy.counts[Fault.LOSE_REPLY]:
                fill(client, -1_000_000)
            return False

        async with Queue(queue_name, url=proxy.url) as queue:
            await queue.add("j")  # the server has the script now
            proxy.inject(Rule(Fault.LOSE_REPLY, when=adds, times=1), Rule(Fault.CUT_REQUEST, when=is_repeated))
            with pytest.raises(QueueUnavailable, match="whether it took effect is unknown") as caught:
                if is_sync:
                    with SyncQueue(queue_name, url=proxy.url) as sync:
                        await asyncio.to_thread(sync.add, "j", DATA)
                else:
                    await queue.add("j", DATA)
            assert "used memory > 'maxmemory'" in str(caught.value)
            assert await queue.count() == 2
            await refused(lambda: queue.add("j", DATA))
