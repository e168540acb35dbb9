"""Ids made by the client: 20 characters of [0-9a-z], time-ordered, so that ids of one process sort as they were made."""

from __future__ import annotations

import os
import secrets
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Final

from eventq.limits import LAST_MS

if TYPE_CHECKING:
    from collections.abc import Callable

    _Now = tuple[int, str, Callable[[], int], str]

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = [a + b for a in _DIGITS for b in _DIGITS]
_FOURS: Final = 36**4


def _base36(number: int, width: int) -> str:
    text = ""
    while len(text) < width:
        number, rest = divmod(number, 1296)
        text = _PAIRS[rest] + text
    return text[-width:]


class IdSource:
    """Makes ids: 9 characters of milliseconds, 4 of a counter in that millisecond, 7 random ones of the process.

    36**9 ms last until the year 5188. A clock that steps back does not: the last millisecond goes on counting. After a
    fork the child draws random characters of its own. Safe in threads: a counter is atomic, and nobody else has its tail.
    """

    __slots__ = ("_lock", "_now", "_pid")

    def __init__(self) -> None:
        self._begin()

    def __call__(self) -> str:
        """Return the next id."""
        ms = time.time_ns() // 1_000_000
        last, head, step, tail = self._now
        if ms > last:
            last, head, step, tail = self._advance(ms, last)
        while (counter := step()) >= _FOURS:
            last, head, step, tail = self._advance(ms, last)
        high, low = divmod(counter, 1296)
        return f"{head}{_PAIRS[high]}{_PAIRS[low]}{tail}"

    def _begin(self) -> None:
        # The lock too: another thread may have held it when this process was forked.
        self._lock = threading.Lock()
        #: Of the current millisecond: its number, its characters, its counter, which starts spent; and the tail.
        self._now: _Now = (0, "", count(_FOURS).__next__, random_text(7))
        self._pid = os.getpid()

    def _advance(self, ms: int, last: int) -> _Now:
        """Go on to the next millisecond, unless another thread has done so since `last` was read."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            if self._now[0] <= last:
                ms = max(ms, last + 1)
                self._now = (ms, _base36(ms, 9), count().__next__, self._now[3])
            return self._now


def made_ms(job_id: str) -> int | None:
    """Return when an id was made (ms since the epoch, by the clock of its process); None for one that was not made here."""
    try:
        return int(job_id[:9], 36) if len(job_id) == 20 and job_id.isalnum() else None
    except ValueError:
        return None


def schedule_of(job_id: str) -> tuple[str | None, int]:
    """Return the schedule that made a job, and its slot in ms; None and 0 for a job that was added: own ids hold no `:`."""
    kind, _, rest = job_id.partition(":")
    schedule_id, _, slot = rest.rpartition(":")
    if kind == "schedule" and slot.isascii() and slot.isdecimal() and len(slot) <= 16 and int(slot) <= LAST_MS:
        return schedule_id, int(slot)
    return None, 0


def random_text(length: int) -> str:
    """Return so many random characters of [0-9a-z] from the operating system."""
    return _base36(secrets.randbits(length * 6), length)


new_id = IdSource()
