"""The servers of an OTLP receiver: gRPC and HTTP. Each hands what it is sent to one function, and answers what that decides."""

from __future__ import annotations

import contextlib
import gzip
import socket
import sys
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Protocol

import grpc  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import (  # pyright: ignore[reportMissingTypeStubs]
    add_LogsServiceServicer_to_server,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import add_MetricsServiceServicer_to_server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import add_TraceServiceServicer_to_server

OtlpProtocol = Literal["grpc", "http/protobuf"]
SignalName = Literal["traces", "logs", "metrics"]
#: What becomes of a request. One that is dropped gets no answer, as if its connection had broken.
Outcome = Literal["accepted", "refused", "too large", "dropped"]
Receive = Callable[[SignalName, Any], Outcome]

PROTOBUF = "application/x-protobuf"
#: Each request that is held has a thread to itself.
MOST_REQUESTS = 256


@dataclass(frozen=True, slots=True)
class Signal:
    """One of the three things that are exported: what is sent, what is answered, and how gRPC is told of it."""

    name: SignalName
    request: Callable[[], Any]
    response: Callable[[], Any]
    register: Callable[[Any, Any], None]


SIGNALS = (
    Signal("traces", ExportTraceServiceRequest, ExportTraceServiceResponse, add_TraceServiceServicer_to_server),
    Signal("logs", ExportLogsServiceRequest, ExportLogsServiceResponse, add_LogsServiceServicer_to_server),
    Signal("metrics", ExportMetricsServiceRequest, ExportMetricsServiceResponse, add_MetricsServiceServicer_to_server),
)


class OtlpServer(Protocol):
    """A server that listens from the moment it is made."""

    def close(self) -> None:
        """Listen no more and cut all connections; return once no thread is left."""


def listen(protocol: OtlpProtocol, port: int, receive: Receive) -> OtlpServer:
    """Return a server of this protocol on a loopback port."""
    return GrpcServer(port, receive) if protocol == "grpc" else HttpServer(port, receive)


def variables(url: str, protocol: OtlpProtocol) -> dict[str, str]:
    """Return the environment of a process whose exporters are to find a server."""
    found = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    return {**found, "OTEL_EXPORTER_OTLP_INSECURE": "true"} if protocol == "grpc" else found


def count_spans(signal: SignalName, request: Any) -> int:
    """Return how many spans a request carries."""
    if signal != "traces":
        return 0
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


# -- gRPC

_CODES = {
    "refused": (grpc.StatusCode.UNAVAILABLE, "no requests are taken at the moment"),
    "too large": (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many spans in one request"),
    "dropped": (grpc.StatusCode.UNAVAILABLE, "the request was dropped"),
}


class GrpcServer:
    """TraceService, LogsService and MetricsService, without TLS. gRPC itself refuses requests of more than 4 MiB, as collectors do."""

    def __init__(self, port: int, receive: Receive) -> None:
        self._pool = ThreadPoolExecutor(MOST_REQUESTS, thread_name_prefix="eventq-otlp")
        # Two servers that share a port would share the requests, too.
        self._server: Any = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        for signal in SIGNALS:
            signal.register(_Service(signal, receive), self._server)
        self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def close(self) -> None:
        """Listen no more and cut all connections; return once no thread is left."""
        self._server.stop(None).wait()
        self._pool.shutdown()


class _Service:
    """One of the three services: all have this one method."""

    def __init__(self, signal: Signal, receive: Receive) -> None:
        self._signal = signal
        self._receive = receive

    def Export(self, request: Any, context: Any) -> Any:
        outcome = self._receive(self._signal.name, request)
        if outcome != "accepted":
            context.abort(*_CODES[outcome])
        return self._signal.response()


# -- HTTP

_STATUSES = {"refused": (503, "no requests are taken at the moment"), "too large": (413, "too many spans in one request")}
_PATHS = {f"/v1/{signal.name}": signal for signal in SIGNALS}
_DECODERS: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}


class HttpServer(ThreadingHTTPServer):
    """POST /v1/traces, /v1/logs and /v1/metrics, with connections that stay open as clients expect."""

    daemon_threads = False  # so that closing waits for them
    allow_reuse_port = False
    request_queue_size = 128

    def __init__(self, port: int, receive: Receive) -> None:
        self.receive = receive
        self._connections: set[Any] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="eventq-otlp")
        self._thread.start()

    def close(self) -> None:
        """Listen no more and cut all connections; return once no thread is left."""
        self.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # its client has gone
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection: its thread would wait for the next request of the client as long as that lives."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show what went wrong, unless it is that a client did not wait for its answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Refusal(Exception):
    """A request that is not OTLP: the status to answer with, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one piece: in two, the second one waits for the client's delayed acknowledgement

    def setup(self) -> None:
        """Name the thread, so that one that is left behind is found."""
        threading.current_thread().name = "eventq-otlp-connection"
        super().setup()

    def do_POST(self) -> None:
        """Take a request."""
        try:
            signal, request = self._read()
        except _Refusal as refusal:
            self.close_connection = True  # what was sent may not have been read
            return self._answer(refusal.status, Status(message=refusal.why))
        assert isinstance(self.server, HttpServer)
        outcome = self.server.receive(signal.name, request)
        if outcome == "accepted":
            self._answer(200, signal.response())
        elif outcome == "dropped":
            self.close_connection = True
        else:
            status, why = _STATUSES[outcome]
            self._answer(status, Status(message=why))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _read(self) -> tuple[Signal, Any]:
        signal = _PATHS.get(self.path)
        if signal is None:
            raise _Refusal(404, f"there is no {self.path}")
        if self.headers.get_content_type() != PROTOBUF:
            raise _Refusal(415, f"Content-Type is {self.headers.get_content_type()}, not {PROTOBUF}")
        decode = _DECODERS.get(self.headers.get("Content-Encoding", "identity"))
        if decode is None:
            raise _Refusal(415, f"Content-Encoding can be {', '.join(_DECODERS)}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = signal.request()
        try:
            request.ParseFromString(decode(body))
        except (DecodeError, OSError, EOFError, zlib.error) as error:
            raise _Refusal(400, f"the body cannot be read: {error}") from error
        return signal, request

    def _answer(self, status: int, message: Any) -> None:
        body = message.SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", PROTOBUF)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
