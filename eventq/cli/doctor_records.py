"""Whether what is stored of a queue's jobs fits together: a sample of each column, and the numbers of all.

Columns are read one after the other while jobs move: what looks wrong is looked at again, and counts only if it stayed so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventq.cli.findings import OK, PROBLEM, WARNING, Finding, some
from eventq.cli.text import counted, number
from eventq.commands.inspect import hash_size, hash_values, line_length, line_page, sample_hash, sample_set, set_scores
from eventq.commands.read import count_jobs
from eventq.records import Run, UnreadableRecord, parse_record, parse_run
from eventq.states import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eventq.client import AsyncRunner
    from eventq.keys import QueueKeys

__all__ = ["SAMPLE", "examine_records"]

#: Jobs looked at per column; all of them in a queue that has no more.
SAMPLE: Final = 1000
#: Entries of the line that are read to find a waiting job in it; in a longer one waiting jobs are not looked for.
_LINE: Final = 100_000
_PAGE: Final = 5000
_LOOKS: Final = 3
_SETS: Final = {
    "prioritized": "prioritized",
    "delayed": "delayed",
    "active": "leases",
    "waiting_children": "waiting_children",
    "completed": "completed",
    "failed": "failed",
}
_BESIDE: Final = ("data", "runs", "results", "progress", "logs")


async def examine_records(runner: AsyncRunner, keys: QueueKeys) -> list[Finding]:
    """Examine a sample of the records, and whether as many jobs are stored as stand in states."""
    checks = _Checks(runner, keys)
    findings = [
        *await checks.unreadable_and_stuck(),
        *await checks.without_record(),
        *await checks.left_over(),
        *await checks.totals(),
    ]
    if findings:
        return findings
    stored = await runner.run_verb(hash_size(keys, "jobs"))
    how = "all" if stored <= SAMPLE else f"a sample of {number(SAMPLE)}"
    long = await runner.run_verb(line_length(keys)) > _LINE
    but = f"; not whether waiting ones stand in line, which is longer than {number(_LINE)}" if long else ""
    return [Finding(keys.name, "records", OK, f"{how} of {number(stored)} looked at{but}")]


class _Checks:
    """The checks of one queue."""

    def __init__(self, runner: AsyncRunner, keys: QueueKeys) -> None:
        self._runner = runner
        self._keys = keys

    def _found(self, check: str, level: str, message: str, advice: str = "") -> Finding:
        return Finding(self._keys.name, check, level, message, advice)

    async def unreadable_and_stuck(self) -> list[Finding]:
        """Look for records that cannot be read, and for jobs that stand in no state."""
        ids = await self._runner.run_verb(sample_hash(self._keys, "jobs", SAMPLE))
        unreadable, states = await self._states(ids)
        stuck = await self._not_in_column(states)
        _, again = await self._states(stuck)
        # Still in the same state, and still not in its column.
        stuck = await self._not_in_column({job_id: state for job_id, state in again.items() if states[job_id] == state})
        findings: list[Finding] = []
        if unreadable:
            message = f"{counted(len(unreadable), 'record')} not readable: {some(unreadable)}"
            findings.append(self._found("records", PROBLEM, message, f"`eventq remove {self._keys.name} ID` takes them out"))
        for state in sorted({again[job_id] for job_id in stuck}):
            these = [job_id for job_id in stuck if again[job_id] == state]
            message = f"{counted(len(these), 'job')} said to be {state}, but not standing there: {some(these)}"
            findings.append(self._found("stuck", PROBLEM, message, self._way_out()))
        return findings

    def _way_out(self) -> str:
        """Return what helps: removing by hand would count holes in a line that has none."""
        return f"`eventq doctor {self._keys.name} --repair` mends it"

    async def _states(self, ids: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Return the ids of what is unreadable, and the state that each of the others says it is in."""
        unreadable: list[str] = []
        states: dict[str, str] = {}
        if not ids:
            return unreadable, states
        records = await self._runner.run_verb(hash_values(self._keys, "jobs", ids))
        runs = await self._runner.run_verb(hash_values(self._keys, "runs", ids))
        for job_id, record, run in zip(ids, records, runs, strict=True):
            if record is None:
                continue  # removed meanwhile
            try:
                states[job_id] = _state(record, parse_run(run) if run else None)
            except UnreadableRecord:
                unreadable.append(job_id)
        return unreadable, states

    async def _not_in_column(self, states: Mapping[str, str]) -> list[str]:
        """Return the jobs that do not stand in the column of their state."""
        missing: list[str] = []
        for state, column in _SETS.items():
            ids = [job_id for job_id, each in states.items() if each == state]
            scores = await self._runner.run_verb(set_scores(self._keys, column, ids)) if ids else []
            missing += [job_id for job_id, score in zip(ids, scores, strict=True) if score is None]
        waiting = {job_id for job_id, each in states.items() if each == JobState.WAITING}
        if waiting and await self._runner.run_verb(line_length(self._keys)) <= _LINE:
            missing += sorted(waiting - set(await self._line()))
        return missing

    async def _line(self) -> list[str]:
        line: list[str] = []
        while page := await self._runner.run_verb(line_page(self._keys, len(line), _PAGE)):
            line += page
        return line

    async def without_record(self) -> list[Finding]:
        """Look for jobs that stand in a state and are not stored."""
        findings: list[Finding] = []
        for state, column in _SETS.items():
            ids = await self._runner.run_verb(sample_set(self._keys, column, SAMPLE))
            # One member of leases is no job; it is longer than an id may be.
            lost = await self._not_stored([each for each in ids if not each.startswith("no-job:")])
            lost = [job_id for job_id in lost if await self._is_still_in(column, job_id)]
            if lost:
                message = f"{counted(len(lost), 'job')} standing as {state}, but not stored: {some(lost)}"
                findings.append(
                    self._found(
                        "orphans", PROBLEM, message, f"the server lost writes, or somebody else wrote here: {self._way_out()}"
                    )
                )
        return findings

    async def _is_still_in(self, column: str, job_id: str) -> bool:
        return await self._runner.run_verb(set_scores(self._keys, column, [job_id])) != [None] and bool(
            await self._not_stored([job_id])
        )

    async def left_over(self) -> list[Finding]:
        """Look for what is stored of jobs that are not."""
        findings: list[Finding] = []
        for column in _BESIDE:
            ids = await self._runner.run_verb(sample_hash(self._keys, column, SAMPLE))
            lost = await self._not_stored(ids)
            # What was removed meanwhile is gone from here, too.
            values = await self._runner.run_verb(hash_values(self._keys, column, lost[:10])) if lost else []
            if any(value is not None for value in values):
                message = f"`{column}` holds something of {counted(len(lost), 'job')} not stored: {some(lost)}"
                findings.append(self._found("orphans", WARNING, message, f"it only takes memory: {self._way_out()}"))
        return findings

    async def _not_stored(self, ids: Sequence[str]) -> list[str]:
        if not ids:
            return []
        records = await self._runner.run_verb(hash_values(self._keys, "jobs", ids))
        return [job_id for job_id, record in zip(ids, records, strict=True) if record is None]

    async def _look(self) -> tuple[int, int]:
        stored = await self._runner.run_verb(hash_size(self._keys, "jobs"))
        return stored, sum((await self._runner.run(count_jobs(self._keys))).values())

    async def totals(self) -> list[Finding]:
        """Compare how many jobs are stored with how many stand in a state."""
        looks = [await self._look() for _ in range(_LOOKS)]
        if any(stored == standing for stored, standing in looks) or len(set(looks)) > 1:
            return []  # all is well, or jobs come and go and it says nothing
        stored, standing = looks[0]
        message = f"{counted(stored, 'job')} stored, {number(standing)} standing in a state"
        return [
            self._found("counts", PROBLEM, message, f"the server lost writes, or somebody else wrote here: {self._way_out()}")
        ]


def _state(record: str, run: Run | None) -> str:
    """Return the state a job says it is in. Raises UnreadableRecord."""
    parsed = parse_record(record, "null")
    if run is not None:
        if run.state not in (*_SETS, JobState.WAITING):
            raise UnreadableRecord(f"state {run.state!r}")
        return run.state
    if parsed.due_ms:
        return JobState.DELAYED
    return JobState.PRIORITIZED if parsed.priority else JobState.WAITING
