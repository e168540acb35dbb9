"""`eventq schedules` and `eventq schedule`; pausing, resuming and removing one."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from eventq.cli.manage import Done, Order, Plan
from eventq.cli.opening import Place, open_queue
from eventq.cli.runtime import NotFound, run_async, say
from eventq.cli.tables import STYLES, Column, Styled, print_facts, print_json, print_json_line, print_table
from eventq.cli.text import age, number, shorten
from eventq.commands.events import server_time
from eventq.limits import CALL_JOBS, MAX_SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventq.cli.tables import Cell
    from eventq.queue import Queue
    from eventq.schedule import Schedule

__all__ = ["print_schedule", "print_schedules", "remove_schedule_order", "set_schedule_paused"]

_COLUMNS: Final = (
    Column("id"),
    Column("runs"),
    Column("state"),
    Column("next run"),
    Column("in", right=True),
    Column("count", right=True),
    Column("missed", right=True),
    Column("job name", cut=True),
)
_TEXT: Final = 4000
#: Seconds: a worker fires to the millisecond, and one that has just started sweeps within a second.
_LATE: Final = 3.0


def print_schedules(queue_name: str, place: Place, *, as_json: bool) -> None:
    """Print a queue's schedules by their next run, those that are paused or have ended last."""
    schedules, now_ms = run_async(lambda: _read_all(queue_name, place))
    if as_json:
        for each in schedules:
            print_json_line(_document(each))
    elif schedules:
        print_table(_COLUMNS, [_row(each, now_ms) for each in schedules])
        if any(_lateness(each, now_ms) for each in schedules):
            say(f"nobody fires what is overdue: start a worker, or `eventq scheduler {queue_name}`")
    else:
        say(f"queue {queue_name} has no schedules")


def print_schedule(queue_name: str, schedule_id: str, place: Place, runs: int, *, as_json: bool) -> None:
    """Print one schedule and its next runs. Raises NotFound."""
    schedule, times, now_ms = run_async(lambda: _read_one(queue_name, schedule_id, place, runs))
    if as_json:
        print_json({**_document(schedule), "next_runs": [_utc(time) for time in times]})
    else:
        print_facts(_facts(schedule, times, now_ms))


def set_schedule_paused(queue_name: str, schedule_id: str, place: Place, *, paused: bool, as_json: bool) -> None:
    """Pause or resume one schedule. Raises ScheduleNotFound."""

    async def main() -> None:
        async with open_queue(queue_name, place) as queue:
            await (queue.pause_schedule(schedule_id) if paused else queue.resume_schedule(schedule_id))

    run_async(main)
    if as_json:
        print_json({"queue": queue_name, "schedule": schedule_id, "is_paused": paused})
    else:
        print(f"schedule {schedule_id} of queue {queue_name} {'is paused' if paused else 'goes on with its next slot'}")


def remove_schedule_order(schedule_id: str) -> Order:
    """Remove one schedule; the jobs that it made stay."""

    async def plan(queue: Queue[Any, Any]) -> Plan:
        if await queue.get_schedule(schedule_id) is None:
            raise _not_found(queue.name, schedule_id)
        return Plan(does=f"remove schedule {schedule_id} of queue {queue.name}, and leave the jobs that it made", count=1)

    async def act(queue: Queue[Any, Any], on_progress: Callable[[int], None]) -> Done:
        if not await queue.remove_schedule(schedule_id):
            raise _not_found(queue.name, schedule_id)
        return Done(did=f"removed schedule {schedule_id} of queue {queue.name}", count=1, facts={"schedule": schedule_id})

    async def total(queue: Queue[Any, Any]) -> int:
        return 1

    return Order(command="remove", plan=plan, act=act, total=total, destroys=True)


async def _read_all(queue_name: str, place: Place) -> tuple[list[Schedule], int]:
    found: list[Schedule] = []
    async with open_queue(queue_name, place) as queue:
        for start in range(0, MAX_SCHEDULES, CALL_JOBS):
            page = await queue.get_schedules(start, CALL_JOBS)
            found += page
            if not page:
                break
        return found, await queue.context.runner.run_verb(server_time())


async def _read_one(queue_name: str, schedule_id: str, place: Place, runs: int) -> tuple[Schedule, list[datetime], int]:
    async with open_queue(queue_name, place) as queue:
        schedule = await queue.get_schedule(schedule_id)
        if schedule is None:
            raise _not_found(queue_name, schedule_id)
        return schedule, await queue.next_runs(schedule_id, runs), await queue.context.runner.run_verb(server_time())


def _not_found(queue_name: str, schedule_id: str) -> NotFound:
    return NotFound(f"queue {queue_name!r} has no schedule {schedule_id!r}; `eventq schedules {queue_name}` lists them")


def _document(schedule: Schedule) -> dict[str, Any]:
    """Return the fields of Schedule, times in UTC; of the options those that were said."""
    said = {field.name: getattr(schedule, field.name) for field in fields(schedule)}
    facts = {name: _utc(value) if isinstance(value, datetime) else value for name, value in said.items()}
    options = {name: value for name, value in asdict(schedule.options).items() if value is not None and name != "compiled"}
    return {**facts, "options": options}


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _lateness(schedule: Schedule, now_ms: int) -> float:
    """Return for how many seconds it should have run already, 0 for a moment that is nobody's fault."""
    late = now_ms / 1000 - schedule.next_run.timestamp() if schedule.next_run else 0
    return late if late > _LATE else 0


def _state(schedule: Schedule, now_ms: int) -> Styled:
    if schedule.is_paused:
        return Styled("paused", "magenta")
    if _lateness(schedule, now_ms):
        return Styled("overdue", STYLES["problem"])
    return Styled("running", "green") if schedule.next_run else Styled("ended", "dim")


def _row(schedule: Schedule, now_ms: int) -> list[Cell]:
    soon = age(schedule.next_run.timestamp() - now_ms / 1000) if schedule.next_run else ""
    if late := _lateness(schedule, now_ms):
        soon = f"{age(late)} ago"
    counts = [number(schedule.count), number(schedule.missed_count)]
    return [schedule.id, _runs(schedule), _state(schedule, now_ms), _time(schedule.next_run), soon, *counts, schedule.name]


def _runs(schedule: Schedule) -> str:
    if schedule.cron is not None:
        return f"{schedule.cron} ({schedule.timezone})"
    return f"every {age(schedule.every or 0)}"


def _time(time: datetime | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z") if time else ""


def _facts(schedule: Schedule, times: list[datetime], now_ms: int) -> Iterator[tuple[str, Cell]]:
    yield "schedule", schedule.id
    yield "runs", _runs(schedule)
    late = _lateness(schedule, now_ms)
    by = f" by {age(late)}: nobody fires it; start a worker, or `eventq scheduler QUEUE`" if late else ""
    state = _state(schedule, now_ms)
    yield "state", Styled(f"{state.text}{by}", state.style)
    for what, time in (("start", schedule.start), ("end", schedule.end), ("last run", schedule.last_run)):
        if time:
            yield what, _time(time)
    limit = f" of {number(schedule.limit)}" if schedule.limit else ""
    yield "count", f"{number(schedule.count)}{limit}, and {number(schedule.missed_count)} missed (policy: {schedule.missed})"
    yield "job name", schedule.name
    yield "data", shorten(json.dumps(schedule.data, ensure_ascii=False), _TEXT)
    yield "next runs", "\n".join(map(_time, times)) or "none"
