"""Every step that can be taken from a state: what the network, the server, the workers and time may do next.

A step is (what happens, the state after it); what happens is a tuple of a word and its particulars, and `tell` makes it English.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .server import OLDEST, Server
from .world import Beat, Call, Claim, Faults, Job, Outcome, Record, Request, Run, State, Violation, Worker, World

Step = tuple[tuple[Any, ...], State]
#: What a fair world does first, when nothing goes wrong any more. Time passes when nothing else is left to do.
FAIR: Final = (
    "resume", "wake", "leave", "end", "execute", "renew", "release", "answer", "renewed", "complete", "sweep", "call", "beat",
    "fence", "end of grace", "tick",
)  # fmt: skip
CLOSING: Final = ("closing", "closed")
RANK: Final = {word: at for at, word in enumerate(FAIR)}


class Model:
    """A world without some of its guards."""

    def __init__(self, world: World, off: frozenset[str] = frozenset()) -> None:
        self.world = world
        self.off = off
        # The local deadline: what is left of it when a call is sent.
        self.deadline = world.lease if "worker: margin" in off else world.lease - 1
        self.fenced = "worker: fence" not in off
        #: The step that was worked out last.
        self.tried: tuple[Any, ...] = ()

    def steps(self, state: State) -> Iterator[Step]:
        """Yield every step. Raises Violation where one breaks a promise by itself, after those before it."""
        for what, after in self._all(state):
            yield what, _tidy(after)

    def _trying(self, *what: Any) -> tuple[Any, ...]:
        """Note what is being worked out, for whoever has to tell what broke a promise."""
        self.tried = what
        return what

    def _all(self, state: State) -> Iterator[Step]:
        for at, worker in enumerate(state.workers):
            if not state.paused:
                yield from self._network(state, at, worker)
            if worker.mode != "frozen":
                yield from self._worker(state, at, worker)
            yield from self._misfortunes(state, at, worker)
        if not state.paused:
            yield from self._orphans(state)
            server = Server(state, self.world, self.off)
            if server.has_to_sweep or ("sweep: deadline" in self.off and any(job.lease > 0 for job in state.jobs)):
                what = server.sweep()
                yield ("sweep", what), self._stored(state, server)._replace(swept=0)
        yield from self._time(state)
        yield from self._server_faults(state)

    # -- what travels

    def _network(self, state: State, at: int, worker: Worker) -> Iterator[Step]:
        call = worker.call
        if call is not None:
            now = Request(0, call.outcomes, call.wanted)
            if call.reply is None:
                yield self._trying("execute", at), self._execute(state, at, now, is_waited_for=True)
            if call.stray:
                yield self._trying("stray", at), self._execute(state, at, now)
        if worker.old is not None:
            yield self._trying("old", at, worker.old.back), self._execute(state, at, worker.old)
        if worker.beat is not None and worker.beat.reply is None:
            yield self._trying("renew", at), self._renew(state, at, worker.beat)
        if worker.old_beat is not None:
            what = self._trying("old renew", at)
            server = Server(state, self.world, self.off)
            server.renew(worker.old_beat)
            # The same number again renews nothing.
            yield what, _with(self._stored(state, server), at, worker._replace(old_beat=None))
        if worker.releasing:
            what = self._trying("release", at)
            server = Server(state, self.world, self.off)
            server.release(worker.releasing)
            after = self._stored(state, server)
            yield what, _with(after, at, worker._replace(releasing=()))
            if state.faults.losses:
                faults = state.faults._replace(losses=state.faults.losses - 1)
                yield ("release unanswered", at), after._replace(faults=faults)

    def _execute(self, state: State, at: int, request: Request, *, is_waited_for: bool = False) -> State:
        server = Server(state, self.world, self.off)
        worker = state.workers[at]
        record, reply = server.settle_and_claim(worker.record, request)
        call = worker.call
        if is_waited_for and call is not None:
            if reply is None:
                raise Violation(f"worker {at} is told that its newest call is stale")
            call = call._replace(reply=reply)
        held = worker.held
        if server.accepted:
            held = tuple(run._replace(recorded=True) if (run.job, run.token) in server.accepted else run for run in held)
        return _with(self._stored(state, server), at, worker._replace(record=record, call=call, held=held))

    def _renew(self, state: State, at: int, beat: Beat) -> State:
        server = Server(state, self.world, self.off)
        done = beat.done if beat.done is not None else server.renew(beat.runs)
        # An older one is refused from here on.
        worker = state.workers[at]._replace(beat=beat._replace(done=done, reply=done), old_beat=None)
        return _with(self._stored(state, server), at, worker)

    def _orphans(self, state: State) -> Iterator[Step]:
        for index, orphan in enumerate(state.orphans):
            what = self._trying("orphan", index, orphan)
            server = Server(state, self.world, self.off)
            if isinstance(orphan, Beat):
                server.renew(orphan.runs)
            else:
                server.settle_and_claim(None, orphan)
            left = state.orphans[:index] + state.orphans[index + 1 :]
            yield what, self._stored(state, server)._replace(orphans=left)

    @staticmethod
    def _stored(state: State, server: Server) -> State:
        return state._replace(jobs=tuple(server.jobs), wait=tuple(server.wait))

    # -- what a worker does

    def _worker(self, state: State, at: int, worker: Worker) -> Iterator[Step]:
        if worker.call is None:
            yield from self._call(state, at, worker)
        elif worker.call.reply is not None:
            yield self._trying("answer", at, worker.call.reply), _with(state, at, self._answered(state, at, worker, worker.call))
        for index, run in enumerate(worker.held):
            yield from self._run(state, at, worker, index, run)
        yield from self._renewing(state, at, worker)
        is_sending = worker.call or worker.releasing or any(run.phase in "crf" for run in worker.held)
        if worker.mode == "closing":
            # The grace is over: what still runs is cancelled and given back, once.
            running = [run for run in worker.held if run.phase not in "crf"]
            held = tuple(run for run in worker.held if run.phase in "crf")
            releasing = (*worker.releasing, *((run.job, run.token) for run in running))
            yield ("end of grace", at), _with(state, at, worker._replace(mode="closed", held=held, releasing=releasing))
        elif worker.mode == "closed" and not is_sending:
            yield ("leave", at), _replaced(state, at)

    def _call(self, state: State, at: int, worker: Worker) -> Iterator[Step]:
        outcomes = tuple(Outcome(run.job, run.token, run.phase) for run in worker.held if run.phase in "crf")
        busy = len(worker.held) - len(outcomes)
        wanted = 0 if worker.mode in CLOSING else self.world.slots - busy
        if not outcomes and not (wanted and state.wait):
            return
        batches = [outcomes, outcomes + outcomes] if self.world.rude and outcomes else [outcomes]
        for batch in batches:
            record = worker.record and Record(worker.record.back + 1, None)
            old = worker.old and worker.old._replace(back=worker.old.back + 1)
            if old is not None and old.back > OLDEST:
                old = None
            # Earlier calls are not asked for again, so which of them was the last matters no more than that it was one.
            after = _with(state, at, worker._replace(call=Call(batch, wanted), record=record, old=old))
            if after.replica is not None and (kept := after.replica[2][at]) is not None:
                after = _replicated(after, at, Record(min(kept.back + 1, OLDEST + 1), None))
            yield ("call", at, batch, wanted), after

    def _answered(self, state: State, at: int, worker: Worker, call: Call) -> Worker:
        assert call.reply is not None
        held = {(run.job, run.token): run for run in worker.held}
        for index, outcome in enumerate(call.outcomes):
            run = held.pop((outcome.job, outcome.token), None)
            if run is not None and state.fresh:
                self._check_verdict(at, run, is_refused=index in call.reply.stale)
        releasing = list(worker.releasing)
        for claim in call.reply.claims:
            left = self._left(call, claim)
            is_closing = worker.mode in CLOSING and "worker: closing starts nothing" not in self.off
            if is_closing or (left < 0 and "worker: late claim given back" not in self.off):
                releasing.append((claim.job, claim.token))
                continue
            job = state.jobs[claim.job]
            if state.fresh and (job.state, job.token) != ("A", claim.token):
                raise Violation(f"worker {at} begins job {claim.job} though its claim was taken away")
            held[claim.job, claim.token] = Run(claim.job, claim.token, claim.fails, max(left, -1), "R")
        old = Request(0, call.outcomes, call.wanted) if call.stray else worker.old
        # Nobody asks for this reply again.
        record = worker.record and worker.record._replace(reply=None)
        return worker._replace(call=None, record=record, held=tuple(held.values()), releasing=tuple(releasing), old=old)

    def _left(self, call: Call, claim: Claim) -> int:
        age = 0 if "worker: claim counts from sending" in self.off else call.age
        return self.deadline - age - (0 if "worker: replayed claim is old" in self.off else claim.late)

    def _check_verdict(self, at: int, run: Run, *, is_refused: bool) -> None:
        if is_refused == run.recorded:
            told, true = ("refused", "recorded") if is_refused else ("recorded", "refused")
            raise Violation(f"worker {at} is told that its outcome of job {run.job} was {told}, and it was {true}")
        if is_refused and self.world.quiet:
            raise Violation(f"the outcome of job {run.job} was refused though nobody is at fault")

    def _run(self, state: State, at: int, worker: Worker, index: int, run: Run) -> Iterator[Step]:
        def after(new: Run | None, **changes: Any) -> State:
            held = worker.held[:index] + (() if new is None else (new,)) + worker.held[index + 1 :]
            return _with(state, at, worker._replace(held=held, **changes))

        given_back = (*worker.releasing, (run.job, run.token))
        if run.phase == "R":
            yield ("complete", at, run.job), after(run._replace(phase="c"))
            if state.faults.errors:
                is_last = run.fails + 1 >= self.world.attempts and "worker: attempts" not in self.off
                faults = state.faults._replace(errors=state.faults.errors - 1)
                yield ("error", at, run.job), after(run._replace(phase="f" if is_last else "r"))._replace(faults=faults)
            if self.fenced and run.left <= 0:
                left = run._replace(phase="X") if "worker: ended before released" in self.off else None
                yield ("fence", at, run.job), after(left, releasing=given_back)
        elif run.phase == "X":
            yield ("end", at, run.job), after(None)
        elif (
            worker.mode == "closed" and "worker: settling is not released" in self.off and given_back[-1] not in worker.releasing
        ):
            yield ("release over its head", at, run.job), after(run, releasing=given_back)

    def _renewing(self, state: State, at: int, worker: Worker) -> Iterator[Step]:
        beat = worker.beat
        if beat is not None and beat.reply is not None:
            yield self._trying("renewed", at, beat.reply), _with(state, at, self._renewed(at, worker, beat))
        if beat is None or (state.faults.losses and beat.reply is None):
            held = [run for run in worker.held if run.phase not in "crf" or "worker: settling is renewed" not in self.off]
            if not any(run.left < self.deadline for run in held):
                return
            new = Beat(tuple((run.job, run.token) for run in held))
            if self.world.quiet:
                if not state.paused:
                    what = self._trying("beat", at, new.runs)
                    renewed = self._renew(_with(state, at, worker._replace(beat=new)), at, new)
                    answered = renewed.workers[at]
                    assert answered.beat is not None
                    yield what, _with(renewed, at, self._renewed(at, answered, answered.beat))
            elif beat is None:
                yield ("beat", at, new.runs), _with(state, at, worker._replace(beat=new))
            else:
                faults = state.faults._replace(losses=state.faults.losses - 1)
                # One that was executed, and whose answer was lost, is a repeated call when it comes again: it renews nothing.
                old = beat.runs if beat.done is None else None
                given_up = _with(state, at, worker._replace(beat=new, old_beat=old))
                yield ("beat given up", at, new.runs), given_up._replace(faults=faults)

    def _renewed(self, at: int, worker: Worker, beat: Beat) -> Worker:
        assert beat.reply is not None
        lost = {beat.runs[index] for index in beat.reply}
        held: list[Run] = []
        for run in worker.held:
            if (run.job, run.token) in lost:
                if run.phase == "R":
                    continue
                if run.phase in "crf" and "worker: verdict decides" in self.off:
                    if run.recorded:
                        raise Violation(f"worker {at} is told that job {run.job} was lost, and its outcome was recorded")
                    continue
            renewed = (run.job, run.token) in beat.runs
            held.append(run._replace(left=max(-1, self.deadline - beat.age)) if renewed else run)
        return worker._replace(held=tuple(held), beat=None)

    # -- what goes wrong

    def _misfortunes(self, state: State, at: int, worker: Worker) -> Iterator[Step]:
        faults = state.faults
        if worker.mode == "frozen":
            yield ("wake", at), _with(state, at, worker._replace(mode="woken"))
        elif worker.mode == "up" and faults.freezes:
            yield from self._fault(state, "freezes", ("freeze", at), at, worker._replace(mode="frozen"))
        if worker.mode == "up" and faults.closes:
            yield from self._fault(state, "closes", ("close", at), at, worker._replace(mode="closing"))
        if faults.kills and worker != Worker():
            left: list[Request | Beat] = list(state.orphans)
            if worker.call is not None and (worker.record is None or worker.record.back > 0):
                left.append(Request(0, worker.call.outcomes, worker.call.wanted))
            if worker.beat is not None and worker.beat.done is None:
                left.append(Beat(worker.beat.runs))
            faults = faults._replace(kills=faults.kills - 1)
            yield ("kill", at), _replaced(state, at)._replace(faults=faults, orphans=tuple(left))
        if state.faults.losses and worker.mode != "frozen":
            yield from self._losses(state, at, worker)

    def _losses(self, state: State, at: int, worker: Worker) -> Iterator[Step]:
        call, beat = worker.call, worker.beat
        if call is not None and "worker: same number" in self.off:
            old = Request(1, call.outcomes, call.wanted)
            record = worker.record and Record(worker.record.back + 1, None)
            again = worker._replace(call=call._replace(age=0, reply=None), record=record, old=old)
            yield from self._fault(state, "losses", ("repeat", at), at, again)
        elif call is not None:
            again = worker._replace(call=call._replace(age=0, reply=None, stray=True))
            yield from self._fault(state, "losses", ("repeat", at), at, again)
        if beat is not None:
            age = 0 if "worker: renewal counts from sending" in self.off else beat.age
            again = worker._replace(beat=beat._replace(age=age, reply=None))
            yield from self._fault(state, "losses", ("repeat beat", at), at, again)

    @staticmethod
    def _fault(state: State, kind: str, what: tuple[Any, ...], at: int, worker: Worker) -> Iterator[Step]:
        faults = Faults(*(left - (name == kind) for name, left in zip(Faults._fields, state.faults, strict=True)))
        yield what, _with(state, at, worker)._replace(faults=faults)

    def _server_faults(self, state: State) -> Iterator[Step]:
        faults = state.faults
        if state.paused:
            yield ("resume",), state._replace(paused=False)
        elif faults.pauses:
            yield ("pause",), state._replace(paused=True, faults=faults._replace(pauses=faults.pauses - 1))
        if faults.failovers and state.replica is None and state.fresh:
            records = tuple(worker.record for worker in state.workers)
            yield ("replicate",), state._replace(replica=(state.jobs, state.wait, records))
        if faults.failovers and state.replica is not None:
            jobs, wait, records = state.replica
            workers = tuple(worker._replace(record=record) for worker, record in zip(state.workers, records, strict=True))
            faults = faults._replace(failovers=faults.failovers - 1)
            yield (
                ("failover",),
                state._replace(jobs=jobs, wait=wait, workers=workers, replica=None, faults=faults, fresh=False),
            )

    # -- time

    def _time(self, state: State) -> Iterator[Step]:
        """Time goes on when workers that run have looked at their deadlines and somebody has swept: both are more often."""
        if not state.paused and Server(state, self.world, self.off).has_to_sweep:
            return
        is_late = False
        for worker in state.workers:
            if worker.mode != "frozen":
                for run in worker.held:
                    if run.phase == "X" or (self.fenced and run.phase == "R" and run.left <= 0):
                        return
                is_late = is_late or not (state.paused or self._is_heard(worker))
        if not is_late:
            yield ("tick",), self._tick(state)
        elif state.faults.delays:
            faults = state.faults._replace(delays=state.faults.delays - 1)
            yield ("late tick",), self._tick(state)._replace(faults=faults)

    def _is_heard(self, worker: Worker) -> bool:
        """Whether everything has come that comes within a tick where nothing is slow."""
        if any(run.left < self.deadline for run in worker.held if self._is_renewable(run)) or worker.beat or worker.releasing:
            return False
        return worker.call is None or (self.world.quiet and (worker.record is None or worker.record.back > 0))

    def _is_renewable(self, run: Run) -> bool:
        return run.phase not in "crf" or "worker: settling is renewed" not in self.off

    def _tick(self, state: State) -> State:
        jobs = tuple(job._replace(lease=job.lease - 1) if job.lease > 0 else job for job in state.jobs)
        most = self.world.lease
        workers: list[Worker] = []
        for worker in state.workers:
            call = worker.call
            if call is not None and call.wanted:
                call = call._replace(age=min(call.age + 1, most))
            beat = worker.beat and worker.beat._replace(age=min(worker.beat.age + 1, most))
            held = tuple(run._replace(left=max(run.left - 1, -1)) for run in worker.held)
            mode = "up" if worker.mode == "woken" else worker.mode
            workers.append(worker._replace(mode=mode, call=call, beat=beat, held=held))
        swept = min(state.swept + 1, most) if state.paused else 0
        replica = state.replica
        if replica is not None:
            aged = tuple(job._replace(lease=job.lease - 1) if job.lease > 0 else job for job in replica[0])
            replica = (aged, replica[1], replica[2])
        return state._replace(jobs=jobs, workers=tuple(workers), swept=swept, replica=replica)


def _tidy(state: State) -> State:
    """Forget what can have no effect any more: renewals of runs that are neither held nor the present ones of their jobs."""
    for at, worker in enumerate(state.workers):
        beat = worker.beat
        if beat is None:
            continue
        held = {(run.job, run.token) for run in worker.held}
        if beat.done is None:
            kept = tuple(run for run in beat.runs if run in held or state.jobs[run[0]].token == run[1])
            if len(kept) < len(beat.runs):
                state = _with(state, at, worker._replace(beat=beat._replace(runs=kept) if kept else None))
        elif not held.intersection(beat.runs):
            state = _with(state, at, worker._replace(beat=None))
    return state


def _with(state: State, at: int, worker: Worker) -> State:
    return state._replace(workers=(*state.workers[:at], worker, *state.workers[at + 1 :]))


def _replaced(state: State, at: int) -> State:
    """Return the state with a new worker in the place of another: a writer that nobody has heard of."""
    after = _with(state, at, Worker())
    return after if after.replica is None else _replicated(after, at, None)


def _replicated(state: State, at: int, record: Record | None) -> State:
    """Return the state with another record of a worker's calls in the replica."""
    assert state.replica is not None
    jobs, wait, records = state.replica
    return state._replace(replica=(jobs, wait, (*records[:at], record, *records[at + 1 :])))


