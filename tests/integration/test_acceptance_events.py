"""Acceptance case 60: what readers and listeners of the events may rely on. (eventq has no custom events to pass on.)"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, JobQueue, JobState, NewJob, Queue, Unrecoverable, Worker
from eventq.commands.upkeep import trim_events
from eventq.commands.work import Outcome, settle_and_claim
from eventq.errors import ConfigurationError
from eventq.events import (
    ActiveEvent,
    AddedEvent,
    CompletedEvent,
    DrainedEvent,
    DuplicatedEvent,
    ErrorEvent,
    Event,
    FailedEvent,
    JobEvent,
    LostEvent,
    ProgressEvent,
    ReleasedEvent,
    RemovedEvent,
    RetryingEvent,
    StalledEvent,
    WaitingEvent,
)
from eventq.states import TRANSITIONS

from .recorder import UNTYPED, Recorder, claim_silently, expire_leases

if TYPE_CHECKING:
    import redis

    from tests.conftest import Clock, WaitUntil

#: More than any limit here.
ENDLESS = 2**40


async def work(job: Job[Any, Any]) -> Any:
    """Do what the job's name says."""
    match job.name:
        case "progress":
            await job.update_progress(50)
        case "twice" if job.attempt == 1:
            raise ValueError("the first time")
        case "later" if job.attempt == 1:
            raise ValueError("the first time")
        case "never":
            raise Unrecoverable("no")
        case "hangs":
            await asyncio.Event().wait()
        case _:
            pass
    return job.data


async def everything(queue: Queue[Any, Any], recorder: Recorder, clock: Clock) -> dict[str, Job[Any, Any]]:
    """Make every transition happen at least once; returns the jobs by name."""
    jobs = {name: await queue.add(name, name, attempts=2) for name in ("plain", "progress", "twice", "never")}
    jobs["later"] = await queue.add("later", "later", attempts=2, backoff=0.03)
    jobs["first"] = await queue.add("first", "first", lifo=True)
    jobs["urgent"] = await queue.add("urgent", "urgent", priority=1)
    jobs["delayed"] = await queue.add("delayed", "delayed", delay=0.03)
    jobs["far"] = await queue.add("far", "far", delay=3600)
    jobs["removed"] = await queue.add("removed", "removed")
    await jobs["removed"].remove()
    jobs["own"] = await queue.add("own", "own", job_id="own", remove_on_complete=True)
    assert (await queue.add("own", "other", job_id="own")).data == "own"
    await queue.pause()
    await queue.resume()
    async with Worker(queue, work, concurrency=3, name="busy"):
        await recorder.wait(CompletedEvent, 8)
        await recorder.wait(FailedEvent)
    await jobs["never"].retry()
    async with Worker(queue, work, name="again"):
        await recorder.wait(FailedEvent, 2)
    jobs["hangs"] = await queue.add("hangs", "hangs")
    async with Worker(queue, work, grace=0, name="hasty"):
        await recorder.wait(ActiveEvent, 13)
    await recorder.wait(ReleasedEvent)
    await claim_silently(queue)
    await expire_leases(queue, clock)
    await recorder.wait(StalledEvent)
    await jobs["hangs"].remove()
    await recorder.wait(RemovedEvent, 3)
    return jobs


def replay(events: list[Event]) -> dict[str, str | None]:
    """Follow every job through its events by the table of transitions; returns where each of them ended."""
    states: dict[str, str | None] = {}

    def move(job_id: str, kind: str, after: str | None) -> None:
        before = states.get(job_id)
        allowed = TRANSITIONS[(JobState(before) if before else None, kind)]
        assert (JobState(after) if after else None) in allowed, f"{job_id}: {before} -> {kind} -> {after}"
        states[job_id] = after

    ends = {"active": "active", "progress": "active", "completed": "completed", "failed": "failed"}
    for event in events:
        if isinstance(event, RemovedEvent):
            for job_id in event.job_ids:
                assert states[job_id] == event.previous
                move(job_id, "removed", None)
        elif isinstance(event, DuplicatedEvent):
            assert states[event.job_id] is not None
        elif isinstance(event, JobEvent):
            if isinstance(event, WaitingEvent | ReleasedEvent | StalledEvent):
                assert states[event.job_id] == event.previous
            move(event.job_id, event.kind, ends.get(event.kind) or str(getattr(event, "state", "")))
    return states


