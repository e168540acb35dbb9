"""Trace context through the core, without any tracer: what adding stores, what a processor sees, what its events say of it."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis
from opentelemetry import baggage, context, trace
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, StatusCode, TraceFlags, TraceState

import eventq.process
from eventq import (
    Backoff,
    InvalidJob,
    Job,
    JobOptions,
    NewJob,
    Postpone,
    Queue,
    SyncQueue,
    Unrecoverable,
    Worker,
    current_job,
)
from eventq.events import (
    ActiveEvent,
    AddedEvent,
    CompletedEvent,
    DelayedEvent,
    FailedEvent,
    ReleasedEvent,
    RetryingEvent,
    StalledEvent,
    WorkerStartedEvent,
)
from eventq.firing import Firing
from eventq.spans import MAX_FAN_OUT, RunKey, SpanIds, TraceFacts, creation_of, parse_traceparent, run_of

from ..conftest import Clock
from .recorder import Recorder, expire_leases, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLER = SpanContext(
    0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False, TraceFlags(1), TraceState([("vendor", 'a "b"')])
)
OTHER = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(0))
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STORED = f'"traceparent":"{TRACEPARENT}","tracestate":"vendor=a \\"b\\""'
#: Nothing but the time may differ.
RECORD = "1\t{ms}\t\t\t{flags}\tn\t{trace}\n{spec}\nnull"


class Told:
    """Baggage of the current context, while the block runs."""

    def __init__(self, **said: str) -> None:
        self._said = said

    def __enter__(self) -> None:
        now = context.get_current()
        for key, value in self._said.items():
            now = baggage.set_baggage(key, value, now)
        self._token = context.attach(now)

    def __exit__(self, *_: object) -> None:
        context.detach(self._token)


async def run(queue: Queue[Any, Any], processor: Any, **options: Any) -> None:
    """Work until the line is empty, outside of any trace."""
    with trace.use_span(INVALID_SPAN):
        await Worker(queue, processor, burst=True, **options).run()


def record_of(client: redis.Redis, queue: Any, job_id: str) -> str:
    """Return what is stored of a job, without its time."""
    text: Any = client.hget(queue.context.keys["jobs"], job_id)
    return re.sub(r"^1\t\d+\t", "1\t{ms}\t", text.decode())


def record(trace: str = "", spec: str = "", flags: str = "") -> str:
    """Return the record of a job `n` without data, without its time."""
    return RECORD.replace("{trace}", trace).replace("{spec}", spec).replace("{flags}", flags)


def facts_of(event: AddedEvent | CompletedEvent) -> TraceFacts:
    return TraceFacts(event.traceparent, event.tracestate, event.service, event.propagation, event.batch, event.link)


def worked_out(recorder: Recorder, job_id: str) -> tuple[SpanIds, list[SpanIds]]:
    """Return the spans of a job's creation and of its runs, as whoever reads its events works them out."""
    (added,) = recorder.of(AddedEvent, job_id)
    creation = creation_of(added.queue, job_id, added.ms, facts_of(added))
    runs: list[SpanIds] = []
    for active in recorder.of(ActiveEvent, job_id):
        assert round(active.added.timestamp() * 1000) == added.ms
        runs.append(run_of(creation, facts_of(added), RunKey(added.queue, job_id, active.seq, active.ms), active.ms - added.ms))
    return creation, runs


class Seen:
    """The contexts that processors saw, by job id, in order."""

    def __init__(self) -> None:
        self.spans: dict[str, list[SpanContext]] = {}

    def note(self) -> None:
        job = current_job()
        assert job is not None
        self.spans.setdefault(job.id, []).append(trace.get_current_span().get_span_context())

    def ids(self, job_id: str) -> list[tuple[int, int]]:
        return [(each.trace_id, each.span_id) for each in self.spans[job_id]]


def ids_of(runs: list[SpanIds]) -> list[tuple[int, int]]:
    return [(run.trace_id, run.span_id) for run in runs]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """This process is called shop by its environment."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setattr(eventq.process, "_service", None)
    yield "shop"
    monkeypatch.setattr(eventq.process, "_service", None)


# What adding stores


async def test_outside_a_trace_nothing_is_stored(url: str, queue_name: str, redis_client: redis.Redis, service: str) -> None:
    """Byte for byte what was stored before there were traces, whatever the process is called; the same from a bulk."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        jobs = [await queue.add("n"), *await queue.add_bulk([NewJob("n"), NewJob("n", options=JobOptions(propagation="auto"))])]
        await run(queue, nothing)
        await recorder.catch_up()
        assert [record_of(redis_client, queue, job.id) for job in jobs] == [record()] * 3
        raw: Any = redis_client.xrange(queue.context.keys["events"])
        said = {fields[b"kind"].decode(): json.loads(fields[b"events"])[0] for _, fields in raw}
    assert said["added"].keys() == {"job_id", "name", "state"}
    assert said["active"].keys() == {"job_id", "name", "attempt", "worker", "waited_ms"}
    assert said["completed"].keys() == {"job_id", "name", "attempt", "worker", "waited_ms", "ran_ms"}


