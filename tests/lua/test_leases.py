"""Leases: renewed, ended by the sweep, given back. A lease that is gone stays gone."""

from __future__ import annotations

import json

import pytest

from eventq.commands.manage import pause_queue
from eventq.commands.work import Held, release_jobs, renew_leases
from eventq.events import FailedEvent, ReleasedEvent, StalledEvent
from eventq.states import JobState

from .lab import LEASE_MS, WORKER, Lab, fragment, held, new, outcome


def test_a_renewal_moves_the_deadline(lab: Lab) -> None:
    """The lease ends that long after the renewal; what is not ours is named by its index."""
    lab.add(new(), new(), new())
    jobs = lab.claim(3).jobs
    lab.settle(outcome(jobs[1]))
    lab.advance(30)
    before = lab.now()
    lost = lab.call(renew_leases(lab.keys, LEASE_MS, [held(jobs[0]), held(jobs[1]), Held("nobody", "x.1.0"), held(jobs[2])]))
    assert lost == [1, 2]
    leases = lab.column("leases")
    assert all(before + LEASE_MS <= leases[jobs[index].id] <= lab.now() + LEASE_MS for index in (0, 2))
    assert jobs[1].id not in leases


def test_a_renewal_never_resurrects(lab: Lab) -> None:
    """Once the sweep took a job back, its old worker's renewal says so and changes nothing, whoever has the job now."""
    lab.add(new())
    (old,) = lab.claim().jobs
    lab.expire_leases()
    lab.sweep()
    assert lab.call(renew_leases(lab.keys, LEASE_MS, [held(old)])) == [0]
    assert (lab.members("leases"), lab.state(old.id)) == ([], JobState.WAITING)

    (young,) = lab.claim(worker="worker-2").jobs
    leases = lab.column("leases")
    assert lab.call(renew_leases(lab.keys, LEASE_MS * 9, [held(old)])) == [0]
    assert lab.column("leases") == leases
    assert lab.call(renew_leases(lab.keys, LEASE_MS, [held(young)])) == []


def test_a_renewed_lease_is_not_swept(lab: Lab) -> None:
    """Of two jobs whose leases ran equally long only the one that nobody renewed is taken back."""
    lab.add(new(), new())
    dead, alive = lab.claim(2).jobs
    for seconds in (25, 25):
        lab.sweep()
        lab.advance(seconds)
    lab.sweep()
    lab.call(renew_leases(lab.keys, LEASE_MS, [held(alive)]))
    lab.advance(11)
    assert lab.sweep().reclaimed == 1
    assert (lab.state(dead.id), lab.state(alive.id)) == ("waiting", "active")


def test_stalled_jobs_go_to_the_head_in_order(lab: Lab) -> None:
    """What a dead worker held runs next, as it would have; a prioritized job goes back to its own place."""
    lab.add(*[new(job_id=job_id) for job_id in "abcde"], *[new(job_id=f"p{index}", priority=4) for index in range(3)])
    lab.claim(4)
    lab.settle(outcome(lab.claim(1).jobs[0]))
    lab.claim(2)
    lab.add(new(job_id="f"))
    lab.expire_leases()
    reply = lab.sweep()
    assert (reply.reclaimed, reply.more, reply.next_lease_ms) == (6, False, None)
    assert lab.waiting() == list("abcdf")
    assert lab.members("prioritized") == ["p0", "p1", "p2"]


def test_a_stalled_event_says_what_was_lost(lab: Lab) -> None:
    """Who held it, for how long, how often it stalled; the attempt is not raised by it."""
    lab.add(new())
    (job,) = lab.claim().jobs
    lab.expire_leases()
    lab.fresh()
    lab.sweep()
    (event,) = lab.fresh()
    assert isinstance(event, StalledEvent)
    assert (event.job_id, event.name, event.worker, event.attempt) == (job.id, "job", WORKER, 1)
    assert (event.stalls, event.state, event.previous) == (1, "waiting", "active")
    assert LEASE_MS <= event.ran_ms < LEASE_MS + 10_000
    run = lab.job(job.id).run
    assert (run.token, run.worker, run.starts, run.stalls, run.fails) == ("-", "-", 1, 1, 0)
    assert lab.total("stalled") == 1


