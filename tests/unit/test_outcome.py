"""What a run came to: from a result or an exception to the words that are recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from eventq import Backoff, JobOptions, Limits, Retry, Unrecoverable
from eventq.codec import Codec
from eventq.outcome import TimedOut, UnreadableResult, Verdict, completed, describe, event_facts, failed, identity, result_text
from eventq.records import Record

LIMITS = Limits()


def record(**said: Any) -> Record:
    """Return a stored record with these options."""
    return Record(1, 0, 0, "", "mail", "", JobOptions(**said).compiled.options, "null")


def fail(error: BaseException, *, fails: int = 0, custom_wait_ms: int | None = None, **said: Any) -> Verdict:
    """Return the verdict of a run that raised, after `fails` failures."""
    return failed(record(**said), fails, error, LIMITS, random=lambda: 0.5, custom_wait_ms=custom_wait_ms)


def test_a_result_is_stored_and_rides_along_when_it_is_small() -> None:
    """Up to 1 KiB is in the event, more is marked as left out; all of it is stored."""
    small = completed(record(), '{"a":1}', LIMITS, 0)
    assert ("completed", '{"a":1}', {"result": {"a": 1}}) == (small.word, small.body, event_facts(small.facts))
    text = json.dumps("x" * 2000)
    large = completed(record(), text, LIMITS, 0)
    assert (text, {"result_omitted": True}) == (large.body, event_facts(large.facts))
    never = completed(record(), "1", Limits(event_result=0), 0)
    assert {"result_omitted": True} == event_facts(never.facts)


def test_the_size_that_rides_along_is_in_bytes() -> None:
    """A result of 1,000 characters and 2,002 bytes is left out of the event."""
    verdict = completed(record(), json.dumps("ü" * 1000, ensure_ascii=False), LIMITS, 0)
    assert {"result_omitted": True} == event_facts(verdict.facts)


def test_no_result_is_not_stored() -> None:
    """None stores nothing, unless the error of an earlier attempt stands in its place."""
    assert "" == completed(record(), None, LIMITS, 0).body
    assert "null" == completed(record(), None, LIMITS, 2).body


def test_retention_of_the_job_goes_with_its_outcome() -> None:
    """Completed and failed jobs each take their own rule."""
    said: Any = {"remove_on_complete": 3, "remove_on_fail": True}
    assert "count:3" == completed(record(**said), None, LIMITS, 0).extra
    assert "0" == fail(ValueError(), **said).extra


def test_attempts_left_mean_another_one_after_the_backoff() -> None:
    """The wait is the backoff's, with its jitter."""
    said: Any = {"attempts": 4, "backoff": Backoff.exponential(1, jitter=0.5)}
    verdicts = [fail(ValueError("no"), fails=fails, **said) for fails in range(4)]
    assert ["retry", "retry", "retry", "exhausted"] == [verdict.word for verdict in verdicts]
    assert [750, 1500, 3000] == [verdict.extra for verdict in verdicts[:3]]


def test_the_last_failure_says_why_and_whether_attempts_are_used_up() -> None:
    """reason is error or timeout; exhausted is true only where attempts ran out."""
    assert {"reason": "error", "exhausted": True} == said(fail(ValueError()))
    assert {"reason": "timeout", "exhausted": True} == said(fail(TimedOut("took long")))
    assert {"reason": "error", "exhausted": False} == said(fail(Unrecoverable(), attempts=5))
    assert {"reason": "error", "exhausted": False} == said(fail(Unrecoverable()))
    assert {"reason": "error", "exhausted": False} == said(fail(ValueError(), attempts=5, custom_wait_ms=-1))


def said(verdict: Verdict) -> dict[str, object]:
    """Return what a failed event says besides the error."""
    return {key: value for key, value in event_facts(verdict.facts).items() if key != "error"}