async def test_what_is_stored_inside_a_trace(url: str, queue_name: str, redis_client: redis.Redis, service: str) -> None:
    """traceparent, tracestate and service; of a bulk the same, and which one it is; propagation where it was said."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            one = await queue.add("n")
            linked = await queue.add("n", propagation="link")
            bulk = await queue.add_bulk([NewJob("n"), NewJob("n", options=JobOptions(propagation="none", lifo=True))])
            (alone,) = await queue.add_bulk([NewJob("n")])
        with trace.use_span(NonRecordingSpan(OTHER)):
            unsampled = await queue.add("n")
        await recorder.catch_up()
        found = {job.id: record_of(redis_client, queue, job.id) for job in (one, linked, *bulk, alone, unsampled)}
    known = f'{STORED},"service":"shop"'
    assert found[one.id] == found[alone.id] == record(known), "a bulk of one is none"
    assert found[linked.id] == record(f'{known},"propagation":"link"')
    (batch,) = {event.batch for event in recorder.of(AddedEvent) if event.batch}
    assert re.fullmatch(r"[\w-]{10}\.2", batch)
    assert found[bulk[0].id] == record(f'{known},"batch":"{batch}"')
    assert found[bulk[1].id] == record(f'{known},"batch":"{batch}","propagation":"none"', flags="l")
    assert found[unsampled.id] == record(f'"traceparent":"00-{0xABC:032x}-{0xDEF:016x}-00","service":"shop"')
    (added,) = recorder.of(AddedEvent, linked.id)
    assert facts_of(added) == TraceFacts(TRACEPARENT, 'vendor=a "b"', "shop", "link")


async def test_propagation_without_a_trace(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """It is stored all the same: the job has a trace of its own. A queue's default is overruled by the job's own word."""
    options = JobOptions(propagation="link")
    async with Queue(queue_name, url=url, default_options=options) as queue:
        by_default, said = await queue.add("n"), await queue.add("n", propagation="auto")
        assert record_of(redis_client, queue, by_default.id) == record('"propagation":"link"')
        assert record_of(redis_client, queue, said.id) == record()


@pytest.mark.parametrize("value", ["x", "", "Parent", 1, True, ["link"]])
async def test_another_propagation_is_refused(url: str, queue_name: str, value: Any) -> None:
    """In options and at add: option, value, what there is."""
    message = re.escape(f"propagation {value!r}: must be one of auto, parent, link, none")
    with pytest.raises(InvalidJob, match=message):
        JobOptions(propagation=value)
    async with Queue(queue_name, url=url) as queue:
        with pytest.raises(InvalidJob, match=message):
            await queue.add("n", propagation=value)
        assert await queue.count() == 0


async def test_baggage_is_stored_with_the_options(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """As its header says it, with or without a trace; 8 KiB of it at most."""
    header = '"baggage":"tenant=acme+%26+sons"'
    async with Queue(queue_name, url=url) as queue:
        with Told(tenant="acme & sons"):
            plain, more = await queue.add("n"), await queue.add("n", attempts=3)
            with trace.use_span(NonRecordingSpan(CALLER)):
                traced = await queue.add("n")
        many = {f"key{number}": "x" * 4_000 for number in range(3)}
        with Told(**many):
            large = await queue.add("n")
        assert record_of(redis_client, queue, plain.id) == record(spec=f"{{{header}}}")
        assert record_of(redis_client, queue, more.id) == record(spec=f'{{"attempts":3,{header}}}')
        assert record_of(redis_client, queue, traced.id) == record(STORED, spec=f"{{{header}}}")
        kept = (await queue.context.require(large.id)).record.spec.baggage
        assert 4_000 < len(kept) <= 8_192 and {len(pair) for pair in kept.split(",")} == {len("key0=") + 4_000}


async def test_a_sync_queue_stores_the_same(url: str, queue_name: str, redis_client: redis.Redis, service: str) -> None:
    """Trace, service, batch, propagation and baggage, from whatever thread."""

    def add() -> list[str]:
        with SyncQueue(queue_name, url=url) as queue:
            bulk = queue.add_bulk([NewJob("n"), NewJob("n", options=JobOptions(propagation="none"))])
            return [queue.add("n").id, queue.add("n", propagation="link").id, *(job.id for job in bulk)]

    async with Queue(queue_name, url=url) as queue:
        outside = await asyncio.to_thread(add)
        with trace.use_span(NonRecordingSpan(CALLER)), Told(tenant="acme"):
            inside = await asyncio.to_thread(add)
        assert record_of(redis_client, queue, outside[0]) == record()
        known, spec = f'{STORED},"service":"shop"', '{"baggage":"tenant=acme"}'
        found = [re.sub(r'"[\w-]{10}\.2"', "B", record_of(redis_client, queue, job_id)) for job_id in inside]
        assert found == [
            record(known, spec),
            record(f'{known},"propagation":"link"', spec),
            record(f'{known},"batch":B', spec),
            record(f'{known},"batch":B,"propagation":"none"', spec),
        ]


# What a processor sees


async def nothing(job: Job[Any, Any]) -> None:
    """Do nothing."""


class Look:
    """What is current at one place."""

    def __init__(self) -> None:
        job = current_job()
        self.job_id = job.id if job is not None else None
        self.span = trace.get_current_span().get_span_context()
        self.tenant = baggage.get_baggage("tenant")


async def test_the_job_is_current_in_all_that_its_processor_starts(url: str, queue_name: str) -> None:
    """Its span, its baggage and itself: in async processors, in plain functions, in tasks, in threads asked for with asyncio, in a
    backoff strategy. Outside there is nothing, and two jobs at once do not see each other.
    """
    looks: dict[str, list[Look]] = {}
    together = asyncio.Barrier(2)

    async def later(name: str) -> None:
        await asyncio.sleep(0)
        looks[name].append(Look())

    async def on_the_loop(job: Job[Any, Any]) -> None:
        looks[job.name] = [Look()]
        await asyncio.wait_for(together.wait(), 5)
        await asyncio.create_task(later(job.name))
        async with asyncio.TaskGroup() as group:
            group.create_task(later(job.name))
        looks[job.name].append(await asyncio.to_thread(Look))
        with Told(more="of the processor's own"):
            looks[job.name].append(Look())
        raise ValueError("for the strategy")

    def in_a_thread(job: Job[Any, Any]) -> None:
        looks[job.name] = [Look()]
        asyncio.run(later(job.name))

    async def strategy(job: Job[Any, Any], error: BaseException) -> float:
        looks[job.name].append(Look())
        return 60

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            with Told(tenant="acme"):
                jobs = [await queue.add("one", attempts=2, backoff=Backoff.custom("mine"))]
            with Told(tenant="other"):
                jobs += [await queue.add("two", attempts=2, backoff=Backoff.custom("mine")), await queue.add("threaded")]
        processors = {"one": on_the_loop, "two": on_the_loop, "threaded": in_a_thread}
        await run(queue, processors, concurrency=3, backoffs={"mine": strategy})
        await recorder.catch_up()
        assert (None, False, None) == (Look().job_id, Look().span.is_valid, Look().tenant)
        for job, tenant, count in zip(jobs, ["acme", "other", "other"], [6, 6, 2], strict=True):
            (span,) = worked_out(recorder, job.id)[1]
            found = {(look.job_id, look.span.trace_id, look.span.span_id, look.tenant) for look in looks[job.name]}
            assert (found, len(looks[job.name])) == ({(job.id, span.trace_id, span.span_id, tenant)}, count)


async def test_what_was_current_when_the_worker_started_is_not_in_its_jobs(url: str, queue_name: str) -> None:
    """Neither its span nor its baggage: a job has what it was added with, and nothing where that is nothing."""
    looks: dict[str, Look] = {}

    async def processor(job: Job[Any, Any]) -> None:
        looks[job.name] = Look()

    async with Queue(queue_name, url=url) as queue:
        await queue.add("plain")
        with trace.use_span(NonRecordingSpan(CALLER)):
            await queue.add("traced")
        with Told(tenant="acme"):
            await queue.add("told")
        with trace.use_span(NonRecordingSpan(OTHER)), Told(tenant="of the worker"):
            await Worker(queue, processor, burst=True).run()
    assert {name: look.tenant for name, look in looks.items()} == {"plain": None, "traced": None, "told": "acme"}
    traces = {name: look.span.trace_id for name, look in looks.items()}
    assert (traces["plain"], traces["traced"]) == (0, CALLER.trace_id) and OTHER.trace_id not in traces.values()


@pytest.mark.parametrize("said", [{}, {"tenant": "acme"}])
async def test_a_job_added_by_a_processor_is_below_its_run(url: str, queue_name: str, said: dict[str, str]) -> None:
    """Its parent is the span of the run that added it, with the same decision, tracestate and baggage; and so on."""

    async def processor(job: Job[Any, Any]) -> None:
        if job.data:
            await queue.add("n", job.data - 1)

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)), Told(**said):
            await queue.add("n", 2)
        await run(queue, processor)
        await recorder.catch_up()
        jobs = recorder.of(AddedEvent)
        assert len(jobs) == 3
        for outer, inner in itertools.pairwise(jobs):
            (span,) = worked_out(recorder, outer.job_id)[1]
            assert inner.traceparent == f"00-{span.trace_id:032x}-{span.span_id:016x}-01"
            assert inner.tracestate == 'vendor=a "b"'
            assert worked_out(recorder, inner.job_id)[0].parent_id == span.span_id
        assert {event.traceparent[3:35] for event in jobs} == {TRACEPARENT[3:35]}
        last = await queue.context.require(jobs[-1].job_id)
        assert last.record.spec.baggage == ("tenant=acme" if said else "")


# Ids


async def test_every_attempt_has_the_ids_of_eventqs_spans(url: str, queue_name: str, clock: Clock) -> None:
    """Retried at once, after a wait, and by hand: siblings below the span that created the job."""
    seen = Seen()

    async def processor(job: Job[Any, Any]) -> None:
        seen.note()
        if job.run.starts < 4:
            raise ValueError("again")

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            job = await queue.add("n", attempts=3, backoff=60, delay=60)
        for _ in range(3):
            clock.advance(queue_name, 61)
            await sweep(queue)
            await run(queue, processor)
        assert await queue.retry_jobs() == 1
        await run(queue, processor)
        await recorder.catch_up()
        creation, runs = worked_out(recorder, job.id)
    assert len(runs) == 4 and seen.ids(job.id) == ids_of(runs)
    assert {(run.trace_id, run.parent_id) for run in runs} == {(CALLER.trace_id, creation.span_id)}
    assert len({run.span_id for run in runs}) == 4


async def test_a_stalled_run_and_its_successor(url: str, queue_name: str, clock: Clock) -> None:
    """Both ids are known to their processors; the attempt is the same, the ids are not. What the first one said is lost."""
    seen, may_end = Seen(), asyncio.Event()

    async def processor(job: Job[Any, Any]) -> None:
        seen.note()
        trace.get_current_span().set_attribute("run", job.run.starts)
        if not job.run.stalls:
            await may_end.wait()

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            job = await queue.add("n")
        worker = Worker(queue, processor, lease=30, grace=0, concurrency=2)
        await worker.start()
        await recorder.wait(ActiveEvent)
        while not recorder.of(StalledEvent):
            await expire_leases(queue, clock)
            await recorder.catch_up()
        await recorder.wait(CompletedEvent)
        await worker.close()
        _, runs = worked_out(recorder, job.id)
    assert len(runs) == 2 and seen.ids(job.id) == ids_of(runs) and runs[0].span_id != runs[1].span_id
    (stalled,), (completed,) = recorder.of(StalledEvent), recorder.of(CompletedEvent)
    assert (TRACEPARENT, {}) == (stalled.traceparent, stalled.span)
    assert {"attributes": {"run": 2}} == completed.span


@pytest.mark.parametrize(
    ("propagation", "delay", "is_child"),
    [
        (None, 0, True), ("auto", 0, True), ("auto", 800, True), ("auto", 1000, False),
        ("parent", 100_000, True), ("link", 0, False), ("none", 0, False),
    ],
)  # fmt: skip
async def test_in_the_callers_trace_or_in_one_of_its_own(
    url: str, queue_name: str, clock: Clock, propagation: Any, delay: float, is_child: bool
) -> None:
    """As was said; if nothing was, by the age of the job when it starts: up to 15 minutes."""
    seen = Seen()

    async def processor(job: Job[Any, Any]) -> None:
        seen.note()

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            job = await queue.add("n", propagation=propagation, delay=delay)
        if delay:
            clock.advance(queue_name, delay)
            await sweep(queue)
        await run(queue, processor)
        await recorder.catch_up()
        creation, (span,) = worked_out(recorder, job.id)
    assert seen.ids(job.id) == [(span.trace_id, span.span_id)]
    assert (span.trace_id == CALLER.trace_id, span.parent_id == creation.span_id) == (is_child, is_child)
    (context,) = seen.spans[job.id]
    assert (context.trace_state.to_header(), context.trace_flags.sampled) == ('vendor=a "b"' if is_child else "", True)


@pytest.mark.parametrize("size", [MAX_FAN_OUT, MAX_FAN_OUT + 1])
async def test_jobs_of_a_bulk(url: str, queue_name: str, size: int) -> None:
    """Up to 50 join the caller's trace, each below a span of its own; of more each run has a trace of its own."""
    seen = Seen()

    async def processor(job: Job[Any, Any]) -> None:
        seen.note()

    is_small = size == MAX_FAN_OUT
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            jobs = await queue.add_bulk([NewJob("n")] * size)
        await run(queue, processor, concurrency=20)
        await recorder.catch_up()
        spans = [worked_out(recorder, job.id) for job in jobs]
    assert [seen.ids(job.id) for job in jobs] == [ids_of(runs) for _, runs in spans]
    creations, runs = [creation for creation, _ in spans], [run for _, (run,) in spans]
    assert {creation.trace_id for creation in creations} == {CALLER.trace_id}
    assert len({creation.span_id for creation in creations}) == (size if is_small else 1)
    assert {run.parent_id for run in runs} == ({creation.span_id for creation in creations} if is_small else {0})
    assert len({run.trace_id for run in runs}) == (1 if is_small else size)


