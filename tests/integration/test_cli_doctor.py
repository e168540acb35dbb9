"""`eventq doctor`: every finding provoked once on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import NewJob, Queue, QueueScheduler, Worker
from eventq.cli.doctor_queue import examine_queue
from eventq.cli.doctor_server import examine_server
from eventq.cli.patches import lacking
from eventq.client import AsyncRunner, Server
from eventq.keys import QueueKeys

from .command_line import CommandLine, dump

if TYPE_CHECKING:
    from pathlib import Path

    from eventq.cli.findings import Finding

    from ..conftest import MakeServer, WaitUntil
    from ..servers import TestServer

pytest.importorskip("typer", reason="the extra cli is not installed")

DAY_MS = 86_400_000


async def work(job: Any) -> None:
    if job.name == "fails":
        raise ValueError("no")


@pytest.fixture
async def queue(url: str, queue_name: str) -> AsyncIterator[Queue[Any, Any]]:
    """A queue that a scheduler looks after, with two jobs completed, one failed, two in line, one with a priority, one delayed."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add_bulk([NewJob("fine"), NewJob("fine"), NewJob("fails")])
        await Worker(queue, work, burst=True).run()
        await queue.add_bulk([NewJob("fine"), NewJob("fine")])
        await queue.add("fine", priority=2)
        await queue.add("fine", delay=1000)
        async with QueueScheduler(queue):
            yield queue


class Patient:
    """A queue, its columns as a plain client sees them, and what the doctor finds."""

    def __init__(self, queue: Queue[Any, Any], url: str, client: redis.Redis) -> None:
        self.keys = QueueKeys(queue.name)
        self.redis = client
        self._url = url

    async def found(self, check: str) -> list[Finding]:
        """Return the findings of one check; all others must be as they are in a healthy queue."""
        runner = AsyncRunner(Server(self._url, self.keys["meta"]))
        try:
            findings = await examine_queue(runner, self.keys)
        finally:
            await runner.close()
        return [each for each in findings if each.check == check]

    async def says(self, check: str, level: str, *texts: str) -> None:
        """Check that there is this finding, and that one that is not ok says what to do."""
        found = await self.found(check)
        assert any(each.level == level and all(text in each.message for text in texts) for each in found), found

    def ids(self, column: str) -> list[str]:
        members: Any = self.redis.zrange(self.keys[column], 0, -1)
        return [each.decode() for each in members]

    def line(self) -> list[str]:
        entries: Any = self.redis.lrange(self.keys["wait"], 0, -1)
        return [each.decode() for each in entries]


@pytest.fixture
def patient(queue: Queue[Any, Any], url: str, redis_client: redis.Redis) -> Patient:
    """The queue on the table."""
    return Patient(queue, url, redis_client)


def now_ms() -> int:
    return round(time.time() * 1000)


async def test_a_healthy_queue_has_no_problems(url: str, queue: Queue[Any, Any], redis_client: redis.Redis) -> None:
    """Exit code 0; a line per check for people, the same as one document for programs; nothing is changed."""
    cli = CommandLine(url)
    before = dump(redis_client, queue.name)
    ended = await cli("doctor", queue.name)
    assert (0, "") == (ended.code, ended.err)
    assert ended.out.splitlines()[-1].endswith("problem 0")
    document = (await cli("doctor", queue.name, "--json")).document
    assert {"server", "findings"} == document.keys()
    findings = document["findings"]
    assert {"where", "check", "level", "message", "advice"} == findings[0].keys()
    assert ["ok"] * 5 == [each["level"] for each in findings if each["where"] == queue.name]
    nodes = {each["where"] for each in findings} - {queue.name}
    assert all(re.fullmatch(r"node \d+" if url.startswith("cluster:") else "server", node) for node in nodes)
    for node in nodes:
        checks = [each["check"] for each in findings if each["where"] == node]
        assert ["version", "patches", "persistence", "eviction", "memory", "replicas", "latency", "slow log"] == checks
    written = (await cli.process("doctor", queue.name)).out
    assert f"{queue.name}  records " in written
    changed = {key for key, value in dump(redis_client, queue.name).items() if before.get(key) != value}
    columns = {key.rpartition(b":")[2] for key in changed}
    assert columns <= {b"meta", b"calls", b"timers", b"marker"}, "what the scheduler writes with every sweep"


