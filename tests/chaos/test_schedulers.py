"""Many schedulers, slow ones among them, over the turn of the year and changes of clocks: every slot becomes one job, once."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from eventq import Queue
from eventq.events import AddedEvent, LostEvent, ScheduleMissedEvent

from ..integration.recorder import Recorder
from .ledger import Ledger
from .processes import Process, Processes, choose_seed

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from ..conftest import Clock, WaitUntil

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
#: Turns of the year, and all days with a change of clocks in one of the zones in between.
TURNS = ("2026-12-31", "2027-03-14", "2027-03-28", "2027-04-04", "2027-10-03", "2027-10-31", "2027-11-07", "2027-12-31")
#: Minutes and hours, and whether every named time counts once (else clocks are followed as they are seen).
RULES = (("5,25,45", "0-3,23", True), ("*/20", "1,2", False))


@dataclass(frozen=True)
class Plan:
    """How much of it. Of the schedulers, `slow` stand still between reading what is due and firing it, for a few moves of the clock."""

    schedulers: int
    slow: int
    turns: tuple[str, ...]
    least_slots: int


SMALL = Plan(schedulers=4, slow=1, turns=("2027-04-04", "2027-12-31"), least_slots=100)
FULL = Plan(schedulers=20, slow=5, turns=TURNS, least_slots=1000)


def slots(zone: str, rule: tuple[str, str, bool], start: datetime, end: datetime) -> Iterator[int]:
    """Yield what a clock on the wall of that zone comes to, looked at once a minute, by means that eventq does not use (ms)."""
    minutes = {minute for minute in range(60) if (minute % 20 == 0 if rule[0] == "*/20" else minute in (5, 25, 45))}
    hours = {1, 2} if rule[1] == "1,2" else {0, 1, 2, 3, 23}
    place = ZoneInfo(zone)
    seen = start.astimezone(place).replace(tzinfo=None) - timedelta(minutes=1)
    now = start
    while now <= end:
        wall = now.astimezone(place).replace(tzinfo=None)
        if rule[2]:
            new = [seen + timedelta(minutes=step) for step in range(1, round((wall - seen) / timedelta(minutes=1)) + 1)]
            seen = max(seen, wall)
        else:
            new = [wall]
        if any(time.minute in minutes and time.hour in hours for time in new):
            yield round(now.timestamp() * 1000)
        now += timedelta(minutes=1)


class Passage:
    """Moves a queue's clock through days on which clocks are changed, while schedulers fire what they find due."""

    def __init__(self, queue: Queue[Any, Any], clock: Clock, client: redis.Redis, wait_until: WaitUntil, seed: int) -> None:
        self._queue = queue
        self._clock = clock
        self._client = client
        self._wait_until = wait_until
        self._chance = random.Random(seed)
        self._moves = 0
        self.late_calls = 0
        self.expected: Counter[tuple[str, int]] = Counter()

    async def through(self, turn: str) -> None:
        """Pass two days around a turn: schedules of every zone and rule, moves of up to three hours."""
        start = datetime.fromisoformat(turn).replace(tzinfo=UTC) - timedelta(hours=15)
        end = start + timedelta(hours=38)
        self._clock.advance(self._queue.name, (start - self._now()).total_seconds())
        for zone in ZONES:
            for number, rule in enumerate(RULES):
                schedule_id = f"{turn}.{zone.replace('/', '.')}.{number}"
                await self._queue.upsert_schedule(
                    schedule_id, cron=f"{rule[0]} {rule[1]} * * *", timezone=zone, start=start, end=end, missed=1000
                )
                self.expected.update((schedule_id, slot) for slot in slots(zone, rule, start, end))
        while (left := (end - self._now()).total_seconds()) > 0:
            self._clock.advance(self._queue.name, min(left + 1, self._chance.uniform(60, 3 * 3600)))
            self._moves += 1
            if self._now() > end or self._chance.random() < 0.8:
                await self._wait_until(self._nothing_is_due, 20)
                # What was fired is gone at once, so that a slot fired again would not find its job.
                await self._queue.drain()

    async def delay(self, process: Process) -> None:
        """Let a slow scheduler go on some moves after each time it stopped itself; its call is late by then."""
        while await process.read_line() == "stops":
            move = self._moves + self._chance.randint(1, 3)
            await self._wait_until(lambda move=move: self._moves >= move, 60)
            process.send(signal.SIGCONT)
            self.late_calls += 1

    def _now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._clock.offset(self._queue.name))

    def _nothing_is_due(self) -> bool:
        found: Any = self._client.zrange(self._queue.context.keys["slots"], 0, 0, withscores=True)
        return not found or found[0][1] > self._now().timestamp() * 1000


async def pass_through(plan: Plan, queue: Queue[Any, Any], passage: Passage, processes: Processes) -> Recorder:
    """Start the schedulers, pass every turn, and return what was told."""
    slow = [processes.start("scheduler", lease=0.3, hesitates=True) for _ in range(plan.slow)]
    others = [processes.start("scheduler", lease=0.3) for _ in range(plan.schedulers - plan.slow)]
    for process in (*slow, *others):
        await process.expect("started")
    delaying = [asyncio.create_task(passage.delay(process)) for process in slow]
    try:
        async with Recorder(queue) as recorder:
            for turn in plan.turns:
                await passage.through(turn)
            await recorder.catch_up()
            return recorder
    finally:
        for task in delaying:
            task.cancel()
        await asyncio.wait(delaying)


async def check_passage(
    plan: Plan, url: str, queue_name: str, clock: Clock, client: redis.Redis, wait_until: WaitUntil, directory: Path
) -> None:
    """Pass, and compare what was fired with what should have been."""
    async with Queue(queue_name, url=url) as queue:
        passage = Passage(queue, clock, client, wait_until, choose_seed())
        with Processes(Ledger(directory / "ledger"), queue_name, url) as processes:
            recorder = await pass_through(plan, queue, passage, processes)
        schedules = await queue.get_schedules(limit=500)
    assert not [event for event in recorder.events if isinstance(event, LostEvent | ScheduleMissedEvent)]
    fired = Counter(
        (event.schedule, event.slot_ms) for event in recorder.events if isinstance(event, AddedEvent) and event.schedule
    )
    print(f"{len(fired)} slots, {plan.schedulers} schedulers, {passage.late_calls} late calls")
    assert passage.expected == fired
    assert len(fired) >= plan.least_slots
    assert passage.late_calls >= plan.slow, "slow schedulers were to take part"
    counts = Counter(schedule_id for schedule_id, _ in passage.expected)
    assert counts == {schedule.id: schedule.count for schedule in schedules}
    assert [schedule for schedule in schedules if schedule.next_run is not None] == []


async def test_a_few_schedulers_fire_every_slot_once(
    url: str, queue_name: str, clock: Clock, redis_client: redis.Redis, wait_until: WaitUntil, tmp_path: Path
) -> None:
    """Four schedulers, one of them always late, over half an hour of clock change and a turn of the year."""
    await check_passage(SMALL, url, queue_name, clock, redis_client, wait_until, tmp_path)


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_twenty_schedulers_fire_a_thousand_slots_once(
    url: str, queue_name: str, clock: Clock, redis_client: redis.Redis, wait_until: WaitUntil, tmp_path: Path
) -> None:
    """Twenty schedulers, five of them always late, over a year with all its changes of clocks in four zones."""
    await check_passage(FULL, url, queue_name, clock, redis_client, wait_until, tmp_path)
