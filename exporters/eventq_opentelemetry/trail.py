"""Follows the events of one queue and says which spans they end."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import msgspec
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanKind, set_span_in_context

from eventq.spans import MAX_FAN_OUT, RunKey, SpanIds, creation_of, is_child, queued_of, run_of
from eventq_opentelemetry import names
from eventq_opentelemetry.building import Builder, Ended, Style, error_type
from eventq_opentelemetry.facts import Facts, facts_of
from eventq_opentelemetry.saved import Memory, OpenRun, PreviousRun, WorkerInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler

    from eventq import EventBatch, WorkerState
    from eventq.events import LostEvent

log: Final = logging.getLogger("eventq.tracer")

#: How a run ends, by the kind of its last event.
_OUTCOMES: Final = {
    "completed": "completed",
    "failed": "failed",
    "retrying": "retried",
    "stalled": "stalled",
    "released": "released",
    "delayed": "postponed",
}
_RUNS_AGAIN: Final = frozenset({"retried", "stalled", "released", "postponed"})
#: Runs whose end may be lost are given up a day after their start: a day is how long events are kept.
_GIVE_UP_MS: Final = 86_400_000
_LOOK_EVERY_MS: Final = 60_000
_PROGRESS_EVENTS: Final = 100
_NS: Final = 1_000_000
_OF_LOGS: Final = frozenset(
    {names.MESSAGING_SYSTEM, names.DESTINATION, names.MESSAGE_ID, names.JOB_NAME, names.JOB_ATTEMPT, names.JOB_WILL_RETRY}
)
_UNKNOWN: Final = WorkerInfo()
_LOST: Final = Facts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One event for the metrics. run: the run that it begins or ends, None for neither."""

    queue: str
    kind: str
    facts: Facts
    run: OpenRun | None
    ms: int


@dataclass(slots=True)
class Out:
    """What is to be sent next. unsampled: spans that were left out."""

    spans: list[ReadableSpan] = field(default_factory=list)
    logs: list[ReadableLogRecord] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    unsampled: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """What is made of events. slow_ms: runs that took so long are kept though they are not sampled."""

    sampler: Sampler
    style: Style
    slow_ms: float = float("inf")
    #: Exceptions as log records, beside or instead of events of the span.
    logs: bool = False
    metrics: bool = False


