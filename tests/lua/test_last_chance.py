"""A job that one more stall would end is claimed with no other such job beside it."""

from __future__ import annotations

from typing import Any

import pytest

from .lab import Lab, new, outcome


def stall(lab: Lab, count: int, **options: Any) -> list[str]:
    """Add jobs, and let the worker that claims them all be lost; returns their ids in line order."""
    records = [new(**options) for _ in range(count)]
    lab.add(*records)
    for _ in range(0, count, 100):
        lab.claim(min(count, 100))
    lab.expire_leases()
    while lab.sweep().more:
        continue
    assert count == sum(lab.job(record.id).run.stalls for record in records)
    return [record.id for record in records]


@pytest.mark.parametrize("options", [{}, {"priority": 3}])
def test_one_is_claimed_and_the_others_are_passed_over(lab: Lab, options: dict[str, Any]) -> None:
    """What stands behind them is claimed, and they stay where they are, at the head and in order."""
    first, second, third = stall(lab, 3, **options)
    fresh = [new(**options) for _ in range(4)]
    lab.add(*fresh)
    claimed = lab.claim(3, max_stalls=1).jobs
    expected = [first, fresh[0].id, fresh[1].id]
    assert expected == [job.id for job in claimed]
    more = lab.claim(7 - len(expected), max_stalls=1, may_risk=False).jobs
    assert [record.id for record in fresh if record.id not in expected] == [job.id for job in more]
    settled = lab.claim(5, max_stalls=1, outcomes=[outcome(claimed[0])])
    assert [second] == [job.id for job in settled.jobs]
    assert [third] == lab.waiting() + lab.members("prioritized")


def test_a_line_of_nothing_else_wakes_nobody_at_once(lab: Lab) -> None:
    """The worker that passed them over would be woken again and again; the sweep tells the others."""
    stall(lab, 2)
    assert [] == lab.claim(5, max_stalls=1, may_risk=False).jobs
    lab.redis("DEL", lab.keys["marker"])
    assert [] == lab.claim(5, max_stalls=1, may_risk=False).jobs
    assert set() == lab.marker()
    assert lab.sweep().in_line
    assert {"0"} == lab.marker()


def test_many_of_them_do_not_hide_what_is_behind(lab: Lab) -> None:
    """A worker with one free slot finds the one job that it may run behind two hundred that it may not."""
    stall(lab, 200)
    fresh = new()
    lab.add(fresh)
    assert [fresh.id] == [job.id for job in lab.claim(1, max_stalls=1, may_risk=False).jobs]
    assert 200 == lab.counts()["waiting"]


def test_more_of_them_than_a_claim_looks_at_do_not_stop_the_queue(lab: Lab) -> None:
    """The first hundred stay at the head, the others make way: what is prioritized comes at once, what waits with the next call."""
    ids = stall(lab, 600)
    fresh, urgent = new(), new(priority=1)
    lab.add(fresh, urgent)
    assert [urgent.id] == [job.id for job in lab.claim(1, max_stalls=1, may_risk=False).jobs]
    assert [fresh.id] == [job.id for job in lab.claim(1, max_stalls=1, may_risk=False).jobs]
    assert ids[:100] == lab.waiting()[:100]
    assert set(ids) == set(lab.waiting())


def test_with_stalls_to_spare_all_are_claimed_at_once(lab: Lab) -> None:
    """One lost worker is no reason to run its jobs one by one."""
    ids = stall(lab, 5)
    assert ids == [job.id for job in lab.claim(5, max_stalls=2, may_risk=False).jobs]
