"""Seconds outside, milliseconds inside: the only conversion, with its refusals."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from eventq.errors import InvalidJob
from eventq.limits import MAX_DELAY_MS


def to_ms(what: str, value: float | timedelta, *, minimum_ms: int = 0, maximum_ms: int = MAX_DELAY_MS) -> int:
    """Return a duration given in seconds or as timedelta in whole ms. Raises InvalidJob naming `what` and the value."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidJob(f"{what} {value!r}: must be seconds (int or float) or a timedelta, not {type(value).__name__}")
    else:
        # An int beyond what a float holds is beyond the limit too.
        seconds = float(value) if abs(value) < 2**62 else math.inf
    if not math.isfinite(seconds) or not minimum_ms <= seconds * 1000 <= maximum_ms:
        low = f"at least {minimum_ms / 1000:g}" if minimum_ms else "not negative"
        high = f"{maximum_ms // 1000} seconds"
        high = f"ten years ({high})" if maximum_ms == MAX_DELAY_MS else high
        raise InvalidJob(f"{what} {value!r}: must be {low} and at most {high}")
    return round(seconds * 1000)


def to_epoch_ms(what: str, value: datetime) -> int:
    """Return an aware datetime in ms since the epoch. Raises InvalidJob for anything else."""
    if not isinstance(value, datetime):
        raise InvalidJob(f"{what} {value!r}: must be an aware datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        raise InvalidJob(f"{what} {value!r}: has no time zone; use datetime.now(timezone.utc) or astimezone()")
    ms = round(value.timestamp() * 1000)
    if not 0 <= ms <= 2**42:
        raise InvalidJob(f"{what} {value!r}: must lie between 1970 and 2109")
    return ms
