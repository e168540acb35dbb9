"""Options of a job: everything is checked where it is said, and only what is not default is stored."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventq import Backoff, JobOptions, Keep
from eventq.errors import InvalidJob
from eventq.limits import MAX_ATTEMPTS, MAX_PRIORITY
from eventq.options import KEEP_COMPLETED, OptionArguments, Spec, options_of, parse_spec, queue_rule, retention_rule

AT = datetime(2030, 1, 1, tzinfo=UTC)


def test_defaults_leave_nothing_to_store() -> None:
    """A job without options has an empty spec, place and header."""
    compiled = JobOptions().compiled
    assert ("", "", "\t", None) == (compiled.spec, compiled.place, compiled.header, compiled.job_id)
    assert Spec() == parse_spec("")


def test_what_is_said_comes_back_as_it_was_said() -> None:
    """The stored spec holds attempts, backoff, retention and timeout, and reads back the same."""
    said = JobOptions(
        attempts=5,
        backoff=Backoff.exponential(2, jitter=0.5, maximum=60),
        remove_on_complete=Keep(count=3, age=60),
        remove_on_fail=False,
        timeout=timedelta(seconds=1.5),
    )
    assert said.compiled.options == parse_spec(said.compiled.spec)
    assert (5, 1500) == (said.compiled.options.attempts, said.compiled.options.timeout_ms)
    assert "count:3 age:60000" == said.compiled.options.remove_on_complete
    assert "forever" == said.compiled.options.remove_on_fail


@pytest.mark.parametrize(
    ("options", "place"),
    [
        (JobOptions(delay=5), "+5000"),
        (JobOptions(delay=0), ""),
        (JobOptions(delay=timedelta(milliseconds=7)), "+7"),
        (JobOptions(at=AT), "@1893456000000"),
    ],
)
def test_a_delay_is_relative_and_a_time_absolute(options: JobOptions, place: str) -> None:
    """Delays are added to Redis' clock, times are sent as they are."""
    assert place == options.compiled.place


def test_priority_and_lifo_are_in_the_header() -> None:
    """Lua reads priority and flags from the header, nothing else of the options."""
    assert "7\tl" == JobOptions(priority=7, lifo=True).compiled.header
    assert "\t" == JobOptions(priority=0, lifo=False).compiled.header
    assert f"{MAX_PRIORITY}\t" == JobOptions(priority=MAX_PRIORITY).compiled.header


def test_a_bare_number_is_a_fixed_backoff() -> None:
    """`backoff=2` waits two seconds before every attempt."""
    assert Backoff.fixed(2) == JobOptions(backoff=2).compiled.options.backoff
    assert Backoff.fixed(2) == JobOptions(backoff=timedelta(seconds=2)).compiled.options.backoff


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (None, ""),
        (True, "0"),
        (False, "forever"),
        (0, "0"),
        (5, "count:5"),
        (Keep(count=0), "0"),
        (Keep(count=3), "count:3"),
        (Keep(age=1.5), "age:1500"),
        (Keep(count=2, age=timedelta(minutes=1)), "count:2 age:60000"),
    ],
)
def test_retention_is_one_word_that_lua_reads(value: Any, rule: str) -> None:
    """True removes at once, False keeps for ever, numbers and Keep say how much."""
    assert rule == retention_rule("remove_on_complete", value)


def test_a_queues_rule_is_count_and_age() -> None:
    """-1 is no such rule; without a word of the queue the default is finite."""
    assert (10_000, 86_400_000) == queue_rule("remove_on_complete", None, KEEP_COMPLETED)
    assert (-1, -1) == queue_rule("remove_on_complete", False, KEEP_COMPLETED)
    assert (0, -1) == queue_rule("remove_on_complete", True, KEEP_COMPLETED)
    assert (7, -1) == queue_rule("remove_on_complete", 7, KEEP_COMPLETED)
    assert (-1, 5000) == queue_rule("remove_on_complete", Keep(age=5), KEEP_COMPLETED)


