"""What happened to one job, by the queue's events: the stream is read backwards until the job was added, or to its beginning."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from eventq.cli.facts import event_facts_for_people
from eventq.cli.tables import STYLES, Column, Styled, local_time
from eventq.cli.text import quoted, seconds, shorten
from eventq.commands.events import entries_before
from eventq.commands.inspect import stream_length
from eventq.events import AddedEvent, Event, JobEvent, RemovedEvent, UnreadableEntry, parse_entry
from eventq.records import whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventq.cli.tables import Cell
    from eventq.commands.events import Entry
    from eventq.queue import Queue

__all__ = ["TIMELINE_COLUMNS", "Timeline", "read_timeline", "timeline_rows"]

#: Entries per call; each may hold 32 KiB.
ENTRIES: Final = 32
TIMELINE_COLUMNS: Final = (Column("time"), Column("after", right=True), Column("event"), Column("what", wraps=True))
#: Told by the columns before, by the job itself, or of no use to a reader.
_HIDDEN: Final = frozenset(
    {"job_id", "name", "traceparent", "tracestate", "service", "propagation", "batch", "link", "span", "added", "job_ids"}
)
_DETAIL: Final = 300


@dataclass(frozen=True, slots=True)
class Timeline:
    """Events of one job, oldest first. complete: they reach back to its add. begins_ms: where the stream begins, 0: empty."""

    events: list[Event]
    complete: bool
    begins_ms: int


async def read_timeline(
    queue: Queue[Any, Any], job_id: str, added_ms: int, on_progress: Callable[[int], None] | None = None
) -> Timeline:
    """Read the events of a job, 1 MiB a call at most. added_ms: what is older is not looked at; 0 looks at all there is.

    on_progress: told how many entries were looked at so far.
    """
    run_verb, keys = queue.context.runner.run_verb, queue.context.keys
    events: list[Event] = []
    before, looked_at, begins_ms = "+", 0, 0
    while page := await run_verb(entries_before(keys, before, ENTRIES)):
        for entry in page:
            ms = _ms(entry)
            begins_ms = ms or begins_ms
            events += reversed([event for event in _events(queue.name, entry, job_id) if _is_of(event, job_id)])
            if (events and isinstance(events[-1], AddedEvent)) or (ms and ms < added_ms):
                is_complete = bool(events) and isinstance(events[-1], AddedEvent)
                return Timeline(events[::-1], is_complete, begins_ms)
        before, looked_at = page[-1].id, looked_at + len(page)
        if on_progress:
            on_progress(looked_at)
    return Timeline(events[::-1], False, begins_ms)


async def stream_size(queue: Queue[Any, Any]) -> int:
    """Return how many entries there are to look at, at most."""
    return await queue.context.runner.run_verb(stream_length(queue.context.keys))


def _events(queue: str, entry: Entry, job_id: str) -> list[Event]:
    # Ids are plain words in JSON: an entry that does not hold it as text need not be parsed.
    if f'"{job_id}"' not in entry.fields.get("events", ""):
        return []
    with contextlib.suppress(UnreadableEntry):  # one of somebody else's in our stream says nothing about our job
        return parse_entry(queue, entry.fields)
    return []


def _is_of(event: Event, job_id: str) -> bool:
    if isinstance(event, RemovedEvent):
        return job_id in event.job_ids
    return isinstance(event, JobEvent) and event.job_id == job_id


def _ms(entry: Entry) -> int:
    return whole(entry.fields.get("ms", "")) or 0


def timeline_rows(events: list[Event]) -> list[list[Cell]]:
    """Return a row per event: when, how long after the one before, what."""
    rows: list[list[Cell]] = []
    last_ms = 0
    for event in events:
        after = seconds((event.ms - last_ms) / 1000) if last_ms else ""
        rows.append([local_time(event.ms), after, Styled(event.kind, STYLES.get(event.kind, "")), _what(event)])
        last_ms = event.ms
    return rows


def _what(event: Event) -> str:
    facts = event_facts_for_people(event)
    said = {key: value for key, value in facts.items() if key not in _HIDDEN and value not in (None, "", 0, False)}
    return shorten(", ".join(f"{key} {_value(key, value)}" for key, value in said.items()), _DETAIL)


def _value(key: str, value: Any) -> str:
    if key == "error":
        return f"{value['type']}: {value['message']}"
    if key in ("waited", "ran"):
        return seconds(value)
    if value is True:
        return "yes"
    if key == "due":
        return f"{value} s"
    if key in ("slot", "first", "last") or isinstance(value, int | float):
        return str(value)
    return quoted(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
