"""settle_and_claim, its second half: who is handed out, in which order, and what an entry without a job does."""

from __future__ import annotations

from typing import Any

import pytest

from eventq.commands.manage import pause_queue, remove_jobs
from eventq.events import ActiveEvent, WaitingEvent
from eventq.records import parse_run
from eventq.states import JobState

from .lab import LEASE_MS, WORKER, Lab, at_ms, new, outcome


def test_what_a_claim_hands_out(lab: Lab) -> None:
    """Record, token, start and fence; the fence is the seq of the job's active event, the lease is the worker's."""
    lab.add(new("a"), new("b", priority=1))
    lab.advance(4)
    reply = lab.claim(5, writer="lane", number=3)
    assert [job.token for job in reply.jobs] == ["lane.3.0", "lane.3.1"]
    assert {job.started_ms for job in reply.jobs} == {reply.now_ms}
    active = [event for event in lab.events() if isinstance(event, ActiveEvent)]
    assert [(event.job_id, event.seq, event.name, event.attempt, event.worker) for event in active] == [
        (job.id, job.fence, name, 1, WORKER) for job, name in zip(reply.jobs, "ab", strict=True)
    ]
    assert all(4 <= event.waited < 6 for event in active)
    leases = lab.column("leases")
    for job in reply.jobs:
        run = lab.job(job.id).run
        assert (run.token, run.starts, run.worker, run.started_ms) == (job.token, 1, WORKER, reply.now_ms)
        assert leases[job.id] == reply.now_ms + LEASE_MS


def test_fences_rise_for_ever(lab: Lab) -> None:
    """Every later run of any job has a higher fence, whatever happens in between."""
    lab.add(new(), new(), new())
    fences: list[int] = []
    for _ in range(3):
        jobs = lab.claim(3).jobs
        fences += [job.fence for job in jobs]
        lab.settle(*[outcome(job, "retry") for job in jobs])
    assert fences == sorted(set(fences))


def test_wait_runs_before_prioritized(lab: Lab) -> None:
    """No priority is the best one, then 1, then 2; first in, first out among equals."""
    names = ["5", "2", "", "1", "2b", "b"]
    lab.add(*[new(name or "plain", priority=int(name[0]) if name[:1].isdigit() else None) for name in names])
    order: list[str] = []
    for wanted in (1, 4, 10):
        order += [lab.job(job.id).record.name for job in lab.claim(wanted).jobs]
    assert order == ["plain", "b", "1", "2", "2b", "5"]


def test_a_paused_queue_hands_out_nothing(lab: Lab) -> None:
    """It settles what runs and promotes what is due, but claims nothing and wakes nobody."""
    lab.add(new(), new(), new(delay=5), new(priority=1))
    (job,) = lab.claim().jobs
    lab.call(pause_queue(lab.keys))
    lab.advance(6)
    reply = lab.claim(10, outcomes=[outcome(job)])
    assert (reply.jobs, reply.stale) == ([], [])
    assert lab.counts() == {"paused": 2, "prioritized": 1, "completed": 1}
    assert lab.marker() <= {"due"}


def test_due_jobs_are_promoted_before_claiming(lab: Lab) -> None:
    """A claim sees what became due, tells that it waits, and says how long until the next one is."""
    lab.add(new(job_id="soon", delay=10), new(job_id="later", delay=20), new(job_id="high", delay=10, priority=3))
    lab.add(new(job_id="last", delay=10), new(job_id="first", delay=10, lifo=True), new(job_id="now"))
    reply = lab.claim(1)
    assert [job.id for job in reply.jobs] == ["now"]
    assert 8_000 < (reply.next_due_ms or 0) <= 10_000
    lab.advance(11)
    lab.fresh()
    reply = lab.claim(10)
    assert [job.id for job in reply.jobs] == ["first", "soon", "last", "high"]
    assert 7_000 < (reply.next_due_ms or 0) <= 9_000
    waiting = [event for event in lab.fresh() if isinstance(event, WaitingEvent)]
    assert {event.job_id: (event.state, event.previous) for event in waiting} == {
        "soon": ("waiting", "delayed"),
        "high": ("prioritized", "delayed"),
        "last": ("waiting", "delayed"),
        "first": ("waiting", "delayed"),
    }
    assert all(event.due_ms == lab.job(event.job_id).record.due_ms for event in waiting)
    lab.advance(20)
    lab.claim(10)
    assert lab.claim(10).next_due_ms is None


