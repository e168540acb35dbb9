"""Connections: who is let in, what shows of it, and that everything goes on when connections or servers come and go."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import BulkAddError, Job, JobState, NewJob, Queue, Worker
from eventq.client import AsyncRunner, Server
from eventq.commands.add import add_jobs
from eventq.commands.core import Verb
from eventq.commands.read import wait_for_work
from eventq.errors import ConfigurationError, QueueUnavailable, ServerRefused
from eventq.events import AddedEvent, CompletedEvent, Event

from ..chaos.faults import Fault, Rule, is_command
from ..chaos.proxy import FaultProxy
from .recorder import PATIENCE, Recorder

if TYPE_CHECKING:
    from ..conftest import MakeServer, WaitUntil
    from ..servers import TestServer

PASSWORD = "s3cret/p@ss"
QUOTED = "s3cret%2Fp%40ss"
#: Seconds in which a client has found a new connection after its server came back: its longest pause is one.
RECONNECT = 3.0


async def echo(job: Job[Any]) -> Any:
    """Process a job."""
    return job.data


def plain(server: TestServer) -> redis.Redis:
    """Return a client that is not ours."""
    return redis.Redis(host="127.0.0.1", port=server.port, decode_responses=True)


# --- who is let in ----------------------------------------------------------------------------------------------------


async def test_passwords_open_doors_and_never_show(
    make_server: MakeServer, queue_name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the right password all works; wrong, missing, unreachable: clear errors; nothing shows a password anywhere."""
    caplog.set_level(logging.DEBUG)
    server = make_server("--requirepass", PASSWORD)
    shown: list[str] = []
    right = f"redis://:{QUOTED}@127.0.0.1:{server.port}/0"
    async with Queue(queue_name, url=right) as queue, Worker(queue, echo) as worker:
        job = await queue.add("j", 1)
        assert 1 == await job.result(PATIENCE)
        shown += [repr(queue), repr(worker), repr(job), repr(queue.context.server), repr(await queue.get_job(job.id))]

    nobody = Server(f"redis://:{QUOTED}@127.0.0.1:{server.port + 1}/0")
    assert nobody.where == f"redis://127.0.0.1:{server.port + 1}/0"
    attempts: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
        ("Redis refuses", Queue(queue_name, url=f"redis://:wrong-{QUOTED}@127.0.0.1:{server.port}/0").get_job_counts),
        ("Redis refuses", Queue(queue_name, url=f"redis://127.0.0.1:{server.port}/0").get_job_counts),
        ("no answer from redis://127.0.0.1", lambda: AsyncRunner(nobody, patience=0.1).run_verb(PING)),
    ]
    for words, attempt in attempts:
        with pytest.raises((ServerRefused, QueueUnavailable), match=words) as caught:
            await attempt()
        shown += traceback.format_exception(caught.value)
    shown.append(caplog.text)
    assert [] == [text for text in shown if "s3cret" in text or "p@ss" in text]


PING: Verb[str] = Verb(("PING",), str)


@pytest.mark.parametrize("password", ["wrong", None])
async def test_a_worker_with_a_wrong_password_ends_at_once(
    make_server: MakeServer, queue_name: str, password: str | None
) -> None:
    """It is refused when it starts, not after ten seconds, and with a code to decide by."""
    server = make_server("--requirepass", PASSWORD)
    login = f":{password}@" if password else ""
    worker = Worker(queue_name, echo, url=f"redis://{login}127.0.0.1:{server.port}/0")
    with pytest.raises(ServerRefused) as caught:
        await asyncio.wait_for(worker.run(), 2.0)
    assert caught.value.code in ("NOAUTH", "WRONGPASS")


async def test_a_missing_permission_ends_a_worker_with_its_name(make_server: MakeServer, queue_name: str) -> None:
    """What no waiting mends is raised by run(), also when it concerns only the blocking read of an idle worker."""
    server = make_server()
    with plain(server) as client:
        client.acl_setuser(
            "limited", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-bzpopmin"], channels=["*"]
        )
    worker = Worker(queue_name, echo, url=f"redis://limited:pw@127.0.0.1:{server.port}/0")
    with pytest.raises(ServerRefused, match="permission") as caught:
        await asyncio.wait_for(worker.run(), 5.0)
    assert "NOPERM" == caught.value.code


