"""A queue's half of `eventq doctor`: whether somebody works, what waits, who reads, and how large the stream is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eventq.cli.doctor_records import examine_records
from eventq.cli.doctor_repair import examine_all, findings_of
from eventq.cli.findings import OK, PROBLEM, WARNING, Finding
from eventq.cli.text import age, counted, number
from eventq.commands.events import first_entry, server_time
from eventq.commands.inspect import consumers, count_scores, first_of_set, line_length, queue_meta, stream_length
from eventq.commands.read import count_jobs, get_jobs
from eventq.commands.schedules import list_schedules
from eventq.errors import EventqError
from eventq.limits import EVENT_RETENTION, READER_LIVE_MS
from eventq.operations.examining import Examined, examine_types
from eventq.operations.following import number as number_of
from eventq.operations.reading import ids_of
from eventq.records import StoredJob, UnreadableRecord, whole
from eventq.states import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eventq.cli.doctor_repair import Treatment
    from eventq.client import AsyncRunner
    from eventq.commands.events import Entry
    from eventq.commands.schedules import Schedules
    from eventq.keys import QueueKeys

__all__ = ["examine_queue"]

LAYOUT: Final = "1"
#: Every worker and scheduler sweeps once a second; an idle one within its lease.
_SWEEP_LATE_MS: Final = 30_000
#: Leases and due jobs are looked at with every sweep.
_OVERDUE_MS: Final = 15_000
#: A job that waits this long is worth a word.
_WAITS_LONG_MS: Final = 600_000
#: Holes of this number, and as many as there are jobs, are worth a word.
_MANY_HOLES: Final = 10_000
_STREAM_SLACK: Final = 1.25


@dataclass(frozen=True, slots=True)
class QueueState:
    """What the checks look at."""

    name: str
    now_ms: int
    meta: Mapping[str, str]
    counts: Mapping[JobState, int]

    def number(self, field: str) -> int:
        """Return a number of `meta`, 0 where there is none."""
        text = self.meta.get(field, "")
        return (whole(text.removeprefix("-")) or 0) * (-1 if text.startswith("-") else 1)

    @property
    def in_line(self) -> int:
        """Jobs that a worker could take, were the queue not paused."""
        return self.counts[JobState.WAITING] + self.counts[JobState.PAUSED] + self.counts[JobState.PRIORITIZED]

    def found(self, check: str, level: str, message: str, advice: str = "") -> Finding:
        """Return a finding of this queue."""
        return Finding(self.name, check, level, message, advice)


async def examine_queue(runner: AsyncRunner, keys: QueueKeys, treatment: Treatment | None = None) -> list[Finding]:
    """Examine one queue in some sixty calls, each of bounded size. treatment: and every job of it, instead of a sample."""
    try:
        return await _examine(runner, keys, treatment)
    except EventqError:
        if wrong := await runner.perform(examine_types(keys)):
            return findings_of(keys, Examined(wrong_types=wrong), repaired=False)
        raise


async def _examine(runner: AsyncRunner, keys: QueueKeys, treatment: Treatment | None) -> list[Finding]:
    meta = await runner.run_verb(queue_meta(keys))
    if meta.get("layout", LAYOUT) != LAYOUT:
        message = f"the queue has layout {meta['layout']}, this version of eventq knows layout {LAYOUT}"
        return [Finding(keys.name, "layout", PROBLEM, message, "upgrade eventq here, or the programs that wrote it are too new")]
    counts = await runner.run(count_jobs(keys))
    queue = QueueState(keys.name, await runner.run_verb(server_time()), meta, counts)
    findings = [queue.found("layout", OK, f"layout {LAYOUT}, {counted(sum(queue.counts.values()), 'job')}")]
    findings.append(_upkeep(queue))
    findings += [each for each in (await _overdue(runner, keys, queue), await _oldest(runner, keys, queue)) if each]
    if treatment is None:
        # Also where nothing failed: the totals are read by nobody here, but workers cannot do without them.
        wrong = await runner.perform(examine_types(keys))
        found = Examined(wrong_types=wrong)
        findings += findings_of(keys, found, repaired=False) if wrong else await examine_records(runner, keys)
    else:
        found = await examine_all(runner, keys, treatment.away_ms)
        findings += findings_of(keys, found, repaired=treatment.repair)
    findings += _holes(queue, await runner.run_verb(line_length(keys)))
    first = await runner.run_verb(first_entry(keys))
    stored = await runner.run_verb(consumers(keys))
    findings += _readers(queue, stored, first[0] if first else None)
    findings.append(_stream(queue, first[0] if first else None, await runner.run_verb(stream_length(keys))))
    return findings


def _upkeep(queue: QueueState) -> Finding:
    swept_ms, todo = queue.number("swept_at"), queue.in_line + queue.counts[JobState.DELAYED] + queue.counts[JobState.ACTIVE]
    late = queue.now_ms - swept_ms
    if swept_ms and late < _SWEEP_LATE_MS:
        return queue.found("upkeep", OK, f"last {age(late / 1000)} ago")
    message = f"no worker or scheduler seen for {age(late / 1000)}" if swept_ms else "no worker or scheduler was ever seen"
    if not todo:
        return queue.found("upkeep", OK, f"{message}, and nothing to do")
    advice = f"start a worker, or `eventq scheduler {queue.name}` beside workers that come and go"
    return queue.found(
        "upkeep", PROBLEM, f"{message}, and {counted(todo, 'job')} {'is' if todo == 1 else 'are'} to be done", advice
    )


async def _overdue(runner: AsyncRunner, keys: QueueKeys, queue: QueueState) -> Finding | None:
    """Look for what a sweep should have taken care of."""
    lost = await runner.run_verb(count_scores(keys, "leases", "-inf", queue.now_ms - _OVERDUE_MS))
    due = await runner.run_verb(count_scores(keys, "delayed", "-inf", queue.now_ms - _OVERDUE_MS))
    first = await runner.run_verb(first_of_set(keys, "leases" if lost else "delayed"))
    late = age((queue.now_ms - first[1]) / 1000) if first else ""
    advice = f"the worker is gone and nobody looks after the queue: start a worker, or `eventq scheduler {queue.name}`"
    schedules = await runner.run(list_schedules(keys, 0, 1))
    if lost:
        return queue.found("leases", PROBLEM, f"{counted(lost, 'running job')} whose lease ended up to {late} ago", advice)
    if due:
        message = f"{counted(due, 'delayed job')} due up to {late} ago and not in line"
        return queue.found("delayed", PROBLEM, message, f"start a worker, or `eventq scheduler {queue.name}`")
    return _late_schedule(queue, schedules)


def _late_schedule(queue: QueueState, read: Schedules) -> Finding | None:
    """Look at the schedule that runs next."""
    schedule = read.found[0] if read.found else None
    if isinstance(schedule, UnreadableRecord):
        return queue.found("schedules", PROBLEM, str(schedule), "remove it and upsert it again")
    if schedule is None or schedule.standing.next_ms is None or schedule.standing.next_ms > queue.now_ms - _OVERDUE_MS:
        return None
    late = age((queue.now_ms - schedule.standing.next_ms) / 1000)
    message = f"schedule {schedule.id} should have run {late} ago"
    return queue.found("schedules", PROBLEM, message, f"start a worker, or `eventq scheduler {queue.name}`")


async def _oldest(runner: AsyncRunner, keys: QueueKeys, queue: QueueState) -> Finding | None:
    """Look at the head of the line."""
    if not queue.in_line:
        return None
    state = JobState.PRIORITIZED if queue.in_line == queue.counts[JobState.PRIORITIZED] else JobState.WAITING
    ids = await runner.perform(ids_of(keys, state, 0, 1, newest_first=False))
    job = (await runner.run(get_jobs(keys, ids)))[0] if ids else None
    if not isinstance(job, StoredJob):
        return None
    waited = queue.now_ms - (job.run.ready_ms or job.record.added_ms)
    message = f"{counted(queue.in_line, 'job')} in line, the first of them for {age(waited / 1000)}"
    if queue.meta.get("paused") == "1":
        return queue.found(
            "line", WARNING, f"{message}, and the queue is paused", f"`eventq resume {queue.name}` when it may go on"
        )
    if waited > _WAITS_LONG_MS:
        return queue.found("line", WARNING, message, "start more workers, or give them more slots (concurrency)")
    return queue.found("line", OK, message)


def _holes(queue: QueueState, length: int) -> Iterator[Finding]:
    holes = queue.number("holes")
    if not 0 <= holes <= length:
        yield queue.found(
            "holes", PROBLEM, f"meta says {holes} holes where `wait` has {length} entries: counts of waiting jobs are wrong"
        )
    elif holes > _MANY_HOLES and holes > length // 2:
        message = f"{number(holes)} of {number(length)} entries of the line belong to removed jobs"
        yield queue.found(
            "holes", WARNING, message, "they go as workers come to them; listing the waiting jobs is slow until then"
        )


def _readers(queue: QueueState, stored: Mapping[str, str], first: Entry | None) -> Iterator[Finding]:
    for name, text in sorted(stored.items()):
        parts = text.split(" ", 6)
        if len(parts) < 6 or any(whole(parts[at]) is None for at in (1, 2, 5)):
            advice = "it begins at the oldest event when it comes back"
            yield queue.found("reader", PROBLEM, f"{name}: its position is unreadable", advice)
            continue
        ends_ms, saved_ms, seq = int(parts[1]), int(parts[2]), int(parts[5])
        behind = max(0, queue.number("seq") - seq)
        idle = queue.now_ms - saved_ms
        lost = max(0, _field(first, "seq") - 1 - seq) if first and seq else 0
        seen = "held now" if ends_ms > queue.now_ms else f"seen {age(idle / 1000)} ago"
        who = f"{name}: {counted(behind, 'event')} behind, {seen}"
        if lost:
            yield queue.found(
                "reader", WARNING, f"{who}; {number(lost)} of them are trimmed", "it will be told so when it comes back"
            )
        elif behind and ends_ms <= queue.now_ms and idle > READER_LIVE_MS:
            message = f"{who}; it no longer holds back trimming"
            yield queue.found("reader", WARNING, message, "start it again, or give the name up if nobody needs it any more")
        else:
            yield queue.found("reader", OK, who)


def _stream(queue: QueueState, first: Entry | None, entries: int) -> Finding:
    if first is None:
        return queue.found("events", OK, "the stream is empty")
    most_events, most_bytes, _, hard_bytes = EVENT_RETENTION
    events = queue.number("seq") - _field(first, "seq") + 1
    size = queue.number("event_bytes") - _field(first, "bytes")
    message = f"{counted(events, 'event')} in {number(entries)} {'entry' if entries == 1 else 'entries'}, {size / 2**20:.1f} MiB"
    kept = f"kept are {number(most_events)} and {most_bytes / 2**20:.0f} MiB"
    if events < 1 or size < 0:
        return queue.found("events", PROBLEM, f"{message}: the stream is not as meta says, as after a failover that lost writes")
    if events > most_events * _STREAM_SLACK or size > most_bytes * _STREAM_SLACK:
        advice = f"a live durable reader that is behind holds it back up to {hard_bytes / 2**20:.0f} MiB; else start a worker"
        return queue.found("events", WARNING, f"{message}; {kept}", advice)
    return queue.found("events", OK, f"{message}; {kept}")


def _field(entry: Entry | None, name: str) -> int:
    return (number_of(entry, name) or 0) if entry else 0
