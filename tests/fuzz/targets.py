"""What is fuzzed: every decoder of what comes from outside, with valid examples and the one error that it may raise.

A target is a function of bytes. It returns where the input was taken or refused as documented, and raises everything else.
`tests/fuzz/test_targets.py` gives it what hypothesis makes up, `make fuzz` what a coverage-guided fuzzer does.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import thread_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Target:
    """A decoder."""

    name: str
    decode: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]
    #: Processor time that one input may take: most take microseconds, a regular expression gone wrong takes minutes.
    most_seconds: float = 0.25

    def __call__(self, data: bytes) -> bool:
        """Decode; return whether it was taken. Raises what a decoder may not raise, and AssertionError for one that took too long."""
        began = thread_time()
        try:
            self.decode(data)
            taken = True
        except self.refusals:
            taken = False
        took = thread_time() - began
        assert took < self.most_seconds, f"{self.name} took {took:.2f} s of processor time for {data[:100]!r}"
        return taken


def text_of(data: bytes) -> str:
    """Return text as the client decodes a reply."""
    return data.decode("utf-8", "replace")


def wild_text_of(data: bytes) -> str:
    """Return text as a caller may have it: with lone surrogates in it."""
    return data.decode("utf-8", "surrogateescape")


def all_targets() -> list[Target]:
    """Return every target."""
    from . import targets_of_callers, targets_of_exporters, targets_of_redis

    found = [*targets_of_redis.TARGETS, *targets_of_callers.TARGETS, *targets_of_exporters.TARGETS]
    assert len({each.name for each in found}) == len(found)
    return found
