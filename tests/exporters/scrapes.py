"""Scrapes for tests: what an exporter shows, by series; and whether a counter ever falls."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

#: A series: its name and its labels.
Series = tuple[str, frozenset[tuple[str, str]]]

SCRAPER = {"X-Prometheus-Scrape-Timeout-Seconds": "10", "Accept": "text/plain;version=0.0.4"}

PROGRAM = """
import asyncio, contextlib, json, sys
from eventq.cli.logs import LogFormat, LogLevel, set_up_logging
from eventq.cli.runtime import until_stopped
from eventq_prometheus import PrometheusExporter
from eventq_prometheus.serving import bind, parse_listen, serve
from eventq_prometheus.web_config import WebConfig

async def main(url, port, options):
    with contextlib.closing(bind(parse_listen(f"127.0.0.1:{port}"))) as sock:
        async with PrometheusExporter(url=url, **options) as exporter:
            print("open", flush=True)
            await serve(exporter, sock, WebConfig())

set_up_logging(LogLevel.debug, LogFormat.text)
asyncio.run(until_stopped(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))
"""


def read(text: str) -> dict[Series, float]:
    """Return what an exposition says, by series."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: Mapping[Series, float], name: str, **labels: str) -> float:
    """Return the sum of all series of a name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (series, has), value in samples.items() if series == name and wanted <= has)


def fetch(
    port: int, path: str = "/metrics", headers: Mapping[str, str] = SCRAPER, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """Ask an exporter on this port; return status, headers in lower case, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


async def scrape(port: int, headers: Mapping[str, str] = SCRAPER) -> dict[Series, float]:
    """Scrape once."""
    status, _, body = await asyncio.to_thread(fetch, port, "/metrics", headers)
    assert status == 200, body
    return read(body.decode())


class Watch:
    """Scrapes again and again from a thread, as Prometheus does, and notes every counter that falls."""

    def __init__(self, port: int, every: float = 0.15) -> None:
        self._port = port
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self.highest: dict[Series, float] = {}
        self.falls: list[tuple[Series, float, float]] = []
        self.first: dict[Series, float] = {}
        self.scrapes = 0
        self.failed = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                status, _, body = fetch(self._port)
            except (OSError, http.client.HTTPException):  # it was killed
                self.failed += 1
                continue
            assert status == 200
            self.scrapes += 1
            self.look(read(body.decode()))

    def look(self, samples: Mapping[Series, float]) -> None:
        """Compare with everything seen before."""
        for series, value in samples.items():
            if not is_counter(series[0]):
                continue
            self.first.setdefault(series, value)
            before = self.highest.get(series, 0.0)
            if value < before:
                self.falls.append((series, before, value))
            self.highest[series] = max(before, value)


def is_counter(name: str) -> bool:
    """Whether a series may only rise as long as the queue lives, whichever process shows it."""
    own = ("eventq_redis", "eventq_label_overflow", "process_", "python_")
    return name.endswith(("_total", "_count", "_bucket")) and not name.startswith(own)


class ExporterProcess:
    """An exporter as a process of its own, which can be killed and started again on its port."""

    def __init__(self, url: str, port: int, **options: Any) -> None:
        self.port = port
        self._arguments = [url, str(port), json.dumps({"hold": 0.5, **options})]
        self._popen: subprocess.Popen[str] | None = None
        self._log = Path(tempfile.mkstemp(prefix="eventq-exporter-")[1])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen is not None and self._popen.poll() is None:
            self.kill()
        self._log.unlink()

    @property
    def log(self) -> str:
        """What it has logged, in all its lives."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._popen is not None
        return self._popen.pid

    def start(self) -> None:
        """Start it and return once it answers."""
        with self._log.open("a") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *self._arguments], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line == "open\n", self.log

    def kill(self) -> None:
        """Kill it, and reap it."""
        assert self._popen is not None and self._popen.stdout is not None
        self._popen.kill()
        self._popen.wait()
        self._popen.stdout.close()

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        assert self._popen is not None and self._popen.stdout is not None
        os.kill(self._popen.pid, signal.SIGTERM)
        code = self._popen.wait(20)
        self._popen.stdout.close()
        return code


@contextlib.contextmanager
def running(url: str, port: int, **options: Any) -> Generator[ExporterProcess]:
    """Run an exporter process while the block runs."""
    with ExporterProcess(url, port, **options) as process:
        yield process
