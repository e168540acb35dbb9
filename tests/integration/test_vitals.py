"""What workers say of themselves: seen as soon as they start, gone when they stop, their slots' time counted once."""

from __future__ import annotations

import asyncio
import threading
import time

from eventq import Job, Queue, Worker
from eventq.commands.watch import QueueState, observe_queue
from eventq.states import JobState

from ..conftest import WaitUntil


async def look(queue: Queue) -> QueueState:
    """Return how the queue is now."""
    return await queue.context.runner.run(observe_queue(queue.context.keys))


async def test_a_worker_is_seen_from_its_start_to_its_stop(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Its slots, how many are in use, since when its oldest job runs; and nothing of it once it has stopped."""
    release = asyncio.Event()

    async def process(job: Job) -> None:
        await release.wait()

    async with Queue(queue_name, url=url) as queue:

        async def workers() -> int:
            return len((await look(queue)).workers)

        async def busy() -> bool:
            return [each.busy for each in (await look(queue)).workers] == [2]

        worker = Worker(queue, process, concurrency=3, name="w")
        async with worker:
            await wait_until(workers, description="the worker is seen")
            seen = (await look(queue)).workers[0]
            assert (seen.name, seen.slots, seen.busy, seen.facts["pid"] > 0) == ("w", 3, 0, True)
            await queue.add("n")
            await queue.add("n")
            await wait_until(busy, timeout=12, description="its next report")
            state = await look(queue)
            assert state.busy_ms > 0, "runs that go on count too"
            assert 0 <= state.now_ms - state.since_ms[JobState.ACTIVE] < 12_000
            release.set()
        assert await workers() == 0


async def test_time_in_use_is_counted(url: str, queue_name: str) -> None:
    """Of jobs on the loop and in threads; at the end all of it is there."""
    started = time.monotonic()

    async def on_the_loop(job: Job) -> None:
        await asyncio.sleep(0.3)  # sleep-ok: a slot that is in use for a while

    def in_a_thread(job: Job) -> None:
        threading.Event().wait(0.3)

    async with Queue(queue_name, url=url) as queue:
        for name in ("loop", "thread", "loop", "thread"):
            await queue.add(name)
        worker = Worker(queue, {"loop": on_the_loop, "thread": in_a_thread}, concurrency=4, max_jobs=4)
        await worker.run()
        busy = (await look(queue)).busy_ms / 1000
        assert 1.2 <= busy + 0.01 <= 4 * (time.monotonic() - started)


async def test_a_worker_whose_loop_is_blocked_is_alive(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Its thread speaks for it, and says what blocks."""
    release, blocked = threading.Event(), threading.Event()

    async def block(job: Job) -> None:
        blocked.set()
        release.wait(20)

    def serve() -> None:
        asyncio.run(Worker(queue_name, block, url=url, max_jobs=1).run())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        async with Queue(queue_name, url=url) as queue:
            await queue.add("n")
            await wait_until(blocked.is_set, description="a blocked loop")

            async def is_seen() -> bool:
                return [each.busy for each in (await look(queue)).workers] == [1]

            await wait_until(is_seen, timeout=12, description="a report of the blocked worker")
    finally:
        release.set()
        await asyncio.to_thread(thread.join)
