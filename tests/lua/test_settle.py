"""settle_and_claim, its first half: outcomes and progress of running jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from eventq.commands.work import Outcome
from eventq.events import CompletedEvent, FailedEvent, ProgressEvent, RetryingEvent
from eventq.records import JobErrorInfo
from eventq.states import JobState

from .lab import ERROR, LEASE_MS, WORKER, Lab, fragment, new, outcome, progress

TRACE = '"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"'


@pytest.mark.parametrize(
    ("word", "state", "kinds", "totals"),
    [
        ("completed", "completed", ["completed", "drained"], {"completed"}),
        ("failed", "failed", ["failed", "drained"], {"failed"}),
        ("exhausted", "failed", ["failed", "drained"], {"failed", "exhausted"}),
        ("retry", "waiting", ["retrying"], {"retrying"}),
    ],
)
def test_every_word(lab: Lab, word: str, state: str, kinds: list[str], totals: set[str]) -> None:
    """Each outcome ends the run: its state, its event, its totals, what is stored of it."""
    lab.add(new(trace=TRACE))
    (job,) = lab.claim().jobs
    lab.advance(3)
    lab.fresh()
    assert lab.settle(outcome(job, word, result='{"a":1}' if word == "completed" else "")) == []

    stored = lab.job(job.id)
    failed = word != "completed"
    assert (stored.state, stored.run.token, stored.run.starts, stored.run.fails) == (state, "-", 1, int(failed))
    assert bool(stored.run.finished_ms) == (word != "retry")
    assert stored.result == (ERROR if failed else '{"a":1}')
    assert lab.members("leases") == []
    assert lab.fresh_kinds() == kinds
    assert {kind for kind in ("completed", "failed", "exhausted", "retrying") if lab.total(kind)} == totals


def test_outcome_events_say_everything(lab: Lab) -> None:
    """Waited and ran by Redis' clock, attempt, worker, error, whether exhausted, result: without a look at the job."""
    lab.add(new("a"), new("b"), new("c"))
    lab.advance(5)
    well, badly, again = lab.claim(3).jobs
    lab.advance(2)
    fragments = {"trace": fragment(well) + ',"result":[1],' + TRACE}
    lab.settle(
        Outcome(well.id, well.token, "completed", fragments["trace"], "[1]", ""),
        outcome(badly, "exhausted"),
        outcome(again, "retry", 7_000),
    )
    completed, retrying, failed = lab.events()[-4:-1]
    assert isinstance(completed, CompletedEvent)
    assert isinstance(retrying, RetryingEvent)
    assert isinstance(failed, FailedEvent)
    for event, name in ((completed, "a"), (failed, "b"), (retrying, "c")):
        assert (event.name, event.attempt, event.worker) == (name, 1, WORKER)
        assert 5 <= event.waited < 7
        assert 2 <= event.ran < 4
    assert (completed.result, completed.traceparent[:6], completed.result_omitted) == ([1], "00-4bf", False)
    assert (failed.reason, failed.exhausted, failed.error) == ("error", True, JobErrorInfo("ValueError", "no"))
    assert (retrying.state, retrying.due_ms, retrying.error.type) == ("delayed", retrying.ms + 7_000, "ValueError")
    assert floor_scores(lab) == {again.id: retrying.due_ms}


def floor_scores(lab: Lab) -> dict[str, int]:
    """Return the due times of the delayed jobs."""
    return {member: int(score) for member, score in lab.column("delayed").items()}


def test_a_stale_token_is_refused_and_changes_nothing(lab: Lab) -> None:
    """An outcome or progress of a run that is not the job's present one has no effect at all."""
    lab.add(new(), new())
    first, other = lab.claim(2).jobs
    lab.expire_leases()
    lab.sweep()
    second, third = lab.claim(2, worker="worker-2").jobs
    assert (second.id, third.id) == (first.id, other.id)
    assert second.token != first.token
    lab.settle(outcome(third))
    before = lab.dump()

    wrong = Outcome(second.id, second.token[:-1], "completed", fragment(second), "", "")
    for word in ("completed", "failed", "exhausted", "retry"):
        outcomes = [outcome(first, word, result="1"), outcome(other, word), wrong]
        assert lab.claim(0, outcomes=outcomes, progress=[progress(first, "1")]).stale == [0, 1, 2]
    assert lab.dump() | {"calls": None} == before | {"calls": None}
    assert lab.settle(outcome(second)) == []


