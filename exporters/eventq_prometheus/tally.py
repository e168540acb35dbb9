"""What one queue's events come to: counters and histograms, compared with what the queue counted itself."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from eventq_prometheus.catalogue import CATALOGUE, OVERFLOW
from eventq_prometheus.facts import DECODERS, Facts
from eventq_prometheus.saved import Saved, parse_saved
from eventq_prometheus.spread import LiveSpread, Spread, thousandths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventq import EventBatch, QueueState
    from eventq.events import LostEvent

__all__ = ["MOST_NAMES", "MOST_TYPES", "TOTALS", "Tally"]

log: Final = logging.getLogger("eventq.exporter")

#: What the queue counts itself, by job name; the names are those of its column `totals`.
TOTALS: Final = ("added", "starts", "completed", "failed", "retrying", "exhausted", "stalled", "released")
#: Job names that stand for themselves, as in the queue's own totals, and types of errors, schedules and kinds of events.
MOST_NAMES: Final = 100
MOST_TYPES: Final = 20
MOST_SCHEDULES: Final = 200
MOST_KINDS: Final = 40
#: A queue whose first event is younger than this (ms) began under our eyes: its series are shown at 0 first.
_YOUNG_MS: Final = 60_000

WAIT: Final = "eventq_job_wait_seconds"
RUN: Final = "eventq_job_processing_seconds"
TOTAL: Final = "eventq_job_total_seconds"
ATTEMPTS: Final = "eventq_job_attempts_per_job"
LATENESS: Final = "eventq_delayed_job_lateness_seconds"
DRIFT: Final = "eventq_scheduler_drift_seconds"
BOUNDS: Final = {name: thousandths(metric.buckets) for name, metric in CATALOGUE.items() if metric.buckets}


class Tally:
    """One queue. `seq`: the number of the last event that is in it.

    overflowed: told the label each time a value is past its cap and counted as OVERFLOW.
    """

    def __init__(self, queue: str, text: str, *, by_name: bool, overflowed: Callable[[str], None]) -> None:
        self.queue = queue
        self.seq = 0
        self._overflowed = overflowed
        self._saved = _parse(queue, text)
        self._by_name = by_name
        self._names = {name for counts in self._saved.totals.values() for name in counts} - {OVERFLOW}
        self._types = {kind for types in self._saved.errors.values() for kind in types} - {OVERFLOW}
        self._spreads: dict[str, dict[str, LiveSpread]] = {}
        for metric, spreads in self._saved.spreads.items():
            for key, spread in spreads.items():
                if metric in BOUNDS:
                    self._adopt(metric, key, spread)
        self._first: tuple[int, int] | None = None
        self._pending: QueueState | None = None
        self._handlers: dict[str, Callable[[Any, EventBatch], None]] = {
            "added": self._added,
            "duplicated": self._duplicated,
            "active": self._active,
            "progress": self._progress,
            "completed": self._completed,
            "retrying": self._retrying,
            "failed": self._failed,
            "released": lambda facts, _: self._count("released", facts),
            "stalled": lambda facts, _: self._count("stalled", facts),
            "delayed": self._delayed,
            "waiting": self._waiting,
            "removed": lambda facts, _: self._plain("removed", sum(len(each.job_ids) for each in facts)),
            "schedule_missed": self._missed,
            "error": self._error,
            "obliterated": self._obliterated,
        }

    @property
    def is_based(self) -> bool:
        """Whether its totals were compared with the queue's: before that they lack what came before the oldest event kept."""
        return self._saved.is_based

    @property
    def names(self) -> int:
        """How many job names it has."""
        return len(self._names)

    def received(self, batch: EventBatch) -> None:
        """Count a batch."""
        new = batch.count - batch.skip
        self._first = self._first or (batch.seq, batch.ms)
        self.seq = batch.seq + batch.count - 1
        kinds = self._saved.events
        kind = batch.kind if batch.kind in kinds or len(kinds) < MOST_KINDS else self._past_cap("event")
        kinds[kind] = kinds.get(kind, 0) + new
        decoder = DECODERS.get(batch.kind)
        if decoder is not None:
            try:
                facts = decoder.decode(batch.facts)
            except (ValueError, RecursionError) as error:
                log.warning("queue %s: %d %s events cannot be read: %s", self.queue, new, batch.kind, type(error).__name__)
                self._plain("undecodable", new)
            else:
                self._handlers[batch.kind](facts[batch.skip :] if batch.skip else facts, batch)
        if self._pending is not None:
            self._compare()

    def lost(self, event: LostEvent) -> None:
        """Go on after a gap, or from where the stream went back to."""
        self.seq = event.seq + event.count
        self._pending = None
        if event.reason == "rollback" and not self.seq:
            self._begin_epoch()
        if event.count:
            self._plain("undecodable" if event.reason == "undecodable" else "trimmed", event.count)
        if event.undone:
            self._plain("undone", event.undone)

    def compare(self, state: QueueState) -> None:
        """Take what the queue counted itself; it is looked at when everything up to the same event is in here.

        A loss leaves us behind: then the queue is right. After a failover it may be behind us: what it forgot did happen, and
        stays counted, as an offset from then on. So no counter ever falls, and none lacks anything.
        """
        if state.seq >= self.seq and self._pending is None:  # one that is waited for is not put off by the next
            self._pending = state
            self._compare()

    def busy(self, busy_ms: int) -> None:
        """Take the time that slots were in use so far, as the queue counts it. What a failover took back, workers say again."""
        self._saved.busy_ms = max(self._saved.busy_ms, busy_ms + self._saved.busy_offset)

    def freeze(self) -> Saved:
        """Return everything as it is now, to be saved and then shown."""
        saved = self._saved
        return msgspec.structs.replace(
            saved,
            totals={kind: counts.copy() for kind, counts in saved.totals.items()},
            offsets={kind: counts.copy() for kind, counts in saved.offsets.items()},
            more={kind: counts.copy() for kind, counts in saved.more.items()},
            errors={name: counts.copy() for name, counts in saved.errors.items()},
            plain=saved.plain.copy(),
            events=saved.events.copy(),
            missed=saved.missed.copy(),
            spreads={
                metric: {key: live.spread.copy() for key, live in spreads.items()} for metric, spreads in self._spreads.items()
            },
            born=saved.born.copy(),
        )

    def examples(self) -> dict[tuple[str, str], LiveSpread]:
        """Return the histograms by metric and labels, for their latest examples."""
        return {(metric, key): live for metric, spreads in self._spreads.items() for key, live in spreads.items()}

    def bear(self, groups: set[str]) -> None:
        """Show these groups of series as they are from now on: a scrape has seen them at 0."""
        self._saved.born |= groups

    # -- one kind each

    def _added(self, facts: list[Facts], batch: EventBatch) -> None:
        self._count("added", facts)
        for fact in facts:
            if fact.schedule:
                self._spread(DRIFT, "").observe(max(0, batch.ms - fact.slot_ms))

    def _duplicated(self, facts: list[Facts], _: EventBatch) -> None:
        self._count_more("duplicated", facts)

    def _progress(self, facts: list[Facts], _: EventBatch) -> None:
        self._count_more("progress", facts)

    def _active(self, facts: list[Facts], batch: EventBatch) -> None:
        self._count("starts", facts)
        for fact in facts:
            self._observe(WAIT, "", fact, fact.waited_ms, batch.ms)

    def _completed(self, facts: list[Facts], batch: EventBatch) -> None:
        self._count("completed", facts)
        self._ended(facts, "completed", batch.ms)

    def _retrying(self, facts: list[Facts], batch: EventBatch) -> None:
        self._count("retrying", facts)
        for fact in facts:
            self._observe(RUN, "retried", fact, fact.ran_ms, batch.ms)
            self._count_error(fact)

    def _failed(self, facts: list[Facts], batch: EventBatch) -> None:
        self._count("failed", facts)
        self._count("exhausted", [fact for fact in facts if fact.exhausted])
        self._count("stalled", [fact for fact in facts if fact.reason == "stalled"])
        self._ended(facts, "failed", batch.ms)
        for fact in facts:
            self._count_error(fact)

    def _ended(self, facts: list[Facts], outcome: str, ms: int) -> None:
        for fact in facts:
            self._observe(RUN, outcome, fact, fact.ran_ms, ms)
            self._observe(TOTAL, "", fact, fact.total_ms or fact.waited_ms + fact.ran_ms, ms)
            self._observe(ATTEMPTS, "", fact, fact.attempt * 1000, ms)

    def _delayed(self, facts: list[Facts], _: EventBatch) -> None:
        # One that was postponed by its processor gave its run back.
        self._count("released", [fact for fact in facts if fact.previous == "active"])

    def _waiting(self, facts: list[Facts], batch: EventBatch) -> None:
        promoted = [fact for fact in facts if fact.previous == "delayed"]
        self._plain("promoted", len(promoted))
        for fact in promoted:
            self._spread(LATENESS, "").observe(max(0, batch.ms - fact.due_ms))

    def _missed(self, facts: Sequence[Any], _: EventBatch) -> None:
        missed = self._saved.missed
        for fact in facts:
            name = fact.schedule_id
            if name not in missed and len(missed) >= MOST_SCHEDULES:
                name = self._past_cap("scheduler")
            missed[name] = missed.get(name, 0) + fact.count

    def _error(self, facts: Sequence[Any], _: EventBatch) -> None:
        self._plain("worker_errors", len(facts))
        self._plain("leases_lost", sum(fact.type == "LeaseLost" for fact in facts))

    def _obliterated(self, facts: Sequence[Any], _: EventBatch) -> None:
        """Take what the totals of the epoch came to; those of the next one begin at 0."""
        ended = facts[-1].totals
        self._mend({field: n for field, n in ended.items() if field != "busy_ms"})
        self.busy(ended.get("busy_ms", 0))
        self.seq, self._pending = 0, None
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        """Go on from what is counted: the queue's own totals begin at 0."""
        saved = self._saved
        saved.offsets = {kind: counts.copy() for kind, counts in saved.totals.items()}
        saved.busy_offset = saved.busy_ms

    # -- counting

    def _count(self, kind: str, facts: list[Facts]) -> None:
        _add(self._saved.totals, kind, facts, self._name)

    def _count_more(self, kind: str, facts: list[Facts]) -> None:
        _add(self._saved.more, kind, facts, self._name)

    def _count_error(self, fact: Facts) -> None:
        types = self._saved.errors.setdefault(self._name(fact.name), {})
        kind = fact.error.type
        if kind not in self._types:
            if len(self._types) < MOST_TYPES:
                self._types.add(kind)
            else:
                kind = self._past_cap("error_type")
        types[kind] = types.get(kind, 0) + 1

    def _plain(self, what: str, n: int) -> None:
        if n:
            self._saved.plain[what] = self._saved.plain.get(what, 0) + n

    def _name(self, name: str) -> str:
        return name if self._is_listed(name) else self._past_cap("job_name")

    def _is_listed(self, name: str) -> bool:
        """Whether a name stands for itself; one that is new does while there is room."""
        if name not in self._names and len(self._names) < MOST_NAMES and name != OVERFLOW:
            self._names.add(name)
        return name in self._names

    def _past_cap(self, label: str) -> str:
        self._overflowed(label)
        return OVERFLOW

    def _observe(self, metric: str, outcome: str, fact: Facts, value: int, ms: int) -> None:
        """Take a value for the whole queue, and for its job name when asked: either goes on when the other is asked for."""
        self._spread(metric, outcome).observe(value, fact.traceparent, ms)
        if self._by_name:
            self._spread(metric, f"{outcome} {self._name(fact.name)}").observe(value, fact.traceparent, ms)

    def _spread(self, metric: str, key: str) -> LiveSpread:
        spreads = self._spreads.get(metric)
        live = spreads.get(key) if spreads is not None else None
        return live if live is not None else self._adopt(metric, key, None)

    def _adopt(self, metric: str, key: str, spread: Spread | None) -> LiveSpread:
        live = self._spreads.setdefault(metric, {})[key] = LiveSpread(BOUNDS[metric], spread)
        return live

    # -- comparing

    def _compare(self) -> None:
        state = self._pending
        if state is None or self.seq < state.seq:
            return
        self._pending = None
        if self.seq == state.seq:
            if not self._saved.is_based and not self._is_young(state):
                # It had a life before us: what it counted then is no increase.
                self._saved.born |= {"q", *(f"n {field.partition(' ')[2]}" for field in state.totals)}
            self._mend(state.totals)

    def _is_young(self, state: QueueState) -> bool:
        if self._first is None:
            return state.seq == 0
        return self._first[0] == 1 and state.now_ms - self._first[1] < _YOUNG_MS

    def _mend(self, column: dict[str, int]) -> None:
        """Compare kind by kind and name by name; what the queue lists and we do not, with what we count as the rest."""
        self._saved.is_based = True
        counted: dict[str, dict[str, int]] = {}
        for field, n in column.items():
            kind, _, name = field.partition(" ")
            if kind in TOTALS:
                by_name = counted.setdefault(kind, {})
                label = name if self._is_listed(name) else OVERFLOW
                by_name[label] = by_name.get(label, 0) + n
        for kind in {*counted, *self._saved.totals}:
            self._mend_kind(self._saved.totals.setdefault(kind, {}), kind, counted.get(kind, {}))

    def _mend_kind(self, mine: dict[str, int], kind: str, counted: dict[str, int]) -> None:
        offsets = self._saved.offsets.setdefault(kind, {})
        if counted.get(OVERFLOW):
            # Past its cap the queue counts some names as the rest that are listed here: they are taken from the rest.
            apart = [name for name in mine if name not in counted]
            rest = sum(mine[name] - offsets.get(name, 0) for name in apart)
            counted = {**counted, **{name: mine[name] - offsets.get(name, 0) for name in apart}}
            counted[OVERFLOW] = max(0, counted[OVERFLOW] - rest)
        for name in {*mine, *counted}:
            expected = counted.get(name, 0) + offsets.get(name, 0)
            if expected > mine.get(name, 0):
                mine[name] = expected
            elif expected < mine.get(name, 0):
                offsets[name] = mine[name] - counted.get(name, 0)


def _add(counts: dict[str, dict[str, int]], kind: str, facts: list[Facts], listed: Callable[[str], str]) -> None:
    if not facts:
        return
    by_name = counts.setdefault(kind, {})
    for name, n in Counter([fact.name for fact in facts]).items():
        label = listed(name)
        by_name[label] = by_name.get(label, 0) + n


def _parse(queue: str, text: str) -> Saved:
    try:
        return parse_saved(text)
    except ValueError as error:
        log.warning("queue %s: what was saved of its metrics cannot be read (%s): they begin anew", queue, error)
        return Saved()
