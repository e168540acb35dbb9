"""The runs of one worker: started, performed, decided, sent to the lanes, and told when their verdict is in."""

from __future__ import annotations

import asyncio
import logging
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec

from eventq.client import boot_time
from eventq.commands.work import ProgressUpdate
from eventq.current import context_of, enter
from eventq.errors import BadSignature, EventqError, InvalidJob
from eventq.events import ErrorEvent, Event, make_event
from eventq.job import Job
from eventq.lanes import Settlement
from eventq.limits import PROGRESS_INTERVAL
from eventq.options import Spec
from eventq.outcome import UnreadableJob, UnreadableResult, event_facts, failed
from eventq.processors import UnknownJobName
from eventq.records import NEVER_RUN, Record, Run, parse_record, parse_run
from eventq.running import Running, decide, in_order, lease_lost, perform, succeeded, unconfirmed
from eventq.signing import is_signed, without_keys
from eventq.states import JobState
from eventq.threads import ThreadPool
from eventq.tracing import is_recording

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from eventq.commands.work import Claimed, ClaimReply, Held
    from eventq.context import QueueContext
    from eventq.outcome import Verdict
    from eventq.processors import Processors
    from eventq.signals import Listeners

log: Final = logging.getLogger("eventq.worker")
_KINDS: Final = {"completed": "completed", "retry": "retrying", "failed": "failed", "exhausted": "failed", "postpone": "delayed"}
_ACTIVE: Final = JobState.ACTIVE.value
_NO_RECORD: Final = Record(0, 0, 0, "", "__other__", "", Spec(), "")


