"""From the words of a command line to a queue that is there."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventq.cli.runtime import NotFound
from eventq.client import AsyncRunner, Server
from eventq.commands.inspect import queue_exists, queue_tag
from eventq.keys import QueueKeys
from eventq.queue import Queue

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Place", "open_queue", "open_server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What --url, --prefix and --tag said."""

    url: str | None = None
    prefix: str = "eventq"
    tag: str | None = None


@contextlib.asynccontextmanager
async def open_server(place: Place) -> AsyncGenerator[AsyncRunner]:
    """Give a runner for the list of queues; where there is no Cluster, for everything. Raises ConfigurationError."""
    keys = QueueKeys("any", prefix=place.prefix)  # checks the prefix
    # A person waits for the answer: less patience than a service has.
    runner = AsyncRunner(Server(place.url, keys.queues), patience=3.0, client_name="eventq-cli")
    try:
        yield runner
    finally:
        await runner.close()


@contextlib.asynccontextmanager
async def open_queue(name: str, place: Place) -> AsyncGenerator[Queue[Any, Any]]:
    """Give a queue that is there, its tag looked up. Raises NotFound: a mistyped name must not look like an empty queue."""
    tag = place.tag
    async with open_server(place) as runner:
        QueueKeys(name, prefix=place.prefix, tag=tag)  # checks the names before anything is sent
        listed = await runner.run_verb(queue_tag(place.prefix, name))
    queue: Queue[Any, Any] = Queue(name, url=place.url, prefix=place.prefix, tag=tag or listed)
    try:
        if not await queue.context.runner.run_verb(queue_exists(queue.context.keys)) and listed is None:
            raise NotFound(f"there is no queue {name!r} on {queue.context.server.where}; `eventq queues` lists those there are")
        yield queue
    finally:
        await queue.close()
