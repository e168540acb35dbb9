"""What the exporter answers over HTTP: formats, health, births, passwords, TLS; mounted in other applications too."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import ipaddress
import shutil
import socket
import ssl
import threading
from http.client import HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import bcrypt
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from eventq import ConfigurationError, Queue, Worker
from eventq_prometheus import PrometheusExporter, make_asgi_app, make_wsgi_app, run_in_thread
from eventq_prometheus.serving import DEFAULT_LISTEN, bind, parse_listen, serve
from eventq_prometheus.web_config import WebConfig, read_web_config

from ..conftest import WaitUntil
from ..servers import free_port
from ..tls import Certificates
from .scrapes import SCRAPER, fetch, read, scrape, total

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PERSON = {"Accept": "text/html"}
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0", "Accept-Encoding": "gzip"}
PASSWORD = "correct horse"


@contextlib.asynccontextmanager
async def serving(exporter: PrometheusExporter, web: WebConfig | None = None) -> AsyncGenerator[int]:
    """Answer on a free port while the block runs."""
    sock = bind(parse_listen("127.0.0.1:0"))
    task = asyncio.create_task(serve(exporter, sock, web or WebConfig()))
    try:
        yield sock.getsockname()[1]
    finally:
        task.cancel()
        await asyncio.wait([task])
        sock.close()


async def ask(
    port: int, path: str = "/metrics", headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    return await asyncio.to_thread(fetch, port, path, PERSON if headers is None else headers, method)


async def test_text_openmetrics_and_gzip(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """As the scraper asks; both say the same, and exemplars come with OpenMetrics."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], hold=1) as exporter:
        job = await queue.add("n")
        async with Worker(queue, lambda job: None):
            await job.result(timeout=5)

        async def is_there() -> bool:
            await exporter.refresh()
            families = exporter.sheet(zeroes=False).families()
            return any(s.name == "eventq_jobs_completed_total" and s.value for family in families for s in family.samples)

        await wait_until(is_there, description="the outcome")
        exporter._tallies[queue_name].examples()["eventq_job_wait_seconds", ""].observe(3, trace, 1_700_000_000_000)
        async with serving(exporter) as port:
            status, headers, body = await ask(port, headers={})
            assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
            plain = read(body.decode())
            assert total(plain, "eventq_jobs_completed_total") == 1 and total(plain, "process_start_time_seconds") > 0
            status, headers, body = await ask(port, headers=OPENMETRICS)
            assert headers["content-type"].startswith("application/openmetrics-text") and headers["content-encoding"] == "gzip"
            text = gzip.decompress(body).decode()
            families = {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
            assert (
                total(
                    {(s.name, frozenset(s.labels.items())): s.value for s in families["eventq_jobs_completed"].samples},
                    "eventq_jobs_completed_total",
                )
                == 1
            )
            found = [sample.exemplar for sample in families["eventq_job_wait_seconds"].samples if sample.exemplar]
            assert [(e.labels["trace_id"], e.value, float(e.timestamp or 0)) for e in found if e] == [
                (trace.split("-")[1], 0.003, 1_700_000_000.0)
            ]
            assert "_created" not in text and text.endswith("# EOF\n")


async def test_a_first_failure_is_seen_at_zero_first_by_scrapers_only(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """One scrape with Prometheus' header sees 0, the next one what there is; people see what there is. A scrape of some names is
    none of all.
    """

    def process(job: object) -> None:
        raise ValueError("x")

    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], hold=1) as exporter:
        async with Worker(queue, process):
            await queue.add("n")

            def has_failed() -> bool:
                tally = exporter._tallies.get(queue_name)
                return tally is not None and tally.is_based and bool(tally.freeze().totals.get("failed"))

            await wait_until(has_failed, description="failed")
        async with serving(exporter) as port:

            async def failed(headers: dict[str, str], query: str = "") -> float:
                _, _, body = await ask(port, f"/metrics{query}", headers)
                return total(read(body.decode()), "eventq_jobs_failed_total")

            assert await failed(PERSON) == 1
            assert await failed(SCRAPER, "?name[]=eventq_jobs_failed_total") == 0
            assert [await failed(SCRAPER) for _ in range(3)] == [0, 1, 1]
    async with PrometheusExporter(url=url, queues=[queue_name], hold=1) as exporter, serving(exporter) as port:
        assert await failed(SCRAPER) == 1, "that it was seen is saved"


async def test_only_what_is_asked_for(url: str, queue_name: str) -> None:
    """name[] picks families, as prometheus-client has it."""
    async with PrometheusExporter(url=url, queues=[queue_name]) as exporter, serving(exporter) as port:
        _, _, body = await ask(port, "/metrics?name[]=eventq_up&name[]=eventq_build_info")
        assert {name for name, _ in read(body.decode())} == {"eventq_up", "eventq_build_info"}


