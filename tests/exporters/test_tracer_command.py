"""`eventq tracer` as a process: it says in one line what it cannot do, waits for what is not there yet, and ends when it is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import ConfigurationError, Queue
from eventq_opentelemetry.running import Options, run_tracer

from ..servers import free_port
from .otlp import OtlpReceiver
from .test_command import pretending

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from ..conftest import MakeServer, WaitUntil

EVENTQ = [sys.executable, "-m", "eventq", "tracer"]
#: Nothing of the caller's own may say where to.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}


class Tracer:
    """The command while it runs; what it says is in a file."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self.process = process
        self._said = said

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._said.read_text()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Tell it to stop and return how long it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        await asyncio.to_thread(self.process.wait, 30)
        return time.monotonic() - began


@contextlib.contextmanager
def tracer(folder: Path, *arguments: str, **environment: str) -> Generator[Tracer]:
    """Run the command while the block runs; it is killed afterwards, if it goes on."""
    said = folder / "said"
    with said.open("wb") as output:
        process = subprocess.Popen([*EVENTQ, *arguments], stdout=output, stderr=output, env=CLEAN | environment)
    try:
        yield Tracer(process, said)
    finally:
        process.kill()
        process.wait()


def ended(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command to its end."""
    done = subprocess.run([*EVENTQ, *arguments], capture_output=True, text=True, timeout=30, check=False, env=CLEAN | environment)
    return done.returncode, done.stdout, done.stderr


def variables_for(receiver: OtlpReceiver) -> dict[str, str]:
    return receiver.environment() | {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}


# What it cannot do


@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        ({"queues": ("a b",)}, {}, "queue name 'a b': must be"),
        ({"queues": ()}, {}, "queues []: name at least one"),
        ({"consumer": "a b"}, {}, "consumer 'a b': must be"),
        ({"prefix": "a:b"}, {}, "prefix 'a:b': must be"),
        ({"url": "http://x"}, {}, "url 'http://x': must start with"),
        ({"slow": -1.0}, {}, "slow -1.0: must be seconds, not negative"),
        ({"slow": float("nan")}, {}, "slow nan: must be seconds, not negative"),
        ({}, {"OTEL_TRACES_EXPORTER": "none"}, "OTEL_TRACES_EXPORTER 'none': a tracer that exports no spans has nothing to do"),
        ({}, {"OTEL_TRACES_EXPORTER": "jaegr"}, "'jaegr': no such exporter is installed; there are console, none, otlp"),
        ({}, {"OTEL_LOGS_EXPORTER": "nowhere"}, "OTEL_LOGS_EXPORTER 'nowhere': no such exporter is installed"),
        ({}, {"OTEL_METRICS_EXPORTER": "nowhere"}, "OTEL_METRICS_EXPORTER 'nowhere': no such exporter is installed"),
        (
            {},
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL 'http/json': must be grpc or http/protobuf",
        ),
        ({}, {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "'http': must be grpc or"),
        (
            {},
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
            "OTEL_TRACES_EXPORTER 'otlp': could not",
        ),
        (
            {},
            {"OTEL_METRICS_EXPORTER": "console", "OTEL_METRIC_EXPORT_INTERVAL": "-1"},
            "OTEL_METRIC_EXPORT_INTERVAL: interval value",
        ),
    ],
)
async def test_what_it_cannot_do(
    url: str, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], environment: dict[str, str], words: str
) -> None:
    """Option or variable, value, and what it may be, in one line, before anything is opened."""
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said: dict[str, Any] = {"url": url, **options}
    with pytest.raises(ConfigurationError, match=re.escape(words)) as raised:
        async with asyncio.timeout(10):
            await run_tracer(Options(**said))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--queue", "fine", "--queue", "a b"], {}, "queue name 'a b': must be"),
        (["--slow", "-1"], {}, "slow -1.0: must be seconds, not negative"),
        (["--url", "http://x"], {"OTEL_TRACES_EXPORTER": "none"}, "OTEL_TRACES_EXPORTER 'none'"),
    ],
)
def test_wrong_usage(url: str, arguments: list[str], environment: dict[str, str], words: str) -> None:
    """One line, exit code 2."""
    code, out, said = ended("--url", url, *arguments, **environment)
    assert (code, out) == (2, "")
    assert words in said and said.count("\n") == 1 and said.startswith("eventq: ")


def test_what_is_no_option(url: str) -> None:
    """As of any command, without a traceback."""
    code, out, said = ended("--url", url, "--what")
    assert (code, out) == (2, "")
    assert "--what" in said and "Traceback" not in said


async def test_a_server_that_refuses(make_server: MakeServer) -> None:
    """Without the password it asks for: one line, exit code 1."""
    server = make_server("--requirepass", "secret")
    code, out, said = await asyncio.to_thread(ended, "--url", f"redis://127.0.0.1:{server.port}/0")
    assert (code, out) == (1, "")
    assert said.count("\n") == 1 and "refuses the credentials: Authentication required" in said


@pytest.mark.full
def test_a_server_that_is_not_there() -> None:
    """After ten seconds, in one line."""
    code, out, said = ended("--url", f"redis://127.0.0.1:{free_port()}/0")
    assert (code, out) == (1, "")
    assert said.count("\n") == 1 and "no answer from redis://127.0.0.1" in said


async def test_a_server_that_is_too_old(make_server: MakeServer) -> None:
    """Its version and the one that is needed, in one line."""
    server = make_server()
    with redis.Redis(port=server.port) as client:
        info: Any = client.info()
    name = info.get("server_name", "redis")
    version = info[f"{name}_version"]
    old = "6" + version[1:]
    async with pretending(server.port, f"{name}_version:{version}".encode(), f"{name}_version:{old}".encode()) as port:
        code, _, said = await asyncio.to_thread(ended, "--url", f"redis://127.0.0.1:{port}/0")
    assert code == 2
    assert said.count("\n") == 1
    assert f"is {name} {old}: eventq needs Redis 7.0 or Valkey 7.2 at least" in said


def test_without_its_extra(url: str) -> None:
    """What to install, in one line; and the command is in nobody's way."""
    code = "import sys; sys.modules['opentelemetry.sdk'] = None; from eventq.cli import main; sys.exit(main())"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=CLEAN)

    done = run("tracer", "--url", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r'eventq: opentelemetry\.sdk\S* is not installed; pip install "eventq\[opentelemetry\]"\n', done.stderr)
    shown = run("--help")
    assert "tracer" in shown.stdout and (shown.returncode, shown.stderr) == (0, "")


