"""Runs one driver at a time against the server: flush, preload, start a worker, take marks, end it."""

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.peers import Peer
from benchmarks.processes import Child, cpu_seconds, machine_cpu_seconds, own_cpu_seconds
from benchmarks.server import Reading, Server

#: A hundred bytes of compact JSON, the data of every job.
PAYLOAD = {"order": 1234567, "action": "charge", "customer": "c_0123456789abcdef", "total": 12950.5, "currency": "EUR"}
#: Jobs per call of a bulk add.
CHUNK = 1000
_POLL = 0.005
_PATIENCE = 60.0


class RunFailed(Exception):
    """One run gave no figure; the message says why, and the session goes on without it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything that is read at one end of a window."""

    jobs: int
    at: float
    worker_cpu: float
    machine_cpu: float
    own_cpu: float
    server: Reading


class Harness:
    """The server, the tick file and the drivers' environment."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __enter__(self) -> Self:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="eventq-benchmarks-", dir=memory)
        self._ticks = Path(self._folder.name, "ticks")
        self._log = Path(self._folder.name, "log")
        self._env = os.environ | {
            "BENCH_URL": self.server.url,
            "BENCH_TICKS": str(self._ticks),
            "BENCH_PAYLOAD": json.dumps(PAYLOAD),
            "BENCH_CHUNK": str(CHUNK),
            "NODE_ENV": "production",
        }
        self.flush()
        return self

    def __exit__(self, *_error: object) -> None:
        self._folder.cleanup()

    def flush(self) -> None:
        """Start from an empty server and an empty tick file."""
        self.server.flush()
        self._ticks.write_bytes(b"")

    def jobs_done(self) -> int:
        """Jobs whose body ran since the flush."""
        return self._ticks.stat().st_size

    def produce(self, peer: Peer, *args: object) -> dict[str, Any]:
        """Run a driver that adds jobs, to its end, and return what it printed."""
        with self._log.open("wb") as log, Child(peer.command(*args), log=log, cwd=peer.cwd, env=self._env) as child:
            try:
                child.wait(timeout=10 * _PATIENCE)
            except subprocess.TimeoutExpired:
                raise RunFailed(f"{args[0]} did not end") from None
        try:
            printed: dict[str, Any] = json.loads(self._log.read_text().strip().splitlines()[-1])
        except (IndexError, ValueError):
            raise RunFailed(f"{args[0]} printed no figures: {self._complaint()}") from None
        return printed

    @contextmanager
    def working(self, peer: Peer, concurrency: int) -> Generator[Child]:
        """A worker process of `peer`, ended on the way out."""
        argv = peer.command("work", concurrency)
        with self._log.open("wb") as log, Child(argv, log=log, cwd=peer.cwd, env=self._env) as child:
            yield child

    def wait_for_jobs(self, worker: Child, n: int, deadline: float) -> bool:
        """Wait until `n` jobs ran; false when the deadline passed first."""
        while self.jobs_done() < n:
            if worker.ended:
                raise RunFailed(f"the worker ended: {self._complaint()}")
            if time.perf_counter() >= deadline:
                return False
            time.sleep(_POLL)
        return True

    def _complaint(self) -> str:
        """The line of a driver's output that says what went wrong."""
        lines = self._log.read_text().strip().splitlines() or ["it printed nothing"]
        errors = [line for line in lines if re.match(r"(\w|\.)*Error\b", line)]
        return (errors or lines)[-1]

    def mark(self, worker: Child) -> Mark:
        """Read all the counters now."""
        return Mark(
            jobs=self.jobs_done(),
            at=time.perf_counter(),
            worker_cpu=cpu_seconds(worker.pid),
            machine_cpu=machine_cpu_seconds(),
            own_cpu=own_cpu_seconds(),
            server=self.server.read(),
        )

    def window(self, worker: Child, begin: int, end: int, seconds: float) -> tuple[Mark, Mark]:
        """Marks at job `begin` and at job `end` or `seconds` later, whichever is first."""
        if not self.wait_for_jobs(worker, begin, time.perf_counter() + _PATIENCE):
            raise RunFailed(f"only {self.jobs_done()} of {begin} warming jobs in {_PATIENCE:.0f} s")
        first = self.mark(worker)
        self.wait_for_jobs(worker, end, first.at + seconds)
        last = self.mark(worker)
        if last.jobs <= first.jobs:
            raise RunFailed("no job ran in the window")
        return first, last