async def test_pages(url: str, queue_name: str) -> None:
    """A landing page with links, health, and a clear no to everything else."""
    async with PrometheusExporter(url=url, queues=[queue_name]) as exporter, serving(exporter) as port:
        status, headers, body = await ask(port, "/")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b'href="/metrics"' in body
        status, _, body = await ask(port, "/readyz")
        assert (status, body.splitlines()[-1]) == (200, b"ready")
        assert f"waiting for {queue_name}".encode() in body
        assert (await ask(port, "/livez"))[::2] == (200, b"alive\n")
        assert (await ask(port, "/nothing"))[0] == 404
        status, headers, _ = await ask(port, "/metrics", method="POST")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        status, headers, body = await ask(port, "/metrics", method="HEAD")
        assert (status, body) == (200, b"") and int(headers["content-length"]) > 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "GETT"])
async def test_nothing_can_be_done_to_it(url: str, queue_name: str, method: str) -> None:
    """Every page is for reading only, whatever the method is called; other paths are not there for anybody."""
    async with PrometheusExporter(url=url, queues=[queue_name]) as exporter, serving(exporter) as port:
        for path in ("/", "/metrics", "/metrics/", "/readyz", "/livez"):
            status, headers, body = await ask(port, path, method=method)
            assert (status, headers["allow"], body) == (405, "GET, HEAD", b"only GET and HEAD\n")
        for path in ("/metrics/../etc/passwd", "//metrics/x", "/%2e%2e/metrics", "/-/quit"):
            assert (await ask(port, path, method=method))[0] == 404
            assert (await ask(port, path))[0] == 404