async def test_every_transition_is_told_once_and_in_order(url: str, queue_name: str, clock: Clock) -> None:
    """Case 60: events are numbered without a gap, each transition appears once, and a job's events end where the job is."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        jobs = await everything(queue, recorder, clock)
        events = recorder.events
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert [event.ms for event in events] == sorted(event.ms for event in events)
        assert {event.queue for event in events} == {queue_name}
        ended = replay(events)
        for job in jobs.values():
            stored = await queue.get_job(job.id)
            assert ended[job.id] == (await queue.get_state(job.id) if stored else None), job.name
        counts = recorder.counts()
        for kind in ("drained", "worker_started", "worker_stopped"):
            counts.pop(kind)
        assert counts == {
            "added": 12, "duplicated": 1, "paused": 1, "resumed": 1, "progress": 1, "removed": 3, "released": 1, "stalled": 1,
            "waiting": 3, "retrying": 2, "failed": 2, "completed": 8, "active": 14,
        }  # fmt: skip
        assert recorder.kinds(jobs["plain"].id) == ["added", "active", "completed"]
        assert recorder.kinds(jobs["later"].id) == ["added", "active", "retrying", "waiting", "active", "completed"]
        assert recorder.kinds(jobs["delayed"].id) == ["added", "waiting", "active", "completed"]
        assert recorder.kinds(jobs["never"].id) == ["added", "active", "failed", "waiting", "active", "failed"]
        assert recorder.kinds(jobs["hangs"].id) == ["added", "active", "released", "active", "stalled"]
        assert recorder.kinds("own") == ["added", "duplicated", "active", "completed"]


async def test_events_say_what_a_listener_needs(url: str, queue_name: str, clock: Clock) -> None:
    """Case 60: every event is complete by itself: name, attempt, worker, times, result or error, where the job went and when."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        jobs = await everything(queue, recorder, clock)
        by_id = {job.id: name for name, job in jobs.items()}
        for event in recorder.events:
            if isinstance(event, JobEvent):
                assert event.name == by_id[event.job_id]
            if isinstance(event, ActiveEvent | CompletedEvent | RetryingEvent | FailedEvent | ReleasedEvent | ProgressEvent):
                assert event.attempt in (1, 2)
            if isinstance(event, ActiveEvent | CompletedEvent | RetryingEvent | FailedEvent | ReleasedEvent):
                assert event.worker in ("busy", "again", "hasty", "silent")
                assert 0 <= event.waited < 120 and 0 <= event.ran < 120

        added = {event.name: event for event in recorder.of(AddedEvent)}
        states = {name: added[name].state for name in ("plain", "urgent", "delayed")}
        assert states == {"plain": "waiting", "urgent": "prioritized", "delayed": "delayed"}
        assert added["urgent"].priority == 1
        assert (added["plain"].due, added["far"].due_ms - added["far"].ms) == (None, 3_600_000)
        (progress,) = recorder.of(ProgressEvent)
        assert (progress.name, progress.progress) == ("progress", 50)
        assert {event.name: event.result for event in recorder.of(CompletedEvent, jobs["twice"].id)} == {"twice": "twice"}
        due_at = {event.name: (event.state, event.due_ms - event.ms) for event in recorder.of(RetryingEvent)}
        assert due_at == {"twice": ("waiting", 0), "later": ("delayed", 30)}
        for failed, attempt in zip(recorder.of(FailedEvent), (1, 2), strict=True):
            assert (failed.attempt, failed.reason, failed.exhausted) == (attempt, "error", False)
            assert (failed.error.type, failed.error.message) == ("eventq.errors.Unrecoverable", "no")
        reasons = [(event.previous, event.reason) for event in recorder.of(RemovedEvent)]
        assert reasons == [("waiting", "removed"), ("completed", "retention"), ("waiting", "removed")]
        fences = [event.seq for event in recorder.of(ActiveEvent)]
        assert fences == sorted(set(fences))


