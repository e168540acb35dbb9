"""For `opentelemetry-instrument`: every log record says in which job it was made."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from eventq import JobLogFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["EventqInstrumentor"]

_DEPENDENCIES: Final = ("eventq >= 0.1",)
_METHOD: Final = "makeRecord"


class EventqInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Gives every log record `queue`, `job_id`, `job_name`, `attempt`, `trace_id` and `span_id`, as JobLogFilter does.

    `opentelemetry-instrument` finds it by its entry point; else `EventqInstrumentor().instrument()`. There is nothing more to be
    instrumented: eventq carries the trace from `add` to the processor by itself, and `eventq tracer` makes the spans.
    """

    _logs: _JobLogs | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return what is instrumented, as a requirement."""
        return _DEPENDENCIES

    def _instrument(self, **kwargs: Any) -> None:
        self._logs = _JobLogs()
        self._logs.begin()

    def _uninstrument(self, **kwargs: Any) -> None:
        logs, self._logs = self._logs, None
        if logs is not None:
            logs.end()


class _JobLogs:
    """Completes what makes log records, whatever that was before.

    Not a log record factory: logging refuses an `extra` that names what the factory gave a record already, so that whoever logs
    a `job_id` of their own, as the worker does, would fail.
    """

    def __init__(self) -> None:
        self._before: Callable[..., logging.LogRecord] = logging.Logger.makeRecord
        self._is_on = False
        facts = JobLogFilter()

        def make_record(logger: logging.Logger, *args: Any, **kwargs: Any) -> logging.LogRecord:
            record = self._before(logger, *args, **kwargs)
            if self._is_on:
                facts.filter(record)
            return record

        self._make_record = make_record

    def begin(self) -> None:
        """Complete records from now on."""
        self._is_on = True
        setattr(logging.Logger, _METHOD, self._make_record)

    def end(self) -> None:
        """Leave records alone; who put something on top meanwhile keeps it."""
        self._is_on = False
        if logging.Logger.makeRecord is self._make_record:
            setattr(logging.Logger, _METHOD, self._before)
