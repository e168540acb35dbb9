"""Which job a log record belongs to."""

from __future__ import annotations

import logging
from typing import Final

from opentelemetry import trace

from eventq.capture import CapturingSpan
from eventq.current import current_job

#: What a record is given, and what it is outside a job.
OUTSIDE: Final[dict[str, str | int]] = {"queue": "", "job_id": "", "job_name": "", "attempt": 0, "trace_id": "", "span_id": ""}


class JobLogFilter(logging.Filter):
    """Adds `queue`, `job_id`, `job_name`, `attempt`, `trace_id` and `span_id` to every record that is made inside a job.

    Put it on a handler: `handler.addFilter(JobLogFilter())`. Nothing is filtered out. Outside a job they are empty (attempt 0),
    so that a format may name them; ids are those of the current span, or where nothing makes spans, of the one the tracer will
    make of this run. What a record has already is left alone.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what is missing; let every record through."""
        for name, value in _facts().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def _facts() -> dict[str, str | int]:
    job = current_job()
    context = trace.get_current_span().get_span_context()
    if job is not None and not context.is_valid:
        context = CapturingSpan(job, 0).get_span_context()
    facts: dict[str, str | int] = dict(OUTSIDE)
    if context.is_valid:
        facts |= {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    if job is not None:
        facts |= {"queue": job.queue, "job_id": job.id, "job_name": job.name, "attempt": job.attempt}
    return facts
