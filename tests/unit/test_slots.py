"""What is done about due slots, compared with a list of all slots; and schedules as text."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventq import slots
from eventq.backoff import Backoff
from eventq.codec import Codec
from eventq.errors import ConfigurationError, InvalidJob
from eventq.operations.scheduling import define
from eventq.options import JobOptions, Keep
from eventq.records import UnreadableRecord
from eventq.schedule import Standing, StoredSchedule, definition_text, parse_schedule, schedule_of
from eventq.slots import Definition, Plan, next_slots, plan_firings

START = 2_000_000_000_000
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
ANY: Codec[Any] = Codec(Any, what="job data", limit=1000, option="Limits.data")


def every(ms: int = MINUTE, **facts: Any) -> Definition:
    """Return a schedule by interval."""
    return Definition(name="job", anchor_ms=START, every_ms=ms, **facts)


def cron(text: str, zone: str = "Europe/Berlin", **facts: Any) -> Definition:
    """Return a schedule by expression."""
    return Definition(name="job", anchor_ms=START, cron=text, timezone=zone, **facts)


def follow(definition: Definition, next_ms: int | None, now: int, fired: int = 0) -> tuple[list[int], list[Plan], int | None]:
    """Carry plans out until nothing is due; return the slots that ran, the plans, and the next slot."""
    ran: list[int] = []
    plans: list[Plan] = []
    while next_ms is not None and next_ms <= now:
        plan, *others = plan_firings(definition, next_ms, now, fired + len(ran))
        assert plan.next_ms is None or plan.next_ms > next_ms, "it goes on"
        ran += [] if plan.run_ms is None else [plan.run_ms]
        plans.append(plan)
        next_ms = plan.next_ms
        if others:
            assert next_ms is not None
            assert others == plan_firings(definition, next_ms, now, fired + len(ran)), "whoever goes on does the same"
    return ran, plans, next_ms


# -- slots


def test_intervals_are_counted_from_where_they_began() -> None:
    """Slots are start + k * every, whenever they are asked for."""
    assert [START, START + MINUTE] == list(islice(every().slots(START - HOUR), 2))
    assert [START + 5 * MINUTE] == list(islice(every().slots(START + 4 * MINUTE + 1), 1))
    assert [START + 5 * MINUTE] == list(islice(every().slots(START + 5 * MINUTE), 1)), "inclusive"


def test_nothing_is_before_the_start_or_after_the_end() -> None:
    """Both ends belong to it."""
    ended = every(end_ms=START + 2 * MINUTE)
    assert [START, START + MINUTE, START + 2 * MINUTE] == list(ended.slots(0))
    hourly = cron("0 * * * *", end_ms=START + 2 * HOUR)
    found = list(hourly.slots(0))
    assert len(found) == 2 and START <= found[0] and found[-1] <= START + 2 * HOUR


@pytest.mark.parametrize("late", [-1, 0, 1])
def test_a_slot_is_due_to_the_millisecond(late: int) -> None:
    """One ms before it, nothing runs."""
    ran, _, following = follow(every(), START + MINUTE, START + MINUTE + late)
    assert (ran, following) == (([], START + MINUTE) if late < 0 else ([START + MINUTE], START + 2 * MINUTE))


# -- policies


@pytest.mark.parametrize(
    ("missed", "late", "ran", "counted"),
    [
        ("once", 0, [9], (9, 0, 8)),
        ("once", 59_000, [9], (9, 0, 8)),
        ("skip", 60_000, [9], (9, 0, 8)),
        ("skip", 60_001, [], (10, 0, 9)),
        (1, 0, [9], (9, 0, 8)),
        (3, 0, [7, 8, 9], (7, 0, 6)),
        (10, 0, [*range(10)], (0, 0, 0)),
        (1000, 0, [*range(10)], (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("definition", [every(2 * MINUTE), cron("*/2 * * * *", "UTC")])
def test_policies(definition: Definition, missed: str | int, late: int, ran: list[int], counted: tuple[int, int, int]) -> None:
    """Ten slots are due, two minutes apart: which run, how many are told as missed, from which to which."""
    definition = msgspec.structs.replace(definition, missed=missed)
    due = list(islice(definition.slots(START), 10))
    found, plans, following = follow(definition, due[0], due[-1] + late)
    assert [due[index] for index in ran] == found
    told = [(plan.missed, plan.first_missed_ms, plan.last_missed_ms) for plan in plans if plan.missed]
    assert told == ([(counted[0], due[counted[1]], due[counted[2]])] if counted[0] else [])
    assert following == due[-1] + 2 * MINUTE


@pytest.mark.parametrize(("missed", "ran"), [("once", 1), ("skip", 1), (250, 250)])
def test_more_slots_than_one_plan_looks_at(missed: str | int, ran: int) -> None:
    """25,000 seconds nobody was there: counted to the slot in three plans, in order and without a gap."""
    definition = cron("* * * * * *", missed=missed)
    now = START + 25_000 * SECOND
    total = (now - START) // SECOND + 1
    found, plans, following = follow(definition, START, now)
    assert (len(found), sum(plan.missed for plan in plans)) == (ran, total - ran)
    assert found == [now - (ran - 1 - index) * SECOND for index in range(ran)]
    assert following == now + SECOND
    counting = [plan for plan in plans if plan.missed]
    assert len(counting) == 3 and counting[0].first_missed_ms == START
    assert all(a.last_missed_ms + SECOND == b.first_missed_ms for a, b in pairwise(counting))


def test_an_interval_is_counted_at_once_however_long_nobody_was_there() -> None:
    """Ten years of seconds are arithmetic."""
    began = time.thread_time()
    (plan,) = plan_firings(every(SECOND), START, START + 10 * 365 * 86_400 * SECOND, 0)
    assert plan.missed == 10 * 365 * 86_400 and plan.run_ms == START + plan.missed * SECOND
    assert time.thread_time() - began < 0.05


@given(
    definition=st.sampled_from([every(SECOND * 7), every(HOUR), cron("*/7 1-3 * * *"), cron("30 2 * * *"), cron("0 0 * * * *")]),
    missed=st.sampled_from(["once", "skip", 1, 2, 3]),
    late=st.integers(0, 40 * HOUR),
    limit=st.sampled_from([0, 0, 1, 2, 5]),
    end=st.sampled_from([0, 0, HOUR, 20 * HOUR]),
    looked=st.sampled_from([4, 11, 10_000]),
)
def test_plans_do_what_a_list_of_all_slots_says(
    definition: Definition, missed: str | int, late: int, limit: int, end: int, looked: int
) -> None:
    """Whatever the rule, policy, limit, end and size of a plan: the same slots run, the same are missed, none is forgotten."""
    definition = msgspec.structs.replace(definition, missed=missed, limit=limit, end_ms=end and START + 30 * HOUR + end)
    first = next(definition.slots(START), None)
    if first is None:
        return
    now = first + late
    due = list(takewhile(lambda slot: slot <= now, definition.slots(first)))
    kept = missed if isinstance(missed, int) else 1
    runs = due[-kept:] if missed != "skip" or now - due[-1] <= 60_000 else []
    expected = runs[:limit] if limit else runs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "PLANNED_SLOTS", looked)
        found, plans, following = follow(definition, first, now)

    assert expected == found
    assert sum(plan.missed for plan in plans) == len(due) - len(runs)
    for plan in plans:
        if plan.missed:
            assert due.index(plan.last_missed_ms) - due.index(plan.first_missed_ms) + 1 == plan.missed
    has_ended = bool(limit) and len(found) >= limit
    assert following == (None if has_ended else next(definition.slots(now + 1), None))


def test_a_stored_slot_counts_whatever_zones_say_today() -> None:
    """A slot that was computed with another edition of the time zones runs when it was stored to run."""
    odd = START + 12_345
    ran, _, following = follow(cron("0 * * * *", "UTC"), odd, odd)
    assert ran == [odd] and following == next(cron("0 * * * *", "UTC").slots(odd))
    ran, _, following = follow(every(), odd, odd)
    assert (ran, following) == ([odd], START + MINUTE)


def test_the_slots_to_come() -> None:
    """As many as asked, no more than limit and end leave, none of a schedule that has no next slot."""
    assert [START, START + MINUTE] == next_slots(every(), START, 0, 2)
    assert [START, START + MINUTE] == next_slots(every(limit=5), START, 3, 10)
    assert [START] == next_slots(every(end_ms=START + 1), START, 0, 10)
    assert next_slots(every(), None, 0, 10) == []


# -- as text


def test_what_is_stored_reads_back() -> None:
    """Standing and definition, with what a newer version put there."""
    standing = Standing("w.7", START, None, 3, 4, is_paused=True, tail="\tmore\tx")
    definition = every(limit=3, data=msgspec.Raw(b'{"a":"\\n"}'), missed=7)
    text = definition_text(definition)
    assert "\n" not in text
    found = parse_schedule("s", f"w.7\t{standing.text}\n{text}")
    assert (found.standing, found.definition, found.text) == (standing, definition, text)
    with pytest.raises(UnreadableRecord, match="schedule 's': the stored record is unreadable"):
        parse_schedule("s", text)
    nameless = definition_text(msgspec.structs.replace(definition, name='a"b'))
    with pytest.raises(UnreadableRecord, match="schedule 's': the stored record is unreadable: name 'a\"b'"):
        parse_schedule("s", f"w.7\t{standing.text}\n{nameless}")


@pytest.mark.parametrize(
    "options",
    [
        JobOptions(
            attempts=4, backoff=Backoff.exponential(2, jitter=0.5), priority=9, timeout=timedelta(minutes=2), max_starts=3
        ),
        JobOptions(lifo=True, remove_on_complete=True, remove_on_fail=False),
        JobOptions(remove_on_complete=Keep(count=5, age=2.5), remove_on_fail=7),
        JobOptions(remove_on_complete=Keep(age=timedelta(days=1))),
    ],
)
def test_options_come_back_as_they_work(options: JobOptions) -> None:
    """The options of a schedule read back compile to what is stored."""
    definition = defined(options=options)
    read = schedule_of(StoredSchedule("s", Standing(), definition, ""), ANY)
    assert (read.options.compiled.header, read.options.compiled.spec) == (options.compiled.header, options.compiled.spec)


def test_default_options_fill_in_but_do_not_delay() -> None:
    """A queue's default delay is not for schedules: the slot is when its job is to run."""
    definition = defined(options=JobOptions(priority=3), defaults=JobOptions(delay=60, attempts=7, priority=1))
    read = schedule_of(StoredSchedule("s", Standing(), definition, ""), ANY)
    assert (read.options.attempts, read.options.priority, read.options.delay) == (7, 3, None)