# What it waits for, and how it ends


async def test_a_queue_that_is_not_there_yet(url: str, queue_name: str, tmp_path: Path, wait_until: WaitUntil) -> None:
    """A warning, then it waits; the queue's spans come when the queue does."""
    with OtlpReceiver("http/protobuf") as receiver:
        with tracer(tmp_path, "--url", url, "--queue", queue_name, **variables_for(receiver)) as command:
            await wait_until(lambda: "tracing the queues of" in command.said, timeout=15, description="it to begin")
            assert f"there is no queue '{queue_name}'" in command.said
            async with Queue(queue_name, url=url) as queue:
                job = await queue.add("n")
                await wait_until(lambda: receiver.count == 1, timeout=15, description="the span")
            assert await command.stop() < 5
        assert command.process.returncode == 0 and command.said.count("WARNING") == 1
        (span,) = receiver.spans
    assert (span.name, span.attributes["messaging.message.id"]) == (f"add {queue_name}", job.id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_when_it_is_told(
    url: str, queue_name: str, tmp_path: Path, wait_until: WaitUntil, number: signal.Signals
) -> None:
    """Exit code 0, at once, with nothing to say but where it traced."""
    with OtlpReceiver("http/protobuf") as receiver:
        async with Queue(queue_name, url=url) as queue:
            await queue.add("n")
            with tracer(tmp_path, "--url", url, "--queue", queue_name, **variables_for(receiver)) as command:
                await wait_until(lambda: receiver.count == 1, timeout=15, description="the span")
                assert await command.stop(number) < 5
    assert command.process.returncode == 0
    (line,) = command.said.splitlines()
    assert f"tracing the queues of {url}" in line


@pytest.mark.parametrize(("protocol", "metrics"), [("http/protobuf", "none"), ("grpc", "none"), ("http/protobuf", "otlp")])
async def test_it_ends_while_the_collector_hangs(
    url: str, queue_name: str, tmp_path: Path, wait_until: WaitUntil, protocol: Any, metrics: str
) -> None:
    """Within seconds, though the exporter would wait for an answer longer; whoever goes on sends what was not taken."""
    with OtlpReceiver(protocol) as receiver:
        receiver.mode = "hang"
        async with Queue(queue_name, url=url) as queue:
            await queue.add("n")
            arguments = ("--url", url, "--queue", queue_name)
            variables = variables_for(receiver) | {"OTEL_EXPORTER_OTLP_TIMEOUT": "30", "OTEL_METRICS_EXPORTER": metrics}
            with tracer(tmp_path, *arguments, **variables) as command:
                await wait_until(lambda: receiver.held == 1, timeout=15, description="the request")
                took = await command.stop()
            assert (command.process.returncode, receiver.count) == (0, 0), command.said
            assert took < 5, command.said
            # Spans have a thread that keeps no process from ending; the last metrics are waited for, a little.
            assert ("exporters go on although they are cancelled" in command.said) == (metrics == "otlp")
            assert "Traceback" not in command.said
            receiver.mode = "accept"
            with tracer(tmp_path, *arguments, **variables) as command:
                await wait_until(lambda: receiver.count == 1, timeout=15, description="the span")
                await command.stop()


async def test_it_ends_while_the_collector_is_away(url: str, queue_name: str, tmp_path: Path, wait_until: WaitUntil) -> None:
    """It began all the same, and said that spans wait."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add("n")
        where = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        with tracer(tmp_path, "--url", url, "--queue", queue_name, **where) as command:
            await wait_until(lambda: "tracing the queues of" in command.said, timeout=15, description="it to begin")
            assert await command.stop() < 5
    assert command.process.returncode == 0
    assert "Traceback" not in command.said
