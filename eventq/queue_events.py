"""Readers of a queue's event stream: live from now, or durable under a name, with the exact loss."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from eventq.client import AsyncRunner
from eventq.commands.events import (
    Entry,
    Hold,
    Position,
    entry_after,
    hold_consumer,
    last_entry,
    read_events,
    server_time,
    stream_state,
)
from eventq.errors import ConfigurationError, EventqError, QueueUnavailable, ServerRefused
from eventq.events import Event, LostEvent, ObliteratedEvent, UnreadableEntry, parse_entry
from eventq.ids import random_text
from eventq.keys import check_queue_name
from eventq.opened import Opened
from eventq.operations.following import Cursor, Gap, Span, content_of, end_of, number

if TYPE_CHECKING:
    from eventq.context import QueueContext

log: Final = logging.getLogger("eventq")

#: Seconds one read may block, and that its answer may be late before its connection counts as dead.
BLOCK: Final = 5.0
_LATE: Final = 2.0
#: Entries per read are chosen so that a reply stays near this many bytes.
REPLY_BYTES: Final = 1024 * 1024
#: Seconds a name is held without a word from its holder; renewed (and the position saved) three times as often.
HOLD: Final = 10.0


class EventStream(Opened):
    """Every event of a queue, in order: `async for event in queue.events()`.

    Without a name it starts now: what `__aenter__` (or the first step) found as the last event is the first that is not seen.
    With a name (`consumer=`) it is durable: it goes on where the name's last reader stopped, at least once. An event counts as
    handled when the next one is asked for; positions are saved a few times a minute and at close. A new name starts at
    the oldest event still kept. One process holds a name; another with the same name waits until it is free.

    What was trimmed before it was read comes as a `LostEvent` with the exact number, and adds to `lost`. So does a server that
    went back (a failover, a restart from an older save): `undone` says how many events that were read never happened there.
    """

    def __init__(self, context: QueueContext[Any, Any], consumer: str | None = None) -> None:
        self._context = context
        self._consumer = check_queue_name(consumer, "consumer") if consumer is not None else None
        self._reading = AsyncRunner(context.server, timeout=_LATE, patience=None, client_name="eventq-events")
        self._holding = AsyncRunner(context.server, client_name="eventq-events")
        self._holder = random_text(12)
        #: Up to its position everything is read; `_handled` is how far it is handled.
        self._cursor = Cursor(context.keys)
        #: Whether what the stream is now was asked just before the next read, because an entry did not fit.
        self._is_checked = False
        self._ready: deque[tuple[Event, Position]] = deque()
        self._delivered: Position | None = None
        self._handled = Position()
        #: Whether it knows where it starts: from then on nothing is missed uncounted.
        self.is_open = False
        self._is_closed = False
        self._connects = 0
        self._entry_bytes = 4096.0
        self._keeper: asyncio.Task[None] | None = None
        self._has_name = False
        self._lost_name = False
        self._opening = asyncio.Lock()
        self._saving = asyncio.Lock()
        #: Events that were trimmed before this reader saw them.
        self.lost = 0

    @property
    def position(self) -> Position:
        """The last position that is handled."""
        return self._handled

    async def open(self) -> EventStream:
        """Resolve where to start; with a name, wait until it is ours. After this no event is missed uncounted.

        Raises QueueUnavailable when Redis is away; once open, the reader waits for it by itself.
        """
        async with self._opening:
            if not self.is_open:
                await self._open()
        return self

    async def _open(self) -> None:
        if self._consumer is None:
            self._handled = await self._now()
            self._cursor.stand(self._handled, is_whole=True)
        else:
            await self._acquire()
            if self._is_closed:
                raise ConfigurationError(f"reader {self._consumer!r} was closed while it was opened; make a new one")
            self._keeper = asyncio.create_task(self._keep(), name=f"eventq-consumer {self._consumer}")
        self.is_open = True

    async def close(self) -> None:
        """Save the position, give the name up, close the connections. Whoever is in the middle of reading sees the end."""
        if self._is_closed:
            return
        self._is_closed, self.is_open = True, False
        try:
            if self._keeper and not self._keeper.done():
                self._keeper.cancel()
                await asyncio.wait([self._keeper])
            if self._has_name:
                await self._save(0)
        finally:
            await self._reading.close()
            await self._holding.close()

    async def lag(self) -> tuple[int, float]:
        """Return how far behind this reader is: events not handled, and seconds since the oldest of them; 0 when caught up."""
        run_verb, keys = self._context.runner.run_verb, self._context.keys
        _, seq = await run_verb(stream_state(keys))
        behind = max(0, seq - self._handled.seq)
        oldest = await run_verb(entry_after(keys, self._handled.entry_id)) if behind else []
        if not oldest or (ms := number(oldest[0], "ms")) is None:
            return behind, 0.0
        return behind, max(0, await run_verb(server_time()) - ms) / 1000

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        # Asking for the next event says that the last one is handled.
        self._handled = self._delivered or self._handled
        try:
            if not self.is_open and not self._is_closed:
                await self.open()
            while not self._is_closed:
                if self._lost_name:
                    await self._retake()
                if self._ready:
                    event, self._delivered = self._ready.popleft()
                    return event
                await self._read()
        except EventqError:
            if not self._is_closed:
                raise
        raise StopAsyncIteration

    async def _now(self) -> Position:
        run_verb, keys = self._context.runner.run_verb, self._context.keys
        while True:
            epoch, seq = await run_verb(stream_state(keys))
            newest = await run_verb(last_entry(keys))
            if not newest:
                return Position(epoch, "0-0", seq)
            if newest[0].fields.get("kind") == ObliteratedEvent.kind:
                return Position(epoch, newest[0].id, 0)
            end = end_of(newest[0])
            # The newest entry may be none of ours: then what the queue says counts, if nothing came between.
            if end is not None or (epoch, seq) == await run_verb(stream_state(keys)):
                return Position(epoch, newest[0].id, seq if end is None else end)

    async def _acquire(self) -> None:
        """Take the name, waiting while another process holds it, and start from its saved position."""
        while True:
            if await self._take_name():
                break
            await asyncio.sleep(HOLD / 10)
        if self._handled.epoch:
            await self._check_anchor()
            return
        # A new name. Its start is saved at once: from here on trimming heeds it and nothing is missed uncounted.
        await self._reading.perform(self._cursor.start_at_oldest())
        self._handled = self._cursor.position
        await self._save(round(HOLD * 1000))

    async def _take_name(self) -> bool:
        async with self._saving:
            hold = await self._hold(round(HOLD * 1000))
            if hold.held:
                self._has_name, self._lost_name = True, False
                self._ready.clear()
                self._delivered = None
                self._handled = hold.position
                self._cursor.stand(hold.position, is_whole=False)
            return hold.held

    async def _retake(self) -> None:
        """Take a lost name again, however long Redis is away."""
        while self._lost_name:
            try:
                await self._acquire()
            except (QueueUnavailable, ServerRefused) as error:
                if isinstance(error, ServerRefused) and error.code != "MISCONF":
                    raise
                log.warning("queue %s: reader %s waits for its name: %s", self._context.name, self._consumer, error)
                await asyncio.sleep(HOLD / 10)

    async def _hold(self, hold_ms: int, position: Position | None = None) -> Hold:
        if self._consumer is None:
            raise ConfigurationError("a reader without a name holds none")
        return await self._holding.run(
            hold_consumer(self._context.keys, self._consumer, self._holder, hold_ms, position=position)
        )

    async def _save(self, hold_ms: int) -> None:
        """Save what is handled, unless another process had the name meanwhile: then its position stays, and counts."""
        async with self._saving:
            if self._lost_name:
                return
            handled = self._handled
            hold = await self._hold(hold_ms, handled)
            self._lost_name = not hold.held or hold.position.text != handled.text

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(HOLD / 3)
            try:
                await self._save(round(HOLD * 1000))
            except EventqError as error:  # Redis is away or refuses; the name and the position are tried again
                log.warning("queue %s: reader %s saved nothing: %s", self._context.name, self._consumer, error)

    async def _check_anchor(self) -> None:
        """Compare where we stand with what the stream is now, and tell what was lost."""
        self._connects = self._reading.connects
        gap = await self._reading.perform(self._cursor.check())
        if gap is not None:
            self._report_loss(gap)

    async def _read(self) -> None:
        is_checked, self._is_checked = self._is_checked, False
        count = max(1, min(100, int(REPLY_BYTES / self._entry_bytes)))
        verb = read_events(self._context.keys, self._cursor.position.entry_id, count, round(BLOCK * 1000))
        entries = await self._reading.run_verb(verb, block=BLOCK)
        if not entries or not self._cursor.position.epoch or self._connects != self._reading.connects:
            await self._check_anchor()
            return  # read again from a position that is known to be right
        for entry in entries:
            if not self._take(entry, is_checked):
                await self._check_anchor()
                self._is_checked = True
                return
            if not self._cursor.position.epoch:
                return  # the queue was obliterated: what follows is another epoch, which is asked for first

    def _take(self, entry: Entry, is_checked: bool) -> bool:
        """Make an entry's events ready. False: it does not fit here, and whether the stream is still the same must be asked."""
        self._entry_bytes += (len(entry.fields.get("events", "")) + 100 - self._entry_bytes) / 8
        try:
            events = parse_entry(self._context.name, entry.fields)
        except UnreadableEntry:
            self._cursor.skip(entry.id)
            return True
        before, last = self._cursor.position, events[-1].seq
        span = Span(events[0].kind, events[0].seq, last, content_of(entry))
        taken = self._cursor.take(entry.id, span, is_checked=is_checked)
        if taken is None:
            return False
        if taken.gap is not None:
            self._report_loss(taken.gap)
        end = self._cursor.position
        for event in events[taken.skip :]:
            self._ready.append((event, end if event.seq == last else Position(before.epoch, before.entry_id, event.seq)))
        return True

    def _report_loss(self, gap: Gap) -> None:
        self.lost += gap.count
        seq = gap.go_on.seq - gap.count
        event = LostEvent(queue=self._context.name, seq=seq, count=gap.count, reason=gap.reason, undone=gap.undone)
        self._ready.append((event, gap.go_on))
