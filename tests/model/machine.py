"""The machine: what may happen to a queue, at random and by several writers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
from hypothesis.stateful import initialize, rule

from eventq.commands.add import NewRecord, add_jobs
from eventq.commands.manage import pause_queue, remove_jobs, resume_queue, retry_jobs
from eventq.commands.upkeep import run_timers, sweep_queue
from eventq.commands.work import (
    Held,
    Outcome,
    Retention,
    release_jobs,
    renew_leases,
)
from eventq.records import parse_record
from eventq.states import FINISHED, IN_LINE, JobState

from ..lua.lab import LEASE_MS, held, new, outcome, progress
from .caller import Caller
from .choices import (
    ENDS,
    GAPS,
    JOBS,
    KEEPS,
    LEASES,
    LOST,
    PLACES,
    RETENTIONS,
    RISKS,
    RUNS,
    SOME_RUNS,
    STALLS,
    WRITERS,
    Lost,
    Pick,
    Risk,
)

if TYPE_CHECKING:
    from eventq.commands.core import Command


#: Every so often a sweeper comes, as its sweeps say: a third of the shorter leases and more.
SWEEP_MS = 10_000


class QueueMachine(Caller):
    """The rules: one queue and its model go through whatever comes."""

    # -- what may happen

    @initialize(retention=st.sampled_from(RETENTIONS))
    def begin(self, retention: Retention) -> None:
        self.model.retention = retention

    @rule(
        writer=WRITERS,
        jobs=st.lists(
            st.tuples(st.sampled_from(PLACES), st.sampled_from(KEEPS), st.sampled_from([None, None, None, "own-1", "own-2"])),
            min_size=1,
            max_size=5,
        ),
        claims=st.integers(0, 3),
    )
    def add(self, writer: int, jobs: list[tuple[dict[str, Any], dict[str, Any], str | None]], claims: int) -> None:
        records: list[NewRecord] = [new(job_id or "job", job_id=job_id, **place, **keep) for place, keep, job_id in jobs]
        self.ids += [record.id for record in records if record.id not in self.ids]
        command = add_jobs(self.lab.keys, records)
        self.call(writer, command, lambda now, _: self.model.add(now, records), lambda added: added.existing)
        if claims:
            self.work(writer, claims)

    def _be_busy(self, writer: int) -> None:
        """See to it that something runs, so that few steps are about nothing; a paused queue stays as it is."""
        if self._live() or self.model.paused:
            return
        if not any(job.state in IN_LINE for job in self.model.jobs.values()):
            self.add(writer, [({}, self._keep(), None), ({"priority": 1}, self._keep(), None)], claims=0)
        self.work(writer, 2)

    @rule(writer=WRITERS, wanted=st.integers(1, 5), lease=LEASES, risk=RISKS, is_woken=st.booleans())
    def claim(self, writer: int, wanted: int, lease: int, risk: Risk, is_woken: bool) -> None:
        if is_woken:
            self.take_marker()
        self.work(writer, wanted, lease, risk=risk)

    @rule(
        writer=WRITERS,
        ends=st.lists(st.tuples(RUNS, st.sampled_from(ENDS)), min_size=1, max_size=4),
        wanted=st.integers(0, 2),
        reports=st.booleans(),
        risk=RISKS,
        is_due=st.sampled_from([False, False, True]),
    )
    def settle(
        self,
        writer: int,
        ends: list[tuple[Pick, tuple[str, int, str]]],
        wanted: int,
        reports: bool,
        risk: Risk,
        is_due: bool = False,
    ) -> None:
        self._be_busy(writer)
        if is_due:
            self.add(writer, [({"delay": 1}, {}, None)], 0)
            self._advance(1)
        outcomes: list[Outcome] = []
        runs = self._pick([pick for pick, _ in ends])
        for run, (_, (word, delay, result)) in zip(runs, ends, strict=False):
            spec = parse_record(run.record, run.apart).spec
            rule = spec.remove_on_complete if word == "completed" else spec.remove_on_fail
            outcomes.append(outcome(run, word, delay if word in ("retry", "postpone") else rule, result=result))
        updates = [progress(run, str(index)) for index, run in enumerate(runs)] if reports else []
        self.work(writer, wanted, outcomes=outcomes, updates=updates, risk=risk)

    @rule(writer=WRITERS, picks=SOME_RUNS, value=st.integers(0, 100))
    def report(self, writer: int, picks: list[Pick], value: int) -> None:
        self._be_busy(writer)
        runs = self._pick(picks)
        self.work(writer, 0, updates=[progress(run, str(value + index)) for index, run in enumerate(runs)])

    @rule(writer=WRITERS, picks=SOME_RUNS, lease=LEASES)
    def renew(self, writer: int, picks: list[Pick], lease: int) -> None:
        self._be_busy(writer)
        runs = self._pick(picks)
        jobs: list[Held] = [held(run) for run in runs] or [Held("nobody", "x.1.0")]
        stale = self._stale(runs)
        self.call(
            writer,
            renew_leases(self.lab.keys, lease, jobs),
            lambda now, _: self.model.renew(now, lease, jobs),
            seen=lambda lost: self._offer("renew", len(stale), len(stale - set(lost))),
        )

    @rule(writer=WRITERS, picks=SOME_RUNS)
    def release(self, writer: int, picks: list[Pick]) -> None:
        self._be_busy(writer)
        runs = self._pick(picks)
        jobs: list[Held] = [held(run) for run in runs] or [Held("nobody", "x.1.0")]
        stale = self._stale(runs)
        live = {run.token for index, run in enumerate(runs) if index not in stale}
        self.call(
            writer,
            release_jobs(self.lab.keys, jobs),
            lambda now, _: self.model.release(now, jobs),
            seen=lambda released: self._offer("release", len(stale), max(0, released - len(live))),
        )

    @rule(writer=WRITERS, paused=st.sampled_from([False, False, True]))
    def pause_or_resume(self, writer: int, paused: bool) -> None:
        command = pause_queue(self.lab.keys) if paused else resume_queue(self.lab.keys)
        self.call(writer, command, lambda now, _: self.model.pause(now, paused))

    @rule(writer=WRITERS, jobs=JOBS, state=st.sampled_from(FINISHED), reset=st.booleans())
    def retry(self, writer: int, jobs: list[int], state: JobState, reset: bool) -> None:
        ids = self._finished(state, jobs)
        command = retry_jobs(self.lab.keys, ids, state=state, reset_attempts=reset)
        self.call(writer, command, lambda now, _: self.model.retry(now, ids, state, reset=reset))

    def _finished(self, state: JobState, jobs: Sequence[int]) -> list[str]:
        """Return jobs to retry: the first from those of the state, the others from all."""
        ids = [job.id for job in self.model.of(state, lambda job: (job.finished, self.ids.index(job.id)))]
        first = [ids[jobs[0] % len(ids)]] if ids else []
        return first + [self.ids[-1 - number % len(self.ids)] for number in jobs[1:] or jobs]

    @rule(writer=WRITERS, jobs=JOBS)
    def remove(self, writer: int, jobs: list[int]) -> None:
        ids = [self.ids[-1 - number % len(self.ids)] for number in jobs]
        self.call(writer, remove_jobs(self.lab.keys, ids), lambda now, _: self.model.remove(now, ids))

    @rule(writer=WRITERS, place=st.sampled_from(PLACES), claims=st.integers(0, 2))
    def remove_and_add_again(self, writer: int, place: dict[str, Any], claims: int) -> None:
        """An own id that was in line is added again: its old entry, a hole, may be another way to it."""
        self.add(writer, [({}, self._keep(), "own-1")], claims=0)
        self.call(writer, remove_jobs(self.lab.keys, ["own-1"]), lambda now, _: self.model.remove(now, ["own-1"]))
        self.add(writer, [(place, {}, "own-1")], claims)

    @rule(seconds=st.sampled_from([1, 5, 20, 31, 61, 3_600, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self._advance(seconds)

    def _advance(self, seconds: int) -> None:
        self.lab.advance(seconds)
        self.earliest += seconds * 1000

    @rule(writer=WRITERS, max_stalls=STALLS)
    def sweep(self, writer: int, max_stalls: int) -> None:
        self.call(
            writer,
            sweep_queue(self.lab.keys, LEASE_MS, SWEEP_MS, max_stalls, self.model.retention),
            lambda now, _: self.model.sweep(now, LEASE_MS, SWEEP_MS, max_stalls),
            lambda reply: (reply.reclaimed, reply.promoted, reply.more, reply.next_lease_ms, reply.next_due_ms, reply.in_line),
        )
        self._compare_again(writer, lambda _: True)  # a repeated sweep only says that it was made

    @rule(writer=WRITERS, max_stalls=STALLS, lost=LOST, gap=GAPS, wanted=st.sampled_from([1, 5, 5]), risk=RISKS)
    def leases_end(self, writer: int, max_stalls: int, lost: Lost, gap: str, wanted: int, risk: Risk) -> None:
        """Every worker is silent for so long that even the grant after an unwatched while ends."""
        if not lost:
            self._be_busy(writer)
            self._lose_workers(writer, max_stalls)
            return
        self.add(writer, [(place, self._keep(), job_id) for place, job_id in lost], 0)
        if gap == "twice":
            self.remove_and_add_again(writer, {}, 0)
        waiting = self.model.of(JobState.WAITING, lambda job: job.id)
        # As many as wait: an entry that names one of them again, at the end of the line, is not looked at.
        self.work(writer, len(waiting) if gap == "twice" else 5)
        self._lose_workers(writer, max_stalls)
        if gap == "hole" and (second := self.model.line[1:2]):
            self.call(writer, remove_jobs(self.lab.keys, second), lambda now, _: self.model.remove(now, second))
        self.claim(writer, wanted, LEASE_MS, risk, is_woken=True)

    def _lose_workers(self, writer: int, max_stalls: int) -> None:
        for seconds in (61, 12, 12, 12, 12):
            self._advance(seconds)
            self.sweep(writer, max_stalls)

    @rule(writer=WRITERS)
    def timers(self, writer: int) -> None:
        command = run_timers(self.lab.keys, self.model.retention)
        self.call(writer, command, lambda now, _: self.model.run_timers(now))

    # -- what a network does

    @rule(writer=WRITERS)
    def reply_is_lost(self, writer: int) -> None:
        """The last call arrives again: the same answer, no effect."""
        name = self.bench.writers[writer]._writer
        if name not in self.model.calls:
            return
        number, command, is_same = self.sent[name][-1]
        raw = self._by_hand(command, name, number)
        assert is_same(command.read(raw)), f"{command} was answered {raw} when it was repeated"
        self.bench.tally["replayed"] += 1

    @rule(writer=WRITERS, picks=SOME_RUNS)
    def claim_is_asked_for_again_late(self, writer: int, picks: list[Pick]) -> None:
        """A claim's answer is lost, and before it is asked for again some of its jobs are gone."""
        self.add(writer, [({}, self._keep(), None), ({}, {}, None)], claims=3)
        self.release((writer + 1) % 3, picks)
        self.reply_is_lost(writer)

    @rule(writer=WRITERS, back=st.integers(1, 10))
    def call_comes_late(self, writer: int, back: int) -> None:
        """An earlier call arrives once more, after later ones of its writer: refused, no effect."""
        name = self.bench.writers[writer]._writer
        if name not in self.model.calls or len(self.sent[name]) < 2:
            return
        number, command, _ = self.sent[name][max(-1 - back, -len(self.sent[name]))]
        assert ["STALE", str(self.model.calls[name][0])] == self._by_hand(command, name, number)
        self.bench.tally["reordered"] += 1

    def _by_hand(self, command: Command[Any], writer: str, number: int) -> Any:
        """Send a call of a writer over another connection; it must leave everything as it is."""
        self.is_sound = False
        before = self._everything()
        reply = self.lab.send(command, writer, number)
        self.recount.read()
        assert before == self._everything(), f"{command} had an effect when it came again"
        self.is_sound = True
        return reply

    def _everything(self) -> dict[str, Any]:
        stored = dict(self.recount.stored)
        return stored | {"meta": {field: value for field, value in stored["meta"].items() if field != "clock_offset"}}
