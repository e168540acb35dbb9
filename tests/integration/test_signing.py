"""Signed queues on real servers: what is altered in Redis behind their backs does not run."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis

from eventq import (
    BadSignature,
    JobFailed,
    JobOptions,
    JobQueue,
    JobState,
    NewJob,
    Queue,
    QueueScheduler,
    SigningKeys,
    SyncQueue,
    Worker,
)
from eventq.events import AddedEvent, ErrorEvent, FailedEvent

from .command_line import PATIENCE, CommandLine
from .recorder import UNTYPED, Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from eventq import Job

    from ..conftest import WaitUntil

OLD, NEW = secrets.token_bytes(32), secrets.token_bytes(32)
KEYS = SigningKeys({"new": NEW, "old": OLD})


class Ran:
    """A processor that keeps what it was called with."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str, Any, int]] = []

    async def __call__(self, job: Job[Any, Any]) -> str:
        self.jobs.append((job.id, job.name, job.data, job.max_attempts))
        return "done"

    @property
    def ids(self) -> set[str]:
        """Return the ids of what ran."""
        return {job_id for job_id, *_ in self.jobs}


@pytest.fixture
async def queue(url: str, queue_name: str) -> AsyncIterator[Queue[Any, Any]]:
    """A signed queue."""
    async with Queue(queue_name, url=url, signing_keys=KEYS) as queue:
        yield queue


@pytest.fixture
async def plain(url: str, queue_name: str) -> AsyncIterator[Queue[Any, Any]]:
    """The same queue for somebody without keys."""
    async with Queue(queue_name, url=url) as plain:
        yield plain


async def work_off(queue: Queue[Any, Any], concurrency: int = 50) -> Ran:
    """Run what is in line, and return what ran."""
    ran = Ran()
    await Worker(queue, ran, burst=True, concurrency=concurrency).run()
    return ran


def text_of(client: redis.Redis, key: str, field: str) -> bytes:
    """Return what is stored, without eventq."""
    return cast("bytes", client.hget(key, field))


async def failure(queue: Queue[Any, Any], job_id: str) -> tuple[str, str]:
    """Return why a job failed."""
    job = await queue.get_job(job_id)
    assert job is not None and job.error is not None and await job.get_state() is JobState.FAILED
    return job.error.type, job.error.message


# -- altered jobs


@pytest.mark.parametrize("mask", [0x01, 0x80])
@pytest.mark.parametrize("size", [0, 1000])
async def test_no_altered_byte_runs(queue: Queue[Any, Any], redis_client: redis.Redis, size: int, mask: int) -> None:
    """Of job after job another byte is altered, in its record and in data kept apart: none runs but as it was signed.

    What is not signed stands before the name (times, priority, flags) and behind it (trace): there a job may run all the same.
    """
    data = {"to": "a", "text": "x" * size}
    options = JobOptions(attempts=3, timeout=60)
    column = queue.context.keys["data" if size else "jobs"]
    probe = await queue.add("welcome", data, attempts=3, timeout=60)
    length = len(text_of(redis_client, column, probe.id))
    name_at = 0 if size else text_of(redis_client, column, probe.id).index(b"welcome")
    jobs = await queue.add_bulk([NewJob("welcome", data, options) for _ in range(length)])
    with redis_client.pipeline(transaction=False) as alter:
        for at, job in enumerate(jobs):
            text = bytearray(text_of(redis_client, column, job.id) or b"")
            assert len(text) == length
            text[at] ^= mask
            alter.hset(column, job.id, bytes(text))
        alter.execute()
    async with Recorder(queue) as recorder:
        ran = await work_off(queue)
        await recorder.catch_up()
    assert probe.id in ran.ids
    assert {(name, repr(data), attempts) for _, name, data, attempts in ran.jobs} == {("welcome", repr(data), 3)}
    signed = {job.id for at, job in enumerate(jobs) if at >= name_at and at != name_at + len("welcome\t")}
    assert not ran.ids & signed
    failed = {event.job_id: event for event in recorder.of(FailedEvent)}
    assert signed <= failed.keys()
    assert {event.error.type for event in failed.values()} <= {"BadSignature", "UnreadableJob"}
    assert Counter(event.error.type for event in failed.values())["BadSignature"] > 0.8 * len(signed)


