"""Listing, counting and reading: pages in order, nothing that is not there, nothing twice."""

from __future__ import annotations

from typing import cast

import pytest

from eventq.commands.manage import pause_queue, remove_jobs
from eventq.commands.read import get_jobs, list_jobs
from eventq.records import StoredJob
from eventq.states import JobState

from .lab import Lab, new, outcome, progress


def pages(lab: Lab, state: JobState, size: int, *, newest_first: bool) -> list[str]:
    """Return a whole state, read page by page."""
    found: list[str] = []
    while page := lab.ids(state, len(found), size, newest_first=newest_first):
        found += page
    return found


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("size", [7, 500])
def test_pages_of_waiting(lab: Lab, size: int, holes: bool) -> None:
    """In line order or the newest first, each job once, holes passed over: also where a page is all holes."""
    ids = [f"{index:04}" for index in range(1_200)]
    for start in range(0, 1_200, 400):
        lab.add(*[new(job_id=job_id) for job_id in ids[start : start + 400]])
    if holes:
        gone = ids[:3] + ids[400:1_000:2] + ids[500:1_000]
        for start in range(0, len(gone), 400):
            lab.call(remove_jobs(lab.keys, gone[start : start + 400]))
        ids = [job_id for job_id in ids if job_id not in set(gone)]
    part = size if size == 500 else 150
    assert pages(lab, JobState.WAITING, part, newest_first=False) == ids
    assert pages(lab, JobState.WAITING, part, newest_first=True) == ids[::-1]
    assert lab.ids(JobState.WAITING, 3, size) == ids[3 : 3 + size]
    assert lab.ids(JobState.WAITING, len(ids), size) == []


def test_a_job_over_its_own_hole_is_listed_once(lab: Lab) -> None:
    """Removed and added again under its own id, it stands in the list twice and is one job."""
    lab.add(new(job_id="a"), new(job_id="b"), new(job_id="c"), new(job_id="d"))
    lab.call(remove_jobs(lab.keys, ["a", "b", "c"]))
    lab.add(new(job_id="a"), new(job_id="b", priority=1), new(job_id="c", delay=60))
    assert sorted(lab.ids(JobState.WAITING)) == ["a", "d"]
    assert lab.ids(JobState.WAITING, newest_first=True) == ["a", "d"]
    assert (lab.ids(JobState.PRIORITIZED), lab.ids(JobState.DELAYED)) == (["b"], ["c"])


def test_pages_of_sorted_states(lab: Lab) -> None:
    """Prioritized by place, delayed by due time, active by deadline; `active` lists jobs only."""
    lab.add(*[new(job_id=f"p{index}", priority=10 - index) for index in range(5)])
    lab.add(*[new(job_id=f"d{index}", delay=100 - index) for index in range(5)])
    lab.add(*[new(job_id=f"a{index}") for index in range(5)])
    for index in range(5):
        lab.claim(1, lease_ms=60_000 - 1_000 * index)
    expected = {JobState.PRIORITIZED: "p", JobState.DELAYED: "d", JobState.ACTIVE: "a"}
    for state, letter in expected.items():
        ids = [f"{letter}{index}" for index in range(5)][::-1]
        assert pages(lab, state, 2, newest_first=False) == ids
        assert pages(lab, state, 2, newest_first=True) == ids[::-1]
    assert lab.ids(JobState.WAITING_CHILDREN) == []


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED])
def test_kept_jobs_are_listed_by_time(lab: Lab, state: JobState) -> None:
    """Jobs with a rule of their own stand apart in the set and are listed among the others, by when they ended."""
    ids: list[str] = []
    for index, rule in enumerate(["", "forever", "", "age:90000", "", "", "forever", "count:50 age:90000", "forever"]):
        lab.finish(new(job_id=f"j{index}"), word=state.value, rule=rule)
        ids.append(f"j{index}")
        lab.advance(1)
    for size in (1, 2, 4, 500):
        assert pages(lab, state, size, newest_first=False) == ids
        assert pages(lab, state, size, newest_first=True) == ids[::-1]


def test_counts_of_every_state(lab: Lab) -> None:
    """Counted as they stand, `paused` instead of waiting while the queue is paused; a set's filler is no job."""
    assert lab.counts() == {}
    lab.add(*[new() for _ in range(5)], *[new(delay=60) for _ in range(2)], *[new(priority=1) for _ in range(3)])
    done, bad, _ = lab.claim(3).jobs
    lab.settle(outcome(done), outcome(bad, "failed"))
    expected = {"waiting": 2, "prioritized": 3, "delayed": 2, "active": 1, "completed": 1, "failed": 1}
    assert lab.counts() == expected
    lab.call(pause_queue(lab.keys))
    expected["paused"] = expected.pop("waiting")
    assert lab.counts() == expected


def test_reading_jobs(lab: Lab) -> None:
    """In the order asked, None for what is not stored, each with all that is stored of it."""
    assert lab.call(get_jobs(lab.keys, [])) == []
    lab.add(new("one", '"x"', job_id="a"), new("two", "1" * 3_000, job_id="b", delay=9), new(job_id="c", priority=1))
    (job,) = lab.claim(1).jobs
    lab.claim(0, progress=[progress(job, "55")])
    found = cast("list[StoredJob | None]", lab.call(get_jobs(lab.keys, ["c", "nobody", "b", "a", "c"])))
    assert [job.id if job else None for job in found] == ["c", None, "b", "a", "c"]
    c, _, b, a, _ = found
    assert a and b and c
    assert (a.state, a.record.name, a.record.data, a.progress, a.result) == ("active", "one", '"x"', "55", None)
    assert (b.state, len(b.record.data), b.progress) == ("delayed", 3_000, None)
    assert c.state is JobState.PRIORITIZED


def test_a_paused_queue_says_so_of_each_job(lab: Lab) -> None:
    """What waits is paused; what is delayed, runs or has priority says its own state."""
    lab.add(new(job_id="w"), new(job_id="d", delay=9), new(job_id="p", priority=1))
    lab.call(pause_queue(lab.keys))
    assert [lab.state(job_id) for job_id in "wdp"] == ["paused", "delayed", "prioritized"]
    assert lab.ids(JobState.WAITING) == ["w"]


def test_a_line_of_holes_is_listed_in_bounded_calls(lab: Lab) -> None:
    """However many entries are none, a call looks at 2,000 of them, and the next one goes on behind them; either way round."""
    for start in range(0, 5_000, 500):
        lab.add(*[new(job_id=f"j{start + number:04}") for number in range(500)])
    kept = ["j0000", "j2500", "j2501", "j4999"]
    ids = [f"j{number:04}" for number in range(5_000) if f"j{number:04}" not in kept]
    for start in range(0, len(ids), 500):
        lab.call(remove_jobs(lab.keys, ids[start : start + 500]))
    first, cursor = lab.call(list_jobs(lab.keys, JobState.WAITING, 0, 10, newest_first=False))
    assert (first, cursor) == (["j0000"], "2000 0")
    assert lab.ids(JobState.WAITING) == kept
    assert lab.ids(JobState.WAITING, newest_first=True) == kept[::-1]
    assert lab.ids(JobState.WAITING, 1, 2) == kept[1:3]
    assert lab.ids(JobState.WAITING, 3, 1) == kept[3:]
    assert lab.ids(JobState.WAITING, 1, 1, newest_first=True) == ["j2501"]
