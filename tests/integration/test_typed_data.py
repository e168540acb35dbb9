"""Typed data and results: checked on the way in, decoded on the way out, and what does not fit fails alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from eventq import Job, JobQueue, JobState, NewJob, Queue, Worker
from eventq.errors import ConfigurationError, InvalidJob, JobFailed
from eventq.events import CompletedEvent, FailedEvent, RetryingEvent
from eventq.limits import Limits

from .recorder import UNTYPED, Recorder

if TYPE_CHECKING:
    import redis


class Size(Enum):
    """An enum inside the data."""

    SMALL = "s"
    LARGE = "l"


@dataclass
class Item:
    """A part of an order."""

    name: str
    price: Decimal


@dataclass
class OrderDataclass:
    """With what JSON does not know by itself."""

    number: int
    at: datetime
    items: list[Item] = field(default_factory=list[Item])
    size: Size = Size.SMALL
    key: UUID | None = None


class OrderDict(TypedDict):
    """A plain dict with known keys."""

    number: int
    note: str | None


class OrderStruct(msgspec.Struct, frozen=True):
    """A struct of msgspec."""

    number: int
    tags: frozenset[str] = frozenset()


class OrderModel(pydantic.BaseModel):
    """A model that checks more than types."""

    number: int = pydantic.Field(gt=0)
    email: str = "a@b.c"

    @pydantic.field_validator("email")
    @classmethod
    def _has_at(cls, value: str) -> str:
        if "@" not in value:
            raise ValueError("no @ in it")
        return value


NOW = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)
KEY = UUID("12345678123456781234567812345678")
VALUES: list[tuple[Any, Any]] = [
    (OrderDataclass, OrderDataclass(1, NOW, [Item("tea", Decimal("1.10"))], Size.LARGE, KEY)),
    (OrderDict, {"number": 1, "note": None}),
    (OrderStruct, OrderStruct(1, frozenset({"a", "b"}))),
    (OrderModel, OrderModel(number=1, email="x@y.z")),
    (list[int], [1, 2, 3]),
    (int, 7),
    (int | str, "seven"),
    (dict[str, Item], {"tea": Item("tea", Decimal("2"))}),
]
NAMES = ["dataclass", "TypedDict", "Struct", "pydantic", "list", "int", "union", "dict of dataclasses"]


@pytest.mark.parametrize(("type_", "value"), VALUES, ids=NAMES)
async def test_data_and_results_keep_their_type(url: str, queue_name: str, type_: Any, value: Any) -> None:
    """Data reaches the processor as what was added, a result whoever waits as what was returned; a lookup gives the same."""
    seen: list[Any] = []

    async def work(job: Job[Any, Any]) -> Any:
        seen.append(job.data)
        return job.data

    queue: Queue[Any, Any] = Queue(queue_name, type_, result_type=type_, url=url)
    async with queue, Worker(queue, work):
        job = await queue.add("n", value)
        assert job.data == value
        result = await job.result(timeout=5)
        assert await job.result(timeout=5) == result
        stored = await queue.get_job(job.id)
        assert stored is not None
        for each in (seen[0], result, stored.data):
            assert (type(each), each) == (type(value), value)


@pytest.mark.parametrize(
    ("type_", "wrong", "told"),
    [
        pytest.param(OrderDataclass, {"number": "one", "at": NOW}, "number", id="dataclass"),
        pytest.param(OrderDataclass, OrderDataclass("1", NOW), "number", id="dataclass of wrong fields"),  # type: ignore[arg-type]
        pytest.param(OrderDict, {"number": 1}, "note", id="TypedDict"),
        pytest.param(OrderStruct, None, "null", id="Struct"),
        pytest.param(OrderModel, OrderModel.model_construct(number=-1), "number", id="pydantic value"),
        pytest.param(OrderModel, {"number": 1}, "expected OrderModel, got a dict", id="pydantic by dict"),
        pytest.param(OrderModel, OrderModel.model_construct(number=1, email="nowhere"), "no @ in it", id="pydantic validator"),
        pytest.param(int, 1.5, "int", id="int"),
        pytest.param(Any, object(), "cannot be encoded", id="no JSON"),
        pytest.param(Any, {1, object()}, "cannot be encoded", id="no JSON inside"),
        pytest.param(str, "\ud800", "cannot be encoded", id="half a character"),
    ],
)
async def test_wrong_data_is_refused_at_add(url: str, queue_name: str, type_: Any, wrong: Any, told: str) -> None:
    """What does not fit is refused where it is added, saying what is wrong; nothing is stored, of a bulk neither."""
    queue: Queue[Any, Any] = Queue(queue_name, type_, url=url)
    right = next((value for known, value in VALUES if known is type_), "text" if type_ is str else 1)
    async with queue:
        with pytest.raises(InvalidJob, match=f"(?s)job data.*{told}"):
            await queue.add("n", wrong)
        with pytest.raises(InvalidJob, match=f"(?s)job 2 of 4: .*{told}.*nothing was added"):
            await queue.add_bulk([NewJob("n", right), NewJob("n", right), NewJob("n", wrong), NewJob("n", right)])
        assert set((await queue.get_job_counts()).values()) == {0}


async def test_data_over_the_limit_is_refused(url: str, queue_name: str) -> None:
    """Data over the limit is refused at add with size, limit and the option's name; in bytes, not characters."""
    async with Queue(queue_name, str, url=url, limits=Limits(data=1000)) as queue:
        await queue.add("n", "x" * 998)
        with pytest.raises(InvalidJob, match=r"1001 bytes.*1000 bytes.*Limits\.data"):
            await queue.add("n", "x" * 999)
        with pytest.raises(InvalidJob, match="1002 bytes"):
            await queue.add("n", "ä" * 500)
        assert await queue.count() == 1
    async with Queue(queue_name, str, url=url) as queue:
        await queue.add("n", "x" * (256 * 1024 - 2))
        with pytest.raises(InvalidJob, match="262145 bytes"):
            await queue.add("n", "x" * (256 * 1024 - 1))


