"""Cleaning, a call at a time: what a walk finds although the line moves under it, and what it leaves behind."""

from __future__ import annotations

from eventq.commands.manage import Cleaned, clean_jobs, remove_jobs
from eventq.states import JobState

from .lab import Lab, at_ms, new

HOUR = 3600


def clean(lab: Lab, state: JobState, *, cursor: str = "", most: int = 250, grace: int = 60) -> Cleaned:
    """Make one call."""
    return lab.call(clean_jobs(lab.keys, state, cutoff=f"-{grace * 1000}", cursor=cursor, most=most, reason="cleaned"))


def test_a_young_job_at_the_head_hides_nothing(lab: Lab) -> None:
    """What goes to the head is younger than what it stands before."""
    lab.add(new(job_id="old1"), new(job_id="old2"))
    lab.advance(HOUR)
    lab.add(new(job_id="young", lifo=True))
    assert lab.waiting() == ["young", "old1", "old2"]
    done = clean(lab, JobState.WAITING)
    assert (done.ids, done.cursor) == (["old1", "old2"], "")
    assert lab.waiting() == ["young", "old1", "old2"], "two holes"


def test_an_own_id_that_was_added_again_hides_nothing(lab: Lab) -> None:
    """Its old entry stands before jobs that are older than it is now."""
    lab.add(new(job_id="own"), new(job_id="old"))
    lab.advance(HOUR)
    lab.call(remove_jobs(lab.keys, ["own"]))
    lab.add(new(job_id="own"))
    assert lab.waiting() == ["own", "old", "own"]
    assert clean(lab, JobState.WAITING).ids == ["old"]


def test_a_line_in_order_is_walked_no_further_than_needed(lab: Lab) -> None:
    """Behind a job that was added too late there are only later ones."""
    lab.add(new(job_id="old"))
    lab.advance(HOUR)
    lab.add(*[new() for _ in range(600)])
    done = clean(lab, JobState.WAITING)
    assert (done.ids, done.cursor) == (["old"], "")
    assert len(lab.waiting()) == 600


def test_most_is_kept_to(lab: Lab) -> None:
    """The cursor goes on with the first that was too many."""
    lab.add(*[new(job_id=f"j{number}") for number in range(5)])
    first = clean(lab, JobState.WAITING, most=2, grace=0)
    assert (first.ids, lab.waiting()) == (["j0", "j1"], ["j2", "j3", "j4"])
    assert clean(lab, JobState.WAITING, most=9, grace=0, cursor=first.cursor).ids == ["j2", "j3", "j4"]


def test_a_walk_goes_on_although_what_it_left_is_gone(lab: Lab) -> None:
    """The job after which it was to go on has been claimed: nothing is passed over."""
    lab.add(*[new(job_id=name, priority=priority) for name, priority in (("a", 1), ("y", 2), ("old1", 3), ("old2", 3))])
    lab.advance(HOUR)
    lab.call(remove_jobs(lab.keys, ["y"]))
    lab.add(new(job_id="y", priority=2))
    first = clean(lab, JobState.PRIORITIZED, most=1)
    assert first.ids == ["a"]
    assert [job.id for job in lab.claim(1).jobs] == ["y"]
    assert clean(lab, JobState.PRIORITIZED, cursor=first.cursor).ids == ["old1", "old2"]


def test_a_walk_goes_on_right_after_what_it_left(lab: Lab) -> None:
    """A young job among old ones stays, and the next slice begins with the one behind it."""
    lab.add(*[new(job_id=name, priority=priority) for name, priority in (("a", 1), ("y", 2), ("old1", 3), ("old2", 3))])
    lab.advance(HOUR)
    lab.call(remove_jobs(lab.keys, ["y"]))
    lab.add(new(job_id="y", priority=2))
    first = clean(lab, JobState.PRIORITIZED, most=1)
    second = clean(lab, JobState.PRIORITIZED, most=1, cursor=first.cursor)
    assert (first.ids, second.ids) == (["a"], ["old1"])
    assert clean(lab, JobState.PRIORITIZED, cursor=second.cursor).ids == ["old2"]


def test_jobs_of_one_score_are_all_looked_at(lab: Lab) -> None:
    """More than a slice of jobs due at the same millisecond, some of them too young, over several calls."""
    due = lab.now() + 10 * HOUR * 1000
    lab.add(*[new(job_id=f"old{number:04}", at=at_ms(due)) for number in range(500)])
    lab.add(*[new(job_id=f"old{number:04}", at=at_ms(due)) for number in range(500, 1_000)])
    lab.advance(HOUR)
    lab.add(*[new(job_id=f"new{number:04}", at=at_ms(due)) for number in range(400)])
    cursor, removed = "", list[str]()
    for _ in range(20):
        done = clean(lab, JobState.DELAYED, cursor=cursor)
        removed, cursor = removed + done.ids, done.cursor
        if not cursor:
            break
    assert not cursor
    assert sorted(removed) == [f"old{number:04}" for number in range(1_000)]


def test_a_job_of_its_own_age_takes_its_timer_along(lab: Lab) -> None:
    """Else the timer would end a later job of the same id."""
    lab.finish(new(job_id="own"), rule="age:5000000")
    lab.advance(100)
    assert clean(lab, JobState.COMPLETED).ids == ["own"]
    assert [timer for timer in lab.members("timers") if timer.startswith("keep")] == []
