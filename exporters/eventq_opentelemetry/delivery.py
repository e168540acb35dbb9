"""Sends spans and log records until they are taken: nothing counts as sent before its exporter says so."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from opentelemetry.instrumentation.utils import suppress_instrumentation

from eventq.threads import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log: Final = logging.getLogger("eventq.tracer")

T = TypeVar("T")
U = TypeVar("U", contravariant=True)
#: Items of one request, as the SDK's batch processor sends them.
MOST: Final = 512
#: So many requests in a row are taken before the next one is twice as large.
_BEFORE_MORE: Final = 8
#: So many times one item alone is refused before something else is tried, and so many times that is taken before it is to blame:
#: a collector that takes nothing half of the time would have to hit the same one fifteen times.
_BEFORE_DOUBT: Final = 3
_PROOFS: Final = 5
#: Seconds before a request that was not taken is made again: doubled each time, up to the most, less a random part.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_CLOSE_PATIENCE: Final = 5.0


class _Exporter(Protocol[U]):
    def export(self, batch: Sequence[U], /) -> Any: ...
    def shutdown(self) -> Any: ...


class Delivery(Generic[T]):
    """One exporter, spoken to in a thread: the exporters of OpenTelemetry block, and try again by themselves for some seconds.

    patience: seconds after which what is not taken is left out; None for never.
    """

    def __init__(self, exporter: _Exporter[T], what: str, *, patience: float | None = None) -> None:
        self._exporter = exporter
        self._what = what
        self._patience = patience
        self._threads = ThreadPool("eventq-tracer")
        self._size = MOST
        #: Requests of this size that were taken in a row.
        self._in_a_row = 0
        #: How many were taken, and how many requests were not.
        self.sent = 0
        self.refused = 0
        self.is_down = False
        #: Items that were left out.
        self.dropped = 0
        self._last: T | None = None

    async def send(self, items: Sequence[T]) -> None:
        """Send all, in order. Returns when they are taken, however long that is, or when patience is over.

        A request that is not taken is made again at once with half as many items, for it may be too large, and then with pauses.
        One item that is refused again and again, while what was taken before is taken again each time, is left out: nothing else
        would ever get past it. Cancelled, what went out last may have been taken; it is sent again by whoever goes on.
        """
        at, doubt, pause = 0, _Doubt(), _FIRST_PAUSE
        until = None if self._patience is None else time.monotonic() + self._patience
        while at < len(items):
            batch = items[at : at + self._size]
            if await self._export(batch):
                at, doubt, pause = at + len(batch), _Doubt(), _FIRST_PAUSE
                self._taken(batch)
            elif until is not None and time.monotonic() > until:
                self._drop(len(items) - at, "are not taken, and left out")
                return
            elif self._refused():
                if doubt.is_due() and self._last is not None and await self._export([self._last]):
                    pause = _FIRST_PAUSE  # others are taken: it is not away
                    if doubt.is_proved():
                        self._drop(1, f"are taken, but one is refused for good, and left out: {_told(items[at])}")
                        at, doubt = at + 1, _Doubt()
                        continue
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(_LONGEST_PAUSE, pause * 2)

    async def close(self) -> None:
        """Shut the exporter down, and wait for that for a few seconds."""
        await asyncio.wait([self._call(lambda _: self._exporter.shutdown())], timeout=_CLOSE_PATIENCE)
        self._threads.close()

    def _drop(self, number: int, how: str) -> None:
        self.dropped += number
        log.error("%s %s (%d)", self._what, how, number)

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

    async def _export(self, batch: Sequence[T]) -> bool:
        return bool(await self._call(lambda _: self._take(batch)))

    def _call(self, function: Callable[[Any], Any]) -> asyncio.Future[Any]:
        # In a context of its own: what was current where the tracer was opened is nothing to its requests.
        return contextvars.Context().run(self._threads.call, asyncio.get_running_loop(), function, None)

    def _take(self, batch: Sequence[T]) -> bool:
        try:
            # Else an instrumented HTTP client would make spans of sending spans.
            with suppress_instrumentation():
                return bool(self._exporter.export(batch).name == "SUCCESS")
        except Exception:
            log.exception("%s: the exporter raised", self._what)
            return False


class _Doubt:
    """Whether one item is to blame: refused so many times, and something else taken in between each of the last few."""

    def __init__(self) -> None:
        self._refusals = 0
        self._proofs = 0

    def is_due(self) -> bool:
        """Count a refusal; return whether it is time to try something else."""
        self._refusals += 1
        return self._refusals % _BEFORE_DOUBT == 0

    def is_proved(self) -> bool:
        """Count that something else was taken; return whether that is proof enough."""
        self._proofs += 1
        return self._proofs >= _PROOFS


def _told(item: object) -> str:
    """Return what may be logged of an item: never what it holds."""
    context: Any = getattr(item, "context", None)
    name = getattr(item, "name", type(item).__name__)
    return f"{name} of trace {context.trace_id:032x}" if context is not None else str(name)
