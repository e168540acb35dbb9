"""What a SyncQueue can be asked about schedules."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Generic, cast

from eventq.context import DataT, ResultT
from eventq.operations import scheduling

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from eventq.options import JobOptions
    from eventq.schedule import Schedule
    from eventq.sync_context import SyncContext

log: Final = logging.getLogger("eventq")


class SyncScheduling(Generic[DataT, ResultT]):
    """Mixin of SyncQueue: Scheduling without `await`. The schedules are fired by any QueueScheduler or worker of the queue."""

    context: SyncContext[DataT, ResultT]

    def upsert_schedule(
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
        """As Queue.upsert_schedule: make a schedule, or change the one of that id. If interrupted, it may have been changed."""
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
        self.context.register()
        context = self.context
        return context.runner.perform(scheduling.upsert(context.keys, context.data, schedule_id, definition, context.signer))

    def get_schedule(self, schedule_id: str) -> Schedule[DataT] | None:
        """Return a schedule, None when there is none. One round trip."""
        return self.context.runner.perform(scheduling.find(self.context.keys, self.context.data, schedule_id))

    def get_schedules(self, start: int = 0, limit: int = 100) -> list[Schedule[DataT]]:
        """As Queue.get_schedules: a page by their next run; one that cannot be read is left out, and logged."""
        steps = scheduling.page(self.context.keys, self.context.data, start, limit)
        schedules, errors = self.context.runner.perform(steps)
        for error in errors:
            log.warning("queue %s: a schedule is left out of a listing: %s", self.context.name, error)
        return schedules

    def remove_schedule(self, schedule_id: str) -> bool:
        """Remove a schedule; the jobs that it made stay. Returns whether there was one. One round trip."""
        return self.context.runner.perform(scheduling.remove(self.context.keys, schedule_id))

    def pause_schedule(self, schedule_id: str) -> None:
        """Fire nothing until it is resumed. Raises ScheduleNotFound."""
        self.context.runner.perform(scheduling.pause(self.context.keys, schedule_id))

    def resume_schedule(self, schedule_id: str) -> None:
        """As Queue.resume_schedule: go on with the next slot from now. Raises ScheduleNotFound."""
        self.context.runner.perform(scheduling.resume(self.context.keys, schedule_id))

    def next_runs(self, schedule_id: str, count: int = 5) -> list[datetime]:
        """Return the next times (at most 1000) it will run, in its time zone. Raises ScheduleNotFound."""
        return self.context.runner.perform(scheduling.next_runs(self.context.keys, schedule_id, count))