def check(world: World, state: State) -> None:
    """Raise Violation where a state breaks a promise.

    After a failover that lost writes less is promised: each job is in one place and its counts are right, no token but the
    present one is taken, and every job comes to an end; but not that what was told as recorded is, nor that nothing runs twice.
    """
    for at, job in enumerate(state.jobs):
        _check_place(state, at, job)
        _check_counts(world, at, job)
    if state.fresh:
        for at, worker in enumerate(state.workers):
            if worker.mode in ("up", *CLOSING):
                _check_runs(state, at, worker)


def _check_place(state: State, at: int, job: Job) -> None:
    in_line = state.wait.count(at)
    if (in_line, job.lease >= 0) != (job.state == "W", job.state == "A"):
        has_lease = "has a lease" if job.lease >= 0 else "has no lease"
        raise Violation(f"job {at} is {job.state}, stands {in_line} times in line and {has_lease}")
    if job.balance != (job.state == "A"):
        raise Violation(f"job {at} is {job.state}, and its starts without their ends are {job.balance}")


def _check_counts(world: World, at: int, job: Job) -> None:
    if job.stalls > world.max_stalls + 1 or (job.stalls > world.max_stalls and job.state != "F"):
        raise Violation(f"job {at} stalled {job.stalls} times and is {job.state}")
    if job.fails > world.attempts:
        raise Violation(f"job {at} failed {job.fails} times, and may be tried {world.attempts} times")
    if world.quiet and job.stalls:
        raise Violation(f"job {at} counts as stalled though nobody is at fault")


def _check_runs(state: State, at: int, worker: Worker) -> None:
    for run in worker.held:
        job = state.jobs[run.job]
        if run.phase in "RX" and (job.state, job.token) != ("A", run.token):
            raise Violation(f"worker {at} runs job {run.job} though it was taken away, and is not told")
