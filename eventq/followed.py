"""One queue of a follower: its place in the stream, the name it is held under, and the reading of all that share a connection."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from eventq.client import AsyncRunner
from eventq.commands.events import hold_consumer, read_streams
from eventq.commands.watch import observe_queue
from eventq.errors import EventqError
from eventq.events import LostEvent
from eventq.operations.following import Cursor, Gap, number, span_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from eventq.client import Server
    from eventq.commands.events import Entry, Hold, Position
    from eventq.commands.watch import QueueState
    from eventq.keys import QueueKeys

log: Final = logging.getLogger("eventq")

#: Seconds one read may block, that its answer may be late, and that reading pauses when it has caught up: many events in one
#: read cost a fraction of what they cost one by one.
BLOCK: Final = 1.0
_LATE: Final = 2.0
_GATHER: Final = 0.1
#: Entries per read are chosen so that a reply stays near this many bytes.
_REPLY_BYTES: Final = 1024 * 1024
_MOST_ENTRIES: Final = 1000
#: Seconds before a read that was refused is tried again.
_REFUSED: Final = 1.0
_REFUSED_PAUSE: Final = 15.0


class EventBatch(msgspec.Struct, frozen=True, gc=False):
    """Events of one kind as one entry of the stream has them, for readers that take many at a time.

    `seq` is the number of the first, `facts` a JSON array of their facts. The first `skip` of them were handled before.
    """

    queue: str
    kind: str
    seq: int
    count: int
    ms: int
    facts: str
    skip: int = 0


class FollowerSink(Protocol):
    """What is told by a follower. All of it on the event loop, one call at a time; `restored` and `flush` may await."""

    async def restored(self, queue: str, state: str) -> None:
        """The queue is ours from here on; `state` is what was saved with the place where reading goes on, '' for nothing.

        What becomes another state by it is saved before anything is read.
        """

    def received(self, batch: EventBatch) -> None:
        """Take the next events of a queue. They count as handled once `flush` has returned."""

    async def flush(self) -> None:
        """Make durable elsewhere what was received. Reading waits for it, and the place of these events is not saved before."""

    def lost(self, event: LostEvent) -> None:
        """Events are lost, or undone, here."""

    def state(self, queue: str) -> str:
        """Return what is to be saved with the place up to which events are handled. Any text, at most a few hundred KB."""
        ...

    def saved(self, queue: str) -> None:
        """What `state` returned last is saved."""

    def left(self, queue: str) -> None:
        """The queue is no longer ours: another process has the name, or it is gone."""


class Link:
    """The connections that queues share: one that reads, one for everything else."""

    def __init__(self, key: str, server: Server, on_fault: Callable[[Exception], None] | None) -> None:
        self.key = key
        self.queues: dict[str, FollowedQueue] = {}
        self.reading = AsyncRunner(server, timeout=_LATE, patience=None, client_name="eventq-follower", on_fault=on_fault)
        self.calling = AsyncRunner(server, patience=None, client_name="eventq-follower", on_fault=on_fault)
        #: What an entry takes, as far as is known: at first a lot, so that the first reply is not too large.
        self.entry_bytes = 16384.0
        self.connects = 0
        #: When (the loop's clock) a read was last answered.
        self.read_at = 0.0

    @property
    def reconnects(self) -> int:
        """How many connections had to be made again."""
        return max(0, self.reading.connects - 1) + max(0, self.calling.connects - 1)

    async def close(self) -> None:
        """Close both."""
        await self.reading.close()
        await self.calling.close()


class FollowedQueue:
    """A queue that this process follows."""

    def __init__(self, keys: QueueKeys, link: Link) -> None:
        self.keys = keys
        self.name = keys.name
        self.link = link
        self.cursor = Cursor(keys)
        #: Whether the stream has to be asked what it is now, before it is read on; and whether it just was.
        self.doubt = True
        self.is_checked = False
        #: An entry was unreadable: what is missing next was not trimmed.
        self.had_unreadable = False
        #: The sink raised: what it has handled is not known, so nothing is saved any more.
        self.is_broken = False
        #: Something was received that is not flushed: there is no place to save.
        self.is_unflushed = False
        self.restored_state = ""
        self._gaps: list[LostEvent] = []
        self._consumer = ""
        self._holder = ""
        #: Where it stood at the last save; Redis ahead of a place that does not change is a reason for doubt.
        self._saved: Position | None = None
        #: When (the loop's clock) it was last saved, and since when it is off the list of queues.
        self.saved_at = 0.0
        self.gone_at = 0.0
        #: When its name was last kept without a save.
        self.kept_at = 0.0
        #: One save at a time: each says what is handled then.
        self.saving = asyncio.Lock()
        #: Until when (the loop's clock) its stream is not read, since Redis refuses it.
        self.refused_until = 0.0

    @property
    def seq(self) -> int:
        """The number of the last event handled."""
        return self.cursor.position.seq

    @property
    def epoch(self) -> str:
        """The queue's epoch as this reader knows it, '' when the next one is still to be asked for."""
        return self.cursor.position.epoch

    async def take(self, consumer: str, holder: str, hold_ms: int) -> str | None:
        """Take the name; return the state that was saved with the place, None where another process has it."""
        self._consumer, self._holder = consumer, holder
        hold = await self._hold(hold_ms)
        if not hold.held:
            return None
        self.saved_at = asyncio.get_running_loop().time()
        if hold.position.epoch or hold.position.entry_id != "0-0":
            self.cursor.stand(hold.position, is_whole=False)
            await self._check()
        else:
            # A new name begins at the oldest event kept. Saved at once: from here on trimming heeds it.
            await self.link.calling.perform(self.cursor.start_at_oldest())
            await self._hold(hold_ms, self.cursor.position)
        return hold.state

    def tell(self, event: LostEvent, sink: FollowerSink) -> None:
        """Tell the sink of a gap. What it makes of it is flushed like everything else, before the place beyond it is saved."""
        self.is_unflushed = True
        sink.lost(event)

    def take_gaps(self) -> list[LostEvent]:
        """Return what the last checks told as lost."""
        gaps, self._gaps = self._gaps, []
        return gaps

    async def give_up(self) -> None:
        """Let somebody else have the name; what is saved stays as it is."""
        await self._hold(0)

    async def save(self, state: str, hold_ms: int) -> bool:
        """Save place and state, if the name is still ours."""
        position = self.cursor.position
        hold = await self._hold(hold_ms, position, state)
        if not hold.held or hold.position.text != position.text:
            return False
        stuck = self._saved is not None and self._saved.text == position.text and hold.seq > position.seq
        self.doubt = self.doubt or hold.epoch != position.epoch or hold.seq < position.seq or stuck
        self._saved, self.saved_at = position, asyncio.get_running_loop().time()
        return True

    async def keep(self, hold_ms: int) -> bool:
        """Keep the name and leave what is saved as it is; return whether it is still ours."""
        self.kept_at = asyncio.get_running_loop().time()
        return (await self._hold(hold_ms)).held

    async def observe(self) -> QueueState:
        """Read how the queue is at one moment."""
        return await self.link.calling.run(observe_queue(self.keys, self.cursor.position.entry_id))

    async def settle_doubt(self) -> None:
        """Ask what the stream is now, if that is in doubt."""
        if self.doubt or not self.cursor.position.epoch:
            await self._check()
            self.doubt = False

    def take_entries(self, entries: list[Entry], sink: FollowerSink) -> None:
        """Hand what was read to the sink, up to the first entry that does not fit."""
        is_checked, self.is_checked = self.is_checked, False
        for entry in entries:
            span, ms = span_of(entry), number(entry, "ms")
            if span is None or ms is None or "events" not in entry.fields:
                self.cursor.skip(entry.id)
                self.had_unreadable = True
                continue
            taken = self.cursor.take(entry.id, span, is_checked=is_checked)
            if taken is None:
                self.doubt = self.is_checked = True
                return
            if taken.gap is not None:
                self.tell(self._lost(taken.gap), sink)
            self.had_unreadable = False
            count = span.last - span.first + 1
            self.is_broken = self.is_unflushed = True
            sink.received(EventBatch(self.name, span.kind, span.first, count, ms, entry.fields["events"], taken.skip))
            self.is_broken = False
            if span.is_end:
                return  # what follows is another epoch, which is asked for first

    async def _check(self) -> None:
        gap = await self.link.calling.perform(self.cursor.check())
        if gap is not None:
            self._gaps.append(self._lost(gap))

    def _lost(self, gap: Gap) -> LostEvent:
        reason = "undecodable" if self.had_unreadable and gap.reason == "trimmed" else gap.reason
        return LostEvent(queue=self.name, seq=gap.go_on.seq - gap.count, count=gap.count, reason=reason, undone=gap.undone)

    async def _hold(self, hold_ms: int, position: Position | None = None, state: str = "") -> Hold:
        command = hold_consumer(self.keys, self._consumer, self._holder, hold_ms, position=position, state=state)
        return await self.link.calling.run(command)


