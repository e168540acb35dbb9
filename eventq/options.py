"""Options of a job: what may be said at add, checked at once, and what of it is stored."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, TypedDict

import msgspec

from eventq.backoff import Backoff
from eventq.checks import check_whole
from eventq.durations import to_epoch_ms, to_ms
from eventq.errors import InvalidJob
from eventq.keys import check_own_id
from eventq.limits import MAX_ATTEMPTS, MAX_DELAY_MS, MAX_PRIORITY
from eventq.spans import PROPAGATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How much of what finished stays: the newest `count` jobs, and none older than `age` (seconds or timedelta)."""

    count: int | None = None
    age: float | timedelta | None = None

    def __post_init__(self) -> None:
        if self.count is None and self.age is None:
            raise InvalidJob("Keep(): give count, age or both; False keeps every job")
        if self.count is not None and (isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 0):
            raise InvalidJob(f"Keep count {self.count!r}: must be a whole number, not negative")
        if self.age is not None:
            to_ms("Keep age", self.age)


#: The queue's own rules, when neither job nor queue says otherwise.
KEEP_COMPLETED: Final = Keep(count=10_000, age=timedelta(days=1))
KEEP_FAILED: Final = Keep(count=10_000, age=timedelta(days=14))

Retention = bool | int | Keep
Propagation = Literal["auto", "parent", "link", "none"]


class OptionArguments(TypedDict, total=False):
    """The options as keyword arguments of `add`; those of JobOptions."""

    delay: float | timedelta | None
    at: datetime | None
    attempts: int | None
    backoff: Backoff | float | timedelta | None
    priority: int | None
    lifo: bool | None
    job_id: str | None
    remove_on_complete: Retention | None
    remove_on_fail: Retention | None
    timeout: float | timedelta | None
    max_starts: int | None
    propagation: Propagation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What can be said about a job. None means: not said here, so the queue's default options decide.

    delay: seconds before it may run. at: the same as an absolute time. attempts: runs that may fail, at least 1.
    backoff: wait between attempts; a bare number is a fixed wait in seconds. priority: 0 (none, runs first) to 2097151; 1 runs
    before 2. lifo: goes to the head of the line. job_id: an id of your own; one that exists already is not added again.
    remove_on_complete, remove_on_fail: True removes at once, False keeps, a number keeps so many, `Keep` adds an age.
    timeout: seconds one run may take. max_starts: how often it may be started before postponing itself once more fails it.
    propagation: how its runs relate to the trace it was added in: `parent` (part of it), `link` (a trace of their own that points
    to it), `none` (a trace of their own), `auto` (parent for a young job, else link).
    """

    delay: float | timedelta | None = None
    at: datetime | None = None
    attempts: int | None = None
    backoff: Backoff | float | timedelta | None = None
    priority: int | None = None
    lifo: bool | None = None
    job_id: str | None = None
    remove_on_complete: Retention | None = None
    remove_on_fail: Retention | None = None
    timeout: float | timedelta | None = None
    max_starts: int | None = None
    propagation: Propagation | None = None
    #: What is sent, made once and with it every check.
    compiled: CompiledOptions = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.delay is not None and self.at is not None:
            raise InvalidJob(f"delay {self.delay!r} and at {self.at!r}: give one of them")
        object.__setattr__(self, "compiled", _compile(self))

    def over(self, defaults: JobOptions | None) -> JobOptions:
        """Return these options with what they leave out taken from `defaults`."""
        if defaults is None or self is defaults:
            return self
        said = {f.name: value for f in fields(self) if f.init and (value := getattr(self, f.name)) is not None}
        if "at" in said:
            said.setdefault("delay", None)
        elif "delay" in said:
            said.setdefault("at", None)
        return replace(defaults, **said)


def options_of(arguments: OptionArguments) -> JobOptions | None:
    """Return the options said as keyword arguments, None when there are none. Raises TypeError for one that is none of ours."""
    if not arguments:
        return None
    try:
        return JobOptions(**arguments)
    except TypeError:
        known = OptionArguments.__annotations__
        for name in arguments:
            if name not in known:
                near = difflib.get_close_matches(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower(), known, 1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise TypeError(f"add() has no option {name!r}: {hint}options are {', '.join(known)}") from None
        raise


class Spec(msgspec.Struct, omit_defaults=True, frozen=True):
    """The part of the options that is stored with the job as JSON. Lua never reads it. Defaults are left out."""

    attempts: int = 1
    backoff: Backoff | None = None
    remove_on_complete: str = ""
    remove_on_fail: str = ""
    timeout_ms: int = 0
    max_starts: int = 0
    #: The baggage of whoever added the job, as its W3C header says it.
    baggage: str = ""


@dataclass(frozen=True, slots=True)
class CompiledOptions:
    """Options as they travel: place in line, header fields, spec text ('' when all is default), own id, trace fragment."""

    place: str
    header: str
    spec: str
    job_id: str | None
    options: Spec
    priority: int
    flags: str
    trace: str

    def due_ms(self, added_ms: int) -> int:
        """Return when a job that was stored then is due, 0 for at once; also where nobody knows when it was stored (0)."""
        if not added_ms:
            return 0
        due = int(self.place[1:]) + (added_ms if self.place[0] == "+" else 0) if self.place else 0
        return due if due > added_ms else 0


def with_baggage(spec: str, baggage: str) -> str:
    """Return a spec's text with this baggage in it."""
    text = _encode(baggage).decode()
    return f'{spec[:-1]},"baggage":{text}}}' if spec else f'{{"baggage":{text}}}'


