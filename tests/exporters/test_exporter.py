"""The exporter in one process with its queue: what it shows is saved, when it leads, what it says of itself, what it never says."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis
from prometheus_client import CollectorRegistry, Counter, generate_latest

from eventq import Job, NewJob, Queue, QueueScheduler, Worker
from eventq_prometheus import PrometheusExporter, run_in_thread
from eventq_prometheus.catalogue import CATALOGUE, OVERFLOW, Kind
from eventq_prometheus.serving import bind, parse_listen, serve
from eventq_prometheus.timing import Warnings
from eventq_prometheus.web_config import WebConfig

from ..conftest import Clock, MakeServer, WaitUntil
from ..servers import free_port
from .ledgers import Ledger, drained, worker
from .scrapes import Series, read, scrape, total

if TYPE_CHECKING:
    from collections.abc import Callable

HOLD = 1.0
CANARY = "canary-7f3a"


def shown(exporter: PrometheusExporter, *, zeroes: bool = False) -> dict[Series, float]:
    """Return what the exporter would show now, without asking Redis."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in exporter.sheet(zeroes=zeroes).families()
        for sample in family.samples
    }


async def refreshed(exporter: PrometheusExporter) -> dict[Series, float]:
    """Return what it shows to somebody who is no scraper."""
    await exporter.refresh()
    return shown(exporter)


def counted(exporter: PrometheusExporter, queue: str, kind: str) -> Callable[[], bool]:
    """Return a condition: an event of this kind is counted, though perhaps not saved, and the totals are known."""

    def is_counted() -> bool:
        tally = exporter._tallies.get(queue)
        return tally is not None and tally.is_based and tally.freeze().events.get(kind, 0) > 0

    return is_counted


async def test_nothing_is_shown_that_is_not_saved(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """What was counted since the last save is shown with the next one: a process that is killed has shown nothing it forgot."""
    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], hold=60) as exporter:
        await queue.add("first")
        await wait_until(counted(exporter, queue_name, "added"), description="the event")
        assert total(shown(exporter), "eventq_events_processed_total") == 0
        assert total(await refreshed(exporter), "eventq_events_processed_total") == 1
        await queue.pause()
        await wait_until(counted(exporter, queue_name, "paused"), description="the next event")
        assert total(shown(exporter), "eventq_events_processed_total") == 1


async def test_depths_ages_and_workers(url: str, queue_name: str, clock: Clock, wait_until: WaitUntil) -> None:
    """Read when they are asked for."""
    release = asyncio.Event()

    async def hold_on(job: Job) -> None:
        await release.wait()

    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], per_worker=True) as exporter:
        await queue.add_bulk([NewJob("n", number) for number in range(5)])
        await queue.add("later", delay=100)
        async with Worker(queue, hold_on, concurrency=2, name="w-1", lease=3600):

            async def is_busy() -> bool:
                return total(await refreshed(exporter), "eventq_worker_slots_busy") == 2

            await wait_until(is_busy, timeout=15, description="a report of two busy slots")
            clock.advance(queue_name, 60)
            samples = await refreshed(exporter)
            states = {
                state: total(samples, "eventq_queue_jobs", state=state) for state in ("waiting", "active", "delayed", "failed")
            }
            assert states == {"waiting": 3, "active": 2, "delayed": 1, "failed": 0}
            assert 60 <= total(samples, "eventq_queue_oldest_job_age_seconds", state="waiting") < 75
            assert total(samples, "eventq_queue_oldest_job_age_seconds", state="delayed") == 0
            assert total(samples, "eventq_event_stream_retention_seconds") >= 60
            release.set()
            await wait_until(lambda: drained_now(queue), description="an empty line")
        assert total(await refreshed(exporter), "eventq_workers") == 0


async def drained_now(queue: Queue) -> bool:
    counts = await queue.get_job_counts()
    return not counts["active"] and not counts["waiting"]  # type: ignore[index]


async def test_series_per_worker(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """While it lives, if asked for."""
    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], per_worker=True) as exporter:
        async with Worker(queue, print, name="w-1"):

            async def is_up() -> bool:
                return total(await refreshed(exporter), "eventq_worker_up", worker="w-1") == 1

            await wait_until(is_up, description="the worker")
            samples = await refreshed(exporter)
            (info,) = [dict(labels) for name, labels in samples if name == "eventq_worker_info"]
            assert info["worker"] == "w-1" and info["version"] and info["pid"].isdecimal()
            assert abs(total(samples, "eventq_worker_clock_skew_seconds")) < 5
            assert abs(total(samples, "eventq_worker_last_heartbeat_timestamp_seconds") - time.time()) < 15
        assert not [name for name, _ in await refreshed(exporter) if name.startswith("eventq_worker_up")]


