"""How long to wait before the next attempt. Pure: randomness is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from eventq.durations import to_ms
from eventq.errors import InvalidJob
from eventq.limits import MAX_DELAY_MS

if TYPE_CHECKING:
    from collections.abc import Callable

#: 2**40 times any delay is beyond MAX_DELAY_MS; more attempts than that wait no longer.
_MOST_DOUBLINGS: Final = 40


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait between attempts. Build it with `fixed`, `exponential` or `custom`.

    kind: `fixed`, `exponential` or the name of a strategy the worker was given.
    delay_ms: the first wait. maximum_ms: no wait is longer. jitter: 0 to 1, the share of the wait that is random.
    """

    kind: str
    delay_ms: int
    jitter: float = 0.0
    maximum_ms: int = MAX_DELAY_MS

    @classmethod
    def fixed(cls, delay: float | timedelta, *, jitter: float = 0.0) -> Backoff:
        """Wait the same time before every attempt (seconds)."""
        return cls("fixed", to_ms("backoff delay", delay), _check_jitter(jitter))

    @classmethod
    def exponential(cls, delay: float | timedelta, *, jitter: float = 0.0, maximum: float | timedelta | None = None) -> Backoff:
        """Wait `delay` (seconds), then twice, four times, eight times as long, up to `maximum`."""
        most = MAX_DELAY_MS if maximum is None else to_ms("backoff maximum", maximum)
        return cls("exponential", to_ms("backoff delay", delay), _check_jitter(jitter), most)

    @classmethod
    def custom(cls, name: str, delay: float | timedelta = 0.0) -> Backoff:
        """Let the strategy of that name on the worker decide; it is given `delay` (seconds) among other facts."""
        if not isinstance(name, str) or not name or name in ("fixed", "exponential"):
            raise InvalidJob(f"backoff strategy name {name!r}: must be non-empty and not fixed or exponential")
        return cls(name, to_ms("backoff delay", delay))

    @property
    def is_custom(self) -> bool:
        """Whether a strategy of the worker decides."""
        return self.kind not in ("fixed", "exponential")


def _check_jitter(jitter: float) -> float:
    if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0 <= jitter <= 1:
        raise InvalidJob(f"backoff jitter {jitter!r}: must be a number from 0 to 1")
    return float(jitter)


def backoff_ms(backoff: Backoff | None, fails: int, random: Callable[[], float]) -> int:
    """Return the wait in ms after the `fails`-th failure (1 is the first); 0 without a backoff.

    As BullMQ: fixed is d, exponential is d * 2^(fails - 1), jitter j draws evenly from [d * (1 - j), d].
    """
    if backoff is None:
        return 0
    wait = backoff.delay_ms
    if backoff.kind == "exponential":
        wait = min(wait * 2 ** min(fails - 1, _MOST_DOUBLINGS), backoff.maximum_ms)
    if backoff.jitter:
        wait = round(wait * (1 - backoff.jitter * random()))
    return wait
