"""Spans out of facts: names, kinds, times, attributes. The same facts make the same span, to the byte."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from eventq.spans import MAX_FAN_OUT, SpanIds, bulk_of, call_began_ms, parse_traceparent
from eventq_opentelemetry import names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventq_opentelemetry.facts import Error, Facts
    from eventq_opentelemetry.saved import OpenRun, PreviousRun, WorkerInfo

log: Final = logging.getLogger("eventq.tracer")

#: Events of one span at most, as the SDK's own limit is.
_EVENTS: Final = 128
_NS: Final = 1_000_000
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What is said in spans. messages: whether messages of exceptions (and stack traces) are. redact: changes them."""

    queued: bool = True
    messages: bool = True
    #: Whether what a processor raised is an event of its span.
    exceptions: bool = True
    redact: Callable[[str], str] | None = None
    #: `service.name` of what nobody told the name of.
    service: str = "eventq"
    server: tuple[str, int] | None = None

    def message(self, text: str) -> str:
        """Return a message as it may be told, '' for not at all."""
        if not self.messages or not text:
            return ""
        try:
            return text if self.redact is None else self.redact(text)
        except Exception:  # it is user code: what it cannot handle is not told
            log.exception("redact raised: the message is left out")
            return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended. reason: why it is kept though it is not sampled, '' where it is."""

    outcome: str
    ms: int
    error_type: str = ""
    is_incomplete: bool = False
    reason: str = ""


class Builder:
    """Makes the spans of one queue."""

    def __init__(self, queue: str, style: Style) -> None:
        self._queue = queue
        self._style = style
        self._base: dict[str, Any] = {names.MESSAGING_SYSTEM: names.SYSTEM, names.DESTINATION: queue}
        if style.server is not None:
            self._base |= {names.SERVER_ADDRESS: style.server[0], names.SERVER_PORT: style.server[1]}

    def added(self, creation: SpanIds, facts: Facts, ms: int) -> ReadableSpan:
        """Return the span that created a job: `add`, `create` of a bulk, or `schedule`."""
        operation = names.SCHEDULE if facts.schedule else names.CREATE if facts.batch else names.ADD
        kind = "create" if facts.batch else "send"
        attributes = {
            **self._base,
            names.OPERATION_NAME: operation,
            names.OPERATION_TYPE: kind,
            names.MESSAGE_ID: facts.job_id,
            names.JOB_NAME: facts.name,
            names.JOB_STATE: facts.state,
        }
        if facts.due_ms:
            attributes[names.JOB_DELAY] = max(0, facts.due_ms - ms) / 1000
        if facts.priority:
            attributes[names.JOB_PRIORITY] = facts.priority
        if facts.schedule:
            attributes |= {names.SCHEDULE_ID: facts.schedule, names.SCHEDULE_SLOT: facts.slot_ms}
        return self._span(
            f"{operation} {self._queue}",
            creation,
            SpanKind.PRODUCER,
            (ms if facts.schedule else call_began_ms(facts.job_id, ms), ms),
            attributes,
            resource=_service(facts.service or self._style.service),
            links=_links((parse_traceparent(facts.link), "defined_by")),
        )

    def bulk(self, facts: Facts, jobs: Sequence[SpanIds], ms: int) -> ReadableSpan | None:
        """Return the span of the call that added many jobs; `jobs`: the spans of those that came with the first of them."""
        caller = parse_traceparent(facts.traceparent)
        if caller is None:
            return None
        is_small = facts.fan_out <= MAX_FAN_OUT
        attributes = {
            **self._base,
            names.OPERATION_NAME: names.ADD_BULK,
            names.OPERATION_TYPE: "send",
            names.BATCH_COUNT: facts.fan_out,
        }
        return self._span(
            f"{names.ADD_BULK} {self._queue}",
            bulk_of(caller, facts),
            SpanKind.CLIENT if is_small else SpanKind.PRODUCER,
            (call_began_ms(facts.job_id, ms), ms),
            attributes,
            resource=_service(facts.service or self._style.service),
            links=_links(*((job, "created") for job in jobs)) if is_small else (),
        )

    def queued(self, ids: SpanIds, job_id: str, run: OpenRun, facts: Facts) -> ReadableSpan:
        """Return the span from ready to started."""
        attributes = {
            **self._base,
            names.MESSAGE_ID: job_id,
            names.JOB_NAME: run.name,
            names.JOB_ATTEMPT: run.attempt,
            names.JOB_RUN: run.fence,
        }
        times = (run.started_ms - run.waited_ms, run.started_ms)
        resource = _service(facts.service or self._style.service)
        return self._span(f"{names.QUEUED} {self._queue}", ids, SpanKind.INTERNAL, times, attributes, resource=resource)

    def process(
        self,
        ids: SpanIds,
        job_id: str,
        run: OpenRun,
        facts: Facts,
        ended: Ended,
        *,
        creation: SpanIds | None,
        previous: PreviousRun | None,
        worker: WorkerInfo,
    ) -> ReadableSpan:
        """Return the span of one run. creation: what it links to, None for nothing."""
        said = facts.span
        span = self._span(
            said.name or f"{names.PROCESS} {self._queue}",
            ids if not ended.reason else _kept(ids),
            SpanKind.CONSUMER,
            (run.started_ms, ended.ms),
            self._process_attributes(job_id, run, facts, ended, worker),
            resource=_worker(run.worker, tuple(sorted(worker.resource.items())), self._style.service),
            links=(
                *_links((creation, "created_by"), (_ids_of(previous), "previous_attempt")),
                *(link for each in said.links if (link := _link(*each)) is not None),
            ),
            events=self._events(run, facts, ended),
            status=self._status(facts, ended),
        )
        return span

    def _process_attributes(self, job_id: str, run: OpenRun, facts: Facts, ended: Ended, worker: WorkerInfo) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            **{key: value for key, value in _told(facts.span.attributes).items() if not key.startswith(names.RESERVED)},
            **self._base,
            names.OPERATION_NAME: names.PROCESS,
            names.OPERATION_TYPE: "process",
            names.MESSAGE_ID: job_id,
            names.CLIENT_ID: run.worker,
            names.JOB_NAME: run.name,
            names.JOB_ATTEMPT: run.attempt,
            names.JOB_RUN: run.fence,
            names.JOB_WAIT: run.waited_ms / 1000,
            names.JOB_OUTCOME: ended.outcome,
        }
        if function := worker.processors.get(run.name) or worker.processors.get(""):
            attributes[names.FUNCTION_NAME] = function
        if ended.error_type:
            attributes[names.ERROR_TYPE] = ended.error_type
            if ended.outcome != "lost":
                attributes[names.JOB_WILL_RETRY] = ended.outcome in ("retried", "stalled")
        elif facts.span.status == "error":
            attributes[names.ERROR_TYPE] = str(facts.span.attributes.get(names.ERROR_TYPE) or "_OTHER")
        if ended.outcome == "failed":
            attributes[names.JOB_EXHAUSTED] = facts.exhausted
        for name, value in (
            (names.JOB_STALLS, facts.stalls),
            (names.DROPPED, facts.span.dropped),
            (names.INCOMPLETE, ended.is_incomplete),
            (names.SAMPLING_REASON, ended.reason),
        ):
            if value:
                attributes[name] = value
        return attributes

    def _events(self, run: OpenRun, facts: Facts, ended: Ended) -> list[Event]:
        start, end = run.started_ms * _NS, max(ended.ms, run.started_ms) * _NS
        events = [Event(names.PROGRESS, {names.JOB_PROGRESS: number}, ms * _NS) for ms, number in run.progress]
        for name, offset, attributes in facts.span.events:
            told = _told({key: self._said(key, value) for key, value in attributes.items()})
            events.append(Event(name, told, min(max(start, start + offset), end)))
        events.sort(key=_timestamp)
        del events[_EVENTS - 1 :]
        if facts.error.type and self._style.exceptions:
            events.append(Event(names.EXCEPTION, self.exception(facts), end))
        return events

    def exception(self, facts: Facts) -> dict[str, str]:
        """Return the attributes of what a processor raised."""
        told = {
            names.EXCEPTION_TYPE: facts.error.type,
            names.EXCEPTION_MESSAGE: self._style.message(facts.error.message),
            names.EXCEPTION_STACKTRACE: self._style.message(facts.span.stacktrace),
        }
        return {key: value for key, value in told.items() if value}

    def _said(self, key: str, value: Any) -> Any:
        if key in (names.EXCEPTION_MESSAGE, names.EXCEPTION_STACKTRACE):
            return self._style.message(str(value)) or None
        return value

    def _status(self, facts: Facts, ended: Ended) -> Status:
        if ended.error_type:
            return Status(StatusCode.ERROR, self._style.message(facts.error.message) or None)
        if facts.span.status == "error":
            return Status(StatusCode.ERROR, self._style.message(facts.span.description) or None)
        return Status(StatusCode.OK) if facts.span.status == "ok" else _UNSET

    def _span(
        self,
        name: str,
        ids: SpanIds,
        kind: SpanKind,
        times: tuple[int, int],
        attributes: dict[str, Any],
        *,
        resource: Resource,
        links: Sequence[Link] = (),
        events: Sequence[Event] = (),
        status: Status = _UNSET,
    ) -> ReadableSpan:
        start, end = times
        context = _context(ids)
        parent = _context(SpanIds(ids.trace_id, ids.parent_id)) if ids.parent_id else None
        return ReadableSpan(
            name,
            context=context,
            parent=parent,
            resource=resource,
            attributes=attributes,
            events=events,
            links=links,
            kind=kind,
            status=status,
            # Clocks may go back; a span may not.
            start_time=min(start, end) * _NS,
            end_time=end * _NS,
            instrumentation_scope=names.SCOPE,
        )


def error_type(error: Error, kind: str, reason: str) -> str:
    """Return `error.type`: the class, or what happened where nothing was raised."""
    if kind == "stalled" or reason == "stalled":
        return "stalled"
    return "timeout" if reason == "timeout" or error.type == "TimedOut" else error.type or "_OTHER"


def _timestamp(event: Event) -> int:
    return event.timestamp


def _context(ids: SpanIds) -> SpanContext:
    state = TraceState.from_header([ids.state]) if ids.state else None
    return SpanContext(ids.trace_id, ids.span_id, is_remote=True, trace_flags=_SAMPLED, trace_state=state)


def _kept(ids: SpanIds) -> SpanIds:
    """Return ids that say that the span is kept whatever was decided: with probability 1, in OpenTelemetry's own word for it."""
    members = [part.strip() for part in ids.state.split(",") if part.strip()]
    said = "".join(part.removeprefix("ot=") for part in members if part.startswith("ot="))
    kept = ";".join(["th:0", *(part for part in said.split(";") if part and not part.startswith("th:"))])
    others = [part for part in members if not part.startswith("ot=")]
    return SpanIds(ids.trace_id, ids.span_id, ids.parent_id, True, ",".join([f"ot={kept}", *others]))


def _links(*targets: tuple[SpanIds | None, str]) -> list[Link]:
    return [Link(_context(ids), {names.LINK: relation}) for ids, relation in targets if ids is not None]


def _link(trace_id: str, span_id: str, attributes: dict[str, Any]) -> Link | None:
    target = parse_traceparent(f"00-{trace_id}-{span_id}-01")
    return None if target is None else Link(_context(target), _told(attributes))


def _told(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes without those that have no value, which no exporter can send."""
    return {key: value for key, value in attributes.items() if value is not None}


def _ids_of(run: PreviousRun | None) -> SpanIds | None:
    return None if run is None else SpanIds(int(run.trace_id, 16), int(run.span_id, 16))


@lru_cache(maxsize=1024)
def _service(name: str) -> Resource:
    return Resource({names.SERVICE_NAME: name})


@lru_cache(maxsize=1024)
def _worker(worker: str, said: tuple[tuple[str, str], ...], service: str) -> Resource:
    attributes: dict[str, Any] = {names.SERVICE_NAME: service, names.SERVICE_INSTANCE: worker, **dict(said)}
    if (pid := str(attributes.get(names.PROCESS_PID, ""))).isdecimal():
        attributes[names.PROCESS_PID] = int(pid)
    return Resource(attributes)
