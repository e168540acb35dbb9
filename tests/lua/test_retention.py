"""What stays of finished jobs: the queue's rules and a job's own, by count and by age."""

from __future__ import annotations

import pytest

from eventq.commands.manage import remove_jobs, retry_jobs
from eventq.commands.upkeep import run_timers
from eventq.commands.work import Retention
from eventq.events import RemovedEvent
from eventq.states import JobState

from .lab import DAY_MS, ERROR, RULES, Lab, new, outcome, progress


def keep(count: int = -1, age_ms: int = -1) -> Retention:
    """Return rules that are the same for completed and failed jobs; -1 is no such rule."""
    return Retention((count, age_ms), (count, age_ms))


def end(lab: Lab, count: int, *, word: str = "completed", rule: str = "", rules: Retention = RULES) -> list[str]:
    """Let so many jobs come to an end in one settle and return their ids."""
    records = [new() for _ in range(count)]
    lab.finish(*records, word=word, rule=rule, rules=rules)
    return [record.id for record in records]


@pytest.mark.parametrize(("word", "state"), [("completed", JobState.COMPLETED), ("exhausted", JobState.FAILED)])
def test_by_count_once_a_slice_is_too_many(lab: Lab, word: str, state: JobState) -> None:
    """The oldest go when a slice (1 %, at most 100) is too many, and then down to the rule."""
    rules = keep(count=200)
    ids = end(lab, 100, word=word, rules=rules) + end(lab, 100, word=word, rules=rules)
    ids += end(lab, 2, word=word, rules=rules)
    assert lab.ids(state) == ids, "2 more than 200 are no slice yet"
    lab.fresh()
    ids += end(lab, 1, word=word, rules=rules)
    assert lab.ids(state) == ids[3:]
    removed = [event for event in lab.fresh() if isinstance(event, RemovedEvent)]
    assert [(event.job_ids, event.previous, event.reason) for event in removed] == [(tuple(ids[:3]), state, "retention")]


def test_a_settle_removes_at_most_two_slices(lab: Lab) -> None:
    """A rule that became much stricter is carried out in slices, so that no single call is slow."""
    for _ in range(5):
        end(lab, 100)
    end(lab, 1, rules=keep(count=10))
    assert lab.counts() == {"completed": 301}
    end(lab, 1, rules=keep(count=10))
    assert lab.counts() == {"completed": 102}
    end(lab, 1, rules=keep(count=10))
    assert lab.counts() == {"completed": 10}


def test_by_age_once_a_second(lab: Lab) -> None:
    """Jobs past the queue's age go with a later settle; it looks at most once a second."""
    rules = keep(age_ms=60_000)
    old = end(lab, 2, rules=rules)
    lab.advance(59.5)
    middle = end(lab, 1, rules=rules)
    assert lab.ids(JobState.COMPLETED) == [*old, *middle]
    lab.add(new(job_id="late"))
    late = lab.claim().jobs
    lab.advance(10)
    lab.redis("HSET", lab.keys["meta"], "aged_at", lab.now())
    lab.settle(*[outcome(job) for job in late], rules=rules)
    assert lab.ids(JobState.COMPLETED) == [*old, *middle, "late"], "looked at less than a second ago"
    lab.advance(1)
    last = end(lab, 1, rules=rules)
    assert lab.ids(JobState.COMPLETED) == [*middle, "late", *last]
    assert lab.now() - int(lab.meta("aged_at") or 0) < 10_000


def test_remove_now(lab: Lab) -> None:
    """Rule 0 leaves nothing behind in any column, and the outcome is told before the removal."""
    lab.add(new(data='"' + "x" * 2_000 + '"'), new())
    jobs = lab.claim(2).jobs
    lab.fresh()
    lab.claim(
        0,
        progress=[progress(job, "1") for job in jobs],
        outcomes=[outcome(jobs[0], "completed", "0", result='"r"'), outcome(jobs[1], "failed", "0")],
    )
    assert lab.fresh_kinds() == ["progress", "progress", "completed", "failed", "removed", "removed", "drained"]
    left = lab.dump()
    assert not {"jobs", "data", "runs", "results", "progress", "completed", "failed", "wait"} & set(left)
    assert (lab.total("completed"), lab.total("failed")) == (1, 1)


def test_for_ever_is_out_of_reach_of_the_queues_rules(lab: Lab) -> None:
    """A job that is to be kept survives the queue's count, its age and the timers."""
    (kept,) = end(lab, 1, rule="forever")
    (failed,) = end(lab, 1, word="failed", rule="forever")
    lab.advance(20 * DAY_MS / 1000)
    rules = Retention((0, 1_000), (0, 1_000))
    for word in ("completed", "failed"):
        end(lab, 5, word=word, rules=rules)
    lab.advance(100)
    lab.call(run_timers(lab.keys, rules))
    assert (lab.ids(JobState.COMPLETED), lab.ids(JobState.FAILED)) == ([kept], [failed])
    assert lab.job(failed).result == ERROR


