"""Following one event stream: where a reader is, whether an entry fits there, what was lost. Calls are yielded."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from eventq.commands.events import Entry, Position, entry_after, first_entry, last_entry, stream_state
from eventq.events import ObliteratedEvent, UnreadableEntry, parse_entry
from eventq.records import whole

if TYPE_CHECKING:
    from eventq.commands.core import Steps
    from eventq.keys import QueueKeys

#: Entries that a reader remembers; a failover undoes seconds, not more.
_MARKS: Final = 4096


class Gap(msgspec.Struct, frozen=True):
    """What was told as lost: so many events, or (rollback) so many that were read and are undone; reading goes on at `go_on`."""

    count: int
    reason: str
    go_on: Position
    undone: int = 0


class Taken(msgspec.Struct, frozen=True, gc=False):
    """An entry that was taken: how many of its first events were handled before, and what was lost before it."""

    skip: int
    gap: Gap | None


class _Mark(msgspec.Struct, frozen=True, gc=False):
    """An entry that was taken: its id, the number of its last event, a hash of what it says."""

    entry_id: str
    seq: int
    content: int

    def is_of(self, entry: Entry) -> bool:
        """Whether this is the entry that was taken."""
        return entry.id == self.entry_id and content_of(entry) == self.content


class Span(msgspec.Struct, frozen=True, gc=False):
    """What the plain fields of an entry say: the numbers of its first and last event, and whether it ends its epoch.

    content: a hash of its events and their numbers. After a split two servers have entries of one id, even of the same numbers.
    """

    kind: str
    first: int
    last: int
    content: int

    @property
    def is_end(self) -> bool:
        """Whether the queue began anew after it."""
        return self.kind == ObliteratedEvent.kind


class Cursor:
    """A reader's place in one stream. `position`: up to here everything is taken.

    `is_whole`: whether the position is known to be the end of an entry; a saved one may lie in the middle of the next.
    """

    __slots__ = ("_keys", "_marks", "is_whole", "position")

    def __init__(self, keys: QueueKeys) -> None:
        self._keys = keys
        self.position = Position()
        self.is_whole = False
        #: The entries taken last, to find out where the stream went back to.
        self._marks: deque[_Mark] = deque(maxlen=_MARKS)

    def stand(self, position: Position, *, is_whole: bool) -> None:
        """Go on from here."""
        self.position, self.is_whole = position, is_whole

    def skip(self, entry_id: str) -> None:
        """Pass over an entry that is unreadable; if it was one of ours, the next one tells what was lost."""
        self.position = Position(self.position.epoch, entry_id, self.position.seq)

    def take(self, entry_id: str, span: Span, *, is_checked: bool) -> Taken | None:
        """Take an entry. None: it does not fit here, and whether the stream is still the same must be asked (`check`), and then
        read again (`is_checked`).
        """
        before, expected = self.position, self.position.seq + 1
        skip, gap = 0, None
        if not self.is_whole and span.first < expected <= span.last:
            skip = expected - span.first
        elif span.first != expected:
            if not is_checked:
                return None
            # A lower seq under a later id: the stream went back while its epoch stayed.
            count, reason = (span.first - expected, "trimmed") if span.first > expected else (0, "rollback")
            gap = Gap(count, reason, Position(before.epoch, before.entry_id, span.first - 1))
        # After the end of its epoch a queue begins anew.
        self.position = Position("", entry_id, 0) if span.is_end else Position(before.epoch, entry_id, span.last)
        self._marks.append(_Mark(entry_id, span.last, span.content))
        self.is_whole = True
        return Taken(skip, gap)

    def start_at_oldest(self) -> Steps[None]:
        """Begin as a new name does: at the oldest event kept."""
        epoch, seq = yield stream_state(self._keys)
        self.position = yield from self._oldest(epoch, seq)

    def check(self) -> Steps[Gap | None]:
        """Compare where we stand with what the stream is now; return what is to be told.

        Another epoch, a lower seq, or our entry gone while older ones are kept, or another in its place, is a rollback: told,
        then read again from what both have in common. Later events of which no entry is kept are told as lost, without waiting
        for the next one.
        """
        epoch, seq = yield stream_state(self._keys)
        found: list[Entry] = yield last_entry(self._keys, self.position.entry_id)
        here, anchor = self.position, found[0] if found else None
        end = end_of(anchor) if anchor else None
        is_lost = anchor is not None and (anchor.id != here.entry_id or not self._is_ours(anchor, seq))
        if epoch != here.epoch and not (here.epoch or here.seq):
            self.position = Position(epoch, here.entry_id, here.seq)
            return None
        if epoch != here.epoch:
            return (yield from self._other_epoch(epoch))
        if here.seq > seq or is_lost:
            return (yield from self._went_back(epoch, seq, anchor, end))
        self.is_whole = self.is_whole if anchor is None else end is not None and end >= here.seq
        if seq > here.seq and not (yield entry_after(self._keys, here.entry_id)):
            self.position, self.is_whole = Position(epoch, here.entry_id, seq), True
            return Gap(seq - here.seq, "trimmed", self.position)
        return None

    def _is_ours(self, entry: Entry, seq: int) -> bool:
        """Return whether the entry under the id where we stand is the one that was taken there, as far as we remember it."""
        if self._marks and self._marks[-1].entry_id == entry.id:
            return self._marks[-1].is_of(entry)
        # A saved place lies at the end of its entry or behind it, but where a queue began anew or an entry was passed over.
        end = end_of(entry)
        is_behind = end is not None and self.position.seq < end <= seq
        return not is_behind or entry.fields.get("kind") == ObliteratedEvent.kind or not is_readable(entry)

    def _other_epoch(self, epoch: str) -> Steps[Gap | None]:
        here, told = self.position, (yield from self._told_of_the_end())
        if told is None:
            return self._go_back(Position(epoch, "0-0", 0))
        # The queue was obliterated: the event that says so is the last of its epoch, and still to be read.
        self.position, self.is_whole = Position(here.epoch, here.entry_id, told - 1), True
        return Gap(told - 1 - here.seq, "trimmed", self.position) if told - 1 > here.seq else None

    def _went_back(self, epoch: str, seq: int, anchor: Entry | None, end: int | None) -> Steps[Gap]:
        mark: Position | None = yield from self._last_in_common(epoch)
        if mark is not None:
            return self._go_back(mark)
        if anchor is not None and end is not None and end <= self.position.seq:
            return self._go_back(Position(epoch, anchor.id, min(end, seq)))
        return self._go_back((yield from self._oldest(epoch, seq)))

    def _told_of_the_end(self) -> Steps[int | None]:
        """Return the number of the event that tells of the queue's end, if it comes after where we stand."""
        oldest: list[Entry] = yield first_entry(self._keys)
        if not oldest or oldest[0].fields.get("kind") != ObliteratedEvent.kind:
            return None
        seq = number(oldest[0], "seq")
        return seq if seq is not None and _order(oldest[0].id) > _order(self.position.entry_id) else None

    def _last_in_common(self, epoch: str) -> Steps[Position | None]:
        """Return the latest of the entries taken last that the stream still has, if it has any of them.

        What came after is undone, and what stands there now is new, even if it is older than what was read.
        """
        oldest: list[Entry] = yield first_entry(self._keys)
        # The others were trimmed.
        marks = [mark for mark in self._marks if oldest and _order(mark.entry_id) >= _order(oldest[0].id)]
        common = 0
        undone = len(marks)
        while common < undone:
            middle = (common + undone) // 2
            found: list[Entry] = yield last_entry(self._keys, marks[middle].entry_id)
            if found and marks[middle].is_of(found[0]):
                common = middle + 1
            else:
                undone = middle
        self._marks = deque(marks[:common], maxlen=_MARKS)
        return Position(epoch, marks[common - 1].entry_id, marks[common - 1].seq) if common else None

    def _oldest(self, epoch: str, seq: int) -> Steps[Position]:
        """Return where the oldest event that is kept begins; where the stream stands when nothing is kept."""
        oldest: list[Entry] = yield first_entry(self._keys)
        first = number(oldest[0], "seq") if oldest else None
        return Position(epoch, "0-0", seq if first is None else first - 1)

    def _go_back(self, to: Position) -> Gap:
        undone = max(0, self.position.seq - to.seq)
        self.position, self.is_whole = to, True
        return Gap(0, "rollback", to, undone)


def span_of(entry: Entry) -> Span | None:
    """Return what the plain fields of an entry say; None for one that is none of ours."""
    first, amount = number(entry, "seq"), number(entry, "n")
    if first is None or not amount or "kind" not in entry.fields:
        return None
    return Span(entry.fields["kind"], first, first + amount - 1, content_of(entry))


def is_readable(entry: Entry) -> bool:
    """Whether the events of an entry can be read."""
    try:
        parse_entry("", entry.fields)
    except UnreadableEntry:
        return False
    return True


def content_of(entry: Entry) -> int:
    """Return a hash of an entry's events and their numbers, which differs by process."""
    return hash((entry.fields.get("seq"), entry.fields.get("n"), entry.fields.get("events")))


def end_of(entry: Entry) -> int | None:
    """Return the number of an entry's last event."""
    first, amount = number(entry, "seq"), number(entry, "n")
    return first + amount - 1 if first is not None and amount else None


def number(entry: Entry, field: str) -> int | None:
    """Return a field's number; None in an entry that is none of ours."""
    return whole(entry.fields.get(field, ""))


def _order(entry_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in entry_id.split("-"))