@pytest.mark.parametrize("size", [0, 2000])
async def test_a_job_does_not_run_under_another_id(queue: Queue[Any, Any], redis_client: redis.Redis, size: int) -> None:
    """Nor with the name, the options or the data of another, though each is signed."""
    keys = queue.context.keys
    pay = await queue.add("pay", {"euro": 1, "text": "x" * size}, job_id="pay", attempts=5)
    await queue.add("warn", {"euro": 9, "text": "x" * size}, job_id="warn")
    for job_id in ("copy", "name", "data", "spec"):
        await queue.add("pay", {"euro": 2, "text": "x" * size}, job_id=job_id, attempts=5)
    records = {job_id: text_of(redis_client, keys["jobs"], job_id) for job_id in ("pay", "warn", "name", "data", "spec")}
    header, spec, data = records["pay"].split(b"\n", 2)
    redis_client.hset(keys["jobs"], "copy", records["pay"])
    redis_client.hset(keys["jobs"], "name", records["name"].replace(b"\tpay\t", b"\twarn\t"))
    redis_client.hset(keys["jobs"], "spec", records["spec"].replace(b'"attempts":5', b'"attempts":6'))
    if size:
        for job_id in ("copy", "data"):
            redis_client.hset(keys["data"], job_id, text_of(redis_client, keys["data"], "pay"))
    else:
        redis_client.hset(keys["jobs"], "data", b"\n".join([*records["data"].split(b"\n", 2)[:2], data]))
    ran = await work_off(queue)
    assert ran.ids == {"pay", "warn"}, (header, spec)
    for job_id in ("copy", "name", "data", "spec"):
        kind, why = await failure(queue, job_id)
        assert (kind, "it was altered, or moved here" in why) == ("BadSignature", True)
    assert await pay.get_state() is JobState.COMPLETED


async def test_a_job_of_another_queue_does_not_run_here(url: str, queue: Queue[Any, Any], redis_client: redis.Redis) -> None:
    """Though it is signed with the same keys, and under the same id."""
    tag = queue.name
    async with Queue(f"{queue.name}-other", url=url, tag=tag, signing_keys=KEYS) as other:
        theirs = await other.add("pay", 1, job_id="one")
        await queue.add("pay", 1, job_id="one")
        redis_client.hset(queue.context.keys["jobs"], "one", text_of(redis_client, other.context.keys["jobs"], theirs.id))
    assert not (await work_off(queue)).jobs
    assert (await failure(queue, "one"))[0] == "BadSignature"


async def test_unsigned_jobs_do_not_run(queue: Queue[Any, Any], plain: Queue[Any, Any]) -> None:
    """They fail at once, whatever attempts they have, with an event that says why; the worker and its other jobs go on."""
    ran = Ran()
    async with Recorder(queue) as recorder, Worker(queue, ran) as worker:
        forged = await plain.add("pay", {"euro": 1}, attempts=5)
        with pytest.raises(JobFailed, match="it is not signed") as caught:
            await forged.result(10)
        good = await queue.add("pay", {"euro": 2})
        assert await good.result(10) == "done"
        assert worker.is_running
        await recorder.catch_up()
    (event,) = recorder.of(FailedEvent)
    assert (caught.value.type, event.error.type, event.job_id, event.attempt) == ("BadSignature", "BadSignature", forged.id, 1)
    assert not event.exhausted
    assert ran.ids == {good.id}