def test_too_many_stalls_fail_a_job(lab: Lab) -> None:
    """A job that takes its workers down with it ends failed, with the reason, and blocks nothing any more."""
    lab.add(new(job_id="poison", attempts=9))
    for stalls in (1, 2, 3):
        assert len(lab.claim().jobs) == 1
        lab.expire_leases()
        lab.fresh()
        lab.sweep(max_stalls=2)
        assert (lab.job("poison").run.stalls, lab.fresh_kinds()) == (stalls, ["stalled"] if stalls < 3 else ["failed"])
    assert lab.state("poison") is JobState.FAILED
    assert json.loads(lab.job("poison").result or "")["type"] == "Stalled"
    event = lab.events()[-1]
    assert isinstance(event, FailedEvent)
    assert (event.reason, event.exhausted, event.stalls, event.error.type) == ("stalled", False, 3, "Stalled")
    assert (lab.total("stalled"), lab.total("failed"), lab.total("exhausted")) == (3, 1, 0)


@pytest.mark.parametrize("swept", [False, True])
def test_leases_that_nobody_watched_get_two_thirds_more(lab: Lab, swept: bool) -> None:
    """After a pause of the server live workers get two thirds of a lease first, so that nothing runs twice in mass."""
    lab.add(new(), new(), new())
    if swept:
        lab.sweep()
    dead, alive = lab.claim(2).jobs
    late = lab.claim(1, lease_ms=LEASE_MS * 3).jobs[0]
    lab.advance(LEASE_MS / 1000 + 1)
    before = lab.now()
    leases = lab.column("leases")
    reply = lab.sweep()
    assert reply.reclaimed == 0
    grant = LEASE_MS * 2 // 3
    assert grant - 5_000 < (reply.next_lease_ms or 0) <= grant
    granted = lab.column("leases")
    assert all(before + grant <= granted[job.id] <= lab.now() + grant for job in (dead, alive))
    assert granted[late.id] == leases[late.id], "a lease that runs is left alone"

    lab.advance(25)
    assert lab.call(renew_leases(lab.keys, LEASE_MS, [held(alive)])) == []
    assert lab.sweep().reclaimed == 0
    lab.advance(16)
    assert lab.sweep().reclaimed == 1
    assert (lab.state(dead.id), lab.state(alive.id), lab.state(late.id)) == ("waiting", "active", "active")


@pytest.mark.parametrize("jump", [0.66, 0.8, 0.99, 1.0, 1.5, 60.0, -60.0, -1.5, -0.9])
@pytest.mark.parametrize("since", [0.0, 0.2, 0.33])
def test_a_clock_that_jumps_takes_no_job_from_a_live_worker(lab: Lab, jump: float, since: float) -> None:
    """By so many leases, so many leases after the last renewal: a worker that renews every third of a lease loses nothing,
    be its lease the sweeper's or three times as long; one that renews no more loses its job within a lease, wherever the clock is.
    """
    lab.add(new(), new(), new())
    lab.sweep()
    alive, dead = lab.claim(2).jobs
    (long,) = lab.claim(1, lease_ms=3 * LEASE_MS).jobs
    lab.advance(since * LEASE_MS / 1000)
    lab.sweep()
    lab.advance(jump * LEASE_MS / 1000)
    assert lab.sweep().reclaimed == 0
    lab.advance((0.34 - since) * LEASE_MS / 1000)
    assert lab.sweep().reclaimed == 0
    assert lab.call(renew_leases(lab.keys, LEASE_MS, [held(alive)])) == []
    for _ in range(2):
        lab.advance(0.33 * LEASE_MS / 1000)
        lab.sweep()
        assert lab.call(renew_leases(lab.keys, LEASE_MS, [held(alive)])) == []
    assert lab.call(renew_leases(lab.keys, 3 * LEASE_MS, [held(long)])) == []
    if jump < -1:
        lab.advance(0.05 * LEASE_MS / 1000)
        lab.sweep()
    assert jump == -0.9 or lab.state(dead.id) == "waiting", "a clock set back by less than a lease delays recovery by as much"


@pytest.mark.parametrize("late", [0.51, 0.6, 0.66, 0.9, 2.5])
def test_a_sweeper_that_is_always_late_takes_jobs_back_all_the_same(lab: Lab, late: float) -> None:
    """A loop that jobs block again and again sweeps between them: a dead worker's job waits for the third late sweep after
    that, and a live worker, which renews from a thread, loses nothing.
    """
    lab.add(new(), new())
    lab.sweep()
    lab.sweep()  # nobody swept before the first one: that is late
    dead, alive = lab.claim(2).jobs
    sweeps = 0
    while lab.state(dead.id) == "active":
        for _ in range(10):
            lab.advance(late * LEASE_MS / 10_000)
            assert lab.call(renew_leases(lab.keys, LEASE_MS, [held(alive)])) == []
        lab.sweep()
        sweeps += 1
        assert sweeps <= 5
    assert lab.state(alive.id) == "active"