async def test_a_problem_ends_with_1(url: str, queue: Queue[Any, Any], redis_client: redis.Redis) -> None:
    """Exit code 1; a queue that is not there as well, and one whose listed name cannot be."""
    cli = CommandLine(url)
    done = (await queue.get_jobs("completed"))[0].id
    redis_client.hset(QueueKeys(queue.name)["jobs"], done, "\x1b[31m[red]")
    ended = await cli("doctor", queue.name)
    assert 1 == ended.code
    assert f"1 record not readable: {done}" in ended.out and f"-> `eventq remove {queue.name} ID`" in ended.out
    assert 0 == (await cli("remove", queue.name, done, "--yes")).code
    assert 0 == (await cli("doctor", queue.name)).code
    assert 1 == (await cli("doctor", "no-such-queue")).code
    assert 2 == (await cli("doctor", "a queue!")).code


async def test_unreadable_and_stuck_records(patient: Patient, queue: Queue[Any, Any]) -> None:
    """A text that is none of ours; a job that its column does not hold; and then the numbers do not agree."""
    patient.redis.hset(patient.keys["jobs"], "bad", "nonsense")
    await patient.says("records", "problem", "1 record not readable: bad")
    await patient.says("counts", "problem", "8 jobs stored, 7 standing in a state")
    patient.redis.hdel(patient.keys["jobs"], "bad")
    assert not await patient.found("counts")
    [delayed], [waiting, _] = patient.ids("delayed"), patient.line()
    patient.redis.zrem(patient.keys["delayed"], delayed)
    patient.redis.lrem(patient.keys["wait"], 0, waiting)
    await patient.says("stuck", "problem", f"1 job said to be delayed, but not standing there: {delayed}")
    await patient.says("stuck", "problem", f"1 job said to be waiting, but not standing there: {waiting}")
    patient.redis.rpush(patient.keys["wait"], waiting)
    assert [delayed] == await queue.remove_jobs([delayed])
    assert not await patient.found("stuck") and not await patient.found("counts")


