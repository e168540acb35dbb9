"""`eventq exporter` as a process: serves until it is told to stop, and says in one line what it cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Queue

from ..servers import free_port
from .scrapes import fetch, read, scrape, total

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from ..conftest import MakeServer, WaitUntil

EVENTQ = [sys.executable, "-m", "eventq", "exporter"]


@contextlib.contextmanager
def command(*arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run the command while the block runs; it is told to stop afterwards, if it goes on."""
    process = subprocess.Popen([*EVENTQ, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(*arguments: str, timeout: float = 30, **environment: str) -> tuple[int, str, str]:
    """Run the command to its end."""
    done = subprocess.run(
        [*EVENTQ, *arguments], capture_output=True, text=True, timeout=timeout, check=False, env=os.environ | environment
    )
    return done.returncode, done.stdout, done.stderr


def answering(port: int, timeout: float = 15) -> None:
    """Return once somebody answers there."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            fetch(port, "/livez")
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)  # sleep-ok: a port gives no news
        else:
            return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_until_it_is_told_to_stop(
    url: str, queue_name: str, number: signal.Signals, wait_until: WaitUntil
) -> None:
    """Exit code 0; the first line says where, of what, and how many series that makes."""
    port = free_port()
    async with Queue(queue_name, url=url) as queue:
        await queue.add("n")
        with command("--url", url, "--listen", f"127.0.0.1:{port}", "--queue", queue_name) as process:
            await asyncio.to_thread(answering, port)

            async def is_there() -> bool:
                return total(await scrape(port, {}), "eventq_jobs_added_total", queue=queue_name) == 1

            await wait_until(is_there, description="the job")
            process.send_signal(number)
            _, said = await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 0
    (line,) = said.splitlines()
    assert f"http://127.0.0.1:{port}/metrics of {url}: about" in line and "series now" in line


async def test_defaults(url: str, queue_name: str) -> None:
    """The port is its own, on loopback; EVENTQ_URL says where the server is."""
    help_text = ended("--help", COLUMNS="200")[1]
    assert "127.0.0.1:10650" in help_text and "prometheus" in help_text
    port = free_port()
    os.environ["EVENTQ_URL"], before = url, os.environ.get("EVENTQ_URL")
    try:
        with command("--listen", f"127.0.0.1:{port}", "--log-format", "json"):
            await asyncio.to_thread(answering, port)
            assert total(await scrape(port), "eventq_up") == 1
    finally:
        os.environ.pop("EVENTQ_URL") if before is None else os.environ.update(EVENTQ_URL=before)


def test_a_port_that_is_taken(url: str) -> None:
    """Told before anything else begins."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, said = ended("--url", url, "--listen", f"127.0.0.1:{port}")
    assert (code, out) == (2, "")
    assert said == f"eventq: --listen 127.0.0.1:{port}: the port cannot be taken: Address already in use\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--listen", "nowhere"], 2, "--listen 'nowhere': must be HOST:PORT"),
        (["--queue", "a b"], 2, "queue name 'a b': must be"),
        (["--consumer", "a b"], 2, "consumer 'a b': must be"),
        (["--prefix", "a:b"], 2, "prefix 'a:b': must be"),
        (["--url", "http://x"], 2, "url 'http://x': must start with"),
        (["--web-config-file", "/no/such/file"], 2, "web config /no/such/file: cannot be read"),
        (["--what"], 2, "No such option"),
    ],
)
def test_wrong_usage(url: str, arguments: list[str], code: int, words: str) -> None:
    """One clear line, exit code 2."""
    found, out, said = ended("--url", url, "--listen", f"127.0.0.1:{free_port()}", *arguments)
    assert (found, out) == (code, "")
    assert words in said and "Traceback" not in said


def test_a_bad_web_configuration(url: str, tmp_path: Path) -> None:
    """Told in one line, before the port answers anybody without a password."""
    config = tmp_path / "web.yml"
    config.write_text("basic_auth_user: {ann: x}\n")
    code, _, said = ended("--url", url, "--listen", f"127.0.0.1:{free_port()}", "--web-config-file", str(config))
    assert code == 2
    assert said.startswith("eventq: web config") and "basic_auth_user is not supported" in said and said.count("\n") == 1


