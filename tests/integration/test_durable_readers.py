"""Durable readers of the event stream: every event at least once, or the exact number that is lost; one process per name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import ConfigurationError, EventStream, Job, JobOptions, NewJob, Queue, ServerRefused, Worker
from eventq.commands.events import Position, stream_state
from eventq.commands.upkeep import trim_events
from eventq.events import Event, LostEvent
from eventq.queue_events import HOLD

from ..conftest import MOVE_TIME, PRODUCTION_CLOCK, READ_TIME, Clock, MakeServer, WaitUntil

if TYPE_CHECKING:
    from collections.abc import Callable

#: Past the hold of a reader that died without a word.
PAST_HOLD = HOLD + 1
#: Longer than all the time that a test moves the clock: no worker of these tests stalls.
LONG_LEASE = 36_000
NEVER = 10**15
#: How often the random test starts a reader, at most.
LIVES = 40

PROGRAM = """
import asyncio, os, sys
from eventq import Queue, scripts

async def read(url, queue_name, consumer):
    async with Queue(queue_name, url=url) as queue, queue.events(consumer) as events:
        async for event in events:
            os.write(1, f"{event.kind} {event.seq}\\n".encode())

scripts.replace_include("clock", sys.argv[4])
asyncio.run(read(*sys.argv[1:4]))
"""


async def add_one_by_one(queue: Queue[Any, Any], count: int) -> None:
    """Add so many jobs: as many events, each in an entry of its own."""
    for number in range(count):
        await queue.add("n", number)


async def add_together(queue: Queue[Any, Any], count: int) -> None:
    """Add so many jobs: as many events, 100 in an entry."""
    await queue.add_bulk([NewJob("n", number) for number in range(count)])


async def take(stream: EventStream, count: int) -> list[Event]:
    """Return the next events, within a few seconds."""
    async with asyncio.timeout(10):
        return [await anext(stream) for _ in range(count)]


async def take_upto(stream: EventStream, seq: int) -> list[Event]:
    """Return all events up to and with that number; the last one is not handled yet."""
    events: list[Event] = []
    async with asyncio.timeout(30):
        while not events or events[-1].seq < seq or isinstance(events[-1], LostEvent):
            events.append(await anext(stream))
    return events


async def acknowledge(stream: EventStream) -> None:
    """Say that the last event is handled, by asking for the next and not waiting for it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(stream)


async def crash(stream: EventStream) -> None:
    """End a reader as kill -9 does: nothing is saved, its name stays held."""
    if stream._keeper:
        stream._keeper.cancel()
        await asyncio.wait([stream._keeper])
    stream._has_name = False
    await stream.close()


async def trim(queue: Queue[Any, Any], *, events: int = NEVER, size: int = NEVER, age_ms: int = NEVER, hard: int = NEVER) -> None:
    """Trim the stream as the scheduler does, with limits of the test's own."""
    while await queue.context.runner.run(trim_events(queue.context.keys, (events, size, age_ms, hard))):
        pass


async def last_seq(queue: Queue[Any, Any]) -> int:
    """Return the number of the queue's last event."""
    _, seq = await queue.context.runner.run_verb(stream_state(queue.context.keys))
    return seq


def oldest_seq(client: redis.Redis, queue: Queue[Any, Any]) -> int:
    """Return the number of the oldest event that is kept; of the next one, when none is."""
    last: Any = client.hget(queue.context.keys["meta"], "seq")
    entries: Any = client.xrange(queue.context.keys["events"], count=1)
    return int(entries[0][1][b"seq"] if entries else last) + (not entries)


def completed(client: redis.Redis, queue: Queue[Any, Any]) -> int:
    """Return how many jobs were completed so far, by the queue's own totals."""
    return int(client.hget(queue.context.keys["totals"], "completed n") or 0)


def saved(client: redis.Redis, queue: Queue[Any, Any], consumer: str) -> Position:
    """Return the position in the `consumers` column."""
    text: Any = client.hget(queue.context.keys["consumers"], consumer)
    return Position.parse(" ".join(text.decode().split(" ")[3:6])) if text else Position()


