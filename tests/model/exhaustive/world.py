"""What the exhaustive model is about: a state as nested tuples, the bounds of a world, and the guards that can be taken away.

Time is counted in ticks and always relative to now: `lease` and `left` are what is left of it, `age` is how long ago. So a state
says nothing of its past, and the same situation is the same state whenever it comes. Tokens are small numbers for the same
reason: a claim takes the least one that nobody knows of any more, as only their equality matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

#: What a switch is called -> what eventq does, and no longer does once it is off. Without any one of them a promise breaks. Two
#: things that scripts do are none of these, because others stand before them: a sweep, a release and a settle also clear the
#: token, but what is refused is refused because the job is not active any more, or has the token of its next run.
GUARDS: Final = {
    # -- the scripts
    "settle: token": "an outcome is recorded only under the token of the job's present run",
    "settle: once in a batch": "the same run twice in one batch is recorded once",
    "settle: lease ends": "a settled job leaves the set of leases",
    "renew: token": "a lease is renewed only under the token of the job's present run",
    "renew: no resurrection": "a lease that was taken away stays away",
    "release: token": "a job is given back only under the token of its present run",
    "release: counted": "a run that is given back counts as a release",
    "sweep: deadline": "only what expired is taken back",
    "sweep: counted": "a run that is taken back counts as a stall",
    "sweep: leaves the lease set": "what is taken back leaves the set of leases",
    "sweep: max_stalls": "a job that stalled too often ends failed",
    "sweep: grace": "after an unwatched while live workers get two thirds of a lease before anything is taken back",
    "call: replay": "the same number again is answered from the record",
    "call: lower refused": "a number lower than the last one does nothing",
    "replay: taken away left out": "a repeated claim does not hand out what was taken away since",
    # -- the worker
    "worker: same number": "a call is repeated under its number until its reply is known",
    "worker: fence": "a run that could not be confirmed in time is cancelled",
    "worker: margin": "the local deadline lies before the end of the lease on the server",
    "worker: claim counts from sending": "the lease of a claim is counted from when the call was sent, not from its reply",
    "worker: renewal counts from sending": "the lease of a renewal is counted from when it was first sent",
    "worker: replayed claim is old": "the lease of a claim that was repeated is counted from when the run began",
    "worker: late claim given back": "a claim that came in after its deadline is not begun",
    "worker: settling is renewed": "a run is renewed until its verdict is known",
    "worker: verdict decides": "a renewal that finds a settling run gone says nothing about it",
    "worker: settling is not released": "a worker that closes does not give back what it has sent an outcome of",
    "worker: ended before released": "a run is given back once it has ended, not when it is cancelled",
    "worker: closing starts nothing": "jobs that arrive after closing began are given back",
    "worker: attempts": "a job that failed often enough is not tried again",
}


class Job(NamedTuple):
    """A job on the server. state: W(aiting) A(ctive) C(ompleted) F(ailed). lease: ticks left, -1 not in the set.

    balance: starts without what ended a run (completed, failed attempt, stalled, released).
    """

    state: str = "W"
    token: int = 0
    lease: int = -1
    fails: int = 0
    stalls: int = 0
    balance: int = 0


class Outcome(NamedTuple):
    """word: c(ompleted), r(etry), f(ailed)."""

    job: int
    token: int
    word: str


class Claim(NamedTuple):
    """late: ticks between the begin of the run and this reply."""

    job: int
    token: int
    fails: int
    late: int


class Reply(NamedTuple):
    """What settle_and_claim answers."""

    stale: tuple[int, ...]
    claims: tuple[Claim, ...]


class Request(NamedTuple):
    """A settle_and_claim as it is sent; `back`: how many calls of its writer ago it was the newest."""

    back: int
    outcomes: tuple[Outcome, ...]
    wanted: int


class Call(NamedTuple):
    """The call a worker waits for. reply: on its way to the worker. stray: a copy on a connection that was given up."""

    outcomes: tuple[Outcome, ...]
    wanted: int
    age: int = 0
    reply: Reply | None = None
    stray: bool = False


class Record(NamedTuple):
    """What the server keeps of a writer's last call; a reply only where somebody may still ask for it."""

    back: int
    reply: Reply | None


class Run(NamedTuple):
    """A run in a worker. phase: R(unning), X (cancelled, about to end), or the word of its outcome. recorded: told by nobody, the
    truth."""

    job: int
    token: int
    fails: int
    left: int
    phase: str
    recorded: bool = False


class Beat(NamedTuple):
    """A renewal in flight. done: what the server answered, as the record has it; reply: the same, on its way to the worker."""

    runs: tuple[tuple[int, int], ...]
    age: int = 0
    done: tuple[int, ...] | None = None
    reply: tuple[int, ...] | None = None


class Worker(NamedTuple):
    """mode: up, woken (and has not looked at its deadlines), frozen, closing (no claims), closed (its grace is over). old: requests of earlier numbers that still travel."""

    mode: str = "up"
    call: Call | None = None
    record: Record | None = None
    old: Request | None = None
    held: tuple[Run, ...] = ()
    beat: Beat | None = None
    old_beat: tuple[tuple[int, int], ...] | None = None
    releasing: tuple[tuple[int, int], ...] = ()


class Faults(NamedTuple):
    """How many of each may still happen. delays: ticks that pass while something is on its way or a renewal is not sent."""

    kills: int = 0
    freezes: int = 0
    losses: int = 0
    delays: int = 0
    errors: int = 0
    closes: int = 0
    pauses: int = 0
    failovers: int = 0


class State(NamedTuple):
    """Everything. swept: ticks since the last sweep. paused: the server stands still. orphans: requests of workers that are gone.
    replica: the jobs, line and call records that a failover would bring back. fresh: no failover was."""

    jobs: tuple[Job, ...]
    wait: tuple[int, ...]
    workers: tuple[Worker, ...]
    faults: Faults
    orphans: tuple[Request | Beat, ...] = ()
    swept: int = 0
    paused: bool = False
    replica: tuple[tuple[Job, ...], tuple[int, ...], tuple[Record | None, ...]] | None = None
    fresh: bool = True


@dataclass(frozen=True)
class World:
    """Bounds. quiet: nobody is at fault (but for the server, which may stand still, and a lane, which may be slow to send), so no
    run may be counted as stalled and no outcome refused."""

    name: str
    faults: Faults
    workers: int = 2
    jobs: int = 2
    slots: int = 1
    lease: int = 2
    attempts: int = 2
    max_stalls: int = 1
    quiet: bool = False
    #: A writer that names one run twice in a batch.
    rude: bool = False

    @property
    def start(self) -> State:
        """Return the state in which all jobs wait."""
        return State((Job(),) * self.jobs, tuple(range(self.jobs)), (Worker(),) * self.workers, self.faults)


class Violation(Exception):
    """A promise that is broken; its text says which."""
