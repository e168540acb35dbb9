"""Every run has its span, once, whatever happens to the tracer, the collector, or the stream between them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from eventq import EventBatch, Job, Queue, Worker
from eventq.commands.upkeep import trim_events
from eventq_opentelemetry import StreamTracer
from eventq_opentelemetry.saved import Memory, WorkerInfo, memory_text

from .ledgers import Ledger, drained, process, worker
from .otlp import OtlpReceiver
from .traced import tracer

if TYPE_CHECKING:
    from ..conftest import MakeServer, WaitUntil
    from .otlp import Span

FAR = 10**15


def differences(spans: dict[str, Span], ledger: Ledger) -> dict[str, int]:
    """Return by how much the spans differ from what there was: jobs that were added, runs, and how they ended."""
    operations = Counter(span.name.split()[0] for span in spans.values())
    # Of a bulk that was added in a trace there is one span, and its runs have no `queued`.
    operations["created"] = operations["add"] + sum(s.attributes.get("messaging.batch.message_count", 0) for s in spans.values())
    bulks = bool(operations["add_bulk"])
    outcomes = Counter(span.attributes.get("eventq.job.outcome") for span in spans.values())
    runs = ledger.of("eventq_job_attempts_started_total")
    expected = {
        "created": ledger.jobs,
        "queued": 0 if bulks else runs,
        "process": runs,
        "completed": ledger.of("eventq_jobs_completed_total"),
        "failed": ledger.of("eventq_jobs_failed_total"),
        "retried": ledger.of("eventq_jobs_retried_total"),
    }
    found = {**operations, **{key: number for key, number in outcomes.items() if key}}
    return {key: found.get(key, 0) - number for key, number in expected.items() if found.get(key, 0) != number}


async def all_arrive(receiver: OtlpReceiver, ledger: Ledger, wait_until: WaitUntil, timeout: float = 60) -> dict[str, Span]:
    """Return the distinct spans once every run has its own."""
    expected = ledger.of("eventq_job_attempts_started_total")
    await wait_until(lambda: receiver.count >= expected, timeout, description=f"{expected} spans")
    await wait_until(lambda: not differences(receiver.distinct(), ledger), timeout, description="a span for every run")
    return receiver.distinct()


async def speaking(job: Job[int]) -> int:
    """Say things on the way, and take a while now and then: runs that go on when the tracer is killed are remembered."""
    trace.get_current_span().set_attribute("number", job.data)
    await job.update_progress(job.data % 100)
    if job.data % 7 == 0:
        await asyncio.sleep(0.2)  # sleep-ok: the work itself
    return await process(job)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("jobs", [pytest.param(4_000, id="small"), pytest.param(50_000, id="full", marks=pytest.mark.full)])
async def test_the_tracer_is_killed_twenty_times(
    make_server: MakeServer, wait_until: WaitUntil, jobs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 at random moments under load: no run without its span, none with two, and what was sent twice is alike to the byte."""
    server, ledger = make_server(), Ledger()
    seed = random.SystemRandom().randrange(10**9)
    chance = random.Random(seed)
    with OtlpReceiver("grpc") as receiver:
        async with Queue("q", int, url=server.url) as queue:
            with tracer(server.url, receiver.environment()) as process:
                async with Worker(queue, speaking, concurrency=50):
                    for _ in range(20):
                        with use_span(NonRecordingSpan(SpanContext(chance.getrandbits(127) + 1, 1, False, TraceFlags(1)))):
                            await ledger.add(queue, jobs // 20)
                        before = receiver.count
                        await wait_until(lambda: receiver.count > before, 20, description="something to be sent")  # noqa: B023
                        await asyncio.sleep(chance.uniform(0, 0.3))  # sleep-ok: a random moment
                        await asyncio.to_thread(process.kill)
                        await asyncio.to_thread(process.start)
                    await drained(queue, 300)
                spans = await all_arrive(receiver, ledger, wait_until)
                assert 0 == await asyncio.to_thread(process.stop), process.log
    with capsys.disabled():
        print(
            f"\n20 kills (seed {seed}): {len(spans)} spans, {receiver.count - len(spans)} sent twice, none different, none missing"
        )


@pytest.mark.parametrize("how", ["refuse", "hang", "reject_large", "away"])
async def test_a_collector_that_takes_nothing(make_server: MakeServer, wait_until: WaitUntil, how: Any) -> None:
    """Jobs go on; the place stays; everything is sent when it takes again, by the same tracer or by the next one."""
    server, ledger = make_server(), Ledger()
    with OtlpReceiver("http/protobuf") as receiver:
        environment = {**receiver.environment(), "OTEL_EXPORTER_OTLP_TIMEOUT": "0.3"}
        async with Queue("q", int, url=server.url) as queue:
            with tracer(server.url, environment) as process:
                async with worker(queue):
                    await ledger.add(queue, 20)
                    await all_arrive(receiver, ledger, wait_until)
                    if how == "away":
                        receiver.go_away()
                    else:
                        receiver.mode, receiver.max_spans = how, 10
                    await ledger.add(queue, 200)
                    await drained(queue)
                    if how != "reject_large":
                        await wait_until(lambda: "not taken" in process.log, 20, description="a line about it")
                        assert differences(receiver.distinct(), ledger)
                        await asyncio.to_thread(process.kill)
                        await asyncio.to_thread(process.start)
                        if how == "away":
                            receiver.come_back()
                        receiver.mode = "accept"
                    await all_arrive(receiver, ledger, wait_until)
                assert 0 == await asyncio.to_thread(process.stop), process.log


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_a_collector_that_is_away_for_a_minute(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """A minute of load is kept, and sent afterwards."""
    server, ledger = make_server(), Ledger()
    with OtlpReceiver("grpc") as receiver:
        async with Queue("q", int, url=server.url) as queue:
            with tracer(server.url, receiver.environment()) as process:
                async with worker(queue):
                    await ledger.add(queue, 20)
                    await all_arrive(receiver, ledger, wait_until)
                    receiver.go_away()
                    for _ in range(60):
                        await ledger.add(queue, 50)
                        await asyncio.sleep(1)  # sleep-ok: a minute of it
                    receiver.come_back()
                    await drained(queue)
                    await all_arrive(receiver, ledger, wait_until)
                assert 0 == await asyncio.to_thread(process.stop), process.log


async def test_a_second_one_stands_by(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """Of two with one name one sends; when it is killed the other one goes on, and nothing is missing."""
    server, ledger = make_server(), Ledger()
    with OtlpReceiver("grpc") as receiver:
        async with Queue("q", int, url=server.url) as queue, worker(queue):
            await ledger.add(queue, 20)
            with tracer(server.url, receiver.environment()) as first:
                spans = await all_arrive(receiver, ledger, wait_until)
                with tracer(server.url, receiver.environment()) as second:
                    await ledger.add(queue, 20)
                    spans = await all_arrive(receiver, ledger, wait_until)
                    assert receiver.count == len(spans)
                    await asyncio.to_thread(first.kill)
                    await ledger.add(queue, 20)
                    await all_arrive(receiver, ledger, wait_until)
                    assert 0 == await asyncio.to_thread(second.stop), second.log


async def test_what_was_trimmed_is_told_and_does_not_stay_open(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """Events that are gone before they are read: the loss is counted, what began before it and ends after it has its span, and a run
    whose beginning is gone has one that says so.
    """
    server, gate = make_server(), asyncio.Event()
    early, late = InMemorySpanExporter(), InMemorySpanExporter()

    async def hold(_: Any) -> None:
        await gate.wait()

    async with Queue("q", int, url=server.url) as queue, Worker(queue, hold, concurrency=10):
        async with StreamTracer(early, url=server.url, hold=0.5) as before:
            first = await queue.add("first", 1)
            await wait_until(lambda: before.open_runs == 1, description="the first run to be seen")
        second = await queue.add("second", 2)
        await wait_until(lambda: _active(queue, 2), description="the second run")
        await queue.context.runner.run(trim_events(queue.context.keys, (0, FAR, FAR, 0)))
        gate.set()
        await drained(queue)
        async with StreamTracer(late, url=server.url, hold=0.5) as after:
            await wait_until(lambda: len(_runs(late)) == 2, 10, description="both runs")
            assert after.lost_events > 0 and after.open_runs == 0
    runs = {span.attributes["messaging.message.id"]: span for span in _runs(late)}
    assert "eventq.span.incomplete" not in runs[first.id].attributes
    assert runs[second.id].attributes["eventq.span.incomplete"] is True


def _runs(exporter: InMemorySpanExporter) -> list[Any]:
    return [span for span in exporter.get_finished_spans() if span.name == "process q"]


async def _active(queue: Queue[Any, Any], number: int) -> bool:
    counts = await queue.get_job_counts()
    return counts["active"] == number  # type: ignore[index]


async def test_redis_is_lost_and_comes_back(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """It carries on by itself."""
    server, ledger = make_server("--appendonly", "yes", "--appendfsync", "always"), Ledger()
    with OtlpReceiver("grpc") as receiver:
        async with Queue("q", int, url=server.url) as queue:
            with tracer(server.url, receiver.environment()) as process:
                async with worker(queue):
                    await ledger.add(queue, 50)
                    await all_arrive(receiver, ledger, wait_until)
                    server.kill()
                    server.start()
                    await ledger.add(queue, 50)
                    await all_arrive(receiver, ledger, wait_until)
                assert 0 == await asyncio.to_thread(process.stop), process.log


async def test_an_exporter_that_raises_is_tried_again(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """What an exporter of somebody else's does is no reason to stop, or to lose a span."""

    class Moody(InMemorySpanExporter):
        moods = 3

        def export(self, spans: Any) -> Any:
            if self.moods:
                self.moods -= 1
                raise RuntimeError("not now")
            return super().export(spans)

    server, exporter = make_server(), Moody()
    async with Queue("q", int, url=server.url) as queue, StreamTracer(exporter, url=server.url) as process:
        await queue.add("n", 1)
        await wait_until(lambda: exporter.get_finished_spans(), 10, description="the span")
        assert (3, 1) == (process.refused, process.sent)


async def test_who_its_workers_are_is_looked_up_once(caplog: pytest.LogCaptureFixture) -> None:
    """A queue that was read before is taken as it was left: what is read again must make the same spans, and no better ones."""
    process = StreamTracer(InMemorySpanExporter(), url="redis://127.0.0.1:1/0")
    await process.restored("q", memory_text(Memory()))
    assert memory_text(Memory()) == process.state("q") and not caplog.text
    for unread in ("", "{"):
        caplog.clear()
        await process.restored("q", unread)
        assert "its workers could not be looked up" in caplog.text  # there is nobody to ask
    await process.close()


async def test_a_gap_is_told_though_nothing_follows(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """An idle queue whose last events are gone: the loss is counted, and what it means for runs is saved with the place beyond it."""
    server, gate = make_server(), asyncio.Event()

    async def hold(_: Any) -> None:
        await gate.wait()

    async with Queue("q", int, url=server.url) as queue, Worker(queue, hold):
        async with StreamTracer(InMemorySpanExporter(), url=server.url, hold=0.5) as before:
            await queue.add("first", 1)
            await wait_until(lambda: before.open_runs == 1, description="the first run to be seen")
        await queue.add("second", 2)
        await queue.context.runner.run(trim_events(queue.context.keys, (0, FAR, FAR, 0)))
        async with StreamTracer(InMemorySpanExporter(), url=server.url, hold=0.5) as after:
            await wait_until(lambda: after.lost_events > 0, 10, description="the loss")
        async with StreamTracer(InMemorySpanExporter(), url=server.url, hold=0.5) as last:
            await wait_until(lambda: last.open_runs == 1, 10, description="what was kept")
            (run,) = last._trails["q"].memory.runs.values()
            assert run.is_doubtful and 0 == last.lost_events
        gate.set()


async def test_a_flush_that_is_cancelled_loses_nothing() -> None:
    """In a Cluster one flush sends what others read; when its own queue goes, the next one goes on with what it had."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Late(InMemorySpanExporter):
        takes = False

        def export(self, spans: Any) -> SpanExportResult:
            loop.call_soon_threadsafe(asked.set)
            return super().export(spans) if self.takes else SpanExportResult.FAILURE

    exporter = Late()
    process = StreamTracer(exporter, url="redis://127.0.0.1:1/0")
    for queue in ("a", "b"):
        await process.restored(queue, memory_text(Memory(workers={"w": WorkerInfo()})))
        process.received(EventBatch(queue, "added", 1, 1, 1_800_000_000_000, '[{"job_id":"j","name":"n"}]'))
    first = asyncio.create_task(process.flush())
    await asked.wait()
    process.left("a")
    first.cancel()
    await asyncio.wait([first])
    exporter.takes = True
    await process.flush()
    assert {"add a", "add b"} == {span.name for span in exporter.get_finished_spans()}
    await process.close()


@pytest.mark.full
async def test_a_queue_that_is_obliterated_while_nothing_is_taken(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """What was read of it is sent afterwards; what was not is told as lost. The queue's next life is followed."""
    server = make_server()
    with OtlpReceiver("http/protobuf") as receiver:
        environment = {**receiver.environment(), "OTEL_EXPORTER_OTLP_TIMEOUT": "0.3"}
        async with Queue("q", url=server.url) as queue:
            with tracer(server.url, environment) as process:
                receiver.mode = "refuse"
                await queue.add("read")
                await wait_until(lambda: receiver.refused > 0, 20, description="the first request")
                await queue.add("unread")
                await queue.obliterate(force=True)
                await asyncio.sleep(6)  # sleep-ok: longer than the last event of a queue is waited for
                receiver.mode = "accept"
                await queue.add("after")

                def names() -> set[str]:
                    return {span.attributes.get("eventq.job.name", "") for span in receiver.spans}

                await wait_until(lambda: {"read", "after"} <= names(), 40, description="both lives")
                assert "events are lost" in process.log


async def test_log_records_that_nobody_takes_keep_no_span_back(
    make_server: MakeServer, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are left out after a while, and counted; Tempo, for one, takes traces only."""
    monkeypatch.setattr("eventq_opentelemetry.tracer._LOG_PATIENCE", 0.1)
    exporter = InMemorySpanExporter()

    class Refusing(InMemoryLogRecordExporter):
        def export(self, batch: Any) -> LogRecordExportResult:
            return LogRecordExportResult.FAILURE

    async def fail(_: Any) -> None:
        raise ValueError("as agreed")

    server = make_server()
    records: Any = Refusing
    async with (
        Queue("q", url=server.url) as queue,
        Worker(queue, fail),
        StreamTracer(exporter, log_exporter=records(), url=server.url) as process,
    ):
        await queue.add("one")
        await wait_until(lambda: len(exporter.get_finished_spans()) == 3, 10, description="the first one's spans")
        await queue.add("two")
        await wait_until(lambda: len(exporter.get_finished_spans()) == 6, 10, description="the second one's spans")
        assert process.dropped >= 1
