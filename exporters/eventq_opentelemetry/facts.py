"""What the tracer reads of an event: one shape for all kinds, since most facts are of several."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from eventq.spans import TraceFacts
from eventq_opentelemetry.saved import Number


class Said(msgspec.Struct, frozen=True, gc=False):
    """What a processor said of its span. Offsets of events are ns from the start of the run."""

    attributes: dict[str, Any] = {}
    events: tuple[tuple[str, Number, dict[str, Any]], ...] = ()
    links: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    name: str = ""
    status: str = ""
    description: str = ""
    stacktrace: str = ""
    dropped: Number = 0


class Error(msgspec.Struct, frozen=True, gc=False):
    """What was raised."""

    type: str = ""
    message: str = ""


NOTHING_SAID: Final = Said()
NO_ERROR: Final = Error()


class Facts(TraceFacts, frozen=True):
    """One event's facts. Times in ms since the epoch, durations in ms; 0 for none."""

    job_id: str = ""
    name: str = ""
    attempt: Number = 0
    worker: str = ""
    waited_ms: Number = 0
    ran_ms: Number = 0
    added_ms: Number = 0
    total_ms: Number = 0
    due_ms: Number = 0
    state: str = ""
    previous: str = ""
    priority: Number = 0
    schedule: str = ""
    slot_ms: Number = 0
    reason: str = ""
    exhausted: bool = False
    stalls: Number = 0
    error: Error = NO_ERROR
    progress: Any = None
    span: Said = NOTHING_SAID
    resource: dict[str, str] = msgspec.field(default_factory=dict)
    processors: dict[str, str] = msgspec.field(default_factory=dict)


_decode: Final = msgspec.json.Decoder(list[Facts]).decode
_decode_loosely: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode


def facts_of(text: str) -> list[Facts]:
    """Return the facts of an entry's events. What does not fit, such as a span that somebody else wrote, is left out.

    Raises ValueError for what is no list of objects.
    """
    try:
        try:
            return _decode(text)
        except msgspec.ValidationError:
            return [_fitting(each) for each in _decode_loosely(text)]
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _fitting(facts: dict[str, Any]) -> Facts:
    fields = {field.name: field.type for field in msgspec.structs.fields(Facts)}
    fitting: dict[str, Any] = {}
    for name, value in facts.items():
        if name in fields:
            try:
                fitting[name] = msgspec.convert(value, fields[name])
            except msgspec.ValidationError:
                continue
    return Facts(**fitting)
