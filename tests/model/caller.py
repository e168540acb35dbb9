"""A call of a machine: made by one of several writers on the real server and on the model, then everything is recounted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from eventq.client import Server, SyncRunner
from eventq.commands.work import (
    Claimed,
    ClaimReply,
    Outcome,
    ProgressUpdate,
    settle_and_claim,
)
from eventq.keys import COLUMNS

from ..lua.invariants import check_queue
from ..lua.lab import LEASE_MS, RULES, Clock, Lab
from .choices import KEEPS, Pick, Risk
from .managed import ManagedModel
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


class Caller(RuleBasedStateMachine):
    """One queue, its model, and what its rules have in common; it has none itself."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.lab = Lab(self.bench.url, next(self.bench.names), self.bench.clock)
        self.model = ManagedModel(RULES)
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
        self.earliest = self.model.now = now
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
        risk: Risk = (0, True),
    ) -> None:
        """Settle and claim."""
        max_stalls, may_risk = risk
        command = settle_and_claim(
            self.lab.keys,
            worker=f"worker-{writer}",
            lease_ms=lease,
            wanted=wanted,
            retention=self.model.retention,
            progress=updates,
            outcomes=outcomes,
            max_stalls=max_stalls,
            may_risk=may_risk,
        )
        offered = {index for index, each in enumerate(outcomes) if not self.model.is_live(each.job_id, each.token)}

        def expect(now: int, tokens: str) -> object:
            return self.model.work(
                now, wanted, tokens, lease, progress=updates, outcomes=outcomes, max_stalls=max_stalls, may_risk=may_risk
            )

        def same(reply: ClaimReply) -> object:
            return reply.stale, [(job.id, job.token) for job in reply.jobs], reply.next_due_ms

        def seen(reply: ClaimReply) -> None:
            self._offer("settle", len(offered), len(offered - set(reply.stale)))
            self._offer("progress", *self._stale_progress(updates))

        reply = self.call(writer, command, expect, same, seen=seen)
        self.bench.tally["passed over"] += len(self.model.passed_over)
        for job in reply.jobs:
            assert self.recount.active[job.id].seq == job.fence, "a fence is the seq of its active event"
            self.runs[job.token] = job
        # A repeated claim hands out what is still this writer's, and cannot know what is due by now.
        self._compare_again(writer, lambda again: self._same_claim(reply, again))

    def take_marker(self) -> None:
        """Be woken, as an idle worker is: what it leaves over, it has to tell the others."""
        self.lab.redis("ZREM", self.lab.keys["marker"], 0, 1, 2, 3, "due")
        self.model.is_told = self.model.is_due_told = False

    def _compare_again(self, writer: int, is_same: Callable[[Any], bool]) -> None:
        """Say what the answer must be when the call that was just made is repeated."""
        sent = self.sent[self.bench.writers[writer]._writer]
        sent[-1] = (*sent[-1][:2], is_same)

    def _same_claim(self, reply: ClaimReply, again: ClaimReply) -> bool:
        left = [(job.id, job.token, job.fence) for job in reply.jobs if self.model.is_live(job.id, job.token)]
        stored = self.recount.stored
        return (reply.stale, left) == (again.stale, [(job.id, job.token, job.fence) for job in again.jobs]) and all(
            (job.record, job.run, job.apart) == (stored["jobs"][job.id], stored["runs"][job.id], stored["data"].get(job.id, ""))
            for job in again.jobs
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
