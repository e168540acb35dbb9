"""Schedules: reading them, changing them as they were read, firing their slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from eventq.commands.core import Command
from eventq.limits import CALL_BYTES, INLINE_DATA_BYTES, MAX_SCHEDULES
from eventq.records import UnreadableRecord
from eventq.schedule import Standing, StoredSchedule, parse_schedule
from eventq.scripts import load_script
from eventq.spans import members_of

if TYPE_CHECKING:
    from eventq.keys import QueueKeys
    from eventq.signing import Signer
    from eventq.slots import Plan


class Schedules(msgspec.Struct, frozen=True):
    """What was read, and when (ms, Redis' clock). One that cannot be read is its error. has_more: the page may not be all."""

    now_ms: int
    found: list[StoredSchedule | UnreadableRecord]
    has_more: bool = False


def get_schedule(keys: QueueKeys, schedule_id: str) -> Command[Schedules]:
    """Read one schedule, or none."""
    return _get(keys, "id", schedule_id)


def due_schedules(keys: QueueKeys, start: int, limit: int) -> Command[Schedules]:
    """Read schedules whose next slot is due, those that are due longest first, without so many of them."""
    return _get(keys, "due", limit, CALL_BYTES, start)


def list_schedules(keys: QueueKeys, start: int, limit: int) -> Command[Schedules]:
    """Read a page of schedules by their next slot; fewer than `limit` when they are large, but one at least if there is one."""
    return _get(keys, "page", limit, CALL_BYTES, start)


def set_schedule(
    keys: QueueKeys,
    schedule_id: str,
    read: Standing | None,
    new: Standing,
    definition: str,
    *,
    dropped: tuple[int, int, int] = (0, 0, 0),
) -> Command[str]:
    """Store a schedule if it is still as it was read (None: new). An empty definition leaves the stored one.

    dropped: how many due slots the change leaves out, the first and the last of them (ms). Returns set, conflict, or full.
    """
    script = load_script("set_schedule")
    args: list[str | int] = [schedule_id, *_as_read(read), new.text, definition, MAX_SCHEDULES, *dropped]
    return Command(script, script.keys(keys), args, lambda reply: str(reply[1]))


def fire_schedule(
    keys: QueueKeys, schedule: StoredSchedule, plan: Plan, new: Standing, signer: Signer | None = None
) -> Command[str]:
    """Handle due slots as planned, if the schedule is still as it was read. Returns fired, exists, passed or conflict."""
    script = load_script("fire_schedule")
    definition = schedule.definition
    data = bytes(definition.data).decode()
    if signer is not None and plan.run_ms is not None:
        data = signer.seal_job(f"schedule:{schedule.id}:{plan.run_ms}", definition.name, definition.spec, data)
    head, body, apart = definition.header, f"{definition.spec}\n{data}", ""
    if len(data) > INLINE_DATA_BYTES:
        head, body, apart = f"{head}d", f"{definition.spec}\n", data
    args: list[str | int] = [schedule.id, *_as_read(schedule.standing), new.text]
    args += [plan.missed, plan.first_missed_ms, plan.last_missed_ms, str(definition.missed)]
    args += ["" if plan.run_ms is None else plan.run_ms, definition.name, head, body, apart, members_of(definition.trace)]
    return Command(script, script.keys(keys), args, lambda reply: str(reply[1]))


def remove_schedule(keys: QueueKeys, schedule_id: str) -> Command[bool]:
    """Remove a schedule. Returns whether there was one."""
    script = load_script("remove_schedule")
    return Command(script, script.keys(keys), [schedule_id], lambda reply: reply[1] == 1)


def _get(keys: QueueKeys, *args: str | int) -> Command[Schedules]:
    script = load_script("get_schedules")
    return Command(script, script.keys(keys), args, _parse, numbered=False)


def _parse(reply: list[Any]) -> Schedules:
    found: list[StoredSchedule | UnreadableRecord] = []
    for at in range(3, len(reply), 2):
        try:
            found.append(parse_schedule(reply[at], reply[at + 1]))
        except UnreadableRecord as error:
            found.append(error)
    return Schedules(reply[1], found, reply[2] == 1)


def _as_read(read: Standing | None) -> tuple[str, str]:
    return ("", "") if read is None else (read.revision, "-" if read.next_ms is None else str(read.next_ms))
