"""The event stream and the totals: every change told once, numbered without gaps, in entries of bounded size."""

from __future__ import annotations

import json
import random
from typing import Any, TypeVar

import pytest

from eventq.commands.core import Command
from eventq.commands.events import report_events
from eventq.commands.manage import (
    add_log,
    change_delay,
    change_priority,
    clean_jobs,
    clear_logs,
    pause_queue,
    promote_jobs,
    remove_jobs,
    resume_queue,
    retry_jobs,
    update_data,
)
from eventq.commands.upkeep import run_timers
from eventq.commands.work import Claimed, Outcome, Retention, release_jobs, renew_leases
from eventq.events import STREAM_EVENTS, AddedEvent, CompletedEvent, ErrorEvent
from eventq.states import JobState

from .invariants import check_queue
from .lab import LEASE_MS, Lab, held, new, outcome, progress

T = TypeVar("T")


def test_the_fields_of_an_entry(lab: Lab) -> None:
    """Six fixed fields, the clock the scripts go by, and JSON that any client can read."""
    before = lab.now()
    lab.add(new("a"), new("b", priority=2))
    (entry,) = lab.entries()
    fields = entry.fields
    assert list(fields) == ["kind", "seq", "n", "ms", "bytes", "events"]
    assert (fields["kind"], fields["seq"], fields["n"], fields["bytes"]) == ("added", "1", "2", str(len(fields["events"])))
    assert before <= int(fields["ms"]) <= lab.now()
    first, second = json.loads(fields["events"])
    assert first == {"job_id": first["job_id"], "name": "a", "state": "waiting"}
    assert second == {"job_id": second["job_id"], "name": "b", "state": "prioritized", "priority": 2}
    lab.advance(1_000)
    lab.add(new())
    assert int(lab.entries()[1].fields["ms"]) >= before + 1_000_000, "the time is not derived from the entry's id"


def test_seq_has_no_gaps_over_entries_and_scripts(lab: Lab) -> None:
    """Every script goes on counting where the last one stopped, entry by entry."""
    lab.add(*[new() for _ in range(250)])
    jobs = lab.claim(100).jobs
    lab.claim(100, outcomes=[outcome(job) for job in jobs])
    lab.call(pause_queue(lab.keys))
    lab.expire_leases()
    lab.sweep()
    lab.add(new())
    events = lab.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert (lab.meta("seq"), [entry.fields["n"] for entry in lab.entries()[:3]]) == (str(len(events)), ["100", "100", "50"])


def test_large_events_share_an_entry_up_to_32_kib(lab: Lab) -> None:
    """Results of a kilobyte each are spread over entries; no event is split, none is lost, none is told twice."""
    lab.add(*[new() for _ in range(100)])
    jobs = lab.claim(100).jobs
    results = [f'"{index:04}' + "x" * (16 * index) + '"' for index in range(100)]
    lab.settle(*[outcome(job, result=result) for job, result in zip(jobs, results, strict=True)])
    sizes = [len(entry.fields["events"]) for entry in lab.entries() if entry.fields["kind"] == "completed"]
    assert len(sizes) >= 3
    assert max(sizes) <= 32 * 1024 + 2
    assert min(sizes[:-1]) > 30 * 1024, "entries are filled"
    told = [event.result for event in lab.events() if isinstance(event, CompletedEvent)]
    assert told == [json.loads(result) for result in results]


def test_an_event_larger_than_an_entry_may_be(lab: Lab) -> None:
    """It has an entry for itself, between its neighbours."""
    lab.add(*[new() for _ in range(3)])
    jobs = lab.claim(3).jobs
    lab.settle(outcome(jobs[0]), outcome(jobs[1], result='"' + "x" * 40_000 + '"'), outcome(jobs[2]))
    assert [entry.fields["n"] for entry in lab.entries() if entry.fields["kind"] == "completed"] == ["1", "1", "1"]


def test_the_order_of_kinds_within_a_call(lab: Lab) -> None:
    """Progress, outcomes, what was removed, what came into line, what was claimed."""
    lab.add(*[new() for _ in range(4)], new(delay=5))
    jobs = lab.claim(4).jobs
    words = [("completed", "0"), ("failed", ""), ("retry", "")]
    lab.advance(6)
    lab.fresh()
    outcomes = [outcome(job, word, rule) for job, (word, rule) in zip(jobs, words, strict=False)]
    lab.claim(5, progress=[progress(job, "1") for job in jobs], outcomes=outcomes)
    kinds = list(dict.fromkeys(lab.fresh_kinds()))
    assert kinds == ["progress", "completed", "retrying", "failed", "removed", "waiting", "active"]


