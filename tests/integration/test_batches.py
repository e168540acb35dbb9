"""Batches: jobs are claimed and settled a hundred at a time, and what is wrong with one of them is its own trouble."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis

from eventq import Job, JobState, NewJob, Queue, Worker
from eventq.events import ActiveEvent, CompletedEvent, FailedEvent, RetryingEvent
from eventq.limits import BATCH_JOBS, CALL_BYTES
from eventq.options import JobOptions

from .recorder import Recorder, leased

if TYPE_CHECKING:
    import pytest

#: With so many slots each of a worker's two lanes asks for a whole batch.
TWO_BATCHES = 2 * BATCH_JOBS
RESULT_LIMIT = 64 * 1024


@dataclass
class Order:
    """What the jobs of this queue are about."""

    number: int
    fill: str = ""


class Damage:
    """Changes what is stored of a job behind eventq's back."""

    def __init__(self, client: redis.Redis, queue: Queue[Any, Any]) -> None:
        self._client = client
        self._keys = queue.context.keys

    def record(self, job_id: str, change: Callable[[bytes], bytes]) -> None:
        """Change the record's text."""
        key = self._keys["jobs"]
        text: Any = self._client.hget(key, job_id)
        self._client.hset(key, job_id, change(text))

    def run(self, job_id: str, text: str) -> None:
        """Set the run's text."""
        self._client.hset(self._keys["runs"], job_id, text)

    def lose_data(self, job_id: str) -> None:
        """Remove data that is kept apart from the record."""
        assert self._client.hdel(self._keys["data"], job_id)


def with_data(text: bytes) -> Callable[[bytes], bytes]:
    """Return a change of a record's data."""
    return lambda record: b"\n".join([*record.split(b"\n", 2)[:2], text])


def with_spec(text: bytes) -> Callable[[bytes], bytes]:
    """Return a change of a record's options."""
    return lambda record: b"\n".join([record.split(b"\n", 2)[0], text, record.split(b"\n", 2)[2]])


async def process(job: Job[Order, Any]) -> Any:
    """Return the number; some numbers are trouble."""
    match job.data.number:
        case 10:
            return "x" * RESULT_LIMIT
        case 11:
            return "no number"
        case 12:
            return object()
        case 13:
            raise ValueError("number 13")
        case number:
            return number


#: Number -> the error's type and what its message must say.
TROUBLE: dict[int, tuple[str, list[str]]] = {
    10: ("UnreadableResult", ["result of 65538 bytes", "limit of 65536 bytes", "Limits.result"]),
    11: ("UnreadableResult", ["result", "not a valid int", "Expected `int`, got `str`"]),
    12: ("UnreadableResult", ["result", "a object", "cannot be encoded as JSON"]),
    13: ("ValueError", ["number 13"]),
    20: ("UnreadableJob", ["stored job data is not a valid Order", "truncated"]),
    21: ("UnreadableJob", ["stored job data is not a valid Order", "Expected `int`, got `str`"]),
    22: ("UnreadableJob", ["stored job data is not a valid Order", "missing required field `number`"]),
    23: ("UnreadableJob", ["stored job data is not a valid Order"]),
    24: ("UnreadableJob", ["stored job data is not a valid Order"]),
    30: ("UnreadableJob", ["the stored record is unreadable"]),
    31: ("UnreadableJob", ["the stored record is unreadable", "layout 2"]),
    32: ("UnreadableJob", ["the stored record is unreadable"]),
    33: ("UnreadableJob", ["the stored record is unreadable"]),
    40: ("eventq.processors.UnknownJobName", ["no processor for job name 'stranger'", "it has: order"]),
}