async def pump(link: Link, sink: FollowerSink, save: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Read all queues of a link in turn, for ever, hand what comes to the sink, and save where it is time to."""
    link.read_at = asyncio.get_running_loop().time()
    while True:
        try:
            has_more = await _read(link, sink)
            queues = list(link.queues.values())
            if any(queue.is_unflushed for queue in queues):
                await sink.flush()
                for queue in queues:
                    queue.is_unflushed = False
                await save()
            if not has_more:
                await asyncio.sleep(_GATHER)
        except EventqError:  # what repeating may mend: no permission, a stream that is none
            await _find_refused(link)
            await asyncio.sleep(_REFUSED)


async def _find_refused(link: Link) -> None:
    """Ask queue by queue which one cannot be read, and leave it out for a while: the others go on."""
    for queue in list(link.queues.values()):
        try:
            await link.reading.run_verb(read_streams([(queue.keys, queue.cursor.position.entry_id)], 1, 1))
            await queue.settle_doubt()
        except EventqError as error:
            log.warning("events of queue %s cannot be read: %s", queue.name, error)
            queue.refused_until = asyncio.get_running_loop().time() + _REFUSED_PAUSE


async def _read(link: Link, sink: FollowerSink) -> bool:
    """Read once; return whether there may be more at once."""
    now = asyncio.get_running_loop().time()
    queues = [queue for queue in link.queues.values() if queue.refused_until <= now]
    for queue in queues:
        if link.connects != link.reading.connects:
            queue.doubt = True
        await queue.settle_doubt()
        for gap in queue.take_gaps():
            if queue.name in link.queues:
                queue.tell(gap, sink)
    link.connects = link.reading.connects
    if not queues:
        return False
    count = max(1, min(_MOST_ENTRIES, int(_REPLY_BYTES / link.entry_bytes)))
    places = [(queue.keys, queue.cursor.position.entry_id) for queue in queues]
    found = await link.reading.run_verb(read_streams(places, count, round(BLOCK * 1000)), block=BLOCK)
    link.read_at = asyncio.get_running_loop().time()
    most = 0
    for queue, (keys, place) in zip(queues, places, strict=True):
        entries = found.get(keys["events"], [])
        # Meanwhile it may have been given up, and taken again.
        if not entries or link.queues.get(queue.name) is not queue or queue.cursor.position.entry_id != place:
            continue
        most = max(most, len(entries))
        if not queue.epoch:
            continue  # it came to life meanwhile: which epoch that is, is asked for before anything of it is taken
        size = sum(len(entry.fields.get("events", "")) + 100 for entry in entries) / len(entries)
        link.entry_bytes += (size * len(found) - link.entry_bytes) / 2
        queue.take_entries(entries, sink)
    return most >= count
