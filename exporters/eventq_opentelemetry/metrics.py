"""OpenTelemetry metrics of the same events, for those who have no Prometheus. Run one of the two exporters, or count twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import CallbackOptions, Observation

from eventq_opentelemetry import names
from eventq_opentelemetry.building import error_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.metrics import MeterProvider

    from eventq import QueueState
    from eventq_opentelemetry.trail import Measured

    _Callback = Callable[[CallbackOptions], Iterable[Observation]]

#: Seconds. Messaging's own bounds end at ten, which is short for a job.
WAIT_BOUNDS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
RUN_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
#: Values of one label and queue; the rest are one more value. Job names and exceptions are whatever users make of them.
_MOST_VALUES: Final = {names.JOB_NAME: 100, names.ERROR_TYPE: 20}
_REST: Final = "_OTHER"
_ENDS: Final = frozenset({"completed", "failed", "retrying", "stalled", "released", "delayed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """How a tracer is doing: spans taken, left out as refused for good, left out by sampling; requests not taken;
    runs whose end was not read yet.
    """

    sent: int
    dropped: int
    unsampled: int
    refused: int
    open_runs: int


@dataclass(frozen=True, slots=True)
class _Look:
    state: QueueState
    seq: int


class Metrics:
    """The instruments. Counted once what they are of is sent; after a crash a counter may fall to zero, as OpenTelemetry's do."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(names.SCOPE.name, names.SCOPE.version, names.SCHEMA_URL)
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}", "Jobs that were added.")
        self._consumed = meter.create_counter("messaging.client.consumed.messages", "{message}", "Runs that were begun.")
        self._ran = meter.create_histogram(
            "messaging.process.duration", "s", "How long runs took.", explicit_bucket_boundaries_advisory=RUN_BOUNDS
        )
        self._waited = meter.create_histogram(
            "eventq.job.wait.duration", "s", "From ready to started.", explicit_bucket_boundaries_advisory=WAIT_BOUNDS
        )
        self._total = meter.create_histogram(
            "eventq.job.duration", "s", "From first ready to the end.", explicit_bucket_boundaries_advisory=WAIT_BOUNDS
        )
        self._drift = meter.create_histogram(
            "eventq.schedule.drift", "s", "From slot to added.", explicit_bucket_boundaries_advisory=WAIT_BOUNDS
        )
        self._stalled = meter.create_counter("eventq.job.stalled", "{run}", "Runs whose worker fell silent.")
        self._lost = meter.create_counter("eventq.event.lost", "{event}", "Events that were gone before they were read.")
        self._known: dict[tuple[str, str], set[str]] = {}
        self._looks: dict[str, _Look] = {}
        self._doing: Doing | None = None
        gauges: tuple[tuple[str, str, str, _Callback], ...] = (
            ("eventq.queue.jobs", "{job}", "Jobs by state.", self._jobs),
            ("eventq.queue.oldest_job.age", "s", "Age of the oldest job in line, overdue or running.", self._ages),
            ("eventq.worker.slot.limit", "{slot}", "Slots of all workers.", self._slots),
            ("eventq.worker.slot.usage", "{slot}", "Slots in use.", self._busy),
            ("eventq.event.lag", "{event}", "Events that are not read yet.", self._lag),
            ("eventq.event.lag.duration", "s", "Age of the oldest event that is not read yet.", self._lag_seconds),
            ("eventq.tracer.run.open", "{run}", "Runs whose end was not read yet.", self._open),
        )
        for name, unit, told, callback in gauges:
            meter.create_observable_gauge(name, [callback], unit, told)
        counters: tuple[tuple[str, str, str, Callable[[Doing], int]], ...] = (
            ("eventq.tracer.span.sent", "{span}", "Spans that were taken.", lambda doing: doing.sent),
            ("eventq.tracer.span.dropped", "{span}", "Spans that are refused for good.", lambda doing: doing.dropped),
            ("eventq.tracer.span.unsampled", "{span}", "Runs left out by sampling.", lambda doing: doing.unsampled),
            ("eventq.tracer.request.refused", "{request}", "Requests that were not taken.", lambda doing: doing.refused),
        )
        for name, unit, told, number in counters:
            meter.create_observable_counter(name, [self._tell(number)], unit, told)

    def record(self, measured: Sequence[Measured]) -> None:
        """Count what was sent."""
        for each in measured:
            attributes = self._attributes(each)
            if each.kind == "added":
                self._sent.add(1, {**attributes, names.OPERATION_NAME: names.SCHEDULE if each.facts.schedule else names.ADD})
                if each.facts.schedule:
                    self._drift.record(max(0, each.ms - each.facts.slot_ms) / 1000, attributes)
            elif each.kind == "active":
                self._consumed.add(1, {**attributes, names.OPERATION_NAME: names.PROCESS})
                self._waited.record(each.facts.waited_ms / 1000, attributes)
            elif each.kind in _ENDS and each.run is not None:
                self._end(each, attributes)

    def _end(self, each: Measured, attributes: dict[str, Any]) -> None:
        facts, started = each.facts, each.run.started_ms if each.run else each.ms
        if each.kind in ("failed", "retrying", "stalled"):
            attributes[names.ERROR_TYPE] = self._value(
                each.queue, names.ERROR_TYPE, error_type(facts.error, each.kind, facts.reason)
            )
        self._ran.record(max(0, each.ms - started) / 1000, {**attributes, names.OPERATION_NAME: names.PROCESS})
        if each.kind == "stalled" or facts.reason == "stalled":
            self._stalled.add(1, attributes)
        if each.kind in ("completed", "failed"):
            self._total.record((facts.total_ms or facts.waited_ms + facts.ran_ms) / 1000, attributes)

    def lost(self, queue: str, count: int, reason: str) -> None:
        """Count a gap."""
        self._lost.add(count, {names.DESTINATION: queue, "eventq.reason": reason})

    def observed(self, queue: str, state: QueueState, seq: int) -> None:
        """Keep how a queue is until it is asked for."""
        self._looks[queue] = _Look(state, seq)

    def forget(self, queue: str) -> None:
        """Say no more of a queue."""
        self._looks.pop(queue, None)

    def tell(self, doing: Doing) -> None:
        """Say how this tracer is doing from now on."""
        self._doing = doing

    def _attributes(self, each: Measured) -> dict[str, Any]:
        return {
            names.MESSAGING_SYSTEM: names.SYSTEM,
            names.DESTINATION: each.queue,
            names.JOB_NAME: self._value(each.queue, names.JOB_NAME, each.facts.name or (each.run.name if each.run else "")),
        }

    def _value(self, queue: str, label: str, value: str) -> str:
        known = self._known.setdefault((queue, label), set())
        if value not in known:
            if len(known) >= _MOST_VALUES[label]:
                return _REST
            known.add(value)
        return value

    def _each(self, value: Callable[[_Look], float]) -> Iterable[Observation]:
        # Copied: the reader calls from a thread of its own.
        return [Observation(value(look), {names.DESTINATION: queue}) for queue, look in list(self._looks.items())]

    def _jobs(self, _: CallbackOptions) -> Iterable[Observation]:
        for queue, look in list(self._looks.items()):
            for state, count in look.state.counts.items():
                yield Observation(count, {names.DESTINATION: queue, names.JOB_STATE: str(state)})

    def _ages(self, _: CallbackOptions) -> Iterable[Observation]:
        for queue, look in list(self._looks.items()):
            for state, since in look.state.since_ms.items():
                age = max(0, look.state.now_ms - since) / 1000
                yield Observation(age, {names.DESTINATION: queue, names.JOB_STATE: str(state)})

    def _slots(self, _: CallbackOptions) -> Iterable[Observation]:
        return self._each(lambda look: sum(worker.slots for worker in look.state.workers))

    def _busy(self, _: CallbackOptions) -> Iterable[Observation]:
        return self._each(lambda look: sum(worker.busy for worker in look.state.workers))

    def _lag(self, _: CallbackOptions) -> Iterable[Observation]:
        return self._each(lambda look: max(0, look.state.seq - look.seq))

    def _lag_seconds(self, _: CallbackOptions) -> Iterable[Observation]:
        return self._each(lambda look: max(0, look.state.now_ms - (look.state.unread_ms or look.state.now_ms)) / 1000)

    def _open(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self._doing.open_runs)] if self._doing is not None else []

    def _tell(self, number: Callable[[Doing], int]) -> _Callback:
        return lambda _: [Observation(number(self._doing))] if self._doing is not None else []
