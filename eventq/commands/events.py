"""Reading the event stream, and holding a durable reader's name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from eventq.commands.core import Command, Verb
from eventq.records import whole
from eventq.scripts import load_script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.keys import QueueKeys


class Position(msgspec.Struct, frozen=True, gc=False):
    """How far a reader is: the queue's epoch, the last entry handled whole, the last event handled.

    `seq` may lie inside the entry after `entry_id`: a reader stopped in the middle of a big one.
    """

    epoch: str = ""
    entry_id: str = "0-0"
    seq: int = 0

    @property
    def text(self) -> str:
        """Return the stored form."""
        return f"{self.epoch or '-'} {self.entry_id} {self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position of a stored form."""
        epoch, entry_id, seq = text.split(" ")
        return cls("" if epoch == "-" else epoch, entry_id, int(seq))


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One stream entry."""

    id: str
    fields: dict[str, str]


class Hold(msgspec.Struct, frozen=True, gc=False):
    """Answer to holding a name. `seq` and `epoch` are the queue's own: where the stream stands now. state: '' after a save."""

    held: bool
    position: Position
    state: str
    epoch: str
    seq: int


def hold_consumer(
    keys: QueueKeys, name: str, holder: str, hold_ms: int, *, position: Position | None = None, state: str = ""
) -> Command[Hold]:
    """Take, keep (hold_ms 0: give up) a reader's name and save its position. A holder that lost the name saves nothing."""
    script = load_script("hold_consumer")
    args: list[str | int] = [name, holder, hold_ms, position.text if position else "", state]
    return Command(script, script.keys(keys), args, _parse_hold)


def _parse_hold(reply: list[Any]) -> Hold:
    return Hold(reply[1] == "held", _stored_position(reply[2]), reply[3], reply[4], int(reply[5]))


def _stored_position(text: str) -> Position:
    """Return a reader's place; the beginning where it is damaged: better twice than not at all."""
    try:
        position = Position.parse(text)
        if max(position.seq, *map(int, position.entry_id.split("-"))) >= 2**63:
            raise ValueError(text)
    except ValueError:
        return Position()
    return position


def report_events(keys: QueueKeys, kind: str, events: Sequence[str]) -> Command[int]:
    """Write events that are no transition, JSON objects of one kind. Returns the seq of the last."""
    script = load_script("report_events")
    return Command(script, script.keys(keys), [kind, len(events), *events], lambda reply: int(reply[1]))


def read_events(keys: QueueKeys, after: str, count: int, block_ms: int) -> Verb[list[Entry]]:
    """Read entries after an id, blocking at most so long for the first."""
    words = ("XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", keys["events"], after)
    return Verb(words, lambda reply: _entries(reply[0][1]) if reply else [])


def read_streams(places: Sequence[tuple[QueueKeys, str]], count: int, block_ms: int) -> Verb[dict[str, list[Entry]]]:
    """Read entries of several queues of one slot or server, each after an id, at most `count` of each; by the stream's key."""
    keys, after = [keys["events"] for keys, _ in places], [entry_id for _, entry_id in places]
    words: tuple[str | int, ...] = ("XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", *keys, *after)
    return Verb(words, _parse_streams)


def _parse_streams(reply: Any) -> dict[str, list[Entry]]:
    streams: list[tuple[str, list[Any]]] = reply or []
    return {key: _entries(entries) for key, entries in streams}


def last_entry(keys: QueueKeys, upto: str = "+") -> Verb[list[Entry]]:
    """Read the newest entry, or the newest at or before an id."""
    return Verb(("XREVRANGE", keys["events"], upto, "-", "COUNT", 1), _entries)


def first_entry(keys: QueueKeys) -> Verb[list[Entry]]:
    """Read the oldest entry."""
    return Verb(("XRANGE", keys["events"], "-", "+", "COUNT", 1), _entries)


def entry_after(keys: QueueKeys, entry_id: str) -> Verb[list[Entry]]:
    """Read the oldest entry after an id."""
    return Verb(("XRANGE", keys["events"], f"({entry_id}", "+", "COUNT", 1), _entries)


def entries_before(keys: QueueKeys, before: str, count: int) -> Verb[list[Entry]]:
    """Read entries from the newest down, older than an id ("+" for all)."""
    end = before if before == "+" else f"({before}"
    return Verb(("XREVRANGE", keys["events"], end, "-", "COUNT", count), _entries)


def server_time() -> Verb[int]:
    """Read Redis' clock, in ms."""
    return Verb(("TIME",), lambda reply: int(reply[0]) * 1000 + int(reply[1]) // 1000)


def stream_state(keys: QueueKeys) -> Verb[tuple[str, int]]:
    """Read the queue's epoch and the seq of its last event."""
    return Verb(("HMGET", keys["meta"], "epoch", "seq"), _parse_state)


def _parse_state(reply: list[str | None]) -> tuple[str, int]:
    epoch, seq = reply
    # As hold_consumer says them: one word, and a number that is none begins anew.
    return re.sub(r"\s", "_", epoch or "", flags=re.ASCII), whole(seq or "") or 0


def _entries(reply: list[Any]) -> list[Entry]:
    # A missing field list is an entry that was deleted while it was read.
    return [Entry(entry[0], dict(zip(entry[1][::2], entry[1][1::2], strict=True))) for entry in reply if entry[1]]
