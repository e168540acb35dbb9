"""A hundred restarts of the server, and whoever reads the queue from outside is back as soon as its workers: exporter and tracer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from ..exporters.otlp import OtlpReceiver
from ..exporters.scrapes import Watch, read, running, total
from ..exporters.scrapes import fetch as scrape_once
from ..exporters.traced import tracer
from ..servers import free_port
from .stored import key_of
from .test_server_faults import DURABLE, Plan, play, restarts

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import MakeServer, WaitUntil
    from .test_server_faults import Outsider, Strikes

ADDED = "eventq_jobs_added_total"


class Scraped:
    """The exporter: it shows a job that was added after the server answered."""

    name = "exporter"

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._looked = 0
        self._added = 0

    def struck(self, strikes: Strikes) -> None:
        """Note how many jobs there were by then."""
        with strikes.client() as client:
            text: Any = client.hget(key_of(strikes.queue, "totals"), "added sleep")
        self._added = int(text or 0)

    def has_carried_on(self) -> bool:
        """Return whether a scrape showed more."""
        if self._looked == (scrapes := self._watch.scrapes):
            return False
        self._looked = scrapes
        return total(self._watch.highest.copy(), ADDED) > self._added


class Traced:
    """The tracer: it sends a span that ended after the server answered."""

    name = "tracer"

    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver
        self._looked = 0
        self._since_ns = 0

    def struck(self, strikes: Strikes) -> None:
        """Note the time."""
        del strikes
        self._since_ns = time.time_ns()

    def has_carried_on(self) -> bool:
        """Return whether such a span came."""
        if self._looked == (count := self._receiver.count):
            return False  # to look is dear
        self._looked = count
        return any(span.end_ns > self._since_ns for span in self._receiver.spans[-100:])


@pytest.mark.full
@pytest.mark.timeout(1200)
async def test_a_hundred_restarts(make_server: MakeServer, queue_name: str, tmp_path: Path, wait_until: WaitUntil) -> None:
    """Under load, every write on disk first: nothing is lost, nobody exits, everybody is heard of within 2 s of the server
    answering; counters never fall and are the queue's own in the end, and every run has one span.
    """
    server = make_server(*DURABLE)
    port, plan = free_port(), Plan(restarts, 100, gap=1.0, longest=3.0)
    with (
        OtlpReceiver() as receiver,
        running(server.url, port) as exporter,
        tracer(server.url, receiver.environment()) as tracing,
        Watch(port, every=0.25) as watch,
    ):
        pids = exporter.pid, tracing.pid
        outsiders: list[Outsider] = [Scraped(watch), Traced(receiver)]
        result = await play(server, queue_name, tmp_path, plan, wait_until, outsiders)
        starts = result.kinds["active"]
        await wait_until(lambda: receiver.count >= 2 * starts, 20, description="a span for every wait and every run")
        spans = receiver.distinct().values()
        shown = read(scrape_once(port)[2].decode())
        assert tracing.is_alive and pids == (exporter.pid, tracing.pid)
    runs = sum(span.name.startswith("process") for span in spans)
    print(
        f"Restarts: {watch.scrapes} scrapes, {watch.failed} failed, {len(watch.falls)} falls; {starts} runs, {runs} spans of them"
    )
    assert [] == watch.falls
    assert runs == starts
    assert total(shown, ADDED) == result.report.acknowledged == result.kinds["added"]
    assert {(1, 0)} == {*result.stored.counters.values()}
