"""EventqInstrumentor: log records that say which job they were made in, also where only `opentelemetry-instrument` set it up."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

import eventq_opentelemetry
from eventq import Job, Queue, Worker
from eventq.events import ActiveEvent, AddedEvent
from eventq.spans import RunKey, TraceFacts, creation_of, run_of
from eventq_opentelemetry import EventqInstrumentor

LOGGER = logging.getLogger("shop")
NAMES = ("queue", "job_id", "job_name", "attempt", "trace_id", "span_id")


class Keeping(logging.Handler):
    """Keeps records as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def instrumentor() -> Iterator[Any]:
    """It is one per process; what it changed is as it was afterwards."""
    before = logging.Logger.makeRecord
    found = EventqInstrumentor()
    yield found
    if found.is_instrumented_by_opentelemetry:
        found.uninstrument()
    assert logging.Logger.makeRecord is before


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What the program logs, by a handler that asks for nothing."""
    handler = Keeping()
    for logger in (LOGGER, logging.getLogger("eventq.worker")):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield handler.records
    for logger in (LOGGER, logging.getLogger("eventq.worker")):
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def facts(record: logging.LogRecord) -> dict[str, Any]:
    return {name: vars(record)[name] for name in NAMES if name in vars(record)}


async def test_records_of_a_job_say_which(url: str, queue_name: str, instrumentor: Any, records: list[logging.LogRecord]) -> None:
    """On the loop and in threads, whatever `extra` they have; the worker's own lines, which name their job, still come."""

    async def processor(job: Job[Any, Any]) -> None:
        LOGGER.info("on the loop", extra={"job_id": "of the shop"})
        await asyncio.to_thread(LOGGER.info, "in a thread", extra={"customer": 7})

    instrumentor.instrument()
    LOGGER.info("outside", extra={"queue": "at the till"})
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("welcome")
        await Worker(queue, processor, burst=True).run()
    said = {record.getMessage(): record for record in records}
    outside = {"job_id": "", "job_name": "", "attempt": 0, "trace_id": "", "span_id": ""}
    assert facts(said["outside"]) == {"queue": "at the till", **outside}
    known = {"queue": queue_name, "job_id": job.id, "job_name": "welcome", "attempt": 1}
    in_a_thread = facts(said["in a thread"])
    ids = {name: in_a_thread.pop(name) for name in ("trace_id", "span_id")}
    assert in_a_thread == known and vars(said["in a thread"])["customer"] == 7
    assert (32, 16) == (len(ids["trace_id"]), len(ids["span_id"]))
    assert facts(said["on the loop"]) == {**known, "job_id": "of the shop", **ids}
    (line,) = (record for record in records if "outcome=completed" in record.getMessage())
    assert facts(line) == {**known, "trace_id": "", "span_id": ""}


def test_instrumenting_twice_is_instrumenting_once(
    instrumentor: Any, records: list[logging.LogRecord], caplog: pytest.LogCaptureFixture
) -> None:
    """And so is undoing it."""
    before = logging.Logger.makeRecord
    instrumentor.instrument()
    during = logging.Logger.makeRecord
    instrumentor.instrument()
    EventqInstrumentor().instrument()
    assert logging.Logger.makeRecord is during is not before
    LOGGER.info("inside")
    instrumentor.uninstrument()
    instrumentor.uninstrument()
    LOGGER.info("afterwards")
    assert logging.Logger.makeRecord is before
    assert [bool(facts(record)) for record in records] == [True, False]
    assert ["already instrumented"] * 2 + ["already uninstrumented"] == [
        text.rpartition("while ")[2] for text in caplog.messages if text.startswith("Attempting")
    ]
    instrumentor.instrument()
    LOGGER.info("again")
    assert facts(records[-1])["job_id"] == ""


