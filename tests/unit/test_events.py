"""The event catalogue: every kind has a class and a line, an entry becomes events, and what is odd is told apart from what is broken."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventq.events as catalogue
from eventq.events import (
    KINDS,
    LOCAL_EVENTS,
    STREAM_EVENTS,
    ActiveEvent,
    AddedEvent,
    CompletedEvent,
    Event,
    FailedEvent,
    LostEvent,
    RemovedEvent,
    RetryingEvent,
    UnknownEvent,
    UnreadableEntry,
    make_event,
    parse_entry,
)
from eventq.records import JobErrorInfo

ALL = {**STREAM_EVENTS, **LOCAL_EVENTS}


def entry(kind: str, *facts: object, seq: int = 7, **fields: str) -> dict[str, str]:
    """Return a stream entry as Redis gives it."""
    return {"kind": kind, "seq": str(seq), "n": str(len(facts)), "ms": "1700000000123", "events": json.dumps(facts)} | fields


def rows() -> list[tuple[str, str, str]]:
    """Return the rows of the table in the module's docstring."""
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]*)\|$", catalogue.__doc__ or "", re.MULTILINE)
    return [(kinds, when, fields) for kinds, when, fields in found if kinds != "kind" and not kinds.startswith("-")]


def test_the_docstring_lists_every_kind_once() -> None:
    """The catalogue for people and the one for programs name the same kinds."""
    listed = [kind for kinds, _, _ in rows() for kind in kinds.split(", ")]
    assert sorted(listed) == sorted(KINDS)


def test_the_docstring_names_fields_that_exist() -> None:
    """Every field in a row is an attribute of the classes of that row."""
    for kinds, _, fields in rows():
        names = re.split(
            r", | or ", fields.strip().replace("trace context", "traceparent, tracestate, service, propagation, batch, link")
        )
        for kind in kinds.split(", "):
            missing = [name for name in names if name and not hasattr(ALL[kind](), name)]
            assert not missing, f"{kind} has no {missing}"


def test_every_event_class_is_in_the_catalogue() -> None:
    """No class with a kind of its own is left out, except the one for kinds that are not known."""
    classes = {cls for cls in vars(catalogue).values() if isinstance(cls, type) and issubclass(cls, Event) and cls.kind}
    assert classes - {UnknownEvent} == set(ALL.values())
    assert {kind: cls.kind for kind, cls in ALL.items()} == {kind: kind for kind in KINDS}
    assert not set(STREAM_EVENTS) & set(LOCAL_EVENTS)


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_frozen_and_describe_themselves(kind: str) -> None:
    """Nobody who is told an event can change it for the next one; each class has a docstring."""
    event = ALL[kind](queue="q", seq=1, ms=5)
    with pytest.raises(AttributeError):
        event.seq = 2  # type: ignore[misc]
    assert ALL[kind].__doc__
    assert event == ALL[kind](queue="q", seq=1, ms=5)


def test_times_are_aware_and_durations_are_seconds() -> None:
    """`time` and `due` are UTC datetimes, None for at once; `waited` and `ran` are seconds."""
    event = AddedEvent(ms=1_700_000_000_123, due_ms=1_700_000_060_000)
    assert event.time == datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)
    assert event.due == datetime(2023, 11, 14, 22, 14, 20, tzinfo=UTC)
    assert AddedEvent().due is None
    assert RetryingEvent(due_ms=1000).due == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert RetryingEvent().due is None
    outcome = CompletedEvent(waited_ms=1500, ran_ms=20)
    assert (outcome.waited, outcome.ran) == (1.5, 0.02)


def test_an_entry_becomes_its_events() -> None:
    """Events of one entry are numbered from its seq and share kind and time."""
    fields = entry("active", {"job_id": "a", "name": "n", "attempt": 1, "worker": "w"}, {"job_id": "b", "waited_ms": 1500})
    assert parse_entry("q", fields) == [
        ActiveEvent(queue="q", seq=7, ms=1_700_000_000_123, job_id="a", name="n", attempt=1, worker="w"),
        ActiveEvent(queue="q", seq=8, ms=1_700_000_000_123, job_id="b", waited_ms=1500),
    ]