async def test_an_unsigned_job_cannot_ask_to_be_forgotten(queue: Queue[Any, Any], plain: Queue[Any, Any]) -> None:
    """Nobody obeys its options: it stays as long as the queue's failed jobs do."""
    forged = await plain.add("pay", {"euro": 1}, remove_on_fail=True)
    assert not (await work_off(queue)).jobs
    assert (await failure(queue, forged.id))[0] == "BadSignature"


async def test_a_worker_without_keys_runs_no_signed_job(queue: Queue[Any, Any], plain: Queue[Any, Any]) -> None:
    """It says what it lacks. With keys the job can be retried, and runs."""
    job = await queue.add("pay", {"euro": 1})
    assert not (await work_off(plain)).jobs
    kind, why = await failure(plain, job.id)
    assert (kind, "there are no signing keys here" in why) == ("BadSignature", True)
    await job.retry()
    assert (await work_off(queue)).jobs == [(job.id, "pay", {"euro": 1}, 1)]


async def test_keys_are_rotated(url: str, queue_name: str) -> None:
    """New key beside the old one, then before it, then alone: what was signed before runs until its key is gone."""
    async with Queue(queue_name, url=url, signing_keys={"old": OLD}) as before:
        first = await before.add("pay", 1)
        async with Queue(queue_name, url=url, signing_keys={"old": OLD, "new": NEW}) as between:
            second = await between.add("pay", 2)
            async with Queue(queue_name, url=url, signing_keys=KEYS) as queue:
                third = await queue.add("pay", 3)
                assert (await work_off(queue)).ids == {first.id, second.id, third.id}
        late = await before.add("pay", 4)
    async with Queue(queue_name, url=url, signing_keys={"new": NEW}) as after:
        assert not (await work_off(after)).jobs
        assert "signed by key 'old', which is none of the signing keys here: new" in (await failure(after, late.id))[1]


# -- everything else goes on


@pytest.mark.parametrize("data", [{"to": "a"}, {"text": "x" * 3000}, None])
async def test_who_has_no_keys_sees_the_data(queue: Queue[Any, Any], plain: Queue[Any, Any], data: Any) -> None:
    """It is a signature and hides nothing."""
    job = await queue.add("pay", data)
    for reader in (queue, plain):
        found = await reader.get_job(job.id)
        (listed,) = await reader.get_jobs("waiting")
        assert found is not None and (found.data, listed.data) == (data, data)


async def test_a_running_job_signs_its_new_data(queue: Queue[Any, Any], plain: Queue[Any, Any]) -> None:
    """Small or large, and in a thread: the next run verifies it as it did the first."""
    seen: list[Any] = []

    def step(job: Job[Any, Any]) -> Any:
        seen.append(job.data)
        saved = job.update_data({"step": job.data["step"] + 1, "text": "x" * 1500 * (job.attempt % 2)})
        raise ValueError(f"again, after {saved}")

    job = await queue.add("steps", {"step": 0}, attempts=4)
    await Worker(queue, step, burst=True).run()
    assert [data["step"] for data in seen] == [0, 1, 2, 3]
    assert (await failure(queue, job.id))[0] == "ValueError"
    found = await plain.get_job(job.id)
    assert found is not None and found.data == {"step": 4, "text": ""}


async def test_new_data_for_a_stored_job(queue: Queue[Any, Any], plain: Queue[Any, Any], redis_client: redis.Redis) -> None:
    """Who has keys signs anew, but not what somebody altered; who has none cannot, and nothing changes."""
    job, altered = await queue.add("pay", {"euro": 1}), await queue.add("pay", {"euro": 1})
    column = queue.context.keys["jobs"]
    text = text_of(redis_client, column, altered.id)
    redis_client.hset(column, altered.id, text.replace(b"\tpay\t", b"\tpaz\t"))
    for reader, job_id, why in ((plain, job.id, "no signing keys here"), (queue, altered.id, "altered, or moved here")):
        found = await reader.get_job(job_id)
        stored = text_of(redis_client, column, job_id)
        assert found is not None
        with pytest.raises(BadSignature, match=why):
            await found.update_data({"euro": 2})
        assert text_of(redis_client, column, job_id) == stored
    await job.update_data({"euro": 3})
    assert [data for _, _, data, _ in (await work_off(queue)).jobs] == [{"euro": 3}]


