"""The table of error codes, end to end: what a real server answers, what callers are told and when, and what a worker does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, JobState, NewJob, Queue, Worker
from eventq.client import AsyncRunner, Server, SyncRunner
from eventq.client.faults import _REMEDIES
from eventq.commands.add import Added, add_jobs
from eventq.commands.read import count_jobs
from eventq.errors import BulkAddError, EventqError, QueueUnavailable, ServerRefused
from eventq.events import ActiveEvent, CompletedEvent, StalledEvent

from .conditions import (
    ADMINISTERED,
    SLOW_TO_LOAD,
    Condition,
    admin,
    busy,
    loading,
    login,
    permission,
    read_only,
    setting,
    unable_to_save,
    without_primary,
)
from .recorder import PATIENCE, Recorder

if TYPE_CHECKING:
    from eventq.commands.core import Command

    from ..conftest import MakeServer, WaitUntil
    from ..servers import TestServer

#: What callers here wait at most: less than the ten seconds of a queue. And what is told at once.
IMPATIENT = 0.3
AT_ONCE = 1.0
#: Seconds in which a worker has carried on.
SOON = 2.0


# --- who is there when it happens -------------------------------------------------------------------------------------


class Scene:
    """A queue with a worker that runs two jobs, and callers of every kind, each with a connection from before."""

    def __init__(self, server: TestServer, name: str, password: str, lease: float) -> None:
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{server.port}/0"
        self.server = server
        self.lease = lease
        self.queue: Queue[Any, Any] = Queue(name, url=self.url)
        self.recorder = Recorder(self.queue)
        self.worker = Worker(self.queue, self.process, concurrency=4, lease=lease)
        self.starts: Counter[str] = Counter()
        self.told: list[str] = []
        self._gates = {"early": asyncio.Event(), "late": asyncio.Event()}
        context = self.queue.context
        self.runner = AsyncRunner(context.server, patience=IMPATIENT)
        self.sync_runner = SyncRunner(context.server, patience=IMPATIENT, timeout=IMPATIENT)
        #: The jobs that runners were to add, and those that must be stored.
        self.sent: list[str] = []
        self.added: set[str] = set()

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[Scene]:
        """Everybody is connected, and the worker runs the two jobs."""
        self.worker.on("error")(lambda event: self.told.append(event.message))
        async with self.queue, self.recorder:
            self.running = asyncio.create_task(self.worker.run())
            self.held = [await self.queue.add(name) for name in self._gates]
            await self.recorder.wait(ActiveEvent, 2)
            await self.runner.run(self.command())
            await asyncio.to_thread(self.sync_runner.run, self.command())
            self.added = {*(job.id for job in self.held), *self.sent}
            await self.recorder.wait(CompletedEvent, 2)
            try:
                yield self
            finally:
                for gate in self._gates.values():
                    gate.set()
                self.worker.stop()
                with contextlib.suppress(ServerRefused):  # whoever wants to know has awaited it
                    await self.running
                await self.runner.close()
                self.sync_runner.close()

    def command(self) -> Command[Added]:
        """Return an add, as runners send it; its job's id is the last of `sent`."""
        record = self.queue.context.record("work", None, None)
        self.sent.append(record.id)
        return add_jobs(self.queue.context.keys, [record])

    def end(self, name: str) -> None:
        """Let one of the two jobs end."""
        self._gates[name].set()

    async def carries_on(self) -> None:
        """The worker runs what comes now, and has recorded what it ran meanwhile; nothing ran twice or is half there."""
        began = time.monotonic()
        job = await self.queue.add("work")
        await job.result(SOON)
        self.end("late")
        for held in self.held:
            await held.result(PATIENCE)
        print(f"Error table: carried on after {time.monotonic() - began:.2f} s, {self.server.kind}")
        await self.recorder.catch_up()
        with admin(self.server) as client:
            stored: Any = client.hkeys(self.queue.context.keys["jobs"])
        assert self.added | {job.id} == {job_id.decode() for job_id in stored}
        assert Counter(dict.fromkeys(self.added | {job.id}, 1)) == self.starts
        assert Counter(self.starts) == Counter(event.job_id for event in self.recorder.of(CompletedEvent))
        assert [] == self.recorder.of(StalledEvent)

    async def process(self, job: Job[Any, Any]) -> None:
        self.starts[job.id] += 1
        if job.name in self._gates:
            await self._gates[job.name].wait()