def test_promotion_comes_in_slices(lab: Lab) -> None:
    """One claim promotes at most a hundred; it says that the next one is due now."""
    lab.add(*[new(at=at_ms(lab.now() + 5_000)) for _ in range(250)])
    lab.advance(6)
    assert (len(lab.claim(10).jobs), lab.counts()["delayed"]) == (10, 150)
    assert lab.claim(10).next_due_ms == 0
    assert lab.claim(10).next_due_ms is None


def test_a_job_is_not_promoted_before_its_time(lab: Lab) -> None:
    """The fraction that orders jobs of one ms neither delays nor hastens them by a ms."""
    due = lab.now() + 60_000
    lab.add(*[new(at=at_ms(due)) for _ in range(3)])
    lab.redis("HINCRBY", lab.keys["meta"], "clock_offset", 50_000)
    assert lab.claim(5).jobs == []
    while lab.now() < due:
        lab.redis("HINCRBY", lab.keys["meta"], "clock_offset", due - lab.now())
    assert len(lab.claim(5).jobs) == 3


def test_removed_jobs_leave_holes(lab: Lab) -> None:
    """A removed waiting job stays in the list as a hole, is never handed out or counted, and goes with the next claim."""
    lab.add(*[new(job_id=job_id) for job_id in "abcdef"])
    assert lab.call(remove_jobs(lab.keys, ["a", "c", "f"])) == "ddd"
    assert (lab.waiting(), lab.meta("holes"), lab.counts()) == (list("abcdef"), "3", {"waiting": 3})
    assert [job.id for job in lab.claim(2).jobs] == ["b", "d"]
    assert (lab.waiting(), lab.meta("holes")) == (["e", "f"], "1")
    assert [job.id for job in lab.claim(2).jobs] == ["e"]
    assert (lab.waiting(), lab.meta("holes")) == ([], "0")


@pytest.mark.parametrize("again", [{}, {"lifo": True}, {"priority": 1}, {"delay": 5}], ids=str)
@pytest.mark.parametrize("wanted", [1, 5])
def test_an_id_that_is_added_again_over_its_hole(lab: Lab, again: dict[str, Any], wanted: int) -> None:
    """The hole of a removed job is not taken for the new job of the same id, which is handed out once, from its place."""
    lab.add(new(job_id="own"), new(job_id="other"))
    lab.call(remove_jobs(lab.keys, ["own"]))
    lab.add(new("again", job_id="own", **again))
    assert sum(lab.counts().values()) == 2
    seen: list[str] = []
    for _ in range(4):
        seen += [job.id for job in lab.claim(wanted).jobs]
        lab.advance(3)
    assert sorted(seen) == ["other", "own"]
    assert (lab.counts(), lab.meta("holes"), lab.waiting()) == ({"active": 2}, "0", [])
    assert lab.job("own").run.starts == 1


def test_an_id_over_two_holes(lab: Lab) -> None:
    """Removed and added again twice: three entries, one job, counted right all the way."""
    for _ in range(3):
        lab.call(remove_jobs(lab.keys, ["own"]))
        lab.add(new(job_id="own"))
    lab.add(new(job_id="other"))
    assert (lab.waiting(), lab.counts()) == (["own", "own", "own", "other"], {"waiting": 2})
    (job,) = lab.claim(1).jobs
    assert (job.id, lab.counts()) == ("own", {"waiting": 1, "active": 1})
    lab.settle(outcome(job))
    assert [job.id for job in lab.claim(5).jobs] == ["other"]
    assert lab.meta("holes") == "0"


