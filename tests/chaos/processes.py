"""Worker, producer and reader processes of a test: real ones, to be killed, stopped, frozen and started again.

A program is a module of `tests/chaos/programs`. Whatever becomes of the test, none of them outlives it: all are in the process
group of a guard that kills its group when a pipe ends that only the test process holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .ledger import Ledger, now_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

ROOT = Path(__file__).parents[2]
#: The repository comes last on the path: programs see the installed packages, and `tests` besides.
_BOOT = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
_GUARD = "while read -r _; do :; done; kill -9 0"


def choose_seed() -> int:
    """Return the seed of this test: SEED, or a random one. Printed, so that a failure can be replayed."""
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    print(f"SEED={seed}")
    return seed


def strain() -> float:
    """Return how many times longer work takes here now than on a machine that is ours alone: what wants to run, per core."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Process:
    """One process of a program, with what it prints."""

    def __init__(self, popen: subprocess.Popen[str], ledger: Ledger) -> None:
        self._popen = popen
        self._ledger = ledger
        self.pid = popen.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    def kill(self) -> None:
        """Kill it as nothing can be prepared for, reap it, and write the moment into the ledger."""
        began = now_ns()
        self._popen.kill()
        self._popen.wait()
        self._ledger.died(self.pid, "kill -9", began)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal: SIGTERM or SIGINT to stop it, SIGSTOP to freeze it, SIGCONT to let it go on."""
        self._popen.send_signal(number)

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        stdin = self._popen.stdin
        assert stdin is not None
        stdin.write(line + "\n")
        stdin.flush()

    async def wait(self, timeout: float) -> int:
        """Return its exit code once it has ended; raises TimeoutError."""
        async with asyncio.timeout(timeout):
            code = await asyncio.to_thread(self._popen.wait)  # a timeout of its own it would poll, 50 ms apart
        self._ledger.died(self.pid, f"exit {code}")
        return code

    async def read_line(self) -> str:
        """Return the next line that it prints, '' when it has ended."""
        stdout = self._popen.stdout
        assert stdout is not None
        return (await asyncio.to_thread(stdout.readline)).strip()

    async def expect(self, line: str) -> None:
        """Wait until it prints this line next."""
        found = await self.read_line()
        assert line == found, f"process {self.pid} printed {found!r}, not {line!r}"

    def close(self) -> None:
        """Kill it if it has not ended, and reap it."""
        if self.is_alive:
            self.kill()
        self._popen.communicate()


class Processes:
    """The processes of one test, in a group of their own."""

    def __init__(self, ledger: Ledger, queue: str, url: str) -> None:
        self._ledger = ledger
        self._queue = queue
        self._url = url
        self._guard: subprocess.Popen[bytes] | None = None
        self.started: list[Process] = []

    async def worker(self, **options: Any) -> Process:
        """Start a worker and return once it works; options are those of Worker."""
        process = self.start("worker", **options)
        await process.expect("started")
        return process

    def start(
        self, program: str, /, *, environment: Mapping[str, str] | None = None, through: Sequence[str] = (), **options: Any
    ) -> Process:
        """Start a program; its options are what the program knows, `environment` variables besides those there are, `through` a
        command that becomes the one after it.
        """
        arguments = [self._queue, self._url, str(self._ledger.directory), json.dumps(options)]
        assert self._guard is not None
        popen = subprocess.Popen(
            [*through, sys.executable, "-P", "-c", _BOOT, str(ROOT), f"tests.chaos.programs.{program}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=self._guard.pid,
            env={**os.environ, **environment} if environment else None,
        )
        self.started.append(Process(popen, self._ledger))
        return self.started[-1]

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(["sh", "-c", _GUARD], stdin=subprocess.PIPE, process_group=0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.started:
            process.close()
        if self._guard is not None:
            with contextlib.suppress(BrokenPipeError):  # somebody killed the guard: then there is nothing to tell it
                self._guard.communicate()  # its pipe ends, and with it whatever is left in the group, forked children too
