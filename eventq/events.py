"""The event catalogue: one frozen class per kind, and how a stream entry becomes events.

| kind | when | fields besides queue, seq, time |
| --- | --- | --- |
| added | stored; by a schedule: `schedule`, `slot` | job_id, name, state, due, priority, schedule, slot, trace context |
| duplicated | an own id existed already; nothing was stored | job_id, name |
| waiting | into line: due, retried by hand | job_id, name, state, previous, due |
| active | a worker claimed it; `seq` is the run's fence | job_id, name, attempt, worker, waited, added |
| progress | updated by its processor | job_id, name, attempt, worker, progress |
| completed | final | job_id, name, attempt, worker, waited, ran, total, result or result_omitted, trace context |
| retrying | an attempt failed and will run again | job_id, name, attempt, worker, waited, ran, error, state, due, trace context |
| failed | final | job_id, name, attempt, worker, waited, ran, total, error, reason, exhausted, stalls, trace context |
| released | given back by its worker, uncounted | job_id, name, attempt, worker, ran, state, previous, trace context |
| stalled | its lease ran out; back in line | job_id, name, attempt, worker, ran, stalls, state, previous, trace context |
| delayed | postponed, or by `change_delay` | job_id, name, attempt, worker, waited, ran, state, previous, due, trace context |
| updated | its data or its priority was changed | job_id, name, what, state, previous, priority |
| removed | no longer stored, in bulk | job_ids, previous, reason |
| cleaned | `clean` removed so many of a state, per call it made | count, state |
| obliterated | the queue and all it held is gone; numbers begin anew | count, totals |
| schedule_missed | slots of a schedule that nobody could fire in time | schedule_id, count, first, last, policy |
| drained | the last job in line ended | |
| paused, resumed | the queue | |
| lost | a reader found a gap; made by the reader | count, reason |
| error | what is no job's failure: a lost connection or lease, a listener that raised | worker, type, message |
| worker_started | a worker began to claim | worker, concurrency, resource, processors |
| worker_stopped | a worker ended in good order | worker |

`waited`, `ran` and `total` are seconds by Redis' clock; `reason` of failed is error, stalled or timeout, of removed: removed,
retention, cleaned, drained or repaired. Trace context: traceparent, tracestate and service of whoever added the job, with them
propagation, batch and link (see eventq/spans.py), and of a run what its processor said of its span.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import msgspec

from eventq.errors import EventqError
from eventq.records import Duration, JobErrorInfo, Moment


def _moment(ms: int) -> datetime | None:
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None


class UnreadableEntry(EventqError):
    """A stream entry is not one of ours."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What every event says: the queue, its number there, when (ms since the epoch, Redis' clock)."""

    kind: ClassVar[str] = ""
    queue: str = ""
    seq: int = 0
    ms: Moment = 0

    @property
    def time(self) -> datetime:
        """When, by Redis' clock, as an aware datetime."""
        return datetime.fromtimestamp(self.ms / 1000, UTC)


class JobEvent(Event, frozen=True, kw_only=True):
    """An event of one job."""

    job_id: str = ""
    name: str = ""
    attempt: int = 0


class _Due(JobEvent, frozen=True, kw_only=True):
    due_ms: Moment = 0

    @property
    def due(self) -> datetime | None:
        """When the job may run, None for at once."""
        return _moment(self.due_ms)


class _Traced(JobEvent, frozen=True, kw_only=True):
    traceparent: str = ""
    tracestate: str = ""
    service: str = ""
    propagation: str = ""
    batch: str = ""
    link: str = ""


class _Outcome(_Traced, frozen=True, kw_only=True):
    worker: str = ""
    waited_ms: Duration = 0
    ran_ms: Duration = 0
    #: What the processor said of its span.
    span: dict[str, Any] = {}

    @property
    def waited(self) -> float:
        """Seconds from ready to started."""
        return self.waited_ms / 1000

    @property
    def ran(self) -> float:
        """Seconds from started to the end of this run."""
        return self.ran_ms / 1000


class _Final(_Outcome, frozen=True, kw_only=True):
    total_ms: Duration = 0

    @property
    def total(self) -> float:
        """Seconds from first ready to the end: all waits, attempts and backoffs; an intended delay is left out."""
        return (self.total_ms or self.waited_ms + self.ran_ms) / 1000


class _DueOutcome(_Outcome, frozen=True, kw_only=True):
    due_ms: Moment = 0

    @property
    def due(self) -> datetime | None:
        """When it may run again."""
        return _moment(self.due_ms)


