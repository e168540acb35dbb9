"""The job that is running here: what code inside a processor can ask for without being handed it."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, get_current

from eventq.capture import CapturingSpan
from eventq.tracing import with_baggage

if TYPE_CHECKING:
    from eventq.job import Job
    from eventq.running import Running

_current: Final[ContextVar[Job[Any, Any] | None]] = ContextVar("eventq_current_job", default=None)
#: The key that OpenTelemetry keeps the current span under.
_SPAN: Final = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))
_making: Final = threading.Lock()


class RunContext(Context):
    """OpenTelemetry's context of a run, for its processor. The run's span is made when somebody asks for it: most processors
    never do, and a context is for every job.

    job: the one that runs. began: when its claim came in (boot time).
    """

    __slots__ = ("_span", "began", "job")

    job: Job[Any, Any]
    began: float

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value of the context, as OpenTelemetry's API asks for it."""
        return self.span if key == _SPAN else super().get(key, default)

    def __bool__(self) -> bool:
        """Say that there is something in it: a span, though it is not made yet."""
        return True

    def copy(self) -> dict[str, object]:
        """Return what a context is made of that goes on from this one."""
        return {**super().copy(), _SPAN: self.span}

    @property
    def span(self) -> CapturingSpan:
        """The run's span."""
        with _making:
            if self.made is None:
                self._span = CapturingSpan(self.job, self.began)
            return self._span

    @property
    def made(self) -> CapturingSpan | None:
        """The span if somebody asked for it."""
        return getattr(self, "_span", None)


def current_job() -> Job[Any, Any] | None:
    """Return the job whose processor is running here, also in a thread of its own or a task that it started; None outside one."""
    return _current.get()


def context_of(job: Job[Any, Any], began: float) -> RunContext:
    """Return the context that a job's processor runs in, with the baggage it was added with."""
    baggage = job.record.spec.baggage
    context = RunContext(with_baggage(baggage)) if baggage else RunContext()
    context.job, context.began = job, began
    return context


def enter(running: Running) -> None:
    """Make a run the current one of this task. A task's context ends with it."""
    _current.set(running.job)
    if running.context is not None:
        attach(running.context)
    elif get_current():
        # What was current where the worker was started is nothing to its jobs.
        attach(Context())
