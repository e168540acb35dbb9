"""Queue: adding jobs, reading them, pausing, listening."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Generic, cast, overload
from weakref import WeakSet

import msgspec

from eventq.commands.manage import pause_queue, resume_queue
from eventq.commands.read import count_jobs, get_jobs, is_paused, list_jobs
from eventq.context import DataT, QueueContext, ResultT
from eventq.errors import BulkAddError, ConfigurationError, InvalidJob
from eventq.job import Job, job_of
from eventq.limits import CALL_JOBS, Limits
from eventq.options import JobOptions
from eventq.producer import Producer
from eventq.queue_events import EventStream
from eventq.queue_listener import QueueListener
from eventq.records import Record, UnreadableRecord
from eventq.signals import Listeners, Listening
from eventq.states import JobState
from eventq.tracing import trace_fragment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Self

    from eventq.backoff import Backoff
    from eventq.commands.add import NewRecord
    from eventq.options import Retention


log: Final = logging.getLogger("eventq")


class NewJob(msgspec.Struct, Generic[DataT], frozen=True):
    """One job of a bulk add."""

    name: str
    data: DataT = cast("Any", None)
    options: JobOptions | None = None


class Queue(Listening, Generic[DataT, ResultT]):
    """A queue of jobs with data of one type (any JSON without one).

    Connects with its first call; `async with` connects, checks the server and closes. Concurrent adds share round trips.
    Bound to one event loop; usable again in a child after fork. Redis away: calls raise QueueUnavailable after 10 seconds.
    """

    @overload
    def __init__(
        self: Queue[Any, Any], name: str, *, url: str | None = ..., default_options: JobOptions | None = ...,
        prefix: str = ..., tag: str | None = ..., limits: Limits = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self, name: str, data_type: type[DataT], *, url: str | None = ...,
        default_options: JobOptions | None = ..., prefix: str = ..., tag: str | None = ..., limits: Limits = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self, name: str, data_type: type[DataT], *, result_type: type[ResultT], url: str | None = ...,
        default_options: JobOptions | None = ..., prefix: str = ..., tag: str | None = ..., limits: Limits = ...,
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
    ) -> None:
        """Name a queue; nothing is opened yet.

        url: redis://, unix://, rediss://, embedded://, embedded:///path; default EVENTQ_URL, then redis://localhost:6379/0.
        default_options: for jobs that do not say otherwise; remove_on_complete and remove_on_fail become the queue's rule.
        tag: the Cluster slot's tag, the name unless set. Raises ConfigurationError.
        """
        self.context: QueueContext[DataT, ResultT] = QueueContext(
            name,
            data_type,
            result_type,
            url=url,
            prefix=prefix,
            tag=tag,
            default_options=default_options,
            limits=limits,
        )
        self.listeners = Listeners(self, name)
        self._listener = QueueListener(self.context, self.listeners)
        self._producer = Producer(self.context)
        self._streams: WeakSet[EventStream] = WeakSet()
        _queues.add(self)
        _watch_forks()

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.context.name

    async def add(
        self,
        name: str,
        data: DataT = cast("Any", None),  # noqa: B008
        *,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        attempts: int | None = None,
        backoff: Backoff | float | timedelta | None = None,
        priority: int | None = None,
        lifo: bool | None = None,
        job_id: str | None = None,
        remove_on_complete: Retention | None = None,
        remove_on_fail: Retention | None = None,
        timeout: float | timedelta | None = None,
    ) -> Job[DataT, ResultT]:
        """Add one job; the options are those of JobOptions.

        One round trip, shared with adds made at the same time. Repeating it after a lost reply is safe and done for you. An
        own `job_id` that exists returns the stored job. Raises InvalidJob (nothing stored), ServerRefused, QueueUnavailable
        (unknown whether stored). If cancelled, the job may have been added.
        """
        said = (delay, at, attempts, backoff, priority, lifo, job_id, remove_on_complete, remove_on_fail, timeout)
        options = None
        if said != _NOTHING_SAID:
            options = JobOptions(
                delay=delay,
                at=at,
                attempts=attempts,
                backoff=backoff,
                priority=priority,
                lifo=lifo,
                job_id=job_id,
                remove_on_complete=remove_on_complete,
                remove_on_fail=remove_on_fail,
                timeout=timeout,
            )
        record = self._producer.record(name, data, options)
        if not (self._listener.is_ready and self.context.is_registered):
            await self.ready()
        added_ms = await self._producer.add(record)
        return self._job(record, data, added_ms) if added_ms is not None else await self._existing(record.id)

    async def add_bulk(self, jobs: Iterable[NewJob[DataT]]) -> list[Job[DataT, ResultT]]:
        """Add many jobs, 500 per round trip, each of these calls all or nothing.

        Everything is checked before anything is sent: InvalidJob means that nothing was stored. When a later call fails,
        BulkAddError says which jobs are in (`.added`).
        """
        new = list(jobs)
        trace = trace_fragment()
        records: list[NewRecord] = []
        for index, job in enumerate(new):
            if not isinstance(job, NewJob):
                raise InvalidJob(f"job {index} of {len(new)}: {type(job).__name__} is not a NewJob")
            try:
                records.append(self._producer.record(job.name, job.data, job.options, trace))
            except InvalidJob as error:
                raise InvalidJob(f"job {index} of {len(new)}: {error}; nothing was added") from error
        await self._listener.ready()
        await self.context.register()
        try:
            times = await self._producer.add_bulk(records)
        except BulkAddError as error:
            done = zip(new, records[: len(error.added)], strict=False)
            error.added = [self._job(record, job.data, 0) for job, record in done]
            raise
        return [
            self._job(record, job.data, ms) if ms is not None else await self._existing(record.id)
            for job, record, ms in zip(new, records, times, strict=True)
        ]

    async def get_job(self, job_id: str) -> Job[DataT, ResultT] | None:
        """Return the job, None when it is not stored. One round trip. Raises InvalidJob when its data does not fit the type."""
        stored = await self.context.stored(job_id)
        return None if stored is None else job_of(self.context, stored, self._listener)

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
        if not start >= 0 or not 1 <= limit <= CALL_JOBS:
            raise ConfigurationError(f"start {start}, limit {limit}: start must not be negative, limit 1 to {CALL_JOBS}")
        found: list[Job[DataT, ResultT]] = []
        for state in self._states(states):
            listed = await self._list_state(state)
            if listed is None:
                continue
            ids = await self.context.runner.run(list_jobs(self.context.keys, listed, start, limit, newest_first=not ascending))
            stored = await self.context.runner.run(get_jobs(self.context.keys, ids)) if ids else []
            for job in stored:
                if isinstance(job, UnreadableRecord):
                    log.warning("queue %s: a job is left out of a listing: %s", self.name, job)
                elif job is not None:
                    found.append(job_of(self.context, job, self._listener))
        return found

    async def get_job_counts(self) -> Mapping[JobState, int]:
        """Return the number of jobs in every state. One round trip, O(1) whatever the queue's length."""
        return await self.context.runner.run(count_jobs(self.context.keys))

    async def count(self) -> int:
        """Return the number of jobs still to run: waiting, prioritized, delayed, waiting for children, paused."""
        counts = await self.get_job_counts()
        done = (JobState.ACTIVE, JobState.COMPLETED, JobState.FAILED)
        return sum(number for state, number in counts.items() if state not in done)

    async def pause(self) -> None:
        """Stop claiming on every worker. Adding goes on, running jobs finish. One round trip."""
        await self.context.runner.run(pause_queue(self.context.keys))

    async def resume(self) -> None:
        """Let workers claim again. One round trip."""
        await self.context.runner.run(resume_queue(self.context.keys))

    async def is_paused(self) -> bool:
        """Return whether the queue is paused. One round trip."""
        return await self.context.runner.run_verb(is_paused(self.context.keys))

    def events(self, consumer: str | None = None) -> EventStream:
        """Return a reader of every event of this queue; see EventStream. `consumer` makes it durable under that name."""
        stream = EventStream(self.context, consumer)
        self._streams.add(stream)
        return stream

    async def ready(self) -> None:
        """Return once connected, and once listeners connected with `on` miss nothing that happens from now on."""
        await self.context.register()
        await self._listener.ready()

    async def close(self) -> None:
        """Close connections, listeners and readers; adds in flight finish first. Jobs are not touched."""
        async with AsyncExitStack() as closing:  # from the last to the first; one that fails keeps none from closing
            closing.push_async_callback(self.context.runner.close)
            closing.push_async_callback(self.listeners.close)
            for stream in self._streams:
                closing.push_async_callback(stream.close)
            closing.push_async_callback(self._listener.close)
            closing.push_async_callback(self._producer.close)

    async def __aenter__(self) -> Self:
        await self.ready()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Queue {self.name} on {self.context.server.where}>"

    def _listen(self, kind: str, receiver: Callable[[Any], object]) -> None:
        super()._listen(kind, receiver)
        self._listener.want()

    def _job(self, record: NewRecord, data: DataT, added_ms: int) -> Job[DataT, ResultT]:
        said = record.options
        parsed = Record(added_ms, 0, said.priority, said.flags, record.name, record.trace, said.options, record.data)
        return Job(self.context, record.id, parsed, data, outcomes=self._listener)

    async def _existing(self, job_id: str) -> Job[DataT, ResultT]:
        return job_of(self.context, await self.context.require(job_id), self._listener)

    def _states(self, states: Sequence[JobState | str] | JobState | str) -> list[JobState]:
        try:
            return [JobState(state) for state in ([states] if isinstance(states, str) else states)]
        except ValueError as error:
            raise ConfigurationError(f"{error}: states are {', '.join(JobState)}") from None

    async def _list_state(self, state: JobState) -> JobState | None:
        """Return the state to list; None when a derived one does not apply now."""
        if state in (JobState.PAUSED, JobState.WAITING):
            paused = await self.is_paused()
            return JobState.WAITING if paused is (state is JobState.PAUSED) else None
        return state

    def in_child(self) -> None:
        """Begin anew in a forked child: what is in flight, and whoever waits for it, is the parent's."""
        # Kept: collecting them would close connections of the parent's (see AsyncRunner.bind) and complain about its tasks.
        loop = self.context.runner.loop
        _inherited.extend([*self._streams, *(asyncio.all_tasks(loop) if loop else ())])
        self._streams = WeakSet()
        self._producer.begin()
        self._listener.begin()
        self.listeners.begin()


_NOTHING_SAID = (None,) * 10
_queues: WeakSet[Queue[Any, Any]] = WeakSet()
_inherited: list[object] = []


@cache
def _watch_forks() -> None:
    """Let every queue begin anew in forked children; once, when there is a queue."""
    os.register_at_fork(after_in_child=_in_child)


def _in_child() -> None:
    for queue in list(_queues):
        queue.in_child()