async def test_lost_run_can_be_brought_back(patient: Patient, queue: Queue[Any, Any], wait_until: WaitUntil) -> None:
    """A running job without a lease is told; with one that has ended, as the doctor advises, it is in line again."""
    started = asyncio.Event()

    async def hold(job: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    async with Worker(queue, hold, grace=0):
        await started.wait()
        job_id = (await queue.get_jobs("active"))[0].id
        patient.redis.zrem(patient.keys["leases"], job_id)
        await patient.says("stuck", "problem", f"1 job said to be active, but not standing there: {job_id}")
        await queue.pause()
        patient.redis.zadd(patient.keys["leases"], {job_id: 0})

        async def is_in_line() -> bool:
            return await queue.get_state(job_id) == "paused"

        await wait_until(is_in_line, description="the sweep")
        assert not await patient.found("stuck")


async def test_orphans(patient: Patient) -> None:
    """What stands in a state and is not stored; what is stored beside a job that is not."""
    patient.redis.zadd(patient.keys["failed"], {"ghost": 1})
    patient.redis.zadd(patient.keys["leases"], {"ghost": now_ms() + DAY_MS})
    await patient.says("orphans", "problem", "1 job standing as failed, but not stored: ghost")
    await patient.says("orphans", "problem", "1 job standing as active, but not stored: ghost")
    for column in ("data", "runs", "results", "progress", "logs"):
        patient.redis.hset(patient.keys[column], "nobody", "{}")
        await patient.says("orphans", "warning", f"`{column}` holds something of 1 job not stored: nobody")


async def test_another_layout(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Told, and nothing else is looked at."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add("a")
        patient = Patient(queue, url, redis_client)
        redis_client.hset(patient.keys["meta"], "layout", "2")
        await patient.says("layout", "problem", "layout 2")
        assert not await patient.found("upkeep")


async def test_nobody_looks_after_it(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """No sweep for long, or ever, is a problem where there is work; overdue leases and due jobs even more."""
    async with Queue(queue_name, url=url) as queue:
        patient = Patient(queue, url, redis_client)
        await queue.add("later", delay=1000)
        await patient.says("upkeep", "problem", "no worker or scheduler was ever seen, and 1 job is to be done")
        redis_client.hset(patient.keys["meta"], "swept_at", now_ms() - 600_000)
        await patient.says("upkeep", "problem", "no worker or scheduler seen for 10 min")
        [job_id] = patient.ids("delayed")
        redis_client.zadd(patient.keys["delayed"], {job_id: now_ms() - 300_000})
        await patient.says("delayed", "problem", "1 delayed job due up to 5 min ago")
        redis_client.zadd(patient.keys["leases"], {"lost": now_ms() - 240_000})
        await patient.says("leases", "problem", "1 running job whose lease ended up to 4 min ago")
        redis_client.delete(patient.keys["leases"], patient.keys["delayed"])
        await patient.says("upkeep", "ok", "and nothing to do")


async def test_late_schedule(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """One that nobody fired in time; one that cannot be read."""
    async with Queue(queue_name, url=url) as queue:
        patient = Patient(queue, url, redis_client)
        await queue.upsert_schedule("hourly", every=3600)
        assert not await patient.found("schedules")
        record: Any = redis_client.hget(patient.keys["schedules"], "hourly")
        revision, _, rest = record.decode().split("\t", 2)
        redis_client.hset(patient.keys["schedules"], "hourly", f"{revision}\t{now_ms() - 180_000}\t{rest}")
        await patient.says("schedules", "problem", "schedule hourly should have run 3 min ago")
        redis_client.hset(patient.keys["schedules"], "hourly", "nonsense")
        await patient.says("schedules", "problem", "'hourly': the stored record is unreadable")


async def test_the_line(patient: Patient, queue: Queue[Any, Any]) -> None:
    """Long waits and paused queues with jobs in line are worth a warning."""
    await patient.says("line", "ok", "3 jobs in line")
    job_id = patient.line()[0]
    record: Any = patient.redis.hget(patient.keys["jobs"], job_id)
    layout, _, rest = record.decode().split("\t", 2)
    patient.redis.hset(patient.keys["jobs"], job_id, f"{layout}\t{now_ms() - 3_600_000}\t{rest}")
    await patient.says("line", "warning", "the first of them for 60 min")
    await queue.pause()
    await patient.says("line", "warning", "and the queue is paused")


async def test_holes(patient: Patient) -> None:
    """More holes than entries cannot be; very many slow listings down."""
    patient.redis.hset(patient.keys["meta"], "holes", 99)
    await patient.says("holes", "problem", "meta says 99 holes where `wait` has 2 entries")
    patient.redis.rpush(patient.keys["wait"], *[f"gone-{n}" for n in range(10_001)])
    patient.redis.hset(patient.keys["meta"], "holes", 10_001)
    await patient.says("holes", "warning", "10,001 of 10,003 entries of the line belong to removed jobs")


async def test_durable_readers(patient: Patient, queue: Queue[Any, Any]) -> None:
    """Their lag; one that is idle for long; one whose events are gone; one that is damaged."""
    async with queue.events("live") as events:
        await anext(events)
        await patient.says("reader", "ok", "live: ", "events behind, held now")
        seq = int(patient.redis.hget(patient.keys["meta"], "seq") or 0)
        patient.redis.hset(patient.keys["consumers"], "idle", f"holder 0 {now_ms() - 2 * DAY_MS} epoch 0-1 {seq - 3} ")
        await patient.says("reader", "warning", "idle: 3 events behind, seen 2 d ago; it no longer holds back trimming")
        patient.redis.xtrim(patient.keys["events"], maxlen=2, approximate=False)
        patient.redis.hset(patient.keys["consumers"], "late", f"holder 0 {now_ms()} epoch 0-1 1 ")
        await patient.says("reader", "warning", f"late: {seq - 1} events behind", "of them are trimmed")
        patient.redis.hset(patient.keys["consumers"], "broken", "what")
        await patient.says("reader", "problem", "broken: its position is unreadable")


async def test_the_stream(patient: Patient) -> None:
    """Larger than its retention; not as `meta` says."""
    await patient.says("events", "ok", "kept are 1,000,000 and 64 MiB")
    patient.redis.hset(patient.keys["meta"], "seq", 2_000_000)
    await patient.says("events", "warning", "2,000,000 events")
    patient.redis.hset(patient.keys["meta"], "event_bytes", 100 * 2**20)
    await patient.says("events", "warning", "100.0 MiB; kept are")
    patient.redis.hset(patient.keys["meta"], "seq", 0)
    await patient.says("events", "problem", "the stream is not as meta says")
    patient.redis.delete(patient.keys["events"])
    await patient.says("events", "ok", "the stream is empty")


# -- the server


class Machine:
    """A server of the test's own, and what the doctor finds about it."""

    def __init__(self, server: TestServer) -> None:
        self.server = server
        self.redis = redis.Redis(host="127.0.0.1", port=server.port)

    async def says(self, check: str, level: str, *texts: str, url: str = "") -> None:
        """Check that there is this finding."""
        runner = AsyncRunner(Server(url or self.server.url))
        try:
            findings = await examine_server(runner, set())
        finally:
            await runner.close()
        found = [each for each in findings if each.check == check]
        assert any(each.level == level and all(text in each.message for text in texts) for each in found), found


@pytest.fixture
def machine(make_server: MakeServer, tmp_path: Path) -> Iterator[Machine]:
    """A server that saves into a folder of the test's."""
    folder = tmp_path / "data"
    folder.mkdir()
    made = Machine(make_server("--dir", str(folder)))
    with made.redis:
        yield made


async def test_persistence_memory_and_permissions(machine: Machine, tmp_path: Path, wait_until: WaitUntil) -> None:
    """Nothing kept, snapshots, append-only file, a snapshot that failed; memory nearly used up; what may not be asked."""
    await machine.says("version", "ok", f"{machine.server.kind} ", "standalone")
    version = machine.redis.info("server")[f"{machine.server.kind}_version"]
    lacks = lacking(machine.server.kind, version)
    await machine.says("patches", "warning" if lacks else "ok", f"{machine.server.kind} {version}", *lacks[:3])
    await machine.says("persistence", "warning", "nothing is kept")
    machine.redis.config_set("save", "3600 1")
    await machine.says("persistence", "warning", "snapshots only: a crash now loses ")
    machine.redis.config_set("appendonly", "yes")
    await machine.says("persistence", "ok", "append-only file, appendfsync everysec: a crash loses a second at most")
    machine.redis.config_set("appendonly", "no")

    await machine.says("memory", "ok", "maxmemory is not set")
    used: Any = machine.redis.info("memory")
    machine.redis.config_set("maxmemory", int(used["used_memory"] * 1.25))
    await machine.says("memory", "warning", "(maxmemory)")
    machine.redis.config_set("maxmemory", int(used["used_memory"] * 1.02))
    await machine.says("memory", "problem", "(maxmemory)")
    machine.redis.config_set("maxmemory", 0)

    send: Any = machine.redis.execute_command
    send("ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-config", "-slowlog")
    limited = f"redis://limited:secret@127.0.0.1:{machine.server.port}"
    await machine.says("persistence", "unknown", "not permitted", url=limited)
    await machine.says("slow log", "unknown", "not permitted", url=limited)

    await wait_until(lambda: not _info(machine)["rdb_bgsave_in_progress"], description="the end of saving")
    shutil.rmtree(tmp_path / "data")
    with contextlib.suppress(redis.RedisError):  # some say so at once
        machine.redis.bgsave()
    await wait_until(lambda: _info(machine)["rdb_last_bgsave_status"] == "err", description="the failed snapshot")
    await machine.says("persistence", "problem", "the last snapshot failed")
    await machine.says("latency", "problem", "Redis cannot save to disk and refuses writes")


def _info(machine: Machine) -> Any:
    return machine.redis.info("persistence")


async def test_eviction_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and what to do, whether the library would refuse the server or was told not to."""
    machine.redis.config_set("maxmemory-policy", "allkeys-lru")
    cli = CommandLine(machine.server.url)
    ended = await cli("doctor", "--json")
    assert 1 == ended.code
    [finding] = ended.document["findings"]
    assert "problem" == finding["level"] and "allkeys-lru" in finding["message"]
    monkeypatch.setenv("EVENTQ_ALLOW_EVICTION", "1")
    await machine.says("eviction", "problem", "allkeys-lru: one evicted key is a whole column of a queue")


async def test_replicas(machine: Machine, make_server: MakeServer, wait_until: WaitUntil) -> None:
    """A replica that nobody waits for is a warning; min-replicas-to-write makes it good."""
    await machine.says("replicas", "ok", "none")
    make_server("--replicaof", f"127.0.0.1 {machine.server.port}")

    def is_there() -> bool:
        info: Any = machine.redis.info("replication")
        return bool(info["connected_slaves"])

    await wait_until(is_there, timeout=20, description="the replica")
    await machine.says("replicas", "warning", "min-replicas-to-write 0")
    machine.redis.config_set("min-replicas-to-write", 1)
    await machine.says("replicas", "ok", "min-replicas-to-write 1")


@contextlib.contextmanager
def disturbed(machine: Machine) -> Generator[None]:
    """Keep the server busy for some 50 ms, over and over, by a client of its own."""
    stopping = threading.Event()
    busy = "local sum = 0 for i = 1, 8000000 do sum = sum + i end return sum"

    def disturb() -> None:
        with redis.Redis(host="127.0.0.1", port=machine.server.port) as client:
            while not stopping.wait(0.005):
                client.eval(busy, 0)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


async def test_latency_and_slow_calls(machine: Machine) -> None:
    """A server that is busy now and then; a call of ours that took long is named, others' are not."""
    await machine.says("latency", "ok", "(p50)")
    with disturbed(machine):
        # One look may be over before the server is disturbed: then it looks again.
        for look in range(10):
            try:
                await machine.says("latency", "warning", "(p99)")
                break
            except AssertionError:
                assert look < 9, "ten looks saw nothing"
    await machine.says("slow log", "ok", "none of our calls")
    async with Queue("slow", url=machine.server.url) as queue:
        await queue.add("a")
        keys = QueueKeys("slow")
        for start in range(0, 200_000, 5000):
            machine.redis.zadd(keys["completed"], {f"gone-{n}": n for n in range(start, start + 5000)})
        machine.redis.zadd(keys["completed"], {"kept-apart": 2**50 + 1})  # with a rule of its own: pages are merged
        await queue.get_jobs("completed", start=150_000)
    await machine.says("slow log", "warning", "of our calls took over 20 ms", "list_jobs")


async def test_a_listed_name_that_cannot_be(machine: Machine) -> None:
    """It is told as a problem of the server; an empty list of queues is none."""
    cli = CommandLine(machine.server.url)
    assert 0 == (await cli("doctor")).code
    machine.redis.hset("eventq:queues", "no queue!\x1b[31m", "x")
    ended = await cli("doctor")
    assert 1 == ended.code
    assert r"\x1b[31m" in ended.out and "\x1b" not in ended.out
    listed = await cli("queues")
    assert 0 == listed.code and "is left out" in listed.err and "\x1b" not in listed.err
