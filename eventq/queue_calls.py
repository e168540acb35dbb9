"""What a queue can be asked besides adding: reading, managing. Each method is one operation, performed on the queue's runner."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from eventq.commands.manage import pause_queue, resume_queue
from eventq.commands.read import count_jobs, is_paused
from eventq.context import DataT, QueueContext, ResultT
from eventq.operations import managing, reading
from eventq.records import UnreadableRecord
from eventq.states import JobState, still_to_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta

    from eventq.commands.core import Steps
    from eventq.job import Job
    from eventq.records import StoredJob

R = TypeVar("R")
log: Final = logging.getLogger("eventq")


class QueueCalls(Generic[DataT, ResultT]):
    """Mixin of Queue. Bulk operations make bounded calls of 250 jobs each, so they may run under load; `on_progress` is told
    after each how many jobs are done. One that is cancelled has done a part of them, and nothing is half done.
    """

    context: QueueContext[DataT, ResultT]

    @abstractmethod
    def _found(self, stored: StoredJob) -> Job[DataT, ResultT]: ...

    async def _perform(self, steps: Steps[R]) -> R:
        return await self.context.runner.perform(steps)

    # -- reading

    async def get_job(self, job_id: str) -> Job[DataT, ResultT] | None:
        """Return the job, None when it is not stored. One round trip. Its data is decoded when it is asked for."""
        stored = await self.context.stored(job_id)
        return None if stored is None else self._found(stored)

    async def get_state(self, job_id: str) -> JobState:
        """Return where a job stands. One round trip. Raises JobNotFound."""
        return (await self.context.require(job_id)).state

    async def get_jobs(
        self,
        states: Sequence[JobState | str] | JobState | str,
        start: int = 0,
        limit: int = 100,
        *,
        ascending: bool = False,
    ) -> list[Job[DataT, ResultT]]:
        """Return a page of jobs per state, states in the order asked, at most `limit` of each.

        Order: newest first, or with `ascending` line order (waiting), due time (delayed), oldest first (finished). `paused`
        gives the waiting jobs of a paused queue. Two round trips per state. Raises ConfigurationError for an unknown state.
        """
        found: list[Job[DataT, ResultT]] = []
        for stored in await self._perform(reading.page(self.context.keys, states, start, limit, ascending)):
            if isinstance(stored, UnreadableRecord):
                log.warning("queue %s: a job is left out of a listing: %s", self.context.name, stored)
            else:
                found.append(self._found(stored))
        return found

    async def get_job_counts(self) -> Mapping[JobState, int]:
        """Return the number of jobs in every state. One round trip, O(1) whatever the queue's length."""
        return await self.context.runner.run(count_jobs(self.context.keys))

    async def get_counts_per_priority(self, priorities: Iterable[int]) -> dict[int, int]:
        """Return how many jobs are in line of each of these priorities (at most 500); 0 are those without one. One round trip."""
        return await self._perform(reading.counts_per_priority(self.context.keys, priorities))

    async def count(self) -> int:
        """Return the number of jobs still to run: waiting, prioritized, delayed, waiting for children, paused."""
        return still_to_run(await self.get_job_counts())

    async def get_job_logs(self, job_id: str, start: int = 0, limit: int = 100) -> list[str]:
        """Return lines of a job's log, the oldest that is kept first. One round trip. Raises JobNotFound."""
        return await self._perform(reading.logs(self.context.keys, job_id, start, limit))

    # -- managing

    async def pause(self) -> None:
        """Stop claiming on every worker. Adding goes on, running jobs finish. One round trip."""
        await self.context.runner.run(pause_queue(self.context.keys))

    async def resume(self) -> None:
        """Let workers claim again. One round trip."""
        await self.context.runner.run(resume_queue(self.context.keys))

    async def is_paused(self) -> bool:
        """Return whether the queue is paused. One round trip."""
        return await self.context.runner.run_verb(is_paused(self.context.keys))

    async def remove_jobs(self, job_ids: Iterable[str], *, on_progress: Callable[[int], None] | None = None) -> list[str]:
        """Remove jobs by id with all that is stored of them; return those removed. Running and missing ones are left."""
        return await self._perform(managing.remove(self.context.keys, job_ids, on_progress))

    async def retry_jobs(
        self,
        state: JobState | str = JobState.FAILED,
        *,
        limit: int | None = None,
        reset_attempts: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Put failed (or completed) jobs back in line, the oldest first, at most `limit`; return how many.

        One that ends again meanwhile is not retried again. reset_attempts: attempts (and stalls) count from the beginning. The
        line they come to is that of their priority; of a paused queue they wait.
        """
        return await self._perform(managing.retry(self.context.keys, state, limit, reset_attempts, on_progress))

    async def promote_jobs(self, *, limit: int | None = None, on_progress: Callable[[int], None] | None = None) -> int:
        """Let delayed jobs run now, the one that is due first first, at most `limit`; return how many."""
        return await self._perform(managing.promote(self.context.keys, limit, on_progress))

    async def drain(self, *, delayed: bool = False, on_progress: Callable[[int], None] | None = None) -> int:
        """Remove the jobs in line (waiting and prioritized), and the delayed ones when asked; return how many.

        What comes into line after the call began stays, as do running and finished jobs and schedules. With `delayed`, a job
        that was running and is delayed by a retry meanwhile may be removed.
        """
        return await self._perform(managing.drain(self.context.keys, delayed, on_progress))

    async def clean(
        self,
        grace: float | timedelta,
        limit: int | None = None,
        state: JobState | str = JobState.COMPLETED,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        """Remove jobs that have been in a state for longer than `grace` (seconds), at most `limit`; return their ids.

        Counted from: the end (completed, failed), coming into line (waiting, paused, prioritized), adding (delayed). Of active
        jobs those whose lease ended so long ago, which happens only where no worker and no scheduler is up.
        """
        return await self._perform(managing.clean(self.context.keys, grace, limit, state, on_progress))

    async def obliterate(self, *, force: bool = False) -> int:
        """Remove the queue with all it holds: jobs of every state, logs, totals, schedules; return how many jobs.

        One call, O(1): memory is freed in the background. Raises QueueActive while jobs run, unless forced; then their runs are
        told that they are lost. Readers get one last event, `obliterated`, which is kept for a day with their positions.
        """
        removed = await self._perform(managing.obliterate(self.context.keys, force))
        self.context.is_registered = False
        return removed
