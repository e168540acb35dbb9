"""report_worker and observe_queue: who works, and how a queue is, without a look at every job."""

from __future__ import annotations

from typing import Any

import pytest

from eventq.commands.events import Position, hold_consumer
from eventq.commands.manage import pause_queue, remove_jobs
from eventq.commands.upkeep import run_timers
from eventq.commands.watch import QueueState, Vital, observe_queue, report_worker
from eventq.states import JobState

from . import test_schedules as schedules
from .lab import RULES, Lab, new, outcome

TTL_MS = 15_000


def report(
    lab: Lab, busy_ms: int, *, name: str = "w", incarnation: str = "one", counted: int = 0, hold: int = TTL_MS, **facts: Any
) -> int:
    """Report as a worker does, and return what it is told."""
    vital = Vital(
        incarnation, busy_ms, counted, facts.get("slots", 4), facts.get("busy", 0), facts.get("oldest", 0), 0, '{"pid":1}'
    )
    return lab.call(report_worker(lab.keys, name, hold, vital), f"{name}-{incarnation}")


def state(lab: Lab, after: str = "0-0") -> QueueState:
    """Look at the queue."""
    return lab.call(observe_queue(lab.keys, after))


def age(lab: Lab, of: JobState) -> float | None:
    """Return the age of the oldest job of a state in seconds, None for none."""
    seen = state(lab)
    since = seen.since_ms.get(of)
    return None if since is None else (seen.now_ms - since) / 1000


def test_busy_time_is_counted_once_whoever_comes_and_goes(lab: Lab) -> None:
    """It is what each incarnation says, added up; a thread's view that is a little behind takes nothing away."""
    assert report(lab, 700) == 700
    assert report(lab, 650, counted=700) == 700
    assert report(lab, 800, counted=700) == 800
    assert report(lab, 900, counted=700) == 900, "the answer before was lost"
    assert report(lab, 50, incarnation="two") == 50  # the same name, another process
    assert report(lab, 1_000, name="v") == 1_000
    assert report(lab, 60, incarnation="two", counted=50, hold=0) == 60
    assert state(lab).busy_ms == 900 + 60 + 1_000


def test_what_a_worker_said_before_its_record_went_is_not_counted_again(lab: Lab) -> None:
    """It says itself how much of it is known to be counted."""
    report(lab, 700)
    lab.redis("DEL", lab.keys["workers"])
    assert report(lab, 800, counted=700) == 800
    assert state(lab).busy_ms == 800


def test_live_workers_are_those_heard_of_lately(lab: Lab) -> None:
    """One that says that it goes is gone at once; one that falls silent when its time ends, and from Redis some time later."""
    report(lab, 0, slots=4, busy=2, oldest=5)
    report(lab, 0, name="v", slots=1)
    seen = state(lab)
    assert {(each.name, each.slots, each.busy, each.facts["pid"]) for each in seen.workers} == {("w", 4, 2, 1), ("v", 1, 0, 1)}
    assert seen.since_ms[JobState.ACTIVE] == 5
    report(lab, 0, name="v", hold=0)
    assert [each.name for each in state(lab).workers] == ["w"]
    lab.advance(TTL_MS / 1000 + 1)
    assert state(lab).workers == [] and JobState.ACTIVE not in state(lab).since_ms
    assert set(lab.column("workers")) == {"w"}
    lab.advance(601)
    lab.call(run_timers(lab.keys, RULES))
    assert lab.column("workers") is None
    assert [member for member in lab.members("timers") if member.startswith("worker")] == []


def test_a_worker_that_is_heard_of_again_stays(lab: Lab) -> None:
    """The timer of its record looks at when it was last heard of."""
    report(lab, 0)
    lab.advance(590)
    report(lab, 0)
    lab.advance(30)
    lab.call(run_timers(lab.keys, RULES))
    assert set(lab.column("workers")) == {"w"}
    lab.advance(600)
    lab.call(run_timers(lab.keys, RULES))
    assert lab.column("workers") is None


def test_a_worker_of_the_same_name_does_not_end_its_successor(lab: Lab) -> None:
    """A late farewell of an older process leaves the record of the younger one."""
    report(lab, 0, incarnation="one")
    report(lab, 0, incarnation="two")
    report(lab, 0, incarnation="one", hold=0)
    assert [each.name for each in state(lab).workers] == ["w"]


def test_ages_of_an_empty_queue(lab: Lab) -> None:
    """Nothing waits, nothing is old, nothing is counted."""
    seen = state(lab)
    assert (seen.seq, seen.entries, seen.oldest_event_ms, seen.unread_ms) == (0, 0, None, None)
    assert (seen.since_ms, seen.workers, seen.schedules, seen.totals) == ({}, [], [], {})
    assert set(seen.counts.values()) == {0}


