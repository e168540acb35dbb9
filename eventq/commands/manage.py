"""Managing a queue and its jobs: pause, resume, retry, promote, remove, clean, obliterate, change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventq.commands.core import Command, Verb, batch_reply
from eventq.limits import INLINE_DATA_BYTES, LOG_BYTES, LOG_LINES
from eventq.scripts import load_script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.keys import QueueKeys
    from eventq.states import JobState


def pause_queue(keys: QueueKeys) -> Command[bool]:
    """Stop claiming everywhere. Returns whether this call changed it."""
    script = load_script("pause_queue")
    return Command(script, script.keys(keys), (), lambda reply: reply[1] == 1)


def resume_queue(keys: QueueKeys) -> Command[bool]:
    """Let workers claim again. Returns whether this call changed it."""
    script = load_script("resume_queue")
    return Command(script, script.keys(keys), (), lambda reply: reply[1] == 1)


def retry_jobs(keys: QueueKeys, ids: Sequence[str], *, state: JobState, reset_attempts: bool) -> Command[str]:
    """Put at most 500 finished jobs back in line. Returns a letter per job: r retried, s other state, m missing."""
    script = load_script("retry_jobs")
    args = [state.value, "1" if reset_attempts else "0", len(ids), *ids]
    return Command(script, script.keys(keys), args, batch_reply)


def promote_jobs(keys: QueueKeys, ids: Sequence[str]) -> Command[str]:
    """Put at most 500 delayed jobs into line now. Returns a letter per job: p promoted, s other state, m missing."""
    script = load_script("promote_jobs")
    return Command(script, script.keys(keys), [len(ids), *ids], batch_reply)


def remove_jobs(keys: QueueKeys, ids: Sequence[str]) -> Command[str]:
    """Remove at most 500 jobs that are not running. Returns a letter per job: d removed, a active, m missing."""
    script = load_script("remove_jobs")
    return Command(script, script.keys(keys), [len(ids), *ids], batch_reply)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What one call of clean_jobs removed. `cutoff` (ms) and `cursor` go into the next call; no cursor: there is no more."""

    cutoff: str
    cursor: str
    ids: list[str]


def clean_jobs(keys: QueueKeys, state: JobState, *, cutoff: str, cursor: str, most: int, reason: str) -> Command[Cleaned]:
    """Remove at most `most` (500) jobs that were in a state at the cutoff (ms since the epoch, or `-MS` before now)."""
    script = load_script("clean_jobs")
    args = [state.value, cutoff, most, cursor, reason]
    return Command(script, script.keys(keys), args, lambda reply: Cleaned(reply[1], reply[2], reply[3].split()))


def obliterate_queue(keys: QueueKeys, epoch: str, *, force: bool) -> Command[tuple[str, int]]:
    """Remove the queue of this epoch. Returns gone, active (jobs are running, nothing is changed) or other, and how many jobs."""
    script = load_script("obliterate_queue")
    return Command(script, script.keys(keys), [epoch, "1" if force else "0"], lambda reply: (reply[1], reply[2]))


def update_data(keys: QueueKeys, job_id: str, token: str, data: str) -> Command[str]:
    """Replace a job's data (JSON). `token`: of the run that does it, '' for others. Returns u updated, s stale, m missing."""
    script = load_script("update_data")
    inline, apart = ("", data) if len(data) > INLINE_DATA_BYTES else (data, "")
    return Command(script, script.keys(keys), [job_id, token, inline, apart], batch_reply)


def change_delay(keys: QueueKeys, job_id: str, place: str) -> Command[str]:
    """Change when a delayed job is due (`+MS` from now, `@MS`). Returns u changed, s other state, m missing."""
    script = load_script("change_delay")
    return Command(script, script.keys(keys), [job_id, place], batch_reply)


def change_priority(keys: QueueKeys, job_id: str, priority: int, *, lifo: bool) -> Command[str]:
    """Change a job's priority (0: none). Returns u changed, s finished, m missing."""
    script = load_script("change_priority")
    return Command(script, script.keys(keys), [job_id, priority or "", "1" if lifo else "0"], batch_reply)


def add_log(keys: QueueKeys, job_id: str, token: str, line: str) -> Command[str]:
    """Add a line (JSON) to a job's log. `token` as for update_data. Returns u added, s stale, m missing."""
    script = load_script("add_log")
    return Command(script, script.keys(keys), [job_id, token, line, LOG_LINES, LOG_BYTES], batch_reply)


def clear_logs(keys: QueueKeys, job_id: str, keep: int) -> Command[str]:
    """Remove a job's log lines but for the last so many. Returns u done, m missing."""
    script = load_script("clear_logs")
    return Command(script, script.keys(keys), [job_id, keep], batch_reply)


def listed_tag(keys: QueueKeys) -> Verb[str | None]:
    """Read under which tag a queue of this name is listed."""
    return Verb(("HGET", keys.queues, keys.name), lambda reply: reply)


def unlist_queue(keys: QueueKeys) -> Verb[None]:
    """Take the queue off the list for discovery."""
    return Verb(("HDEL", keys.queues, keys.name), lambda _: None)


def delayed_ids(keys: QueueKeys, start: int, limit: int) -> Verb[list[str]]:
    """Read ids of delayed jobs, the one that is due first first."""
    return Verb(("ZRANGE", keys["delayed"], start, start + limit - 1), lambda reply: list(reply))


def delayed_count(keys: QueueKeys) -> Verb[int]:
    """Read how many jobs are delayed."""
    return Verb(("ZCARD", keys["delayed"]), int)
