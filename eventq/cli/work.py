"""`eventq worker` and `eventq scheduler`: processes that run until they are told to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from eventq.cli.opening import Place, find_queue
from eventq.cli.runtime import leave_stragglers, run_async, until_stopped
from eventq.cli.target import load_target, resolve_target
from eventq.job_queue import JobQueue
from eventq.scheduler import QueueScheduler

if TYPE_CHECKING:
    from eventq.worker import Worker

log: Final = logging.getLogger("eventq.worker")

#: Names a descriptor whose other end `eventq dev` holds: when that process is gone, its worker ends too.
LIFELINE: Final = "EVENTQ_DEV_LIFELINE"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """What was said on the command line; None for what was not, which leaves it to the code."""

    concurrency: int | None = None
    burst: bool = False
    max_jobs: int | None = None
    uvloop: bool | None = None


def run_worker(target: str, options: WorkerOptions) -> None:
    """Import the target and run it until SIGTERM, SIGINT, or until done (burst, max_jobs)."""
    _watch_lifeline()
    found = load_target(target)

    async def main() -> None:
        runnable = await resolve_target(target, found)
        worker = runnable.worker if isinstance(runnable, JobQueue) else runnable
        _apply(worker, options)
        log.info("%r starts: concurrency %d, %r", worker, worker.concurrency, worker.queue)
        try:
            await runnable.run()
        except Exception as error:
            await leave_stragglers(error)
            raise
        log.info("%r stopped", worker)
        await leave_stragglers(None)

    run_async(main, uvloop=options.uvloop)


def _apply(worker: Worker[Any, Any], options: WorkerOptions) -> None:
    """Set on the worker what was asked for; called before it starts."""
    if options.concurrency is not None:
        worker.concurrency = options.concurrency
    if options.burst:
        worker.burst = True
    if options.max_jobs is not None:
        worker.max_jobs = options.max_jobs


def _watch_lifeline() -> None:
    """Stop as SIGTERM does when the `eventq dev` that started this process is gone, however it ended."""
    descriptor = os.environ.pop(LIFELINE, None)
    if descriptor is None:
        return

    def watch() -> None:
        while os.read(int(descriptor), 1):
            pass  # nothing is ever written; only the end of the other side counts
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def run_scheduler(name: str, place: Place) -> None:
    """Do the upkeep of one queue until SIGTERM or SIGINT. It need not be there yet, nor its server."""

    def warn(error: Exception) -> None:
        log.warning("scheduler of %s: %s", name, error)

    async def main() -> None:
        queue, is_listed = await find_queue(name, place, patience=None, on_fault=warn)
        try:
            if not is_listed and place.tag is None:
                where = queue.context.server.where
                log.warning("there is no queue %r on %s yet: a mistyped name? `eventq queues` lists those there are", name, where)
            scheduler = QueueScheduler(queue, on_fault=warn)
            log.info("%r starts", scheduler)
            await scheduler.run()
        finally:
            await queue.close()

    run_async(lambda: until_stopped(main()))
    log.info("the scheduler of %s stopped", name)
