"""Watching a queue: what workers say of themselves, and everything about a queue at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from eventq.commands.core import Command
from eventq.commands.read import COUNTED
from eventq.records import check_numbers, whole
from eventq.scripts import load_script
from eventq.states import JobState

if TYPE_CHECKING:
    from eventq.keys import QueueKeys

#: Schedules that are told of one queue, at most.
MOST_SCHEDULES: Final = 200


class Vital(msgspec.Struct, frozen=True):
    """What a worker says of itself.

    busy_ms: how long its slots were in use so far; counted_ms: how much of that is known to be counted. oldest_ms: when its
    longest run began (Redis' clock), 0 for none. clock_ms: what its own clock says. facts: what it is, a JSON object.
    """

    incarnation: str
    busy_ms: int
    counted_ms: int
    slots: int
    busy: int
    oldest_ms: int
    clock_ms: int
    facts: str


class WorkerState(msgspec.Struct, frozen=True):
    """One live worker as Redis knows it. Times in ms since the epoch, Redis' clock but for `clock_ms`, the worker's own."""

    name: str
    seen_ms: int
    slots: int
    busy: int
    oldest_ms: int
    clock_ms: int
    facts: dict[str, Any]


class ScheduleState(msgspec.Struct, frozen=True):
    """One schedule: when it fires next and fired last (ms since the epoch), None for never."""

    id: str
    next_ms: int | None
    last_ms: int | None


class QueueState(msgspec.Struct, frozen=True):
    """A queue at one moment (`now_ms`, Redis' clock).

    seq: number of its last event. oldest_event_ms: of the stream, unread_ms: of what a reader has still to read; None for none.
    since_ms: since when the oldest job of a state has been there: in line (ready; both ends are looked at), delayed (due, if
    overdue), active (started, as its worker said last). totals: what was ever counted, by kind and job name. busy_ms: how long
    slots were in use so far, of all workers there ever were.
    """

    now_ms: int
    epoch: str
    seq: int
    is_paused: bool
    entries: int
    oldest_event_ms: int | None
    unread_ms: int | None
    counts: dict[JobState, int]
    since_ms: dict[JobState, int]
    workers: list[WorkerState]
    schedules: list[ScheduleState]
    totals: dict[str, int]
    busy_ms: int


def report_worker(keys: QueueKeys, name: str, hold_ms: int, vital: Vital) -> Command[int]:
    """Say that a worker is there for the next `hold_ms` (0: it is gone). Returns the busy ms that are counted by now."""
    script = load_script("report_worker")
    args: list[str | int] = [name, vital.incarnation, hold_ms, vital.busy_ms, vital.counted_ms, vital.slots, vital.busy]
    args += (vital.oldest_ms, vital.clock_ms, vital.facts)
    return Command(script, script.keys(keys), args, lambda reply: int(reply[1]))


def observe_queue(keys: QueueKeys, after: str = "0-0") -> Command[QueueState]:
    """Read how a queue is; `after`: the entry that a reader has come to. One round trip, O(1) whatever the queue's length."""
    script = load_script("observe_queue")
    return Command(script, script.keys(keys), [after, MOST_SCHEDULES], _parse_state, numbered=False)


def _parse_state(reply: list[Any]) -> QueueState:
    now, epoch, seq, paused, entries, oldest, unread, counted, since, workers, schedules, totals, busy = reply[1:14]
    counts: dict[JobState, int] = dict(zip(COUNTED, counted, strict=True))
    ages: dict[JobState, int] = dict(zip((JobState.WAITING, JobState.PRIORITIZED, JobState.DELAYED), since, strict=True))
    counts[JobState.PAUSED] = 0
    if paused == 1:
        counts[JobState.PAUSED], counts[JobState.WAITING] = counts[JobState.WAITING], 0
        ages[JobState.PAUSED] = ages.pop(JobState.WAITING)
    live = [each for each in map(_worker, workers[::2], workers[1::2]) if each is not None and each[0] > now]
    started = [state.oldest_ms for _, state in live if state.oldest_ms]
    ages[JobState.ACTIVE] = min(started, default=-1)
    return QueueState(
        now,
        epoch,
        seq,
        paused == 1,
        entries,
        _known(oldest),
        _known(unread),
        counts,
        {state: ms for state, ms in ages.items() if ms >= 0},
        [state for _, state in live],
        [ScheduleState(*map(_known, each)) for each in zip(*[iter(schedules)] * 3, strict=True)],
        {field: n for field, text in zip(totals[::2], totals[1::2], strict=True) if (n := whole(text)) is not None},
        busy,
    )


_decode_facts: Final = msgspec.json.Decoder(dict[str, Any]).decode


def _worker(name: str, record: str) -> tuple[int, WorkerState] | None:
    """Return when its time ends and the worker; None for a record of another kind."""
    try:
        _, ends, seen, _, slots, busy, oldest, clock, facts = record.split(" ", 8)
        state = WorkerState(name, int(seen), int(slots), int(busy), int(oldest), int(clock), _decode_facts(facts))
        check_numbers(int(ends), state.seen_ms, state.slots, state.busy, state.oldest_ms, state.clock_ms)
    except (ValueError, RecursionError):
        return None
    return int(ends), state


def _known(value: Any) -> Any:
    return None if value == -1 else value
