"""The receiver itself, with the exporters of the OpenTelemetry SDK: what they send is what it shows, and it fails as it is told to."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link as SdkLink
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from .otlp import Link, Metric, Mode, OtlpReceiver, ReceiverProcess, SpanEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..conftest import WaitUntil
    from .otlp_server import OtlpProtocol

PROTOCOLS: list[OtlpProtocol] = ["grpc", "http/protobuf"]
RESOURCE = Resource({"service.name": "shop", "service.version": "1.2"}, schema_url="https://opentelemetry.io/schemas/1.40.0")
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
CALLER = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("shop", "7")]))
SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
#: Shorter than the first pause of the SDK before it tries again: an export fails at the first failure.
ONE_TRY = 0.5


@pytest.fixture(params=PROTOCOLS)
def receiver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    """A receiver which exporters of this process find."""
    with OtlpReceiver(request.param) as receiver:
        for name, value in receiver.environment().items():
            monkeypatch.setenv(name, value)
        yield receiver


@pytest.fixture
def exporter(receiver: OtlpReceiver) -> Iterator[SpanExporter]:
    """An exporter of spans that does not try twice."""
    exporter = span_exporter(receiver.protocol)
    yield exporter
    exporter.shutdown()


def span_exporter(protocol: str, timeout: float = ONE_TRY) -> SpanExporter:
    """Return an exporter that finds its way by the environment."""
    if protocol == "grpc":
        return grpc_traces.OTLPSpanExporter(timeout=timeout)
    return http_traces.OTLPSpanExporter(timeout=timeout)


def make_spans(count: int = 1) -> list[ReadableSpan]:
    """Return spans with everything that a span can have."""
    tracer = TracerProvider(resource=RESOURCE, shutdown_on_exit=False).get_tracer("eventq", "1.0", SCHEMA)
    parent = set_span_in_context(NonRecordingSpan(CALLER))
    spans: list[Any] = []
    for number in range(count):
        attributes: Any = {"text": "ü", "whole": number, "real": 0.5, "yes": True, "many": ["a", "b"]}
        links = [SdkLink(CALLER, {"why": "add"})]
        span = tracer.start_span(f"process {number}", parent, SpanKind.CONSUMER, attributes, links, start_time=1_000)
        span.add_event("progress", {"done": 5}, timestamp=1_500)
        span.set_status(Status(StatusCode.ERROR, "boom"))
        span.end(end_time=2_000)
        spans.append(span)
    return spans


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_spans_are_shown_as_they_were_sent(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    if compression != "none":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    sent = make_spans(3)
    exporter = span_exporter(receiver.protocol, timeout=10)
    assert [SUCCESS, SUCCESS] == [exporter.export(sent[:1]), exporter.export(sent[1:])]
    exporter.shutdown()
    assert ["process 0", "process 1", "process 2"] == [span.name for span in receiver.spans]
    assert 3 == receiver.count
    span, context = receiver.spans[1], sent[1].get_span_context()
    assert context is not None
    assert (f"{context.trace_id:032x}", f"{context.span_id:016x}", "0000000000000def") == (
        span.trace_id, span.span_id, span.parent_id
    )  # fmt: skip
    assert {"text": "ü", "whole": 1, "real": 0.5, "yes": True, "many": ["a", "b"]} == span.attributes
    assert [Link(f"{0xABC:032x}", f"{0xDEF:016x}", {"why": "add"})] == span.links
    assert [SpanEvent("progress", 1_500, {"done": 5})] == span.events
    assert ("CONSUMER", "ERROR", "boom", 1_000, 2_000) == (
        span.kind, span.status, span.status_message, span.start_ns, span.end_ns
    )  # fmt: skip
    assert (0x300, "shop=7") == (span.flags, span.trace_state)  # it is known that the parent is remote
    assert ({"service.name": "shop", "service.version": "1.2"}, "eventq", SCHEMA) == (span.resource, span.scope, span.schema_url)


def test_deflated_spans() -> None:
    """Which gRPC has not."""
    with OtlpReceiver("http/protobuf") as receiver:
        exporter: SpanExporter = http_traces.OTLPSpanExporter(f"{receiver.url}/v1/traces", compression=Compression.Deflate)
        assert exporter.export(make_spans()) is SUCCESS
        exporter.shutdown()
        assert 1 == receiver.count


def test_a_root_span_without_anything(receiver: OtlpReceiver, exporter: SpanExporter) -> None:
    span: Any = TracerProvider(resource=Resource({}), shutdown_on_exit=False).get_tracer("eventq").start_span("add q")
    span.end()
    assert exporter.export([span]) is SUCCESS
    (found,) = receiver.spans
    assert ("INTERNAL", "UNSET", "", "", "", {}, [], []) == (
        found.kind, found.status, found.status_message, found.parent_id, found.trace_state, found.attributes, found.links, found.events
    )  # fmt: skip


def test_log_records_are_shown_as_they_were_sent(receiver: OtlpReceiver) -> None:
    module = grpc_logs if receiver.protocol == "grpc" else http_logs
    provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(module.OTLPLogExporter()))
    body: Any = {"why": ["a", 1, None], "raw": b"\0"}
    provider.get_logger("eventq").emit(
        LogRecord(
            timestamp=1_000,
            context=set_span_in_context(NonRecordingSpan(CALLER)),
            severity_number=SeverityNumber.ERROR,
            body=body,
            attributes={"exception.type": "ValueError"},
            event_name="messaging.process.exception",
        )
    )
    provider.shutdown()
    (record,) = receiver.logs
    assert ("messaging.process.exception", 17, body, 1_000) == (
        record.event_name, record.severity_number, record.body, record.time_ns
    )  # fmt: skip
    assert {"exception.type": "ValueError"} == record.attributes
    assert (f"{0xABC:032x}", f"{0xDEF:016x}", "shop") == (record.trace_id, record.span_id, record.resource["service.name"])
    assert b"ValueError" in record.raw and b"shop" in record.raw
    assert 0 == receiver.count  # of spans


def test_metrics_are_shown_as_they_were_sent(receiver: OtlpReceiver) -> None:
    reader = InMemoryMetricReader()
    exponential = View(instrument_name="run", aggregation=ExponentialBucketHistogramAggregation(max_size=4))
    provider = MeterProvider([reader], RESOURCE, shutdown_on_exit=False, views=[exponential])
    meter = provider.get_meter("eventq")
    meter.create_counter("sent", "{message}").add(3, {"queue": "q"})
    meter.create_histogram("wait", "s", explicit_bucket_boundaries_advisory=[1.0, 5.0]).record(2.5)
    meter.create_histogram("run", "s").record(1.0)
    data = reader.get_metrics_data()
    provider.shutdown()
    module: Any = grpc_metrics if receiver.protocol == "grpc" else http_metrics
    exporter = module.OTLPMetricExporter()
    assert data is not None and exporter.export(data).name == "SUCCESS"
    exporter.shutdown()
    sent, wait, run = receiver.metrics
    assert Metric("sent", "{message}", "sum", sent.points, {"service.name": "shop", "service.version": "1.2"}) == sent
    assert [({"queue": "q"}, 3)] == [(point["attributes"], point["value"]) for point in sent.points]
    assert ("wait", "s", "histogram") == (wait.name, wait.unit, wait.type)
    (point,) = wait.points
    assert 0 < point.pop("start_ns") <= point.pop("time_ns")
    assert {
        "attributes": {}, "count": 1, "sum": 2.5, "min": 2.5, "max": 2.5, "bucket_counts": [0, 1, 0], "explicit_bounds": [1.0, 5.0],
    } == point  # fmt: skip
    assert "exponential_histogram" == run.type
    assert (1, {"offset": -1, "bucket_counts": [1]}) == (run.points[0]["count"], run.points[0]["positive"])


def test_a_value_that_was_not_sent_is_none() -> None:
    """Not 0, which could have been sent."""
    with OtlpReceiver("http/protobuf") as receiver:
        message = ExportMetricsServiceRequest()
        metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="wait")
        metric.histogram.data_points.add(count=1, sum=0.0)
        connection = http.client.HTTPConnection("127.0.0.1", receiver.port)
        connection.request("POST", "/v1/metrics", message.SerializeToString(), {"Content-Type": "application/x-protobuf"})
        assert 200 == connection.getresponse().status
        connection.close()
        (point,) = receiver.metrics[0].points
        assert (0.0, None) == (point["sum"], point["min"])


def test_what_is_sent_again_must_be_the_same(receiver: OtlpReceiver, exporter: SpanExporter) -> None:
    spans = make_spans(2)
    exporter.export(spans)
    exporter.export(spans[:1])
    assert 3 == receiver.count == len(receiver.spans)
    assert [span.span_id for span in receiver.spans[:2]] == list(receiver.distinct())
    changed: Any = spans[0]
    changed._end_time += 1
    exporter.export([changed])
    with pytest.raises(AssertionError, match="was sent again, and was another one"):
        receiver.distinct()
    receiver.clear()
    assert ([], 0, {}) == (receiver.spans, receiver.count, receiver.distinct())


def test_another_resource_is_another_span(receiver: OtlpReceiver, exporter: SpanExporter) -> None:
    span: Any = make_spans()[0]
    exporter.export([span])
    span._resource = Resource({"service.name": "other"})
    exporter.export([span])
    with pytest.raises(AssertionError, match="was sent again, and was another one"):
        receiver.distinct()


def test_two_traces_cannot_share_a_span_id(receiver: OtlpReceiver, exporter: SpanExporter) -> None:
    span: Any = make_spans()[0]
    exporter.export([span])
    span._context = SpanContext(1, span._context.span_id, is_remote=False)
    exporter.export([span])
    with pytest.raises(AssertionError, match="two traces have a span"):
        receiver.distinct()


def test_it_refuses(receiver: OtlpReceiver, exporter: SpanExporter) -> None:
    receiver.mode = "refuse"
    assert exporter.export(make_spans()) is FAILURE
    assert ([], 0, 1) == (receiver.spans, receiver.count, receiver.refused)
    receiver.mode = "accept"
    assert exporter.export(make_spans()) is SUCCESS
    assert (1, 1) == (receiver.count, receiver.refused)


async def test_the_exporter_tries_again_what_was_refused(receiver: OtlpReceiver, wait_until: WaitUntil) -> None:
    receiver.mode = "refuse"
    exporter = span_exporter(receiver.protocol, timeout=10)
    exporting = asyncio.create_task(asyncio.to_thread(exporter.export, make_spans()))
    await wait_until(lambda: receiver.refused == 1)
    receiver.mode = "accept"
    assert await exporting is SUCCESS
    exporter.shutdown()
    assert (1, 1) == (receiver.count, receiver.refused)


def test_it_refuses_large_requests(receiver: OtlpReceiver, exporter: SpanExporter) -> None:
    receiver.mode, receiver.max_spans = "reject_large", 2
    assert [FAILURE, SUCCESS] == [exporter.export(make_spans(3)), exporter.export(make_spans(2))]
    assert (2, 1) == (receiver.count, receiver.refused)


async def test_it_leaves_a_request_unanswered(receiver: OtlpReceiver, exporter: SpanExporter, wait_until: WaitUntil) -> None:
    """The client gives up; the request is dropped once the mode changes."""
    receiver.mode = "hang"
    began = time.monotonic()
    exporting = asyncio.create_task(asyncio.to_thread(exporter.export, make_spans()))
    await wait_until(lambda: receiver.held == 1)
    assert await exporting is FAILURE
    assert time.monotonic() - began >= ONE_TRY * 0.9
    receiver.mode = "accept"
    await wait_until(lambda: receiver.held == 0)
    assert ([], 0) == (receiver.spans, receiver.count)
    assert await asyncio.to_thread(exporter.export, make_spans()) is SUCCESS
    assert 1 == receiver.count


async def test_a_request_that_is_dropped_is_sent_again(receiver: OtlpReceiver, wait_until: WaitUntil) -> None:
    receiver.mode = "hang"
    exporter = span_exporter(receiver.protocol, timeout=10)
    exporting = asyncio.create_task(asyncio.to_thread(exporter.export, make_spans()))
    await wait_until(lambda: receiver.held == 1)
    receiver.mode = "accept"
    assert await exporting is SUCCESS
    exporter.shutdown()
    assert 1 == receiver.count


def test_it_goes_away_and_comes_back(receiver: OtlpReceiver, exporter: SpanExporter) -> None:
    assert exporter.export(make_spans()) is SUCCESS  # over a connection that stays open
    receiver.go_away()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", receiver.port))
    assert exporter.export(make_spans()) is FAILURE
    receiver.come_back()
    another = span_exporter(receiver.protocol, timeout=10)
    assert another.export(make_spans()) is SUCCESS
    another.shutdown()
    assert 2 == receiver.count == len(receiver.spans)


@pytest.mark.parametrize("mode", ["accept", "refuse", "hang", "reject_large"])
async def test_it_closes_at_once(receiver: OtlpReceiver, mode: Mode, wait_until: WaitUntil) -> None:
    """Though clients keep connections open, and some wait for an answer."""
    receiver.mode, receiver.max_spans = mode, 0
    exporter = span_exporter(receiver.protocol, timeout=10)
    exporting = asyncio.create_task(asyncio.to_thread(exporter.export, make_spans()))
    await wait_until(lambda: receiver.count or receiver.refused or receiver.held)
    began = time.monotonic()
    await asyncio.to_thread(receiver.go_away)
    assert time.monotonic() - began < 2
    assert [] == [thread.name for thread in threading.enumerate() if thread.name.startswith("eventq-otlp")]
    exporter.shutdown()  # it stops trying
    await exporting
    assert (1 if mode == "accept" else 0) == receiver.count


def test_a_mode_that_does_not_exist(receiver: OtlpReceiver) -> None:
    mode: Any = "refused"
    with pytest.raises(ValueError, match="there is no mode 'refused'"):
        receiver.mode = mode


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/traces", {}, b"", 200),
        ("/v1/logs", {"Content-Encoding": "gzip"}, gzip.compress(b"", mtime=0), 200),
        ("/v1/traces", {}, b"not protobuf", 400),
        ("/v1/traces", {"Content-Encoding": "gzip"}, b"not gzip", 400),
        ("/v1/traces", {"Content-Encoding": "br"}, b"", 415),
        ("/v1/traces", {"Content-Type": "application/json"}, b"{}", 415),
        ("/v1/spans", {}, b"", 404),
    ],
)
def test_what_http_answers(path: str, headers: dict[str, str], body: bytes, status: int) -> None:
    with OtlpReceiver("http/protobuf") as receiver:
        connection = http.client.HTTPConnection("127.0.0.1", receiver.port)
        connection.request("POST", path, body, {"Content-Type": "application/x-protobuf", **headers})
        answer = connection.getresponse()
        assert (status, "application/x-protobuf") == (answer.status, answer.getheader("Content-Type"))
        assert (status == 200) == (answer.read() == ExportTraceServiceResponse().SerializeToString())
        connection.close()
        assert 0 == receiver.count


def test_many_requests_at_once(receiver: OtlpReceiver) -> None:
    """None is lost, whatever the thread it came by."""
    exporters = [span_exporter(receiver.protocol, timeout=20) for _ in range(8)]
    spans = make_spans(10)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: exporters[n % 8].export(spans), range(80)))
    for exporter in exporters:
        exporter.shutdown()
    assert [SUCCESS] * 80 == results
    assert (800, 800, 10) == (receiver.count, len(receiver.spans), len(receiver.distinct()))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_receiver_in_a_process_of_its_own(protocol: OtlpProtocol, monkeypatch: pytest.MonkeyPatch) -> None:
    with ReceiverProcess(protocol) as process:
        for name, value in process.environment().items():
            monkeypatch.setenv(name, value)
        assert process.pid != os.getpid()
        assert {"spans": 0, "requests": 0} == process.counts()
        exporter = span_exporter(protocol, timeout=10)
        assert [SUCCESS, SUCCESS] == [exporter.export(make_spans(3)), exporter.export(make_spans(2))]
        assert {"spans": 5, "requests": 2} == process.counts()
        exporter.shutdown()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(process.url.rpartition(":")[2])))
