"""The independent checker: joins the ledger with what Redis holds at the end and says what became of the promises.

Nothing of eventq is trusted or even called. Faults must be over, workers idle and the queue drained when it is asked.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING

from .ledger import Acknowledged, CountedLost, Died, Ended, Seen, StaleWrite, Started
from .stored import TERMINAL, Happened, Stored, read_stored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import redis

    from .ledger import Ledger, Line

#: Events that end a run without a final outcome, or with one.
_ENDS_OF_RUNS = ("completed", "failed", "retrying", "stalled", "released")
NEVER = 2**63


@dataclass(frozen=True)
class Report:
    """What happened. What holds ids (or says what is wrong about which) must be empty of a sound queue."""

    #: How many jobs were acknowledged to a producer, and how many stored without (its producer died, or wrote no ledger).
    acknowledged: int
    unacknowledged: int
    #: Acknowledged, yet in no state and with neither an outcome nor a removal to show for it.
    lost: tuple[str, ...]
    #: Stored in several states, in none, or in another than it says; or in a state and not stored.
    misplaced: tuple[str, ...]
    #: Not ended, though the queue was drained.
    stuck: tuple[str, ...]
    #: More than one `completed` or `failed` since it was added, or last retried by hand.
    double_outcomes: tuple[str, ...]
    #: Added once more while it was there already.
    added_twice: tuple[str, ...]
    #: Anything happened to it after its outcome or removal, other than being added or retried by hand.
    revived: tuple[str, ...]
    #: Completed, though no run of it that the ledger knows of returned.
    unearned: tuple[str, ...]
    #: Starts or releases in `runs` differ from its events, or its runs do not add up: starts = ends + running.
    miscounted: tuple[str, ...]
    #: Runs beyond one per job; not wrong in itself, at least once is what is promised.
    extra_runs: int
    #: Two runs at the same time. Of a frozen worker's jobs that cannot be helped: then tolerate it.
    overlapping: tuple[str, ...]
    stale_offered: int
    stale_accepted: tuple[str, ...]
    #: Distinct events that durable readers saw, and that they were told are lost to them, over all readers.
    events_seen: int
    counted_lost: int
    #: `reader seq`: neither seen nor counted as lost; counted as lost and seen all the same.
    uncounted: tuple[str, ...]
    overcounted: tuple[str, ...]
    #: Numbers that are missing in the middle of the stream.
    stream_gaps: tuple[int, ...]
    #: Where `totals` and a recount of the stream differ; nothing is recounted from a stream that was trimmed.
    wrong_totals: tuple[str, ...]
    is_recounted: bool
    #: Seconds from the death of a process to the next start of each job it ran, sorted.
    recoveries: tuple[float, ...]

    def recovery(self, share: float) -> float:
        """Return the recovery time that this share of the recoveries did not exceed: 0.99 for p99, 1 for the longest."""
        return percentile(self.recoveries, share)

    def problems(self, *, tolerating: Collection[str] = ()) -> dict[str, tuple[object, ...]]:
        """Return what must be empty and is not."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "recoveries"}
        return {name: value for name, value in values.items() if isinstance(value, tuple) and value and name not in tolerating}

    def assert_sound(self, seed: int | None = None, *, tolerating: Collection[str] = ()) -> None:
        """Fail with the names of what is wrong and of the jobs concerned, and the seed to replay it if there was chance in it."""
        problems = self.problems(tolerating=tolerating)
        told = "; ".join(f"{len(value)} {name}: {_some(value)}" for name, value in problems.items())
        assert not problems, f"{told if seed is None else f'SEED={seed}: {told}'}\n{self}"

    def __str__(self) -> str:
        """One line of figures."""
        figures = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "recoveries"}
        text = ", ".join(f"{name} {len(value) if isinstance(value, tuple) else value}" for name, value in figures.items())
        if self.recoveries:
            text += f", recoveries {len(self.recoveries)}: p50 {self.recovery(0.5):.2f} s, p99 {self.recovery(0.99):.2f} s, "
            text += f"max {self.recovery(1):.2f} s"
        return text


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of the sorted values that this share of them does not exceed; 0 of none."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0


