"""add_jobs: what is stored, where it stands in line, what is told, who is woken."""

from __future__ import annotations

from typing import Any

import pytest

from eventq.events import AddedEvent, DuplicatedEvent
from eventq.ids import new_id
from eventq.limits import INLINE_DATA_BYTES
from eventq.options import Keep
from eventq.states import JobState

from .lab import Lab, at_ms, floor, new

TRACE = '"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"a=b"'


def test_the_stored_text(lab: Lab) -> None:
    """A record is header, spec and data on lines of their own; what is default is left out."""
    plain, full = new("a name:x/1"), new("other", '{"k":"v"}', trace=TRACE, delay=60, priority=7, lifo=True, attempts=3)
    added = lab.add(plain, full)
    jobs = lab.column("jobs")
    assert jobs[plain.id] == f"1\t{added.ms}\t\t\t\ta name:x/1\t\n\n1"
    assert jobs[full.id] == f'1\t{added.ms}\t{added.ms + 60_000}\t7\tl\tother\t{TRACE}\n{{"attempts":3}}\n{{"k":"v"}}'
    stored = lab.job(full.id)
    assert (stored.record.added_ms, stored.record.due_ms, stored.record.priority) == (added.ms, added.ms + 60_000, 7)
    assert (stored.record.name, stored.record.trace, stored.record.spec.attempts) == ("other", TRACE, 3)


def test_large_data_is_kept_apart(lab: Lab) -> None:
    """Data above the limit stands in its own column, so that moving the job does not move it."""
    small, large = new(data="1" * INLINE_DATA_BYTES), new(data="2" * (INLINE_DATA_BYTES + 1), attempts=2)
    lab.add(small, large)
    assert lab.column("data") == {large.id: large.data}
    assert large.data not in lab.column("jobs")[large.id]
    assert (lab.job(small.id).record.data, lab.job(large.id).record.data) == (small.data, large.data)
    assert lab.job(large.id).record.spec.attempts == 2
    assert [(job.id, job.apart) for job in lab.claim(2).jobs] == [(small.id, ""), (large.id, large.data)]


def test_every_kind_of_place(lab: Lab) -> None:
    """Where a job goes is decided by its options alone, and its event says where."""
    now = lab.now()
    records = {
        "plain": new(),
        "delayed": new(delay=30),
        "at": new(at=at_ms(now + 90_000)),
        "past": new(at=at_ms(now - 5_000)),
        "first": new(lifo=True),
        "second": new(lifo=True),
        "low": new(priority=9),
        "high": new(priority=2),
        "high too": new(priority=2),
        "late and high": new(priority=1, delay=60),
        "past and high": new(priority=1, at=at_ms(now - 1)),
        "zero": new(priority=0, delay=0),
    }
    ids = {what: record.id for what, record in records.items()}
    added = lab.add(*records.values())

    assert lab.waiting() == [ids[what] for what in ("second", "first", "plain", "past", "zero")]
    assert lab.members("prioritized") == [ids[what] for what in ("past and high", "high", "high too", "low")]
    assert lab.members("delayed") == [ids[what] for what in ("delayed", "late and high", "at")]
    dues = {what: lab.job(ids[what]).record.due_ms for what in ("delayed", "at", "past", "late and high", "past and high")}
    assert dues == {
        "delayed": added.ms + 30_000,
        "at": now + 90_000,
        "past": 0,
        "late and high": added.ms + 60_000,
        "past and high": 0,
    }
    told = {event.job_id: event for event in lab.events() if isinstance(event, AddedEvent)}
    for what, job_id in ids.items():
        event = told[job_id]
        assert (event.state, event.priority) == (lab.state(job_id), records[what].options.priority), what
        assert event.due_ms == dues.get(what, 0)


def test_the_added_event_carries_the_trace(lab: Lab) -> None:
    """Whoever reads the stream can join a job to the trace it was added in."""
    lab.add(new(trace=TRACE), new(trace=TRACE, priority=1, delay=5))
    for event in lab.events():
        assert isinstance(event, AddedEvent)
        assert (event.traceparent[:6], event.tracestate) == ("00-4bf", "a=b")


def test_an_own_id_that_exists_is_not_added_again(lab: Lab) -> None:
    """The stored job stays as it is, `duplicated` is told, and the others of the batch are added."""
    lab.add(new("first", "1", job_id="own"))
    lab.fresh()
    other, before = new("other"), lab.column("jobs")["own"]
    added = lab.add(new("second", "2", job_id="own", delay=5), other, new("third", job_id="own", priority=1))

    assert added.existing == [0, 2]
    assert lab.column("jobs")["own"] == before
    assert lab.counts() == {"waiting": 2}
    events = lab.fresh()
    assert [(event.kind, event.name) for event in events if isinstance(event, AddedEvent | DuplicatedEvent)] == [
        ("duplicated", "second"),
        ("duplicated", "third"),
        ("added", "other"),
    ]
    assert {lab.total("added", name) for name in ("second", "third")} == {0}