async def test_schedules(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """When they run next and ran last, how late their jobs were."""
    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name]) as exporter:
        await queue.upsert_schedule("tick", every=1, name="n")
        async with QueueScheduler(queue):
            await wait_until(counted(exporter, queue_name, "added"), timeout=15, description="the first slot")
        samples = await refreshed(exporter)
        assert abs(total(samples, "eventq_scheduler_next_run_timestamp_seconds", scheduler="tick") - time.time()) < 20
        assert abs(total(samples, "eventq_scheduler_last_run_timestamp_seconds", scheduler="tick") - time.time()) < 20
        assert total(samples, "eventq_scheduler_drift_seconds_count") >= 1


async def test_only_what_is_in_the_catalogue_is_shown(url: str, queue_name: str) -> None:
    """Every family with its type and help, every series with the labels that the catalogue gives it."""
    ledger = Ledger()
    exporter = PrometheusExporter(url=url, queues=[queue_name], per_worker=True, histograms_by_name=True)
    async with Queue(queue_name, int, url=url) as queue, worker(queue), exporter:
        await ledger.add(queue, 50)
        await drained(queue)
        await refreshed(exporter)
        families = list(exporter.sheet(zeroes=False).families())
    by_family = {
        metric.name.removesuffix("_total") if metric.kind is Kind.counter else metric.name.removesuffix("_info"): metric
        for metric in CATALOGUE.values()
    }
    for family in families:
        metric = by_family[family.name]
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)
        for sample in family.samples:
            assert sample.name in (*metric.series_names, f"{metric.name}_info", metric.name)
            assert set(sample.labels) <= set(metric.series_labels)


async def test_a_process_that_lost_the_name_shows_no_queue(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Or both would be added up."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add("n")
        async with PrometheusExporter(url=url, queues=[queue_name], hold=HOLD) as first:
            await wait_until(counted(first, queue_name, "added"), description="the event")
            first._follower._tasks["attend"].cancel()  # as a process that is stopped
            async with PrometheusExporter(url=url, queues=[queue_name], hold=HOLD) as second:
                await wait_until(lambda: second._follower.is_leading, timeout=10, description="the other one leads")
                samples = await refreshed(first)
                assert (total(samples, "eventq_exporter_leader"), total(samples, "eventq_up")) == (0, 1)
                assert [series for series in samples if ("queue", queue_name) in series[1]] == []
                assert total(await refreshed(second), "eventq_exporter_leader") == 1


async def test_redis_away_is_said_and_the_counters_stay(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """eventq_up 0 within the time a scrape has; what was saved is shown, depths are not; then it carries on."""
    server = make_server("--appendonly", "yes")
    async with Queue("q", url=server.url) as queue, PrometheusExporter(url=server.url, hold=HOLD) as exporter:
        await queue.add("n")
        await wait_until(counted(exporter, "q", "added"), description="the event")
        await wait_until(lambda: exporter._tallies["q"].is_based, description="the first comparison")
        before = await refreshed(exporter)
        server.freeze()
        began = time.monotonic()
        await exporter.refresh(2.0)
        assert time.monotonic() - began < 3
        samples = shown(exporter)
        assert (total(samples, "eventq_up"), total(samples, "eventq_scrape_collector_success")) == (0, 0)
        assert total(samples, "eventq_jobs_added_total") == total(before, "eventq_jobs_added_total") == 1
        assert "eventq_queue_jobs" not in {name for name, _ in samples}
        server.thaw()
        server.kill()
        await exporter.refresh(1.0)
        assert total(shown(exporter), "eventq_up") == 0
        server.start()

        async def is_up() -> bool:
            await exporter.refresh(2.0)
            return total(shown(exporter), "eventq_up") == 1

        await wait_until(is_up, timeout=20, description="Redis is back")
        await queue.add("n")

        async def has_two() -> bool:
            return total(await refreshed(exporter), "eventq_jobs_added_total") == 2

        await wait_until(has_two, timeout=20, description="the next job")


async def test_lag_and_headroom(url: str, queue_name: str, wait_until: WaitUntil, clock: Clock) -> None:
    """By number and by time, while the reader stands still."""
    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], hold=60) as exporter:
        await queue.add("n")
        await wait_until(counted(exporter, queue_name, "added"), description="the event")
        samples = await refreshed(exporter)
        assert (total(samples, "eventq_event_lag"), total(samples, "eventq_event_lag_seconds")) == (0, 0)
        exporter._follower._tasks["all" if not queue_is_in_cluster(exporter) else queue_name].cancel()
        await queue.add("n")
        await queue.add("n")
        clock.advance(queue_name, 30)
        samples = await refreshed(exporter)
        assert total(samples, "eventq_event_lag") == 2
        assert 30 <= total(samples, "eventq_event_lag_seconds") < 45