def test_age_of_the_line(lab: Lab) -> None:
    """Since it was ready: not while it was delayed; over holes and jobs that came back to the head; of last-in-first-out the tail."""
    lab.add(new(job_id="old"), *[new(job_id=f"gone{index}") for index in range(3)])
    lab.advance(10)
    lab.add(new(job_id="young"), new(delay=5))
    assert age(lab, JobState.WAITING) == pytest.approx(10, abs=0.5)
    lab.call(remove_jobs(lab.keys, ["old", "gone0", "gone1", "gone2"]))
    assert age(lab, JobState.WAITING) == pytest.approx(0, abs=0.5)
    lab.advance(7)
    lab.sweep()
    assert age(lab, JobState.WAITING) == pytest.approx(7, abs=0.5)
    lab.add(*[new(lifo=True) for _ in range(50)])
    assert age(lab, JobState.WAITING) == pytest.approx(7, abs=0.5)
    lab.call(pause_queue(lab.keys))
    assert age(lab, JobState.WAITING) is None
    assert age(lab, JobState.PAUSED) == pytest.approx(7, abs=0.5)
    assert state(lab).counts[JobState.PAUSED] == 52


def test_age_of_a_job_that_came_back(lab: Lab) -> None:
    """A retried job is as old as its due time, though others stand before it."""
    lab.add(new(job_id="a"))
    (job,) = lab.claim().jobs
    lab.advance(20)
    lab.add(new(job_id="b"))
    lab.settle(outcome(job, "retry"))
    lab.advance(5)
    assert age(lab, JobState.WAITING) == pytest.approx(5, abs=0.5)


def test_age_of_priorities(lab: Lab) -> None:
    """The oldest of all priorities, though others are served first."""
    lab.add(new(priority=9))
    lab.advance(30)
    lab.add(*[new(priority=priority) for priority in (1, 1, 2, 9)])
    assert age(lab, JobState.PRIORITIZED) == pytest.approx(30, abs=0.5)


def test_age_of_what_is_overdue(lab: Lab) -> None:
    """A delayed job has no age before it is due."""
    lab.add(new(delay=10))
    assert age(lab, JobState.DELAYED) is None
    lab.advance(13)
    assert age(lab, JobState.DELAYED) == pytest.approx(3, abs=0.5)


def test_counts_are_those_of_the_queue(lab: Lab) -> None:
    """Every state, O(1)."""
    lab.add(new(), new(), new(priority=1), new(delay=60))
    lab.claim()
    assert {s: n for s, n in state(lab).counts.items() if n} == {
        JobState.WAITING: 1, JobState.PRIORITIZED: 1, JobState.DELAYED: 1, JobState.ACTIVE: 1,
    }  # fmt: skip
    assert state(lab).totals == {"added job": 4, "starts job": 1}


def test_schedules_say_when_they_run(lab: Lab) -> None:
    """The next slot, and the last one that was fired."""
    found = schedules.set_up(lab)
    (seen,) = state(lab).schedules
    assert (seen.id, seen.next_ms, seen.last_ms) == ("tick", found.standing.next_ms, None)


def test_what_a_reader_has_still_to_read(lab: Lab) -> None:
    """When the oldest event after its position was written; a reader that is there has none."""
    lab.add(new())
    first, *_ = lab.column("events")
    seen = state(lab)
    assert seen.unread_ms == seen.oldest_event_ms
    lab.advance(9)
    assert state(lab, first).unread_ms is None
    lab.add(new())
    seen = state(lab, first)
    assert seen.unread_ms == seen.now_ms or seen.unread_ms == pytest.approx(seen.now_ms, abs=500)
    assert (seen.entries, seen.seq) == (2, 2)


def test_a_state_is_kept_with_the_position(lab: Lab) -> None:
    """Whoever takes the name gets both; a save is not answered with what it said."""
    text = "x" * 5_000 + "\ny z"
    lab.call(hold_consumer(lab.keys, "metrics", "me", 10_000, position=Position("e", "1-0", 1), state=text), "one")
    lab.advance(11)
    taken = lab.call(hold_consumer(lab.keys, "metrics", "you", 10_000), "two")
    assert (taken.held, taken.state, taken.position) == (True, text, Position("e", "1-0", 1))


def test_age_behind_many_holes(lab: Lab) -> None:
    """Jobs that were removed at the head and at the tail hide nobody's age."""
    for start in range(0, 600, 200):
        lab.add(*[new(job_id=f"{number:03}") for number in range(start, start + 200)])
    lab.advance(9)
    for gone in (range(300), range(550, 600)):
        lab.call(remove_jobs(lab.keys, [f"{number:03}" for number in gone]))
    assert age(lab, JobState.WAITING) == pytest.approx(9, abs=0.5)
