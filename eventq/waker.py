"""What tells a worker that there may be work: the marker in Redis, and a timer for the next delayed job."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from eventq.client import AsyncRunner
from eventq.commands.read import arm_marker, wait_for_work
from eventq.errors import ServerRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventq.context import QueueContext

#: Seconds that a blocking read's answer may be late before its connection counts as dead and is replaced.
_LATE: Final = 2.0


class Waker:
    """Blocks on the marker while there are free slots; whatever wakes it, the next claim decides what there is.

    block: seconds, at most. wants_work: asked whether a wake-up is of use. look: called when there may be work. failed: told what
    no repeating mends.
    """

    def __init__(
        self,
        context: QueueContext[Any, Any],
        *,
        block: float,
        wants_work: Callable[[], bool],
        look: Callable[[], None],
        failed: Callable[[Exception], None],
        on_fault: Callable[[Exception], None],
    ) -> None:
        self._keys = context.keys
        self._block = block
        self._wants_work = wants_work
        self._look = look
        self._failed = failed
        self._runner = AsyncRunner(context.server, timeout=_LATE, patience=None, client_name="eventq-blocking", on_fault=on_fault)
        self._has_slots = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, name: str) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._wait(), name=f"eventq-waker {name}")

    def has_slots(self) -> None:
        """There are free slots: wait for work again."""
        self._has_slots.set()

    def hint(self) -> None:
        """Somebody says that there is work: look if it is wanted."""
        if self._wants_work():
            self._look()

    def look_in(self, ms: int) -> None:
        """Look when the next delayed job is due; the last one to say so counts."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(ms / 1000 + 0.001, self._look)

    async def stop(self) -> None:
        """Wake nobody any more, and close the connection."""
        if self._timer is not None:
            self._timer.cancel()
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._runner.close()

    async def _wait(self) -> None:
        while True:
            if not self._wants_work():
                self._has_slots.clear()
                await self._has_slots.wait()
                continue
            try:
                member = await self._runner.run_verb(wait_for_work(self._keys, self._block), block=self._block)
                if member is None or self._wants_work():
                    self._look()
                else:  # this wake-up is of no use here: pass it on
                    await self._runner.run_verb(arm_marker(self._keys, member))
            except Exception as error:  # an error that nobody hears of would leave the worker deaf
                if not isinstance(error, ServerRefused) or error.code != "OOM":  # then the sweep arms it again
                    return self._failed(error)