async def test_a_unix_socket_will_do(single_server: TestServer, queue_name: str) -> None:
    """unix:// reaches the same queue."""
    async with Queue(queue_name, url=single_server.unix_url) as queue, Worker(queue, echo):
        assert 2 == await (await queue.add("j", 2)).result(PATIENCE)
        assert repr(queue).endswith(f"on unix://{single_server.socket_path}>")


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random"])
async def test_a_server_that_evicts_any_key_is_refused(
    make_server: MakeServer, queue_name: str, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queue and worker say why, and which setting takes the risk; then they work."""
    server = make_server("--maxmemory-policy", policy)
    for refused in (Queue(queue_name, url=server.url).ready, Worker(queue_name, echo, url=server.url).start):
        with pytest.raises(ConfigurationError, match=f"maxmemory-policy {policy}.*EVENTQ_ALLOW_EVICTION=1"):
            await refused()
    with plain(server) as client:
        assert [] == client.keys()
    monkeypatch.setenv("EVENTQ_ALLOW_EVICTION", "1")
    async with Queue(queue_name, url=server.url) as queue:
        await queue.add("j")


async def test_a_replica_is_refused(make_server: MakeServer, queue_name: str, wait_until: WaitUntil) -> None:
    """Writing needs the primary: said at the first call, not by a write that fails."""
    primary, replica = make_server(), make_server()
    with plain(replica) as client:
        client.replicaof("127.0.0.1", primary.port)
        await wait_until(lambda: client.info("replication")["role"] == "slave")
        async with asyncio.timeout(2.0):
            with pytest.raises(ConfigurationError, match="is a replica: eventq writes, so connect to the primary"):
                await Queue(queue_name, url=replica.url).add("j")


# --- connections that break -------------------------------------------------------------------------------------------


async def run_through(
    url: str, queue_name: str, disturb: Callable[[], Coroutine[Any, Any, None]], *, jobs: int = 300
) -> tuple[list[str], list[Event]]:
    """Add jobs one by one from three callers while two workers run them and something disturbs; all must get through.

    Returns the ids that were added and every event that a reader saw.
    """
    ids: list[str] = []
    async with (
        Queue(queue_name, url=url) as queue,
        Recorder(queue) as recorder,
        Worker(queue, echo, concurrency=20),
        Worker(queue, lambda job: job.data),
    ):

        async def add(first: int) -> None:
            for number in range(first, jobs, 3):
                ids.append((await queue.add("j", number)).id)

        disturbing = asyncio.create_task(disturb())
        async with asyncio.timeout(30):
            await asyncio.gather(*(add(first) for first in range(3)))
            await disturbing
            await recorder.wait(CompletedEvent, jobs, timeout=20)
            counts = await queue.get_job_counts()
    assert (jobs, 0, 0) == (counts[JobState.COMPLETED], counts[JobState.FAILED], counts[JobState.ACTIVE])
    return ids, recorder.events


def assert_once(ids: list[str], events: list[Event]) -> None:
    """Every job was added once and completed once; the reader missed nothing."""
    for cls in (AddedEvent, CompletedEvent):
        assert Counter(ids) == Counter(event.job_id for event in events if isinstance(event, cls))
    seqs = [event.seq for event in events]
    assert list(range(seqs[0], seqs[0] + len(seqs))) == seqs


async def test_flushed_scripts_are_loaded_again(make_server: MakeServer, queue_name: str) -> None:
    """SCRIPT FLUSH in the middle of everything: nothing fails, nothing runs twice."""
    server = make_server()
    with plain(server) as client:

        async def flush() -> None:
            for _ in range(30):
                await asyncio.to_thread(client.script_flush)

        assert_once(*await run_through(server.url, queue_name, flush))


async def test_killed_connections_are_replaced(make_server: MakeServer, queue_name: str) -> None:
    """CLIENT KILL of everybody, again and again: adds succeed without duplicates, workers and readers carry on."""
    server = make_server()
    with plain(server) as client:
        killed = 0

        async def kill() -> None:
            nonlocal killed
            for _ in range(20):
                gone: Any = await asyncio.to_thread(client.execute_command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                killed += int(gone)
                await asyncio.sleep(0.02)  # sleep-ok: time to connect and to be killed in the middle of something

        assert_once(*await run_through(server.url, queue_name, kill))
        assert killed >= 20


class LossyProxy:
    """Stands before a server and loses every n-th answer: it was given, the connection breaks, and nobody hears it."""

    def __init__(self, server: TestServer, every: int) -> None:
        self._server = server
        self._every = every
        self._answers = 0
        self.lost = 0

    async def __aenter__(self) -> str:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/0"

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        await self._listening.wait_closed()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self._server.port)
        asking = asyncio.create_task(self._ask(client, to_server))
        try:
            while answer := await server.read(65536):
                self._answers += 1
                if self._answers % self._every == 0:
                    self.lost += 1
                    break
                to_client.write(answer)
                await to_client.drain()
        except ConnectionError:
            self.lost += 1
        finally:
            asking.cancel()
            to_client.close()
            to_server.close()
            await asyncio.wait([asking])

    async def _ask(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        while question := await client.read(65536):
            to_server.write(question)
        to_server.close()


async def test_lost_answers_are_asked_for_again(make_server: MakeServer, queue_name: str) -> None:
    """Every ninth answer is lost after its command ran, of adds, claims, settles, renewals, reads: all happens once."""
    server = make_server()
    proxy = LossyProxy(server, every=9)

    async def nothing_else() -> None:
        await asyncio.sleep(0)

    async with proxy as url:
        assert_once(*await run_through(url, queue_name, nothing_else, jobs=150))
    assert proxy.lost > 20


async def test_a_restarted_server_is_found_again(make_server: MakeServer, queue_name: str) -> None:
    """Stopped and started with its data, twice: everybody finds back, nothing is lost or doubled."""
    server = make_server("--appendonly", "yes", "--appendfsync", "always")

    async def restart() -> None:
        for _ in range(2):
            await asyncio.to_thread(server.restart)

    assert_once(*await run_through(server.url, queue_name, restart))


async def test_a_server_that_stops_answering_is_waited_for(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil
) -> None:
    """A numbered call whose connection went deaf is sent again over new ones; when the server wakes up it has one effect."""
    server = make_server()
    queue = Queue(queue_name, url=server.url)
    faults: list[Exception] = []
    runner = AsyncRunner(Server(server.url), timeout=0.2, patience=None, on_fault=faults.append)
    record = queue.context.record("j", 1, None)
    command = add_jobs(queue.context.keys, [record])
    async with queue:
        await runner.run(command)
        server.freeze()
        call = asyncio.create_task(runner.run(add_jobs(queue.context.keys, [queue.context.record("j", 2, None)])))
        try:
            await wait_until(lambda: faults)
        finally:
            server.thaw()
        await asyncio.wait_for(call, PATIENCE)
        assert 2 == await queue.count()
        await runner.close()


async def test_a_failover_is_waited_for(make_server: MakeServer, queue_name: str) -> None:
    """A primary that became a replica refuses to write; when there is a primary again, what was refused goes through."""
    server = make_server()
    faults: list[Exception] = []
    refused = asyncio.Event()

    def note(error: Exception) -> None:
        faults.append(error)
        refused.set()

    queue = Queue(queue_name, url=server.url)
    runner = AsyncRunner(queue.context.server, patience=PATIENCE, on_fault=note)
    with plain(server) as client:
        await runner.run(add_jobs(queue.context.keys, [queue.context.record("j", 1, None)]))
        client.replicaof("127.0.0.1", 1)
        call = asyncio.create_task(runner.run(add_jobs(queue.context.keys, [queue.context.record("j", 2, None)])))
        await asyncio.wait_for(refused.wait(), PATIENCE)
        client.replicaof("NO", "ONE")
        await asyncio.wait_for(call, PATIENCE)
    assert "READONLY" in repr(faults[0]) or "read only" in str(faults[0]).lower()
    assert 2 == await queue.count()
    await runner.close()
    await queue.close()


async def test_an_idle_worker_survives_an_outage(make_server: MakeServer, queue_name: str, wait_until: WaitUntil) -> None:
    """A worker that waits for work when its server goes is told of it, and takes the first job after its return."""
    server = make_server()
    told: list[str] = []
    async with Queue(queue_name, url=server.url) as queue:
        worker = Worker(queue, echo)

        @worker.on("error")
        async def _(event: Any) -> None:
            told.append(event.message)

        async with worker:
            await (await queue.add("j", 1)).result(PATIENCE)
            server.kill()
            await wait_until(lambda: told, description="the worker tells of the lost connection")
            server.start()
            assert 2 == await (await queue.add("j", 2)).result(RECONNECT)
            assert 3 == await (await queue.add("j", 3)).result(RECONNECT)


async def test_a_server_that_is_away_is_an_error_after_a_while(make_server: MakeServer, queue_name: str) -> None:
    """QueueUnavailable says what was tried, where and for how long; workers have no such limit, adds have ten seconds."""
    server = make_server()
    queue = Queue(queue_name, url=server.url)
    assert (10.0, 10.0) == (queue.context.runner._patience, queue._producer._runner._patience)
    await queue.add("j")
    server.kill()
    queue.context.runner._patience = queue._producer._runner._patience = 0.5
    for call, what in ((lambda: queue.add("j"), "script add_jobs"), (queue.get_job_counts, "script count_jobs")):
        began = time.monotonic()
        with pytest.raises(
            QueueUnavailable,
            match=rf"{what}: no answer from redis://127.0.0.1:{server.port}/0 for 0\.\d seconds: .*Connect call failed",
        ):
            await call()
        assert 0.1 <= time.monotonic() - began < 1.5
    server.start()
    assert (await queue.add("j")).id
    await queue.close()


@pytest.mark.full
async def test_close_ends_while_the_server_is_away(make_server: MakeServer, queue_name: str, wait_until: WaitUntil) -> None:
    """Case 59: a worker with running jobs closes in bounded time although nothing can be recorded or released."""
    server = make_server()
    started = asyncio.Event()

    async def process(_: Job[Any]) -> None:
        started.set()
        await asyncio.Event().wait()

    queue = Queue(queue_name, url=server.url)
    worker = Worker(queue, process, grace=0.1, concurrency=20)
    await worker.start()
    await queue.add("j")
    await started.wait()
    server.kill()
    await asyncio.wait_for(worker.close(), 20)
    await asyncio.wait_for(queue.close(), 5)


# --- one's own reply --------------------------------------------------------------------------------------------------


async def test_a_runner_that_is_closed_while_it_connects(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """Nothing is sent any more, and no connection is left that nobody would close."""
    server = make_server()
    with FaultProxy(server.port) as proxy, plain(server) as client:
        runner = AsyncRunner(Server(proxy.url), client_name="late")
        proxy.inject(Rule(Fault.DELAY_REPLY, times=1, seconds=0.2, when=is_command("INFO")))
        calling = asyncio.create_task(runner.run_verb(Verb(("SET", "key", "value"), str)))
        await wait_until(lambda: proxy.counts[Fault.DELAY_REPLY] == 1, description="the reply that is late")
        await runner.close()
        with pytest.raises(ConfigurationError, match="closed meanwhile"):
            await calling
        assert client.get("key") is None
        await wait_until(lambda: all(each["name"] != "late" for each in client.client_list()), description="no connection")


async def test_a_cancelled_caller_leaves_no_reply_behind(url: str, queue_name: str) -> None:
    """Cancelled in the middle of a blocking read, the next call on that connection gets its own reply, not the late one."""
    queue = Queue(queue_name, url=url)
    runner = AsyncRunner(queue.context.server)
    async with queue:
        for _ in range(3):
            reading = asyncio.create_task(runner.run_verb(wait_for_work(queue.context.keys, 30), block=30))
            for _ in range(10):
                await asyncio.sleep(0)
            await queue.ready()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert "PONG" == await runner.run_verb(PING)
    await runner.close()


async def test_callers_cancelled_at_any_moment_never_mix_up_replies(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Five hundred reads over one connection, a third of them cancelled at random points: each gets its own value."""
    chance = random.Random(20260101)
    runner = AsyncRunner(Server(url))

    async def read(number: int) -> None:
        verb: Verb[str] = Verb(("PING", f"{queue_name} {number}"), str)
        assert f"{queue_name} {number}" == await runner.run_verb(verb)

    tasks: list[asyncio.Task[None]] = []
    for number in range(500):
        tasks.append(asyncio.create_task(read(number)))
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if chance.random() < 0.4:
            chance.choice(tasks[-5:]).cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(None), asyncio.CancelledError} == {type(result) for result in results}
    await runner.close()


