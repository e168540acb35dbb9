"""SyncQueue: the queue for programs without an event loop, as Django, Flask, scripts."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload
from weakref import WeakSet

from eventq.commands.manage import pause_queue, resume_queue
from eventq.commands.read import count_jobs, is_paused
from eventq.context import DataT, NewJob, ResultT
from eventq.durability import Durability
from eventq.errors import BulkAddError
from eventq.limits import Limits
from eventq.operations import managing, reading
from eventq.options import JobOptions, options_of
from eventq.records import Record, UnreadableRecord
from eventq.states import JobState, still_to_run
from eventq.sync_context import SyncContext
from eventq.sync_job import SyncJob, sync_job_of
from eventq.sync_producer import SyncProducers
from eventq.sync_results import SyncResults
from eventq.sync_schedules import SyncScheduling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Self, Unpack

    from eventq.commands.add import NewRecord
    from eventq.commands.core import Steps
    from eventq.options import OptionArguments
    from eventq.records import StoredJob
    from eventq.signing import SigningKeys

R = TypeVar("R")
log: Final = logging.getLogger("eventq")


class SyncQueue(SyncScheduling[DataT, ResultT]):
    """A queue of jobs for programs without an event loop: the calls of Queue, without `await`.

    Safe in threads, and best shared by them: their adds go out together. Connects with its first call; `with` connects, checks
    the server and closes. Usable again in a child after fork (gunicorn's preload). Redis away: calls raise QueueUnavailable
    after 10 seconds. A call that is interrupted (Ctrl-C) leaves nothing behind that a later one could stumble over.

    It has no `on` and no `events`: listeners need an event loop, so use Queue for them. On a loop its calls would block it.
    """

    @overload
    def __init__(
        self: SyncQueue[Any, Any], name: str, *, url: str | None = ..., default_options: JobOptions | None = ...,
        prefix: str = ..., tag: str | None = ..., limits: Limits = ..., durability: Durability | str = ...,
        confirm_timeout: float | timedelta = ...,
        signing_keys: SigningKeys | Mapping[str, bytes] | None = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self, name: str, data_type: type[DataT], *, url: str | None = ...,
        default_options: JobOptions | None = ..., prefix: str = ..., tag: str | None = ..., limits: Limits = ...,
        durability: Durability | str = ..., confirm_timeout: float | timedelta = ...,
        signing_keys: SigningKeys | Mapping[str, bytes] | None = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self, name: str, data_type: type[DataT], *, result_type: type[ResultT], url: str | None = ...,
        default_options: JobOptions | None = ..., prefix: str = ..., tag: str | None = ..., limits: Limits = ...,
        durability: Durability | str = ..., confirm_timeout: float | timedelta = ...,
        signing_keys: SigningKeys | Mapping[str, bytes] | None = ...,
    ) -> None: ...  # fmt: skip

    def __init__(
        self,
        name: str,
        data_type: Any = Any,
        *,
        result_type: Any = Any,
        url: str | None = None,
        default_options: JobOptions | None = None,
        prefix: str = "eventq",
        tag: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        durability: Durability | str = Durability.MEMORY,
        confirm_timeout: float | timedelta = 5.0,
        signing_keys: SigningKeys | Mapping[str, bytes] | None = None,
    ) -> None:
        """Name a queue; nothing is opened yet. All as for Queue: one name is one queue. Raises ConfigurationError."""
        self.context: SyncContext[DataT, ResultT] = SyncContext(
            name,
            data_type,
            result_type,
            url=url,
            prefix=prefix,
            tag=tag,
            default_options=default_options,
            limits=limits,
            signing_keys=signing_keys,
        )
        self._producers = SyncProducers(self.context, durability, confirm_timeout)
        self._producer = self._producers.default
        self._results = SyncResults(self.context)
        _queues.add(self)
        _watch_forks()

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.context.name

    # -- adding

    def add(
        self,
        name: str,
        data: DataT = cast("Any", None),  # noqa: B008
        *,
        durability: Durability | str | None = None,
        **options: Unpack[OptionArguments],
    ) -> SyncJob[DataT, ResultT]:
        """Add one job; the options are those of JobOptions: delay, at, attempts, backoff, priority, lifo, job_id, timeout, ...

        One round trip, shared with the adds of other threads. Repeating it after a lost reply is safe and done for you. An own
        `job_id` that exists returns the stored job. durability: what it waits for, the queue's level unless said here. Raises
        InvalidJob (nothing stored), ServerRefused, QueueUnavailable (unknown whether stored), Unconfirmed (stored, but not known
        to be as durable as was asked for). If interrupted, the job may have been added.
        """
        producer = self._producer if durability is None else self._producers.of(durability)
        record = self.context.record(name, data, options_of(options))
        if not self.context.is_registered:
            self.context.register()
        added_ms = producer.add(record)
        return self._job(record, data, added_ms) if added_ms is not None else self._existing(record, data)

    def add_bulk(
        self, jobs: Iterable[NewJob[DataT]], *, durability: Durability | str | None = None
    ) -> list[SyncJob[DataT, ResultT]]:
        """As Queue.add_bulk: 500 jobs per round trip, each of these calls all or nothing. Raises InvalidJob, BulkAddError."""
        producer = self._producer if durability is None else self._producers.of(durability)
        new = list(jobs)
        records = self.context.records(new)
        self.context.register()
        try:
            times = producer.add_bulk(records)
        except BulkAddError as error:
            done = zip(new, records[: len(error.added)], strict=False)
            error.added = [self._job(record, job.data, 0) for job, record in done]
            error.confirmed = error.added[: len(error.confirmed)]
            raise
        return [
            self._job(record, job.data, ms) if ms is not None else self._existing(record, job.data)
            for job, record, ms in zip(new, records, times, strict=True)
        ]

    # -- reading

    def get_job(self, job_id: str) -> SyncJob[DataT, ResultT] | None:
        """Return the job, None when it is not stored. One round trip. Its data is decoded when it is asked for."""
        stored = self.context.stored(job_id)
        return None if stored is None else self._found(stored)

    def get_state(self, job_id: str) -> JobState:
        """Return where a job stands. One round trip. Raises JobNotFound."""
        return self.context.require(job_id).state

    def get_jobs(
        self,
        states: Sequence[JobState | str] | JobState | str,
        start: int = 0,
        limit: int = 100,
        *,
        ascending: bool = False,
    ) -> list[SyncJob[DataT, ResultT]]:
        """As Queue.get_jobs: a page of jobs per state, states in the order asked, at most `limit` of each, newest first."""
        found: list[SyncJob[DataT, ResultT]] = []
        for stored in self._perform(reading.page(self.context.keys, states, start, limit, ascending)):
            if isinstance(stored, UnreadableRecord):
                log.warning("queue %s: a job is left out of a listing: %s", self.context.name, stored)
            else:
                found.append(self._found(stored))
        return found

    def get_job_counts(self) -> Mapping[JobState, int]:
        """Return the number of jobs in every state. One round trip, O(1) whatever the queue's length."""
        return self.context.runner.run(count_jobs(self.context.keys))

    def get_counts_per_priority(self, priorities: Iterable[int]) -> dict[int, int]:
        """Return how many jobs are in line of each of these priorities (at most 500); 0 are those without one. One round trip."""
        return self._perform(reading.counts_per_priority(self.context.keys, priorities))

    def count(self) -> int:
        """Return the number of jobs still to run: waiting, prioritized, delayed, waiting for children, paused."""
        return still_to_run(self.get_job_counts())

    def get_job_logs(self, job_id: str, start: int = 0, limit: int = 100) -> list[str]:
        """Return lines of a job's log, the oldest that is kept first. One round trip. Raises JobNotFound."""
        return self._perform(reading.logs(self.context.keys, job_id, start, limit))

    # -- managing

    def pause(self) -> None:
        """Stop claiming on every worker. Adding goes on, running jobs finish. One round trip."""
        self.context.runner.run(pause_queue(self.context.keys))

    def resume(self) -> None:
        """Let workers claim again. One round trip."""
        self.context.runner.run(resume_queue(self.context.keys))

    def is_paused(self) -> bool:
        """Return whether the queue is paused. One round trip."""
        return self.context.runner.run_verb(is_paused(self.context.keys))

    def remove_jobs(self, job_ids: Iterable[str], *, on_progress: Callable[[int], None] | None = None) -> list[str]:
        """As Queue.remove_jobs: by id; return those removed. Running and missing ones are left."""
        return self._perform(managing.remove(self.context.keys, job_ids, on_progress))

    def retry_jobs(
        self,
        state: JobState | str = JobState.FAILED,
        *,
        limit: int | None = None,
        reset_attempts: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """As Queue.retry_jobs: put failed (or completed) jobs back in line, the oldest first; return how many."""
        return self._perform(managing.retry(self.context.keys, state, limit, reset_attempts, on_progress))

    def promote_jobs(self, *, limit: int | None = None, on_progress: Callable[[int], None] | None = None) -> int:
        """As Queue.promote_jobs: let delayed jobs run now, the one that is due first first; return how many."""
        return self._perform(managing.promote(self.context.keys, limit, on_progress))

    def drain(self, *, delayed: bool = False, on_progress: Callable[[int], None] | None = None) -> int:
        """As Queue.drain: remove the jobs in line, and the delayed ones when asked; return how many."""
        return self._perform(managing.drain(self.context.keys, delayed, on_progress))

    def clean(
        self,
        grace: float | timedelta,
        limit: int | None = None,
        state: JobState | str = JobState.COMPLETED,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        """As Queue.clean: remove jobs that have been in a state for longer than `grace` (seconds); return their ids."""
        return self._perform(managing.clean(self.context.keys, grace, limit, state, on_progress))

    def obliterate(self, *, force: bool = False) -> int:
        """As Queue.obliterate: remove the queue with all it holds; return how many jobs. Raises QueueActive while jobs run."""
        removed = self._perform(managing.obliterate(self.context.keys, force))
        self.context.is_registered = False
        return removed

    # -- beginning and end

    def ready(self) -> None:
        """Return once connected, the server checked, the queue listed."""
        self.context.register()

    def close(self) -> None:
        """Close the connections. Adds in flight finish first; who waits for a result is told. Jobs are not touched."""
        with ExitStack() as closing:  # from the last to the first; one that fails keeps none from closing
            closing.callback(self.context.runner.close)
            closing.callback(self._results.close)
            closing.callback(self._producers.close)

    def __enter__(self) -> Self:
        self.ready()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SyncQueue {self.name} on {self.context.server.where}>"

    def _perform(self, steps: Steps[R]) -> R:
        return self.context.runner.perform(steps)

    def _job(self, record: NewRecord, data: DataT, added_ms: int) -> SyncJob[DataT, ResultT]:
        said = record.options
        due = said.due_ms(added_ms) if said.place else 0
        header = (added_ms, due, said.priority, said.flags, record.name, record.trace)
        parsed = Record(*header, said.options, record.data, record.spec)
        return SyncJob(self.context, record.id, parsed, data, results=self._results)

    def _existing(self, record: NewRecord, data: DataT) -> SyncJob[DataT, ResultT]:
        """Return the job that had the id of an add: as it is stored, or as it was given where it is gone by now."""
        stored = self.context.stored(record.id)
        return self._found(stored) if stored is not None else self._job(record, data, 0)

    def _found(self, stored: StoredJob) -> SyncJob[DataT, ResultT]:
        return sync_job_of(self.context, stored, self._results)

    def in_child(self) -> None:
        """Begin anew in a forked child: what is in flight, and the locks of whoever waits for it, are the parent's."""
        self.context.runner.begin()
        self._producers.begin()
        self._results.begin()


_queues: WeakSet[SyncQueue[Any, Any]] = WeakSet()


@cache
def _watch_forks() -> None:
    """Let every queue begin anew in forked children; once, when there is a queue."""
    os.register_at_fork(after_in_child=_in_child)


def _in_child() -> None:
    for queue in list(_queues):
        queue.in_child()
