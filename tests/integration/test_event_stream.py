"""The event stream: what is on it, and what live readers and waiters for results may rely on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import redis
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

import eventq.events
from eventq import (
    Backoff,
    EventqError,
    Job,
    JobFailed,
    JobOptions,
    JobState,
    Limits,
    NewJob,
    Postpone,
    Queue,
    QueueUnavailable,
    ServerRefused,
    Unrecoverable,
    Worker,
)
from eventq.client import SyncRunner
from eventq.commands.manage import retry_jobs
from eventq.commands.upkeep import trim_events
from eventq.commands.work import Outcome, settle_and_claim
from eventq.events import (
    STREAM_EVENTS,
    AddedEvent,
    CompletedEvent,
    Event,
    FailedEvent,
    JobEvent,
    LostEvent,
    RemovedEvent,
    RetryingEvent,
    UnknownEvent,
)
from eventq.states import FINISHED, TRANSITIONS

from ..conftest import Clock, MakeServer, WaitUntil
from .recorder import claim_silently, sweep
from .test_durable_readers import acknowledge, add_one_by_one, add_together, kill_readers, last_seq, seed, take, take_upto, trim

if TYPE_CHECKING:
    from collections.abc import Mapping


def entries(client: redis.Redis, queue: Queue[Any, Any]) -> list[tuple[str, dict[str, str]]]:
    """Return the raw entries of the stream."""
    found: Any = client.xrange(queue.context.keys["events"])
    return [(entry_id.decode(), {key.decode(): value.decode() for key, value in fields.items()}) for entry_id, fields in found]


def forge(client: redis.Redis, queue: Queue[Any, Any], fields: Mapping[str, Any], *, n: int = 1) -> int:
    """Write an entry as a later version of eventq, or a damaged server, might; returns its first number."""
    meta, events = queue.context.keys["meta"], queue.context.keys["events"]
    first = int(client.hincrby(meta, "seq", n)) - n + 1
    whole: dict[Any, Any] = {"kind": "added", "seq": first, "n": n, "ms": 1, "bytes": 1, "events": "[{}]"} | dict(fields)
    client.xadd(events, {key: value for key, value in whole.items() if value is not None})
    return first


async def run(queue: Queue[Any, Any], processor: Any, **options: Any) -> None:
    """Work until the line is empty."""
    await Worker(queue, processor, burst=True, **options).run()


# Live readers


async def test_a_live_reader_starts_now(url: str, queue_name: str) -> None:
    """Nothing from before it was entered, everything from then on, even if it is asked for much later."""
    async with Queue(queue_name, url=url) as queue:
        await add_one_by_one(queue, 7)
        async with queue.events() as stream:
            assert await stream.lag() == (0, 0.0)
            await add_together(queue, 250)
            assert (await stream.lag())[0] == 250
            assert [event.seq for event in await take(stream, 250)] == list(range(8, 258))


async def test_readers_do_not_take_events_from_each_other(url: str, queue_name: str) -> None:
    """Two live readers and a listener of one queue each get everything."""
    heard: list[int] = []
    async with Queue(queue_name, url=url) as queue:

        async def note(event: AddedEvent) -> None:
            heard.append(event.seq)

        queue.on("added", note)
        async with queue.events() as one, queue.events() as other:
            await add_together(queue, 120)
            expected = list(range(1, 121))
            assert [event.seq for event in await take(one, 120)] == expected
            assert [event.seq for event in await take(other, 120)] == expected
    assert heard == expected


async def test_on_before_add_hears_the_add(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """A receiver connected before an add hears of it, also when that add is the first call on the queue."""
    heard: list[str] = []
    queue = Queue[Any, Any](queue_name, url=url)

    @queue.on("added")
    def note(event: AddedEvent) -> None:
        heard.append(event.job_id)

    try:
        jobs = await asyncio.gather(*(queue.add("n", number) for number in range(10)))
        await wait_until(lambda: len(heard) == 10, description="all adds")
        assert sorted(heard) == sorted(job.id for job in jobs)
    finally:
        await queue.close()


async def test_breaking_off_and_going_on(url: str, queue_name: str) -> None:
    """A loop that was left by break goes on with the next event when it is entered again."""
    async with Queue(queue_name, url=url) as queue, queue.events() as stream:
        await add_together(queue, 10)
        seen: list[int] = []
        async for event in stream:
            seen.append(event.seq)
            if event.seq == 4:
                break
        async for event in stream:
            seen.append(event.seq)
            if event.seq == 10:
                break
        assert seen == list(range(1, 11))


async def test_a_cancelled_step_loses_no_event(url: str, queue_name: str) -> None:
    """Cancelled at any await, again and again, a reader goes on with the very next event."""
    rng = random.Random(seed())
    async with Queue(queue_name, url=url) as queue, queue.events() as stream:
        seen: list[int] = []

        async def read() -> None:
            async for event in stream:
                seen.append(event.seq)

        for _ in range(60):
            await add_together(queue, rng.randrange(1, 30))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.choice([0.0, 0.0003, 0.001, 0.004])):
                    await read()
        upto = await last_seq(queue)
        seen += [event.seq for event in await take(stream, upto - len(seen))]
        assert seen == list(range(1, upto + 1))
        assert stream.lost == 0


async def test_closing_ends_whoever_reads(url: str, queue_name: str) -> None:
    """A reader closed in the middle of a step ends its loop, and a later loop too; it raises nothing."""
    async with Queue(queue_name, url=url) as queue:
        stream = await queue.events().open()
        await add_together(queue, 3)
        seen: list[Event] = []

        async def read() -> None:
            async for event in stream:
                seen.append(event)

        reading = asyncio.create_task(read())
        await asyncio.wait([reading], timeout=0.1)
        await stream.close()
        await asyncio.wait_for(reading, 2)
        await stream.close()
        await asyncio.wait_for(read(), 2)
        assert len(seen) == 3


async def test_a_queue_closes_its_readers(url: str, queue_name: str) -> None:
    """A loop that is left without closing its reader holds neither connection nor name longer than its queue."""
    async with Queue(queue_name, url=url) as queue:
        await add_together(queue, 10)
        async for event in queue.events("billing"):
            if event.seq == 5:
                break
        async for _ in queue.events("audit"):
            break
    async with Queue(queue_name, url=url) as queue, queue.events("billing") as stream:
        assert [event.seq for event in await take(stream, 2)] == [5, 6]


async def test_readers_survive_cut_connections(
    url: str, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """CLIENT KILL, again and again while jobs run: no gap, nothing twice, for a live reader, a durable one and a listener."""
    jobs, heard, killed = 600, list[int](), 0

    async def processor(job: Job[Any, Any]) -> None:
        nonlocal killed
        if job.data % 20 == 0:
            killed += kill_readers(redis_client)

    async with Queue(queue_name, url=url) as queue:

        @queue.on("completed")
        async def note(event: CompletedEvent) -> None:
            heard.append(event.seq)

        async with queue.events() as live, queue.events("billing") as durable:
            for start in range(0, jobs, 60):
                await queue.add_bulk([NewJob("n", number) for number in range(start, start + 60)])
                await run(queue, processor, concurrency=20)
            upto = await last_seq(queue)
            for stream in (live, durable):
                assert [event.seq for event in await take_upto(stream, upto)] == list(range(1, upto + 1))
                assert stream.lost == 0
        assert upto >= jobs * 3
        assert killed >= 3
        await wait_until(lambda: len(heard) == jobs, description="the listener to hear of all")
    assert heard == sorted(set(heard))


async def test_readers_survive_a_restart(make_server: MakeServer, queue_name: str) -> None:
    """The server restarts with its append-only file: readers go on without a gap and without telling one."""
    server = make_server("--appendonly", "yes", "--appendfsync", "always")
    async with Queue(queue_name, url=server.url) as queue, queue.events() as live, queue.events("billing") as durable:
        await add_one_by_one(queue, 20)
        for stream in (live, durable):
            assert [event.seq for event in await take(stream, 15)] == list(range(1, 16))
        reading = [asyncio.create_task(take(stream, 35)) for stream in (live, durable)]
        await asyncio.to_thread(server.restart)
        await add_one_by_one(queue, 30)
        for each in reading:
            assert [event.seq for event in await each] == list(range(16, 51))


async def test_a_restart_that_forgot_everything_is_told(make_server: MakeServer, queue_name: str) -> None:
    """The server restarts empty: the reader tells a rollback and reads the new stream from its first event."""
    server = make_server()
    async with Queue(queue_name, url=server.url) as queue, queue.events() as stream:
        await add_one_by_one(queue, 20)
        await take(stream, 20)
        reading = asyncio.create_task(take(stream, 31))
        await asyncio.to_thread(server.restart)
        await add_together(queue, 30)
        lost, *events = await reading
        assert isinstance(lost, LostEvent)
        assert (lost.reason, lost.count) == ("rollback", 0)
        assert [event.seq for event in events] == list(range(1, 31))


async def test_readers_survive_a_frozen_server(make_server: MakeServer, queue_name: str) -> None:
    """SIGSTOP and SIGCONT of the server, in the middle of a read and of an add: late, and complete."""
    server = make_server()
    async with Queue(queue_name, url=server.url) as queue, queue.events() as stream:
        await add_one_by_one(queue, 3)
        await take(stream, 3)
        for _ in range(3):
            reading = asyncio.create_task(take(stream, 5))
            server.freeze()
            adding = asyncio.create_task(add_one_by_one(queue, 5))
            done, _ = await asyncio.wait([adding, reading], timeout=0.2)
            server.thaw()
            assert not done
            await adding
            await reading
        assert stream.position.seq == 17  # the 18th was taken and not handled
        assert stream.lost == 0


async def test_lag_is_events_and_seconds(url: str, queue_name: str, clock: Clock) -> None:
    """Lag counts the events that are not handled and how long the oldest of them waits; caught up is 0, 0."""
    async with Queue(queue_name, url=url) as queue:
        async with queue.events("billing") as stream:
            assert await stream.lag() == (0, 0.0)
            clock.advance(queue_name, -100)
            await add_one_by_one(queue, 10)
            clock.advance(queue_name, 60)
            await add_one_by_one(queue, 10)
            await take(stream, 5)
            events, seconds = await stream.lag()
            assert events == 16 and 100 <= seconds < 110
        async with queue.events("billing") as stream:
            events, seconds = await stream.lag()
            assert events == 16 and 100 <= seconds < 110, "a reader that goes on knows it before its first event"
            await take(stream, 7)
            events, seconds = await stream.lag()
            assert events == 10 and 40 <= seconds < 50
            await take(stream, 9)
            await acknowledge(stream)
            assert await stream.lag() == (0, 0.0)


async def test_a_reader_knows_a_loss_before_the_next_event(url: str, queue_name: str) -> None:
    """Everything after a durable reader is trimmed and nothing follows: the loss is told all the same, when it starts."""
    async with Queue(queue_name, url=url) as queue:
        await add_one_by_one(queue, 10)
        async with queue.events("billing") as stream:
            await take(stream, 4)
        await trim(queue, events=0, hard=0)
        async with queue.events("billing") as stream:
            (lost,) = await take(stream, 1)
            assert isinstance(lost, LostEvent)
            assert (lost.count, lost.seq, stream.lost) == (7, 3, 7)
            await acknowledge(stream)
            assert await stream.lag() == (0, 0.0)
            await add_one_by_one(queue, 1)
            assert [event.seq for event in await take(stream, 1)] == [11]


# What is on the stream

FATES = ("ok", "fail", "fatal", "slow", "report", "postpone")


async def processor_of_fates(job: Job[dict[str, Any], Any]) -> Any:
    """Do what the job's data says for this attempt."""
    if not job.data["number"] % 10:
        await job.update_data(job.data)
    fates = job.data["fates"]
    match fates[min(job.attempt, len(fates)) - 1]:
        case "fail":
            raise ValueError(f"attempt {job.attempt} fails")
        case "fatal":
            raise Unrecoverable("no use")
        case "slow":
            await asyncio.Event().wait()
        case "postpone":
            if not job.run.releases:
                raise Postpone(delay=60)
        case "report":
            await job.update_progress({"half": True})
        case _:
            pass
    return "x" * 2000 if job.data["large"] else None if job.data["none"] else {"number": job.data["number"]}


