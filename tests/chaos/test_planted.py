"""Damage planted in every column of a queue that everybody looks at: a worker, a scheduler, a durable reader, exporter and tracer,
the commands that read. Nobody dies of it but where a whole key is of another type, and then it says which; the queue beside it
does not even notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from eventq import Job, Queue, Worker
from eventq.errors import EventqError, ServerRefused
from eventq.keys import COLUMNS, QueueKeys
from eventq_opentelemetry import StreamTracer
from eventq_prometheus import PrometheusExporter

from ..fuzz.planting import plant, plant_type
from ..integration.command_line import CommandLine

if TYPE_CHECKING:
    import redis

    from ..conftest import WaitUntil

RESERVED = {"waiting_children", "dedup", "outbox", "children", "groups", "group_turns"}
USED = [column for column in COLUMNS if column not in RESERVED]


async def work(job: Job) -> Any:
    if job.name == "fails":
        raise ValueError("no")
    await job.update_progress(5)
    await job.log("line")
    return {"done": job.data}


class Scene:
    """A queue to be damaged and a healthy one beside it, each with a worker; and who looks at both."""

    def __init__(self, url: str, name: str, client: redis.Redis, wait_until: WaitUntil) -> None:
        self.url, self.client, self.wait_until = url, client, wait_until
        self.victim, self.healthy = Queue[Any, Any](name, url=url), Queue[Any, Any](f"{name}-beside", url=url)
        self.keys = QueueKeys(name)
        self.cli = CommandLine(url)
        self.seen = 0
        self.is_over = False

    async def __aenter__(self) -> Scene:
        self._stack = contextlib.AsyncExitStack()
        enter = self._stack.enter_async_context
        await enter(self.victim)
        await enter(self.healthy)
        await self._fill()
        self.worker = await self._worker(self.victim)
        self.beside = await self._worker(self.healthy)
        names = [self.victim.name, self.healthy.name]
        self.exporter = await enter(PrometheusExporter(url=self.url, queues=names, hold=1.0, per_worker=True))
        self.tracer = await enter(StreamTracer(InMemorySpanExporter(), url=self.url, queues=names, hold=1.0))
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *error: object) -> None:
        self.is_over = True
        self._reading.cancel()
        await asyncio.wait([self._reading])
        with contextlib.suppress(EventqError):  # a worker that has failed says so
            await self._stack.aclose()

    async def _worker(self, queue: Queue[Any, Any]) -> Worker[Any, Any]:
        worker: Worker[Any, Any] = Worker(queue, {"fine": work, "fails": work}, concurrency=4, lease=1.0, max_stalls=1, grace=0)
        await worker.start()
        self._stack.push_async_callback(worker.close)
        return worker

    async def _fill(self) -> None:
        queue = self.victim
        await queue.pause()
        for index in range(4):
            await queue.add("fine", index, job_id=f"waits-{index}")
            await queue.add("fine", index, priority=3, job_id=f"ranked-{index}", attempts=2, backoff=1.0)
            await queue.add("fine", "x" * 2000, delay=0.5 + index, job_id=f"later-{index}")
        await queue.add("fails", job_id="fails", remove_on_fail=5)
        await queue.upsert_schedule("often", every=1, name="fine")
        await queue.upsert_schedule("nightly", cron="0 3 * * *", name="fine")
        await queue.resume()

    async def _read(self) -> None:
        while not self.is_over:
            with contextlib.suppress(EventqError):
                async with self.victim.events(consumer="reader") as events:
                    async for _ in events:
                        self.seen += 1
            await asyncio.sleep(0.05)  # sleep-ok: a reader that was refused tries again

    async def look(self) -> None:
        """Run the commands that read. Each ends by itself, with a table or one sentence and never a traceback."""
        for words in (
            ["queues"], ["jobs", self.victim.name], ["job", self.victim.name, "waits-1"], ["job", self.victim.name, "fails", "--json"],
            ["doctor", self.victim.name], ["schedules", self.victim.name],
        ):  # fmt: skip
            ended = await asyncio.wait_for(self.cli(*words), 20)
            assert ended.code in (0, 1), (words, ended)
            assert "Traceback" not in ended.err, (words, ended.err)
            assert all(char.isprintable() or char == "\n" for char in ended.out + ended.err), (words, ended)

    async def goes_on(self) -> None:
        """The healthy queue's jobs are done, and everybody who looks at it is well."""
        job = await self.healthy.add("fine", 1)
        assert await job.result(timeout=20) == {"done": 1}
        assert self.beside.is_running and self.beside.failure is None
        assert self.exporter.failure is None
        assert self.tracer.failure is None
        await self.exporter.refresh()
        assert list(self.exporter.sheet(zeroes=False).families())


async def _plant(scene: Scene, column: str, seed: int, damages: int) -> None:
    dice = random.Random(f"{column} {seed}")
    done: list[str] = []
    for _ in range(damages):
        done.append(plant(scene.client, scene.keys, column, dice))
        await asyncio.sleep(0)
    print(f"seed {seed}:", *done, sep="\n  ")
    with contextlib.suppress(EventqError):
        async with asyncio.timeout(10):
            await scene.victim.add("fine", "after")
    await scene.goes_on()
    await scene.look()


async def _one_column(scene: Scene, column: str, seed: int, damages: int) -> None:
    async with scene:
        await scene.wait_until(lambda: scene.seen > 5, timeout=20, description="events")
        await _plant(scene, column, seed, damages)
        if column == "meta" and scene.client.hget(scene.keys["meta"], "layout") != b"1":
            return  # then everybody stops, and says why
        assert scene.worker.failure is None, scene.worker.failure
        # Its other jobs go on, too.
        job = await scene.victim.add("fine", "last", job_id="last-of-all")
        await scene.wait_until(lambda: _is_done(scene, job.id), timeout=20, description=f"the last job after {column}")


async def _is_done(scene: Scene, job_id: str) -> bool:
    job = await scene.victim.get_job(job_id)
    return job is None or job.finished_at is not None


@pytest.fixture
async def scene(url: str, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil) -> Scene:
    return Scene(url, queue_name, redis_client, wait_until)


async def test_everything_is_damaged_somewhere(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A few seeded damages in every column of one queue, one after the other."""
    caplog.set_level(logging.CRITICAL)
    async with scene:
        await scene.wait_until(lambda: scene.seen > 5, timeout=20, description="events")
        dice = random.Random(7)
        for column in USED:
            if column != "meta":
                print(*[plant(scene.client, scene.keys, column, dice) for _ in range(3)], sep="\n")
        await scene.goes_on()
        await scene.look()
        assert scene.worker.failure is None, scene.worker.failure


@pytest.mark.full
@pytest.mark.parametrize("column", USED)
async def test_damage_in_one_column(scene: Scene, column: str) -> None:
    """Other seeds each time; a failure prints them."""
    await _one_column(scene, column, random.SystemRandom().randrange(10**6), 20)


@pytest.mark.timeout(300)
async def test_keys_of_another_type(scene: Scene) -> None:
    """The worker stops and names the key, the doctor too; whoever looks at other queues goes on."""
    async with scene:
        await scene.wait_until(lambda: scene.seen > 5, timeout=20, description="events")
        key = scene.keys["totals"]
        plant_type(scene.client, key)
        await scene.wait_until(lambda: scene.worker.failure is not None, timeout=20, description="the worker stops")
        assert isinstance(scene.worker.failure, ServerRefused)
        await scene.goes_on()
        await scene.look()
        ended = await scene.cli("doctor", scene.victim.name)
        assert key in ended.out and "RENAME the key away" in ended.out
