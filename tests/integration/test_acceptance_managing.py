"""Acceptance cases 10, 23, 24, 26, 30, 32, 34 and 45 to 47: changing, retrying, postponing, cleaning, obliterating."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, JobOptions, JobState, NewJob, Postpone, Queue, QueueActive, QueueScheduler, Worker
from eventq.commands.work import Outcome, settle_and_claim
from eventq.errors import InvalidState, JobFailed, JobNotFound
from eventq.events import (
    CleanedEvent,
    CompletedEvent,
    DelayedEvent,
    ErrorEvent,
    FailedEvent,
    ObliteratedEvent,
    RemovedEvent,
    UpdatedEvent,
    WaitingEvent,
)

from .recorder import Recorder, claim_silently, expire_leases, leftovers

if TYPE_CHECKING:
    import redis

    from tests.conftest import Clock


async def order(queue: Queue[Any, Any]) -> list[str]:
    """Return the names of the jobs in line as a worker would get them."""
    return [(await queue.context.require(job.id)).record.name for job in await claim_silently(queue, 100)]


async def end(queue: Queue[Any, Any], word: str, number: int = 1, extra: str | int = "") -> list[str]:
    """Claim jobs and let them end so; returns their ids."""
    context = queue.context
    jobs = await claim_silently(queue, number)
    error = "" if word == "completed" else ',"error":{"type":"E","message":"m"},"reason":"error","exhausted":false'
    body = "" if word == "completed" else '{"type":"E","message":"m"}'
    outcomes = [Outcome(job.id, job.token, word, f'"name":"n","attempt":1,"worker":"w"{error}', body, extra) for job in jobs]
    command = settle_and_claim(
        context.keys, worker="w", lease_ms=60_000, wanted=0, retention=context.retention, progress=[], outcomes=outcomes
    )
    assert (await context.runner.run(command)).stale == []
    return [job.id for job in jobs]


# -- changing


async def test_a_changed_priority_is_a_changed_place(url: str, queue_name: str) -> None:
    """Case 10: with lifo a job is next among its equals, without it comes last of them; a finished job is put into no line."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        jobs = {name: await queue.add(name, priority=2) for name in ("a", "b", "c")}
        jobs |= {name: await queue.add(name) for name in ("x", "y", "z")}
        await jobs["c"].change_priority(2, lifo=True)
        await jobs["b"].change_priority(2, lifo=True)
        await jobs["z"].change_priority(0, lifo=True)
        await jobs["y"].change_priority(1)
        assert await queue.get_counts_per_priority([0, 1, 2, 7]) == {0: 2, 1: 1, 2: 3, 7: 0}
        assert (await jobs["y"].get_state(), await jobs["z"].get_state()) == (JobState.PRIORITIZED, JobState.WAITING)
        assert [job.name for job in await queue.get_jobs("waiting", ascending=True)] == ["z", "x"]
        assert await order(queue) == ["z", "x", "y", "b", "c", "a"]
        await recorder.catch_up()
        (event,) = recorder.of(UpdatedEvent, jobs["y"].id)
        assert (event.what, event.state, event.previous, event.priority) == ("priority", "prioritized", "waiting", 1)

        done = await queue.add("done")
        await end(queue, "completed")
        with pytest.raises(InvalidState, match="is completed: a finished job stands in no line"):
            await done.change_priority(1, lifo=True)
        assert await queue.count() == 0


async def test_what_is_delayed_or_runs_comes_in_at_its_new_priority(url: str, queue_name: str, clock: Clock) -> None:
    """A delayed job keeps its due time, a running one its run; both stand at the new priority when they come into line."""
    async with Queue(queue_name, url=url) as queue:
        late, running = await queue.add("late", delay=5, priority=7), await queue.add("running")
        await queue.add("first", priority=2)
        (claimed,) = await claim_silently(queue)
        await late.change_priority(1)
        await running.change_priority(3)
        assert (await late.get_state(), await running.get_state()) == (JobState.DELAYED, JobState.ACTIVE)
        context = queue.context
        outcomes = [Outcome(claimed.id, claimed.token, "retry", '"name":"running","attempt":1,"worker":"w"', "{}", 0)]
        await context.runner.run(
            settle_and_claim(
                context.keys, worker="w", lease_ms=60_000, wanted=0, retention=context.retention, progress=[], outcomes=outcomes
            )
        )
        clock.advance(queue_name, 6)
        assert await order(queue) == ["late", "first", "running"]


