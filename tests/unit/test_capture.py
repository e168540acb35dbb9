"""The span that a processor sees: what it keeps of what is said of it, and how much."""

from __future__ import annotations

import enum
import json
import math
import threading
import time
from typing import Any

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from eventq import Job, Queue
from eventq.capture import CapturingSpan
from eventq.client import boot_time
from eventq.options import Spec
from eventq.records import Record, Run
from eventq.spans import RunKey, creation_of, facts_of, run_of

TRACE = '"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}","tracestate":"vendor=a \\"b\\""'
OTHER = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))


def make_span(trace: str = TRACE.format(flags="01")) -> CapturingSpan:
    record, run = Record(1_000, 0, 0, "", "n", trace, Spec(), "null"), Run("active", "t", 0, 0, 2_000, 1)
    job: Job[Any, Any] = Job(Queue("q").context, "job", record, None, run, fence=7, token="t")
    return CapturingSpan(job, boot_time())


def said(span: CapturingSpan, stacktrace: str = "") -> Any:
    """Return what travels with the outcome, {} for nothing."""
    return json.loads("{" + span.captured(stacktrace) + "}").get("span", {})


@pytest.fixture
def span() -> CapturingSpan:
    return make_span()


# Who it is


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False)])
def test_it_has_the_ids_that_the_tracer_will_give_it(flags: str, sampled: bool) -> None:
    """And the caller's decision and tracestate."""
    trace = TRACE.format(flags=flags)
    span, facts = make_span(trace), facts_of(trace)
    ids = run_of(creation_of("q", "job", 1_000, facts), facts, RunKey("q", "job", 7, 2_000), 1_000)
    context = span.get_span_context()
    assert (ids.trace_id, ids.span_id) == (context.trace_id, context.span_id)
    assert (sampled, sampled) == (context.trace_flags.sampled, span.is_recording())
    assert 'vendor=a "b"' == context.trace_state.to_header()
    assert not context.is_remote


@pytest.mark.parametrize("trace", ["", '"propagation":"none"', '"traceparent":"damaged"', "damaged"])
def test_a_job_without_a_trace_is_sampled_where_there_is_no_sampler(trace: str) -> None:
    context = make_span(trace).get_span_context()
    assert context.is_valid and context.trace_flags.sampled and not context.trace_state


def test_a_run_that_joins_no_trace_has_no_tracestate() -> None:
    context = make_span(TRACE.format(flags="01") + ',"propagation":"link"').get_span_context()
    assert 0x0AF7651916CD43DD8448EB211C80319C != context.trace_id and not context.trace_state
    assert context.trace_flags.sampled, "the decision is shared"


# What it keeps


def test_nothing_said_is_nothing(span: CapturingSpan) -> None:
    """Not even an empty member; ending it is saying nothing."""
    span.end()
    span.set_attributes({})
    span.set_status(StatusCode.UNSET)
    span.update_name("")
    assert "" == span.captured()


def test_all_that_can_be_said(span: CapturingSpan) -> None:
    span.set_attribute("tenant", "acme")
    span.set_attributes({"whole": 7, "real": 0.5, "yes": True, "many": ("a", "b"), "tenant": "acme & sons"})
    span.add_event("charging", {"amount": 5}, timestamp=time.time_ns() + 10**9)
    span.add_event("charged")
    span.add_link(OTHER, {"why": "parent order"})
    span.update_name("charge card")
    span.set_status(StatusCode.ERROR, "declined")
    found = said(span)
    assert {"tenant": "acme & sons", "whole": 7, "real": 0.5, "yes": True, "many": ["a", "b"]} == found["attributes"]
    (name, offset, attributes), (second, later, nothing) = found["events"]
    assert ("charging", {"amount": 5}) == (name, attributes) and 10**9 <= offset < 2 * 10**9
    assert ("charged", {}) == (second, nothing) and 0 < later < 10**9, "from the start of the run"
    assert [[f"{0xABC:032x}", f"{0xDEF:016x}", {"why": "parent order"}]] == found["links"]
    assert ("charge card", "error", "declined") == (found["name"], found["status"], found["description"])
    assert "dropped" not in found


