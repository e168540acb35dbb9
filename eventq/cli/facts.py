"""What is said of a job and of an event: one set of names, those of the Python API, for tables and for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from eventq.cli.tables import iso, local_time
from eventq.errors import BadSignature
from eventq.events import ActiveEvent, CompletedEvent, FailedEvent, JobEvent, UnknownEvent
from eventq.ids import schedule_of
from eventq.job import stored_error
from eventq.records import JobErrorInfo, UnreadableRecord
from eventq.signing import key_of
from eventq.states import JobState

if TYPE_CHECKING:
    from eventq.events import Event
    from eventq.records import StoredJob
    from eventq.signing import Signer

__all__ = [
    "attempts_beyond",
    "error_of",
    "event_document",
    "event_facts",
    "event_facts_for_people",
    "job_facts",
    "signature_of",
    "unreadable_facts",
]

_MS: Final = "_ms"
_TIMES: Final = frozenset({"due_ms", "slot_ms", "first_ms", "last_ms"})


def job_facts(queue: str, stored: StoredJob) -> dict[str, Any]:
    """Return what a listing says of a job: no data, no result. Times in UTC, None for what is not (yet)."""
    record, run = stored.record, stored.run
    attempt = max(1, run.fails) if stored.state is JobState.FAILED else run.fails + 1
    error = error_of(stored)
    schedule_id, slot_ms = schedule_of(stored.id)
    return {
        "id": stored.id,
        "queue": queue,
        "name": record.name,
        "state": stored.state.value,
        "attempt": attempt,
        "max_attempts": record.spec.attempts,
        "priority": record.priority,
        "schedule_id": schedule_id,
        "slot": iso(slot_ms),
        "added_at": iso(record.added_ms),
        "started_at": iso(run.started_ms),
        "finished_at": iso(run.finished_ms),
        "error": {"type": error.type, "message": error.message} if error else None,
    }


def signature_of(signer: Signer | None, stored: StoredJob) -> tuple[str | None, str]:
    """Return what is known of a job's signature, and why: good, bad, unchecked (no keys here), None (no keys, not signed)."""
    key_id = key_of(stored.record.data)
    if signer is None:
        return ("unchecked", f"by key {key_id}; there are no signing keys here") if key_id else (None, "")
    try:
        signer.open_job(stored.id, stored.record)
    except BadSignature as error:
        return "bad", str(error)
    return "good", f"by key {key_id}"


def attempts_beyond(stored: StoredJob) -> int:
    """Return how many attempts retries by hand gave the job beyond those of its options."""
    facts = job_facts("", stored)
    return max(0, int(facts["attempt"]) - stored.record.spec.attempts)


def unreadable_facts(queue: str, job_id: str, error: UnreadableRecord) -> dict[str, Any]:
    """Return what can be said of a record that cannot be read: the same names, and why."""
    names = (
        "name",
        "state",
        "attempt",
        "max_attempts",
        "priority",
        "schedule_id",
        "slot",
        "added_at",
        "started_at",
        "finished_at",
    )
    said = {"type": type(error).__name__, "message": str(error)}
    return {"id": job_id, "queue": queue, **dict.fromkeys(names), "error": said}


def error_of(stored: StoredJob) -> JobErrorInfo | None:
    """Return why the last attempt failed, None for a job that has not failed, or whose result stands in its place."""
    if stored.state is JobState.COMPLETED or stored.result is None:
        return None
    return stored_error(stored.result)


def event_document(event: Event) -> dict[str, Any]:
    """Return everything an event says, as JSON has it: kind, queue, seq, time, then its facts; durations in seconds."""
    return {"kind": event.kind, "queue": event.queue, "seq": event.seq, "time": iso(event.ms), **event_facts(event)}


def event_facts(event: Event) -> dict[str, Any]:
    """Return what the event says besides queue, seq and time, in its own order, in the units of the API."""
    if isinstance(event, UnknownEvent):
        return {"name": event.name, **event.facts}
    facts: dict[str, Any] = {}
    if isinstance(event, JobEvent):
        facts |= {"job_id": event.job_id, "name": event.name, "attempt": event.attempt}
    for name, value in msgspec.structs.asdict(event).items():
        if name in ("queue", "seq", "ms") or name in facts or (name == "ran_ms" and isinstance(event, ActiveEvent)):
            continue
        if name == "added_ms" and isinstance(event, ActiveEvent):
            facts["added"] = iso(value or event.ms - event.waited_ms)
        elif name == "total_ms":
            facts["total"] = event.total if isinstance(event, CompletedEvent | FailedEvent) else value / 1000
        elif name in _TIMES:
            facts[name.removesuffix(_MS)] = iso(value)
        elif name.endswith(_MS):
            facts[name.removesuffix(_MS)] = value / 1000
        elif isinstance(value, JobErrorInfo):
            facts[name] = {"type": value.type, "message": value.message}
        else:
            facts[name] = value
    return facts


def event_facts_for_people(event: Event) -> dict[str, Any]:
    """Return the same as people read it: when a job is due as seconds from the event, other times in their zone."""
    facts = event_facts(event)
    for name in _TIMES:
        if ms := getattr(event, name, 0):
            is_due = name == "due_ms"
            facts[name.removesuffix(_MS)] = f"{(ms - event.ms) / 1000:+.3f}" if is_due else local_time(ms)
    return facts
