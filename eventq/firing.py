"""Firing schedules: what is due is read, planned here, and written if nobody was quicker."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from eventq.codec import encode_json
from eventq.commands.events import report_events
from eventq.commands.schedules import due_schedules, fire_schedule
from eventq.errors import BadSignature, EventqError
from eventq.records import UnreadableRecord
from eventq.schedule import standing_after
from eventq.signing import is_signed, without_keys
from eventq.slots import plan_firings

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventq.client import AsyncRunner
    from eventq.keys import QueueKeys
    from eventq.schedule import StoredSchedule
    from eventq.signing import Signer
    from eventq.slots import Plan

log: Final = logging.getLogger("eventq")

#: Schedules read in one call.
BATCH: Final = 100
#: Seconds of firing before leases are swept again; what is due still comes after that.
TURN: Final = 0.5
#: A schedule that is so far behind may have thousands of slots to count, which a running loop must not wait for.
_FAR_BEHIND_MS: Final = 3_600_000


class Firing:
    """Fires what is due. One that cannot be read or understood here is logged once and left to another scheduler.

    signer: only what it verifies is fired. on_error: told once of each schedule whose signature is not good; without it an event
    tells.
    """

    def __init__(
        self,
        runner: AsyncRunner,
        keys: QueueKeys,
        signer: Signer | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self._runner = runner
        self._keys = keys
        self._signer = signer
        self._on_error = on_error
        self._told: set[str] = set()

    async def fire_due(self) -> bool:
        """Fire for half a second at most, schedules in turns. Returns whether anything was done; then there may be more.

        Raises ServerRefused.
        """
        until = monotonic() + TURN
        done, left = 0, 0  # left: how many of those that are due longest this process cannot fire
        while monotonic() < until:
            read = await self._runner.run(due_schedules(self._keys, left, BATCH))
            if not read.found:
                break
            before = done
            for schedule in read.found:
                fired = await self._catch_up(schedule, read.now_ms, until)
                if fired is None:
                    left += 1
                else:
                    done += fired
                if monotonic() >= until:
                    break
            if done == before and not read.has_more:
                break
        return done > 0

    async def _catch_up(self, schedule: StoredSchedule | UnreadableRecord, now_ms: int, until: float) -> int | None:
        """Carry out one plan for a schedule, as long as nobody else does; returns how many calls did something.

        None: it is not for this process.
        """
        if isinstance(schedule, UnreadableRecord):
            await self._tell(schedule)
            return None
        try:
            self._verify(schedule)
            plans = await self._plan(schedule, schedule.standing.next_ms or now_ms, now_ms)
        except EventqError as error:  # forged; or a time zone that this machine does not know, a newer version's expression
            await self._tell(error)
            return None
        done, standing = 0, schedule.standing
        for plan in plans:
            read = msgspec.structs.replace(schedule, standing=standing)
            standing = standing_after(standing, plan)
            if await self._runner.run(fire_schedule(self._keys, read, plan, standing, self._signer)) == "conflict":
                break
            done += 1
            if monotonic() >= until:
                break
        return done

    async def _plan(self, schedule: StoredSchedule, next_ms: int, now_ms: int) -> list[Plan]:
        args = (schedule.definition, next_ms, now_ms, schedule.standing.fired)
        if now_ms - next_ms > _FAR_BEHIND_MS:
            return await asyncio.to_thread(plan_firings, *args)
        return plan_firings(*args)

    def _verify(self, schedule: StoredSchedule) -> None:
        """Raise BadSignature for a schedule that is not for this process to fire."""
        if self._signer is not None:
            self._signer.open_schedule(schedule.id, schedule.text)
        elif is_signed(schedule.text):
            raise without_keys("schedule", schedule.id, self._keys.name)

    async def _tell(self, error: EventqError) -> None:
        if str(error) in self._told or len(self._told) >= BATCH:
            return
        self._told.add(str(error))
        if isinstance(error, BadSignature) and self._on_error is not None:
            self._on_error(error)
            return
        log.error("queue %s: a schedule is not fired by this process: %s", self._keys.name, error)
        if isinstance(error, BadSignature):
            facts = encode_json({"type": type(error).__name__, "message": str(error)}, "event")
            await self._runner.run(report_events(self._keys, "error", [facts]))
