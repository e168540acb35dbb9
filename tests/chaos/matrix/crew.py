"""Everybody at work in a scene, each a process of its own, forked from one that is ready; to be killed, stopped, frozen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ledger import Ledger, now_ns
from .actors import Post

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

ROOT = Path(__file__).parents[3]
#: The repository comes last on the path: processes see the installed packages, and `tests` besides.
_BOOT = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
#: Seconds that a process may take to come up, or to be gone when it was killed.
PATIENCE = 30.0


class Actor:
    """One process and what it said last."""

    def __init__(self, crew: Crew, post: Post) -> None:
        self._crew = crew
        self.post = post
        self.pid = 0
        self.code: int | None = None
        self.said: list[str] = []
        self._news = threading.Condition()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.code is None

    @property
    def failure(self) -> str:
        """What it failed with by itself; nothing if it did not."""
        return next((line for line in self.said if line.startswith("failed ")), "")

    async def expect(self, word: str, timeout: float = PATIENCE) -> str:
        """Wait until it has said a line that begins so, and return it. Fails when it ends without."""
        return await asyncio.to_thread(self._wait, word, timeout)

    async def ended(self, timeout: float = PATIENCE) -> int:
        """Wait until it has ended; return its exit code, negative when a signal ended it."""
        await asyncio.to_thread(self._wait, "exit ", timeout)
        assert self.code is not None
        return self.code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is alive."""
        self._crew.order("signal", self.pid, int(number))

    async def kill(self) -> None:
        """Kill it as nothing can be prepared for; returns when it is gone."""
        if self.is_alive:
            self._crew.ledger.died(self.pid, "kill -9", now_ns())
            self.send(signal.SIGKILL)
            await self.ended()

    async def stop(self, timeout: float = PATIENCE) -> int:
        """Ask it to stop; return its exit code."""
        self.send(signal.SIGTERM)
        return await self.ended(timeout)

    def hear(self, line: str) -> None:
        """Take a line that it said, or that is said of it."""
        with self._news:
            self.said.append(line)
            if line.startswith("exit "):
                self.code = int(line[5:])
                self._crew.ledger.died(self.pid, f"exit {self.code}")
            self._news.notify_all()

    def _wait(self, word: str, timeout: float) -> str:
        with self._news:
            found: list[str] = []

            def is_told() -> bool:
                found[:] = [line for line in self.said if line.startswith(word)]
                return bool(found) or self.code is not None

            assert self._news.wait_for(is_told, timeout), f"{self} said nothing of {word!r} for {timeout} s, but {self.said}"
            assert found, f"{self} ended without {word!r}: {self.said}"
            return found[-1]

    def __str__(self) -> str:
        return f"{self.post.name} (pid {self.pid})"


class Crew:
    """All processes of a scene. Whatever becomes of the test, none of them outlives it."""

    def __init__(self, ledger: Ledger, queue: str, seed: int) -> None:
        self.ledger = ledger
        self.actors: list[Actor] = []
        self._queue = queue
        self._seed = seed
        self._starting: dict[int, Actor] = {}
        self._by_pid: dict[int, Actor] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="eventq-crew", daemon=True)

    def __enter__(self) -> Self:
        self._log = (self.ledger.directory.parent / "crew.log").open("ab")
        self._zygote = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, str(ROOT), "tests.chaos.matrix.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C belongs to pytest, which then ends this
        )
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._zygote.stdin is not None and self._zygote.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._zygote.stdin.close()
        self._zygote.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self._zygote.stdout.close()
        self._log.close()

    @property
    def log(self) -> str:
        """What its processes wrote to stderr."""
        return (self.ledger.directory.parent / "crew.log").read_text(errors="replace")

    def start(self, program: str, url: str, name: str = "", **options: Any) -> Actor:
        """Start a process; its options are what the program knows."""
        number = len(self.actors)
        seed = self._seed * 1000 + number
        post = Post(program, name or f"{program}-{number}", self._queue, url, str(self.ledger.directory), seed, options)
        actor = Actor(self, post)
        with self._lock:
            self.actors.append(actor)
            self._starting[seed] = actor
            self._send(["start", *astuple(post)])
        return actor

    async def started(self, program: str, url: str, name: str = "", **options: Any) -> Actor:
        """Start a process and return once it says that it works."""
        actor = self.start(program, url, name, **options)
        await actor.expect("ready")
        return actor

    def of(self, program: str) -> list[Actor]:
        """Return those that do this and are alive."""
        return [actor for actor in self.actors if actor.post.program == program and actor.is_alive]

    def order(self, *order: object) -> None:
        """Tell the zygote."""
        with self._lock:
            self._send(list(order))

    def _send(self, order: list[object]) -> None:
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(order).encode() + b"\n")
        self._zygote.stdin.flush()

    def _read(self) -> None:
        assert self._zygote.stdout is not None
        for raw in self._zygote.stdout:
            pid, _, line = raw.decode().rstrip("\n").partition(" ")
            if line.startswith("up "):
                actor = self._starting.pop(int(line[3:]))
                actor.pid = int(pid)
                self._by_pid[actor.pid] = actor
            self._by_pid[int(pid)].hear(line)