def test_text_of_users_comes_through(lab: Lab) -> None:
    """Whatever JSON a result or an error is, quotes and line ends and other alphabets: the events around it stay readable."""
    lab.add(new(), new())
    first, second = lab.claim(2).jobs
    value = {"text": 'a"b\\c\nd\u2028é漢\x7f', "n": [1.5, None, True], "]},{": "]"}
    lab.settle(outcome(first, result=json.dumps(value)), outcome(second, result=json.dumps(value, ensure_ascii=False)))
    assert [event.result for event in lab.events() if isinstance(event, CompletedEvent)] == [value, value]


def test_totals_keep_a_hundred_names(lab: Lab) -> None:
    """Further names are counted together, for as long as the queue lives, and by every script alike."""
    names = [f"name-{index:03}" for index in range(150)]
    lab.add(*[new(name) for name in names[:90]])
    lab.add(*[new(name) for name in names])
    lab.add(*[new(name) for name in names[60:]])
    assert lab.meta("names") == "100"
    assert {lab.total("added", name) for name in names[60:90]} == {3}
    own = [name for name in names[90:] if lab.total("added", name)]
    assert [lab.total("added", name) for name in own] == [2] * 10
    assert lab.total("added", "__other__") == 2 * 50
    jobs = [job for _ in range(4) for job in lab.claim(100).jobs]
    assert (len(jobs), lab.total("starts", "__other__")) == (330, 100)
    for start in range(0, len(jobs), 100):
        lab.settle(*[outcome(job, "exhausted") for job in jobs[start : start + 100]])
    assert (lab.total("exhausted", "__other__"), lab.total("failed", "name-070"), lab.total("failed", own[0])) == (100, 3, 2)


def test_a_name_with_spaces_and_slashes(lab: Lab) -> None:
    """Every name a job may have is counted and told as it is."""
    name = "a/b:c d.e_f-g"
    lab.finish(new(name), new("__other__"))
    assert (lab.total("added", name), lab.total("completed", name), lab.total("completed", "__other__")) == (1, 1, 1)
    assert [event.name for event in lab.events() if isinstance(event, AddedEvent)] == [name, "__other__"]


def test_events_that_are_no_transition(lab: Lab) -> None:
    """What workers report of themselves is numbered with the rest, in bounded entries, and answered with the last number."""
    lab.add(new())
    facts = [json.dumps({"worker": f"w{index}", "type": "OSError", "message": '"\n' * index}) for index in range(250)]
    assert lab.call(report_events(lab.keys, "error", facts)) == 251
    assert lab.call(report_events(lab.keys, "worker_stopped", ['{"worker":"w"}'])) == 252
    told = [event for event in lab.events() if isinstance(event, ErrorEvent)]
    assert [(event.worker, event.type, event.message) for event in told] == [
        (f"w{index}", "OSError", '"\n' * index) for index in range(250)
    ]
    lab.add(new())
    assert lab.events()[-1].seq == 253


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_random_workload_adds_up(lab: Lab, seed: int) -> None:
    """After hundreds of calls of every kind, states, counts, totals, runs and events agree."""
    workload = Workload(lab, random.Random(seed))
    workload.run(400)
    check_queue(lab)
    workload.drain()
    assert not lab.counts().keys() - {"completed", "failed"}
    missing = set(STREAM_EVENTS) - {event.kind for event in lab.events()}
    untold = {"error", "worker_started", "worker_stopped", "schedule_missed", "obliterated"}
    assert missing == untold, "every transition has been seen"


