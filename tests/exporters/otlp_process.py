"""Receive OTLP until standard input ends, and count it. Prints, as JSON: the endpoint, and the URL that shows the counts."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..servers import free_port
from .otlp_server import OtlpProtocol, Outcome, SignalName, count_spans, listen


class Counts:
    """What was accepted so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans = 0
        self._requests = 0

    def receive(self, signal: SignalName, request: Any) -> Outcome:
        """Accept a request."""
        with self._lock:
            self._spans += count_spans(signal, request)
            self._requests += 1
        return "accepted"

    def read(self) -> dict[str, int]:
        """Return the counts."""
        with self._lock:
            return {"spans": self._spans, "requests": self._requests}


def main(protocol: OtlpProtocol) -> None:
    """Receive."""
    counts = Counts()

    class Show(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer with the counts, at /count only."""
            body = json.dumps(counts.read()).encode()
            self.send_response(200 if self.path == "/count" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    port = free_port()
    server = listen(protocol, port, counts.receive)
    with ThreadingHTTPServer(("127.0.0.1", 0), Show) as shown:
        thread = threading.Thread(target=shown.serve_forever)
        thread.start()
        print(json.dumps([f"http://127.0.0.1:{port}", f"http://127.0.0.1:{shown.server_port}/count"]), flush=True)
        sys.stdin.read()
        shown.shutdown()
        thread.join()
    server.close()


if __name__ == "__main__":
    main("grpc" if sys.argv[1] == "grpc" else "http/protobuf")