def test_an_exception_that_was_handled_is_an_event(span: CapturingSpan) -> None:
    """Type, message, the end of the stack, and what else is said of it, which wins."""
    try:
        json.loads("{")
    except ValueError as error:
        span.record_exception(error, {"exception.message": "redacted", "tries": 2}, escaped=True)
    span.record_exception(KeyError("never raised"))
    (name, _, first), (_, _, second) = said(span)["events"]
    assert "exception" == name
    assert ("json.decoder.JSONDecodeError", "redacted", 2) == (
        first["exception.type"],
        first["exception.message"],
        first["tries"],
    )
    assert (
        first["exception.stacktrace"].rstrip().endswith("line 1 column 2 (char 1)") and __file__ in first["exception.stacktrace"]
    )
    assert ("KeyError", "'never raised'") == (second["exception.type"], second["exception.message"])


@pytest.mark.parametrize(
    ("calls", "status", "description"),
    [
        ([(StatusCode.OK, None)], "ok", None),
        ([(Status(StatusCode.ERROR, "no"), None)], "error", "no"),
        ([(StatusCode.ERROR, "no"), (StatusCode.UNSET, None)], "error", "no"),
        ([(StatusCode.ERROR, "no"), (StatusCode.OK, "ignored")], "ok", None),
        ([(StatusCode.OK, None), (StatusCode.ERROR, "too late")], "ok", None),
    ],
)
def test_the_status_follows_opentelemetrys_rules(
    span: CapturingSpan, calls: list[tuple[Any, str | None]], status: str, description: str | None
) -> None:
    """OK is the last word, UNSET none at all, and only an error has a description."""
    for each, text in calls:
        span.set_status(each, text)
    assert (status, description) == (said(span)["status"], said(span).get("description"))


# What it does not keep


class Rank(enum.IntEnum):
    FIRST = 1


class Money(float):
    """As numpy's float64 is one: a float that an encoder may not know."""


class Count(int):
    pass


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Rank.FIRST, 1),
        (Money(2.5), 2.5),
        (Count(3), 3),
        (Name("x"), "x"),
        ([Money(1), Money(2)], [1.0, 2.0]),
        (range(3), [0, 1, 2]),
    ],
)
def test_values_that_are_more_than_a_number_or_a_text(span: CapturingSpan, value: Any, kept: Any) -> None:
    """Kept as what they are at heart, and nothing else is lost because of them."""
    span.set_attribute("value", value)
    span.add_event("seen", {"value": value})
    assert {"value": kept} == said(span)["attributes"]
    assert {"value": kept} == said(span)["events"][0][2]


@pytest.mark.parametrize(
    "value",
    [None, object(), {"a": 1}, b"raw", bytearray(b"raw"), 2**63, -(2**63) - 1, math.nan, math.inf, [1, "a"], [[1]], [None]],
)
def test_what_is_no_value_is_dropped_and_counted(span: CapturingSpan, value: Any) -> None:
    """An attribute, or one of an event's or a link's; what is beside it stays."""
    span.set_attributes({"bad": value, "good": 1})
    span.add_event("e", {"bad": value, "good": 1})
    span.add_link(OTHER, {"bad": value, "good": 1})
    found = said(span)
    assert {"good": 1} == found["attributes"] == found["events"][0][2] == found["links"][0][2]
    assert 3 == found["dropped"]


@pytest.mark.parametrize(("key", "kept"), [(7, "7"), (("a", 1), "('a', 1)"), (["no hash"], "['no hash']"), (True, "True")])
def test_keys_that_are_no_text(span: CapturingSpan, key: Any, kept: str) -> None:
    """They raise nothing in the processor."""
    span.set_attribute(key, 1)
    span.set_attribute(key, 2)
    assert {kept: 2} == said(span)["attributes"]


@pytest.mark.parametrize("key", ["", None, 0])
def test_no_key_is_no_attribute(span: CapturingSpan, key: Any) -> None:
    span.set_attribute(key, 1)
    assert {"dropped": 1} == said(span)


def test_half_a_character_costs_nothing_but_itself(span: CapturingSpan) -> None:
    """A lone surrogate cannot be encoded: it becomes a question mark wherever it stands."""
    span.set_attribute("key \ud800", "value \ud800")
    span.add_event("event \ud800", {"key \ud800": ["\ud800"]})
    span.update_name("name \ud800")
    span.set_status(StatusCode.ERROR, "why \ud800")
    found = said(span, "stack \ud800")
    assert {"key ?": "value ?"} == found["attributes"]
    assert ("event ?", {"key ?": ["?"]}) == (found["events"][0][0], found["events"][0][2])
    assert ("name ?", "why ?", "stack ?") == (found["name"], found["description"], found["stacktrace"])


