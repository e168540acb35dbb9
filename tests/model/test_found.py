"""What the model found: each a short call sequence of its own."""

from __future__ import annotations

from eventq.commands.upkeep import run_timers
from eventq.commands.work import release_jobs

from ..lua.lab import RULES, Lab, held, new


def test_a_scheduler_that_was_away_for_a_day_is_forgotten_too(lab: Lab) -> None:
    """The call that ends a writer's record may be that writer's own: its new record gets a timer of its own."""
    lab.add(new())
    lab.advance(90_000)
    lab.call(run_timers(lab.keys, RULES), "producer")
    assert {"producer"} == set(lab.column("calls"))
    assert {"call producer"} == set(lab.members("timers"))


def test_a_run_named_twice_is_released_once(lab: Lab) -> None:
    """One release that names a run twice puts its job in line once and counts one."""
    lab.add(new())
    (job,) = lab.claim().jobs
    assert 1 == lab.call(release_jobs(lab.keys, [held(job), held(job)]))
    assert [job.id] == lab.waiting()
    assert 1 == lab.total("released")
