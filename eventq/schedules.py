"""Scheduling: what a Queue and a QueueScheduler can be asked about schedules."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from eventq.context import DataT, QueueContext, ResultT
from eventq.operations import scheduling

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from eventq.commands.core import Steps
    from eventq.options import JobOptions
    from eventq.schedule import Schedule

R = TypeVar("R")
log: Final = logging.getLogger("eventq")


class Scheduling(Generic[DataT, ResultT]):
    """Mixin of Queue and QueueScheduler. Schedules are fired by any QueueScheduler of the queue; every worker carries one."""

    context: QueueContext[DataT, ResultT]

    @abstractmethod
    async def _perform(self, steps: Steps[R]) -> R: ...

    async def upsert_schedule(
        self,
        schedule_id: str,
        *,
        every: float | timedelta | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int | None = None,
        name: str | None = None,
        data: DataT = cast("Any", None),  # noqa: B008
        options: JobOptions | None = None,
        missed: str | int = "once",
    ) -> Schedule[DataT]:
        """Make a schedule, or change the one of that id; each slot adds one job, whose id is `schedule:ID:SLOT` (ms).

        every: seconds (at least 1) between slots, the first at `start`, without one at once. cron: five fields, or six with
        seconds first, in `timezone`; `eventq.cron.Cron` says what a change of clocks does. end: no slot after it. limit: it ends
        after so many jobs. name: of the jobs, the schedule's id by default. options: without delay, at and job_id; the queue's
        default options fill in. missed: of the slots that nobody fired in time, "once" runs the latest, "skip" runs it only
        when it is not later than 60 s, a number n (to 1000) runs the latest n; older ones are told as `schedule_missed`.

        A new schedule is noticed within a second, later slots are fired to the millisecond by whoever wakes first.

        Call it at every start of the program: with the same every, cron, timezone and start the schedule goes on as it was, with
        another of these it begins anew now. A paused one stays paused. Two round trips, one when nothing is to be changed. If
        cancelled, it may have been changed. Raises ConfigurationError, InvalidJob, BadSignature (a signed one, and no keys here;
        nothing changed in these cases), QueueUnavailable.
        """
        definition = scheduling.define(
            self.context.data,
            self.context.default_options,
            schedule_id,
            every=every,
            cron=cron,
            timezone=timezone,
            start=start,
            end=end,
            limit=limit,
            name=name,
            data=data,
            options=options,
            missed=missed,
        )
        await self.context.register()
        context = self.context
        return await self._perform(scheduling.upsert(context.keys, context.data, schedule_id, definition, context.signer))

    async def get_schedule(self, schedule_id: str) -> Schedule[DataT] | None:
        """Return a schedule, None when there is none. One round trip."""
        return await self._perform(scheduling.find(self.context.keys, self.context.data, schedule_id))

    async def get_schedules(self, start: int = 0, limit: int = 100) -> list[Schedule[DataT]]:
        """Return a page of at most 500 schedules by their next run, those that are paused or have ended last.

        One round trip per MiB. One that cannot be read is left out, and logged.
        """
        schedules, errors = await self._perform(scheduling.page(self.context.keys, self.context.data, start, limit))
        for error in errors:
            log.warning("queue %s: a schedule is left out of a listing: %s", self.context.name, error)
        return schedules

    async def remove_schedule(self, schedule_id: str) -> bool:
        """Remove a schedule; the jobs that it made stay. Returns whether there was one. One round trip."""
        return await self._perform(scheduling.remove(self.context.keys, schedule_id))

    async def pause_schedule(self, schedule_id: str) -> None:
        """Fire nothing until it is resumed. Two round trips. Raises ScheduleNotFound."""
        await self._perform(scheduling.pause(self.context.keys, schedule_id))

    async def resume_schedule(self, schedule_id: str) -> None:
        """Go on with the next slot from now; those of the pause are not missed. Two round trips. Raises ScheduleNotFound."""
        await self._perform(scheduling.resume(self.context.keys, schedule_id))

    async def next_runs(self, schedule_id: str, count: int = 5) -> list[datetime]:
        """Return the next times (at most 1000) it will run, in its time zone; none when it is paused or has ended.

        One round trip. Raises ScheduleNotFound.
        """
        return await self._perform(scheduling.next_runs(self.context.keys, schedule_id, count))
