"""A job as its producer, its processor and anybody who looks it up hold it."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, cast

import msgspec

from eventq.codec import encode_json
from eventq.context import BaseContext, DataT, QueueContext, ResultT
from eventq.errors import InvalidJob, InvalidState, JobFailed
from eventq.ids import schedule_of
from eventq.limits import PROGRESS_BYTES
from eventq.operations import changing, reading
from eventq.records import NEVER_RUN, JobErrorInfo, Record, Run, StoredJob
from eventq.signing import unsealed
from eventq.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from datetime import timedelta


class Outcomes(Protocol):
    """Whoever can wait for the outcome of a job: its queue's listener."""

    async def wait(self, job_id: str, timeout: float | None) -> Any:
        """Return the job's result; raise JobFailed, JobNotFound or TimeoutError."""
        ...


class Undecoded:
    """Stands for data that nobody has asked for yet."""


UNDECODED: Final = Undecoded()


class Called:
    """A call that was made: `await` it on a loop; in a thread it is done already."""

    __slots__ = ("_call",)

    def __init__(self, call: Coroutine[Any, Any, None] | None = None) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, None, None]:
        if self._call is not None:
            yield from self._call.__await__()


_DONE = Called()


class BaseJob(Generic[DataT, ResultT]):
    """What a job says of itself, as of when it was read."""

    __slots__ = ("_context", "_data", "_outcome", "_stored_progress", "id", "record", "run")

    def __init__(
        self,
        context: BaseContext[DataT, ResultT],
        job_id: str,
        record: Record,
        data: DataT | Undecoded,
        run: Run = NEVER_RUN,
        *,
        progress: Any = None,
        outcome: str | None = None,
    ) -> None:
        self._context = context
        self._stored_progress = progress
        #: The stored result of a completed job, the stored error of one whose last attempt failed.
        self._outcome = outcome
        self.id = job_id
        self.record = record
        self.run = run
        self._data = data

    @property
    def data(self) -> DataT:
        """The job's data, checked against the queue's type. Raises InvalidJob when what is stored does not fit it.

        A processor's is decoded before it is called; of a job that was looked up it is decoded here, so that one job whose
        data does not fit can still be listed, retried or removed. A signature is verified where the job is run, and not here.
        """
        if isinstance(self._data, Undecoded):
            self._data = self._context.data.decode(unsealed(self.record.data))
        return self._data

    @property
    def name(self) -> str:
        """What kind of job it is; a worker chooses the processor by it."""
        return self.record.name

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._context.name

    @property
    def scope(self) -> str:
        """The queue's name, with the prefix where that is not the usual one: ids of spans are made of it."""
        return self._context.keys.scope

    @property
    def attempt(self) -> int:
        """Which attempt this is (or would be next; of a failed job, was the last), from 1. Stalls do not raise it."""
        return max(1, self.run.fails) if self.run.state == JobState.FAILED else self.run.fails + 1

    @property
    def max_attempts(self) -> int:
        """How many attempts it has."""
        return self.record.spec.attempts

    @property
    def priority(self) -> int:
        """None is 0 and runs first, then 1, 2 and so on."""
        return self.record.priority

    @property
    def added_at(self) -> datetime:
        """When it was stored, by Redis' clock."""
        return time_of(self.record.added_ms)

    @property
    def started_at(self) -> datetime | None:
        """When its last run started, by Redis' clock."""
        return time_of(self.run.started_ms) if self.run.started_ms else None

    @property
    def finished_at(self) -> datetime | None:
        """When it completed or failed for good, by Redis' clock."""
        return time_of(self.run.finished_ms) if self.run.finished_ms else None

    @property
    def due_at(self) -> datetime | None:
        """When it may run (or was to run first), by Redis' clock; None for at once."""
        return time_of(ms) if (ms := self.run.ready_ms or self.record.due_ms) else None

    @property
    def schedule_id(self) -> str | None:
        """The schedule that made it, None for a job that was added."""
        return schedule_of(self.id)[0]

    @property
    def slot(self) -> datetime | None:
        """Of a job that a schedule made: when it was meant to run, which may be long before it does. Aware, in UTC."""
        schedule_id, slot_ms = schedule_of(self.id)
        return None if schedule_id is None else time_of(slot_ms)

    @property
    def error(self) -> JobErrorInfo | None:
        """Why its last attempt that failed did so: type, message and traceback, as stored when the job was looked up.

        None for a completed job, one that never failed, and one that was retried by hand.
        """
        if self._outcome is None or self.run.state == JobState.COMPLETED:
            return None
        return stored_error(self._outcome)

    @property
    def progress(self) -> Any:
        """The last progress reported: a number or a JSON object; None for none."""
        return self._stored_progress

    def __repr__(self) -> str:
        return f"<Job {self.queue}/{self.id} {self.name!r} attempt {self.attempt}/{self.max_attempts}>"