def check(ledger: Ledger, client: redis.Redis, queue: str, *, prefix: str = "eventq", tag: str | None = None) -> Report:
    """Join the ledger with what the queue is now.

    Where the stream is trimmed, a durable reader must have written down what it saw, or jobs that were removed count as lost.
    """
    lines = ledger.lines()
    stored = read_stored(client, queue, prefix=prefix, tag=tag)
    history = _history(stored, lines)
    lives = _lives(history)
    acknowledged = {line.job_id for line in lines if isinstance(line, Acknowledged)}
    deaths = _deaths(lines)
    runs = _runs(lines, deaths)
    earned = {line.job_id for line in lines if isinstance(line, Ended) and line.how == "returned"}
    completed = {job_id for event in history if event.kind == "completed" for job_id in event.job_ids}
    stale = [line for line in lines if isinstance(line, StaleWrite)]
    seen, lost, uncounted, overcounted = _readers(lines, stored)
    seqs = [event.seq for event in stored.events]
    return Report(
        acknowledged=len(acknowledged),
        unacknowledged=len((lives.keys() | stored.states.keys()) - acknowledged),
        lost=_sorted(i for i in acknowledged if not stored.places.get(i) and not (i in lives and lives[i].is_over)),
        misplaced=_sorted(
            job_id
            for job_id in stored.states.keys() | stored.places.keys()
            if stored.places.get(job_id) != [stored.states.get(job_id)]
        ),
        stuck=_sorted(job_id for job_id, state in stored.states.items() if state not in TERMINAL),
        double_outcomes=_sorted(job_id for job_id, life in lives.items() if life.has_two_outcomes),
        added_twice=_sorted(job_id for job_id, life in lives.items() if life.was_added_twice),
        revived=_sorted(job_id for job_id, life in lives.items() if life.was_revived),
        unearned=_sorted((completed & runs.keys()) - earned),
        miscounted=_miscounted(stored) if stored.is_complete else (),
        extra_runs=sum(len(of_job) - 1 for of_job in runs.values()),
        overlapping=_sorted(job_id for job_id, of_job in runs.items() if _overlap(of_job)),
        stale_offered=len(stale),
        stale_accepted=tuple(f"{line.what} {line.job_id}" for line in stale if line.accepted),
        events_seen=seen,
        counted_lost=lost,
        uncounted=uncounted,
        overcounted=overcounted,
        stream_gaps=tuple(sorted(set(range(min(seqs, default=stored.seq + 1), stored.seq + 1)) - set(seqs))),
        wrong_totals=_wrong_totals(stored) if stored.is_complete else (),
        is_recounted=stored.is_complete,
        recoveries=_recoveries(runs, deaths),
    )


# --- what happened to each job ----------------------------------------------------------------------------------------


def _history(stored: Stored, lines: Iterable[Line]) -> list[Happened]:
    """Return every event that is on the stream, and those that readers saw before they were trimmed."""
    first = stored.events[0].seq if stored.events else NEVER
    trimmed = {
        line.seq: Happened(line.seq, line.kind, line.job_ids, {"previous": line.previous})
        for line in lines
        if isinstance(line, Seen) and line.seq < first
    }
    return [trimmed[seq] for seq in sorted(trimmed)] + stored.events


@dataclass
class _Life:
    """One job, event by event."""

    outcomes: int = 0
    is_there: bool = False
    is_over: bool = False
    has_two_outcomes: bool = False
    was_added_twice: bool = False
    was_revived: bool = False

    def goes_on(self, event: Happened) -> None:
        """Take the next event of this job."""
        if event.kind == "added":
            self.was_added_twice |= self.is_there
            self.is_there, self.is_over, self.outcomes = True, False, 0
        elif event.kind == "removed":
            self.is_there, self.is_over = False, True
        elif event.kind == "waiting" and event.facts.get("previous") in TERMINAL:
            self.is_over, self.outcomes = False, 0
        elif event.kind in TERMINAL:
            self.outcomes += 1
            self.has_two_outcomes |= self.outcomes > 1
            self.is_over = True
        elif event.kind != "duplicated":
            self.was_revived |= self.is_over


def _lives(history: Iterable[Happened]) -> dict[str, _Life]:
    lives: dict[str, _Life] = defaultdict(_Life)
    for event in history:
        for job_id in event.job_ids:
            lives[job_id].goes_on(event)
    return lives


