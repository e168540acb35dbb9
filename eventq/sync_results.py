"""Waiting for outcomes in threads: one of those who wait reads the event stream for all of them. No thread of its own."""

from __future__ import annotations

import threading
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from eventq.client import SyncRunner
from eventq.codec import encode_json
from eventq.commands.events import Entry, Position, entry_after, last_entry, read_events, stream_state
from eventq.errors import ConfigurationError, EventqError, JobNotFound, QueueUnavailable
from eventq.events import CompletedEvent, Event, FailedEvent, ObliteratedEvent, RemovedEvent, UnreadableEntry, parse_entry
from eventq.job import failure, stored_error
from eventq.records import StoredJob, whole
from eventq.states import FINISHED, JobState

if TYPE_CHECKING:
    from eventq.sync_context import SyncContext

#: Seconds one read may block, and that an answer may be late before its connection counts as dead. Entries per read.
BLOCK: Final = 5.0
_LATE: Final = 2.0
_ENTRIES: Final = 50
#: Kinds that tell of an outcome; what else there is only moves the position.
_TELLING: Final = (CompletedEvent.kind, FailedEvent.kind, RemovedEvent.kind)
#: Later than the number of any event.
_NOT_YET: Final = 2**63


class _Wait:
    """One thread that waits for one job."""

    __slots__ = ("has_looked", "has_tried", "job_id", "known", "must_look", "outcome", "timeout", "until", "wake")

    def __init__(self, job_id: str, timeout: float | None) -> None:
        self.job_id = job_id
        self.timeout = timeout
        self.until = inf if timeout is None else monotonic() + timeout
        #: The number of the last event that is older than what this thread has seen stored.
        self.known = _NOT_YET
        #: Whether to look at what is stored: at first, and whenever events may have been missed.
        self.must_look = True
        self.has_tried = self.has_looked = False
        self.outcome: Event | StoredJob | None = None
        #: Set after any of these was changed by another thread.
        self.wake = threading.Event()


