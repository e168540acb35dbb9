"""A queue's own reader: feeds its listeners and whoever waits for outcomes. Started by the first who needs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from eventq.codec import encode_json
from eventq.commands.events import stream_state
from eventq.errors import EventqError, QueueUnavailable
from eventq.events import CompletedEvent, Event, FailedEvent, LostEvent, ObliteratedEvent, RemovedEvent
from eventq.job import failure, stored_error
from eventq.queue_events import EventStream
from eventq.states import JobState

if TYPE_CHECKING:
    from eventq.context import QueueContext
    from eventq.records import StoredJob
    from eventq.signals import Listeners

log: Final = logging.getLogger("eventq")

#: Seconds that the last look of a wait may take.
_LAST_LOOK: Final = 1.0
#: Later than the number of any event.
_NOT_YET: Final = 2**63


class QueueListener:
    """One live reader per queue object."""

    def __init__(self, context: QueueContext[Any, Any], listeners: Listeners) -> None:
        self._context = context
        self._listeners = listeners
        self._wanted = False
        self.begin()

    def begin(self) -> None:
        """Begin with nobody waiting and nothing read: at first, and in a forked child."""
        #: Per job whoever waits for its outcome, with the number of the last event that is older than the wait.
        self._waiters: dict[str, dict[asyncio.Future[Any], int]] = {}
        self._task: asyncio.Task[None] | None = None
        self._stream: EventStream | None = None
        self._starting = asyncio.Lock()

    def want(self) -> None:
        """Ask for the reader; it starts with the next call on the queue, before that call is sent."""
        self._wanted = True

    async def ready(self) -> None:
        """Return once the reader knows where it starts, if anybody asked for it: no later event is missed.

        Raises QueueUnavailable when Redis is away; the next call tries again, as after a reader that broke.
        """
        if not self._wanted or self._is_reading:
            return
        self._context.runner.bind()
        async with self._starting:
            if self._is_reading:
                return
            if self._stream is not None:
                await self._stream.close()
            stream = self._stream = EventStream(self._context)
            await stream.open()
            if self._wanted:
                self._task = asyncio.create_task(self._read(stream), name=f"eventq-listener {self._context.name}")

    @property
    def is_ready(self) -> bool:
        """Whether `ready` has nothing to wait for."""
        return not self._wanted or self._is_reading

    @property
    def _is_reading(self) -> bool:
        return self._task is not None and not self._task.done()

    async def close(self) -> None:
        """Stop reading. Whoever still waits for an outcome is told."""
        task, self._task = self._task, None
        self._wanted = False
        self._is_closed = True
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
        if self._stream is not None:
            await self._stream.close()
        self._reject_all(self._closed_error())
        self._waiters.clear()

    async def wait(self, job_id: str, timeout: float | None) -> Any:
        """Return a job's result once there is an outcome: first subscribe, then look, then wait."""
        self.want()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self.ready()
                # From here on it is told when the reader breaks; events are news to it once it has looked.
                self._waiters.setdefault(job_id, {})[future] = _NOT_YET
                # Events up to here are in what is looked up next. The reader may still come to them, and the outcome of a run
                # before a retry, or of another job that had this id, is not what is awaited.
                _, seq = await self._context.runner.run_verb(stream_state(self._context.keys))
                self._waiters.setdefault(job_id, {})[future] = seq
                self._settle(job_id, await self._context.require(job_id))
                return await future
        except QueueUnavailable as error:
            raise self._closed_error() if self._is_closed else error from error.__cause__
        except TimeoutError:
            # Perhaps there was no time even to look: what is finished has an outcome, however short the wait.
            self._waiters.setdefault(job_id, {})[(future := asyncio.get_running_loop().create_future())] = 0
            with contextlib.suppress(TimeoutError, QueueUnavailable):
                async with asyncio.timeout(_LAST_LOOK):
                    self._settle(job_id, await self._context.require(job_id))
            if future.done():
                return future.result()
            raise TimeoutError(f"job {job_id!r} of queue {self._context.name!r} has no outcome after {timeout} seconds") from None
        finally:
            waiting = self._waiters.get(job_id, {})
            waiting.pop(future, None)
            if not waiting:
                self._waiters.pop(job_id, None)
            if future.done() and not future.cancelled():
                future.exception()

    def _closed_error(self) -> EventqError:
        return EventqError(f"queue {self._context.name!r} was closed while a result was awaited")

    async def _read(self, stream: EventStream) -> None:
        try:
            async for event in stream:
                self._listeners.send(event)
                if self._waiters:
                    await self._tell(event)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # nobody awaits this task: it is logged, whoever waits is told, the next call starts anew
            log.exception("queue %s: the event reader stopped", self._context.name)
            self._reject_all(error)

    async def _tell(self, event: Event) -> None:
        if isinstance(event, LostEvent | ObliteratedEvent):
            for job_id, waiting in list(self._waiters.items()):
                waiting.update(dict.fromkeys(waiting, 0))  # numbers begin lower: after a rollback, in another epoch
                await self._look(job_id)
        elif isinstance(event, RemovedEvent):
            for job_id in event.job_ids:
                self._reject(job_id, self._context.not_found(job_id), event.seq)
        elif isinstance(event, CompletedEvent) and event.job_id in self._waiters:
            if event.result_omitted:
                await self._look(event.job_id)
            else:
                text = None if event.result is None else encode_json(event.result, "result")
                self._resolve_text(event.job_id, text, event.seq)
        elif isinstance(event, FailedEvent) and event.job_id in self._waiters:
            traceback = await self._traceback(event.job_id)
            self._reject(event.job_id, failure(self._context.name, event.job_id, event.error, traceback), event.seq)

    async def _traceback(self, job_id: str) -> str:
        """Read what the event leaves out; nothing for a job that is gone already."""
        try:
            stored = await self._context.stored(job_id)
        except EventqError:
            return ""
        return stored_error(stored.result).traceback if stored is not None and stored.state is JobState.FAILED else ""

    async def _look(self, job_id: str) -> None:
        try:
            stored = await self._context.stored(job_id)
        except EventqError as error:  # it is this waiter's trouble, not the reader's
            self._reject(job_id, error)
            return
        if stored is None:
            self._reject(job_id, self._context.not_found(job_id))
        else:
            self._settle(job_id, stored)

    def _settle(self, job_id: str, stored: StoredJob) -> None:
        """Answer from what is stored, if the job is finished."""
        if stored.state is JobState.COMPLETED:
            self._resolve_text(job_id, stored.result)
        elif stored.state is JobState.FAILED:
            error = stored_error(stored.result)
            self._reject(job_id, failure(self._context.name, job_id, error, error.traceback))

    def _resolve_text(self, job_id: str, text: str | None, seq: int | None = None) -> None:
        try:
            # A null after a failed attempt is stored as such: it stands in the place of that attempt's error.
            result = None if text in (None, "null") else self._context.result.decode(text)
        except EventqError as error:
            self._reject(job_id, error, seq)
            return
        for future in self._waiting(job_id, seq):
            future.set_result(result)

    def _reject(self, job_id: str, error: Exception, seq: int | None = None) -> None:
        for future in self._waiting(job_id, seq):
            future.set_exception(error)

    def _waiting(self, job_id: str, seq: int | None) -> list[asyncio.Future[Any]]:
        """Return who still waits for this job; of an event only those to whom it is news."""
        waiting = self._waiters.get(job_id, {}).items()
        return [future for future, known in waiting if not future.done() and (seq is None or seq > known)]

    def _reject_all(self, error: Exception) -> None:
        for job_id in list(self._waiters):
            self._reject(job_id, error)
