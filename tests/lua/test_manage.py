"""Pausing, resuming, retrying by hand, removing."""

from __future__ import annotations

import pytest

from eventq.commands.manage import add_log, change_delay, obliterate_queue, pause_queue, remove_jobs, resume_queue, retry_jobs
from eventq.events import ObliteratedEvent, RemovedEvent, WaitingEvent
from eventq.limits import LOG_BYTES, LOG_LINES
from eventq.states import JobState

from .lab import Lab, new, outcome, progress


def test_pause_and_resume(lab: Lab) -> None:
    """Each says whether it changed anything and is told once; what waits is `paused` meanwhile, the rest is not."""
    lab.add(new(), new(priority=1), new(delay=60))
    assert lab.call(pause_queue(lab.keys))
    assert lab.marker() == {"due"}, "nobody is woken any more"
    assert not lab.call(pause_queue(lab.keys))
    assert lab.counts() == {"paused": 1, "prioritized": 1, "delayed": 1}
    lab.add(new())
    assert [lab.call(resume_queue(lab.keys)) for _ in range(2)] == [True, False]
    assert lab.counts() == {"waiting": 2, "prioritized": 1, "delayed": 1}
    assert lab.marker() - {"due"} == {"0", "1", "2", "3"}
    assert [kind for kind in lab.fresh_kinds() if kind != "added"] == ["paused", "resumed"]


@pytest.mark.parametrize("reset", [False, True])
def test_retrying_by_hand(lab: Lab, reset: bool) -> None:
    """A finished job goes back in line without its result; whether its failures count on is the caller's choice."""
    record = new(attempts=2)
    lab.add(record)
    for word in ("retry", "exhausted"):
        (job,) = lab.claim().jobs
        lab.settle(outcome(job, word))
    lab.add(new(job_id="before"))
    lab.fresh()
    assert lab.call(retry_jobs(lab.keys, [record.id], state=JobState.FAILED, reset_attempts=reset)) == "r"
    stored = lab.job(record.id)
    assert (stored.state, stored.result, stored.run.finished_ms) == ("waiting", None, 0)
    assert (stored.run.starts, stored.run.fails) == (2, 0 if reset else 2)
    assert lab.waiting() == ["before", record.id]
    (event,) = lab.fresh()
    assert isinstance(event, WaitingEvent)
    assert (event.job_id, event.name, event.state, event.previous) == (record.id, "job", "waiting", "failed")
    assert lab.marker() >= {"0"}


def test_only_jobs_of_the_named_state_are_retried(lab: Lab) -> None:
    """A letter per job, in order: retried, in another state, missing; the same one twice is retried once."""
    failed, completed, waiting = new(priority=3), new(), new()
    lab.finish(failed, word="failed")
    lab.finish(completed)
    lab.add(waiting)
    ids = [failed.id, completed.id, waiting.id, "nobody", failed.id]
    assert lab.call(retry_jobs(lab.keys, ids, state=JobState.FAILED, reset_attempts=False)) == "rssms"
    assert lab.state(failed.id) is JobState.PRIORITIZED
    assert lab.call(retry_jobs(lab.keys, ids, state=JobState.COMPLETED, reset_attempts=False)) == "srsms"
    assert lab.counts() == {"waiting": 2, "prioritized": 1}
    assert lab.redis("HGET", lab.keys["results"], failed.id) is None


def test_a_retried_prioritized_job_stands_before_its_juniors(lab: Lab) -> None:
    """Retried by hand it returns to the place it was given when it was added."""
    lab.finish(new(job_id="old", priority=2), word="failed")
    lab.add(new(job_id="young", priority=2))
    lab.call(retry_jobs(lab.keys, ["old"], state=JobState.FAILED, reset_attempts=True))
    assert [job.id for job in lab.claim(2).jobs] == ["old", "young"]


def test_remove_leaves_nothing_of_a_job(lab: Lab) -> None:
    """In whatever state but running: gone from every column, and told per state; a letter per job in order."""
    lab.add(new(job_id="done", data="1" * 2_000), new(job_id="bad"), new(job_id="running"))
    done, bad, _ = lab.claim(3).jobs
    lab.claim(0, progress=[progress(done, "5")], outcomes=[outcome(done, result="1"), outcome(bad, "failed", "age:9000")])
    lab.add(new(job_id="waiting", data="1" * 2_000), new(job_id="delayed", delay=60), new(job_id="first", priority=1))
    lab.fresh()
    ids = ["waiting", "running", "delayed", "nobody", "first", "done", "bad", "bad"]
    assert lab.call(remove_jobs(lab.keys, ids)) == "dadmdddm"

    stored = lab.dump()
    assert set(stored["jobs"]) == {"running"}
    assert set(stored["runs"]) == {"running"}
    assert not {"data", "results", "progress", "delayed", "prioritized", "completed", "failed"} & set(stored)
    assert not [timer for timer in stored["timers"] if timer.startswith("keep ")]
    removed = [event for event in lab.fresh() if isinstance(event, RemovedEvent)]
    assert {(event.job_ids, event.previous, event.reason) for event in removed} == {
        ((job_id,), state, "removed")
        for job_id, state in [
            ("waiting", "waiting"),
            ("delayed", "delayed"),
            ("first", "prioritized"),
            ("done", "completed"),
            ("bad", "failed"),
        ]
    }


