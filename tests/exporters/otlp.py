"""An OTLP receiver for tests: it keeps what real exporters send, and can refuse it, leave it unanswered, or be away.

`OtlpReceiver` runs in the test's process and shows what it was sent. `ReceiverProcess` is a process of its own, which only counts:
for tests that measure what sending costs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from opentelemetry.proto.trace.v1 import trace_pb2

from ..servers import free_port
from .otlp_server import OtlpProtocol, OtlpServer, Outcome, SignalName, count_spans, listen, variables

if TYPE_CHECKING:
    from typing import Self

Mode = Literal["accept", "refuse", "hang", "reject_large"]

ROOT = Path(__file__).parents[2]
#: The repository comes last on the path: the program sees the installed packages, and `tests` besides.
_BOOT = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module('tests.exporters.otlp_process', run_name='__main__')"
)


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a span to another span."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened during a span."""

    name: str
    time_ns: int
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A span. Ids are hexadecimal; `parent_id` is empty for a root. `raw`: every byte of the span, and of its resource."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: list[Link]
    events: list[SpanEvent]
    status: str
    status_message: str
    start_ns: int
    end_ns: int
    flags: int
    trace_state: str
    resource: dict[str, Any]
    scope: str
    schema_url: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A log record. Its ids are empty if it belongs to no span. `raw`: every byte of the record, and of its resource."""

    event_name: str
    severity_number: int
    body: Any
    attributes: dict[str, Any]
    trace_id: str
    span_id: str
    time_ns: int
    resource: dict[str, Any]
    raw: bytes


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it was at one export. `type`: sum, gauge, histogram, exponential_histogram or summary.

    A point has `attributes`, `start_ns`, `time_ns` and `value`; that of a histogram has the fields of OTLP instead of `value`:
    `count`, `sum`, `min`, `max`, `bucket_counts`, `explicit_bounds`.
    """

    name: str
    unit: str
    type: str
    points: list[dict[str, Any]]
    resource: dict[str, Any]


class OtlpReceiver:
    """A receiver on a loopback port, while the block runs. What it keeps is turned into Python only when somebody looks.

    `mode` says what becomes of requests from now on, and can be set at any time:

    - accept: they are kept.
    - refuse: UNAVAILABLE, or 503.
    - hang: they are not answered. They are dropped as soon as the mode changes, or nobody listens any more.
    - reject_large: RESOURCE_EXHAUSTED, or 413, if they carry more than `max_spans` spans; else they are kept.
    """

    def __init__(self, protocol: OtlpProtocol = "grpc", port: int | None = None) -> None:
        self.protocol: OtlpProtocol = protocol
        self.port = free_port() if port is None else port
        self.max_spans = 100
        self._server: OtlpServer | None = None
        self._changed = threading.Condition()
        self._reading = threading.Lock()
        self._mode: Mode = "accept"
        self._is_listening = False
        self._modes = 0
        self._held = 0
        self.clear()

    def __enter__(self) -> Self:
        self.come_back()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_away()

    @property
    def url(self) -> str:
        """Where it is: an OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return the variables that let an exporter find it."""
        return variables(self.url, self.protocol)

    # -- what it does

    @property
    def mode(self) -> Mode:
        """What becomes of requests."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"there is no mode {mode!r}")
        with self._changed:
            if mode != self._mode:
                self._mode = mode
                self._modes += 1
                self._changed.notify_all()

    def go_away(self) -> None:
        """Close the port, so that connections are refused, and cut those that are open."""
        with self._changed:
            self._is_listening = False
            self._changed.notify_all()
        if self._server is not None:
            self._server.close()
            self._server = None

    def come_back(self) -> None:
        """Listen on its port, again after `go_away`."""
        if self._server is None:
            self._is_listening = True
            self._server = listen(self.protocol, self.port, self._receive)

    # -- what it was sent

    @property
    def spans(self) -> list[Span]:
        """All spans it accepted, in order; one that was sent twice is there twice."""
        return self._decode("traces", _decode_spans)

    @property
    def logs(self) -> list[LogRecord]:
        """All log records it accepted, in order."""
        return self._decode("logs", _decode_logs)

    @property
    def metrics(self) -> list[Metric]:
        """All metrics it accepted, in order: the same ones again with every export."""
        return self._decode("metrics", _decode_metrics)

    def distinct(self) -> dict[str, Span]:
        """Return the spans by their id, after looking that one which was sent again was the same, byte for byte."""
        found: dict[str, Span] = {}
        for span in self.spans:
            first = found.setdefault(span.span_id, span)
            assert first.trace_id == span.trace_id, f"two traces have a span {span.span_id}:\n{first}\n{span}"
            assert first.raw == span.raw, f"span {span.span_id} was sent again, and was another one:\n{first}\n{span}"
        return found

    @property
    def count(self) -> int:
        """How many spans it accepted, duplicates included. Costs nothing."""
        return self._count

    @property
    def refused(self) -> int:
        """How many requests it refused, be it in mode refuse or as too large."""
        return self._refused

    @property
    def held(self) -> int:
        """How many requests hang now, those of clients that have given up included."""
        return self._held

    def clear(self) -> None:
        """Forget all it was sent and all it counted."""
        with self._reading, self._changed:
            self._requests: dict[SignalName, list[Any]] = {"traces": [], "logs": [], "metrics": []}
            self._decoded: dict[SignalName, list[Any]] = {"traces": [], "logs": [], "metrics": []}
            self._count = 0
            self._refused = 0

    def _receive(self, signal: SignalName, request: Any) -> Outcome:
        spans = count_spans(signal, request)
        with self._changed:
            if self._mode == "hang":
                self._hold()
                return "dropped"
            if self._mode == "refuse":
                self._refused += 1
                return "refused"
            if self._mode == "reject_large" and spans > self.max_spans:
                self._refused += 1
                return "too large"
            self._requests[signal].append(request)
            self._count += spans
            return "accepted"

    def _hold(self) -> None:
        began = self._modes
        self._held += 1
        self._changed.wait_for(lambda: self._modes != began or not self._is_listening)
        self._held -= 1

    def _decode(self, signal: SignalName, decode: Callable[[Any], Iterable[Any]]) -> list[Any]:
        with self._reading:
            with self._changed:
                requests, self._requests[signal] = self._requests[signal], []
            for request in requests:  # meanwhile others can be received
                self._decoded[signal].extend(decode(request))
            return list(self._decoded[signal])


class ReceiverProcess:
    """A receiver in a process of its own, while the block runs: it accepts everything and counts it."""

    def __init__(self, protocol: OtlpProtocol = "grpc") -> None:
        self.protocol: OtlpProtocol = protocol
        self._popen: subprocess.Popen[str] | None = None
        self.url = ""
        self._count_url = ""

    def __enter__(self) -> Self:
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, str(ROOT), self.protocol],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line, f"the receiver ended: {self._popen.wait()}"
        self.url, self._count_url = json.loads(line)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._popen is not None
        self._popen.communicate()  # it ends with its standard input, so it ends with this process, too

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._popen is not None
        return self._popen.pid

    def environment(self) -> dict[str, str]:
        """Return the variables that let an exporter find it."""
        return variables(self.url, self.protocol)

    def counts(self) -> dict[str, int]:
        """Return how many `spans` and `requests` it has accepted."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._count_url, timeout=20) as answer:
            counts: dict[str, int] = json.load(answer)
        return counts


