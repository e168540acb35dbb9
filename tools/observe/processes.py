"""Programs in the background: started, waited for until they answer, ended in the reverse order."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

__all__ = ["Failed", "Family", "Stopped", "choose_port"]

#: Seconds that a program may take until it answers, and to end when it is asked to.
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
LOOK_EVERY: Final = 0.05
#: Below the range that the kernel hands out for outgoing connections.
_PORTS: Final = range(20_000, 32_000)
#: Ends a program when the other end of its input is closed: by us, however we end.
_GUARD: Final = 'while read -r _; do :; done; kill -9 "$0"'


class Failed(Exception):
    """A program did not start, or ended by itself; the message ends with what it said last."""


class Stopped(Exception):
    """We were told to stop while we waited for a program."""


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    guard: subprocess.Popen[bytes]
    log: Path

    def failure(self, what: str) -> Failed:
        said = self.log.read_text(errors="replace").splitlines()[-10:] if self.log.exists() else []
        return Failed("\n".join([f"{self.name} {what}", *said]))


class Family:
    """The programs that run. `with`: at its end all of them have ended. stopping: set when we are told to stop."""

    def __init__(self, logs: Path, stopping: threading.Event) -> None:
        self._logs = logs
        self._stopping = stopping
        self._children: list[_Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for child in reversed(self._children):
            child.process.terminate()
        for child in reversed(self._children):
            # Before the program is waited for: from then on its id may be a stranger's.
            child.guard.kill()
            child.guard.communicate()
            try:
                child.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def start(
        self, name: str, command: Sequence[str], *, is_shown: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a program. What it prints goes to a file, or, if it is shown, where our own output goes."""
        log = self.log(name)
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=None if is_shown else file,
                stderr=subprocess.STDOUT if not is_shown else None,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C is for us, who end them in order
            )
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, str(process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._children.append(_Child(name, process, guard, log))

    def log(self, name: str) -> Path:
        """Return the file that gets what a program of this name prints, unless it is shown."""
        return self._logs / f"{name}.log"

    def wait_for(self, url: str) -> None:
        """Return once the program that was started last answers there. Raises Failed, Stopped."""
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            self.check()
            if self._stopping.wait(LOOK_EVERY):
                raise Stopped
            if time.monotonic() > deadline:
                raise self._children[-1].failure(f"does not answer at {url}")
        self.check()

    def check(self) -> None:
        """Raise Failed if one of them ended by itself."""
        for child in self._children:
            status = child.process.poll()
            if status is not None:
                how = f"ended with exit code {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
                raise child.failure(how)


def choose_port(wanted: int, held: contextlib.ExitStack) -> int:
    """Return that port of loopback if it is free, else another one that is. While `held` is open nobody else is given it here."""
    for port in (wanted, *random.SystemRandom().sample(_PORTS, 50)):
        with contextlib.ExitStack() as taken:
            # The program takes the TCP port, in a while. The UDP port of the same number says until then that it is promised.
            promise = taken.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            probe = socket.socket()
            with probe, contextlib.suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                promise.bind(("127.0.0.1", port))
                held.push(taken.pop_all())
                return port
    raise Failed("no port of 51 tried on 127.0.0.1 is free")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
