"""How many jobs `clean` would remove: counted the way it chooses, and changing nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from eventq.commands.events import server_time
from eventq.commands.inspect import count_scores, hash_values, line_page, set_page
from eventq.commands.read import is_paused
from eventq.records import UnreadableRecord, parse_record, parse_run
from eventq.states import FINISHED, JobState

if TYPE_CHECKING:
    from eventq.client import AsyncRunner
    from eventq.keys import QueueKeys
    from eventq.queue import Queue

__all__ = ["count_old"]

#: Finished jobs with an age rule of their own stand this much higher in their sorted set.
_PINNED: Final = 2**50
_PAGE: Final = 1000


async def count_old(queue: Queue[Any, Any], state: JobState, grace_ms: int) -> int:
    """Return how many jobs have been in a state for longer than the grace. Reads every job that is in line, 1,000 a call."""
    runner, keys = queue.context.runner, queue.context.keys
    before = await runner.run_verb(server_time()) - grace_ms
    if state in FINISHED:
        plain = await runner.run_verb(count_scores(keys, state.value, "-inf", before))
        return plain + await runner.run_verb(count_scores(keys, state.value, _PINNED, _PINNED + before))
    if state is JobState.ACTIVE:  # those nobody renews
        return await runner.run_verb(count_scores(keys, "leases", "-inf", before))
    if state in (JobState.WAITING, JobState.PAUSED) and await runner.run_verb(is_paused(keys)) is not (state is JobState.PAUSED):
        return 0
    return await _count_in_line(runner, keys, JobState.WAITING if state is JobState.PAUSED else state, before)


async def _count_in_line(runner: AsyncRunner, keys: QueueKeys, state: JobState, before: int) -> int:
    old: set[str] = set()
    start = 0
    while True:
        is_list = state is JobState.WAITING
        ids = await runner.run_verb(line_page(keys, start, _PAGE) if is_list else set_page(keys, state.value, start, _PAGE))
        if not ids:
            return len(old)
        start += len(ids)
        records = await runner.run_verb(hash_values(keys, "jobs", ids))
        runs = await runner.run_verb(hash_values(keys, "runs", ids))
        old.update(i for i, record, run in zip(ids, records, runs, strict=True) if _since(record, run, state) <= before)


def _since(record: str | None, run: str | None, state: JobState) -> float:
    """Return since when a job is in a state (ms), infinity when it is not. A record that cannot be read is as old as can be."""
    if record is None:  # a hole
        return float("inf")
    try:
        parsed = parse_record(record, "null")
        if run is not None:
            ran = parse_run(run)
            since = parsed.added_ms if state is JobState.DELAYED else ran.ready_ms
            return since if ran.state == state else float("inf")
    except UnreadableRecord:
        return 0
    fresh = JobState.DELAYED if parsed.due_ms else JobState.PRIORITIZED if parsed.priority else JobState.WAITING
    return parsed.added_ms if fresh is state else float("inf")
