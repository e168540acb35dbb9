"""The scripts of schedules by hand: a change counts only for what was read, a slot is fired once, an old one never again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from eventq.codec import encode_json
from eventq.commands import schedules as commands
from eventq.commands.core import Command
from eventq.commands.manage import remove_jobs
from eventq.commands.schedules import due_schedules, fire_schedule, get_schedule, list_schedules, remove_schedule, set_schedule
from eventq.commands.work import Retention
from eventq.events import AddedEvent, ScheduleMissedEvent
from eventq.options import JobOptions
from eventq.records import UnreadableRecord
from eventq.schedule import Standing, StoredSchedule, definition_text, standing_after
from eventq.slots import Definition, Plan, plan_firings
from eventq.states import JobState

from .lab import Lab, outcome

#: A time to schedule around, so that no test depends on when it runs: 2033-05-18.
SLOT = 2_000_000_000_000
MINUTE = 60_000


def definition(data: object = 1, **options: Any) -> Definition:
    """Return what a schedule of one slot a minute is to do."""
    compiled = JobOptions(**options).compiled
    text = msgspec.Raw(encode_json(data, "data").encode())
    return Definition(name="job", anchor_ms=SLOT, every_ms=MINUTE, header=compiled.header, spec=compiled.spec, data=text)


def set_up(lab: Lab, schedule_id: str = "tick", *, at: int = SLOT, **facts: Any) -> StoredSchedule:
    """Store a schedule and return it as it is then read."""
    new = definition(**facts)
    assert lab.call(set_schedule(lab.keys, schedule_id, None, Standing(next_ms=at), definition_text(new))) == "set"
    return read(lab, schedule_id)


def read(lab: Lab, schedule_id: str = "tick") -> StoredSchedule:
    """Return a schedule as it is stored."""
    (found,) = lab.call(get_schedule(lab.keys, schedule_id)).found
    assert isinstance(found, StoredSchedule)
    return found


def due(lab: Lab) -> list[str]:
    """Return the ids of what is due."""
    return [each.id for each in lab.call(due_schedules(lab.keys, 0, 100)).found if isinstance(each, StoredSchedule)]


def fire_at(lab: Lab, found: StoredSchedule, plan: Plan) -> Command[str]:
    """Return the call that a scheduler makes which read this and planned that."""
    return fire_schedule(lab.keys, found, plan, standing_after(found.standing, plan))


def fire(lab: Lab, found: StoredSchedule, now: int | None = None, *, writer: str = "scheduler") -> str:
    """Fire what a scheduler would that read this and thinks it is `now` (its slot by default)."""
    next_ms = found.standing.next_ms
    assert next_ms is not None
    return lab.call(fire_at(lab, found, plan_firings(found.definition, next_ms, now or next_ms, found.standing.fired)[0]), writer)


def move_to(lab: Lab, ms: int) -> None:
    """Let it be this time."""
    lab.advance((ms - lab.now()) / 1000)


# -- one slot, one job


def test_a_slot_becomes_a_job(lab: Lab) -> None:
    """The job is named after schedule and slot, its event says so too, and the schedule goes on with the next slot."""
    found = set_up(lab, data={"to": "x"}, attempts=3)
    lab.fresh()
    assert fire(lab, found) == "fired"

    (added,) = lab.fresh()
    assert isinstance(added, AddedEvent)
    assert (added.job_id, added.name, added.state) == (f"schedule:tick:{SLOT}", "job", "waiting")
    assert (added.schedule, added.slot_ms) == ("tick", SLOT)
    job = lab.job(added.job_id)
    assert (job.record.name, job.record.data, job.record.spec.attempts) == ("job", '{"to":"x"}', 3)
    after = read(lab)
    assert after.standing == Standing(found.standing.revision, SLOT + MINUTE, SLOT, fired=1)
    assert {"tick": float(SLOT + MINUTE)} == lab.column("slots")
    assert lab.total("added") == 1 and lab.marker()
    assert [job.id for job in lab.claim().jobs] == [added.job_id]


@pytest.mark.parametrize(
    ("options", "state", "column"),
    [({}, "waiting", "wait"), ({"lifo": True}, "waiting", "wait"), ({"priority": 7}, "prioritized", "prioritized")],
)
def test_a_slots_job_stands_in_line_as_an_added_one(lab: Lab, options: dict[str, Any], state: str, column: str) -> None:
    """Priority and lifo hold for jobs of a schedule, and the event says where the job went."""
    found = set_up(lab, **options)
    fire(lab, found)
    fire(lab, read(lab))
    ids = [f"schedule:tick:{SLOT}", f"schedule:tick:{SLOT + MINUTE}"]
    assert [lab.state(job_id) for job_id in ids] == [JobState(state)] * 2
    assert list(lab.column(column)) == (ids[::-1] if options.get("lifo") else ids)
    (event,) = {(e.state, e.priority) for e in lab.events() if isinstance(e, AddedEvent)}
    assert event == (state, options.get("priority", 0))


def test_large_data_is_kept_apart(lab: Lab) -> None:
    """Data over 1 KiB does not stand in the record, so that moving the job does not move it."""
    fire(lab, set_up(lab, data="x" * 3000, lifo=True))
    (job,) = lab.claim().jobs
    assert job.apart == '"' + "x" * 3000 + '"' and len(job.record) < 200
    assert lab.job(job.id).record.flags == "ld"


def test_two_schedulers_fire_a_slot_once(lab: Lab) -> None:
    """Both read the same schedule; the second one's call finds it changed and does nothing."""
    found = set_up(lab)
    assert fire(lab, found, writer="quick") == "fired"
    before = _without_calls(lab)
    assert fire(lab, found, writer="slow") == "conflict"
    assert _without_calls(lab) == before


