"""Log records that say which job they were made in."""

from __future__ import annotations

import contextvars
import io
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from eventq import JobLogFilter
from eventq.current import _current
from eventq.job import Job
from eventq.options import Spec
from eventq.queue import Queue
from eventq.records import Record, Run
from eventq.spans import NO_FACTS, RunKey, creation_of, run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = Record(1_000, 0, 0, "", "welcome", "", Spec(), "null")
OUTSIDE = ("", "", "", 0, "", "")
CHILD = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))


def facts(record: logging.LogRecord) -> tuple[Any, ...]:
    """Return what the filter is about."""
    return tuple(getattr(record, name) for name in ("queue", "job_id", "job_name", "attempt", "trace_id", "span_id"))


def filtered(**more: Any) -> logging.LogRecord:
    record = logging.makeLogRecord({"msg": "hello", **more})
    assert JobLogFilter().filter(record) is True
    return record


@pytest.fixture
def job() -> Iterator[Job[Any, Any]]:
    """A job that is running here: the second attempt, its third start."""
    running: Any = Job(Queue("mail").context, "j1", RECORD, None, Run("active", "t", 0, 0, 2_000, 3, 1), fence=7, token="t")
    token = _current.set(running)
    yield running
    _current.reset(token)


def ids_of_the_run() -> tuple[str, str]:
    run = run_of(creation_of("mail", "j1", 1_000, NO_FACTS), NO_FACTS, RunKey("mail", "j1", 7, 2_000), 1_000)
    return f"{run.trace_id:032x}", f"{run.span_id:016x}"


def test_outside_a_job_all_is_empty() -> None:
    assert OUTSIDE == facts(filtered())


def test_outside_a_job_the_current_span_is_told() -> None:
    """A request's log has its ids, and no job."""
    with trace.use_span(NonRecordingSpan(CHILD)):
        record = filtered()
    assert (*OUTSIDE[:4], f"{0xABC:032x}", f"{0xDEF:016x}") == facts(record)


def test_inside_a_job(job: Job[Any, Any]) -> None:
    """With the ids of the span that the tracer will make of this run, though nothing here makes spans."""
    assert ("mail", "j1", "welcome", 2, *ids_of_the_run()) == facts(filtered())


def test_inside_a_child_span_its_ids_are_told(job: Job[Any, Any]) -> None:
    with trace.use_span(NonRecordingSpan(CHILD)):
        record = filtered()
    assert ("mail", "j1", "welcome", 2, f"{0xABC:032x}", f"{0xDEF:016x}") == facts(record)


def test_what_a_record_has_already_is_left_alone(job: Job[Any, Any]) -> None:
    """The worker's own lines name the job they are about; empty is something, too."""
    record = filtered(job_id="another", trace_id="", attempt=None)
    assert ("mail", "another", "welcome", None, "", ids_of_the_run()[1]) == facts(record)


def test_a_thread_that_was_given_the_context_is_in_the_job(job: Job[Any, Any]) -> None:
    """As a plain function's is; a thread that was not is outside."""
    found: list[logging.LogRecord] = []
    context = contextvars.copy_context()
    for target in (lambda: context.run(lambda: found.append(filtered())), lambda: found.append(filtered())):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert ["j1", ""] == [record.__dict__["job_id"] for record in found]


@pytest.mark.parametrize(
    ("style", "form"),
    [
        ("%", "%(queue)s|%(job_id)s|%(job_name)s|%(attempt)d|%(trace_id)s|%(message)s"),
        ("{", "{queue}|{job_id}|{job_name}|{attempt}|{trace_id}|{message}"),
    ],
)
def test_a_format_may_name_them_everywhere(style: Any, form: str, job: Job[Any, Any]) -> None:
    """On a handler, whose filter sees the records of every logger below it."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter(form, style=style))
    handler.addFilter(JobLogFilter())
    logger = logging.Logger("shop")
    logger.addHandler(handler)
    logger.warning("inside")
    contextvars.Context().run(logger.warning, "outside")
    assert [f"mail|j1|welcome|2|{ids_of_the_run()[0]}|inside", "|||0||outside"] == out.getvalue().splitlines()
