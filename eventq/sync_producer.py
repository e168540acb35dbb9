"""Adding from threads: group commit. While one thread sends, others' adds are collected, and the next one sends them all."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Generic

from eventq.client import SyncConfirmingRunner, SyncRunner
from eventq.commands.add import NewRecord, add_jobs, chunks
from eventq.commands.confirm import MAX_CONFIRM_MS, Confirmation, add_confirmed, bulk_error, told_to
from eventq.context import DataT, ResultT
from eventq.durability import Durability, check_durability
from eventq.durations import to_ms
from eventq.errors import ConfigurationError, EventqError, QueueUnavailable
from eventq.limits import CALL_BYTES, CALL_JOBS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from eventq.sync_context import SyncContext

#: Seconds an add may take, waiting for its turn included, besides its confirmation.
_PATIENCE: Final = 10.0


class _Add:
    """One thread's add: its record, and what it came to once somebody has sent it."""

    __slots__ = ("added_ms", "error", "is_done", "record", "turn")

    def __init__(self, record: NewRecord) -> None:
        self.record = record
        #: What its thread waits for, until it is done or is to send. Free for whoever need not wait.
        self.turn = threading.Lock()
        self.is_done = False
        self.added_ms: int | None = None
        self.error: Exception | None = None

    def wake(self) -> None:
        """Let its thread look again; more than once does no harm."""
        with contextlib.suppress(RuntimeError):  # nobody waits
            self.turn.release()


class SyncProducer(Generic[DataT, ResultT]):
    """One writer of a queue for all threads of a process: one call in flight, no thread of its own. Confirmations as in Producer.

    A thread may be interrupted anywhere (Ctrl-C): none of the others is left waiting, and none of their jobs is sent twice.
    """

    def __init__(self, context: SyncContext[DataT, ResultT], confirmation: Confirmation | None = None) -> None:
        self._context = context
        self._patience = _PATIENCE
        if confirmation is None:
            self._add_jobs, self._runner = add_jobs, SyncRunner(context.server, patience=_PATIENCE, client_name="eventq-add")
        else:
            self._patience += confirmation.seconds
            self._add_jobs = partial(add_confirmed, confirmation)
            self._runner = SyncConfirmingRunner(context.server, confirmation, patience=self._patience, client_name="eventq-add")
        self._is_closed = False
        self.begin()

    def begin(self) -> None:
        """Begin with nothing waiting and nothing in flight: at first, and in a forked child."""
        self._runner.begin()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: list[_Add] = []
        #: Whose turn it is to send. None: nothing waits either.
        self._leader: _Add | None = None
        #: Threads that add in bulk.
        self._bulks: set[int] = set()

    def add(self, record: NewRecord) -> int | None:
        """Store one job. Returns when (ms, Redis' clock), None when the id existed. An interrupted caller's job may be in."""
        until = monotonic() + self._patience
        mine = _Add(record)
        try:
            with self._lock:
                if self._is_closed:
                    raise ConfigurationError("this object is closed; make a new one")
                self._waiting.append(mine)
                if self._leader is None:
                    self._leader = mine
                else:
                    mine.turn.acquire()
            mine.turn.acquire()
            if not mine.is_done:
                self._send(mine, until)
        except BaseException:
            self._leave(mine)
            raise
        if mine.error is not None:
            raise told_to(record.id, mine.error)
        return mine.added_ms

    def add_bulk(self, records: Sequence[NewRecord]) -> list[int | None]:
        """Store many jobs, 500 a call, each call all or nothing. Returns per job as `add`. Raises BulkAddError.

        Adds of other threads take turns with its calls.
        """
        times: list[int | None] = []
        try:
            with self._lock:
                if self._is_closed:
                    raise ConfigurationError("this object is closed; make a new one")
                self._bulks.add(threading.get_ident())
            for chunk in chunks(records):
                times += self._runner.run(self._add_jobs(self._context.keys, chunk)).times(len(chunk))
        except EventqError as error:
            raise bulk_error(records, len(times), error) from error
        finally:
            with self._lock:
                self._bulks.discard(threading.get_ident())
                self._idle.notify_all()
        return times

    def close(self) -> None:
        """Let what waits and what is in flight finish, then close the connection."""
        with self._lock:
            self._is_closed = True
            # Its own thread adds nothing any more, even where an interruption left it among them.
            self._idle.wait_for(lambda: self._leader is None and self._bulks <= {threading.get_ident()})
        self._runner.close()

    def _send(self, mine: _Add, until: float) -> None:
        """Send what waits, ours first, in one call. Everybody in it is told what it came to."""
        batch: list[_Add] = []
        error: Exception | None = None
        is_interrupted = True
        try:
            self._take(batch)
            added = self._runner.run(self._add_jobs(self._context.keys, [each.record for each in batch]), until=until)
            for each, ms in zip(batch, added.times(len(batch)), strict=True):
                each.added_ms = ms
            is_interrupted = False
        except Exception as refusal:  # every caller is told
            error = refusal
            is_interrupted = False
        finally:
            if is_interrupted:
                error = QueueUnavailable("the thread that sent this add was interrupted; whether it took effect is unknown")
            try:
                self._finish(mine, batch, error)
            except BaseException:
                self._finish(mine, batch, error)  # interrupted: all of it again, which does no harm
                raise

    def _take(self, batch: list[_Add]) -> None:
        with self._lock:
            size = number = 0
            for each in self._waiting[:CALL_JOBS]:
                size += each.record.size
                if number and size > CALL_BYTES:
                    break
                number += 1
            batch += self._waiting[:number]
            del self._waiting[:number]

    def _finish(self, mine: _Add, batch: list[_Add], error: Exception | None) -> None:
        for each in batch:
            each.error = error
            each.is_done = True
        self._leave(mine)  # before the others wake: the next call is made meanwhile
        for each in batch:
            each.wake()

    def _leave(self, mine: _Add) -> None:
        """Wait no longer; if it was ours to send, it is the next one's."""
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
            if self._leader is mine:
                following = next((each for each in self._waiting if not each.is_done), None)
                if following is not None:
                    following.wake()
                self._leader = following
                if following is None:
                    self._waiting.clear()
                    self._idle.notify_all()