def test_schedules_with_the_same_slot_all_fire(lab: Lab) -> None:
    """Ties: each of ten schedules with one slot gets its job, whatever the order."""
    for number in range(10):
        set_up(lab, f"s{number}")
    assert due(lab) == []
    move_to(lab, SLOT)
    assert due(lab) == sorted(f"s{number}" for number in range(10))
    for schedule_id in due(lab):
        assert fire(lab, read(lab, schedule_id)) == "fired"
    assert due(lab) == [] and lab.counts() == {"waiting": 10}


# -- an old slot


@pytest.mark.parametrize("ended", ["waiting", "completed", "auto-removed", "removed by hand"])
def test_a_replayed_old_slot_fires_nothing(lab: Lab, ended: str) -> None:
    """A scheduler that slept since it read the schedule adds no job, also after the job of its slot is gone."""
    found = set_up(lab)
    assert fire(lab, found, writer="quick") == "fired"
    if ended == "removed by hand":
        lab.call(remove_jobs(lab.keys, [f"schedule:tick:{SLOT}"]))
    elif ended != "waiting":
        (job,) = lab.claim().jobs
        lab.settle(outcome(job, "completed", "0" if ended == "auto-removed" else ""), rules=Retention((-1, -1), (-1, -1)))
    assert (lab.state(f"schedule:tick:{SLOT}") is None) == ("removed" in ended)
    before = _without_calls(lab)

    assert fire(lab, found, writer="slow") == "conflict"
    assert fire(lab, found, SLOT + 10 * MINUTE, writer="slow") == "conflict"

    assert _without_calls(lab) == before


def test_a_plan_from_before_a_removal_fires_nothing(lab: Lab) -> None:
    """Removed, or removed and made again with the same slot: what was read before is not what is there now."""
    found = set_up(lab, data="old")
    assert lab.call(remove_schedule(lab.keys, "tick")) is True
    assert fire(lab, found) == "conflict"
    set_up(lab, data="new")
    assert fire(lab, found) == "conflict"
    assert lab.counts() == {}
    assert fire(lab, read(lab)) == "fired"
    assert lab.job(f"schedule:tick:{SLOT}").record.data == '"new"'


