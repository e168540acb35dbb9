"""Faults of processes: killed at every moment, stopped and woken, blocked, poisoned, told to go."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from ..ledger import Acknowledged, Started
from .kinds import Faults
from .scene import LEASE

if TYPE_CHECKING:
    from typing import Any

    from .crew import Actor
    from .scene import Scene

fault = Faults(anywhere=True)

#: Two at a time: what a worker that is not to be relied on has begun may go on beside its successor.
OVERLAPS = frozenset({"overlapping"})


async def replaced(scene: Scene, victim: Actor) -> None:
    """Kill and replace."""
    await victim.kill()
    await scene.replace(victim)


async def ready(scene: Scene, **options: Any) -> Actor:
    """Start a worker and return it; where another fault kills it before it is ready, one more."""
    worker = scene.start_worker(**options)
    try:
        await worker.expect("ready")
    except AssertionError:
        if worker.said[-1] != "exit -9":
            raise
        worker = scene.start_worker(**options)
        await worker.expect("ready")
    return worker


# Under load it may have claimed something all the same.
@fault(1, "worker killed while idle", stalls=True)
async def worker_killed_idle(scene: Scene) -> None:
    idle = await ready(scene, concurrency=1)
    await scene.pause(0, 0.3)
    await idle.kill()


@fault(2, "worker killed in the middle of a job", times=3, stalls=True)
async def worker_killed_mid_job(scene: Scene) -> None:
    await scene.until(lambda: any(worker.pid in scene.tail.running() for worker in scene.crew.of("worker")), "a running job")
    running = scene.tail.running()
    victims = [worker for worker in scene.crew.of("worker") if worker.pid in running] or scene.crew.of("worker")
    await replaced(scene, scene.chance.choice(victims))


@fault(3, "worker killed between the effect and its record", times=3, stalls=True)
async def worker_killed_after_effect(scene: Scene) -> None:
    before = set(scene.crew.of("worker"))
    await scene.add("die_after")
    await scene.until(lambda: any(not worker.is_alive for worker in before), "a worker that has died")
    await scene.replace(next(worker for worker in before if not worker.is_alive))


@fault(6, "all workers killed at once", times=2, stalls=True)
async def all_workers_killed(scene: Scene) -> None:
    victims = scene.crew.of("worker")
    await asyncio.gather(*(victim.kill() for victim in victims))
    await asyncio.gather(*(scene.replace(victim) for victim in victims))


@fault(7, "producer killed while it adds", times=3)
async def producer_killed(scene: Scene) -> None:
    added = len(scene.tail.of(Acknowledged))
    producer = scene.start_producer(40, group=40, seconds=0.2)
    await scene.until(lambda: len(scene.tail.of(Acknowledged)) > added, "a job to be added")
    await scene.pause(0, 0.05)
    await producer.kill()
    producer = scene.start_producer(20, seconds=0.2)
    await producer.ended()


@fault(8, "zombie: stopped for longer than its lease", tolerates=OVERLAPS, times=1, stalls=True)
async def worker_stopped(scene: Scene) -> None:
    victim = scene.worker
    victim.send(signal.SIGSTOP)
    await scene.pause(LEASE * 1.5, LEASE * 2)
    victim.send(signal.SIGCONT)


@fault(9, "zombies that stop around their deadline", tolerates=OVERLAPS, times=1, stalls=True)
async def workers_stopped_around_the_deadline(scene: Scene) -> None:
    async def stop(victim: Actor) -> None:
        for _ in range(2):
            victim.send(signal.SIGSTOP)
            await scene.pause(LEASE * 0.85, LEASE * 1.15)
            victim.send(signal.SIGCONT)
            await scene.pause(0, 0.3)

    await asyncio.gather(*(stop(victim) for victim in scene.crew.of("worker")[:2]))


@fault(11, "event loop blocked for longer than a lease", times=1)
async def loop_blocked(scene: Scene) -> None:
    await scene.add("block", data=LEASE * 1.5)
    await scene.pause(LEASE * 1.5, LEASE * 1.7)


@fault(12, "the whole process held for longer than a lease", tolerates=OVERLAPS, times=1, stalls=True)
async def process_held(scene: Scene) -> None:
    await scene.add("hold_gil", data=LEASE * 1.5)
    await scene.pause(LEASE * 1.5, LEASE * 1.7)


@fault(13, "poison: a job that takes every worker along", times=1, stalls=True)
async def poison(scene: Scene) -> None:
    (job_id,) = await scene.add(scene.chance.choice(["leave", "abort", "crash"]))
    victims: set[Actor] = set()

    def runs() -> list[Started]:
        return [run for run in scene.tail.of(Started) if run.job_id == job_id]

    for _ in range(3):  # two stalls are allowed, the third is the end of it
        await scene.until(lambda: len(runs()) > len(victims), "the poison to run")
        pid = max(runs(), key=lambda run: run.ns).pid
        victim = next(actor for actor in scene.crew.actors if actor.pid == pid)
        await victim.ended()
        victims.add(victim)
        await scene.replace(victim)


@fault(14, "a job that wants more memory than there is", times=1)
async def memory_exhausted(scene: Scene) -> None:
    await scene.add("allocate", attempts=2)
    await scene.pause(0.1, 0.3)


@fault(15, "worker told to stop under load", times=2)
async def worker_told_to_stop(scene: Scene) -> None:
    victim = scene.worker
    assert await victim.stop() == 0, victim.said
    await scene.replace(victim)


@fault(16, "worker told to stop, and killed before it has", times=2, stalls=True)
async def worker_killed_while_it_stops(scene: Scene) -> None:
    victim = scene.worker
    victim.send(signal.SIGTERM)
    await scene.pause(0, 0.1)
    await replaced(scene, victim)


@fault(17, "worker told twice, by a mixture of signals", times=2)
async def worker_told_twice(scene: Scene) -> None:
    victim = scene.worker
    victim.send(scene.chance.choice([signal.SIGTERM, signal.SIGINT]))
    await scene.pause(0, 0.1)
    victim.send(scene.chance.choice([signal.SIGTERM, signal.SIGINT]))
    assert await victim.ended() == 0, victim.said
    await scene.replace(victim)


@fault(29, "callers that give up while they add", times=2)
async def callers_give_up(scene: Scene) -> None:
    producer = scene.start_producer(40, seconds=0.5, cancels=0.4)
    await producer.ended()


@fault(56, "many schedulers for one schedule", times=1)
async def many_schedulers(scene: Scene) -> None:
    schedulers = [scene.crew.start("scheduler", scene.url) for _ in range(8)]
    for scheduler in schedulers:
        await scheduler.expect("ready")
    await scene.pause(1.0, 1.5)
    for scheduler in schedulers:
        await scheduler.kill()


@fault(58, "reader of events killed", times=1)
async def reader_killed(scene: Scene) -> None:
    await scene.pause(0, 0.5)
    (reader,) = scene.crew.of("reader")
    await replaced(scene, reader)


@fault(59, "listeners that raise, and some that hang", times=1)
async def bad_listeners(scene: Scene) -> None:
    for listener in ("raising", "hanging"):
        await ready(scene, listener=listener)


@fault(60, "exporter and tracer killed", times=2)
async def exporters_killed(scene: Scene) -> None:
    await scene.pause(0, 0.5)
    victims = [*scene.crew.of("exporter"), *scene.crew.of("tracer")]
    await asyncio.gather(*(replaced(scene, victim) for victim in victims))