async def test_active_says_when_the_job_was_added_where_nothing_else_does(url: str, queue_name: str, clock: Clock) -> None:
    """Of a job that was delayed and of one that ran before; of the others the wait says it."""

    async def processor(job: Job[Any, Any]) -> None:
        if job.name == "again" and job.attempt == 1:
            raise ValueError("again")

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        jobs = {
            "plain": await queue.add("plain"),
            "first": await queue.add("first", priority=3),
            "again": await queue.add("again", attempts=2, backoff=0),
            "later": await queue.add("later", delay=30),
        }
        clock.advance(queue_name, 31)
        await sweep(queue)
        await run(queue, processor)
        await recorder.catch_up()
    said = {name: [active.added_ms for active in recorder.of(ActiveEvent, job.id)] for name, job in jobs.items()}
    added = {name: recorder.of(AddedEvent, job.id)[0].ms for name, job in jobs.items()}
    assert said == {"plain": [0], "first": [0], "again": [0, added["again"]], "later": [added["later"]]}
    assert all(round(a.added.timestamp() * 1000) == added[a.name] for a in recorder.of(ActiveEvent))


# What a run says


class Declined(Exception):
    """The card was declined."""


async def speaking(job: Job[Any, Any]) -> None:
    """Say something of the span, then end as the job's name says."""
    span = trace.get_current_span()
    span.set_attribute("tenant", f"acme {job.attempt}")
    span.add_event("charging", {"amount": 5})
    span.record_exception(ValueError("handled"))
    span.set_status(StatusCode.ERROR, "not quite")
    span.add_link(OTHER)
    match job.name:
        case "fails":
            raise Unrecoverable("no")
        case "again" if job.attempt == 1:
            raise Declined("no")
        case "postponed" if not job.run.fails and job.run.starts == 1:
            raise Postpone(delay=60)
        case "slow":
            await asyncio.Event().wait()
        case _:
            pass


