"""Cron expressions: the slots they mean wherever clocks are changed, and refusals that say what is wrong and where."""

from __future__ import annotations

import time
import zoneinfo
from datetime import UTC, datetime
from itertools import islice, pairwise, takewhile
from random import Random

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from eventq.cron import MACROS, MAX_LENGTH, Cron
from eventq.errors import ConfigurationError

#: CPU seconds in which anything must be refused, on a machine several times slower than the one of the promise (10 ms).
BOUNDED = 0.1


def ms(text: str) -> int:
    """Return an instant, written in UTC, in ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def shown(cron: str, zone: str, after: str, count: int) -> list[str]:
    """Return slots as clocks of the zone show them, with what they are ahead of UTC."""
    slots = islice(Cron(cron, zone).after(ms(after)), count)
    return [datetime.fromtimestamp(slot / 1000, zoneinfo.ZoneInfo(zone)).isoformat(" ") for slot in slots]


# -- where clocks are changed


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # 02:00 to 03:00 is skipped on 29 March: once at the end of the gap, even if it is named twice.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["2026-03-29 03:00:00+02:00", "2026-03-30 02:30:00+02:00"]),
        ("0,30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["2026-03-29 03:00:00+02:00", "2026-03-30 02:00:00+02:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29 01:00", ["2026-03-30 02:30:00+02:00"]),
        # 02:00 to 03:00 comes twice on 25 October: the first time counts.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["2026-10-25 02:30:00+02:00", "2026-10-26 02:30:00+01:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 01:10", ["2026-10-26 02:30:00+01:00"]),
        ("0 2 * * *", "America/New_York", "2026-03-07 12:00", ["2026-03-08 03:00:00-04:00", "2026-03-09 02:00:00-04:00"]),
        ("15 1 * * *", "America/New_York", "2026-11-01 00:00", ["2026-11-01 01:15:00-04:00", "2026-11-02 01:15:00-05:00"]),
        # Half an hour: 02:00 to 02:30 is skipped on 4 October, 01:30 to 02:00 comes twice on 5 April.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03 00:00", ["2026-10-04 02:30:00+11:00", "2026-10-05 02:15:00+11:00"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04 00:00", ["2026-04-05 01:45:00+11:00", "2026-04-06 01:45:00+10:30"]),
        ("15 6 * * *", "Asia/Kathmandu", "2026-03-29 00:00", ["2026-03-29 06:15:00+05:45", "2026-03-30 06:15:00+05:45"]),
    ],
)
def test_a_named_time_runs_once(cron: str, zone: str, after: str, expected: list[str]) -> None:
    """A time that is skipped runs at the end of the gap, one that comes twice runs the first time."""
    assert expected == shown(cron, zone, after, len(expected))


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["2026-03-30 02:00:00+02:00"]),
        ("0 30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["2026-03-30 02:30:00+02:00"]),
        (
            "*/30 2 * * *",
            "Europe/Berlin",
            "2026-10-24 12:00",
            [
                "2026-10-25 02:00:00+02:00",
                "2026-10-25 02:30:00+02:00",
                "2026-10-25 02:00:00+01:00",
                "2026-10-25 02:30:00+01:00",
                "2026-10-26 02:00:00+01:00",
            ],
        ),
        ("0 30 1 * * *", "America/New_York", "2026-11-01 00:00", ["2026-11-01 01:30:00-04:00", "2026-11-01 01:30:00-05:00"]),
        ("*/15 2 * * *", "Australia/Lord_Howe", "2026-04-04 14:44", ["2026-04-05 02:00:00+10:30", "2026-04-05 02:15:00+10:30"]),
        ("*/15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00", ["2026-10-04 02:30:00+11:00", "2026-10-04 02:45:00+11:00"]),
    ],
)
def test_anything_else_follows_the_clock_as_it_is_seen(cron: str, zone: str, after: str, expected: list[str]) -> None:
    """With `*` in minute or hour, or with seconds: what is skipped does not run, what comes twice runs twice."""
    assert expected == shown(cron, zone, after, len(expected))


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("0 0 1 1 *", "Europe/Berlin", "2026-12-31 22:59:59", ["2027-01-01 00:00:00+01:00", "2028-01-01 00:00:00+01:00"]),
        ("@yearly", "America/New_York", "2026-12-31 12:00", ["2027-01-01 00:00:00-05:00"]),
        (
            "59 59 23 31 12 *",
            "Australia/Lord_Howe",
            "2026-12-31 00:00",
            ["2026-12-31 23:59:59+11:00", "2027-12-31 23:59:59+11:00"],
        ),
        ("*/45 * * * *", "Asia/Kathmandu", "2026-12-31 18:00", ["2027-01-01 00:00:00+05:45", "2027-01-01 00:45:00+05:45"]),
        ("0 12 29 2 *", "Europe/Berlin", "2096-01-01 00:00", ["2096-02-29 12:00:00+01:00", "2104-02-29 12:00:00+01:00"]),
    ],
)
def test_years_end(cron: str, zone: str, after: str, expected: list[str]) -> None:
    """The turn of the year, leap days and the century that has none."""
    assert expected == shown(cron, zone, after, len(expected))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
@pytest.mark.parametrize("cron", ["*/7 1-3 * * *", "15 */2 * * *", "* 2 * * SUN", "*/20 * 1,L * *"])
def test_a_year_is_what_looking_at_the_clock_every_minute_finds(cron: str, zone: str) -> None:
    """Every slot of a year from a clock looked at minute by minute, and the same from any instant in between."""
    start, end = ms("2026-02-03 04:05"), ms("2027-02-03 04:05")
    parsed, place = CronSim(cron, datetime(2026, 1, 1)), zoneinfo.ZoneInfo(zone)
    expected: list[int] = []
    for minute in range(start + 60_000, end, 60_000):
        wall = datetime.fromtimestamp(minute / 1000, place)
        if wall.minute in parsed.minutes and wall.hour in parsed.hours and parsed.match_day(wall.date()):
            expected.append(minute)
    assert expected == list(takewhile(lambda slot: slot < end, Cron(cron, zone).after(start)))
    rng = Random(7)
    for earlier, later in rng.sample(list(pairwise(expected)), 50):
        assert later == next(Cron(cron, zone).after(rng.randrange(earlier, later)))


def test_slots_are_later_than_the_instant_asked() -> None:
    """A slot is not its own successor; one ms before it, it is next."""
    cron = Cron("0 12 * * *")
    noon = ms("2026-05-05 12:00")
    assert noon == next(cron.after(noon - 1))
    assert noon + 86_400_000 == next(cron.after(noon))


@pytest.mark.parametrize(("macro", "fields"), MACROS.items())
def test_macros_stand_for_their_fields(macro: str, fields: str) -> None:
    """@daily and its kind are five fields, in capitals too."""
    start = ms("2026-05-05 12:00")
    expected = list(islice(Cron(fields, "Europe/Berlin").after(start), 5))
    assert expected == list(islice(Cron(macro, "Europe/Berlin").after(start), 5))
    assert expected == list(islice(Cron(macro.upper(), "Europe/Berlin").after(start), 5))


# -- refusals


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("61 * * * *", 'cron "61 * * * *": field 1 (minute) "61": must be 0 to 59, *, */n, a-b, a-b/n or a,b'),
        ("* 24 * * *", 'field 2 (hour) "24": must be 0 to 23'),
        ("* * 0 * *", 'field 3 (day of month) "0": must be 1 to 31, L'),
        ("* * * 13 *", 'field 4 (month) "13": must be 1 to 12 or JAN to DEC'),
        ("* * * * MONDAY", 'field 5 (day of week) "MONDAY": must be 0 to 7 (0 and 7 are Sunday) or SUN to SAT'),
        ("60 * * * * *", 'field 1 (second) "60": must be 0 to 59'),
        ("* * * * * 8", 'field 6 (day of week) "8"'),
        ("*/0 * * * *", 'field 1 (minute) "*/0"'),
        ("5-1 * * * *", 'field 1 (minute) "5-1"'),
        ("1,,2 * * * *", 'field 1 (minute) "1,,2"'),
        ("? * * * *", 'field 1 (minute) "?"'),
        ("٣ * * * *", 'field 1 (minute) "٣"'),
        ("\x1b[2J * * * *", "'\\x1b[2J * * * *': field 1 (minute) '\\x1b[2J'"),
        ("* * * *", 'cron "* * * *": number of fields is 4; must be 5 (minute, hour, day of month, month, day of week), 6'),
        ("", "number of fields is 0"),
        ("@reboot", "or one of @hourly @daily"),
        ("0 0 31 2 *", 'cron "0 0 31 2 *": never runs: no month it names has a day it names'),
        ("0 0 31 4,6,9,11 *", "never runs"),
        ("0 0 */40 * 5L", "never runs"),
        ("0 0 */40 2 1#5", "never runs"),
        ("1" * (MAX_LENGTH + 1), f"is {MAX_LENGTH + 1} characters long, at most {MAX_LENGTH}"),
        (5, 'cron 5: must be text such as "0 9 * * MON-FRI"'),
        (None, "cron None: must be text"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(cron: str, message: str) -> None:
    """The field by its name and position, its text and what it may be."""
    with pytest.raises(ConfigurationError) as refused:
        Cron(cron)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "zone", ["Mars/Phobos", "Europe", "../etc/passwd", "/etc/passwd", "", "CEST+1", "x" * 5000, "\0", "\ud800", None]
)
def test_an_unknown_zone_is_refused_by_name(zone: str) -> None:
    """Whatever the system makes of such a name, it is one kind of error."""
    with pytest.raises(ConfigurationError, match='^timezone .*: must be an IANA name such as "Europe/Berlin" or "UTC"$'):
        Cron("* * * * *", zone)


def test_a_system_without_zones_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """UTC needs no data; anything else says which package has it."""
    monkeypatch.setattr(zoneinfo, "TZPATH", zoneinfo.TZPATH)
    monkeypatch.setitem(__import__("sys").modules, "tzdata", None)
    zoneinfo.reset_tzpath([])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert next(Cron("* * * * *").after(0)) == 60_000
        with pytest.raises(
            ConfigurationError, match="timezone 'Europe/Berlin': this system has no time zones: pip install tzdata"
        ):
            Cron("* * * * *", "Europe/Berlin")
    finally:
        zoneinfo.reset_tzpath()
        zoneinfo.ZoneInfo.clear_cache()


_term = st.one_of(
    st.sampled_from(["*", "*/2", "*/40", "L", "LW", "5L", "1#5", "MON", "FEB", "31", "30", "0", "7", "1-7", "0-59/7", "@daily"]),
    st.text("*/-,#LW0123456789", min_size=1, max_size=12),
)
_field = st.lists(_term, min_size=1, max_size=3).map(",".join)


@given(st.one_of(st.lists(_field, min_size=4, max_size=7).map(" ".join), st.text(max_size=300)))
def test_any_text_is_refused_or_has_slots_in_bounded_time(text: str) -> None:
    """No text makes anything but ConfigurationError, none takes long to refuse, and what is accepted runs."""
    Cron("* * * * *")
    began = time.thread_time()
    try:
        cron = Cron(text, "Europe/Berlin")
    except ConfigurationError:
        assert time.thread_time() - began < BOUNDED
        return
    assert time.thread_time() - began < BOUNDED
    slots = list(islice(cron.after(ms("2026-02-03 04:05")), 3))
    assert len(slots) == 3 and slots == sorted(set(slots))


@pytest.mark.parametrize("text", ["0 0 */40 * 5L", "0 0 31 2 *", "*" * 200, "9" * 190 + " * * * *"])
def test_the_worst_are_refused_quickly(text: str) -> None:
    """An expression that never runs, and the longest ones, cost a few ms of CPU at most."""
    began = time.thread_time()
    with pytest.raises(ConfigurationError):
        Cron(text)
    assert time.thread_time() - began < BOUNDED