class SyncResults:
    """Who waits for the outcomes of one queue's jobs.

    The first of them reads the stream, on a connection of its own, and hands that on when it is done. Whenever the stream is not
    what was expected (trimmed, begun anew, another server after a failover), its end is taken as the new position, and
    everybody looks at what is stored.
    """

    def __init__(self, context: SyncContext[Any, Any]) -> None:
        self._context = context
        self._reader = SyncRunner(context.server, timeout=_LATE, client_name="eventq-events")
        self._is_closed = False
        self.begin()

    def begin(self) -> None:
        """Begin with nobody waiting and nothing read: at first, and in a forked child."""
        self._reader.begin()
        self._lock = threading.Lock()
        self._waits: dict[str, list[_Wait]] = {}
        #: Who reads for all.
        self._leader: _Wait | None = None
        #: Up to here everything is read; None when that is to be found out. The leader's alone.
        self._position: Position | None = None
        self._connects = 0

    def wait(self, job_id: str, timeout: float | None) -> Any:
        """Return a job's result once there is an outcome: first subscribe, then look, then read."""
        if self._is_closed:
            raise ConfigurationError("this object is closed; make a new one")
        wait = _Wait(job_id, timeout)
        try:
            self._join(wait)
            while wait.outcome is None:
                self._step(wait)
        finally:
            try:
                self._leave(wait)
            except BaseException:
                self._leave(wait)  # interrupted: all of it again, which does no harm
                raise
        return self._answer(job_id, wait.outcome)

    def close(self) -> None:
        """Whoever still waits is told, whoever comes later, too."""
        self._is_closed = True
        self._tell_all()
        self._reader.close()

    def _join(self, wait: _Wait) -> None:
        with self._lock:
            self._waits.setdefault(wait.job_id, []).append(wait)
            if self._leader is None:
                self._leader, self._position = wait, None

    def _leave(self, wait: _Wait) -> None:
        with self._lock:
            same = self._waits.get(wait.job_id, [])
            if wait in same:
                same.remove(wait)
            if not same:
                self._waits.pop(wait.job_id, None)
            if self._leader is wait:
                self._leader = next((each for each in self._everybody() if each.outcome is None), None)
            if self._leader is not None:
                self._leader.wake.set()

    def _everybody(self) -> list[_Wait]:
        return [wait for waits in self._waits.values() for wait in waits]

    def _step(self, wait: _Wait) -> None:
        """Do the next thing that brings the outcome nearer. Raises what ends the wait."""
        if self._is_closed:
            raise self._closed()
        if wait.has_tried and monotonic() >= wait.until:
            waited_for = f"job {wait.job_id!r} of queue {self._context.name!r}"
            raise TimeoutError(f"{waited_for} has no outcome after {wait.timeout} seconds")
        wait.has_tried = True
        try:
            if self._leader is wait and self._position is None:
                self._subscribe(wait)
            if wait.must_look:
                self._look(wait)
            elif self._leader is wait:
                self._read(wait)
            else:
                wait.wake.wait(None if wait.until == inf else wait.until - monotonic())
                wait.wake.clear()
        except EventqError as error:
            if self._is_closed:
                raise self._closed() from error
            is_late = monotonic() >= wait.until
            # Who waits already goes on until Redis is back.
            if not isinstance(error, QueueUnavailable) or not (wait.has_looked or is_late):
                raise

    def _subscribe(self, wait: _Wait) -> None:
        """Take the end of the stream as what is read, and let everybody look at what is stored by then."""
        keys = self._context.keys
        epoch, seq = self._reader.run_verb(stream_state(keys), until=wait.until)
        newest = self._reader.run_verb(last_entry(keys), until=wait.until)
        entry_id, span = (newest[0].id, _span(newest[0])) if newest else ("0-0", None)
        self._tell_all(must_look=True)
        self._connects = self._reader.connects
        self._position = Position(epoch, entry_id, seq if span is None else span[1])

    def _look(self, wait: _Wait) -> None:
        wait.must_look = False
        try:
            # Events up to here are in what is looked up next. The reader may still come to them, and the outcome of a run
            # before a retry, or of another job that had this id, is not what is awaited.
            _, wait.known = self._context.runner.run_verb(stream_state(self._context.keys), until=wait.until)
            stored = self._context.require(wait.job_id, until=wait.until)
        except JobNotFound:
            if wait.outcome is None:
                raise
        except BaseException:
            wait.must_look = True
            raise
        else:
            wait.has_looked = True
            if stored.state in FINISHED:
                wait.outcome = stored

    def _read(self, wait: _Wait) -> None:
        """Read what comes next, for everybody."""
        position = self._position
        block = max(0.001, min(BLOCK, wait.until - monotonic()))
        if position is None:
            return
        keys = self._context.keys
        verb = read_events(keys, position.entry_id, _ENTRIES, max(1, round(block * 1000)))
        entries = self._reader.run_verb(verb, block=block, until=wait.until)
        fits = all(self._take(entry) for entry in entries) and self._connects == self._reader.connects
        if fits and not entries:
            now = self._reader.run_verb(stream_state(keys), until=wait.until)
            is_behind = now != (position.epoch, position.seq)
            fits = not is_behind or (
                now[0] == position.epoch and bool(self._reader.run_verb(entry_after(keys, position.entry_id), until=wait.until))
            )
        if not fits:
            self._position = None

    def _take(self, entry: Entry) -> bool:
        """Tell what an entry says. False: it is not the next one."""
        position, span = self._position, _span(entry)
        if position is None or span is None:
            return False
        if span[0] != position.seq + 1 or entry.fields.get("kind") == ObliteratedEvent.kind:
            return False
        if entry.fields.get("kind") in _TELLING:
            try:
                for event in parse_entry(self._context.name, entry.fields):
                    self._tell(event)
            except UnreadableEntry:
                return False
        self._position = Position(position.epoch, entry.id, span[1])
        return True

    def _tell(self, event: Event) -> None:
        job_ids = event.job_ids if isinstance(event, RemovedEvent) else (getattr(event, "job_id", ""),)
        with self._lock:
            for wait in [wait for job_id in job_ids for wait in self._waits.get(job_id, ())]:
                if event.seq <= wait.known or wait.outcome is not None:
                    continue
                if isinstance(event, CompletedEvent) and event.result_omitted:
                    wait.must_look = True
                else:
                    wait.outcome = event
                wait.wake.set()

    def _tell_all(self, *, must_look: bool = False) -> None:
        with self._lock:
            for wait in self._everybody():
                wait.must_look |= must_look
                wait.wake.set()

    def _answer(self, job_id: str, outcome: Event | StoredJob) -> Any:
        """Return the result, or raise what became of the job."""
        if isinstance(outcome, FailedEvent):
            raise failure(self._context.name, job_id, outcome.error, self._traceback(job_id))
        if isinstance(outcome, StoredJob) and outcome.state is JobState.FAILED:
            error = stored_error(outcome.result)
            raise failure(self._context.name, job_id, error, error.traceback)
        if isinstance(outcome, CompletedEvent):
            text = None if outcome.result is None else encode_json(outcome.result, "result")
        elif isinstance(outcome, StoredJob):
            text = outcome.result
        else:
            raise self._context.not_found(job_id)
        # A null after a failed attempt is stored as such: it stands in the place of that attempt's error.
        return None if text in (None, "null") else self._context.result.decode(text)

    def _traceback(self, job_id: str) -> str:
        """Read what the event leaves out; nothing for a job that is gone already."""
        try:
            stored = self._context.stored(job_id)
        except EventqError:
            return ""
        return stored_error(stored.result).traceback if stored is not None and stored.state is JobState.FAILED else ""

    def _closed(self) -> EventqError:
        return EventqError(f"queue {self._context.name!r} was closed while a result was awaited")


def _span(entry: Entry) -> tuple[int, int] | None:
    """Return the numbers of an entry's first and last event; None for one that is none of ours."""
    first, amount = entry.fields.get("seq", ""), entry.fields.get("n", "")
    begin, count = whole(first), whole(amount)
    return None if begin is None or count is None else (begin, begin + count - 1)
