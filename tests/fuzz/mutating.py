"""Almost valid input: a valid one with a few bytes cut, doubled, swapped or replaced by what programs stumble over.

Where the choices come from is the caller's: hypothesis (which then shrinks them), a seeded random, or a fuzzer's bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import hypothesis.strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    #: Returns a whole number from 0 to below the one it is given.
    Choose = Callable[[int], int]

#: What is put where something else stood.
HOSTILE: Final = (
    *(text.encode("utf-8", "surrogatepass")
    for text in (
        "", " ", "\0", "\n", "\r\n", "\t", '"', "'", "\\", "{", "}", "[", "]", ",", ":", "/", "@", "?", "#", "%", "%2", "-", "+",
        "0", "-1", "1e999", "-1e999", "NaN", "inf", "0x10", "1_000", "²", "٣", "9" * 17, "9" * 25, "9" * 400, "9" * 5000,
        "253402300800000", "9223372036854775808", "null", "true", "{}", "[]", '""', '{"a":1,"a":2}', "\\ud800", "\\u0000",
        "[" * 3000, '{"a":' * 3000, "[" * 900 + "]" * 900, "\x1b[2J", "\x1b]0;x\x07", "\u202e", "\x9b31m", "\ud800", "\ufeff",
        "é", "os.system", "__import__('os').abort()", "!!python/object/apply:os.abort []", "cos\nabort\n(tR.", "*/0", "L", "5#9",
    )),
    b"\xff", b"\xc3", b"\x80\x81", b"\x80\x04\x95",
)  # fmt: skip


def mutate(seeds: Sequence[bytes], choose: Choose) -> bytes:
    """Return one of the seeds with up to four changes."""
    data = seeds[choose(len(seeds))]
    for _ in range(choose(5)):
        data = _CHANGES[choose(len(_CHANGES))](data, choose)
    return data


def _span(data: bytes, choose: Choose) -> tuple[int, int]:
    start = choose(len(data) + 1)
    return start, min(len(data), start + choose(9))


def _cut(data: bytes, choose: Choose) -> bytes:
    return data[: choose(len(data) + 1)]


def _drop(data: bytes, choose: Choose) -> bytes:
    start, end = _span(data, choose)
    return data[:start] + data[end:]


def _double(data: bytes, choose: Choose) -> bytes:
    start, end = _span(data, choose)
    return data[:end] + data[start:end] * (1 + choose(3)) + data[end:]


def _swap(data: bytes, choose: Choose) -> bytes:
    start, end = _span(data, choose)
    middle = start + choose(end - start + 1)
    return data[:start] + data[middle:end] + data[start:middle] + data[end:]


def _byte(data: bytes, choose: Choose) -> bytes:
    at = choose(len(data) + 1)
    return data[:at] + bytes([choose(256)]) + data[at + 1 :]


def _hostile(data: bytes, choose: Choose) -> bytes:
    start, end = _span(data, choose)
    return data[:start] + HOSTILE[choose(len(HOSTILE))] + data[end:]


def _number(data: bytes, choose: Choose) -> bytes:
    """Put something in the place of a whole number, digits and all."""
    digits = [at for at in range(len(data)) if data[at : at + 1].isdigit()]
    if not digits:
        return _hostile(data, choose)
    start = end = digits[choose(len(digits))]
    while start > 0 and data[start - 1 : start].isdigit():
        start -= 1
    while data[end : end + 1].isdigit():
        end += 1
    return data[:start] + HOSTILE[choose(len(HOSTILE))] + data[end:]


_CHANGES: Final = (_cut, _drop, _double, _swap, _byte, _hostile, _hostile, _number, _number)


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Almost valid input for hypothesis."""
    return mutate(seeds, lambda most: draw(st.integers(0, most - 1)))