class Runs:
    """Every run between claim and verdict. `held` is what is renewed, `busy` how many slots are in use."""

    def __init__(
        self,
        context: QueueContext[Any, Any],
        worker: str,
        processors: Processors,
        *,
        strategies: Mapping[str, Any],
        listeners: Listeners,
        max_stalls: int,
    ) -> None:
        self._context = context
        self._signer = context.signer
        self._worker = worker
        self._processors = processors
        self._strategies = strategies
        self._listeners = listeners
        self._max_stalls = max_stalls
        # Without an SDK nobody has a use for the span of a job that carries no trace.
        self._records_spans = is_recording()
        self._threads = ThreadPool(f"eventq-{context.name}") if processors.any_plain else None
        # One bound method for all: a closure per job would make a cycle that only the garbage collector ends.
        self._reporter = self._progress
        self.held: dict[str, Running] = {}
        self.busy = 0
        #: How long slots were in use by runs that gave theirs back.
        self.busy_seconds = 0.0
        #: Runs of jobs that one more stall would end. One at a time: if it is this job that kills workers, it goes alone.
        self.last_chances = 0
        self.started = 0
        self.settled = 0
        self.settle: Callable[[Settlement], None]
        self.report: Callable[[ProgressUpdate], None]
        self.slot_freed: Callable[[], None]
        self.give_back: Callable[[Sequence[Held]], None]
        self.tell: Callable[[str, dict[str, Any]], None]

    @property
    def functions(self) -> dict[str, str]:
        """What runs jobs here, by job name."""
        return self._processors.functions

    def start(self, claimed: Claimed, deadline: float, arrived: float) -> None:
        """Begin a run whose claim came in at `arrived` and is surely ours until `deadline` (boot time).

        What cannot be read or has no processor fails alone. What came so late that others may have it by now is given back.
        """
        self.started += 1
        run = NEVER_RUN
        try:
            # A first run is not sent: it is all known.
            run = parse_run(claimed.run) if claimed.run else Run(_ACTIVE, claimed.token, 0, 0, claimed.started_ms, 1)
            record = parse_record(claimed.record, claimed.apart)
        except EventqError as error:
            running = Running(claimed, _NO_RECORD, run.fails + 1, self._worker)
            self._refuse(running, run, UnreadableJob(str(error)))
            return
        running = Running(claimed, record, run.fails + 1, self._worker)
        try:
            text = record.data if self._signer is None else self._signer.open_job(claimed.id, record)
            data = self._context.data.decode(text)
            function, is_async = self._processors.find(record.name)
        except (BadSignature, InvalidJob, UnknownJobName) as error:
            self._reject(running, run, error)
            return
        running.job = Job(
            self._context, claimed.id, record, data, run, fence=claimed.fence, token=claimed.token, report=self._reporter
        )
        if record.trace or record.spec.baggage or self._records_spans:
            running.context = context_of(running.job, arrived)
        if claimed.run:
            # The answer of a call that was repeated may be an old one: then the lease began when the run did.
            deadline -= max(0, claimed.started_ms - run.started_ms) / 1000
        running.deadline, running.began = deadline, arrived
        if arrived > deadline:
            self.started -= 1
            self.give_back([running.held])
        else:
            self._begin(running, function, is_async)

    def _begin(self, running: Running, function: Callable[[Any], Any], is_async: bool) -> None:
        loop, claimed = asyncio.get_running_loop(), running.claimed
        if timeout_ms := running.record.spec.timeout_ms:
            # Its lease ends at timeout + lease at the latest, whatever it blocks.
            running.stop_renewing = loop.time() + timeout_ms / 1000
        self.held[claimed.token] = running
        self.busy += 1
        running.slot_held = True
        if claimed.run and running.job is not None:
            running.is_last_chance = 0 < self._max_stalls <= running.job.run.stalls
            self.last_chances += running.is_last_chance
        threads = None if is_async else self._threads
        running.in_thread = threads is not None
        running.task = asyncio.Task(self._run(running, function, threads), loop=loop, name=claimed.id)
        if self._listeners.wants("active"):
            self._tell(running, "active", claimed.started_ms, {})

    def unstarted(self, claimed: Claimed) -> Held:
        """Return a claimed job that is not to be started here as a release names it."""
        try:
            run = parse_run(claimed.run) if claimed.run else NEVER_RUN
            return Running(claimed, parse_record(claimed.record, claimed.apart), run.fails + 1, self._worker).held
        except EventqError:
            return Running(claimed, _NO_RECORD, 1, self._worker).held

    def renewable(self) -> list[Running]:
        """Return the runs whose leases are to be renewed. Safe in another thread."""
        now = monotonic()
        return [running for running in self.held.copy().values() if running.is_settling or now < running.stop_renewing]

    def overdue(self, now: float) -> list[Running]:
        """Return the runs whose processor goes on though their lease may be gone (`now`: boot time).

        Not those past their own timeout: they are ended by that, and fail. Not those in threads: nothing ends them, and to give
        their jobs back on a suspicion would run them twice here and throw the first result away.
        """
        clock = monotonic()
        late = (running for running in self.held.values() if running.deadline < now and not running.ended)
        return [running for running in late if not (running.is_settling or running.in_thread) and clock < running.stop_renewing]

    def fenced(self, runs: Sequence[Running]) -> None:
        """Cancel these runs: nobody could say in time that they are still ours. When they have ended they are given back."""
        for running in in_order(runs):
            self._end(running, "fenced")
            self.error(unconfirmed(running, self._context.name))

    def lost(self, tokens: Sequence[str]) -> None:
        """These runs are no longer ours: cancel them and say so. Only the verdict decides about one that is settling."""
        for token in tokens:
            running = self.held.get(token)
            if running is not None and not running.is_settling:
                self._end(running, "lost")
                self.error(lease_lost(running, self._context.name))

    def answered(self, settlements: Sequence[Settlement], reply: ClaimReply) -> None:
        """Take the verdicts: forget the runs, tell local listeners, log a line per job."""
        stale = set(reply.stale)
        logs = log.isEnabledFor(logging.INFO)
        for index, settlement in enumerate(settlements):
            running, verdict = settlement.running, settlement.verdict
            self.held.pop(running.claimed.token, None)
            self.settled += 1
            if index in stale:
                self.error(lease_lost(running, self._context.name))
                continue
            kind = _KINDS[verdict.word]
            if self._listeners.wants(kind):
                self._tell(running, kind, reply.now_ms, _outcome_facts(settlement, reply.now_ms))
            if logs:
                self._log(running, verdict, reply.now_ms)

    def error(self, error: Exception) -> None:
        """Tell error listeners, the stream, and the log."""
        log.warning("worker %s: %s", self._worker, error)
        facts: dict[str, Any] = {"worker": self._worker, "type": type(error).__name__, "message": str(error)[:1024]}
        if self._listeners.wants("error"):
            self._listeners.send(ErrorEvent(queue=self._context.name, **facts, error=error))
        self.tell("error", facts)

    def end(self, why: str) -> list[asyncio.Task[None]]:
        """End every run that is still going; returns their tasks."""
        tasks: list[asyncio.Task[None]] = []
        for running in list(self.held.values()):
            if running.task is not None and not running.task.done():
                self._end(running, why)
                tasks.append(running.task)
        return tasks

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return the tasks of runs that are still going."""
        return [run.task for run in self.held.values() if run.task is not None and not run.task.done()]

    def close(self) -> None:
        """Let idle threads end."""
        if self._threads is not None:
            self._threads.close()

    async def _run(self, running: Running, function: Callable[[Any], Any], threads: ThreadPool | None) -> None:
        value, error = None, None
        running.has_begun = True
        enter(running)
        try:
            if threads is None and not running.record.spec.timeout_ms:
                # The usual case, without a layer in between.
                try:
                    value = await function(running.job)
                finally:
                    self._freed(running)
            else:
                value = await perform(running, function, threads, self._freed)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as raised:  # whatever user code raises is an outcome
            error = raised
        if running.ended == "lost" or (running.ended and error is not None):
            return
        if error is None:
            error = self._succeed(running, value)
        if error is not None:
            self._send(running, await decide(running, error, self._context, self._strategies))

    def _succeed(self, running: Running, value: Any) -> UnreadableResult | None:
        """Send what the processor returned; return the error where it cannot be stored."""
        try:
            verdict = succeeded(running, value, self._context)
        except UnreadableResult as unreadable:
            return unreadable
        self._send(running, verdict)
        return None

    def _end(self, running: Running, why: str) -> None:
        if not running.ended:
            running.end(why)
            if running.task is not None:
                # However its task ends: before its first step, in user code, in a backoff strategy.
                running.task.add_done_callback(lambda _: self._let_go(running))

    def _let_go(self, running: Running) -> None:
        """Nothing to record: the lease is gone, or the job is given back."""
        if not running.has_begun:
            self._freed(running)
        if running.ended == "closing" or running.is_settling:
            return  # given back with all the others, in order; or a result came all the same
        if running.ended == "fenced":
            self.give_back([running.held])
        self.held.pop(running.claimed.token, None)
        self.settled += 1
        self.slot_freed()

    def _freed(self, running: Running) -> None:
        if running.slot_held:
            running.slot_held = False
            self.busy -= 1
            self.busy_seconds += boot_time() - running.began
            self.last_chances -= running.is_last_chance
            if running.ended or (running.task is not None and running.task.done()):
                # No outcome goes out with this slot, so nothing is claimed for it.
                self.slot_freed()

    def _reject(self, running: Running, run: Run, error: Exception) -> None:
        """Fail a job that cannot be started."""
        if isinstance(error, BadSignature):
            # Its options are obeyed no more than the rest, be it to leave no trace.
            running.record = msgspec.structs.replace(running.record, spec=Spec())
        elif isinstance(error, InvalidJob):
            # No envelope is JSON: what is signed comes here where there are no keys.
            no_keys = self._signer is None and is_signed(running.record.data)
            job_id = running.claimed.id
            error = without_keys("job", job_id, self._context.name) if no_keys else UnreadableJob(str(error))
        self._refuse(running, run, error)

    def _refuse(self, running: Running, run: Run, error: Exception) -> None:
        self.held[running.claimed.token] = running
        self._send(running, failed(running.record, run.fails, error, self._context.limits, random=random))

    def _send(self, running: Running, verdict: Verdict) -> None:
        if running.progress_timer is not None:
            running.progress_timer.cancel()
        if running.progress is not None:
            self._write_progress(running)
        running.is_settling = True
        self.settle(Settlement(running, running.outcome(verdict), verdict))

    def _progress(self, token: str, text: str) -> None:
        """Take progress from a processor, on the loop or in a thread."""
        running = self.held.get(token)
        if running is None:
            return
        loop = running.task.get_loop() if running.task else asyncio.get_running_loop()
        try:
            on_loop = asyncio.get_running_loop() is loop
        except RuntimeError:
            on_loop = False
        if on_loop:
            self._keep_progress(running, text)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._keep_progress, running, text)

    def _keep_progress(self, running: Running, text: str) -> None:
        if running.ended or running.claimed.token not in self.held:
            return
        running.progress = text
        if running.progress_timer is not None:
            return
        loop = asyncio.get_running_loop()
        wait = running.progress_at + PROGRESS_INTERVAL - loop.time()
        if wait <= 0:
            self._write_progress(running)
        else:
            running.progress_timer = loop.call_later(wait, self._write_progress, running)

    def _write_progress(self, running: Running) -> None:
        running.progress_timer = None
        text, running.progress = running.progress, None
        if text is None or running.claimed.token not in self.held:
            return
        running.progress_at = asyncio.get_running_loop().time()
        self.report(ProgressUpdate(running.claimed.id, running.claimed.token, running.identity, text))
        if self._listeners.wants("progress") and running.job is not None:
            self._tell(running, "progress", 0, {"progress": running.job.progress})

    def _tell(self, running: Running, kind: str, now_ms: int, facts: dict[str, Any]) -> None:
        self._listeners.send(self._event(running, kind, now_ms, facts))

    def _event(self, running: Running, kind: str, now_ms: int, facts: dict[str, Any]) -> Event:
        ready = (running.job.run.ready_ms if running.job else 0) or running.record.due_ms or running.record.added_ms
        started = running.claimed.started_ms
        facts |= {
            "job_id": running.claimed.id,
            "name": running.record.name,
            "attempt": running.attempt,
            "worker": self._worker,
            "waited_ms": max(0, started - ready),
            "ran_ms": max(0, now_ms - started) if kind != "active" else 0,
            "total_ms": self._total(running, now_ms),
            "added_ms": running.record.added_ms,
        }
        return make_event(kind, self._context.name, 0, now_ms or started, facts)

    def _total(self, running: Running, now_ms: int) -> int:
        """Return what a job that ran more than once took in all; of the others the event says it anyway."""
        first = running.record.due_ms or running.record.added_ms
        return max(0, now_ms - first) if running.job and running.job.run.starts > 1 else 0

    def _log(self, running: Running, verdict: Verdict, now_ms: int) -> None:
        extra: dict[str, Any] = {
            "queue": self._context.name,
            "job_id": running.claimed.id,
            "job_name": running.record.name,
            "attempt": running.attempt,
            "outcome": _KINDS[verdict.word],
            "ran": max(0, now_ms - running.claimed.started_ms) / 1000,
        }
        text = " ".join(f"{key}={value!r}" if " " in str(value) else f"{key}={value}" for key, value in extra.items())
        error = f" error={verdict.error.type}: {verdict.error.message}" if verdict.error else ""
        if verdict.error:
            extra |= {"error_type": verdict.error.type, "error_message": verdict.error.message}
        log.info("%s%s", text, error, extra=extra)


def _outcome_facts(settlement: Settlement, now_ms: int) -> dict[str, Any]:
    """Return what the stream's event says of an outcome, without the times."""
    facts: dict[str, Any] = event_facts(f",{settlement.outcome.fragment}")
    if settlement.verdict.word == "retry":
        wait_ms = int(settlement.verdict.extra)
        in_line = JobState.PRIORITIZED if settlement.running.record.priority else JobState.WAITING
        facts |= {"due_ms": now_ms + wait_ms, "state": JobState.DELAYED if wait_ms else in_line}
    elif settlement.verdict.word == "postpone":
        facts |= {"due_ms": now_ms + int(settlement.verdict.extra), "state": JobState.DELAYED, "previous": JobState.ACTIVE}
    return facts
