"""Ids of spans, and which trace a run belongs to: pure, and the same wherever they are worked out."""

from __future__ import annotations

import pytest

from eventq.spans import (
    MAX_FAN_OUT,
    MAX_PARENT_AGE_MS,
    RunKey,
    TraceFacts,
    creation_of,
    facts_of,
    is_child,
    members_of,
    parse_traceparent,
    queued_of,
    run_of,
)

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RUN = RunKey("q", "job", 7, 2_000)
JOINED = TraceFacts(traceparent=CALLER)


def test_a_job_belongs_to_the_trace_it_was_added_in() -> None:
    """The span that created it is a child of the caller's, the run a child of that, with the caller's decision and tracestate."""
    facts = TraceFacts(traceparent=CALLER, tracestate="a=b")
    creation = creation_of("q", "job", 1_000, facts)
    run = run_of(creation, facts, RUN, 1_000)
    assert (creation.trace_id, creation.parent_id) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
    assert (run.trace_id, run.parent_id, run.is_sampled, run.state) == (creation.trace_id, creation.span_id, True, "a=b")


def test_a_job_added_outside_of_any_trace_has_one_of_its_own() -> None:
    """It is a root, nobody has decided about it, and another queue, id or time is another trace."""
    one = creation_of("q", "job", 1_000, TraceFacts())
    others = {
        creation_of(*args, TraceFacts()).trace_id for args in (("r", "job", 1_000), ("q", "jab", 1_000), ("q", "job", 1_001))
    }
    assert (one.parent_id, one.is_sampled, len(others - {one.trace_id})) == (0, None, 3)
    assert one == creation_of("q", "job", 1_000, TraceFacts())


def test_a_schedules_job_is_a_trace_of_its_own() -> None:
    """Whoever set the schedule is no parent of what it makes for years."""
    assert creation_of("q", "schedule:nightly:1000", 1_000, JOINED).parent_id == 0


@pytest.mark.parametrize(
    ("propagation", "age", "jobs", "child"),
    [
        ("", 0, 1, True),
        ("", MAX_PARENT_AGE_MS, 1, True),
        ("", MAX_PARENT_AGE_MS + 1, 1, False),
        ("auto", 0, MAX_FAN_OUT, True),
        ("auto", 0, MAX_FAN_OUT + 1, False),
        ("parent", MAX_PARENT_AGE_MS + 1, MAX_FAN_OUT + 1, True),
        ("link", 0, 1, False),
        ("none", 0, 1, False),
    ],
)
def test_parent_or_root(propagation: str, age: int, jobs: int, child: bool) -> None:
    """By age and fan-out, where nothing else was said. A root's trace is new, but shares the decision; its state is its own."""
    facts = TraceFacts(traceparent=CALLER, tracestate="a=b", propagation=propagation, batch=f"b.{jobs}" if jobs > 1 else "")
    creation = creation_of("q", "job", 1_000, facts)
    run = run_of(creation, facts, RUN, age)
    assert is_child(facts, age) is child
    assert (run.trace_id == creation.trace_id, run.parent_id == creation.span_id) == (child, child)
    assert (run.is_sampled, run.state) == (True, "a=b" if child else "")


def test_jobs_of_a_large_bulk_share_the_span_that_created_them() -> None:
    """Of a small one each has its own, below the call's."""
    small, large = (TraceFacts(traceparent=CALLER, batch=f"b.{jobs}") for jobs in (MAX_FAN_OUT, MAX_FAN_OUT + 1))
    assert creation_of("q", "one", 1, large) == creation_of("q", "two", 1, large)
    one, two = creation_of("q", "one", 1, small), creation_of("q", "two", 1, small)
    assert one.span_id != two.span_id and one.parent_id == two.parent_id


def test_every_run_has_an_id_of_its_own() -> None:
    """A stalled run and its successor share an attempt, two runs around a failover a fence: neither may share a span."""
    creation = creation_of("q", "job", 1_000, JOINED)
    runs = [RUN, RunKey("q", "job", 8, 2_000), RunKey("q", "job", 7, 2_001), RunKey("q", "other", 7, 2_000)]
    ids = {run_of(creation, JOINED, run, 0).span_id for run in runs} | {queued_of(creation, run).span_id for run in runs}
    assert len(ids) == 8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        CALLER[:-3],
        CALLER.replace("0af", "xyz"),
        "ff" + CALLER[2:],
        "00-" + "0" * 32 + CALLER[35:],
        CALLER[:36] + "0" * 16 + "-01",
    ],
)
def test_what_is_no_traceparent_is_none(text: str) -> None:
    """Then a job has a trace of its own, and runs."""
    assert parse_traceparent(text) is None
    assert creation_of("q", "job", 1, TraceFacts(traceparent=text)).parent_id == 0


@pytest.mark.parametrize("fragment", ["", "{", '"traceparent":7', '"traceparent":"x'])
def test_a_damaged_fragment_says_nothing(fragment: str) -> None:
    """A job whose trace cannot be read runs all the same."""
    assert facts_of(fragment) == TraceFacts()


@pytest.mark.parametrize(
    ("fragment", "members"),
    [
        ("", ""),
        ('"traceparent":"x","batch":"a.3"', '"traceparent":"x","batch":"a.3"'),
        ('"traceparent":"x","job_id":"another"', '"traceparent":"x"'),
        ('"traceparent":"x', ""),
        ('"traceparent":7', ""),
        ('"traceparent":"x"},{"kind":"y"', ""),
        ('"job_id":"another"', ""),
    ],
)
def test_an_event_carries_members_about_its_trace_alone(fragment: str, members: str) -> None:
    """It stands beside others in one JSON text, and between other facts of its job."""
    assert members_of(fragment) == members


def test_queues_do_not_share_spans() -> None:
    """Two of them may have a job of the same id, added in the same trace and millisecond, claimed with the same fence."""
    ids: list[int] = []
    for scope in ("q", "r", "prod/q"):
        creation = creation_of(scope, "job", 1_000, JOINED)
        run = RunKey(scope, "job", 7, 2_000)
        ids += [creation.span_id, run_of(creation, JOINED, run, 0).span_id, queued_of(creation, run).span_id]
    assert 9 == len(set(ids))
