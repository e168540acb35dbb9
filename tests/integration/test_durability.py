"""Durability: an add that asks for a copy returns once there is one, says so when there is none in time, and never lies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from eventq import (
    BulkAddError,
    ConfigurationError,
    Durability,
    InvalidJob,
    JobQueue,
    JobState,
    LayoutMismatch,
    NewJob,
    Queue,
    QueueUnavailable,
    Unconfirmed,
)
from eventq.keys import QueueKeys

from ..chaos.faults import Ending, Fault, Request, Rule, calls, is_command
from ..chaos.proxy import FaultProxy
from ..topologies import TestCluster, TestSentinel
from .replicated import Replicated, is_stored, need_valkey, server_with_a_disk, set_by_hand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..conftest import MakeServer, WaitUntil
    from ..servers import ServerKind

#: Seconds that a confirmation may take where there will be none.
#: A busy machine takes some of it to confirm what can be confirmed.
SHORT = 1.5


@pytest.fixture
def strict_pair(pair: Replicated) -> Iterator[Replicated]:
    """One whose WAIT waits for nothing but what its own connection wrote; that of Redis 7.0 waits for whatever was written."""
    if pair.kind == "valkey":
        yield pair
        return
    need_valkey()
    with Replicated("valkey") as other:
        yield other
        other.replica.thaw()


# -- replica


async def test_an_add_returns_once_a_replica_has_the_job(pair: Replicated, queue_name: str) -> None:
    """One by one and in bulk, by the queue's level and by the call's; the replica has it when the call returns."""
    async with Queue(queue_name, url=pair.primary.url, durability="replica") as queue:
        job = await queue.add("j", 1)
        assert is_stored(pair.replica, queue_name, job.id)
        jobs = await queue.add_bulk([NewJob("j", number) for number in range(600)])
        assert all(is_stored(pair.replica, queue_name, each.id) for each in (jobs[0], jobs[-1]))
        assert 3 == pair.calls("wait"), "one for each call, not for each job"
        await queue.add("j", 2, durability=Durability.MEMORY)
        assert 3 == pair.calls("wait")
        assert 602 == await queue.count()


async def test_without_a_copy_in_time_it_is_stored_and_unconfirmed(pair: Replicated, queue_name: str) -> None:
    """The error says what is in, which level, how many copies; what asks for nothing is added as ever."""
    async with Queue(queue_name, url=pair.primary.url, confirm_timeout=SHORT) as queue:
        pair.replica.freeze()
        with pytest.raises(Unconfirmed) as caught:
            await queue.add("j", 1, durability="replica")
        error = caught.value
        assert (error.queue, error.durability, error.copies, error.wanted) == (queue_name, "replica", 0, 1)
        (job_id,) = error.job_ids
        for said in (job_id, "is stored", "'replica'", "within 1.5 seconds", "0 of 1 copies", "adding again under the same id"):
            assert said in str(error)
        assert JobState.WAITING == await queue.get_state(job_id)
        await queue.add("j", 2)
        pair.replica.thaw()
        again = await queue.add("j", 1, job_id=job_id, durability="replica")
        assert (job_id, 2) == (again.id, await queue.count())
        assert is_stored(pair.replica, queue_name, job_id)


async def test_who_asks_for_nothing_waits_for_nobody(pair: Replicated, queue_name: str, wait_until: WaitUntil) -> None:
    """While a confirmation is waited for, adds of the same queue without one go on, those that come later too."""
    async with Queue(queue_name, url=pair.primary.url, confirm_timeout=30) as queue:
        await queue.add("j", 0, durability="replica")
        pair.replica.freeze()
        durable = [asyncio.create_task(queue.add("j", number, durability="replica")) for number in range(3)]
        await asyncio.gather(*(queue.add("j", number) for number in range(20)))
        await wait_until(lambda: pair.waiting() == 1, description="a connection that waits")
        await asyncio.gather(queue.add("j", 1), queue.add_bulk([NewJob("j", 2)]))
        assert not any(task.done() for task in durable)
        pair.replica.thaw()
        jobs = await asyncio.gather(*durable)
        assert all(is_stored(pair.replica, queue_name, job.id) for job in jobs)


async def test_adds_made_at_the_same_time_share_a_confirmation(pair: Replicated, queue_name: str) -> None:
    """Fifty at once are two calls, and each caller is told of its own job."""
    async with Queue(queue_name, url=pair.primary.url, durability="replica", confirm_timeout=SHORT) as queue:
        await queue.add("j", 0)
        before = pair.calls("wait")
        jobs = await asyncio.gather(*(queue.add("j", number) for number in range(50)))
        assert all(is_stored(pair.replica, queue_name, job.id) for job in jobs)
        assert 2 == pair.calls("wait") - before
        pair.replica.freeze()
        ids = [f"own-{number}" for number in range(50)]
        errors = await asyncio.gather(*(queue.add("j", job_id=job_id) for job_id in ids), return_exceptions=True)
        assert [[job_id] for job_id in ids] == [error.job_ids for error in errors if isinstance(error, Unconfirmed)]
        assert 4 == pair.calls("wait") - before


async def test_a_job_that_was_there_already_is_confirmed_too(pair: Replicated, queue_name: str) -> None:
    """It may have been written by another connection, and not be copied yet."""
    async with Queue(queue_name, url=pair.primary.url, confirm_timeout=SHORT) as queue:
        await queue.ready()
        pair.replica.freeze()
        await queue.add("j", 1, job_id="own")
        with pytest.raises(Unconfirmed):
            await queue.add("j", 1, job_id="own", durability="replica")
        pair.replica.thaw()
        await queue.add("j", 1, job_id="own", durability="replica")
        assert is_stored(pair.replica, queue_name, "own")


async def test_a_bulk_says_what_is_in_and_what_is_confirmed(pair: Replicated, queue_name: str) -> None:
    """The replica freezes before the second of three calls: that one is stored and not confirmed, the third is not sent."""
    seen: list[Request] = []

    def freezes(request: Request) -> bool:
        if is_add(request):
            seen.append(request)
            if len(seen) == 2:
                pair.replica.freeze()
        return False

    is_add = calls("add_jobs")
    with FaultProxy(pair.primary.port) as proxy:
        async with Queue(queue_name, url=proxy.url, durability="replica", confirm_timeout=SHORT) as queue:
            await queue.add("j", -1)
            proxy.inject(Rule(Fault.LOSE_REPLY, when=freezes))
            with pytest.raises(
                BulkAddError, match=r"^1000 of 1200 jobs were added, 500 of them confirmed, then: 500 jobs "
            ) as caught:
                await queue.add_bulk([NewJob("j", number) for number in range(1200)])
            error = caught.value
            assert isinstance(error.__cause__, Unconfirmed)
            assert [job.data for job in error.added] == list(range(1000))
            assert [job.id for job in error.confirmed] == [job.id for job in error.added[:500]]
            assert [job.id for job in error.added[500:]] == error.__cause__.job_ids
            assert 1001 == await queue.count()


@pytest.mark.parametrize("ending", [Ending.CLOSE, Ending.RESET])
async def test_a_repeated_call_is_not_confirmed_by_a_connection_that_wrote_nothing(
    strict_pair: Replicated, queue_name: str, ending: Ending
) -> None:
    """Its reply is lost, so it is repeated on another connection and answered from what is stored: that is a write, too."""
    with FaultProxy(strict_pair.primary.port) as proxy:
        async with Queue(queue_name, url=proxy.url, durability="replica", confirm_timeout=SHORT) as queue:
            await queue.add("j", 0)
            strict_pair.replica.freeze()
            proxy.inject(Rule(Fault.LOSE_REPLY, times=1, when=calls("add_jobs"), then=ending))
            with pytest.raises(Unconfirmed):
                await queue.add("j", 1)
            assert 1 == proxy.counts[Fault.LOSE_REPLY]
            assert 2 == await queue.count()


async def test_a_lost_confirmation_is_asked_for_again(pair: Replicated, queue_name: str) -> None:
    """The connection breaks while it waits: the add is repeated by its number, and confirmed where it is now."""
    with FaultProxy(pair.primary.port) as proxy:
        async with Queue(queue_name, url=proxy.url, durability="replica", confirm_timeout=SHORT) as queue:
            await queue.add("j", 0)
            proxy.inject(Rule(Fault.LOSE_REPLY, times=1, when=is_command("WAIT")))
            job = await queue.add("j", 1)
            assert is_stored(pair.replica, queue_name, job.id)
            pair.replica.freeze()
            proxy.inject(Rule(Fault.LOSE_REQUEST, times=1, when=is_command("WAIT")))
            with pytest.raises(Unconfirmed):
                await queue.add("j", 2)
            assert (1, 1) == (proxy.counts[Fault.LOSE_REPLY], proxy.counts[Fault.LOSE_REQUEST])
            assert 3 == await queue.count()


async def test_a_cancelled_caller_leaves_no_answer_for_the_next(pair: Replicated, queue_name: str, wait_until: WaitUntil) -> None:
    """The connection that waits is given up with its caller; others are confirmed by their own answer, or not at all."""
    async with Queue(queue_name, url=pair.primary.url, durability="replica", confirm_timeout=30) as queue:
        await queue.add("j", 0)
        pair.replica.freeze()
        task = asyncio.create_task(queue.add("j", 1))
        await wait_until(lambda: pair.waiting() == 1, description="a connection that waits")
        others = [asyncio.create_task(queue.add("j", number)) for number in (2, 3)]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wait_until(lambda: pair.waiting() == 1 and pair.calls("wait") >= 3, description="the next one that waits")
        others[0].cancel()
        await asyncio.wait(others, timeout=SHORT)
        assert not others[1].done()
        pair.replica.thaw()
        assert is_stored(pair.replica, queue_name, (await others[1]).id)
        assert is_stored(pair.replica, queue_name, (await queue.add("j", 4)).id)
        assert 5 == await queue.count()


async def test_a_primary_that_loses_its_role_while_it_is_waited_for(
    pair: Replicated, queue_name: str, wait_until: WaitUntil
) -> None:
    """It hangs up on who waits. The add is repeated, and confirmed by the primary of then: one job."""
    async with Queue(queue_name, url=pair.primary.url, durability="replica", confirm_timeout=30) as queue:
        await queue.add("j", 0)
        pair.replica.freeze()
        task = asyncio.create_task(queue.add("j", 1))
        await wait_until(lambda: pair.waiting() == 1, description="a connection that waits")
        pair.primary.ask("REPLICAOF", "127.0.0.1", pair.replica.port)
        pair.follow()
        assert is_stored(pair.replica, queue_name, (await task).id)
        assert 2 == await queue.count()


async def test_an_old_primary_confirms_nothing(pair: Replicated, queue_name: str) -> None:
    """Its replica was promoted and it goes on by itself: what it takes is lost, and said not to be confirmed."""
    async with Queue(queue_name, url=pair.primary.url, confirm_timeout=SHORT) as queue:
        confirmed = await queue.add("j", 1, durability="replica")
        pair.replica.ask("REPLICAOF", "NO", "ONE")
        lost = await queue.add("j", 2)
        with pytest.raises(Unconfirmed) as caught:
            await queue.add("j", 3, durability="replica")
    async with Queue(queue_name, url=pair.replica.url) as queue:
        assert await queue.get_job(confirmed.id) is not None
        (job_id,) = caught.value.job_ids
        assert [None, None] == [await queue.get_job(each) for each in (lost.id, job_id)]
        await queue.add("j", 3, job_id=job_id)
        assert 2 == await queue.count()


async def test_closing_lets_adds_and_bulks_finish(pair: Replicated, queue_name: str, wait_until: WaitUntil) -> None:
    """Whatever it waits for: a bulk that needs several calls, too."""
    queue: Queue[Any, Any] = Queue(queue_name, url=pair.primary.url, durability="replica", confirm_timeout=30)
    await queue.add("j", 0)
    pair.replica.freeze()
    adding = asyncio.create_task(queue.add_bulk([NewJob("j", number) for number in range(1200)]))
    await wait_until(lambda: pair.waiting() == 1, description="a connection that waits")
    closing = asyncio.create_task(queue.close())
    await asyncio.wait([closing], timeout=SHORT)
    assert not closing.done()
    pair.replica.thaw()
    assert 1200 == len(await adding)
    await closing


async def test_a_close_that_is_cancelled_leaves_no_connection(pair: Replicated, queue_name: str, wait_until: WaitUntil) -> None:
    """Who closes has no patience for a replica: the connection goes, and the caller is told that nobody knows."""
    queue: Queue[Any, Any] = Queue(queue_name, url=pair.primary.url, durability="replica", confirm_timeout=30)
    await queue.add("j", 0)
    pair.replica.freeze()
    adding = [asyncio.create_task(queue.add("j", number)) for number in range(3)]
    await wait_until(lambda: pair.waiting() == 1, description="a connection that waits")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.close(), SHORT)
    told = await asyncio.wait_for(asyncio.gather(*adding, return_exceptions=True), 10)
    assert [QueueUnavailable, ConfigurationError, ConfigurationError] == [type(each) for each in told]
    await wait_until(lambda: pair.waiting() == 0 and pair.clients() == 0, description="no connection")


class Adders:
    """Ten that add one job after the other, and what they were told is confirmed."""

    def __init__(self, queue: Queue[Any, Any]) -> None:
        self._queue = queue
        self._is_stopped = False
        self.confirmed: list[str] = []
        self.unconfirmed: list[str] = []

    async def __aenter__(self) -> Adders:
        self._tasks = [asyncio.create_task(self._add()) for _ in range(10)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_stopped = True
        await asyncio.gather(*self._tasks)

    async def _add(self) -> None:
        while not self._is_stopped:
            try:
                self.confirmed.append((await self._queue.add("j", 0)).id)
            except Unconfirmed as error:
                self.unconfirmed += error.job_ids
            await asyncio.sleep(0.002)  # sleep-ok: not more than the test needs


#: As servers are set up to lose little, and as they lose much: the old primary goes on for a while.
SETUPS = {
    "killed": ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"),
    "replaced": (),
}


@pytest.mark.full
@pytest.mark.timeout(120)
@pytest.mark.parametrize("primary", SETUPS)
async def test_confirmed_adds_survive_their_primary(
    server_kind: ServerKind, queue_name: str, wait_until: WaitUntil, primary: str
) -> None:
    """Sentinels promote a replica while adds go on: whatever was told to be confirmed is there."""
    with TestSentinel(server_kind, *SETUPS[primary], replicas=2 if primary == "killed" else 1) as sentinel:
        async with Queue(queue_name, int, url=sentinel.url, durability="replica", confirm_timeout=1) as queue:
            queue._producer._runner._patience = 60.0
            async with Adders(queue) as adders:
                await wait_until(lambda: len(adders.confirmed) > 300, 30)
                if primary == "killed":
                    await asyncio.to_thread(sentinel.kill_primary)
                    await asyncio.to_thread(sentinel.wait_until_whole)
                else:
                    await asyncio.to_thread(sentinel.failover)
                before = len(adders.confirmed)
                await wait_until(lambda: len(adders.confirmed) > before + 300, 30)
            missing = [
                [each for each in ids if await queue.get_job(each) is None] for ids in (adders.confirmed, adders.unconfirmed)
            ]
    print(
        f"Sentinel ({server_kind}, primary {primary}): {len(adders.confirmed)} adds confirmed, {len(missing[0])} of them lost; "
        f"{len(adders.unconfirmed)} not confirmed, {len(missing[1])} of them lost"
    )
    assert [] == missing[0]


@pytest.mark.full
async def test_in_a_cluster_the_node_of_the_queue_is_asked(server_kind: ServerKind, queue_name: str) -> None:
    """Its own replica confirms; when that one is frozen, the others do not help."""
    with TestCluster(server_kind, replicas=1, node_timeout_ms=15_000) as cluster:
        (replica,) = cluster.replicas_of(cluster.node_of(queue_name))
        async with Queue(queue_name, url=cluster.url, durability="replica", confirm_timeout=SHORT) as queue:
            await queue.add("j", 1)
            replica.freeze()
            with pytest.raises(Unconfirmed):
                await queue.add("j", 2)
            replica.thaw()


async def test_a_job_queue_passes_it_on(pair: Replicated, queue_name: str) -> None:
    """As a setting and by the call."""
    jobs = JobQueue(queue_name, int, lambda job: job.data, url=pair.primary.url, durability="replica", confirm_timeout=SHORT)
    pair.replica.freeze()
    with pytest.raises(Unconfirmed):
        await jobs.add_job("j", 1)
    with pytest.raises(BulkAddError):
        await jobs.add_jobs([NewJob("j", 2)])
    await jobs.add_job("j", 3, durability="memory")
    await jobs.add_jobs([NewJob("j", 4)], durability="memory")
    assert 4 == await jobs.count()
    await jobs.close()


async def test_a_user_who_may_not_wait_is_told_that_the_job_is_stored(pair: Replicated, queue_name: str) -> None:
    """The add itself was permitted, so it is no refused one: whoever added again without an id would have two jobs."""
    rules = ["on", ">secret", "~*", "resetchannels", "+@all", "-wait"]
    await set_by_hand(pair.primary.port, "ACL", "SETUSER", "eventq", *rules)
    url = pair.primary.url.replace("://", "://eventq:secret@")
    async with Queue(queue_name, url=url, durability="replica", confirm_timeout=SHORT) as queue:
        with pytest.raises(Unconfirmed, match="the server answered: .* no permissions to run the 'wait' command"):
            await queue.add("j", 1)
        with pytest.raises(BulkAddError, match=r"^3 of 3 jobs were added, 0 of them confirmed") as caught:
            await queue.add_bulk([NewJob("j", number) for number in range(3)])
        assert (3, []) == (len(caught.value.added), caught.value.confirmed)
        assert 4 == await queue.count()


async def test_what_a_script_refuses_is_told_as_without_a_level(pair: Replicated, queue_name: str) -> None:
    """Nothing was written, so nothing is confirmed, and no count of copies gets into what is told."""
    pair.primary.ask("HSET", QueueKeys(queue_name)["meta"], "layout", "2")
    before = pair.calls("wait")
    async with Queue(queue_name, url=pair.primary.url) as queue:
        for level in Durability.MEMORY, Durability.REPLICA:
            with pytest.raises(LayoutMismatch, match="says layout 2, this"):
                await queue.add("j", 1, durability=level)
    assert before == pair.calls("wait")


# -- fsync


async def test_what_is_on_disk_survives_a_kill_of_the_server(make_server: MakeServer, queue_name: str) -> None:
    """With appendfsync always; where the server has WAITAOF."""
    server = server_with_a_disk(make_server)
    async with Queue(queue_name, url=server.url, durability="fsync") as queue:
        job = await queue.add("j", 1)
        jobs = await queue.add_bulk([NewJob("j", number) for number in range(600)])
    server.kill()
    server.start()
    async with Queue(queue_name, url=server.url) as queue:
        assert 601 == await queue.count()
        assert all([await queue.get_job(each.id) for each in (job, jobs[0], jobs[-1])])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--appendonly", "no"), "has no append-only file: set appendonly yes and appendfsync always there"),
        (("--appendonly", "yes", "--appendfsync", "everysec"), "appendfsync everysec, which confirms before it has written to"),
        (("--appendonly", "yes", "--appendfsync", "no"), "appendfsync no, which never confirms: set appendonly yes"),
    ],
)
async def test_a_server_that_cannot_confirm_a_disk_is_told_at_once(
    make_server: MakeServer, queue_name: str, args: tuple[str, ...], says: str
) -> None:
    """Before anything is stored, with what to do. Redis 7.0 cannot at all."""
    server = make_server(*args)
    says = "is Redis 7.0.15, which cannot confirm .* leave durability at 'memory'" if server.kind == "redis" else says
    async with Queue(queue_name, url=server.url) as queue:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=says):
                await queue.add("j", 1, durability="fsync")
        with pytest.raises(BulkAddError, match=says):
            await queue.add_bulk([NewJob("j", 1)], durability="fsync")
        assert 0 == await queue.count()
        await queue.add("j", 1)


async def test_a_server_that_stops_to_write_to_disk_confirms_nothing(make_server: MakeServer, queue_name: str) -> None:
    """Its refusal is the cause; the job is stored."""
    server = server_with_a_disk(make_server)
    async with Queue(queue_name, url=server.url, durability="fsync") as queue:
        await queue.add("j", 1)
        await set_by_hand(server.port, "CONFIG", "SET", "appendonly", "no")
        with pytest.raises(Unconfirmed, match="'fsync' was not confirmed.*the server answered: WAITAOF cannot be used") as caught:
            await queue.add("j", 2)
        assert caught.value.__cause__ is not None
        assert 2 == await queue.count()


async def test_a_user_who_may_not_ask_is_told_which_permission(make_server: MakeServer, queue_name: str) -> None:
    """The level needs more than the rest: CONFIG GET."""
    server = server_with_a_disk(make_server)
    rules = ["on", ">secret", "~eventq:*", "resetchannels", "+@all", "-@admin", "-@dangerous", "+info"]
    await set_by_hand(server.port, "ACL", "SETUSER", "limited", *rules)
    url = server.free_url.replace("://", "://limited:secret@")
    async with Queue(queue_name, url=url, durability="fsync") as queue:
        with pytest.raises(ConfigurationError, match=r"fsync-producer` prints \(\+info \+config\|get \+waitaof\)"):
            await queue.add("j", 1)
        await set_by_hand(server.port, "ACL", "SETUSER", "limited", "+config|get")
        await queue.add("j", 1)


async def test_every_connection_is_examined_before_it_adds(make_server: MakeServer, queue_name: str) -> None:
    """A server that comes back with other settings is another server: it is told before anything is stored there."""
    server = server_with_a_disk(make_server)
    with FaultProxy(server.port) as proxy:
        async with Queue(queue_name, url=proxy.url, durability="fsync") as queue:
            await queue.add("j", 1)
            await set_by_hand(server.port, "CONFIG", "SET", "appendfsync", "everysec")
            proxy.inject(Rule(Fault.LOSE_REQUEST, times=1, when=calls("add_jobs")))
            with pytest.raises(QueueUnavailable, match="whether it took effect is unknown; now durability 'fsync': .* everysec"):
                await queue.add("j", 2)
            with pytest.raises(ConfigurationError, match="appendfsync everysec"):
                await queue.add("j", 2)
            assert 1 == await queue.count()
            await set_by_hand(server.port, "CONFIG", "SET", "appendfsync", "always")
            await queue.add("j", 2)


# -- refusals


@pytest.mark.parametrize("level", ["disk", "", "Replica", 1, True, object()])
async def test_an_unknown_level_is_refused(url: str, queue_name: str, level: Any) -> None:
    """At once, with the levels there are."""
    with pytest.raises(ConfigurationError, match=r"^durability .*: must be memory, fsync, replica$"):
        Queue(queue_name, url=url, durability=level)
    async with Queue(queue_name, url=url) as queue:
        with pytest.raises(ConfigurationError, match="must be memory, fsync, replica"):
            await queue.add("j", 1, durability=level)
        with pytest.raises(ConfigurationError, match="must be memory, fsync, replica"):
            await queue.add_bulk([], durability=level)
        assert 0 == await queue.count()


@pytest.mark.parametrize("timeout", [0, -1, "5", None, float("nan"), 86_401])
def test_a_timeout_that_is_none_is_refused(url: str, queue_name: str, timeout: Any) -> None:
    """0 would wait for ever, and a month is more than a socket does."""
    with pytest.raises(InvalidJob, match=r"^confirm_timeout .*: must be"):
        Queue(queue_name, url=url, confirm_timeout=timeout)


async def test_a_closed_queue_takes_no_level_anew(pair: Replicated, queue_name: str) -> None:
    """No connection is opened that nobody would close."""
    queue: Queue[Any, Any] = Queue(queue_name, url=pair.primary.url)
    await queue.add("j", 1)
    await queue.close()
    with pytest.raises(ConfigurationError, match="closed"):
        await queue.add("j", 1, durability="replica")
