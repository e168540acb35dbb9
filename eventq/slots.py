"""When a schedule runs: the slots its rule means, and what is to be done about those that are due. Pure: time is handed in."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice, pairwise, takewhile
from typing import TYPE_CHECKING, Final

import msgspec

from eventq.cron import Cron
from eventq.limits import LAST_MS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Slots of a cron expression that one plan looks at; when more are due, the next one goes on.
PLANNED_SLOTS: Final = 10_000
#: Slots that are counted when a change of the rule leaves them out.
COUNTED_SLOTS: Final = 100_000
#: With the policy "skip", a slot runs when it is at most so late.
SKIP_LATE_MS: Final = 60_000


class Definition(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a schedule is to do, stored as JSON. Lua never reads it; defaults are left out. Times in ms, 0 for none.

    anchor_ms: where slots begin: the start that was given, or the moment of the first upsert. header, spec: a job's options as
    add_jobs takes them. missed: once, skip, or how many. trace: the trace fragment of its jobs.
    """

    name: str
    anchor_ms: int
    every_ms: int = 0
    cron: str = ""
    timezone: str = "UTC"
    start_ms: int = 0
    end_ms: int = 0
    limit: int = 0
    header: str = "\t"
    spec: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    missed: str | int = "once"
    trace: str = ""

    @property
    def rule(self) -> tuple[int, str, str, int]:
        """What decides about slots: while it is the same, a schedule goes on with the next slot it has."""
        return self.every_ms, self.cron, self.timezone, self.start_ms

    def slots(self, ms: int) -> Iterator[int]:
        """Yield the slots from `ms` on (inclusive), in ms, none after the end."""
        return takewhile(lambda slot: slot <= (self.end_ms or LAST_MS), self._slots(max(ms, self.anchor_ms)))

    def slots_with(self, stored_ms: int) -> Iterator[int]:
        """Yield a stored slot, whatever time zones say today, and those after it."""
        return chain((stored_ms,), self.slots(stored_ms + 1))

    def _slots(self, ms: int) -> Iterator[int]:
        if self.cron:
            return Cron(self.cron, self.timezone).after(ms - 1)
        first = ms + (self.anchor_ms - ms) % self.every_ms
        return iter(range(first, LAST_MS, self.every_ms))


@dataclass(frozen=True, slots=True)
class Plan:
    """What one call does about a schedule: leave slots out, run one (or none), and go on with the next (None: it has ended)."""

    run_ms: int | None
    next_ms: int | None
    missed: int = 0
    first_missed_ms: int = 0
    last_missed_ms: int = 0


def plan_firings(definition: Definition, next_ms: int, now_ms: int, fired: int) -> list[Plan]:
    """Return what is to be done about a schedule whose next slot is due, call by call. `fired`: how often it ran.

    Of all slots up to now the latest one runs ("once"; "skip": if it is at most 60 s late), or the latest n; older ones are
    missed. Where more slots are due than are looked at, there is one plan that leaves out some, and what follows is due still.
    """
    kept = definition.missed if isinstance(definition.missed, int) else 1
    missed, last_missed, runs, after = _due(definition, next_ms, now_ms, kept)
    if runs and definition.missed == "skip" and now_ms - runs[0] > SKIP_LATE_MS:
        missed, last_missed, runs = missed + 1, runs[0], []
    if definition.limit and fired + len(runs) >= definition.limit:
        runs, after = runs[: max(0, definition.limit - fired)], None
    first = Plan(runs[0] if runs else None, runs[1] if len(runs) > 1 else after, missed, next_ms if missed else 0, last_missed)
    return [first, *(Plan(run, following) for run, following in pairwise([*runs[1:], after]) if run is not None)]


def _due(definition: Definition, next_ms: int, now_ms: int, kept: int) -> tuple[int, int, list[int], int | None]:
    """Return how many due slots are missed and the last of them, the slots to run, and the slot after those."""
    if definition.every_ms and not (next_ms - definition.anchor_ms) % definition.every_ms:
        until = min(now_ms, definition.end_ms or LAST_MS)
        missed = max(0, (until - next_ms) // definition.every_ms + 1 - kept)
        runs = list(range(next_ms + missed * definition.every_ms, until + 1, definition.every_ms))
        last_missed = runs[0] - definition.every_ms if missed else 0
        return missed, last_missed, runs, next(definition.slots(until + 1), None)
    slots = definition.slots_with(next_ms)
    due: list[int] = []
    after = next(slots, None)
    while after is not None and after <= now_ms and len(due) < PLANNED_SLOTS:
        due.append(after)
        after = next(slots, None)
    missed = max(0, len(due) - kept)
    last_missed = due[missed - 1] if missed else 0
    if after is not None and after <= now_ms:  # more are due than were looked at, so none of these is known to run
        return missed, last_missed, [], due[missed]
    return missed, last_missed, due[missed:], after


def due_slots(definition: Definition, next_ms: int | None, now_ms: int) -> tuple[int, int, int]:
    """Return how many slots are due (counted to 100,000), the first and the last of them; zeros for none."""
    if next_ms is None or next_ms > now_ms:
        return 0, 0, 0
    count, last = 0, next_ms
    for slot in islice(takewhile(lambda slot: slot <= now_ms, definition.slots_with(next_ms)), COUNTED_SLOTS):
        count, last = count + 1, slot
    return count, next_ms, last


def next_slots(definition: Definition, next_ms: int | None, fired: int, count: int) -> list[int]:
    """Return the slots to come, at most `count`."""
    if next_ms is None:
        return []
    left = min(count, max(0, definition.limit - fired)) if definition.limit else count
    return list(islice(definition.slots_with(next_ms), left))
