"""Firing schedules: what is due is read, planned here, and written if nobody was quicker."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from eventq.commands.schedules import due_schedules, fire_schedule
from eventq.errors import EventqError
from eventq.records import UnreadableRecord
from eventq.schedule import standing_after
from eventq.slots import plan_firings

if TYPE_CHECKING:
    from eventq.client import AsyncRunner
    from eventq.keys import QueueKeys
    from eventq.schedule import StoredSchedule
    from eventq.slots import Plan

log: Final = logging.getLogger("eventq")

#: Schedules read in one call, and slots fired before leases are swept again.
BATCH: Final = 100
#: A schedule that is so far behind may have thousands of slots to count, which a running loop must not wait for.
_FAR_BEHIND_MS: Final = 3_600_000


class Firing:
    """Fires what is due. One that cannot be read or understood here is logged once and left to another scheduler."""

    def __init__(self, runner: AsyncRunner, keys: QueueKeys) -> None:
        self._runner = runner
        self._keys = keys
        self._told: set[str] = set()

    async def fire_due(self) -> bool:
        """Fire at most 100 slots. Returns whether anything was done; then there may be more. Raises ServerRefused."""
        read = await self._runner.run(due_schedules(self._keys, BATCH))
        done = 0
        for schedule in read.found:
            if isinstance(schedule, UnreadableRecord):
                self._tell(schedule)
            else:
                done += await self._catch_up(schedule, read.now_ms, BATCH - done)
            if done >= BATCH:
                break
        return done > 0

    async def _catch_up(self, schedule: StoredSchedule, now_ms: int, most: int) -> int:
        """Handle one schedule's due slots, one per call, as long as nobody else does."""
        done = 0
        while done < most:
            standing = schedule.standing
            if standing.next_ms is None or standing.next_ms > now_ms:
                break
            try:
                plans = await self._plan(schedule, standing.next_ms, now_ms)
            except EventqError as error:  # a time zone that this machine does not know, or a newer version's expression
                self._tell(error)
                break
            for plan in plans[: most - done]:
                standing = standing_after(schedule.standing, plan)
                if await self._runner.run(fire_schedule(self._keys, schedule, plan, standing)) == "conflict":
                    return done
                schedule = msgspec.structs.replace(schedule, standing=standing)
                done += 1
        return done

    async def _plan(self, schedule: StoredSchedule, next_ms: int, now_ms: int) -> list[Plan]:
        args = (schedule.definition, next_ms, now_ms, schedule.standing.fired)
        if now_ms - next_ms > _FAR_BEHIND_MS:
            return await asyncio.to_thread(plan_firings, *args)
        return plan_firings(*args)

    def _tell(self, error: EventqError) -> None:
        if str(error) not in self._told and len(self._told) < BATCH:
            self._told.add(str(error))
            log.error("queue %s: a schedule is not fired by this process: %s", self._keys.name, error)
