"""Bad input: each refusal names what, the value and the limit, and nothing is stored."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis

from eventq import Backoff, Job, JobOptions, JobQueue, Keep, Limits, NewJob, Queue, QueueScheduler, Worker
from eventq.errors import BulkAddError, ConfigurationError, EventqError, InvalidJob, JobNotFound
from eventq.limits import CALL_JOBS, MAX_ATTEMPTS, MAX_PRIORITY

from .recorder import PATIENCE

if TYPE_CHECKING:
    from ..conftest import MakeServer

Bad = dict[str, Any]
NAME_LIMIT = "must be 1 to 128 of A-Z a-z 0-9 . _ -"
LATER = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class Email:
    """What the typed queue takes."""

    to: str
    copies: int = 1


def stored(client: redis.Redis) -> dict[bytes, bytes]:
    """Return everything the server holds but the records of calls, which are history."""
    keys = [key for key in cast("list[bytes]", client.keys()) if not key.endswith((b":calls", b":timers"))]
    return {key: cast("bytes", client.dump(key)) for key in keys}


async def refuse(
    client: redis.Redis, call: Callable[[], Awaitable[Any]], words: list[str], error: type[EventqError] = InvalidJob
) -> EventqError:
    """Call, and check that it is refused with these words and changes nothing on the server."""
    before = stored(client)
    with pytest.raises(error) as caught:
        await call()
    assert [] == [word for word in words if word not in str(caught.value)], str(caught.value)
    assert before == stored(client)
    return caught.value


# --- options ----------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[Bad, list[str]]] = {
    "id with a colon": ({"job_id": "a:b"}, ["job_id 'a:b'", NAME_LIMIT]),
    "id with a space": ({"job_id": "a b"}, ["job_id 'a b'", NAME_LIMIT]),
    "id that is empty": ({"job_id": ""}, ["job_id ''", NAME_LIMIT]),
    "id too long": ({"job_id": "x" * 129}, ["job_id 'xxx", NAME_LIMIT]),
    "id that is a number": ({"job_id": 7}, ["job_id 7", NAME_LIMIT]),
    "delay negative": ({"delay": -1}, ["delay -1", "not negative", "ten years"]),
    "delay negative timedelta": ({"delay": timedelta(seconds=-1)}, ["delay", "not negative"]),
    "delay NaN": ({"delay": math.nan}, ["delay nan", "not negative", "ten years"]),
    "delay endless": ({"delay": math.inf}, ["delay inf", "at most ten years"]),
    "delay too long": ({"delay": timedelta(days=4000)}, ["delay", "at most ten years (315360000 seconds)"]),
    "delay as text": ({"delay": "5"}, ["delay '5'", "must be seconds (int or float) or a timedelta, not str"]),
    "delay as bool": ({"delay": True}, ["delay True", "must be seconds"]),
    "delay and at": ({"delay": 1, "at": LATER}, ["delay 1", "at datetime", "give one of them"]),
    "at naive": ({"at": datetime(2030, 1, 1)}, ["at datetime", "has no time zone"]),
    "at as number": ({"at": 1_900_000_000}, ["at 1900000000", "must be an aware datetime, not int"]),
    "at too early": ({"at": datetime(1960, 1, 1, tzinfo=UTC)}, ["at datetime", "between 1970 and 2109"]),
    "attempts 0": ({"attempts": 0}, ["attempts 0", f"whole number from 1 to {MAX_ATTEMPTS}"]),
    "attempts half": ({"attempts": 1.5}, ["attempts 1.5", "whole number from 1"]),
    "attempts bool": ({"attempts": True}, ["attempts True", "whole number from 1"]),
    "attempts text": ({"attempts": "3"}, ["attempts '3'", "whole number from 1"]),
    "attempts too many": ({"attempts": MAX_ATTEMPTS + 1}, ["attempts 1000001", f"to {MAX_ATTEMPTS}"]),
    "priority negative": ({"priority": -1}, ["priority -1", f"whole number from 0 to {MAX_PRIORITY}"]),
    "priority too high": ({"priority": MAX_PRIORITY + 1}, [f"priority {MAX_PRIORITY + 1}", f"to {MAX_PRIORITY}"]),
    "priority float": ({"priority": 1.0}, ["priority 1.0", "whole number from 0"]),
    "lifo number": ({"lifo": 1}, ["lifo 1", "must be True or False"]),
    "backoff negative": ({"backoff": -0.5}, ["backoff -0.5", "not negative"]),
    "backoff text": ({"backoff": "exponential"}, ["backoff 'exponential'", "must be seconds"]),
    "timeout 0": ({"timeout": 0}, ["timeout 0", "at least 0.001"]),
    "timeout negative": ({"timeout": -5}, ["timeout -5", "at least 0.001"]),
    "keep negative": ({"remove_on_complete": -1}, ["remove_on_complete -1", "not negative"]),
    "keep text": (
        {"remove_on_fail": "always"},
        ["remove_on_fail 'always'", "True, False, a number of jobs", "Keep(count=, age=)"],
    ),
    "keep fraction": ({"remove_on_fail": 0.5}, ["remove_on_fail 0.5", "must be True, False"]),
}


@pytest.mark.parametrize("case", OPTIONS)
async def test_a_bad_option_is_refused_and_nothing_stored(
    url: str, queue_name: str, redis_client: redis.Redis, case: str
) -> None:
    """By add, by add_bulk and by JobQueue alike."""
    said, words = OPTIONS[case]
    async with Queue(queue_name, url=url) as queue:
        await queue.add("before")
        await refuse(redis_client, lambda: queue.add("j", 1, **said), words)

        async def bulk() -> None:
            await queue.add_bulk([NewJob("j", 1), NewJob("j", 2, JobOptions(**said))])

        await refuse(redis_client, bulk, words)
        both = JobQueue(queue_name, int, print, url=url)
        await refuse(redis_client, lambda: both.add_job("j", 1, **said), words)
        await both.close()


def test_what_options_are_made_of_is_refused_where_it_is_made() -> None:
    """Keep, Backoff and Limits check what they are given."""
    bad: list[tuple[Callable[[], object], list[str]]] = [
        (Keep, ["Keep()", "give count, age or both"]),
        (lambda: Keep(count=-1), ["Keep count -1", "whole number, not negative"]),
        (lambda: Keep(count=1.5), ["Keep count 1.5"]),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (lambda: Keep(age=-1), ["Keep age -1", "not negative"]),
        (lambda: Backoff.fixed(1, jitter=2), ["backoff jitter 2", "from 0 to 1"]),
        (lambda: Backoff.exponential(-1), ["backoff delay -1", "not negative"]),
        (lambda: Backoff.custom("fixed"), ["backoff strategy name 'fixed'", "not fixed or exponential"]),
    ]
    for make, words in bad:
        with pytest.raises(InvalidJob) as caught:
            make()
        assert [] == [word for word in words if word not in str(caught.value)]


# --- names and data ---------------------------------------------------------------------------------------------------

BAD_NAMES: list[Any] = ["", "a\nb", "ä", "a\tb", 'a"b', "a\\b", "{a}", "x" * 129, None, 5]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
async def test_a_bad_job_name_is_refused(url: str, queue_name: str, redis_client: redis.Redis, name: Any) -> None:
    """What needs escaping anywhere cannot name a job."""
    async with Queue(queue_name, url=url) as queue:
        words = ["job name", "must be 1 to 128 of A-Z a-z 0-9 . _ - : / and space"]
        await refuse(redis_client, lambda: queue.add(name), words)
        error = await refuse(redis_client, lambda: queue.add_bulk([NewJob("j", 1), NewJob(name, 2)]), words)
        assert str(error).startswith("job 1 of 2: ") and str(error).endswith("nothing was added")


@pytest.mark.parametrize("name", [*BAD_NAMES, "a b", "a:b", "a/b"], ids=repr)
async def test_a_bad_queue_name_is_refused_before_anything_is_opened(url: str, redis_client: redis.Redis, name: Any) -> None:
    """Queue, Worker, JobQueue and QueueScheduler say so when they are made."""
    makers: list[Callable[[], object]] = [
        lambda: Queue(name, url=url),
        lambda: JobQueue(name, int, print, url=url),
    ]
    if name is not None:
        makers += [lambda: Queue("fine", tag=name, url=url)]
    if isinstance(name, str):
        makers += [lambda: Worker(name, print, url=url), lambda: QueueScheduler(name, url=url)]

    for make in makers:

        async def attempt(make: Callable[[], object] = make) -> None:
            make()

        await refuse(redis_client, attempt, ["queue name", NAME_LIMIT], ConfigurationError)


async def test_data_beyond_the_limit_is_refused_and_at_the_limit_taken(
    url: str, queue_name: str, redis_client: redis.Redis
) -> None:
    """256 KiB of JSON, counted in bytes; the limit can be changed and the refusal says how."""
    limit = 256 * 1024
    async with Queue(queue_name, url=url) as queue:
        at_the_limit = await queue.add("j", "x" * (limit - 2))
        assert (await queue.get_job(at_the_limit.id)) is not None
        for data, size in (("x" * (limit - 1), limit + 1), ("ü" * (limit // 2), limit + 2)):
            words = [f"job data of {size} bytes", f"the limit of {limit} bytes (Limits.data)"]
            await refuse(redis_client, partial(queue.add, "j", data), words)
            await refuse(redis_client, partial(queue.add_bulk, [NewJob("j", 1), NewJob("j", data)]), ["job 1 of 2", *words])
    async with Queue(queue_name, url=url, limits=Limits(data=10)) as small:
        await refuse(redis_client, lambda: small.add("j", "x" * 9), ["job data of 11 bytes", "limit of 10 bytes"])


def circle() -> list[Any]:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


#: What JSON cannot say.
NO_JSON: dict[str, Any] = {
    "an object": object(),
    "a set with an object": {object()},
    "a function": circle,
    "a circle": circle(),
    "an object deep inside": {"a": [object()]},
    "half a character": "\ud800",
}


@pytest.mark.parametrize("case", NO_JSON)
async def test_data_without_a_json_form_is_refused(url: str, queue_name: str, redis_client: redis.Redis, case: str) -> None:
    """The refusal says what could not be encoded."""
    data = NO_JSON[case]
    async with Queue(queue_name, url=url) as queue:
        await refuse(redis_client, lambda: queue.add("j", data), [f"job data: a {type(data).__name__} cannot be encoded as JSON"])


@pytest.mark.parametrize("data", [None, "a@b.c", {"to": 5}, {"copies": 2}, Email(5), Email("a@b.c", "two")], ids=repr)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def test_data_of_another_type_is_refused(url: str, queue_name: str, redis_client: redis.Redis, data: Any) -> None:
    """A typed queue stores nothing that its workers could not read."""
    async with Queue(queue_name, Email, url=url) as queue:
        await refuse(redis_client, lambda: queue.add("j", data), ["job data", "is not a valid Email"])


@pytest.mark.parametrize("type", [int | list[int] | list[str]], ids=repr)
async def test_a_type_that_cannot_be_checked_is_refused(url: str, queue_name: str, type: Any) -> None:
    """When the queue is made, with what to use instead."""
    with pytest.raises(ConfigurationError, match=r"job data type .*: not a type that can be checked: .*; use a dataclass"):
        Queue(queue_name, type, url=url)
    with pytest.raises(ConfigurationError, match=r"result type .*: not a type that can be checked"):
        Queue(queue_name, int, result_type=type, url=url)


async def test_a_result_beyond_the_limit_fails_its_job_and_stores_the_reason_only(
    url: str, queue_name: str, redis_client: redis.Redis
) -> None:
    """64 KiB of JSON in bytes; not retried, as it would be the same again."""

    async def process(job: Job[int]) -> str:
        return "x" * (job.data - 2)

    async with Queue(queue_name, int, url=url) as queue:
        jobs = [await queue.add("j", size, attempts=3) for size in (64 * 1024, 64 * 1024 + 1)]
        await Worker(queue, process, burst=True).run()
        assert 64 * 1024 - 2 == len(await jobs[0].result(PATIENCE))
        with pytest.raises(EventqError, match=r"result of 65537 bytes: larger than the limit of 65536 bytes \(Limits.result\)"):
            await jobs[1].result(PATIENCE)
        text = redis_client.hget(queue.context.keys["results"], jobs[1].id)
        assert isinstance(text, bytes) and len(text) < 10_000 and (await queue.context.require(jobs[1].id)).run.fails == 1


# --- bulk -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"name": "j"}, ["job 2 of 3", "dict is not a NewJob"]),
        (NewJob("j", object()), ["job 2 of 3", "cannot be encoded as JSON", "nothing was added"]),
        (NewJob("", 1), ["job 2 of 3", "job name ''", "nothing was added"]),
        (NewJob("j", 1, {"delay": 5}), ["job 2 of 3", "options {'delay': 5}", "must be JobOptions"]),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ],
    ids=["dict", "data", "name", "options"],
)
async def test_one_bad_job_of_a_bulk_stops_all_of_it(
    url: str, queue_name: str, redis_client: redis.Redis, bad: Any, words: list[str]
) -> None:
    """Everything is checked before anything is sent, and the refusal says which one it was."""
    async with Queue(queue_name, url=url) as queue:
        await refuse(redis_client, lambda: queue.add_bulk([NewJob("j", 1), NewJob("j", 2), bad]), words)
        assert [] == await queue.add_bulk([])
        assert 0 == await queue.count()


async def test_a_bulk_that_is_refused_half_way_says_what_is_in(make_server: MakeServer, queue_name: str) -> None:
    """Each call is all or nothing: when memory ends in the middle, the error holds exactly the jobs that are stored."""
    server = make_server()
    jobs = [NewJob("j", f"{number} " + "x" * 1500) for number in range(CALL_JOBS * 12)]
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        async with Queue(queue_name, url=server.url) as queue:
            await queue.add("before")
            used: Any = client.info("memory")
            client.config_set("maxmemory", used["used_memory"] + 6_000_000)
            with pytest.raises(BulkAddError, match=r"(\d+) of 6000 jobs were added, then: .*out of memory") as caught:
                await queue.add_bulk(jobs)
            added = caught.value.added
            assert 0 < len(added) < len(jobs) and 0 == len(added) % CALL_JOBS
            assert 1 + len(added) == await queue.count()
            assert [job.data for job in jobs[: len(added)]] == [job.data for job in added]
            assert str(len(added)) in str(caught.value)
            assert [added[0].id, added[-1].id] == [job.id for job in [await queue.get_job(added[at].id) for at in (0, -1)] if job]


async def test_a_bulk_whose_first_call_is_refused_adds_nothing(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """An unknown layout changes nothing, whatever is asked for."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add("before")
        redis_client.hset(queue.context.keys["meta"], "layout", "9")
        words = ["0 of 1000 jobs were added, then: ", "says layout 9", "knows layout 1"]
        error = await refuse(redis_client, lambda: queue.add_bulk([NewJob("j", 1)] * 1000), words, BulkAddError)
        assert isinstance(error, BulkAddError) and [] == error.added