class Play:
    """A thousand random jobs through every move there is; the events tell where each of them went."""

    def __init__(self, queue: Queue[Any, Any], clock: Clock, rng: random.Random) -> None:
        self.queue, self.clock, self.rng = queue, clock, rng
        self.ids: list[str] = []

    async def perform(self, jobs: int) -> None:
        """Add, run, stall, release, remove, retry; in rounds, until nothing is left to run."""
        await self._add(jobs)
        for _ in range(4):
            await self._remove(jobs // 40)
            await self._change(jobs // 10)
            await self._stall(10)
            await self._stall(2, max_stalls=0)
            await self._lose()
            await self._release(8)
            await self._run()
            await self._retry(jobs // 20)
            await self._change(jobs // 10)
            await self.queue.clean(0, 1, self.rng.choice([JobState.COMPLETED, JobState.FAILED]))
            self.clock.advance(self.queue.name, 61)
        await self._finish()
        # Those with a priority come last: alone in line, they too stall and are released.
        await self.queue.add_bulk(
            [NewJob("n0", self._data(number), JobOptions(priority=3, timeout=0.05)) for number in range(40)]
        )
        await self._stall(8)
        await self._release(8)
        await self._finish()
        await self.queue.pause()

    async def _finish(self) -> None:
        while await self.queue.count():
            await self._run()
            self.clock.advance(self.queue.name, 61)

    async def _add(self, jobs: int) -> None:
        await self.queue.pause()
        new = [NewJob(f"n{self.rng.randrange(3)}", self._data(number), self._options()) for number in range(jobs)]
        self.ids = [job.id for job in await self.queue.add_bulk(new)]
        own = self.rng.choice(self.ids)
        await self.queue.add("again", {}, job_id=own)
        await self.queue.resume()

    def _data(self, number: int) -> dict[str, Any]:
        fates = self.rng.choices(FATES, weights=(4, 4, 1, 1, 2, 1), k=2)
        return {"number": number, "fates": fates, "large": self.rng.random() < 0.1, "none": self.rng.random() < 0.1}

    def _options(self) -> JobOptions:
        rng = self.rng
        return JobOptions(
            delay=rng.choice([None, None, 60]),
            priority=rng.choice([None, 1, 7]),
            lifo=rng.random() < 0.2,
            attempts=rng.choice([1, 2, 3]),
            backoff=Backoff.fixed(60) if rng.random() < 0.5 else 0,
            remove_on_complete=rng.choice([None, None, None, True]),
            remove_on_fail=rng.choice([None, None, None, True]),
            timeout=0.05,
        )

    async def _stall(self, jobs: int, max_stalls: int = 3) -> None:
        for job in await claim_silently(self.queue, jobs, lease=20):
            await self._take_away(job.id, max_stalls)

    async def _take_away(self, job_id: str, max_stalls: int = 3) -> None:
        # In steps: after a long time without a sweep, workers get a while to come back.
        while await self.queue.get_state(job_id) is JobState.ACTIVE:
            self.clock.advance(self.queue.name, 25)
            await sweep(self.queue, lease=60, max_stalls=max_stalls)

    async def _lose(self) -> None:
        """A worker loses the lease of a job it runs: its outcome is refused, which is an error event."""

        async def lose(job: Job[Any, Any]) -> None:
            await self._take_away(job.id)

        await Worker(self.queue, lose, max_jobs=1, lease=0.5).run()

    async def _release(self, jobs: int) -> None:
        started = asyncio.Queue[str]()

        async def hold(job: Job[Any, Any]) -> None:
            started.put_nowait(job.id)
            await asyncio.Event().wait()

        worker = Worker(self.queue, hold, concurrency=jobs, lease=3600)
        async with worker:
            for _ in range(jobs):
                await asyncio.wait_for(started.get(), 5)
            await worker.close(grace=0)

    async def _remove(self, jobs: int) -> None:
        for job_id in self.rng.sample(self.ids, jobs):
            job = await self.queue.get_job(job_id)
            if job is not None:
                await job.remove()

    async def _change(self, jobs: int) -> None:
        for job_id in self.rng.sample(self.ids, jobs):
            job = await self.queue.get_job(job_id)
            if job is None:
                continue
            state = await job.get_state()
            await job.update_data(job.data)
            if state is JobState.DELAYED:
                await job.change_delay(50)
            if state not in FINISHED:
                await job.change_priority(self.rng.choice([0, 1, 7]))

    async def _retry(self, jobs: int) -> None:
        context = self.queue.context
        for state in (JobState.FAILED, JobState.COMPLETED):
            ids = [job.id for job in await self.queue.get_jobs(state, limit=500)]
            ids = self.rng.sample(ids, min(jobs, len(ids)))
            if ids:
                await context.runner.run(retry_jobs(context.keys, ids, state=state, reset_attempts=self.rng.random() < 0.5))

    async def _run(self) -> None:
        await run(self.queue, processor_of_fates, concurrency=50, lease=3600)


#: Where a job is after an event that does not say it.
_AFTER = {"active": JobState.ACTIVE, "progress": JobState.ACTIVE, "completed": JobState.COMPLETED, "failed": JobState.FAILED}


class Replay:
    """Follows every job through its events, by the table of transitions."""

    def __init__(self) -> None:
        self.states: dict[str, JobState | None] = defaultdict(lambda: None)
        self.moves: Counter[tuple[JobState | None, str, JobState | None]] = Counter()

    def note(self, event: Event) -> None:
        """Take the next event: its move must be in the table, from where the job is."""
        if isinstance(event, RemovedEvent):
            for job_id in event.job_ids:
                self._move(job_id, event.kind, None, event.previous)
        elif isinstance(event, JobEvent) and event.kind != "duplicated":
            said = getattr(event, "state", "")
            after = JobState(said) if said else _AFTER[event.kind]
            self._move(event.job_id, event.kind, after, getattr(event, "previous", ""))

    def _move(self, job_id: str, kind: str, after: JobState | None, previous: str) -> None:
        before = self.states[job_id]
        assert after in TRANSITIONS.get((before, kind), ()), f"{job_id}: {before} --> {after} by {kind}"
        assert previous in ("", before), f"{job_id}: {kind} says it was {previous}, it was {before}"
        self.states[job_id] = after
        self.moves[before, kind, after] += 1


#: Part of the trace context where there is something to say; tests/integration/test_tracing.py is about them.
FOR_THE_TRACER = {"service", "propagation", "batch", "link", "span"}


def documented_facts() -> dict[str, set[str]]:
    """Return what the table in the docstring of eventq.events says that each kind tells."""
    facts: dict[str, set[str]] = {}
    rows = re.findall(r"^\| ([a-z_, ]+) \| [^|]+ \| ([^|]*)\|$", eventq.events.__doc__ or "", re.MULTILINE)
    for kinds, fields in rows:
        words = fields.replace("trace context", "traceparent, tracestate").replace(" or ", ", ")
        for kind in kinds.split(", "):
            facts[kind] = {word.strip() for word in words.split(",") if word.strip()}
    return facts


@pytest.mark.slow
async def test_every_move_is_in_the_table(url: str, queue_name: str, clock: Clock, redis_client: redis.Redis) -> None:
    """1,000 random jobs: each event is a legal move from where the job was, every legal move happens, and each job ends
    where its events say; numbers rise by one, times are Redis' clock, and the facts are those of the catalogue.
    """
    rng = random.Random(seed())
    async with Queue(queue_name, url=url, limits=Limits(event_result=1024)) as queue:
        play = Play(queue, clock, rng)
        with trace.use_span(NonRecordingSpan(SPAN)):
            await play.perform(1000)
        replay, before_ms = Replay(), 0
        async with queue.events("replay") as stream:
            for expected, event in enumerate(await take_upto(stream, await last_seq(queue)), start=1):
                assert event.seq == expected
                assert event.ms >= before_ms
                before_ms = event.ms
                replay.note(event)
        legal = {(before, kind, after) for (before, kind), afters in TRANSITIONS.items() for after in afters}
        assert set(replay.moves) == legal
        for job_id in play.ids:
            stored = await queue.get_job(job_id)
            assert replay.states[job_id] == (await queue.get_state(job_id) if stored else None)
        assert_times_are_the_clocks(redis_client, queue, clock)
        assert_facts_are_documented(redis_client, queue)


def assert_times_are_the_clocks(client: redis.Redis, queue: Queue[Any, Any], clock: Clock) -> None:
    """The clock was moved by minutes: `ms` went with it, the ids of the entries did not."""
    now: Any = client.time()
    apart = [int(fields["ms"]) - int(entry_id.split("-")[0]) for entry_id, fields in entries(client, queue)]
    offset = round(clock.offset(queue.name) * 1000)
    assert offset > 120_000
    # An entry's id is of the moment it is written, `ms` of the moment its script began.
    assert -1000 <= apart[0] <= 0 and offset - 1000 <= apart[-1] <= offset
    assert int(entries(client, queue)[-1][1]["ms"]) <= now[0] * 1000 + now[1] // 1000 + offset


def assert_facts_are_documented(client: redis.Redis, queue: Queue[Any, Any]) -> None:
    """Every kind occurred; its facts are exactly those of the catalogue, and each is a field of its class."""
    facts: dict[str, set[str]] = defaultdict(set)
    for _, fields in entries(client, queue):
        assert list(fields) == ["kind", "seq", "n", "ms", "bytes", "events"]
        for each in json.loads(fields["events"]):
            assert set(each) <= set(STREAM_EVENTS[fields["kind"]].__struct_fields__), fields["kind"]
            facts[fields["kind"]] |= {name.removesuffix("_ms") for name in each.keys() - FOR_THE_TRACER}
    documented = documented_facts()
    # The end of a queue, and what schedules do, have tests of their own.
    documented["added"] -= {"schedule", "slot"}
    told = STREAM_EVENTS.keys() - {"obliterated", "schedule_missed"}
    assert {kind: facts[kind] for kind in told} == {kind: documented[kind] for kind in told}


async def test_an_unknown_kind_is_an_unknown_event(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """A newer version's kind comes through with its facts and a newer fact of a known kind is left out; nothing is lost."""
    async with Queue(queue_name, url=url) as queue, queue.events() as stream:
        await queue.add("n", job_id="one")
        forge(redis_client, queue, {"kind": "promised", "events": '[{"job_id":"one","by":[1,2]},{"job_id":"two"}]'}, n=2)
        forge(redis_client, queue, {"events": '[{"job_id":"three","name":"n","colour":"red","ms":7}]', "later": "field"})
        first, second, third, fourth = await take(stream, 4)
        assert isinstance(first, AddedEvent)
        assert second == UnknownEvent(queue=queue_name, seq=2, ms=1, name="promised", facts={"job_id": "one", "by": [1, 2]})
        assert isinstance(third, UnknownEvent) and third.seq == 3
        assert fourth == AddedEvent(queue=queue_name, seq=4, ms=1, job_id="three", name="n")
        assert stream.lost == 0


DAMAGED: dict[str, dict[str, Any]] = {
    "no kind": {"kind": None},
    "no seq": {"seq": None},
    "no number": {"seq": "many"},
    "no ms": {"ms": None},
    "no events": {"events": None},
    "no JSON": {"events": '[{"job_id":'},
    "no list": {"events": '{"job_id":"one"}'},
    "no objects": {"events": "[1]"},
    "another n": {"events": "[{},{}]"},
    "wrong type": {"events": '[{"job_id":["one"]}]'},
    "empty": {"events": "[]", "n": 0},
    "deep": {"events": "[" * 50_000},
}


@pytest.mark.parametrize("fields", DAMAGED.values(), ids=DAMAGED.keys())
async def test_a_damaged_entry_is_skipped_and_counted(
    url: str, queue_name: str, redis_client: redis.Redis, fields: dict[str, Any]
) -> None:
    """An entry that cannot be read is lost with its numbers, told exactly; it hinders no start, lag, trimming or resuming."""
    async with Queue(queue_name, url=url) as queue, queue.events() as early:
        await add_one_by_one(queue, 2)
        async with queue.events("billing") as stream:
            await take(stream, 1)
        forge(redis_client, queue, fields)
        async with queue.events() as late:
            assert await late.lag() == (0, 0.0)
            assert (await early.lag())[0] == 3
            await add_one_by_one(queue, 2)
            assert [event.seq for event in await take(late, 2)] == [4, 5]
        for reader in (early, queue.events("billing")):
            events = await take(reader, 5)
            told = [(event.kind, event.seq, getattr(event, "count", 0)) for event in events]
            assert told == [("added", 1, 0), ("added", 2, 0), ("lost", 2, 1), ("added", 4, 0), ("added", 5, 0)]
            assert reader.lost == 1
            await reader.close()
        await trim(queue, events=1, hard=0)
        assert [fields["seq"] for _, fields in entries(redis_client, queue)] == ["5"]


async def test_a_foreign_entry_takes_nothing_away(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """An entry somebody else put on the stream has no number of ours: it is passed over and no loss is told."""
    async with Queue(queue_name, url=url) as queue, queue.events() as stream:
        for _ in range(3):
            await queue.add("n")
            redis_client.xadd(queue.context.keys["events"], {"hello": "world"})
        async with queue.events() as late:
            await queue.add("n")
            assert [event.seq for event in await take(stream, 4)] == [1, 2, 3, 4]
            assert [event.seq for event in await take(late, 1)] == [4]
            assert (stream.lost, late.lost) == (0, 0)


async def test_job_data_is_never_in_an_event(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Neither small nor large data is on the stream, whatever becomes of the job."""

    async def processor(job: Job[Any, Any]) -> None:
        if job.name == "fail":
            raise ValueError("no word of it")

    async with Queue(queue_name, url=url) as queue:
        for name in ("fine", "fail"):
            for size in (1, 5_000):
                await queue.add(name, {"password": "s3cret" * size}, attempts=2, backoff=0)
        await queue.add("later", "s3cret", delay=60)
        await run(queue, processor)
        found = entries(redis_client, queue)
        assert {"added", "active", "completed", "retrying", "failed"} <= {fields["kind"] for _, fields in found}
        assert all("s3cret" not in text and "password" not in text for _, fields in found for text in fields.values())


@pytest.mark.parametrize(
    ("limit", "result", "rides"),
    [
        (1024, "x" * 1022, True),
        (1024, "x" * 1023, False),
        (1024, "€" * 340, True),
        (1024, "€" * 341, False),
        (1024, {"a": [1, None, 2.5]}, True),
        (1024, 0, True),
        (1024, None, True),
        (0, 0, False),
        (0, None, True),
    ],
)
async def test_small_results_ride_along(url: str, queue_name: str, limit: int, result: Any, rides: bool) -> None:
    """A result of up to 1 KiB of JSON is in the completed event, a larger one is marked as left out; the limit is yours."""
    async with Queue(queue_name, url=url, limits=Limits(event_result=limit)) as queue, queue.events() as stream:

        async def processor(job: Job[Any, Any]) -> Any:
            return result

        job = await queue.add("n")
        await run(queue, processor)
        (completed,) = (e for e in await take_upto(stream, await last_seq(queue)) if isinstance(e, CompletedEvent))
        assert (completed.result, completed.result_omitted) == (result if rides else None, not rides)
        assert await job.result(1) == result


# Trace context

SPAN = SpanContext(
    0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False, TraceFlags(1), TraceState([("vendor", 'a "b"'), ("x", "y")])
)
TRACED = (AddedEvent, CompletedEvent, FailedEvent, RetryingEvent)


async def traced_events(queue: Queue[Any, Any]) -> list[Event]:
    """Add jobs under the current span, run them outside of it, and return their events."""

    async def processor(job: Job[Any, Any]) -> None:
        if job.name != "fine":
            raise ValueError("no")

    async with queue.events() as stream:
        await queue.add("fine")
        await queue.add_bulk([NewJob("fail", None), NewJob("again", None, JobOptions(attempts=2, backoff=0))])
        with trace.use_span(trace.INVALID_SPAN):
            await run(queue, processor)
        events = await take_upto(stream, await last_seq(queue))
    assert Counter(type(event) for event in events if isinstance(event, TRACED)) == {
        AddedEvent: 3,
        CompletedEvent: 1,
        FailedEvent: 2,
        RetryingEvent: 1,
    }
    return events


async def test_added_and_outcomes_carry_the_callers_trace_context(url: str, queue_name: str) -> None:
    """traceparent of the span that is current at the add is on `added` and on the outcome; no tracestate without one."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    async with Queue(queue_name, url=url) as queue:
        with tracer.start_as_current_span("request") as span:
            events = await traced_events(queue)
        context = span.get_span_context()
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        assert {(e.traceparent, e.tracestate) for e in events if isinstance(e, TRACED)} == {(traceparent, "")}


async def test_tracestate_goes_along(url: str, queue_name: str, redis_client: redis.Redis, clock: Clock) -> None:
    """Vendors' tracestate is carried as it came; a job that stalls and fails so carries both too."""
    async with Queue(queue_name, url=url) as queue, queue.events() as stream:
        with trace.use_span(NonRecordingSpan(SPAN)):
            events = await traced_events(queue)
            await queue.add("stalls")
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        expected = {(traceparent, 'vendor=a "b",x=y')}
        assert {(e.traceparent, e.tracestate) for e in events if isinstance(e, TRACED)} == expected
        await claim_silently(queue, lease=20)
        for _ in range(3):
            clock.advance(queue_name, 25)
            await sweep(queue, max_stalls=0)
        failed = [
            e for e in await take_upto(stream, await last_seq(queue)) if isinstance(e, FailedEvent) and e.reason == "stalled"
        ]
        assert {(e.traceparent, e.tracestate) for e in failed} == expected


async def test_without_a_trace_nothing_is_carried(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Outside a span no event and no record has a trace context, not even an empty one."""
    async with Queue(queue_name, url=url) as queue:
        await traced_events(queue)
        assert all(
            '"traceparent"' not in fields["events"] and '"tracestate"' not in fields["events"]
            for _, fields in entries(redis_client, queue)
        )
        records: Any = redis_client.hvals(queue.context.keys["jobs"])
        assert all(b"traceparent" not in record for record in records)


# Waiting for results


async def test_waiting_for_results_asks_nothing(
    url: str, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """While 300 results are awaited Redis gets no command; then each waiter gets its own."""
    total = "total_commands_processed"

    async def processor(job: Job[int, Any]) -> int:
        return job.data * 2

    async with Queue(queue_name, url=url) as queue:
        jobs = await queue.add_bulk([NewJob("n", number) for number in range(300)])
        waiting = [asyncio.create_task(job.result(20)) for job in jobs]
        wanted = {job.id for job in jobs}
        await wait_until(lambda: set(queue._listener._waiters) == wanted, description="all to wait")
        asked = 0
        for _ in range(20):  # each looks once, which a busy machine takes its time for
            before = redis_client.info("stats")[total]
            done, _ = await asyncio.wait(waiting, timeout=0.5)
            assert not done
            if (asked := redis_client.info("stats")[total] - before) == 1:  # this one
                break
        assert asked == 1
        assert redis_client.info("clients")["blocked_clients"] == 1
        await run(queue, processor, concurrency=50)
        assert await asyncio.gather(*waiting) == [number * 2 for number in range(300)]
        assert queue._listener._waiters == {}


def finish_unseen(queue: Queue[Any, Any], client: redis.Redis, result: int) -> None:
    """Cut the readers off, complete a job and trim all events of it, before any task of this process gets a turn."""
    context = queue.context
    runner = SyncRunner(context.server)
    assert kill_readers(client)

    def call(wanted: int, outcomes: list[Outcome]) -> Any:
        return runner.run(
            settle_and_claim(
                context.keys,
                worker="w",
                lease_ms=60_000,
                wanted=wanted,
                retention=context.retention,
                progress=[],
                outcomes=outcomes,
            )
        )

    (claimed,) = call(1, []).jobs
    call(0, [Outcome(claimed.id, claimed.token, "completed", '"name":"n"', str(result), "")])
    runner.run(trim_events(context.keys, (0, 0, 0, 0)))
    assert client.xlen(context.keys["events"]) == 0
    runner.close()


async def test_a_result_arrives_though_its_event_is_lost(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """The event of an outcome was trimmed before the reader saw it: whoever waits is answered from what is stored."""
    lost: list[int] = []
    async with Queue(queue_name, url=url) as queue:

        @queue.on("lost")
        async def note(event: LostEvent) -> None:
            lost.append(event.count)

        job = await queue.add("n")
        waiting = asyncio.create_task(job.result(10))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        finish_unseen(queue, redis_client, 42)
        await queue.add("n")  # the next event: at the latest now the gap is seen
        assert await waiting == 42
    assert lost == [3]  # active, completed, drained


@dataclass
class Sum:
    """A typed result."""

    value: int


async def test_a_typed_result_arrives_though_the_job_is_gone(url: str, queue_name: str) -> None:
    """With remove_on_complete nothing is stored; the result that rides along is enough, and has its type."""
    async with Queue(queue_name, int, result_type=Sum, url=url) as queue:

        async def processor(job: Job[int, Sum]) -> Sum:
            return Sum(job.data + 1)

        jobs = [await queue.add("n", number, remove_on_complete=True) for number in range(5)]
        waiting = [asyncio.create_task(job.result(5)) for job in jobs]
        await asyncio.wait(waiting, timeout=0.1)
        await run(queue, processor)
        assert await asyncio.gather(*waiting) == [Sum(number + 1) for number in range(5)]


async def test_a_null_result_after_a_failed_attempt_is_none(url: str, queue_name: str) -> None:
    """None is the result of a typed job that returned nothing, whether or not an attempt failed before."""
    async with Queue(queue_name, int, result_type=Sum, url=url) as queue:

        async def processor(job: Job[int, Any]) -> None:
            if job.attempt <= job.data:
                raise ValueError("no")

        for fails in (0, 1):
            job = await queue.add("n", fails, attempts=2, backoff=0)
            waiting = asyncio.create_task(job.result(5))
            await asyncio.wait([waiting], timeout=0.05)
            await run(queue, processor)
            assert await waiting is None
            assert await job.result(5) is None


@pytest.mark.parametrize("command", ["xread", "hmget"])
async def test_a_reader_that_breaks_tells_its_waiters_and_starts_again(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil, command: str
) -> None:
    """A server that refuses to be read ends the waiting with its refusal; once it allows it, the next call starts anew."""
    server = make_server()
    heard: list[str] = []
    with redis.Redis(port=server.port) as client:
        async with Queue(queue_name, url=server.url) as queue:
            queue.on("added", lambda event: heard.append(event.job_id))
            client.acl_setuser(server.user, enabled=True, commands=[f"-{command}"])
            if command == "hmget":
                with pytest.raises(ServerRefused):
                    await queue.add("refused")
            else:
                for calls in (0, 300):
                    # The reader breaks while somebody waits already, or while it still stands behind other calls to begin.
                    job = await queue.add("n")
                    others = [asyncio.create_task(queue.is_paused()) for _ in range(calls)]
                    if others:
                        await asyncio.wait(others, timeout=0)
                    with pytest.raises(ServerRefused):
                        await job.result(5)
                    await asyncio.gather(*others)
            client.acl_setuser(server.user, enabled=True, commands=[f"+{command}"])
            job = await queue.add("n", 21)
            await wait_until(lambda: job.id in heard, description="the listener to hear again")

            async def double(job: Job[Any, Any]) -> Any:
                return (job.data or 0) * 2

            waiting = asyncio.create_task(job.result(5))
            await asyncio.wait([waiting], timeout=0.05)
            await run(queue, double)
            assert await waiting == 42


@pytest.mark.full
async def test_an_add_with_listeners_does_not_wait_for_ever(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil
) -> None:
    """Redis is away from the start: an add on a queue that is listened to raises as any other; once it is back, all is heard."""
    server, heard = make_server(), list[str]()
    await asyncio.to_thread(server.stop)
    queue = Queue[Any, Any](queue_name, url=server.url)
    try:
        queue.on("added", lambda event: heard.append(event.job_id))
        async with asyncio.timeout(15):
            with pytest.raises(QueueUnavailable):
                await queue.add("n")
        await asyncio.to_thread(server.start)
        job = await queue.add("n")
        await wait_until(lambda: heard == [job.id], description="the listener")
    finally:
        await queue.close()


async def test_trouble_of_one_waiter_is_not_the_readers(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """A stored job that cannot be read raises for whoever waits for it; the others get their results."""
    async with Queue(queue_name, url=url, limits=Limits(event_result=0)) as queue:

        async def processor(job: Job[Any, Any]) -> Any:
            if job.data == "bad":
                redis_client.hset(queue.context.keys["jobs"], job.id, "9\tunreadable")
            return job.data

        bad, good = await queue.add("n", "bad"), await queue.add("n", "good")
        waiting = [asyncio.create_task(job.result(5)) for job in (bad, good)]
        await asyncio.wait(waiting, timeout=0.1)
        await run(queue, processor)
        assert await waiting[1] == "good"
        with pytest.raises(EventqError, match="unreadable"):
            await waiting[0]
        failing = await queue.add("n", "more")
        with pytest.raises(TimeoutError):
            await failing.result(0.1)


async def test_a_failure_is_told_from_the_event(url: str, queue_name: str) -> None:
    """A waiter for a job that fails gets type and reason, also when nothing of the job is kept."""
    async with Queue(queue_name, url=url) as queue:

        async def processor(job: Job[Any, Any]) -> None:
            raise LookupError("not there")

        job = await queue.add("n", remove_on_fail=True)
        waiting = asyncio.create_task(job.result(5))
        await asyncio.wait([waiting], timeout=0.05)
        await run(queue, processor)
        with pytest.raises(JobFailed) as caught:
            await waiting
        assert (caught.value.type, caught.value.reason, caught.value.job_id) == ("LookupError", "not there", job.id)