async def test_a_cancelled_add_is_whole_or_not_there(url: str, queue_name: str) -> None:
    """A caller that gives up in the middle neither breaks the adds beside it nor leaves half a job."""
    async with Queue(queue_name, url=url) as queue:
        kept: list[str] = []
        for number in range(60):
            adds = [asyncio.create_task(queue.add("j", number * 3 + each)) for each in range(3)]
            for _ in range(number % 12):
                await asyncio.sleep(0)
            adds[number % 3].cancel()
            done = await asyncio.gather(*adds, return_exceptions=True)
            kept += [job.id for job in done if isinstance(job, Job)]
        stored = [job.id for job in await queue.get_jobs("waiting", limit=500)]
    assert 120 <= len(kept) <= len(stored) <= 180
    assert set(kept) <= set(stored) and len(stored) == len(set(stored))


# --- memory -----------------------------------------------------------------------------------------------------------


def fill(client: redis.Redis, spare: int) -> None:
    """Leave the server so many bytes, and let it refuse what goes beyond."""
    used: int = client.info("memory")["used_memory"]
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", used + spare)


async def test_a_full_server_takes_no_jobs_and_workers_empty_it(make_server: MakeServer, queue_name: str) -> None:
    """Adds are refused with code OOM and store nothing; workers, also new ones, drain; then adds work again."""
    server = make_server()
    order: list[int] = []

    async def process(job: Job[dict[str, Any]]) -> None:
        order.append(job.data["number"])

    with plain(server) as client:
        async with Queue(queue_name, url=server.url) as queue:
            await Worker(queue, echo, burst=True).run()
            fill(client, 3_000_000)
            added = 0

            async def add_until_it_is_full() -> None:
                nonlocal added
                while True:
                    await queue.add("j", {"number": added, "fill": "x" * 100_000}, remove_on_complete=True)
                    added += 1

            with pytest.raises(ServerRefused, match="out of memory") as caught:
                await add_until_it_is_full()
            assert ("OOM", added) == (caught.value.code, await queue.count())
            assert added > 10
            fill(client, -10_000)
            with pytest.raises(BulkAddError, match="0 of 3 jobs were added") as bulk:
                await queue.add_bulk([NewJob("j", "x" * 1000)] * 3)
            assert ([], True) == (bulk.value.added, isinstance(bulk.value.__cause__, ServerRefused))
            # A worker of another process has nothing registered and no script loaded yet.
            client.script_flush()
            fill(client, -10_000)
            async with Queue(queue_name, url=server.url) as second:
                await asyncio.wait_for(Worker(second, process, burst=True).run(), PATIENCE)
            assert list(range(added)) == order
            await queue.add("j", {"number": 0, "fill": "x" * 100_000})


