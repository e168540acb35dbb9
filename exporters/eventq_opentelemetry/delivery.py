"""Sends spans and log records until they are taken: nothing is dropped, nothing counts as sent before its exporter says so."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

log: Final = logging.getLogger("eventq.tracer")

T = TypeVar("T", contravariant=True)
#: Items of one request, as the SDK's batch processor sends them.
MOST: Final = 512
#: So many requests in a row are taken before the next one is twice as large.
_BEFORE_MORE: Final = 8
#: Seconds before a request that was not taken is made again: doubled each time, up to the most, less a random part.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0


class _Exporter(Protocol[T]):
    def export(self, batch: Sequence[T], /) -> Any: ...


class Delivery(Generic[T]):
    """One exporter, spoken to in a thread: the exporters of OpenTelemetry block, and try again by themselves for some seconds."""

    def __init__(self, exporter: _Exporter[T], what: str) -> None:
        self._exporter = exporter
        self._what = what
        self._size = MOST
        #: Requests of this size that were taken in a row.
        self._in_a_row = 0
        #: How many were taken, and how many requests were not.
        self.sent = 0
        self.refused = 0
        self.is_down = False

    async def send(self, items: Sequence[T]) -> None:
        """Send all, in order. Returns when they are taken, however long that is.

        A request that is not taken is made again at once with half as many items, for it may be too large, and then with pauses.
        Cancelled, what went out last may have been taken; it is sent again by whoever goes on.
        """
        at, pause = 0, _FIRST_PAUSE
        while at < len(items):
            batch = items[at : at + self._size]
            if await asyncio.to_thread(self._export, batch):
                at += len(batch)
                pause = _FIRST_PAUSE
                self._taken(len(batch))
            elif self._refused():
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(_LONGEST_PAUSE, pause * 2)

    def _taken(self, number: int) -> None:
        self.sent += number
        self._in_a_row += 1
        if self._in_a_row >= _BEFORE_MORE:
            self._size, self._in_a_row = min(MOST, self._size * 2), 0
        if self.is_down:
            self.is_down = False
            log.info("%s are taken again", self._what)

    def _refused(self) -> bool:
        """Note it; return whether there is nothing left to make smaller."""
        self.refused += 1
        self._in_a_row = 0
        is_smallest = self._size == 1
        self._size = max(1, self._size // 2)
        if is_smallest and not self.is_down:
            self.is_down = True
            log.warning("%s are not taken: they are kept where they are, in the stream, and tried again", self._what)
        return is_smallest

    def _export(self, batch: Sequence[T]) -> bool:
        try:
            return bool(self._exporter.export(batch).name == "SUCCESS")
        except Exception:
            log.exception("%s: the exporter raised", self._what)
            return False
