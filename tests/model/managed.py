"""What must come of managing a queue: the calls of the model that are about jobs by id, about whole states, and about one job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from eventq.states import FINISHED, IN_LINE, JobState

from .model import Model, ModelJob

#: The last job of a set that stays: its place and its id.
Stayed: TypeAlias = tuple[tuple[int, ...], str]
#: How far a walk has come: so many entries of the line stay where they are, or who stayed last in a set. None: it begins.
Cursor: TypeAlias = "int | Stayed | None"
#: How many entries of the line or of a set one call of a walk examines: the machine has the script look at so few.
EXAMINED = 8


class ManagedModel(Model):
    """A queue that is managed as well."""

    #: Where the walk of the latest cleaning goes on; whether it does.
    cursor: Cursor = None
    has_more = False

    def pause(self, _: int, paused: bool) -> bool:
        """Pause or resume; return whether it changed anything."""
        changed, self.paused, self.is_told = self.paused != paused, paused, True
        return changed

    def retry(self, now: int, ids: Sequence[str], state: JobState, *, reset: bool) -> str:
        """Put finished jobs back in line; return a letter for each."""
        verdict = ""
        for job_id in ids:
            job = self.jobs.get(job_id)
            if job is None or job.state is not state:
                verdict += "m" if job is None else "s"
                continue
            verdict += "r"
            job.result, job.finished, job.rule, job.expires, job.ready = "", 0, "", 0, now
            if reset:
                job.fails = job.stalls = 0
            self._line_up([job], at_head=False)
        self.is_told = True
        return verdict

    def promote(self, now: int, ids: Sequence[str]) -> str:
        """Put delayed jobs into line now; return a letter for each."""
        verdict = ""
        for job_id in ids:
            job = self.jobs.get(job_id)
            if job is None or job.state is not JobState.DELAYED:
                verdict += "m" if job is None else "s"
                continue
            verdict += "p"
            self._into_line([job])
            job.ready = now
        self.is_told = True
        return verdict

    def remove(self, _: int, ids: Sequence[str]) -> str:
        """Remove jobs that do not run; return a letter for each. One in the line leaves a hole."""
        verdict = ""
        for job_id in ids:
            job = self.jobs.get(job_id)
            if job is None:
                verdict += "m"
            elif job.state is JobState.ACTIVE:
                verdict += "a"
            else:
                verdict += "d"
                del self.jobs[job_id]
        self.is_told = True
        return verdict

    def obliterate(self, force: bool) -> tuple[str, int]:
        """Return what comes of it, and how many jobs it is about: when the queue is gone, a new one begins."""
        running = len(self.of(JobState.ACTIVE, lambda job: job.id))
        return ("active", running) if running and not force else ("gone", len(self.jobs))

    # -- cleaning

    def clean(self, now: int, state: JobState, cutoff: str, most: int, cursor: Cursor) -> list[str]:
        """Remove jobs that have been in a state since before the cutoff; return them. `cursor`, `has_more`: how it goes on."""
        until = int(cutoff) if int(cutoff) > 0 else now + int(cutoff)
        if state is JobState.WAITING:
            assert cursor is None or isinstance(cursor, int)
            gone = self._clean_line(until, most, cursor or 0)
        elif state in (JobState.PRIORITIZED, JobState.DELAYED):
            assert cursor is None or isinstance(cursor, tuple)
            gone = self._clean_set(state, until, most, cursor)
        else:
            until = min(until, now) if state is JobState.ACTIVE else until
            jobs = self.of(state, lambda job: (job.is_pinned, job.since, job.id))
            gone = [job for job in jobs if job.since <= until][:most]
            self.has_more = len(gone) == most
        self._forget(gone)
        self.is_told = True
        return [job.id for job in gone]

    def _clean_line(self, until: int, most: int, at: int) -> list[ModelJob]:
        """Walk the line from the head; where it has no holes, no further than the first job never moved that was added too late.

        What is removed at the head, holes too, is popped; further back it leaves a hole.
        """
        gone: list[ModelJob] = []
        entries = self.line[at : at + EXAMINED]
        looked = 0
        first_kept: int | None = None if at == 0 else 0
        is_end = len(entries) < EXAMINED
        has_holes = len(self.line) > sum(job.state is JobState.WAITING for job in self.jobs.values())
        for looked, entry in enumerate(entries, 1):
            job = self.jobs.get(entry)
            if job is None or job.state is not JobState.WAITING or job in gone:
                continue
            if job.since > until:
                first_kept = looked - 1 if first_kept is None else first_kept
                if job.is_fresh and not job.lifo and not has_holes:
                    is_end = True
                    break
            elif len(gone) == most:
                looked -= 1  # the next call begins with it
                is_end = False
                break
            else:
                gone.append(job)
        popped = looked if first_kept is None else first_kept
        if at == 0:
            del self.line[:popped]
        else:
            popped = 0
        self.has_more, self.cursor = not is_end, at + looked - popped
        return gone

    def _clean_set(self, state: JobState, until: int, most: int, cursor: Stayed | None) -> list[ModelJob]:
        """Walk a set in its order."""

        def place(job: ModelJob) -> tuple[int, ...]:
            return job.due if state is JobState.DELAYED else (job.rank or ())

        rows = self.of(state, lambda job: (place(job), job.id))
        if cursor:
            # After the last one that stayed, or, where it is gone, on from where it stood.
            stands = any((place(job), job.id) == cursor for job in rows)
            rows = [job for job in rows if ((place(job), job.id) > cursor if stands else place(job) >= cursor[0])]
        rows = rows[:EXAMINED]
        gone: list[ModelJob] = []
        looked = 0
        for job in rows:
            if job.since <= until and len(gone) == most:
                break
            looked += 1
            if job.since <= until:
                gone.append(job)
            else:
                cursor = place(job), job.id
        self.has_more, self.cursor = looked < len(rows) or len(rows) == EXAMINED, cursor
        return gone

    # -- changing one job

    def change_delay(self, now: int, job_id: str, due: int) -> str:
        """Change when a delayed job is due."""
        job = self.jobs.get(job_id)
        if job is None or job.state is not JobState.DELAYED:
            return "m" if job is None else "s"
        others = [other.due[0] for other in self.of(JobState.DELAYED, lambda job: job.due) if other is not job]
        due = max(due, now)
        self.is_due_told = self.is_due_told or not others or due < min(others)
        self._delay(job, due)
        job.is_fresh = False
        return "u"

    def change_priority(self, _: int, job_id: str, priority: int, *, lifo: bool) -> str:
        """Give a job another priority, or the first place among its equals; what stands in line leaves its place for it."""
        job = self.jobs.get(job_id)
        if job is None or job.state in FINISHED:
            return "m" if job is None else "s"
        if job.priority == priority and not lifo:
            return "u"
        rank = None
        if priority and job.state is not JobState.DELAYED:
            rank = self._first_rank(priority) if lifo else self._new_rank(priority)
        job.priority, job.lifo, job.rank = priority, lifo, rank
        if job.state in IN_LINE:
            self._line_up([job], at_head=lifo)
        return "u"

    def _first_rank(self, priority: int) -> tuple[int, int]:
        first = [job.rank for job in self.of(JobState.PRIORITIZED, lambda job: job.place) if job.rank and job.rank[0] == priority]
        return (priority, first[0][1] - 1) if first else self._new_rank(priority)

    def update_data(self, _: int, job_id: str, token: str, data: str) -> str:
        """Replace a job's data: by the run of this token, or by anybody."""
        verdict = self._may(job_id, token)
        if verdict == "u":
            self.jobs[job_id].data = data
        return verdict

    def add_log(self, _: int, job_id: str, token: str, line: str, *, lines: int, size: int) -> str:
        """Add a line to a job's log; the oldest make room, so that at most so many lines and bytes are kept, and the new one."""
        verdict = self._may(job_id, token)
        if verdict == "u":
            job = self.jobs[job_id]
            job.log.append(line)
            job.logged += 1
            while len(job.log) > lines or (len(job.log) > 1 and sum(len(each) + 1 for each in job.log) > size):
                job.log.pop(0)
        return verdict

    def clear_logs(self, _: int, job_id: str, keep: int) -> str:
        """Forget a job's log but for the last lines; without any, also how many there were."""
        job = self.jobs.get(job_id)
        if job is None:
            return "m"
        job.log = job.log[-keep:] if keep else []
        job.logged = job.logged if keep else 0
        return "u"

    def _may(self, job_id: str, token: str) -> str:
        if job_id not in self.jobs:
            return "m"
        return "u" if not token or self.is_live(job_id, token) else "s"