async def test_what_is_wrong_with_a_job_fails_it_alone(
    url: str, queue_name: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a hundred jobs claimed in one call fourteen are broken, each in its way: they fail with a reason, the others run."""
    async with Queue(queue_name, Order, result_type=int, url=url) as queue, Recorder(queue) as recorder:
        fills = {24: "x" * 5000}
        names = {40: "stranger"}
        jobs = await queue.add_bulk(
            [NewJob(names.get(number, "order"), Order(number, fills.get(number, ""))) for number in range(BATCH_JOBS)]
        )
        damage = Damage(redis_client, queue)
        damage.record(jobs[20].id, with_data(b'{"number":'))
        damage.record(jobs[21].id, with_data(b'{"number":"twenty-one"}'))
        damage.record(jobs[22].id, with_data(b"{}"))
        damage.record(jobs[23].id, with_data(b"\xff\xfe"))
        damage.lose_data(jobs[24].id)
        damage.record(jobs[30].id, lambda _: b"garbage")
        damage.record(jobs[31].id, lambda record: b"2" + record[1:])
        damage.record(jobs[32].id, with_spec(b'{"attempts":"many"}'))
        damage.record(jobs[33].id, lambda _: b"\x00\xff\n\n")
        await Worker(queue, {"order": process}, concurrency=TWO_BATCHES, burst=True).run()
        completed = await recorder.wait(CompletedEvent, BATCH_JOBS - len(TROUBLE))
        failed = await recorder.wait(FailedEvent, len(TROUBLE))
        counts = await queue.get_job_counts()
    number_of = {job.id: number for number, job in enumerate(jobs)}
    assert 1 == len({event.ms for event in recorder.of(ActiveEvent)}), "they were claimed in one call"
    assert {event.job_id: event.result for event in completed} == {
        job.id: number for number, job in enumerate(jobs) if number not in TROUBLE
    }
    assert set(TROUBLE) == {number_of[event.job_id] for event in failed}
    for event in failed:
        type_name, words = TROUBLE[number_of[event.job_id]]
        assert type_name == event.error.type, (number_of[event.job_id], event.error)
        assert [] == [word for word in words if word not in event.error.message], event.error
        assert "error" == event.reason
    assert (BATCH_JOBS - len(TROUBLE), len(TROUBLE), 0) == tuple(counts[JobState(s)] for s in ("completed", "failed", "active"))
    assert [] == leased(redis_client, queue)
    assert [] == [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


async def test_a_job_that_cannot_be_read_is_not_tried_again(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Attempts are for what may go better next time: stored data and results do not."""
    async with Queue(queue_name, Order, result_type=int, url=url) as queue, Recorder(queue) as recorder:
        options = JobOptions(attempts=5)
        jobs = await queue.add_bulk([NewJob("order", Order(number), options) for number in (10, 12, 20)])
        Damage(redis_client, queue).record(jobs[2].id, with_data(b"[]"))
        await Worker(queue, process, burst=True).run()
        failed = await recorder.wait(FailedEvent, 3)
        stored = await queue.context.require(jobs[2].id)
    assert [(1, False)] * 3 == [(event.attempt, event.exhausted) for event in failed]
    assert [] == recorder.of(RetryingEvent)
    assert stored.result is not None and "not a valid Order" in json.loads(stored.result)["message"]


async def test_a_damaged_run_fails_its_job_alone(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """What is stored of earlier runs is read by scripts too: when it is garbage, the jobs beside it are still claimed."""
    async with Queue(queue_name, int, url=url) as queue, Recorder(queue) as recorder:
        jobs = await queue.add_bulk([NewJob("j", number) for number in range(20)])
        Damage(redis_client, queue).run(jobs[7].id, "waiting garbage")

        async def double(job: Job[int]) -> int:
            return job.data * 2

        await Worker(queue, double, concurrency=TWO_BATCHES, burst=True).run()
        completed = await recorder.wait(CompletedEvent, 19)
        (failed,) = await recorder.wait(FailedEvent)
    assert {job.id for job in jobs} - {jobs[7].id} == {event.job_id for event in completed}
    assert jobs[7].id == failed.job_id
    assert "unreadable" in failed.error.message


async def test_large_data_and_results_go_in_calls_of_their_own_size(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Sixty jobs with 100 KiB in and 60 KiB out: no call carries much more than a mebibyte, and all of it arrives."""
    data, result = "d" * (100 * 1024), "r" * (60 * 1024)
    async with Queue(queue_name, str, result_type=str, url=url) as queue, Recorder(queue) as recorder:
        await queue.add_bulk([NewJob("j", data) for _ in range(60)])

        async def process(job: Job[str]) -> str:
            return result if job.data == data else "damaged"

        await Worker(queue, process, concurrency=TWO_BATCHES, burst=True).run()
        completed = await recorder.wait(CompletedEvent, 60)
        assert {result} == {await queue.context.runner.run_verb(read_result(queue, event.job_id)) for event in completed}
    per_claim: dict[int, int] = {}
    for event in recorder.of(ActiveEvent):
        per_claim[event.ms] = per_claim.get(event.ms, 0) + 1
    assert max(per_claim.values()) <= CALL_BYTES // len(data) + 1
    assert all(event.result_omitted for event in completed)


def read_result(queue: Queue[Any, Any], job_id: str) -> Any:
    """Return the command that reads a stored result."""
    from eventq.commands.core import Verb

    return Verb(("HGET", queue.context.keys["results"], job_id), json.loads)