async def test_managing_goes_on(queue: Queue[Any, Any], plain: Queue[Any, Any]) -> None:
    """Scripts change what is not signed: place, priority, due time; retried, released and postponed jobs are as they were."""
    later = await queue.add("later", 1, delay=500)
    await later.change_delay(400)
    await later.promote()
    urgent = await queue.add("urgent", 2)
    await urgent.change_priority(3)
    await queue.add("gone", 3, job_id="gone")
    assert await plain.remove_jobs(["gone"]) == ["gone"]
    ran = await work_off(queue, 1)
    assert [data for _, _, data, _ in ran.jobs] == [1, 2]
    assert await queue.retry_jobs("completed") == 2
    assert {data for _, _, data, _ in (await work_off(queue)).jobs} == {1, 2}
    await queue.add("rest", 4)
    assert await plain.drain() == 1


async def test_threads_and_bulk_and_one_object_for_all(url: str, queue_name: str) -> None:
    """SyncQueue, add_bulk, JobQueue and a worker by name sign and verify alike."""
    with SyncQueue(queue_name, url=url, signing_keys=KEYS) as sync:
        one = sync.add("pay", 1)
        many = sync.add_bulk([NewJob("pay", number) for number in (2, 3)])
        one.update_data(10)
        found = sync.get_job(one.id)
        assert found is not None and found.data == 10
    with SyncQueue(queue_name, url=url) as without:
        stored = without.get_job(many[0].id)
        assert stored is not None and stored.data == 2
        with pytest.raises(BadSignature):
            stored.update_data(4)
    ran = Ran()
    await Worker(queue_name, ran, url=url, burst=True, signing_keys={"new": NEW}).run()
    assert sorted(data for _, _, data, _ in ran.jobs) == [2, 3, 10]
    async with JobQueue(queue_name, UNTYPED, ran, url=url, signing_keys=KEYS) as both:
        assert await (await both.add_job("pay", 4)).result(10) == "done"
        assert (await both.get_job_status(many[1].id)).result == "done"


# -- schedules


async def test_a_signed_schedule_fires_signed_jobs(queue: Queue[Any, Any], url: str, queue_name: str) -> None:
    """Whoever fires signs, data kept apart too; the job says that it is the schedule's."""
    for schedule_id, data in (("small", {"to": "x"}), ("large", {"text": "x" * 2000})):
        await queue.upsert_schedule(schedule_id, every=3600, name="report", data=data, options=JobOptions(attempts=2))
    ran = Ran()
    async with Recorder(queue) as recorder, QueueScheduler(queue_name, url=url, signing_keys=KEYS):
        await recorder.wait(AddedEvent, 2)
    await Worker(queue, ran, burst=True).run()
    assert {(name, repr(data), attempts) for _, name, data, attempts in ran.jobs} == {
        ("report", repr({"to": "x"}), 2),
        ("report", repr({"text": "x" * 2000}), 2),
    }


async def test_a_forged_schedule_does_not_fire(queue: Queue[Any, Any], plain: Queue[Any, Any], redis_client: redis.Redis) -> None:
    """Altered, moved or never signed: an error event tells of each, once, to listeners too, and the good one fires."""
    column = queue.context.keys["schedules"]
    told: list[ErrorEvent] = []
    await plain.upsert_schedule("unsigned", every=3600)
    for schedule_id in ("altered", "moved", "good"):
        await queue.upsert_schedule(schedule_id, every=3600, data=1)
    altered, good = (text_of(redis_client, column, each) for each in ("altered", "good"))
    redis_client.hset(column, "altered", altered.replace(b'"data":1', b'"data":2'))
    redis_client.hset(column, "moved", good)
    worker = Worker(queue, Ran())
    worker.on("error")(told.append)
    async with Recorder(queue) as recorder, worker:
        (added,) = await recorder.wait(AddedEvent)
        errors = await recorder.wait(ErrorEvent, 3)
        await queue.upsert_schedule("later", every=3600)  # the next slot: nobody is told twice
        await recorder.wait(AddedEvent, 2)
    assert sorted(error.message for error in errors) == sorted(error.message for error in told)
    assert added.schedule == "good"
    assert len(recorder.of(ErrorEvent)) == 3
    assert {(error.type, error.message.partition(":")[0]) for error in errors} == {
        ("BadSignature", f"schedule '{schedule_id}'") for schedule_id in ("altered", "moved", "unsigned")
    }