def test_a_slot_whose_job_is_stored_is_not_doubled(lab: Lab) -> None:
    """Should the same slot come again by a schedule made anew, the job that is there stays as it is; the schedule goes on."""
    fire(lab, set_up(lab, data="first"))
    lab.call(remove_schedule(lab.keys, "tick"))
    lab.fresh()
    assert fire(lab, set_up(lab, data="second")) == "exists"
    assert lab.fresh() == []
    assert lab.job(f"schedule:tick:{SLOT}").record.data == '"first"'
    assert read(lab).standing.next_ms == SLOT + MINUTE and lab.counts() == {"waiting": 1}


# -- changes


def test_a_change_counts_only_for_what_was_read(lab: Lab) -> None:
    """Another change in between, a fired slot in between, a removal in between: nothing is written."""
    first = set_up(lab)
    text = definition_text(definition(data=2))
    assert lab.call(set_schedule(lab.keys, "tick", first.standing, first.standing, text)) == "set"
    second = read(lab)
    assert second.standing.revision != first.standing.revision and second.standing.next_ms == first.standing.next_ms

    for stale in (first.standing, None, msgspec.structs.replace(second.standing, next_ms=None)):
        before = _without_calls(lab)
        assert lab.call(set_schedule(lab.keys, "tick", stale, Standing(next_ms=1), text)) == "conflict"
        assert _without_calls(lab) == before
    assert fire(lab, first) == "conflict", "a slot of the old definition"
    assert fire(lab, second) == "fired"
    assert lab.call(set_schedule(lab.keys, "tick", second.standing, second.standing, text)) == "conflict", "back to a fired slot"
    lab.call(remove_schedule(lab.keys, "tick"))
    assert lab.call(set_schedule(lab.keys, "tick", second.standing, second.standing, text)) == "conflict"
    assert lab.column("schedules") is None and lab.column("slots") is None


def test_an_ended_schedule_stands_behind_all_others(lab: Lab) -> None:
    """Without a next slot it is never due, and its definition stays as it was when only its standing changes."""
    found = set_up(lab)
    set_up(lab, "later", at=SLOT + MINUTE)
    ended = msgspec.structs.replace(found.standing, next_ms=None, is_paused=True)
    assert lab.call(set_schedule(lab.keys, "tick", found.standing, ended, "")) == "set"
    assert lab.column("slots") == {"later": float(SLOT + MINUTE), "tick": float("inf")}
    move_to(lab, SLOT + MINUTE)
    assert due(lab) == ["later"]
    after = read(lab)
    assert (after.definition, after.standing.is_paused, after.standing.next_ms) == (found.definition, True, None)


def test_what_a_newer_version_put_into_the_header_is_kept(lab: Lab) -> None:
    """Unknown trailing fields survive firing and changing."""
    set_up(lab)
    revision, rest = lab.column("schedules")["tick"].split("\t", 1)
    header, text = rest.split("\n")
    lab.redis("HSET", lab.keys["schedules"], "tick", f"{revision}\t{header}\tnew 1\tnew 2\n{text}")
    found = read(lab)
    assert found.standing.next_ms == SLOT
    assert fire(lab, found) == "fired"
    after = read(lab)
    lab.call(set_schedule(lab.keys, "tick", after.standing, after.standing, ""))
    assert lab.column("schedules")["tick"].split("\n")[0].endswith("\tnew 1\tnew 2")


