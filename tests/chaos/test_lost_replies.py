"""Lost and repeated replies: nobody knows whether it was done, and still every add is stored once and every job run once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from eventq import JobOptions, NewJob, Queue, SyncQueue
from eventq.scripts import load_script

from ..integration.recorder import Recorder
from .faults import Ending, Fault, Request, Rule, calls, calls_a_script, is_command
from .proxy import FaultProxy
from .workload import Stopwatch, Ways, Workload, check_events, check_runs, check_stored, finished, new_seed, tell

if TYPE_CHECKING:
    import redis

    from ..servers import TestServer


@dataclass(frozen=True)
class Amount:
    """How many of each fault there must be at least, and how many replies are lost in silence."""

    lost: int
    repeated: int
    silent: int
    patience: float


SMALL = Amount(lost=100, repeated=30, silent=0, patience=20)
FULL = Amount(lost=2000, repeated=500, silent=6, patience=60)


def rules(amount: Amount) -> list[Rule]:
    """Return what goes wrong: mostly a reply lost after its script ran, the connection closed or reset."""
    silent = [
        Rule(Fault.LOSE_REPLY, 0.05, amount.silent // 2, calls(script), Ending.SILENCE)
        for script in ("add_jobs", "settle_and_claim")
    ]
    return [
        *silent,
        Rule(Fault.LOSE_REPLY, 0.15, when=calls_a_script),
        Rule(Fault.LOSE_REPLY, 0.10, when=calls_a_script, then=Ending.RESET),
        Rule(Fault.LOSE_REPLY, 0.10, when=is_command("BZPOPMIN"), then=Ending.RESET),
        Rule(Fault.DUPLICATE, 0.06, when=calls_a_script),
        Rule(Fault.DUPLICATE, 0.06, when=calls_a_script, keep_last=True),
        Rule(Fault.REPLAY, 0.05, when=calls_a_script),
        Rule(Fault.LATE, 0.02, when=calls_a_script, seconds=0.2),
    ]


@pytest.mark.parametrize(
    "amount", [pytest.param(SMALL, id="small"), pytest.param(FULL, id="full", marks=[pytest.mark.full, pytest.mark.timeout(300)])]
)
async def test_lost_and_repeated_replies(server: TestServer, queue_name: str, redis_client: redis.Redis, amount: Amount) -> None:
    """Adds of every kind and processing with auto-removal: stored once, one outcome, no run too many, no error at a caller."""
    seed, watch = new_seed(), Stopwatch()
    tell(f"lost replies: SEED={seed} on {server.kind}")

    def lost(script: str) -> int:
        return proxy.by_script[Fault.LOSE_REPLY, load_script(script).sha]

    def too_few() -> bool:
        # Of both kinds of calls a fair part, whatever heartbeats and sweeps lose besides.
        part = min(lost("add_jobs"), lost("settle_and_claim"))
        enough = proxy.counts[Fault.LOSE_REPLY] >= amount.lost and part >= amount.lost / 4
        return not enough or proxy.counts[Fault.DUPLICATE] < amount.repeated

    async with Queue(queue_name, url=server.url) as direct, Recorder(direct) as recorder:
        with FaultProxy(server.port, seed=seed) as proxy:
            async with Workload(queue_name, proxy.url, seed) as workload:
                proxy.inject(*rules(amount))
                await workload.add_once(Ways(single=0, concurrent=0, bulk=510))  # two calls each
                await workload.add_while(too_few, Ways())
                await finished(recorder, workload, amount.patience)
        await recorder.catch_up()
        check_runs(workload)
        check_events(workload, recorder.events)
        await check_stored(workload, direct, redis_client)
    lost_of_which = f"of adds {lost('add_jobs')}, of settle and claim {lost('settle_and_claim')}"
    tell(f"lost replies: {proxy.summary()} (lost {lost_of_which})")
    tell(f"lost replies: jobs {dict(workload.calls)}, faults seen {dict(workload.errors)}, {watch.seconds:.1f} s")


@pytest.mark.parametrize("way", ["Queue", "SyncQueue", "bulk"])
async def test_a_job_of_an_own_id_may_be_gone_before_it_is_looked_at(
    single_server: TestServer, queue_name: str, way: str
) -> None:
    """The job that had the id is removed between the add, which told that it is there, and the look at it: nothing is wrong."""
    with FaultProxy(single_server.port) as proxy:
        async with Queue(queue_name, url=proxy.url) as queue, Queue(queue_name, url=single_server.url) as direct:
            old = await direct.add("old", job_id="own")
            reads, looks = calls("get_jobs"), 0

            def is_looked_at(request: Request) -> bool:
                nonlocal looks
                if reads(request) and not looks:
                    looks += 1
                    with SyncQueue(queue_name, url=single_server.url) as other:
                        found = other.get_job(old.id)
                        assert found
                        found.remove()
                return False

            proxy.inject(Rule(Fault.CUT_REQUEST, when=is_looked_at))
            if way == "SyncQueue":
                with SyncQueue(queue_name, url=proxy.url) as sync:
                    assert "own" == (await asyncio.to_thread(sync.add, "new", 1, job_id="own")).id
            elif way == "bulk":
                assert ["own"] == [job.id for job in await queue.add_bulk([NewJob("new", 1, JobOptions(job_id="own"))])]
            else:
                assert "own" == (await queue.add("new", 1, job_id="own")).id
            assert looks == 1
            assert await direct.get_job("own") is None and await direct.count() == 0
