"""One run of one job in this process, from claim to verdict, as small steps over one value:
started -> performed -> decided -> recorded.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from typing import TYPE_CHECKING, Any

from eventq.backoff import Backoff
from eventq.commands.work import Held, Outcome
from eventq.durations import to_ms
from eventq.errors import InvalidJob, LeaseLost, Postpone, Retry, Unrecoverable
from eventq.outcome import TimedOut, TooManyStarts, Verdict, completed, failed, identity, postponed, result_text
from eventq.spans import members_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from eventq.commands.work import Claimed
    from eventq.context import QueueContext
    from eventq.current import RunContext
    from eventq.job import Job
    from eventq.records import JobErrorInfo, Record
    from eventq.threads import ThreadPool

BackoffStrategy = "Callable[[Job[Any, Any], BaseException], float | None | Awaitable[float | None]]"


class Running:
    """A run. `ended` says why it is over before its processor is: lost, fenced, closing. `deadline`: until when (boot time) its
    lease is surely ours; set by the heartbeat's thread.
    """

    __slots__ = (
        "attempt", "began", "claimed", "context", "deadline", "ended", "has_begun", "identity", "in_thread", "is_last_chance",
        "is_settling", "job", "progress", "progress_at", "progress_timer", "record", "slot_held", "stop_renewing", "task",
    )  # fmt: skip

    def __init__(self, claimed: Claimed, record: Record, attempt: int, worker: str) -> None:
        self.claimed = claimed
        self.record = record
        self.attempt = attempt
        self.identity = identity(record.name, attempt, worker)
        self.job: Job[Any, Any] | None = None
        #: OpenTelemetry's, with the run's span, where somebody may want it.
        self.context: RunContext | None = None
        self.task: asyncio.Task[None] | None = None
        self.ended = ""
        self.has_begun = False
        self.in_thread = False
        self.is_settling = False
        self.is_last_chance = False
        self.deadline = float("inf")
        #: When it took its slot (boot time).
        self.began = 0.0
        self.slot_held = False
        self.progress: str | None = None
        self.progress_at = 0.0
        self.progress_timer: asyncio.TimerHandle | None = None
        self.stop_renewing = float("inf")

    @property
    def held(self) -> Held:
        """Return the run as renewals and releases name it."""
        return Held(self.claimed.id, self.claimed.token, self.identity + self._trace(None))

    def outcome(self, verdict: Verdict) -> Outcome:
        """Return the outcome as it is sent."""
        return Outcome(
            self.claimed.id,
            self.claimed.token,
            verdict.word,
            self.identity + verdict.facts + self._trace(verdict.error),
            verdict.body,
            verdict.extra,
        )

    def _trace(self, error: JobErrorInfo | None) -> str:
        """Return what an event says of traces: whose the job is, and what was said of the run's span."""
        trace = f",{members}" if (members := members_of(self.record.trace)) else ""
        if self.context is not None and (error is not None or self.context.made is not None):
            said = self.context.span.captured(error.traceback if error else "")
            return f"{trace},{said}" if said else trace
        return trace

    def end(self, why: str) -> None:
        """Tell the processor that this run is over: cancel its task, set `job.cancelled` for a thread to see."""
        if self.ended:
            return
        self.ended = why
        if self.job is not None:
            self.job.cancelled = True
        if self.task is not None:
            self.task.cancel(why)


def in_order(runs: Iterable[Running]) -> list[Running]:
    """Return runs in the order they were claimed: replies of two lanes may come the other way round."""
    return sorted(runs, key=lambda running: running.claimed.fence)