class AddedEvent(_Traced, frozen=True, kw_only=True):
    """A job was stored."""

    kind: ClassVar[str] = "added"
    due_ms: Moment = 0
    state: str = ""
    priority: int = 0
    schedule: str = ""
    slot_ms: Moment = 0

    @property
    def due(self) -> datetime | None:
        """When the job may run, None for at once."""
        return _moment(self.due_ms)

    @property
    def slot(self) -> datetime | None:
        """Of a job that a schedule made: when it was meant to be."""
        return _moment(self.slot_ms)


class DuplicatedEvent(JobEvent, frozen=True, kw_only=True):
    """An add with an own id that is stored already: nothing was added."""

    kind: ClassVar[str] = "duplicated"


class WaitingEvent(_Due, frozen=True, kw_only=True):
    """A job came into line from another state."""

    kind: ClassVar[str] = "waiting"
    state: str = ""
    previous: str = ""


class ActiveEvent(_Outcome, frozen=True, kw_only=True):
    """A worker claimed a job. `seq` is the fence of this run."""

    kind: ClassVar[str] = "active"
    added_ms: Moment = 0

    @property
    def added(self) -> datetime:
        """When the job was added. Said of one that was delayed or ran before; others are ready at once."""
        return datetime.fromtimestamp((self.added_ms or self.ms - self.waited_ms) / 1000, UTC)


class ProgressEvent(JobEvent, frozen=True, kw_only=True):
    """A processor reported progress: a number or a JSON object."""

    kind: ClassVar[str] = "progress"
    worker: str = ""
    progress: Any = None


class CompletedEvent(_Final, frozen=True, kw_only=True):
    """A job ended well. `result` rides along when small; else `result_omitted` says that there is one to fetch."""

    kind: ClassVar[str] = "completed"
    result: Any = None
    result_omitted: bool = False


class RetryingEvent(_DueOutcome, frozen=True, kw_only=True):
    """An attempt failed and the job will run again: when (`due`) and why (`error`)."""

    kind: ClassVar[str] = "retrying"
    state: str = ""
    error: JobErrorInfo = JobErrorInfo("")


class FailedEvent(_Final, frozen=True, kw_only=True):
    """A job ended failed, for good. `exhausted`: it used up its attempts. `reason`: error, stalled or timeout."""

    kind: ClassVar[str] = "failed"
    reason: str = "error"
    exhausted: bool = False
    stalls: int = 0
    error: JobErrorInfo = JobErrorInfo("")


class ReleasedEvent(_Outcome, frozen=True, kw_only=True):
    """A worker gave the job back to the head of the line, uncounted."""

    kind: ClassVar[str] = "released"
    state: str = ""
    previous: str = ""


class DelayedEvent(_DueOutcome, frozen=True, kw_only=True):
    """A job is to run later: its delay was changed, or its processor postponed it (`previous` is active, no attempt charged)."""

    kind: ClassVar[str] = "delayed"
    state: str = ""
    previous: str = ""


class StalledEvent(_Outcome, frozen=True, kw_only=True):
    """A run's lease ended without a word from its worker; the job is back in line."""

    kind: ClassVar[str] = "stalled"
    state: str = ""
    previous: str = ""
    stalls: int = 0


class UpdatedEvent(JobEvent, frozen=True, kw_only=True):
    """A job's data or priority was changed (`what`); a change of priority may move it between waiting and prioritized."""

    kind: ClassVar[str] = "updated"
    what: str = ""
    state: str = ""
    previous: str = ""
    priority: int = 0


class RemovedEvent(Event, frozen=True, kw_only=True):
    """Jobs are no longer stored. `reason`: removed (by hand), retention, cleaned, drained, repaired (their records were lost)."""

    kind: ClassVar[str] = "removed"
    job_ids: tuple[str, ...] = ()
    previous: str = ""
    reason: str = ""


class CleanedEvent(Event, frozen=True, kw_only=True):
    """One call of `clean` removed so many jobs of a state; which ones, the `removed` event before it says."""

    kind: ClassVar[str] = "cleaned"
    count: int = 0
    state: str = ""


class ObliteratedEvent(Event, frozen=True, kw_only=True):
    """The queue is gone with all it held (`count` jobs). What comes after begins a new epoch with number 1.

    totals: what its totals came to, by what is counted and the job's name (`completed welcome`), and `busy_ms` of all workers.
    """

    kind: ClassVar[str] = "obliterated"
    count: int = 0
    totals: dict[str, int] = {}


class ScheduleMissedEvent(Event, frozen=True, kw_only=True):
    """Nobody could fire these slots of a schedule in time, and its policy is not to run them later. `count` is exact."""

    kind: ClassVar[str] = "schedule_missed"
    schedule_id: str = ""
    count: int = 0
    first_ms: Moment = 0
    last_ms: Moment = 0
    policy: str = ""

    @property
    def first(self) -> datetime:
        """The earliest of the slots."""
        return datetime.fromtimestamp(self.first_ms / 1000, UTC)

    @property
    def last(self) -> datetime:
        """The latest of the slots."""
        return datetime.fromtimestamp(self.last_ms / 1000, UTC)


