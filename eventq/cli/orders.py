"""Each command that changes jobs in bulk: what it would do, and how it does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from eventq.cli.by_id import change_by_id
from eventq.cli.manage import Done, Order, Plan
from eventq.cli.survey import count_old
from eventq.cli.text import age, counted
from eventq.commands.manage import promote_jobs, remove_jobs, retry_jobs
from eventq.durations import to_ms
from eventq.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventq.queue import Queue

    OnProgress = Callable[[int], None]

__all__ = ["clean_order", "drain_order", "obliterate_order", "promote_order", "remove_order", "retry_order"]

#: What `retry` without --reset-attempts means.
_ONE_MORE: Final = "those whose attempts were used up get one more; --reset-attempts gives them all of theirs"


def retry_order(ids: Sequence[str], state: JobState, *, limit: int | None, reset_attempts: bool) -> Order:
    """Put finished jobs back in line: those of these ids, without ids all of the state."""
    hint = _ONE_MORE if state is JobState.FAILED and not reset_attempts else ""
    if ids:
        return change_by_id(
            "retry",
            "retried",
            ids,
            lambda queue, some: retry_jobs(queue.context.keys, some, state=state, reset_attempts=reset_attempts),
            done="r",
            states=(state,),
            hint=hint,
        )

    async def total(queue: Queue[Any, Any]) -> int:
        return _most((await queue.get_job_counts())[state], limit)

    async def plan(queue: Queue[Any, Any]) -> Plan:
        count = await total(queue)
        return Plan(does=f"retry {_jobs(count, state.value)} of queue {queue.name}", count=count)

    async def act(queue: Queue[Any, Any], on_progress: OnProgress) -> Done:
        count = await queue.retry_jobs(state, limit=limit, reset_attempts=reset_attempts, on_progress=on_progress)
        return Done(did=f"retried {_jobs(count, state.value)} of queue {queue.name}", count=count, hint=hint)

    return Order(command="retry", plan=plan, act=act, total=total)


def promote_order(ids: Sequence[str], *, limit: int | None) -> Order:
    """Let delayed jobs run now: those of these ids, without ids all."""
    if ids:
        return change_by_id(
            "promote",
            "promoted",
            ids,
            lambda queue, some: promote_jobs(queue.context.keys, some),
            done="p",
            states=(JobState.DELAYED,),
        )

    async def total(queue: Queue[Any, Any]) -> int:
        return _most((await queue.get_job_counts())[JobState.DELAYED], limit)

    async def plan(queue: Queue[Any, Any]) -> Plan:
        count = await total(queue)
        return Plan(does=f"promote {_jobs(count, 'delayed')} of queue {queue.name}", count=count)

    async def act(queue: Queue[Any, Any], on_progress: OnProgress) -> Done:
        count = await queue.promote_jobs(limit=limit, on_progress=on_progress)
        return Done(did=f"promoted {_jobs(count, 'delayed')} of queue {queue.name}", count=count)

    return Order(command="promote", plan=plan, act=act, total=total)


def remove_order(ids: Sequence[str]) -> Order:
    """Remove jobs by id."""
    return change_by_id(
        "remove",
        "removed",
        ids,
        lambda queue, some: remove_jobs(queue.context.keys, some),
        done="d",
        states=tuple(state for state in JobState if state is not JobState.ACTIVE),
        destroys=True,
    )


def drain_order(*, delayed: bool) -> Order:
    """Remove what is in line, and what is delayed when asked."""
    states = [JobState.WAITING, JobState.PAUSED, JobState.PRIORITIZED, *[JobState.DELAYED] * delayed]
    what = "waiting, prioritized and delayed" if delayed else "waiting and prioritized"

    async def total(queue: Queue[Any, Any]) -> int:
        counts = await queue.get_job_counts()
        return sum(counts[state] for state in states)

    async def plan(queue: Queue[Any, Any]) -> Plan:
        count = await total(queue)
        return Plan(does=f"remove {_jobs(count, what)} of queue {queue.name}", count=count)

    async def act(queue: Queue[Any, Any], on_progress: OnProgress) -> Done:
        count = await queue.drain(delayed=delayed, on_progress=on_progress)
        return Done(did=f"removed {_jobs(count, what)} of queue {queue.name}", count=count)

    return Order(command="drain", plan=plan, act=act, total=total, destroys=True)


def clean_order(grace: float, state: JobState, *, limit: int | None) -> Order:
    """Remove jobs that have been in a state for longer than the grace (seconds)."""
    grace_ms = to_ms("--grace", grace)
    since = f"that have been so for longer than {age(grace)}"

    async def plan(queue: Queue[Any, Any]) -> Plan:
        count = _most(await count_old(queue, state, grace_ms), limit)
        return Plan(does=f"remove {_jobs(count, state.value)} of queue {queue.name} {since}", count=count)

    async def act(queue: Queue[Any, Any], on_progress: OnProgress) -> Done:
        ids = await queue.clean(grace, limit, state, on_progress=on_progress)
        did = f"removed {_jobs(len(ids), state.value)} of queue {queue.name} {since}"
        return Done(did=did, count=len(ids), facts={"ids": ids})

    async def total(queue: Queue[Any, Any]) -> int:
        return _most((await queue.get_job_counts())[state], limit)

    return Order(command="clean", plan=plan, act=act, total=total, destroys=True)


def obliterate_order(queue_name: str, *, force: bool) -> Order:
    """Remove a queue with all it holds."""

    async def plan(queue: Queue[Any, Any]) -> Plan:
        counts = await queue.get_job_counts()
        count, running = sum(counts.values()), counts[JobState.ACTIVE]
        refused = (
            f"{counted(running, 'job')} of queue {queue.name} {'is' if running == 1 else 'are'} running: "
            "close its workers first, or say --force"
        )
        does = f"remove queue {queue.name} with all it holds: {_jobs(count)}, schedules, totals, events, positions of readers"
        return Plan(does=does, count=count, refused=refused if running and not force else "")

    async def act(queue: Queue[Any, Any], on_progress: OnProgress) -> Done:
        count = await queue.obliterate(force=force)
        return Done(did=f"removed queue {queue.name} with {_jobs(count)}", count=count)

    async def total(queue: Queue[Any, Any]) -> int:
        return 0  # one call

    return Order(command="obliterate", plan=plan, act=act, total=total, destroys=True, word=queue_name)


def _jobs(count: int, state: str = "") -> str:
    return counted(count, f"{state} job" if state else "job")


def _most(count: int, limit: int | None) -> int:
    return count if limit is None else min(count, limit)
