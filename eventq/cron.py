"""Cron expressions: what they say, checked field by field, and the slots they mean in a time zone. The only import of cronsim."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from eventq.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
#: Name and values of each field, of six.
_FIELDS: Final = (
    ("second", "0 to 59"),
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of month", "1 to 31, L (the last day), LW (the last working day)"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of week", "0 to 7 (0 and 7 are Sunday) or SUN to SAT, 5L (the last Friday), 5#2 (the second Friday)"),
)
#: No sensible expression is longer, and a longer one would take its time to refuse.
MAX_LENGTH: Final = 200
_WEEK: Final = 7 * 86_400
_EPOCH: Final = datetime(1970, 1, 1)
#: Every kind of year is among them: a leap year or not, beginning on each day of the week.
_YEARS: Final = range(2024, 2052)


class Cron:
    """A cron expression in a time zone, as in Debian's cron.

    Five fields (minute, hour, day of month, month, day of week), six with seconds first, or @hourly, @daily, @weekly, @monthly,
    @yearly. Where day of month and day of week are both given, either may match, unless one of them begins with `*`.

    When clocks are changed: an expression of five fields whose minute and hour do not begin with `*` runs once for each time
    that it names. A time that is skipped runs at the first moment after the gap, one that comes twice runs the first time.
    Every other expression (`*/10 * * * *`, `0 */2 * * *`, six fields) follows the clock as it is seen: what is skipped does not
    run, what comes twice runs twice.
    """

    __slots__ = ("_expression", "_follows_clock", "_zone", "text")

    def __init__(self, text: str, timezone: str = "UTC") -> None:
        """Check both. Raises ConfigurationError that says which field is wrong, and what it may be."""
        self._zone = find_zone(timezone)
        self._expression = _check(text)
        self.text = text
        fields = self._expression.split()
        self._follows_clock = len(fields) == 6 or fields[0].startswith("*") or fields[1].startswith("*")

    def after(self, ms: int) -> Iterator[int]:
        """Yield the slots later than `ms` (since the epoch) in ascending order, in ms; none that is more than 50 years away."""
        seconds = ms // 1000
        for slot in self._as_seen(seconds) if self._follows_clock else self._as_named(seconds):
            yield slot * 1000

    def _as_seen(self, start: int) -> Iterator[int]:
        """Yield what a clock on the wall shows, in stretches between two of its changes."""
        looked, offset = start, self._offset(start)
        while True:
            change: int | None = None
            for wall in CronSim(self._expression, _EPOCH + timedelta(seconds=start + offset)):
                slot = _seconds(wall) - offset
                while change is None and looked < slot:
                    change = self._change(looked, looked + _WEEK)
                    looked += _WEEK
                if change is not None and change <= slot:
                    break
                yield slot
            if change is None:
                return
            start, looked, offset = change - 1, change, self._offset(change)

    def _as_named(self, start: int) -> Iterator[int]:
        """Yield each named time once: a skipped one at the end of the gap, a doubled one at its first coming."""
        last = start
        for wall in CronSim(self._expression, _EPOCH + timedelta(seconds=start + self._offset(start))):
            named = wall.replace(tzinfo=self._zone)
            slot = int(named.timestamp())
            if _seconds(wall) - self._offset(slot) != slot:
                slot = self._change(int(named.replace(fold=1).timestamp()), slot) or slot
            if slot > last:
                last = slot
                yield slot

    def _offset(self, seconds: int) -> int:
        offset = datetime.fromtimestamp(seconds, self._zone).utcoffset()
        return int(offset.total_seconds()) if offset else 0

    def _change(self, low: int, high: int) -> int | None:
        """Return the moment in (low, high], at most a week, from which on clocks show something else; None for no such moment."""
        offset = self._offset(low)
        if self._offset(high) == offset:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == offset:
                low = middle
            else:
                high = middle
        return high


def find_zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name. Raises ConfigurationError."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError, TypeError) as error:
        try:
            ZoneInfo("UTC")
        except LookupError:
            hint = "this system has no time zones: pip install tzdata"
        else:
            hint = 'must be an IANA name such as "Europe/Berlin" or "UTC"'
        raise ConfigurationError(f"timezone {_short(name)}: {hint}") from error


@lru_cache(maxsize=1024)
def _check(text: str) -> str:
    """Return the expression in fields. Raises ConfigurationError."""
    if not isinstance(text, str):
        raise ConfigurationError(f'cron {_short(text)}: must be text such as "0 9 * * MON-FRI"')
    if len(text) > MAX_LENGTH:
        raise ConfigurationError(f"cron {_short(text)}: is {len(text)} characters long, at most {MAX_LENGTH}")
    expression = MACROS.get(text.strip().lower(), text)
    fields = expression.split()
    if len(fields) not in (5, 6):
        raise ConfigurationError(
            f"cron {_quote(text)}: number of fields is {len(fields)}; must be 5 (minute, hour, day of month, month, "
            f"day of week), 6 (seconds first), or one of {' '.join(MACROS)}"
        )
    for index, field in enumerate(fields):
        _check_field(text, index, field, _FIELDS[index + 6 - len(fields)])
    if not _may_fire(expression):
        raise ConfigurationError(f"cron {_quote(text)}: never runs: no month it names has a day it names")
    return expression


def _check_field(text: str, index: int, field: str, kind: tuple[str, str]) -> None:
    name, values = kind
    alone = ["*"] * 6
    alone[_FIELDS.index(kind)] = field
    try:
        if not field.isascii():
            raise CronSimError(field)
        CronSim(" ".join(alone), _EPOCH)
    except CronSimError as error:
        raise ConfigurationError(
            f"cron {_quote(text)}: field {index + 1} ({name}) {_quote(field)}: must be {values}, *, */n, a-b, a-b/n or a,b"
        ) from error


def _may_fire(expression: str) -> bool:
    try:
        cron = CronSim(expression, _EPOCH)
    except CronSimError:  # every field alone is good: a day that none of the months has
        return False
    # The calendar knows 28 kinds of months, by their first day of the week and their length. All are in these years.
    kinds = {monthrange(year, month): date(year, month, 1) for year in _YEARS for month in cron.months}
    return any(cron.match_day(first + timedelta(days=day)) for (_, days), first in kinds.items() for day in range(days))


def _seconds(wall: datetime) -> int:
    return round((wall - _EPOCH).total_seconds())


def _quote(text: str) -> str:
    return f'"{text}"' if text.isprintable() else repr(text)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
