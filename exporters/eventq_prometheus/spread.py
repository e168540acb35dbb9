"""A histogram that can be saved: whole numbers only, so that what is read back is what was there, to the last unit."""

from __future__ import annotations

from bisect import bisect_left
from typing import Annotated, Any

import msgspec

__all__ = ["Spread"]


class Spread(msgspec.Struct):
    """Counts per bucket (the last one is past the last bound) and the sum, in units of a thousandth: ms for seconds.

    `examples`: per bucket the latest value that came with a trace: traceparent, value, ms of its event. Not saved.
    """

    counts: list[Annotated[int, msgspec.Meta(ge=0, le=2**62)]]
    sum: Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)] = 0

    @classmethod
    def empty(cls, bounds: tuple[int, ...]) -> Spread:
        """Return one that has seen nothing."""
        return cls([0] * (len(bounds) + 1))

    @property
    def count(self) -> int:
        """How many values it has seen."""
        return sum(self.counts)

    def copy(self) -> Spread:
        """Return it as it is now."""
        return Spread(self.counts.copy(), self.sum)


#: traceparent, value in thousandths, ms of the event.
Example = tuple[str, int, int]


class LiveSpread:
    """A spread that is being filled, with its bounds (in thousandths) and the latest example of each bucket."""

    __slots__ = ("bounds", "examples", "spread")

    def __init__(self, bounds: tuple[int, ...], spread: Spread | None = None) -> None:
        self.bounds = bounds
        fits = spread is not None and len(spread.counts) == len(bounds) + 1
        self.spread = spread if fits and spread is not None else Spread.empty(bounds)
        self.examples: dict[int, Example] = {}

    def observe(self, value: int, traceparent: str = "", ms: int = 0) -> None:
        """Take one value."""
        bucket = bisect_left(self.bounds, value)
        spread = self.spread
        spread.counts[bucket] += 1
        spread.sum += value
        if traceparent:
            self.examples[bucket] = (traceparent, value, ms)


def thousandths(bounds: tuple[float, ...]) -> tuple[int, ...]:
    """Return the bounds of a histogram in thousandths of its unit."""
    return tuple(round(bound * 1000) for bound in bounds)


def labels_of(traceparent: str) -> dict[str, Any] | None:
    """Return trace and span of an example as labels; None for one that is not sampled, or no traceparent."""
    parts = traceparent.split("-")
    if len(parts) != 4 or len(parts[1]) != 32 or len(parts[2]) != 16 or not parts[3].endswith(tuple("13579bdf")):
        return None
    return {"trace_id": parts[1], "span_id": parts[2]}
