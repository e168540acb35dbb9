"""A cut between a primary and its replica, which is promoted, while the old primary goes on with those on its side of the cut."""

from __future__ import annotations

from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING

import pytest
import redis

from eventq import Queue, Worker
from eventq.commands.events import stream_state

from ..nodes import Node
from .failovers import Producer, Reader, find_loss, is_drained, nothing
from .links import Link
from .proxy import FaultProxy

if TYPE_CHECKING:
    from typing import Any, Self

    from ..conftest import WaitUntil
    from ..servers import ServerKind


class Split(AsyncExitStack):
    """Two servers and the link between them. `address` leads to the old one, and once all is healed to the new one."""

    def __init__(self, kind: ServerKind) -> None:
        super().__init__()
        self.old, self.new = (self.enter_context(closing(Node(kind))) for _ in range(2))

    async def __aenter__(self) -> Self:
        self.old.start()
        self.new.start()
        self.link = await self.enter_async_context(Link(self.old.port))
        self.address = self.enter_context(FaultProxy(self.old.port))
        self.new.ask("REPLICAOF", "127.0.0.1", self.link.port)
        return self

    def has_copy(self) -> bool:
        """Whether the replica has all, and the primary counts it."""
        is_up: bool = self.new.info("replication")["master_link_status"] == "up"
        return is_up and self.old.info("replication").get("slave0", {}).get("state") == "online"

    def cut(self) -> None:
        """From now on there are two primaries."""
        self.link.cut()
        self.new.ask("REPLICAOF", "NO", "ONE")

    def heal(self) -> None:
        """Its clients find the new one where the old one was, and it becomes a replica."""
        self.address.upstream_port = self.new.port
        self.old.ask("REPLICAOF", "127.0.0.1", self.new.port)
        self.old.ask("CLIENT", "KILL", "TYPE", "normal")

    def is_refusing(self) -> bool:
        """Whether the old one takes no writes any more, since it has no replica that answers."""
        try:
            self.old.ask("SET", "probe", "1")
        except redis.ResponseError as error:
            return "NOREPLICAS" in str(error)
        return False


async def is_at_the_end(queue: Queue[Any, Any], reader: Reader) -> bool:
    """Return whether all is done and the reader has heard of it."""
    _, last = await queue.context.runner.run_verb(stream_state(queue.context.keys))
    return await is_drained(queue) and reader.seen[-1].seq >= last


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("confirms", "refuses"),
    [
        pytest.param(False, False, id="memory"),
        pytest.param(True, False, id="replica", marks=pytest.mark.full),
        pytest.param(True, True, id="replica, min-replicas"),
    ],
)
async def test_what_the_old_primary_took_is_told_and_nothing_confirmed_is_lost(
    server_kind: ServerKind, queue_name: str, wait_until: WaitUntil, confirms: bool, refuses: bool
) -> None:
    """Both sides add and work, and one history remains: what went with the other is what its reader is told, to the unit. With
    min-replicas-to-write 1 the old primary refuses soon, and whoever adds there waits and goes on with the new one.
    """
    async with Split(server_kind) as split:
        await wait_until(split.has_copy, 30, description="a copy")
        if refuses:
            split.old.ask("CONFIG", "SET", "min-replicas-max-lag", 1, "min-replicas-to-write", 1)
        async with (
            # On the wrong side of the cut each confirmation is waited for in vain.
            Queue(queue_name, int, url=split.address.url, confirm_timeout=1.0) as ours,
            Reader(ours) as reader,
        ):
            ours._producers.of("replica" if confirms else "memory")._runner._patience = 60.0
            async with Producer(ours, confirms=confirms) as here, Worker(ours, nothing, lease=3.0):
                await here.more(100)
                split.cut()
                async with (
                    Queue(queue_name, int, url=split.new.url) as theirs,
                    Worker(theirs, nothing, lease=3.0),
                    Producer(theirs, confirms=False) as there,
                ):
                    await there.more(200)
                    if refuses:
                        await wait_until(split.is_refusing, 30, description="refusals")
                    else:
                        await here.more(5 if confirms else 300)
                        await here.stop()
                        await wait_until(lambda: is_at_the_end(ours, reader), 30, description="the reader at the end")
                split.heal()
                if refuses:
                    await here.more(100)
                    await here.stop()
                here.acknowledged += there.acknowledged
                loss = await find_loss(ours, reader, here, wait_until)
    print(f"split brain, {server_kind}, confirms: {confirms}, refuses: {refuses}: {loss}")
    loss.assert_told(0)
    assert len(loss.missing) >= (0 if refuses else 5)
    assert not confirms or len(loss.confirmed) >= 100
