"""Adding: what is sent for a job, and group commit. While one call is in flight, further adds are collected for the next."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final, Generic

from eventq.client import AsyncRunner, ConfirmingRunner
from eventq.commands.add import Added, NewRecord, add_jobs, chunks
from eventq.commands.confirm import MAX_CONFIRM_MS, Confirmation, add_confirmed, bulk_error, told_to
from eventq.context import DataT, QueueContext, ResultT
from eventq.durability import Durability, check_durability
from eventq.durations import to_ms
from eventq.errors import ConfigurationError, EventqError
from eventq.limits import CALL_BYTES, CALL_JOBS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

#: Seconds an add may take, besides its confirmation.
_PATIENCE: Final = 10.0


class Producer(Generic[DataT, ResultT]):
    """One writer of a queue: one call in flight, no timer. With a confirmation, nothing it adds counts as added without."""

    def __init__(self, context: QueueContext[DataT, ResultT], confirmation: Confirmation | None = None) -> None:
        self._context = context
        if confirmation is None:
            self._add_jobs, self._runner = add_jobs, AsyncRunner(context.server, patience=_PATIENCE, client_name="eventq-add")
        else:
            self._add_jobs = partial(add_confirmed, confirmation)
            patience = _PATIENCE + confirmation.seconds
            self._runner = ConfirmingRunner(context.server, confirmation, patience=patience, client_name="eventq-add")
        self._sending: asyncio.Task[None] | None = None
        self.begin()

    def begin(self) -> None:
        """Begin with nothing waiting and nothing in flight: at first, and in a forked child."""
        self._waiting: deque[tuple[NewRecord, asyncio.Future[int | None]]] = deque()
        self._is_busy = False
        self._bulks = 0
        self._idle = asyncio.Event()
        self._idle.set()

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
            added = await self._runner.run(self._add_jobs(self._context.keys, [record]))
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
                times.extend((await flight).times(size))

        self._bulks += 1
        self._idle.clear()
        try:
            for chunk in chunks(records):
                command = self._add_jobs(self._context.keys, chunk)
                await land()
                flight, size = asyncio.create_task(self._runner.run(command)), len(chunk)
                await asyncio.sleep(0)  # let it be sent before the next one is built
            await land()
        except EventqError as error:
            raise bulk_error(records, len(times), error) from error
        finally:
            if flight is not None:
                flight.cancel()  # of a caller that was cancelled: nobody would take what it comes to
            self._bulks -= 1
            self._rest()
        return times

    async def close(self) -> None:
        """Let what is in flight finish, then close the connection; at once if cancelled, and what is in flight is told."""
        try:
            await self._idle.wait()
        finally:
            await self._runner.close()

    def _next(self) -> None:
        if self._waiting:
            self._sending = asyncio.create_task(self._send(), name=f"eventq-add {self._context.name}")
        else:
            self._is_busy = False
            self._rest()

    def _rest(self) -> None:
        if not self._is_busy and not self._bulks:
            self._idle.set()

    async def _send(self) -> None:
        while batch := self._take():
            try:
                added = await self._runner.run(self._add_jobs(self._context.keys, [record for record, _ in batch]))
            except Exception as error:  # every caller of the batch is told
                for record, future in batch:
                    if not future.done():
                        future.set_exception(told_to(record.id, error))
            else:
                for time, (_, future) in zip(added.times(len(batch)), batch, strict=True):
                    if not future.done():
                        future.set_result(time)
        self._is_busy = False
        self._rest()

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


class Producers(Generic[DataT, ResultT]):
    """The producers of a queue, one for each level of durability that is asked for.

    A connection that waits for a confirmation takes no further call before that is there; so each level has its own, and who asks
    for less never waits for what others asked for.
    """

    def __init__(
        self, context: QueueContext[DataT, ResultT], durability: Durability | str, confirm_timeout: float | timedelta
    ) -> None:
        self._context = context
        self._timeout_ms = to_ms("confirm_timeout", confirm_timeout, minimum_ms=1, maximum_ms=MAX_CONFIRM_MS)
        self._made: dict[Durability, Producer[DataT, ResultT]] = {}
        self._is_closed = False
        #: That of adds which ask for no level of their own.
        self.default = self.of(durability)

    def of(self, durability: Durability | str) -> Producer[DataT, ResultT]:
        """Return the producer of a level. Raises ConfigurationError."""
        level = check_durability(durability)
        if level not in self._made:
            if self._is_closed:
                raise ConfigurationError("this object is closed; make a new one")
            confirmation = None if level is Durability.MEMORY else Confirmation(level, self._timeout_ms)
            self._made[level] = Producer(self._context, confirmation)
        return self._made[level]

    def begin(self) -> None:
        """As Producer.begin."""
        for producer in self._made.values():
            producer.begin()

    async def close(self) -> None:
        """As Producer.close, of all of them."""
        self._is_closed = True
        async with AsyncExitStack() as closing:
            for producer in self._made.values():
                closing.push_async_callback(producer.close)
