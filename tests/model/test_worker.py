"""A worker whose run was taken away behind its back: told, cancelled, and silent about an outcome that is not recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eventq import Job, Queue, Worker
from eventq.commands.work import Held, release_jobs
from eventq.errors import LeaseLost

if TYPE_CHECKING:
    from ..conftest import WaitUntil

Record = Callable[[Any], None]


async def take_away(queue: Queue[Any, Any], job: Job[Any, Any]) -> None:
    """Release the job's run under its own token, so that its worker's next word about it is stale."""
    context = queue.context
    token = (await context.require(job.id)).run.token
    assert 1 == await context.runner.run(release_jobs(context.keys, [Held(job.id, token, '"name":"j","attempt":1')]))


async def test_a_refused_outcome_is_told_as_a_lost_lease(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Of two runs, the first taken away before it ends, only the recorded one is told as completed."""
    gates = [asyncio.Event(), asyncio.Event()]
    told: list[Any] = []
    runs: list[str] = []

    async def process(job: Job[Any]) -> int:
        runs.append(job.id)
        await gates[len(runs) - 1].wait()
        return len(runs)

    async with Queue(queue_name, url=url) as queue:
        worker = Worker(queue, process, lease=60)
        worker.on("completed")(lambda event: told.append(event.result))
        worker.on("error")(lambda event: told.append(type(event.error)))
        async with worker:
            job = await queue.add("j")
            await wait_until(lambda: runs)
            await take_away(queue, job)
            gates[0].set()
            await wait_until(lambda: len(runs) == 2, description="the second run")
            gates[1].set()
            assert 2 == await job.result(5)
    assert [LeaseLost, 2] == told


async def test_a_run_whose_lease_is_gone_is_cancelled(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """The next renewal finds the token stale; the task is cancelled then, though nothing else would end it."""
    ended: list[str] = []

    async def process(job: Job[Any]) -> None:
        if ended:
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(job.id)
            raise

    async with Queue(queue_name, url=url) as queue, Worker(queue, process, lease=1.0, grace=0) as worker:
        job = await queue.add("j")
        await wait_until(lambda: worker.running)
        await take_away(queue, job)
        await wait_until(lambda: ended, timeout=3.0, description="the task to be cancelled")
        await job.result(5)
    assert [job.id] == ended
