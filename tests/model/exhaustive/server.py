"""The server's half of the exhaustive model: what the scripts do, line by line as the Lua does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from .world import Beat, Claim, Job, Outcome, Record, Reply, Request, State, Violation, Worker, World

#: Older than this no request is told apart from others.
OLDEST: Final = 2


def known_tokens(state: State, jobs: Iterable[Job], job: int) -> set[int]:
    """Return the tokens of this job that anybody knows of."""
    known = {each.token for at, each in enumerate(jobs) if at == job}
    for worker in state.workers:
        known |= {each[1] for each in _named_by(worker) if each[0] == job}
    for orphan in state.orphans:
        known |= {each[1] for each in (orphan.runs if isinstance(orphan, Beat) else orphan.outcomes) if each[0] == job}
    if state.replica:
        jobs_there, _, records = state.replica
        known.add(jobs_there[job].token)
        known |= {each.token for record in records for each in _recorded(record) if each.job == job}
    return known


def _named_by(worker: Worker) -> Iterator[tuple[Any, ...]]:
    """Yield what begins with a job and a token."""
    yield from worker.held
    yield from worker.releasing
    yield from worker.old_beat or ()
    yield from _recorded(worker.record)
    yield from worker.beat.runs if worker.beat else ()
    yield from worker.old.outcomes if worker.old else ()
    if worker.call:
        yield from worker.call.outcomes
        yield from worker.call.reply.claims if worker.call.reply else ()


def _recorded(record: Record | None) -> tuple[Claim, ...]:
    return record.reply.claims if record and record.reply else ()


class Server:
    """The columns during one script. `off`: guards that are taken away."""

    def __init__(self, state: State, world: World, off: frozenset[str]) -> None:
        self.state = state
        self.world = world
        self.off = off
        self.jobs = list(state.jobs)
        self.wait = list(state.wait)
        #: Runs whose outcome was recorded by this script.
        self.accepted: set[tuple[int, int]] = set()

    def settle_and_claim(self, record: Record | None, request: Request) -> tuple[Record | None, Reply | None]:
        """Return the writer's record afterwards, and the reply: None is STALE."""
        if record is not None:
            if request.back > record.back and "call: lower refused" not in self.off:
                return record, None
            if request.back == record.back and "call: replay" not in self.off:
                return record, self._replay(record) if record.reply is not None else None
        reply = Reply(self._settle(request.outcomes), self._claim(request.wanted))
        return Record(request.back, reply if request.back == 0 else None), reply

    def renew(self, runs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
        """Return the indexes of those that are lost."""
        lost: list[int] = []
        for index, (at, token) in enumerate(runs):
            job = self.jobs[at]
            if job.state == "A" and job.token == token:
                self.jobs[at] = job._replace(lease=self.world.lease)
            elif job.state == "A" and "renew: token" in self.off:
                raise Violation(f"a renewal under a token that is not the present one was accepted for job {at}")
            elif job.state != "A" and "renew: no resurrection" in self.off:
                self.jobs[at] = job._replace(state="A", token=token, lease=self.world.lease)
            else:
                lost.append(index)
        return tuple(lost)

    def release(self, runs: Iterable[tuple[int, int]]) -> None:
        """Give runs back to the head of the line."""
        back: list[int] = []
        for at, token in runs:
            job = self.jobs[at]
            if job.state == "A" and (job.token == token or "release: token" in self.off):
                if job.token != token:
                    raise Violation(f"a release under a token that is not the present one was accepted for job {at}")
                ended = 0 if "release: counted" in self.off else 1
                self.jobs[at] = job._replace(state="W", token=0, lease=-1, balance=job.balance - ended)
                back.append(at)
        self.wait[:0] = back

    @property
    def grants(self) -> bool:
        """Whether a sweep comes so late that it takes nothing back."""
        return self.state.swept * 2 > self.world.lease and "sweep: grace" not in self.off

    @property
    def grant(self) -> int:
        """Two thirds of a lease, in ticks that have begun."""
        return -(-self.world.lease * 2 // 3)

    @property
    def has_to_sweep(self) -> bool:
        """Whether a sweep has something to do."""
        soon = self.grant if self.grants else 1
        return any(0 <= job.lease < soon for job in self.jobs)

    def sweep(self) -> str:
        """Take back what expired; return what it came to."""
        any_lease = "sweep: deadline" in self.off
        expired = [at for at, job in enumerate(self.jobs) if job.lease == 0 or (any_lease and job.lease > 0)]
        expired.sort(key=lambda at: self.jobs[at].lease)
        if self.grants:
            for at, job in enumerate(self.jobs):
                if 0 <= job.lease < self.grant:
                    self.jobs[at] = job._replace(lease=self.grant)
            return "grants two thirds of a lease"
        back: list[int] = []
        stays = "sweep: leaves the lease set" in self.off
        for at in expired:
            job = self.jobs[at]
            lease = job.lease if stays else -1
            if job.state != "A":
                self.jobs[at] = job._replace(lease=lease)
                continue
            counted = 0 if "sweep: counted" in self.off else 1
            job = job._replace(token=0, lease=lease, stalls=job.stalls + counted, balance=job.balance - counted)
            if job.stalls > self.world.max_stalls and "sweep: max_stalls" not in self.off:
                self.jobs[at] = job._replace(state="F")
            else:
                self.jobs[at] = job._replace(state="W")
                back.append(at)
        self.wait[:0] = back
        return f"takes back {', '.join(f'job {at}' for at in expired)}"

    def _settle(self, outcomes: tuple[Outcome, ...]) -> tuple[int, ...]:
        stale: list[int] = []
        before = list(self.jobs)
        done: set[int] = set()
        retries: list[int] = []
        for index, (at, token, word) in enumerate(outcomes):
            job = before[at]
            is_again = at in done and "settle: once in a batch" not in self.off
            if is_again or job.state != "A" or (job.token != token and "settle: token" not in self.off):
                stale.append(index)
                continue
            if job.token != token:
                raise Violation(f"an outcome under a token that is not the present one was recorded for job {at}")
            done.add(at)
            self.accepted.add((at, token))
            lease = job.lease if "settle: lease ends" in self.off else -1
            state = {"c": "C", "f": "F", "r": "W"}[word]
            self.jobs[at] = Job(state, 0, lease, job.fails + (word != "c"), job.stalls, self.jobs[at].balance - 1)
            if word == "r":
                retries.append(at)
        self.wait += retries
        return tuple(stale)

    def _claim(self, wanted: int) -> tuple[Claim, ...]:
        claims: list[Claim] = []
        while self.wait and len(claims) < wanted:
            at = self.wait.pop(0)
            job = self.jobs[at]
            if job.state != "W":
                continue
            known = known_tokens(self.state, self.jobs, at)
            token = next(number for number in range(1, len(known) + 2) if number not in known)
            self.jobs[at] = job._replace(state="A", token=token, lease=self.world.lease, balance=job.balance + 1)
            claims.append(Claim(at, token, job.fails, 0))
        return tuple(claims)

    def _replay(self, record: Record) -> Reply:
        """The same jobs; without those that were taken away since."""
        assert record.reply is not None
        claims: list[Claim] = []
        for claim in record.reply.claims:
            job = self.jobs[claim.job]
            is_ours = job.state == "A" and job.token == claim.token
            if is_ours or "replay: taken away left out" in self.off:
                late = self.world.lease - job.lease if job.lease >= 0 else 0
                claims.append(claim._replace(late=late))
        return Reply(record.reply.stale, tuple(claims))
