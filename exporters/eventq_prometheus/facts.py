"""What is counted of an event: only these facts are decoded, everything else in it is passed over."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

__all__ = ["DECODERS", "Facts"]


#: What is added up, and saved: a larger number is none that anybody counted.
_Number = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class Error(msgspec.Struct, frozen=True, gc=False):
    """The type of what was raised; never its message."""

    type: str = ""


class Facts(msgspec.Struct, gc=False):
    """The facts of every kind of job event. Times in ms."""

    name: str = ""
    attempt: _Number = 0
    state: str = ""
    previous: str = ""
    waited_ms: _Number = 0
    ran_ms: _Number = 0
    total_ms: _Number = 0
    due_ms: _Number = 0
    slot_ms: _Number = 0
    schedule: str = ""
    traceparent: str = ""
    reason: str = ""
    exhausted: bool = False
    error: Error = Error()


class Removed(msgspec.Struct, gc=False):
    """Jobs that are no longer stored."""

    job_ids: list[msgspec.Raw] = []


class Missed(msgspec.Struct, gc=False):
    """Slots of a schedule that nobody could fire."""

    schedule_id: str = ""
    count: _Number = 0


class Trouble(msgspec.Struct, gc=False):
    """What is no job's failure."""

    type: str = ""


class Obliterated(msgspec.Struct, gc=False):
    """What the totals of an epoch came to."""

    totals: dict[str, _Number] = {}


_JOBS: Final = msgspec.json.Decoder(list[Facts])
#: Per kind what decodes the facts of a batch. Kinds that are only counted as events are not decoded.
DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    **dict.fromkeys(("added", "duplicated", "active", "progress", "completed", "retrying", "failed"), _JOBS),
    **dict.fromkeys(("released", "stalled", "waiting", "delayed"), _JOBS),
    "removed": msgspec.json.Decoder(list[Removed]),
    "schedule_missed": msgspec.json.Decoder(list[Missed]),
    "error": msgspec.json.Decoder(list[Trouble]),
    "obliterated": msgspec.json.Decoder(list[Obliterated]),
}