async def test_a_request_has_limits(url: str, queue_name: str) -> None:
    """A path, a header or headers without end are refused and not collected; a body is not waited for; the next is answered."""
    large = b"a" * 20_000

    def send(request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            try:
                sock.sendall(request)
                return sock.recv(100)
            except ConnectionError:  # it hung up before it had got everything
                return b"HTTP/1.1 400 "

    async with PrometheusExporter(url=url, queues=[queue_name]) as exporter, serving(exporter) as port:
        for request in (
            b"GET /" + large,
            b"GET /livez HTTP/1.1\r\nHost: h\r\nX-Large: " + large,
            b"GET /livez HTTP/1.1\r\nHost: h\r\n" + b"X-Many: a\r\n" * 2000,
            b"\x00\xff\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        ):
            assert (await asyncio.to_thread(send, request)).startswith(b"HTTP/1.1 400 "), request[:50]
        begun = b"POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n"
        assert (await asyncio.to_thread(send, begun)).startswith(b"HTTP/1.1 405 ")
        assert (await ask(port, "/livez"))[0] == 200


async def test_health_of_an_exporter_that_stopped(url: str, queue_name: str) -> None:
    """Alive is not what it is, nor ready; and serving ends with what it stopped with."""
    async with PrometheusExporter(url=url, queues=[queue_name]) as exporter:
        app = make_asgi_app(exporter)
        exporter._follower.failure = ValueError("secret")
        assert await call(app, "/livez") == (503, b"stopped reading: ValueError\n")
        assert (await call(app, "/readyz"))[0] == 503
        sock = bind(parse_listen("127.0.0.1:0"))
        with pytest.raises(ValueError, match="secret"):
            await serve(exporter, sock, WebConfig())
        sock.close()


async def call(app: Any, path: str, root: str = "", **scope: Any) -> tuple[int, bytes]:
    """Call an ASGI application."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "GET", "path": root + path, "root_path": root, "query_string": b"", "headers": [], **scope}
    await app(whole, None, send)
    return sent[0]["status"], sent[1]["body"]


async def test_mounted_in_an_asgi_application(url: str, queue_name: str) -> None:
    """Below a path; it takes part in the lifespan without having one, and speaks nothing but HTTP."""
    async with PrometheusExporter(url=url, queues=[queue_name]) as exporter:
        app = make_asgi_app(exporter)
        status, body = await call(app, "/metrics", root="/internal")
        assert status == 200 and total(read(body.decode()), "eventq_up") == 1
        assert b'href="/internal/metrics"' in (await call(app, "/", root="/internal"))[1]
        told: list[str] = []
        asked = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, str]:
            return {"type": next(asked)}

        async def send(message: dict[str, str]) -> None:
            told.append(message["type"])

        await app({"type": "lifespan"}, receive, send)
        assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        with pytest.raises(NotImplementedError, match="websocket"):
            await app({"type": "websocket"}, receive, send)


async def test_asked_from_another_loop(url: str, queue_name: str) -> None:
    """An application whose loop is not the exporter's is answered all the same."""
    async with PrometheusExporter(url=url, queues=[queue_name]) as exporter:
        app = make_asgi_app(exporter)
        status, _ = await asyncio.to_thread(lambda: asyncio.run(call(app, "/metrics")))
        assert status == 200


def test_mounted_in_a_wsgi_application(url: str, queue_name: str) -> None:
    """The exporter in a thread of its own, the application in any."""

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with run_in_thread(PrometheusExporter(url=url, queues=[queue_name])) as exporter:
        server = make_server("127.0.0.1", 0, make_wsgi_app(exporter), handler_class=Quiet)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            status, headers, body = fetch(server.server_port, headers=SCRAPER)
            assert (status, total(read(body.decode()), "eventq_up")) == (200, 1)
            assert headers["content-type"].startswith("text/plain")
            assert fetch(server.server_port, "/nothing")[0] == 404
            assert fetch(server.server_port, "/metrics", method="HEAD")[2] == b""
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def test_an_exporter_that_is_not_open_cannot_be_asked(url: str) -> None:
    """With words."""
    app = make_wsgi_app(PrometheusExporter(url=url))
    with pytest.raises(ConfigurationError, match="not open yet"):
        app({"REQUEST_METHOD": "GET"}, lambda *_: None)


@pytest.fixture(scope="module")
def hashed() -> str:
    return bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(rounds=4)).decode()


@pytest.fixture(scope="module")
def certificates(tls_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls") / "certificates")


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


async def test_passwords(url: str, queue_name: str, tmp_path: Path, hashed: str) -> None:
    """Whoever has none, a wrong one, or a name that is not there, sees nothing; headers of the file come with every answer."""
    config = tmp_path / "web.yml"
    config.write_text(f"basic_auth_users:\n  ann: {hashed}\nhttp_server_config:\n  headers:\n    X-Frame-Options: DENY\n")
    async with PrometheusExporter(url=url, queues=[queue_name]) as exporter, serving(exporter, read_web_config(config)) as port:
        for wrong in (
            {},
            basic("ann:wrong"),
            basic(f"bob:{PASSWORD}"),
            basic("ann"),
            {"Authorization": "Basic !"},
            {"Authorization": "Basic \xe9"},
            {"Authorization": f"Bearer {PASSWORD}"},
        ):
            status, headers, body = await ask(port, "/metrics", wrong)
            assert (status, body, headers["x-frame-options"]) == (401, b"Unauthorized\n", "DENY")
            assert headers["www-authenticate"].startswith("Basic")
        for _ in range(2):
            status, headers, _ = await ask(port, "/metrics", basic(f"ann:{PASSWORD}"))
            assert (status, headers["x-frame-options"]) == (200, "DENY")


async def test_tls(url: str, queue_name: str, tmp_path: Path, certificates: Certificates) -> None:
    """With the certificate of the file, and asking for one of the client's when it says so; paths are relative to the file."""
    config = tmp_path / "web.yml"
    shutil.copy(certificates.key("server"), tmp_path / "key.pem")
    config.write_text(
        f"tls_server_config:\n  cert_file: {certificates.path('server')}\n  key_file: key.pem\n  min_version: TLS13\n"
        f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {certificates.path('ca')}\n"
    )
    async with PrometheusExporter(url=url, queues=[queue_name]) as exporter, serving(exporter, read_web_config(config)) as port:

        def get(client: str | None) -> int:
            context = ssl.create_default_context(cafile=certificates.path("ca"))
            context.check_hostname = False
            if client:
                context.load_cert_chain(certificates.path(client), certificates.key(client))
            connection = HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
            try:
                connection.request("GET", "/livez")
                return connection.getresponse().status
            finally:
                connection.close()

        assert await asyncio.to_thread(get, "client") == 200
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(get, None)
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(get, "stranger")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "the file must be a mapping, not list"),
        ("a: [", "is no YAML"),
        ("tls_config: {}", "tls_config is not supported; basic_auth_users, http_server_config, tls_server_config are"),
        ("tls_server_config: {}", "cert_file is missing"),
        ("tls_server_config: {cert_file: a}", "key_file is missing"),
        ("tls_server_config: {cert_file: a, key_file: b}", "certificate or key cannot be used"),
        (
            "tls_server_config: {cert_file: a, key_file: b, min_version: TLS10}",
            "min_version 'TLS10': must be one of TLS12, TLS13",
        ),
        ("tls_server_config: {cert_file: a, key_file: b, client_auth_type: Maybe}", "client_auth_type 'Maybe'"),
        ("tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert}", "go together"),
        ("tls_server_config: {cert_file: a, key_file: b, cipher_suites: [x]}", "cipher_suites is not supported"),
        ("basic_auth_users: {}", "must map names to bcrypt hashes"),
        ("basic_auth_users: {ann: secret}", "the password of 'ann' is no bcrypt hash"),
        ("http_server_config: {headers: {X-Mine: 1}}", "X-Mine is not supported"),
        ('http_server_config: {headers: {X-Frame-Options: "a\\nb"}}', "must be printable ASCII on one line"),
        ("tls_server_config: {cert_file: a, key_file: b, min_version: [TLS12]}", "min_version ['TLS12']: must be one of"),
    ],
)
def test_a_bad_web_configuration_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    """What is not understood is not ignored, and no password is quoted."""
    config = tmp_path / "web.yml"
    config.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_web_config(config)
    assert words in str(caught.value) and "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_an_empty_web_configuration_is_none(tmp_path: Path) -> None:
    """As Prometheus' exporters have it."""
    config = tmp_path / "web.yml"
    config.write_text("# nothing\n")
    assert read_web_config(config) == WebConfig()


