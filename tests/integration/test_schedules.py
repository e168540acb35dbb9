"""Schedules on real servers: made and changed by anybody, fired by whoever is there; acceptance cases 33, 44 and 58.

Slots are not stored as jobs before they are due, so there is no pending job of a schedule to protect, lose or have twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import redis

from eventq import (
    ConfigurationError,
    Job,
    JobOptions,
    JobState,
    Queue,
    QueueScheduler,
    Schedule,
    ScheduleNotFound,
    Worker,
    scheduler,
)
from eventq.client import AsyncRunner
from eventq.commands.core import Verb
from eventq.errors import InvalidJob
from eventq.events import AddedEvent, FailedEvent, RemovedEvent, ScheduleMissedEvent
from eventq.firing import Firing
from eventq.limits import Limits

from .recorder import Recorder, claim_silently, expire_leases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..conftest import Clock, MakeServer, WaitUntil

MINUTE = timedelta(minutes=1)


class Desk:
    """A queue, its schedules fired by hand, and its clock."""

    def __init__(self, queue: Queue[Any, Any], recorder: Recorder, clock: Clock) -> None:
        self.queue = queue
        self.recorder = recorder
        self._clock = clock
        self._runner = AsyncRunner(queue.context.server)

    def now(self) -> datetime:
        """Return the time as the queue's scripts see it."""
        return datetime.now(UTC) + timedelta(seconds=self._clock.offset(self.queue.name))

    def move_to(self, when: datetime) -> None:
        """Let it be a moment after this time: the clock is moved by whole ms."""
        self._clock.advance(self.queue.name, (when - self.now()).total_seconds() + 0.002)

    async def fire(self) -> list[datetime]:
        """Do what a scheduler does about due slots, until nothing is due; return the slots that became jobs by it."""
        before = len(self.recorder.of(AddedEvent))
        while await Firing(self._runner, self.queue.context.keys).fire_due():
            pass
        await self.recorder.catch_up()
        return [event.slot for event in self.recorder.of(AddedEvent)[before:] if event.slot is not None]

    async def read(self, schedule_id: str = "tick") -> Schedule[Any]:
        """Return a schedule that is there."""
        found = await self.queue.get_schedule(schedule_id)
        assert found is not None
        return found

    async def close(self) -> None:
        """Close the connection of the one who fires."""
        await self._runner.close()


