"""What a collector is sent of a shop's jobs: the spans of every way a job can go, by the real command over real OTLP."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from eventq import Job, Queue, Worker
from eventq_opentelemetry.environment import span_exporter

from .otlp import OtlpReceiver, Span
from .traced import add, tracer_command, worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..conftest import Clock, WaitUntil
    from .otlp_server import OtlpProtocol

CANARY = "canary-4711"
MESSAGE = "canary-4712"


class Shop:
    """What was added, and the spans of it."""

    def __init__(self, queue: str, added: dict[str, Any], receiver: OtlpReceiver) -> None:
        self.queue = queue
        self.ids: dict[str, list[str]] = added["ids"]
        self.trace_id: str = added["trace_id"]
        self.request: str = added["span_id"]
        spans = receiver.distinct().values()
        self.all = [span for span in spans if span.scope == "eventq"]
        self.inner: dict[str, list[Span]] = defaultdict(list)
        self.by_job: dict[str, list[Span]] = defaultdict(list)
        for span in sorted(spans, key=lambda span: (span.start_ns, span.end_ns)):
            if span.name == "inner":
                self.inner[span.parent_id].append(span)
            elif job := span.attributes.get("messaging.message.id"):
                self.by_job[job].append(span)

    def spans(self, what: str, operation: str, index: int = 0) -> list[Span]:
        """Return the spans of a job that are of this operation, in order."""
        return [span for span in self.by_job[self.ids[what][index]] if span.name == f"{operation} {self.queue}"]

    def one(self, what: str, operation: str, index: int = 0) -> Span:
        """Return the one span of this operation."""
        (span,) = self.spans(what, operation, index)
        return span


def check_success(shop: Shop) -> None:
    """add, queued and process, of the caller's trace, each of its own service, child spans below, what user code said in it."""
    added, queued, process = (shop.one("fine", operation) for operation in ("add", "queued", "process"))
    assert ("PRODUCER", "INTERNAL", "CONSUMER") == (added.kind, queued.kind, process.kind)
    assert {shop.trace_id} == {added.trace_id, queued.trace_id, process.trace_id}
    assert (shop.request, added.span_id, added.span_id) == (added.parent_id, queued.parent_id, process.parent_id)
    assert ("shop", "shop-worker") == (added.resource["service.name"], process.resource["service.name"])
    assert [(added.span_id, "created_by")] == [(link.span_id, link.attributes["eventq.link"]) for link in process.links]
    assert added.start_ns <= added.end_ns <= queued.end_ns == process.start_ns <= process.end_ns
    assert ("UNSET", "") == (process.status, process.status_message)
    (inner,) = shop.inner[process.span_id]
    assert inner.trace_id == process.trace_id
    run = process.attributes.pop("eventq.job.run")
    assert isinstance(run, int) and run > 0
    worker_name = process.attributes.pop("messaging.client.id")
    assert worker_name and process.resource["service.instance.id"]
    assert 0 <= process.attributes.pop("eventq.job.wait_duration") < 60
    assert process.attributes.pop("server.address") == "127.0.0.1" and process.attributes.pop("server.port") > 0
    assert process.attributes == {
        "tenant": "acme",
        "messaging.system": "eventq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": shop.queue,
        "messaging.message.id": shop.ids["fine"][0],
        "eventq.job.name": "fine",
        "eventq.job.attempt": 1,
        "eventq.job.outcome": "completed",
        "code.function.name": "__main__.fine",
    }
    assert {"charging": {"amount": 5}, "progress": {"eventq.job.progress": 50}} == {e.name: e.attributes for e in process.events}
    assert "https://opentelemetry.io/schemas/1.44.0" == process.schema_url
    assert ("add", "send", "waiting") == tuple(
        added.attributes[key] for key in ("messaging.operation.name", "messaging.operation.type", "eventq.job.state")
    )


def check_thread(shop: Shop) -> None:
    """A plain function in a thread has the same span around it."""
    process = shop.one("threaded", "process")
    assert "acme" == process.attributes["tenant"]
    assert [process.trace_id] == [span.trace_id for span in shop.inner[process.span_id]]


