"""The heartbeat: renews the leases of running jobs from a thread with a connection of its own, so that a processor which
blocks the event loop keeps its work.
"""

from __future__ import annotations

import asyncio
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from eventq.client import SyncRunner
from eventq.commands.work import Held, renew_leases
from eventq.limits import CALL_JOBS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventq.context import QueueContext

#: Seconds until a renewal that failed is tried again.
_RETRY: Final = 1.0


class Heartbeat:
    """One thread per worker.

    held: asked every third of a lease for the jobs whose leases are to be renewed; called in the thread. lost: told the tokens
    that are gone, failed: told what went wrong; both called in the thread.
    """

    def __init__(
        self,
        context: QueueContext[Any, Any],
        lease: float,
        *,
        name: str,
        held: Callable[[], Sequence[Held]],
        lost: Callable[[list[str]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._keys = context.keys
        self._lease = lease
        self._held = held
        self._lost = lost
        self._failed = failed
        timeout = max(0.2, min(lease / 3, 5.0))
        self._runner = SyncRunner(context.server, timeout=timeout, patience=lease / 3, client_name="eventq-heartbeat")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"eventq-heartbeat {name}", daemon=True)

    def start(self) -> None:
        """Begin renewing."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a renewal in flight is not waited for."""
        self._stop.set()

    async def ended(self, timeout: float) -> None:
        """Return once the thread has ended, or after `timeout` seconds."""
        # Not by joining it in a thread: the loop's pool may be full of calls of the processors' that do not end.
        deadline = monotonic() + timeout
        while self._thread.is_alive() and monotonic() < deadline:  # noqa: ASYNC110 - a thread that ends tells no loop
            await asyncio.sleep(0.005)

    def _beat(self) -> None:
        pause = self._lease / 3
        while not self._stop.wait(pause):
            try:
                self._renew(self._held())
                pause = self._lease / 3
            except Exception as error:  # whatever it is: a worker that stops renewing loses all it runs
                pause = min(_RETRY, self._lease / 3)
                if not self._stop.is_set():
                    self._failed(error)
        self._runner.close()

    def _renew(self, jobs: Sequence[Held]) -> None:
        for start in range(0, len(jobs), CALL_JOBS):
            part = jobs[start : start + CALL_JOBS]
            gone = self._runner.run(renew_leases(self._keys, round(self._lease * 1000), part))
            if gone:
                self._lost([part[index].token for index in gone])
