"""What the exporter answers to whom: metrics, health, a landing page. An ASGI and a WSGI application, to be mounted anywhere."""

from __future__ import annotations

import asyncio
import gzip
import html
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from eventq import __version__
from eventq_prometheus.exporter import BUDGET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, MutableMapping

    from prometheus_client.core import Metric

    from eventq_prometheus.exporter import PrometheusExporter
    from eventq_prometheus.views import Sheet

__all__ = ["Pages", "make_asgi_app", "make_wsgi_app"]

#: Prometheus says how long it waits; whoever sends it is a scraper.
_TIMEOUT_HEADER: Final = "x-prometheus-scrape-timeout-seconds"
#: The share of that time that is spent on Redis.
_SHARE: Final = 0.7
#: Asked for, and not refused by a weight of 0.
_GZIP: Final = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
_TEXT: Final = "text/plain; charset=utf-8"
_REASONS: Final = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

_LANDING: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>eventq exporter</title></head>
<body><h1>eventq exporter {version}</h1>
<p>{where}</p>
<ul><li><a href="{root}/metrics">metrics</a></li>
<li><a href="{root}/readyz">readyz</a>: whether what it shows is up to date</li>
<li><a href="{root}/livez">livez</a>: whether it works at all</li></ul>
</body></html>
"""


@dataclass(slots=True)
class Answer:
    """One answer. `sheet`: what it showed, to be told as seen once it is sent to a scraper."""

    status: int
    content_type: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict[str, str])
    sheet: Sheet | None = None


class Pages:
    """Answers requests for one exporter, on the exporter's own loop."""

    def __init__(self, exporter: PrometheusExporter) -> None:
        self._exporter = exporter
        self._process = ProcessCollector(registry=CollectorRegistry())

    async def answer(self, method: str, path: str, query: str, headers: Mapping[str, str], root: str = "") -> Answer:
        """Return the answer to a request; header names in lower case."""
        pages: dict[str, Callable[[], Awaitable[Answer]]] = {
            "/metrics": lambda: self._metrics(query, headers),
            "/readyz": self._ready,
            "/livez": self._live,
            "/": lambda: self._landing(root),
        }
        page = pages.get(path.rstrip("/") or "/")
        if page is None:
            return Answer(404, _TEXT, b"there are /metrics, /readyz, /livez\n")
        if method not in ("GET", "HEAD"):
            return Answer(405, _TEXT, b"only GET and HEAD\n", {"Allow": "GET, HEAD"})
        answer = await page()
        if method != "GET":
            answer.sheet = None  # nobody has seen what is in it
        return answer

    def sent(self, answer: Answer) -> None:
        """An answer went out whole."""
        if answer.sheet is not None:
            self._exporter.seen(answer.sheet)

    async def _metrics(self, query: str, headers: Mapping[str, str]) -> Answer:
        timeout = _seconds(headers.get(_TIMEOUT_HEADER))
        is_scraper = timeout is not None
        await self._exporter.refresh(BUDGET if timeout is None else min(BUDGET, max(0.2, timeout * _SHARE)))
        sheet = self._exporter.sheet(zeroes=is_scraper)
        encode, content_type = _encoder(headers.get("accept", ""))
        wanted = parse_qs(query).get("name[]", [])
        body: bytes = encode(_Registry(sheet, self._process, wanted))
        extra = {"Vary": "Accept, Accept-Encoding"}
        if _GZIP.search(headers.get("accept-encoding", "")):
            body = gzip.compress(body, compresslevel=1)  # a scrape is sent once, and a core is worth more than a network
            extra["Content-Encoding"] = "gzip"
        return Answer(200, content_type, body, extra, sheet if is_scraper and not wanted else None)

    async def _ready(self) -> Answer:
        is_ready, text = self._exporter.status()
        return Answer(200 if is_ready else 503, _TEXT, f"{text}\n".encode())

    async def _live(self) -> Answer:
        failure = self._exporter.failure
        if failure is None:
            return Answer(200, _TEXT, b"alive\n")
        return Answer(503, _TEXT, f"stopped reading: {type(failure).__name__}\n".encode())

    async def _landing(self, root: str) -> Answer:
        facts = {"version": __version__, "where": self._exporter.where, "root": root}
        page = _LANDING.format(**{name: html.escape(text) for name, text in facts.items()})
        return Answer(200, "text/html; charset=utf-8", page.encode())


class _Registry:
    """What prometheus-client encodes: the sheet and the process, all of it or the names asked for."""

    def __init__(self, sheet: Sheet, process: ProcessCollector, wanted: list[str]) -> None:
        self._sheet = sheet
        self._process = process
        self._wanted = set(wanted)

    def collect(self) -> Iterator[Metric]:
        """Return the families."""
        for family in (*self._sheet.families(), *self._process.collect()):
            if not self._wanted or self._wanted & {family.name, *(sample.name for sample in family.samples)}:
                yield family


def make_asgi_app(exporter: PrometheusExporter) -> Callable[..., Coroutine[Any, Any, None]]:
    """Return an ASGI application; mount it where you like. The exporter is opened and closed by you."""
    pages = Pages(exporter)

    async def app(scope: MutableMapping[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise NotImplementedError(f"the exporter speaks HTTP, not {scope['type']}")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        root = scope.get("root_path", "")
        asked = pages.answer(
            scope["method"], scope["path"].removeprefix(root), scope["query_string"].decode("latin-1"), headers, root
        )
        answer = await _on_loop_of(exporter, asked)
        if answer.sheet is not None and await _hung_up(receive):
            answer.sheet = None  # what it shows at 0 is shown again
        lines = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body)), **answer.headers}
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in lines.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})
        pages.sent(answer)

    return app


def make_wsgi_app(exporter: PrometheusExporter) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """Return a WSGI application. The exporter's loop runs in another thread: see `run_in_thread`.

    WSGI does not tell whether whoever asked was still there: a scrape counts as seen when it was answered.
    """
    pages = Pages(exporter)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
        loop, method = exporter.loop, environ["REQUEST_METHOD"]
        asked = pages.answer(
            method, environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", ""), headers, environ.get("SCRIPT_NAME", "")
        )
        answer = asyncio.run_coroutine_threadsafe(asked, loop).result()
        lines = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body)), **answer.headers}
        start_response(f"{answer.status} {_REASONS[answer.status]}", list(lines.items()))
        loop.call_soon_threadsafe(pages.sent, answer)
        return [b"" if method == "HEAD" else answer.body]

    return app


async def _hung_up(receive: Callable[[], Any]) -> bool:
    """Whether whoever asked is gone."""
    waiting = asyncio.ensure_future(receive())
    try:
        while True:
            done, _ = await asyncio.wait([waiting], timeout=0)
            if not done:
                return False
            message = waiting.result()
            if message["type"] == "http.disconnect":
                return True
            waiting = asyncio.ensure_future(receive())
    finally:
        waiting.cancel()


async def _on_loop_of(exporter: PrometheusExporter, asked: Coroutine[Any, Any, Answer]) -> Answer:
    loop = exporter.loop
    if loop is asyncio.get_running_loop():
        return await asked
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, loop))


async def _lifespan(receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _encoder(accept: str) -> tuple[Callable[[Any], bytes], str]:
    """Return what writes the format that is asked for; plain text for whoever asks for what there is none of."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
