"""`eventq job`: everything about one job: what is stored, and what happened to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from eventq.cli.facts import attempts_beyond, error_of, event_document, job_facts, signature_of, unreadable_facts
from eventq.cli.opening import Place, open_queue
from eventq.cli.progress import progress
from eventq.cli.runtime import NotFound, run_async
from eventq.cli.tables import STYLES, Styled, iso, local_time, print_facts, print_json, print_table
from eventq.cli.text import age, counted, plain, shorten
from eventq.cli.timeline import ENTRIES, TIMELINE_COLUMNS, Timeline, read_timeline, stream_size, timeline_rows
from eventq.commands.events import server_time
from eventq.commands.inspect import set_scores
from eventq.commands.read import get_jobs, job_logs
from eventq.ids import schedule_of
from eventq.keys import check_job_id
from eventq.limits import LAST_MS
from eventq.records import StoredJob, UnreadableRecord
from eventq.signing import unsealed
from eventq.spans import creation_of, facts_of
from eventq.states import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventq.cli.tables import Cell
    from eventq.events import Event
    from eventq.queue import Queue

__all__ = ["print_job"]

#: Characters of data, result or error shown to people.
_TEXT: Final = 4000
#: Entries of the stream that are read in no time.
_QUICK: Final = 10 * ENTRIES


@dataclass(frozen=True, slots=True)
class _Found:
    """One job. stored: None for one that was removed and of which events still tell. due_ms: of a delayed one, else 0.

    signature: as of signature_of.
    """

    scope: str
    stored: StoredJob | UnreadableRecord | None
    due_ms: int
    timeline: Timeline
    logs: list[str]
    now_ms: int
    signature: tuple[str | None, str]


def print_job(queue_name: str, job_id: str, place: Place, *, as_json: bool) -> None:
    """Print what is stored of a job, and its timeline. Raises NotFound when neither tells anything of it."""
    found = run_async(lambda: _read(queue_name, job_id, place))
    if as_json:
        print_json(_document(queue_name, job_id, found))
        return
    print_facts(_facts(found.stored, found) if isinstance(found.stored, StoredJob) else _unknown(job_id, found.stored))
    print()
    if found.timeline.events:
        print_table(TIMELINE_COLUMNS, timeline_rows(found.timeline.events))
    print(_how_complete(found.timeline))


async def _read(queue_name: str, job_id: str, place: Place) -> _Found:
    async with open_queue(queue_name, place) as queue:
        [stored] = await queue.context.runner.run(get_jobs(queue.context.keys, [check_job_id(job_id)]))
        added_ms = stored.record.added_ms if isinstance(stored, StoredJob) else 0
        with progress("reading events", await stream_size(queue), per_call=_QUICK) as on_progress:
            timeline = await read_timeline(queue, job_id, added_ms, on_progress)
        if stored is None and not timeline.events:
            raise NotFound(f"job {job_id!r} is not in queue {queue_name!r}, and no event tells of it: never added, or long gone")
        run_verb, keys = queue.context.runner.run_verb, queue.context.keys
        [due_ms] = await run_verb(set_scores(keys, "delayed", [job_id]))
        signature = signature_of(queue.context.signer, stored) if isinstance(stored, StoredJob) else (None, "")
        logs, now_ms = await _logs(queue, job_id), await run_verb(server_time())
        due = int(min(max(due_ms or 0, 0), LAST_MS))
        return _Found(keys.scope, stored, due, timeline, logs, now_ms, signature)


async def _logs(queue: Queue[Any, Any], job_id: str) -> list[str]:
    try:
        return await queue.context.runner.run_verb(job_logs(queue.context.keys, job_id))
    except UnreadableRecord:  # what is damaged keeps nobody from seeing the rest
        return ["the stored log is unreadable"]


def _document(queue_name: str, job_id: str, found: _Found) -> dict[str, Any]:
    timeline = {
        "timeline": [_told(event) for event in found.timeline.events],
        "timeline_complete": found.timeline.complete,
    }
    stored = found.stored
    if stored is None:
        return {"id": job_id, "queue": queue_name, "state": None, **timeline}
    if isinstance(stored, UnreadableRecord):
        return {**unreadable_facts(queue_name, job_id, stored), **timeline}
    run, error = stored.run, error_of(stored)
    return {
        **job_facts(queue_name, stored),
        "ready_at": iso(run.ready_ms or stored.record.added_ms),
        "due": iso(found.due_ms),
        "worker": run.worker if stored.state is JobState.ACTIVE else None,
        "trace_id": _trace_id(found.scope, stored),
        "starts": run.starts,
        "fails": run.fails,
        "stalls": run.stalls,
        "releases": run.releases,
        "options": _options(stored),
        "signature": found.signature[0],
        "data": _decoded(unsealed(stored.record.data)),
        "result": _decoded(stored.result) if stored.state is JobState.COMPLETED else None,
        "error": {"type": error.type, "message": error.message, "traceback": error.traceback} if error else None,
        "progress": _decoded(stored.progress),
        "logs": found.logs,
        **timeline,
    }


def _told(event: Event) -> dict[str, Any]:
    """Return what an event says, without the other jobs that it is about, too."""
    return {name: value for name, value in event_document(event).items() if name != "job_ids"}


def _unknown(job_id: str, error: UnreadableRecord | None) -> list[tuple[str, Cell]]:
    state = Styled(str(error), STYLES["problem"]) if error else "not stored any more; this is what events tell of it"
    return [("job", job_id), ("state", state)]


def _facts(stored: StoredJob, found: _Found) -> Iterator[tuple[str, Cell]]:
    record, run = stored.record, stored.run
    facts = job_facts("", stored)
    yield "job", stored.id
    yield "name", record.name
    yield "state", Styled(stored.state.value, STYLES.get(stored.state.value, ""))
    runs = f"starts {run.starts}, fails {run.fails}, stalls {run.stalls}, releases {run.releases}"
    beyond, most = attempts_beyond(stored), facts["max_attempts"]
    of = f": its {most}, and {beyond} more by hand" if beyond else f" of {most}"
    yield "attempt", f"{facts['attempt']}{of} ({runs})"
    schedule_id, slot_ms = schedule_of(stored.id)
    if schedule_id is not None:
        yield "schedule", f"{schedule_id}, its slot of {local_time(slot_ms)}"
    if record.priority:
        yield "priority", str(record.priority)
    yield from _times(stored, found)
    if run.started_ms and run.worker != "-":
        yield "worker", run.worker
    yield "trace", _trace_id(found.scope, stored)
    if options := _options(stored):
        yield "options", json.dumps(options, ensure_ascii=False)
    signature, why = found.signature
    if signature:
        yield "signature", Styled(f"{signature}: {plain(why)}", STYLES["problem"] if signature == "bad" else "")
    yield "data", _shown(unsealed(record.data))
    yield from _outcome(stored)
    if found.logs:
        yield "logs", "\n".join(found.logs)


def _trace_id(scope: str, stored: StoredJob) -> str:
    """Return the trace that the job was added in, or that a tracer makes for it."""
    record = stored.record
    return f"{creation_of(scope, stored.id, record.added_ms, facts_of(record.trace)).trace_id:032x}"


def _times(stored: StoredJob, found: _Found) -> Iterator[tuple[str, Cell]]:
    run = stored.run
    for what, ms in (("added", stored.record.added_ms), ("started", run.started_ms), ("finished", run.finished_ms)):
        if ms:
            yield what, f"{local_time(ms)}, {age((found.now_ms - ms) / 1000)} ago"
    if found.due_ms:
        late_ms = found.now_ms - found.due_ms
        when = f"{age(late_ms / 1000)} ago" if late_ms > 0 else f"in {age(-late_ms / 1000)}"
        yield "due", f"{local_time(found.due_ms)}, {when}"


def _outcome(stored: StoredJob) -> Iterator[tuple[str, Cell]]:
    if stored.progress:
        yield "progress", _shown(stored.progress)
    if stored.state is JobState.COMPLETED:
        yield "result", _shown(stored.result)
    if error := error_of(stored):
        yield "error", Styled(plain(shorten(f"{error.type}: {error.message}", _TEXT)), "red")
        if error.traceback:
            yield "", error.traceback.rstrip("\n")


def _options(stored: StoredJob) -> dict[str, Any]:
    """Return what the job's options say that is not the default; durations in seconds, as in the API."""
    said: dict[str, Any] = msgspec.to_builtins(stored.record.spec)
    return _in_seconds(said)


def _in_seconds(said: dict[str, Any]) -> dict[str, Any]:
    """Return the same with every `…_ms` in seconds, at every depth."""
    options: dict[str, Any] = {}
    for name, value in said.items():
        if isinstance(value, dict):
            options[name] = _in_seconds(cast("dict[str, Any]", value))
        else:
            options[name.removesuffix("_ms")] = value / 1000 if name.endswith("_ms") else value
    return options


def _decoded(text: str | None) -> Any:
    """Return what stored JSON says; the text itself where it is damaged, None for nothing."""
    if not text:
        return None
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text


def _shown(text: str | None) -> str:
    return shorten(text or "null", _TEXT) + (" (--json shows all of it)" if text and len(text) > _TEXT else "")


def _how_complete(timeline: Timeline) -> str:
    count = len(timeline.events)
    told = counted(count, "event")
    if timeline.complete:
        return f"{told}, from its add on"
    begins = f"begins at {local_time(timeline.begins_ms)}" if timeline.begins_ms else "is empty"
    return f"{told}; the event stream {begins} and no longer reaches back to its add"
