"""What the acceptance tests share: a recorder of every event, a worker that goes silent, sweeps by hand, leftovers."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

from eventq.commands.events import stream_state
from eventq.commands.upkeep import SweepReply, sweep_queue
from eventq.commands.work import Claimed, Outcome, settle_and_claim
from eventq.events import Event, JobEvent

if TYPE_CHECKING:
    from types import TracebackType

    import redis

    from eventq import Queue
    from tests.conftest import Clock

E = TypeVar("E", bound=Event)
PATIENCE = 5.0
#: As a data or result type: any JSON. (To type checkers `Any` itself is no type object.)
UNTYPED: Any = Any
#: The member of `leases` that is no job begins so.
NO_JOB = b"no-job:"


class Recorder:
    """Keeps every event of a queue from now on, in order, as a reader of the stream sees them."""

    def __init__(self, queue: Queue[Any, Any]) -> None:
        self._queue = queue
        self._stream = queue.events()
        self._seq = 0
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self.events: list[Event] = []

    async def __aenter__(self) -> Recorder:
        await self._stream.open()
        self._seq = self._stream.position.seq
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._stream.close()

    async def _read(self) -> None:
        async for event in self._stream:
            self.events.append(event)
            self._seq = event.seq
            self._news.set()

    async def catch_up(self) -> None:
        """Return once every event that is on the stream now is here: others may have heard of them first."""
        context = self._queue.context
        _, seq = await context.runner.run_verb(stream_state(context.keys))
        async with asyncio.timeout(PATIENCE):
            while self._seq < seq:
                self._news.clear()
                await self._news.wait()

    def of(self, cls: type[E], job_id: str | None = None) -> list[E]:
        """Return the events of one class so far, of one job if it is named."""
        return [e for e in self.events if isinstance(e, cls) and (job_id is None or cast("JobEvent", e).job_id == job_id)]

    def kinds(self, job_id: str) -> list[str]:
        """Return what happened to one job so far, in order."""
        return [event.kind for event in self.events if isinstance(event, JobEvent) and event.job_id == job_id]

    def counts(self) -> Counter[str]:
        """Return how many events of each kind there are so far."""
        return Counter(event.kind for event in self.events)

    async def wait(self, cls: type[E], count: int = 1, timeout: float = PATIENCE) -> list[E]:
        """Return the events of one class once there are so many."""
        try:
            async with asyncio.timeout(timeout):
                while len(found := self.of(cls)) < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pytest.fail(f"waited {timeout} s for {count} {cls.kind} events; there are {dict(self.counts())}")
        return found


async def claim_silently(queue: Queue[Any, Any], wanted: int = 1, *, lease: float = 60, worker: str = "silent") -> list[Claimed]:
    """Claim jobs as a worker would, and never be heard of again."""
    context = queue.context
    command = settle_and_claim(
        context.keys,
        worker=worker,
        lease_ms=round(lease * 1000),
        wanted=wanted,
        retention=context.retention,
        progress=[],
        outcomes=[],
    )
    return (await context.runner.run(command)).jobs


async def settle_silently(queue: Queue[Any, Any]) -> None:
    """Claim one job and complete it without a result, in two calls and nothing else: no worker, no scheduler."""
    (job,) = await claim_silently(queue)
    context = queue.context
    rule = (await context.require(job.id)).record.spec.remove_on_complete
    command = settle_and_claim(
        context.keys,
        worker="silent",
        lease_ms=60_000,
        wanted=0,
        retention=context.retention,
        progress=[],
        outcomes=[Outcome(job.id, job.token, "completed", '"name":"n","attempt":1,"worker":"silent"', "", rule)],
    )
    assert (await context.runner.run(command)).stale == []


async def sweep(queue: Queue[Any, Any], *, lease: float = 60, max_stalls: int = 2) -> SweepReply:
    """Sweep as a scheduler does, once."""
    context = queue.context
    lease_ms, every_ms = round(lease * 1000), round(lease * 400)
    return await context.runner.run(sweep_queue(context.keys, lease_ms, every_ms, max_stalls, context.retention))


async def expire_leases(queue: Queue[Any, Any], clock: Clock, *, max_stalls: int = 2) -> int:
    """Let the leases of silent workers (60 s) end and sweep; returns how many jobs were taken from them."""
    await sweep(queue)
    clock.advance(queue.name, 60)
    # Nobody has swept for half a lease, so holders get two thirds of one to come back before their jobs are taken.
    for seconds in (20, 21):
        assert (await sweep(queue, max_stalls=max_stalls)).reclaimed == 0
        clock.advance(queue.name, seconds)
    return (await sweep(queue, max_stalls=max_stalls)).reclaimed


def leftovers(client: redis.Redis, queue: Queue[Any, Any], job_id: str) -> set[str]:
    """Return the columns in which anything of a job is stored. Events and records of calls are history, not the job."""
    found: set[str] = set()
    wanted = job_id.encode()
    for key in cast("list[bytes]", list(client.scan_iter(match=f"*{{{queue.name}}}*"))):
        column = key.decode().rpartition(":")[2]
        if column in ("events", "calls"):
            continue
        match cast("bytes", client.type(key)):
            case b"hash":
                names: list[bytes] = cast("list[bytes]", client.hkeys(key))
            case b"zset":
                names = cast("list[bytes]", client.zrange(key, 0, -1))
            case b"list":
                names = cast("list[bytes]", client.lrange(key, 0, -1))
            case other:
                raise AssertionError(f"{key!r} is a {other!r}: say here how to look into it")
        if any(wanted in name.split(b" ") for name in names):
            found.add(column)
    return found


def leased(client: redis.Redis, queue: Queue[Any, Any]) -> list[str]:
    """Return the ids of the jobs that hold a lease."""
    members = cast("list[bytes]", client.zrange(queue.context.keys["leases"], 0, -1))
    return [member.decode() for member in members if not member.startswith(NO_JOB)]
