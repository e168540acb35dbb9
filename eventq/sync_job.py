"""A job as programs without an event loop hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from eventq.context import DataT, ResultT
from eventq.job import UNDECODED, BaseJob, Undecoded, stored_progress
from eventq.operations import changing, reading
from eventq.records import NEVER_RUN, Record, Run, StoredJob

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from eventq.states import JobState
    from eventq.sync_context import SyncContext
    from eventq.sync_results import SyncResults


class SyncJob(BaseJob[DataT, ResultT]):
    """One job of a SyncQueue. What it says is as of when it was read; methods ask Redis anew, and wait for the answer.

    As Job, without `await` and without what only a processor has (update_progress, fence, cancelled). Safe in any thread.
    """

    __slots__ = ("_results", "_runner")

    def __init__(
        self,
        context: SyncContext[DataT, ResultT],
        job_id: str,
        record: Record,
        data: DataT | Undecoded,
        run: Run = NEVER_RUN,
        *,
        results: SyncResults,
        progress: Any = None,
        outcome: str | None = None,
    ) -> None:
        super().__init__(context, job_id, record, data, run, progress=progress, outcome=outcome)
        self._runner = context.runner
        self._results = results

    def get_state(self) -> JobState:
        """Read where the job stands. One round trip. Raises JobNotFound."""
        return self._runner.perform(reading.require(self._context.keys, self.id)).state

    def result(self, timeout: float | None = None) -> ResultT:
        """Wait for the outcome and return the result. No polling: an event tells. Many threads may wait; one reads for all.

        timeout: seconds, None waits for ever; while Redis is away it may take 10 seconds longer. Raises JobFailed with the
        processor's error, JobNotFound when the job was removed before its outcome was seen, TimeoutError.
        """
        return cast("ResultT", self._results.wait(self.id, timeout))

    def retry(self, *, reset_attempts: bool = False) -> None:
        """As Job.retry: put a failed job back in line. Raises JobNotFound, InvalidState when it is not failed."""
        self._runner.perform(changing.retry(self._context.keys, self.id, reset_attempts))

    def remove(self) -> None:
        """As Job.remove: with all that is stored of it. Raises JobNotFound, InvalidState while it runs."""
        self._runner.perform(changing.remove(self._context.keys, self.id))

    def promote(self) -> None:
        """As Job.promote: let a delayed job run now. Raises JobNotFound, InvalidState when it is not delayed."""
        self._runner.perform(changing.promote(self._context.keys, self.id))

    def change_delay(self, delay: float | timedelta | None = None, *, at: datetime | None = None) -> None:
        """As Job.change_delay: so many seconds from now, or `at` an absolute time. Raises JobNotFound, InvalidState."""
        self._runner.perform(changing.delay(self._context.keys, self.id, delay, at))

    def change_priority(self, priority: int, *, lifo: bool = False) -> None:
        """As Job.change_priority: and with it the place in line. Raises JobNotFound, InvalidState once finished."""
        self._runner.perform(changing.prioritize(self._context.keys, self.id, priority, lifo))

    def update_data(self, data: DataT) -> None:
        """Replace the job's data; the next run sees it. Raises InvalidJob, BadSignature, JobNotFound; then nothing changed."""
        text = self._context.resealed(self.id, self.record, data)
        self._runner.perform(changing.replace_data(self._context.keys, self.id, "", text))
        self._data = data

    def log(self, line: str) -> None:
        """As Job.log: add a line to the job's log. One round trip. Raises InvalidJob, JobNotFound."""
        self._runner.perform(changing.log(self._context.keys, self.id, "", line))

    def get_logs(self, start: int = 0, limit: int = 100) -> list[str]:
        """Return lines of the job's log, the oldest that is kept first. One round trip. Raises JobNotFound."""
        return self._runner.perform(reading.logs(self._context.keys, self.id, start, limit))

    def clear_logs(self, keep: int = 0) -> None:
        """Remove the log but for its last `keep` lines. Raises JobNotFound."""
        self._runner.perform(changing.clear(self._context.keys, self.id, keep))


def sync_job_of(context: SyncContext[DataT, ResultT], stored: StoredJob, results: SyncResults) -> SyncJob[DataT, ResultT]:
    """Return the job of what is stored."""
    return SyncJob(
        context,
        stored.id,
        stored.record,
        UNDECODED,
        stored.run,
        results=results,
        progress=stored_progress(stored.progress),
        outcome=stored.result,
    )