async def test_a_changed_delay_counts_from_now(url: str, queue_name: str, clock: Clock) -> None:
    """Only a delayed job has a delay to change; sooner wakes an idle worker, which had meant to sleep longer."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        job = await queue.add("n", delay=3600)
        async with Worker(queue, lambda _: None):
            await job.change_delay(0.05)
            await job.result(timeout=5)
        await recorder.catch_up()
        (event,) = recorder.of(DelayedEvent)
        assert (event.state, event.previous, event.due) == ("delayed", "delayed", (await queue.get_job(job.id) or job).due_at)
        with pytest.raises(InvalidState, match="is completed: only a delayed job has a delay to change"):
            await job.change_delay(5)
        other = await queue.add("other", delay=10)
        await other.change_delay(100)
        clock.advance(queue_name, 50)
        assert await order(queue) == []
        clock.advance(queue_name, 51)
        assert await order(queue) == ["other"]


async def test_replaced_data_is_what_the_next_run_sees(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Small data may become large and small again; what does not fit the type or the limit is refused and changes nothing."""
    async with Queue(queue_name, dict[str, int | str], url=url) as queue:
        job = await queue.add("n", {"a": 1})
        versions: list[dict[str, int | str]] = [{"text": "x" * 3000}, {"b": 2}]
        for data in versions:
            await job.update_data(data)
            assert job.data == data
            found = await queue.get_job(job.id)
            assert found and found.data == data
        assert redis_client.hlen(queue.context.keys["data"]) == 0
        with pytest.raises(ValueError, match="job data"):
            await job.update_data([1])  # type: ignore[arg-type]
        (claimed,) = await claim_silently(queue)
        assert claimed.record.endswith('\n{"b":2}')


async def test_the_log_keeps_its_last_lines(url: str, queue_name: str) -> None:
    """A thousand lines and 64 KiB, in the order they were added; whatever the text, it is one line."""
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("n")
        assert await job.get_logs() == []
        await job.log('quo"te\nand\x00more')
        for number in range(1_050):
            await job.log(f"line {number}")
        lines = await queue.get_job_logs(job.id, 0, 1_000)
        assert (len(lines), lines[0], lines[-1]) == (1_000, "line 50", "line 1049")
        assert await job.get_logs(998, 5) == ["line 1048", "line 1049"]
        await job.clear_logs(keep=1)
        assert await job.get_logs() == ["line 1049"]
        await job.clear_logs()
        await job.log('quo"te\nand\x00more')
        assert await job.get_logs() == ['quo"te\nand\x00more']
        for _ in range(12):
            await job.log("x" * 8_000)
        assert len(await job.get_logs()) == 8
        with pytest.raises(ValueError, match="log line of 9002 bytes"):
            await job.log("x" * 9_000)
        await job.remove()
        with pytest.raises(JobNotFound):
            await job.log("gone")
        with pytest.raises(JobNotFound):
            await queue.get_job_logs(job.id)


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "thread"])
async def test_a_processor_logs_and_updates_from_wherever_it_runs(url: str, queue_name: str, is_plain: bool) -> None:
    """The same calls on the loop and in a thread; both are done before the outcome."""

    async def work(job: Job[int, Any]) -> None:
        await job.update_data(job.data + 1)
        await job.log(f"now {job.data}")

    def plain(job: Job[int, Any]) -> None:
        job.update_data(job.data + 1)  # type: ignore[unused-awaitable]
        job.log(f"now {job.data}")  # type: ignore[unused-awaitable]

    async with Queue(queue_name, int, url=url) as queue, Worker(queue, plain if is_plain else work):
        job = await queue.add("n", 1)
        await job.result(timeout=5)
        assert await job.get_logs() == ["now 2"]
        found = await queue.get_job(job.id)
        assert found and found.data == 2


# -- retrying and postponing


