"""Sentinel: failovers under load. Everybody finds the new primary, and what the old one alone knew is told, to the unit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from eventq import Queue, Worker
from eventq.errors import QueueUnavailable

from ..nodes import wait
from ..topologies import TestSentinel
from .failovers import Producer, Reader, find_loss, nothing

if TYPE_CHECKING:
    from ..conftest import WaitUntil
    from ..servers import ServerKind


@dataclass(frozen=True)
class Plan:
    """How many failovers, whether by killing the primary, and whether primaries without a replica refuse and adds are confirmed."""

    failovers: int
    kills: bool = False
    safe: bool = False

    def __str__(self) -> str:
        how = "primaries killed" if self.kills else "graceful failovers"
        return f"{self.failovers} {how}, {'min-replicas-to-write 1' if self.safe else 'asynchronous replicas'}"

    def strike(self, sentinel: TestSentinel) -> None:
        """Have another primary; the old one follows it when this returns."""
        if not self.kills:
            sentinel.failover()
            return
        killed = sentinel.kill_primary()
        wait(lambda: sentinel.primary() is not killed, f"another primary than {killed}")
        sentinel.wait_until_whole()
        sentinel.restart(killed)


FULL = [pytest.mark.full, pytest.mark.timeout(900)]
PLANS = [
    Plan(1),
    Plan(1, safe=True),
    pytest.param(Plan(50), marks=FULL),
    pytest.param(Plan(50, safe=True), marks=FULL),
    pytest.param(Plan(20, kills=True), marks=FULL),
    pytest.param(Plan(20, kills=True, safe=True), marks=FULL),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plan", PLANS, ids=str)
async def test_what_a_failover_loses_is_reported_and_equals_the_ledger(
    server_kind: ServerKind, queue_name: str, wait_until: WaitUntil, plan: Plan
) -> None:
    """Failovers under load, no worker restarted: the events undone are exactly those that are gone, and the acknowledged adds
    that are gone were among them (but one at the very end of a primary). With min-replicas-to-write 1 the old primary refuses
    within a second, and no add that a replica had is gone.
    """
    options = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "1") if plan.safe else ()
    with TestSentinel(server_kind, *options) as sentinel:
        async with Queue(queue_name, int, url=sentinel.url) as queue:
            queue._producer._runner._patience = 60.0  # an election may take longer than a caller's patience
            reader, producer = Reader(queue), Producer(queue, confirms=plan.safe)
            async with Worker(queue, nothing, concurrency=20, lease=3.0), reader:
                async with producer:
                    for _ in range(plan.failovers):
                        await producer.more(100)
                        await asyncio.to_thread(plan.strike, sentinel)
                    await producer.more(100)
                loss = await find_loss(queue, reader, producer, wait_until)
    print(f"Sentinel: {plan}, {server_kind}: {loss}")
    loss.assert_told(plan.failovers)
    # The server counts its good replicas once a second, and that long the old primary may take a thousand adds a second.
    assert not plan.safe or len(loss.missing) <= plan.failovers * 1000
    assert not plan.safe or len(loss.confirmed) >= 100 * plan.failovers


async def test_a_sentinel_that_is_out_of_date_is_not_believed(server_kind: ServerKind, queue_name: str) -> None:
    """Cut off from the others, the first one goes on naming a primary that is dead: the next one is asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while count := (await reader.readline())[1:]:
            words = [await reader.readline() for _ in range(int(count) * 2)][1::2]
            is_asked = words[0].upper().startswith(b"SENTINEL")
            writer.write(b"*2\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n" if is_asked else b"+OK\r\n")
        writer.close()

    out_of_date = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = out_of_date.sockets[0].getsockname()[1]
    async with out_of_date:
        with TestSentinel(server_kind) as sentinel:
            url = sentinel.url.replace("sentinel://", f"sentinel://127.0.0.1:{port},")
            async with Queue(queue_name, int, url=url) as queue, Worker(queue, lambda job: job.data + 1):
                assert 3 == await (await queue.add("j", 2)).result(5)


async def test_sentinels_and_servers_have_passwords_of_their_own(server_kind: ServerKind, queue_name: str) -> None:
    """One sentinel is down, and the service's name must be known to the others."""
    with TestSentinel(server_kind, password="data", sentinel_password="watch") as sentinel:
        sentinel.sentinels[0].kill()
        async with Queue(queue_name, int, url=sentinel.url) as queue, Worker(queue, lambda job: job.data + 1):
            assert 3 == await (await queue.add("j", 2)).result(5)
        queue = Queue(queue_name, int, url=sentinel.url.replace("/main/", "/other/"))
        queue.context.runner._patience = 0.2
        with pytest.raises(QueueUnavailable, match="no Sentinel of .* knows a primary 'other' that answers"):
            await queue.add("j", 1)
        await queue.close()
