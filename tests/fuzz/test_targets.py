"""Every decoder of what comes from outside: almost valid input is taken, or refused with the one error that is documented.

`make fuzz` looks further, with a fuzzer that knows which lines an input reached.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from .mutating import mutated
from .targets import Target, all_targets

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGETS = all_targets()
#: Examples are a few choices each, and some of them thousands of bytes.
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is damaged is logged, thousands of times."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_examples_are_taken(target: Target) -> None:
    """At least one of them: mutations of what is refused would look at nothing but the refusal."""
    assert any([target(seed) for seed in target.seeds])


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_almost_valid_input(target: Target) -> None:
    """No other error, no hang, what is taken can be used."""
    _look(target, 25)


@pytest.mark.full
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_almost_valid_input_for_long(target: Target) -> None:
    """The same with other examples each time."""
    _look(target, 3_000)


def _look(target: Target, examples: int) -> None:
    @settings(max_examples=examples, database=None, derandomize=examples < 100, suppress_health_check=CHECKS)
    @given(mutated(target.seeds))
    def look(data: bytes) -> None:
        target(data)

    look()
