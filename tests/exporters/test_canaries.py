"""Secrets in processes as users run them, at the most talkative log level: whatever is said, shown, sent or named is searched.

What opens a connection (user, password, headers of OTLP) is in none of it. What a job holds (data, result, progress, log lines,
what its exception says) is only where it is documented: `eventq job`, `eventq events`, a worker's log line for an error's message,
spans of what an exception said.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import redis
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from eventq import EventqError, JobQueue, Queue, QueueScheduler, SyncQueue, Worker
from eventq.commands.core import Verb
from eventq_opentelemetry import StreamTracer
from eventq_prometheus import PrometheusExporter

from ..servers import free_port
from .otlp import OtlpReceiver
from .scrapes import fetch
from .test_command import answering
from .test_tracer_command import CLEAN, variables_for

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import MakeServer, WaitUntil

pytestmark = pytest.mark.full

USER, PASSWORD, HEADER = "canary-user-1", "canary-password-2", "canary-header-3"
DATA, RESULT, LARGE, PROGRESS, LINE, MESSAGE = (f"canary-{what}" for what in ("data", "result", "large", "progress", "line", "message"))  # fmt: skip
CONNECTING = (USER, PASSWORD, HEADER)
OF_JOBS = (DATA, RESULT, LARGE, PROGRESS, LINE)

SHOP = f"""
from eventq import Worker

async def fine(job):
    job.update_progress({{"at": "{PROGRESS}"}})
    await job.log("{LINE}")
    return "{LARGE}" * 100 if job.data["n"] else "{RESULT}"

async def fails(job):
    secret = job.data
    raise ValueError("{MESSAGE}")

worker = Worker("canaries", {{"fine": fine, "fails": fails}}, concurrency=2)
"""


def run(*words: str, **environment: str) -> str:
    """Run a command to its end; return all that it said."""
    command = [sys.executable, "-m", "eventq", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=CLEAN | environment)
    return f"{done.stdout}\n{done.stderr}"


def leaks(said: dict[str, str], canaries: tuple[str, ...]) -> list[str]:
    """Return which canary is in what."""
    return [f"{canary} in {where}: {text[max(0, text.find(canary) - 200) :][:300]}" for where, text in said.items() for canary in canaries if canary in text]  # fmt: skip


def repeated(url: str) -> str:
    """Return what every public object says of itself, and what a failure says, cause and context and all."""
    objects: list[Any] = [Queue("q", url=url), SyncQueue("q", url=url), Worker("q", print, url=url), QueueScheduler("q", url=url), JobQueue("q", object, print, url=url), PrometheusExporter(url=url), StreamTracer(InMemorySpanExporter(), url=url)]  # fmt: skip
    said = [f"{each!r} {each}" for each in objects] + [repr(getattr(each, "context", "")) for each in objects]
    try:
        with SyncQueue("q", url=url) as queue:
            queue.count()
    except EventqError:
        said.append(traceback.format_exc())
    return "\n".join(said)


def start(words: list[str], said: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a command that writes all it says into a file."""
    with said.open("wb") as file:
        return subprocess.Popen([sys.executable, "-m", "eventq", *words], env=CLEAN | environment, stdout=file, stderr=file)


async def watched(folder: Path, environment: dict[str, str], logs: list[str], wait_until: WaitUntil) -> dict[str, str]:
    """Run exporter and tracer until everything is told; return what they said, showed and sent."""
    said: dict[str, str] = {}
    port = free_port()
    with OtlpReceiver("http/protobuf") as receiver:
        headers = {"OTEL_EXPORTER_OTLP_HEADERS": f"api-key={HEADER}", "OTEL_LOGS_EXPORTER": "otlp"}
        commands = {"tracer": ["tracer", *logs], "exporter": ["exporter", "--listen", f"127.0.0.1:{port}", *logs]}
        processes = [
            start(words, folder / name, environment | variables_for(receiver) | headers) for name, words in commands.items()
        ]
        try:
            await asyncio.to_thread(answering, port, 30)
            await wait_until(lambda: len(receiver.spans) >= 7, timeout=30, description="spans")
            for path in ("/metrics", "/", "/readyz"):
                said[f"exporter {path}"] = str(await asyncio.to_thread(fetch, port, path))
        finally:
            for process in processes:
                process.terminate()
                await asyncio.to_thread(process.wait, 30)
        said["spans"] = b"".join(span.raw for span in receiver.spans).decode("latin-1")
    return said | {name: (folder / name).read_text() for name in commands}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_secret_is_anywhere(make_server: MakeServer, tmp_path: Path, wait_until: WaitUntil, form: str) -> None:
    """One run of everything, and of everything with a password that is wrong."""
    server = make_server()
    with redis.Redis(port=server.port) as client:
        client.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")
    url, wrong = (f"redis://{USER}:{word}@127.0.0.1:{server.port}/0" for word in (PASSWORD, f"{PASSWORD}-wrong"))
    (tmp_path / "shop.py").write_text(SHOP)
    logs, environment = ["--log-level", "debug", "--log-format", form], {"EVENTQ_URL": url, "PYTHONPATH": str(tmp_path)}

    async def command(*words: str, **more: str) -> str:
        return await asyncio.to_thread(run, *words, **{**environment, **more})

    async with Queue[Any, Any]("canaries", url=url) as queue:
        small = await queue.add("fine", {"secret": DATA, "n": 0})
        await queue.add("fine", {"secret": DATA, "n": 1})
        bad = await queue.add("fails", {"secret": DATA}, attempts=2)
        said = {"worker": await command("worker", "shop:worker", "--burst", *logs)}
        said |= await watched(tmp_path, environment, logs, wait_until)
        for words in ("queues", "jobs canaries", "jobs canaries --json", "doctor", "schedules canaries"):
            said[words] = await command(*words.split())
        connections = await queue.context.runner.run_verb(Verb(("CLIENT", "LIST"), str))
    said["CLIENT LIST"] = connections.replace(f"user={USER}", "")
    documented = {
        "job": await command("job", "canaries", small.id),
        "failed": await command("job", "canaries", bad.id),
        "events": await command("events", "canaries", "--consumer", "canary", "--count", "12"),
    }
    for words in ("worker shop:worker --burst", "queues", "doctor", "tracer", "exporter --listen 127.0.0.1:0"):
        said[f"{words}, refused"] = await command(*words.split(), EVENTQ_URL=wrong, OTEL_TRACES_EXPORTER="otlp")
    for each in (url, wrong):
        said[f"objects, {each == url}"] = await asyncio.to_thread(repeated, each)
    assert leaks(said | documented, CONNECTING) == []
    assert leaks(said, OF_JOBS) == []
    assert all(text in documented["job"] for text in (DATA, RESULT, PROGRESS, LINE)), documented["job"]
    assert MESSAGE in documented["failed"] and RESULT in documented["events"] and DATA not in documented["events"]
    assert MESSAGE in said["worker"] and MESSAGE in said["spans"]
    silent = {name: text for name, text in said.items() if name.startswith(("exporter", "tracer", "CLIENT", "queues", "doctor"))}
    assert leaks(silent, (MESSAGE,)) == []
