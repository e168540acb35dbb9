"""Schedules on the command line: listed, shown with their next runs, paused, resumed, removed."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, JobOptions, Queue, Worker
from eventq.keys import QueueKeys

from .command_line import HOSTILE, CommandLine, dump

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import redis

pytest.importorskip("typer", reason="the extra cli is not installed")


@pytest.fixture
def cli(url: str) -> CommandLine:
    """The command line on the test's server."""
    return CommandLine(url)


@pytest.fixture
async def queue(url: str, queue_name: str) -> AsyncIterator[Queue[Any, Any]]:
    """A queue with a schedule of each kind."""
    async with Queue(queue_name, url=url) as queue:
        options = JobOptions(attempts=3, priority=2)
        zone = "Europe/Berlin"
        await queue.upsert_schedule("nightly", cron="0 3 * * *", timezone=zone, name="report", data=HOSTILE, options=options)
        start = datetime.now(UTC) + timedelta(hours=1)
        await queue.upsert_schedule("often", every=90, start=start, limit=7, missed="skip")
        yield queue


async def test_schedules_are_listed(cli: CommandLine, queue: Queue[Any, Any]) -> None:
    """How often, next run, state; the same names as in the API for programs."""
    ended = await cli("schedules", queue.name)
    assert (0, "") == (ended.code, ended.err)
    rows = {line.split()[0]: line for line in ended.out.splitlines()}
    assert re.search(
        r"nightly +0 3 \* \* \* \(Europe/Berlin\) +running +\S+ 03:00:00 CES?T +\S+ \w+ +0 +0 +report$", rows["nightly"]
    )
    assert re.search(r"often +every 90 s +running ", rows["often"])
    listed = {each["id"]: each for each in (await cli("schedules", queue.name, "--json")).lines}
    nightly, often = listed["nightly"], listed["often"]
    assert ("0 3 * * *", None, "Europe/Berlin", "report", HOSTILE) == tuple(
        nightly[name] for name in ("cron", "every", "timezone", "name", "data")
    )
    assert (3, 2) == (nightly["options"]["attempts"], nightly["options"]["priority"])
    assert (90.0, 7, "skip", False, 0) == tuple(often[name] for name in ("every", "limit", "missed", "is_paused", "count"))
    assert nightly["next_run"].endswith("Z")


async def test_schedule_shows_its_next_runs(cli: CommandLine, queue: Queue[Any, Any]) -> None:
    """As many as asked for, and the job's data as text."""
    facts = (await cli("schedule", queue.name, "often", "--runs", "3", "--json")).document
    times = [datetime.fromisoformat(time) for time in facts["next_runs"]]
    assert [timedelta(seconds=90)] * 2 == [later - earlier for earlier, later in itertools.pairwise(times)]
    shown = await cli("schedule", queue.name, "nightly")
    assert 5 == len(re.findall(r"03:00:00", shown.out))
    assert all(char.isprintable() or char == "\n" for char in shown.out) and "[bold red]" in shown.out


async def test_what_nobody_fires_is_overdue(cli: CommandLine, queue: Queue[Any, Any], redis_client: redis.Redis) -> None:
    """A schedule that should have run is not shown as if all were well, and what helps is said."""
    assert "overdue" not in (await cli("schedules", queue.name)).out
    records = QueueKeys(queue.name)["schedules"]
    record: Any = redis_client.hget(records, "often")
    revision, next_ms, rest = record.decode().split("\t", 2)
    late_ms = int(next_ms) - 2 * 3_600_000  # it begins in an hour
    redis_client.hset(records, "often", f"{revision}\t{late_ms}\t{rest}")
    ended = await cli("schedules", queue.name)
    assert re.search(r"^often +every 90 s +overdue +\S+ \S+ UTC +60 min ago +0 ", ended.out, re.MULTILINE)
    assert f"`eventq scheduler {queue.name}`" in ended.err
    assert re.search(r"^state +overdue by 60 min: ", (await cli("schedule", queue.name, "often")).out, re.MULTILINE)


async def test_jobs_of_schedules_show_their_slots(cli: CommandLine, url: str, queue_name: str) -> None:
    """Which schedule made a job, and for when, for people and for programs."""

    async def work(job: Job[Any]) -> None: ...

    async with Queue(queue_name, url=url) as queue:
        await queue.upsert_schedule("often", every=3600)
        await Worker(queue, work, max_jobs=1).run()
        [job] = await queue.get_jobs("completed")
        assert job.slot is not None
        listed = await cli("jobs", queue_name)
        assert listed.out.splitlines()[0].split()[-3:] == ["slot", "age", "error"]
        assert f" {job.slot.astimezone():%Y-%m-%d %H:%M:%S}." in listed.out
        assert re.search(r"^schedule +often, its slot of \d{4}-", (await cli("job", queue_name, job.id)).out, re.MULTILINE)
        facts = (await cli("job", queue_name, job.id, "--json")).document
        assert ("often", job.slot) == (facts["schedule_id"], datetime.fromisoformat(facts["slot"]))
        added = await queue.add("a", job_id="own")
        facts = (await cli("job", queue_name, added.id, "--json")).document
        assert (None, None) == (facts["schedule_id"], facts["slot"])


async def test_schedule_is_paused_resumed_and_removed(
    cli: CommandLine, queue: Queue[Any, Any], redis_client: redis.Redis
) -> None:
    """By --schedule; the queue itself goes on. Removing asks, as everything that destroys."""
    for command, paused in (("pause", True), ("resume", False), ("pause", True)):
        ended = await cli(command, queue.name, "--schedule", "nightly", "--json")
        assert (0, {"queue": queue.name, "schedule": "nightly", "is_paused": paused}) == (ended.code, ended.document)
        assert not await queue.is_paused()
    assert re.search(r"nightly .* paused ", (await cli("schedules", queue.name)).out)
    assert "next runs  none" in (await cli("schedule", queue.name, "nightly")).out
    before = dump(redis_client, queue.name)
    assert 2 == (await cli("remove", queue.name, "--schedule", "nightly")).code
    dry = await cli("remove", queue.name, "--schedule", "nightly", "--dry-run")
    assert (
        0,
        f"would remove schedule nightly of queue {queue.name}, and leave the jobs that it made; nothing was changed\n",
    ) == (
        dry.code,
        dry.out,
    )
    assert before == dump(redis_client, queue.name)
    assert 0 == (await cli("remove", queue.name, "--schedule", "nightly", "--yes")).code
    assert ["often"] == [each.id for each in await queue.get_schedules()]


async def test_schedule_that_is_not_there(cli: CommandLine, queue: Queue[Any, Any]) -> None:
    """Exit code 1 and one sentence; ids and --schedule together are wrong usage."""
    for arguments in (
        ("schedule", queue.name, "nobody"),
        ("pause", queue.name, "--schedule", "nobody"),
        ("resume", queue.name, "--schedule", "nobody"),
        ("remove", queue.name, "--schedule", "nobody", "--yes"),
        ("remove", queue.name, "--schedule", "nobody", "--dry-run"),
    ):
        ended = await cli(*arguments)
        assert (1, "") == (ended.code, ended.out)
        assert "'nobody'" in ended.err and 1 == len(ended.err.splitlines())
    assert 2 == (await cli("remove", queue.name, "id", "--schedule", "often", "--yes")).code
    assert 2 == (await cli("remove", queue.name, "--yes")).code
    await queue.remove_schedule("nightly")
    await queue.remove_schedule("often")
    await queue.add("a")
    assert "has no schedules" in (await cli("schedules", queue.name)).err