def test_a_count_of_its_own(lab: Lab) -> None:
    """A job's own count is carried out when it ends, for its state."""
    ids = end(lab, 5)
    ids += end(lab, 1, rule="count:3")
    assert lab.ids(JobState.COMPLETED) == ids[-3:]
    end(lab, 5, word="failed")
    assert lab.counts() == {"completed": 3, "failed": 5}


def test_an_age_of_its_own(lab: Lab) -> None:
    """A timer ends exactly that job when its own age is over, before or after the queue's rule would."""
    (short,) = end(lab, 1, rule="age:5000")
    lab.advance(0.1)
    (long,) = end(lab, 1, rule=f"age:{3 * DAY_MS}")
    lab.advance(0.1)
    (plain,) = end(lab, 1)
    lab.advance(3)
    lab.call(run_timers(lab.keys, RULES))
    assert lab.ids(JobState.COMPLETED) == [short, long, plain]
    lab.advance(2)
    lab.fresh()
    lab.call(run_timers(lab.keys, RULES))
    assert lab.ids(JobState.COMPLETED) == [long, plain]
    assert [event.job_ids for event in lab.fresh() if isinstance(event, RemovedEvent)] == [(short,)]
    lab.advance(2 * DAY_MS / 1000)
    lab.call(run_timers(lab.keys, RULES))
    assert lab.ids(JobState.COMPLETED) == [long], "the queue's own day is over, this job's three are not"
    lab.advance(1 * DAY_MS / 1000)
    lab.call(run_timers(lab.keys, RULES))
    assert lab.counts() == {}


def test_count_and_age_of_its_own(lab: Lab) -> None:
    """`Keep(count=, age=)` on every job keeps the newest so many, and none of them longer than that."""
    ids = [job_id for _ in range(8) for job_id in end(lab, 1, rule="count:5 age:10000")]
    assert lab.ids(JobState.COMPLETED) == ids[-5:]
    lab.advance(11)
    lab.call(run_timers(lab.keys, RULES))
    assert lab.counts() == {}


def test_an_evicted_jobs_timer_does_not_touch_a_later_job_of_its_id(lab: Lab) -> None:
    """The age of a job that is gone is not the age of another with the same own id."""
    lab.finish(new(job_id="own"), rule="count:1 age:10000")
    lab.advance(0.1)
    end(lab, 1, rule="count:1 age:60000")
    assert lab.state("own") is None
    lab.finish(new(job_id="own"), rule="forever")
    lab.advance(11)
    lab.call(run_timers(lab.keys, RULES))
    assert lab.state("own") is JobState.COMPLETED


@pytest.mark.parametrize("how", ["retried", "removed"])
def test_a_timer_ends_with_its_job(lab: Lab, how: str) -> None:
    """A kept job that is retried or removed by hand takes its timer along."""
    lab.finish(new(job_id="own"), word="failed", rule="age:5000")
    if how == "retried":
        assert lab.call(retry_jobs(lab.keys, ["own"], state=JobState.FAILED, reset_attempts=False)) == "r"
    else:
        assert lab.call(remove_jobs(lab.keys, ["own"])) == "d"
        lab.add(new(job_id="own"))
    assert not [timer for timer in lab.members("timers") if timer.startswith("keep ")]
    lab.settle(*[outcome(job, "failed") for job in lab.claim().jobs])
    lab.advance(6)
    lab.call(run_timers(lab.keys, RULES))
    assert lab.state("own") is JobState.FAILED


def test_timers_are_run_in_slices(lab: Lab) -> None:
    """One call ends at most a hundred timers and says whether there is more."""
    for _ in range(2):
        end(lab, 75, rule="age:1000")
    lab.advance(2)
    assert lab.call(run_timers(lab.keys, RULES))
    assert lab.counts() == {"completed": 50}
    assert not lab.call(run_timers(lab.keys, RULES))
    assert lab.counts() == {}


def test_the_queues_ages_hold_where_nothing_finishes_any_more(lab: Lab) -> None:
    """run_timers carries out the age rules too, slice by slice, completed and failed alike."""
    rules = Retention((-1, 60_000), (-1, 120_000))
    for _ in range(3):
        end(lab, 100, rules=rules)
    end(lab, 5, word="failed", rules=rules)
    lab.advance(61)
    assert lab.call(run_timers(lab.keys, rules))
    assert lab.counts() == {"completed": 100, "failed": 5}
    assert not lab.call(run_timers(lab.keys, rules))
    assert lab.counts() == {"failed": 5}
    lab.advance(60)
    lab.call(run_timers(lab.keys, rules))
    assert lab.counts() == {}