def queue_is_in_cluster(exporter: PrometheusExporter) -> bool:
    return exporter._follower._server.address.kind == "cluster"


async def test_a_registry_of_your_own(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Collected with everything else in it; from the loop's own thread without asking Redis."""
    registry = CollectorRegistry()
    Counter("mine", "a counter of the program's own", registry=registry).inc()
    async with (
        Queue(queue_name, url=url) as queue,
        PrometheusExporter(url=url, queues=[queue_name], registry=registry) as exporter,
    ):
        await queue.add("n")
        await wait_until(counted(exporter, queue_name, "added"), description="the event")
        text = await asyncio.to_thread(generate_latest, registry)
        samples = read(text.decode())
        assert (total(samples, "mine_total"), total(samples, "eventq_events_processed_total")) == (1, 1)
        assert total(read(generate_latest(registry).decode()), "eventq_events_processed_total") == 1


def test_in_a_thread(url: str, queue_name: str) -> None:
    """For programs without an event loop; the thread is gone afterwards."""
    before = threading.active_count()
    with run_in_thread(PrometheusExporter(url=url, queues=[queue_name])) as exporter:
        samples = read(generate_latest(exporter.registry).decode())
        assert total(samples, "eventq_up") == 1
    assert threading.active_count() == before


async def test_readiness_means_something(make_server: MakeServer, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready when every queue was compared once and reads are answered; not any more when they are not."""
    monkeypatch.setattr("eventq_prometheus.exporter._SILENT", 1.5)
    server = make_server()
    async with Queue("q", url=server.url) as queue, PrometheusExporter(url=server.url, hold=60) as exporter:
        await queue.add("n")
        await wait_until(lambda: exporter.status()[0] and "q" in exporter._tallies, description="ready")
        assert "following 1 queues" in exporter.status()[1]
        server.freeze()
        await wait_until(lambda: not exporter.status()[0], timeout=10, description="no longer ready")
        assert "not ready" in exporter.status()[1]
        server.thaw()
        await wait_until(lambda: exporter.status()[0], timeout=10, description="ready again")


async def test_the_number_of_series_is_foretold(url: str, queue_name: str) -> None:
    """About what a scrape then has, and the most there can be."""
    ledger = Ledger()
    exporter = PrometheusExporter(url=url, queues=[queue_name])
    async with Queue(queue_name, int, url=url) as queue, worker(queue), exporter:
        await ledger.add(queue, 200)
        await drained(queue)
        samples = await refreshed(exporter)
        now, most = exporter.series
    of_queue = [series for series in samples if ("queue", queue_name) in series[1]]
    assert 0.7 * len(of_queue) < now < 1.3 * len(of_queue)
    assert most > now


async def test_no_secret_of_a_job_is_shown_saved_or_logged(
    url: str, queue_name: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture, wait_until: WaitUntil
) -> None:
    """Data, results, progress, log lines and error messages, in nothing that the exporter says or keeps."""

    async def process(job: Job) -> str:
        await job.update_progress({"secret": CANARY})
        await job.log(CANARY)
        if job.name == "bad":
            raise ValueError(CANARY)
        return CANARY

    with caplog.at_level(logging.DEBUG):
        caplog.clear()
        async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], hold=HOLD) as exporter:
            async with Worker(queue, process):
                await queue.add("good", {"secret": CANARY})
                await queue.add("bad", {"secret": CANARY})
                await wait_until(counted(exporter, queue_name, "failed"), description="the failure")
                await wait_until(counted(exporter, queue_name, "completed"), description="the other one")
            await exporter.refresh()
            families = list(exporter.sheet(zeroes=False).families())
            said = repr([sample for family in families for sample in family.samples]) + exporter.status()[1]
            kept: Any = redis_client.hget(queue.context.keys["consumers"], "prometheus")
    assert CANARY not in said and "ValueError" in said
    assert CANARY.encode() not in kept and b"ValueError" in kept
    assert [
        record
        for record in caplog.records
        if CANARY in record.getMessage() and not record.name.startswith(("eventq.worker", "asyncio"))
    ] == []


async def test_hostile_names_of_errors_come_out_escaped(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """What users raise has any name."""
    hostile = 'E"\\\n}# HELP x {le="1"} 5\x1fé'
    error_type = type(hostile, (Exception,), {})

    async def process(job: Job) -> None:
        raise error_type("x")

    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], hold=HOLD) as exporter:
        async with Worker(queue, process):
            await queue.add("n")
            await wait_until(counted(exporter, queue_name, "failed"), description="the failure")
        port = free_port()
        serving = asyncio.create_task(serve(exporter, bind(parse_listen(f"127.0.0.1:{port}")), WebConfig()))
        try:
            await scrape(port)
            samples = await scrape(port)
            types = {dict(labels)["error_type"] for name, labels in samples if name == "eventq_job_errors_total"}
            (found,) = types
            assert found.endswith(hostile)
        finally:
            serving.cancel()
            await asyncio.wait([serving])


async def test_many_names_are_one_value(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """As in the queue's own totals; what is folded is counted."""
    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], hold=HOLD) as exporter:
        for start in range(0, 300, 100):
            await queue.add_bulk([NewJob(f"n{number}", 1) for number in range(start, start + 100)])

        async def is_there() -> bool:
            return total(await refreshed(exporter), "eventq_jobs_added_total") == 300

        await wait_until(is_there, description="all jobs")
        samples = shown(exporter)
        assert total(samples, "eventq_jobs_added_total", job_name=OVERFLOW) == 200
        assert total(samples, "eventq_label_overflow_total", label="job_name") >= 200