def test_the_number_of_schedules_is_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused; those that are there can be changed all the same."""
    monkeypatch.setattr(commands, "MAX_SCHEDULES", 2)
    first = set_up(lab, "a")
    set_up(lab, "b")
    text = definition_text(definition())
    assert lab.call(set_schedule(lab.keys, "c", None, Standing(next_ms=SLOT), text)) == "full"
    assert lab.call(set_schedule(lab.keys, "a", first.standing, first.standing, text)) == "set"
    assert set(lab.column("slots")) == set(lab.column("schedules")) == {"a", "b"}


# -- missed slots


def test_missed_slots_are_told_before_the_job(lab: Lab) -> None:
    """Five slots are due: four are told as missed, with the first and the last, and the latest becomes a job."""
    found = set_up(lab)
    lab.fresh()
    assert fire(lab, found, SLOT + 4 * MINUTE + 5) == "fired"
    missed, added = lab.fresh()
    assert isinstance(missed, ScheduleMissedEvent) and isinstance(added, AddedEvent)
    assert (missed.schedule_id, missed.count, missed.policy) == ("tick", 4, "once")
    assert (missed.first_ms, missed.last_ms) == (SLOT, SLOT + 3 * MINUTE)
    assert added.slot_ms == SLOT + 4 * MINUTE
    standing = read(lab).standing
    assert (standing.next_ms, standing.fired, standing.missed) == (SLOT + 5 * MINUTE, 1, 4)


def test_slots_can_be_passed_over_without_a_job(lab: Lab) -> None:
    """A plan without a slot to run only moves on: that is how many slots are counted in several calls."""
    found = set_up(lab)
    lab.fresh()
    plan = Plan(None, SLOT + 3 * MINUTE, missed=3, first_missed_ms=SLOT, last_missed_ms=SLOT + 2 * MINUTE)
    assert lab.call(fire_at(lab, found, plan)) == "passed"
    assert lab.fresh_kinds() == ["schedule_missed"]
    assert lab.counts() == {} and read(lab).standing.next_ms == SLOT + 3 * MINUTE


# -- reading


def test_a_sweep_says_when_the_next_slot_is(lab: Lab) -> None:
    """None without schedules, 0 when one is due, None again when all are paused."""
    assert lab.sweep().next_slot_ms is None
    found = set_up(lab)
    set_up(lab, "later", at=SLOT + MINUTE)
    move_to(lab, SLOT - 10_000)
    assert 8_000 < (lab.sweep().next_slot_ms or 0) <= 10_000
    move_to(lab, SLOT + 1)
    assert lab.sweep().next_slot_ms == 0
    lab.call(remove_schedule(lab.keys, "later"))
    lab.call(set_schedule(lab.keys, "tick", found.standing, Standing(is_paused=True), ""))
    assert lab.sweep().next_slot_ms is None


def test_a_page_is_in_the_order_of_next_slots_and_bounded_in_bytes(lab: Lab) -> None:
    """Soonest first; a call ends early when what it read is large, but never without anything."""
    for number in range(6):
        set_up(lab, f"s{5 - number}", at=SLOT + number, data="x" * 250_000)

    def page(start: int, limit: int) -> list[str]:
        found = lab.call(list_schedules(lab.keys, start, limit)).found
        return [each.id for each in found if isinstance(each, StoredSchedule)]

    assert page(0, 2) == ["s5", "s4"]
    assert page(0, 100) == ["s5", "s4", "s3", "s2"], "four times 250 KB, a fifth would exceed a MiB"
    assert page(4, 100) == ["s1", "s0"]
    assert page(6, 100) == []


@pytest.mark.parametrize("damaged", ["\n", "{", "\t", str(SLOT)])
def test_a_damaged_schedule_is_an_error_of_its_own(lab: Lab, damaged: str) -> None:
    """One that cannot be read is told as such among the others."""
    set_up(lab)
    set_up(lab, "whole")
    lab.redis("HSET", lab.keys["schedules"], "tick", lab.column("schedules")["tick"].replace(damaged, "~"))
    move_to(lab, SLOT)
    lab.sound = False
    broken, whole = lab.call(due_schedules(lab.keys, 0, 100)).found
    assert isinstance(broken, UnreadableRecord) and isinstance(whole, StoredSchedule)
    assert str(broken).startswith("schedule 'tick': the stored record is unreadable")


def _without_calls(lab: Lab) -> dict[str, Any]:
    return {column: content for column, content in lab.dump().items() if column not in ("calls", "timers")}