@pytest.mark.parametrize("text", ["", "10650", "host", "host:x", "host:70000", "host:-1", "host:"])
def test_a_bad_address_is_refused(text: str) -> None:
    """With the form that is expected."""
    with pytest.raises(ConfigurationError, match="must be HOST:PORT, such as 127.0.0.1:10650"):
        parse_listen(text)


def test_addresses() -> None:
    """Host and port, IPv6 in brackets, every interface."""
    assert [str(parse_listen(text)) for text in ("127.0.0.1:1", "[::1]:2", ":3")] == ["127.0.0.1:1", "[::1]:2", "0.0.0.0:3"]
    port = free_port()
    assert ipaddress.ip_address(parse_listen(DEFAULT_LISTEN).host).is_loopback
    first = bind(parse_listen(f"127.0.0.1:{port}"))
    with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}: the port cannot be taken"):
        bind(parse_listen(f"127.0.0.1:{port}"))
    first.close()
    with pytest.raises(ConfigurationError, match="no such address"):
        bind(parse_listen("no.such.host.invalid:1"))


async def test_scrapes_at_the_same_time_share_the_work(url: str, queue_name: str) -> None:
    """Each is answered whole."""
    async with PrometheusExporter(url=url, queues=[queue_name]) as exporter, serving(exporter) as port:
        answers = await asyncio.gather(*[scrape(port) for _ in range(10)])
        assert [total(samples, "eventq_up") for samples in answers] == [1] * 10


async def test_zeroes_that_nobody_received_are_shown_again(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """To a scraper that hung up, or that asked for the head alone."""
    scraper = [(b"x-prometheus-scrape-timeout-seconds", b"10")]
    async with Queue(queue_name, url=url) as queue, PrometheusExporter(url=url, queues=[queue_name], hold=1) as exporter:
        await queue.add("n")
        await wait_until(
            lambda: queue_name in exporter._tallies and exporter._tallies[queue_name].is_based, description="the totals"
        )
        await wait_until(lambda: exporter._tallies[queue_name].freeze().totals, description="the job")
        app = make_asgi_app(exporter)

        async def gone() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def there() -> Any:
            return await asyncio.get_running_loop().create_future()

        async def added(receive: Any, method: str = "GET") -> float:
            sent: list[dict[str, Any]] = []

            async def send(message: dict[str, Any]) -> None:
                sent.append(message)

            scope = {"type": "http", "method": method, "path": "/metrics", "query_string": b"", "headers": scraper}
            await app(scope, receive, send)
            return total(read(sent[1]["body"].decode()), "eventq_jobs_added_total")

        await added(there, "HEAD")
        assert [await added(each) for each in (gone, gone, there, there)] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("headers", "encoding"),
    [
        ({"Accept": "application/openmetrics-text;version=x.y"}, None),
        ({"Accept-Encoding": "gzip;q=0"}, None),
        ({"Accept-Encoding": "deflate, gzip;q=1.0"}, "gzip"),
    ],
)
async def test_odd_headers_are_answered(url: str, queue_name: str, headers: dict[str, str], encoding: str | None) -> None:
    """With what there is."""
    async with PrometheusExporter(url=url, queues=[queue_name]) as exporter, serving(exporter) as port:
        status, told, _ = await ask(port, "/metrics", headers)
        assert (status, told.get("content-encoding")) == (200, encoding)