@pytest.fixture
async def scene(make_server: MakeServer, queue_name: str, request: pytest.FixtureRequest) -> AsyncGenerator[Scene]:
    """Everybody at work on a server that has an administrator; indirect parameter: password of all others, lease."""
    password, lease = getattr(request, "param", ("", 15.0))
    asked = ("--requirepass", password) if password else ()
    async with Scene(make_server(*ADMINISTERED, *SLOW_TO_LOAD, *asked), queue_name, password, lease).at_work() as scene:
        yield scene


async def by_a_stranger(scene: Scene) -> None:
    """Add over a connection that is new."""
    runner = AsyncRunner(Server(scene.url), patience=IMPATIENT)
    try:
        await runner.run(scene.command())
    finally:
        await runner.close()


async def told(call: Callable[[], Any], error: type[EventqError], words: str, *, most: float, least: float = 0.0) -> EventqError:
    """Call, and return the error that the caller is told: of this class, saying this, after so many seconds."""
    began = time.monotonic()
    with pytest.raises(error, match=words) as caught:
        await call()
    seconds = time.monotonic() - began
    assert least <= seconds <= most, f"told after {seconds:.2f} s: {caught.value}"
    return caught.value


# --- the claims -------------------------------------------------------------------------------------------------------

WAITED_FOR: dict[str, tuple[Condition, str]] = {
    "LOADING": (loading, "loading the dataset"),
    "BUSY": (busy, "busy running a script"),
    "READONLY": (read_only, "read only replica"),
    "MASTERDOWN": (without_primary, "Link with MASTER is down"),
    "NOREPLICAS": (setting("min-replicas-to-write", "1", "0"), "Not enough good replicas to write"),
}
REFUSED: dict[str, tuple[Condition, str]] = {
    "MISCONF": (unable_to_save, "Redis cannot save to disk and refuses writes: "),
    "OOM": (setting("maxmemory", "1", "0"), "Redis is out of memory .maxmemory reached. and takes no more jobs; workers go on: "),
}
SHUT_OUT: dict[str, tuple[str, Condition, str, str]] = {
    "NOAUTH": ("", login("new", ""), "NOAUTH", "Redis refuses the credentials: "),
    "WRONGPASS": ("old", login("new", "old"), "WRONGPASS", "Redis refuses the credentials: "),
    "NOPERM in a script": (
        "",
        permission("-hmget", given=("+hmget",)),
        "NOPERM",
        "script [a-z_]+: the Redis user lacks a permission for a command inside of the script .ACL LOG says which; ",
    ),
}
FORBIDDEN: dict[str, tuple[Condition, str]] = {
    "NOPERM": (permission("-evalsha", given=("+evalsha",)), "script add_jobs: the Redis user lacks a permission: .*evalsha"),
    "NOPERM on keys": (
        permission("resetkeys", "~other:*", given=("~*",)),
        "script add_jobs: the Redis user lacks a permission: .*key",
    ),
}
#: The tests of Clusters and of rediss:// have them.
ELSEWHERE = {"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "CERTIFICATE", "TLSVERSION"}


def test_every_code_of_the_table_is_here() -> None:
    """A code that is added to the table is added to these tests, or to those of a Cluster."""
    here = {*WAITED_FOR, *REFUSED, *SHUT_OUT, *FORBIDDEN, "NOSCRIPT", "UNBLOCKED"} - {"NOPERM on keys"}
    assert _REMEDIES.keys() == here | ELSEWHERE


@pytest.mark.parametrize("code", WAITED_FOR)
async def test_a_server_that_will_be_back_is_waited_for(scene: Scene, make_server: MakeServer, code: str) -> None:
    """Within their patience callers wait, past it QueueUnavailable says why; the worker carries on, everything happens once."""
    condition, words = WAITED_FOR[code]
    # A replica that has lost its primary refuses writes as any replica, and reads with a code of its own.
    command: Callable[[], Command[Any]] = scene.command
    if code == "MASTERDOWN":
        command = functools.partial(count_jobs, scene.queue.context.keys)
    said = f"script {command().script.name}: no answer from {scene.url} for [0-9.]+ seconds: .*{words}"
    async with condition(scene.server, make_server):
        adding = asyncio.gather(scene.queue.add("work"), scene.queue.add_bulk([NewJob("work")] * 3))
        counting = asyncio.create_task(scene.queue.get_job_counts())
        scene.end("early")
        await told(lambda: scene.runner.run(command()), QueueUnavailable, said, least=0.05, most=IMPATIENT + AT_ONCE)
        blocking = functools.partial(scene.sync_runner.run, command())
        await told(lambda: asyncio.to_thread(blocking), QueueUnavailable, said, least=0.05, most=IMPATIENT + AT_ONCE)
        assert not adding.done() and counting.done() is (code in ("READONLY", "NOREPLICAS"))
    one, several = await asyncio.wait_for(adding, PATIENCE)
    assert 4 <= sum((await counting).values()) <= 8
    scene.added |= {one.id, *(job.id for job in several)}
    await scene.carries_on()
    if code == "READONLY":
        assert any(message.startswith("UNBLOCKED") for message in scene.told), "the waiting worker was not told"


@pytest.mark.parametrize("code", REFUSED)
async def test_a_server_that_takes_no_writes_says_so_at_once(
    scene: Scene, make_server: MakeServer, wait_until: WaitUntil, code: str
) -> None:
    """Every caller gets ServerRefused with code and reason at once and nothing is stored; reading works; the worker carries on."""
    condition, reason = REFUSED[code]
    said = f"script add_jobs: {reason}"
    queue = scene.queue
    async with contextlib.AsyncExitStack() as later, condition(scene.server, make_server):
        calls: list[Callable[[], Any]] = [
            lambda: scene.runner.run(scene.command()),
            lambda: asyncio.to_thread(scene.sync_runner.run, scene.command()),
            lambda: queue.add("work"),
            lambda: asyncio.gather(*(queue.add("work") for _ in range(20))),
        ]
        for call in calls:
            error = await told(call, ServerRefused, f"^{said}", most=AT_ONCE)
            assert isinstance(error, ServerRefused) and code == error.code
        bulk = await told(lambda: queue.add_bulk([NewJob("work")] * 3), BulkAddError, f"0 of 3 .*{said}", most=AT_ONCE)
        assert isinstance(bulk, BulkAddError) and [] == bulk.added
        assert isinstance(bulk.__cause__, ServerRefused) and code == bulk.__cause__.code
        assert 2 == (await queue.get_job_counts())[JobState.ACTIVE]
        # Who comes now starts, too: a full server needs its workers, and another one will be well again.
        second = await later.enter_async_context(Queue(queue.name, url=scene.url))
        await later.enter_async_context(Worker(second, scene.process))
        scene.end("early")
        if code == "OOM":
            await scene.recorder.wait(CompletedEvent, 3)
        else:
            await wait_until(lambda: scene.told, description="the worker to be refused")
            assert 2 == (await queue.get_job_counts())[JobState.ACTIVE]
    await scene.carries_on()


async def test_forgotten_scripts_are_loaded_again(scene: Scene) -> None:
    """NOSCRIPT: nobody is told anything, and everything happens once."""
    with admin(scene.server) as client:
        client.script_flush()
        scene.end("early")
        await scene.runner.run(scene.command())
        client.script_flush()
        await asyncio.to_thread(scene.sync_runner.run, scene.command())
        client.script_flush()
        jobs = [await scene.queue.add("work"), *await scene.queue.add_bulk([NewJob("work")] * 3)]
        client.script_flush()
        assert 10 == sum((await scene.queue.get_job_counts()).values())
    scene.added |= {*(job.id for job in jobs), *scene.sent}
    await scene.carries_on()
    assert [] == scene.told


@pytest.mark.parametrize(("code", "scene"), [(code, (row[0], 1.0)) for code, row in SHUT_OUT.items()], indirect=["scene"])
async def test_who_is_shut_out_is_told_at_once(scene: Scene, make_server: MakeServer, code: str) -> None:
    """Every caller gets ServerRefused at once, and so does whoever runs a worker: it ends. Its jobs run again after their lease."""
    _, condition, named, reason = SHUT_OUT[code]
    async with condition(scene.server, make_server):
        calls: list[Callable[[], Any]] = [
            lambda: scene.runner.run(scene.command()),
            lambda: asyncio.to_thread(scene.sync_runner.run, scene.command()),
            lambda: scene.queue.add("work"),
            lambda: scene.queue.get_job_counts(),
            lambda: by_a_stranger(scene),
        ]
        for call in calls:
            error = await told(call, ServerRefused, reason, most=AT_ONCE)
            assert isinstance(error, ServerRefused) and named == error.code
        scene.end("early")
        error = await told(lambda: asyncio.wait_for(scene.running, PATIENCE), ServerRefused, reason, most=PATIENCE)
        assert isinstance(error, ServerRefused) and named == error.code
    with admin(scene.server) as client:
        stored: Any = client.hkeys(scene.queue.context.keys["jobs"])
        assert scene.added == {job_id.decode() for job_id in stored}
    scene.end("late")
    async with Queue(scene.queue.name, url=scene.url) as queue, Recorder(queue) as recorder:
        async with Worker(queue, scene.process, concurrency=4, lease=scene.lease):
            await (await queue.add("work")).result(SOON)
            await recorder.wait(CompletedEvent, 3)
        assert Counter(job.id for job in scene.held) == Counter(event.job_id for event in recorder.of(StalledEvent))


@pytest.mark.parametrize("code", FORBIDDEN)
async def test_who_loses_a_permission_has_it_back_some_day(
    scene: Scene, make_server: MakeServer, wait_until: WaitUntil, code: str
) -> None:
    """Callers are told at once, and so is a worker that begins: it ends. One that has worked says so, waits, and carries on."""
    condition, reason = FORBIDDEN[code]
    async with condition(scene.server, make_server):
        calls: list[Callable[[], Any]] = [
            lambda: scene.runner.run(scene.command()),
            lambda: asyncio.to_thread(scene.sync_runner.run, scene.command()),
            lambda: scene.queue.add("work"),
            lambda: by_a_stranger(scene),
        ]
        for call in calls:
            error = await told(call, ServerRefused, reason, most=AT_ONCE)
            assert isinstance(error, ServerRefused) and error.code == "NOPERM"
        with pytest.raises(ServerRefused, match="the Redis user lacks a permission"):
            await asyncio.wait_for(Worker(scene.queue.name, scene.process, url=scene.url).run(), PATIENCE)
        scene.end("early")
        await wait_until(lambda: scene.told, description="the worker to be refused")
    await scene.carries_on()
    assert all("permission" in message for message in scene.told)


async def test_a_permission_that_is_gone_for_good_is_no_storm(
    scene: Scene, make_server: MakeServer, wait_until: WaitUntil
) -> None:
    """It is told once for many tries, not with each, and whoever stops the worker need not wait for it."""

    def refused() -> int:
        with admin(scene.server) as client:
            rows: Any = client.info("commandstats")
        return int(rows["cmdstat_bzpopmin"]["rejected_calls"])

    async with permission("-bzpopmin", given=("+bzpopmin",))(scene.server, make_server):
        await scene.queue.add("work")
        await wait_until(lambda: refused() >= 5, description="tries")
        assert 1 == len([message for message in scene.told if "bzpopmin" in message])
        for name in ("early", "late"):
            scene.end(name)
        scene.worker.stop()
        await asyncio.wait_for(scene.running, PATIENCE)


async def test_a_reader_that_loses_its_permission_is_told(scene: Scene, make_server: MakeServer) -> None:
    """It has nobody else to tell: to wait would be to stand still for ever without a word."""
    async with scene.queue.events() as events:
        await scene.queue.add("work")
        await anext(events)
        async with permission("-xread", given=("+xread",))(scene.server, make_server):

            async def reads() -> None:
                while True:
                    await anext(events)

            await told(lambda: asyncio.wait_for(reads(), PATIENCE), ServerRefused, "^XREAD: .* lacks a permission", most=PATIENCE)


async def test_a_worker_does_not_outlive_its_upkeep(scene: Scene, make_server: MakeServer, wait_until: WaitUntil) -> None:
    """A permission that is gone for a moment: the worker has ended, or its scheduler works again; never a worker without one."""
    async with permission("-evalsha", given=("+evalsha",))(scene.server, make_server):
        await asyncio.sleep(1.2)  # sleep-ok: longer than between two sweeps
    swept = swept_at(scene)
    await wait_until(lambda: scene.running.done() or swept_at(scene) > swept, timeout=SOON)


def swept_at(scene: Scene) -> int:
    """Return when the queue was last swept (ms)."""
    with admin(scene.server) as client:
        text: Any = client.hget(scene.queue.context.keys["meta"], "swept_at")
    return int(text)
