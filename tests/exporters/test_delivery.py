"""Sending until it is taken: pauses, smaller requests, and the one item that nobody will ever take."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import NonRecordingSpan, SpanContext

from eventq_opentelemetry import delivery
from eventq_opentelemetry.delivery import MOST, Delivery

if TYPE_CHECKING:
    from collections.abc import Sequence


class Result(Enum):
    SUCCESS = 0
    FAILURE = 1


class Taker:
    """An exporter of numbers that takes what it is told to take."""

    def __init__(self, takes: Callable[[Sequence[int]], bool]) -> None:
        self.takes = takes
        self.asked: list[int] = []
        self.taken: list[int] = []

    def export(self, batch: Sequence[int], /) -> Result:
        """Take it, or not."""
        self.asked.append(len(batch))
        if not self.takes(batch):
            return Result.FAILURE
        self.taken += batch
        return Result.SUCCESS

    def shutdown(self) -> None:
        """Take no more."""
        self.takes = lambda _: False


Make = Callable[..., Delivery[int]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Make deliveries that are closed after the test."""
    made: list[Delivery[int]] = []

    def delivery_to(taker: Taker, **options: float) -> Delivery[int]:
        made.append(Delivery(taker, "numbers", **options))
        return made[-1]

    yield delivery_to
    for each in made:
        await each.close()


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(delivery, "_LONGEST_PAUSE", 0.002)


async def test_requests_are_of_a_bounded_size(make: Make) -> None:
    """In order, 512 at most."""
    taker = Taker(lambda _: True)
    sending = make(taker)
    await sending.send(range(MOST * 2 + 1))
    assert [MOST, MOST, 1] == taker.asked and list(range(MOST * 2 + 1)) == taker.taken
    assert (MOST * 2 + 1, 0, False) == (sending.sent, sending.refused, sending.is_down)


async def test_what_is_too_large_is_sent_in_parts(make: Make) -> None:
    """And then in larger ones again, carefully."""
    taker = Taker(lambda batch: len(batch) <= 100)
    sending = make(taker)
    await sending.send(range(2_000))
    assert list(range(2_000)) == taker.taken
    assert [MOST, 256, 128] == taker.asked[:3] and sending.refused < len(taker.asked) / 4
    assert not sending.is_down


async def test_who_takes_nothing_is_asked_until_he_does(make: Make) -> None:
    """Nothing is left out, whatever it is: it may be the collector's fault."""
    answers = iter([False] * 30)
    taker = Taker(lambda _: next(answers, True))
    sending = make(taker)
    await sending.send(range(5))
    assert [0, 1, 2, 3, 4] == taker.taken and (30, 0) == (sending.refused, sending.dropped)


async def test_what_nobody_will_ever_take_is_left_out(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Where what was taken before is taken again each time, the item is to blame: it is counted and told, and the others get past
    it.
    """
    taker = Taker(lambda batch: 7 not in batch)
    sending = make(taker)
    await sending.send(range(5))
    await sending.send(range(5, 10))
    assert {0, 1, 2, 3, 4, 5, 6, 8, 9} == set(taker.taken) and 1 == sending.dropped
    assert 15 <= sending.refused
    assert "refused for good" in caplog.text


async def test_a_collector_that_takes_half_of_it_gets_everything(make: Make) -> None:
    """One broken instance behind a balancer is no reason to leave anything out."""
    chance = random.Random(7)
    taker = Taker(lambda _: chance.random() > 0.5)
    sending = make(taker)
    await sending.send(range(300))
    assert set(range(300)) == set(taker.taken) and 0 == sending.dropped


async def test_patience_can_be_bounded(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """What is not taken in time is left out, counted and told."""
    taker = Taker(lambda _: False)
    sending = make(taker, patience=0.01)
    await sending.send(range(5))
    assert 5 == sending.dropped and "left out (5)" in caplog.text


async def test_what_is_sent_is_no_part_of_a_trace_and_makes_no_spans(make: Make) -> None:
    """Whoever opened the tracer is not its parent, and instrumented clients are told to look away."""
    seen: list[tuple[bool, bool]] = []

    def look(_: Sequence[int]) -> bool:
        seen.append((trace.get_current_span().get_span_context().is_valid, is_instrumentation_enabled()))
        return True

    with trace.use_span(NonRecordingSpan(SpanContext(1, 2, False))):
        await make(Taker(look)).send([1])
    assert [(False, False)] == seen


async def test_an_exporter_that_raises_is_one_that_refuses(make: Make) -> None:
    """Whatever it raises."""
    moods = iter([True, True, False])

    def moody(_: Sequence[int]) -> bool:
        if next(moods, False):
            raise RuntimeError("not now")
        return True

    taker = Taker(moody)
    await make(taker).send([1])
    assert [1] == taker.taken