async def test_listeners_of_a_worker_hear_what_the_stream_says(url: str, queue_name: str) -> None:
    """Case 60: `worker.on` tells the same facts as the stream, only without a number; `queue.on` is the stream."""
    local: list[Any] = []
    shared: list[Any] = []
    kinds = ("active", "progress", "completed", "retrying", "failed")
    async with Queue(queue_name, url=url) as queue:
        for kind in kinds:
            queue.on(kind, shared.append)
        async with Recorder(queue) as recorder, Worker(queue, work) as worker:
            for kind in kinds:
                worker.on(kind, local.append)
            for name in ("plain", "progress", "twice", "never"):
                await queue.add(name, name, attempts=2)
            await recorder.wait(FailedEvent)
        streamed = [event for event in recorder.events if event.kind in kinds]

    def facts(events: list[Any]) -> list[tuple[Any, ...]]:
        names = "job_id kind attempt worker waited ran ms result error reason exhausted due_ms state traceparent".split()
        told = [tuple(getattr(event, name, None) for name in names) for event in events if event.kind != "progress"]
        return sorted(told, key=lambda fact: fact[:3])

    assert [event.seq for event in local] == [0] * len(streamed)
    assert len(local) == len(shared) == len(streamed)
    assert facts(shared) == facts(streamed)
    assert facts(local) == facts(streamed)
    assert [event.progress for event in local if event.kind == "progress"] == [50]


