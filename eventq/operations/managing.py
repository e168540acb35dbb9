"""Managing jobs in bulk. Every operation is a row of bounded calls (250 jobs each), so it may run under load: the server is never
kept busy for long, and what comes into the state meanwhile is left alone. One that is stopped in the middle has done a part, and
nothing is half done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from eventq.checks import check_whole
from eventq.commands.events import stream_state
from eventq.commands.manage import (
    clean_jobs,
    delayed_count,
    delayed_ids,
    listed_tag,
    obliterate_queue,
    promote_jobs,
    remove_jobs,
    retry_jobs,
    unlist_queue,
)
from eventq.commands.read import is_paused, list_finished, register_queue
from eventq.durations import to_ms
from eventq.errors import InvalidJob, QueueActive
from eventq.keys import check_job_id
from eventq.limits import SLICE_JOBS
from eventq.states import FINISHED, JobState, parse_state

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from datetime import timedelta

    from eventq.commands.core import Command, Steps, Verb
    from eventq.commands.manage import Cleaned
    from eventq.keys import QueueKeys

    OnProgress = Callable[[int], None] | None

#: More jobs than a queue can hold: no limit.
_ALL: Final = 2**53
_CLEANABLE: Final = tuple(state for state in JobState if state is not JobState.WAITING_CHILDREN)


def remove(keys: QueueKeys, job_ids: Iterable[str], on_progress: OnProgress) -> Steps[list[str]]:
    """Remove jobs by id; those that are running or missing are left."""
    if isinstance(job_ids, str):
        raise InvalidJob(f"job_ids {job_ids!r}: must be several ids, not one; wrap it in a list")
    ids = [check_job_id(job_id) for job_id in job_ids]
    removed: list[str] = []
    for start in range(0, len(ids), SLICE_JOBS):
        chunk = ids[start : start + SLICE_JOBS]
        verdicts = yield remove_jobs(keys, chunk)
        removed += [job_id for job_id, verdict in zip(chunk, verdicts, strict=True) if verdict == "d"]
        _tell(on_progress, len(removed))
    return removed


def retry(keys: QueueKeys, state: JobState | str, limit: int | None, reset_attempts: bool, on_progress: OnProgress) -> Steps[int]:
    """Put finished jobs back in line, the oldest first; one that ends again meanwhile is not retried again."""
    finished, most = parse_state(state, FINISHED), _check_limit(limit)
    until, retried, tried = "", 0, _Tried()
    while retried < most:
        until, ids = yield list_finished(keys, finished, until, tried.left, min(SLICE_JOBS, most - retried))
        if not ids:
            break
        if fresh := tried.fresh(ids):
            verdicts = yield retry_jobs(keys, fresh, state=finished, reset_attempts=bool(reset_attempts))
            retried += tried.take(fresh, verdicts, "r")
            _tell(on_progress, retried)
    return retried


def promote(keys: QueueKeys, limit: int | None, on_progress: OnProgress) -> Steps[int]:
    """Put delayed jobs into line now, the one that is due first first; at most as many as were delayed in the beginning."""
    most = _check_limit(limit)
    most = min(most, (yield delayed_count(keys)))
    promoted, tried = 0, _Tried()
    while promoted < most:
        ids = yield delayed_ids(keys, tried.left, min(SLICE_JOBS, most - promoted))
        if not ids:
            break
        if fresh := tried.fresh(ids):
            verdicts = yield promote_jobs(keys, fresh)
            promoted += tried.take(fresh, verdicts, "p")
            _tell(on_progress, promoted)
    return promoted


def drain(keys: QueueKeys, delayed: bool, on_progress: OnProgress) -> Steps[int]:
    """Remove what is in line, and what is delayed when asked to; what comes later stays."""
    states = [JobState.WAITING, JobState.PRIORITIZED, *[JobState.DELAYED][: bool(delayed)]]
    removed, cutoff = 0, "-0"
    for state in states:
        ids, cutoff = yield from _clean_state(
            keys, state, cutoff, most=_ALL, reason="drained", on_progress=on_progress, before=removed
        )
        removed += len(ids)
    return removed


def clean(
    keys: QueueKeys, grace: float | timedelta, limit: int | None, state: JobState | str, on_progress: OnProgress
) -> Steps[list[str]]:
    """Remove jobs that have been in a state for longer than the grace."""
    wanted, most = parse_state(state, _CLEANABLE), _check_limit(limit)
    cutoff = f"-{to_ms('grace', grace)}"
    if wanted in (JobState.WAITING, JobState.PAUSED):
        paused = yield is_paused(keys)
        if paused is not (wanted is JobState.PAUSED):
            return []
        wanted = JobState.WAITING
    ids, _ = yield from _clean_state(keys, wanted, cutoff, most=most, reason="cleaned", on_progress=on_progress, before=0)
    return ids


def obliterate(keys: QueueKeys, force: bool) -> Steps[int]:
    """Remove the queue with all it holds. Raises QueueActive while jobs are running, unless forced."""
    epoch, _ = yield stream_state(keys)
    if not epoch:
        yield from _unlist(keys)
        return 0
    verdict, count = yield obliterate_queue(keys, epoch, force=bool(force))
    if verdict == "active":
        raise QueueActive(
            f"queue {keys.name!r} has {count} running jobs, so nothing was removed: close its workers first, or force it "
            "(runs are then told that they are lost)"
        )
    yield from _unlist(keys)
    return int(count)


def enlist(keys: QueueKeys) -> Steps[None]:
    """List the queue for discovery. What is listed already is only read, so whoever may write nothing can open a queue."""
    if (yield listed_tag(keys)) != keys.tag:
        yield register_queue(keys)


def _unlist(keys: QueueKeys) -> Steps[None]:
    """Take the queue off the list, unless another one of its name, with another tag, stands there."""
    if (yield listed_tag(keys)) == keys.tag:
        yield unlist_queue(keys)


def _clean_state(
    keys: QueueKeys, state: JobState, cutoff: str, *, most: int, reason: str, on_progress: OnProgress, before: int
) -> Generator[Command[Any] | Verb[Any], Any, tuple[list[str], str]]:
    """Clean one state to its end; returns the ids and the cutoff that counted."""
    removed: list[str] = []
    cursor, in_pass, was_kept = "", 0, False
    while len(removed) < most:
        most_now = min(SLICE_JOBS, most - len(removed))
        done: Cleaned = yield clean_jobs(keys, state, cutoff=cutoff, cursor=cursor, most=most_now, reason=reason)
        removed += done.ids
        in_pass += len(done.ids)
        cutoff, cursor = done.cutoff, done.cursor
        _tell(on_progress, before + len(removed))
        was_kept = was_kept or cursor not in ("", "0", "more")
        if not cursor:
            # Claims move the line under a walk that has left jobs at its head: then it is walked again, until nothing is found.
            if state is not JobState.WAITING or not was_kept or not in_pass:
                break
            in_pass, was_kept = 0, False
    return removed, cutoff


class _Tried:
    """Who was tried in vain, so that a walk which always begins with the oldest comes to an end. Most of them are gone by the
    next listing; those that are listed again (`left`: how many so far) stay for ever, and are passed over.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self.left = 0

    def fresh(self, ids: list[str]) -> list[str]:
        """Return those that have not been tried."""
        fresh = [job_id for job_id in ids if job_id not in self._ids]
        self.left += len(ids) - len(fresh)
        return fresh

    def take(self, ids: list[str], verdicts: str, done: str) -> int:
        """Remember the verdicts; return for how many it was done."""
        self._ids.update(job_id for job_id, verdict in zip(ids, verdicts, strict=True) if verdict != done)
        return verdicts.count(done)


def _check_limit(limit: int | None) -> int:
    return _ALL if limit is None else check_whole("limit", limit, 1, _ALL)


def _tell(on_progress: OnProgress, handled: int) -> None:
    if on_progress is not None:
        on_progress(handled)
