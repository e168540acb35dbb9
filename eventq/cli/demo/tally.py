"""What the events say so far. Knows nothing but events, so it shows exactly what any reader of the stream can know."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from eventq.events import (
    ActiveEvent,
    AddedEvent,
    CompletedEvent,
    FailedEvent,
    JobEvent,
    LostEvent,
    ProgressEvent,
    RetryingEvent,
)

if TYPE_CHECKING:
    from eventq.events import Event

__all__ = ["Failure", "Tally", "Times"]

#: Milliseconds over which the present rate is measured.
WINDOW_MS: Final = 1000
STATES: Final = ("waiting", "active", "delayed", "completed", "failed")


@dataclass(frozen=True, slots=True)
class Failure:
    """How a job ended failed."""

    type: str
    message: str
    attempts: int


class Times:
    """Durations in ms, counted exactly; a run has few different ones."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0

    def add(self, ms: int) -> None:
        """Count one."""
        self._counts[ms] += 1
        self._total += 1

    def percentile(self, share: float) -> float:
        """Return, in seconds, what `share` (0 to 1) of them do not exceed; 0 for none at all."""
        below = 0
        for ms in sorted(self._counts):
            below += self._counts[ms]
            if below >= share * self._total:
                return ms / 1000
        return 0.0


@dataclass(slots=True)
class Tally:
    """Sums over the events of a queue that started empty. total: how many jobs there will be."""

    total: int
    kinds: Counter[str] = field(default_factory=Counter[str])
    states: Counter[str] = field(default_factory=Counter[str])
    #: By type of error: attempts that failed, and jobs that ended failed.
    failed_attempts: Counter[str] = field(default_factory=Counter[str])
    errors: Counter[str] = field(default_factory=Counter[str])
    waited: Times = field(default_factory=Times)
    ran: Times = field(default_factory=Times)
    #: By job id: the result of a completed job as the event brought it, or its failure.
    outcomes: dict[str, Any] = field(default_factory=dict[str, Any])
    #: By job id: percent done, of large files that are being read.
    reading: dict[str, float] = field(default_factory=dict[str, float])
    bytes: int = 0
    seen: int = 0
    first_seq: int = 0
    last_seq: int = 0
    #: Reports of the reader that events are missing, and how many in all.
    gaps: int = 0
    lost: int = 0
    trouble: str = ""
    _state_of: dict[str, str] = field(default_factory=dict[str, str])
    _ended_ms: deque[int] = field(default_factory=deque[int])
    _first_ms: int = 0
    _last_ms: int = 0

    @property
    def ended(self) -> int:
        """Jobs with an outcome."""
        return len(self.outcomes)

    @property
    def is_done(self) -> bool:
        """Whether every job has its outcome."""
        return self.ended >= self.total

    @property
    def elapsed(self) -> float:
        """Seconds from the first to the last event, by Redis' clock."""
        return (self._last_ms - self._first_ms) / 1000

    @property
    def rate(self) -> float:
        """Jobs ended per second, over all."""
        return self.ended / self.elapsed if self.elapsed else 0.0

    @property
    def rate_now(self) -> float:
        """Jobs ended per second, in the last second (or since the start, if that is less)."""
        window = min(WINDOW_MS, self._last_ms - self._first_ms)
        return len(self._ended_ms) * 1000 / window if window else 0.0

    @property
    def missing(self) -> int:
        """Sequence numbers between the first and the last event that were not seen."""
        return self.last_seq - self.first_seq + 1 - self.seen if self.seen else 0

    def take(self, event: Event) -> None:
        """Count one event."""
        if isinstance(event, LostEvent):
            self.gaps += 1
            self.lost += event.count
            return
        self.seen += 1
        self.first_seq = self.first_seq or event.seq
        self.last_seq = event.seq
        self._first_ms = self._first_ms or event.ms
        self._last_ms = event.ms
        self.kinds[event.kind] += 1
        if isinstance(event, JobEvent):
            self._take_job(event)
        while self._ended_ms and self._ended_ms[0] <= event.ms - WINDOW_MS:
            self._ended_ms.popleft()

    def _take_job(self, event: JobEvent) -> None:
        if isinstance(event, ProgressEvent):
            self.reading[event.job_id] = event.progress
            return
        self.reading.pop(event.job_id, None)
        self._move(event.job_id, getattr(event, "state", "") or event.kind)
        if isinstance(event, AddedEvent):
            return
        if isinstance(event, ActiveEvent):
            self.waited.add(event.waited_ms)
        if isinstance(event, RetryingEvent | FailedEvent | CompletedEvent):
            self.ran.add(event.ran_ms)
        if isinstance(event, RetryingEvent | FailedEvent):
            self.failed_attempts[event.error.type] += 1
        if isinstance(event, CompletedEvent | FailedEvent):
            self._end(event)

    def _end(self, event: CompletedEvent | FailedEvent) -> None:
        self._ended_ms.append(event.ms)
        if isinstance(event, FailedEvent):
            self.errors[event.error.type] += 1
            self.outcomes[event.job_id] = Failure(event.error.type, event.error.message, event.attempt)
        else:
            result: Any = event.result
            self.outcomes[event.job_id] = result
            self.bytes += result["bytes"] if isinstance(result, dict) else 0

    def _move(self, job_id: str, state: str) -> None:
        before = self._state_of.get(job_id)
        if before is not None:
            self.states[before] -= 1
        self.states[state] += 1
        self._state_of[job_id] = state
