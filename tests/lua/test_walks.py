"""Operations of many calls while others go on between the calls: whoever was asked for is reached, and the walk ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventq.commands.core import Steps, Verb
from eventq.commands.manage import remove_jobs
from eventq.operations import managing

from .lab import Lab, new, outcome


def perform(lab: Lab, steps: Steps[Any], between: dict[int, Callable[[], object]]) -> Any:
    """Perform the steps; after the call of a number something else happens."""
    call, calls, answer = next(steps), 0, None
    try:
        while True:
            answer = call.parse(lab.redis(*call.words)) if isinstance(call, Verb) else lab.call(call)
            calls += 1
            assert calls < 100, "the walk does not end"
            between.get(calls, lambda: None)()
            call = steps.send(answer)
    except StopIteration as done:
        return done.value


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three jobs a call."""
    monkeypatch.setattr(managing, "SLICE_JOBS", 3)


def remove(lab: Lab, *ids: str) -> Callable[[], object]:
    """Return what removes these jobs, as somebody else."""
    return lambda: lab.call(remove_jobs(lab.keys, ids), "other")


def test_a_job_that_goes_meanwhile_hides_no_failed_one(lab: Lab) -> None:
    """It is gone by the next listing, so nobody else is passed over for it."""
    lab.finish(*[new(job_id=f"j{number}") for number in range(6)], word="failed")
    assert perform(lab, managing.retry(lab.keys, "failed", None, False, None), {1: remove(lab, "j0")}) == 5
    assert lab.counts() == {"waiting": 5}


def test_a_job_that_goes_meanwhile_hides_no_delayed_one(lab: Lab) -> None:
    """As with retries."""
    lab.add(*[new(job_id=f"j{number}", delay=60) for number in range(6)])
    assert perform(lab, managing.promote(lab.keys, None, None), {2: remove(lab, "j0")}) == 5
    assert lab.counts() == {"waiting": 5}


def test_what_cannot_be_retried_is_passed_over(lab: Lab) -> None:
    """Its run cannot be read, so it stays where it is, and the walk ends all the same."""
    lab.sound = False
    lab.finish(*[new(job_id=f"j{number}") for number in range(8)], word="failed")
    for damaged in ("j0", "j1", "j4"):
        lab.redis("HSET", lab.keys["runs"], damaged, "damaged")
    assert perform(lab, managing.retry(lab.keys, "failed", None, False, None), {}) == 5
    assert lab.waiting() == ["j2", "j3", "j5", "j6", "j7"]


def test_what_cannot_be_promoted_is_passed_over(lab: Lab) -> None:
    """Its record is gone, so nobody knows where it belongs."""
    lab.sound = False
    lab.add(*[new(job_id=f"j{number}", delay=60 + number) for number in range(7)])
    for damaged in ("j0", "j1", "j2"):
        lab.redis("HDEL", lab.keys["jobs"], damaged)
    assert perform(lab, managing.promote(lab.keys, None, None), {}) == 4
    assert lab.waiting() == ["j3", "j4", "j5", "j6"]


def test_a_job_that_fails_again_is_not_retried_again(lab: Lab) -> None:
    """Only those that had failed when the walk began."""
    lab.finish(*[new(job_id=f"j{number}") for number in range(5)], word="failed")

    def fail_again() -> None:
        lab.advance(1)
        assert lab.settle(*[outcome(job, "failed") for job in lab.claim(3).jobs]) == []

    assert perform(lab, managing.retry(lab.keys, "failed", None, False, None), {2: fail_again}) == 5
    assert lab.counts() == {"waiting": 2, "failed": 3}


def test_drain_comes_back_to_what_claims_moved_past_it(lab: Lab) -> None:
    """Young jobs at the head are kept; when they are claimed, the line moves under the walk, which begins once more."""
    lab.add(*[new(job_id=f"old{number:03}") for number in range(60)])

    def young() -> None:
        lab.advance(1)
        lab.add(*[new(job_id=f"young{number}", lifo=True) for number in range(20)])

    removed = perform(lab, managing.drain(lab.keys, False, None), {1: young, 5: lambda: lab.claim(20)})
    assert removed == 60
    assert lab.counts() == {"active": 20}
