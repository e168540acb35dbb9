"""From the words of a command line to a queue that is there."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from eventq.cli.runtime import NotFound
from eventq.client import AsyncRunner, Server
from eventq.commands.inspect import queue_exists, queue_tag
from eventq.keys import QueueKeys
from eventq.queue import Queue
from eventq.signing import SigningKeys

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

__all__ = ["Place", "find_queue", "open_queue", "open_server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What --url, --prefix, --tag and --signing-keys said."""

    url: str | None = None
    prefix: str = "eventq"
    tag: str | None = None
    signing_keys: Path | None = None


#: Seconds: a person waits for the answer, and has less patience than a service.
_PATIENCE: Final = 3.0


@contextlib.asynccontextmanager
async def open_server(
    place: Place, *, patience: float | None = _PATIENCE, on_fault: Callable[[Exception], None] | None = None
) -> AsyncGenerator[AsyncRunner]:
    """Give a runner for the list of queues; where there is no Cluster, for everything. Raises ConfigurationError."""
    keys = QueueKeys("any", prefix=place.prefix)  # checks the prefix
    server = Server(place.url, keys.queues)
    runner = AsyncRunner(server, patience=patience, on_fault=on_fault, client_name="eventq-cli")
    try:
        yield runner
    finally:
        await runner.close()


async def find_queue(
    name: str, place: Place, *, patience: float | None = _PATIENCE, on_fault: Callable[[Exception], None] | None = None
) -> tuple[Queue[Any, Any], bool]:
    """Return a queue, its tag looked up where none was said, and whether it is listed. It need not be there yet."""
    QueueKeys(name, prefix=place.prefix, tag=place.tag)  # checks the names before anything is sent
    signing_keys = SigningKeys.from_file(place.signing_keys) if place.signing_keys is not None else None
    listed = None
    if place.tag is None:
        async with open_server(place, patience=patience, on_fault=on_fault) as runner:
            listed = await runner.run_verb(queue_tag(place.prefix, name))
    queue = Queue(name, url=place.url, prefix=place.prefix, tag=place.tag or listed, signing_keys=signing_keys)
    return queue, listed is not None


@contextlib.asynccontextmanager
async def open_queue(name: str, place: Place) -> AsyncGenerator[Queue[Any, Any]]:
    """Give a queue that is there. Raises NotFound: a mistyped name must not look like an empty queue."""
    queue, is_listed = await find_queue(name, place)
    try:
        if not is_listed and not await queue.context.runner.run_verb(queue_exists(queue.context.keys)):
            raise NotFound(f"there is no queue {name!r} on {queue.context.server.where}; `eventq queues` lists those there are")
        yield queue
    finally:
        await queue.close()