# --- queues and workers -----------------------------------------------------------------------------------------------


QUEUE_SETTINGS: dict[str, tuple[Bad, list[str]]] = {
    "own id for all": (
        {"default_options": JobOptions(job_id="one")},
        ["default_options job_id 'one'", "an id belongs to one job"],
    ),
    "options as dict": ({"default_options": {"attempts": 3}}, ["default_options {'attempts': 3}", "must be JobOptions"]),
    "prefix with colon": ({"prefix": "a:b"}, ["prefix 'a:b'", "1 to 64"]),
    "tag with space": ({"tag": "a b"}, ["queue name 'a b'", NAME_LIMIT]),
    "another scheme": ({"url": "http://h"}, ["url 'http://h'", "must start with redis://, rediss://, unix://, embedded://"]),
    "no scheme": ({"url": "localhost:6379"}, ["url 'localhost:6379'", "must start with"]),
    "no port": ({"url": "redis://localhost:port"}, ["url 'redis://localhost:port'", "check host and port"]),
    "url as number": ({"url": 6379}, ["url 6379", "must be a string"]),
    "limits as dict": ({"limits": {"data": 5}}, ["limits {'data': 5}", "must be Limits"]),
}


@pytest.mark.parametrize("case", QUEUE_SETTINGS)
def test_a_bad_setting_of_a_queue_is_refused_when_it_is_made(case: str) -> None:
    """Before any I/O, with what and value."""
    said, words = QUEUE_SETTINGS[case]
    with pytest.raises(ConfigurationError) as caught:
        Queue("fine", **said)
    assert [] == [word for word in words if word not in str(caught.value)], str(caught.value)


