"""Schedules: every change is made to what was read, and made again when somebody else was quicker. Redis' clock decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from eventq.checks import check_whole
from eventq.commands.schedules import get_schedule, list_schedules, remove_schedule, set_schedule
from eventq.cron import Cron, find_zone
from eventq.durations import to_epoch_ms, to_ms
from eventq.errors import BadSignature, ConfigurationError, EventqError, InvalidJob, ScheduleNotFound
from eventq.keys import check_job_name, check_queue_name
from eventq.limits import CALL_JOBS, MAX_SCHEDULES
from eventq.options import JobOptions
from eventq.records import UnreadableRecord
from eventq.schedule import MAX_LATE_RUNS, Schedule, Standing, StoredSchedule, definition_text, moment, schedule_of
from eventq.signing import is_signed, without_keys
from eventq.slots import Definition, due_slots, next_slots
from eventq.spans import facts_of
from eventq.tracing import caller_link

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime, timedelta

    from eventq.codec import Codec
    from eventq.commands.core import Command, Steps, Verb
    from eventq.commands.schedules import Schedules
    from eventq.keys import QueueKeys
    from eventq.signing import Signer

DataT = TypeVar("DataT")
#: Others that were quicker before a change gives up.
_TRIES: Final = 1000
MAX_NEXT_RUNS: Final = 1_000
_MAX_LIMIT: Final = 2**53


def upsert(
    keys: QueueKeys, codec: Codec[DataT], schedule_id: str, wanted: Definition, signer: Signer | None = None
) -> Steps[Schedule[DataT]]:
    """Store a schedule as `define` made it, or change it to that, signed where there are keys. Raises BadSignature where there
    are none and the one that stands is signed: it would not be fired any more.
    """
    for _ in range(_TRIES):
        read: Schedules = yield get_schedule(keys, schedule_id)
        old = _only(read)
        known = _trusted(keys, old, signer)
        definition, standing = _change(old, known, wanted, read.now_ms)
        if known is not None and is_alike(known, definition):
            definition = known
        text = definition_text(definition)
        if signer is not None:
            text = signer.seal_schedule(schedule_id, text)
        new = StoredSchedule(schedule_id, standing, definition, text)
        if old is not None and (old.text, old.standing) == (text, standing):
            return schedule_of(new, codec)
        if old is None:
            _check_end(schedule_id, new, read.now_ms)
        dropped = _dropped(old, known, definition, read.now_ms)
        verdict = yield set_schedule(keys, schedule_id, old.standing if old else None, standing, text, dropped=dropped)
        if verdict == "set":
            return schedule_of(new, codec)
        if verdict == "full":
            raise ConfigurationError(
                f"schedule {schedule_id!r}: queue {keys.name!r} has {MAX_SCHEDULES} schedules, which is the limit: remove some"
            )
    raise _too_busy(schedule_id)


def define(
    codec: Codec[DataT],
    defaults: JobOptions | None,
    schedule_id: str,
    *,
    every: float | timedelta | None,
    cron: str | None,
    timezone: str,
    start: datetime | None,
    end: datetime | None,
    limit: int | None,
    name: str | None,
    data: DataT,
    options: JobOptions | None,
    missed: str | int,
) -> Definition:
    """Check everything that can be checked without Redis. Raises ConfigurationError, InvalidJob."""
    check_queue_name(schedule_id, "schedule id")
    if (every is None) == (cron is None):
        raise ConfigurationError(f"schedule {schedule_id!r}: every {every!r} and cron {cron!r}: give one of them")
    find_zone(timezone)
    if cron is not None:
        Cron(cron, timezone)
    if missed not in ("once", "skip") or isinstance(missed, bool):
        check_late_runs(missed)
    compiled = _job_options(schedule_id, options).over(defaults).compiled
    definition = Definition(
        name=check_job_name(schedule_id if name is None else name),
        anchor_ms=0,
        every_ms=0 if every is None else to_ms("every", every, minimum_ms=1000),
        cron=" ".join(cron.split()) if cron else "",
        timezone=timezone,
        start_ms=0 if start is None else to_epoch_ms("start", start),
        end_ms=0 if end is None else to_epoch_ms("end", end),
        limit=0 if limit is None else check_whole("limit", limit, 1, _MAX_LIMIT),
        header=compiled.header,
        spec=compiled.spec,
        data=msgspec.Raw(codec.encode(data).encode()),
        missed=missed,
        trace=",".join(filter(None, (compiled.trace, caller_link()))),
    )
    if start is not None and end is not None and definition.end_ms < definition.start_ms:
        raise ConfigurationError(f"schedule {schedule_id!r}: end {end!r}: is before start {start!r}")
    return definition


def find(keys: QueueKeys, codec: Codec[DataT], schedule_id: str) -> Steps[Schedule[DataT] | None]:
    """Read one schedule, None when there is none. Raises UnreadableRecord."""
    found = _only((yield get_schedule(keys, check_queue_name(schedule_id, "schedule id"))))
    return None if found is None else schedule_of(found, codec)


def page(keys: QueueKeys, codec: Codec[DataT], start: int, limit: int) -> Steps[tuple[list[Schedule[DataT]], list[EventqError]]]:
    """Read a page of schedules by their next run, and why some cannot be read."""
    first, most = check_whole("start", start, 0, MAX_SCHEDULES), check_whole("limit", limit, 1, CALL_JOBS)
    schedules: list[Schedule[DataT]] = []
    errors: list[EventqError] = []
    while (at := len(schedules) + len(errors)) < most:
        read: Schedules = yield list_schedules(keys, first + at, most - at)
        if not read.found:
            break
        for each in read.found:
            if isinstance(each, UnreadableRecord):
                errors.append(each)
                continue
            try:
                schedules.append(schedule_of(each, codec))
            except EventqError as error:  # data of another type, a time zone this machine does not know
                errors.append(error)
    return schedules, errors


def remove(keys: QueueKeys, schedule_id: str) -> Steps[bool]:
    """Remove a schedule; the jobs that it made stay."""
    removed: bool = yield remove_schedule(keys, check_queue_name(schedule_id, "schedule id"))
    return removed


def pause(keys: QueueKeys, schedule_id: str) -> Steps[None]:
    """Fire nothing until it is resumed. Raises ScheduleNotFound."""
    yield from _switch(keys, schedule_id, is_paused=True)


def resume(keys: QueueKeys, schedule_id: str) -> Steps[None]:
    """Go on with the next slot from now; those of the pause are not missed. Raises ScheduleNotFound."""
    yield from _switch(keys, schedule_id, is_paused=False)


def next_runs(keys: QueueKeys, schedule_id: str, count: int) -> Steps[list[datetime]]:
    """Return the slots to come. Raises ScheduleNotFound."""
    most = check_whole("count", count, 1, MAX_NEXT_RUNS)
    found = yield from _require(keys, schedule_id)
    definition, standing = found[1].definition, found[1].standing
    slots = next_slots(definition, standing.next_ms, standing.fired, most)
    return [time for slot in slots if (time := moment(definition, slot)) is not None]


def check_late_runs(missed: object) -> None:
    """Raise ConfigurationError when it is no policy for missed slots."""
    if isinstance(missed, bool) or not isinstance(missed, int) or not 1 <= missed <= MAX_LATE_RUNS:
        raise ConfigurationError(
            f'missed {missed!r}: must be "once" (the latest slot runs), "skip" (none runs late), or how many of the latest run, '
            f"1 to {MAX_LATE_RUNS}"
        )


def _switch(keys: QueueKeys, schedule_id: str, *, is_paused: bool) -> Steps[None]:
    for _ in range(_TRIES):
        now, found = yield from _require(keys, schedule_id)
        old = found.standing
        if old.is_paused == is_paused:
            return
        new = msgspec.structs.replace(old, is_paused=is_paused, next_ms=None)
        if not is_paused:
            new = msgspec.structs.replace(new, next_ms=_next_slot(found.definition, new, now))
        if (yield set_schedule(keys, schedule_id, old, new, "")) == "set":
            return
    raise _too_busy(schedule_id)


def is_alike(old: Definition, new: Definition) -> bool:
    """Whether nothing changed but the trace of who says it: the first one stands, so that saying it again changes nothing."""
    is_said_alike = facts_of(old.trace).propagation == facts_of(new.trace).propagation
    return is_said_alike and msgspec.structs.replace(old, trace=new.trace) == new


def _trusted(keys: QueueKeys, old: StoredSchedule | None, signer: Signer | None) -> Definition | None:
    """Return the definition that stands, None where it is nobody's we know: what is kept of it would be signed here."""
    if old is None:
        return None
    if signer is None:
        if is_signed(old.text):
            raise without_keys("schedule", old.id, keys.name)
        return old.definition
    try:
        signer.open_schedule(old.id, old.text)
    except BadSignature:
        return None
    return old.definition