async def test_a_type_that_cannot_be_checked_is_refused(url: str, queue_name: str) -> None:
    """A data type whose JSON says not which of its parts it is, is a configuration error when the queue is made."""
    ambiguous: Any = OrderStruct | OrderDict
    with pytest.raises(ConfigurationError, match="job data type.*OrderStruct"):
        Queue(queue_name, ambiguous, url=url)
    with pytest.raises(ConfigurationError, match="result type.*OrderStruct"):
        Queue(queue_name, int, result_type=ambiguous, url=url)


async def test_stored_data_that_does_not_fit_fails_that_job_alone(url: str, queue_name: str) -> None:
    """Jobs of another version of the program, whose data no longer fits, fail with the reason; the others run, the worker lives.

    Another attempt would not help: there is none, whatever is left.
    """
    ran: list[int] = []

    async def work(job: Job[OrderStruct, None]) -> None:
        ran.append(job.data.number)

    queue: Queue[OrderStruct, None] = Queue(queue_name, OrderStruct, url=url)
    async with Queue(queue_name, url=url) as other, queue, Recorder(queue) as recorder:
        good = await other.add("n", {"number": 1})
        bad = await other.add("n", {"numbers": [1]}, attempts=5, backoff=1)
        good_too = await other.add("n", {"number": 2})
        async with Worker(queue, work, concurrency=2):
            with pytest.raises(JobFailed) as caught:
                await bad.result(timeout=5)
            await good.result(timeout=5)
            await good_too.result(timeout=5)
            await (await queue.add("n", OrderStruct(3))).result(timeout=5)
        assert caught.value.type == "UnreadableJob"
        assert "not a valid OrderStruct" in caught.value.reason and "number" in caught.value.reason
        assert sorted(ran) == [1, 2, 3]
        await recorder.catch_up()
        assert recorder.kinds(bad.id) == ["added", "active", "failed"]
        (failed,) = recorder.of(FailedEvent)
        assert (failed.name, failed.attempt, failed.exhausted, failed.reason) == ("n", 1, False, "error")
        # It can be looked up and listed; its data says what is wrong when it is asked for.
        (listed,) = [job for job in await queue.get_jobs("failed") if job.id == bad.id]
        with pytest.raises(InvalidJob, match="not a valid OrderStruct"):
            _ = listed.data
        # Who does not ask for the type can still look at it.
        stored = await other.get_job(bad.id)
        assert stored is not None and stored.data == {"numbers": [1]}


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(b"garbage", id="no record"),
        pytest.param(b"9\t1\t\t\t\tn\t\n\n1", id="another layout"),
        pytest.param(b"1\tx\t\t\t\tn\t\n\n1", id="no time"),
        pytest.param(b"1\t1\t\t\t\tn\t\n{broken\n1", id="broken options"),
        pytest.param(b"1\t1\t\t\t\tn\t\n\n{broken", id="broken JSON"),
        pytest.param(b"1\t1\t\t\t\tn\t\n\n\xff\xfe", id="no UTF-8"),
        pytest.param(b"1\t1\t\t\td\tn\t\n\n", id="large data that is gone"),
        pytest.param(b'1\t1\t\t\t\ta"b\t\n\n1', id="a name that ends a text"),
        pytest.param(b"1\t1\t\t\t\ta\x01b\t\n\n1", id="a name with a control character"),
    ],
)
async def test_a_damaged_record_fails_that_job_alone(url: str, queue_name: str, redis_client: redis.Redis, record: bytes) -> None:
    """A record that is damaged in Redis fails its own job with a reason; the batch it came with runs, the worker lives on."""

    async def work(job: Job[Any, Any]) -> Any:
        return job.data

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        before, damaged, after = [await queue.add("n", number) for number in range(3)]
        redis_client.hset(queue.context.keys["jobs"], damaged.id, record)
        async with Worker(queue, work, concurrency=3):
            assert await before.result(timeout=5) == 0
            assert await after.result(timeout=5) == 2
            (failed,) = await recorder.wait(FailedEvent)
            assert await (await queue.add("n", 3)).result(timeout=5) == 3
        assert (failed.job_id, failed.error.type) == (damaged.id, "UnreadableJob")
        assert failed.error.message
        counts = await queue.get_job_counts()
        assert (counts[JobState.COMPLETED], counts[JobState.FAILED], counts[JobState.ACTIVE]) == (3, 1, 0)


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(b'"traceparent', id="cut off"),
        pytest.param(b'"service":"a"},{"job_id":"x"', id="another event"),
        pytest.param(b'"service":"a","job_id":"x","result":5', id="other facts"),
    ],
)
async def test_a_damaged_trace_context_harms_no_event(url: str, queue_name: str, redis_client: redis.Redis, trace: bytes) -> None:
    """The outcomes of a batch stand in one JSON text: what is damaged in one job makes none of them unreadable or another."""

    async def work(job: Job[Any, Any]) -> Any:
        return job.data

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        jobs = await queue.add_bulk([NewJob("n", number) for number in range(3)])
        redis_client.hset(queue.context.keys["jobs"], jobs[1].id, b"1\t1\t\t\t\tn\t%b\n\n1" % trace)
        await Worker(queue, work, concurrency=3, burst=True).run()
        await recorder.catch_up()
        assert [(event.job_id, event.result) for event in recorder.of(CompletedEvent)] == [
            (job.id, number) for number, job in enumerate(jobs)
        ]