def test_options_of_a_job_stand_over_the_queues() -> None:
    """What a job leaves out comes from the defaults; delay and at take each other's place."""
    defaults = JobOptions(attempts=3, delay=5, priority=2)
    assert defaults == JobOptions().over(defaults)
    assert JobOptions(attempts=1, delay=5, priority=2) == JobOptions(attempts=1).over(defaults)
    assert JobOptions(attempts=3, at=AT, priority=2) == JobOptions(at=AT).over(defaults)
    assert JobOptions(attempts=3, delay=0, priority=2) == JobOptions(delay=0).over(defaults)
    assert JobOptions(attempts=3, delay=1, priority=2) == JobOptions(delay=1).over(JobOptions(attempts=3, at=AT, priority=2))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"delay": -1}, r"delay -1: must be not negative"),
        ({"delay": float("nan")}, r"delay nan: must be"),
        ({"delay": "5"}, r"delay '5': must be seconds"),
        ({"delay": 1, "at": AT}, r"delay 1 and at .*: give one of them"),
        ({"at": datetime(2030, 1, 1)}, r"at .*: has no time zone"),
        ({"attempts": 0}, rf"attempts 0: must be a whole number from 1 to {MAX_ATTEMPTS}"),
        ({"attempts": 1.5}, r"attempts 1.5: must be a whole number"),
        ({"attempts": True}, r"attempts True: must be a whole number"),
        ({"attempts": MAX_ATTEMPTS + 1}, r"attempts 1000001: must be"),
        ({"priority": -1}, rf"priority -1: must be a whole number from 0 to {MAX_PRIORITY}"),
        ({"priority": MAX_PRIORITY + 1}, rf"priority {MAX_PRIORITY + 1}: must be"),
        ({"priority": 1.0}, r"priority 1.0: must be"),
        ({"lifo": 1}, r"lifo 1: must be True or False"),
        ({"job_id": "a b"}, r"job_id 'a b': must be 1 to 128"),
        ({"timeout": 0}, r"timeout 0: must be at least 0.001"),
        ({"timeout": "1"}, r"timeout '1': must be seconds"),
        ({"backoff": -1}, r"backoff -1: must be"),
        ({"backoff": "fixed"}, r"backoff 'fixed': must be seconds"),
        ({"remove_on_complete": -1}, r"remove_on_complete -1: must be True, False, a number of jobs \(not negative\) or Keep"),
        ({"remove_on_fail": "yes"}, r"remove_on_fail 'yes': must be"),
        ({"remove_on_fail": 1.5}, r"remove_on_fail 1.5: must be"),
    ],
)
def test_a_bad_option_is_refused_by_name_value_and_limit(said: dict[str, Any], message: str) -> None:
    """Every option refuses what it cannot mean, where it is written."""
    with pytest.raises(InvalidJob, match=message):
        JobOptions(**said)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, r"Keep\(\): give count, age or both"),
        ({"count": -1}, r"Keep count -1: must be a whole number, not negative"),
        ({"count": True}, r"Keep count True: must be"),
        ({"count": 1.5}, r"Keep count 1.5: must be"),
        ({"age": -1}, r"Keep age -1: must be"),
        ({"age": float("inf")}, r"Keep age inf: must be"),
    ],
)
def test_a_bad_keep_is_refused(said: dict[str, Any], message: str) -> None:
    """Keep says at least one thing, and nothing negative."""
    with pytest.raises(InvalidJob, match=message):
        Keep(**said)


def test_an_unknown_option_is_named_with_the_one_that_was_meant() -> None:
    """BullMQ's names are the first mistake of those who come from there."""
    with pytest.raises(
        TypeError, match=r"add\(\) has no option 'removeOnComplete': did you mean 'remove_on_complete'\? options are delay, at,"
    ):
        options_of({"removeOnComplete": True})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(TypeError, match=r"no option 'colour': options are"):
        options_of({"colour": "red"})  # type: ignore[typeddict-unknown-key]
    assert options_of({}) is None
    assert options_of({"delay": 5}) == JobOptions(delay=5)


def test_keyword_options_are_those_of_job_options() -> None:
    """One list in two forms."""
    assert list(OptionArguments.__annotations__) == [field.name for field in dataclasses.fields(JobOptions) if field.init]


def test_when_a_job_is_due_is_known_once_it_is_known_when_it_was_stored() -> None:
    """A delay counts from then; a time in the past, no delay, and a job of which nobody knows, are due at no time of their own."""
    delayed, absolute = JobOptions(delay=5).compiled, JobOptions(at=datetime.fromtimestamp(100, UTC)).compiled
    assert (delayed.due_ms(1_000), delayed.due_ms(0)) == (6_000, 0)
    assert (absolute.due_ms(1_000), absolute.due_ms(200_000)) == (100_000, 0)
    assert JobOptions().compiled.due_ms(1_000) == 0