@pytest.mark.full
def test_a_server_that_is_not_there() -> None:
    """After ten seconds, in one line."""
    code, _, said = ended("--url", f"redis://127.0.0.1:{free_port()}/0", "--listen", f"127.0.0.1:{free_port()}")
    assert code == 1
    assert said.count("\n") == 1 and "no answer from redis://127.0.0.1" in said


@contextlib.asynccontextmanager
async def pretending(port: int, told: bytes, instead: bytes) -> AsyncGenerator[int]:
    """Stand between a client and a real server, and change what the server says of itself."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data.replace(told, instead) if change else data)
                await writer.drain()
        writer.close()

    tasks: set[asyncio.Task[Any]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        tasks.add(asyncio.create_task(copy(reader, back, False)))
        tasks.add(asyncio.create_task(copy(there, writer, True)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def test_a_server_that_is_too_old(make_server: MakeServer) -> None:
    """Its version and the one that is needed, in one line."""
    server = make_server()
    with redis.Redis(port=server.port) as client:
        info: Any = client.info()
    name = info.get("server_name", "redis")
    version = info[f"{name}_version"]
    old = "6" + version[1:]
    async with pretending(server.port, f"{name}_version:{version}".encode(), f"{name}_version:{old}".encode()) as port:
        arguments = ("--url", f"redis://127.0.0.1:{port}/0", "--listen", f"127.0.0.1:{free_port()}")
        code, _, said = await asyncio.to_thread(ended, *arguments)
    assert code == 2
    assert said.count("\n") == 1
    assert f"is {name} {old}: eventq needs Redis 7.0 or Valkey 7.2 at least" in said


async def test_a_server_that_evicts(make_server: MakeServer) -> None:
    """It would lose a queue some day."""
    server = make_server("--maxmemory-policy", "allkeys-lru")
    code, _, said = await asyncio.to_thread(ended, "--url", server.url, "--listen", f"127.0.0.1:{free_port()}")
    assert code == 2 and "maxmemory-policy allkeys-lru" in said and said.count("\n") == 1


async def test_a_server_that_goes_and_comes_back(make_server: MakeServer, wait_until: WaitUntil) -> None:
    """eventq_up 0 meanwhile, still answering; then it carries on."""
    server, port = make_server("--appendonly", "yes", "--appendfsync", "always"), free_port()
    async with Queue("q", url=server.url) as queue:
        await queue.add("n")
        with command("--url", server.url, "--listen", f"127.0.0.1:{port}") as process:
            await asyncio.to_thread(answering, port)

            async def shows(up: int, added: int) -> bool:
                samples = read((await asyncio.to_thread(fetch, port, "/metrics", {}))[2].decode())
                return (total(samples, "eventq_up"), total(samples, "eventq_jobs_added_total")) == (up, added)

            await wait_until(lambda: shows(1, 1), timeout=10, description="the job")
            server.kill()
            await wait_until(lambda: shows(0, 1), timeout=15, description="eventq_up 0")
            assert process.poll() is None
            server.start()
            await queue.add("n")
            await wait_until(lambda: shows(1, 2), timeout=30, description="the next job")


async def test_a_queue_that_is_not_there_yet(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """A warning, then it waits."""
    port = free_port()
    with command("--url", url, "--listen", f"127.0.0.1:{port}", "--queue", queue_name) as process:
        await asyncio.to_thread(answering, port)
        assert b"waiting for " + queue_name.encode() in (await asyncio.to_thread(fetch, port, "/readyz"))[2]
        async with Queue(queue_name, url=url) as queue:
            await queue.add("n")

            async def is_there() -> bool:
                return total(await scrape(port, {}), "eventq_jobs_added_total", queue=queue_name) == 1

            await wait_until(is_there, timeout=15, description="the queue that came")
        process.terminate()
        _, said = await asyncio.to_thread(process.communicate, timeout=20)
    assert said.count("WARNING") == 1 and f"there is no queue '{queue_name}'" in said