def test_the_same_job_twice_in_one_batch(lab: Lab) -> None:
    """At most one outcome is recorded per run, even within a call."""
    lab.add(new(), new())
    first, second = lab.claim(2).jobs
    assert lab.settle(outcome(first, result="1"), outcome(first, "failed"), outcome(second), outcome(second)) == [1, 3]
    assert (lab.state(first.id), lab.total("completed"), lab.total("failed")) == ("completed", 2, 0)


def test_progress_is_told_before_the_outcome(lab: Lab) -> None:
    """Progress that rides with its job's outcome is recorded first; the last value stays."""
    lab.add(new(), new())
    first, second = lab.claim(2).jobs
    lab.fresh()
    lab.claim(0, progress=[progress(first, "10"), progress(second, '{"at":"x"}')])
    lab.claim(0, progress=[progress(first, "90.5")], outcomes=[outcome(first)])
    events = lab.fresh()
    assert [event.kind for event in events] == ["progress", "progress", "progress", "completed"]
    assert [event.progress for event in events if isinstance(event, ProgressEvent)] == [10, {"at": "x"}, 90.5]
    assert (lab.job(first.id).progress, lab.job(second.id).progress) == ("90.5", '{"at":"x"}')
    assert lab.claim(0, progress=[progress(first, "99")]).stale == []
    assert lab.job(first.id).progress == "90.5", "a finished job has no progress any more"


def test_a_null_result_is_not_stored(lab: Lab) -> None:
    """No result, no entry; but the error of an earlier attempt does not stay in its place."""
    lab.add(new())
    (first,) = lab.claim().jobs
    lab.settle(outcome(first, "retry"))
    assert json.loads(lab.job(first.id).result or "")["type"] == "ValueError"
    (second,) = lab.claim().jobs
    lab.settle(outcome(second, result="null"))
    assert lab.job(first.id).result == "null"


def test_a_retried_job_counts_its_attempts(lab: Lab) -> None:
    """A failed attempt raises `fails`, and so the attempt of the next run; starts are counted apart."""
    lab.add(new())
    for attempt in (1, 2, 3):
        (job,) = lab.claim().jobs
        assert fragment(job).startswith(f'"name":"job","attempt":{attempt},')
        lab.settle(outcome(job, "retry"))
        assert (lab.job(job.id).run.fails, lab.job(job.id).run.starts) == (attempt, attempt)


def test_a_retried_plain_job_goes_to_the_tail(lab: Lab) -> None:
    """A job that failed does not hold up the others."""
    lab.add(new(job_id="a"), new(job_id="b"), new(job_id="c"))
    (job,) = lab.claim().jobs
    lab.settle(outcome(job, "retry"))
    assert lab.waiting() == ["b", "c", "a"]


@pytest.mark.parametrize("delay_ms", [0, 5_000])
def test_a_retried_prioritized_job_keeps_its_place(lab: Lab, delay_ms: int) -> None:
    """Among its equals it stands where it stood, at once or after its delay."""
    ids = ["a", "b", "c"]
    lab.add(*[new(job_id=job_id, priority=2**21 - 1) for job_id in ids])
    before = lab.column("prioritized")
    for job in lab.claim(2).jobs:
        lab.settle(outcome(job, "retry", delay_ms))
    assert lab.state("a") == ("delayed" if delay_ms else "prioritized")
    lab.advance(6)
    lab.sweep()
    assert lab.column("prioritized") == before
    assert [job.id for job in lab.claim(3).jobs] == ids


def test_a_delayed_retry_waits_from_its_due_time(lab: Lab) -> None:
    """What a job waits is counted from when it might have run, so that a back-off is not a slow queue."""
    lab.add(new())
    (job,) = lab.claim().jobs
    lab.settle(outcome(job, "retry", 10_000))
    assert lab.claim().jobs == []
    lab.advance(12)
    (again,) = lab.claim().jobs
    lab.settle(outcome(again))
    event = lab.events()[-2]
    assert isinstance(event, CompletedEvent)
    assert 2 <= event.waited < 4
    assert event.attempt == 2


