"""Follower: the events of many queues under one name, each once in order, with a state that is saved where they are handled."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from functools import partial
from typing import Any

import pytest
import redis

from eventq import ConfigurationError, EventBatch, Follower, NewJob, Queue, QueueUnavailable, Worker
from eventq.commands.core import Verb
from eventq.commands.events import Position, hold_consumer
from eventq.commands.upkeep import trim_events
from eventq.events import LostEvent

from ..conftest import MakeServer, WaitUntil
from ..servers import ServerKind
from ..topologies import TestCluster

HOLD = 1.0
FAR = 10**15


class Notes:
    """A sink that writes down what it is told; its state is how many events it has taken of each kind."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self.seqs: dict[str, list[int]] = {}
        self.losses: list[LostEvent] = []
        self.told: list[tuple[str, str]] = []
        self.breaks = False

    async def restored(self, queue: str, state: str) -> None:
        self.told.append(("restored", queue))
        self.counts[queue] = json.loads(state) if state else {}

    async def flush(self) -> None:
        """Nothing to do: what is heard is kept with the place."""

    def received(self, batch: EventBatch) -> None:
        if self.breaks:
            raise ValueError("a sink that breaks")
        counts = self.counts[batch.queue]
        counts[batch.kind] = counts.get(batch.kind, 0) + batch.count - batch.skip
        self.seqs.setdefault(batch.queue, []).extend(range(batch.seq + batch.skip, batch.seq + batch.count))
        assert len(json.loads(batch.facts)) == batch.count

    def lost(self, event: LostEvent) -> None:
        self.losses.append(event)

    def state(self, queue: str) -> str:
        return json.dumps(self.counts[queue])

    def saved(self, queue: str) -> None:
        pass

    def left(self, queue: str) -> None:
        self.told.append(("left", queue))

    def of(self, queue: str, kind: str) -> int:
        return self.counts.get(queue, {}).get(kind, 0)


async def fill(queue: Queue[Any, Any], count: int) -> None:
    await queue.add_bulk([NewJob("n", number) for number in range(count)])


async def die(follower: Follower) -> None:
    """End as kill -9 does: nothing is saved, the name stays held."""
    for task in follower._tasks.values():
        task.cancel()
    await asyncio.wait(follower._tasks.values())
    follower._tasks.clear()
    follower._queues.clear()
    await follower.close()