def test_more_holes_than_one_call_looks_at(lab: Lab) -> None:
    """A call looks at 500 entries; the worker that found only holes is woken again for the rest."""
    ids = [f"id-{index}" for index in range(510)]
    for start in (0, 255):
        lab.add(*[new(job_id=job_id) for job_id in ids[start : start + 255]])
    lab.add(new(job_id="behind"), new(job_id="far-behind", priority=1))
    for start in (0, 255):
        lab.call(remove_jobs(lab.keys, ids[start : start + 255]))
    lab.redis("DEL", lab.keys["marker"])
    assert lab.claim(10).jobs == []
    assert (lab.meta("holes"), lab.marker()) == ("10", {"0"})
    assert [job.id for job in lab.claim(10).jobs] == ["behind", "far-behind"]


def test_an_unreadable_record_is_claimed_all_the_same(lab: Lab) -> None:
    """Its worker fails it alone, with a reason; it blocks nothing and is counted under no name."""
    lab.sound = False  # a name that no event of adding had
    lab.add(new(job_id="bad"), new(job_id="newer"), new(job_id="good"), new(job_id="bad-too", priority=1))
    lab.redis("HSET", lab.keys["jobs"], "bad", "gibberish", "newer", "2\tx\n\n1", "bad-too", "")
    lab.redis("HSET", lab.keys["jobs"], "bad-too", "\t\n")
    reply = lab.claim(10)
    assert [job.id for job in reply.jobs] == ["bad", "newer", "good", "bad-too"]
    assert (lab.total("starts", "__other__"), lab.total("starts", "job")) == (3, 1)
    assert lab.settle(*[outcome(job, "failed") for job in reply.jobs]) == []
    assert lab.redis("ZCARD", lab.keys["failed"]) == 4


def test_a_call_hands_out_a_mebibyte(lab: Lab) -> None:
    """What is beyond stays where it is, in order, for the next call; a first job is handed out whatever its size."""
    large = [new(job_id=f"{index}", data='"' + "x" * 300_000 + '"') for index in range(7)]
    huge = new(job_id="huge", data='"' + "x" * 1_500_000 + '"')
    lab.add(*large[:3])
    lab.add(huge)
    lab.add(*large[3:])
    got = [[job.id for job in lab.claim(100).jobs] for _ in range(5)]
    assert got == [["0", "1", "2"], ["huge"], ["3", "4", "5"], ["6"], []]


def test_a_mebibyte_of_prioritized_jobs(lab: Lab) -> None:
    """The budget holds over both lines together, and in `prioritized` too nobody loses their place."""
    large = [new(job_id=f"{index}", data='"' + "x" * 300_000 + '"', priority=index or None) for index in range(6)]
    lab.add(*large[:3])
    lab.add(*large[3:])
    got = [[job.id for job in lab.claim(100).jobs] for _ in range(3)]
    assert got == [["0", "1", "2"], ["3", "4", "5"], []]


def test_a_claim_that_empties_the_line_clears_the_marker(lab: Lab) -> None:
    """And one that leaves work arms it: whoever claimed less than there is wakes the next."""
    lab.add(new(), new(), new())
    lab.claim(2)
    assert lab.marker() >= {"0"}
    lab.claim(2)
    assert lab.marker() == set()
    lab.add(new(delay=5))
    lab.advance(6)
    lab.claim(0)
    assert lab.marker() >= {"0"}


def test_a_job_that_ran_before_keeps_its_counters(lab: Lab) -> None:
    """The run that a claim hands out says how often it started, failed, stalled and was given back."""
    lab.add(new())
    (job,) = lab.claim().jobs
    lab.settle(outcome(job, "retry"))
    (job,) = lab.claim().jobs
    lab.expire_leases()
    lab.sweep()
    (job,) = lab.claim(worker="worker-2").jobs
    run = parse_run(job.run)
    assert (run.state, run.token, run.worker) == (JobState.ACTIVE, job.token, "worker-2")
    assert (run.starts, run.fails, run.stalls, run.releases) == (3, 1, 1, 0)
    assert run == lab.job(job.id).run