def test_others_that_change_records_are_left_where_they_are(instrumentor: Any, records: list[logging.LogRecord]) -> None:
    """A factory that was there and one that comes, and whoever wraps the same method later: they work before and after."""
    factory, method = logging.getLogRecordFactory(), logging.Logger.makeRecord

    def marked(mark: str, before: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
        def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = before(*args, **kwargs)
            setattr(record, mark, True)
            return record

        return make

    try:
        logging.setLogRecordFactory(marked("by_a_factory", factory))
        instrumentor.instrument()
        logging.setLogRecordFactory(marked("by_a_later_factory", logging.getLogRecordFactory()))
        wrapper = marked("by_a_wrapper", logging.Logger.makeRecord)
        logging.Logger.makeRecord = wrapper  # type: ignore[method-assign]
        LOGGER.info("during")
        instrumentor.uninstrument()
        assert logging.Logger.makeRecord is wrapper
        LOGGER.info("afterwards")
    finally:
        logging.setLogRecordFactory(factory)
        logging.Logger.makeRecord = method  # type: ignore[method-assign]
    during, afterwards = records
    for record in (during, afterwards):
        assert {"by_a_factory", "by_a_later_factory", "by_a_wrapper"} <= vars(record).keys()
    assert facts(during) and not facts(afterwards)


def test_it_is_found_by_its_entry_point_and_depends_on_eventq(instrumentor: Any) -> None:
    (entry,) = entry_points(group="opentelemetry_instrumentor", name="eventq")
    assert entry.load() is EventqInstrumentor is eventq_opentelemetry.EventqInstrumentor
    assert instrumentor.instrumentation_dependencies() == ("eventq >= 0.1",)
    assert get_dependency_conflicts(instrumentor.instrumentation_dependencies()) is None
    assert get_dependency_conflicts(("eventq >= 9999",)) is not None, "or this says nothing"


PROGRAM = """
import asyncio, logging, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from eventq import Queue, Worker

logging.basicConfig(level="INFO", stream=sys.stderr, format="%(name)s|%(job_id)s|%(attempt)s|%(trace_id)s|%(span_id)s|%(message)s")
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + "\\n")))
trace.set_tracer_provider(provider)
tracer, log = trace.get_tracer("shop"), logging.getLogger("shop")

async def processor(job):
    log.info("before")
    with tracer.start_as_current_span("child"):
        log.info("within")

async def main():
    async with Queue(sys.argv[2], url=sys.argv[1]) as queue:
        with tracer.start_as_current_span("request"):
            await queue.add("welcome")
            log.info("added")
        await Worker(queue, processor, burst=True).run()

asyncio.run(main())
"""


@pytest.mark.parametrize("disabled", [False, True])
async def test_opentelemetry_instrument(url: str, queue_name: str, disabled: bool) -> None:
    """A program that says nothing of eventq's instrumentor: its job's child span is below the run, its records name job and span.

    Where it is switched off by OpenTelemetry's variable, the trace is carried all the same.
    """
    variables = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    program = PROGRAM
    if disabled:
        variables["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "eventq"
        program = program.replace("%(job_id)s|%(attempt)s|%(trace_id)s|%(span_id)s|", "")
    command = [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable, "-c", program, url, queue_name]
    async with Queue(queue_name, url=url) as queue, queue.events() as stream:
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=30, check=False, env=os.environ | variables
        )
        assert done.returncode == 0, done.stderr
        found: dict[type, Any] = {}
        async for event in stream:
            found[type(event)] = event
            if isinstance(event, ActiveEvent):
                break
    added, active = found[AddedEvent], found[ActiveEvent]
    creation = creation_of(queue_name, added.job_id, added.ms, TraceFacts(added.traceparent))
    run = run_of(
        creation, TraceFacts(added.traceparent), RunKey(queue_name, added.job_id, active.seq, active.ms), active.ms - added.ms
    )
    spans = {span["name"]: span for span in map(json.loads, done.stdout.splitlines())}
    request, child = spans["request"], spans["child"]
    assert creation.parent_id == int(request["context"]["span_id"], 16)
    assert (int(child["context"]["trace_id"], 16), int(child["parent_id"], 16)) == (run.trace_id, run.span_id)
    lines = [line for line in done.stderr.splitlines() if line.startswith("shop|")]
    if disabled:
        assert lines == ["shop|added", "shop|before", "shop|within"]
        return
    trace_id = f"{run.trace_id:032x}"
    assert lines == [
        f"shop||0|{trace_id}|{request['context']['span_id'][2:]}|added",
        f"shop|{added.job_id}|1|{trace_id}|{run.span_id:016x}|before",
        f"shop|{added.job_id}|1|{trace_id}|{child['context']['span_id'][2:]}|within",
    ]
    assert f"eventq.worker|{added.job_id}|1|" in done.stderr and "Logging error" not in done.stderr
