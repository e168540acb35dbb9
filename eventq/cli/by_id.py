"""Changing jobs that are named by their ids, 500 a call, with a word about each that could not be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from eventq.cli.manage import Done, Order, Plan
from eventq.cli.text import counted, number
from eventq.commands.read import get_jobs
from eventq.keys import check_job_id
from eventq.limits import CALL_JOBS
from eventq.records import StoredJob

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventq.commands.core import Command
    from eventq.queue import Queue
    from eventq.states import JobState

    OnProgress = Callable[[int], None]
    Change = Callable[[Queue[Any, Any], Sequence[str]], Command[str]]

__all__ = ["change_by_id"]

#: Jobs read at once: their data comes along, up to 256 KiB of each.
_READ: Final = 100
#: Jobs that could not be changed of which each gets a sentence.
_TOLD: Final = 20


def change_by_id(
    command: str,
    did: str,
    ids: Sequence[str],
    change: Change,
    *,
    done: str,
    states: tuple[JobState, ...],
    hint: str = "",
    destroys: bool = False,
) -> Order:
    """Return the order. change: a call for up to 500 jobs that answers a letter for each; done: the letter of a changed one.

    states: in which a job can be changed. hint: as of Done. Raises InvalidJob for what is no id.
    """
    wanted = [check_job_id(job_id) for job_id in dict.fromkeys(ids)]
    some = counted(len(wanted), "job")

    async def plan(queue: Queue[Any, Any]) -> Plan:
        others = await _others(queue, wanted, states)
        count = len(wanted) - len(others)
        left = "".join(f"; {each}" for each in others[:_TOLD])
        return Plan(does=f"{command} {number(count)} of {some} of queue {queue.name}{left}", count=count)

    async def act(queue: Queue[Any, Any], on_progress: OnProgress) -> Done:
        changed: list[str] = []
        for start in range(0, len(wanted), CALL_JOBS):
            chunk = wanted[start : start + CALL_JOBS]
            verdicts = await queue.context.runner.run(change(queue, chunk))
            changed += [job_id for job_id, verdict in zip(chunk, verdicts, strict=True) if verdict == done]
            on_progress(len(changed))
        left = [job_id for job_id in wanted if job_id not in set(changed)]
        others = await _others(queue, left, ()) if left else []
        told = (*others[:_TOLD], *[f"and {number(len(others) - _TOLD)} more"] * (len(others) > _TOLD))
        said = f"{did} {number(len(changed))} of {some} of queue {queue.name}"
        return Done(did=said, count=len(changed), facts={"ids": changed, "left": left}, hint=hint, failed=told)

    async def total(queue: Queue[Any, Any]) -> int:
        return len(wanted)

    return Order(command=command, plan=plan, act=act, total=total, destroys=destroys)


async def _others(queue: Queue[Any, Any], ids: Sequence[str], states: tuple[JobState, ...]) -> list[str]:
    """Return a sentence for each job that is in none of these states (an unreadable one is in any); without states, for each."""
    told: list[str] = []
    for start in range(0, len(ids), _READ):
        chunk = ids[start : start + _READ]
        stored = await queue.context.runner.run(get_jobs(queue.context.keys, chunk))
        for job_id, job in zip(chunk, stored, strict=True):
            if job is None:
                told.append(f"job {job_id} is not in the queue: never added, or removed since")
            elif isinstance(job, StoredJob) and job.state not in states:
                told.append(f"job {job_id} is {job.state}")
            elif not isinstance(job, StoredJob) and not states:
                told.append(f"job {job_id}: {job}")
    return told
