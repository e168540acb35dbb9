"""Every total and every histogram equals the ledger, whatever happens to exporter, queue and server; and no counter ever falls."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Queue
from eventq.commands.upkeep import trim_events
from eventq.commands.watch import observe_queue

from ..servers import free_port
from ..topologies import TestSentinel
from .ledgers import Ledger, drained, worker
from .scrapes import ExporterProcess, Series, Watch, scrape, total

if TYPE_CHECKING:
    from ..conftest import MakeServer, WaitUntil
    from ..servers import ServerKind

FAR = 10**15


async def agreed(port: int, queue: str, ledger: Ledger, *, histograms: bool = True, timeout: float = 20) -> dict[Series, float]:
    """Scrape until what is shown is what there was; return the last scrape, whatever it showed."""
    deadline = time.monotonic() + timeout
    while True:
        samples = await scrape(port)
        if not ledger.differences(queue, samples, histograms=histograms) or time.monotonic() > deadline:
            return samples
        await asyncio.sleep(0.1)  # sleep-ok: an exporter gives no news but when it is asked


@pytest.mark.timeout(600)
@pytest.mark.parametrize("jobs", [pytest.param(50_000, id="small"), pytest.param(200_000, id="full", marks=pytest.mark.full)])
async def test_the_exporter_is_killed_twenty_times(
    make_server: MakeServer, jobs: int, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 at random moments under load: the next process goes on exactly there."""
    server, ledger = make_server(), Ledger()
    seed = random.SystemRandom().randrange(10**9)
    chance = random.Random(seed)
    async with Queue("q", int, url=server.url) as queue:
        with ExporterProcess(server.url, free_port()) as exporter, Watch(exporter.port) as watch:
            async with worker(queue):
                kills = 0
                while ledger.jobs < jobs or kills < 20:
                    if ledger.jobs < jobs:
                        await ledger.add(queue, jobs // 25)
                    await asyncio.sleep(chance.uniform(0.1, 0.8))  # sleep-ok: a random moment
                    if kills < 20:
                        await asyncio.to_thread(exporter.kill)
                        kills += 1
                        await asyncio.to_thread(exporter.start)
                await drained(queue, 300)
            samples = await agreed(exporter.port, "q", ledger)
    assert ledger.differences("q", samples) == {}, f"seed {seed}"
    assert watch.falls == []
    assert total(samples, "eventq_events_lost_total") == 0
    assert watch.scrapes > 20
    with capsys.disabled():
        print(
            f"\n{jobs} jobs, 20 kills, seed {seed}, {watch.scrapes} scrapes, {watch.failed} not answered: difference 0, falls 0"
        )


async def test_the_server_is_killed(make_server: MakeServer) -> None:
    """With every write synced nothing is lost, and nothing counted twice."""
    server, ledger = make_server("--appendonly", "yes", "--appendfsync", "always"), Ledger()
    async with Queue("q", int, url=server.url) as queue:
        with ExporterProcess(server.url, free_port()) as exporter, Watch(exporter.port) as watch:
            async with worker(queue, lease=5):
                for _ in range(3):
                    await ledger.add(queue, 1000)
                    await drained(queue)
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                await ledger.add(queue, 1000)
                await drained(queue)
            samples = await agreed(exporter.port, "q", ledger)
    assert ledger.differences("q", samples) == {}
    assert watch.falls == []


@pytest.mark.parametrize("is_up", [True, False], ids=["attached", "stopped"])
async def test_the_queue_is_obliterated(make_server: MakeServer, is_up: bool) -> None:
    """Totals go on over the end of an epoch, also where the exporter was away: the last event says what they came to."""
    server, ledger = make_server(), Ledger()
    async with Queue("q", int, url=server.url) as queue:
        with ExporterProcess(server.url, free_port()) as exporter:
            watch = Watch(exporter.port)
            async with worker(queue):
                await ledger.add(queue, 500)
                await drained(queue)
                samples = await agreed(exporter.port, "q", ledger)
                assert ledger.differences("q", samples) == {}
                watch.look(samples)
                if not is_up:
                    assert exporter.stop() == 0
                await ledger.add(queue, 500)
                await drained(queue)
            if is_up:
                watch.look(await agreed(exporter.port, "q", ledger))
                while total(await scrape(exporter.port), "eventq_event_lag", queue="q"):
                    await asyncio.sleep(0.05)  # sleep-ok: as above; that a worker stopped is an event, too
            await queue.obliterate()
            async with worker(queue):
                await ledger.add(queue, 500)
                await drained(queue)
            if not is_up:
                exporter.start()
            samples = await agreed(exporter.port, "q", ledger, histograms=is_up)
            watch.look(samples)
    assert ledger.differences("q", samples, histograms=is_up) == {}
    assert watch.falls == []
    lost = total(samples, "eventq_events_lost_total", queue="q")
    assert (lost == 0) is is_up, "what was not read before it went is told"


async def test_what_was_trimmed_is_told_and_totals_stay_exact(make_server: MakeServer) -> None:
    """The stream is trimmed under a stopped exporter: the loss is the gap, to the event; histograms lack it, totals do not."""
    server, ledger = make_server(), Ledger()
    async with Queue("q", int, url=server.url) as queue:
        with ExporterProcess(server.url, free_port()) as exporter:
            watch = Watch(exporter.port)
            async with worker(queue):
                await ledger.add(queue, 300)
                await drained(queue)
                watch.look(await agreed(exporter.port, "q", ledger))
                assert exporter.stop() == 0
                with redis.Redis(port=server.port, decode_responses=True) as client:
                    saved: Any = client.hget(queue.context.keys["consumers"], "prometheus")
                    handled = int(saved.split(" ")[5])
                    before = ledger.of("eventq_jobs_finished_total")
                    await ledger.add(queue, 3000)
                    await drained(queue)
                    while await queue.context.runner.run(trim_events(queue.context.keys, (400, FAR, FAR, 0))):
                        pass
                    entries: Any = client.xrange(queue.context.keys["events"], count=1)
                    oldest = int(entries[0][1]["seq"])
            exporter.start()
            samples = await agreed(exporter.port, "q", ledger, histograms=False)
            watch.look(samples)
    gap = oldest - handled - 1
    assert gap > 3000
    assert total(samples, "eventq_events_lost_total", queue="q", cause="trimmed") == gap
    assert ledger.differences("q", samples, histograms=False) == {}
    assert before <= total(samples, "eventq_job_total_seconds_count", queue="q") < ledger.of("eventq_jobs_finished_total")
    assert watch.falls == []


async def test_a_server_that_went_back(make_server: MakeServer) -> None:
    """A restart from an older save, the exporter attached: what was undone did happen and stays counted, no counter falls, and from
    then on each event counts once.
    """
    server, ledger = make_server(), Ledger()
    async with Queue("q", int, url=server.url) as queue:
        with ExporterProcess(server.url, free_port()) as exporter, Watch(exporter.port) as watch:
            async with worker(queue):
                await ledger.add(queue, 500)
                await drained(queue)
            assert ledger.differences("q", await agreed(exporter.port, "q", ledger)) == {}
            with redis.Redis(port=server.port) as client:
                client.save()
            async with worker(queue):
                await ledger.add(queue, 700)
                await drained(queue)
            assert ledger.differences("q", await agreed(exporter.port, "q", ledger)) == {}
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            async with worker(queue):
                await ledger.add(queue, 900)
                await drained(queue)
            samples = await agreed(exporter.port, "q", ledger)
            with redis.Redis(port=server.port, decode_responses=True) as client:
                column: Any = client.hgetall(queue.context.keys["totals"])
    assert ledger.differences("q", samples) == {}
    assert watch.falls == []
    assert sum(int(n) for field, n in column.items() if field.startswith("added ")) == 500 + 900
    # 700 jobs added, run, and what their worker said.
    assert total(samples, "eventq_events_undone_total", queue="q") > 1400


@pytest.mark.timeout(240)
async def test_a_failover(server_kind: ServerKind, wait_until: WaitUntil) -> None:
    """Sentinel makes a replica the primary under load: exact where the replicas had everything."""
    ledger = Ledger()
    with TestSentinel(server_kind) as sentinel:
        async with Queue("q", int, url=sentinel.url) as queue:
            with ExporterProcess(sentinel.url, free_port()) as exporter, Watch(exporter.port) as watch:
                async with worker(queue, lease=3.0):
                    for _ in range(2):
                        await ledger.add(queue, 500)
                        await drained(queue)
                        await agreed(exporter.port, "q", ledger)
                        await asyncio.to_thread(_wait_for_replicas, sentinel)
                        await asyncio.to_thread(sentinel.failover)
                    await ledger.add(queue, 500)
                    await drained(queue)
                samples = await agreed(exporter.port, "q", ledger)
    assert ledger.differences("q", samples) == {}
    assert watch.falls == []


def _wait_for_replicas(sentinel: TestSentinel) -> None:
    with redis.Redis(port=sentinel.primary().port) as client:
        client.set("eventq-test-marker", 1)
        assert client.wait(1, 5000) >= 1


async def test_two_exporters_of_different_names_agree(make_server: MakeServer) -> None:
    """Each has its own place and counters."""
    server, ledger = make_server(), Ledger()
    async with Queue("q", int, url=server.url) as queue, worker(queue):
        with ExporterProcess(server.url, free_port()) as one, ExporterProcess(server.url, free_port(), consumer="second") as two:
            await ledger.add(queue, 300)
            await drained(queue)
            for exporter in (one, two):
                assert ledger.differences("q", await agreed(exporter.port, "q", ledger)) == {}


async def test_a_second_process_stands_by_and_goes_on(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """It shows no queue, so that sums over both are right; when the first one is killed it takes over exactly there."""
    server, ledger = make_server(), Ledger()
    async with Queue("q", int, url=server.url) as queue, worker(queue):
        with ExporterProcess(server.url, free_port()) as one:
            await ledger.add(queue, 300)
            await drained(queue)
            before = await agreed(one.port, "q", ledger)
            with ExporterProcess(server.url, free_port()) as two:
                shown = await scrape(two.port)
                assert (total(shown, "eventq_exporter_leader"), total(shown, "eventq_up")) == (0, 1)
                assert [series for series in shown if ("queue", "q") in series[1]] == []
                one.kill()

                async def leads() -> bool:
                    return total(await scrape(two.port), "eventq_exporter_leader") == 1

                await wait_until(leads, timeout=15, description="the second one leads")
                await ledger.add(queue, 300)
                await drained(queue)
                samples = await agreed(two.port, "q", ledger)
                assert ledger.differences("q", samples) == {}
                assert all(samples[series] >= value for series, value in before.items() if series[0].startswith("eventq_jobs_"))


async def test_an_exporter_that_comes_late_shows_all_time_totals(make_server: MakeServer) -> None:
    """From the queue's own column; what was trimmed before it came is no loss of its, and no burst: it begins where it is."""
    server, ledger = make_server(), Ledger()
    async with Queue("q", int, url=server.url) as queue, worker(queue):
        await ledger.add(queue, 1000)
        await drained(queue)
        while await queue.context.runner.run(trim_events(queue.context.keys, (300, FAR, FAR, 0))):
            pass
        with ExporterProcess(server.url, free_port()) as exporter:
            samples: dict[Series, float] = {}
            deadline = time.monotonic() + 10
            while not total(samples, "eventq_jobs_added_total") and time.monotonic() < deadline:
                samples = await scrape(exporter.port)
    assert ledger.differences("q", samples, histograms=False) == {}
    assert total(samples, "eventq_events_lost_total") == 0


@pytest.mark.timeout(240)
async def test_a_failover_that_loses_writes(server_kind: ServerKind, wait_until: WaitUntil) -> None:
    """A failover under load, in which the old primary takes writes that the new one has not: no counter falls, and what is shown
    beyond the queue's own totals is of what the exporter was told to be undone, no more.
    """
    with TestSentinel(server_kind) as sentinel:
        async with Queue("q", int, url=sentinel.url) as queue:
            with ExporterProcess(sentinel.url, free_port()) as exporter, Watch(exporter.port) as watch:
                async with worker(queue, lease=3.0):
                    ledger = Ledger()
                    for _ in range(5):
                        await ledger.add(queue, 300)
                    killing = asyncio.create_task(asyncio.to_thread(sentinel.failover))
                    while not killing.done():
                        await ledger.add(queue, 100)
                    await killing
                    await ledger.add(queue, 300)
                    await drained(queue)

                async def is_even() -> bool:
                    samples = await scrape(exporter.port)
                    return total(samples, "eventq_up") == 1 and total(samples, "eventq_event_lag") == 0

                await wait_until(is_even, timeout=20, description="an exporter that has read everything")
                samples = await scrape(exporter.port)
            state = await queue.context.runner.run(observe_queue(queue.context.keys))
    assert watch.falls == []
    undone = total(samples, "eventq_events_undone_total")
    beyond = 0.0
    for kind, metric in (
        ("added", "jobs_added"),
        ("starts", "job_attempts_started"),
        ("completed", "jobs_completed"),
        ("failed", "jobs_failed"),
    ):
        column = sum(n for field, n in state.totals.items() if field.startswith(f"{kind} "))
        shown = total(samples, f"eventq_{metric}_total")
        assert shown >= column
        beyond += shown - column
    assert 0 < beyond <= undone