class DrainedEvent(Event, frozen=True, kw_only=True):
    """The last job in line ended; delayed ones may remain. Once per idle time."""

    kind: ClassVar[str] = "drained"


class PausedEvent(Event, frozen=True, kw_only=True):
    """The queue was paused."""

    kind: ClassVar[str] = "paused"


class ResumedEvent(Event, frozen=True, kw_only=True):
    """The queue was resumed."""

    kind: ClassVar[str] = "resumed"


class ErrorEvent(Event, frozen=True, kw_only=True):
    """Trouble that is no job's failure: lost connection, lost lease, a listener that raised.

    `error` is the exception itself where the event is told in the process that had it; on the stream there is its `type`.
    """

    kind: ClassVar[str] = "error"
    worker: str = ""
    type: str = ""
    message: str = ""
    error: BaseException | None = None


class LostEvent(Event, frozen=True, kw_only=True):
    """What a reader was told is not all there is (`trimmed`), or not what the server has (`rollback`: a failover, a restart from
    an older save). Made by the reader, never on the stream.

    count: events that were trimmed before they were read, to the unit; 0 for a rollback. undone: for a rollback, events that were
    read and that the server has no longer; exact while the reader lives and reads on. seq: the number of the last event before
    the gap, or of the last that is still true.
    """

    kind: ClassVar[str] = "lost"
    count: int = 0
    reason: str = "trimmed"
    undone: int = 0


class WorkerStartedEvent(Event, frozen=True, kw_only=True):
    """A worker began to claim. resource: of its process, as OpenTelemetry has it. processors: its functions by job name."""

    kind: ClassVar[str] = "worker_started"
    worker: str = ""
    concurrency: int = 0
    resource: dict[str, str] = {}
    processors: dict[str, str] = {}


class WorkerStoppedEvent(Event, frozen=True, kw_only=True):
    """A worker ended in good order."""

    kind: ClassVar[str] = "worker_stopped"
    worker: str = ""


STREAM_EVENTS: Final[dict[str, type[Event]]] = {
    cls.kind: cls
    for cls in (
        AddedEvent, DuplicatedEvent, WaitingEvent, ActiveEvent, ProgressEvent, CompletedEvent, RetryingEvent, FailedEvent,
        ReleasedEvent, StalledEvent, DelayedEvent, UpdatedEvent, RemovedEvent, CleanedEvent, ObliteratedEvent, DrainedEvent,
        PausedEvent, ResumedEvent, ScheduleMissedEvent, ErrorEvent, WorkerStartedEvent, WorkerStoppedEvent,
    )
}  # fmt: skip
LOCAL_EVENTS: Final[dict[str, type[Event]]] = {cls.kind: cls for cls in (LostEvent,)}
#: What a worker tells its own listeners; of the rest it hears nothing.
WORKER_KINDS: Final = (
    "active", "progress", "completed", "retrying", "failed", "delayed", "error", "worker_started", "worker_stopped",
)  # fmt: skip
KINDS: Final = (*STREAM_EVENTS, *LOCAL_EVENTS)


class UnknownEvent(Event, frozen=True, kw_only=True):
    """An event of a kind that this version does not know: written by a newer one. `facts` is its JSON object."""

    kind: ClassVar[str] = "unknown"
    name: str = ""
    facts: dict[str, Any] = {}


_decode = msgspec.json.Decoder(list[dict[str, Any]]).decode


def make_event(kind: str, queue: str, seq: int, ms: int, facts: dict[str, Any]) -> Event:
    """Return the event of these facts. Unknown facts are left out, an unknown kind is an UnknownEvent."""
    cls = STREAM_EVENTS.get(kind)
    if cls is None:
        return UnknownEvent(queue=queue, seq=seq, ms=ms, name=kind, facts=facts)
    return msgspec.convert({**facts, "queue": queue, "seq": seq, "ms": ms}, cls)


def parse_entry(queue: str, fields: dict[str, str]) -> list[Event]:
    """Return the events of one stream entry, in order. Raises UnreadableEntry."""
    try:
        seq, n, ms = int(fields["seq"]), int(fields["n"]), int(fields["ms"])
        facts = _decode(fields["events"])
        if len(facts) != n or n < 1:
            raise ValueError(f"{len(facts)} events where n says {n}")
        return [make_event(fields["kind"], queue, seq + index, ms, each) for index, each in enumerate(facts)]
    except (KeyError, ValueError, RecursionError) as error:
        raise UnreadableEntry(f"queue {queue}: a stream entry is unreadable: {error}") from error
