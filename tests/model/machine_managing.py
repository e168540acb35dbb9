"""The machine's rules of managing: what else may happen to a queue, at random, by several writers, and in the middle of a walk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
from hypothesis.stateful import rule

from eventq.commands.core import Command, Verb
from eventq.commands.manage import (
    Cleaned,
    add_log,
    change_delay,
    change_priority,
    clear_logs,
    obliterate_queue,
    promote_jobs,
    remove_jobs,
    update_data,
)
from eventq.commands.repair import Look, repair_jobs, repair_line
from eventq.operations import managing
from eventq.scripts import Script
from eventq.states import FINISHED, JobState

from .choices import (
    BEFORE,
    CLEANABLE,
    DATA,
    DELAYS,
    GRACES,
    JOBS,
    LIMITS,
    LINE_UP,
    LINES,
    LOG_KEPT,
    MEANWHILE,
    SAYERS,
    WRITERS,
    YOUNG,
    Sayer,
)
from .machine import QueueMachine
from .managed import EXAMINED, Cursor, ManagedModel

if TYPE_CHECKING:
    from collections.abc import Generator


class ManagedMachine(QueueMachine):
    """One queue and its model, worked on and managed."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._cursor: Cursor = None
        #: What one call of a walk removes at most.
        self._most = 3
        #: Jobs that a walk has to remove while they stand where they stood, and where that is.
        self._standing: dict[str, JobState] = {}
        self._walked: set[JobState] = set()
        self._past_epochs: list[str] = []

    def call(self, *args: Any, **options: Any) -> Any:
        """Make a call, as every rule does; what a walk has to remove is looked at again."""
        answer = super().call(*args, **options)
        self._standing = {
            job_id: state
            for job_id, state in self._standing.items()
            if job_id in self.model.jobs and self.model.jobs[job_id].state is state
        }
        return answer

    # -- changing one job

    @rule(writer=WRITERS, jobs=JOBS)
    def promote(self, writer: int, jobs: list[int]) -> None:
        ids = self._among(JobState.DELAYED, jobs)
        self.call(writer, promote_jobs(self.lab.keys, ids), lambda now, _: self.model.promote(now, ids))

    @rule(writer=WRITERS, job=st.integers(0, 30), delay=DELAYS, is_woken=st.booleans())
    def change_delay(self, writer: int, job: int, delay: int, is_woken: bool) -> None:
        if is_woken:
            self.take_marker()
        (job_id,) = self._among(JobState.DELAYED, [job])
        at = self.earliest + delay
        is_from_now = job % 2 == 1 and delay >= 0
        place = f"+{delay}" if is_from_now else f"@{at}"
        self.call(
            writer,
            change_delay(self.lab.keys, job_id, place),
            lambda now, _: self.model.change_delay(now, job_id, now + delay if is_from_now else at),
        )

    @rule(
        writer=WRITERS,
        job=st.integers(0, 30),
        state=st.sampled_from([JobState.WAITING, JobState.PRIORITIZED, JobState.DELAYED, JobState.ACTIVE]),
        priority=st.integers(0, 2),
        lifo=st.booleans(),
    )
    def change_priority(self, writer: int, job: int, state: JobState, priority: int, lifo: bool) -> None:
        (job_id,) = self._among(state, [job])
        command = change_priority(self.lab.keys, job_id, priority, lifo=lifo)
        self.call(writer, command, lambda now, _: self.model.change_priority(now, job_id, priority, lifo=lifo))

    @rule(writer=WRITERS, sayer=SAYERS, data=DATA)
    def update_data(self, writer: int, sayer: Sayer, data: str) -> None:
        job_id, token = self._said_by(writer, sayer)
        is_stale = token != "" and not self.model.is_live(job_id, token)
        self.call(
            writer,
            update_data(self.lab.keys, job_id, token, data),
            lambda now, _: self.model.update_data(now, job_id, token, data),
            seen=lambda verdict: self._offer("update", is_stale, is_stale and verdict == "u"),
        )

    @rule(writer=WRITERS, sayer=SAYERS, line=LINES)
    def add_log(self, writer: int, sayer: Sayer, line: str) -> None:
        """Few lines and bytes are kept here, so that the oldest have to make room."""
        job_id, token = self._said_by(writer, sayer)
        if not token:
            job_id = self._logged(sayer)
        is_stale = token != "" and not self.model.is_live(job_id, token)
        command = add_log(self.lab.keys, job_id, token, line)
        lines, size = LOG_KEPT
        self.call(
            writer,
            replace(command, args=[*command.args[:-2], lines, size]),
            lambda now, _: self.model.add_log(now, job_id, token, line, lines=lines, size=size),
            seen=lambda verdict: self._offer("log", is_stale, is_stale and verdict == "u"),
        )

    @rule(writer=WRITERS, sayer=SAYERS, keep=st.integers(0, 2))
    def clear_logs(self, writer: int, sayer: Sayer, keep: int) -> None:
        job_id = self._logged(sayer)
        self.call(writer, clear_logs(self.lab.keys, job_id, keep), lambda now, _: self.model.clear_logs(now, job_id, keep))

    def _among(self, state: JobState, jobs: Sequence[int]) -> list[str]:
        """Return jobs by number: the first from those of the state, the others from all."""
        ids = [job.id for job in self.model.of(state, lambda job: self.ids.index(job.id))]
        first = [ids[jobs[0] % len(ids)]] if ids else []
        return first + [self.ids[-1 - number % len(self.ids)] for number in jobs[1:] or jobs[len(first) :]]

    def _logged(self, sayer: Sayer) -> str:
        """Return a job that has a log already, where there is one."""
        logged = [job.id for job in self.model.jobs.values() if job.log]
        return logged[-1 - sayer[1][1] % len(logged)] if logged else self.ids[-1]

    def _said_by(self, writer: int, sayer: Sayer) -> tuple[str, str]:
        """Return a job and the token it is named with: that of a run, live or over, or none."""
        has_token, pick = sayer
        self._be_busy(writer)
        runs = self._pick([pick])
        if has_token and runs:
            return runs[0].id, runs[0].token
        return self.ids[-1 - pick[1] % len(self.ids)], ""

    # -- cleaning

    @rule(
        writer=WRITERS,
        state=CLEANABLE,
        grace=GRACES,
        limit=LIMITS,
        before=BEFORE,
        meanwhile=MEANWHILE,
        most=st.integers(1, 3),
    )
    def clean(
        self, writer: int, state: JobState, grace: int, limit: int | None, before: list[str], meanwhile: list[str], most: int
    ) -> None:
        """A state is walked to its end, while others go on: what stood there all the while is gone, if no limit was said."""
        if before:
            self._grow_old(writer, grace)
            if state in FINISHED:
                self._finish_some(writer, state)
            elif len(before) > 1:
                self.remove_and_add_again(writer, {}, 0)
        for what in before:
            self._meanwhile(writer, what)
        self._most = most
        steps = managing.clean(self.lab.keys, grace, limit, state, None)
        removed = self._walk(writer, steps, meanwhile)
        assert limit is None or len(removed) <= limit
        if limit is None:
            self._check_standing()

    def _finish_some(self, writer: int, state: JobState) -> None:
        self.add(writer, [({"lifo": True}, {}, None)] * 5, 5)
        self.settle(writer, [((False, number), (state.value, 0, "")) for number in range(5)], 0, False, (0, True))

    def _grow_old(self, writer: int, grace: int) -> None:
        """See to it that something stands where it may be cleaned, longer than the grace, and younger ones before it."""
        places: list[tuple[dict[str, Any], str | None]] = [({}, None), ({}, "own-1"), ({"priority": 1}, None)]
        places += [({"priority": 2}, None), ({"priority": 2}, None), ({"delay": 7_200}, None), ({"delay": 7_200}, None)]
        self.add(writer, [(place, self._keep(), job_id) for place, job_id in places], 0)
        self._advance(grace + 1)
        self.add(writer, [(place, {}, None) for place in YOUNG], 0)

    @rule(writer=WRITERS, delayed=st.booleans(), meanwhile=MEANWHILE)
    def drain(self, writer: int, delayed: bool, meanwhile: list[str]) -> None:
        """What was in line before it, and stayed there, is gone."""
        self._most = 3
        self._walk(writer, managing.drain(self.lab.keys, delayed, None), meanwhile)
        self._check_standing()

    @rule(writer=WRITERS, limit=LIMITS, before=BEFORE, meanwhile=MEANWHILE)
    def promote_all(self, writer: int, limit: int | None, before: list[str], meanwhile: list[str]) -> None:
        """Whatever was delayed before it, and stayed there, is in line."""
        if before:
            places: list[dict[str, Any]] = [
                {"delay": 60},
                {"delay": 60, "priority": 1},
                {"delay": 5},
                {"delay": 60},
                {"delay": 30},
            ]
            self.add(writer, [(place, {}, None) for place in places], 0)
        self._walk_all(writer, JobState.DELAYED, managing.promote(self.lab.keys, limit, None), limit, before, meanwhile)

    @rule(writer=WRITERS, state=st.sampled_from(FINISHED), reset=st.booleans(), limit=LIMITS, before=BEFORE, meanwhile=MEANWHILE)
    def retry_all(
        self, writer: int, state: JobState, reset: bool, limit: int | None, before: list[str], meanwhile: list[str]
    ) -> None:
        """Whatever was in the state before it, and stayed there, is in line."""
        if before:
            self._finish_some(writer, state)
        steps = managing.retry(self.lab.keys, state, limit, reset, None)
        self._walk_all(writer, state, steps, limit, before, meanwhile)

    def _walk_all(
        self,
        writer: int,
        state: JobState,
        steps: Generator[Any, Any, int],
        limit: int | None,
        before: list[str],
        meanwhile: list[str],
    ) -> None:
        for what in before:
            self._meanwhile(writer, what)
        there = dict.fromkeys((job.id for job in self.model.of(state, id)), state)
        handled = self._walk(writer, steps, meanwhile, there)
        assert limit is None or handled <= limit
        if limit is None:
            self._check_standing()

    def _walk(
        self, writer: int, steps: Generator[Any, Any, Any], meanwhile: list[str], standing: dict[str, JobState] | None = None
    ) -> Any:
        """Perform an operation; between its calls, one at a time, others do what they do."""
        others = iter(meanwhile)
        self._standing, self._walked, self._cursor = standing or {}, set(), None
        try:
            step = next(steps)
            while True:
                answer = self._step(writer, step)
                if what := next(others, ""):
                    self._meanwhile((writer + 1) % 3, what)
                step = steps.send(answer)
        except StopIteration as done:
            return done.value

    def _step(self, writer: int, step: Verb[Any] | Command[Any]) -> Any:
        if isinstance(step, Verb):
            return self.bench.writers[writer].run_verb(step)
        if not step.numbered:
            return self.bench.writers[writer].run(step)
        if step.script.name == "promote_jobs":
            ids = list(map(str, step.args[1:]))
            return self.call(writer, step, lambda now, _: self.model.promote(now, ids))
        if step.script.name == "retry_jobs":
            among, ids = JobState(str(step.args[0])), list(map(str, step.args[3:]))
            return self.call(writer, step, lambda now, _: self.model.retry(now, ids, among, reset=step.args[1] == "1"))
        state, cutoff, most, cursor, reason = map(str, step.args)
        return self._clean_slice(writer, step, JobState(state), cutoff, min(int(most), self._most), cursor, reason)

    def _clean_slice(
        self, writer: int, command: Command[Any], state: JobState, cutoff: str, most: int, cursor: str, reason: str
    ) -> Cleaned:
        """One call of a walk, of fewer jobs than the operation asks for."""
        small = replace(command, script=_examining_less(command.script), args=[state.value, cutoff, most, cursor, reason])
        # One that came into line after the cutoff may stand behind one that was added after it.
        there = {job.id: max(job.since, job.lined_at * (state is JobState.WAITING)) for job in self.model.of(state, id)}
        at = self._cursor if cursor else None

        def expect(now: int, _: str) -> object:
            gone = self.model.clean(now, state, cutoff, most, at)
            return str(int(cutoff) if int(cutoff) > 0 else now + int(cutoff)), self.model.has_more, gone

        done: Cleaned = self.call(writer, small, expect, lambda done: (done.cutoff, done.cursor != "", done.ids))
        self._cursor = self.model.cursor
        if state not in self._walked:
            self._walked.add(state)
            old = {job_id for job_id, since in there.items() if since <= int(done.cutoff)}
            self._standing |= dict.fromkeys(old.difference(done.ids), state)
        self.bench.tally["cleaned"] += len(done.ids)
        return done

    def _meanwhile(self, writer: int, what: str) -> None:
        some = [self._cursor[1]] if isinstance(self._cursor, tuple) else [*self._standing][:2] or self.ids[-1:]
        calls: dict[str, Callable[[], object]] = {
            "claim": lambda: self.work(writer, 5),
            "release": lambda: self.release(writer, [(False, 0), (False, 1)]),
            "add": lambda: self.add(writer, [(place, {}, None) for place in LINE_UP], 0),
            "promote": lambda: self.promote(writer, [0, 1]),
            "remove": lambda: self.remove(writer, [0, 3]),
            "raise": lambda: self.change_priority(writer, 1, JobState.WAITING, 1, True),
            "lower": lambda: self.change_priority(writer, 1, JobState.PRIORITIZED, 0, True),
            "settle": lambda: self.settle(writer, [((False, 0), ("completed", 0, ""))], 1, False, (0, True)),
            "again": lambda: self.remove_and_add_again(writer, {}, 0),
            "forget": lambda: self.call(writer, remove_jobs(self.lab.keys, some), lambda now, _: self.model.remove(now, some)),
            "time": lambda: self._advance(5),
        }
        calls[what]()

    def _check_standing(self) -> None:
        assert not self._standing, f"passed over, though they stood there all the while: {self._standing}"

    @rule(writer=WRITERS)
    def repair(self, writer: int) -> None:
        """Mending a sound queue finds everything where it belongs, and changes nothing."""
        letters = "".join("w" if job.state is JobState.WAITING else "f" for job in self.model.jobs.values())
        self.call(writer, repair_jobs(self.lab.keys, [*self.model.jobs, "nobody"]), lambda now, _: f"{letters}m")
        waiting = [job.id for job in self.model.jobs.values() if job.state is JobState.WAITING]
        holes = str(len(self.model.line) - len(waiting))
        named = [(job_id, self.recount.stored["runs"].get(job_id, "")) for job_id in waiting]
        expected = Look("s" * len(waiting), holes, holes)
        self.call(writer, repair_line(self.lab.keys, named, recount=True), lambda now, _: expected)

    # -- the end of everything

    @rule(writer=WRITERS, how=st.sampled_from(["other", "unforced", "unforced", "forced"]))
    def obliterate(self, writer: int, how: str) -> None:
        """What is gone is known by its epoch: the same call again finds another queue, or none."""
        epoch = self.recount.epoch or "none"
        if how == "other":
            epoch = self._past_epochs[-1] if self._past_epochs else "none"
        is_there = epoch == self.recount.epoch
        command = obliterate_queue(self.lab.keys, epoch, force=how == "forced")
        expected = self.model.obliterate(how == "forced") if is_there else ("other", 0)
        offset = self.lab.meta("clock_offset") or "0"
        self.is_sound = False
        runner = self.bench.writers[writer]
        assert expected == runner.run(command)
        name, number = runner._writer, runner._number
        if expected[0] == "gone":
            assert {"events"} == set(self.lab.dump()), "an obliterated queue leaves its stream alone"
            self._past_epochs.append(epoch)
            self.model = ManagedModel(self.model.retention)
            self.lab.redis("HSET", self.lab.keys["meta"], "clock_offset", offset)
        self.recount.read()
        self.recount.check(self.model)
        if expected[0] != "active":
            assert ["OK", "other", 0] == self._by_hand(command, name, number)
        self.is_sound = True
        self.bench.tally[f"obliterate: {expected[0]}"] += 1


@cache
def _examining_less(script: Script) -> Script:
    """The script as it would be if a call of a walk examined fewer entries than it does."""
    text = script.text.replace("= {}, state, '', 500\n", f"= {{}}, state, '', {EXAMINED}\n")
    assert text != script.text
    return replace(script, text=text, sha=hashlib.sha1(text.encode()).hexdigest())
