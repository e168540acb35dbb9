"""How long the exporter's own calls to Redis take, and what it says of those that fail."""

from __future__ import annotations

import contextlib
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from eventq_prometheus.catalogue import CATALOGUE
from eventq_prometheus.spread import LiveSpread

if TYPE_CHECKING:
    import logging
    from collections.abc import Generator

__all__ = ["Timing", "Warnings"]

#: Calls take less than a thousandth of a second: these spreads count millionths.
_SCALE = 1_000_000
#: Seconds before the same warning is logged again.
_SAME_WARNING = 30.0


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


class Warnings:
    """Logs a warning, the same one once in a while: an outage says it many times a second."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Log it, unless it was lately."""
        now = monotonic()
        self._said = {said: at for said, at in self._said.items() if now - at < _SAME_WARNING}
        if text not in self._said:
            self._said[text] = now
            self._log.warning("%s", text)