async def test_a_scheduler_alone_tells_too(queue: Queue[Any, Any], plain: Queue[Any, Any]) -> None:
    """With keys of an unsigned schedule, without keys of a signed one; neither fires it."""
    await queue.upsert_schedule("signed", every=3600)
    async with Recorder(queue) as recorder, QueueScheduler(plain):
        (error,) = await recorder.wait(ErrorEvent)
        assert (error.type, "no signing keys here" in error.message) == ("BadSignature", True)
        assert await queue.count() == 0
    assert await queue.remove_schedule("signed")
    await plain.upsert_schedule("unsigned", every=3600)
    async with Recorder(queue) as recorder, QueueScheduler(queue):
        (error,) = await recorder.wait(ErrorEvent)
        assert "it is not signed" in error.message
        assert await queue.count() == 0


async def test_a_schedule_is_signed_anew(queue: Queue[Any, Any], plain: Queue[Any, Any], redis_client: redis.Redis) -> None:
    """Upserting signs by the first key, keeps nothing of a forged one, and is refused to who has no keys."""
    column = queue.context.keys["schedules"]
    made = await queue.upsert_schedule("tick", every=3600, data=1)
    stored = text_of(redis_client, column, "tick")
    assert await queue.upsert_schedule("tick", every=3600, data=1) == made
    assert text_of(redis_client, column, "tick") == stored  # nothing to be changed, so nothing was
    with pytest.raises(BadSignature, match="no signing keys here"):
        await plain.upsert_schedule("tick", every=3600, data=2)
    assert text_of(redis_client, column, "tick") == stored
    await plain.pause_schedule("tick")
    await plain.resume_schedule("tick")
    anchor = str(round(made.next_run.timestamp() * 1000) if made.next_run else 0).encode()
    forged = text_of(redis_client, column, "tick").replace(b'"anchor_ms":' + anchor, b'"anchor_ms":1234567890123')
    redis_client.hset(column, "tick", forged)
    await queue.upsert_schedule("tick", every=3600, data=1)
    mended = text_of(redis_client, column, "tick")
    assert b"1234567890123" not in mended and b"~1 new " in mended
    async with Recorder(queue) as recorder, Worker(queue, Ran()):
        await recorder.wait(AddedEvent)
        assert not recorder.of(ErrorEvent)


# -- the command line


@pytest.fixture
def keys_file(tmp_path: Path) -> str:
    """The keys in a file."""
    path = tmp_path / "keys"
    path.write_text(f"new {NEW.hex()}\nold {OLD.hex()}\n")
    return str(path)


