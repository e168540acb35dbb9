"""The same steps on a real server: what the model's requests are as scripts, and what is stored as the model says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eventq.commands.core import Command
from eventq.commands.upkeep import sweep_queue
from eventq.commands.work import Held, Outcome, release_jobs, renew_leases, settle_and_claim

from ...lua.lab import RULES, Lab, new
from .world import Job, State, World

#: So long that no machine is slow enough to make anything of it.
TICK_MS: Final = 40_000
NAME: Final = '"name":"job","attempt":1,"worker":"w"'
_WORDS: Final = {"c": "completed", "r": "retry", "f": "failed"}


@dataclass
class Sent:
    """A numbered call on its way."""

    writer: str
    number: int
    command: Command[Any]
    #: Of a renewal: the runs it names, as the model calls them.
    runs: Sequence[tuple[int, int]] = ()


@dataclass
class Writers:
    """The calls of one worker."""

    name: str
    numbers: dict[str, int] = field(default_factory=lambda: {})
    call: Sent | None = None
    old: Sent | None = None
    beat: Sent | None = None
    old_beat: Sent | None = None

    def send(self, what: str, command: Command[Any], runs: Sequence[tuple[int, int]] = ()) -> Sent:
        """Number a call."""
        self.numbers[what] = self.numbers.get(what, 0) + 1
        return Sent(f"{what}-{self.name}", self.numbers[what], command, runs)


class Reality:
    """A queue on which each step of the model is taken; `check` compares."""

    def __init__(self, lab: Lab, world: World) -> None:
        self._lab = lab
        self._world = world
        self._lease_ms = TICK_MS * world.lease
        self._names = iter(range(1_000_000))
        self._writers = [self._new_writers() for _ in range(world.workers)]
        self._orphans: list[Sent] = []
        self._tokens: dict[tuple[int, int], str] = {}
        lab.add(*[new(job_id=f"j{at}") for at in range(world.jobs)])
        self._sweep()
        self._sweep()  # nobody swept before the first one: that is late

    def take(self, what: tuple[Any, ...], before: State, after: State) -> None:
        """Take a step: what is sent, what is executed, how time goes on."""
        word = what[0].replace(" ", "_")
        act = getattr(self, f"_{word}", None)
        if act is not None:
            act(what, before, after)

    def check(self, state: State) -> None:
        """Compare every job, the line and the leases with the model."""
        lab, now = self._lab, self._lab.now()
        leases = lab.column("leases") or {}
        for at, job in enumerate(state.jobs):
            stored = lab.job(f"j{at}").run
            deadline = leases.get(f"j{at}")
            lease = -1 if deadline is None else max(0, -int((now - deadline) // TICK_MS))
            stood = {"waiting": "W", "active": "A", "completed": "C", "failed": "F"}[lab.state(f"j{at}") or ""]
            ended = stored.fails + stored.stalls + stored.releases + (stood == "C")
            token = self._tokens.get((at, job.token), "-") if job.token else "-"
            assert stored.token == token
            assert job == Job(stood, job.token, lease, stored.fails, stored.stalls, stored.starts - ended), f"job {at}"
        assert [f"j{at}" for at in state.wait] == lab.waiting()

    # -- what a worker sends

    def _call(self, what: tuple[Any, ...], _: State, after: State) -> None:
        _, at, outcomes, wanted = what
        writers = self._writers[at]
        if after.workers[at].old is None:
            writers.old = None
        settled = [
            Outcome(
                f"j{each.job}", self._tokens[each.job, each.token], _WORDS[each.word], NAME, "", 0 if each.word == "r" else ""
            )
            for each in outcomes
        ]
        command = settle_and_claim(
            self._lab.keys, worker="w", lease_ms=self._lease_ms, wanted=wanted, retention=RULES, progress=[], outcomes=settled
        )
        writers.call = writers.send("lane", command)

    def _answer(self, what: tuple[Any, ...], before: State, _: State) -> None:
        writers, call = self._writers[what[1]], before.workers[what[1]].call
        if call is not None and call.stray:
            writers.old = writers.call

    def _beat(self, what: tuple[Any, ...], before: State, after: State) -> None:
        _, at, runs = what
        writers = self._writers[at]
        held = [Held(f"j{job}", self._tokens[job, token]) for job, token in runs]
        writers.beat = writers.send("beat", renew_leases(self._lab.keys, self._lease_ms, held), runs)
        if self._world.quiet:
            self._run(writers.beat)

    def _beat_given_up(self, what: tuple[Any, ...], before: State, after: State) -> None:
        self._writers[what[1]].old_beat = self._writers[what[1]].beat
        self._beat(what, before, after)

    # -- what the server executes

    def _execute(self, what: tuple[Any, ...], before: State, after: State) -> None:
        reply, call = self._execute_call(self._writers[what[1]].call, before, after), after.workers[what[1]].call
        assert call is not None and call.reply is not None
        assert list(call.reply.stale) == reply.stale
        claims = [(f"j{claim.job}", self._tokens[claim.job, claim.token]) for claim in call.reply.claims]
        assert claims == [(job.id, job.token) for job in reply.jobs]

    def _stray(self, what: tuple[Any, ...], before: State, after: State) -> None:
        self._execute_call(self._writers[what[1]].call, before, after)

    def _old(self, what: tuple[Any, ...], before: State, after: State) -> None:
        self._execute_call(self._writers[what[1]].old, before, after)

    def _renew(self, what: tuple[Any, ...], _: State, after: State) -> None:
        sent, beat = self._writers[what[1]].beat, after.workers[what[1]].beat
        lost = self._run(sent)
        assert sent is not None
        if beat is not None and beat.reply is not None:
            # The model forgets runs that nobody asks about any more.
            told = {sent.runs[index] for index in lost} & set(beat.runs)
            assert {beat.runs[index] for index in beat.reply} <= told

    def _old_renew(self, what: tuple[Any, ...], _: State, __: State) -> None:
        self._run(self._writers[what[1]].old_beat)

    def _release(self, what: tuple[Any, ...], before: State, _: State) -> None:
        worker, writers = before.workers[what[1]], self._writers[what[1]]
        held = [Held(f"j{job}", self._tokens[job, token], NAME) for job, token in worker.releasing]
        self._run(writers.send("release", release_jobs(self._lab.keys, held)))

    _release_unanswered = _release

    def _orphan(self, what: tuple[Any, ...], before: State, after: State) -> None:
        self._execute_call(self._orphans.pop(what[1]), before, after)

    def _execute_call(self, sent: Sent | None, before: State, after: State) -> Any:
        reply = self._run(sent)
        for at, (was, job) in enumerate(zip(before.jobs, after.jobs, strict=True)):
            if job.token and job.token != was.token and reply is not None and not isinstance(reply, list):
                self._tokens[at, job.token] = next(claimed.token for claimed in reply.jobs if claimed.id == f"j{at}")
        return reply

    def _run(self, sent: Sent | None) -> Any:
        """Send a call as it was numbered; None for one that is refused as too old."""
        assert sent is not None
        reply = self._lab.send(sent.command, sent.writer, sent.number)
        return None if reply[0] == "STALE" else sent.command.read(reply)

    # -- what befalls them

    def _kill(self, what: tuple[Any, ...], before: State, after: State) -> None:
        gone = self._writers[what[1]]
        for orphan in after.orphans[len(before.orphans) :]:
            sent = gone.beat if hasattr(orphan, "runs") else gone.call
            assert sent is not None
            self._orphans.append(sent)
        self._writers[what[1]] = self._new_writers()

    def _leave(self, what: tuple[Any, ...], _: State, __: State) -> None:
        self._writers[what[1]] = self._new_writers()

    def _sweep(self, *_: Any) -> None:
        self._lab.call(sweep_queue(self._lab.keys, self._lease_ms, self._lease_ms, self._world.max_stalls, RULES), "sweeper")

    def _tick(self, _: tuple[Any, ...], before: State, __: State) -> None:
        """Let a tick pass; where the server runs, somebody sweeps all the while, but not at the very end."""
        if before.paused:
            self._lab.advance(TICK_MS / 1000)
            return
        self._sweep()
        for part in (0.45, 0.45, 0.1):
            self._lab.advance(TICK_MS / 1000 * part)
            if part > 0.1:
                self._sweep()

    _late_tick = _tick

    def _new_writers(self) -> Writers:
        return Writers(f"w{next(self._names)}")
