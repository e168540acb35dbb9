"""What a stored job says: the texts in `jobs` and `runs`, parsed. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from eventq.errors import EventqError
from eventq.keys import is_job_name
from eventq.limits import LAST_MS
from eventq.options import Spec, parse_spec
from eventq.states import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence


#: Times and durations as events say them, in ms; a duration by a clock that was set back is below 0.
Moment = Annotated[int, msgspec.Meta(ge=0, le=LAST_MS)]
Duration = Annotated[int, msgspec.Meta(ge=-LAST_MS, le=LAST_MS)]


class UnreadableRecord(EventqError):
    """A stored record is not one of ours: damaged, or written by something else."""


class JobErrorInfo(msgspec.Struct, frozen=True):
    """Why an attempt failed, as stored: the exception's type, its message, a bounded traceback."""

    type: str
    message: str = ""
    traceback: str = ""


class Record(msgspec.Struct, frozen=True, gc=False):
    """The text in `jobs`: header LF spec LF data. Times in ms since the epoch, 0 for none.

    data: as stored, so in its envelope where it is signed. spec_text: the spec as stored, which is what was signed.
    """

    added_ms: int
    due_ms: int
    priority: int
    flags: str
    name: str
    trace: str
    spec: Spec
    data: str
    spec_text: str = ""


def whole(text: str) -> int | None:
    """Return a stored number, None for what is none of ours: a number that large is not counted by anybody."""
    return int(text) if len(text) <= 16 and text.isdecimal() else None


def check_numbers(*numbers: int) -> None:
    """Raise ValueError for a number that no time or count can be. Counts are smaller than times."""
    if min(numbers) < 0 or max(numbers) > LAST_MS:
        raise ValueError("a number is out of range")


def parse_record(text: str, apart: str) -> Record:
    """Return the record; `apart` is data that was too large to stand in it. Raises UnreadableRecord."""
    try:
        header, spec, data = text.split("\n", 2)
        # Unknown trailing fields belong to a newer version of eventq and are left alone.
        layout, added, due, priority, flags, name, trace = header.split("\t")[:7]
        if layout != "1":
            raise ValueError(f"layout {layout}")
        added_ms, due_ms, number = int(added), int(due or 0), int(priority or 0)
        check_numbers(added_ms, due_ms, number)
        if not is_job_name(name):
            raise ValueError(f"name {name[:80]!r}")
        apart_or_in = apart if "d" in flags else data
        return Record(added_ms, due_ms, number, flags, name, trace, parse_spec(spec), apart_or_in, spec)
    except ValueError as error:
        raise UnreadableRecord(f"the stored record is unreadable: {error}") from error


class Run(msgspec.Struct, frozen=True, gc=False):
    """The text in `runs`: how often the job was started and what came of it. Times in ms, 0 for none."""

    state: str = JobState.WAITING
    token: str = "-"
    finished_ms: int = 0
    ready_ms: int = 0
    started_ms: int = 0
    starts: int = 0
    fails: int = 0
    stalls: int = 0
    releases: int = 0
    place: str = "-"
    worker: str = "-"


NEVER_RUN = Run()


def parse_run(text: str) -> Run:
    """Return the run. Raises UnreadableRecord."""
    try:
        state, token, finished, ready, started, starts, fails, stalls, releases, place, worker = text.split(" ", 10)
        ended, came, began = int(finished), int(ready), int(started)
        counts = int(starts), int(fails), int(stalls), int(releases)
        check_numbers(ended, came, began, *counts)
        return Run(state, token, ended, came, began, *counts, place, worker)
    except ValueError as error:
        raise UnreadableRecord(f"the stored run is unreadable: {error}") from error


class StoredJob(msgspec.Struct, frozen=True, gc=False):
    """Everything Redis holds about one job, texts of data and result undecoded."""

    id: str
    record: Record
    run: Run
    state: JobState
    result: str | None
    progress: str | None


def parse_stored(paused: bool, columns: Sequence[Any]) -> StoredJob | None:
    """Return one job of get_jobs (id, record, run, data, result, progress); None when it is not stored."""
    job_id, record_text, run_text, apart, result, progress = columns
    if record_text is None:
        return None
    record = parse_record(record_text, apart or "")
    run = parse_run(run_text) if run_text else NEVER_RUN
    state = _state(record, run, run_text is not None)
    if paused and state is JobState.WAITING:
        state = JobState.PAUSED
    return StoredJob(job_id, record, run, state, result, progress)


def _state(record: Record, run: Run, was_moved: bool) -> JobState:
    if was_moved:
        try:
            return JobState(run.state)
        except ValueError as error:
            raise UnreadableRecord(f"the stored run is unreadable: {error}") from error
    if record.due_ms:
        return JobState.DELAYED
    return JobState.PRIORITIZED if record.priority else JobState.WAITING
