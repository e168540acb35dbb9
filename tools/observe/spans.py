"""Receives spans as a collector does, by OTLP over HTTP, and prints a line for each: `python -m tools.observe.spans`."""

from __future__ import annotations

import argparse
import gzip
import signal
import sys
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tools.observe.sink import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import FrameType

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["PATH", "lines_of", "main"]

#: Where exporters send spans. Metrics and logs go to paths of their own, which are not here.
PATH: Final = "/v1/traces"
#: How much of a trace's id is shown.
_SHOWN: Final = 8


def lines_of(request: ExportTraceServiceRequest) -> list[str]:
    """Return a line for each span: service, name, job, how long it took, how it ended, the beginning of its trace's id."""
    return [
        _line(_texts(each.resource.attributes).get("service.name", "?"), span)
        for each in request.resource_spans
        for scope in each.scope_spans
        for span in scope.spans
    ]


def _line(service: str, span: Span) -> str:
    texts = _texts(span.attributes)
    took = f"{(span.end_time_unix_nano - span.start_time_unix_nano) / 1_000_000:.0f} ms"
    is_error = span.status.code == Status.STATUS_CODE_ERROR
    ended = f"error {texts.get('error.type', '?')}" if is_error else texts.get("eventq.job.outcome", "")
    parts = (
        service,
        span.name,
        texts.get("messaging.message.id", ""),
        took,
        ended,
        f"{span.trace_id.hex()[:_SHOWN]}…",
    )
    return "  ".join(part for part in parts if part)


def _texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Return the attributes that are text."""
    return {each.key: each.value.string_value for each in attributes if each.value.HasField("string_value")}


class _Handler(BaseHTTPRequestHandler):
    """Answers exporters, and GET for whoever waits until it is there."""

    timeout = 5  # one that connects and says nothing would keep everybody waiting

    def do_GET(self) -> None:
        self._answer(200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != PATH:
            self._answer(404, b"")
            return
        try:
            content = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            lines = lines_of(ExportTraceServiceRequest.FromString(content))
        except (DecodeError, OSError, EOFError, zlib.error) as error:
            say(f"not spans: {error!r}")
            self._answer(400, b"")
            return
        for line in lines:
            say(line)
        self._answer(200, ExportTraceServiceResponse().SerializeToString())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(arguments: Sequence[str] | None = None) -> None:
    """Receive until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="spans", description="Print the spans that an exporter sends by OTLP over HTTP.")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    parser.add_argument("--port", type=int, default=4318, help="(4318)")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    with HTTPServer((options.host, options.port), _Handler) as server:
        server.serve_forever()


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
