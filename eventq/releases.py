"""Giving jobs back: to the head of the line, uncounted, in the order they were claimed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from eventq.client import AsyncRunner
from eventq.commands.work import release_jobs
from eventq.errors import EventqError
from eventq.limits import CALL_JOBS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventq.commands.work import Held
    from eventq.context import QueueContext

log: Final = logging.getLogger("eventq.worker")
#: Tries per lease while Redis is away: when it is back, a live worker must be heard within the two thirds of a lease
#: that the first sweep grants, or what it gives back counts as stalled.
_TRIES: Final = 10


class Releases:
    """One writer of its own. Redis away: it goes on trying; a job that is somebody else's by then stays there."""

    def __init__(
        self,
        context: QueueContext[Any, Any],
        lease: float,
        *,
        failed: Callable[[Exception], None],
        on_fault: Callable[[Exception], None],
    ) -> None:
        self._keys = context.keys
        self._failed = failed
        self._runner = AsyncRunner(
            context.server, patience=None, longest_pause=lease / _TRIES, client_name="eventq-worker", on_fault=on_fault
        )
        self._waiting: list[Held] = []
        self._task: asyncio.Task[None] | None = None

    def give_back(self, jobs: Sequence[Held]) -> None:
        """Release these jobs soon, and return at once."""
        self._waiting += jobs
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._send(), name=f"eventq-release {self._keys.name}")

    async def flush(self, timeout: float) -> None:
        """Return when everything is released, or after `timeout` seconds."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout)

    async def close(self) -> None:
        """Stop; what is not released is left to its lease."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._runner.close()

    async def _send(self) -> None:
        while self._waiting:
            jobs, self._waiting = self._waiting, []
            try:
                # The last first: each call puts its jobs before what stands at the head by then.
                for end in range(len(jobs), 0, -CALL_JOBS):
                    await self._runner.run(release_jobs(self._keys, jobs[max(0, end - CALL_JOBS) : end]))
                for job in jobs:
                    log.info("queue=%s job_id=%s outcome=released", self._keys.name, job.job_id)
            except EventqError as error:  # their leases end by themselves
                self._failed(error)
