"""What a queue is meant to be, as a small Python value: told a call and the time it ran at, it says what must come of it.

No Redis, no Lua, no columns: jobs, a line, ranks and tokens. It is compared with the server after every call. Here: adding,
running, upkeep; managing is in managed.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eventq.states import FINISHED, JobState

if TYPE_CHECKING:
    from eventq.commands.add import NewRecord
    from eventq.commands.work import Held, Outcome, ProgressUpdate, Retention

CALL_KEPT_MS = 86_400_000
#: How many entries of the line, and how many prioritized jobs, one claim examines; how many it passed over stay at the head.
EXAMINED, KEPT_AT_HEAD = 500, 100
#: The counter of places begins here, so that there is room before the first one.
FIRST_PLACE = 1 << 20
STALLED = '{"type":"Stalled","message":"the worker stopped renewing its lease"}'


@dataclass(slots=True)
class ModelJob:
    """One job.

    rank: its place among prioritized jobs, kept for good once it has one, unless its priority is changed. rule: by which it is
    kept, once finished. ready: since when it may run (ms). lined_at: when it came into line. is_fresh: it was never moved.
    """

    id: str
    priority: int
    lifo: bool
    added: int
    data: str
    state: JobState = JobState.WAITING
    token: str = "-"
    lease_ends: int = 0
    ready: int = 0
    lined_at: int = 0
    is_fresh: bool = True
    due: tuple[int, int] = (0, 0)
    rank: tuple[int, int] | None = None
    starts: int = 0
    fails: int = 0
    stalls: int = 0
    releases: int = 0
    finished: int = 0
    rule: str = ""
    expires: int = 0
    result: str = ""
    progress: str = ""
    #: The lines that are kept, and how many there ever were.
    log: list[str] = field(default_factory=list)
    logged: int = 0

    @property
    def counters(self) -> tuple[int, int, int, int]:
        """Starts, fails, stalls, releases."""
        return self.starts, self.fails, self.stalls, self.releases

    @property
    def is_pinned(self) -> bool:
        """Whether only its own age, or nothing, ends it."""
        return self.rule == "forever" or self.rule.startswith("age:")

    @property
    def since(self) -> int:
        """Since when it counts as being in its state, for cleaning: a delayed job since it was added."""
        if self.state in FINISHED:
            return self.finished
        if self.state is JobState.ACTIVE:
            return self.lease_ends
        return self.added if self.state is JobState.DELAYED else self.ready

    @property
    def place(self) -> tuple[tuple[int, int], str]:
        """Where it stands among prioritized jobs."""
        assert self.rank
        return self.rank, self.id


class Model:
    """A queue. Every method is one call at one time; it returns what the server must answer."""

    def __init__(self, retention: Retention) -> None:
        self.retention = retention
        self.jobs: dict[str, ModelJob] = {}
        #: Entries of the line in order; one whose job is not waiting is a hole.
        self.line: list[str] = []
        self.paused = False
        #: When the latest call ran.
        self.now = 0
        #: Whether idle workers would be woken for what is in line, and whether they must know of a job due before all others.
        self.is_told = True
        self.is_due_told = False
        #: Entries that the latest claim passed over.
        self.passed_over: list[str] = []
        #: Writer -> number and time of its last call.
        self.calls: dict[str, tuple[int, int]] = {}
        self._order = 0
        self._places = FIRST_PLACE
        self._swept_at = 0
        self._late_sweeps = 0
        self._short_grace_at = 0
        self._aged_at = 0

    def is_live(self, job_id: str, token: str) -> bool:
        """Whether this token may still write."""
        job = self.jobs.get(job_id)
        return job is not None and job.state is JobState.ACTIVE and job.token == token

    def of(self, state: JobState, key: Callable[[ModelJob], object]) -> list[ModelJob]:
        """Return the jobs of a state in this order."""
        return sorted((job for job in self.jobs.values() if job.state is state), key=key)  # type: ignore[arg-type]

    # -- adding

    def add(self, now: int, records: Sequence[NewRecord]) -> list[int]:
        """Store what is not there yet; return the indexes of the others."""
        existing: list[int] = []
        tail: list[ModelJob] = []
        earliest = self.next_due(now)
        for index, record in enumerate(records):
            if record.id in self.jobs:
                existing.append(index)
                continue
            job = ModelJob(record.id, record.options.priority, "l" in record.options.flags, now, record.data, ready=now)
            self.jobs[job.id] = job
            delay = int(record.place.removeprefix("+") or 0)
            if delay:
                self.is_due_told = self.is_due_told or earliest is None or delay < earliest
                self._delay(job, now + delay)
            elif job.priority:
                self._rank(job)
            elif job.lifo:
                self._line_up([job], at_head=True)
            else:
                tail.append(job)
        self._line_up(tail, at_head=False)
        return existing

    # -- running

    def work(
        self,
        now: int,
        wanted: int,
        tokens: str,
        lease: int,
        *,
        progress: Sequence[ProgressUpdate] = (),
        outcomes: Sequence[Outcome] = (),
        max_stalls: int = 0,
        may_risk: bool = True,
    ) -> tuple[list[int], list[tuple[str, str]], int | None]:
        """Settle and claim: refused indexes, (id, token) of the claimed in order, ms until the next delayed job is due."""
        for update in progress:
            if self.is_live(update.job_id, update.token):
                self.jobs[update.job_id].progress = update.value
        stale = self._settle(now, outcomes)
        self._promote(now)
        claimed, self.passed_over = self._claim(wanted, max_stalls, may_risk) if not self.paused else ([], [])
        # Who settles did not become idle by it; who passed over all there was would only wake itself again.
        if not outcomes and (claimed or not self.passed_over):
            self.is_told = True
        for index, job in enumerate(claimed):
            job.state, job.token, job.lease_ends, job.starts = JobState.ACTIVE, f"{tokens}{index}", now + lease, job.starts + 1
            job.is_fresh = False
        return stale, [(job.id, job.token) for job in claimed], self.next_due(now)

    def next_due(self, now: int) -> int | None:
        """Return the ms until the next delayed job is due."""
        delayed = self.of(JobState.DELAYED, lambda job: job.due)
        return max(0, delayed[0].due[0] - now) if delayed else None

    def _claim(self, wanted: int, max_stalls: int, may_risk: bool) -> tuple[list[ModelJob], list[str]]:
        """Return who is claimed, in order, and who is passed over: all on their last chance but the first, it too unless may_risk."""
        picked: dict[str, ModelJob] = {}
        passed_over: list[str] = []

        def meet(job: ModelJob) -> None:
            nonlocal may_risk
            is_last_chance = 0 < max_stalls <= job.stalls
            if is_last_chance and not may_risk:
                passed_over.append(job.id)
            else:
                picked[job.id] = job
                may_risk = may_risk and not is_last_chance

        looked = 0
        for entry in self.line[:EXAMINED]:
            if len(picked) == wanted:
                break
            looked += 1
            job = self.jobs.get(entry)
            if job is not None and job.state is JobState.WAITING and entry not in picked:
                meet(job)
        self.line[:looked] = passed_over[:KEPT_AT_HEAD]
        self.line += passed_over[KEPT_AT_HEAD:]
        ranked = self.of(JobState.PRIORITIZED, lambda job: job.place) if looked < EXAMINED or passed_over else []
        for job in ranked[:EXAMINED]:
            if len(picked) < wanted:
                meet(job)
        return [*picked.values()], passed_over

    def _settle(self, now: int, outcomes: Sequence[Outcome]) -> list[int]:
        stale: list[int] = []
        ended: dict[JobState, list[ModelJob]] = {state: [] for state in FINISHED}
        again: list[tuple[ModelJob, int]] = []
        for index, outcome in enumerate(outcomes):
            if not self.is_live(outcome.job_id, outcome.token):
                stale.append(index)
                continue
            job = self.jobs[outcome.job_id]
            job.token, job.result = "-", outcome.body or job.result
            job.fails += outcome.word not in ("completed", "postpone")
            job.releases += outcome.word == "postpone"
            if outcome.word in ("retry", "postpone"):
                again.append((job, int(outcome.extra)))
            else:
                job.state = JobState.COMPLETED if outcome.word == "completed" else JobState.FAILED
                job.finished, job.rule = now, str(outcome.extra)
                ended[job.state].append(job)
        aged_at = self._aged_at
        for state in FINISHED:
            self._keep(now, state, ended[state], aged_at)
        if again:
            self._promote(now)  # what was due before these failed has waited longer
        for job, delay in again:
            self.is_told = True
            job.ready = now + delay
            if delay:
                self._delay(job, now + delay)
            else:
                self._line_up([job], at_head=False)
        return stale

    def renew(self, now: int, lease: int, jobs: Sequence[Held]) -> list[int]:
        """Move the deadlines of live runs; return the indexes of the others."""
        lost: list[int] = []
        for index, held in enumerate(jobs):
            if self.is_live(held.job_id, held.token):
                self.jobs[held.job_id].lease_ends = now + lease
            else:
                lost.append(index)
        return lost

    def release(self, now: int, jobs: Sequence[Held]) -> int:
        """Give live runs back, to the head in the order they are named; return how many."""
        released = {held.job_id: self.jobs[held.job_id] for held in jobs if self.is_live(held.job_id, held.token)}
        for job in released.values():
            job.releases, job.ready = job.releases + 1, now
        self._line_up([*released.values()], at_head=True)
        self.is_told = True
        return len(released)

    # -- upkeep

    def sweep(self, now: int, lease: int, every: int, max_stalls: int) -> tuple[int, int, bool, int | None, int | None, bool]:
        """Take back what lost its worker, promote what is due.

        Reclaimed, promoted, whether there is more, ms until the next lease ends, the next job is due, whether anything is in line.
        """
        active = self.of(JobState.ACTIVE, lambda job: (job.lease_ends, job.id))
        expired = [job for job in active if job.lease_ends <= now]
        reclaimed, gap = 0, now - self._swept_at
        is_short = 0 <= gap <= lease / 2
        is_given = now - self._short_grace_at < lease
        is_granted = gap > every * 1.25 and not is_given if is_short else gap > lease / 2 and self._late_sweeps < 2
        if is_granted and is_short:
            self._short_grace_at = now
            for job in active:
                job.lease_ends += gap if self._swept_at < job.lease_ends < now + gap else 0
        elif is_granted:
            grant = now + lease * 2 // 3
            is_first = bool(self._swept_at) and self._late_sweeps == 0
            for job in [job for job in active if job.lease_ends < grant] if is_first else expired:
                had_left = job.lease_ends - self._swept_at if self._swept_at else 0
                job.lease_ends = now + had_left if had_left > lease * 4 / 3 else grant
        elif expired:
            self._stall(now, expired, max_stalls)
            reclaimed = len(expired)
        promoted = self._promote(now)
        self._swept_at, self.is_told = now, True
        self._late_sweeps = self._late_sweeps + 1 if is_granted and not is_short else 0
        ends = [job.lease_ends for job in self.jobs.values() if job.state is JobState.ACTIVE]
        in_line = bool(self.line) or any(job.state is JobState.PRIORITIZED for job in self.jobs.values())
        next_end = max(0, min(ends) - now) if ends else None
        return reclaimed, promoted, False, next_end, self.next_due(now), in_line and not self.paused

    def _stall(self, now: int, jobs: Sequence[ModelJob], max_stalls: int) -> None:
        for job in jobs:
            job.token, job.stalls = "-", job.stalls + 1
            if job.stalls > max_stalls:
                job.state, job.finished, job.rule, job.result = JobState.FAILED, now, "", STALLED
            else:
                job.ready = now
        self._line_up([job for job in jobs if job.state is not JobState.FAILED], at_head=True)
        if any(job.state is JobState.FAILED for job in jobs):
            self._evict(now, JobState.FAILED, *self.retention.failed, self._aged_at)

    def run_timers(self, now: int) -> bool:
        """End what expired; return whether there is more to do."""
        self._forget(job for job in self.jobs.values() if job.expires and job.expires <= now)
        aged_at = self._aged_at
        for state, (_, age) in zip(FINISHED, (self.retention.completed, self.retention.failed), strict=True):
            self._evict(now, state, -1, age, aged_at)
        self._aged_at = now
        self.calls = {writer: call for writer, call in self.calls.items() if call[1] + CALL_KEPT_MS > now}
        return False

    # -- what the others share

    def _next(self) -> int:
        self._order += 1
        return self._order

    def _delay(self, job: ModelJob, due: int) -> None:
        job.state, job.due, job.ready = JobState.DELAYED, (due, self._next()), due

    def _new_rank(self, priority: int) -> tuple[int, int]:
        self._places += 1
        return priority, self._places

    def _rank(self, job: ModelJob) -> None:
        job.state, job.rank, self.is_told = JobState.PRIORITIZED, job.rank or self._new_rank(job.priority), True
        job.lined_at = self.now

    def _line_up(self, jobs: Sequence[ModelJob], *, at_head: bool) -> None:
        """Into line: a ranked job at its own place, the others at the head or the tail."""
        self.is_told = self.is_told or bool(jobs)
        plain: list[str] = []
        for job in jobs:
            job.token, job.lined_at = "-", self.now
            if job.rank:
                job.state = JobState.PRIORITIZED
            else:
                job.state = JobState.WAITING
                plain.append(job.id)
        self.line[:] = [*plain, *self.line] if at_head else [*self.line, *plain]

    def _promote(self, now: int) -> int:
        due = [job for job in self.of(JobState.DELAYED, lambda job: job.due) if job.due[0] <= now]
        self._into_line(due)
        return len(due)

    def _into_line(self, jobs: Sequence[ModelJob]) -> None:
        """What was delayed: a job with a priority to its place there, the others to the tail, or the head."""
        for job in jobs:
            job.is_fresh = False
            if job.priority:
                self._rank(job)
            else:
                self._line_up([job], at_head=job.lifo)

    def _forget(self, jobs: Iterable[ModelJob]) -> None:
        for job in list(jobs):
            del self.jobs[job.id]

    def _keep(self, now: int, state: JobState, ended: Sequence[ModelJob], aged_at: int) -> None:
        """Keep what just finished as its rule says: its own, or the queue's; the smallest count among them decides."""
        self._forget(job for job in ended if job.rule == "0")
        kept = [job for job in ended if job.rule != "0"]
        counts: list[int] = []
        for job in kept:
            parts = dict(part.split(":") for part in job.rule.split() if ":" in part)
            job.expires = now + int(parts["age"]) if "age" in parts else 0
            counts += [int(parts["count"])] if "count" in parts else []
        keep, age = self.retention.completed if state is JobState.COMPLETED else self.retention.failed
        if all(job.rule for job in kept):
            keep, age = -1, -1
        if keep >= 0:
            counts.append(keep)
        if kept:
            self._evict(now, state, min(counts, default=-1), age, aged_at)

    def _evict(self, now: int, state: JobState, keep: int, age: int, aged_at: int) -> None:
        """Remove the oldest beyond `keep`; or, looked at once a second, those older than `age`."""
        finished = self.of(state, lambda job: (job.finished, job.id))
        loose = [job for job in finished if not job.is_pinned]
        # Counts are kept in slices of 1 %, so that the cost is shared: none of the model's is large enough for that.
        excess = len(loose) - keep if keep >= 0 else 0
        if excess > 0:
            self._forget(loose[:excess])
        elif age >= 0 and now - aged_at >= 1000:
            self._aged_at = now
            self._forget(job for job in loose if job.finished < now - age)