def test_remove_goes_by_where_a_job_stands_now(lab: Lab) -> None:
    """A job that was delayed and is in line by now leaves a hole; a retried one is taken out of `delayed`."""
    lab.add(new(job_id="due", delay=5), new(job_id="again"))
    (job,) = lab.claim().jobs
    lab.settle(outcome(job, "retry", 60_000))
    lab.advance(6)
    lab.sweep()
    assert lab.call(remove_jobs(lab.keys, ["due", "again"])) == "dd"
    assert (lab.meta("holes"), lab.counts()) == ("1", {})
    assert lab.claim(5).jobs == []


def test_what_cannot_be_read_is_removed_from_where_it_stands(lab: Lab) -> None:
    """A damaged record says nothing of its state; holes and counts stay right all the same."""
    lab.add(new(job_id="waiting"), new(job_id="late", delay=60), new(job_id="ranked", priority=2))
    for job_id in ("waiting", "late", "ranked"):
        lab.redis("HSET", lab.keys["jobs"], job_id, "damaged")
    assert lab.call(remove_jobs(lab.keys, ["late", "ranked", "waiting"])) == "ddd"
    assert (lab.counts(), lab.meta("holes")) == ({}, "1")
    assert (lab.members("delayed"), lab.members("prioritized")) == ([], [])


def test_a_delay_that_is_now_the_shortest_wakes_whoever_sleeps_longer(lab: Lab) -> None:
    """A blocked worker had meant to sleep until the next one was due; a delay that changes nothing of that wakes nobody."""
    lab.add(new(job_id="first", delay=60), new(job_id="second", delay=90))
    lab.redis("DEL", lab.keys["marker"])
    assert lab.call(change_delay(lab.keys, "second", "+80000")) == "u"
    assert lab.marker() == set()
    assert lab.call(change_delay(lab.keys, "second", "+5000")) == "u"
    assert lab.marker() == {"due"}


def test_the_last_event_says_what_the_totals_came_to(lab: Lab) -> None:
    """They go with the queue: a reader that was behind would never learn them."""
    lab.add(new("a"), new("b"), new("b"))
    lab.settle(*[outcome(job, "exhausted") for job in lab.claim(2).jobs])
    expected = {"busy_ms": 0, "added a": 1, "added b": 2} | {
        f"{kind} {name}": 1 for kind in ("starts", "failed", "exhausted") for name in "ab"
    }
    lab.call(obliterate_queue(lab.keys, lab.meta("epoch") or "", force=True))
    (event,) = lab.events()
    assert isinstance(event, ObliteratedEvent)
    assert (event.count, event.totals) == (3, expected)


def test_a_log_is_kept_within_its_bytes(lab: Lab) -> None:
    """The oldest lines make room, however few there are; one is always kept."""
    record = new()
    lab.add(record)
    line = f'"{"x" * 20_000}"'
    for _ in range(5):
        assert lab.call(add_log(lab.keys, record.id, "", line)) == "u"
    stored = lab.column("logs")[record.id]
    assert 5 == int(stored.partition("\n")[0])
    assert 3 == stored.count("\n") and len(stored) <= LOG_BYTES
    assert lab.call(add_log(lab.keys, record.id, "", f'"{"y" * LOG_BYTES}"')) == "u"
    assert 1 == lab.column("logs")[record.id].count("\n")


def test_a_log_is_kept_within_its_lines(lab: Lab) -> None:
    """The oldest lines make room, however short they are."""
    record = new()
    lab.add(record)
    for number in range(LOG_LINES + 3):
        assert lab.call(add_log(lab.keys, record.id, "", str(number))) == "u"
    ever, *lines = lab.column("logs")[record.id].split("\n")
    assert LOG_LINES + 3 == int(ever)
    assert [str(number) for number in range(3, LOG_LINES + 3)] == lines