async def perform(
    running: Running, processor: Callable[[Any], Any], threads: ThreadPool | None, freed: Callable[[Running], None]
) -> Any:
    """Call the processor and return what it returns; raises what it raises, TimedOut after the job's timeout.

    threads: where a plain function runs, None for async ones. freed: called when the slot is free, which for a thread that timed
    out is only when it ends.
    """
    timeout = running.record.spec.timeout_ms / 1000
    if threads is None:
        try:
            return await (_limited(processor(running.job), timeout) if timeout else processor(running.job))
        finally:
            freed(running)
    future = threads.call(asyncio.get_running_loop(), processor, running.job)
    try:
        done, _ = await asyncio.wait([future], timeout=timeout or None)
        if not done:
            if running.job is not None:
                running.job.cancelled = True
            raise TimedOut(f"took longer than its timeout of {timeout:g} seconds; its thread goes on until it ends")
        answer = future.result()
        if inspect.isawaitable(answer):  # a plain function that calls an async one: part of the same run
            return await (_limited(answer, timeout) if timeout else answer)
        return answer
    finally:
        if future.done():
            freed(running)
        else:
            future.add_done_callback(_ignore)
            future.add_done_callback(lambda _: freed(running))


async def _limited(work: Awaitable[Any], timeout: float) -> Any:
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if limit.expired():
            raise TimedOut(f"took longer than its timeout of {timeout:g} seconds") from error
        raise


def _ignore(future: asyncio.Future[Any]) -> None:
    # The attempt has failed already; what the thread still raises is nobody's outcome.
    if not future.cancelled():
        future.exception()


def succeeded(running: Running, value: Any, context: QueueContext[Any, Any]) -> Verdict:
    """Return what is recorded for a run that returned. Raises UnreadableResult when that cannot be stored."""
    fails = running.job.run.fails if running.job is not None else 0
    return completed(running.record, result_text(context.result.encode, value), context.limits, fails)


async def decide(
    running: Running, error: BaseException | None, context: QueueContext[Any, Any], strategies: Mapping[str, Any]
) -> Verdict:
    """Return what is recorded for a run that failed. Never raises: a strategy that fails fails the attempt."""
    error = error or RuntimeError("the run ended without a result or an error")
    fails = running.job.run.fails if running.job is not None else 0
    if isinstance(error, Postpone):
        try:
            return postponed(running.record, running.job.run.starts if running.job is not None else 1, error)
        except (TooManyStarts, InvalidJob) as refused:
            error = refused
    wait_ms: int | None = None
    backoff = running.record.spec.backoff
    is_said = isinstance(error, Unrecoverable) or (isinstance(error, Retry) and error.delay is not None)
    if backoff is not None and backoff.is_custom and not is_said and fails + 1 < running.record.spec.attempts:
        try:
            wait_ms = await _custom_wait(running, error, backoff, strategies)
        except Exception as broken:  # the strategy is user code: its failure is added to the attempt's
            error = ExceptionGroup(f"backoff strategy {backoff.kind!r} failed", [_as_exception(error), broken])
            wait_ms = backoff.delay_ms
    return failed(running.record, fails, error, context.limits, random=random.random, custom_wait_ms=wait_ms)


async def _custom_wait(running: Running, error: BaseException, backoff: Backoff, strategies: Mapping[str, Any]) -> int:
    strategy = strategies.get(backoff.kind)
    if strategy is None:
        raise InvalidJob(f"no backoff strategy {backoff.kind!r} on this worker; it has: {', '.join(strategies) or 'none'}")
    seconds = strategy(running.job, error)
    if inspect.isawaitable(seconds):
        seconds = await seconds
    return -1 if seconds is None else to_ms(f"backoff strategy {backoff.kind!r}", seconds)


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


def lease_lost(running: Running, queue: str) -> LeaseLost:
    """Return the error for a run whose outcome is refused."""
    return LeaseLost(
        f"job {running.claimed.id!r}: the lease of this run is gone, its outcome is not recorded; the job runs or ran elsewhere",
        queue=queue,
        job_id=running.claimed.id,
    )


def unconfirmed(running: Running, queue: str) -> LeaseLost:
    """Return the error for a run that is cancelled because Redis could not be asked in time whether it is still ours."""
    return LeaseLost(
        f"job {running.claimed.id!r}: its lease could not be renewed in time, so the run is cancelled and the job given back; "
        "is Redis away, or out of this worker's reach?",
        queue=queue,
        job_id=running.claimed.id,
    )