def check_retries(shop: Shop) -> None:
    """Attempts are siblings; each but the first links to the one before; those that failed say why, the last one does not."""
    runs = shop.spans("again", "process")
    assert [1, 2, 3] == [run.attributes["eventq.job.attempt"] for run in runs]
    assert {shop.one("again", "add").span_id} == {run.parent_id for run in runs}
    assert ["retried", "retried", "completed"] == [run.attributes["eventq.job.outcome"] for run in runs]
    assert ["ERROR", "ERROR", "UNSET"] == [run.status for run in runs]
    assert ["__main__.Declined", "__main__.Declined", None] == [run.attributes.get("error.type") for run in runs]
    assert [True, True, None] == [run.attributes.get("eventq.job.will_retry") for run in runs]
    previous = [[link.span_id for link in run.links if link.attributes["eventq.link"] == "previous_attempt"] for run in runs]
    assert [[], [runs[0].span_id], [runs[1].span_id]] == previous
    assert ["acme"] * 3 == [run.attributes["tenant"] for run in runs]
    assert [1, 1, 1] == [len(shop.inner[run.span_id]) for run in runs]


def check_failures(shop: Shop) -> None:
    """What ended badly says how: used up, refused by its processor, too slow; with the exception as an event."""
    last, refused, slow = (
        shop.spans("exhausted", "process")[-1],
        shop.one("unrecoverable", "process"),
        shop.one("timeout", "process"),
    )
    assert ["failed"] * 3 == [run.attributes["eventq.job.outcome"] for run in (last, refused, slow)]
    assert ["ERROR"] * 3 == [run.status for run in (last, refused, slow)]
    assert [True, False, True] == [run.attributes["eventq.job.exhausted"] for run in (last, refused, slow)]
    assert ["__main__.Declined", "eventq.errors.Unrecoverable", "timeout"] == [
        run.attributes["error.type"] for run in (last, refused, slow)
    ]
    assert 2 == len(shop.spans("exhausted", "process"))
    (raised,) = [event for event in last.events if event.name == "exception"]
    assert ("__main__.Declined", MESSAGE) == (raised.attributes["exception.type"], raised.attributes["exception.message"])
    assert "in exhausted" in raised.attributes["exception.stacktrace"]
    assert MESSAGE == last.status_message
    assert slow.end_ns - slow.start_ns >= 190_000_000


def check_stalled(shop: Shop) -> None:
    """The run whose worker was killed is there, with its error; the next one has the same attempt, and links to it."""
    died, done = shop.spans("dies", "process")
    assert ("stalled", "ERROR", "stalled") == (died.attributes["eventq.job.outcome"], died.status, died.attributes["error.type"])
    assert ("completed", "UNSET") == (done.attributes["eventq.job.outcome"], done.status)
    assert 1 == died.attributes["eventq.job.attempt"] == done.attributes["eventq.job.attempt"]
    assert died.attributes["eventq.job.run"] < done.attributes["eventq.job.run"] and died.span_id != done.span_id
    assert died.span_id in [link.span_id for link in done.links]
    assert "shop-worker" == died.resource["service.name"]


def check_links(shop: Shop) -> None:
    """A day later a run is a trace of its own that links to the job's; so it is where the job says so; with `none` without."""
    for what in ("tomorrow", "linked", "alone"):
        added, process = shop.one(what, "add"), shop.one(what, "process")
        assert "" == process.parent_id and process.trace_id != shop.trace_id
        assert ([(shop.trace_id, added.span_id)] if what != "alone" else []) == [
            (link.trace_id, link.span_id) for link in process.links
        ]
        assert not shop.spans(what, "queued")
        assert [process.trace_id] == [span.trace_id for span in shop.inner[process.span_id]]
    assert 86_400 == shop.one("tomorrow", "add").attributes["eventq.job.delay"]
    assert shop.one("tomorrow", "process").start_ns - shop.one("tomorrow", "add").start_ns >= 86_400 * 10**9