async def test_an_idle_worker_waits_out_a_full_server(make_server: MakeServer, queue_name: str) -> None:
    """A marker that it cannot put back for want of memory does not end a worker."""
    server = make_server()
    with plain(server) as client:
        async with Queue(queue_name, url=server.url) as queue, Worker(queue, echo) as worker:
            await (await queue.add("j", 1)).result(PATIENCE)
            # A paused worker that is blocked on the marker pops it, has no use for it, and finds the server full.
            await worker.pause()
            with client.pipeline(transaction=False) as pipeline:
                pipeline.zadd(queue.context.keys["marker"], {"0": 0})
                pipeline.config_set("maxmemory", 1)
                pipeline.execute()
            for _ in range(20):
                await queue.get_job_counts()
            assert 0 == client.zcard(queue.context.keys["marker"])
            client.config_set("maxmemory", 0)
            worker.resume()
            assert 2 == await (await queue.add("j", 2)).result(2.0)
            assert 3 == await (await queue.add("j", 3)).result(2.0)


async def test_who_waits_for_its_turn_is_patient_no_longer_than_others(make_server: MakeServer) -> None:
    """Callers that queue up behind one that nobody answers learn it together with that one."""
    server = make_server()
    async with Queue("patience", url=server.url) as queue:
        await queue.count()
        queue.context.runner._patience, queue.context.runner._timeout = 1.0, 0.3
        loop, ended = asyncio.get_running_loop(), list[float]()

        async def ask() -> None:
            with pytest.raises(QueueUnavailable):
                await queue.count()
            ended.append(loop.time())

        server.freeze()
        try:
            await asyncio.gather(*[ask() for _ in range(5)])
        finally:
            server.thaw()
        assert max(ended) - min(ended) < 1
        assert await queue.count() == 0