_DEFAULT_SPEC: Final = Spec()
_NO_BACKOFF: Final = Backoff("fixed", 0)
_RULE: Final = re.compile(r"(0|forever|count:\d+|age:\d{1,15}|count:\d+ age:\d{1,15})\Z", re.ASCII)
_encode = msgspec.json.Encoder().encode
_decode_spec = msgspec.json.Decoder(Spec).decode


@lru_cache(maxsize=1024)
def parse_spec(text: str) -> Spec:
    """Return the spec stored with a job. Raises ValueError when it is not one of ours."""
    if not text:
        return _DEFAULT_SPEC
    try:
        spec = _decode_spec(text)
    except RecursionError:
        raise ValueError("options are nested too deeply") from None
    _check_stored(spec)
    return spec


def _check_stored(spec: Spec) -> None:
    """Raise ValueError for what no options compile to: a wait that never ends would be as bad as one that is no number."""
    backoff = spec.backoff or _NO_BACKOFF
    waits = (spec.timeout_ms, backoff.delay_ms, backoff.maximum_ms)
    if not (1 <= spec.attempts <= MAX_ATTEMPTS and 0 <= spec.max_starts <= MAX_ATTEMPTS and 0 <= backoff.jitter <= 1):
        raise ValueError("attempts, max_starts or jitter are out of range")
    if min(waits) < 0 or max(waits) > MAX_DELAY_MS:
        raise ValueError("timeout or backoff is out of range")
    for rule in (spec.remove_on_complete, spec.remove_on_fail):
        if rule and not _RULE.match(rule):
            raise ValueError(f"retention {rule[:80]!r}")


def _compile(options: JobOptions) -> CompiledOptions:
    """Check every option and return what is sent. Raises InvalidJob naming option, value and limit."""
    attempts = 1 if options.attempts is None else check_whole("attempts", options.attempts, 1, MAX_ATTEMPTS, error=InvalidJob)
    priority = 0 if options.priority is None else check_whole("priority", options.priority, 0, MAX_PRIORITY, error=InvalidJob)
    if options.lifo is not None and not isinstance(options.lifo, bool):
        raise InvalidJob(f"lifo {options.lifo!r}: must be True or False")
    if options.at is not None:
        place = f"@{to_epoch_ms('at', options.at)}"
    else:
        delay = to_ms("delay", options.delay) if options.delay is not None else 0
        place = f"+{delay}" if delay else ""
    spec = Spec(
        attempts=attempts,
        backoff=_backoff(options.backoff),
        remove_on_complete=retention_rule("remove_on_complete", options.remove_on_complete),
        remove_on_fail=retention_rule("remove_on_fail", options.remove_on_fail),
        timeout_ms=0 if options.timeout is None else to_ms("timeout", options.timeout, minimum_ms=1),
        max_starts=0
        if options.max_starts is None
        else check_whole("max_starts", options.max_starts, 1, MAX_ATTEMPTS, error=InvalidJob),
    )
    return CompiledOptions(
        place=place,
        header=f"{priority or ''}\t{'l' if options.lifo else ''}",
        spec="" if spec == _DEFAULT_SPEC else _encode(spec).decode(),
        job_id=None if options.job_id is None else check_own_id(options.job_id),
        options=spec,
        priority=priority,
        flags="l" if options.lifo else "",
        trace=_propagation(options.propagation),
    )


def _backoff(value: Backoff | float | timedelta | None) -> Backoff | None:
    if value is None or isinstance(value, Backoff):
        return value
    return Backoff("fixed", to_ms("backoff", value))


def _propagation(value: object) -> str:
    if value is not None and value not in PROPAGATIONS:
        raise InvalidJob(f"propagation {value!r}: must be one of {', '.join(PROPAGATIONS)}")
    return "" if value in (None, "auto") else f'"propagation":"{value}"'


def retention_rule(what: str, value: Retention | None) -> str:
    """Return a retention option as the text the scripts read; '' leaves it to the queue."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "0" if value else "forever"
    if isinstance(value, int):
        value = Keep(count=value) if value >= 0 else value
    if not isinstance(value, Keep):
        raise InvalidJob(f"{what} {value!r}: must be True, False, a number of jobs (not negative) or Keep(count=, age=)")
    if value.count == 0:
        return "0"
    parts = [f"count:{value.count}"] if value.count is not None else []
    if value.age is not None:
        parts.append(f"age:{to_ms('Keep age', value.age)}")
    return " ".join(parts)


def queue_rule(what: str, value: Retention | None, default: Keep) -> tuple[int, int]:
    """Return a queue's retention as (jobs kept, age in ms); -1 is no such rule."""
    rule = retention_rule(what, default if value is None else value)
    if rule == "forever":
        return -1, -1
    parts = dict(part.split(":") for part in rule.split() if ":" in part)
    return (0 if rule == "0" else int(parts.get("count", -1))), int(parts.get("age", -1))
