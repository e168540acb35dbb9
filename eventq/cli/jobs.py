"""`eventq jobs`: a page of a queue's jobs, by state and name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from eventq.cli.facts import attempts_beyond, error_of, job_facts, signature_of, unreadable_facts
from eventq.cli.opening import Place, open_queue
from eventq.cli.runtime import run_async, say
from eventq.cli.tables import STYLES, Column, Styled, local_time, print_json_line, print_table
from eventq.cli.text import age, number, shorten
from eventq.commands.events import server_time
from eventq.commands.read import count_jobs, get_jobs, is_paused
from eventq.ids import schedule_of
from eventq.operations.reading import ids_of
from eventq.records import StoredJob, UnreadableRecord
from eventq.states import JobState

if TYPE_CHECKING:
    from eventq.cli.tables import Cell
    from eventq.queue import Queue
    from eventq.signing import Signer

__all__ = ["JobsWanted", "print_jobs"]

#: Without --state: what is still to do first, then what was done.
_ALL: Final = (
    JobState.ACTIVE,
    JobState.WAITING,
    JobState.PAUSED,
    JobState.PRIORITIZED,
    JobState.DELAYED,
    JobState.WAITING_CHILDREN,
    JobState.FAILED,
    JobState.COMPLETED,
)
_COLUMNS: Final = (
    Column("id"),
    Column("name"),
    Column("state"),
    Column("attempt", right=True),
    Column("age", right=True),
    Column("error", cut=True),
)
#: Characters of an error in a table.
_ERROR: Final = 300
#: Jobs of one state that a --name looks through.
LOOKED_AT: Final = 10_000
#: Jobs per call: their data comes along, up to 256 KiB of each.
_PAGE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsWanted:
    """What to list. No states: all. start, limit: of each state; with a name, start is where to begin to look."""

    states: tuple[JobState, ...] = ()
    name: str | None = None
    start: int = 0
    limit: int = 25
    oldest_first: bool = False


def print_jobs(queue_name: str, place: Place, wanted: JobsWanted, *, as_json: bool) -> None:
    """Print a page of jobs per state, and what became of a search that ended early."""
    found, now_ms, notes, signer = run_async(lambda: _read(queue_name, place, wanted))
    if as_json:
        for job in found:
            print_json_line(_document(queue_name, job, signer))
    elif found:
        _print_table(found, now_ms, signer)
    else:
        say(f"queue {queue_name}: no such jobs")
    for note in notes:
        say(note)


_Found = StoredJob | tuple[str, UnreadableRecord]


def _document(queue_name: str, job: _Found, signer: Signer | None) -> dict[str, Any]:
    if not isinstance(job, StoredJob):
        return unreadable_facts(queue_name, *job)
    return {**job_facts(queue_name, job), "signature": signature_of(signer, job)[0]}


async def _read(name: str, place: Place, wanted: JobsWanted) -> tuple[list[_Found], int, list[str], Signer | None]:
    found: list[_Found] = []
    notes: list[str] = []
    async with open_queue(name, place) as queue:
        runner, keys = queue.context.runner, queue.context.keys
        paused = await runner.run_verb(is_paused(keys))
        counts = await runner.run(count_jobs(keys))
        for state in wanted.states or _ALL:
            if state is (JobState.WAITING if paused else JobState.PAUSED) or not counts[state]:
                continue
            at, page = wanted.start, await _search(queue, state, wanted)
            found += page.jobs
            if page.next < counts[state]:
                where = (
                    f"{number(at + 1)} to {number(page.next)}" if wanted.name is None else f"searched up to {number(page.next)}"
                )
                notes.append(f"{state}: {where} of {number(counts[state])}; the next begin at --start {page.next}")
        return found, await runner.run_verb(server_time()), notes, queue.context.signer


@dataclass(slots=True)
class _Page:
    jobs: list[_Found]
    next: int


async def _search(queue: Queue[Any, Any], state: JobState, wanted: JobsWanted) -> _Page:
    """Return up to `limit` jobs of a state, and where the next begin."""
    at, end = wanted.start, wanted.start + (LOOKED_AT if wanted.name is not None else wanted.limit)
    found: list[_Found] = []
    while at < end:
        size = min(_PAGE, end - at)
        listed = JobState.WAITING if state is JobState.PAUSED else state
        steps = ids_of(queue.context.keys, listed, at, size, newest_first=not wanted.oldest_first)
        ids = await queue.context.runner.perform(steps)
        read = await queue.context.runner.run(get_jobs(queue.context.keys, ids)) if ids else []
        for index, job in enumerate(read):
            if job is not None and (wanted.name is None or (isinstance(job, StoredJob) and job.record.name == wanted.name)):
                found.append(job if isinstance(job, StoredJob) else (ids[index], job))
                if len(found) == wanted.limit:
                    return _Page(found, at + index + 1)
        at += len(ids)
        if len(ids) < size:
            break
    return _Page(found, at)


def _print_table(found: list[_Found], now_ms: int, signer: Signer | None) -> None:
    """Print the jobs; with their slots where a schedule made any of them, with their signatures where there are keys."""
    slots = [schedule_of(job.id if isinstance(job, StoredJob) else job[0])[1] for job in found]
    columns: tuple[Column, ...] = _COLUMNS
    rows = [_row(job, now_ms) for job in found]
    at = len(_COLUMNS) - 2  # before age
    if any(slots):
        columns = (*columns[:at], Column("slot"), *columns[at:])
        shown = [local_time(slot_ms) if slot_ms else "" for slot_ms in slots]
        rows = [[*row[:at], slot, *row[at:]] for row, slot in zip(rows, shown, strict=True)]
    if signer is not None:
        columns = (*columns[:at], Column("signature"), *columns[at:])
        rows = [[*row[:at], _signature(signer, job), *row[at:]] for row, job in zip(rows, found, strict=True)]
    print_table(columns, rows)


def _signature(signer: Signer, job: _Found) -> Cell:
    state = signature_of(signer, job)[0] if isinstance(job, StoredJob) else None
    return Styled(state or "", STYLES["problem"] if state == "bad" else "")


def _row(job: _Found, now_ms: int) -> list[Cell]:
    if not isinstance(job, StoredJob):
        return [job[0], "?", Styled("unreadable", "bold red"), "", "", shorten(str(job[1]), _ERROR)]
    facts = job_facts("", job)
    error, beyond = error_of(job), attempts_beyond(job)
    return [
        job.id,
        job.record.name,
        Styled(job.state.value, STYLES.get(job.state.value, "")),
        f"{facts['max_attempts']}+{beyond}" if beyond else f"{facts['attempt']}/{facts['max_attempts']}",
        age((now_ms - job.record.added_ms) / 1000),
        shorten(f"{error.type}: {error.message}", _ERROR) if error else "",
    ]
