"""Worker: takes jobs from a queue and runs them. This module is its life: start, look for work, pause, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, overload

from eventq.checks import check_strategies, check_whole, check_worker_name
from eventq.client import boot_time
from eventq.context import DataT, ResultT
from eventq.durations import to_ms
from eventq.errors import ConfigurationError
from eventq.events import WORKER_KINDS, WorkerStartedEvent, WorkerStoppedEvent
from eventq.exit_signals import exit_signals, unless
from eventq.fence import Fence, deadline_of
from eventq.heartbeat import Heartbeat
from eventq.job import Job
from eventq.lanes import Lanes
from eventq.processors import Processors
from eventq.queue import queue_of
from eventq.releases import Releases
from eventq.reporter import Reporter
from eventq.running import in_order
from eventq.runs import Runs
from eventq.scheduler import QueueScheduler
from eventq.signals import Listeners, Listening
from eventq.vitals import Vitals
from eventq.waker import Waker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from eventq.commands.work import ClaimReply
    from eventq.lanes import Settlement
    from eventq.queue import Queue
    from eventq.signing import SigningKeys

Processor = Callable[[Job[DataT, ResultT]], "Awaitable[ResultT] | ResultT"]
Strategy = Callable[[Job[Any, Any], BaseException], "float | Awaitable[float | None] | None"]

#: Seconds a cancelled processor gets to clean up before its job is released over its head.
_CANCEL_GRACE: Final = 0.5
#: Seconds that the last outcomes, releases and events get to reach Redis at close, all together.
_FLUSH_GRACE: Final = 5.0


class Worker(Listening, Generic[DataT, ResultT]):
    """Runs the jobs of one queue: async processors on the loop, plain functions in threads.

    processor: one function of a job, or several by job name. concurrency: slots, changeable while running. lease: seconds after
    which a silent worker's jobs are given to others; renewed every third of it from a thread. max_stalls: how often a job may
    lose its worker before it fails. grace: seconds running jobs get at close. burst: stop when the line is empty. max_jobs: stop
    after so many. backoffs: strategies for Backoff.custom, called with job and error, returning seconds or None to give up.
    signing_keys: as of Queue, for a queue that is given by its name.

    `async with` runs it in the background, `await run()` until SIGTERM or SIGINT. Redis away: it carries on when Redis is back.
    Away for longer than nine tenths of the lease: running jobs are cancelled and run again, uncounted; plain functions, which
    nothing can cancel, go on, perhaps beside the job's next run, and only one of the two is recorded.
    """

    @overload
    def __init__(
        self: Worker[Any, Any], queue: str,
        processor: Callable[[Job[Any, Any]], object] | Mapping[str, Callable[[Job[Any, Any]], object]], *,
        url: str | None = ..., concurrency: int = ..., lease: float | timedelta = ..., max_stalls: int = ...,
        grace: float | timedelta = ..., burst: bool = ..., max_jobs: int | None = ..., name: str | None = ...,
        backoffs: Mapping[str, Strategy] | None = ..., signing_keys: SigningKeys | Mapping[str, bytes] | None = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self, queue: Queue[DataT, ResultT],
        processor: Processor[DataT, ResultT] | Mapping[str, Processor[DataT, ResultT]], *,
        url: None = ..., concurrency: int = ..., lease: float | timedelta = ..., max_stalls: int = ...,
        grace: float | timedelta = ..., burst: bool = ..., max_jobs: int | None = ..., name: str | None = ...,
        backoffs: Mapping[str, Strategy] | None = ..., signing_keys: SigningKeys | Mapping[str, bytes] | None = ...,
    ) -> None: ...  # fmt: skip

    def __init__(
        self,
        queue: Queue[Any, Any] | str,
        processor: Any,
        *,
        url: str | None = None,
        concurrency: int = 1,
        lease: float | timedelta = 15.0,
        max_stalls: int = 2,
        grace: float | timedelta = 25.0,
        burst: bool = False,
        max_jobs: int | None = None,
        name: str | None = None,
        backoffs: Mapping[str, Strategy] | None = None,
        signing_keys: SigningKeys | Mapping[str, bytes] | None = None,
    ) -> None:
        """Name a worker; nothing is opened yet. Raises ConfigurationError or InvalidJob naming option and value."""
        self.queue = queue_of(queue, url, signing_keys)
        self._owns_queue = self.queue is not queue
        self._context = self.queue.context
        self.name = check_worker_name(name)
        self._concurrency = check_whole("concurrency", concurrency, 1, 100_000)
        self._max_stalls = check_whole("max_stalls", max_stalls, 0, 1_000_000)
        self.max_jobs = None if max_jobs is None else check_whole("max_jobs", max_jobs, 1, 2**53)
        self._lease_ms = to_ms("lease", lease, minimum_ms=500)
        self._grace = to_ms("grace", grace) / 1000
        #: Stop when the line is empty, stop after so many jobs; may be set before the start.
        self.burst = burst
        self.listeners = Listeners(self, self._context.name)
        self._runs = Runs(
            self._context,
            self.name,
            Processors(processor),
            strategies=check_strategies(backoffs),
            listeners=self.listeners,
            max_stalls=self._max_stalls,
        )
        self._is_paused = False
        self._is_started = False
        self._stopping = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._fatal: Exception | None = None

    @property
    def concurrency(self) -> int:
        """How many jobs run at once; may be set while running."""
        return self._concurrency

    @concurrency.setter
    def concurrency(self, value: int) -> None:
        self._concurrency = check_whole("concurrency", value, 1, 100_000)
        if self._is_started:
            self._look_again()

    @property
    def is_running(self) -> bool:
        """Whether it has started and is not closed."""
        return self._is_started and self._closing is None

    @property
    def failure(self) -> Exception | None:
        """What it ended with, if no repeating would mend it: another layout, no permission. `run` and `async with` raise it."""
        return self._fatal

    @property
    def is_paused(self) -> bool:
        """Whether this worker claims nothing for now."""
        return self._is_paused

    @property
    def running(self) -> int:
        """How many jobs run here now."""
        return self._runs.busy

    async def start(self) -> None:
        """Connect, check the server, begin to claim, in the background. Raises what connecting raises."""
        if self._closing is not None:
            raise ConfigurationError(f"worker {self.name!r} is closed; make a new one")
        if self._is_started:
            return
        await self.queue.ready()
        self._is_started = True
        self._loop = asyncio.get_running_loop()
        self._assemble()
        self._heartbeat.start()
        await self._scheduler.start()
        self._lanes.start()
        self._waker.start(self.name)
        self._fence.start()
        self._lanes.look()
        facts = self._vitals.introduction
        self.listeners.send(WorkerStartedEvent(queue=self._context.name, **facts))
        self._reporter.tell("worker_started", facts)

    def _assemble(self) -> None:
        """Make the parts of a running worker; none of them does anything yet."""
        lease, on_fault = self._lease_ms / 1000, self._runs.error
        self._lanes = Lanes(
            self._context,
            worker=self.name,
            lease_ms=self._lease_ms,
            concurrency=self._concurrency,
            slots=lambda: self._concurrency,
            free=self._free,
            max_stalls=self._max_stalls,
            may_risk=lambda: not self._runs.last_chances,
            replied=self._replied,
            failed=self._fail,
            on_fault=on_fault,
        )
        self._lanes.claiming = not self._is_paused
        self._waker = Waker(
            self._context,
            block=lease / 3,
            wants_work=self._wants_work,
            look=self._lanes.look,
            failed=self._fail,
            on_fault=on_fault,
        )
        self._releases = Releases(self._context, lease, failed=self._runs.error, on_fault=on_fault)
        self._reporter = Reporter(self._context)
        self._runs.settle = self._lanes.settle
        self._runs.report = self._lanes.report
        self._runs.slot_freed = self._slot_freed
        self._runs.give_back = self._releases.give_back
        self._runs.tell = self._reporter.tell
        self._assemble_leases(lease)

    def _assemble_leases(self, lease: float) -> None:
        """Make what renews leases, takes back those of others, and stops runs whose own is in doubt."""
        on_fault = self._runs.error
        self._vitals = Vitals(self._context, self.name, self._runs, lambda: self._concurrency)
        self._scheduler = QueueScheduler(
            self.queue,
            lease=lease,
            max_stalls=self._max_stalls,
            on_fault=on_fault,
            on_work=self._waker.hint,
            on_error=self._runs.error,
            failed=self._fail,
        )
        self._heartbeat = Heartbeat(self._context, lease, self.name, self._runs, self._vitals)
        self._fence = Fence(lease, overdue=self._runs.overdue, ask=self._heartbeat.hurry, expired=self._runs.fenced)

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT, or until done (burst, max_jobs), then close with grace; a second signal skips the grace.

        Raises what connecting raises, and what no waiting mends: another layout, no permission. Signals are handled in the main
        thread only.
        """
        with exit_signals(self.stop):
            try:
                await unless(self._stopping, self.start())
                await self._stopping.wait()
            finally:
                await self.close()
        if self._fatal is not None:
            raise self._fatal

    def stop(self) -> None:
        """Ask `run` to end, as SIGTERM does; a second call skips the grace."""
        if self._stopping.is_set():
            self._grace = 0.0
            self._runs.end("closing")
        self._stopping.set()

    async def pause(self, *, wait: bool = True) -> None:
        """Claim nothing on this worker. With `wait`, return when the jobs that run here are done."""
        self._is_paused = True
        if self._is_started:
            self._lanes.claiming = False
            if wait:
                await self._settle_down(None)

    def resume(self) -> None:
        """Claim again."""
        self._is_paused = False
        if self.is_running:
            self._lanes.claiming = True
            self._look_again()

    async def close(self, grace: float | timedelta | None = None) -> None:
        """Stop claiming, give running jobs `grace` (seconds), cancel the rest and release them to the head of the line.

        Outcomes that are decided are recorded first. Safe to call twice; cancelled, it goes on in the background. After it, no
        task or thread of the worker is left but processors that will not end: threads, and tasks that ignore being cancelled.
        """
        if grace is not None:
            self._grace = to_ms("grace", grace) / 1000
        self._closing = self._closing or asyncio.create_task(self._close(), name=f"eventq-close {self.name}")
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
        if exc is None and self._fatal is not None:
            raise self._fatal

    def __repr__(self) -> str:
        return (
            f"<Worker {self.name} on {self._context.name} running={self._runs.busy}/{self._concurrency} paused={self._is_paused}>"
        )

    def _listen(self, kind: str, receiver: Callable[[Any], object]) -> None:
        if kind not in WORKER_KINDS:
            raise ConfigurationError(f"event kind {kind!r}: a worker tells {', '.join(WORKER_KINDS)}; use on() of its queue")
        super()._listen(kind, receiver)

    def _free(self) -> int:
        free = self._concurrency - self._runs.busy
        if self.max_jobs is not None:
            free = min(free, self.max_jobs - self._runs.started)
        return free

    def _wants_work(self) -> bool:
        return self._lanes.claiming and self._free() > 0

    def _look_again(self) -> None:
        self._waker.has_slots()
        self._lanes.look()

    def _replied(self, settlements: Sequence[Settlement], reply: ClaimReply, sent: float) -> None:
        self._runs.answered(settlements, reply)
        if not self._lanes.claiming:
            # They arrived after a pause or close: back to the head, in order.
            self._releases.give_back([self._runs.unstarted(claimed) for claimed in reply.jobs])
        else:
            deadline, arrived = deadline_of(sent, self._lease_ms / 1000), boot_time()
            for claimed in reply.jobs:
                self._runs.start(claimed, deadline, arrived)
        if reply.next_due_ms is not None:
            self._waker.look_in(reply.next_due_ms)
        if self._free() > 0:
            self._waker.has_slots()
        self._check_done()

    def _check_done(self) -> None:
        done = self.max_jobs is not None and self._runs.settled >= self.max_jobs
        if self.burst and not done:
            done = not self._runs.held and self._lanes.is_quiet
        if done:
            self._stopping.set()

    def _slot_freed(self) -> None:
        if self._free() > 0:
            self._look_again()
        self._check_done()

    def _fail(self, error: Exception) -> None:
        if self._fatal is None:
            self._fatal = error
            self._runs.error(error)
            self._closing = self._closing or asyncio.create_task(self._close(), name=f"eventq-close {self.name}")

    async def _settle_down(self, grace: float | None) -> None:
        """Wait for running jobs and their verdicts, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while tasks := self._runs.tasks():
                    await asyncio.wait(tasks)
                await self._lanes.flush()

    async def _close(self) -> None:
        self._stopping.set()
        if self._is_started:
            logging.getLogger("eventq.worker").info("%r stops, with a grace of %g s", self, self._grace)
            self._lanes.claiming = False
            await self._waker.stop()
            left = await self._wind_up()
            self._fence.stop()
            self._heartbeat.stop()
            await self._scheduler.close()
            await self._lanes.close()
            await self._releases.close()
            self._runs.close()
            await self._heartbeat.ended(1.0)
            self.listeners.send(WorkerStoppedEvent(queue=self._context.name, worker=self.name))
            self._reporter.leave(self._vitals.farewell())
            self._reporter.tell("worker_stopped", {"worker": self.name})
            await self._reporter.close(max(0.5, left()))
        await self.listeners.close()
        if self._owns_queue:
            await self.queue.close()

    async def _wind_up(self) -> Callable[[], float]:
        """Grace, cancel, release; then the last outcomes go out. Returns what tells how many seconds are left for the rest."""
        if self._fatal is None:
            await self._graceful()
        tasks = self._runs.end("closing")
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_GRACE)
        deadline = self._loop.time() + _FLUSH_GRACE

        def left() -> float:
            return max(0.0, deadline - self._loop.time())

        if self._fatal is None:
            # What does not end by itself is released over its head.
            self._releases.give_back([running.held for running in in_order(self._runs.held.values()) if not running.is_settling])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left()):
                await self._lanes.flush()
        await self._releases.flush(left())
        self._runs.held.clear()
        return left

    async def _graceful(self) -> None:
        """Give running jobs their grace, looking now and then whether a second signal took it away."""
        deadline = self._loop.time() + self._grace
        while self._runs.tasks() and (left := min(deadline, self._loop.time() + self._grace) - self._loop.time()) > 0:
            await asyncio.wait(self._runs.tasks(), timeout=min(left, 0.1))