def delete_queue(client: redis.Redis, queue: Queue[Any, Any], *, but: tuple[str, ...] = ()) -> None:
    """Delete every key of the queue, as FLUSHALL would, except some columns."""
    keys: list[bytes] = list(client.scan_iter(match=f"*{{{queue.name}}}*", count=1000))
    client.delete(*[key for key in keys if key.decode().rpartition(":")[2] not in but])


def seed() -> int:
    """Return SEED of the environment, or one by chance; it is logged, and pytest shows it when the test fails."""
    number = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**9))
    logging.getLogger("tests").warning("SEED=%d", number)
    return number


class Ledger:
    """What a durable reader saw over all its lives, checked against what it must have seen."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.told: set[int] = set()
        self.last = 0
        self.lives = 0

    def begin(self, position: Position, oldest: int) -> None:
        """Begin a life: it must go on after the saved position, and tell the gap that trimming made before the oldest event."""
        self.lives += 1
        self.expected = position.seq + 1
        self.gap = max(0, oldest - self.expected)
        self.lost = 0

    def note(self, event: Event) -> None:
        """Take an event: in order, without a hole, the gap first and exact."""
        if isinstance(event, LostEvent):
            assert (event.reason, event.count, event.seq) == ("trimmed", self.gap, self.expected - 1)
            self.told |= set(range(self.expected, self.expected + event.count))
            self.expected += event.count
            self.lost += event.count
            self.gap = 0
        else:
            assert self.gap == 0, f"event {event.seq} came before the loss of {self.gap}"
            assert event.seq == self.expected
            self.seen.add(event.seq)
            self.expected += 1

    def check(self, upto: int) -> None:
        """All is seen, or told lost."""
        missing = set(range(1, upto + 1)) - self.seen - self.told
        assert not missing, f"{len(missing)} events neither seen nor told lost: {sorted(missing)[:10]}"


@pytest.mark.parametrize(
    ("jobs", "trims"),
    [
        (3_000, False),
        (3_000, True),
        pytest.param(20_000, False, marks=pytest.mark.full),
        pytest.param(20_000, True, marks=pytest.mark.full),
    ],
)
async def test_a_reader_killed_at_random_misses_nothing_uncounted(
    *, url: str, queue_name: str, redis_client: redis.Redis, clock: Clock, wait_until: WaitUntil, jobs: int, trims: bool
) -> None:
    """Killed and restarted at any await while jobs run, a durable reader sees every event or tells the exact number trimmed."""
    rng = random.Random(seed())
    ledger = Ledger()

    async def processor(job: Job[int, Any]) -> None:
        if job.data % 20 == 0 and job.attempt == 1:
            raise ValueError("once more")

    async def live(stream: EventStream, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), contextlib.AsyncExitStack() as closing:
                orderly = rng.random() < 0.5
                closing.push_async_callback(stream.close if orderly else lambda: crash(stream))
                async for event in stream:
                    ledger.note(event)
        assert stream.lost == ledger.lost

    async with Queue(queue_name, int, url=url) as queue:
        new = [NewJob("n", number, JobOptions(attempts=2, backoff=0)) for number in range(jobs)]
        async with Worker(queue, processor, concurrency=50, lease=LONG_LEASE) as worker:
            async with queue.events("billing"):
                share = jobs // LIVES
            for start in range(0, jobs, share):
                await queue.add_bulk(new[start : start + share])
                clock.advance(queue_name, PAST_HOLD)
                if trims and ledger.lives and (rng.random() < 0.3 or start == share):
                    await trim(queue, events=rng.randrange(share // 2), hard=0)
                ledger.begin(saved(redis_client, queue, "billing"), oldest_seq(redis_client, queue))
                await live(queue.events("billing"), rng.choice([0.001, 0.003, 0.01, 0.03, 0.1]) if start else 0.0)
            await wait_until(lambda: completed(redis_client, queue) == jobs, 30, description="all jobs to be completed")
            assert worker.is_running
        clock.advance(queue_name, PAST_HOLD)
        upto = await last_seq(queue)
        ledger.begin(saved(redis_client, queue, "billing"), oldest_seq(redis_client, queue))
        async with queue.events("billing") as stream:
            while ledger.expected <= upto:
                ledger.note(*await take(stream, 1))
            await acknowledge(stream)
            assert await stream.lag() == (0, 0.0)
        ledger.check(upto)
        assert saved(redis_client, queue, "billing").seq == upto
        assert upto >= jobs * 3
        assert bool(ledger.told) == trims


class ReaderProcess:
    """A durable reader in a process of its own, which prints what it handles."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.seqs: list[int] = []

    @classmethod
    async def start(cls, url: str, queue: Queue[Any, Any], consumer: str) -> ReaderProcess:
        moved_clock = PRODUCTION_CLOCK.replace(READ_TIME, READ_TIME + MOVE_TIME)
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROGRAM, url, queue.name, consumer, moved_clock, stdout=-1, stderr=-3
            )
        )

    async def read(self, count: float) -> None:
        """Take so many more lines, or all there are."""
        assert self.process.stdout
        async with asyncio.timeout(20):
            while count > 0 and (line := await self.process.stdout.readline()):
                kind, seq = line.decode().split()
                assert kind == "added"
                self.seqs.append(int(seq))
                count -= 1

    async def end(self, number: signal.Signals) -> None:
        """Send the signal, take what it still said, and wait for its end."""
        self.process.send_signal(number)
        await self.read(float("inf"))
        await self.process.wait()