async def test_what_is_said_of_a_span_goes_along_with_the_outcome(url: str, queue_name: str) -> None:
    """Completed, failed, timed out, retried, postponed: every run says its own; a stack trace where it failed, and only there."""
    heard: list[CompletedEvent] = []

    def hear(event: CompletedEvent) -> None:
        heard.append(event)

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            for name in ("fine", "fails", "postponed"):
                await queue.add(name)
            await queue.add("again", attempts=2, backoff=0)
            await queue.add("slow", timeout=0.05)
        with trace.use_span(INVALID_SPAN):
            worker = Worker(queue, speaking, burst=True, concurrency=5)
            worker.on("completed")(hear)
            await worker.run()
        await recorder.catch_up()
    (postponed,), (retrying,) = recorder.of(DelayedEvent), recorder.of(RetryingEvent)
    failed = {event.name: event for event in recorder.of(FailedEvent)}
    completed = {event.name: event for event in recorder.of(CompletedEvent)}
    assert (set(failed), set(completed)) == ({"fails", "slow"}, {"fine", "again"})
    for event in (postponed, retrying, *failed.values(), *completed.values()):
        said = dict(event.span)
        assert said.pop("attributes") == {"tenant": f"acme {event.attempt}"}
        (charging, offset, amount), (exception, later, attributes) = said.pop("events")
        assert ("charging", {"amount": 5}, "exception", "handled") == (
            charging,
            amount,
            exception,
            attributes["exception.message"],
        )
        assert 0 <= offset <= later
        assert [[f"{0xABC:032x}", f"{0xDEF:016x}", {}]] == said.pop("links")
        assert ("error", "not quite") == (said.pop("status"), said.pop("description"))
        stacktrace = said.pop("stacktrace", "")
        assert said == {}
        assert bool(stacktrace) == isinstance(event, RetryingEvent | FailedEvent)
        assert (TRACEPARENT, 'vendor=a "b"') == (event.traceparent, event.tracestate)
    assert failed["fails"].span["stacktrace"].rstrip().endswith("Unrecoverable: no")
    assert "Declined: no" in retrying.span["stacktrace"] and "speaking" in retrying.span["stacktrace"]
    assert failed["slow"].reason == "timeout" and "TimedOut" in failed["slow"].span["stacktrace"]
    assert {event.name: event.span for event in heard} == {name: event.span for name, event in completed.items()}


