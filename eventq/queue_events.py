"""Readers of a queue's event stream: live from now, or durable under a name, with the exact loss."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from eventq.client import AsyncRunner
from eventq.commands.events import Entry, Hold, Position, hold_consumer, last_entry, read_events, stream_state
from eventq.errors import ConfigurationError
from eventq.events import Event, LostEvent, UnreadableEntry, parse_entry
from eventq.ids import random_text
from eventq.keys import check_queue_name

if TYPE_CHECKING:
    from types import TracebackType

    from eventq.context import QueueContext

#: Seconds one read may block; entries per read are chosen so that a reply stays near this many bytes.
BLOCK: Final = 5.0
REPLY_BYTES: Final = 1024 * 1024
#: Seconds a name is held without a word from its holder; renewed (and the position saved) three times as often.
HOLD: Final = 10.0


class EventStream:
    """Every event of a queue, in order: `async for event in queue.events()`.

    Without a name it starts now: what `__aenter__` (or the first step) found as the last event is the first that is not seen.
    With a name (`consumer=`) it is durable: it goes on where the name's last reader stopped, at least once. An event counts as
    handled when the next one is asked for; positions are saved a few times a minute and at close. A new name starts at
    the oldest event still kept. One process holds a name; another with the same name waits until it is free.

    What was trimmed before it was read comes as a `LostEvent` with the exact number, and adds to `lost`.
    """

    def __init__(self, context: QueueContext[Any, Any], consumer: str | None = None) -> None:
        self._context = context
        self._consumer = check_queue_name(consumer) if consumer is not None else None
        self._reading = AsyncRunner(context.server, patience=None, client_name="eventq-events")
        self._holding = AsyncRunner(context.server, client_name="eventq-events")
        self._holder = random_text(12)
        self._position = Position()
        self._last_ms = 0
        self._ready: deque[tuple[Event, Position]] = deque()
        self._delivered: Position | None = None
        self._handled: Position | None = None
        #: Whether it knows where it starts: from then on nothing is missed uncounted.
        self.is_open = False
        self._has_history = False
        self._connects = 0
        self._entry_bytes = 4096.0
        self._keeper: asyncio.Task[None] | None = None
        self._lost_name = False
        self._opening = asyncio.Lock()
        #: Events that were trimmed before this reader saw them.
        self.lost = 0

    @property
    def position(self) -> Position:
        """The last position that is handled."""
        return self._handled or self._position

    async def open(self) -> EventStream:
        """Resolve where to start; with a name, wait until it is ours. After this no event is missed uncounted."""
        async with self._opening:
            if not self.is_open:
                await self._open()
        return self

    async def _open(self) -> None:
        if self._consumer is None:
            self._position = await self._now()
            self._has_history = True
        else:
            await self._acquire()
            self._keeper = asyncio.create_task(self._keep(), name=f"eventq-consumer {self._consumer}")
        self.is_open = True

    async def close(self) -> None:
        """Save the position, give the name up, close the connections."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
            if not self._lost_name:
                await self._save(0)
        self.is_open = False
        await self._reading.close()
        await self._holding.close()

    async def lag(self) -> tuple[int, float]:
        """Return how far behind this reader is: events, and seconds since the last handled one (0 when caught up)."""
        _, seq = await self._context.runner.run_verb(stream_state(self._context.keys))
        behind = max(0, seq - self.position.seq)
        if not behind:
            return 0, 0.0
        newest = await self._context.runner.run_verb(last_entry(self._context.keys))
        newest_ms = int(newest[0].fields["ms"]) if newest else 0
        return behind, max(0, newest_ms - self._last_ms) / 1000 if self._last_ms else 0.0

    async def __aenter__(self) -> EventStream:
        return await self.open()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        if not self.is_open:
            await self.open()
        # Asking for the next event says that the last one is handled.
        self._handled = self._delivered or self._handled
        while not self._ready:
            if self._lost_name:
                await self._acquire()
            await self._read()
        event, self._delivered = self._ready.popleft()
        self._last_ms = event.ms or self._last_ms
        return event

    async def _now(self) -> Position:
        epoch, seq = await self._reading.run_verb(stream_state(self._context.keys))
        newest = await self._reading.run_verb(last_entry(self._context.keys))
        if newest:
            return Position(epoch, newest[0].id, _end_of(newest[0]))
        return Position(epoch, "0-0", seq)

    async def _acquire(self) -> None:
        """Take the name, waiting while another process holds it, and start from its saved position."""
        while True:
            hold = await self._hold(round(HOLD * 1000))
            if hold.held:
                break
            await asyncio.sleep(HOLD / 10)
        self._lost_name = False
        self._ready.clear()
        self._handled = self._delivered = None
        self._position = hold.position
        self._has_history = hold.position.seq > 0
        if not self._has_history:
            self._position = Position(hold.epoch, "0-0", 0)
        await self._check_anchor()

    async def _hold(self, hold_ms: int, position: Position | None = None) -> Hold:
        if self._consumer is None:
            raise ConfigurationError("a reader without a name holds none")
        return await self._holding.run(
            hold_consumer(self._context.keys, self._consumer, self._holder, hold_ms, position=position)
        )

    async def _save(self, hold_ms: int) -> None:
        handled = self._handled
        hold = await self._hold(hold_ms, handled)
        if not hold.held or (handled is not None and hold.position.text != handled.text):
            self._lost_name = True

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(HOLD / 3)
            await self._save(round(HOLD * 1000))

    async def _check_anchor(self) -> None:
        """Compare where we stand with what the stream is now: another epoch or a lower seq is a rollback."""
        self._connects = self._reading.connects
        epoch, seq = await self._reading.run_verb(stream_state(self._context.keys))
        here = self._position
        if here.epoch and epoch and epoch != here.epoch:
            self._position = Position(epoch, "0-0", 0)
            self._report_loss(0, "rollback")
        elif here.seq > seq:
            newest = await self._reading.run_verb(last_entry(self._context.keys, here.entry_id))
            back_to = Position(epoch, newest[0].id, _end_of(newest[0])) if newest else Position(epoch, "0-0", 0)
            self._position = back_to if back_to.seq <= seq else Position(epoch, "0-0", 0)
            self._report_loss(0, "rollback")
        elif not here.epoch:
            self._position = Position(epoch, here.entry_id, here.seq)

    async def _read(self) -> None:
        count = max(1, min(100, int(REPLY_BYTES / self._entry_bytes)))
        verb = read_events(self._context.keys, self._position.entry_id, count, round(BLOCK * 1000))
        entries = await self._reading.run_verb(verb, block=BLOCK)
        if self._connects != self._reading.connects:
            await self._check_anchor()
            return  # read again from a position that is known to be right
        for entry in entries:
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        self._entry_bytes += (len(entry.fields.get("events", "")) + 100 - self._entry_bytes) / 8
        try:
            events = parse_entry(self._context.name, entry.fields)
        except UnreadableEntry:
            self._position = Position(self._position.epoch, entry.id, self._position.seq)
            return
        first, last = events[0].seq, events[-1].seq
        expected = self._position.seq + 1
        if last < expected:
            self._report_loss(0, "rollback")
        elif first > expected and self._has_history:
            self.lost += first - expected
            self._report_loss(first - expected, "trimmed")
        self._has_history = True
        before = self._position
        for event in events:
            if event.seq >= expected or last < expected:
                entry_id = entry.id if event.seq == last else before.entry_id
                self._ready.append((event, Position(before.epoch, entry_id, event.seq)))
        self._position = Position(before.epoch, entry.id, last)

    def _report_loss(self, count: int, reason: str) -> None:
        here = self._position
        self._ready.append((LostEvent(queue=self._context.name, seq=here.seq, count=count, reason=reason), here))


def _end_of(entry: Entry) -> int:
    return int(entry.fields["seq"]) + int(entry.fields["n"]) - 1