SHORT_MS = LEASE_MS // 8
#: A sweeper of the long lease comes at least so often, the worker's own more often than that.
EVERY_MS = SHORT_MS // 2


@pytest.mark.parametrize("pause", [0.7, 1.0, 1.5, 2.5, 3.6])
@pytest.mark.parametrize("since", [0.0, 0.2, 0.33])
def test_a_pause_costs_a_live_worker_with_a_shorter_lease_than_the_sweepers_nothing(lab: Lab, pause: float, since: float) -> None:
    """By so many of its leases, so many of them after it renewed, and all of it less than half of the sweeper's: it comes back
    within two thirds of its lease and loses nothing; who comes back no more loses its job a lease after the pause.
    """
    lab.add(new(), new(), new())
    lab.sweep()
    lab.sweep()  # nobody swept before the first one: that is late
    alive, dead = lab.claim(2, lease_ms=SHORT_MS).jobs
    (gone,) = lab.claim(1).jobs
    lab.advance(since * SHORT_MS / 1000)
    lab.sweep(every_ms=EVERY_MS)
    lab.advance(pause * SHORT_MS / 1000)
    assert lab.sweep(every_ms=EVERY_MS).reclaimed == 0
    for step in (0.3, 0.3):
        lab.advance(step * SHORT_MS / 1000)
        lab.sweep(every_ms=EVERY_MS)
    assert lab.call(renew_leases(lab.keys, SHORT_MS, [held(alive)])) == []
    for _ in range(2):
        lab.advance(0.25 * SHORT_MS / 1000)
        assert lab.call(renew_leases(lab.keys, SHORT_MS, [held(alive)])) == []
        lab.sweep(every_ms=EVERY_MS)
    assert (lab.state(alive.id), lab.state(dead.id), lab.state(gone.id)) == ("active", "waiting", "active")
    assert lab.call(renew_leases(lab.keys, LEASE_MS, [held(gone)])) == []


@pytest.mark.parametrize("late", [0.63, 0.8, 1.5, 3.9])
@pytest.mark.parametrize("between", [0.0, 0.01, 0.4])
def test_a_sweeper_that_always_comes_a_little_late_takes_jobs_back_all_the_same(lab: Lab, late: float, between: float) -> None:
    """With its second late sweep after the lease ended at the latest, however often it comes late, and in time between."""
    lab.add(new())
    lab.sweep()
    lab.sweep()
    (dead,) = lab.claim(lease_ms=SHORT_MS).jobs
    waited = 0.0
    while lab.state(dead.id) == "active":
        lab.advance(late * SHORT_MS / 1000)
        waited += late
        lab.sweep(every_ms=EVERY_MS)
        if between:
            lab.advance(between * SHORT_MS / 1000)
            waited += between
            lab.sweep(every_ms=EVERY_MS)
        assert waited <= 1 + 3 * (late + between)


def test_a_short_pause_leaves_all_of_the_grace_to_a_long_one(lab: Lab) -> None:
    """The lease that ends a moment after the long one gets two thirds all the same."""
    lab.add(new())
    lab.sweep()
    lab.sweep()
    (job,) = lab.claim().jobs
    for seconds in (SHORT_MS / 1000, LEASE_MS * 0.7 / 1000):
        lab.advance(seconds)
        lab.sweep(every_ms=EVERY_MS)
    assert lab.column("leases")[job.id] - lab.now() > LEASE_MS / 2


def test_a_second_pause_right_after_the_first_is_one_all_the_same(lab: Lab) -> None:
    """Two in a row are granted; a sweep in time forgets about them."""
    lab.add(new())
    lab.sweep()
    lab.sweep()  # nobody swept before the first one: that is late
    (job,) = lab.claim().jobs
    for _ in range(3):
        for _ in range(2):
            lab.advance(LEASE_MS / 1000 + 1)
            assert lab.sweep().reclaimed == 0
        lab.sweep()
    assert lab.call(renew_leases(lab.keys, LEASE_MS, [held(job)])) == []


def test_a_lease_that_was_renewed_since_the_clock_was_set_back_is_left_alone(lab: Lab) -> None:
    """Only what still ends by the old time is moved."""
    lab.add(new(), new())
    lab.sweep()
    renewed, silent = lab.claim(2).jobs
    lab.sweep()
    lab.advance(-3600)
    assert lab.call(renew_leases(lab.keys, LEASE_MS, [held(renewed)])) == []
    before = lab.column("leases")
    lab.sweep()
    after = lab.column("leases")
    assert after[renewed.id] == before[renewed.id]
    assert abs(before[silent.id] - after[silent.id] - 3_600_000) < 5_000
    lab.sweep()
    assert lab.column("leases") == after


