"""What a tracer keeps of one queue, saved with its place: runs going on, the last run of jobs that will run again, workers."""

from __future__ import annotations

import logging
from typing import Annotated, Final, TypeVar

import msgspec

T = TypeVar("T")
log: Final = logging.getLogger("eventq.tracer")

#: How many are kept at most. A job whose last run is forgotten has no link to it; a worker that is forgotten has no resource.
PREVIOUS_RUNS: Final = 10_000
WORKERS: Final = 2_000
BULKS: Final = 1_000


#: A number that OTLP can carry, and an id as it is saved.
Number = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
TraceId = Annotated[str, msgspec.Meta(pattern="^(?!0{32})[0-9a-f]{32}$")]
SpanId = Annotated[str, msgspec.Meta(pattern="^(?!0{16})[0-9a-f]{16}$")]


class OpenRun(msgspec.Struct, array_like=True, gc=False):
    """A run that is going on. progress: (ms, number) of what was reported. is_doubtful: its end may be among lost events."""

    fence: Number
    started_ms: Number
    attempt: Number
    worker: str
    name: str
    added_ms: Number
    waited_ms: Number
    progress: list[tuple[Number, float]] = []
    is_doubtful: bool = False


class PreviousRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last run of a job that will run again: ids in hex."""

    trace_id: TraceId
    span_id: SpanId


class WorkerInfo(msgspec.Struct, frozen=True, array_like=True):
    """What a worker said of itself."""

    resource: dict[str, str] = {}
    processors: dict[str, str] = {}


class Memory(msgspec.Struct):
    """Of one queue. `version` is of this layout."""

    version: int = 1
    runs: dict[str, OpenRun] = msgspec.field(default_factory=dict)
    previous: dict[str, PreviousRun] = msgspec.field(default_factory=dict)
    workers: dict[str, WorkerInfo] = msgspec.field(default_factory=dict)
    #: Bulk adds whose span was made.
    bulks: dict[str, None] = msgspec.field(default_factory=dict)

    def remember_run(self, job_id: str, run: PreviousRun) -> None:
        """Keep the last run of a job."""
        _keep(self.previous, job_id, run, PREVIOUS_RUNS)

    def remember_worker(self, name: str, info: WorkerInfo) -> None:
        """Keep what a worker said of itself."""
        _keep(self.workers, name, info, WORKERS)

    def is_new_bulk(self, batch: str) -> bool:
        """Whether a bulk add was not seen before; it is now."""
        if batch in self.bulks:
            return False
        _keep(self.bulks, batch, None, BULKS)
        return True


def _keep(kept: dict[str, T], key: str, value: T, most: int) -> None:
    """Put a value last, and let the first go where there are too many."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Memory).decode


def memory_text(memory: Memory) -> str:
    """Return the text that is saved."""
    return _encode(memory).decode()


def memory_of(text: str) -> Memory | None:
    """Return what was saved, None for nothing and for what cannot be read: runs that go on then have spans without a start."""
    if not text:
        return None
    try:
        memory = _decode(text)
        if memory.version != 1:
            raise ValueError(f"version {memory.version}")
    except (ValueError, RecursionError) as error:
        log.error("what was saved cannot be read and is begun anew: %s", error)
        return None
    return memory