WORKER_SETTINGS: dict[str, tuple[Bad, list[str]]] = {
    "no slot": ({"concurrency": 0}, ["concurrency 0", "whole number from 1 to 100000"]),
    "slots NaN": ({"concurrency": math.nan}, ["concurrency nan", "whole number from 1"]),
    "slots bool": ({"concurrency": True}, ["concurrency True", "whole number from 1"]),
    "too many slots": ({"concurrency": 100_001}, ["concurrency 100001", "to 100000"]),
    "lease too short": ({"lease": 0.1}, ["lease 0.1", "at least 0.5"]),
    "lease as text": ({"lease": "15"}, ["lease '15'", "must be seconds"]),
    "lease NaN": ({"lease": math.nan}, ["lease nan", "at least 0.5"]),
    "grace negative": ({"grace": -1}, ["grace -1", "not negative"]),
    "stalls negative": ({"max_stalls": -1}, ["max_stalls -1", "whole number from 0"]),
    "no job": ({"max_jobs": 0}, ["max_jobs 0", "whole number from 1"]),
    "name with space": ({"name": "a b"}, ["worker name 'a b'", "1 to 128 of A-Z a-z 0-9 . _ : @ -"]),
    "name empty": ({"name": ""}, ["worker name ''"]),
    "name with quote": ({"name": 'x"y'}, ["worker name 'x\"y'"]),
    "strategy is no function": ({"backoffs": {"mine": 5}}, ["backoffs 'mine'", "must be callable"]),
    "strategies without names": ({"backoffs": [1]}, ["backoffs [1]", "must be a mapping"]),
}


