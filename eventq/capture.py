"""The span that is current while a processor runs: it keeps what user code says of it until the outcome takes it along."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import trace
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags, TraceState

from eventq.client import boot_time
from eventq.codec import encode_json
from eventq.errors import InvalidJob
from eventq.limits import Limits
from eventq.outcome import describe
from eventq.spans import RunKey, creation_of, facts_of, run_of
from eventq.tracing import root_sampled

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes, AttributeValue

    from eventq.job import Job

#: What one run may say: so many attributes, events and links, and bytes of all of them. It travels in an event.
_ATTRIBUTES: Final = 64
_EVENTS: Final = 32
_BYTES: Final = 4096
_TEXT: Final = 1024
_STACKTRACE: Final = 4096
_OF_EXCEPTIONS: Final = Limits(error_message=_TEXT, traceback=_TEXT)


class _Said:
    """What user code said of one span, within the bounds."""

    __slots__ = ("attributes", "bytes", "description", "dropped", "events", "links", "name", "status")

    def __init__(self) -> None:
        self.attributes: dict[str, AttributeValue] = {}
        self.events: list[tuple[str, int, dict[str, AttributeValue]]] = []
        self.links: list[tuple[str, str, dict[str, AttributeValue]]] = []
        self.name = self.status = self.description = ""
        self.bytes = self.dropped = 0

    def attribute(self, key: str, value: AttributeValue) -> None:
        name, clean = _text(key), _value(value)
        known = self.attributes.get(name)
        if not key or clean is None or (known is None and len(self.attributes) >= _ATTRIBUTES):
            self.dropped += 1
            return
        # A value that is set again and again takes the room of one.
        freed = 0 if known is None else _size(name) + _size(known)
        self.bytes -= freed
        if self._fits(name, clean):
            self.attributes[name] = clean
        else:
            self.bytes += freed
            self.dropped += 1

    def event(self, name: str, offset: int, attributes: Attributes) -> None:
        kept, text = self._kept(attributes), _text(name)
        if text and len(self.events) < _EVENTS and self._fits(text, kept):
            self.events.append((text, offset, kept))
        else:
            self.dropped += 1

    def link(self, context: SpanContext, attributes: Attributes) -> None:
        kept = self._kept(attributes)
        if context.is_valid and len(self.links) < _EVENTS and self._fits(" " * 64, kept):
            self.links.append((f"{context.trace_id:032x}", f"{context.span_id:016x}", kept))
        else:
            self.dropped += 1

    def facts(self) -> dict[str, Any]:
        # Copied: a thread that timed out may go on saying things.
        told = {"attributes": self.attributes.copy(), "events": self.events.copy(), "links": self.links.copy()}
        return {**told, "name": self.name, "status": self.status, "description": self.description, "dropped": self.dropped}

    def _kept(self, attributes: Attributes) -> dict[str, AttributeValue]:
        kept = _attributes_of(attributes)
        self.dropped += len(attributes or ()) - len(kept)
        return kept

    def _fits(self, *parts: object) -> bool:
        size = sum(map(_size, parts))
        if self.bytes + size > _BYTES:
            return False
        self.bytes += size
        return True


class CapturingSpan(trace.Span):
    """A run's span as its processor sees it. Nothing is worked out before somebody asks; the tracer makes the span in the end.

    `set_attribute`, `add_event`, `record_exception`, `add_link`, `set_status` and `update_name` are kept, within bounds (64
    attributes, 32 events, 4 KiB in all, 1 KiB for one text; what is more is counted as dropped). `end` does nothing: the run ends
    when its processor does.
    """

    def __init__(self, job: Job[Any, Any], began: float) -> None:
        self._job = job
        self._began = began
        self._context: SpanContext | None = None
        self._said = _Said()

    def get_span_context(self) -> SpanContext:
        """Return ids and flags, as the tracer will have them."""
        if self._context is None:
            job = self._job
            added_ms, started_ms, facts = job.record.added_ms, job.run.started_ms, facts_of(job.record.trace)
            creation = creation_of(job.scope, job.id, added_ms, facts)
            ids = run_of(creation, facts, RunKey(job.scope, job.id, job.fence, started_ms), started_ms - added_ms)
            is_sampled = root_sampled(creation.trace_id, f"add {job.queue}") if ids.is_sampled is None else ids.is_sampled
            flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
            state = TraceState.from_header([ids.state]) if ids.state else None
            self._context = SpanContext(ids.trace_id, ids.span_id, is_remote=False, trace_flags=flags, trace_state=state)
        return self._context

    def is_recording(self) -> bool:
        """Whether the run is sampled."""
        return self.get_span_context().trace_flags.sampled

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Keep an attribute."""
        self._said.attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Keep attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Keep an event. timestamp: ns since the epoch, by this machine's clock; None for now."""
        # An offset from the start, so that the tracer can lay it beside Redis' clock.
        offset = round((boot_time() - self._began) * 1e9)
        self._said.event(name, offset if timestamp is None else offset + int(timestamp) - time.time_ns(), attributes)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Keep a link to another span."""
        self._said.link(context, attributes)

    def record_exception(
        self, exception: BaseException, attributes: Attributes = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        """Keep an exception that was handled, as an event. What the processor raises is told by itself."""
        info = describe(exception, _OF_EXCEPTIONS)
        said = {"exception.type": info.type, "exception.message": info.message, "exception.stacktrace": info.traceback}
        self.add_event("exception", {**said, **(attributes or {})}, timestamp)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Keep a status: OK is the last word, as OpenTelemetry has it. A failed attempt is an error whatever is said here."""
        code, kept = status.status_code if isinstance(status, Status) else status, self._said
        if code is StatusCode.UNSET or kept.status == "ok":
            return
        kept.status = code.name.lower()
        said = status.description if isinstance(status, Status) else description
        kept.description = _text(said or "") if code is StatusCode.ERROR else ""

    def update_name(self, name: str) -> None:
        """Keep another name for the span."""
        self._said.name = _text(name)

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: the run ends when its processor does."""

    def captured(self, stacktrace: str = "") -> str:
        """Return what is to travel with the outcome, `"span":{…}`; '' for nothing. stacktrace: of what the processor raised."""
        told = self._said.facts()
        told["stacktrace"] = stacktrace.encode("utf-8", "replace")[-_STACKTRACE:].decode("utf-8", "ignore")
        said = {key: value for key, value in told.items() if value}
        try:
            return f'"span":{encode_json(said, "span")}' if said else ""
        except InvalidJob:  # a lone surrogate
            return ""


def _attributes_of(attributes: Attributes) -> dict[str, AttributeValue]:
    kept = {_text(key): _value(value) for key, value in (attributes or {}).items() if key}
    return {key: value for key, value in kept.items() if value is not None}


def _text(value: object) -> str:
    return str(value)[:_TEXT].encode("utf-8", "replace").decode()


def _value(value: Any) -> AttributeValue | None:
    """Return what OpenTelemetry allows as an attribute's value, cut to size; None for anything else, and what JSON has not."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return value
    # Plain numbers, also of those that are more than that (numpy's): only these can be encoded.
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else None
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        items = [_value(item) for item in cast("Sequence[object]", value)[:_ATTRIBUTES]]
        is_flat = all(isinstance(item, str | bool | int | float) for item in items)
        return items if is_flat and len({type(item) for item in items}) <= 1 else None
    return None


def _size(part: Any) -> int:
    if isinstance(part, dict):
        return sum(_size(key) + _size(value) for key, value in cast("dict[str, Any]", part).items())
    # What an attribute's value may be: a text, a number, or a list of either.
    if isinstance(part, list):
        return sum(map(_size, cast("list[object]", part)))
    return 8 + (len(part.encode()) if isinstance(part, str) else 0)
