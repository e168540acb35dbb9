"""Reading jobs and counts. Nothing here writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from eventq.commands.core import Command, Verb
from eventq.records import StoredJob, UnreadableRecord, parse_stored
from eventq.scripts import load_script
from eventq.states import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.keys import QueueKeys

_decode_line = msgspec.json.Decoder(str).decode
#: States as count_jobs answers them, in order.
COUNTED: Final = (
    JobState.WAITING,
    JobState.PRIORITIZED,
    JobState.DELAYED,
    JobState.ACTIVE,
    JobState.WAITING_CHILDREN,
    JobState.COMPLETED,
    JobState.FAILED,
)


def get_jobs(keys: QueueKeys, ids: Sequence[str]) -> Command[list[StoredJob | UnreadableRecord | None]]:
    """Read at most 500 jobs, in the order asked; None for one that is not stored, the error for one that cannot be read."""
    script = load_script("get_jobs")
    return Command(script, script.keys(keys), list(ids), _parse_jobs, numbered=False)


def _parse_jobs(reply: list[Any]) -> list[StoredJob | UnreadableRecord | None]:
    paused = reply[2] == 1
    jobs: list[StoredJob | UnreadableRecord | None] = []
    for at in range(3, len(reply), 6):
        try:
            jobs.append(parse_stored(paused, reply[at : at + 6]))
        except UnreadableRecord as error:
            jobs.append(error)
    return jobs


def list_jobs(
    keys: QueueKeys, state: JobState, start: int, limit: int, *, newest_first: bool, cursor: str = ""
) -> Command[tuple[list[str], str]]:
    """List the ids of one page of a state (at most 500), in line order or by time; and the cursor to go on with ('' at the end).

    A call looks at 2,000 entries of a line with holes at most, so it may find fewer than there are.
    """
    script = load_script("list_jobs")
    args = [state.value, start, limit, "1" if newest_first else "0", cursor]
    return Command(script, script.keys(keys), args, lambda reply: (list(reply[1]), reply[2]), numbered=False)


def list_finished(keys: QueueKeys, state: JobState, until: str, start: int, limit: int) -> Command[tuple[str, list[str]]]:
    """List at most 500 ids of jobs that ended no later than `until` (ms since the epoch, '' now), and say when that is."""
    script = load_script("list_finished")
    args = [state.value, until, start, limit]
    return Command(script, script.keys(keys), args, lambda reply: (reply[1], list(reply[2])), numbered=False)


def count_jobs(keys: QueueKeys) -> Command[dict[JobState, int]]:
    """Count every state; `paused` takes the waiting jobs of a paused queue."""
    script = load_script("count_jobs")
    return Command(script, script.keys(keys), (), _parse_counts, numbered=False)


def _parse_counts(reply: list[Any]) -> dict[JobState, int]:
    counts: dict[JobState, int] = dict(zip(COUNTED, reply[2:], strict=True))
    counts[JobState.PAUSED] = counts[JobState.WAITING] if reply[1] == 1 else 0
    if reply[1] == 1:
        counts[JobState.WAITING] = 0
    return counts


def count_priorities(keys: QueueKeys, priorities: Sequence[int]) -> Command[dict[int, int]]:
    """Count the jobs in line of at most 500 priorities; 0 are those without one."""
    script = load_script("count_priorities")
    return Command(
        script, script.keys(keys), list(priorities), lambda reply: dict(zip(priorities, reply[1:], strict=True)), numbered=False
    )


def job_logs(keys: QueueKeys, job_id: str) -> Verb[list[str]]:
    """Read what is kept of a job's log, the oldest line first."""
    return Verb(("HGET", keys["logs"], job_id), _parse_logs)


def _parse_logs(reply: str | None) -> list[str]:
    # The first line says how many there ever were.
    try:
        return [_decode_line(line) for line in reply.split("\n")[1:]] if reply else []
    except ValueError as error:
        raise UnreadableRecord(f"the stored log is unreadable: {error}") from error


def is_paused(keys: QueueKeys) -> Verb[bool]:
    """Read whether the queue is paused."""
    return Verb(("HGET", keys["meta"], "paused"), lambda reply: reply == "1")


def register_queue(keys: QueueKeys) -> Verb[None]:
    """List the queue for discovery."""
    return Verb(("HSET", keys.queues, keys.name, keys.tag), lambda _: None)


def wait_for_work(keys: QueueKeys, seconds: float) -> Verb[str | None]:
    """Block until a marker is armed, at most so long. Returns the member that was popped."""
    return Verb(("BZPOPMIN", keys["marker"], f"{seconds:.3f}"), lambda reply: reply[1] if reply else None)


def arm_marker(keys: QueueKeys, member: str) -> Verb[None]:
    """Put a marker back that was popped by a worker with no use for it."""
    return Verb(("ZADD", keys["marker"], 0, member), lambda _: None)
