"""Ids made by the client: 20 characters of [0-9a-z], time-ordered, so that ids of one process sort as they were made."""

from __future__ import annotations

import os
import secrets
import time
from typing import Final

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
    fork the child draws random characters of its own.
    """

    __slots__ = ("_counter", "_head", "_ms", "_pid", "_tail")

    def __init__(self) -> None:
        self._ms = 0
        self._counter = 0
        self._head = ""
        self._pid = -1
        self._tail = ""

    def __call__(self) -> str:
        """Return the next id."""
        ms = time.time_ns() // 1_000_000
        if ms > self._ms or self._counter >= _FOURS - 1:
            self._ms = max(ms, self._ms + 1)
            self._counter = 0
            self._head = _base36(self._ms, 9)
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._tail = random_text(7)
        else:
            self._counter += 1
        high, low = divmod(self._counter, 1296)
        return f"{self._head}{_PAIRS[high]}{_PAIRS[low]}{self._tail}"


def random_text(length: int) -> str:
    """Return so many random characters of [0-9a-z] from the operating system."""
    return _base36(secrets.randbits(length * 6), length)


new_id = IdSource()