# -- refusals


def defined(**said: Any) -> Definition:
    """Return the definition of a schedule that says this and is otherwise plain."""
    plain: dict[str, Any] = {
        "every": 60, "cron": None, "timezone": "UTC", "start": None, "end": None, "limit": None, "name": None, "data": None,
        "options": None, "missed": "once",
    }  # fmt: skip
    defaults, schedule_id = said.pop("defaults", None), said.pop("id", "s")
    return define(ANY, defaults, schedule_id, **(plain | said))


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"id": "a:b"}, ConfigurationError, "schedule id 'a:b': must be 1 to 128 of"),
        ({"every": None}, ConfigurationError, "schedule 's': every None and cron None: give one of them"),
        ({"cron": "* * * * *"}, ConfigurationError, r"every 60 and cron '\* \* \* \* \*': give one of them"),
        ({"every": 0.999}, InvalidJob, "every 0.999: must be at least 1 and at most"),
        ({"every": "1h"}, InvalidJob, "every '1h': must be seconds"),
        ({"every": None, "cron": "* 25 * * *"}, ConfigurationError, r"field 2 \(hour\)"),
        ({"timezone": "Mars/Phobos"}, ConfigurationError, "timezone 'Mars/Phobos'"),
        ({"start": datetime(2030, 1, 1)}, InvalidJob, "start .*: has no time zone"),
        ({"end": "tomorrow"}, InvalidJob, "end 'tomorrow': must be an aware datetime"),
        (
            {"start": datetime(2030, 1, 2, tzinfo=UTC), "end": datetime(2030, 1, 1, tzinfo=UTC)},
            ConfigurationError,
            "schedule 's': end .*: is before start",
        ),
        ({"limit": 0}, ConfigurationError, "limit 0: must be a whole number from 1"),
        ({"limit": True}, ConfigurationError, "limit True"),
        ({"name": "a\nb"}, InvalidJob, "job name"),
        ({"data": object()}, InvalidJob, "job data: a object cannot be encoded"),
        ({"data": "x" * 2000}, InvalidJob, "larger than the limit of 1000 bytes"),
        ({"options": {"priority": 1}}, InvalidJob, "must be JobOptions"),
        ({"options": JobOptions(delay=5)}, InvalidJob, "schedule 's': options delay=5: the schedule decides that"),
        ({"options": JobOptions(at=datetime(2030, 1, 1, tzinfo=UTC))}, InvalidJob, "options at="),
        ({"options": JobOptions(job_id="x")}, InvalidJob, "options job_id='x'"),
        ({"missed": "all"}, ConfigurationError, "missed 'all': must be \"once\""),
        ({"missed": 0}, ConfigurationError, "missed 0"),
        ({"missed": 1001}, ConfigurationError, "missed 1001"),
        ({"missed": True}, ConfigurationError, "missed True"),
    ],
)
def test_refusals(said: dict[str, Any], error: type[Exception], message: str) -> None:
    """What is wrong is refused before anything is sent, with the value and what to do."""
    with pytest.raises(error, match=message):
        defined(**said)