async def test_what_was_due_before_a_failure_runs_before_its_retry(url: str, queue_name: str, clock: Clock) -> None:
    """Case 23: delayed jobs that are due come first, unless the retried one has a priority that says otherwise."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add("retried", attempts=2)
        await queue.add("due", delay=5)
        (claimed,) = await claim_silently(queue)
        clock.advance(queue_name, 6)
        context = queue.context
        outcomes = [Outcome(claimed.id, claimed.token, "retry", '"name":"retried","attempt":1,"worker":"w"', "{}", 0)]
        await context.runner.run(
            settle_and_claim(
                context.keys, worker="w", lease_ms=60_000, wanted=0, retention=context.retention, progress=[], outcomes=outcomes
            )
        )
        assert await order(queue) == ["due", "retried"]


async def test_of_two_retries_one_is_refused(url: str, queue_name: str) -> None:
    """Case 24: the second of two retries at once finds the job not failed; with reset its counters begin anew."""
    async with Queue(queue_name, url=url) as queue, Queue(queue_name, url=url) as other:
        job = await queue.add("n", attempts=1)
        await end(queue, "failed")
        same = await other.get_job(job.id)
        assert same and same.run.fails == 1
        answers = await asyncio.gather(job.retry(reset_attempts=True), same.retry(reset_attempts=True), return_exceptions=True)
        (refused,) = [answer for answer in answers if answer is not None]
        assert isinstance(refused, InvalidState) and "is waiting: only a failed job can be retried" in str(refused)
        found = await queue.get_job(job.id)
        assert found and (found.run.fails, found.run.stalls, found.attempt) == (0, 0, 1)
        assert len(await claim_silently(queue, 5)) == 1


async def test_a_postponed_job_goes_on_where_it_was(url: str, queue_name: str) -> None:
    """Case 26: back to delayed by its own step; the same data, no attempt charged, one start more; too many starts fail it."""
    seen: list[tuple[int, int, int]] = []

    async def work(job: Job[int, Any]) -> int:
        seen.append((job.data, job.attempt, job.run.starts))
        if job.name == "endless" or job.data < 2:
            await job.update_data(job.data + 1)
            raise Postpone(delay=0.01)
        return job.data

    async with Queue(queue_name, int, url=url) as queue, Recorder(queue) as recorder, Worker(queue, work) as worker:
        told = asyncio.Event()
        worker.on("delayed", lambda _: told.set())
        job = await queue.add("steps", 0, attempts=1)
        assert await job.result(timeout=5) == 2
        assert seen == [(0, 1, 1), (1, 1, 2), (2, 1, 3)]
        await asyncio.wait_for(told.wait(), 5)
        await recorder.catch_up()
        kinds = ["added", *["active", "updated", "delayed", "waiting"] * 2, "active", "completed"]
        assert recorder.kinds(job.id) == kinds
        event = recorder.of(DelayedEvent)[0]
        assert (event.previous, event.state, event.attempt, event.worker) == ("active", "delayed", 1, worker.name)

        endless = await queue.add("endless", 0, max_starts=3, attempts=5)
        with pytest.raises(JobFailed, match="postponed after 3 starts, and max_starts is 3"):
            await endless.result(timeout=5)
        found = await queue.get_job(endless.id)
        assert found and (found.run.starts, found.run.releases, found.run.fails) == (3, 2, 1)


async def test_a_postponement_that_is_none_fails_the_attempt(url: str, queue_name: str) -> None:
    """A delay that is no delay is the processor's mistake: an ordinary failure that names it."""

    async def work(_: Job[Any, Any]) -> None:
        raise Postpone(delay=-1)

    async with Queue(queue_name, url=url) as queue, Worker(queue, work):
        with pytest.raises(JobFailed, match="Postpone delay -1"):
            await (await queue.add("n")).result(timeout=5)


# -- stalls


async def test_an_outcome_without_its_lease_is_told_and_not_recorded(
    url: str, queue_name: str, redis_client: redis.Redis
) -> None:
    """Case 30: the job is taken away while it runs; the worker says so, records nothing, and works on."""
    taken = asyncio.Event()

    async def work(job: Job[Any, Any]) -> str:
        if job.name == "taken":
            taken.set()
            await go_on.wait()
        return "done"

    go_on = asyncio.Event()
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, work) as worker:
        errors: list[ErrorEvent] = []
        worker.on("error", errors.append)
        job = await queue.add("taken")
        await asyncio.wait_for(taken.wait(), 5)
        runs, field = queue.context.keys["runs"], job.id
        text = redis_client.hget(runs, field)
        assert isinstance(text, bytes)
        redis_client.hset(runs, field, text.replace(text.split(b" ")[1], b"other.1.0"))
        go_on.set()
        assert await (await queue.add("next")).result(timeout=5) == "done"
        await recorder.catch_up()
        assert recorder.of(CompletedEvent, job.id) == []
        assert [type(event.error).__name__ for event in errors] == ["LeaseLost"]