async def test_what_a_run_said_goes_along_when_it_is_given_back(url: str, queue_name: str) -> None:
    """A worker that shuts down is alive to tell it."""
    began = asyncio.Event()

    async def hold(_: Job) -> None:
        trace.get_current_span().set_attribute("tenant", "acme")
        began.set()
        await asyncio.Event().wait()

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            await queue.add("n")
        async with Worker(queue, hold, grace=0):
            await began.wait()
        await recorder.catch_up()
    (released,) = recorder.of(ReleasedEvent)
    assert ({"attributes": {"tenant": "acme"}}, TRACEPARENT) == (released.span, released.traceparent)


async def test_a_plain_function_says_as_much(url: str, queue_name: str) -> None:
    """From its thread, and from threads that it gave its context to."""

    def processor(job: Job[Any, Any]) -> None:
        trace.get_current_span().set_attribute("by", "the processor")
        now = context.get_current()
        threads = [threading.Thread(target=say, args=(now, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def say(now: context.Context, number: int) -> None:
        trace.get_current_span(now).set_attribute(f"thread.{number}", number)

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            await queue.add("n")
        await run(queue, processor)
        (event,) = await recorder.wait(CompletedEvent)
    assert {"by": "the processor"} | {f"thread.{number}": number for number in range(8)} == event.span["attributes"]


async def test_nothing_said_is_no_member(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Of a run in a trace that says nothing and ends well; and of one without a span, however it ends."""

    async def processor(job: Job[Any, Any]) -> None:
        if job.name == "fails":
            trace.get_current_span().set_attribute("tenant", "acme")
            raise ValueError("no")

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            await queue.add("fine")
        await queue.add("fails")
        await run(queue, processor)
        await recorder.wait(CompletedEvent)
        await recorder.wait(FailedEvent)
        raw: Any = redis_client.xrange(queue.context.keys["events"])
    assert all(b'"span"' not in fields[b"events"] for _, fields in raw)


async def test_what_is_said_has_bounds(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """However much a processor says: a few KiB travel, the rest is counted, and the job ends as it would have."""

    async def processor(job: Job[Any, Any]) -> str:
        span: Any = trace.get_current_span()
        for number in range(500):
            span.set_attribute(f"key {number}", "€" * 10_000)
            span.set_attribute([number], {"no": "value"})
            span.add_event("e" * 10_000, {"bad": object(), "text": "\ud800" * 10_000})
        return deep(300) if job.name == "fails" else "done"

    def deep(levels: int) -> str:
        if not levels:
            raise ValueError("€" * 100_000)
        return deep(levels - 1)

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            await queue.add("fine")
            await queue.add("fails")
        await run(queue, processor)
        (completed,), (failed,) = await recorder.wait(CompletedEvent), await recorder.wait(FailedEvent)
        raw: Any = redis_client.xrange(queue.context.keys["events"])
    assert completed.result == "done"
    for event in (completed, failed):
        assert event.span["dropped"] > 1_400
        assert (
            2_000
            < len(json.dumps(event.span["attributes"] | {"e": event.span.get("events", [])}, ensure_ascii=False).encode())
            < 4_500
        )
    assert 1_000 < len(failed.span["stacktrace"].encode()) <= 4_096
    assert max(len(fields[b"events"]) for _, fields in raw) < 16_384


# Schedules


async def fire(queue: Queue[Any, Any]) -> None:
    """Fire what is due, as a scheduler does."""
    await Firing(queue.context.runner, queue.context.keys).fire_due()


async def test_what_a_schedule_makes_links_to_whoever_set_it(url: str, queue_name: str, service: str) -> None:
    """Each firing is a trace of its own; its runs are below it."""
    seen = Seen()

    async def processor(job: Job[Any, Any]) -> None:
        seen.note()

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            await queue.upsert_schedule("nightly", every=3600)
        await queue.upsert_schedule("plain", every=3600)
        await fire(queue)
        await run(queue, processor)
        await recorder.catch_up()
        added = {event.schedule: event for event in recorder.of(AddedEvent)}
        assert facts_of(added["nightly"]) == TraceFacts(link=TRACEPARENT)
        assert facts_of(added["plain"]) == TraceFacts()
        creation, (span,) = worked_out(recorder, added["nightly"].job_id)
        (completed,) = recorder.of(CompletedEvent, added["nightly"].job_id)
    assert (creation.parent_id, span.parent_id, span.trace_id) == (0, creation.span_id, creation.trace_id)
    assert creation.trace_id != CALLER.trace_id
    assert seen.ids(added["nightly"].job_id) == [(span.trace_id, span.span_id)]
    assert (completed.link, completed.traceparent) == (TRACEPARENT, "")


async def test_setting_a_schedule_again_in_another_trace_changes_nothing(
    url: str, queue_name: str, redis_client: redis.Redis
) -> None:
    """Not even its revision; another rule or option changes it, and then who says so is linked to."""

    def stored() -> str:
        text: Any = redis_client.hget(queue.context.keys["schedules"], "nightly")
        return str(text, "utf-8")

    async with Queue(queue_name, url=url) as queue:
        with trace.use_span(NonRecordingSpan(CALLER)):
            await queue.upsert_schedule("nightly", every=3600)
        first = stored()
        assert TRACEPARENT in first
        with trace.use_span(NonRecordingSpan(OTHER)):
            await queue.upsert_schedule("nightly", every=3600)
        await queue.upsert_schedule("nightly", every=3600)
        assert stored() == first
        with trace.use_span(NonRecordingSpan(OTHER)):
            await queue.upsert_schedule("nightly", every=3600, options=JobOptions(attempts=2))
        assert TRACEPARENT not in stored() and f"{0xDEF:016x}-00" in stored()
        changed = stored()
        await queue.upsert_schedule("nightly", every=3600, options=JobOptions(attempts=2, propagation="link"))
        assert stored() != changed


@pytest.mark.parametrize("propagation", ["parent", "link", "none"])
async def test_a_schedules_propagation(url: str, queue_name: str, propagation: Any) -> None:
    """It is told again by get_schedule, in a trace and outside; and its jobs have it."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            await queue.upsert_schedule("traced", every=3600, options=JobOptions(propagation=propagation))
        await queue.upsert_schedule("plain", every=3600, options=JobOptions(propagation=propagation))
        await queue.upsert_schedule("silent", every=3600)
        found = {name: await queue.get_schedule(name) for name in ("traced", "plain", "silent")}
        assert {name: each.options.propagation for name, each in found.items() if each} == {
            "traced": propagation, "plain": propagation, "silent": None,
        }  # fmt: skip
        assert found["traced"] is not None
        with trace.use_span(NonRecordingSpan(OTHER)):
            again = await queue.upsert_schedule("traced", every=3600, options=found["traced"].options)
        assert again == found["traced"], "what was read can be said again"
        await fire(queue)
        await recorder.catch_up()
    assert {event.schedule: event.propagation for event in recorder.of(AddedEvent)} == {
        "traced": propagation, "plain": propagation, "silent": "",
    }  # fmt: skip


# Who works


class Doer:
    async def __call__(self, job: Job[Any, Any]) -> None:
        """Do nothing."""


async def test_a_worker_says_who_it_is_and_what_runs_jobs(url: str, queue_name: str, service: str) -> None:
    """By the environment's word for the process, and the full names of its functions by job name; '' is every name."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        await run(queue, nothing)
        await run(queue, {"a": nothing, "b": functools.partial(nothing), "c": Doer()})
        one, many = await recorder.wait(WorkerStartedEvent, 2)
    assert one.resource == many.resource == {"service.name": "shop"}
    assert one.processors == {"": f"{__name__}.nothing"}
    assert many.processors == {"a": f"{__name__}.nothing", "b": f"{__name__}.nothing", "c": f"{__name__}.Doer"}


async def test_a_worker_that_was_told_no_name_has_none(url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        await run(queue, nothing)
        (started,) = await recorder.wait(WorkerStartedEvent)
    assert started.resource == {}


#: A process with an SDK, which can be set once per process. Prints what a processor saw of a job added outside of any trace.
WITH_AN_SDK = """
import asyncio, json, sys
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from eventq import Queue, Worker

exporter = InMemorySpanExporter()
told = {"service.version": "1.2", "deployment.environment.name": "test", "host.name": "h", "process.pid": 7, "secret": "s"}
provider = TracerProvider(resource=Resource.create(told), shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer, saw = trace.get_tracer("test"), []

async def processor(job):
    span = trace.get_current_span()
    saw.append([span.get_span_context().trace_flags.sampled, span.is_recording(), span.get_span_context().span_id])
    span.set_attribute("said", True)
    with tracer.start_as_current_span("child"):
        await asyncio.to_thread(lambda: tracer.start_span("grandchild").end())
    if job.name == "rootless":
        await queue.add("inner")

async def main():
    global queue
    async with Queue(sys.argv[2], url=sys.argv[1]) as queue:
        with tracer.start_as_current_span("startup"):
            await queue.add("traced")
            worker = Worker(queue, processor, burst=True)
        await queue.add("rootless")
        with tracer.start_as_current_span("startup"):
            await worker.run()

asyncio.run(main())
spans = [[s.name, s.context.trace_id, s.parent.span_id if s.parent else 0] for s in exporter.get_finished_spans()]
print(json.dumps({"saw": saw, "spans": spans}))
"""


@pytest.mark.parametrize("sampler", ["always_on", "always_off"])
async def test_in_a_process_with_an_sdk(url: str, queue_name: str, sampler: str) -> None:
    """The resource's own words are told, every job has a span, what is started in a processor is below its run, and the SDK's
    sampler decides about jobs added outside of any trace. What the SDK says where it was told no name is none.
    """
    name = {"OTEL_SERVICE_NAME": "shop"} if sampler == "always_on" else {}
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", WITH_AN_SDK, url, queue_name],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, **name, "OTEL_TRACES_SAMPLER": sampler},
        )
        assert done.returncode == 0, done.stderr
        await recorder.catch_up()
        jobs = {event.name: event for event in recorder.of(AddedEvent)}
        runs = {name: worked_out(recorder, event.job_id)[1][0] for name, event in jobs.items()}
    answer, is_on = json.loads(done.stdout), sampler == "always_on"
    (started,) = recorder.of(WorkerStartedEvent)
    assert {key: value for key, value in started.resource.items() if key != "service.instance.id"} == {
        "service.version": "1.2", "deployment.environment.name": "test", "host.name": "h", "process.pid": "7",
        **({"service.name": "shop"} if is_on else {}),
    }  # fmt: skip
    service = "shop" if is_on else ""
    assert [jobs[name].service for name in ("traced", "rootless", "inner")] == [service, "", service]
    assert answer["saw"] == [[is_on, is_on, runs[name].span_id] for name in ("traced", "rootless", "inner")]
    assert [event.span for event in recorder.of(CompletedEvent)] == [{"attributes": {"said": True}}] * 3
    parent = parse_traceparent(jobs["inner"].traceparent)
    assert parent is not None
    assert (parent.trace_id, parent.span_id, parent.is_sampled) == (runs["rootless"].trace_id, runs["rootless"].span_id, is_on)
    children = [(trace_id, parent_id) for name, trace_id, parent_id in answer["spans"] if name == "child"]
    assert children == ([(runs[name].trace_id, runs[name].span_id) for name in ("traced", "rootless", "inner")] if is_on else [])
    assert len(answer["spans"]) == (8 if is_on else 0)


JOBS = """
import logging
from eventq import Worker

async def work(job):
    logging.getLogger("shop").info("charging", extra={"customer": 7})

worker = Worker(%r, work)
"""


async def test_json_logs_of_a_worker_say_which_job(url: str, queue_name: str, tmp_path: Path) -> None:
    """Records that its processor makes, with nothing set up; those of nobody's job have no such members."""
    (tmp_path / "jobs.py").write_text(JOBS % queue_name)
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        with trace.use_span(NonRecordingSpan(CALLER)):
            job = await queue.add("welcome")
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "eventq", "worker", "jobs:worker", "--burst", "--log-format", "json"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "EVENTQ_URL": url},
        )
        assert done.returncode == 0, done.stderr
        await recorder.catch_up()
        (span,) = worked_out(recorder, job.id)[1]
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    facts = ("queue", "job_id", "job_name", "attempt", "trace_id", "span_id", "customer")
    (charging,) = (line for line in lines if line["message"] == "charging")
    assert [charging.get(name) for name in facts] == [
        queue_name, job.id, "welcome", 1, f"{span.trace_id:032x}", f"{span.span_id:016x}", 7,
    ]  # fmt: skip
    (outcome,) = (line for line in lines if line.get("outcome") == "completed")
    assert outcome["job_id"] == job.id and "trace_id" not in outcome
    assert [set(facts) & line.keys() for line in lines if " starts:" in line["message"]] == [set()]
