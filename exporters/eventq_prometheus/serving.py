"""The exporter as a process of its own: a port, perhaps TLS and passwords, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from eventq import ConfigurationError
from eventq_prometheus.pages import make_asgi_app
from eventq_prometheus.web_config import BasicAuth, WebConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, MutableMapping

    from eventq_prometheus.exporter import PrometheusExporter

__all__ = ["DEFAULT_LISTEN", "Address", "bind", "parse_listen", "serve"]

log: Final = logging.getLogger("eventq.exporter")

#: Loopback, and a port that no other exporter has: those from 9100 to 9999 are taken.
DEFAULT_LISTEN: Final = "127.0.0.1:10650"
#: Seconds that requests under way may take when it is told to stop, and between two looks at how it does.
_GRACE: Final = 3
_WATCH_EVERY: Final = 0.5
#: Bytes of one request's line and headers. A scraper sends some hundred.
_REQUEST_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_listen(text: str) -> Address:
    """Return host and port of HOST:PORT, [::1]:PORT or :PORT (every interface). Raises ConfigurationError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > 65_535:
        raise ConfigurationError(f"--listen {text!r}: must be HOST:PORT, such as {DEFAULT_LISTEN}")
    return Address(host or "0.0.0.0", int(port))


def bind(address: Address) -> socket.socket:
    """Take the port now, so that one that is taken is told before anything else begins. Raises ConfigurationError."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"--listen {address}: no such address: {error.strerror or error}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise ConfigurationError(f"--listen {address}: the port cannot be taken: {error.strerror or error}") from error
    return sock


async def serve(exporter: PrometheusExporter, sock: socket.socket, web: WebConfig) -> None:
    """Answer requests until cancelled. Raises what the exporter stopped with, if it stops reading."""
    config = uvicorn.Config(
        _guarded(make_asgi_app(exporter), web),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        ws="none",
        http="h11",  # the other parser, which is taken where it is installed, has no limit
        h11_max_incomplete_event_size=_REQUEST_BYTES,
        timeout_graceful_shutdown=_GRACE,
    )
    config.load()
    config.ssl = web.tls
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # that it starts and stops is said here already
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]), name="eventq-exporter http")
    try:
        while not serving.done() and exporter.failure is None:
            await asyncio.wait([serving], timeout=_WATCH_EVERY)
        if exporter.failure is not None:
            raise exporter.failure
        serving.result()
    finally:
        server.should_exit = True
        await asyncio.wait([serving], timeout=_GRACE + 1)


class _Server(uvicorn.Server):
    """Signals are for the command to handle: it has more to end than the port."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _guarded(
    app: Callable[..., Coroutine[Any, Any, None]], web: WebConfig
) -> Callable[[Any, Any, Any], Coroutine[Any, Any, None]]:
    """Return the application with passwords asked for and headers added as the web configuration says."""
    auth = BasicAuth(web.users)
    extra = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in web.headers.items()]

    async def guarded(scope: MutableMapping[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        told = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), None)

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        if await auth.allows(told):
            await app(scope, receive, send_with_headers)
            return
        refused = [(b"www-authenticate", b'Basic realm="eventq exporter"'), (b"content-type", b"text/plain; charset=utf-8")]
        await send_with_headers({"type": "http.response.start", "status": 401, "headers": refused})
        await send({"type": "http.response.body", "body": b"Unauthorized\n"})

    return guarded