async def test_drained_comes_once_per_idle_time(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Case 60: `drained` comes when the last job in line has ended, once, whatever the workers; delayed jobs may remain.

    Not at the start of an idle worker, not while a job still runs.
    """
    go = asyncio.Event()

    async def wait(job: Job[Any, Any]) -> None:
        if job.data == "long":
            await go.wait()

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        async with Worker(queue, wait, concurrency=20), Worker(queue, wait):
            await queue.add("n", delay=3600)
            for number in range(1, 4):
                go.clear()
                long = await queue.add("n", "long")
                await queue.add_bulk([NewJob("n", index) for index in range(50)])
                await recorder.wait(CompletedEvent, number * 51 - 1)
                await recorder.catch_up()
                assert len(recorder.of(DrainedEvent)) == number - 1
                go.set()
                await long.result(timeout=5)
                drained = await recorder.wait(DrainedEvent, number)
                assert len(drained) == number
                assert drained[-1].seq == recorder.of(CompletedEvent)[-1].seq + 1
        await recorder.catch_up()
        assert recorder.counts()["drained"] == 3


async def test_a_refused_outcome_drains_nothing(url: str, queue_name: str, clock: Clock) -> None:
    """Case 60: an outcome that comes too late, on a queue that is idle already, is no second `drained`."""

    async def nothing(job: Job[Any, Any]) -> None:
        """Do nothing."""

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        await queue.add("n")
        (late,) = await claim_silently(queue)
        assert await expire_leases(queue, clock) == 1
        async with Worker(queue, nothing):
            await recorder.wait(DrainedEvent)
        context = queue.context
        outcome = Outcome(late.id, late.token, "completed", '"name":"n","attempt":1,"worker":"silent"', "", "")
        command = settle_and_claim(
            context.keys, worker="silent", lease_ms=500, wanted=0, retention=context.retention, progress=[], outcomes=[outcome]
        )
        assert (await context.runner.run(command)).stale == [0]
        await queue.add("last")
        await recorder.wait(AddedEvent, 2)
        assert recorder.counts()["drained"] == 1


@pytest.mark.parametrize(
    ("most_events", "most_bytes", "most_age"),
    [
        pytest.param(120, ENDLESS, ENDLESS, id="events"),
        pytest.param(ENDLESS, 120 * 60, ENDLESS, id="bytes"),
        pytest.param(ENDLESS, ENDLESS, 60_000, id="age"),
    ],
)
async def test_the_stream_stays_near_its_cap(
    url: str, queue_name: str, redis_client: redis.Redis, clock: Clock, most_events: int, most_bytes: int, most_age: int
) -> None:
    """Case 60: trimming keeps the newest events up to the number, bytes or age it was told, to an entry; totals know them all."""
    async with Queue(queue_name, url=url) as queue:
        for _ in range(40):
            await queue.add_bulk([NewJob("n", number) for number in range(10)])
        clock.advance(queue_name, 61)
        await queue.add("last")
        while await queue.context.runner.run(trim_events(queue.context.keys, (most_events, most_bytes, most_age, ENDLESS))):
            pass
        entries: list[Any] = redis_client.xrange(queue.context.keys["events"])  # type: ignore[assignment]
        told = sum(int(entry[1][b"n"]) for entry in entries)
        size = sum(len(entry[1][b"events"]) for entry in entries)
        # An entry goes as a whole: what stays is the cap and less than an entry more.
        assert told < most_events + 10 and size < most_bytes + 700
        assert told == 1 if most_age < ENDLESS else told >= 120
        assert int(entries[-1][1][b"seq"]) == 401
        assert int(redis_client.hget(queue.context.keys["meta"], "seq") or 0) == 401


async def test_a_failing_listener_becomes_an_error_event(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Case 60: what a listener raises is an error event of its queue or worker; jobs, other listeners, later events go on."""
    heard: list[str] = []
    errors: list[ErrorEvent] = []

    def plain(event: CompletedEvent) -> None:
        raise LookupError(f"plain on {event.job_id}")

    async def on_loop(event: CompletedEvent) -> None:
        raise LookupError(f"async on {event.job_id}")

    async with Queue(queue_name, url=url) as queue, Worker(queue, work) as worker:
        for source in (queue, worker):
            source.on("error", errors.append)
            source.on("completed", plain)
            source.on("completed", on_loop)
            source.on("completed", lambda event: heard.append(event.job_id))
        jobs = [await queue.add("plain", number) for number in range(2)]
        for job in jobs:
            assert await job.result(timeout=5) == job.data
        await wait_until(lambda: len(errors) == 8 and len(heard) == 4, description="two errors per source and job")
        assert sorted(heard) == sorted([job.id for job in jobs] * 2)
        assert all(isinstance(event.error, LookupError) for event in errors)
        assert all("raised on completed" in event.message for event in errors)
        assert (await queue.get_job_counts())[JobState.COMPLETED] == 2


async def test_a_failing_error_listener_ends_there(url: str, queue_name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Case 60: an error listener that fails itself is logged, and not told about itself for ever."""
    told: list[ErrorEvent] = []

    async def raise_it(event: Event) -> None:
        if isinstance(event, ErrorEvent):
            told.append(event)
        raise LookupError

    async with Queue(queue_name, url=url) as queue:
        async with Worker(queue, work) as worker:
            worker.on("error", raise_it)
            worker.on("completed", raise_it)
            await (await queue.add("plain", 1)).result(timeout=5)
        assert len(told) == 1
        assert "raised on error" in caplog.text


async def test_listeners_of_a_job_queue_fail_alike(
    url: str, queue_name: str, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """Case 60: so it is with a JobQueue, whose one `on` hears what listeners raise and what its worker meets, each once."""
    errors: list[ErrorEvent] = []

    def note(event: ErrorEvent) -> None:
        errors.append(event)

    async def broken(event: CompletedEvent) -> None:
        raise LookupError(event.job_id)

    async with JobQueue(queue_name, UNTYPED, work, url=url) as jobs, Recorder(jobs.queue) as recorder:
        jobs.on("error", note)
        jobs.on("completed", broken)
        await (await jobs.add_job("plain", 1)).result(timeout=5)
        await wait_until(lambda: len(errors) == 1, description="what the listener raised")
        assert isinstance(errors[0].error, LookupError)
        jobs.worker._runs.error(ConnectionError("the worker's"))
        await recorder.wait(ErrorEvent)
        await wait_until(lambda: len(errors) == 2, description="what the worker met")
        jobs.off("error", note)
        second = await jobs.add_job("plain", 2)
        await wait_until(lambda: second.id in caplog.text, description="the second error in the log")
        jobs.worker._runs.error(ConnectionError("nobody hears it"))
    assert [str(event.error) for event in errors[1:]] == ["the worker's"]


async def test_a_slow_listener_delays_nothing(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Case 60: a listener that hangs delays neither jobs nor other listeners, and does not keep anything from closing."""
    heard: list[str] = []

    async def hang(event: CompletedEvent) -> None:
        await asyncio.Event().wait()

    async with Queue(queue_name, url=url) as queue:
        queue.on("completed", hang)
        queue.on("completed", lambda event: heard.append(event.job_id))
        async with Worker(queue, work):
            jobs = [await queue.add("plain", number) for number in range(5)]
            for job in jobs:
                await job.result(timeout=5)
            await wait_until(lambda: len(heard) == 5, description="the other listener")
    assert heard == [job.id for job in jobs]


@pytest.mark.parametrize("on", ["queue", "worker", "job queue"])
async def test_an_unknown_kind_is_refused(url: str, queue_name: str, on: str) -> None:
    """Case 60: listening for what does not exist is an error at once, not silence."""
    queue: Queue[Any, Any] = Queue(queue_name, url=url)
    sources = {"queue": queue, "worker": Worker(queue, work), "job queue": JobQueue(queue_name, UNTYPED, work, url=url)}
    with pytest.raises(ConfigurationError, match="complete.*must be one of .*completed"):
        sources[on].on("complete", print)


async def read(queue: Queue[Any, Any], consumer: str | None, count: int) -> list[Event]:
    """Read so many events."""
    found: list[Event] = []
    async with asyncio.timeout(5), queue.events(consumer) as stream:
        async for event in stream:
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_where_a_reader_starts_is_defined(url: str, queue_name: str) -> None:
    """Case 60: a live reader starts now; a new durable one at the oldest event kept, and goes on where it stopped."""
    async with Queue(queue_name, url=url) as queue:
        for number in range(1, 4):
            await queue.add(f"job {number}")
        async with queue.events() as live:
            await queue.add("job 4")
            first = await anext(live)
            assert (first.seq, first.kind) == (4, "added")
        assert [event.seq for event in await read(queue, "billing", 2)] == [1, 2]
        # Asking for another event says that one is handled: the last of them was not, and comes again.
        assert [event.seq for event in await read(queue, "billing", 3)] == [2, 3, 4]
        assert [event.seq for event in await read(queue, "other", 4)] == [1, 2, 3, 4]
        while await queue.context.runner.run(trim_events(queue.context.keys, (2, ENDLESS, ENDLESS, 0))):
            pass
        assert [event.seq for event in await read(queue, "newcomer", 2)] == [3, 4]


async def test_what_was_trimmed_unread_is_counted(url: str, queue_name: str) -> None:
    """Case 60: events that are gone before a reader saw them are told as lost, with their exact number."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add("job 1")
        async with queue.events() as live:
            for number in range(2, 12):
                await queue.add(f"job {number}")
            while await queue.context.runner.run(trim_events(queue.context.keys, (3, ENDLESS, ENDLESS, ENDLESS))):
                pass
            lost = await anext(live)
            assert isinstance(lost, LostEvent)
            assert (lost.count, lost.reason, live.lost) == (7, "trimmed", 7)
            assert (await anext(live)).seq == 9


async def test_listeners_connected_before_the_first_add_miss_nothing(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """Case 60: `queue.on` before anything else hears the very first event; connected later, it starts there."""
    early: list[str] = []
    late: list[str] = []
    async with Queue(queue_name, url=url) as queue:
        queue.on("added", lambda event: early.append(event.name))
        await queue.add("first")
        await wait_until(lambda: early == ["first"], description="the first event")
        queue.on("added", lambda event: late.append(event.name))
        await queue.add("second")
        await wait_until(lambda: late == ["second"] and early == ["first", "second"], description="the second event")