async def test_stalls_are_counted_over_retries(url: str, queue_name: str, clock: Clock) -> None:
    """Case 32: a failed attempt does not forget how often the job has stalled."""
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("n", attempts=3)
        await claim_silently(queue)
        assert await expire_leases(queue, clock) == 1
        await end(queue, "retry", extra=0)
        found = await queue.get_job(job.id)
        assert found and (found.run.stalls, found.run.fails, found.attempt) == (1, 1, 2)


async def test_whoever_is_there_takes_stalled_jobs_back(url: str, queue_name: str) -> None:
    """Case 34, differently on purpose: BullMQ's workers can be told not to look for stalled jobs. Here every worker carries a
    scheduler and nothing turns it off, since a queue whose workers all leave that to others would lose jobs for good.
    """
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("n")
        await claim_silently(queue, lease=0.3)
        async with QueueScheduler(queue, lease=0.3), Worker(queue, lambda _: "again", lease=0.5):
            assert await job.result(timeout=10) == "again"


# -- cleaning


async def fill(queue: Queue[Any, Any], clock: Clock, state: JobState) -> tuple[list[str], list[str]]:
    """Bring jobs into a state, half of them an hour before the others; returns the ids of both halves."""
    halves: list[list[str]] = []
    for seconds in (3600, 0):
        options = {JobState.DELAYED: JobOptions(delay=86_400), JobState.PRIORITIZED: JobOptions(priority=1)}.get(state)
        ids = [job.id for job in await queue.add_bulk([NewJob("n", None, options) for _ in range(6)])]
        if state in (JobState.COMPLETED, JobState.FAILED):
            ids = await end(queue, state, 6)
        elif state is JobState.ACTIVE:
            await claim_silently(queue, 6, lease=60 if seconds else 86_400)
        halves.append(ids)
        clock.advance(queue.name, seconds)
    if state is JobState.PAUSED:
        await queue.pause()
    return halves[0], halves[1]


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.WAITING_CHILDREN])
async def test_clean_removes_what_is_old_and_no_more(
    url: str, queue_name: str, clock: Clock, redis_client: redis.Redis, state: JobState
) -> None:
    """Case 45: only what is older than the grace, at most the limit, ids returned, events with the right count."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        old, young = await fill(queue, clock, state)
        progress: list[int] = []
        removed = await queue.clean(600, 4, state, on_progress=progress.append)
        assert (len(removed), set(removed) <= set(old), progress) == (4, True, [4])
        removed += await queue.clean(600, None, state)
        assert sorted(removed) == sorted(old)
        assert await queue.clean(600, None, state) == []
        assert (await queue.get_job_counts())[state] == len(young)
        for job_id in old:
            assert leftovers(redis_client, queue, job_id) <= {"wait"}  # a hole, which the next claim drops
        await recorder.catch_up()
        assert [job_id for event in recorder.of(RemovedEvent) for job_id in event.job_ids] == removed
        assert {event.reason for event in recorder.of(RemovedEvent)} == {"cleaned"}
        assert sum(event.count for event in recorder.of(CleanedEvent)) == len(old)


async def test_clean_takes_what_cannot_be_read(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 45: a job of which nobody can say how old it is, is old."""
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("n")
        redis_client.hset(queue.context.keys["jobs"], job.id, "damaged")
        assert await queue.clean(3600, None, "waiting") == [job.id]


async def test_clean_of_paused_and_waiting_are_told_apart(url: str, queue_name: str) -> None:
    """`paused` are the waiting jobs of a paused queue; asked for the other word, nothing is removed."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add("n")
        assert await queue.clean(0, None, "paused") == []
        await queue.pause()
        assert await queue.clean(0, None, "waiting") == []
        assert len(await queue.clean(0, None, "paused")) == 1


async def test_a_cleaned_run_is_lost_to_its_worker(url: str, queue_name: str, clock: Clock) -> None:
    """An active job is removed only when its lease has ended; its run counts as stalled, and its token is refused."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        job = await queue.add("n")
        (claimed,) = await claim_silently(queue)
        assert await queue.clean(0, None, "active") == []
        clock.advance(queue_name, 61)
        assert await queue.clean(0, None, "active") == [job.id]
        await recorder.catch_up()
        assert recorder.kinds(job.id) == ["added", "active", "stalled"]
        context = queue.context
        outcomes = [Outcome(claimed.id, claimed.token, "completed", '"name":"n","attempt":1,"worker":"w"', "", "")]
        command = settle_and_claim(
            context.keys, worker="w", lease_ms=60_000, wanted=0, retention=context.retention, progress=[], outcomes=outcomes
        )
        assert (await context.runner.run(command)).stale == [0]


