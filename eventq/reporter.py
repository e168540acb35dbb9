"""Tells the stream what is no transition: a worker started, stopped, ran into trouble. Best effort: never in a job's way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from eventq.client import AsyncRunner
from eventq.codec import encode_json
from eventq.commands.events import report_events
from eventq.errors import EventqError

if TYPE_CHECKING:
    from eventq.commands.core import Command
    from eventq.context import QueueContext

log: Final = logging.getLogger("eventq.worker")

#: Events kept while Redis is away; beyond it the oldest go. A storm of errors must not become one of events.
_KEPT: Final = 100
_PATIENCE: Final = 2.0


class Reporter:
    """One writer of its own, so that trouble elsewhere does not hold it up."""

    def __init__(self, context: QueueContext[Any, Any]) -> None:
        self._context = context
        self._runner = AsyncRunner(context.server, patience=_PATIENCE, client_name="eventq-report")
        self._waiting: deque[tuple[str, str]] = deque(maxlen=_KEPT)
        self._task: asyncio.Task[None] | None = None
        self._farewell: Command[int] | None = None

    def leave(self, farewell: Command[int]) -> None:
        """Send this after what is told next, as the last thing."""
        self._farewell = farewell

    def tell(self, kind: str, facts: dict[str, Any]) -> None:
        """Write an event soon, and return at once."""
        self._waiting.append((kind, encode_json(facts, "event")))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send(), name=f"eventq-report {self._context.name}")

    async def close(self, timeout: float) -> None:
        """Write what is left if Redis answers within so many seconds, then close the connection."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._runner.close()

    async def _send(self) -> None:
        while self._waiting:
            kind = self._waiting[0][0]
            texts: list[str] = []
            while self._waiting and self._waiting[0][0] == kind:
                texts.append(self._waiting.popleft()[1])
            try:
                await self._runner.run(report_events(self._context.keys, kind, texts))
            except EventqError as error:
                log.debug("queue %s: %d %s events were not written: %s", self._context.name, len(texts), kind, error)
        farewell, self._farewell = self._farewell, None
        if farewell is not None:
            try:
                await self._runner.run(farewell)
            except EventqError as error:  # then its time runs out by itself
                log.debug("queue %s: the worker did not say farewell: %s", self._context.name, error)