# -- from OTLP to Python


def _decode_spans(request: Any) -> Iterator[Span]:
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        raw = of_resource.resource.SerializeToString(deterministic=True)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield _span(span, resource, raw, of_scope)


def _span(span: Any, resource: dict[str, Any], raw_resource: bytes, of_scope: Any) -> Span:
    return Span(
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
        links=[Link(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes)) for link in span.links],
        events=[SpanEvent(event.name, event.time_unix_nano, _attributes(event.attributes)) for event in span.events],
        status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        status_message=span.status.message,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        flags=span.flags,
        trace_state=span.trace_state,
        resource=resource,
        scope=of_scope.scope.name,
        schema_url=of_scope.schema_url,
        raw=span.SerializeToString(deterministic=True) + raw_resource,
    )


def _decode_logs(request: Any) -> Iterator[LogRecord]:
    for of_resource in request.resource_logs:
        resource = _attributes(of_resource.resource.attributes)
        raw = of_resource.resource.SerializeToString(deterministic=True)
        for record in (record for of_scope in of_resource.scope_logs for record in of_scope.log_records):
            yield LogRecord(
                event_name=record.event_name,
                severity_number=record.severity_number,
                body=_value(record.body),
                attributes=_attributes(record.attributes),
                trace_id=record.trace_id.hex(),
                span_id=record.span_id.hex(),
                time_ns=record.time_unix_nano,
                resource=resource,
                raw=record.SerializeToString(deterministic=True) + raw,
            )


def _decode_metrics(request: Any) -> Iterator[Metric]:
    for of_resource in request.resource_metrics:
        resource = _attributes(of_resource.resource.attributes)
        for metric in (metric for of_scope in of_resource.scope_metrics for metric in of_scope.metrics):
            kind = metric.WhichOneof("data")
            points = [_point(point) for point in getattr(metric, kind).data_points]
            yield Metric(metric.name, metric.unit, kind, points, resource)


def _point(point: Any) -> dict[str, Any]:
    found = {"attributes": _attributes(point.attributes), "start_ns": point.start_time_unix_nano, "time_ns": point.time_unix_nano}
    fields = {field.name: field for field in point.DESCRIPTOR.fields}
    if "as_double" in fields:
        return {**found, "value": getattr(point, point.WhichOneof("value"))}
    own = fields.keys() - {"attributes", "start_time_unix_nano", "time_unix_nano", "exemplars", "flags"}
    return {**found, **{name: _plain(point, fields[name]) for name in own}}


def _plain(message: Any, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if field.is_repeated:
        return [_fields(one) if field.message_type else one for one in value]
    return _fields(value) if field.message_type else value


def _fields(message: Any) -> dict[str, Any]:
    return {field.name: _plain(message, field) for field in message.DESCRIPTOR.fields}


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(one) for one in value.array_value.values]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case kind:
            return getattr(value, kind)
