"""What a schedule is: as the user sees it, and as it is stored. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, cast

import msgspec
from typing_extensions import TypeVar

from eventq.cron import find_zone
from eventq.errors import InvalidJob
from eventq.keys import is_job_name
from eventq.limits import LAST_MS, MAX_PRIORITY
from eventq.options import JobOptions, Keep, parse_spec
from eventq.records import UnreadableRecord, check_numbers
from eventq.signing import unsealed
from eventq.slots import Definition
from eventq.spans import facts_of

if TYPE_CHECKING:
    from eventq.codec import Codec
    from eventq.options import Propagation, Retention
    from eventq.slots import Plan

DataT = TypeVar("DataT", default=Any)
#: With a number as policy, so many slots that are late run at most.
MAX_LATE_RUNS: Final = 1_000
_decode: Final = msgspec.json.Decoder(Definition).decode
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Generic[DataT]):
    """A schedule as it stands in Redis. Times are aware, in its time zone.

    every: seconds between slots; cron: the expression (one of the two is None). start, end: None for none. limit: it ends after
    so many runs. name, data, options: of the jobs it makes. missed: what becomes of slots that nobody fired in time. next_run:
    None when it is paused or has ended. count: slots that ran; missed_count: slots that did not.
    """

    id: str
    every: float | None
    cron: str | None
    timezone: str
    start: datetime | None
    end: datetime | None
    limit: int | None
    name: str
    data: DataT
    options: JobOptions
    missed: str | int
    is_paused: bool
    next_run: datetime | None
    last_run: datetime | None
    count: int
    missed_count: int


class Standing(msgspec.Struct, frozen=True):
    """Where a schedule stands: the plain text before its definition, which Lua may read. Times in ms, None for none.

    revision: changes with every change by hand. tail: what a newer version of eventq put there.
    """

    revision: str = ""
    next_ms: int | None = None
    last_ms: int | None = None
    fired: int = 0
    missed: int = 0
    is_paused: bool = False
    tail: str = ""

    @property
    def text(self) -> str:
        """The text as it is stored, without the revision."""
        times = f"{_word(self.next_ms)}\t{_word(self.last_ms)}"
        return f"{times}\t{self.fired}\t{self.missed}\t{'p' if self.is_paused else ''}{self.tail}"


class StoredSchedule(msgspec.Struct, frozen=True):
    """One schedule as read. `text`: its definition as it is stored, so in its envelope where it is signed."""

    id: str
    standing: Standing
    definition: Definition
    text: str


def parse_schedule(schedule_id: str, record: str) -> StoredSchedule:
    """Return a stored schedule. Raises UnreadableRecord."""
    try:
        header, text = record.split("\n", 1)
        revision, soonest, last, fired, missed, flags, *tail = header.split("\t")
        standing = Standing(
            revision,
            _time(soonest),
            _time(last),
            int(fired),
            int(missed),
            "p" in flags,
            "".join(f"\t{field}" for field in tail),
        )
        definition = _decode(unsealed(text))
        _check_stored(definition, standing)
        return StoredSchedule(schedule_id, standing, definition, text)
    except (ValueError, RecursionError) as error:
        raise UnreadableRecord(f"schedule {schedule_id!r}: the stored record is unreadable: {error}") from error


def _check_stored(definition: Definition, standing: Standing) -> None:
    """Raise ValueError for what no upsert stores: a rule without an end, a job that cannot be added."""
    priority, _, flags = definition.header.partition("\t")
    check_numbers(standing.next_ms or 0, standing.last_ms or 0, standing.fired, standing.missed, int(priority or 0))
    check_numbers(definition.anchor_ms, definition.start_ms, definition.end_ms, definition.limit)
    if int(priority or 0) > MAX_PRIORITY or flags not in ("", "l") or not priority.isascii():
        raise ValueError(f"header {definition.header[:80]!r}")
    if bool(definition.cron) == bool(definition.every_ms) or (definition.every_ms and not 1000 <= definition.every_ms <= LAST_MS):
        raise ValueError("neither every nor cron says when it runs")
    late = definition.missed
    if late not in ("once", "skip") and not (isinstance(late, int) and 1 <= late <= MAX_LATE_RUNS):
        raise ValueError(f"missed {str(late)[:80]!r}")
    if not is_job_name(definition.name):
        raise ValueError(f"name {definition.name[:80]!r}")
    parse_spec(definition.spec)


def standing_after(standing: Standing, plan: Plan) -> Standing:
    """Return where a schedule stands once a plan was carried out."""
    return msgspec.structs.replace(
        standing,
        next_ms=plan.next_ms,
        last_ms=standing.last_ms if plan.run_ms is None else plan.run_ms,
        fired=standing.fired + (plan.run_ms is not None),
        missed=standing.missed + plan.missed,
    )


def definition_text(definition: Definition) -> str:
    """Return a definition as it is stored."""
    return _encode(definition).decode()


def schedule_of(stored: StoredSchedule, codec: Codec[DataT]) -> Schedule[DataT]:
    """Return a schedule as the user sees it. Raises InvalidJob when its data does not fit the queue's type, ConfigurationError
    when this machine does not know its time zone.
    """
    definition, standing = stored.definition, stored.standing
    return Schedule(
        id=stored.id,
        every=definition.every_ms / 1000 if definition.every_ms else None,
        cron=definition.cron or None,
        timezone=definition.timezone,
        start=moment(definition, definition.start_ms or None),
        end=moment(definition, definition.end_ms or None),
        limit=definition.limit or None,
        name=definition.name,
        data=_data_of(stored, codec),
        options=_options_of(definition),
        missed=definition.missed,
        is_paused=standing.is_paused,
        next_run=moment(definition, standing.next_ms),
        last_run=moment(definition, standing.last_ms),
        count=standing.fired,
        missed_count=standing.missed,
    )


def _data_of(stored: StoredSchedule, codec: Codec[DataT]) -> DataT:
    try:
        return codec.decode(bytes(stored.definition.data).decode())
    except InvalidJob as error:
        raise InvalidJob(f"schedule {stored.id!r}: {error}") from error


def moment(definition: Definition, ms: int | None) -> datetime | None:
    """Return a time in the schedule's zone."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, find_zone(definition.timezone))


def _options_of(definition: Definition) -> JobOptions:
    """Return the options that compile to what is stored."""
    priority, _, flags = definition.header.partition("\t")
    spec = parse_spec(definition.spec)
    return JobOptions(
        attempts=spec.attempts,
        backoff=spec.backoff,
        priority=int(priority or 0),
        lifo="l" in flags,
        remove_on_complete=_retention_of(spec.remove_on_complete),
        remove_on_fail=_retention_of(spec.remove_on_fail),
        timeout=spec.timeout_ms / 1000 if spec.timeout_ms else None,
        max_starts=spec.max_starts or None,
        propagation=cast("Propagation", facts_of(definition.trace).propagation or None),
    )


def _retention_of(rule: str) -> Retention | None:
    if rule in ("", "0", "forever"):
        return {"": None, "0": True, "forever": False}[rule]
    parts = dict(part.split(":") for part in rule.split())
    age = int(parts["age"]) / 1000 if "age" in parts else None
    return Keep(count=int(parts["count"]) if "count" in parts else None, age=age)


def _word(ms: int | None) -> str:
    return "-" if ms is None else str(ms)


def _time(word: str) -> int | None:
    return None if word == "-" else int(word)
