"""What a failover may lose: a producer that knows what a replica had, a reader that keeps what it was told, and what is gone."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventq import Durability
from eventq.commands.events import stream_state
from eventq.errors import QueueUnavailable, Unconfirmed
from eventq.events import AddedEvent, CompletedEvent, Event, LostEvent
from eventq.states import JobState

if TYPE_CHECKING:
    from eventq import Job, Queue

    from ..conftest import WaitUntil


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
    """Adds one job after the other, a thousand a second at most, and keeps the ids that were acknowledged; and of those the ones
    that a replica had by then, if it is to ask for that.
    """

    def __init__(self, queue: Queue[Any, Any], *, confirms: bool) -> None:
        self._queue = queue
        self._confirms = confirms
        self._is_stopped = False
        self.acknowledged: list[str] = []
        self.confirmed: list[str] = []
        self.slowest = 0.0

    async def __aenter__(self) -> Producer:
        self._task = asyncio.create_task(self._add())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Add no more; returns once the add that is under way is acknowledged."""
        self._is_stopped = True
        await self._task

    async def more(self, count: int) -> None:
        """Return once so many more are acknowledged."""
        wanted = len(self.acknowledged) + count
        while len(self.acknowledged) < wanted:
            assert not self._task.done(), self._task
            await asyncio.sleep(0.01)  # sleep-ok: the producer has no news to wait for

    async def _add(self) -> None:
        durability = Durability.REPLICA if self._confirms else Durability.MEMORY
        while not self._is_stopped:
            began = time.monotonic()
            try:
                # Kept for ever: what the queue's own rule removes would count as lost.
                job = await self._queue.add("j", len(self.acknowledged), remove_on_complete=False, durability=durability)
            except Unconfirmed as error:  # it is stored, and may go with the primary
                self.acknowledged += error.job_ids
            else:
                self.acknowledged.append(job.id)
                if self._confirms:
                    self.confirmed.append(job.id)
            self.slowest = max(self.slowest, time.monotonic() - began)
            await asyncio.sleep(0.001)  # sleep-ok: as said


async def read_all(queue: Queue[Any, Any], consumer: str) -> dict[int, Event]:
    """Return everything that is on the stream, by number, as a new consumer."""
    found: dict[int, Event] = {}
    _, last = await queue.context.runner.run_verb(stream_state(queue.context.keys))
    async with queue.events(consumer=consumer) as events:
        async for event in events:
            found[event.seq] = event
            if event.seq >= last:
                break
    return found


@dataclass(frozen=True)
class Loss:
    """What was acknowledged, confirmed and is missing (ids); of the missing, what no reader was told; events undone and gone."""

    acknowledged: frozenset[str]
    confirmed: frozenset[str]
    missing: frozenset[str]
    completed: frozenset[str]
    told: frozenset[str]
    undone: int
    gone: int
    unseen: int
    slowest: float

    def assert_told(self, failovers: int) -> None:
        """Nothing confirmed is missing, what else is missing was told, and everything that is there was done."""
        assert frozenset() == self.missing & self.confirmed
        assert self.undone == self.gone
        assert 0 == self.unseen
        assert self.told <= self.missing
        # What the old primary acknowledged after the reader's last read, before it hung up, nobody else has heard of.
        assert len(self.missing - self.told) <= failovers
        assert self.completed == self.acknowledged - self.missing

    def __str__(self) -> str:
        """One line of figures."""
        return (
            f"{len(self.acknowledged)} adds acknowledged, {len(self.missing)} lost, {len(self.missing - self.told)} of them "
            f"unread and so unreported; {len(self.confirmed)} confirmed by a replica, {len(self.missing & self.confirmed)} of them lost; "
            f"slowest add {self.slowest:.1f} s; events undone {self.undone}, gone {self.gone}, final ones unseen {self.unseen}"
        )


async def find_loss(queue: Queue[Any, Any], reader: Reader, producer: Producer, wait_until: WaitUntil) -> Loss:
    """Compare what was acknowledged and seen with what is there, once all is done and the reader is at the end."""
    await wait_until(lambda: is_drained(queue), 20, description="an empty queue")
    # By number alone it may be there already: with an event that is undone.
    last, newest = max((await read_all(queue, "find")).items())
    await wait_until(lambda: newest in reader.seen[-1000:], 10, description="the reader at the end")
    seen = reader.seen[:]  # a worker may have an error to tell still
    final = await read_all(queue, "audit")
    missing = [job_id for job_id in producer.acknowledged if await queue.get_job(job_id) is None]
    gone = [event for event in seen if final.get(event.seq) != event]
    # The reader was there; what a worker had to say later, such as an error, it was not waited for.
    kept = {event.seq for event in seen if final.get(event.seq) == event}
    unseen = {seq for seq in final if seq <= last} - kept
    added = {event.job_id for event in final.values() if isinstance(event, AddedEvent)}
    return Loss(
        acknowledged=frozenset(producer.acknowledged),
        confirmed=frozenset(producer.confirmed),
        missing=frozenset(missing),
        completed=frozenset(event.job_id for event in final.values() if isinstance(event, CompletedEvent)),
        told=frozenset({event.job_id for event in gone if isinstance(event, AddedEvent)} - added),
        undone=sum(event.undone for event in reader.lost),
        # Where two primaries wrote at once, an event without a job may be the same on both sides: then it was read twice.
        gone=len(seen) - len(kept),
        unseen=len(unseen),
        slowest=producer.slowest,
    )


async def nothing(_: Job[int]) -> None:
    """Be done."""


async def is_drained(queue: Queue[Any, Any]) -> bool:
    """Return whether nothing is left to do."""
    try:
        counts = await queue.get_job_counts()
    except QueueUnavailable:
        return False
    return not any(counts[state] for state in (JobState.WAITING, JobState.ACTIVE, JobState.DELAYED))