def test_drained_is_told_once_per_idle_time(lab: Lab) -> None:
    """It is told by the settle that leaves nothing in line and nothing running, and by no later one."""
    lab.add(new(), new(), new(delay=600))
    first, second = lab.claim(2).jobs
    lab.settle(outcome(first))
    assert "drained" not in lab.fresh_kinds()
    lab.settle(outcome(second))
    assert lab.fresh_kinds()[-1] == "drained", "delayed jobs may remain"
    assert lab.settle(outcome(first)) == [0]
    assert lab.claim().jobs == []
    assert lab.fresh_kinds() == [], "a refused outcome ends nothing"


@pytest.mark.parametrize("more", [{}, {"priority": 1}])
def test_drained_is_not_told_while_there_is_work(lab: Lab, more: dict[str, Any]) -> None:
    """Work in line, in either line, and work that the same call claims keep a queue from being drained."""
    lab.add(new())
    (job,) = lab.claim().jobs
    lab.add(new(**more))
    lab.settle(outcome(job))
    assert lab.fresh_kinds()[-1] == "completed"
    (last,) = lab.claim().jobs
    lab.add(new(**more))
    assert len(lab.claim(outcomes=[outcome(last)]).jobs) == 1
    assert "drained" not in lab.fresh_kinds()


def test_a_full_batch(lab: Lab) -> None:
    """A hundred outcomes, a hundred progress updates and a hundred claims go in one call."""
    lab.add(*[new() for _ in range(200)])
    jobs = lab.claim(100).jobs
    words = ["completed", "failed", "exhausted", "retry"]
    reply = lab.claim(
        100,
        progress=[progress(job, "1") for job in jobs],
        outcomes=[outcome(job, words[index % 4], result='"x"' if index % 4 == 0 else "") for index, job in enumerate(jobs)],
    )
    assert (reply.stale, len(reply.jobs)) == ([], 100)
    assert lab.counts() == {"waiting": 25, "active": 100, "completed": 25, "failed": 50}


def test_a_settle_that_sends_work_back_wakes_others(lab: Lab) -> None:
    """A settle arms the marker only for what it puts in line itself: nobody became idle by the rest."""
    lab.add(new(), new(), new())
    first, second = lab.claim(2).jobs
    lab.redis("DEL", lab.keys["marker"])
    lab.settle(outcome(first))
    assert lab.marker() == set()
    lab.settle(outcome(second, "retry"))
    assert lab.marker() == {"0"}


def test_a_lease_that_ended_but_was_not_swept_still_settles(lab: Lab) -> None:
    """Only the sweep takes a job away: until then its worker's outcome counts."""
    lab.add(new())
    (job,) = lab.claim(lease_ms=LEASE_MS).jobs
    lab.advance(LEASE_MS / 1000 * 3)
    assert lab.settle(outcome(job)) == []
    assert lab.state(job.id) is JobState.COMPLETED


@pytest.mark.parametrize("word", ["completed", "exhausted"])
def test_last_event_says_what_all_runs_took_together(lab: Lab, word: str) -> None:
    """From first ready to the end, backoff and all, an intended delay left out; of a single run it is waited + ran."""
    lab.add(new(job_id="often", delay=10), new(job_id="once"))
    lab.advance(11)
    lab.sweep()
    jobs = {job.id: job for job in lab.claim(2).jobs}
    lab.advance(2)
    lab.settle(outcome(jobs["once"], word), outcome(jobs["often"], "retry", 5_000))
    lab.advance(6)
    lab.sweep()
    (again,) = lab.claim().jobs
    lab.advance(3)
    lab.settle(outcome(again, word))
    one, two = [event for event in lab.events() if isinstance(event, CompletedEvent | FailedEvent)]
    assert (one.job_id, one.total_ms) == ("once", 0)
    assert 13 <= one.total < 14 and one.total == pytest.approx(one.waited + one.ran)
    assert (two.job_id, two.ran_ms // 1000) == ("often", 3)
    assert 12 <= two.total < 13  # 1 late, ran 2, 5 of backoff and 1 late, ran 3


def test_a_job_that_is_retried_stands_behind_what_was_due_before(lab: Lab) -> None:
    """What was due when it failed has waited longer than it, promoted or not."""
    later, failing = new(delay=1.0), new()
    lab.add(later, failing)
    (job,) = lab.claim().jobs
    lab.advance(2)
    lab.settle(outcome(job, "retry", 0))
    assert [later.id, failing.id] == [job.id for job in lab.claim(2).jobs]
