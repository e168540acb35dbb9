"""Sending until it is taken: pauses, smaller requests, and the one item that nobody will ever take."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import pytest

from eventq_opentelemetry import delivery
from eventq_opentelemetry.delivery import MOST, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(delivery, "_LONGEST_PAUSE", 0.002)


async def test_requests_are_of_a_bounded_size() -> None:
    """In order, 512 at most."""
    taker = Taker(lambda _: True)
    sending = Delivery(taker, "numbers")
    await sending.send(range(MOST * 2 + 1))
    assert [MOST, MOST, 1] == taker.asked and list(range(MOST * 2 + 1)) == taker.taken
    assert (MOST * 2 + 1, 0, False) == (sending.sent, sending.refused, sending.is_down)


async def test_what_is_too_large_is_sent_in_parts() -> None:
    """And then in larger ones again, carefully."""
    taker = Taker(lambda batch: len(batch) <= 100)
    sending = Delivery(taker, "numbers")
    await sending.send(range(2_000))
    assert list(range(2_000)) == taker.taken
    assert [MOST, 256, 128] == taker.asked[:3] and sending.refused < len(taker.asked) / 4
    assert not sending.is_down


async def test_who_takes_nothing_is_asked_until_he_does() -> None:
    """Nothing is left out, whatever it is: it may be the collector's fault."""
    answers = iter([False] * 30)
    taker = Taker(lambda _: next(answers, True))
    sending = Delivery(taker, "numbers")
    await sending.send(range(5))
    assert [0, 1, 2, 3, 4] == taker.taken and (30, 0) == (sending.refused, sending.dropped)


async def test_what_nobody_will_ever_take_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Where what was taken before is taken again, the item is to blame: it is counted and told, and the others get past it."""
    taker = Taker(lambda batch: 7 not in batch)
    sending = Delivery(taker, "numbers")
    await sending.send(range(5))
    await sending.send(range(5, 10))
    assert {0, 1, 2, 3, 4, 5, 6, 8, 9} == set(taker.taken) and 1 == sending.dropped
    assert "refused for good" in caplog.text
    assert not sending.is_down


async def test_an_exporter_that_raises_is_one_that_refuses() -> None:
    """Whatever it raises."""
    moods = iter([True, True, False])

    def moody(_: Sequence[int]) -> bool:
        if next(moods, False):
            raise RuntimeError("not now")
        return True

    taker = Taker(moody)
    await Delivery(taker, "numbers").send([1])
    assert [1] == taker.taken
