"""JobQueue: queue, worker and scheduler in one object, for programs that add jobs and run them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, cast, overload

from eventq.context import DataT, ResultT
from eventq.durability import Durability
from eventq.job import job_of, stored_error, stored_progress, time_of
from eventq.limits import Limits
from eventq.queue import Queue
from eventq.queue_calls import QueueCalls
from eventq.schedules import Scheduling
from eventq.signals import Listening
from eventq.states import JobState
from eventq.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Self, Unpack

    from eventq.job import Job
    from eventq.options import JobOptions, OptionArguments
    from eventq.queue import NewJob
    from eventq.records import JobErrorInfo, StoredJob
    from eventq.signing import SigningKeys
    from eventq.worker import Processor


@dataclass(frozen=True, slots=True)
class JobStatus(Generic[ResultT]):
    """Where a job stands, read in one round trip.

    result: of a completed job. error: of the last attempt that failed. Times by Redis' clock; None for what has not happened.
    """

    id: str
    name: str
    state: JobState
    progress: Any
    attempt: int
    max_attempts: int
    result: ResultT | None
    error: JobErrorInfo | None
    added_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobQueue(QueueCalls[DataT, ResultT], Scheduling[DataT, ResultT], Listening):
    """A typed queue with its worker, which carries the scheduler. Reading, managing and schedules are asked for as of a Queue.

    `async with` (or `await start()`) begins to work; adding alone starts nothing but the connection. `close()` stops the worker
    first, with its grace, then the listeners, then the connections; nothing is left hanging.
    """

    @overload
    def __init__(
        self, name: str, data_type: type[DataT],
        processor: Processor[DataT, Any] | Mapping[str, Processor[DataT, Any]], *,
        url: str | None = ..., default_options: JobOptions | None = ..., prefix: str = ..., tag: str | None = ...,
        limits: Limits = ..., concurrency: int = ..., lease: float | timedelta = ..., max_stalls: int = ...,
        grace: float | timedelta = ..., backoffs: Mapping[str, Any] | None = ..., durability: Durability | str = ...,
        confirm_timeout: float | timedelta = ...,
        signing_keys: SigningKeys | Mapping[str, bytes] | None = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self, name: str, data_type: type[DataT],
        processor: Processor[DataT, ResultT] | Mapping[str, Processor[DataT, ResultT]], *, result_type: type[ResultT],
        url: str | None = ..., default_options: JobOptions | None = ..., prefix: str = ..., tag: str | None = ...,
        limits: Limits = ..., concurrency: int = ..., lease: float | timedelta = ..., max_stalls: int = ...,
        grace: float | timedelta = ..., backoffs: Mapping[str, Any] | None = ..., durability: Durability | str = ...,
        confirm_timeout: float | timedelta = ...,
        signing_keys: SigningKeys | Mapping[str, bytes] | None = ...,
    ) -> None: ...  # fmt: skip

    def __init__(
        self,
        name: str,
        data_type: Any,
        processor: Any,
        *,
        result_type: Any = Any,
        url: str | None = None,
        default_options: JobOptions | None = None,
        prefix: str = "eventq",
        tag: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        signing_keys: SigningKeys | Mapping[str, bytes] | None = None,
        concurrency: int = 1,
        lease: float | timedelta = 15.0,
        max_stalls: int = 2,
        grace: float | timedelta = 25.0,
        backoffs: Mapping[str, Any] | None = None,
        durability: Durability | str = Durability.MEMORY,
        confirm_timeout: float | timedelta = 5.0,
    ) -> None:
        """Name the queue; nothing is opened yet. Options as those of Queue and Worker. Raises ConfigurationError."""
        self.queue: Queue[DataT, ResultT] = Queue(
            name,
            data_type,
            result_type=result_type,
            url=url,
            default_options=default_options,
            prefix=prefix,
            tag=tag,
            limits=limits,
            durability=durability,
            confirm_timeout=confirm_timeout,
            signing_keys=signing_keys,
        )
        self.worker: Worker[DataT, ResultT] = Worker(
            self.queue,
            processor,
            concurrency=concurrency,
            lease=lease,
            max_stalls=max_stalls,
            grace=grace,
            backoffs=backoffs,
        )
        self.context = self.queue.context
        self.listeners = self.queue.listeners
        self.queue.listeners.errors_to = self.worker.listeners

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.queue.name

    async def start(self) -> None:
        """Connect and begin to work in the background."""
        await self.worker.start()

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT, then close with grace."""
        try:
            await self.worker.run()
        finally:
            await self.close()

    async def add_job(
        self,
        name: str,
        data: DataT = cast("Any", None),  # noqa: B008
        *,
        durability: Durability | str | None = None,
        **options: Unpack[OptionArguments],
    ) -> Job[DataT, ResultT]:
        """Add one job; as Queue.add."""
        return await self.queue.add(name, data, durability=durability, **options)

    async def add_jobs(
        self, jobs: Iterable[NewJob[DataT]], *, durability: Durability | str | None = None
    ) -> list[Job[DataT, ResultT]]:
        """Add many jobs; as Queue.add_bulk."""
        return await self.queue.add_bulk(jobs, durability=durability)

    async def get_job_status(self, job_id: str) -> JobStatus[ResultT]:
        """Return state, progress, attempts, result or error, and times. One round trip. Raises JobNotFound."""
        context = self.queue.context
        stored = await context.require(job_id)
        run, record = stored.run, stored.record
        result: ResultT | None = None
        error = None
        if stored.state is JobState.COMPLETED:
            result = context.result.decode(stored.result) if stored.result is not None else None
        elif stored.result is not None:
            error = stored_error(stored.result)
        return JobStatus(
            id=stored.id,
            name=record.name,
            state=stored.state,
            progress=stored_progress(stored.progress),
            attempt=max(1, run.fails if stored.state is JobState.FAILED else run.fails + 1),
            max_attempts=record.spec.attempts,
            result=result,
            error=error,
            added_at=time_of(record.added_ms),
            started_at=time_of(run.started_ms) if run.started_ms else None,
            finished_at=time_of(run.finished_ms) if run.finished_ms else None,
        )

    async def get_all_jobs(
        self, states: Sequence[JobState | str] | None = None, start: int = 0, limit: int = 100
    ) -> list[Job[DataT, ResultT]]:
        """Return jobs of every state, or of those named, newest first, at most `limit` of each state."""
        return await self.queue.get_jobs(list(states) if states is not None else list(JobState), start, limit)

    async def close(self, grace: float | timedelta | None = None) -> None:
        """Stop the worker (running jobs get `grace`), then listeners, then connections. Safe to call twice."""
        await self.worker.close(grace)
        await self.queue.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
        if exc is None and self.worker.failure is not None:
            raise self.worker.failure

    def __repr__(self) -> str:
        return f"<JobQueue {self.name} {self.worker!r}>"

    def _found(self, stored: StoredJob) -> Job[DataT, ResultT]:
        return job_of(self.context, stored, self.queue.outcomes)

    def off(self, kind: str, receiver: Callable[[Any], object]) -> None:
        """Disconnect a receiver; one that was never connected is no error."""
        self.queue.off(kind, receiver)
        self.worker.off(kind, receiver)

    def _listen(self, kind: str, receiver: Callable[[Any], object]) -> None:
        # One place to listen: the queue hears everybody's events, what concerns this process comes from its worker.
        listening = self.worker if kind in ("error", "worker_started", "worker_stopped") else self.queue
        listening.on(kind, receiver)