@pytest.mark.parametrize("options", [{}, {"delay": 5}, {"priority": 1}, {"lifo": True}], ids=str)
def test_an_own_id_twice_in_one_batch(lab: Lab, options: dict[str, Any]) -> None:
    """The first of them is added, wherever it goes; the second is told as a duplicate."""
    added = lab.add(new("one", job_id="own", **options), new("two", job_id="own", **options))
    assert added.existing == [1]
    assert (lab.job("own").record.name, sum(lab.counts().values())) == ("one", 1)
    assert lab.fresh_kinds() == ["duplicated", "added"]


def test_an_own_id_may_be_used_again_once_the_job_is_gone(lab: Lab) -> None:
    """An id is taken for as long as its job is stored, finished or not, and no longer."""
    lab.finish(new(job_id="own", remove_on_complete=Keep(count=5)), rule="")
    assert lab.add(new(job_id="own")).existing == [0]
    lab.finish(new(job_id="short"), rule="0")
    assert lab.add(new(job_id="short")).existing == []


def test_delayed_jobs_of_one_ms_keep_their_order(lab: Lab) -> None:
    """Jobs due in the same ms run in the order they were added, whatever their ids."""
    due = at_ms(lab.now() + 60_000)
    ids = [f"{chr(ord('z') - index % 26)}{index}" for index in range(300)]
    for start in range(0, 300, 100):
        lab.add(*[new(job_id=job_id, at=due) for job_id in ids[start : start + 100]])
    assert lab.members("delayed") == ids
    lab.advance(61)
    assert [job.id for _ in range(3) for job in lab.claim(100).jobs] == ids


def test_more_delayed_jobs_of_one_ms_than_fractions(lab: Lab) -> None:
    """Beyond 1,024 in one ms ids of ours keep the order, because they sort as they were made; no due time moves."""
    due = lab.now() + 60_000
    records = [new(at=at_ms(due)) for _ in range(1_500)]
    for start in range(0, 1_500, 500):
        lab.add(*records[start : start + 500])
    delayed = lab.column("delayed")
    assert list(delayed) == [record.id for record in records]
    assert {floor(score) for score in delayed.values()} == {due}


def test_equal_priorities_are_first_in_first_out(lab: Lab) -> None:
    """Among equals the order is that of adding, over calls and whatever their ids; the largest priority is exact."""
    ids = [f"{chr(ord('z') - index)}-{index}" for index in range(20)]
    for job_id in ids:
        lab.add(new(job_id=job_id, priority=2**21 - 1))
    lab.add(new(job_id="best", priority=1))
    assert lab.members("prioritized") == ["best", *ids]
    assert lab.ids(JobState.PRIORITIZED) == ["best", *ids]


def test_totals_are_per_name(lab: Lab) -> None:
    """What was added is counted by name, over calls."""
    lab.add(new("a"), new("b"), new("a", delay=5))
    lab.add(new("a", priority=1))
    assert (lab.total("added", "a"), lab.total("added", "b")) == (3, 1)


def test_workers_are_woken_for_work_only(lab: Lab) -> None:
    """One job arms one member, several arm four, a delayed one only `due`, a paused queue none."""
    lab.add(new())
    assert lab.marker() == {"0"}
    lab.add(new(), new(priority=1))
    assert lab.marker() == {"0", "1", "2", "3"}
    lab.redis("DEL", lab.keys["marker"])
    lab.add(new(delay=60))
    assert lab.marker() == {"due"}
    lab.redis("DEL", lab.keys["marker"])
    lab.redis("HSET", lab.keys["meta"], "paused", "1")
    lab.add(new())
    assert lab.marker() == set()


def test_due_is_armed_only_for_a_job_due_before_all_others(lab: Lab) -> None:
    """A blocked worker sleeps until the next due time it knows of: only a sooner one must wake it."""
    for delay, armed in [(60, True), (90, False), (60.5, False), (30, True), (30, False)]:
        lab.redis("DEL", lab.keys["marker"])
        lab.add(new(delay=delay + 300), new(delay=delay))
        assert (lab.marker() == {"due"}) is armed, delay


def test_a_full_call(lab: Lab) -> None:
    """500 jobs, large ones among them, go in with one call; nothing of it depends on Lua's stack."""
    records = [new(data="1" * 1_500, job_id=new_id() if index % 2 else None) for index in range(500)]
    assert lab.add(*records).existing == []
    assert lab.waiting() == [record.id for record in records]
    assert len(lab.column("data")) == 500