def test_facts_have_their_types() -> None:
    """Errors, ids and results come as what they are."""
    error = {"type": "ValueError", "message": "no"}
    (failed,) = parse_entry("q", entry("failed", {"job_id": "a", "error": error, "exhausted": True, "reason": "timeout"}))
    assert failed == FailedEvent(
        queue="q",
        seq=7,
        ms=1_700_000_000_123,
        job_id="a",
        error=JobErrorInfo("ValueError", "no"),
        exhausted=True,
        reason="timeout",
    )
    (removed,) = parse_entry("q", entry("removed", {"job_ids": ["a", "b"], "previous": "failed", "reason": "retention"}))
    assert isinstance(removed, RemovedEvent)
    assert removed.job_ids == ("a", "b")
    (completed,) = parse_entry("q", entry("completed", {"job_id": "a", "result": {"x": [1, None]}}))
    assert isinstance(completed, CompletedEvent)
    assert (completed.result, completed.result_omitted) == ({"x": [1, None]}, False)


def test_what_a_newer_version_says_is_left_out_or_kept_apart() -> None:
    """An unknown fact or field is left out, an unknown kind is an UnknownEvent with its facts; neither is an error."""
    (known,) = parse_entry("q", entry("added", {"job_id": "a", "colour": "red"}, later="1"))
    assert known == AddedEvent(queue="q", seq=7, ms=1_700_000_000_123, job_id="a")
    (unknown,) = parse_entry("q", entry("promised", {"job_id": "a"}))
    assert unknown == UnknownEvent(queue="q", seq=7, ms=1_700_000_000_123, name="promised", facts={"job_id": "a"})
    assert unknown.kind == "unknown"


@pytest.mark.parametrize("name", ["queue", "seq", "ms", "kind"])
def test_a_fact_cannot_pretend_to_be_the_head(name: str) -> None:
    """Queue, number and time are those of the entry, whatever its facts say."""
    assert make_event("added", "q", 7, 9, {name: 1}) == AddedEvent(queue="q", seq=7, ms=9)


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": None},
        {"seq": None},
        {"n": None},
        {"ms": None},
        {"events": None},
        {"seq": "x"},
        {"seq": "1.5"},
        {"n": "2"},
        {"n": "0", "events": "[]"},
        {"n": "-1"},
        {"ms": ""},
        {"events": ""},
        {"events": "[{}"},
        {"events": "{}"},
        {"events": "[1]"},
        {"events": "null"},
        {"events": '[{"job_id":5}]'},
        {"events": '[{"due_ms":"soon"}]'},
        {"events": "[" * 100_000},
        {"seq": "9" * 10_000},
    ],
    ids=str,
)
def test_a_damaged_entry_is_unreadable(damage: dict[str, str | None]) -> None:
    """Whatever is wrong with an entry, it is one kind of error, which names the queue."""
    fields: dict[str, Any] = entry("added", {"job_id": "a"}) | damage
    with pytest.raises(UnreadableEntry, match="queue q"):
        parse_entry("q", {name: text for name, text in fields.items() if text is not None})


@given(st.dictionaries(st.sampled_from(["kind", "seq", "n", "ms", "bytes", "events", "x"]), st.text(max_size=40)))
def test_no_entry_raises_anything_else(fields: dict[str, str]) -> None:
    """Any text in any field is events or UnreadableEntry."""
    try:
        events = parse_entry("q", fields)
    except UnreadableEntry:
        return
    assert events


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FACTS = sorted({name for cls in ALL.values() for name in cls.__struct_fields__})


@given(
    st.sampled_from(sorted(STREAM_EVENTS)), st.lists(st.dictionaries(st.sampled_from(FACTS), json_values, max_size=4), max_size=3)
)
def test_no_facts_raise_anything_else(kind: str, facts: list[dict[str, Any]]) -> None:
    """Any JSON in any fact is an event of its kind or makes the entry unreadable; the head is never touched."""
    fields = entry(kind, seq=7) | {"n": str(len(facts)), "events": msgspec.json.encode(facts).decode()}
    try:
        events = parse_entry("q", fields)
    except UnreadableEntry:
        return
    assert [(event.kind, event.queue, event.seq) for event in events] == [(kind, "q", 7 + index) for index in range(len(facts))]


def test_a_lost_event_says_how_many() -> None:
    """It is made by a reader and has no time."""
    lost = LostEvent(queue="q", seq=4, count=3)
    assert (lost.kind, lost.count, lost.reason, lost.ms) == ("lost", 3, "trimmed", 0)
