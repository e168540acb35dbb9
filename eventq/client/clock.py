"""The clock leases are watched by here. What is stored is always timed by Redis."""

from __future__ import annotations

import time
from typing import Final

#: It goes on while the machine sleeps: the lease does, too. (On macOS the monotonic clock does that.)
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_time() -> float:
    """Return seconds since the machine was started, those it slept included."""
    return time.clock_gettime(_CLOCK)
