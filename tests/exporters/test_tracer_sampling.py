"""Who is sampled: producer, worker and tracer agree without a word; what failed or was slow is kept; and what a span never says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from eventq import ConfigurationError, NewJob, Queue, Worker
from eventq_opentelemetry import StreamTracer
from eventq_opentelemetry.facts import Facts
from eventq_opentelemetry.metrics import Metrics
from eventq_opentelemetry.saved import OpenRun
from eventq_opentelemetry.trail import Measured

from .ledgers import Ledger, drained, worker
from .otlp import OtlpReceiver
from .traced import tracer_command
from .traced import worker as shop_worker

if TYPE_CHECKING:
    from ..conftest import WaitUntil


def caller(*, sampled: bool) -> NonRecordingSpan:
    """Return the span of a request."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return NonRecordingSpan(SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False, flags))


def said(holder: Any) -> dict[str, Any]:
    """Return the attributes of a span or an event."""
    return dict(holder.attributes)


@pytest.mark.slow
async def test_worker_and_tracer_come_to_the_same_decision(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Of jobs that were added outside of any trace, by the ratio that both were told: where a run has a span its child spans are
    there, and where it has none they are not; runs that failed have theirs in any case.
    """
    jobs = 600
    with OtlpReceiver("http/protobuf") as receiver:
        told = {**receiver.environment(), "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.3"}
        async with Queue(queue_name, url=url) as queue:
            await queue.add_bulk([NewJob("fine") for _ in range(jobs)])
            await queue.add_bulk([NewJob("unrecoverable") for _ in range(20)])
            with tracer_command(url, queue_name, told), shop_worker(url, queue_name, told, concurrency=20):
                await drained(queue)
                last = await queue.add("unrecoverable")
                await wait_until(
                    lambda: any(s.attributes.get("messaging.message.id") == last.id for s in receiver.spans),
                    20,
                    description="the last span",
                )
        spans = receiver.distinct().values()
        runs = {span.span_id: span for span in spans if span.kind == "CONSUMER" and span.attributes["eventq.job.name"] == "fine"}
        inner = {span.parent_id for span in spans if span.name == "inner"}
        failed = [span for span in spans if span.attributes.get("eventq.job.outcome") == "failed"]
        added = {span.span_id for span in spans if span.kind == "PRODUCER"}
        assert set(runs) == inner
        assert {span.parent_id for span in runs.values()} <= added
        assert 0.2 * jobs < len(runs) < 0.4 * jobs
        assert 21 == len(failed)
        kept = [span for span in failed if span.attributes.get("eventq.sampling.reason") == "failed"]
        assert 0 < len(kept) < 21
        assert {"ot=th:0"} == {span.trace_state for span in kept} and not {span.parent_id for span in kept} & added


async def test_the_callers_decision_stands(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Whatever the tracer's own sampler says: a job of a trace that is sampled is sampled, one of a trace that is not is not."""
    exporter = InMemorySpanExporter()

    async def process(job: Any) -> None:
        if job.name == "fails":
            raise ValueError("as agreed")

    async with (
        Queue(queue_name, url=url) as queue,
        StreamTracer(exporter, url=url, queues=[queue_name], sampler=ALWAYS_OFF) as tracer,
    ):
        with use_span(caller(sampled=True)):
            await queue.add("sampled")
        with use_span(caller(sampled=False)):
            await queue.add("left-out")
            await queue.add("fails")
        await queue.add("outside")
        async with Worker(queue, process):
            await drained(queue)
            await wait_until(lambda: tracer.unsampled == 2 and tracer.open_runs == 0, description="all runs")
    found = [(span.name.split()[0], said(span)["eventq.job.name"]) for span in exporter.get_finished_spans()]
    assert [("add", "sampled"), ("process", "fails"), ("process", "sampled"), ("queued", "sampled")] == sorted(found)


async def test_a_slow_run_is_kept(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """One that takes as long as was said, though nothing is sampled."""
    exporter = InMemorySpanExporter()

    async def process(job: Any) -> None:
        await asyncio.sleep(job.data)  # sleep-ok: the work itself

    async with (
        Queue(queue_name, url=url) as queue,
        Worker(queue, process, concurrency=2),
        StreamTracer(exporter, url=url, queues=[queue_name], sampler=ALWAYS_OFF, slow=0.2) as tracer,
    ):
        await queue.add("quick", 0)
        await queue.add("slow", 0.21)
        await wait_until(lambda: exporter.get_finished_spans() and tracer.unsampled == 1, description="both")
    (span,) = exporter.get_finished_spans()
    assert ("slow", "slow") == (said(span)["eventq.job.name"], said(span)["eventq.sampling.reason"])


@pytest.mark.parametrize("messages", [True, False])
async def test_messages_are_told_only_where_they_may_be(url: str, queue_name: str, wait_until: WaitUntil, messages: bool) -> None:
    """Without them neither span nor event nor stack trace holds what an exception said; with them `redact` has the last word."""
    exporter = InMemorySpanExporter()

    async def process(_: Any) -> None:
        from opentelemetry import trace

        try:
            raise KeyError("canary-one")
        except KeyError as error:
            trace.get_current_span().record_exception(error)
        raise ValueError("canary-two")

    async with (
        Queue(queue_name, url=url) as queue,
        Worker(queue, process),
        StreamTracer(
            exporter,
            url=url,
            queues=[queue_name],
            exception_messages=messages,
            redact=lambda text: text.replace("canary", "xxx"),
        ),
    ):
        with use_span(caller(sampled=True)):
            await queue.add("n")
        await wait_until(lambda: len(exporter.get_finished_spans()) == 3, description="its spans")
    (span,) = [span for span in exporter.get_finished_spans() if span.name == f"process {queue_name}"]
    told = span.to_json()
    assert "canary" not in told
    assert messages is ("xxx-one" in told) and messages is ("xxx-two" in told)
    assert messages is (span.status.description == "xxx-two")
    assert ["KeyError", "ValueError"] == [said(event)["exception.type"] for event in span.events]


async def test_metrics_are_of_the_same_events(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Every instrument by its conventional name, with the numbers of the ledger, in seconds."""
    exporter, reader, ledger = InMemorySpanExporter(), InMemoryMetricReader(), Ledger()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    async with (
        Queue(queue_name, int, url=url) as queue,
        worker(queue),
        StreamTracer(exporter, url=url, queues=[queue_name], meter_provider=provider) as tracer,
    ):
        await ledger.add(queue, 100)
        await drained(queue)
        spans = ledger.jobs + 2 * ledger.of("eventq_job_attempts_started_total")
        await wait_until(lambda: tracer.sent == spans, 10, description="all spans")

        def points() -> dict[str, list[Any]]:
            data = reader.get_metrics_data()
            scopes = [scope for each in data.resource_metrics for scope in each.scope_metrics] if data else []
            return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}

        await wait_until(lambda: "eventq.queue.jobs" in points(), 10, description="a look at the queue")
        found = points()
    provider.shutdown()
    finished, retried = ledger.of("eventq_jobs_finished_total"), ledger.of("eventq_jobs_retried_total")
    assert ledger.jobs == sum(point.value for point in found["messaging.client.sent.messages"])
    assert finished + retried == sum(point.value for point in found["messaging.client.consumed.messages"])
    assert finished + retried == sum(point.count for point in found["messaging.process.duration"])
    assert finished + retried == sum(point.count for point in found["eventq.job.wait.duration"])
    assert finished == sum(point.count for point in found["eventq.job.duration"])
    assert ledger.of("eventq_jobs_failed_total") + retried == sum(
        point.count for point in found["messaging.process.duration"] if "error.type" in point.attributes
    )
    assert {"completed", "failed", "waiting"} <= {point.attributes["eventq.job.state"] for point in found["eventq.queue.jobs"]}
    assert 3600 == found["messaging.process.duration"][0].explicit_bounds[-1]
    assert {"eventq.event.lag", "eventq.worker.slot.limit", "eventq.tracer.span.sent"} <= set(found)


@pytest.mark.parametrize("slow", [-1, float("nan"), float("inf")])
def test_slow_is_seconds(slow: float) -> None:
    """Anything else is refused at once."""
    with pytest.raises(ConfigurationError, match="slow"):
        StreamTracer(InMemorySpanExporter(), slow=slow)


def test_a_ratio_is_of_the_trace_id() -> None:
    """The ids that are made for jobs outside of any trace are spread evenly: a ratio sampler takes its share of them."""
    from eventq.spans import NO_FACTS, creation_of

    sampler = TraceIdRatioBased(0.25)
    ids = [creation_of("q", f"job-{number}", 1, NO_FACTS).trace_id for number in range(4_000)]
    share = sum(sampler.should_sample(None, each, "add q").decision is not Decision.DROP for each in ids) / len(ids)
    assert 0.22 < share < 0.28


def test_histograms_are_of_seconds() -> None:
    """What events say in ms."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    facts = Facts(job_id="a", name="n", waited_ms=2_500, ran_ms=1_500, total_ms=4_000)
    run = OpenRun(1, 1_000_000, 1, "w", "n", 997_500, 2_500)
    Metrics(provider).record([Measured(queue="q", kind=k, facts=facts, run=run, ms=1_001_500) for k in ("active", "completed")])
    data = reader.get_metrics_data()
    assert data is not None
    found = {m.name: m.data.data_points for each in data.resource_metrics for scope in each.scope_metrics for m in scope.metrics}
    provider.shutdown()
    histograms = ("messaging.process.duration", "eventq.job.wait.duration", "eventq.job.duration")
    sums: list[Any] = [next(iter(found[name])) for name in histograms]
    assert [1.5, 2.5, 4.0] == [point.sum for point in sums]
