"""Sends spans and log records until they are taken: nothing counts as sent before its exporter says so."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

log: Final = logging.getLogger("eventq.tracer")

T = TypeVar("T")
U = TypeVar("U", contravariant=True)
#: Items of one request, as the SDK's batch processor sends them.
MOST: Final = 512
#: So many requests in a row are taken before the next one is twice as large.
_BEFORE_MORE: Final = 8
#: So many times one item alone is refused before it is asked whether that is its own fault.
_BEFORE_DOUBT: Final = 3
#: Seconds before a request that was not taken is made again: doubled each time, up to the most, less a random part.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0


class _Exporter(Protocol[U]):
    def export(self, batch: Sequence[U], /) -> Any: ...


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
        #: Items that were left out: refused by what takes others.
        self.dropped = 0
        self._last: T | None = None

    async def send(self, items: Sequence[T]) -> None:
        """Send all, in order. Returns when they are taken, however long that is.

        A request that is not taken is made again at once with half as many items, for it may be too large, and then with pauses.
        One item that is refused again and again, while what was taken before is taken again, is left out: nothing else would ever
        get past it. Cancelled, what went out last may have been taken; it is sent again by whoever goes on.
        """
        at, alone, pause = 0, 0, _FIRST_PAUSE
        while at < len(items):
            batch = items[at : at + self._size]
            if await asyncio.to_thread(self._export, batch):
                at, alone, pause = at + len(batch), 0, _FIRST_PAUSE
                self._taken(batch)
            elif self._refused():
                alone += 1
                if alone % _BEFORE_DOUBT == 0 and await self._is_its_own_fault():
                    log.error("one of the %s is refused for good, and left out: %s", self._what, _told(items[at]))
                    at, alone, self.dropped = at + 1, 0, self.dropped + 1
                    continue
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(_LONGEST_PAUSE, pause * 2)

    async def _is_its_own_fault(self) -> bool:
        """Whether what was taken before is taken now. It is sent twice then, to the byte alike."""
        return self._last is not None and await asyncio.to_thread(self._export, [self._last])

    def _taken(self, batch: Sequence[T]) -> None:
        self.sent += len(batch)
        self._last = batch[-1]
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


def _told(item: object) -> str:
    """Return what may be logged of an item: never what it holds."""
    context: Any = getattr(item, "context", None)
    name = getattr(item, "name", type(item).__name__)
    return f"{name} of trace {context.trace_id:032x}" if context is not None else str(name)