def test_a_link_to_nothing_is_none(span: CapturingSpan) -> None:
    span.add_link(NonRecordingSpan(SpanContext(0, 0, is_remote=False)).get_span_context())
    assert {"dropped": 1} == said(span)


# How much it keeps


def test_so_many_attributes_events_and_links(span: CapturingSpan) -> None:
    """64 attributes, 32 events, 32 links; the first ones stay, the rest is counted; a known attribute can still be changed."""
    for number in range(70):
        span.set_attribute(f"a{number}", number)
    assert (64, 6) == (len(said(span)["attributes"]), said(span)["dropped"])
    span.set_attribute("a0", "changed")
    assert "changed" == said(span)["attributes"]["a0"] and "a64" not in said(span)["attributes"]
    other = make_span()
    for _ in range(40):
        other.add_event("e")
        other.add_link(OTHER)
    found = said(other)
    assert (32, 32, 16) == (len(found["events"]), len(found["links"]), found["dropped"])


def test_texts_are_cut(span: CapturingSpan) -> None:
    """A text, an event's name, a span's name and a description at 1,024 characters, a list at 64 items."""
    span.set_attribute("text", "x" * 5_000)
    span.set_attribute("list", list(range(1_000)))
    span.add_event("e" * 5_000)
    span.update_name("n" * 5_000)
    span.set_status(StatusCode.ERROR, "d" * 5_000)
    found = said(span)
    assert ("x" * 1024, list(range(64))) == (found["attributes"]["text"], found["attributes"]["list"])
    assert ("e" * 1024, "n" * 1024, "d" * 1024) == (found["events"][0][0], found["name"], found["description"])


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_all_of_it_is_4_kib(letter: str) -> None:
    """Bytes, not characters, however large what is said; the stack trace has 4 KiB of its own."""
    span = make_span()
    for number in range(100):
        span.set_attribute(f"a{number}", letter * 500)
        span.add_event(f"e{number}", {"text": letter * 500})
        span.add_link(OTHER, {"text": letter * 500})
        span.record_exception(ValueError(letter * 500))
    travels = span.captured()
    assert 2_000 < len(travels.encode()) <= 4_096 + 200
    assert said(span)["dropped"] > 300
    stacktrace = said(span, letter * 5_000 + "the end")["stacktrace"]
    assert stacktrace.endswith(letter + "the end") and 4_090 <= len(stacktrace.encode()) <= 4_096


def test_one_attribute_set_again_and_again_has_its_last_value(span: CapturingSpan) -> None:
    """It takes the room of one; a value that does not fit leaves the one before."""
    for number in range(10_000):
        span.set_attribute("row", number)
    assert {"attributes": {"row": 9_999}} == said(span)
    for number in range(3):
        span.set_attribute(f"large{number}", "x" * 1024)
    for _ in range(100):
        span.set_attribute("row", "x" * 1024)
    assert (9_999, 100) == (said(span)["attributes"]["row"], said(span)["dropped"])
    span.set_attribute("one more", "x" * 1024)
    assert 101 == said(span)["dropped"], "what did not fit made no room"


def test_threads_may_say_something_at_once(span: CapturingSpan) -> None:
    """A run's threads, and one that goes on after its timeout while the outcome is made: nothing raises, bounds hold."""
    together, failures = threading.Barrier(9), list[BaseException]()
    span.set_attribute("first", 1)
    span.add_event("first")

    def say(number: int) -> None:
        try:
            together.wait(10)
            for turn in range(300):
                span.set_attribute(f"a{number}.{turn}", turn)
                span.set_attribute("shared", f"{number}.{turn}")
                span.add_event("e", {"turn": turn})
        except BaseException as error:  # for the test's own thread to raise
            failures.append(error)

    threads = [threading.Thread(target=say, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    together.wait(10)
    while any(thread.is_alive() for thread in threads):
        said(span)
    for thread in threads:
        thread.join()
    found = said(span)
    assert failures == []
    assert 64 <= len(found["attributes"]) <= 72 and 32 <= len(found["events"]) <= 40 and found["dropped"] > 1_000


def test_an_exception_that_cannot_say_what_it_is_keeps_no_processor_from_going_on(span: CapturingSpan) -> None:
    """Its own `__str__` may be broken; its type and place are told all the same."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("broken")

    span.record_exception(Broken())
    told = span.captured()
    assert "Broken" in told and "whose str() raised" in told
