"""What is stored of a job, read back: every field, what a newer version adds, and damage told as such."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventq.backoff import Backoff
from eventq.options import Spec
from eventq.records import NEVER_RUN, Record, Run, UnreadableRecord, parse_record, parse_run, parse_stored
from eventq.states import JobState

PLAIN = '1\t1700\t\t\t\tmail\t\n\n{"to":"a"}'
RUN = "active w.1.0 0 5 6 7 8 9 10 - host:1:abcd"


def test_a_plain_record() -> None:
    """Defaults are left out of the text and filled in again."""
    assert parse_record(PLAIN, "") == Record(1700, 0, 0, "", "mail", "", Spec(), '{"to":"a"}')


def test_a_full_record() -> None:
    """Due time, priority, flags, trace context and spec come back as they were written."""
    trace = '"traceparent":"00-1-2-01"'
    spec = '{"attempts":3,"timeout_ms":50}'
    text = f'1\t1700\t1800\t5\tl\ta name: x/y\t{trace}\n{spec}\n"line\\nfeed"\n'
    assert parse_record(text, "") == Record(
        1700, 1800, 5, "l", "a name: x/y", trace, Spec(attempts=3, timeout_ms=50), '"line\\nfeed"\n', spec
    )
    spec = '{"backoff":{"kind":"fixed","delay_ms":1000}}'
    assert parse_record(f"1\t1\t\t\t\tn\t\n{spec}\n1", "").spec.backoff == Backoff.fixed(1.0)


def test_large_data_stands_apart() -> None:
    """With the flag `d` the data is what was stored beside the record."""
    assert parse_record("1\t1\t\t\td\tn\t\n\n", '"large"').data == '"large"'
    assert parse_record("1\t1\t\t\tld\tn\t\n\n", "").data == ""
    assert parse_record("1\t1\t\t\t\tn\t\n\n1", '"not mine"').data == "1"


def test_fields_of_a_newer_version_are_left_alone() -> None:
    """Unknown trailing fields of the header are no damage: old and new workers share a queue while it is upgraded."""
    assert parse_record("1\t1700\t\t\t\tmail\t\tgroup\t9\n\n1", "").name == "mail"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1\t1\t\t\t\tn\t",
        "1\t1\t\t\t\tn\t\n",
        "1\t1\t\t\t\tn\n\n1",
        "2\t1\t\t\t\tn\t\n\n1",
        "\t1\t\t\t\tn\t\n\n1",
        "1\t\t\t\t\tn\t\n\n1",
        "1\tx\t\t\t\tn\t\n\n1",
        "1\t1\tsoon\t\t\tn\t\n\n1",
        "1\t1\t\thigh\t\tn\t\n\n1",
        "1\t1\t\t\t\tn\t\n{\n1",
        '1\t1\t\t\t\tn\t\n{"attempts":"x"}\n1',
        "1\t1\t\t\t\t\t\n\n1",
        '1\t1\t\t\t\ta"b\t\n\n1',
    ],
)
def test_a_damaged_record_is_unreadable(text: str) -> None:
    """Another layout, missing or wrong fields: one error, for that job alone."""
    with pytest.raises(UnreadableRecord, match="record is unreadable"):
        parse_record(text, "")


def test_a_run() -> None:
    """State, token, times and counters; what follows the tenth space is the worker."""
    assert parse_run(RUN) == Run(
        state="active",
        token="w.1.0",
        finished_ms=0,
        ready_ms=5,
        started_ms=6,
        starts=7,
        fails=8,
        stalls=9,
        releases=10,
        place="-",
        worker="host:1:abcd",
    )


@pytest.mark.parametrize("text", ["", "active", RUN.rsplit(" ", 1)[0], RUN.replace(" 7 ", " seven "), RUN.replace(" ", "\t")])
def test_a_damaged_run_is_unreadable(text: str) -> None:
    """A run that is cut off or not one of ours is told as such."""
    with pytest.raises(UnreadableRecord, match="run is unreadable"):
        parse_run(text)


@given(st.text(max_size=60))
def test_nothing_else_is_raised(text: str) -> None:
    """Any text is a record, a run, or UnreadableRecord."""
    for parse in (
        lambda: parse_record(text, ""),
        lambda: parse_run(text),
        lambda: parse_stored(False, ["a", PLAIN, text, None, None, None]),
    ):
        with contextlib.suppress(UnreadableRecord):
            parse()


def stored(record: str | None = PLAIN, run: str | None = None, *, paused: bool = False, **columns: Any) -> Any:
    """Return the job of these columns."""
    row = ["a", record, run, columns.get("apart"), columns.get("result"), columns.get("progress")]
    return parse_stored(paused, row)


def test_a_job_that_is_not_stored_is_none() -> None:
    """No record, no job, whatever else is left of it."""
    assert stored(None, RUN, result="1") is None


@pytest.mark.parametrize(
    ("record", "run", "state"),
    [
        (PLAIN, None, JobState.WAITING),
        (PLAIN.replace("\t\t\t\t", "\t\t5\t\t", 1), None, JobState.PRIORITIZED),
        (PLAIN.replace("\t\t\t\t", "\t9\t\t\t", 1), None, JobState.DELAYED),
        (PLAIN.replace("\t\t\t\t", "\t9\t5\t\t", 1), None, JobState.DELAYED),
        (PLAIN.replace("\t\t\t\t", "\t9\t5\t\t", 1), RUN, JobState.ACTIVE),
        (PLAIN, RUN.replace("active", "waiting"), JobState.WAITING),
        (PLAIN, RUN.replace("active", "completed"), JobState.COMPLETED),
    ],
)
def test_the_state_is_the_runs_or_else_the_records(record: str, run: str | None, state: JobState) -> None:
    """A job that never moved stands where it was put; from then on its run says where."""
    job = stored(record, run)
    assert job.state is state
    assert job.run == (parse_run(run) if run else NEVER_RUN)
    assert job.id == "a"


def test_a_paused_queue_has_paused_jobs() -> None:
    """Only waiting jobs are paused; what runs or is delayed is what it was."""
    assert stored(paused=True).state is JobState.PAUSED
    assert stored(run=RUN, paused=True).state is JobState.ACTIVE
    assert stored(PLAIN.replace("\t\t\t\t", "\t9\t\t\t", 1), paused=True).state is JobState.DELAYED


def test_result_and_progress_come_undecoded() -> None:
    """What is stored beside the record is handed on as text."""
    job = stored(run=RUN, result='{"a":1}', progress="50")
    assert (job.result, job.progress) == ('{"a":1}', "50")


def test_an_unknown_state_is_unreadable() -> None:
    """A state that this version does not know is damage of this one job, not of the reader."""
    with pytest.raises(UnreadableRecord, match="'sleeping'"):
        stored(run=RUN.replace("active", "sleeping"))
