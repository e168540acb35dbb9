"""QueueScheduler: promotes due jobs, fires schedules, takes jobs back from dead workers, ends timers, trims the event stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from eventq.client import AsyncRunner
from eventq.commands.upkeep import SweepReply, run_timers, sweep_queue, trim_events
from eventq.durations import to_ms
from eventq.errors import QueueUnavailable, ServerRefused
from eventq.firing import Firing
from eventq.operations.managing import enlist
from eventq.queue import queue_of
from eventq.schedules import Scheduling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from eventq.commands.core import Command, Steps
    from eventq.context import QueueContext
    from eventq.queue import Queue
    from eventq.signing import SigningKeys

R = TypeVar("R")
log: Final = logging.getLogger("eventq")

#: Seconds between sweeps, at most; they come sooner when a lease ends, or a job or a schedule is due sooner.
TICK: Final = 1.0
_SOONEST: Final = 0.01
#: The age rules of queue and stream are looked at this often (seconds), the stream also after so many new bytes.
_RULES_EVERY: Final = 60.0
_TRIM_BYTES: Final = 4 * 1024 * 1024
#: Slices of timers or of the stream handled between two sweeps.
_SLICES: Final = 100


class QueueScheduler(Scheduling[Any, Any]):
    """Upkeep of one queue, and its schedules. Every worker carries one; run it alone where no worker is up all the time.

    Any number may run: each step is one script that checks before it writes, and a slot of a schedule becomes one job.
    `async with`, or `await run()` until cancelled. Redis away: it carries on when Redis is back. About one request a second while
    idle.
    """

    def __init__(
        self,
        queue: Queue[Any, Any] | str,
        *,
        url: str | None = None,
        lease: float = 15.0,
        max_stalls: int = 2,
        on_fault: Callable[[Exception], None] | None = None,
        on_work: Callable[[], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
        failed: Callable[[Exception], None] | None = None,
        signing_keys: SigningKeys | Mapping[str, bytes] | None = None,
    ) -> None:
        """Name it; nothing is opened yet.

        lease, max_stalls: those of the queue's workers. With a longer lease than theirs, where theirs is below two seconds, a
        pause of the server that is no longer than 1.25 seconds may cost live workers their runs, which are run again.
        on_fault: told what it waits for. on_work: told by each sweep that jobs are in line. on_error: told of schedules whose
        signature is not good, which otherwise an event tells. failed: told what it ended with. signing_keys: as of Queue, for
        a queue that is given by its name.
        """
        self._queue = queue_of(queue, url, signing_keys)
        self._owns_queue = self._queue is not queue
        self.context: QueueContext[Any, Any] = self._queue.context
        self._lease_ms = to_ms("lease", lease, minimum_ms=100)
        #: So often that a sweep later than half a lease after the last one means that the server stood still.
        self._tick = min(TICK, self._lease_ms / 3000)
        self._max_stalls = max_stalls
        self._runner = AsyncRunner(self.context.server, patience=None, client_name="eventq-scheduler", on_fault=on_fault)
        self._firing = Firing(self._runner, self.context.keys, self.context.signer, on_error)
        self._on_fault = on_fault
        self._on_work = on_work
        self._failed = failed
        self._task: asyncio.Task[None] | None = None
        self._rules_at = 0.0
        self._trimmed_bytes = 0

    async def start(self) -> None:
        """Begin in the background."""
        if self._task is None:
            self._task = asyncio.create_task(self._loop(), name=f"eventq-scheduler {self.context.name}")

    async def run(self) -> None:
        """Work until cancelled. Raises what no repeating mends: another layout, no permission."""
        await self.start()
        try:
            if self._task is not None:
                await self._task
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop. Nothing is left half done: each step is one script."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await self._runner.close()
        if self._owns_queue:
            await self._queue.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<QueueScheduler {self.context.name}>"

    async def _loop(self) -> None:
        try:
            while True:
                swept = await self._step()
                if not swept.more:
                    await asyncio.sleep(_pause(swept, self._tick))
        except Exception as error:  # whatever it is: a worker without upkeep is not to live on
            log.exception("queue %s: the scheduler stopped", self.context.name)
            if self._failed is None:
                raise
            self._failed(error)

    async def _perform(self, steps: Steps[R]) -> R:
        return await self.context.runner.perform(steps)

    async def _step(self) -> SweepReply:
        context = self.context
        every_ms = round(self._tick * 1000)
        swept = await self._runner.run(sweep_queue(context.keys, self._lease_ms, every_ms, self._max_stalls, context.retention))
        if swept.in_line and self._on_work is not None:
            self._on_work()
        now = asyncio.get_running_loop().time()
        rules_due = now - self._rules_at >= _RULES_EVERY
        if rules_due or swept.next_timer_ms == 0:
            await self._repeat(lambda: run_timers(context.keys, context.retention))
        if rules_due or swept.event_bytes - self._trimmed_bytes >= _TRIM_BYTES:
            self._trimmed_bytes = swept.event_bytes
            await self._repeat(lambda: trim_events(context.keys))
        if rules_due:
            self._rules_at = now
            await self._list_queue()
        if swept.next_slot_ms == 0 and await self._fire():
            return replace(swept, more=True)
        return swept

    async def _fire(self) -> bool:
        try:
            return await self._firing.fire_due()
        except ServerRefused as error:
            if error.code != "OOM":
                raise
            # A full server takes no jobs, but leases end all the same: the slot is tried again with the next sweep.
            if self._on_fault is not None:
                self._on_fault(error)
            return False

    async def _list_queue(self) -> None:
        """List the queue for discovery again: obliterating takes it off the list, and whoever uses it still does not know."""
        # It is a list for people: nothing stands still without it, or waits for the permission. In a task of its own, since
        # the connection is shared: a call that is cancelled takes it along.
        listing = asyncio.create_task(self.context.runner.perform(enlist(self.context.keys)))
        listing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([listing])
        with contextlib.suppress(ServerRefused, QueueUnavailable):
            listing.result()

    async def _repeat(self, step: Callable[[], Command[bool]]) -> None:
        """Run slices until there is no more; not for ever, since leases are waiting to be swept."""
        for _ in range(_SLICES):
            if not await self._runner.run(step()):
                return


def _pause(swept: SweepReply, most: float) -> float:
    # A slot that is due by now was looked at: whoever could not fire it now looks again with the next tick.
    times = (swept.next_lease_ms, swept.next_due_ms, swept.next_slot_ms or None)
    soonest = min((ms for ms in times if ms is not None), default=round(most * 1000))
    return min(most, max(_SOONEST, soonest / 1000 + 0.001))
