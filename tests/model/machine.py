"""The machine: random calls by several writers, each made on the real server and on the model, then everything recounted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from eventq.client import Server, SyncRunner
from eventq.commands.add import NewRecord, add_jobs
from eventq.commands.manage import pause_queue, remove_jobs, resume_queue, retry_jobs
from eventq.commands.upkeep import run_timers, sweep_queue
from eventq.commands.work import (
    Claimed,
    ClaimReply,
    Held,
    Outcome,
    ProgressUpdate,
    Retention,
    release_jobs,
    renew_leases,
    settle_and_claim,
)
from eventq.keys import COLUMNS
from eventq.records import parse_record
from eventq.states import FINISHED, IN_LINE, JobState

from ..lua.invariants import check_queue
from ..lua.lab import LEASE_MS, RULES, Clock, Lab, held, new, outcome, progress
from .choices import ENDS, JOBS, KEEPS, LEASES, PLACES, RETENTIONS, RUNS, SOME_RUNS, STALLS, WRITERS, Pick
from .model import Model
from .recount import Recount

if TYPE_CHECKING:
    from eventq.commands.core import Command

R = TypeVar("R")


class Bench:
    """What the examples of one test share: the server, a connection for each writer, the tally."""

    def __init__(self, url: str, queue_name: str, clock: Clock) -> None:
        self.url, self.clock = url, clock
        self.names = (f"{queue_name}-{number}" for number in itertools.count(1))
        server = Server(url)
        self.writers = [SyncRunner(server, client_name=f"model-{number}") for number in range(3)]
        self.tally: Counter[str] = Counter()
        self.events: Counter[str] = Counter()

    def close(self) -> None:
        """Close the connections."""
        for runner in self.writers:
            runner.close()


class QueueMachine(RuleBasedStateMachine):
    """One queue and its model."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.lab = Lab(self.bench.url, next(self.bench.names), self.bench.clock)
        self.model = Model(RULES)
        self.recount = Recount(self.lab)
        #: Every run ever handed out, by token, in order; zombies remember theirs.
        self.runs: dict[str, Claimed] = {}
        #: Ids of every job ever added.
        self.ids: list[str] = ["nobody"]
        #: Calls of each writer: number, command, and whether an answer is what a repetition of it must get.
        self.sent: dict[str, list[tuple[int, Command[Any], Callable[[Any], bool]]]] = {}
        self.earliest = 0
        self._keeps = itertools.cycle(KEEPS)
        #: Off while a call is on its way: what failed once is not looked at again.
        self.is_sound = True
        self.bench.tally["examples"] += 1

    def teardown(self) -> None:
        """Check once more, by other means and from the beginning; leave nothing behind."""
        self.bench.events += self.recount.kinds
        try:
            if self.is_sound:
                check_queue(self.lab)
        finally:
            self.lab.redis("UNLINK", *[self.lab.keys[column] for column in COLUMNS])
            self.lab.close()

    # -- calls

    def call(
        self,
        writer: int,
        command: Command[R],
        expect: Callable[[int, str], object],
        same: Callable[[R], object] = lambda answer: answer,
        *,
        seen: Callable[[R], None] = lambda _: None,
    ) -> R:
        """Make a call as this writer; what it answers and what it leaves behind must be what the model says.

        expect: what the model makes of it, given the time it ran at and what its tokens begin with. same: the part of the answer
        that is compared. seen: told the answer before it is judged.
        """
        self.is_sound = False
        runner = self.bench.writers[writer]
        answer = runner.run(command)
        name, number = runner._writer, runner._number
        self.recount.read()
        seen(answer)
        now = self.recount.now(name)
        assert self.earliest <= now, "time goes backwards"
        self.earliest = now
        expected = expect(now, f"{name}.{number}.")
        self.model.calls[name] = (number, now)
        assert expected == same(answer), command
        self.recount.check(self.model)
        self.is_sound = True
        self.sent.setdefault(name, []).append((number, command, lambda again: same(again) == same(answer)))
        self.bench.tally["calls"] += 1
        return answer

    def work(
        self,
        writer: int,
        wanted: int,
        lease: int = LEASE_MS,
        *,
        outcomes: Sequence[Outcome] = (),
        updates: Sequence[ProgressUpdate] = (),
    ) -> None:
        """Settle and claim."""
        command = settle_and_claim(
            self.lab.keys,
            worker=f"worker-{writer}",
            lease_ms=lease,
            wanted=wanted,
            retention=self.model.retention,
            progress=updates,
            outcomes=outcomes,
        )
        offered = {index for index, each in enumerate(outcomes) if not self.model.is_live(each.job_id, each.token)}

        def expect(now: int, tokens: str) -> object:
            return self.model.work(now, wanted, tokens, lease, progress=updates, outcomes=outcomes)

        def same(reply: ClaimReply) -> object:
            return reply.stale, [(job.id, job.token) for job in reply.jobs], reply.next_due_ms

        def seen(reply: ClaimReply) -> None:
            self._offer("settle", len(offered), len(offered - set(reply.stale)))
            self._offer("progress", *self._stale_progress(updates))

        reply = self.call(writer, command, expect, same, seen=seen)
        for job in reply.jobs:
            assert self.recount.active[job.id].seq == job.fence, "a fence is the seq of its active event"
            self.runs[job.token] = job
        # A repeated claim hands out what is still this writer's, and cannot know what is due by now.
        self._compare_again(writer, lambda again: self._same_claim(reply, again))

    def _compare_again(self, writer: int, is_same: Callable[[Any], bool]) -> None:
        """Say what the answer must be when the call that was just made is repeated."""
        sent = self.sent[self.bench.writers[writer]._writer]
        sent[-1] = (*sent[-1][:2], is_same)

    def _same_claim(self, reply: ClaimReply, again: ClaimReply) -> bool:
        left = [job for job in reply.jobs if self.model.is_live(job.id, job.token)]
        facts = [(job.id, job.token, job.fence, job.record, job.apart) for job in left]
        return (reply.stale, facts) == (
            again.stale,
            [(job.id, job.token, job.fence, job.record, job.apart) for job in again.jobs],
        )

    def _stale_progress(self, updates: Sequence[ProgressUpdate]) -> tuple[int, int]:
        """Return how much progress was offered by runs that are over, and how much of it is stored."""
        stale = [each for each in updates if not self.model.is_live(each.job_id, each.token)]
        stored, live = self.recount.stored["progress"], {each.value for each in updates if each not in stale}
        before = {job.id: job.progress for job in self.model.jobs.values()}
        return len(stale), sum(
            stored.get(each.job_id) == each.value != before.get(each.job_id) and each.value not in live for each in stale
        )

    def _offer(self, what: str, offered: int, accepted: int) -> None:
        self.bench.tally["stale offered"] += offered
        self.bench.tally[f"stale {what}"] += offered
        self.bench.tally["stale accepted"] += accepted

    def _live(self) -> list[Claimed]:
        return [run for run in self.runs.values() if self.model.is_live(run.id, run.token)]

    def _keep(self) -> dict[str, Any]:
        """Return retention rules in turn, for jobs that are added by the way."""
        return next(self._keeps)

    def _be_busy(self, writer: int) -> None:
        """See to it that something runs, so that few steps are about nothing; a paused queue stays as it is."""
        if self._live() or self.model.paused:
            return
        if not any(job.state in IN_LINE for job in self.model.jobs.values()):
            self.add(writer, [({}, self._keep(), None), ({"priority": 1}, self._keep(), None)], claims=0)
        self.work(writer, 2)

    def _pick(self, picks: Sequence[Pick]) -> list[Claimed]:
        """Return the runs that are meant: live ones, or those of zombies; where there are none, the others."""
        live = self._live()
        dead = [run for run in self.runs.values() if not self.model.is_live(run.id, run.token)]
        picked: list[Claimed] = []
        for is_dead, number in picks:
            among = (dead or live) if is_dead else (live or dead)
            picked += [among[-1 - number % len(among)]] if among else []
        return picked

    def _stale(self, runs: Sequence[Claimed]) -> set[int]:
        return {index for index, run in enumerate(runs) if not self.model.is_live(run.id, run.token)}

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

    @rule(writer=WRITERS, wanted=st.integers(1, 5), lease=LEASES)
    def claim(self, writer: int, wanted: int, lease: int) -> None:
        self.work(writer, wanted, lease)

    @rule(
        writer=WRITERS,
        ends=st.lists(st.tuples(RUNS, st.sampled_from(ENDS)), min_size=1, max_size=4),
        wanted=st.integers(0, 2),
        reports=st.booleans(),
    )
    def settle(self, writer: int, ends: list[tuple[Pick, tuple[str, int, str]]], wanted: int, reports: bool) -> None:
        self._be_busy(writer)
        outcomes: list[Outcome] = []
        runs = self._pick([pick for pick, _ in ends])
        for run, (_, (word, delay, result)) in zip(runs, ends, strict=False):
            spec = parse_record(run.record, run.apart).spec
            rule = spec.remove_on_complete if word == "completed" else spec.remove_on_fail
            outcomes.append(outcome(run, word, delay if word == "retry" else rule, result=result))
        updates = [progress(run, str(index)) for index, run in enumerate(runs)] if reports else []
        self.work(writer, wanted, outcomes=outcomes, updates=updates)

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
            sweep_queue(self.lab.keys, LEASE_MS, max_stalls, self.model.retention),
            lambda now, _: self.model.sweep(now, LEASE_MS, max_stalls),
            lambda reply: (reply.reclaimed, reply.promoted, reply.more, reply.next_lease_ms, reply.next_due_ms, reply.in_line),
        )
        self._compare_again(writer, lambda _: True)  # a repeated sweep only says that it was made

    @rule(writer=WRITERS, max_stalls=STALLS)
    def leases_end(self, writer: int, max_stalls: int) -> None:
        """Every worker is silent for so long that even the grant after an unwatched while ends."""
        self._be_busy(writer)
        self._advance(61)
        self.sweep(writer, max_stalls)
        self._advance(21)
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
