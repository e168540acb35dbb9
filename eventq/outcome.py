"""What a run came to: from a result or an exception to the words that are recorded. Pure."""

from __future__ import annotations

import contextlib
import traceback as tracebacks
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from eventq.backoff import backoff_ms
from eventq.durations import to_ms
from eventq.errors import BadSignature, InvalidJob, Postpone, Retry, Unrecoverable
from eventq.records import JobErrorInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventq.limits import Limits
    from eventq.records import Record


class TimedOut(Exception):
    """A run took longer than its job's timeout."""


class UnreadableJob(Unrecoverable):
    """What is stored of the job cannot be read or does not fit the queue's type."""


class UnreadableResult(Unrecoverable):
    """What the processor returned cannot be stored."""


class TooManyStarts(Unrecoverable):
    """A job postponed itself more often than its `max_starts` allows."""


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """word, facts (JSON members for the event), body (what is stored as result or error), extra (see Outcome)."""

    word: str
    facts: str
    body: str
    extra: str | int
    value: object = None
    error: JobErrorInfo | None = None
    reason: str = ""


_encode: Final = msgspec.json.Encoder().encode
_decode_any: Final = msgspec.json.Decoder().decode


def completed(record: Record, result: str | None, limits: Limits, fails: int) -> Verdict:
    """Return the verdict of a run that returned; `result` is JSON, None for a null result.

    A null result is not stored, unless the error of an earlier attempt stands in its place.
    """
    rule = record.spec.remove_on_complete
    if result is None or result == "null":
        return Verdict("completed", "", "null" if fails else "", rule)
    small = len(result) <= limits.event_result and (result.isascii() or len(result.encode()) <= limits.event_result)
    return Verdict("completed", f',"result":{result}' if small else ',"result_omitted":true', result, rule)


def failed(
    record: Record,
    fails: int,
    error: BaseException,
    limits: Limits,
    *,
    random: Callable[[], float],
    custom_wait_ms: int | None = None,
) -> Verdict:
    """Return the verdict of a run that raised: another attempt, or the end.

    fails: how often it failed before. custom_wait_ms: what a strategy of the worker said, -1 to give up.
    """
    info = describe(error, limits)
    text = _encode(info).decode()
    # The traceback stays with the job; the event carries type and message.
    facts = f',"error":{_encode(JobErrorInfo(info.type, info.message)).decode()}'
    reason = "timeout" if isinstance(error, TimedOut) else "error"
    exhausted = fails + 1 >= record.spec.attempts
    final = exhausted or isinstance(error, Unrecoverable) or custom_wait_ms == -1
    if not final:
        wait = _wait_ms(record, fails, error, random, custom_wait_ms)
        return Verdict("retry", facts, text, wait, error=info, reason=reason)
    exhausted = exhausted and not isinstance(error, Unrecoverable)
    facts += f',"reason":"{reason}","exhausted":{"true" if exhausted else "false"}'
    word = "exhausted" if exhausted else "failed"
    return Verdict(word, facts, text, record.spec.remove_on_fail, error=info, reason=reason)


def postponed(record: Record, starts: int, error: Postpone) -> Verdict:
    """Return the verdict of a run that wants to run later; `starts`: how often it was started, this run included.

    Raises what fails the run where it may not: TooManyStarts, InvalidJob for a delay that is none.
    """
    most = record.spec.max_starts
    if most and starts >= most:
        raise TooManyStarts(f"postponed after {starts} starts, and max_starts is {most}")
    return Verdict("postpone", "", "", to_ms("Postpone delay", error.delay, minimum_ms=1))


def _wait_ms(record: Record, fails: int, error: BaseException, random: Callable[[], float], custom_wait_ms: int | None) -> int:
    if isinstance(error, Retry) and error.delay is not None:
        with contextlib.suppress(InvalidJob):  # a delay that is none: the backoff decides
            return to_ms("Retry delay", error.delay)
    if custom_wait_ms is not None:
        return custom_wait_ms
    return backoff_ms(record.spec.backoff, fails + 1, random)


def describe(error: BaseException, limits: Limits) -> JobErrorInfo:
    """Return an exception's type, message and traceback, each within its limit. Never raises."""
    cls = type(error)
    is_known = cls is BadSignature or cls.__module__ in ("builtins", "eventq.outcome")
    name = cls.__qualname__ if is_known else f"{cls.__module__}.{cls.__qualname__}"
    try:
        message = str(error)
    except Exception:  # an exception's own __str__ may be broken; that must not hide the failure
        message = f"<{name} whose str() raised>"
    try:
        trace = "".join(tracebacks.format_exception(error, limit=-20))
    except Exception:
        trace = ""
    return JobErrorInfo(name[:256], _cut(message, limits.error_message), _cut_head(trace, limits.traceback))


def _cut(text: str, limit: int) -> str:
    """Return text of at most so many bytes, its beginning, safe to encode."""
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= limit else raw[: limit - 3].decode("utf-8", "ignore") + "…"


def _cut_head(text: str, limit: int) -> str:
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= limit else "…" + raw[len(raw) - limit + 3 :].decode("utf-8", "ignore")


def result_text(encode: Callable[[object], str], value: object) -> str | None:
    """Return a result as JSON, None for None. Raises UnreadableResult when it cannot be stored."""
    if value is None:
        return None
    try:
        return encode(value)
    except InvalidJob as error:
        raise UnreadableResult(str(error)) from error


def event_facts(facts: str) -> dict[str, object]:
    """Return the facts of a verdict as a listener of this process sees them."""
    return _decode_any("{" + facts[1:] + "}") if facts else {}


@lru_cache(maxsize=1024)
def identity(name: str, attempt: int, worker: str) -> str:
    """Return the JSON members that every event of a run begins with. Names need no escaping, by their alphabet."""
    return f'"name":"{name}","attempt":{attempt},"worker":"{worker}"'