@pytest.mark.parametrize("case", WORKER_SETTINGS)
def test_a_bad_setting_of_a_worker_is_refused_when_it_is_made(case: str) -> None:
    """Case 14 and its like, with what, value and limit."""
    said, words = WORKER_SETTINGS[case]
    with pytest.raises((ConfigurationError, InvalidJob)) as caught:
        Worker("fine", print, url="redis://localhost", **said)
    assert [] == [word for word in words if word not in str(caught.value)], str(caught.value)


@pytest.mark.parametrize("queue", [None, 5, b"q", ["q"]], ids=repr)
def test_what_is_no_queue_has_no_worker(queue: Any) -> None:
    """A worker and a scheduler take a Queue or a name."""
    with pytest.raises(ConfigurationError, match=r"queue .*: must be a Queue or a name"):
        Worker(queue, print)
    with pytest.raises(ConfigurationError, match=r"queue .*: must be a Queue or a name"):
        QueueScheduler(queue)


def test_a_queue_has_one_url(url: str) -> None:
    """A worker of a Queue takes no url of its own."""
    with pytest.raises(ConfigurationError, match="the queue has one already"):
        Worker(cast("Any", Queue("q", url=url)), print, url=url)


@pytest.mark.parametrize(
    "make", [lambda url: Queue("q", url=url), lambda url: Worker("q", print, url=url)], ids=["queue", "worker"]
)
@pytest.mark.parametrize("kind", ["complete", "", "Completed", "job_completed", None, 5], ids=repr)
def test_an_unknown_event_kind_is_refused_with_those_there_are(url: str, make: Any, kind: Any) -> None:
    """`on` with a typing mistake does not listen to nothing."""
    source = make(url)
    calls: list[Callable[[], object]] = [
        lambda: source.on(kind),
        lambda: source.on(kind, print),
        lambda: source.off(kind, print),
    ]
    for listen in calls:
        with pytest.raises(ConfigurationError, match=r"event kind .*: must be one of added, .*completed") as caught:
            listen()
        assert repr(kind) in str(caught.value)


