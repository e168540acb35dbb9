"""Reading jobs, counts and logs. Nothing here writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventq.checks import check_whole
from eventq.commands.read import count_priorities, get_jobs, is_paused, job_logs, list_jobs
from eventq.errors import ConfigurationError, JobNotFound
from eventq.keys import check_job_id
from eventq.limits import CALL_JOBS, LOG_LINES, MAX_PRIORITY
from eventq.records import UnreadableRecord
from eventq.states import JobState, parse_state

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from eventq.commands.core import Command, Steps, Verb
    from eventq.keys import QueueKeys
    from eventq.records import StoredJob


def stored(keys: QueueKeys, job_id: str) -> Steps[StoredJob | None]:
    """Read one job, None when it is not stored. Raises UnreadableRecord."""
    found: StoredJob | UnreadableRecord | None = (yield get_jobs(keys, [check_job_id(job_id)]))[0]
    if isinstance(found, UnreadableRecord):
        raise found
    return found


def require(keys: QueueKeys, job_id: str) -> Steps[StoredJob]:
    """Read one job. Raises JobNotFound."""
    found = yield from stored(keys, job_id)
    if found is None:
        raise not_found(keys, job_id)
    return found


def page(
    keys: QueueKeys, states: Sequence[JobState | str] | JobState | str, start: int, limit: int, ascending: bool
) -> Steps[list[StoredJob | UnreadableRecord]]:
    """Read a page of jobs per state, states in the order asked."""
    if not start >= 0 or not 1 <= limit <= CALL_JOBS:
        raise ConfigurationError(f"start {start}, limit {limit}: start must not be negative, limit 1 to {CALL_JOBS}")
    found: list[StoredJob | UnreadableRecord] = []
    for state in [parse_state(state) for state in ([states] if isinstance(states, str) else states)]:
        listed = state
        if state in (JobState.PAUSED, JobState.WAITING):
            paused = yield is_paused(keys)
            if paused is not (state is JobState.PAUSED):
                continue
            listed = JobState.WAITING
        ids = yield from ids_of(keys, listed, start, limit, newest_first=not ascending)
        if ids:
            found += [job for job in (yield get_jobs(keys, ids)) if job is not None]
    return found


def ids_of(
    keys: QueueKeys, state: JobState, start: int, limit: int, *, newest_first: bool
) -> Generator[Command[Any] | Verb[Any], Any, list[str]]:
    """List the ids of one page of a state, in as many calls as its holes take."""
    ids: dict[str, None] = {}
    cursor = ""
    while True:
        found, cursor = yield list_jobs(keys, state, start, limit - len(ids), newest_first=newest_first, cursor=cursor)
        ids |= dict.fromkeys(found)
        if not cursor or len(ids) >= limit:
            return list(ids)[:limit]


def counts_per_priority(keys: QueueKeys, priorities: Iterable[int]) -> Steps[dict[int, int]]:
    """Count the jobs in line by priority."""
    wanted = [check_whole("priority", priority, 0, MAX_PRIORITY) for priority in priorities]
    if not 1 <= len(wanted) <= CALL_JOBS:
        raise ConfigurationError(f"{len(wanted)} priorities: give 1 to {CALL_JOBS} of them")
    counts: dict[int, int] = yield count_priorities(keys, wanted)
    return counts


def logs(keys: QueueKeys, job_id: str, start: int, limit: int) -> Steps[list[str]]:
    """Read lines of a job's log, the oldest kept first. Raises JobNotFound."""
    first, most = check_whole("start", start, 0, LOG_LINES), check_whole("limit", limit, 1, LOG_LINES)
    lines: list[str] = yield job_logs(keys, check_job_id(job_id))
    if not lines:
        yield from require(keys, job_id)
    return lines[first : first + most]


def not_found(keys: QueueKeys, job_id: str) -> JobNotFound:
    """Return the error for a job that is not stored."""
    return JobNotFound(
        f"job {job_id!r} is not in queue {keys.name!r}: never added, or removed since", queue=keys.name, job_id=job_id
    )
