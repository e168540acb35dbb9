"""What is the same for states that differ in nothing that matters: which worker is which, and what tokens are called.

Of a token it matters whether it is the one of the job's present run, or of that in the replica, and which others of the same
worker it equals: no two workers ever have one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from .world import Beat, Record, State, Worker

Name = Callable[[int, int], int]


def sameness(state: State) -> Hashable:
    """Return a key that is equal for states that are the same."""
    replica = state.replica
    jobs = [(job.state, job.token > 0, *job[2:]) for job in state.jobs]
    kept = [_worker(state, worker, replica[2][at] if replica else None) for at, worker in enumerate(state.workers)]
    if len(kept) > 1:
        kept.sort(key=hash)
    orphans = tuple(_orphan(state, orphan) for orphan in state.orphans)
    there: Any = None
    if replica is not None:
        same = [job.token == other.token for job, other in zip(state.jobs, replica[0], strict=True)]
        there = (*((job.state, job.token > 0, *job[2:]) for job in replica[0]), *same, replica[1])
    return (*jobs, state.wait, *kept, state.faults, orphans, state.swept, state.paused, there, state.fresh)


def _names(state: State) -> Name:
    """Return what names tokens: 1 the present one, 2 the replica's, then others as they come."""
    others: dict[tuple[int, int], int] = {}
    jobs, replica = state.jobs, state.replica

    def name(job: int, token: int) -> int:
        if jobs[job].token == token:
            return 1
        if replica is not None and replica[0][job].token == token:
            return 2
        return others.setdefault((job, token), len(others) + 3)

    return name


def _worker(state: State, worker: Worker, replicated: Record | None) -> Hashable:
    name = _names(state)
    key: list[Any] = [worker.mode]
    for run in worker.held:
        key += (run.job, name(run.job, run.token), *run[2:])
    call, old, beat = worker.call, worker.old, worker.beat
    if call is not None:
        key += ("call", call.wanted, call.age, call.stray, call.reply and call.reply.stale)
        _add(key, name, (*call.outcomes, *(call.reply.claims if call.reply else ())))
    key += (worker.record and _record(worker.record, name), replicated and _record(replicated, name))
    if old is not None:
        key += ("old", old.back, old.wanted)
        _add(key, name, old.outcomes)
    if beat is not None:
        key += ("beat", beat.age, beat.done, beat.reply)
        _add(key, name, beat.runs)
    for what, runs in (("old beat", worker.old_beat), ("releasing", worker.releasing)):
        if runs:
            key.append(what)
            _add(key, name, runs)
    return tuple(key)


def _add(key: list[Any], name: Name, tokens: Iterable[tuple[Any, ...]]) -> None:
    """Put what begins with a job and a token into the key."""
    for job, token, *rest in tokens:
        key += (job, name(job, token), *rest)


def _record(record: Record, name: Name) -> Hashable:
    if record.reply is None:
        return record.back
    return (record.back, record.reply.stale, *((claim.job, name(claim.job, claim.token)) for claim in record.reply.claims))


def _orphan(state: State, orphan: Any) -> Hashable:
    name = _names(state)
    if isinstance(orphan, Beat):
        return tuple((job, name(job, token)) for job, token in orphan.runs)
    return (orphan.wanted, *((each.job, name(each.job, each.token), each.word) for each in orphan.outcomes))