class SyncProducers(Generic[DataT, ResultT]):
    """The producers of a queue, one for each level of durability that is asked for, as Producers."""

    def __init__(
        self, context: SyncContext[DataT, ResultT], durability: Durability | str, confirm_timeout: float | timedelta
    ) -> None:
        self._context = context
        self._timeout_ms = to_ms("confirm_timeout", confirm_timeout, minimum_ms=1, maximum_ms=MAX_CONFIRM_MS)
        self._made: dict[Durability, SyncProducer[DataT, ResultT]] = {}
        self._is_closed = False
        #: That of adds which ask for no level of their own.
        self.default = self.of(durability)

    def of(self, durability: Durability | str) -> SyncProducer[DataT, ResultT]:
        """Return the producer of a level. Raises ConfigurationError."""
        level = check_durability(durability)
        if (made := self._made.get(level)) is not None:
            return made
        if self._is_closed:
            raise ConfigurationError("this object is closed; make a new one")
        confirmation = None if level is Durability.MEMORY else Confirmation(level, self._timeout_ms)
        # Of threads that come together, one's is everybody's; the others' have opened nothing.
        return self._made.setdefault(level, SyncProducer(self._context, confirmation))

    def begin(self) -> None:
        """As SyncProducer.begin."""
        for producer in self._made.values():
            producer.begin()

    def close(self) -> None:
        """As SyncProducer.close, of all of them."""
        self._is_closed = True
        with contextlib.ExitStack() as closing:
            for producer in list(self._made.values()):
                closing.callback(producer.close)