async def test_the_command_line_says_whether_a_signature_is_good(
    url: str, queue: Queue[Any, Any], plain: Queue[Any, Any], redis_client: redis.Redis, keys_file: str
) -> None:
    """Where it has keys; where it has none it shows the data, and that it could not check."""
    cli = CommandLine(url)
    await queue.add("pay", {"euro": 1}, job_id="good")
    await queue.add("pay", {"euro": 1}, job_id="altered")
    await plain.add("pay", {"euro": 1}, job_id="unsigned")
    column = queue.context.keys["jobs"]
    text = text_of(redis_client, column, "altered")
    redis_client.hset(column, "altered", text.replace(b'"euro":1', b'"euro":9'))
    for job_id, signature, why in (
        ("good", "good", "good: by key new"),
        ("altered", "bad", "bad: job 'altered': its signature by key 'new' is not its own"),
        ("unsigned", "bad", "bad: job 'unsigned': it is not signed"),
    ):
        shown = await cli("job", queue.name, job_id, "--signing-keys", keys_file)
        assert why in shown.out and (shown.code, shown.err) == (0, "")
        document = (await cli("job", queue.name, job_id, "--signing-keys", keys_file, "--json")).document
        assert (document["signature"], document["data"]) == (signature, {"euro": 9 if job_id == "altered" else 1})
    shown = await cli("job", queue.name, "good")
    assert "unchecked: by key new; there are no signing keys here" in shown.out
    assert '{"euro":1}' in shown.out and "~1" not in shown.out
    assert "signature" not in (await cli("job", queue.name, "unsigned")).out
    listed = (await cli("jobs", queue.name, "--signing-keys", keys_file, "--json")).lines
    assert {job["id"]: job["signature"] for job in listed} == {"good": "good", "altered": "bad", "unsigned": "bad"}
    table = (await cli("jobs", queue.name, "--signing-keys", keys_file)).out
    assert "signature" in table and "good" in table
    assert "signature" not in (await cli("jobs", queue.name)).out
    assert NEW.hex() not in table + shown.out


async def test_a_file_of_keys_that_is_none_is_wrong_usage(url: str, queue: Queue[Any, Any], tmp_path: Path) -> None:
    """For each command that takes one, before it does anything."""
    cli = CommandLine(url)
    path = tmp_path / "none"
    for words in (("worker", "a:b"), ("jobs", queue.name), ("job", queue.name, "x")):
        ended = await cli(*words, "--signing-keys", str(path))
        assert (ended.code, ended.out) == (2, "") and f"signing keys file '{path}': cannot be read" in ended.err


PROGRAM = """
from eventq import Worker

async def run(job):
    print("ran", job.data, flush=True)

worker = Worker(QUEUE, run)
"""


async def test_a_worker_process_gets_its_keys(
    url: str, queue: Queue[Any, Any], plain: Queue[Any, Any], tmp_path: Path, keys_file: str
) -> None:
    """By --signing-keys, though its code names none."""
    (tmp_path / "signed_jobs.py").write_text(PROGRAM.replace("QUEUE", repr(queue.name)))
    await queue.add("pay", 1)
    await plain.add("pay", 2)
    words = ("worker", "signed_jobs:worker", "--burst", "--signing-keys", keys_file)
    ended = await CommandLine(url).process(*words, PYTHONPATH=str(tmp_path))
    assert (ended.code, ended.out) == (0, "ran 1\n")
    assert "error=BadSignature" in ended.err and NEW.hex() not in ended.err


@pytest.mark.parametrize("by", ["option", pytest.param("environment", marks=pytest.mark.full)])
async def test_a_scheduler_process_gets_its_keys(
    url: str, queue: Queue[Any, Any], tmp_path: Path, keys_file: str, wait_until: WaitUntil, by: str
) -> None:
    """It fires what is signed, with jobs that workers run."""
    await queue.upsert_schedule("tick", every=3600, data=7)
    words = [sys.executable, "-m", "eventq", "scheduler", queue.name, "--url", url]
    words += ["--signing-keys", keys_file] if by == "option" else []
    environment = {"EVENTQ_SIGNING_KEYS_FILE": keys_file} if by == "environment" else {}
    with (tmp_path / "err").open("wb") as err:
        process = await asyncio.create_subprocess_exec(*words, stderr=err, env=os.environ | environment)
    try:
        await wait_until(queue.count, timeout=PATIENCE, description="the slot's job")
    finally:
        process.terminate()
        await process.wait()
    assert [data for _, _, data, _ in (await work_off(queue)).jobs] == [7]