def _dropped(old: StoredSchedule | None, known: Definition | None, definition: Definition, now: int) -> tuple[int, int, int]:
    """Return the due slots of the old rule that a new one leaves out: how many, the first, the last."""
    if old is None or known is None or definition.rule == known.rule:
        return 0, 0, 0
    return due_slots(known, old.standing.next_ms, now)


def _change(old: StoredSchedule | None, known: Definition | None, wanted: Definition, now: int) -> tuple[Definition, Standing]:
    """Return what is to be stored: the same rule goes on where it stands, another one (or one that is not `known`) begins now."""
    if old is None:
        definition = msgspec.structs.replace(wanted, anchor_ms=wanted.start_ms or now)
        return definition, Standing(next_ms=_next_slot(definition, Standing(), now))
    is_same = known is not None and wanted.rule == known.rule
    definition = msgspec.structs.replace(wanted, anchor_ms=wanted.start_ms or (known.anchor_ms if known and is_same else now))
    standing = old.standing
    if not is_same:
        standing = msgspec.structs.replace(standing, fired=0, missed=0, next_ms=None)
    is_over = standing.next_ms is not None and 0 < definition.end_ms < standing.next_ms
    if standing.next_ms is None or is_over or 0 < definition.limit <= standing.fired:
        soonest = None if standing.is_paused else _next_slot(definition, standing, now)
        standing = msgspec.structs.replace(standing, next_ms=soonest)
    return definition, standing


