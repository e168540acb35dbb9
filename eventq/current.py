"""The job that is running here: what code inside a processor can ask for without being handed it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, get_current

from eventq.tracing import with_baggage

if TYPE_CHECKING:
    from eventq.job import Job
    from eventq.running import Running

_current: Final[ContextVar[Job[Any, Any] | None]] = ContextVar("eventq_current_job", default=None)


def current_job() -> Job[Any, Any] | None:
    """Return the job whose processor is running here, also in a thread of its own or a task that it started; None outside one."""
    return _current.get()


def enter(running: Running) -> None:
    """Make a run the current one of this task, with its span and the baggage it was added with. A task's context ends with it."""
    _current.set(running.job)
    baggage = running.record.spec.baggage
    # What was current where the worker was started is nothing to its jobs.
    if running.span is not None or baggage or get_current():
        context = with_baggage(baggage) if baggage else Context()
        attach(trace.set_span_in_context(running.span or trace.INVALID_SPAN, context))