@pytest.mark.slow
async def test_a_reader_process_killed_goes_on_where_it_saved(
    url: str, queue_name: str, redis_client: redis.Redis, clock: Clock, wait_until: WaitUntil
) -> None:
    """kill -9 of the reading process loses no event: the next one goes on at the last saved position, without a hole."""
    lives: list[ReaderProcess] = []

    async with Queue(queue_name, url=url) as queue:

        async def live(count: int, number: signal.Signals, condition: Callable[[], bool] | None = None) -> None:
            clock.advance(queue_name, PAST_HOLD)
            before = saved(redis_client, queue, "billing").seq
            await add_together(queue, 500)
            lives.append(await ReaderProcess.start(url, queue, "billing"))
            await lives[-1].read(count)
            if condition:
                await wait_until(condition, description="the position to be saved while it reads")
            await lives[-1].end(number)
            assert lives[-1].seqs[0] == before + 1

        await live(450, signal.SIGINT)  # an orderly end saves
        assert saved(redis_client, queue, "billing").seq >= lives[0].seqs[-1] - 1
        await live(300, signal.SIGKILL)  # too early for a save
        before = saved(redis_client, queue, "billing").seq
        await live(200, signal.SIGKILL, lambda: saved(redis_client, queue, "billing").seq > before)
        await live(2_000 - saved(redis_client, queue, "billing").seq, signal.SIGINT)
        for reader in lives:
            assert reader.seqs == list(range(reader.seqs[0], reader.seqs[0] + len(reader.seqs)))
        assert {seq for reader in lives for seq in reader.seqs} == set(range(1, 2_001))


@pytest.mark.parametrize("handled", [1, 37, 99, 100, 101, 250])
@pytest.mark.parametrize("orderly", [True, False])
async def test_a_reader_stopped_inside_a_big_entry_goes_on_inside_it(
    *, url: str, queue_name: str, redis_client: redis.Redis, clock: Clock, handled: int, orderly: bool
) -> None:
    """The next reader of the name gets the event after the last handled one, also in the middle of an entry of 100."""
    async with Queue(queue_name, url=url) as queue:
        await add_together(queue, 300)
        assert redis_client.xlen(queue.context.keys["events"]) == 3
        first = queue.events("billing")
        # The last one is taken and not handled: the next one was never asked for.
        assert [event.seq for event in await take(first, handled + 1)] == list(range(1, handled + 2))
        if orderly:
            await first.close()
        else:
            await first._save(1)
            await crash(first)
            clock.advance(queue_name, 1)
        assert saved(redis_client, queue, "billing").seq == handled
        async with queue.events("billing") as second:
            assert [event.seq for event in await take(second, 300 - handled)] == list(range(handled + 1, 301))
            assert second.lost == 0