async def test_all_queues_new_ones_too(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """What was there before, what comes later, each event once and in order."""
    notes = Notes()
    async with Queue(queue_name, url=url) as first, Queue(f"{queue_name}-b", url=url, tag=queue_name) as second:
        await fill(first, 250)
        async with Follower("f", notes, url=url, hold=HOLD) as follower:
            await wait_until(lambda: notes.of(first.name, "added") == 250, description="the old queue")
            await fill(second, 30)
            await first.add("n")
            await wait_until(lambda: notes.of(second.name, "added") == 30, description="the new queue")
            await wait_until(lambda: notes.of(first.name, "added") == 251, description="the last job")
            assert follower.is_leading
    assert notes.seqs[first.name] == list(range(1, 252))
    assert notes.losses == []


async def test_a_queue_that_comes_to_life_while_it_is_read(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """It was listed before it had anything: its first events belong to an epoch that is asked for before they are taken."""
    notes = Notes()
    async with Queue(queue_name, url=url) as queue, Follower("f", notes, url=url, hold=HOLD) as follower:
        await queue.ready()
        await wait_until(lambda: queue_name in follower.queues, description="the queue without anything")
        await fill(queue, 3)
        await wait_until(lambda: notes.of(queue_name, "added") == 3, description="its first events")
        assert await follower.save(queue_name)
        await fill(queue, 2)
        await wait_until(lambda: notes.of(queue_name, "added") == 5, description="the next ones")
        assert follower.queues[queue_name].epoch
    assert (notes.losses, notes.seqs[queue_name]) == ([], [1, 2, 3, 4, 5])


async def test_place_and_state_are_saved_together(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Whoever goes on after a clean end and after a sudden one has counted each event once."""
    notes = Notes()
    async with Queue(queue_name, url=url) as queue:
        for life in range(1, 6):
            notes = Notes()
            follower = await Follower("f", notes, url=url, queues=[queue_name], hold=HOLD).open()
            await wait_until(lambda: queue_name in follower.queues, description="the name")  # noqa: B023
            await fill(queue, 100)
            await queue.add("n")
            await wait_until(lambda: notes.of(queue_name, "added") == 101 * life, description="all events")  # noqa: B023
            await (die(follower) if life % 2 else follower.close())
    assert notes.losses == []


async def test_a_second_one_stands_by_for_all_queues(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """It takes nothing while another one lives, new queues neither, and everything when that one is gone."""
    first, second = Notes(), Notes()
    names = [queue_name, f"{queue_name}-z"]
    queues = [Queue(name, url=url, tag=queue_name) for name in names]
    early = Queue(f"0-{queue_name}", url=url, tag=queue_name)  # the first by name
    try:
        for queue in queues:
            await fill(queue, 3)
        active = await Follower("f", first, url=url, hold=60).open()
        await wait_until(lambda: len(active.queues) == 2, description="the first one follows")
        async with Follower("f", second, url=url, hold=60) as standing:
            await fill(early, 3)
            await wait_until(lambda: len(active.queues) == 3, description="the first one follows the new queue")
            assert (standing.is_leading, len(standing.queues), second.told) == (False, 0, [])
            await active.close()
            await wait_until(lambda: len(standing.queues) == 3, description="the second one follows all")
            assert standing.is_leading
            everything = (*queues, early)
            await wait_until(lambda: [second.of(each.name, "added") for each in everything] == [3, 3, 3], description="events")
    finally:
        for queue in (*queues, early):
            await queue.close()


async def test_one_that_was_away_too_long_steps_down(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Its saves are refused, it is told that the queues are no longer its own, and it stands by."""
    first, second = Notes(), Notes()
    async with Queue(queue_name, url=url) as queue:
        await fill(queue, 3)
        async with Follower("f", first, url=url, hold=HOLD) as paused:
            await wait_until(lambda: first.of(queue_name, "added") == 3, description="events")
            paused._tasks["attend"].cancel()  # it renews nothing, as a process that is stopped
            async with Follower("f", second, url=url, hold=HOLD) as other:
                await wait_until(lambda: len(other.queues) == 1, description="the other one takes over")
                assert not await paused.save(queue_name)
                assert (paused.is_leading, dict(paused.queues), first.told[-1]) == (False, {}, ("left", queue_name))
                await fill(queue, 2)
                await wait_until(lambda: second.of(queue_name, "added") == 5, description="the other one goes on")


async def test_what_was_trimmed_is_told_to_the_event(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """While nobody followed, longer than readers are waited for."""
    notes = Notes()
    async with Queue(queue_name, url=url) as queue:
        await fill(queue, 10)
        async with Follower("f", notes, url=url, queues=[queue_name], hold=HOLD):
            await wait_until(lambda: notes.of(queue_name, "added") == 10, description="events")
        for _ in range(30):
            await queue.add("n")
        while await queue.context.runner.run(trim_events(queue.context.keys, (5, FAR, FAR, 0))):
            pass
        async with Follower("f", notes, url=url, queues=[queue_name], hold=HOLD):
            await wait_until(lambda: notes.of(queue_name, "added") == 15, description="what is kept")
    assert [(event.count, event.reason) for event in notes.losses] == [(25, "trimmed")]


async def test_the_end_of_a_queue_and_its_next_life(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """The last event of one epoch, then the first of the next; also where it was not read before it was gone."""
    notes = Notes()
    async with Queue(queue_name, url=url) as queue:
        await fill(queue, 10)
        async with Follower("f", notes, url=url, queues=[queue_name], hold=HOLD):
            await wait_until(lambda: notes.of(queue_name, "added") == 10, description="events")
            await queue.obliterate()
            await fill(queue, 5)
            await wait_until(lambda: notes.of(queue_name, "added") == 15, description="the next life")
            assert notes.of(queue_name, "obliterated") == 1
        await fill(queue, 7)
        await queue.obliterate()
        await fill(queue, 2)
        async with Follower("f", notes, url=url, queues=[queue_name], hold=HOLD):
            await wait_until(lambda: notes.of(queue_name, "added") == 17, description="the third life")
        assert notes.of(queue_name, "obliterated") == 2
        assert [(event.count, event.reason) for event in notes.losses] == [(7, "trimmed")]


async def test_a_queue_that_went_back_is_told(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """A restart from an older save: what was read and is undone, to the event; and then the new events."""
    server, notes = make_server(), Notes()
    async with Queue("q", url=server.url) as queue:
        await fill(queue, 10)
        async with Follower("f", notes, url=server.url, hold=HOLD):
            await wait_until(lambda: notes.of("q", "added") == 10, description="events")
            with redis.Redis(port=server.port) as client:
                client.save()
            for _ in range(4):
                await queue.add("undone")
            await wait_until(lambda: notes.of("q", "added") == 14, description="more events")
            server.kill()
            server.start()
            await queue.add("new")
            await wait_until(lambda: notes.of("q", "added") == 15, timeout=20, description="the new event")
    assert [(event.reason, event.undone, event.count) for event in notes.losses] == [("rollback", 4, 0)]


async def test_a_queue_that_went_back_behind_a_connection_is_told(
    url: str, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """As behind a proxy that hides a failover: nothing is cut and nothing follows, and saving its place tells it all the same."""
    notes = Notes()

    def heard(number: int) -> bool:
        return notes.of(queue_name, "added") == number

    async with Queue(queue_name, url=url) as queue, Follower("f", notes, url=url, queues=[queue_name], hold=HOLD):
        await fill(queue, 3)
        await wait_until(lambda: notes.of(queue_name, "added") == 3, description="events")
        for number in (4, 5):  # one by one, so that its connection is an old one
            await queue.add("n")
            await wait_until(partial(heard, number), description="the event")
        entries: Any = redis_client.xrange(queue.context.keys["events"])
        redis_client.xdel(queue.context.keys["events"], entries[-2][0], entries[-1][0])
        redis_client.hset(queue.context.keys["meta"], "seq", 3)
        await wait_until(lambda: notes.losses, timeout=20, description="the loss")
    assert [(event.reason, event.undone, event.count) for event in notes.losses] == [("rollback", 2, 0)]


async def test_it_carries_on_when_redis_is_back(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """Nothing is lost or counted twice by a server that was away."""
    server, notes = make_server("--appendonly", "yes", "--appendfsync", "always"), Notes()
    async with Queue("q", url=server.url) as queue:
        await fill(queue, 10)
        async with Follower("f", notes, url=server.url, hold=HOLD) as follower:
            await wait_until(lambda: notes.of("q", "added") == 10, description="events")
            server.kill()
            server.start()
            await fill(queue, 10)
            await wait_until(lambda: notes.of("q", "added") == 20, timeout=20, description="the events after")
            assert follower.reconnects >= 1
    assert notes.losses == []


async def test_a_queue_that_is_not_there_is_waited_for(
    url: str, queue_name: str, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture, redis_client: redis.Redis
) -> None:
    """With one warning; nothing is written for it."""
    notes = Notes()
    with caplog.at_level(logging.WARNING, "eventq"):
        async with Follower("f", notes, url=url, queues=[queue_name], hold=HOLD) as follower:
            assert follower.missing == {queue_name}
            assert list(redis_client.scan_iter(f"*{queue_name}*")) == []
            async with Queue(queue_name, url=url) as queue:
                await fill(queue, 2)
            await wait_until(lambda: notes.of(queue_name, "added") == 2, description="the queue that came")
            assert follower.missing == frozenset()
    assert [record.message for record in caplog.records if "waiting for it" in record.message] == [
        f"there is no queue {queue_name!r} on {follower.where} yet: waiting for it"
    ]


async def test_one_unreadable_queue_keeps_nobody_from_the_others(
    url: str, queue_name: str, wait_until: WaitUntil, redis_client: redis.Redis
) -> None:
    """Another layout, and entries that are none of ours."""
    notes = Notes()
    async with Queue(queue_name, url=url) as queue, Queue(f"{queue_name}-b", url=url, tag=queue_name) as other:
        await fill(other, 1)
        redis_client.hset(other.context.keys["meta"], "layout", "9")
        await fill(queue, 1)
        redis_client.xadd(queue.context.keys["events"], {"what": "ever"})
        async with Follower("f", notes, url=url, hold=HOLD):
            await queue.add("n")
            await wait_until(lambda: notes.of(queue_name, "added") == 2, description="the readable one")
        redis_client.hset(other.context.keys["meta"], "layout", "1")
    assert notes.losses == [] and other.name not in notes.counts


async def test_a_sink_that_raises_ends_the_reading_and_it_is_known(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Nothing is skipped in silence: it stops, says so, and what it had not handled is not saved as handled."""
    notes = Notes()
    async with Queue(queue_name, url=url) as queue:
        await fill(queue, 5)
        notes.breaks = True
        async with Follower("f", notes, url=url, queues=[queue_name], hold=HOLD) as follower:
            await wait_until(lambda: isinstance(follower.failure, ValueError), description="the failure")
        assert await queue.context.runner.run_verb(_saved(queue)) == 0


async def test_observing_and_lag(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """A followed queue is seen whole."""
    notes = Notes()
    async with Queue(queue_name, url=url) as queue, Worker(queue, print, concurrency=3):
        await queue.pause()
        await fill(queue, 4)
        async with Follower("f", notes, url=url, queues=[queue_name], hold=HOLD) as follower:
            await wait_until(lambda: notes.of(queue_name, "added") == 4, description="events")
            state = await follower.observe(queue_name)
            assert (state.is_paused, state.counts["paused"], state.totals["added n"]) == (True, 4, 4)  # type: ignore[index]
            assert (state.seq, state.unread_ms) == (follower.queues[queue_name].seq, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"consumer": "no name"}, "consumer 'no name'"),
        ({"queues": []}, "name at least one"),
        ({"queues": ["a b"]}, "queue name 'a b'"),
        ({"prefix": "a:b"}, "prefix 'a:b'"),
        ({"hold": 0.1}, "hold"),
        ({"hold": -1}, "hold"),
    ],
)
async def test_bad_arguments_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    """By name and value, before anything is opened."""
    with pytest.raises((ConfigurationError, ValueError), match=words):
        Follower(options.pop("consumer", "f"), Notes(), **options)


async def test_a_server_that_is_away_at_the_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten seconds; here after less."""
    follower = Follower("f", Notes(), url="redis://127.0.0.1:1/0")
    follower._runner._patience = 0.2
    began = time.monotonic()
    with pytest.raises(QueueUnavailable):
        await follower.open()
    assert time.monotonic() - began < 5
    await follower.close()


def _saved(queue: Queue[Any, Any]) -> Any:
    def seq(text: str | None) -> int:
        return Position.parse(" ".join(text.split(" ")[3:6])).seq if text else 0

    return Verb(("HGET", queue.context.keys["consumers"], "f"), seq)


async def test_a_former_holder_changes_nothing_though_nobody_has_the_name(
    url: str, queue_name: str, wait_until: WaitUntil
) -> None:
    """It was suspended while another one took over and ended: what that one saved stays, at the same place too."""
    first, second = Notes(), Notes()
    async with Queue(queue_name, url=url) as queue:
        await fill(queue, 3)
        async with Follower("f", first, url=url, queues=[queue_name], hold=HOLD) as paused:
            await wait_until(lambda: first.of(queue_name, "added") == 3, description="events")
            paused._tasks["attend"].cancel()
            async with Follower("f", second, url=url, queues=[queue_name], hold=HOLD) as other:
                await wait_until(lambda: second.of(queue_name, "added") == 3, description="the other one takes over")
                second.counts[queue_name]["seen"] = 7
                assert await other.save(queue_name)
            assert not await paused.save(queue_name)
            assert (paused.is_leading, first.told[-1]) == (False, ("left", queue_name))
        async with Follower("f", Notes(), url=url, queues=[queue_name], hold=HOLD) as last:
            await wait_until(lambda: queue_name in last.queues, description="the name")
            assert last._sink.counts[queue_name]["seen"] == 7  # type: ignore[attr-defined]


async def test_the_last_words_of_many_queues_are_heard(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """A queue is given up once its last event was read, however soon it is off the list."""
    notes = Notes()
    queues = [Queue(f"{queue_name}-{number}", url=url, tag=queue_name) for number in range(20)]
    try:
        async with Follower("f", notes, url=url, hold=HOLD) as follower:
            for queue in queues:
                await fill(queue, 3)
            await wait_until(lambda: len(follower.queues) == 20, timeout=10, description="all are followed")
            for queue in queues:
                await fill(queue, 4)
                await queue.obliterate()
            await wait_until(lambda: not follower.queues, timeout=15, description="all are given up")
        assert [notes.of(queue.name, "obliterated") for queue in queues] == [1] * 20
        lost = sum(event.count for event in notes.losses)
        assert sum(notes.of(queue.name, "added") for queue in queues) + lost >= 20 * 7
    finally:
        for queue in queues:
            await queue.close()


async def test_nothing_is_held_after_closing(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Though somebody saves at the same moment: whoever stands by takes over at once."""
    notes = Notes()
    async with Queue(queue_name, url=url) as queue:
        await fill(queue, 3)
        follower = await Follower("f", notes, url=url, queues=[queue_name], hold=60).open()
        await wait_until(lambda: notes.of(queue_name, "added") == 3, description="events")
        saves = [asyncio.create_task(follower.save(queue_name)) for _ in range(20)]
        await follower.close()
        await asyncio.gather(*saves, return_exceptions=True)
        began = time.monotonic()
        async with Follower("f", Notes(), url=url, queues=[queue_name], hold=60) as second:
            assert queue_name in second.queues and time.monotonic() - began < 5


async def test_one_stream_that_is_none_keeps_nobody_from_the_others(
    url: str, queue_name: str, wait_until: WaitUntil, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out for a while, with a warning that names it."""
    notes = Notes()
    async with Queue(queue_name, url=url) as queue, Queue(f"{queue_name}-b", url=url, tag=queue_name) as broken:
        await fill(broken, 1)
        await fill(queue, 1)
        async with Follower("f", notes, url=url, hold=HOLD) as follower:
            await wait_until(lambda: len(follower.queues) == 2, description="both are followed")
            redis_client.delete(broken.context.keys["events"])
            redis_client.set(broken.context.keys["events"], "no stream")
            await fill(queue, 5)
            await wait_until(lambda: notes.of(queue_name, "added") == 6, timeout=15, description="the other one goes on")
            told = f"events of queue {broken.name} cannot be read"
            await wait_until(lambda: told in caplog.text, timeout=15, description="the warning")
            await fill(queue, 5)
            await wait_until(lambda: notes.of(queue_name, "added") == 11, timeout=15, description="it still goes on")
            assert follower.failure is None


async def test_a_node_that_hangs_holds_up_its_own_queues_alone(server_kind: ServerKind, wait_until: WaitUntil) -> None:
    """In a Cluster: the queues of the other nodes are read and saved all the while."""
    with TestCluster(server_kind, node_timeout_ms=60_000) as cluster:
        names = {cluster.node_of(f"{{q{number}}}").port: f"q{number}" for number in range(40)}
        hanging, *others = sorted(names.values())
        notes, queues = Notes(), {name: Queue(name, url=cluster.url) for name in names.values()}
        async with Follower("f", notes, url=cluster.url, hold=HOLD, queues=list(queues)) as follower:
            for queue in queues.values():
                await fill(queue, 3)
            await wait_until(lambda: len(follower.queues) == len(names), timeout=15, description="all are followed")
            await wait_until(lambda: all(notes.of(name, "added") == 3 for name in names.values()), description="their events")
            node = cluster.node_of(f"{{{hanging}}}")
            node.freeze()
            try:
                for name in others:
                    await fill(queues[name], 5)
                await wait_until(
                    lambda: all(notes.of(name, "added") == 8 for name in others), timeout=10, description="the others"
                )
                async with asyncio.timeout(5):
                    assert [await follower.save(name) for name in others] == [True] * len(others)
            finally:
                node.thaw()
            await fill(queues[hanging], 5)
            await wait_until(lambda: notes.of(hanging, "added") == 8, timeout=20, description="the one that hung")
        for queue in queues.values():
            await queue.close()


async def test_what_a_sink_learns_when_it_takes_a_queue_is_saved_at_once(
    url: str, queue_name: str, wait_until: WaitUntil
) -> None:
    """Before anything is read: who goes on after a kill knows it too, and knows it from the same place on."""

    class Learning(Notes):
        async def restored(self, queue: str, state: str) -> None:
            await super().restored(queue, state)
            self.counts[queue] |= {"learnt": 1}

    async with Queue(queue_name, url=url) as queue:
        await fill(queue, 1)
        first = await Follower("f", Learning(), url=url, queues=[queue_name], hold=60).open()  # its own saves are far between
        saved = await queue.context.runner.run(hold_consumer(queue.context.keys, "f", first._holder, 60_000))
        assert 1 == json.loads(saved.state)["learnt"]
        await first.close()
