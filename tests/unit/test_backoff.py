"""How long to wait before the next attempt: as BullMQ waits, with chance handed in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventq import Backoff
from eventq.backoff import backoff_ms
from eventq.errors import InvalidJob
from eventq.limits import MAX_DELAY_MS


def waits(backoff: Backoff | None, upto: int, chance: float = 0.0) -> list[int]:
    """Return the waits after the first `upto` failures."""
    return [backoff_ms(backoff, fails, lambda: chance) for fails in range(1, upto + 1)]


def test_without_a_backoff_the_next_attempt_is_at_once() -> None:
    """No backoff waits 0 ms."""
    assert [0, 0, 0] == waits(None, 3)


def test_fixed_waits_the_same_every_time() -> None:
    """Fixed is d, d, d."""
    assert [1500, 1500, 1500] == waits(Backoff.fixed(timedelta(seconds=1.5)), 3)


def test_exponential_doubles() -> None:
    """Exponential is d * 2^(n - 1)."""
    assert [500, 1000, 2000, 4000] == waits(Backoff.exponential(0.5), 4)


def test_exponential_stops_at_its_maximum() -> None:
    """No wait is longer than `maximum`, and without one none is longer than a delay may be."""
    assert [1000, 2000, 3000, 3000] == waits(Backoff.exponential(1, maximum=3), 4)
    assert MAX_DELAY_MS == backoff_ms(Backoff.exponential(1), 1_000_000, lambda: 0.0)


@given(
    delay=st.floats(0, 1000),
    jitter=st.floats(0, 1),
    chance=st.floats(0, 1, exclude_max=True),
    fails=st.integers(1, 60),
    exponential=st.booleans(),
)
def test_jitter_only_shortens(delay: float, jitter: float, chance: float, fails: int, exponential: bool) -> None:
    """Jitter j draws from [d * (1 - j), d]."""
    make = Backoff.exponential if exponential else Backoff.fixed
    whole = backoff_ms(make(delay), fails, lambda: chance)
    wait = backoff_ms(make(delay, jitter=jitter), fails, lambda: chance)
    assert round(whole * (1 - jitter)) <= wait <= whole


@pytest.mark.parametrize(("chance", "wait"), [(1.0, 0), (0.5, 500), (0.0, 1000)])
def test_full_jitter_uses_the_whole_range(chance: float, wait: int) -> None:
    """Jitter 1 reaches from 0 to d."""
    assert [wait] == waits(Backoff.fixed(1, jitter=1), 1, chance)


def test_custom_knows_its_strategy_and_delay() -> None:
    """A custom backoff carries a name for the worker to look up, and a delay for its strategy."""
    custom = Backoff.custom("quiet", 2)
    assert (True, "quiet", 2000) == (custom.is_custom, custom.kind, custom.delay_ms)
    assert not Backoff.fixed(1).is_custom
    assert not Backoff.exponential(1).is_custom


@pytest.mark.parametrize("jitter", [2, -0.1, 1.0001, float("nan"), True, "0.5", None])
@pytest.mark.parametrize("make", [Backoff.fixed, Backoff.exponential])
def test_a_jitter_that_is_no_share_is_refused(make: Any, jitter: Any) -> None:
    """Jitter is a number from 0 to 1; anything else is refused by name, value and limit."""
    with pytest.raises(InvalidJob, match=r"must be a number from 0 to 1") as caught:
        make(1, jitter=jitter)
    assert f"backoff jitter {jitter!r}" in str(caught.value)


@pytest.mark.parametrize("delay", [-1, float("nan"), "1", True])
def test_a_delay_that_is_no_duration_is_refused(delay: Any) -> None:
    """Every kind of backoff refuses what is no duration."""
    for make in (Backoff.fixed, Backoff.exponential, lambda value: Backoff.custom("x", value)):
        with pytest.raises(InvalidJob, match="backoff delay"):
            make(delay)
    with pytest.raises(InvalidJob, match="backoff maximum"):
        Backoff.exponential(1, maximum=delay)


@pytest.mark.parametrize("name", ["", "fixed", "exponential", None, 3])
def test_a_strategy_needs_a_name_of_its_own(name: Any) -> None:
    """The built-in kinds, nothing and what is no text cannot name a strategy."""
    with pytest.raises(InvalidJob, match="backoff strategy name"):
        Backoff.custom(name)
