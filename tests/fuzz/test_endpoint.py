"""The exporter's port: whatever bytes come, the next request is answered, and the exporter itself has nothing to complain of."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

import pytest

from eventq_prometheus import PrometheusExporter
from eventq_prometheus.serving import bind, parse_listen, serve
from eventq_prometheus.web_config import WebConfig

from ..exporters.scrapes import fetch
from ..servers import free_port
from .mutating import mutate

SEEDS = (
    b"GET /metrics?name[]=eventq_workers HTTP/1.1\r\nHost: h\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.5\r\n"
    b"Accept-Encoding: gzip;q=0.1\r\nX-Prometheus-Scrape-Timeout-Seconds: 5\r\nAuthorization: Basic dTpw\r\nConnection: close\r\n\r\n",
    b"POST /readyz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


async def _send(port: int, data: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(OSError):
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(10):
            await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _look(url: str, queue_name: str, seed: int, requests: int) -> None:
    dice, port = random.Random(seed), free_port()
    with contextlib.closing(bind(parse_listen(f"127.0.0.1:{port}"))) as sock:
        async with PrometheusExporter(url=url, queues=[queue_name]) as exporter:
            serving = asyncio.create_task(serve(exporter, sock, WebConfig()))
            try:
                for _ in range(requests):
                    await _send(port, mutate(SEEDS, dice.randrange))
                status, _, _ = await asyncio.to_thread(fetch, port, "/livez")
                assert status == 200 and not serving.done()
            finally:
                serving.cancel()
                await asyncio.wait([serving])


def _ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    # uvicorn logs an answer that it could not send, to a request whose body broke off in the middle.
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR and each.name.startswith("eventq")]


async def test_hostile_requests(url: str, queue_name: str, caplog: pytest.LogCaptureFixture) -> None:
    await _look(url, queue_name, 1, 40)
    assert _ours(caplog) == []


@pytest.mark.full
async def test_hostile_requests_for_long(url: str, queue_name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A failure names its seed."""
    seed = random.SystemRandom().randrange(10**9)
    await _look(url, queue_name, seed, 2000)
    assert _ours(caplog) == [], f"seed {seed}"