@pytest.mark.parametrize(
    ("result_type", "result", "told"),
    [
        pytest.param(Any, lambda: None, "cannot be encoded", id="a function"),
        pytest.param(Any, {"deep": [object()]}, "cannot be encoded", id="inside"),
        pytest.param(Any, "x" * 64 * 1024, "65538 bytes.*Limits.result", id="too large"),
        pytest.param(Any, "\ud800", "cannot be encoded", id="half a character"),
        pytest.param(int, "seven", "not a valid int", id="another type"),
        pytest.param(OrderStruct, {"numbers": 1}, "not a valid OrderStruct", id="another shape"),
        pytest.param(OrderModel, {"number": 1}, "expected OrderModel", id="not the model"),
    ],
)
async def test_a_result_that_cannot_be_stored_fails_without_retry(
    url: str, queue_name: str, result_type: Any, result: Any, told: str
) -> None:
    """What cannot be encoded, is too large or not of the promised type fails the job at once: running again would not help."""
    ran: list[str] = []

    async def work(job: Job[Any, Any]) -> Any:
        ran.append(job.id)
        return result if job.data == "bad" else None

    queue: Queue[Any, Any] = Queue(queue_name, UNTYPED, result_type=result_type, url=url)
    async with queue, Recorder(queue) as recorder, Worker(queue, work):
        bad, good = await queue.add("n", "bad", attempts=5), await queue.add("n", "good")
        with pytest.raises(JobFailed, match=f"(?s){told}") as caught:
            await bad.result(timeout=5)
        assert await good.result(timeout=5) is None
        assert caught.value.type == "UnreadableResult"
        assert ran == [bad.id, good.id]
        await recorder.catch_up()
        assert recorder.kinds(bad.id) == ["added", "active", "failed"]
        assert len(recorder.of(RetryingEvent)) == 0


async def test_a_result_of_any_type_is_told_as_json(url: str, queue_name: str) -> None:
    """Listeners get results as plain JSON values, whoever waits gets the queue's type; a status has it too."""

    async def work(job: Job[int, OrderDataclass]) -> OrderDataclass:
        return OrderDataclass(job.data, NOW, size=Size.LARGE)

    jobs = JobQueue(queue_name, int, work, result_type=OrderDataclass, url=url)
    async with jobs, Recorder(jobs.queue) as recorder:
        job = await jobs.add_job("n", 5)
        expected = OrderDataclass(5, NOW, size=Size.LARGE)
        assert await job.result(timeout=5) == expected
        assert (await jobs.get_job_status(job.id)).result == expected
        (event,) = await recorder.wait(CompletedEvent)
        assert event.result == {"number": 5, "at": "2026-11-21T18:00:00Z", "items": [], "size": "l", "key": None}


async def test_stored_results_that_no_longer_fit_are_an_error(url: str, queue_name: str) -> None:
    """A result stored by another version of the program is an error to who asks for it as a type, and stays stored."""

    async def work(job: Job[Any, Any]) -> Any:
        return {"old": True}

    async with Queue(queue_name, url=url) as old:
        job = await old.add("n")
        async with Worker(old, work):
            await job.result(timeout=5)
        new: Queue[Any, OrderStruct] = Queue(queue_name, UNTYPED, result_type=OrderStruct, url=url)
        async with new:
            found = await new.get_job(job.id)
            assert found is not None
            with pytest.raises(InvalidJob, match="not a valid OrderStruct"):
                await found.result(timeout=5)
        assert await job.result(timeout=5) == {"old": True}