class Job(BaseJob[DataT, ResultT]):
    """One job. What it says is as of when it was read; methods ask Redis anew.

    data: decoded and checked. attempt: 1 while first running, fails + 1. fence: rises with every run of any job of the queue,
    for compare-and-set in your own database; 0 outside a processor.
    """

    __slots__ = ("_outcomes", "_report", "_runner", "_token", "cancelled", "fence")

    def __init__(
        self,
        context: QueueContext[DataT, ResultT],
        job_id: str,
        record: Record,
        data: DataT | Undecoded,
        run: Run = NEVER_RUN,
        *,
        outcomes: Outcomes | None = None,
        progress: Any = None,
        outcome: str | None = None,
        fence: int = 0,
        token: str = "",
        report: Callable[[str, str], None] | None = None,
    ) -> None:
        super().__init__(context, job_id, record, data, run, progress=progress, outcome=outcome)
        self._runner = context.runner
        self._outcomes = outcomes
        self._token = token
        self._report = report
        self.fence = fence
        #: Set when this run is over before its processor is: timed out, lease lost, worker closing. Threads look at it.
        self.cancelled = False

    def update_progress(self, progress: float | dict[str, Any]) -> Called:
        """Report progress from the processor: a number or a JSON object. Returns at once; `await` it or not, also in threads.

        Written with the next call, at most ten times a second per job, the latest value wins and always before the outcome.
        Raises InvalidJob for anything else, InvalidState outside a processor.
        """
        is_endless = isinstance(progress, float) and not math.isfinite(progress)
        if is_endless or isinstance(progress, bool) or not isinstance(progress, int | float | dict):
            raise InvalidJob(f"progress {progress!r}: must be a number or a JSON object (dict)")
        text = encode_json(progress, "progress")
        if (size := len(text) if text.isascii() else len(text.encode())) > PROGRESS_BYTES:
            raise InvalidJob(f"progress of {size} bytes: larger than the limit of {PROGRESS_BYTES} bytes")
        if self._report is None:
            raise InvalidState(f"job {self.id!r}: progress is reported by its processor only", queue=self.queue, job_id=self.id)
        self._stored_progress = progress
        self._report(self._token, text)
        return _DONE

    async def get_state(self) -> JobState:
        """Read where the job stands. One round trip. Raises JobNotFound."""
        return (await self._runner.perform(reading.require(self._context.keys, self.id))).state

    async def result(self, timeout: float | None = None) -> ResultT:
        """Wait for the outcome and return the result. No polling: an event tells.

        timeout: seconds, None waits for ever. Raises JobFailed with the processor's error, JobNotFound when the job was removed
        before its outcome was seen, TimeoutError.
        """
        if self._outcomes is None:
            raise InvalidState(f"job {self.id!r}: a processor cannot wait for its own result", queue=self.queue, job_id=self.id)
        return cast("ResultT", await self._outcomes.wait(self.id, timeout))

    async def retry(self, *, reset_attempts: bool = False) -> None:
        """Put a failed job back in line. Raises JobNotFound, InvalidState when it is not failed; then nothing changed.

        reset_attempts: its attempts (and stalls) count from the beginning again.
        """
        await self._runner.perform(changing.retry(self._context.keys, self.id, reset_attempts))

    async def remove(self) -> None:
        """Remove the job with all that is stored of it. Raises JobNotFound, InvalidState while it runs."""
        await self._runner.perform(changing.remove(self._context.keys, self.id))

    async def promote(self) -> None:
        """Let a delayed job run now. Raises JobNotFound, InvalidState when it is not delayed."""
        await self._runner.perform(changing.promote(self._context.keys, self.id))

    async def change_delay(self, delay: float | timedelta | None = None, *, at: datetime | None = None) -> None:
        """Let a delayed job run so many seconds from now, or `at` an absolute time. Raises JobNotFound, InvalidState."""
        await self._runner.perform(changing.delay(self._context.keys, self.id, delay, at))

    async def change_priority(self, priority: int, *, lifo: bool = False) -> None:
        """Change the priority (0: none, runs first) and with it the place in line: behind its equals, with `lifo` before them.

        A job that runs or is delayed comes in at the new priority next time. Raises JobNotFound, InvalidState once finished.
        """
        await self._runner.perform(changing.prioritize(self._context.keys, self.id, priority, lifo))

    def update_data(self, data: DataT) -> Called:
        """Replace the job's data; the next run sees it. `await` it; in a processor's thread the call itself waits.

        A processor that works in steps saves here how far it is. Raises InvalidJob (data that does not fit the type or the
        limit), BadSignature (a signed job that was altered, or no keys here), JobNotFound, and LeaseLost from a run that is over;
        then nothing changed.
        """
        text = self._context.resealed(self.id, self.record, data)
        return self._from_anywhere(self._replace_data(data, text))

    async def _replace_data(self, data: DataT, text: str) -> None:
        await self._runner.perform(changing.replace_data(self._context.keys, self.id, self._token, text))
        self._data = data

    def log(self, line: str) -> Called:
        """Add a line to the job's log, which keeps the last 1,000 lines and 64 KiB. `await` it; in a thread the call waits.

        One round trip. Raises InvalidJob (not text, or over 8 KiB), JobNotFound, and LeaseLost from a run that is over.
        """
        return self._from_anywhere(self._runner.perform(changing.log(self._context.keys, self.id, self._token, line)))

    async def get_logs(self, start: int = 0, limit: int = 100) -> list[str]:
        """Return lines of the job's log, the oldest that is kept first. One round trip. Raises JobNotFound."""
        return await self._runner.perform(reading.logs(self._context.keys, self.id, start, limit))

    async def clear_logs(self, keep: int = 0) -> None:
        """Remove the log but for its last `keep` lines. Raises JobNotFound."""
        await self._runner.perform(changing.clear(self._context.keys, self.id, keep))

    def _from_anywhere(self, call: Coroutine[Any, Any, None]) -> Called:
        """Return the call to be awaited on the loop; in a thread beside the running loop make it and wait for it."""
        loop = self._runner.loop
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if loop is not None and loop.is_running():
                asyncio.run_coroutine_threadsafe(call, loop).result()
                return _DONE
        return Called(call)


