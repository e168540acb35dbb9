"""Self-fencing: a run whose lease this worker could not confirm in time is cancelled, before another worker may begin it.

The deadline of a run is nine tenths of a lease after the claim or renewal that last confirmed it was *sent*, so it passes before
the lease ends on the server, however long the reply took.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from eventq.client import boot_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventq.running import Running

#: Of a lease; the rest is what noticing it may take.
_MARGIN: Final = 0.9
_CHECKS_PER_LEASE: Final = 30


def deadline_of(sent: float, lease: float) -> float:
    """Return until when (boot time) a lease that was asked for at `sent` is surely ours."""
    return sent + lease * _MARGIN


class Fence:
    """Looks thirty times a lease whether a run is past its deadline.

    overdue: asked for such runs. ask: told when there are some, to have their leases renewed at once: after a pause of this
    process its leases may still be there. expired: told those that are still overdue at the next look.
    """

    def __init__(
        self,
        lease: float,
        *,
        overdue: Callable[[float], Sequence[Running]],
        ask: Callable[[], None],
        expired: Callable[[Sequence[Running]], None],
    ) -> None:
        self._pause = lease / _CHECKS_PER_LEASE
        self._overdue = overdue
        self._ask = ask
        self._expired = expired
        self._has_asked = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look, on this loop."""
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self.start()
        overdue = self._overdue(boot_time())
        if overdue and self._has_asked:
            self._expired(overdue)
        elif overdue:
            self._ask()
        self._has_asked = bool(overdue)
