"""Sentinel: failovers under load. Everybody finds the new primary, and what the old one alone knew is told, to the unit."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, JobState, Queue, Worker
from eventq.commands.events import stream_state
from eventq.errors import QueueUnavailable
from eventq.events import AddedEvent, CompletedEvent, Event, LostEvent

from ..topologies import TestSentinel

if TYPE_CHECKING:
    from ..conftest import WaitUntil
    from ..servers import ServerKind


class Reader:
    """A durable reader that keeps all it is told."""

    def __init__(self, queue: Queue[Any, Any]) -> None:
        self._queue = queue
        self.seen: list[Event] = []
        self.lost: list[LostEvent] = []

    async def __aenter__(self) -> Reader:
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _read(self) -> None:
        async with self._queue.events(consumer="reader") as events:
            async for event in events:
                if isinstance(event, LostEvent):
                    self.lost.append(event)
                else:
                    self.seen.append(event)


class Producer:
    """Adds one job after the other, a thousand a second at most, and keeps the ids that were acknowledged."""

    def __init__(self, queue: Queue[Any, Any]) -> None:
        self._queue = queue
        self._is_stopped = False
        self.acknowledged: list[str] = []
        self.slowest = 0.0

    async def __aenter__(self) -> Producer:
        self._task = asyncio.create_task(self._add())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_stopped = True
        await self._task

    async def more(self, count: int) -> None:
        """Return once so many more are acknowledged."""
        wanted = len(self.acknowledged) + count
        while len(self.acknowledged) < wanted:
            assert not self._task.done(), self._task
            await asyncio.sleep(0.01)  # sleep-ok: the producer has no news to wait for

    async def _add(self) -> None:
        while not self._is_stopped:
            began = time.monotonic()
            self.acknowledged.append((await self._queue.add("j", len(self.acknowledged))).id)
            self.slowest = max(self.slowest, time.monotonic() - began)
            await asyncio.sleep(0.001)  # sleep-ok: as said


async def read_all(queue: Queue[Any, Any]) -> dict[int, Event]:
    """Return everything that is on the stream, by number."""
    found: dict[int, Event] = {}
    _, last = await queue.context.runner.run_verb(stream_state(queue.context.keys))
    async with queue.events(consumer="audit") as events:
        async for event in events:
            found[event.seq] = event
            if event.seq >= last:
                break
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("safe", [False, True], ids=["plain", "min-replicas"])
@pytest.mark.parametrize("failovers", [pytest.param(1, id="small"), pytest.param(10, id="full", marks=pytest.mark.full)])
async def test_what_a_failover_loses_is_reported_and_equals_the_ledger(
    server_kind: ServerKind, queue_name: str, wait_until: WaitUntil, failovers: int, safe: bool
) -> None:
    """Graceful failovers under load, no worker restarted: the events undone are exactly those that are gone, and the
    acknowledged adds that are gone were among them (but one at the very end of a primary). With min-replicas-to-write 1 the
    old primary refuses within a second.
    """
    options = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "1") if safe else ()
    with TestSentinel(server_kind, *options) as sentinel:
        async with Queue(queue_name, int, url=sentinel.url) as queue:
            reader, producer = Reader(queue), Producer(queue)
            async with Worker(queue, nothing, concurrency=20, lease=3.0), reader:
                async with producer:
                    for _ in range(failovers):
                        await producer.more(100)
                        await asyncio.to_thread(sentinel.failover)
                    await producer.more(100)
                await wait_until(lambda: is_drained(queue), 10, description="an empty queue")
                _, last = await queue.context.runner.run_verb(stream_state(queue.context.keys))
                await wait_until(lambda: reader.seen[-1].seq >= last, 10, description="the reader at the end")
            final = await read_all(queue)
            missing = {job_id for job_id in producer.acknowledged if await queue.get_job(job_id) is None}
    gone = [event for event in reader.seen if final.get(event.seq) != event]
    # The reader was stopped once it was there; what the worker had to say later, such as that it stopped, it did not wait for.
    unseen = {seq for seq in final if seq <= last} - {event.seq for event in reader.seen if final.get(event.seq) == event}
    undone = sum(event.undone for event in reader.lost)
    added = {event.job_id for event in final.values() if isinstance(event, AddedEvent)}
    told = {event.job_id for event in gone if isinstance(event, AddedEvent)} - added
    print(
        f"Sentinel ({'min-replicas-to-write 1' if safe else 'asynchronous replicas'}, {server_kind}): {failovers} failovers, "
        f"{len(producer.acknowledged)} adds acknowledged, {len(missing)} lost, {len(missing - told)} of them unreported, "
        f"slowest add {producer.slowest:.1f} s; events undone {undone}, gone {len(gone)}, final ones unseen {len(unseen)}"
    )
    assert undone == len(gone)
    assert set() == unseen
    assert told <= missing
    # What the old primary acknowledged after the reader's last read, before it hung up, nobody else has heard of.
    assert len(missing - told) <= failovers
    completed = {event.job_id for event in final.values() if isinstance(event, CompletedEvent)}
    assert completed == set(producer.acknowledged) - missing
    # The server counts its good replicas once a second, and that long the old primary may take a thousand adds a second.
    assert not safe or len(missing) <= failovers * 1000


async def nothing(_: Job[int]) -> None:
    """Be done."""


async def is_drained(queue: Queue[Any, Any]) -> bool:
    """Return whether nothing is left to do."""
    try:
        counts = await queue.get_job_counts()
    except QueueUnavailable:
        return False
    return not any(counts[state] for state in (JobState.WAITING, JobState.ACTIVE, JobState.DELAYED))


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
