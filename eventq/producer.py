"""Adding: what is sent for a job, and group commit. While one call is in flight, further adds are collected for the next."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Generic

from eventq.client import AsyncRunner
from eventq.commands.add import Added, NewRecord, add_jobs
from eventq.context import DataT, QueueContext, ResultT
from eventq.errors import BulkAddError, EventqError, InvalidJob
from eventq.ids import new_id
from eventq.keys import check_job_name
from eventq.limits import CALL_BYTES, CALL_JOBS
from eventq.options import JobOptions
from eventq.tracing import trace_fragment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NO_OPTIONS: Final = JobOptions()


class Producer(Generic[DataT, ResultT]):
    """One writer of a queue: one call in flight, no timer."""

    def __init__(self, context: QueueContext[DataT, ResultT]) -> None:
        self._context = context
        self._runner = AsyncRunner(context.server, client_name="eventq-add")
        self._sending: asyncio.Task[None] | None = None
        self._defaults = context.default_options or _NO_OPTIONS
        self.begin()

    def begin(self) -> None:
        """Begin with nothing waiting and nothing in flight: at first, and in a forked child."""
        self._waiting: deque[tuple[NewRecord, asyncio.Future[int | None]]] = deque()
        self._is_busy = False
        self._idle = asyncio.Event()
        self._idle.set()

    def record(self, name: str, data: DataT, options: JobOptions | None, trace: str | None = None) -> NewRecord:
        """Check everything about one job and return what is sent. Raises InvalidJob; nothing is stored."""
        if options is not None and not isinstance(options, JobOptions):
            raise InvalidJob(f"options {options!r}: must be JobOptions")
        compiled = (self._defaults if options is None else options.over(self._context.default_options)).compiled
        return NewRecord(
            compiled.job_id or new_id(),
            check_job_name(name),
            trace_fragment() if trace is None else trace,
            compiled.header,
            compiled.place,
            compiled.spec,
            self._context.data.encode(data),
            compiled.job_id is not None,
            compiled,
        )

    async def add(self, record: NewRecord) -> int | None:
        """Store one job. Returns when (ms, Redis' clock), None when the id existed. A cancelled caller's job may be in.

        A caller that finds nothing in flight sends its own job itself, which saves a task; whoever comes meanwhile goes out
        together with the next call.
        """
        if self._is_busy:
            future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
            self._waiting.append((record, future))
            return await future
        self._is_busy = True
        self._idle.clear()
        try:
            added = await self._runner.run(add_jobs(self._context.keys, [record]))
        finally:
            self._next()
        return None if added.existing else added.ms

    async def add_bulk(self, records: Sequence[NewRecord]) -> list[int | None]:
        """Store many jobs, 500 a call, each call all or nothing. Returns per job as `add`.

        The next call is built while the last one is in flight. Raises BulkAddError when a call fails.
        """
        times: list[int | None] = []
        flight: asyncio.Task[Added] | None = None
        size = 0

        async def land() -> None:
            if flight is not None:
                times.extend(_times(await flight, size))

        try:
            for chunk in _chunks(records):
                command = add_jobs(self._context.keys, chunk)
                await land()
                flight, size = asyncio.create_task(self._runner.run(command)), len(chunk)
                await asyncio.sleep(0)  # let it be sent before the next one is built
            await land()
        except EventqError as error:
            stored = len(times)
            message = f"{stored} of {len(records)} jobs were added, then: {error}"
            raise BulkAddError(message, [record.id for record in records[:stored]]) from error
        return times

    async def close(self) -> None:
        """Let what is in flight finish, then close the connection."""
        await self._idle.wait()
        await self._runner.close()

    def _next(self) -> None:
        if self._waiting:
            self._sending = asyncio.create_task(self._send(), name=f"eventq-add {self._context.name}")
        else:
            self._is_busy = False
            self._idle.set()

    async def _send(self) -> None:
        while batch := self._take():
            try:
                added = await self._runner.run(add_jobs(self._context.keys, [record for record, _ in batch]))
            except Exception as error:  # every caller of the batch is told; none of its jobs is known to be in
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for time, (_, future) in zip(_times(added, len(batch)), batch, strict=True):
                    if not future.done():
                        future.set_result(time)
        self._is_busy = False
        self._idle.set()

    def _take(self) -> list[tuple[NewRecord, asyncio.Future[int | None]]]:
        batch: list[tuple[NewRecord, asyncio.Future[int | None]]] = []
        size = 0
        while self._waiting and len(batch) < CALL_JOBS:
            size += self._waiting[0][0].size
            if batch and size > CALL_BYTES:
                break
            item = self._waiting.popleft()
            if not item[1].cancelled():
                batch.append(item)
        return batch


def _chunks(records: Sequence[NewRecord]) -> Iterator[Sequence[NewRecord]]:
    start, size = 0, 0
    for index, record in enumerate(records):
        size += record.size
        if index > start and (index - start == CALL_JOBS or size > CALL_BYTES):
            yield records[start:index]
            start, size = index, record.size
    if start < len(records):
        yield records[start:]


def _times(added: Added, size: int) -> list[int | None]:
    times: list[int | None] = [added.ms] * size
    for index in added.existing:
        times[index] = None
    return times