async def test_a_new_name_starts_at_the_oldest_kept_event(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """What was trimmed before a name was ever used is not its loss."""
    async with Queue(queue_name, url=url) as queue:
        await add_one_by_one(queue, 30)
        await trim(queue, events=10)
        async with queue.events("billing") as stream:
            assert [event.seq for event in await take(stream, 10)] == list(range(21, 31))
            assert stream.lost == 0


async def test_a_new_name_loses_nothing_uncounted_once_it_is_open(
    url: str, queue_name: str, redis_client: redis.Redis, clock: Clock
) -> None:
    """A reader that died before it handled anything has saved where it began: what is trimmed from then on is counted."""
    async with Queue(queue_name, url=url) as queue:
        await add_one_by_one(queue, 5)
        first = await queue.events("billing").open()
        assert saved(redis_client, queue, "billing").seq == 0
        await crash(first)
        await add_one_by_one(queue, 15)
        await trim(queue, events=5, hard=0)
        clock.advance(queue_name, PAST_HOLD)
        async with queue.events("billing") as second:
            lost, event = await take(second, 2)
            assert isinstance(lost, LostEvent)
            assert (lost.count, lost.reason, lost.seq, second.lost, event.seq) == (15, "trimmed", 0, 15, 16)


async def test_a_name_may_be_used_before_the_queue(url: str, queue_name: str) -> None:
    """A durable reader of a queue that does not exist yet sees it from its first event."""
    async with Queue(queue_name, url=url) as queue, queue.events("billing") as stream:
        reading = asyncio.create_task(take(stream, 3))
        await add_one_by_one(queue, 3)
        assert [event.seq for event in await reading] == [1, 2, 3]


async def test_positions_stand_in_the_consumers_column(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """A saved position is epoch, last entry handled whole, last event handled."""
    async with Queue(queue_name, url=url) as queue:
        await add_together(queue, 150)
        async with queue.events("billing") as stream:
            await take(stream, 121)
        epoch: Any = redis_client.hget(queue.context.keys["meta"], "epoch")
        entries: Any = redis_client.xrange(queue.context.keys["events"])
        assert saved(redis_client, queue, "billing") == Position(epoch.decode(), entries[0][0].decode(), 120)
        async with queue.events("billing") as stream:
            await take(stream, 30)
            await acknowledge(stream)
        assert saved(redis_client, queue, "billing") == Position(epoch.decode(), entries[1][0].decode(), 150)


@pytest.mark.parametrize("name", ["", "with space", "a" * 129, "ä", "x\n"], ids=["empty", "space", "long", "umlaut", "newline"])
async def test_a_bad_reader_name_is_refused(url: str, queue_name: str, name: str) -> None:
    """A name that cannot be stored is refused at once, and the message names it."""
    async with Queue(queue_name, url=url) as queue:
        with pytest.raises(ConfigurationError, match=r"consumer '.*: must be 1 to 128 of"):
            queue.events(name)


# One process per name


async def test_a_second_reader_stands_by_until_the_first_closes(url: str, queue_name: str) -> None:
    """One name, two readers: one gets everything, the other waits and goes on exactly where the first stopped."""
    async with Queue(queue_name, url=url) as queue:
        await add_together(queue, 50)
        first, second = queue.events("billing"), queue.events("billing")
        await take(first, 21)
        standby = asyncio.create_task(take(second, 21))
        done, _ = await asyncio.wait([standby], timeout=0.3)
        assert not done
        assert not second.is_open
        await take(first, 9)
        await first.close()
        # The 30th was taken and not handled.
        assert [event.seq for event in await standby] == list(range(30, 51))


async def test_a_second_reader_takes_over_from_a_dead_one(
    url: str, queue_name: str, redis_client: redis.Redis, clock: Clock
) -> None:
    """A reader that is killed holds its name until the hold ends; the standby then goes on at the saved position."""
    async with Queue(queue_name, url=url) as queue:
        await add_together(queue, 50)
        first, second = queue.events("billing"), queue.events("billing")
        await take(first, 21)
        await first._save(round(HOLD * 1000))
        await take(first, 10)
        await crash(first)
        standby = asyncio.create_task(take(second, 30))
        done, _ = await asyncio.wait([standby], timeout=0.3)
        assert not done
        clock.advance(queue_name, PAST_HOLD)
        assert [event.seq for event in await standby] == list(range(21, 51))


async def test_a_holder_that_lost_its_name_saves_nothing_and_stands_by(
    url: str, queue_name: str, redis_client: redis.Redis, clock: Clock
) -> None:
    """After its hold ended, a reader's save is refused; it stops in the middle of what it had read, and waits for its turn."""
    async with Queue(queue_name, url=url) as queue:
        await add_together(queue, 50)
        first, second = queue.events("billing"), queue.events("billing")
        await take(first, 11)
        clock.advance(queue_name, PAST_HOLD)
        assert [event.seq for event in await take(second, 21)] == list(range(1, 22))
        await second._save(round(HOLD * 1000))
        assert saved(redis_client, queue, "billing").seq == 20
        await take(first, 5)
        await first._save(round(HOLD * 1000))
        assert saved(redis_client, queue, "billing").seq == 20
        waiting = asyncio.create_task(take(first, 1))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done, "it read on without its name"
        await take(second, 9)
        await second.close()
        assert [event.seq for event in await waiting] == [30]
        await first.close()
        assert saved(redis_client, queue, "billing").seq == 29


async def test_a_save_never_moves_another_readers_position_back(
    url: str, queue_name: str, redis_client: redis.Redis, clock: Clock
) -> None:
    """A reader frozen while another used the name and left takes the name again, but goes on where the other stopped."""
    async with Queue(queue_name, url=url) as queue:
        await add_together(queue, 50)
        first, second = await queue.events("billing").open(), queue.events("billing")
        clock.advance(queue_name, PAST_HOLD)
        await take(second, 41)
        await second.close()
        for _ in range(2):
            await first._save(round(HOLD * 1000))
            assert saved(redis_client, queue, "billing").seq == 40
        assert [event.seq for event in await take(first, 2)] == [41, 42]
        await first.close()
        assert saved(redis_client, queue, "billing").seq == 41


async def test_a_reader_closed_while_it_stands_by_ends(url: str, queue_name: str) -> None:
    """Closing a reader that waits for its name ends the wait and leaves the name alone."""
    async with Queue(queue_name, url=url) as queue:
        await add_together(queue, 10)
        async with queue.events("billing") as first:
            second = queue.events("billing")

            async def read() -> list[Event]:
                return [event async for event in second]

            reading = asyncio.create_task(read())
            await asyncio.wait([reading], timeout=0.1)
            await second.close()
            assert await asyncio.wait_for(reading, 5) == []
            await first._save(round(HOLD * 1000))
            assert not first._lost_name


async def test_an_open_that_is_cancelled_gives_the_name_up(url: str, queue_name: str, clock: Clock) -> None:
    """A reader cancelled while it opens leaves no connection behind, and the name free for the next."""
    async with Queue(queue_name, url=url) as queue:
        await add_together(queue, 10)
        for step in range(12):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(step * 0.0005), queue.events("billing"):
                    pass
        clock.advance(queue_name, PAST_HOLD)  # one that was cut off with its hold on the way could not give it back
        async with queue.events("billing") as stream:
            assert [event.seq for event in await take(stream, 10)] == list(range(1, 11))


async def test_the_keeper_survives_a_server_that_refuses(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """A save that fails is tried again: a reader does not go on for ever without its name and position."""
    server = make_server()
    client: Any
    with redis.Redis(port=server.port) as client:
        async with Queue(queue_name, url=server.url) as queue:
            await add_together(queue, 20)
            async with queue.events("billing") as stream:
                await take(stream, 11)
                client.execute_command("ACL", "SETUSER", server.user, "clearselectors", "-evalsha")
                with pytest.raises(ServerRefused):
                    await queue.add("n")
                await wait_until(lambda: "saved nothing" in caplog.text, description="a refused save")
                assert [event.seq for event in await take(stream, 5)] == [12, 13, 14, 15, 16]
                client.execute_command("ACL", "SETUSER", server.user, "+evalsha")
                await wait_until(lambda: saved(client, queue, "billing").seq == 15, description="the next save")


@pytest.mark.full
async def test_a_reader_outlives_a_long_outage(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis is away for longer than any call waits: the reader raises nothing, keeps its name, and goes on where it was."""
    server = make_server("--appendonly", "yes", "--appendfsync", "always")
    async with Queue(queue_name, url=server.url) as queue, queue.events("billing") as stream:
        await add_one_by_one(queue, 10)
        await take(stream, 6)
        reading = asyncio.create_task(take_upto(stream, 15))
        await asyncio.to_thread(server.stop)
        await wait_until(lambda: "saved nothing" in caplog.text, 20, description="a save that was given up")
        await asyncio.to_thread(server.start)
        await add_one_by_one(queue, 5)
        assert [event.seq for event in await reading] == list(range(7, 16))
        with redis.Redis(port=server.port) as client:
            await wait_until(lambda: saved(client, queue, "billing").seq == 14, 10, description="the next save")


# Trimming


async def test_trimming_waits_for_a_live_reader_up_to_the_hard_cap(
    url: str, queue_name: str, redis_client: redis.Redis, clock: Clock
) -> None:
    """What a live reader has not handled is not trimmed, until the hard cap or a day without it; then it is counted."""
    async with Queue(queue_name, url=url) as queue:
        await add_one_by_one(queue, 200)
        async with queue.events("billing") as stream:
            await take(stream, 51)
        await trim(queue, events=20)
        assert oldest_seq(redis_client, queue) == 51
        await trim(queue, events=150, hard=0)
        assert oldest_seq(redis_client, queue) == 51
        await trim(queue, events=120, hard=0)
        assert oldest_seq(redis_client, queue) == 81
        clock.advance(queue_name, 23 * 3600)
        await trim(queue, events=20)
        assert oldest_seq(redis_client, queue) == 81
        clock.advance(queue_name, 2 * 3600)
        await trim(queue, events=20)
        assert oldest_seq(redis_client, queue) == 181
        async with queue.events("billing") as stream:
            lost, event = await take(stream, 2)
            assert isinstance(lost, LostEvent)
            assert (lost.count, lost.reason, lost.seq, event.seq, stream.lost) == (130, "trimmed", 50, 181, 130)
            assert (await stream.lag())[0] == 20


async def test_a_loss_inside_an_entry_is_counted_from_the_last_handled_event(url: str, queue_name: str, clock: Clock) -> None:
    """The entry in which a reader stopped is trimmed: what it had not handled of it counts."""
    async with Queue(queue_name, url=url) as queue:
        await add_together(queue, 300)
        async with queue.events("billing") as stream:
            await take(stream, 41)
        await trim(queue, events=100, hard=0)
        async with queue.events("billing") as stream:
            lost, event = await take(stream, 2)
            assert isinstance(lost, LostEvent)
            assert (lost.count, lost.seq, event.seq) == (160, 40, 201)


async def test_a_loss_that_is_handled_is_not_told_again(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """A LostEvent counts as handled like any event, so its number adds up over restarts."""
    async with Queue(queue_name, url=url) as queue:
        await add_one_by_one(queue, 5)
        async with queue.events("billing") as stream:
            await take(stream, 3)
        await add_one_by_one(queue, 20)
        await trim(queue, events=10, hard=0)
        async with queue.events("billing") as stream:
            assert [event.kind for event in await take(stream, 2)] == ["lost", "added"]
        async with queue.events("billing") as stream:
            assert [(event.kind, event.seq) for event in await take(stream, 2)] == [("added", 16), ("added", 17)]
            assert stream.lost == 0


# Rollback


@pytest.mark.parametrize("live", [True, False], ids=["live", "durable"])
@pytest.mark.parametrize("again", [3, 20, 100, 350])
async def test_a_queue_made_anew_is_told_and_read_from_its_first_event(
    url: str, queue_name: str, redis_client: redis.Redis, live: bool, again: int
) -> None:
    """All keys deleted and made again: told as a rollback, and no event of the new stream is taken for an old one."""
    async with Queue(queue_name, url=url) as queue, queue.events(None if live else "billing") as stream:
        await add_one_by_one(queue, 20)
        assert [event.seq for event in await take(stream, 20)] == list(range(1, 21))
        delete_queue(redis_client, queue)
        await add_together(queue, again)
        events = await take_upto(stream, again)
        losses = [(event.reason, event.undone) for event in events if isinstance(event, LostEvent)]
        assert losses == [("rollback", 20)]
        assert [event.seq for event in events if event.kind == "added"] == list(range(1, again + 1))
        await acknowledge(stream)
        assert await stream.lag() == (0, 0.0)
        assert stream.lost == 0


async def test_a_reader_that_was_down_learns_of_a_new_epoch(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """A saved position of another epoch is not compared with the new numbers: told, and read from the first event."""
    async with Queue(queue_name, url=url) as queue:
        await add_one_by_one(queue, 20)
        async with queue.events("billing") as stream:
            await take(stream, 11)
        delete_queue(redis_client, queue, but=("consumers",))
    async with Queue(queue_name, url=url) as queue:  # a writer of its own: the epoch is made of its id
        await add_together(queue, 50)
        async with queue.events("billing") as stream:
            lost, *events = await take(stream, 11)
            assert isinstance(lost, LostEvent)
            assert (lost.reason, lost.count) == ("rollback", 0)
            assert [event.seq for event in events] == list(range(1, 11))
        async with queue.events("billing") as stream:
            assert [event.seq for event in await take(stream, 1)] == [10]


def lose_tail(client: redis.Redis, queue: Queue[Any, Any], after: int) -> None:
    """Take the events after a number away, as a failover to a replica that was behind does."""
    entries: Any = client.xrange(queue.context.keys["events"])
    for entry_id, fields in entries:
        if int(fields.get(b"seq", 0)) > after:
            client.xdel(queue.context.keys["events"], entry_id)
    client.hset(queue.context.keys["meta"], "seq", after)


@pytest.mark.parametrize(
    ("when", "again"),
    [
        *((when, again) for when in ("connected", "reconnected", "down") for again in (3, 10, 60)),
        ("down", 0),
    ],
)
async def test_a_lost_tail_is_told_and_its_numbers_are_read_again(
    url: str, queue_name: str, redis_client: redis.Redis, when: str, again: int
) -> None:
    """The stream went back to 20 of 30 events and went on: what has the old numbers now is delivered, not skipped."""
    async with Queue(queue_name, url=url) as queue:
        await add_one_by_one(queue, 30)
        stream = queue.events("billing")
        await take(stream, 30)
        await acknowledge(stream)
        if when == "down":
            await stream.close()
        lose_tail(redis_client, queue, 20)
        if again:
            await add_together(queue, again)
        if when == "down":
            stream = queue.events("billing")
        if when == "reconnected":
            kill_readers(redis_client)
        lost = (await take(stream, 1))[0]
        assert isinstance(lost, LostEvent)
        assert (lost.reason, lost.count, lost.seq, lost.undone) == ("rollback", 0, 20, 10)
        await add_one_by_one(queue, 2)
        assert [event.seq for event in await take(stream, again + 2)] == list(range(21, 23 + again))
        assert stream.lost == 0


@pytest.mark.parametrize("trimmed", [False, True], ids=["whole", "trimmed"])
async def test_what_a_new_primary_wrote_before_our_last_entry_is_read(
    url: str, queue_name: str, redis_client: redis.Redis, trimmed: bool
) -> None:
    """While we still read from the old one it numbered 15 events of its own, some older than those we read: none is skipped."""
    async with Queue(queue_name, url=url) as queue, queue.events() as stream:
        key = queue.context.keys["events"]
        await add_one_by_one(queue, 30)
        await take(stream, 30)
        entries: Any = redis_client.xrange(key)
        parted = entries[19][0].decode()
        lose_tail(redis_client, queue, 20)
        await add_one_by_one(queue, 15)
        later: Any = redis_client.xrange(key, f"({parted}")
        made_again = [(f"{parted.partition('-')[0]}-{1000 + number}", fields) for number, (_, fields) in enumerate(later)]
        redis_client.delete(key)
        for entry_id, fields in [*entries[:20], *made_again]:
            redis_client.xadd(key, fields, id=entry_id)
        if trimmed:
            redis_client.xtrim(key, minid=parted)
        kill_readers(redis_client)
        lost, *events = await take(stream, 16)
        assert isinstance(lost, LostEvent)
        assert (lost.reason, lost.count, lost.seq, lost.undone) == ("rollback", 0, 20, 10)
        assert [event.seq for event in events] == list(range(21, 36))


@pytest.mark.parametrize("before", [0, 5], ids=["the same numbers", "other numbers"])
async def test_entries_of_a_new_primary_under_the_ids_of_ours_are_read(
    url: str, queue_name: str, redis_client: redis.Redis, before: int
) -> None:
    """Two primaries that write in the same milliseconds make the same ids: what they say tells the entries apart."""
    async with Queue(queue_name, url=url) as queue, queue.events() as stream:
        await rewrite(queue, redis_client, stream, before)
        kill_readers(redis_client)
        lost, *events = await take(stream, 16)
        assert isinstance(lost, LostEvent)
        assert (lost.reason, lost.count, lost.seq, lost.undone) == ("rollback", 0, 20, 10)
        assert [event.seq for event in events] == list(range(21, 36))


async def test_an_entry_that_is_not_the_saved_one_is_a_rollback_though_its_id_is_the_same(
    url: str, queue_name: str, redis_client: redis.Redis
) -> None:
    """Who was away does not remember where both histories part: everything kept is read again."""
    async with Queue(queue_name, url=url) as queue:
        async with queue.events("billing") as stream:
            await rewrite(queue, redis_client, stream, 5)
            await acknowledge(stream)
        async with queue.events("billing") as stream:
            lost, *events = await take(stream, 36)
            assert isinstance(lost, LostEvent)
            assert (lost.reason, lost.count, lost.seq) == ("rollback", 0, 0)
            assert [event.seq for event in events] == list(range(1, 36))


async def rewrite(queue: Queue[Any, Any], client: redis.Redis, stream: EventStream, before: int) -> None:
    """Let a reader take 30 events; then the last ten are undone and 15 others written, of which the first `before` have ids of
    their own, and the next ten those of the ten that are undone.
    """
    key = queue.context.keys["events"]
    await add_one_by_one(queue, 30)
    await take(stream, 30)
    entries: Any = client.xrange(key)
    parted, undone = entries[19][0], [entry_id for entry_id, _ in entries[20:]]
    lose_tail(client, queue, 20)
    await add_one_by_one(queue, 15)
    later: Any = client.xrange(key, b"(" + parted)
    own = [parted.partition(b"-")[0] + b"-%d" % (1000 + number) for number in range(before)]
    ids = sorted([*own, *undone], key=lambda entry_id: [int(part) for part in entry_id.split(b"-")])
    ids += [undone[-1].partition(b"-")[0] + b"-%d" % (2000 + number) for number in range(5 - before)]
    client.delete(key)
    for entry_id, fields in [*entries[:20], *zip(ids, (fields for _, fields in later), strict=True)]:
        client.xadd(key, fields, id=entry_id)


@pytest.mark.slow
async def test_a_lost_tail_is_told_though_nothing_follows(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """A connected reader that waits for the next event learns that the stream went back when its read ends, not only with it."""
    async with Queue(queue_name, url=url) as queue, queue.events() as stream:
        await add_one_by_one(queue, 30)
        await take(stream, 30)
        reading = asyncio.create_task(take(stream, 1))
        done, _ = await asyncio.wait([reading], timeout=0.1)
        assert not done
        lose_tail(redis_client, queue, 20)
        (lost,) = await reading
        assert isinstance(lost, LostEvent)
        assert (lost.reason, lost.count, lost.seq) == ("rollback", 0, 20)


async def test_a_lost_tail_behind_a_foreign_entry_is_read_from_the_oldest(
    url: str, queue_name: str, redis_client: redis.Redis
) -> None:
    """Where both histories part cannot be seen: everything kept is read again rather than something skipped."""
    async with Queue(queue_name, url=url) as queue:
        await add_one_by_one(queue, 20)
        redis_client.xadd(queue.context.keys["events"], {"hello": "world"})
        await add_one_by_one(queue, 10)
        async with queue.events("billing") as stream:
            await take(stream, 30)
            await acknowledge(stream)
        lose_tail(redis_client, queue, 20)
        await add_one_by_one(queue, 15)
        async with queue.events("billing") as stream:
            lost, *events = await take(stream, 36)
            assert isinstance(lost, LostEvent)
            assert (lost.reason, lost.count, lost.seq) == ("rollback", 0, 0)
            assert [event.seq for event in events] == list(range(1, 36))
            assert stream.lost == 0


def kill_readers(client: redis.Redis) -> int:
    """Cut the connections of all event readers; returns how many."""
    clients: Any = client.client_list()
    return sum(bool(client.client_kill_filter(_id=each["id"])) for each in clients if each["name"] == "eventq-events")
