"""Durability of adds from threads: as tests of Queue, where SyncQueue has code of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import pytest

from eventq import BulkAddError, ConfigurationError, InvalidJob, NewJob, QueueUnavailable, SyncQueue, Unconfirmed

from ..chaos.faults import Fault, Rule, calls, is_command
from ..chaos.proxy import FaultProxy
from .replicated import Replicated, is_stored, server_with_a_disk, set_by_hand

if TYPE_CHECKING:
    from ..conftest import MakeServer, WaitUntil

#: A busy machine takes some of it to confirm what can be confirmed.
SHORT = 1.5


def test_confirmed_and_not_confirmed(pair: Replicated, queue_name: str) -> None:
    """One by one and in bulk: a replica has it on return; without one, what is in and what is not is told."""
    with SyncQueue(queue_name, url=pair.primary.url, durability="replica", confirm_timeout=SHORT) as queue:
        assert is_stored(pair.replica, queue_name, queue.add("j", 1).id)
        jobs = queue.add_bulk([NewJob("j", number) for number in range(600)])
        assert is_stored(pair.replica, queue_name, jobs[-1].id)
        pair.replica.freeze()
        with pytest.raises(Unconfirmed, match="0 of 1 copies on a replica") as caught:
            queue.add("j", 2, job_id="own")
        assert ["own"] == caught.value.job_ids
        with pytest.raises(BulkAddError, match=r"^500 of 600 jobs were added, 0 of them confirmed, then: ") as bulk:
            queue.add_bulk([NewJob("j", number) for number in range(600)])
        assert (list(range(500)), []) == ([job.data for job in bulk.value.added], bulk.value.confirmed)
        queue.add("j", 3, durability="memory")
        assert 1103 == queue.count()
        pair.replica.thaw()
        assert 2 == queue.add("j", 4, job_id="own").data
        assert is_stored(pair.replica, queue_name, "own")


async def test_threads_share_confirmations_and_who_asks_for_none_waits_for_none(
    pair: Replicated, queue_name: str, wait_until: WaitUntil
) -> None:
    """Of threads that add while another one waits, those that want a copy go out together when it is there."""
    with SyncQueue(queue_name, url=pair.primary.url, confirm_timeout=30) as queue, ThreadPoolExecutor(20) as threads:
        queue.add("j", 0, durability="replica")
        before = pair.calls("wait")
        pair.replica.freeze()
        durable = [threads.submit(queue.add, "j", number, durability="replica") for number in range(10)]
        await wait_until(lambda: pair.waiting() == 1, description="a connection that waits")
        for plain in [threads.submit(queue.add, "j", number) for number in range(10)]:
            plain.result(10)
        await wait_until(lambda: len(queue._producers.of("replica")._waiting) == 9, description="the others in line")
        assert not any(each.done() for each in durable)
        pair.replica.thaw()
        assert all(is_stored(pair.replica, queue_name, each.result(10).id) for each in durable)
        assert 2 == pair.calls("wait") - before


async def test_closing_lets_a_bulk_finish(pair: Replicated, queue_name: str, wait_until: WaitUntil) -> None:
    """One that needs several calls, of another thread."""
    queue: SyncQueue[Any, Any] = SyncQueue(queue_name, url=pair.primary.url, durability="replica", confirm_timeout=30)
    queue.add("j", 0)
    with ThreadPoolExecutor(2) as threads:
        pair.replica.freeze()
        adding = threads.submit(queue.add_bulk, [NewJob("j", number) for number in range(1200)])
        await wait_until(lambda: pair.waiting() == 1, description="a connection that waits")
        closing = threads.submit(queue.close)
        assert wait([closing], SHORT).not_done
        pair.replica.thaw()
        assert 1200 == len(adding.result(10))
        closing.result(10)
    await wait_until(lambda: pair.clients() == 0, description="no connection")


def test_each_thread_is_told_of_its_own_job(pair: Replicated, queue_name: str) -> None:
    """Of a call that nobody confirmed."""
    with SyncQueue(queue_name, url=pair.primary.url, durability="replica", confirm_timeout=SHORT) as queue:
        queue.ready()
        pair.replica.freeze()
        with ThreadPoolExecutor(10) as threads:
            ids = [f"own-{number}" for number in range(10)]
            errors = [each.exception(10) for each in [threads.submit(queue.add, "j", job_id=job_id) for job_id in ids]]
        assert [[job_id] for job_id in ids] == [error.job_ids for error in errors if isinstance(error, Unconfirmed)]


@pytest.mark.parametrize("lost", ["add", "confirmation"])
def test_a_repeated_call_is_not_confirmed_by_a_connection_that_wrote_nothing(
    pair: Replicated, queue_name: str, lost: str
) -> None:
    """Whichever reply is lost: the repetition writes, and is confirmed for that, or not."""
    with (
        FaultProxy(pair.primary.port) as proxy,
        SyncQueue(queue_name, url=proxy.url, durability="replica", confirm_timeout=SHORT) as queue,
    ):
        queue.add("j", 0)
        when = calls("add_jobs") if lost == "add" else is_command("WAIT")
        proxy.inject(Rule(Fault.LOSE_REPLY, times=1, when=when))
        assert is_stored(pair.replica, queue_name, queue.add("j", 1).id)
        pair.replica.freeze()
        proxy.inject(Rule(Fault.LOSE_REPLY, times=1, when=when))
        with pytest.raises(Unconfirmed):
            queue.add("j", 2)
        assert 2 == proxy.counts[Fault.LOSE_REPLY]
        assert 3 == queue.count()


def test_fsync(make_server: MakeServer, queue_name: str) -> None:
    """What is on disk survives; a server that cannot confirm it is told before anything is stored."""
    server = server_with_a_disk(make_server)
    with SyncQueue(queue_name, url=server.url, durability="fsync") as queue:
        job = queue.add("j", 1)
        server.kill()
        server.start()
        assert queue.get_job(job.id) is not None
    with SyncQueue(queue_name, url=make_server().url, durability="fsync") as queue:
        with pytest.raises(ConfigurationError, match=r"^durability 'fsync': .* (has no append-only file|is Redis 7.0.15)"):
            queue.add("j", 1)
        assert 0 == queue.count()


async def test_every_connection_is_examined_before_it_adds(make_server: MakeServer, queue_name: str) -> None:
    """A server that comes back with other settings is told before anything is stored there."""
    server = server_with_a_disk(make_server)
    with FaultProxy(server.port) as proxy, SyncQueue(queue_name, url=proxy.url, durability="fsync") as queue:
        queue.add("j", 1)
        await set_by_hand(server.port, "CONFIG", "SET", "appendfsync", "everysec")
        proxy.inject(Rule(Fault.LOSE_REQUEST, times=1, when=calls("add_jobs")))
        with pytest.raises(QueueUnavailable, match="whether it took effect is unknown; now durability 'fsync': .* everysec"):
            queue.add("j", 2)
        with pytest.raises(ConfigurationError, match="appendfsync everysec"):
            queue.add("j", 2)
        assert 1 == queue.count()


async def test_a_user_who_may_not_wait_is_told_that_the_job_is_stored(pair: Replicated, queue_name: str) -> None:
    """And whoever may not ask what a server confirms, that none is."""
    await set_by_hand(pair.primary.port, "ACL", "SETUSER", "eventq", "on", ">secret", "~*", "+@all", "-wait", "-config|get")
    url = pair.primary.url.replace("://", "://eventq:secret@")
    with SyncQueue(queue_name, url=url, durability="replica", confirm_timeout=SHORT) as queue:
        with pytest.raises(Unconfirmed, match="the server answered: .* no permissions to run the 'wait' command"):
            queue.add("j", 1)
        with pytest.raises(ConfigurationError, match="^durability 'fsync': "):
            queue.add("j", 2, durability="fsync")
        assert 1 == queue.count()


def test_bad_settings_and_closed_queues(pair: Replicated, queue_name: str) -> None:
    """Refused at once."""
    level: Any = "disk"
    with pytest.raises(ConfigurationError, match="must be memory, fsync, replica"):
        SyncQueue(queue_name, durability=level)
    with pytest.raises(InvalidJob, match="^confirm_timeout 0: must be at least"):
        SyncQueue(queue_name, confirm_timeout=0)
    with pytest.raises(InvalidJob, match="^confirm_timeout 86401: must be at least 0.001 and at most 86400 seconds"):
        SyncQueue(queue_name, confirm_timeout=86_401)
    with SyncQueue(queue_name, url=pair.primary.url, confirm_timeout=86_400) as queue:
        queue.add("j", 1, durability="replica")
    with SyncQueue(queue_name, url=pair.primary.url) as queue, pytest.raises(ConfigurationError, match="must be memory, fsync"):
        queue.add("j", 1, durability=level)
    with pytest.raises(ConfigurationError, match="closed"):
        queue.add("j", 1, durability="replica")