async def test_drain_leaves_what_was_not_asked_for(url: str, queue_name: str) -> None:
    """Waiting and prioritized jobs go, delayed ones when asked; running and finished ones stay, and what comes later too."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        await queue.add_bulk([NewJob("n") for _ in range(2)])
        (done,) = await end(queue, "completed")
        (running,) = [job.id for job in await claim_silently(queue)]
        for options in (None, JobOptions(priority=1), JobOptions(delay=60), JobOptions(lifo=True)):
            await queue.add_bulk([NewJob("n", None, options) for _ in range(700)])
        counts: list[int] = []
        assert await queue.drain(on_progress=counts.append) == 2_100
        assert counts[-1] == 2_100 and all(after - before <= 250 for before, after in zip([0, *counts], counts, strict=False))
        left = {state.value: number for state, number in (await queue.get_job_counts()).items() if number}
        assert left == {"active": 1, "delayed": 700, "completed": 1}
        assert await queue.drain(delayed=True) == 700
        assert (await queue.get_job(done), await queue.get_job(running)) != (None, None)
        await recorder.catch_up()
        assert {(event.previous, event.reason) for event in recorder.of(RemovedEvent)} == {
            ("waiting", "drained"), ("prioritized", "drained"), ("delayed", "drained"),
        }  # fmt: skip


async def test_jobs_are_removed_by_id(url: str, queue_name: str) -> None:
    """Those that can be; running and unknown ones are left, and the answer says which went."""
    async with Queue(queue_name, url=url) as queue:
        jobs = await queue.add_bulk([NewJob("n") for _ in range(700)])
        (running,) = await claim_silently(queue)
        ids = [job.id for job in jobs]
        assert await queue.remove_jobs(["nobody", *ids]) == [job_id for job_id in ids if job_id != running.id]
        with pytest.raises(ValueError, match="must be several ids, not one"):
            await queue.remove_jobs("nobody")


# -- obliterating


async def test_obliterate_leaves_nothing(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 46: refused while jobs run; forced, every key is gone, logs and schedules too.

    Differently on purpose, readers' positions are left for a day, and the stream with one event, because readers must hear of it.
    """
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        options = (None, None, JobOptions(priority=1), JobOptions(delay=60))
        await queue.add_bulk([NewJob("n", {"x": "y" * 2000}, each) for each in options])
        await end(queue, "completed")
        (claimed,) = await claim_silently(queue)
        running = await queue.get_job(claimed.id)
        assert running
        await running.log("line")
        async with queue.events("billing"):
            pass
        with pytest.raises(QueueActive, match="1 running jobs, so nothing was removed"):
            await queue.obliterate()
        assert await queue.obliterate(force=True) == 4
        keys = {key.decode().rpartition(":")[2] for key in redis_client.scan_iter(match=f"*{{{queue_name}}}*")}
        assert keys == {"events", "consumers"}
        for column in keys:
            assert 0 < int(str(redis_client.pttl(queue.context.keys[column]))) <= 86_400_000
        assert redis_client.hget("eventq:queues", queue_name) is None
        assert await queue.obliterate() == 0
        context = queue.context
        outcomes = [Outcome(claimed.id, claimed.token, "completed", '"name":"n","attempt":1,"worker":"w"', "", "")]
        command = settle_and_claim(
            context.keys, worker="w", lease_ms=60_000, wanted=0, retention=context.retention, progress=[], outcomes=outcomes
        )
        assert (await context.runner.run(command)).stale == [0]

        job = await queue.add("anew")
        assert redis_client.pttl(context.keys["events"]) == -1, "the stream of the new epoch stays"
        assert await queue.get_state(job.id) is JobState.WAITING
        await recorder.wait(ObliteratedEvent)
        async with asyncio.timeout(5):
            while recorder.kinds(job.id) != ["added"]:
                recorder._news.clear()
                await recorder._news.wait()
        assert [event.count for event in recorder.of(ObliteratedEvent)] == [4]
        assert [event.kind for event in recorder.events if event.kind == "lost"] == []
        assert recorder.events[-1].seq == 1 or recorder.events[-1].kind != "added"