def test_a_sweep_takes_back_a_slice(lab: Lab) -> None:
    """A hundred per call; `more` asks for the next call at once, and the order is kept over calls."""
    ids = [f"{index:03}" for index in range(150)]
    lab.add(*[new(job_id=job_id) for job_id in ids], new(job_id="behind"))
    lab.claim(75)
    lab.advance(0.1)
    lab.claim(75)
    lab.expire_leases()
    first, second = lab.sweep(), lab.sweep()
    assert [(reply.reclaimed, reply.more) for reply in (first, second)] == [(100, True), (50, False)]
    assert first.next_lease_ms == 0
    assert lab.waiting() == [*ids, "behind"]


def test_a_sweep_promotes_what_is_due(lab: Lab) -> None:
    """Where no worker claims, the sweep moves due jobs into line, a slice at a time, and says when the next is due."""
    lab.add(*[new(delay=5) for _ in range(120)], new(delay=100))
    lab.advance(6)
    first, second = lab.sweep(), lab.sweep()
    assert [(reply.promoted, reply.more) for reply in (first, second)] == [(100, True), (20, False)]
    assert (first.next_due_ms, second.promoted) == (0, 20)
    assert 88_000 < (second.next_due_ms or 0) <= 94_000
    assert lab.counts() == {"waiting": 120, "delayed": 1}


def test_a_sweep_says_when_to_come_again(lab: Lab) -> None:
    """Next lease, next due job, next timer and the bytes of events, or None where there is nothing."""
    reply = lab.sweep()
    assert (reply.next_lease_ms, reply.next_due_ms, reply.event_bytes) == (None, None, 0)
    lab.add(new(), new(delay=30))
    lab.claim()
    reply = lab.sweep()
    assert LEASE_MS - 5_000 < (reply.next_lease_ms or 0) <= LEASE_MS
    assert 25_000 < (reply.next_due_ms or 0) <= 30_000
    assert 86_000_000 < (reply.next_timer_ms or 0) <= 86_400_000, "the first writer's call record"
    assert reply.event_bytes == sum(len(entry.fields["events"]) for entry in lab.entries())


def test_a_sweep_arms_the_marker_again(lab: Lab) -> None:
    """A wake-up that was lost is made good within a second; where nothing waits, or the queue is paused, it is cleared."""
    lab.add(new())
    lab.redis("DEL", lab.keys["marker"])
    lab.sweep()
    assert lab.marker() == {"0"}
    lab.call(pause_queue(lab.keys))
    lab.redis("ZADD", lab.keys["marker"], 0, 0)
    lab.sweep()
    assert lab.marker() == set()


def test_released_jobs_go_to_the_head_in_order(lab: Lab) -> None:
    """A closing worker's jobs run next, as named, uncounted as attempts; only those that are still its own."""
    lab.add(*[new(job_id=job_id) for job_id in "abcd"], *[new(job_id=f"p{index}", priority=4) for index in range(2)])
    jobs = lab.claim(6).jobs
    lab.settle(outcome(jobs[1]))
    lab.add(new(job_id="e"))
    lab.advance(2)
    lab.fresh()
    assert lab.call(release_jobs(lab.keys, [held(job) for job in jobs] + [Held("nobody", "x.1.0", fragment(jobs[0]))])) == 5
    assert lab.waiting() == list("acde")
    assert lab.members("prioritized") == ["p0", "p1"]
    events = lab.fresh()
    assert [event.job_id for event in events if isinstance(event, ReleasedEvent)] == ["a", "c", "d", "p0", "p1"]
    event = events[0]
    assert isinstance(event, ReleasedEvent)
    assert (event.worker, event.attempt, event.state, event.previous) == (WORKER, 1, "waiting", "active")
    assert 2 <= event.ran < 5
    run = lab.job("a").run
    assert (run.token, run.starts, run.fails, run.stalls, run.releases) == ("-", 1, 0, 0, 1)
    assert lab.total("released") == 5
    assert lab.marker() == {"0", "1", "2", "3"}
    assert lab.settle(outcome(jobs[0])) == [0], "a run that was given back may not settle"


def test_a_release_by_a_worker_that_lost_the_job_changes_nothing(lab: Lab) -> None:
    """A late release does not take the job from the worker that has it now."""
    lab.add(new())
    (old,) = lab.claim().jobs
    lab.expire_leases()
    lab.sweep()
    (young,) = lab.claim(worker="worker-2").jobs
    assert lab.call(release_jobs(lab.keys, [held(old)])) == 0
    assert lab.job(young.id).run.token == young.token
    assert lab.call(release_jobs(lab.keys, [held(young)])) == 1
