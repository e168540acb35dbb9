"""The heartbeat: renews the leases of running jobs from a thread with a connection of its own, so that a processor which
blocks the event loop keeps its work.
"""

from __future__ import annotations

import asyncio
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from eventq.client import SyncRunner, boot_time
from eventq.commands.work import Held, renew_leases
from eventq.fence import deadline_of
from eventq.limits import CALL_JOBS
from eventq.vitals import REPORT_EVERY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventq.context import QueueContext
    from eventq.running import Running
    from eventq.runs import Runs
    from eventq.vitals import Vitals

#: Renewals, and tries after one that failed, per lease. When Redis is back, a live worker must be heard within the two thirds
#: of a lease that the first sweep grants.
_BEATS: Final = 3
_TRIES: Final = 10


class Heartbeat:
    """One thread per worker: asks for the runs whose leases are to be renewed every third of a lease, and says every few seconds
    how the worker is. What is lost and what went wrong is told on the loop. Ends by itself when the loop is closed.
    """

    def __init__(self, context: QueueContext[Any, Any], lease: float, name: str, runs: Runs, vitals: Vitals) -> None:
        self._keys = context.keys
        self._lease = lease
        self._runs = runs
        self._vitals = vitals
        self._runner = SyncRunner(
            context.server,
            timeout=max(0.2, min(lease / _BEATS, 5.0)),
            patience=lease / _BEATS,
            longest_pause=lease / _TRIES,
            client_name="eventq-heartbeat",
        )
        self._is_stopped = False
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"eventq-heartbeat {name}", daemon=True)

    def start(self) -> None:
        """Begin renewing."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def hurry(self) -> None:
        """Renew now."""
        self._news.set()

    def stop(self) -> None:
        """End the thread; a renewal in flight is not waited for."""
        self._is_stopped = True
        self._runner.stop()
        self._news.set()

    async def ended(self, timeout: float) -> None:
        """Return once the thread has ended, or after `timeout` seconds."""
        # Not by joining it in a thread: the loop's pool may be full of calls of the processors' that do not end.
        deadline = monotonic() + timeout
        while self._thread.is_alive() and monotonic() < deadline:  # noqa: ASYNC110 - a thread that ends tells no loop
            await asyncio.sleep(0.005)

    def _beat(self) -> None:
        renew_at = monotonic() + self._lease / _BEATS
        report_at = 0.0
        while True:
            hurries = self._news.wait(max(0.0, min(renew_at, report_at) - monotonic()))
            self._news.clear()
            # A worker that was dropped without being closed must not keep its jobs for ever.
            if self._is_stopped or self._loop.is_closed():
                break
            try:
                if hurries or monotonic() >= renew_at:
                    renew_at = monotonic() + self._lease / _TRIES
                    self._renew(self._runs.renewable())
                    renew_at = monotonic() + self._lease / _BEATS
                if monotonic() >= report_at:
                    report_at = monotonic() + REPORT_EVERY
                    self._vitals.counted(self._runner.run(self._vitals.report(), until=renew_at))
            except Exception as error:  # whatever it is: a worker that stops renewing loses all it runs
                self._tell(self._runs.error, error)
        self._runner.close()

    def _renew(self, runs: Sequence[Running]) -> None:
        for start in range(0, len(runs), CALL_JOBS):
            part = runs[start : start + CALL_JOBS]
            sent = boot_time()
            held = [Held(running.claimed.id, running.claimed.token) for running in part]
            gone = self._runner.run(renew_leases(self._keys, round(self._lease * 1000), held))
            deadline = deadline_of(sent, self._lease)
            for running in part:
                running.deadline = deadline
            if gone:
                self._tell(self._runs.lost, [part[index].claimed.token for index in gone])

    def _tell(self, function: Callable[[Any], None], argument: object) -> None:
        if not self._is_stopped and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, argument)
