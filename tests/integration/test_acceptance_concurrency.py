"""Acceptance cases 11 to 14: how many jobs run at once, and how many calls that takes."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Job, NewJob, Queue, Worker
from eventq.errors import ConfigurationError
from eventq.events import CompletedEvent
from eventq.scripts import load_script

from .recorder import Recorder

if TYPE_CHECKING:
    from tests.conftest import MakeServer, WaitUntil
    from tests.servers import TestServer


class Gate:
    """A processor whose jobs stay until they are let go; counts how many are inside and how many were at most."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.entered = 0
        self._leave = asyncio.Semaphore(0)

    async def __call__(self, job: Job[Any, Any]) -> None:
        """Run one job until `let_go`."""
        self.entered += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self._leave.acquire()
        self.inside -= 1

    def let_go(self, jobs: int) -> None:
        """Let so many jobs end."""
        for _ in range(jobs):
            self._leave.release()


@pytest.mark.parametrize("concurrency", [1, 3, 40])
async def test_as_many_jobs_run_as_allowed_and_never_more(
    url: str, queue_name: str, wait_until: WaitUntil, concurrency: int
) -> None:
    """Case 11: with more jobs than slots, every slot is used and no more than those, from the first job to the last."""
    gate, jobs = Gate(), concurrency * 3 + 1
    async with Queue(queue_name, url=url) as queue, Worker(queue, gate, concurrency=concurrency) as worker:
        await queue.add_bulk([NewJob("n", number) for number in range(jobs)])
        for gone in range(jobs):
            full = min(concurrency, jobs - gone)
            expected = (gone + full, full)
            await wait_until(lambda expected=expected: (gate.entered, gate.inside) == expected, description=f"{full} jobs inside")
            gate.let_go(1)
        await wait_until(lambda: gate.inside == 0 and worker.running == 0, description="the last job's end")
        assert gate.most == concurrency
        assert gate.entered == jobs


async def test_plain_functions_share_the_same_slots(url: str, queue_name: str) -> None:
    """Case 11: what runs in threads is counted too: never more than the slots, and all of them used."""
    lock, meeting, most, inside = threading.Lock(), threading.Barrier(4), 0, 0

    def meet(job: Job[Any, Any]) -> None:
        nonlocal most, inside
        with lock:
            inside += 1
            most = max(most, inside)
        meeting.wait(timeout=5)  # ends only when four are inside
        with lock:
            inside -= 1

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        async with Worker(queue, meet, concurrency=4):
            await queue.add_bulk([NewJob("n", number) for number in range(12)])
            await recorder.wait(CompletedEvent, 12)
        assert most == 4


@pytest.mark.parametrize("changes", [(1, 4, 2), (20, 3, 30)])
async def test_concurrency_changes_while_running(
    url: str, queue_name: str, wait_until: WaitUntil, changes: tuple[int, int, int]
) -> None:
    """Case 12: raised or lowered at runtime, concurrency is respected at once, without a restart."""
    gate = Gate()
    first, second, third = changes
    async with Queue(queue_name, url=url) as queue, Worker(queue, gate, concurrency=first, grace=0) as worker:
        await queue.add_bulk([NewJob("n", number) for number in range(100)])
        await wait_until(lambda: gate.inside == first, description="the first number of slots")
        worker.concurrency = second
        if second < first:
            # Nobody is thrown out; nobody comes in until there is room.
            gate.let_go(first - second)
            await wait_until(lambda: worker.running == second, description="the surplus to leave")
            assert gate.entered == first
        await wait_until(lambda: gate.inside == second, description="the second number of slots")
        worker.concurrency = third
        if third < second:
            entered = gate.entered
            gate.let_go(second - third)
            await wait_until(lambda: worker.running == third, description="the surplus to leave")
            assert gate.entered == entered
        await wait_until(lambda: gate.inside == third, description="the third number of slots")
        entered = gate.entered
        gate.let_go(10)
        await wait_until(lambda: gate.entered == entered + 10, description="the freed slots to be used again")
        assert gate.inside == third


class ClaimCounter:
    """Counts the calls of settle_and_claim that reach a server, by watching its command feed."""

    def __init__(self, server: TestServer) -> None:
        self.claims = 0
        self._sha = load_script("settle_and_claim").sha
        self._client = redis.Redis(host="127.0.0.1", port=server.port, protocol=2)
        self._monitor = self._client.monitor()  # type: ignore[no-untyped-call]
        self._seen_end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ClaimCounter:
        self._monitor.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(5)
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def finish(self) -> int:
        """Return how many calls there were until now."""
        self._client.echo("that is all")
        assert self._seen_end.wait(5)
        return self.claims

    def _watch(self) -> None:
        while True:
            command = str((self._monitor.next_command() or {}).get("command"))
            if command.startswith(("evalsha", "EVALSHA")) and self._sha in command:
                self.claims += 1
            if "that is all" in command:
                self._seen_end.set()
                return


@pytest.mark.parametrize(("jobs", "concurrency", "most"), [(60, 1, 60 + 8), (400, 50, 100)])
async def test_claiming_costs_few_calls(make_server: MakeServer, jobs: int, concurrency: int, most: int) -> None:
    """Case 13: N jobs take at most N calls and a small constant; with many slots far fewer, as a call carries a batch.

    There is no separate fetch in eventq: the call that settles a job claims the next. Adding wakes an idle worker a few times.
    """
    server = make_server()

    async def nothing(job: Job[Any, Any]) -> None:
        await asyncio.sleep(0)

    async with Queue("economy", url=server.url) as queue, Recorder(queue) as recorder:
        with ClaimCounter(server) as counter:
            async with Worker(queue, nothing, concurrency=concurrency):
                await queue.add_bulk([NewJob("n", number) for number in range(jobs)])
                await recorder.wait(CompletedEvent, jobs)
                await asyncio.sleep(0.5)  # sleep-ok: counts the calls of a worker that has nothing to do
                claims = counter.finish()
    assert claims <= most


@pytest.mark.parametrize("concurrency", [0, -1, float("nan"), float("inf"), 1.5, True, "2", None])
async def test_an_impossible_concurrency_is_refused(url: str, queue_name: str, concurrency: Any) -> None:
    """Case 14: concurrency 0, NaN or anything but a whole number from 1 on is an error when the worker is made, or set."""

    async def nothing(job: Job[Any, Any]) -> None:
        """Do nothing."""

    with pytest.raises(ConfigurationError, match="concurrency"):
        Worker(queue_name, nothing, url=url, concurrency=concurrency)
    async with Queue(queue_name, url=url) as queue:
        worker = Worker(queue, nothing, concurrency=2)
        with pytest.raises(ConfigurationError, match="concurrency"):
            worker.concurrency = concurrency
        assert worker.concurrency == 2