@pytest.fixture
async def desk(url: str, queue_name: str, clock: Clock) -> AsyncIterator[Desk]:
    """Nobody fires but the test."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        desk = Desk(queue, recorder, clock)
        desk.move_to(datetime(2027, 3, 27, 12, tzinfo=UTC))
        yield desk
        await desk.close()


# -- from a schedule to a run


async def test_a_worker_runs_what_its_schedule_says(url: str, queue_name: str) -> None:
    """The first slot of an interval is now, whoever has a worker running has a scheduler, and the job knows what it needs."""
    ran: asyncio.Queue[Job[Any, Any]] = asyncio.Queue()
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, ran.put):
        schedule = await queue.upsert_schedule("tick", every=2, name="report", data={"to": "x"}, options=JobOptions(attempts=3))
        jobs = [await asyncio.wait_for(ran.get(), 10) for _ in range(2)]
        assert schedule.next_run is not None
        added = (await recorder.wait(AddedEvent, 2))[:2]
    slots = [schedule.next_run, schedule.next_run + timedelta(seconds=2)]
    assert [(job.name, job.data, job.max_attempts) for job in jobs] == [("report", {"to": "x"}, 3)] * 2
    assert [event.slot for event in added] == slots
    assert [job.id for job in jobs] == [f"schedule:tick:{slot.timestamp() * 1000:.0f}" for slot in slots]


async def test_a_scheduler_needs_no_queue_object(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """A QueueScheduler by name has the same calls as a queue, and fires."""
    async with QueueScheduler(queue_name, url=url) as alone, Queue(queue_name, url=url) as queue:
        await alone.upsert_schedule("tick", every=timedelta(hours=1))
        await wait_until(queue.count, description="the first slot's job")
        (schedule,) = await alone.get_schedules()
        assert (schedule.id, schedule.count, schedule.name) == ("tick", 1, "tick")
        assert (schedule.next_run, schedule.last_run) == (
            schedule.last_run and schedule.last_run + timedelta(hours=1),
            schedule.last_run,
        )
        assert len(await alone.next_runs("tick", 1000)) == 1000
        assert await alone.remove_schedule("tick") is True
        assert await queue.get_schedule("tick") is None


async def test_jobs_of_schedules_are_found_by_their_ids(desk: Desk) -> None:
    """Ids with colons are made by schedules only: reading and managing take them, adding does not."""
    await desk.queue.upsert_schedule("tick", every=60)
    (slot,) = await desk.fire()
    job_id = f"schedule:tick:{slot.timestamp() * 1000:.0f}"
    job = await desk.queue.get_job(job_id)
    assert job is not None and job.id == job_id
    assert await desk.queue.get_state(job_id) is JobState.WAITING
    with pytest.raises(InvalidJob, match="job_id 'schedule:tick:"):
        await desk.queue.add("x", job_id=job_id)
    assert await desk.queue.remove_jobs([job_id]) == [job_id]


# -- upsert


async def test_a_schedule_says_all_that_was_said_of_it(desk: Desk) -> None:
    """What comes back from upsert and get is what was asked, times in its zone."""
    zone = ZoneInfo("Europe/Berlin")
    start, end = datetime(2027, 4, 1, tzinfo=UTC), datetime(2027, 5, 1, tzinfo=UTC)
    made = await desk.queue.upsert_schedule(
        "tick",
        cron="0  9 * * MON-FRI",
        timezone="Europe/Berlin",
        start=start,
        end=end,
        limit=30,
        name="report",
        data=[1],
        options=JobOptions(priority=2),
        missed=5,
    )
    assert made == await desk.read()
    assert (made.every, made.cron, made.timezone, made.limit) == (None, "0 9 * * MON-FRI", "Europe/Berlin", 30)
    assert (made.start, made.end, made.name, made.data, made.missed) == (start, end, "report", [1], 5)
    assert made.next_run == datetime(2027, 4, 1, 9, tzinfo=zone) and str(made.next_run) == "2027-04-01 09:00:00+02:00"
    assert (made.is_paused, made.last_run, made.count, made.missed_count, made.options.priority) == (False, None, 0, 0, 2)


async def test_upserting_the_same_rule_goes_on(desk: Desk) -> None:
    """A program that upserts at every start moves no slot and loses no count, whatever else it changes."""
    await desk.queue.upsert_schedule("tick", every=60, data=1)
    (first,) = await desk.fire()
    desk.move_to(first + timedelta(seconds=30))
    changed = await desk.queue.upsert_schedule("tick", every=MINUTE, data=2, name="other", missed="skip")
    assert (changed.next_run, changed.last_run, changed.count, changed.data) == (first + MINUTE, first, 1, 2)
    desk.move_to(first + MINUTE)
    assert await desk.fire() == [first + MINUTE]
    job = await desk.queue.get_job(f"schedule:tick:{(first + MINUTE).timestamp() * 1000:.0f}")
    assert job is not None and (job.name, job.data) == ("other", 2)


async def test_upserting_what_is_there_writes_nothing(desk: Desk, redis_client: redis.Redis) -> None:
    """The stored text, its revision among it, stays to the byte."""
    key = desk.queue.context.keys["schedules"]
    await desk.queue.upsert_schedule("tick", cron="0 9 * * *", data={"a": [1]}, options=JobOptions(attempts=2))
    before: Any = redis_client.hgetall(key)
    await desk.queue.upsert_schedule("tick", cron="0 9 * * *", data={"a": [1]}, options=JobOptions(attempts=2))
    assert before == redis_client.hgetall(key)


@pytest.mark.parametrize(("before", "after"), [({"every": 3600}, {"every": 60}), ({"cron": "0 0 1 1 *"}, {"cron": "* * * * *"})])
async def test_a_changed_rule_takes_effect_now(desk: Desk, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Case 58: a changed interval takes effect now, its first slot at once. The counts begin anew."""
    old = await desk.queue.upsert_schedule("tick", **before)
    await desk.fire()
    desk.move_to(desk.now() + timedelta(minutes=10))
    changed = await desk.queue.upsert_schedule("tick", **after)
    assert old.next_run is not None and changed.next_run is not None
    assert desk.now() - timedelta(seconds=1) < changed.next_run <= desk.now() + MINUTE
    if "every" in after:
        assert desk.now() - changed.next_run < timedelta(seconds=1), "an interval begins at once"
    assert changed.count == 0
    desk.move_to(changed.next_run)
    assert await desk.fire() == [changed.next_run]