async def test_a_queue_that_comes_back_after_its_day_goes_on(
    url: str, queue_name: str, wait_until: WaitUntil, redis_client: redis.Redis
) -> None:
    """Redis forgot what was saved of it: it goes on from what was shown, so no counter falls."""
    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], hold=HOLD) as exporter:

        async def shows(added: int) -> bool:
            return total(await refreshed(exporter), "eventq_jobs_added_total") == added

        await queue.add_bulk([NewJob("n", number) for number in range(10)])
        await wait_until(lambda: shows(10), description="ten jobs")
        await queue.obliterate()
        await wait_until(lambda: not exporter._follower.queues, timeout=15, description="the queue is given up")
        assert await shows(10)
        redis_client.delete(queue.context.keys["consumers"], queue.context.keys["events"])
        await queue.add("n")
        await wait_until(lambda: queue_name in exporter._follower.queues, timeout=10, description="it is followed again")
        await wait_until(lambda: shows(11), description="eleven")


async def test_whoever_stands_by_shows_no_queue_that_went(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """What was shown of it is for the process that leads to show."""
    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], hold=HOLD) as exporter:
        await queue.add("n")
        await wait_until(counted(exporter, queue_name, "added"), description="the event")
        await refreshed(exporter)
        exporter._follower._stands_by = True
        assert [series for series in shown(exporter) if ("queue", queue_name) in series[1]] == []


async def test_a_server_that_takes_no_writes(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """Nothing can be saved: what was saved is shown, the part says so, depths are read."""
    server = make_server()
    async with Queue("q", url=server.url) as queue, PrometheusExporter(url=server.url, hold=60) as exporter:
        await queue.add("n")
        await wait_until(counted(exporter, "q", "added"), description="the event")
        await refreshed(exporter)
        with redis.Redis(port=server.port) as client:
            client.execute_command("ACL", "SETUSER", "default", "-hset")
            samples = await refreshed(exporter)
            client.execute_command("ACL", "SETUSER", "default", "+hset")
        assert total(samples, "eventq_scrape_collector_success", collector="save") == 0
        assert total(samples, "eventq_scrape_collector_success", collector="queues") == 1
        assert (total(samples, "eventq_up"), total(samples, "eventq_queue_jobs", state="waiting")) == (1, 1)
        assert total(samples, "eventq_jobs_added_total") == 1
        assert total(await refreshed(exporter), "eventq_scrape_collector_success") == 2


async def test_a_schedule_that_missed_nothing_is_shown_at_zero(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """So that its first miss is an increase."""
    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name]) as exporter:
        await queue.upsert_schedule("tick", every=3600, name="n")

        async def is_there() -> bool:
            await exporter.refresh()
            return [v for (name, _), v in shown(exporter).items() if name == "eventq_scheduler_missed_runs_total"] == [0]

        await wait_until(is_there, description="the schedule")


def test_the_same_warning_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """An outage says it many times a second."""
    warnings = Warnings(logging.getLogger("eventq.exporter"))
    for _ in range(5):
        warnings.say("away")
        warnings.say("still away")
    assert [record.message for record in caplog.records] == ["away", "still away"]