def _miscounted(stored: Stored) -> tuple[str, ...]:
    """Recount the runs of every stored job since it was last added."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for event in stored.events:
        for job_id in event.job_ids:
            if event.kind == "added":
                counts[job_id].clear()
            counts[job_id][event.kind] += 1
    wrong: list[str] = []
    for job_id, state in stored.states.items():
        count = counts[job_id]
        ended = sum(count[kind] for kind in _ENDS_OF_RUNS)
        same = stored.counters.get(job_id, (0, 0)) == (count["active"], count["released"])
        if not same or count["active"] != ended + (state == "active"):
            wrong.append(job_id)
    return _sorted(wrong)


def _wrong_totals(stored: Stored) -> tuple[str, ...]:
    """Recount the totals: a name that was not listed when it was added counts under `__other__`."""
    counted: Counter[str] = Counter()
    for event in stored.events:
        kinds = {"active": ["starts"], "failed": ["failed"]}.get(event.kind, [event.kind])
        if event.kind == "failed":
            kinds = kinds + ["exhausted"] * bool(event.facts.get("exhausted"))
            kinds += ["stalled"] * (event.facts.get("reason") == "stalled")
        for kind in kinds:
            if kind in ("added", "starts", "completed", "failed", "exhausted", "retrying", "released", "stalled"):
                name = event.facts.get("name", "")
                counted[f"{kind} {name if f'added {name}' in stored.totals else '__other__'}"] += 1
    return tuple(
        f"{field}: totals {stored.totals.get(field, 0)}, stream {counted[field]}"
        for field in sorted(stored.totals.keys() | counted.keys())
        if stored.totals.get(field, 0) != counted[field]
    )


# --- what ran when ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """One run in the ledger. Without an end it ended with its process; whoever is not known to be dead is still at it."""

    started: Started
    end_ns: int
    how: str


def _deaths(lines: Iterable[Line]) -> dict[int, int]:
    """Return when each process died that is known to be dead: killed comes before found dead."""
    deaths: dict[int, int] = {}
    for line in lines:
        if isinstance(line, Died):
            deaths.setdefault(line.victim, line.ns)
    return deaths


def _runs(lines: Iterable[Line], deaths: dict[int, int]) -> dict[str, list[_Run]]:
    """Return the runs of each job by their start."""
    starts: dict[tuple[int, str, int], list[Started]] = defaultdict(list)
    ends: dict[tuple[int, str, int], list[Ended]] = defaultdict(list)
    for line in lines:
        match line:
            case Started():
                starts[line.pid, line.job_id, line.fence].append(line)
            case Ended():
                ends[line.pid, line.job_id, line.fence].append(line)
            case _:
                continue
    runs: dict[str, list[_Run]] = defaultdict(list)
    for key, of_key in starts.items():
        for index, start in enumerate(of_key):
            end = ends[key][index] if index < len(ends[key]) else None
            end_ns = end.ns if end else max(start.ns, deaths.get(start.pid, NEVER))
            runs[start.job_id].append(_Run(start, end_ns, end.how if end else ""))
    return {job_id: sorted(of_job, key=lambda run: run.started.ns) for job_id, of_job in runs.items()}


def _overlap(runs: Sequence[_Run]) -> bool:
    return any(later.started.ns < max(run.end_ns for run in runs[:at]) for at, later in enumerate(runs) if at)


def _recoveries(runs: dict[str, list[_Run]], deaths: dict[int, int]) -> tuple[float, ...]:
    """Return how long each run that its process took along into death waited to be started again.

    A run that had returned counts too, when its outcome was not recorded any more; one that ended otherwise did not die.
    """
    return tuple(
        sorted(
            (after.started.ns - deaths[before.started.pid]) / 1e9
            for of_job in runs.values()
            for before, after in pairwise(of_job)
            if before.started.pid in deaths
            and after.started.ns > deaths[before.started.pid] >= before.started.ns
            and before.how in ("", "returned")
            and before.started.attempt == after.started.attempt
        )
    )


# --- what readers saw -------------------------------------------------------------------------------------------------


def _readers(lines: Iterable[Line], stored: Stored) -> tuple[int, int, tuple[str, ...], tuple[str, ...]]:
    """Return how many events were seen and counted lost, and for each reader what was neither or both.

    A number that is still on the stream was seen only if what was seen under it is what stands there: after a rollback it may
    be another event.
    """
    seen: dict[str, dict[int, set[tuple[str, tuple[str, ...]]]]] = defaultdict(lambda: defaultdict(set))
    lost: dict[str, set[int]] = defaultdict(set)
    for line in lines:
        match line:
            case Seen():
                seen[line.reader][line.seq].add((line.kind, line.job_ids))
            case CountedLost():
                lost[line.reader].update(range(line.seq + 1, line.seq + 1 + line.count))
            case _:
                continue
    on_stream = {event.seq: (event.kind, event.job_ids) for event in stored.events}
    uncounted, overcounted = [], []
    for reader in sorted(seen.keys() | lost.keys()):
        for seq in range(1, stored.seq + 1):
            was_seen = on_stream[seq] in seen[reader][seq] if seq in on_stream else bool(seen[reader][seq])
            if was_seen and seq in lost[reader]:
                overcounted.append(f"{reader} {seq}")
            elif not was_seen and seq not in lost[reader]:
                uncounted.append(f"{reader} {seq}")
    events_seen = sum(len(events) for of_reader in seen.values() for events in of_reader.values())
    return events_seen, sum(map(len, lost.values())), tuple(uncounted), tuple(overcounted)


def _sorted(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(ids))


def _some(values: Sequence[object], most: int = 5) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more