def check_bulks(shop: Shop) -> None:
    """Of a few jobs each has its `create` below one `add_bulk`; of a hundred none, and their runs are traces of their own."""
    few, many = (next(s for s in shop.all if s.attributes.get("messaging.batch.message_count") == number) for number in (3, 100))
    assert [(shop.request, "CLIENT"), (shop.request, "PRODUCER")] == [(span.parent_id, span.kind) for span in (few, many)]
    creates = [shop.one("bulk3", "create", index) for index in range(3)]
    assert {few.span_id} == {create.parent_id for create in creates}
    assert {create.span_id for create in creates} == {link.span_id for link in few.links}
    for index in range(3):
        assert creates[index].span_id == shop.one("bulk3", "process", index).parent_id
    runs = [shop.one("bulk100", "process", index) for index in range(100)]
    assert not shop.spans("bulk100", "create") and {""} == {run.parent_id for run in runs}
    assert {(shop.trace_id, many.span_id)} == {(link.trace_id, link.span_id) for run in runs for link in run.links}
    assert 100 == len({run.trace_id for run in runs})


def check_schedule(shop: Shop) -> None:
    """Each firing is a trace of its own that links to whoever set the schedule; its run is in it."""
    (fired,) = [span for span in shop.all if span.name == f"schedule {shop.queue}"]
    assert ("PRODUCER", "", "nightly") == (fired.kind, fired.parent_id, fired.attributes["eventq.schedule.id"])
    assert [(shop.trace_id, shop.request, "defined_by")] == [
        (link.trace_id, link.span_id, link.attributes["eventq.link"]) for link in fired.links
    ]
    (process,) = [span for span in shop.all if span.parent_id == fired.span_id and span.kind == "CONSUMER"]
    assert process.trace_id == fired.trace_id != shop.trace_id
    assert process.attributes["messaging.message.id"].startswith("schedule:nightly:")


def check_rootless(shop: Shop) -> None:
    """A job that was added outside of any trace has one of its own, and the worker's child spans are in it."""
    added, process = shop.one("rootless", "add"), shop.one("rootless", "process")
    assert ("", added.span_id) == (added.parent_id, process.parent_id)
    assert {added.trace_id} == {process.trace_id, *(span.trace_id for span in shop.inner[process.span_id])}
    assert added.trace_id != shop.trace_id and 1 == len(shop.inner[process.span_id])


def inner_span(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[[Job[Any]], Awaitable[None]]:
    """Return a processor with a span of its own; this process' scripts have a clock that can be moved."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(span_exporter()))

    async def process(_: Job[Any]) -> None:
        with provider.get_tracer("test").start_as_current_span("inner"):
            pass

    return process


CHECKS = (
    check_success,
    check_thread,
    check_retries,
    check_failures,
    check_stalled,
    check_links,
    check_bulks,
    check_schedule,
    check_rootless,
)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_every_way_a_job_can_go(
    url: str, queue_name: str, clock: Clock, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch, protocol: OtlpProtocol
) -> None:
    """All of them in one shop: spans are asked for by the checks above."""
    with OtlpReceiver(protocol) as receiver:
        environment = receiver.environment()

        def runs(*outcomes: str) -> int:
            told = (span.attributes.get("eventq.job.outcome") for span in receiver.spans)
            return sum(outcome in outcomes for outcome in told)

        with tracer_command(url, queue_name, environment) as tracer:
            first = ["fine", "threaded", "again", "exhausted", "unrecoverable", "timeout", "linked", "alone", "bulk3", "bulk100"]
            with worker(url, queue_name, environment, concurrency=10, lease=1) as doomed:
                added = await asyncio.to_thread(add, url, queue_name, [*first, "schedule", "tomorrow", "rootless"], environment)
                ends = len(first) - 2 + 103 + 1 + 1
                await wait_until(lambda: runs("completed", "failed") == ends, 30, description=f"{ends} jobs to end")
                late = await asyncio.to_thread(add, url, queue_name, ["dies"], environment)
                await asyncio.to_thread(doomed.wait)
            added["ids"] |= late["ids"]
            async with Worker(queue_name, inner_span(environment, monkeypatch), url=url, lease=1):
                await wait_until(lambda: runs("completed", "failed") == ends + 1, 20, description="the stalled job")
                clock.advance(queue_name, 86_401)
                async with Queue(queue_name, url=url) as queue:
                    await queue.add("fine")  # wakes the worker, whose own clock did not move
                await wait_until(lambda: runs("completed", "failed") == ends + 3, 20, description="the next day")
            assert 0 == await asyncio.to_thread(tracer.stop), tracer.log
        shop = Shop(queue_name, added, receiver)
        for check in CHECKS:
            check(shop)
        assert not [span.name for span in receiver.spans if CANARY.encode() in span.raw]