class Trail:
    """One queue's events on their way to spans. What goes on from one event to another is in `memory`, and only there.

    Spans are made when they end: `add` with its event, `queued` and `process` with the last one of the run. What is not sampled
    is left out, except for runs that failed, stalled or were slow.
    """

    def __init__(self, queue: str, memory: Memory, wants: Wants, *, scope: str | None = None) -> None:
        self.memory = memory
        self._queue = queue
        self._scope = scope or queue
        self._wants = wants
        #: Where what is made goes, while a call lasts.
        self._out = Out()
        self._builder = Builder(queue, wants.style)
        self._next_look = 0
        self._handlers: dict[str, Callable[[Facts, int, int], None]] = {
            "active": self._active,
            "progress": self._progress,
            "worker_started": self._worker_started,
            "worker_stopped": self._worker_stopped,
            "obliterated": self._obliterated,
        }

    def introduce(self, workers: Sequence[WorkerState]) -> None:
        """Take what workers say of themselves that were at work before their stream was read; what an event said stands."""
        for worker in workers:
            facts = worker.facts
            self.memory.workers.setdefault(worker.name, WorkerInfo(facts.get("resource", {}), facts.get("processors", {})))

    def received(self, batch: EventBatch, out: Out) -> None:
        """Take the events of an entry; what they make goes to `out`."""
        self._out = out
        outcome, handler = _OUTCOMES.get(batch.kind), self._handlers.get(batch.kind)
        if outcome is None and handler is None and batch.kind != "added":
            return
        try:
            facts = facts_of(batch.facts)
        except ValueError as error:
            log.warning("queue %s: %d %s events cannot be read: %s", self._queue, batch.count, batch.kind, type(error).__name__)
            self._doubt()
            return
        if batch.kind == "added":
            self._added(facts[batch.skip :], batch.ms)
        for index in range(batch.skip, len(facts)):
            if outcome is not None:
                self._ended(batch.kind, outcome, facts[index], batch.ms)
            elif handler is not None:
                handler(facts[index], batch.seq + index, batch.ms)
        if batch.ms >= self._next_look:
            self._give_up(batch.ms)

    def lost(self, event: LostEvent, out: Out) -> None:
        """Events are missing: runs may have ended among them. What a failover undid never was: those runs end here."""
        self._out = out
        for job_id, run in list(self.memory.runs.items()):
            if event.reason == "rollback" and run.fence > event.seq:
                self._incomplete(job_id, run.started_ms)
        self._doubt()

    def _doubt(self) -> None:
        for run in self.memory.runs.values():
            run.is_doubtful = True

    # -- jobs

    def _added(self, events: Sequence[Facts], ms: int) -> None:
        bulks: dict[str, list[SpanIds]] = {}
        first: dict[str, Facts] = {}
        for facts in events:
            creation = creation_of(self._scope, facts.job_id, ms, facts)
            if facts.batch:
                bulks.setdefault(facts.batch, []).append(creation)
                first.setdefault(facts.batch, facts)
            if facts.fan_out <= MAX_FAN_OUT and self._is_sampled(creation):
                self._out.spans.append(self._builder.added(creation, facts, ms))
            self._measure("added", facts, None, ms)
        for batch, jobs in bulks.items():
            if self.memory.is_new_bulk(batch) and self._is_sampled(jobs[0]):
                span = self._builder.bulk(first[batch], jobs, ms)
                if span is not None:
                    self._out.spans.append(span)

    def _active(self, facts: Facts, seq: int, ms: int) -> None:
        if facts.job_id in self.memory.runs:  # how its last run ended is lost
            self._incomplete(facts.job_id, ms)
        added = facts.added_ms or ms - facts.waited_ms
        run = OpenRun(seq, ms, facts.attempt, facts.worker, facts.name, added, facts.waited_ms)
        self.memory.runs[facts.job_id] = run
        self._measure("active", facts, run, ms)

    def _progress(self, facts: Facts, _: int, ms: int) -> None:
        run = self.memory.runs.get(facts.job_id)
        number = facts.progress
        # An object may hold anything: what is in it is the job's own.
        if run is not None and isinstance(number, int | float) and len(run.progress) < _PROGRESS_EVENTS:
            with contextlib.suppress(OverflowError):  # a float each time: it is one when it was saved and read back
                run.progress.append((ms, float(number)))

    def _ended(self, kind: str, outcome: str, facts: Facts, ms: int) -> None:
        if kind == "delayed" and facts.previous != "active":
            return
        run = self.memory.runs.pop(facts.job_id, None)
        is_incomplete = run is None
        if run is None:  # when it was claimed is lost, and with it the id that its own children know
            started = ms - facts.ran_ms
            run = OpenRun(0, started, facts.attempt, facts.worker, facts.name, started - facts.waited_ms, facts.waited_ms)
        failed = outcome in ("failed", "retried", "stalled")
        ended = Ended(
            outcome=outcome,
            ms=ms,
            error_type=error_type(facts.error, kind, facts.reason) if failed else "",
            is_incomplete=is_incomplete,
        )
        self._emit(facts.job_id, run, facts, ended)
        self._measure(kind, facts, run, ms)

    def _incomplete(self, job_id: str, ms: int) -> None:
        run = self.memory.runs.pop(job_id)
        self._emit(job_id, run, _LOST, Ended(outcome="lost", ms=ms, error_type="lost", is_incomplete=True))

    def _emit(self, job_id: str, run: OpenRun, facts: Facts, ended: Ended) -> None:
        """Send the spans of a run: `queued` where it belongs to the job's trace, and `process`."""
        creation = creation_of(self._scope, job_id, run.added_ms, facts)
        key, age = RunKey(self._scope, job_id, run.fence, run.started_ms), run.started_ms - run.added_ms
        if ended.is_incomplete:
            # What it hangs on is not known: when the job was added, or which trace it was added in.
            facts = msgspec.structs.replace(facts, propagation="none")
        ids = run_of(creation, facts, key, age)
        previous = self.memory.previous.pop(job_id, None)
        if ended.outcome in _RUNS_AGAIN:
            self.memory.remember_run(job_id, PreviousRun(f"{ids.trace_id:032x}", f"{ids.span_id:016x}"))
        is_sampled = self._is_sampled(creation) and ended.outcome != "lost"
        if not is_sampled:
            reason = self._reason(ended, run)
            if not reason:
                self._out.unsampled += 1
                return
            ended = replace(ended, reason=reason)
        if self._wants.style.queued and is_sampled and is_child(facts, age):
            self._out.spans.append(self._builder.queued(queued_of(creation, key), job_id, run, facts))
        worker = self.memory.workers.get(run.worker, _UNKNOWN)
        links = creation if facts.propagation != "none" else None
        span = self._builder.process(ids, job_id, run, facts, ended, creation=links, previous=previous, worker=worker)
        self._out.spans.append(span)
        if self._wants.logs and facts.error.type:
            self._out.logs.append(self._log(span, facts))

    def _log(self, span: ReadableSpan, facts: Facts) -> ReadableLogRecord:
        context = span.get_span_context() or INVALID_SPAN_CONTEXT
        keys = (
            names.MESSAGING_SYSTEM,
            names.DESTINATION,
            names.MESSAGE_ID,
            names.JOB_NAME,
            names.JOB_ATTEMPT,
            names.JOB_WILL_RETRY,
        )
        told = {key: value for key in keys if (value := (span.attributes or {}).get(key)) is not None}
        record = LogRecord(
            timestamp=span.end_time,
            observed_timestamp=span.end_time,
            context=set_span_in_context(NonRecordingSpan(context), Context()),
            severity_text="ERROR",
            severity_number=SeverityNumber.ERROR,
            event_name=names.PROCESS_EXCEPTION,
            attributes={**told, **self._builder.exception(facts)},
        )
        return ReadableLogRecord(record, span.resource, names.SCOPE)

    # -- the rest

    def _worker_started(self, facts: Facts, _: int, __: int) -> None:
        self.memory.remember_worker(facts.worker, WorkerInfo(facts.resource, facts.processors))

    def _worker_stopped(self, facts: Facts, _: int, __: int) -> None:
        if not any(run.worker == facts.worker for run in self.memory.runs.values()):
            self.memory.workers.pop(facts.worker, None)

    def _obliterated(self, _: Facts, __: int, ms: int) -> None:
        for job_id in list(self.memory.runs):
            self._incomplete(job_id, ms)
        self.memory.previous.clear()

    def _give_up(self, ms: int) -> None:
        self._next_look = ms + _LOOK_EVERY_MS
        for job_id, run in list(self.memory.runs.items()):
            if run.is_doubtful and ms - run.started_ms > _GIVE_UP_MS:
                # Not now, which would be another moment for whoever reads the same again.
                self._incomplete(job_id, run.started_ms + _GIVE_UP_MS)

    def _reason(self, ended: Ended, run: OpenRun) -> str:
        """Return why a run is kept that is not sampled, '' when it is not."""
        if ended.error_type:
            return ended.error_type if ended.error_type in ("stalled", "lost") else "failed"
        return "slow" if ended.ms - run.started_ms >= self._wants.slow_ms else ""

    def _is_sampled(self, ids: SpanIds) -> bool:
        if ids.is_sampled is not None:
            return ids.is_sampled
        # In the words that a worker asks its own sampler in (eventq/tracing.py).
        answer = self._wants.sampler.should_sample(Context(), ids.trace_id, f"add {self._queue}", SpanKind.PRODUCER)
        return answer.decision is Decision.RECORD_AND_SAMPLE

    def _measure(self, kind: str, facts: Facts, run: OpenRun | None, ms: int) -> None:
        if self._wants.metrics:
            self._out.measured.append(Measured(queue=self._queue, kind=kind, facts=facts, run=run, ms=ms))
