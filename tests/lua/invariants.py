"""What must be true of a queue after any sequence of calls, checked from everything that is stored and every event."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from eventq.commands.read import count_jobs, get_jobs
from eventq.events import (
    ActiveEvent,
    AddedEvent,
    CompletedEvent,
    DelayedEvent,
    Event,
    FailedEvent,
    JobEvent,
    ReleasedEvent,
    RemovedEvent,
    RetryingEvent,
    StalledEvent,
    parse_entry,
)
from eventq.limits import BATCH_JOBS
from eventq.records import StoredJob
from eventq.states import TRANSITIONS, JobState

from .lab import NO_LEASE

if TYPE_CHECKING:
    from .lab import Lab

ENTRY_BYTES = 32 * 1024
#: State -> the sorted set it is kept in.
STATE_SETS = {
    JobState.PRIORITIZED: "prioritized",
    JobState.DELAYED: "delayed",
    JobState.ACTIVE: "leases",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
}
#: Kinds that end in a state of the same name; the others of a job say it in `state`.
_NAMED_AFTER = {
    "active": JobState.ACTIVE,
    "progress": JobState.ACTIVE,
    "completed": JobState.COMPLETED,
    "failed": JobState.FAILED,
}


def check_queue(lab: Lab) -> None:
    """Check everything. Where the stream was trimmed, what is recounted from events is left out."""
    stored = lab.dump()
    if "jobs" not in stored and "events" not in stored:
        return
    if "meta" not in stored:
        # What an obliterated queue leaves behind.
        assert set(stored) <= {"events", "consumers"} and [fields["kind"] for fields in stored["events"].values()] == [
            "obliterated"
        ]
        return
    jobs = _jobs(lab, stored)
    check_columns(stored, jobs, lab.call(count_jobs(lab.keys)))
    events = check_stream(lab, stored)
    if events and events[0].seq == 1:
        check_history(events, jobs)
        check_totals(events, stored, jobs)


def _jobs(lab: Lab, stored: dict[str, Any]) -> dict[str, StoredJob]:
    ids = list(stored.get("jobs", {}))
    found = [
        job
        for at in range(0, len(ids), 500)
        for job in lab.call(get_jobs(lab.keys, ids[at : at + 500]))
        if isinstance(job, StoredJob)
    ]
    return {job.id: job for job in found}


def _state(job: StoredJob) -> JobState:
    return JobState.WAITING if job.state is JobState.PAUSED else job.state


def check_columns(stored: dict[str, Any], jobs: dict[str, StoredJob], told: dict[JobState, int]) -> None:
    """Each job is in exactly one state column, nothing is stored of a job that is not there, holes and what is told are right."""
    states = {job_id: _state(job) for job_id, job in jobs.items()}
    places: dict[str, list[JobState]] = defaultdict(list)
    for state, column in STATE_SETS.items():
        for member in stored.get(column, {}):
            if member != NO_LEASE:
                places[member].append(state)
    in_wait = set(stored.get("wait", []))
    for job_id, state in states.items():
        if state is JobState.WAITING:
            places[job_id] += [JobState.WAITING] if job_id in in_wait else []
        assert places[job_id] == [state], f"{job_id} says {state} and stands in {places[job_id]}"
    assert places.keys() == states.keys(), "a state column names a job that is not stored"
    for column in ("data", "runs", "results", "progress", "logs"):
        assert stored.get(column, {}).keys() <= states.keys(), f"{column} holds something of a job that is not stored"
    for job_id, job in jobs.items():
        assert (job.run.token != "-") == (states[job_id] is JobState.ACTIVE), f"{job_id}: {job.run}"

    listed = {name: text.split("\t")[1] for name, text in stored.get("schedules", {}).items()}
    slots = {name: "-" if score == math.inf else f"{score:.0f}" for name, score in stored.get("slots", {}).items()}
    assert slots == listed, "schedules and their next slots"

    tally = Counter(states.values())
    holes = int(stored["meta"].get("holes", 0))
    assert len(stored.get("wait", [])) - tally[JobState.WAITING] == holes
    counts = dict(told)
    counts[JobState.WAITING] += counts.pop(JobState.PAUSED)
    assert {state: n for state, n in counts.items() if n} == dict(tally)


def check_stream(lab: Lab, stored: dict[str, Any]) -> list[Event]:
    """Entries are of bounded size, numbered without gaps, and their running total of bytes is right. Returns the events."""
    events: list[Event] = []
    total = 0
    entries = list(stored.get("events", {}).values())
    ends = [index for index, fields in enumerate(entries) if fields["kind"] == "obliterated"]
    for fields in entries[ends[-1] + 1 if ends else 0 :]:
        assert set(fields) == {"kind", "seq", "n", "ms", "bytes", "events"}
        parsed = parse_entry(lab.keys.name, fields)
        assert 1 <= len(parsed) <= BATCH_JOBS
        assert {event.kind for event in parsed} == {fields["kind"]}, "an event of a kind that is not in the catalogue"
        size = len(fields["events"].encode())
        assert size <= ENTRY_BYTES + 2 or len(parsed) == 1
        assert parsed[0].seq == (events[-1].seq + 1 if events else parsed[0].seq), "a gap in seq"
        total = total + size if events or parsed[0].seq == 1 else int(fields["bytes"])
        assert int(fields["bytes"]) == total
        events += parsed
    if events:
        assert (events[-1].seq, total) == (int(stored["meta"]["seq"]), int(stored["meta"]["event_bytes"]))
    return events


def check_history(events: list[Event], jobs: dict[str, StoredJob]) -> None:
    """Every move is one of the transition table, the last one ends where the job stands, and its runs add up."""
    at: dict[str, JobState] = {}
    runs: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        for job_id, after in _moves(event):
            before = at.get(job_id)
            assert after in TRANSITIONS.get((before, event.kind), ()), f"{job_id}: {before} -> {event.kind} -> {after}"
            if after is None:
                del at[job_id]
                del runs[job_id]
            else:
                at[job_id] = after
                runs[job_id][_run_kind(event)] += 1
    assert at == {job_id: _state(job) for job_id, job in jobs.items()}
    for job_id, job in jobs.items():
        seen, running = runs[job_id], job.state is JobState.ACTIVE
        ended = seen["completed"] + seen["failed"] + seen["retrying"] + seen["stalled"] + seen["released"]
        assert seen["active"] == ended + running, f"{job_id}: {seen}"
        assert (job.run.starts, job.run.releases) == (seen["active"], seen["released"])


def _moves(event: Event) -> list[tuple[str, JobState | None]]:
    """Return the jobs an event moves, and where to."""
    if isinstance(event, RemovedEvent):
        return [(job_id, None) for job_id in event.job_ids]
    if not isinstance(event, JobEvent) or event.kind == "duplicated":
        return []
    after = _NAMED_AFTER.get(event.kind) or JobState(getattr(event, "state", ""))
    return [(event.job_id, after)]


def _run_kind(event: Event) -> str:
    """Return what an event says of a run: a job failed by its stalls was stalled once more, one postponed is released."""
    if isinstance(event, DelayedEvent) and event.previous == JobState.ACTIVE:
        return "released"
    return "stalled" if isinstance(event, FailedEvent) and event.reason == "stalled" else event.kind


def check_totals(events: list[Event], stored: dict[str, Any], jobs: dict[str, StoredJob]) -> None:
    """Totals are what a recount of the events says, and starts are what became of them plus what runs."""
    totals = {field: int(n) for field, n in stored.get("totals", {}).items()}
    counted: Counter[str] = Counter()
    for event in events:
        for kind in _total_kinds(event):
            name = event.name if isinstance(event, JobEvent) else ""
            counted[f"{kind} {name if f'added {name}' in totals else '__other__'}"] += 1
    assert totals == dict(counted)
    names = {field.partition(" ")[2] for field in totals if field.startswith("added ")} - {"__other__"}
    assert len(names) <= 100
    by_kind: Counter[str] = Counter()
    for field, n in totals.items():
        by_kind[field.partition(" ")[0]] += n
    running = sum(job.state is JobState.ACTIVE for job in jobs.values())
    by_stalls = sum(isinstance(event, FailedEvent) and event.reason == "stalled" for event in events)
    ended = by_kind["completed"] + by_kind["retrying"] + by_kind["failed"] - by_stalls + by_kind["stalled"] + by_kind["released"]
    assert by_kind["starts"] == ended + running


def _total_kinds(event: Event) -> list[str]:
    if isinstance(event, FailedEvent):
        return ["failed", *["exhausted"][: event.exhausted], *["stalled"][: event.reason == "stalled"]]
    if isinstance(event, ActiveEvent):
        return ["starts"]
    if isinstance(event, DelayedEvent):
        return ["released"][: event.previous == JobState.ACTIVE]
    return [event.kind] if isinstance(event, AddedEvent | CompletedEvent | RetryingEvent | ReleasedEvent | StalledEvent) else []