def test_a_receiver_must_be_callable(url: str) -> None:
    """What cannot be called with an event is refused at once."""
    with pytest.raises(ConfigurationError, match="receiver 5: must be callable with one event"):
        Queue("q", url=url).on("completed", cast("Any", 5))


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda queue: queue.get_jobs("done"), ["'done'", "must be one of waiting, prioritized, delayed, active"]),
        (lambda queue: queue.get_jobs(["waiting", "Failed"]), ["'Failed'", "must be one of"]),
        (lambda queue: queue.get_jobs([None]), ["None", "must be one of"]),
        (lambda queue: queue.get_jobs("waiting", -1), ["start -1", "must not be negative"]),
        (lambda queue: queue.get_jobs("waiting", 0, 0), ["limit 0", f"1 to {CALL_JOBS}"]),
        (lambda queue: queue.get_jobs("waiting", 0, CALL_JOBS + 1), [f"limit {CALL_JOBS + 1}", f"1 to {CALL_JOBS}"]),
    ],
    ids=range(6),
)
async def test_a_bad_question_is_refused(
    url: str, queue_name: str, redis_client: redis.Redis, call: Any, words: list[str]
) -> None:
    """Unknown states and pages that there cannot be."""
    async with Queue(queue_name, url=url) as queue:
        await refuse(redis_client, lambda: call(queue), words, ConfigurationError)


async def test_a_job_that_is_not_there_is_named(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """JobNotFound carries queue and id; an id that cannot be one is InvalidJob."""
    async with Queue(queue_name, url=url) as queue:
        assert None is await queue.get_job("nobody")
        error = await refuse(redis_client, lambda: queue.get_state("nobody"), ["'nobody'", queue_name], JobNotFound)
        assert isinstance(error, JobNotFound) and (queue_name, "nobody") == (error.queue, error.job_id)
        await refuse(redis_client, lambda: queue.get_job("a b"), ["job_id 'a b'", "must be 1 to 256 of A-Z a-z 0-9 . _ - :"])
        job = await queue.add("j")
        await job.remove()
        for call in (job.get_state, job.remove, job.retry, lambda: job.result(1)):
            await refuse(redis_client, call, [job.id, queue_name], JobNotFound)


async def test_a_consumer_needs_a_name_like_a_queue(url: str, queue_name: str) -> None:
    """Readers are named by the same alphabet."""
    async with Queue(queue_name, url=url) as queue:
        with pytest.raises(ConfigurationError, match="'a b'"):
            queue.events(consumer="a b")