async def test_a_reader_that_was_away_hears_of_the_end(url: str, queue_name: str) -> None:
    """What it had not read is told to the unit, then the end, then what came after it; nothing is called a rollback."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add("first")
        async with queue.events("billing") as stream:
            assert (await anext(stream)).kind == "added"
            asking = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            asking.cancel()
        await queue.add_bulk([NewJob("n") for _ in range(5)])
        await queue.obliterate()
        await queue.add("anew")
        async with queue.events("billing") as stream:
            events = [await anext(stream) for _ in range(3)]
        assert [event.kind for event in events] == ["lost", "obliterated", "added"]
        assert (getattr(events[0], "count", 0), getattr(events[0], "reason", "")) == (5, "trimmed")
        assert [event.seq for event in events[1:]] == [7, 1]


async def test_whoever_waits_for_a_result_is_told_of_the_end(url: str, queue_name: str) -> None:
    """The job is gone with its queue."""
    async with Queue(queue_name, url=url) as queue:
        job = await queue.add("n")
        waiting = asyncio.ensure_future(job.result(timeout=5))
        while not queue._listener._waiters:
            await asyncio.sleep(0)
        await queue.obliterate()
        with pytest.raises(JobNotFound):
            await waiting


# -- a paused queue


async def test_in_a_paused_queue_everything_waits(url: str, queue_name: str) -> None:
    """Case 47: what is retried, promoted or added while the queue is paused runs when it is resumed."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        await queue.add_bulk([NewJob("failed") for _ in range(3)])
        await end(queue, "failed", 3)
        await queue.add_bulk([NewJob("late", None, JobOptions(delay=3600)) for _ in range(3)])
        await queue.pause()
        async with Worker(queue, lambda _: None, concurrency=3):
            assert (await queue.retry_jobs(limit=2), await queue.retry_jobs(), await queue.promote_jobs()) == (2, 1, 3)
            await queue.add("added")
            await recorder.catch_up()
            assert len(recorder.of(WaitingEvent)) == 6
            counts = await queue.get_job_counts()
            assert (counts[JobState.PAUSED], counts[JobState.FAILED], counts[JobState.DELAYED]) == (7, 0, 0)
            await queue.resume()
            await recorder.wait(CompletedEvent, 7)
        assert recorder.of(FailedEvent)[3:] == []


async def test_promoted_jobs_keep_their_priority_and_their_order(url: str, queue_name: str) -> None:
    """Into line as they would have come when due, the one that is due first first. BullMQ ignores priorities here."""
    async with Queue(queue_name, url=url) as queue:
        for name, delay, priority in (("c", 30, 0), ("b", 20, 0), ("z", 10, 2), ("y", 40, 1)):
            await queue.add(name, delay=delay, priority=priority)
        await queue.add("a", delay=5)
        assert await queue.promote_jobs() == 5
        assert await order(queue) == ["a", "b", "c", "y", "z"]
        with pytest.raises(InvalidState, match="only a delayed job can be promoted"):
            await (await queue.add("n")).promote()


async def test_a_reader_that_comes_after_the_end_has_lost_nothing(url: str, queue_name: str) -> None:
    """It begins with the new epoch, whether that has an event already or not."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add_bulk([NewJob("n") for _ in range(20)])
        await queue.obliterate()
        async with queue.events() as stream:
            first, second = await queue.add("n"), await queue.add("n")
            events = [await anext(stream) for _ in range(2)]
            assert [(event.kind, event.seq) for event in events] == [("added", 1), ("added", 2)]
            assert [getattr(event, "job_id", "") for event in events] == [first.id, second.id]
            assert stream.lost == 0


def test_a_call_outside_of_the_loop_hangs_nobody(url: str, queue_name: str) -> None:
    """Where the loop stands still, a log line is a call to be awaited, as elsewhere."""
    with asyncio.Runner() as runner:
        queue: Queue[Any, Any] = Queue(queue_name, url=url)
        job = runner.run(queue.add("n"))

        async def awaited(call: Any) -> None:
            await call

        runner.run(awaited(job.log("line")))
        assert runner.run(job.get_logs()) == ["line"]
        runner.run(queue.close())
