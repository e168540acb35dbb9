"""Seconds and timedeltas become whole milliseconds, or a refusal that names what, the value and the limit."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from eventq.durations import to_epoch_ms, to_ms
from eventq.errors import InvalidJob
from eventq.limits import MAX_DELAY_MS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (5, 5000),
        (0.001, 1),
        (0.0004, 0),
        (1.2345, 1234),
        (timedelta(milliseconds=1500), 1500),
        (timedelta(days=1), 86_400_000),
        (MAX_DELAY_MS / 1000, MAX_DELAY_MS),
    ],
)
def test_a_duration_becomes_whole_milliseconds(value: float | timedelta, expected: int) -> None:
    """Ints, floats and timedeltas are seconds outside and rounded milliseconds inside."""
    assert expected == to_ms("delay", value)


@pytest.mark.parametrize(
    "value",
    [-1, -0.001, math.nan, math.inf, -math.inf, 10**400, MAX_DELAY_MS, timedelta(seconds=-1), timedelta.max, True, "5", None],
)
def test_what_is_no_duration_is_refused_by_name_and_value(value: Any) -> None:
    """Negative, endless, too long and what is no number are InvalidJob, naming what and the value."""
    with pytest.raises(InvalidJob) as caught:
        to_ms("delay", value)
    assert str(caught.value).startswith(f"delay {value!r}: must be ")


def test_the_limits_of_a_duration_are_named() -> None:
    """The refusal says the least and the most that is allowed."""
    with pytest.raises(InvalidJob, match=r"lease 0.1: must be at least 0.5 and at most ten years \(315360000 seconds\)"):
        to_ms("lease", 0.1, minimum_ms=500)
    with pytest.raises(InvalidJob, match="must be not negative and at most ten years"):
        to_ms("delay", -3)


def test_an_aware_time_becomes_milliseconds_since_the_epoch() -> None:
    """The zone counts: one instant written in two zones is one number."""
    utc = datetime(2030, 1, 1, 12, tzinfo=UTC)
    tokyo = utc.astimezone(timezone(timedelta(hours=9)))
    assert 1_893_499_200_000 == to_epoch_ms("at", utc) == to_epoch_ms("at", tokyo)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (datetime(2030, 1, 1), "has no time zone"),
        (datetime(1969, 12, 31, tzinfo=UTC), "must lie between 1970 and 2109"),
        (datetime.max.replace(tzinfo=UTC), "must lie between 1970 and 2109"),
        (1_893_499_200, "must be an aware datetime, not int"),
        ("2030-01-01", "must be an aware datetime, not str"),
    ],
)
def test_what_is_no_instant_is_refused(value: Any, message: str) -> None:
    """Naive datetimes, times out of range and other types are InvalidJob with what, value and reason."""
    with pytest.raises(InvalidJob, match=message) as caught:
        to_epoch_ms("at", value)
    assert f"at {value!r}" in str(caught.value)