def test_unrecoverable_ends_a_job_whatever_is_left() -> None:
    """Unrecoverable and what is made of it fails at attempt 1 of 5."""

    class Broken(Unrecoverable):
        pass

    assert "failed" == fail(Unrecoverable("no"), attempts=5).word
    assert "failed" == fail(Broken("no"), attempts=5).word
    assert "failed" == fail(UnreadableResult("no"), attempts=5).word


@pytest.mark.parametrize(("delay", "wait"), [(2.5, 2500), (0, 0), (None, 7000)])
def test_retry_says_when(delay: float | None, wait: int) -> None:
    """Retry(delay=) stands over the backoff; without a delay the backoff decides."""
    verdict = fail(Retry(delay=delay), attempts=2, backoff=7)
    assert ("retry", wait) == (verdict.word, verdict.extra)


def test_retry_is_an_attempt() -> None:
    """Retry on the last attempt is exhausted like any failure."""
    assert "exhausted" == fail(Retry(delay=1), attempts=2, fails=1).word


def test_retry_with_an_impossible_delay_falls_back_to_the_backoff() -> None:
    """A delay that is none does not turn a slow retry into a fast one."""
    assert 7000 == fail(Retry(delay=-1), attempts=2, backoff=7).extra


def test_a_strategys_wait_stands_over_the_backoffs_own() -> None:
    """What a custom strategy said is used as it is."""
    assert 1234 == fail(ValueError(), attempts=2, backoff=Backoff.custom("x", 9), custom_wait_ms=1234).extra


def test_an_error_is_described_within_its_limits() -> None:
    """Type, message and traceback, each cut to its limit in bytes, the traceback from its head."""
    try:
        raise ValueError("ü" * 1000)
    except ValueError as error:
        info = describe(error, Limits(error_message=101, traceback=200))
    assert "ValueError" == info.type
    assert len(info.message.encode()) <= 101 and info.message.endswith("…") and info.message.startswith("üü")
    assert len(info.traceback.encode()) <= 200 and info.traceback.startswith("…")


def test_an_error_of_a_module_is_named_with_it() -> None:
    """Builtins are named bare, others with their module."""
    assert "json.decoder.JSONDecodeError" == describe(json.JSONDecodeError("x", "", 0), LIMITS).type
    assert "KeyError" == describe(KeyError("x"), LIMITS).type
    assert "TimedOut" == describe(TimedOut("x"), LIMITS).type


class Hostile(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("error", [Hostile(), ValueError("\ud800 lone surrogate"), ValueError("\0\n\t\"'\\")])
def test_no_error_can_break_its_description(error: Exception) -> None:
    """Broken __str__, surrogates and control characters are described and can be stored."""
    verdict = fail(error)
    assert isinstance(event_facts(verdict.facts)["error"], dict)
    assert json.loads(verdict.body)["type"]


def test_the_event_leaves_the_traceback_with_the_job() -> None:
    """Type and message ride along, the traceback is stored only."""
    try:
        raise ValueError("boom")
    except ValueError as error:
        verdict = fail(error)
    assert '"type":"ValueError","message":"boom"' in verdict.facts
    assert "line" not in verdict.facts
    assert "Traceback" in json.loads(verdict.body)["traceback"]


def test_a_result_that_cannot_be_stored_fails_for_good() -> None:
    """The codec's refusal becomes Unrecoverable, chained."""
    encode = Codec[Any](Any, what="result", limit=10, option="Limits.result").encode
    assert None is result_text(encode, None)
    assert "[1]" == result_text(encode, [1])
    with pytest.raises(UnreadableResult, match=r"result of 22 bytes: larger than the limit of 10 bytes \(Limits.result\)"):
        result_text(encode, "x" * 20)


def test_identity_needs_no_escaping() -> None:
    """Names and workers are of an alphabet that stands in JSON as it is."""
    assert {"name": "a:b/c d", "attempt": 2, "worker": "h:1:x@y"} == json.loads("{" + identity("a:b/c d", 2, "h:1:x@y") + "}")