class Workload:
    """Calls of every kind, as producers, workers, a scheduler and an operator would make them in any order."""

    def __init__(self, lab: Lab, chance: random.Random) -> None:
        self.lab = lab
        self.chance = chance
        self.running: list[Claimed] = []
        self.added: list[str] = []
        self.rules = Retention((20, 300_000), (15, 600_000))

    def run(self, steps: int) -> None:
        """Make so many calls."""
        calls = [self.release, self.renew, self.sweep, self.stall, self.remove, self.retry, self.pause, self.timers]
        calls += [self.clean, self.promote, self.change]
        calls += [self.add] * 2 + [self.work] * 3
        for _ in range(steps):
            self.chance.choice(calls)()
            self.lab.advance(self.chance.choice([0, 0.01, 1, 10]))

    def drain(self) -> None:
        """Run everything that is left."""
        self.lab.call(resume_queue(self.lab.keys))
        self.lab.advance(60)
        for _ in range(20):
            self.running = self.lab.claim(100, outcomes=[outcome(job) for job in self.running]).jobs

    def add(self) -> None:
        """Add some, of every kind of place, some ids again."""
        priority = self.chance.randint(1, 3)
        places: list[dict[str, Any]] = [{}, {}, {"delay": 5}, {"priority": priority}, {"lifo": True}, {"delay": 3, "priority": 1}]
        names, records = ["a", "b", "c d"], []
        for _ in range(self.chance.randint(1, 12)):
            own = f"own-{self.chance.randint(1, 40)}" if self.chance.random() < 0.3 else None
            data = "1" * self.chance.choice([1, 3_000])
            records.append(new(self.chance.choice(names), data, job_id=own, **self.chance.choice(places)))
        self.lab.add(*records)
        self.added += [record.id for record in records]

    def work(self) -> None:
        """Settle some of what runs, some of it not ours any more, and claim some."""
        outcomes = [self.outcome(job) for job in self.some(self.running, 6)]
        telling = [progress(job, "7") for job in self.some(self.running, 3)]
        reply = self.lab.claim(self.chance.randint(0, 8), outcomes=outcomes, progress=telling, rules=self.rules)
        tokens = {each.token for each in outcomes}
        self.running = [job for job in self.running if job.token not in tokens] + reply.jobs

    def outcome(self, job: Claimed) -> Outcome:
        """Return some outcome of a run, with any of the rules."""
        word = self.chance.choice(["completed", "completed", "failed", "exhausted", "retry", "postpone"])
        if word in ("retry", "postpone"):
            return outcome(job, word, self.chance.choice([0, 2_000] if word == "retry" else [2_000]))
        rules = ["", "", "0", "forever", "count:5", "age:20000", "count:7 age:5000"]
        return outcome(job, word, self.chance.choice(rules), result="[1]" if word == "completed" else "")

    def release(self) -> None:
        """Give some back, perhaps some that are gone."""
        given = self.some(self.running, 3)
        self.lab.call(release_jobs(self.lab.keys, [held(job) for job in given] or [_NOBODY]))
        self.running = [job for job in self.running if job not in given]

    def renew(self) -> None:
        """Renew some."""
        self.lab.call(renew_leases(self.lab.keys, LEASE_MS, [held(job) for job in self.some(self.running, 5)] or [_NOBODY]))

    def sweep(self) -> None:
        """Sweep once; the workers do not know what they lost."""
        self.lab.sweep(max_stalls=1, rules=self.rules)

    def stall(self) -> None:
        """Let leases end."""
        if self.chance.random() < 0.6:
            self.lab.expire_leases()
            self.sweep()

    def remove(self) -> None:
        """Remove some, whatever they are."""
        self.lab.call(remove_jobs(self.lab.keys, self.some(self.added, 5) or ["nobody"]))

    def retry(self) -> None:
        """Retry some by hand."""
        state = self.chance.choice([JobState.FAILED, JobState.COMPLETED])
        ids = self.some(self.lab.ids(state), 3) or ["nobody"]
        self.lab.call(retry_jobs(self.lab.keys, ids, state=state, reset_attempts=self.chance.random() < 0.5))

    def pause(self) -> None:
        """Pause and soon resume."""
        self.lab.call(self.chance.choice([pause_queue, resume_queue, resume_queue])(self.lab.keys))

    def clean(self) -> None:
        """Clean a state a little; nobody sees to the cursor."""
        state = self.chance.choice([state for state in JobState if state not in (JobState.PAUSED, JobState.WAITING_CHILDREN)])
        grace, most, reason = (
            self.chance.choice([0, 20_000]),
            self.chance.randint(1, 3),
            self.chance.choice(["cleaned", "drained"]),
        )
        self.lab.call(clean_jobs(self.lab.keys, state, cutoff=f"-{grace}", cursor="", most=most, reason=reason))

    def promote(self) -> None:
        """Promote some, whatever they are."""
        self.lab.call(promote_jobs(self.lab.keys, self.some(self.added, 5) or ["nobody"]))

    def change(self) -> None:
        """Change something about one."""
        (job_id,) = self.chance.sample(self.added, 1) if self.added else ["nobody"]
        priority, lifo = self.chance.choice([0, 0, 1, 2]), self.chance.random() < 0.5
        changes: list[Command[Any]] = [
            change_delay(self.lab.keys, job_id, "+3000"),
            change_priority(self.lab.keys, job_id, priority, lifo=lifo),
            update_data(self.lab.keys, job_id, "", "1" * self.chance.choice([1, 3_000])),
            add_log(self.lab.keys, job_id, "", '"line"'),
            clear_logs(self.lab.keys, job_id, 1),
        ]
        self.lab.call(self.chance.choice(changes))

    def timers(self) -> None:
        """End what has expired."""
        self.lab.call(run_timers(self.lab.keys, self.rules))

    def some(self, things: list[T], most: int) -> list[T]:
        """Return a few of these."""
        return self.chance.sample(things, min(len(things), self.chance.randint(0, most)))


_NOBODY = held(Claimed("nobody", "x.1.0", "1\t1\t\t\t\tjob\t\n\n1", "", "", 1, 1))