async def test_racing_upserts_leave_one_schedule(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Case 58: repeated upserts from racing clients leave one schedule, and its slot becomes one job.

    BullMQ has one pending job then; ours has none before the slot, and one after it however many schedulers there are.
    """

    start = datetime.now(UTC) + timedelta(seconds=2)

    async def upsert_often(number: int) -> None:
        async with Queue(queue_name, url=url) as queue:
            for turn in range(10):
                await queue.upsert_schedule("tick", every=3600 + (number + turn) % 3, start=start, data=number)

    await asyncio.gather(*(upsert_often(number) for number in range(12)))
    keys = Queue(queue_name, url=url).context.keys
    assert redis_client.hkeys(keys["schedules"]) == redis_client.zrange(keys["slots"], 0, -1) == [b"tick"]
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        schedulers = [QueueScheduler(queue_name, url=url) for _ in range(4)]
        try:
            for each in schedulers:
                await each.start()
            (added,) = await recorder.wait(AddedEvent)
        finally:
            for each in schedulers:
                await each.close()
        await recorder.catch_up()
        assert recorder.of(AddedEvent) == [added] and added.schedule == "tick"
        assert [job.id for job in await queue.get_jobs("waiting")] == [added.job_id]


# -- start, end, limit


async def test_exact_times_with_start_end_and_limit(desk: Desk) -> None:
    """Case 58: cron with a zone, start, end and limit on a moved clock: exactly the slots a calendar says, over a change of clocks."""
    start = datetime(2027, 3, 27, 22, tzinfo=UTC)
    said: dict[str, Any] = {"cron": "30 1,2,3 * * *", "timezone": "Europe/Berlin", "start": start, "missed": 1000}
    await desk.queue.upsert_schedule("ending", **said, end=datetime(2027, 3, 29, 0, 30, tzinfo=UTC))
    await desk.queue.upsert_schedule("limited", **said, limit=4)
    # 02:30 does not exist on 28 March: it is 03:00 then.
    expected = [datetime(2027, 3, 28, hour, minute, tzinfo=UTC) for hour, minute in [(0, 30), (1, 0), (1, 30), (23, 30)]]
    assert await desk.queue.next_runs("limited", 1000) == expected
    assert await desk.queue.next_runs("ending", 1000) == [*expected, datetime(2027, 3, 29, 0, 30, tzinfo=UTC)]
    assert [str(time) for time in await desk.queue.next_runs("limited", 2)] == [
        "2027-03-28 01:30:00+01:00",
        "2027-03-28 03:00:00+02:00",
    ]
    desk.move_to(start + timedelta(days=5))
    fired = Counter(await desk.fire())
    assert fired == Counter([*expected, *expected, datetime(2027, 3, 29, 0, 30, tzinfo=UTC)])
    for schedule in await desk.queue.get_schedules():
        assert (schedule.next_run, schedule.count) == (None, {"ending": 5, "limited": 4}[schedule.id])
        assert await desk.queue.next_runs(schedule.id) == []


@pytest.mark.parametrize("early", [0, 1])
async def test_an_interval_around_its_slots_edge(desk: Desk, early: int) -> None:
    """Case 58: slots of an interval are start + k * every to the ms: made after a slot, it begins with the one after it."""
    start = desk.now().replace(microsecond=0) - timedelta(hours=1) + timedelta(seconds=20, milliseconds=early)
    made = await desk.queue.upsert_schedule("tick", every=60, start=start)
    assert made.next_run is not None and (made.next_run - start) % MINUTE == timedelta(0)
    assert desk.now() - timedelta(seconds=1) <= made.next_run <= desk.now() + MINUTE
    desk.move_to(made.next_run - timedelta(milliseconds=900))
    assert await desk.fire() == []
    desk.move_to(made.next_run)
    assert await desk.fire() == [made.next_run]


async def test_a_start_to_come_is_the_first_slot(desk: Desk) -> None:
    """Nothing runs before it."""
    start = desk.now().replace(microsecond=0) + timedelta(days=3)
    assert (await desk.queue.upsert_schedule("tick", every=3600, start=start)).next_run == start
    desk.move_to(start - MINUTE)
    assert await desk.fire() == []
    desk.move_to(start)
    assert await desk.fire() == [start]


async def test_a_schedule_that_has_ended_can_go_on(desk: Desk) -> None:
    """It stays listed, last; a higher limit lets it go on with the next slot from now."""
    await desk.queue.upsert_schedule("tick", every=60, limit=1)
    await desk.queue.upsert_schedule("later", cron="0 0 1 1 *")
    (first,) = await desk.fire()
    assert [schedule.id for schedule in await desk.queue.get_schedules()] == ["later", "tick"]
    assert (await desk.queue.upsert_schedule("tick", every=60, limit=1)).next_run is None, "the same upsert changes nothing"
    desk.move_to(first + timedelta(seconds=630))
    again = await desk.queue.upsert_schedule("tick", every=60, limit=2)
    assert (again.next_run, again.count, again.missed_count) == (first + timedelta(minutes=11), 1, 0)


async def test_an_end_that_leaves_nothing_is_refused(desk: Desk) -> None:
    """In the past, or before the first slot; nothing is stored. One that has come to its end meanwhile may be upserted as it is."""
    with pytest.raises(ConfigurationError, match="schedule 'tick': end 2027-03-27 .*: is in the past"):
        await desk.queue.upsert_schedule("tick", every=60, end=desk.now() - timedelta(minutes=5))
    with pytest.raises(ConfigurationError, match="schedule 'tick': end .*: is before its first slot"):
        await desk.queue.upsert_schedule("tick", cron="0 0 1 1 *", end=desk.now() + timedelta(days=1))
    assert await desk.queue.get_schedule("tick") is None
    end = desk.now() + timedelta(minutes=5)
    await desk.queue.upsert_schedule("tick", every=60, end=end)
    desk.move_to(end + timedelta(days=1))
    await desk.fire()
    assert (await desk.queue.upsert_schedule("tick", every=60, end=end)).next_run is None


# -- pause, remove


async def test_slots_of_a_pause_are_not_missed(desk: Desk) -> None:
    """Paused twice is paused once; upserts leave it paused; resumed, it goes on from now and tells of nothing missed."""
    await desk.queue.upsert_schedule("tick", every=60)
    (first,) = await desk.fire()
    await desk.queue.pause_schedule("tick")
    await desk.queue.pause_schedule("tick")
    paused = await desk.queue.upsert_schedule("tick", every=60, data=2)
    assert (paused.is_paused, paused.next_run, await desk.queue.next_runs("tick")) == (True, None, [])
    desk.move_to(first + timedelta(minutes=10, seconds=30))
    assert await desk.fire() == []
    await desk.queue.resume_schedule("tick")
    await desk.queue.resume_schedule("tick")
    resumed = await desk.read()
    assert (resumed.is_paused, resumed.next_run, resumed.missed_count) == (False, first + timedelta(minutes=11), 0)
    desk.move_to(first + timedelta(minutes=11))
    assert await desk.fire() == [first + timedelta(minutes=11)]
    assert desk.recorder.of(ScheduleMissedEvent) == []


async def test_what_is_not_there_is_said_so(desk: Desk) -> None:
    """Pausing, resuming and asking for times need a schedule; reading and removing do not."""
    for call in (desk.queue.pause_schedule, desk.queue.resume_schedule, desk.queue.next_runs):
        with pytest.raises(ScheduleNotFound, match="has no schedule 'nobody': never upserted, or removed since") as caught:
            await call("nobody")
        assert (caught.value.queue, caught.value.schedule_id) == (desk.queue.name, "nobody")
    assert await desk.queue.get_schedule("nobody") is None
    assert await desk.queue.remove_schedule("nobody") is False
    with pytest.raises(ConfigurationError, match="schedule id 'a:b'"):
        await desk.queue.get_schedule("a:b")
    with pytest.raises(ConfigurationError, match="count 1001: must be a whole number from 1 to 1000"):
        await desk.queue.next_runs("nobody", 1001)


async def test_missed_slots_are_told(desk: Desk) -> None:
    """Nobody was there for ten minutes: the latest slot runs, the others are told with number, first, last and policy."""
    await desk.queue.upsert_schedule("tick", every=60)
    (first,) = await desk.fire()
    desk.move_to(first + timedelta(minutes=10, seconds=1))
    assert await desk.fire() == [first + 10 * MINUTE]
    (missed,) = desk.recorder.of(ScheduleMissedEvent)
    assert (missed.schedule_id, missed.count, missed.policy) == ("tick", 9, "once")
    assert (missed.first, missed.last) == (first + MINUTE, first + 9 * MINUTE)
    assert (await desk.read()).missed_count == 9


async def test_slots_that_a_changed_rule_leaves_out_are_told(desk: Desk) -> None:
    """Nobody was there for ten minutes, and then another time was deployed: what the old one had due is no secret."""
    await desk.queue.upsert_schedule("tick", every=60)
    (first,) = await desk.fire()
    desk.move_to(first + timedelta(minutes=10, seconds=1))
    await desk.queue.upsert_schedule("tick", cron="0 0 1 1 *")
    await desk.recorder.catch_up()
    (missed,) = desk.recorder.of(ScheduleMissedEvent)
    assert (missed.schedule_id, missed.count, missed.policy) == ("tick", 10, "changed")
    assert (missed.first, missed.last) == (first + MINUTE, first + 10 * MINUTE)
    assert await desk.fire() == []


async def test_the_end_of_a_schedule_stops_no_program(desk: Desk) -> None:
    """One that has come to its end may be upserted with other data, or another time, by a program that says so at every start."""
    end = desk.now() + timedelta(minutes=5)
    await desk.queue.upsert_schedule("tick", every=60, end=end)
    desk.move_to(end + timedelta(days=1))
    await desk.fire()
    assert (await desk.queue.upsert_schedule("tick", every=60, end=end, data=7)).next_run is None
    assert (await desk.queue.upsert_schedule("tick", cron="0 4 * * *", end=end)).next_run is None


async def test_a_job_knows_its_slot(desk: Desk) -> None:
    """Which may be long before it runs; a job that was added has none."""
    await desk.queue.upsert_schedule("nightly", every=3600)
    (slot,) = await desk.fire()
    (job,) = await desk.queue.get_jobs("waiting")
    assert (job.schedule_id, job.slot) == ("nightly", slot)
    added = await desk.queue.add("n")
    assert (added.schedule_id, added.slot) == (None, None)


async def test_a_page_of_schedules(desk: Desk) -> None:
    """By their next run, also when they are larger than one call reads."""
    for number in range(7):
        await desk.queue.upsert_schedule(f"s{number}", cron=f"{50 - number} 23 * * *", data="x" * 200_000)
    assert [schedule.id for schedule in await desk.queue.get_schedules()] == [f"s{number}" for number in range(6, -1, -1)]
    assert [schedule.id for schedule in await desk.queue.get_schedules(2, 2)] == ["s4", "s3"]
    with pytest.raises(ConfigurationError, match="limit 501"):
        await desk.queue.get_schedules(0, 501)


# -- jobs of a schedule and everything else


async def test_a_schedule_goes_on_when_its_job_stalls(url: str, queue_name: str, clock: Clock, desk: Desk) -> None:
    """Case 33: a job of a schedule stalls too often. In BullMQ the next run hangs on that job, so it is recovered for as long as the
    schedule exists. Here a slot's job is a job like any other: it ends failed after `max_stalls`, and the next slot has its own.
    """
    await desk.queue.upsert_schedule("tick", every=60)
    (first,) = await desk.fire()
    job_id = _id_of(first)
    for _ in range(3):
        assert [run.id for run in await claim_silently(desk.queue, lease=60)] == [job_id]
        assert await expire_leases(desk.queue, clock, max_stalls=2) == 1
        await desk.recorder.catch_up()
    (failed,) = desk.recorder.of(FailedEvent, job_id)
    assert failed.reason == "stalled" and await desk.queue.get_state(job_id) is JobState.FAILED
    fired = await desk.fire()
    assert len(fired) == 1 and fired[0] > first
    assert (await desk.read()).count == 2


async def test_emptying_a_queue_harms_no_schedule(desk: Desk) -> None:
    """Case 44: drain, clean and remove. BullMQ has to spare the pending job of each schedule, and refuses to remove it; ours is no
    job yet, so every job can be removed, and the next slot comes all the same.
    """
    await desk.queue.upsert_schedule("tick", every=60)
    slots = await desk.fire()
    assert await desk.queue.drain(delayed=True) == 1
    for _ in range(2):
        before = await desk.read()
        desk.move_to(slots[-1] + MINUTE)
        slots += await desk.fire()
        assert before.next_run == slots[-1]
        assert (
            len(
                await desk.queue.clean(0, state="waiting")
                if len(slots) == 2
                else await desk.queue.remove_jobs([_id_of(slots[-1])])
            )
            == 1
        )
    assert await desk.queue.count() == 0
    assert [slots[0] + index * MINUTE for index in range(3)] == slots
    assert (await desk.read()).next_run == slots[-1] + MINUTE
    assert {event.reason for event in desk.recorder.of(RemovedEvent)} == {"drained", "cleaned", "removed"}


async def test_obliterating_takes_the_schedules_too(desk: Desk) -> None:
    """Nothing fires from a queue that is gone."""
    await desk.queue.upsert_schedule("tick", every=60)
    await desk.queue.obliterate()
    assert await desk.queue.get_schedules() == []
    assert not await Firing(desk.queue.context.runner, desk.queue.context.keys).fire_due()


async def test_a_paused_queue_collects_what_its_schedules_fire(desk: Desk) -> None:
    """Pausing a queue stops its workers, not its schedules."""
    await desk.queue.pause()
    await desk.queue.upsert_schedule("tick", every=60)
    await desk.fire()
    assert (await desk.queue.get_job_counts())[JobState.PAUSED] == 1


# -- trouble


async def test_a_schedule_that_cannot_be_read_stops_no_other(
    desk: Desk, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Damaged, or in a time zone this machine does not know: logged once, left alone, and left out of listings with a warning."""
    key = desk.queue.context.keys["schedules"]
    for schedule_id in ("a-damaged", "b-elsewhere", "c-whole"):
        await desk.queue.upsert_schedule(schedule_id, cron="* * * * *", timezone="Europe/Berlin")
    for schedule_id, old, new in [("a-damaged", b"{", b"["), ("b-elsewhere", b"Europe/Berlin", b"Moon/Tycho")]:
        text: Any = redis_client.hget(key, schedule_id)
        redis_client.hset(key, schedule_id, text.replace(old, new))
    desk.move_to(desk.now() + 2 * MINUTE)
    with caplog.at_level(logging.WARNING, "eventq"):
        firing = Firing(desk.queue.context.runner, desk.queue.context.keys)
        assert [await firing.fire_due() for _ in range(3)] == [True, False, False]
        assert [schedule.id for schedule in await desk.queue.get_schedules()] == ["c-whole"]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2 and "'a-damaged'" in told[0] and "Moon/Tycho" in told[1]
    assert await desk.queue.count() == 1


async def test_large_schedules_that_are_not_for_this_process_hide_no_other(desk: Desk, redis_client: redis.Redis) -> None:
    """More of them than one call reads stand before one that can be fired."""
    key = desk.queue.context.keys["schedules"]
    for number in range(6):
        await desk.queue.upsert_schedule(f"a{number}", cron="* * * * *", timezone="Europe/Berlin", data="x" * 250_000)
        text: Any = redis_client.hget(key, f"a{number}")
        redis_client.hset(key, f"a{number}", text.replace(b"Europe/Berlin", b"Moon/Tycho"))
    desk.move_to(desk.now() + MINUTE)
    await desk.queue.upsert_schedule("good", every=60)
    assert len(await desk.fire()) == 1


async def test_catching_up_leaves_time_for_others(desk: Desk) -> None:
    """A schedule of seconds that is months behind takes half a second of a tick; one that is due comes in between."""
    await desk.queue.upsert_schedule("busy", cron="* * * * * *", missed=1000)
    desk.move_to(desk.now() + timedelta(days=100))
    await desk.queue.upsert_schedule("good", every=60)
    firing = Firing(desk.queue.context.runner, desk.queue.context.keys)
    began = asyncio.get_running_loop().time()
    assert await firing.fire_due()
    assert asyncio.get_running_loop().time() - began < 2, "half a second, and the plan that was begun"
    await desk.recorder.catch_up()
    assert "good" in {event.schedule for event in desk.recorder.of(AddedEvent)}


async def test_data_of_another_type_is_told_with_its_schedule(url: str, desk: Desk) -> None:
    """A queue whose type has changed cannot read the data of an old schedule; it can upsert or remove it."""
    await desk.queue.upsert_schedule("tick", every=60, data="text")
    async with Queue(desk.queue.name, int, url=url) as typed:
        with pytest.raises(InvalidJob, match="schedule 'tick': stored job data is not a valid int"):
            await typed.get_schedule("tick")
        assert (await typed.upsert_schedule("tick", every=60, data=5)).data == 5
    async with Queue(desk.queue.name, url=url, limits=Limits(data=10)) as small:
        with pytest.raises(InvalidJob, match="larger than the limit of 10 bytes"):
            await small.upsert_schedule("tick", every=60, data="x" * 20)


async def test_a_full_server_keeps_its_slots(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """Out of memory no job can be made of a slot: the scheduler goes on with leases and due jobs, and fires once there is room."""
    server = make_server()
    faults: list[str] = []
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        async with (
            Queue("full", url=server.url) as queue,
            QueueScheduler(queue, on_fault=lambda fault: faults.append(str(fault))),
        ):
            start = datetime.now(UTC) + timedelta(seconds=1)
            await queue.upsert_schedule("tick", every=3600, start=start)
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
            await wait_until(lambda: len(faults) >= 2, description="two refusals")
            assert "out of memory" in faults[0]
            swept: Any = client.hget(queue.context.keys["meta"], "swept_at")
            await wait_until(lambda: client.hget(queue.context.keys["meta"], "swept_at") != swept, description="sweeps")
            client.config_set("maxmemory", 0)
            await wait_until(queue.count, description="the slot's job")
            schedule = await queue.get_schedule("tick")
    assert schedule is not None and (schedule.count, schedule.missed_count) == (1, 0)


async def test_an_idle_scheduler_asks_little(
    make_server: MakeServer, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """With a schedule far away, and with a due one that cannot be read, an idle scheduler sends at most two calls a second."""
    server = make_server()
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        async with Queue("idle", url=server.url) as queue, QueueScheduler(queue):
            await queue.upsert_schedule("far", cron="0 0 1 1 *", timezone="America/New_York")
            await queue.upsert_schedule("broken", every=3600, start=datetime.now(UTC) + timedelta(seconds=1))
            text: Any = client.hget(queue.context.keys["schedules"], "broken")
            client.hset(queue.context.keys["schedules"], "broken", text.replace(b"{", b"["))

            def calls() -> int:
                stats: Any = client.info("commandstats")
                return int(stats["cmdstat_evalsha"]["calls"])

            seen: set[Any] = set()

            def five_sweeps() -> bool:
                seen.add(client.hget(queue.context.keys["meta"], "swept_at"))
                return len(seen) > 5

            await wait_until(lambda: "'broken'" in caplog.text, description="the broken one to be due")
            before = calls()
            await wait_until(five_sweeps, 15, description="five sweeps")
            assert calls() - before <= 2 * 5 + 2
            assert max(map(int, seen)) - min(map(int, seen)) > 3_500, "five sweeps take five seconds"


async def test_an_obliterated_queue_is_listed_again(
    desk: Desk, url: str, redis_client: redis.Redis, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Obliterating takes a queue off the list; whoever keeps working on it is on the list again with the next round of rules."""
    monkeypatch.setattr(scheduler, "_RULES_EVERY", 0.05)

    async def is_listed() -> bool:
        async with Queue("other", url=url) as other:
            runner = other.context.runner
            return bool(
                await runner.run_verb(Verb(("HEXISTS", desk.queue.context.keys.queues, desk.queue.name), lambda reply: reply))
            )

    async with QueueScheduler(desk.queue, lease=0.3):
        await desk.queue.obliterate()
        await wait_until(is_listed, description="the queue on the list")


def _id_of(slot: datetime) -> str:
    return f"schedule:tick:{slot.timestamp() * 1000:.0f}"