_decode_error = msgspec.json.Decoder(JobErrorInfo).decode
_decode_any = msgspec.json.Decoder().decode


def stored_error(text: str | None) -> JobErrorInfo:
    """Return a stored error; a damaged one says so."""
    try:
        return _decode_error(text or "{}")
    except (ValueError, RecursionError):
        return JobErrorInfo("Unknown", "the stored error is unreadable")


def failure(queue: str, job_id: str, error: JobErrorInfo, traceback: str) -> JobFailed:
    """Return what is raised where the result of a failed job is awaited."""
    return JobFailed(
        f"job {job_id!r} failed: {error.type}: {error.message}",
        queue=queue,
        job_id=job_id,
        type=error.type,
        reason=error.message,
        traceback=traceback,
    )


def stored_progress(text: str | None) -> Any:
    """Return stored progress, None for none and for what is damaged: the job is not to be lost from sight for it."""
    try:
        return _decode_any(text) if text else None
    except (ValueError, RecursionError):
        return None


def job_of(context: QueueContext[DataT, ResultT], stored: StoredJob, outcomes: Outcomes) -> Job[DataT, ResultT]:
    """Return the job of what is stored."""
    return Job(
        context,
        stored.id,
        stored.record,
        UNDECODED,
        stored.run,
        outcomes=outcomes,
        progress=stored_progress(stored.progress),
        outcome=stored.result,
    )


def time_of(ms: int) -> datetime:
    """Return Redis' ms as an aware datetime."""
    return datetime.fromtimestamp(ms / 1000, UTC)
