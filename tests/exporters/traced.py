"""A shop whose jobs are traced: a producer and a worker with OpenTelemetry's SDK, and the tracer, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

#: Adds what it is told to under one span, and says what it added. Arguments: url, queue, what (JSON list).
PRODUCER = """
import asyncio, json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from eventq import Backoff, NewJob, Queue
from eventq_opentelemetry.environment import span_exporter

CANARY = "canary-4711"
OPTIONS = {
    "again": {"attempts": 3, "backoff": Backoff.fixed(0.01)},
    "exhausted": {"attempts": 2, "backoff": Backoff.fixed(0.01)},
    "unrecoverable": {"attempts": 5},
    "timeout": {"timeout": 0.2},
    "tomorrow": {"delay": 86_400},
    "linked": {"propagation": "link"},
    "alone": {"propagation": "none"},
}

async def main(url, name, wanted):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(span_exporter()))
    trace.set_tracer_provider(provider)
    ids = {}
    async with Queue(name, url=url) as queue:
        with trace.get_tracer("shop").start_as_current_span("request") as span:
            for each in wanted:
                if each == "schedule":
                    await queue.upsert_schedule("nightly", every=1, limit=1, name="schedule")
                elif each.startswith("bulk"):
                    jobs = await queue.add_bulk([NewJob("fine", CANARY) for _ in range(int(each[4:]))])
                    ids[each] = [job.id for job in jobs]
                elif each != "rootless":
                    ids[each] = [(await queue.add(each, CANARY, **OPTIONS.get(each, {}))).id]
        if "rootless" in wanted:
            ids["rootless"] = [(await queue.add("fine", CANARY)).id]
    context = span.get_span_context()
    provider.shutdown()
    print(json.dumps({"ids": ids, "trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}))

asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
"""

#: Works until it is stopped. Arguments: url, queue, options of Worker as JSON.
WORKER = """
import asyncio, json, os, signal, sys, time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from eventq import Unrecoverable, Worker
from eventq_opentelemetry.environment import span_exporter

provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(span_exporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("shop-worker")

class Declined(Exception):
    pass

def say(job):
    span = trace.get_current_span()
    span.set_attribute("tenant", "acme")
    span.set_attribute("error.type", "not yours to say")
    span.add_event("charging", {"amount": 5})
    with tracer.start_as_current_span("inner"):
        pass

async def fine(job):
    say(job)
    await job.update_progress(50)
    return "canary-4711"

def threaded(job):
    say(job)

async def again(job):
    say(job)
    if job.attempt < 3:
        raise Declined("canary-4712")

async def exhausted(job):
    raise Declined("canary-4712")

async def unrecoverable(job):
    raise Unrecoverable("canary-4712")

async def timeout(job):
    await asyncio.Event().wait()

async def dies(job):
    if job.run.stalls == 0:
        os.kill(os.getpid(), signal.SIGKILL)

async def main(url, name, options):
    plain = dict.fromkeys(("fine", "schedule", "tomorrow", "linked", "alone"), fine)
    named = {"threaded": threaded, "again": again, "exhausted": exhausted, "unrecoverable": unrecoverable}
    worker = Worker(name, {**plain, **named, "timeout": timeout, "dies": dies}, url=url, **options)
    @worker.on("worker_started")
    async def _(_):
        print("started", flush=True)
    await worker.run()

asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
"""

#: The tracer with a short hold, so that a successor goes on at once. Arguments: url, options of StreamTracer as JSON.
TRACER = """
import asyncio, json, sys
from eventq.cli.logs import LogFormat, LogLevel, set_up_logging
from eventq.cli.runtime import until_stopped
from eventq_opentelemetry import StreamTracer
from eventq_opentelemetry.environment import span_exporter
from eventq_opentelemetry.running import _watch

async def main(url, options):
    async with StreamTracer(span_exporter(), url=url, **options) as tracer:
        print("open", flush=True)
        await _watch(tracer)

set_up_logging(LogLevel.info, LogFormat.text)
asyncio.run(until_stopped(main(sys.argv[1], json.loads(sys.argv[2]))))
"""


def add(url: str, queue: str, wanted: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Add jobs as the shop does; return their ids by what they are, and the ids of the span they were added in."""
    done = subprocess.run(
        [sys.executable, "-c", PRODUCER, url, queue, json.dumps(wanted)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment, "OTEL_SERVICE_NAME": "shop"},
    )
    assert done.returncode == 0, done.stderr
    added: dict[str, Any] = json.loads(done.stdout)
    return added


class Program:
    """A process that can be killed and started again."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], ready: str) -> None:
        self._arguments = arguments
        self._environment = {**os.environ, **environment}
        self._ready = ready
        self._popen: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="eventq-traced-")
        self._log = Path(self._folder.name) / "log"
        self._log.touch()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen is not None and self._popen.poll() is None:
            self.kill()
        self._folder.cleanup()

    @property
    def log(self) -> str:
        """What it printed, in all its lives."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._popen is not None
        return self._popen.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start it and return once it says that it is ready."""
        before = self.log.count(self._ready)
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(self._arguments, stdout=log, stderr=log, env=self._environment)
        deadline = time.monotonic() + 30
        while self.log.count(self._ready) == before:
            assert self.is_alive, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)  # sleep-ok: a file gives no news

    def kill(self) -> None:
        """Kill it, and reap it."""
        assert self._popen is not None
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        assert self._popen is not None
        self._popen.send_signal(signal.SIGTERM)
        return self._popen.wait(30)

    def wait(self) -> int:
        """Return its exit code once it has ended by itself."""
        assert self._popen is not None
        return self._popen.wait(30)


def worker(url: str, queue: str, environment: Mapping[str, str], **options: Any) -> Program:
    """Return a worker of the shop."""
    arguments = [sys.executable, "-c", WORKER, url, queue, json.dumps(options)]
    return Program(arguments, {**environment, "OTEL_SERVICE_NAME": "shop-worker"}, "started\n")


def tracer_command(url: str, queue: str, environment: Mapping[str, str], *options: str) -> Program:
    """Return `eventq tracer` as users run it."""
    arguments = [sys.executable, "-m", "eventq", "tracer", "--url", url, "--queue", queue, *options]
    return Program(arguments, environment, "tracing the queues of")


def tracer(url: str, environment: Mapping[str, str], **options: Any) -> Program:
    """Return a tracer that holds its name for half a second only."""
    return Program([sys.executable, "-c", TRACER, url, json.dumps({"hold": 0.5, **options})], environment, "open\n")


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
