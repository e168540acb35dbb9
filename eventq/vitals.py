"""What a worker says of itself every few seconds: slots, how many are in use and for how long, its oldest run."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from eventq.client import boot_time
from eventq.codec import encode_json
from eventq.commands.watch import Vital, report_worker
from eventq.ids import random_text
from eventq.process import resource

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventq.commands.core import Command
    from eventq.context import QueueContext
    from eventq.runs import Runs

#: Seconds between two reports, and how long a worker counts as alive after one.
REPORT_EVERY: Final = 5.0
_ALIVE: Final = 15.0


class Vitals:
    """One worker's reports. Read in the heartbeat's thread, so that a worker whose loop is blocked is seen to be alive."""

    def __init__(self, context: QueueContext[Any, Any], name: str, runs: Runs, slots: Callable[[], int]) -> None:
        self._keys = context.keys
        self._name = name
        self._runs = runs
        self._slots = slots
        self._incarnation = random_text(12)
        self._counted_ms = 0
        facts = {"version": _version(), "host": platform.node(), "pid": os.getpid()}
        self._about = {"resource": resource(), "processors": runs.functions}
        self._facts = encode_json(facts | self._about, "worker")

    @property
    def introduction(self) -> dict[str, Any]:
        """What a worker says when it starts. It says it again with every report, for readers that come later."""
        return {"worker": self._name, "concurrency": self._slots(), **self._about}

    def report(self) -> Command[int]:
        """Return the call that says how things stand."""
        return report_worker(self._keys, self._name, round(_ALIVE * 1000), self._vital())

    def farewell(self) -> Command[int]:
        """Return the call that says that the worker is gone."""
        return report_worker(self._keys, self._name, 0, self._vital())

    def counted(self, busy_ms: int) -> None:
        """Take the answer: so much of the time in use is counted for good."""
        self._counted_ms = busy_ms

    def _vital(self) -> Vital:
        held = [running for running in self._runs.held.copy().values() if running.slot_held]
        now = boot_time()
        busy = self._runs.busy_seconds + sum(now - running.began for running in held)
        return Vital(
            incarnation=self._incarnation,
            busy_ms=round(busy * 1000),
            counted_ms=self._counted_ms,
            slots=self._slots(),
            busy=self._runs.busy,
            oldest_ms=min((running.claimed.started_ms for running in held), default=0),
            clock_ms=time.time_ns() // 1_000_000,
            facts=self._facts,
        )


def _version() -> str:
    try:
        return version("eventq")
    except PackageNotFoundError:  # a source tree that was never installed
        return "unknown"
