"""The limits that DESIGN names, and that they fit what they are for."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from eventq import Limits
from eventq.limits import BATCH_JOBS, CALL_BYTES, CALL_JOBS, MAX_DELAY_MS, MAX_PRIORITY


def test_defaults_are_the_promised_ones() -> None:
    """Data 256 KiB, result 64 KiB, error message 1 KiB, 100 jobs and 1 MiB per call, 500 ids per administrative call."""
    limits = Limits()
    assert (256 * 1024, 64 * 1024, 1024) == (limits.data, limits.result, limits.error_message)
    assert (100, 500, 1024 * 1024) == (BATCH_JOBS, CALL_JOBS, CALL_BYTES)


def test_the_largest_score_is_exact_in_a_double() -> None:
    """Priority * 2^32 + counter, and a due time, stay exact in a sorted set."""
    largest = MAX_PRIORITY * 2**32 + 2**32 - 1
    assert largest == int(float(largest)) < 2**53
    assert float(2**42 + 1) != float(2**42)
    assert MAX_DELAY_MS < 2**42


def test_limits_cannot_be_changed_under_a_queue() -> None:
    """Limits are frozen: a queue's refusals do not change while it runs."""
    with pytest.raises(FrozenInstanceError):
        Limits().data = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
