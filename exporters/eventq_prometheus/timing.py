"""How long the exporter's own calls to Redis take."""

from __future__ import annotations

import contextlib
from time import perf_counter
from typing import TYPE_CHECKING

from eventq_prometheus.catalogue import CATALOGUE
from eventq_prometheus.spread import LiveSpread

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Timing"]

#: Calls take less than a thousandth of a second: these spreads count millionths.
_SCALE = 1_000_000


class Timing:
    """A histogram of seconds per command, since the start."""

    def __init__(self) -> None:
        bounds = CATALOGUE["eventq_redis_command_duration_seconds"].buckets
        self._bounds = tuple(round(bound * _SCALE) for bound in bounds)
        self.spreads: dict[str, LiveSpread] = {}

    @contextlib.contextmanager
    def of(self, command: str) -> Generator[None]:
        """Time a call; one that was not answered counts with the time it was waited for."""
        began = perf_counter()
        try:
            yield
        finally:
            live = self.spreads.get(command)
            if live is None:
                live = self.spreads[command] = LiveSpread(self._bounds)
            live.observe(round((perf_counter() - began) * _SCALE))
