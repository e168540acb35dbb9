"""Changing one job. Each is one call that checks before it writes; what it refuses changed nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventq.checks import check_whole
from eventq.codec import encode_json
from eventq.commands.manage import (
    add_log,
    change_delay,
    change_priority,
    clear_logs,
    promote_jobs,
    remove_jobs,
    retry_jobs,
    update_data,
)
from eventq.durations import to_epoch_ms, to_ms
from eventq.errors import InvalidJob, InvalidState, LeaseLost
from eventq.keys import check_job_id
from eventq.limits import LOG_LINE_BYTES, LOG_LINES, MAX_PRIORITY
from eventq.operations.reading import not_found, require
from eventq.states import JobState

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime, timedelta

    from eventq.commands.core import Command, Steps, Verb
    from eventq.keys import QueueKeys


def retry(keys: QueueKeys, job_id: str, reset_attempts: bool) -> Steps[None]:
    """Put a failed job back in line."""
    verdict = yield retry_jobs(keys, [job_id], state=JobState.FAILED, reset_attempts=reset_attempts)
    yield from _check(keys, job_id, verdict, "only a failed job can be retried")


def remove(keys: QueueKeys, job_id: str) -> Steps[None]:
    """Remove a job with all that is stored of it."""
    verdict = yield remove_jobs(keys, [job_id])
    yield from _check(keys, job_id, verdict, "it cannot be removed while it runs")


def promote(keys: QueueKeys, job_id: str) -> Steps[None]:
    """Put a delayed job into line now."""
    verdict = yield promote_jobs(keys, [job_id])
    yield from _check(keys, job_id, verdict, "only a delayed job can be promoted")


def replace_data(keys: QueueKeys, job_id: str, token: str, data: str) -> Steps[None]:
    """Replace a job's data (JSON). With the token of a run that is over: LeaseLost."""
    verdict = yield update_data(keys, job_id, token, data)
    yield from _check(keys, job_id, verdict, "its data was not replaced", token)


def delay(keys: QueueKeys, job_id: str, seconds: float | timedelta | None, at: datetime | None) -> Steps[None]:
    """Change when a delayed job is due."""
    if (seconds is None) == (at is None):
        raise InvalidJob(f"delay {seconds!r} and at {at!r}: give one of them")
    place = f"@{to_epoch_ms('at', at)}" if at is not None else f"+{to_ms('delay', 0 if seconds is None else seconds)}"
    verdict = yield change_delay(keys, job_id, place)
    yield from _check(keys, job_id, verdict, "only a delayed job has a delay to change")


def prioritize(keys: QueueKeys, job_id: str, priority: int, lifo: bool) -> Steps[None]:
    """Change a job's priority and its place in line."""
    check_whole("priority", priority, 0, MAX_PRIORITY, error=InvalidJob)
    if not isinstance(lifo, bool):
        raise InvalidJob(f"lifo {lifo!r}: must be True or False")
    verdict = yield change_priority(keys, job_id, priority, lifo=lifo)
    yield from _check(keys, job_id, verdict, "a finished job stands in no line")


def log(keys: QueueKeys, job_id: str, token: str, line: str) -> Steps[None]:
    """Add a line to a job's log. With the token of a run that is over: LeaseLost."""
    if not isinstance(line, str):
        raise InvalidJob(f"log line {line!r}: must be text (str)")
    text = encode_json(line, "log line")
    if (size := len(text.encode())) > LOG_LINE_BYTES:
        raise InvalidJob(f"log line of {size} bytes: larger than the limit of {LOG_LINE_BYTES} bytes")
    verdict = yield add_log(keys, check_job_id(job_id), token, text)
    yield from _check(keys, job_id, verdict, "the line was not added", token)


def clear(keys: QueueKeys, job_id: str, keep: int) -> Steps[None]:
    """Remove a job's log lines but for the last so many."""
    verdict = yield clear_logs(keys, check_job_id(job_id), check_whole("keep", keep, 0, LOG_LINES))
    yield from _check(keys, job_id, verdict, "")


def _check(
    keys: QueueKeys, job_id: str, verdict: str, why: str, token: str = ""
) -> Generator[Command[Any] | Verb[Any], Any, None]:
    """Raise what a verdict stands for."""
    if verdict == "m":
        raise not_found(keys, job_id)
    if verdict == "s" and token:
        raise LeaseLost(f"job {job_id!r}: the lease of this run is gone, {why}", queue=keys.name, job_id=job_id)
    if verdict in ("s", "a"):
        found = yield from require(keys, job_id)
        raise InvalidState(f"job {job_id!r} is {found.state}: {why}", queue=keys.name, job_id=job_id)