def _next_slot(definition: Definition, standing: Standing, now: int) -> int | None:
    """Return the first slot from now on that has not been handled; None when the schedule has ended."""
    if 0 < definition.limit <= standing.fired:
        return None
    return next(definition.slots(max(now, (standing.last_ms or 0) + 1)), None)


def _check_end(schedule_id: str, new: StoredSchedule, now: int) -> None:
    """Refuse a new schedule whose end leaves nothing to run. One that is there may come to its end."""
    definition, standing = new.definition, new.standing
    if not definition.end_ms:
        return
    if definition.end_ms < now:
        raise ConfigurationError(f"schedule {schedule_id!r}: end {moment(definition, definition.end_ms)}: is in the past")
    if standing.next_ms is None and standing.fired == 0 and not standing.is_paused:
        raise ConfigurationError(
            f"schedule {schedule_id!r}: end {moment(definition, definition.end_ms)}: is before its first slot"
        )


def _job_options(schedule_id: str, options: JobOptions | None) -> JobOptions:
    if options is None:
        return JobOptions()
    if not isinstance(options, JobOptions):
        raise InvalidJob(f"options {options!r}: must be JobOptions")
    for option in ("delay", "at", "job_id"):
        if getattr(options, option) is not None:
            raise InvalidJob(
                f"schedule {schedule_id!r}: options {option}={getattr(options, option)!r}: the schedule decides that"
            )
    return options


def _only(read: Schedules) -> StoredSchedule | None:
    found = read.found[0] if read.found else None
    if isinstance(found, UnreadableRecord):
        raise found
    return found


def _require(keys: QueueKeys, schedule_id: str) -> Generator[Command[Any] | Verb[Any], Any, tuple[int, StoredSchedule]]:
    read: Schedules = yield get_schedule(keys, check_queue_name(schedule_id, "schedule id"))
    found = _only(read)
    if found is None:
        raise ScheduleNotFound(
            f"queue {keys.name!r} has no schedule {schedule_id!r}: never upserted, or removed since",
            queue=keys.name,
            schedule_id=schedule_id,
        )
    return read.now_ms, found


def _too_busy(schedule_id: str) -> EventqError:
    return EventqError(
        f"schedule {schedule_id!r}: was changed {_TRIES} times by others meanwhile; nothing was changed, try again"
    )
