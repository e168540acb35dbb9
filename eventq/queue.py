"""Queue: adding jobs and listening; reading and managing them comes from QueueCalls."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, cast, overload
from weakref import WeakSet

from eventq.context import DataT, NewJob, QueueContext, ResultT
from eventq.durability import Durability
from eventq.errors import BulkAddError, ConfigurationError
from eventq.job import Job, job_of
from eventq.limits import Limits
from eventq.options import JobOptions, options_of
from eventq.producer import Producers
from eventq.queue_calls import QueueCalls
from eventq.queue_events import EventStream
from eventq.queue_listener import QueueListener
from eventq.records import Record
from eventq.schedules import Scheduling
from eventq.signals import Listeners, Listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta
    from types import TracebackType
    from typing import Self, Unpack

    from eventq.commands.add import NewRecord
    from eventq.job import Outcomes
    from eventq.options import OptionArguments
    from eventq.records import StoredJob
    from eventq.signing import SigningKeys

__all__ = ["NewJob", "Queue"]


class Queue(QueueCalls[DataT, ResultT], Scheduling[DataT, ResultT], Listening):
    """A queue of jobs with data of one type (any JSON without one).

    Connects with its first call; `async with` connects, checks the server and closes. Concurrent adds share round trips.
    Bound to one event loop; usable again in a child after fork. Redis away: calls raise QueueUnavailable after 10 seconds.
    """

    @overload
    def __init__(
        self: Queue[Any, Any], name: str, *, url: str | None = ..., default_options: JobOptions | None = ...,
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
        """Name a queue; nothing is opened yet.

        url: redis://, unix://, rediss://, embedded://, embedded:///path; default EVENTQ_URL, then redis://localhost:6379/0.
        default_options: for jobs that do not say otherwise; remove_on_complete and remove_on_fail become the queue's rule.
        tag: the Cluster slot's tag, the name unless set. durability: what adding waits for: `memory`, `fsync` or `replica`.
        confirm_timeout: seconds it waits at most, then raises Unconfirmed. signing_keys: the first signs jobs and schedules, and
        only what one of them signed runs; default the file that EVENTQ_SIGNING_KEYS_FILE names, then none. Raises
        ConfigurationError.
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
            signing_keys=signing_keys,
        )
        self.listeners = Listeners(self, name)
        self._listener = QueueListener(self.context, self.listeners)
        self._producers = Producers(self.context, durability, confirm_timeout)
        self._producer = self._producers.default
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
        durability: Durability | str | None = None,
        **options: Unpack[OptionArguments],
    ) -> Job[DataT, ResultT]:
        """Add one job; the options are those of JobOptions: delay, at, attempts, backoff, priority, lifo, job_id, timeout, ...

        One round trip, shared with adds made at the same time. Repeating it after a lost reply is safe and done for you. An
        own `job_id` that exists returns the stored job. durability: what it waits for, the queue's level unless said here. Raises
        InvalidJob (nothing stored), ServerRefused, QueueUnavailable (unknown whether stored), Unconfirmed (stored, but not known
        to be as durable as was asked for). If cancelled, the job may have been added.
        """
        producer = self._producer if durability is None else self._producers.of(durability)
        record = self.context.record(name, data, options_of(options))
        if not (self._listener.is_ready and self.context.is_registered):
            await self.ready()
        added_ms = await producer.add(record)
        return self._job(record, data, added_ms) if added_ms is not None else await self._existing(record, data)

    async def add_bulk(
        self, jobs: Iterable[NewJob[DataT]], *, durability: Durability | str | None = None
    ) -> list[Job[DataT, ResultT]]:
        """Add many jobs, 500 per round trip, each of these calls all or nothing.

        Everything is checked before anything is sent: InvalidJob means that nothing was stored. When a later call fails,
        BulkAddError says which jobs are in (`.added`), and which of them as durable as was asked for (`.confirmed`).
        """
        producer = self._producer if durability is None else self._producers.of(durability)
        new = list(jobs)
        records = self.context.records(new)
        await self._listener.ready()
        await self.context.register()
        try:
            times = await producer.add_bulk(records)
        except BulkAddError as error:
            done = zip(new, records[: len(error.added)], strict=False)
            error.added = [self._job(record, job.data, 0) for job, record in done]
            error.confirmed = error.added[: len(error.confirmed)]
            raise
        return [
            self._job(record, job.data, ms) if ms is not None else await self._existing(record, job.data)
            for job, record, ms in zip(new, records, times, strict=True)
        ]

    @property
    def outcomes(self) -> Outcomes:
        """Whoever waits for the outcomes of this queue's jobs."""
        return self._listener

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
            closing.push_async_callback(self._producers.close)

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
        due = said.due_ms(added_ms) if said.place else 0
        header = (added_ms, due, said.priority, said.flags, record.name, record.trace)
        parsed = Record(*header, said.options, record.data, record.spec)
        return Job(self.context, record.id, parsed, data, outcomes=self._listener)

    async def _existing(self, record: NewRecord, data: DataT) -> Job[DataT, ResultT]:
        """Return the job that had the id of an add: as it is stored, or as it was given where it is gone by now."""
        stored = await self.context.stored(record.id)
        return self._found(stored) if stored is not None else self._job(record, data, 0)

    def _found(self, stored: StoredJob) -> Job[DataT, ResultT]:
        return job_of(self.context, stored, self._listener)

    def in_child(self) -> None:
        """Begin anew in a forked child: what is in flight, and whoever waits for it, is the parent's."""
        # Kept: collecting them would close connections of the parent's (see AsyncRunner.bind) and complain about its tasks.
        loop = self.context.runner.loop
        _inherited.extend([*self._streams, *(asyncio.all_tasks(loop) if loop else ())])
        self._streams = WeakSet()
        self._producers.begin()
        self._listener.begin()
        self.listeners.begin()


def queue_of(
    queue: Queue[Any, Any] | str, url: str | None, signing_keys: SigningKeys | Mapping[str, bytes] | None
) -> Queue[Any, Any]:
    """Return the queue, or a new one where it is given by its name. Raises ConfigurationError."""
    if isinstance(queue, str):
        return Queue(queue, url=url, signing_keys=signing_keys)
    if not isinstance(queue, Queue):
        raise ConfigurationError(f"queue {queue!r}: must be a Queue or a name")
    if url is not None:
        raise ConfigurationError(f"url {url!r}: the queue has one already; give a name and a url, or a Queue")
    if signing_keys is not None:
        raise ConfigurationError("signing_keys: those of the queue hold; give a name and signing_keys, or a Queue")
    return queue


_queues: WeakSet[Queue[Any, Any]] = WeakSet()
_inherited: list[object] = []


@cache
def _watch_forks() -> None:
    """Let every queue begin anew in forked children; once, when there is a queue."""
    os.register_at_fork(after_in_child=_in_child)


def _in_child() -> None:
    for queue in list(_queues):
        queue.in_child()
